"""Geometry of a pair: the ratio of two pixel grids, and their transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from . import cube as cubes
from .errors import PairError

Bools = npt.NDArray[np.bool_]


def integer_ratio(
    shape_lr: tuple[int, ...], shape_hr: tuple[int, ...], scale: int | None = None
) -> int:
    """Ratio of two sizes (rows, columns).

    Raises
    ------
    PairError
        If it is no whole number, differs between the axes, or is not `scale`.
    """
    (h, w), (rows, columns) = shape_lr, shape_hr
    sizes = f"the LR-HSI has {h} x {w} pixels, the HR-MSI {rows} x {columns}"
    if rows < h or columns < w:
        raise PairError(
            f"expected the HR-MSI to be the larger image, but {sizes}; are the two swapped?"
        )
    if rows % h or columns % w or rows // h != columns // w:
        raise PairError(
            f"expected one whole ratio of sizes, but {sizes}: "
            f"ratios {rows / h:g} and {columns / w:g}"
        )
    ratio = rows // h
    if scale is not None and scale != ratio:
        raise PairError(f"scale {scale} was given, but {sizes}: the ratio is {ratio}")
    return ratio


def check_ground(lr_hsi: xr.DataArray, hr_msi: xr.DataArray) -> None:
    """Check that two images may show the same ground, as far as they say where they lie.

    Raises
    ------
    PairError
        If they are in two coordinate systems, or their extents do not overlap.
    """
    systems = [image.attrs.get("crs") for image in (lr_hsi, hr_msi)]
    if None not in systems and not _same_system(str(systems[0]), str(systems[1])):
        raise PairError(
            "expected both images in one coordinate reference system, but the LR-HSI is in "
            f"{_short(str(systems[0]))} and the HR-MSI in {_short(str(systems[1]))}: "
            "reproject one of them"
        )
    if (systems[0] is None) != (systems[1] is None):
        return
    if any("transform" not in image.attrs for image in (lr_hsi, hr_msi)):
        return
    low, high = _bounds(lr_hsi), _bounds(hr_msi)
    if any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(low, high, strict=True)):
        words = [
            f"x {b[0][0]:.8g} to {b[0][1]:.8g}, y {b[1][0]:.8g} to {b[1][1]:.8g}"
            for b in (low, high)
        ]
        raise PairError(
            f"the images do not overlap on the ground: the LR-HSI covers {words[0]}, the HR-MSI "
            f"{words[1]}"
        )


def _short(system: str) -> str:
    """Name of a coordinate reference system: its code, or the head of its text."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        code = CRS.from_user_input(system).to_epsg()
    except CRSError:
        code = None
    return f"EPSG:{code}" if code else repr(system[:60])


def _same_system(first: str, second: str) -> bool:
    if first == second:
        return True
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return bool(CRS.from_user_input(first) == CRS.from_user_input(second))
    except CRSError:
        return True  # what cannot be read cannot be told apart


def _bounds(image: xr.DataArray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Extent of an image in x and in y."""
    a, b, c, d, e, f = image.attrs["transform"]
    rows, columns = image.sizes["y"], image.sizes["x"]
    corners = [(0, 0), (0, columns), (rows, 0), (rows, columns)]
    xs = [a * column + b * row + c for row, column in corners]
    ys = [d * column + e * row + f for row, column in corners]
    return (min(xs), max(xs)), (min(ys), max(ys))


def low_transform(transform: Any, ratio: int, phase: float) -> tuple[float, ...]:
    """Affine transform of the LR grid, from the HR grid's.

    A PSF whose phase is not the centred one moves the corner by the difference,
    in HR pixels along both axes.
    """
    a, b, c, d, e, f = cubes.scaled_transform(transform, ratio)
    move = (phase - (ratio - 1) / 2) / ratio
    return (a, b, c + move * (a + b), d, e, f + move * (d + e))


def high_transform(transform: Any, ratio: int, phase: float) -> tuple[float, ...]:
    """Affine transform of the HR grid, from the LR grid's: undoes :func:`low_transform`."""
    a, b, c, d, e, f = transform
    move = (phase - (ratio - 1) / 2) / ratio
    corner = (a, b, c - move * (a + b), d, e, f - move * (d + e))
    return cubes.scaled_transform(corner, 1 / ratio)
