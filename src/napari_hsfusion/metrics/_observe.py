"""An estimate as the two sensors would see it, next to what they saw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import CubeError, PairError, ResponseError
from ._pair import Pair, as_array, finite_pixels, prepare

SpatialForward = Callable[[np.ndarray], Any]

_CHUNK_VALUES = 1 << 24
_TOUCHED = 1e-6


def low_pair(x: Any, estimate: np.ndarray, spatial_forward: SpatialForward) -> Pair:
    """X and H(estimate)."""
    coarse = as_array(x, "LR-HSI")
    if coarse.shape[0] != estimate.shape[0]:
        raise PairError(
            f"LR-HSI and estimate must have as many bands: got {coarse.shape} and {estimate.shape}"
        )
    degraded = degrade(estimate, spatial_forward, coarse.shape[1:], "estimate")
    return prepare(coarse, degraded, names=("LR-HSI", "H(estimate)"))


def high_pair(y: Any, estimate: np.ndarray, response: Any) -> Pair:
    """Y and the estimate ×3 R."""
    sharp = as_array(y, "HR-MSI")
    if sharp.shape[1:] != estimate.shape[1:]:
        raise PairError(
            f"HR-MSI and estimate must have one size: got {sharp.shape} and {estimate.shape}"
        )
    projected = project(estimate, response, sharp.shape[0], "estimate")
    return prepare(sharp, projected, names=("HR-MSI", "estimate × SRF"))


def degrade(
    image: np.ndarray, spatial_forward: SpatialForward, shape: tuple[int, ...], what: str
) -> np.ndarray:
    """H(image), float64, NaN where H touches a pixel that is not finite."""
    valid = finite_pixels(image)
    if not valid.any():
        raise CubeError(f"{what}: no pixel is finite in every band")
    bands = image.shape[0]
    step = max(1, _CHUNK_VALUES // valid.size)
    out = np.empty((bands, *shape))
    for first in range(0, bands, step):
        chunk = image[first : first + step].astype(np.float64)
        if not valid.all():
            # a neutral value, so that weights too small to count as a touch cannot harm
            chunk = np.where(valid, chunk, chunk[:, valid].mean(axis=1)[:, None, None])
        out[first : first + step] = _call(spatial_forward, chunk, shape, what)
    if not valid.all():
        # uneven values: lobes of either sign of a kernel must not cancel
        probe = np.where(valid, 0, np.random.default_rng(0).uniform(1, 2, valid.shape))
        touched = np.abs(_call(spatial_forward, probe[None], shape, what)[0]) > _TOUCHED
        out[:, touched] = np.nan
    return out


def project(image: np.ndarray, response: Any, rows: int, what: str) -> np.ndarray:
    """Image ×3 R: float64, NaN at pixels that are not finite in every band."""
    matrix = np.asarray(response, dtype=np.float64)
    if matrix.shape != (rows, image.shape[0]):
        raise ResponseError(
            f"spectral response: expected shape {(rows, image.shape[0])} (MSI bands, "
            f"bands of the {what}), got {matrix.shape}"
        )
    if not np.isfinite(matrix).all():
        raise ResponseError("spectral response: expected finite numbers, got NaN or infinity")
    valid = finite_pixels(image)
    out = np.zeros((rows, *valid.shape))
    for weights, band in zip(matrix.T, image, strict=True):
        out += weights[:, None, None] * np.where(valid, band, 0)
    out[:, ~valid] = np.nan
    return out


def _call(
    spatial_forward: SpatialForward, chunk: np.ndarray, shape: tuple[int, ...], what: str
) -> np.ndarray:
    result = np.asarray(spatial_forward(chunk), dtype=np.float64)
    if result.shape != (chunk.shape[0], *shape):
        raise PairError(
            f"spatial degradation of the {what}: from shape {chunk.shape} it should give "
            f"{(chunk.shape[0], *shape)}, the LR-HSI's size, and gave {result.shape}"
        )
    return result
