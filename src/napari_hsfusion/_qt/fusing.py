"""A fusion as the worker's thread sees it: the API's events, paced for a window. No Qt.

The engine may take hundreds of steps a second; a window is told a few times a second.
What is painted is ready-made when it arrives there.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .. import api
from .. import cube as cubes
from .._layers import composite_picture, sampled_limits
from ..figures import colour_limits, composite, composite_bands

if TYPE_CHECKING:
    from ..engine.events import CancelToken, Preview, Started

WATCH = ("composite", "band", "coefficients")
"""What can be watched while a fusion runs."""

_REPORTS = 4.0  # progress reports a second, at most: each costs a redraw of the window


@dataclass(frozen=True)
class Begun:
    """A run has begun.

    Attributes
    ----------
    stages : mapping of str to int
        Steps of each stage.
    estimate : mapping of str to float
        Expected cost.
    contrast_limits : (float, float)
        For bands of the cube.
    picture : ndarray, shape (H, W, 4), uint8
        The LR-HSI in colours, a block of pixels for one.
    """

    stages: Mapping[str, int]
    estimate: Mapping[str, float]
    contrast_limits: tuple[float, float]
    picture: np.ndarray


@dataclass(frozen=True)
class Advance:
    """Where a run stands; `losses` are those since the last report, by step."""

    stage: str
    index: int
    total: int
    losses: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Factors:
    """The estimate as it stands, in memory: coefficients (d, H, W) and basis (d, C), float32.

    `basis` holds the units of the input images.
    """

    coefficients: np.ndarray
    basis: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """Something to look at: the factors, and the picture that is being watched."""

    stage: str
    index: int
    total: int
    factors: Factors
    watched: str
    picture: np.ndarray | None


@dataclass(frozen=True)
class Fused:
    """The result: the cube, and its colour composite (H, W, 4), uint8."""

    cube: xr.DataArray
    picture: np.ndarray


@dataclass
class Look:
    """How the estimate is to be painted; the window may change `watch` at any time.

    Attributes
    ----------
    watch : str
        One of :data:`WATCH`.
    bands : tuple of int
        0-based bands shown as red, green and blue.
    limits : ndarray, shape (3, 2)
        Their stretch; that of the LR-HSI, so that the picture does not flicker.
    """

    watch: str = "composite"
    bands: tuple[int, int, int] = (0, 0, 0)
    limits: np.ndarray = field(default_factory=lambda: np.tile([0.0, 1.0], (3, 1)))

    def measure(self, lr_hsi: xr.DataArray) -> np.ndarray:
        """Choose bands and stretch for the cube that comes of an LR-HSI; give its picture."""
        self.bands = composite_bands(lr_hsi)
        values = cubes.to_physical(lr_hsi.isel(band=list(self.bands)))
        self.limits = colour_limits(values)
        return _as_picture(values, self.limits)

    def paint(self, factors: Factors, watch: str | None = None) -> np.ndarray | None:
        """Picture of what is watched: (H, W, 4) uint8, a mosaic (rows, columns), or None."""
        watch = watch or self.watch
        if watch == "composite":
            values = bands_of(factors, list(self.bands))
            return _as_picture(values, self.limits)
        if watch == "coefficients":
            return mosaic(factors.coefficients)
        return None


def _as_picture(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    return np.rint(composite(values, limits) * 255).astype(np.uint8)


@dataclass
class Pace:
    """Lets something through at most `rate` times a second."""

    rate: float
    _last: float = field(default=-1e9)

    def due(self) -> bool:
        """Whether it is time again; if so, the clock starts anew."""
        now = time.perf_counter()
        if now - self._last < 1.0 / self.rate:
            return False
        self._last = now
        return True


def bands_of(factors: Factors, bands: list[int]) -> np.ndarray:
    """Some bands of an estimate, (n, H, W), float32."""
    # einsum without its optimiser calls no BLAS, whose threads would fight the run's own
    return np.stack(
        [np.einsum("d,dhw->hw", factors.basis[:, b], factors.coefficients) for b in bands]
    )


def mosaic(coefficients: np.ndarray) -> np.ndarray:
    """Coefficient images (d, H, W) side by side, each stretched to [0, 1] between percentiles.

    Rows of ``ceil(sqrt(d))`` images; float32, NaN where there is no image.
    """
    count, height, width = coefficients.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    out = np.full((down * height, across * width), np.nan, dtype=np.float32)
    step = max(1, (height * width) // 50_000)
    for k, image in enumerate(coefficients):
        sample = image.ravel()[::step]
        low, high = np.nanpercentile(sample, (1, 99)) if np.isfinite(sample).any() else (0, 1)
        top, left = (k // across) * height, (k % across) * width
        span = (high - low) or 1.0
        out[top : top + height, left : left + width] = np.clip((image - low) / span, 0, 1)
    return out


def fusing(
    lr_hsi: xr.DataArray,
    hr_msi: xr.DataArray,
    options: Mapping[str, Any],
    look: Look,
    *,
    rate: float,
    threads: int,
    cancel: CancelToken,
) -> Generator[Begun | Advance | Snapshot, None, Fused]:
    """Fuse a pair; the worker drains this.

    Parameters
    ----------
    options : mapping
        Keywords of :func:`napari_hsfusion.api.iter_fuse`.
    look : Look
        Measured here, on the LR-HSI.
    rate : float
        Snapshots a second, at most.
    threads : int
        CPU threads of torch in this thread.

    Yields
    ------
    Begun, Advance, Snapshot
    """
    from ..engine.events import Preview, Started, Step

    reports, pictures = Pace(_REPORTS), Pace(rate)
    stage, losses = "", list[tuple[int, float]]()
    held: Preview | None = None
    drawn: Snapshot | None = None
    with torch_threads(threads):
        events = api.iter_fuse(lr_hsi, hr_msi, cancel=cancel, **options)
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    cube = stop.value
                    break
                if isinstance(event, Started):
                    yield begun(event, lr_hsi, hr_msi, look)
                elif isinstance(event, Step):
                    if event.loss is not None:
                        losses.append((event.index, event.loss))
                    last = event.index == event.total
                    if last or event.stage != stage or reports.due():
                        stage = event.stage
                        yield Advance(stage, event.index, event.total, tuple(losses))
                        losses = []
                elif isinstance(event, Preview):
                    held = event
                last = isinstance(event, Preview) and event.index == event.total
                if held is not None and (last or pictures.due()):
                    drawn, held = snapshot(held, look), None
                    yield drawn
                elif drawn is not None and drawn.watched != look.watch:
                    # something else is watched now: the estimate is drawn again
                    drawn = repainted(drawn, look)
                    yield drawn
                del event
        finally:
            events.close()
        # the run's own stretch: the last frame is one of the film
        picture, _ = composite_picture(cube, look.limits)
    return Fused(cube, picture)


def begun(event: Started, lr_hsi: xr.DataArray, hr_msi: xr.DataArray, look: Look) -> Begun:
    """Measure the pair for display."""
    small = look.measure(lr_hsi)
    ratio = hr_msi.sizes["y"] // lr_hsi.sizes["y"]
    picture = small.repeat(ratio, axis=0).repeat(ratio, axis=1)
    return Begun(dict(event.stages), dict(event.estimate), physical_limits(lr_hsi), picture)


def snapshot(event: Preview, look: Look) -> Snapshot:
    """Copy a preview off its device and paint what is watched."""
    import torch

    coefficients = event.coefficients.detach().to("cpu", torch.float32, copy=True).numpy()
    basis = (event.basis.detach() * event.scale).to("cpu", torch.float32).numpy()
    factors = Factors(coefficients, basis)
    watched = look.watch
    return Snapshot(
        event.stage, event.index, event.total, factors, watched, look.paint(factors, watched)
    )


def physical_limits(cube: xr.DataArray) -> tuple[float, float]:
    """Sampled contrast limits in physical values."""
    scale, offset = cube.attrs.get("scale_factor", 1.0), cube.attrs.get("add_offset", 0.0)
    low, high = sorted(value * scale + offset for value in sampled_limits(cube))
    return low, high


def repainted(shown: Snapshot, look: Look) -> Snapshot:
    """Draw a snapshot for what is watched now."""
    watched = look.watch
    return replace(shown, watched=watched, picture=look.paint(shown.factors, watched))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads for work that starts in this thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
