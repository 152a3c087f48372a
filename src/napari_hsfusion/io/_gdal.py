"""What several formats need from GDAL."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from rasterio.errors import CRSError, NotGeoreferencedWarning

from ..errors import CubeError


@contextmanager
def quiet() -> Iterator[None]:
    """Let GDAL open and make scenes without georeference without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def parse_crs(crs: str | None) -> rasterio.CRS | None:
    """Coordinate reference system of a cube.

    Parameters
    ----------
    crs : str or None
        WKT, or anything that rasterio reads.

    Returns
    -------
    rasterio.CRS or None

    Raises
    ------
    CubeError
        If it is not understood.
    """
    if crs is None:
        return None
    try:
        return rasterio.CRS.from_user_input(crs)
    except CRSError as error:
        raise CubeError(f"crs: expected WKT or the like, got {crs[:80]!r}: {error}") from error
