"""Crops of scenes and what two sensors see of them, degraded on the fly.

A crop is read with a margin, so that its coarse pixels, their upsampling and its edge
map are those of the degraded whole scene; where the crop meets the scene's border, so
does the margin, and the border continues as the scene's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._responses import effective_kernel, psf_note, spatial_operator
from ..engine.diffusion.edges import edge_magnitude, edge_map
from ..engine.emr.batch import Batch
from ..engine.operators import SpatialDegradation
from ..errors import CubeError
from ..sensors.psf import PSF
from .scenes import Scene, SceneSet

_ATTEMPTS = 100
_UP_REACH = 2  # coarse pixels that cubic interpolation looks at, to either side
_SEEDS = 2**62


@dataclass(frozen=True)
class Sensors:
    """Two sensors: their ratio, blur, spectral response and noise.

    Attributes
    ----------
    ratio : int
    psf : PSF
    response : ndarray, shape (c, C)
    snr : float or None
        Signal-to-noise ratio of either image, dB; None without noise.
    """

    ratio: int
    psf: PSF
    response: npt.NDArray[np.float64]
    snr: float | None = None

    def margin(self) -> int:
        """Fine pixels around a crop that its coarse pixels and their upsampling see."""
        note = psf_note(self.psf)
        kernel = effective_kernel(self.psf if isinstance(note, str) else note, self.ratio)
        reach = 0
        for first, taps in zip(kernel.first, kernel.weights.shape, strict=True):
            reach = max(reach, -first, first + taps - self.ratio)
        return self.ratio * (_UP_REACH + -(-reach // self.ratio))


@dataclass(frozen=True)
class _Figures:
    """What is known of a whole scene: extremes of the edge magnitude, noise levels."""

    low: float
    high: float
    sigma_x: float
    sigma_y: float


class Crops:
    """Draws batches of crops from scenes.

    Parameters
    ----------
    scenes : SceneSet
    sensors : Sensors
    patch : int
        Side of a crop, a multiple of the ratio.
    turns : bool
        Mirror and turn crops by right angles at random.
    """

    def __init__(
        self, scenes: SceneSet, sensors: Sensors, *, patch: int, turns: bool = True
    ) -> None:
        self.scenes = scenes.scenes
        self.sensors = sensors
        self.patch = patch
        self.turns = turns
        self._margin = sensors.margin()
        self._response = torch.from_numpy(np.ascontiguousarray(sensors.response))
        self._operators: dict[tuple[int, int], SpatialDegradation] = {}
        self._figures: dict[int, _Figures] = {}
        pixels = np.array([s.shape[1] * s.shape[2] for s in self.scenes], dtype=np.float64)
        self._upto = torch.from_numpy(np.cumsum(pixels) / pixels.sum())

    def survey(self) -> None:
        """Measure every scene now rather than when it is first drawn."""
        for index in range(len(self.scenes)):
            self._figures_of(index)

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        device: torch.device | None = None,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> Batch:
        """Draw one batch.

        Parameters
        ----------
        count : int
            Crops of every process.
        generator : torch.Generator
            On the CPU, in the same state in every process; it moves on by one draw.
        device : torch.device, optional
            Where to degrade; the CPU by default.
        rank, world : int
            This process, of how many: it gets crops ``rank count …`` of
            ``world count`` that one process alone would get.

        Raises
        ------
        CubeError
            If scenes have hardly a patch without missing values.
        """
        seeds = torch.randint(_SEEDS, (world * count,), generator=generator).tolist()
        own = seeds[rank * count : (rank + 1) * count]
        return stack([self._crop(torch.Generator().manual_seed(seed), device) for seed in own])

    def whole(self, index: int) -> Batch:
        """Give a whole scene as a batch of one; noise, if any, is the same every time.

        Parameters
        ----------
        index : int
            Of the scene, without missing values.
        """
        scene = self.scenes[index]
        _, rows, columns = scene.shape
        window = Window.of(scene, (0, rows), (0, columns), 0)
        clean = torch.from_numpy(window.read(scene))
        generator = torch.Generator().manual_seed(index)
        return self._degraded(clean, window, (rows, columns), index, 0, generator, None)

    def _crop(self, generator: torch.Generator, device: torch.device | None) -> Batch:
        for _ in range(_ATTEMPTS):
            place = torch.rand((), generator=generator, dtype=torch.float64)
            index = min(int(torch.searchsorted(self._upto, place)), len(self.scenes) - 1)
            scene, ratio = self.scenes[index], self.sensors.ratio
            top, left = (
                ratio * int(torch.randint((n - self.patch) // ratio + 1, (), generator=generator))
                for n in scene.shape[1:]
            )
            turn = int(torch.randint(8, (), generator=generator)) if self.turns else 0
            window = Window.around(scene, top, left, self.patch, self._margin)
            clean = torch.from_numpy(window.read(scene))
            if bool(torch.isfinite(clean).all()):
                size = (self.patch, self.patch)
                return self._degraded(clean, window, size, index, turn, generator, device)
        raise CubeError(
            f"no crop of {self.patch} x {self.patch} pixels without missing values was found in "
            f"{_ATTEMPTS} attempts; give a smaller patch, or scenes with fewer gaps"
        )

    def _degraded(
        self,
        clean: Tensor,
        window: Window,
        size: tuple[int, int],
        index: int,
        turn: int,
        generator: torch.Generator,
        device: torch.device | None,
    ) -> Batch:
        figures = self._figures_of(index)
        clean = _turned(clean.to(device), turn)
        y, x = _turned_offset(window, turn)
        rows = slice(y, y + size[0])
        columns = slice(x, x + size[1])
        s = self.sensors.ratio
        with torch.autocast(clean.device.type, enabled=False):
            spatial = self.operator(clean.shape[-2:])
            coarse = _noisy(spatial.forward(clean), figures.sigma_x, generator)
            msi = _noisy(self._project(clean), figures.sigma_y, generator)
            up = spatial.upsample(coarse)
            low, high = (
                torch.tensor([v], device=clean.device) for v in (figures.low, figures.high)
            )
            edges = edge_map(msi[None], low, high)[0]
        return Batch(
            clean=clean[None, :, rows, columns],
            coarse=coarse[None, :, y // s : rows.stop // s, x // s : columns.stop // s],
            up=up[None, :, rows, columns],
            msi=msi[None, :, rows, columns],
            edges=edges[None, :, rows, columns],
        )

    def operator(self, shape: torch.Size | tuple[int, int]) -> SpatialDegradation:
        """Blur and decimation of images of one size; built once."""
        size = (int(shape[0]), int(shape[1]))
        if size not in self._operators:
            self._operators[size] = spatial_operator(self.sensors.psf, size, self.sensors.ratio)
        return self._operators[size]

    def _project(self, clean: Tensor) -> Tensor:
        out: Tensor = torch.tensordot(self._response.to(clean.device, clean.dtype), clean, dims=1)
        return out

    def _figures_of(self, index: int) -> _Figures:
        if index not in self._figures:
            self._figures[index] = self._measured(self.scenes[index], index)
        return self._figures[index]

    def _measured(self, scene: Scene, index: int) -> _Figures:
        sigma_x = sigma_y = 0.0
        if self.sensors.snr is not None:
            power_x = self._mean(scene, lambda c: self.operator(c.shape[-2:]).forward(c).square())
            power_y = self._mean(scene, lambda c: self._project(c).square())
            sigma_x, sigma_y = (
                float(np.sqrt(p / 10 ** (self.sensors.snr / 10))) for p in (power_x, power_y)
            )
        generator = torch.Generator().manual_seed(index)
        low, high = np.inf, -np.inf
        for rows, columns in scene.tiles():
            window = Window.of(scene, rows, columns, 1)
            clean = torch.from_numpy(window.read(scene))
            known = torch.isfinite(clean).all(0)
            msi = _noisy(self._project(clean.nan_to_num(0.0)), sigma_y, generator)
            magnitude = edge_magnitude(msi[None])[0, 0]
            magnitude = magnitude[_far_from(~known)]
            if magnitude.numel():
                low, high = min(low, float(magnitude.min())), max(high, float(magnitude.max()))
        return _Figures(low, high, sigma_x, sigma_y)

    def _mean(self, scene: Scene, of: Callable[[Tensor], Tensor]) -> float:
        total, count = 0.0, 0
        for rows, columns in scene.tiles():
            clean = torch.from_numpy(Window.of(scene, rows, columns, 0).read(scene))
            if bool(torch.isfinite(clean).all()):
                values = of(clean).double()
                total, count = total + float(values.sum()), count + values.numel()
        return total / count if count else 0.0


@dataclass(frozen=True)
class Window:
    """A crop within its scene, and the part that is read for it.

    Attributes
    ----------
    rows, columns : (int, int)
        First pixel that is read, and the one after the last.
    before, after : (int, int)
        Margin above and left of the crop, below and right of it.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    @classmethod
    def around(cls, scene: Scene, top: int, left: int, side: int, margin: int) -> Window:
        """Window of a square crop; the margin ends at the scene's border."""
        return cls.of(scene, (top, top + side), (left, left + side), margin)

    @classmethod
    def of(
        cls, scene: Scene, rows: tuple[int, int], columns: tuple[int, int], margin: int
    ) -> Window:
        """Window of any crop."""
        _, height, width = scene.shape
        first = max(0, rows[0] - margin), max(0, columns[0] - margin)
        last = min(height, rows[1] + margin), min(width, columns[1] + margin)
        return cls(
            (first[0], last[0]),
            (first[1], last[1]),
            (rows[0] - first[0], columns[0] - first[1]),
            (last[0] - rows[1], last[1] - columns[1]),
        )

    def read(self, scene: Scene) -> npt.NDArray[np.float32]:
        """Values (C, rows, columns) divided by the scene's span."""
        values = scene.window(self.rows, self.columns)
        values /= np.float32(scene.span)
        return values


