"""Pictures and contrast limits of a cube, from no more pixels than they need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from .. import cube as cubes
from .. import io
from ..figures import colour_limits, composite, composite_bands

LARGEST = 4096
"""A composite of an image with a longer side is an overview: pixels are left out."""

_OVERVIEW = 2048
_BLOCK = 1 << 18
_SAMPLE = 1 << 20
_LEVELS = 1 << 16


def overview_steps(cube: xr.DataArray) -> tuple[int, int]:
    """Every how many rows and columns the composite of a cube shows: 1, 1 for all."""
    rows, columns = cube.sizes["y"], cube.sizes["x"]
    if max(rows, columns) <= LARGEST:
        return 1, 1
    return -(-rows // _OVERVIEW), -(-columns // _OVERVIEW)


def composite_picture(
    cube: xr.DataArray,
    limits: np.ndarray | None = None,
    steps: tuple[int, int] = (1, 1),
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Colour picture of a cube, and the bands it shows.

    Parameters
    ----------
    cube : xarray.DataArray
    limits : ndarray, shape (3, 2), optional
        As :func:`napari_hsfusion.figures.colour_limits` gives them; by default those of
        the picture itself, of at most about a million of its pixels.
    steps : tuple of int
        Every how many rows and columns are shown, the middle ones of each group.

    Returns
    -------
    picture : ndarray, shape (y, x, 4), uint8
        Red, green, blue, opacity; pixels without a value are transparent.
    bands : tuple of int
        0-based bands drawn as red, green and blue.
    """
    bands = composite_bands(cube)
    values = _values(cube, bands, steps)
    if limits is None:
        every = max(1, int(np.ceil(np.sqrt(values[0].size / _SAMPLE))))
        limits = colour_limits(values[:, ::every, ::every])
    return _drawn(values, limits), bands


def _drawn(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Picture (y, x, RGBA) that :func:`figures.composite` draws, to a level of 255.

    Its curve is evaluated once for 65536 levels: for every pixel it takes seconds.
    """
    levels = np.broadcast_to(np.arange(_LEVELS, dtype=np.float64), (3, 1, _LEVELS))
    ends = np.array([[0.0, _LEVELS - 1.0]] * 3)
    curve = np.rint(composite(levels, ends)[0, :, 0] * 255).astype(np.uint8)
    rows, columns = values.shape[1:]
    picture = np.zeros((rows, columns, 4), dtype=np.uint8)
    block = max(1, _BLOCK // columns)
    for start in range(0, rows, block):
        part, drawn = values[:, start : start + block], picture[start : start + block]
        known = np.isfinite(part).all(axis=0)
        for channel, (low, high) in enumerate(limits):
            level = (part[channel] - low) * ((_LEVELS - 1) / (high - low))
            level = np.where(known, level.clip(0, _LEVELS - 1), 0)
            drawn[..., channel] = curve[np.rint(level).astype(np.uint16)]
        drawn[..., 3] = known * np.uint8(255)
    return picture


def _values(cube: xr.DataArray, bands: Sequence[int], steps: tuple[int, int]) -> np.ndarray:
    """Physical values (3, y, x) of three bands, each read once and alone."""
    rows, columns = (slice(step // 2, None, step) for step in steps)
    read = {b: io.read_part(cube.data, b, rows, columns) for b in dict.fromkeys(bands)}
    stored = xr.DataArray(
        np.stack([read[b] for b in bands]), dims=cubes.DIMS, attrs=dict(cube.attrs)
    )
    return cubes.to_physical(stored)


def sampled_limits(cube: xr.DataArray, bands: int = 5) -> tuple[float, float]:
    """Contrast limits (0.5 and 99.5 %) in stored values, from a few good bands.

    A window of at most 256 rows and columns in each of nine places is read.
    """
    good = np.flatnonzero(cubes.good_bands(cube))
    if good.size == 0:
        good = np.arange(cube.sizes["band"])
    picks = good[np.unique(np.linspace(0, good.size - 1, bands).round().astype(int))]
    rows, columns = _windows(cube.sizes["y"]), _windows(cube.sizes["x"])
    windows = [(r, c) for r in rows for c in columns]
    parts = [part.ravel() for b in picks for part in io.read_windows(cube.data, int(b), windows)]
    stored = np.concatenate(parts)
    known = stored[np.isfinite(stored)]
    nodata = cube.attrs.get("nodata")
    if nodata is not None:
        known = known[~cubes.stored_equals(known, nodata)]
    if known.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(known.astype(np.float64), (0.5, 99.5)))
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _windows(size: int, count: int = 3, side: int = 256) -> Sequence[slice]:
    if size <= count * side:
        return [slice(None)]
    starts = np.linspace(0, size - side, count).astype(int)
    return [slice(int(s), int(s) + side) for s in starts]
