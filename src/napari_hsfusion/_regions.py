"""Spectra of places in a cube: one pixel, or the mean and deviation of a region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from . import cube as cubes
from ._observe import as_image
from .errors import CubeError
from .io.windows import Bounds, read_window

_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class RegionSpectrum:
    """Mean spectrum of a region.

    Attributes
    ----------
    mean, std : numpy.ndarray, shape (band,)
        float64, physical values; NaN in bands without a value. The deviation is that
        of the region's pixels themselves (divided by their number).
    count : numpy.ndarray of int, shape (band,)
        Pixels of the region that have a value.
    """

    mean: np.ndarray
    std: np.ndarray
    count: np.ndarray


def pixel_spectrum(cube: Any, row: int, column: int) -> np.ndarray:
    """Spectrum of one pixel, read without the rest of the file.

    Parameters
    ----------
    cube : xarray.DataArray, array_like of shape (band, y, x), or path
    row, column : int
        0-based.

    Returns
    -------
    numpy.ndarray, shape (band,)
        float64, physical values; NaN where nothing was measured. Bands that are marked
        as bad have their values.

    Raises
    ------
    CubeError
        If the cube has no such pixel.
    """
    image = as_image(cube, "cube")
    rows, columns = image.shape[1:]
    if not (0 <= row < rows and 0 <= column < columns):
        raise CubeError(
            f"no pixel at row {row}, column {column}: the cube has {rows} rows and "
            f"{columns} columns, counted from 0"
        )
    window = (row, row + 1), (column, column + 1)
    return _physical(image, (0, image.shape[0]), *window)[:, 0, 0]


def region_spectrum(cube: Any, mask: Any, corner: tuple[int, int] = (0, 0)) -> RegionSpectrum:
    """Mean and standard deviation of the spectra of a region.

    Only the rows and columns that the region spans are read, some bands at a time.

    Parameters
    ----------
    cube : xarray.DataArray, array_like of shape (band, y, x), or path
    mask : array_like of bool, shape (rows, columns)
        True at the region's pixels.
    corner : tuple of int
        Row and column of the cube where the mask's first pixel lies.

    Returns
    -------
    RegionSpectrum

    Raises
    ------
    CubeError
        If the mask is empty, no mask, or reaches beyond the cube.
    """
    image = as_image(cube, "cube")
    chosen = np.asarray(mask)
    if chosen.ndim != 2 or chosen.dtype != np.bool_:
        raise CubeError(
            f"region: expected a mask of bool and shape (rows, columns), got {chosen.dtype} "
            f"of shape {chosen.shape}"
        )
    if not chosen.any():
        raise CubeError("region: the mask chooses no pixel")
    (top, bottom), (left, right) = (_span(np.asarray(chosen.any(axis=axis))) for axis in (1, 0))
    chosen = chosen[top:bottom, left:right]
    rows = (corner[0] + top, corner[0] + bottom)
    columns = (corner[1] + left, corner[1] + right)
    if min(rows[0], columns[0]) < 0 or rows[1] > image.shape[1] or columns[1] > image.shape[2]:
        raise CubeError(
            f"region: expected pixels within {image.shape[1]} rows and {image.shape[2]} columns, "
            f"got rows {rows[0]} to {rows[1] - 1} and columns {columns[0]} to {columns[1] - 1}"
        )
    bands = image.shape[0]
    mean, std = np.full(bands, np.nan), np.full(bands, np.nan)
    count = np.zeros(bands, dtype=np.int64)
    step = max(1, _BLOCK_BYTES // (8 * chosen.size))
    for start in range(0, bands, step):
        part = slice(start, min(bands, start + step))
        values = _physical(image, (part.start, part.stop), rows, columns)[:, chosen]
        known = np.isfinite(values)
        number = known.sum(axis=1)
        count[part] = number
        with np.errstate(invalid="ignore"):
            middle = np.where(known, values, 0.0).sum(axis=1) / number
            away = np.where(known, values - middle[:, None], 0.0)
            std[part] = np.sqrt((away**2).sum(axis=1) / number)
        mean[part] = middle
    return RegionSpectrum(mean, std, count)


def _physical(image: xr.DataArray, bands: Bounds, rows: Bounds, columns: Bounds) -> np.ndarray:
    stored = read_window(image.data, bands, rows, columns)
    window = xr.DataArray(stored, dims=cubes.DIMS, attrs=image.attrs)
    return cubes.to_physical(window, np.float64)


def _span(used: np.ndarray) -> tuple[int, int]:
    places = np.flatnonzero(used)
    return int(places[0]), int(places[-1]) + 1
