"""Two cubes of one shape and the pixels that are known in both."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..cube import to_physical
from ..errors import CubeError, PairError, ParameterError


class UndefinedMetricError(CubeError):
    """A metric has no value for this pair: every pixel, band or window it needs is left out."""


class WindowSizeError(CubeError):
    """A side of the images is too short for the windows of a metric."""


@dataclass(frozen=True)
class Pair:
    """A reference, an estimate, and where both were measured.

    Attributes
    ----------
    reference, estimate : numpy.ndarray, shape (band, y, x)
        As they came, any real type.
    valid : numpy.ndarray of bool, shape (y, x)
        False where either image holds NaN or infinity in any band, and where
        the caller's mask says so.
    """

    reference: np.ndarray
    estimate: np.ndarray
    valid: np.ndarray

    @property
    def bands(self) -> int:
        """Number of bands."""
        return int(self.reference.shape[0])

    @property
    def masked_pixels(self) -> int:
        """Number of pixels that are left out."""
        return int(self.valid.size) - self.valid_pixels

    @property
    def valid_pixels(self) -> int:
        """Number of pixels that count."""
        return int(np.count_nonzero(self.valid))

    def image_of(self, values: np.ndarray) -> np.ndarray:
        """Image (y, x), float64, of one value a valid pixel; NaN where masked."""
        out = np.full(self.valid.shape, np.nan)
        out[self.valid] = values
        return out

    def pixels(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Valid pixels of each band of both images: two float64 vectors."""
        for reference, estimate in zip(self.reference, self.estimate, strict=True):
            yield (
                reference[self.valid].astype(np.float64, copy=False),
                estimate[self.valid].astype(np.float64, copy=False),
            )

    def images(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each band of both images: two float64 images (y, x), 0 where masked."""
        for reference, estimate in zip(self.reference, self.estimate, strict=True):
            yield (
                np.where(self.valid, reference, 0).astype(np.float64, copy=False),
                np.where(self.valid, estimate, 0).astype(np.float64, copy=False),
            )


def as_array(data: Any, what: str) -> np.ndarray:
    """Array (band, y, x) of real numbers from an array or a cube.

    A :class:`xarray.DataArray` gives its physical values, NaN where nothing was
    measured; a 2-D array is one band.

    Raises
    ------
    CubeError
        If it has another number of dimensions, no pixel, or is not real.
    """
    array = to_physical(data, np.float64) if isinstance(data, xr.DataArray) else np.asarray(data)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise CubeError(f"{what}: expected an array (band, y, x), got shape {array.shape}")
    if 0 in array.shape:
        raise CubeError(f"{what}: empty, shape {array.shape}")
    if array.dtype.kind not in "iufb":
        raise CubeError(f"{what}: expected real numbers, got {array.dtype}")
    return array


def finite_pixels(array: np.ndarray) -> np.ndarray:
    """Boolean image (y, x): True where every band is finite."""
    if array.dtype.kind != "f":
        return np.ones(array.shape[1:], dtype=bool)
    out = np.isfinite(array[0])
    for band in array[1:]:
        out &= np.isfinite(band)
    return np.asarray(out, dtype=bool)


def as_mask(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Boolean image of `shape` (y, x), True where a pixel is to be left out.

    Raises
    ------
    CubeError
        If `mask` has another shape or is not boolean.
    """
    out = np.asarray(mask)
    if out.shape != tuple(shape):
        raise CubeError(f"mask: expected shape {tuple(shape)} (y, x), got {out.shape}")
    if out.dtype != np.bool_:
        raise CubeError(f"mask: expected booleans, True where left out, got {out.dtype}")
    return out


def prepare(
    reference: Any,
    estimate: Any,
    mask: Any = None,
    names: tuple[str, str] = ("reference", "estimate"),
) -> Pair:
    """Check two cubes against each other and find the pixels known in both.

    Parameters
    ----------
    reference, estimate : array_like or xarray.DataArray, shape (band, y, x)
        Any real numeric type, the same units.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out, as in :mod:`numpy.ma`.
    names : tuple of str
        What the two are called in errors.

    Returns
    -------
    Pair

    Raises
    ------
    PairError
        If the shapes differ.
    CubeError
        If an image or the mask is malformed, or no pixel is left.
    """
    first, second = as_array(reference, names[0]), as_array(estimate, names[1])
    if first.shape != second.shape:
        raise PairError(
            f"{names[0]} and {names[1]} must have one shape (band, y, x): "
            f"got {first.shape} and {second.shape}"
        )
    valid = finite_pixels(first) & finite_pixels(second)
    if mask is not None:
        valid &= ~as_mask(mask, first.shape[1:])
    if not valid.any():
        empty = [
            f"{name}: band {number}"
            for name, array in zip(names, (first, second), strict=True)
            for number, band in enumerate(array, start=1)
            if not np.isfinite(band).any()
        ]
        hint = f" (no finite value in {'; '.join(empty[:10])}: drop such bands)" if empty else ""
        raise CubeError(
            f"no pixel of the {valid.size} is finite in every band of {names[0]} and {names[1]} "
            f"and left in by the mask{hint}"
        )
    return Pair(first, second, valid)


def check_scale(scale: float) -> float:
    """`scale` as a float.

    Raises
    ------
    ParameterError
        If it is not a finite number above 0.
    """
    try:
        value = float(scale)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(f"scale: expected a number above 0 (HR over LR size), got {scale!r}")
    return value
