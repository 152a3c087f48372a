"""Geometry of a pair: the ratio of two pixel grids, their transforms, their footprints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import cube as cubes
from .errors import PairError

if TYPE_CHECKING:
    from .engine.operators import SpatialDegradation

Bools = npt.NDArray[np.bool_]

_FAINT = 1e-12  # weights below this are round-off of a kernel's singular vectors


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


def touched(spatial: SpatialDegradation, marked: Bools) -> Bools:
    """LR pixels (h, w) whose footprint meets a marked HR pixel (H, W)."""
    out = np.zeros(spatial.shape_lr, dtype=bool)
    if marked.any():
        weight = marked.astype(np.float64)
        for rows, columns in spatial.terms:
            reach_y = (np.abs(rows.matrix) > _FAINT).astype(np.float64)
            reach_x = (np.abs(columns.matrix) > _FAINT).astype(np.float64)
            out |= (reach_y @ weight @ reach_x.T) > 0.5
    return out
