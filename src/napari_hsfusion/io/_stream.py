"""Cubes in pieces that fit in memory, in the order that files want them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..errors import FormatError, HSFusionError

BUDGET = 1 << 27

Piece = tuple[slice, slice, np.ndarray]


def pieces(
    cube: xr.DataArray, along: Literal["band", "y", "any"] = "any", budget: int | None = None
) -> Iterator[Piece]:
    """Cut a cube into pieces of whole rows and compute them one after the other.

    Parameters
    ----------
    cube : xarray.DataArray
        Dimensions (band, y, x), lazy or not.
    along : {'band', 'y', 'any'}
        Pieces are some bands of the whole scene, or all bands of some rows;
        ``any`` follows the chunks of the cube.
    budget : int, optional
        Bytes a piece should take at most; one band or one row at least.

    Yields
    ------
    bands, rows : slice
    values : numpy.ndarray, shape (band, y, x)
        Native byte order.

    Raises
    ------
    FormatError
        If a lazy cube cannot be read.
    """
    budget = BUDGET if budget is None else budget
    chunks = getattr(cube.variable, "chunks", None)
    bands, rows, columns = cube.shape
    if along == "any":
        by_rows = chunks is not None and len(chunks[0]) == 1 and len(chunks[1]) > 1
        along = "y" if by_rows else "band"
    axis = 0 if along == "band" else 1
    unit = columns * cube.dtype.itemsize * (rows if axis == 0 else bands)
    known = None if chunks is None else chunks[axis]
    for start, stop in _cuts(cube.shape[axis], max(1, budget // max(1, unit)), known):
        part = slice(start, stop)
        band, row = (part, slice(0, rows)) if axis == 0 else (slice(0, bands), part)
        yield band, row, _values(cube, band, row)


def _cuts(length: int, limit: int, chunks: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """Ranges of at most `limit`, on chunk borders where the chunks allow it."""
    sizes: list[int] = []
    for size in chunks if chunks is not None else [length]:
        if size > limit:
            sizes += [limit] * (size // limit) + ([size % limit] if size % limit else [])
        elif chunks is not None and sizes and sizes[-1] + size <= limit:
            sizes[-1] += size
        else:
            sizes.append(size)
    start = 0
    for size in sizes:
        yield start, start + size
        start += size


def _values(cube: xr.DataArray, bands: slice, rows: slice) -> np.ndarray:
    try:
        values: np.ndarray[Any, Any] = np.asarray(cube.isel(band=bands, y=rows).data)
    except HSFusionError:
        raise
    except OSError as error:
        raise FormatError(f"the cube's pixels could not be read: {error}") from error
    return values.astype(values.dtype.newbyteorder("="), copy=False)
