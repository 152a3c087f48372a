"""Crops of scenes and what two sensors see of them, degraded on the fly.

A crop is read with a margin, so that its coarse pixels, their upsampling and its edge
map are those of the degraded whole scene; where the crop meets the scene's border, so
does the margin, and the border continues as the scene's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._responses import spatial_operator
from ..engine.diffusion.edges import edge_magnitude, edge_map
from ..engine.emr.batch import Batch
from ..engine.events import CancelToken
from ..engine.operators import SpatialDegradation
from ..engine.validity import fill_invalid
from ..errors import CubeError, ParameterError
from .scenes import Scene, SceneSet
from .sensors import Sensors
from .starts import subspace_start
from .windows import Window

_ATTEMPTS = 100
_SEEDS = 2**62


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
    start : {"bicubic", "subspace"}
        What ``up`` of a batch is: the upsampled LR-HSI, or the closed-form estimate of
        the pair. That is taken of the whole scene where the scene is kept in memory
        and no noise is drawn anew for every crop, else of the crop and its margin.
    """

    def __init__(
        self,
        scenes: SceneSet,
        sensors: Sensors,
        *,
        patch: int,
        turns: bool = True,
        start: str = "bicubic",
    ) -> None:
        if start not in ("bicubic", "subspace"):
            raise ParameterError(f"start: expected bicubic or subspace, got {start!r}")
        self.start = start
        self.scenes = scenes.scenes
        self.sensors = sensors
        self.patch = patch
        self.turns = turns
        self._margin = sensors.margin()
        self._response = torch.from_numpy(np.ascontiguousarray(sensors.response))
        self._operators: dict[tuple[int, int], SpatialDegradation] = {}
        self._figures: dict[int, _Figures] = {}
        self._starts: dict[int, npt.NDArray[np.float16]] = {}
        pixels = np.array([s.shape[1] * s.shape[2] for s in self.scenes], dtype=np.float64)
        self._upto = torch.from_numpy(np.cumsum(pixels) / pixels.sum())

    def survey(self, cancel: CancelToken) -> Iterator[int]:
        """Measure every scene now rather than when it is first drawn.

        Parameters
        ----------
        cancel : CancelToken
            Looked at before every scene.

        Yields
        ------
        int
            Scenes measured so far.
        """
        for index, scene in enumerate(self.scenes):
            cancel.check()
            self._figures_of(index)
            kept = scene.stored is not None and self.sensors.snr is None
            if self.start == "subspace" and kept:
                whole = self._whole_start(scene)
                if whole is not None:
                    # rounding is 77 dB below the largest value, far below what is learnt
                    self._starts[index] = whole.numpy().astype(np.float16)
            yield index + 1

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
            up = self._started(index, window, turn, coarse, msi, spatial)
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

    def _whole_start(self, scene: Scene) -> Tensor | None:
        """Closed-form estimate of a scene without noise; None where gaps touch all of X.

        Gaps are left out of the estimate and filled, as at a fusion.
        """
        _, rows, columns = scene.shape
        values = Window.of(scene, (0, rows), (0, columns), 0).read(scene)
        known = np.asarray(np.isfinite(values).all(0))
        spatial = self.operator((rows, columns))
        seen = ~spatial.footprint(~known)
        if not seen.any():
            return None
        clean = torch.from_numpy(fill_invalid(values, known).astype(np.float32))
        coarse, msi = spatial.forward(clean), self._project(clean)
        return subspace_start(coarse, msi, spatial, self.sensors, (0.0, 0.0), (seen, known))

    def _started(
        self,
        index: int,
        window: Window,
        turn: int,
        coarse: Tensor,
        msi: Tensor,
        spatial: SpatialDegradation,
    ) -> Tensor:
        if self.start == "bicubic":
            return spatial.upsample(coarse)
        if index in self._starts:
            part = self._starts[index][:, slice(*window.rows), slice(*window.columns)]
            return _turned(torch.from_numpy(part.astype(np.float32)).to(coarse.device), turn)
        figures = self._figures_of(index)
        sigmas = figures.sigma_x, figures.sigma_y
        return subspace_start(coarse, msi, spatial, self.sensors, sigmas)

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
            ratio = 10 ** (self.sensors.snr / 10)
            sigma_x, sigma_y = (float(np.sqrt(p / ratio)) for p in self._powers(scene))
        generator = torch.Generator().manual_seed(index)
        low, high = np.inf, -np.inf
        for rows, columns in scene.tiles():
            window = Window.of(scene, rows, columns, 1)
            clean = torch.from_numpy(window.read(scene))
            known = torch.isfinite(clean).all(0)
            msi = _noisy(self._project(clean.nan_to_num(0.0)), sigma_y, generator)
            # the margin is there for its neighbours: it lacks neighbours of its own
            (top, left), (bottom, right) = window.before, window.after
            inner = slice(top, len(known) - bottom), slice(left, known.shape[1] - right)
            magnitude = edge_magnitude(msi[None])[0, 0][inner]
            magnitude = magnitude[_far_from(~known)[inner]]
            if magnitude.numel():
                low, high = min(low, float(magnitude.min())), max(high, float(magnitude.max()))
        return _Figures(low, high, sigma_x, sigma_y)

    def _powers(self, scene: Scene) -> tuple[float, float]:
        """Mean squares of LR-HSI and HR-MSI, over pixels that no gap contributes to."""
        totals, counts = [0.0, 0.0], [0, 0]
        for rows, columns in scene.tiles():
            clean = torch.from_numpy(Window.of(scene, rows, columns, 0).read(scene))
            known = torch.isfinite(clean).all(0)
            clean = clean.nan_to_num(0.0)
            spatial = self.operator(clean.shape[-2:])
            seen = torch.from_numpy(~spatial.footprint((~known).numpy()))
            images = spatial.forward(clean)[:, seen], self._project(clean)[:, known]
            for which, values in enumerate(images):
                totals[which] += float(values.double().square().sum())
                counts[which] += values.numel()
        power_x, power_y = (t / n if n else 0.0 for t, n in zip(totals, counts, strict=True))
        return power_x, power_y


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
