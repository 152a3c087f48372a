"""What the Compare widget has computed in another thread: no layer and no widget here."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from .. import api
from .._evaluate import iter_evaluate
from ..errors import HSFusionError
from ..figures import error_limits

OBSERVED = ("hsi", "msi")
"""The two images that a residual is with, as keys of :class:`Drawn`."""


@dataclass(frozen=True)
class Task:
    """A cube to be measured.

    Attributes
    ----------
    key : int
        Tells the task in the events.
    cube : xarray.DataArray
    scale : float or None
        Ratio for ERGAS.
    """

    key: int
    cube: xr.DataArray
    scale: float | None = None


@dataclass(frozen=True)
class Measured:
    """An event: a cube is measured, or cannot be, or is on its way.

    Attributes
    ----------
    key : int
    done : float
        Share of the whole work, at most 1.
    row : dict or None
        The numbers; None on the way, and where there is a problem.
    notes : tuple of str
    problem : str
    """

    key: int
    done: float
    row: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Drawn:
    """Maps of one cube: one against a reference (key ``""``), two without one.

    Attributes
    ----------
    key : int
    maps : dict of str to ndarray, shape (rows, columns), float32
    problem : str
        Why there is none.
    """

    key: int
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Gallery:
    """All maps of one kind, and the limits that the maps of each key share."""

    drawn: tuple[Drawn, ...]
    limits: dict[str, tuple[float, float]]


def measure(
    tasks: Sequence[Task], reference: xr.DataArray, convention: str
) -> Generator[Measured, None, None]:
    """Measure cubes against a reference, metric by metric."""
    for number, task in enumerate(tasks):
        try:
            steps = iter_evaluate(reference, task.cube, task.scale, convention)
            while True:
                try:
                    share = next(steps)
                except StopIteration as stop:
                    found = stop.value
                    break
                yield Measured(task.key, (number + share) / len(tasks))
        except HSFusionError as error:
            yield Measured(task.key, (number + 1) / len(tasks), problem=str(error))
        else:
            yield Measured(task.key, (number + 1) / len(tasks), found.row, found.notes)


def assess(
    tasks: Sequence[Task], lr_hsi: xr.DataArray, hr_msi: xr.DataArray
) -> Generator[Measured, None, None]:
    """Measure cubes against the pair they were made of."""
    for number, task in enumerate(tasks, start=1):
        try:
            row = api.assess(lr_hsi, hr_msi, task.cube)
        except HSFusionError as error:
            yield Measured(task.key, number / len(tasks), problem=str(error))
        else:
            yield Measured(task.key, number / len(tasks), row)


def draw(
    tasks: Sequence[Task], reference: xr.DataArray, of: str, band: int | None
) -> Generator[float, None, Gallery]:
    """Error maps against a reference."""
    drawn = []
    for number, task in enumerate(tasks, start=1):
        try:
            image = api.error_map(reference, task.cube, of, band=band)  # type: ignore[arg-type]
            drawn.append(Drawn(task.key, {"": image}))
        except HSFusionError as error:
            drawn.append(Drawn(task.key, problem=str(error)))
        yield number / len(tasks)
    return _gallery(drawn)


def draw_residuals(
    tasks: Sequence[Task], lr_hsi: xr.DataArray, hr_msi: xr.DataArray, of: str
) -> Generator[float, None, Gallery]:
    """Maps of the residual with either observed image."""
    kind = "sam_map" if of == "sam" else "error_map"
    drawn = []
    for number, task in enumerate(tasks, start=1):
        try:
            seen = api.consistency(lr_hsi, hr_msi, task.cube)
            maps = {key: getattr(seen, f"{kind}_{key}").astype(np.float32) for key in OBSERVED}
            drawn.append(Drawn(task.key, maps))
        except HSFusionError as error:
            drawn.append(Drawn(task.key, problem=str(error)))
        yield number / len(tasks)
    return _gallery(drawn)


def _gallery(drawn: Sequence[Drawn]) -> Gallery:
    keys = dict.fromkeys(key for one in drawn for key in one.maps)
    limits = {key: error_limits([d.maps[key] for d in drawn if key in d.maps]) for key in keys}
    return Gallery(tuple(drawn), limits)
