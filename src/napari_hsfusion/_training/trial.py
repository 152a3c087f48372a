"""Trials of a network on validation scenes, as its paper scores them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .. import cube as cubes
from ..engine.emr.batch import Batch
from ..engine.events import CancelToken, Preview, Step
from ..engine.training_state import Progress
from ..errors import CubeError, ParameterError
from ..metrics import psnr
from .crops import Crops
from .scenes import Scene, SceneSet, Skipped
from .sensors import Sensors

STAGE = "validate"

TILE = 256
"""Side of the tiles that larger scenes are restored in, pixels; the result is the same."""


class Restorer(Protocol):
    """A network that restores a scene."""

    def restore(
        self, up: Tensor, msi: Tensor, edges: Tensor, generator: torch.Generator, tile: int = 0
    ) -> Iterator[Tensor]:
        """Yield estimates (n, C, H, W); the last is the result. Tiles bound the memory."""


@dataclass(frozen=True)
class Case:
    """One validation scene: its name, the pair made of it, and its span."""

    name: str
    batch: Batch
    span: float


class Trial:
    """Mean PSNR over validation scenes; the average over bands, in dB.

    Parameters
    ----------
    scenes : SceneSet
    sensors : Sensors
    side : int or None
        Side of the central part that is restored, cut out before anything else is
        done to it; None for all.
    device : torch.device
    seed : int
        Of the sampling; every trial draws the same noise.
    cancel : CancelToken
        Looked at before every scene.
    start : {"bicubic", "subspace"}
        As :class:`~.crops.Crops` takes it.
    """

    metric = "PSNR (dB)"

    def __init__(
        self,
        scenes: SceneSet,
        sensors: Sensors,
        *,
        side: int | None,
        device: torch.device,
        seed: int,
        cancel: CancelToken,
        start: str = "bicubic",
    ) -> None:
        self._device, self._seed, self._cancel = device, seed, cancel
        self.cases: list[Case] = []
        skipped: list[Skipped] = list(scenes.skipped)
        for scene in scenes.scenes:
            try:
                part = central(scene, side, sensors.ratio)
            except CubeError as error:
                skipped.append(Skipped(scene.name, str(error)))
                continue
            whole = Crops(SceneSet((part,), ()), sensors, patch=min(part.shape[1:]), start=start)
            self.cases.append(Case(scene.name, whole.whole(0), part.span))
        if not self.cases:
            listed = "; ".join(f"{s.name}: {s.reason}" for s in skipped)
            raise CubeError(f"validation data: expected a scene without gaps, got none ({listed})")
        self.skipped = tuple(skipped)
        self.figures: dict[str, float] = {}
        self.start = start
        self.baseline = float(np.mean([_score(c.batch, c.batch.up) for c in self.cases]))

    def __call__(
        self, network: nn.Module, progress: Progress
    ) -> Generator[Preview | Step, None, float]:
        """Restore every scene; the first one's result is shown."""
        restorer: Any = network
        figures = {}
        for number, case in enumerate(self.cases, start=1):
            self._cancel.check()
            generator = torch.Generator().manual_seed(self._seed)
            batch = case.batch
            inputs = [t.to(self._device) for t in (batch.up, batch.msi, batch.edges)]
            restored = batch.up
            tile = TILE if max(restored.shape[-2:]) > TILE else 0
            for estimate in restorer.restore(*inputs, generator, tile):
                self._cancel.check()
                restored = estimate
            figures[case.name] = _score(batch, restored)
            yield Step(STAGE, number, len(self.cases), None)
            if number == 1:
                cube = restored[0].detach().float().cpu()
                basis = torch.eye(len(cube))
                yield Preview(STAGE, progress.step, progress.step, cube, basis, case.span)
        self.figures = figures
        return float(np.mean(list(figures.values())))

    def identity(self) -> dict[str, Any]:
        """JSON-able: on what a metric depends, apart from the network."""
        return {
            "scenes": [case.name for case in self.cases],
            "shape": list(self.cases[0].batch.clean.shape[1:]),
        }

    def record(self) -> dict[str, Any]:
        """JSON-able: what the scenes are and what the network starts from."""
        return {
            "metric": self.metric,
            **self.identity(),
            self.start: self.baseline,
            "skipped": [[s.name, s.reason] for s in self.skipped],
        }


def central(scene: Scene, side: int | None, ratio: int) -> Scene:
    """Central part of a scene as a scene of its own, in memory.

    Raises
    ------
    CubeError
        If a value is missing, or all are equal.
    """
    _, height, width = scene.shape
    sizes = [n if side is None else min(n, side - side % ratio) for n in (height, width)]
    top, left = ((n - k) // 2 for n, k in zip((height, width), sizes, strict=True))
    values = scene.window((top, top + sizes[0]), (left, left + sizes[1]))
    if not np.isfinite(values).all():
        raise CubeError("values are missing in its central part")
    cube = cubes.make_cube(values, wavelength=scene.wavelength, name=scene.name)
    part = Scene(scene.name, cube, values.shape, np.arange(len(values)))
    part.measure()
    return part


def check_apart(trained: SceneSet, tried: SceneSet) -> None:
    """Make sure that no scene is both trained on and tried.

    Raises
    ------
    ParameterError
        Naming the first one, whether it is the same file or a copy.
    """
    for scene in tried.scenes:
        for twin in trained.scenes:
            if _alike(scene, twin):
                raise ParameterError(
                    "validation data: expected scenes that are not trained on, got "
                    f"{scene.name}, which is {twin.name} of the training data"
                )


def _alike(one: Scene, other: Scene) -> bool:
    """Whether two scenes are of the same file, or have the same pixels."""
    if one.path and other.path and one.path.resolve() == other.path.resolve():
        return True
    if (one.shape, one.low, one.high) != (other.shape, other.low, other.high):
        return False
    return all(
        np.array_equal(one.window(*tile), other.window(*tile), equal_nan=True)
        for tile in one.tiles()
    )


def _score(batch: Batch, restored: Tensor) -> float:
    clean = batch.clean[0].float().numpy()
    return psnr(clean, restored[0].detach().float().cpu().numpy())
