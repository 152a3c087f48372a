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
    from ..engine.events import CancelToken, Preview, Started, Step

WATCH = ("composite", "band", "coefficients")
"""What can be watched while a fusion runs."""

_SHARE = 0.03  # of the time, at most, that the window draws what a run says
_LONGEST = 2.0  # seconds without a word, at most, however long the window draws


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
class Remark:
    """Something that the user should know, in whole sentences; the run goes on."""

    text: str


@dataclass(frozen=True)
class Factors:
    """The estimate as it stands, in memory: coefficients (d, H, W) and basis (d, C), float32.

    `basis` holds the units of the input images.
    """

    coefficients: np.ndarray
    basis: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    """Something to look at: the factors, and the picture that is being watched.

    `at` says where the run stands, where that was not said yet: both are drawn at once.
    """

    stage: str
    index: int
    total: int
    factors: Factors
    watched: str
    picture: np.ndarray | None
    at: Advance | None = None


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
    drawing : float
        Seconds that the window takes to draw what it is told, as it measured them.
    """

    watch: str = "composite"
    bands: tuple[int, int, int] = (0, 0, 0)
    limits: np.ndarray = field(default_factory=lambda: np.tile([0.0, 1.0], (3, 1)))
    drawing: float = 0.0
    _before: float = 0.0

    def drawn(self, seconds: float) -> None:
        """Take how long the window has drawn; the less of two, for one may be a chance."""
        self.drawing, self._before = min(seconds, self._before or seconds), seconds

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
    """Lets something through at most `rate` times a second, seldomer where it is dear."""

    rate: float
    _last: float = field(default=-1e9)

    def due(self, cost: float = 0.0, at_once: bool = False) -> bool:
        """Whether it is time again; if so, the clock starts anew.

        Parameters
        ----------
        cost : float
            Seconds that it takes to draw; a few hundredths of the time go into that.
        at_once : bool
            Do not wait.
        """
        now = time.perf_counter()
        wait = max(1.0 / self.rate, min(cost / _SHARE, _LONGEST))
        if now - self._last < wait and not at_once:
            return False
        self._last = now
        return True


class News:
    """What a run has said and the window has not been told yet.

    A step and the preview that follows it are told together, for every change in a window
    composes the whole of it anew.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._stage = ""
        self._at: Advance | None = None
        self._losses: list[tuple[int, float]] = []
        self._preview: Preview | None = None
        self._previewed = ("", 0)

    def step(self, event: Step) -> bool:
        """Take a step; whether it must be told at once: it opens or ends its stage."""
        if event.loss is not None:
            self._losses.append((event.index, event.loss))
        self._at = Advance(event.stage, event.index, event.total)
        turn = event.stage != self._stage or event.index == event.total
        self._stage = event.stage
        return turn

    def preview(self, event: Preview) -> bool:
        """Take a preview; whether it must be told at once: it ends its stage."""
        self._preview, self._previewed = event, (event.stage, event.index)
        return event.index == event.total

    @property
    def complete(self) -> bool:
        """Whether no preview is likely to follow the last step at once."""
        return self._at is None or self._previewed != (self._at.stage, self._at.index - 1)

    def tell(self) -> Advance | Snapshot | None:
        """Give all there is, and forget it."""
        at, preview = self._at, self._preview
        self._at = self._preview = None
        if at is not None:
            at = replace(at, losses=tuple(self._losses))
            self._losses = []
        return at if preview is None else snapshot(preview, self._look, at)


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
) -> Generator[Begun | Remark | Advance | Snapshot, None, Fused]:
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
    Begun, Remark, Advance, Snapshot
    """
    from ..engine.events import Notice, Preview, Started, Step

    pace, news = Pace(rate), News(look)
    drawn: Snapshot | None = None
    with torch_threads(threads):
        events = api.iter_fuse(lr_hsi, hr_msi, cancel=cancel, **options)
        try:
            while True:
                try:
                    event = next(events)
                except StopIteration as stop:
                    cube = stop.value
                    rest = news.tell()
                    break
                told: Advance | Snapshot | None = None
                if isinstance(event, Started):
                    news = News(look)  # it may start anew
                    yield begun(event, lr_hsi, hr_msi, look)
                elif isinstance(event, Notice):
                    yield Remark(event.text)
                elif isinstance(event, Step):
                    turn = news.step(event)
                    if news.complete and pace.due(look.drawing, turn):
                        told = news.tell()
                elif isinstance(event, Preview) and pace.due(look.drawing, news.preview(event)):
                    told = news.tell()
                del event
                if isinstance(told, Snapshot):
                    drawn = told
                elif drawn is not None and drawn.watched != look.watch:
                    # something else is watched now: the estimate is drawn again
                    drawn = repainted(drawn, look)
                    told = drawn if told is None else replace(drawn, at=told)
                if told is not None:
                    yield told
                del told
        finally:
            events.close()
        if rest is not None:
            yield rest
        # the run's own stretch: the last frame is one of the film
        picture, _ = composite_picture(cube, look.limits)
    return Fused(cube, picture)


def begun(event: Started, lr_hsi: xr.DataArray, hr_msi: xr.DataArray, look: Look) -> Begun:
    """Measure the pair for display."""
    small = look.measure(lr_hsi)
    ratio = hr_msi.sizes["y"] // lr_hsi.sizes["y"]
    picture = small.repeat(ratio, axis=0).repeat(ratio, axis=1)
    return Begun(dict(event.stages), dict(event.estimate), physical_limits(lr_hsi), picture)


def snapshot(event: Preview, look: Look, at: Advance | None = None) -> Snapshot:
    """Copy a preview off its device and paint what is watched."""
    import torch

    coefficients = event.coefficients.detach().to("cpu", torch.float32, copy=True).numpy()
    basis = (event.basis.detach() * event.scale).to("cpu", torch.float32).numpy()
    factors = Factors(coefficients, basis)
    watched = look.watch
    picture = look.paint(factors, watched)
    return Snapshot(event.stage, event.index, event.total, factors, watched, picture, at)


def physical_limits(cube: xr.DataArray) -> tuple[float, float]:
    """Sampled contrast limits in physical values."""
    scale, offset = cube.attrs.get("scale_factor", 1.0), cube.attrs.get("add_offset", 0.0)
    low, high = sorted(value * scale + offset for value in sampled_limits(cube))
    return low, high


def repainted(shown: Snapshot, look: Look) -> Snapshot:
    """Draw a snapshot for what is watched now."""
    watched = look.watch
    return replace(shown, watched=watched, picture=look.paint(shown.factors, watched), at=None)


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
