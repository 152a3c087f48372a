"""Parameters of the methods that train nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .base import Params, param


@dataclass(frozen=True)
class BicubicParams(Params):
    """Bicubic interpolation has nothing to set."""


@dataclass(frozen=True)
class SubspaceParams(Params):
    """Parameters of the maximum-a-posteriori estimate in a spectral subspace."""

    d: int | None = param(
        None,
        "Dimensions of the spectral subspace: singular vectors of the LR-HSI; auto takes 10, or "
        "as many as the pair has bands and pixels for.",
        low=1,
        high=512,
        unit="dimensions",
    )
    classes: int = param(
        1,
        "Classes of the HR-MSI (k-means), each with a detail covariance of its own; 1 uses one "
        "covariance for the whole scene.",
        low=1,
        high=64,
        unit="classes",
    )
    iterations: int = param(
        200,
        "Most conjugate-gradient iterations; it stops at the tolerance.",
        low=1,
        high=10_000,
        unit="iterations",
    )
    tolerance: float = param(
        1e-5,
        "Relative residual at which conjugate gradients stop.",
        low=1e-12,
        high=0.1,
    )


BICUBIC_PRESETS: Mapping[str, BicubicParams] = {"default": BicubicParams()}
SUBSPACE_PRESETS: Mapping[str, SubspaceParams] = {
    "default": SubspaceParams(),
    "classes": SubspaceParams(classes=8),
}
