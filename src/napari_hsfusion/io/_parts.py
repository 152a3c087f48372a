"""Parts of one band, read from the file alone where its format allows that.

Dask reads whole chunks, whatever is taken out of them: of an image of interleaved
bands that is every band for one. These functions ask the file itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Window = tuple[slice, slice]


def read_part(data: Any, band: int, rows: slice, columns: slice) -> np.ndarray:
    """Rows and columns of one band, steps included.

    Parameters
    ----------
    data : array of shape (band, y, x)
        In memory or lazy; of a cube just opened, no more is read than is needed.
    band : int
    rows, columns : slice

    Returns
    -------
    ndarray, shape (y, x)
    """
    steps = (rows.step or 1) * (columns.step or 1) != 1
    source = _source(data)
    if getattr(source, "reads", "chunks") == "pixels" or (_reads_windows(source) and not steps):
        found: np.ndarray = source[slice(band, band + 1), rows, columns][0]
        return found
    return np.asarray(data[band, rows, columns])


def read_windows(data: Any, band: int, windows: Sequence[Window]) -> list[np.ndarray]:
    """Several windows of one band, which is read whole once where windows cost as much.

    Parameters
    ----------
    data : array of shape (band, y, x)
    band : int
    windows : sequence of (slice, slice)
        Rows and columns, without steps.

    Returns
    -------
    list of ndarray, shape (y, x)
    """
    if _reads_windows(_source(data)):
        return [read_part(data, band, *window) for window in windows]
    whole = np.asarray(data[band])
    return [whole[window] for window in windows]


def _source(data: Any) -> Any:
    """What a lazy array reads from, if it is one of this package's and as it was opened."""
    graph = getattr(data, "dask", None)
    return None if graph is None else graph.get(f"original-{data.name}")


def _reads_windows(source: Any) -> bool:
    return getattr(source, "reads", "chunks") in ("pixels", "windows")
