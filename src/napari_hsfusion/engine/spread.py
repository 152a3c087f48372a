"""How far samples of a fused cube lie apart: what a run with samples gives beside the cube.

Nothing here holds more than one sample at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from .events import CancelToken, Step

STAGE = "uncertainty"
"""Stage of a run in which samples are drawn, a step each."""

_BANDS = 16  # worked out at a time

T = TypeVar("T")


class Deviation(Protocol):
    """Standard deviation of every value of a cube, in normalised units."""

    @property
    def record(self) -> Mapping[str, Any]:
        """What the run's record says of it, JSON-able."""
        ...

    def bands(self, start: int, stop: int) -> Tensor:
        """Deviations of some bands, shape (stop - start, H, W)."""
        ...


Sampling = Callable[[int, torch.Generator, CancelToken], Generator[Step, None, Deviation]]
"""Function that draws so many samples, a step each, and returns their spread."""


@dataclass(frozen=True)
class SubspaceDeviation:
    """Deviation of ``Z = A x3 E`` from the covariance of A at every pixel.

    The variance of band b at a pixel with covariance S is ``e_b^T S e_b`` plus what lies
    outside the subspace, ``outside`` of the band times ``profile`` of the pixel; the
    deviation is its root times the factor.

    Attributes
    ----------
    covariance : Tensor, shape (d, d, H, W)
    basis : Tensor, shape (d, C)
    outside : Tensor, shape (C,)
        Variances.
    profile : Tensor, shape (H, W)
    factor : Tensor, shape (H, W), or float
    record : mapping
    """

    covariance: Tensor
    basis: Tensor
    outside: Tensor
    profile: Tensor
    factor: Tensor | float = 1.0
    record: Mapping[str, Any] = field(default_factory=dict)

    def bands(self, start: int, stop: int) -> Tensor:
        """Deviations of some bands, shape (stop - start, H, W)."""
        part = self.basis[:, start:stop].to(self.covariance)
        weights = (part[:, None] * part[None]).flatten(0, 1).T
        inside = torch.tensordot(weights, self.covariance.flatten(0, 1), dims=1)
        beyond = self.outside[start:stop].to(inside).reshape(-1, 1, 1) * self.profile
        return self.factor * (inside.clamp_(min=0.0) + beyond).sqrt_()


class CubeSpread:
    """Deviation of whole cubes about their mean (Welford, Technometrics 4:419, 1962).

    Attributes
    ----------
    record : mapping
    """

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        self.record: Mapping[str, Any] = dict(record or {})
        self._count = 0
        self._mean = self._squares = torch.empty(0)

    def add(self, cube: Tensor) -> None:
        """Take one more cube (C, H, W)."""
        if self._count == 0:
            self._mean, self._squares = torch.zeros_like(cube), torch.zeros_like(cube)
        self._count += 1
        step = cube - self._mean
        self._mean += step / self._count
        self._squares.addcmul_(step, cube - self._mean)

    def bands(self, start: int, stop: int) -> Tensor:
        """Deviations of some bands, shape (stop - start, H, W); of two cubes or more."""
        return (self._squares[start:stop] / (self._count - 1)).sqrt()


def spread_of_runs(
    draw: Callable[[torch.Generator], Tensor],
    samples: int,
    generator: torch.Generator,
    cancel: CancelToken,
) -> Generator[Step, None, CubeSpread]:
    """Spread of cubes (C, H, W) that a sampler gives with other noise every time."""
    spread = CubeSpread()
    for index in range(1, samples + 1):
        cancel.check()
        spread.add(draw(generator))
        yield Step(STAGE, index, samples)
    return spread


def drained(steps: Generator[Any, None, T]) -> T:
    """Run a generator to its end for what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: T = stop.value
            return found


def compose_deviation(deviation: Deviation, like: np.ndarray, scale: float) -> np.ndarray:
    """Deviations in input units, in shape and type of the cube `like` (C, H, W)."""
    out = np.empty_like(like)
    for start in range(0, len(out), _BANDS):
        stop = min(start + _BANDS, len(out))
        out[start:stop] = (deviation.bands(start, stop) * scale).detach().cpu().numpy()
    return out
