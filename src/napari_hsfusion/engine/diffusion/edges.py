"""Edge map of a multispectral image: where EMR-Diff's noise is let in.

The mean over bands, Sobel's two gradients, ``sqrt(Gx^2 + Gy^2 + 1e-8)``, and min-max
normalisation to [0, 1] over the scene. Flat scenes have no edges: the map is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-8
_FLAT = 1e-6  # a range of gradients below this is round-off of a flat image


def edge_magnitude(msi: Tensor) -> Tensor:
    """Gradient magnitude of the mean over bands, not normalised.

    Parameters
    ----------
    msi : Tensor, shape (n, c, H, W)

    Returns
    -------
    Tensor, shape (n, 1, H, W)
        Borders see the image continued by its last row and column.
    """
    mean = functional.pad(msi.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    smooth = mean[..., :-2, :] + 2 * mean[..., 1:-1, :] + mean[..., 2:, :]
    gx = smooth[..., 2:] - smooth[..., :-2]
    smooth = mean[..., :-2] + 2 * mean[..., 1:-1] + mean[..., 2:]
    gy = smooth[..., :-2, :] - smooth[..., 2:, :]
    return torch.sqrt(gx * gx + gy * gy + _EPSILON)


def edge_map(msi: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Edge map W in [0, 1] of every image of a batch.

    Parameters
    ----------
    msi : Tensor, shape (n, c, H, W)
    low, high : Tensor, shape (n,), optional
        Extremes of :func:`edge_magnitude` over the scene that each image was cut from;
        those of the image itself without them.

    Returns
    -------
    Tensor, shape (n, 1, H, W)
        Zero everywhere where the scene is flat.
    """
    magnitude = edge_magnitude(msi)
    least = magnitude.amin((1, 2, 3)) if low is None else low.to(magnitude)
    most = magnitude.amax((1, 2, 3)) if high is None else high.to(magnitude)
    span = (most - least).reshape(-1, 1, 1, 1)
    scaled = (magnitude - least.reshape(-1, 1, 1, 1)) / span.clamp(min=_FLAT)
    return torch.where(span > _FLAT, scaled.clamp(0.0, 1.0), torch.zeros_like(scaled))
