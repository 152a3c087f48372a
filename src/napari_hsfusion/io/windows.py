"""Windows of lazy cubes, read without the rest of their chunks.

dask computes whole chunks and cuts afterwards: one pixel's spectrum of a band-sequential
file would read the whole file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from dask.base import tokenize

from ..errors import CubeError
from ._source import Source

Bounds = tuple[int, int]


def read_window(data: Any, bands: Bounds, rows: Bounds, columns: Bounds) -> np.ndarray:
    """Stored values of a window of an array, in memory.

    Parameters
    ----------
    data : array_like, shape (band, y, x)
        Of an array that :func:`napari_hsfusion.io.open_cube` gave, and that nobody has
        changed since, the window alone is read from the file. Other dask arrays are
        computed as dask does it, by whole chunks.
    bands, rows, columns : tuple of int
        First index and the one after the last; within the array.

    Returns
    -------
    numpy.ndarray, shape (band, y, x)
        A copy.

    Raises
    ------
    CubeError
        If the window reaches beyond the array.
    """
    for name, (start, stop), size in zip(
        ("bands", "rows", "columns"), (bands, rows, columns), data.shape, strict=True
    ):
        if not 0 <= start < stop <= size:
            raise CubeError(f"{name}: expected a window within 0 to {size}, got {start} to {stop}")
    key = (slice(*bands), slice(*rows), slice(*columns))
    source = source_of(data)
    part = (data if source is None else source)[key]
    return np.array(part, order="C")


def source_of(data: Any) -> Source | None:
    """What a lazy array reads from; None if it is not just what a file holds.

    Parameters
    ----------
    data : array_like
    """
    name = getattr(data, "name", None)
    graph = getattr(data, "dask", None)
    if graph is None or not isinstance(name, str) or not name.startswith("hsfusion-"):
        return None
    source: Source | None = graph.get(f"original-{name}")
    # the array's name is a digest of source and chunks: any other operation has another
    if source is None or name != f"hsfusion-{tokenize(source, data.chunksize)}":
        return None
    return source
