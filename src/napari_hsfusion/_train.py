"""Training of supervised methods on scenes; :mod:`.api` shows it to the world."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._numbers import checked_seed, whole_number
from .params.training import TrainingParams

if TYPE_CHECKING:
    from .engine.events import CancelToken, Measured, Preview, Started, Step


@dataclass(frozen=True)
class Surveyed:
    """The scenes of a training run are read; the training begins.

    Attributes
    ----------
    scenes : tuple of str
        Names of those that are trained on.
    skipped : tuple of (str, str)
        Names of what cannot be used, of training and validation data, with the reasons.
    wavelengths : tuple of float or None
        Band centres, nm.
    validation : mapping or None
        JSON-able: ``metric``, ``scenes``, ``shape`` and the score of what the network
        starts from, under its name.
    start : str
        That name: ``bicubic`` or ``subspace``.
    """

    scenes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    wavelengths: tuple[float, ...] | None
    validation: Mapping[str, Any] | None
    start: str


@dataclass(frozen=True)
class Trained:
    """Last event of a training run.

    Attributes
    ----------
    path : Path
        The weights.
    record : mapping
        JSON-able: the header of the weights.
    """

    path: Path
    record: Mapping[str, Any]


if TYPE_CHECKING:
    TrainEvent = Started | Surveyed | Step | Preview | Measured | Trained


def iter_train(
    data: Any,
    out: str | os.PathLike[str],
    *,
    method: str = "emr-diff",
    val: Any = None,
    scale: int = 8,
    psf: Any = "gauss3-bicubic",
    srf: Any = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    init: str | os.PathLike[str] | None = None,
    design: Mapping[str, Any] | None = None,
    params: TrainingParams | Mapping[str, Any] | None = None,
    cancel: CancelToken | None = None,
    **settings: Any,
) -> Generator[TrainEvent, None, Trained]:
    """Train a supervised method, yielding events; the generator returns the last one.

    Parameters
    ----------
    data, out, method, val, scale, psf, srf, seed, device, resume, overwrite, init, design
        As :func:`train` takes them.
    params, cancel
        As :func:`train` takes them.
    **settings
        Training parameters by name.

    Returns
    -------
    Trained

    Yields
    ------
    Started, Surveyed, Step, Preview, Measured, Trained
        Previews are of the first validation scene.

    Raises
    ------
    HSFusionError
        As :func:`train` raises them.
    """
    from ._training.run import training_events
    from .engine.events import CancelToken

    values = _parameters(params, settings)
    return (
        yield from training_events(
            data,
            Path(out),
            method=method,
            val=val,
            scale=whole_number(scale, "scale", 1),
            psf=psf,
            srf=srf,
            seed=checked_seed(seed),
            device=device,
            resume=resume,
            overwrite=overwrite,
            init=None if init is None else Path(init),
            design=dict(design or {}),
            values=values,
            cancel=cancel if cancel is not None else CancelToken(),
        )
    )


def train(
    data: Any,
    out: str | os.PathLike[str],
    *,
    progress: Callable[[TrainEvent], object] | None = None,
    **options: Any,
) -> Trained:
    """Train a supervised method on scenes, and write its weights.

    Beside NAME.safetensors appear NAME.state.safetensors, from which an interrupted
    run goes on, NAME.csv and NAME.png with the learning curve.

    Parameters
    ----------
    data : path, xarray.DataArray, or iterable of them
        Reference cubes: folders that are searched through, files, cubes. What cannot
        be used is listed under ``skipped`` in the record.
    out : path
        Weights to write, NAME.safetensors; also whenever a trial is the best so far.
    progress : callable, optional
        Called with every event.
    **options
        ``method`` ("emr-diff"); ``val``, validation scenes like `data`; ``scale``, the
        ratio; ``psf`` and ``srf`` as :func:`~napari_hsfusion.api.simulate` takes them;
        ``seed``; ``device``; ``resume``, to go on with the run that made the files, if
        there are any; ``overwrite``, to start anew; ``init``, weights to start from;
        ``design``, options of the network; ``params`` and single training parameters
        of :class:`~napari_hsfusion.params.training.TrainingParams`; ``cancel``, a token.

    Returns
    -------
    Trained
        ``path`` and ``record``, the header of the weights.

    Raises
    ------
    ParameterError
        If an option is unknown or out of range, no scene can be used, or files of an
        earlier run are there.
    WeightsError
        If `init` or the state to resume from is damaged or of another kind.
    TrainingError
        If the training diverges.
    WriteError
        If a file cannot be written.
    Cancelled
        If `cancel` was set; the state is kept.
    """
    events = iter_train(data, out, **options)
    try:
        while True:
            event = next(events)
            if progress is not None:
                progress(event)
    except StopIteration as stop:
        done: Trained = stop.value
        return done
    finally:
        events.close()


def _parameters(
    params: TrainingParams | Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> TrainingParams:
    if isinstance(params, TrainingParams):
        return TrainingParams.from_settings(settings, base=params)
    return TrainingParams.from_settings({**(params or {}), **settings})