def stack(batches: list[Batch]) -> Batch:
    """One batch of several of one shape."""
    if len(batches) == 1:
        return batches[0]
    names = ("clean", "coarse", "up", "msi", "edges")
    return Batch(**{name: torch.cat([getattr(b, name) for b in batches]) for name in names})


def _turned(image: Tensor, turn: int) -> Tensor:
    """Mirror left-right (bit 1), up-down (bit 2), and exchange the axes (bit 4)."""
    flips = [-1] * (turn & 1) + [-2] * (turn >> 1 & 1)
    out = image.flip(flips) if flips else image
    return out.transpose(-1, -2).contiguous() if turn & 4 else out


def _turned_offset(window: Window, turn: int) -> tuple[int, int]:
    """First row and column of the crop in the turned window."""
    y = window.after[0] if turn & 2 else window.before[0]
    x = window.after[1] if turn & 1 else window.before[1]
    return (x, y) if turn & 4 else (y, x)


def _noisy(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    if sigma == 0.0:
        return image
    noise = torch.randn(image.shape, generator=generator, dtype=image.dtype)
    return image + sigma * noise.to(image.device)


def _far_from(missing: Tensor) -> Tensor:
    """Pixels (H, W) none of whose eight neighbours is missing."""
    near = torch.nn.functional.max_pool2d(missing[None].float(), 3, 1, 1)[0]
    return near == 0
