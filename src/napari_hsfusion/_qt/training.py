"""A training run as the worker's thread sees it: the API's events, paced for a window. No Qt.

What is painted is ready-made when it arrives there.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .. import api
from .. import cube as cubes
from .._layers import composite_picture
from ..errors import HSFusionError
from ..io import open_cube
from .fusing import Advance, Look, Pace, torch_threads

if TYPE_CHECKING:
    from .._train import Surveyed, Trained
    from ..engine.events import CancelToken, Measured, Preview

TRAIN = "train"
"""Stage of the gradient steps."""

_LOOKED_AT = 50  # files of a folder that are tried for a first cube


@dataclass(frozen=True)
class Begun:
    """A run has begun: the steps of each stage, as far as they are known."""

    stages: Mapping[str, int]


@dataclass(frozen=True)
class Ready:
    """The scenes are read.

    Attributes
    ----------
    scenes : Surveyed
    losses : tuple of (int, float)
        Of the parts of the run before this one, by step.
    metrics : tuple of (int, float)
        Of their trials.
    """

    scenes: Surveyed
    losses: tuple[tuple[int, float], ...] = ()
    metrics: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Shown:
    """A validation scene as the network restores it now.

    Attributes
    ----------
    cube : xarray.DataArray
        Its central part.
    picture : ndarray, shape (H, W, 4), uint8
        In colours, with the stretch of the run's first one.
    step : int
        Of the training.
    """

    cube: xr.DataArray
    picture: np.ndarray
    step: int


if TYPE_CHECKING:
    TrainingNews = Begun | Ready | Advance | Measured | Shown


def training(
    options: Mapping[str, Any],
    look: Look,
    *,
    rate: float,
    threads: int,
    cancel: CancelToken,
) -> Generator[TrainingNews, None, Trained]:
    """Train a network; the worker drains this.

    Parameters
    ----------
    options : mapping
        Keywords of :func:`napari_hsfusion.api.iter_train`.
    look : Look
        Says what drawing costs; its stretch is measured here, on the first preview.
    rate : float
        Reports a second, at most.
    threads : int
        CPU threads of torch in this thread.
    cancel : CancelToken

    Returns
    -------
    Trained

    Yields
    ------
    Begun, Ready, Advance, Measured, Shown
    """
    from .._train import Surveyed
    from .._training.trial import STAGE
    from ..engine.events import Measured, Preview, Started, Step

    pace = Pace(rate)
    losses: list[tuple[int, float]] = []
    scenes: Surveyed | None = None
    stage, last = "", None
    first = True
    with torch_threads(threads):
        events = api.iter_train(cancel=cancel, **options)
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    done: Trained = stop.value
                    break
                if isinstance(event, Started):
                    yield Begun(dict(event.stages))
                elif isinstance(event, Surveyed):
                    scenes = event
                    yield Ready(event, *_earlier(options))
                elif isinstance(event, Step) and event.stage != STAGE:
                    if event.loss is not None:
                        losses.append((event.index, event.loss))
                    turn = event.stage != stage or event.index == event.total
                    stage, last = event.stage, event
                    if pace.due(look.drawing, turn):
                        yield Advance(event.stage, event.index, event.total, tuple(losses))
                        losses.clear()
                elif isinstance(event, Preview):
                    assert scenes is not None
                    yield _shown(event, scenes, look, first)
                    first = False
                elif isinstance(event, Measured):
                    yield event
                del event
        finally:
            # between two steps the state is saved before this returns
            events.close()
    if losses and last is not None:
        yield Advance(last.stage, last.index, last.total, tuple(losses))
    return done


def _shown(event: Preview, scenes: Surveyed, look: Look, first: bool) -> Shown:
    names = (scenes.validation or {}).get("scenes") or ["validation"]
    values = event.bands(list(range(event.basis.shape[1])))
    cube = cubes.make_cube(
        np.ascontiguousarray(values, dtype=np.float32),
        wavelength=scenes.wavelengths,
        name=str(names[0]),
    )
    if first:
        picture = look.measure(cube)
    else:
        picture, _ = composite_picture(cube, look.limits)
    return Shown(cube, picture, event.index)


def _earlier(options: Mapping[str, Any]) -> tuple[tuple[tuple[int, float], ...], ...]:
    """Losses and metrics of the parts of a run before, where it goes on."""
    from .._training.files import RunFiles
    from ..engine.training_state import read_progress

    state = RunFiles.beside(Path(options["out"])).state
    if not options.get("resume") or not state.is_file():
        return (), ()
    rows = read_progress(state).curve
    return (
        tuple((row["step"], row["loss"]) for row in rows),
        tuple((row["step"], row["metric"]) for row in rows if row["metric"] is not None),
    )


def first_cube(items: Sequence[Path | xr.DataArray]) -> xr.DataArray | None:
    """First cube of several bands among folders, files and cubes; nothing but headers is read.

    None where none of the first files is one.
    """
    for item in items:
        if isinstance(item, xr.DataArray):
            return item
        paths = item.rglob("*") if item.is_dir() else iter([item])
        files = sorted(path for path in itertools.islice(paths, 20 * _LOOKED_AT) if path.is_file())
        for file in files[:_LOOKED_AT]:
            try:
                cube = open_cube(file)
            except (HSFusionError, OSError, ValueError):
                continue
            if cube.sizes["band"] > 1:
                return cube
    return None
