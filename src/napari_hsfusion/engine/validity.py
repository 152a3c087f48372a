"""Pixels that count: where an image has values, and which LR pixels see such pixels alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import PairError
from .operators import SpatialDegradation

BoolArray = npt.NDArray[np.bool_]


def valid_pixels(
    image: npt.NDArray[np.generic], given: npt.ArrayLike | None, name: str
) -> BoolArray:
    """Pixels (H, W) of `image` (band, y, x) that are finite in every band, and `given`.

    Raises
    ------
    PairError
        If the mask has another shape, or no pixel is left; it calls the image `name`.
    """
    valid: BoolArray = np.isfinite(image).all(0)
    if given is not None:
        mask = np.asarray(given, dtype=bool)
        if mask.shape != valid.shape:
            raise PairError(f"{name}: mask of {mask.shape} for an image of {valid.shape}")
        valid &= mask
    if not valid.any():
        raise PairError(f"{name}: no pixel has a value in every band used")
    return valid


def mask_of(valid: BoolArray, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """1 where valid, 0 elsewhere; None where all is."""
    if valid.all():
        return None
    return torch.as_tensor(valid).to(device, dtype)


def fill_invalid(image: npt.NDArray[np.generic], valid: BoolArray) -> npt.NDArray[np.float64]:
    """Copy of `image` (band, y, x) with the nearest valid pixel where `valid` is False."""
    out = np.asarray(image, dtype=np.float64)
    if valid.all():
        return out
    nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return np.asarray(out[:, nearest[0], nearest[1]])


def usable_pixels(
    spatial: SpatialDegradation, mask_x: Tensor | None, mask_y: Tensor | None
) -> BoolArray:
    """LR pixels (h, w) that are valid and see hardly any but valid HR pixels.

    Parameters
    ----------
    spatial : SpatialDegradation
    mask_x, mask_y : Tensor or None
        Of a :class:`~.observation.Problem`.
    """
    usable = np.ones(spatial.shape_lr, dtype=bool)
    if mask_x is not None:
        usable &= mask_x.cpu().numpy() > 0
    if mask_y is not None:
        usable &= spatial.covered(mask_y.cpu().numpy() > 0)
    return usable
