"""Geometry of a pair: the ratio of two pixel grids, and their transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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
