"""What a run will cost, from operation counts, before it starts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..params import ArgsDiffParams
from .nets.spectral_mlp import published_widths

# Multiply-adds a second that the networks reach: measured, orders of magnitude.
_CPU_RATE_PER_THREAD = 2.0e10
_CUDA_RATE = 1.0e13


def spatial_work(params: ArgsDiffParams, pixels: float) -> float:
    """Multiply-adds of one forward pass of the spatial network over `pixels` pixels."""
    base, blocks, d = params.spatial_base, params.spatial_blocks, params.d
    work = 2 * 9 * d * base * pixels
    previous = base
    for level in range(params.spatial_levels):
        width = (level + 1) * base
        here = pixels / 4**level
        down = 9 * (previous * width + width * width + (blocks - 1) * 2 * width * width)
        up = (blocks + 1) * 9 * (2 * width * width + width * width)
        work += (down + up) * here
        if level + 1 < params.spatial_levels:
            work += 9 * width * width * (here / 4 + here)
        previous = width
    deepest = params.spatial_levels * base
    return work + 4 * 9 * deepest * deepest * pixels / 4 ** (params.spatial_levels - 1)


def spectral_work(bands: int) -> float:
    """Multiply-adds of one forward pass of the spectral network on one spectrum."""
    (a, b, c), table = published_widths(bands)
    return float((bands + table) * a + a * b + b * c + c * bands)


def args_diff_cost(
    x_shape: Sequence[int],
    y_shape: Sequence[int],
    params: ArgsDiffParams,
    device: torch.device | None = None,
) -> dict[str, float]:
    """Seconds and bytes that a run of ARGS-Diff is expected to take.

    Parameters
    ----------
    x_shape : (C, h, w)
    y_shape : (c, H, W)
    params : ArgsDiffParams
    device : torch.device, optional
        The CPU by default.

    Returns
    -------
    dict
        ``seconds`` in all, ``training_seconds``, ``sampling_seconds``, and ``bytes``
        of working memory.
    """
    device = device or torch.device("cpu")
    rate = _CUDA_RATE if device.type == "cuda" else _CPU_RATE_PER_THREAD * torch.get_num_threads()
    bands, h, w = x_shape
    msi, height, width = y_shape
    pixels = height * width
    side = min(params.spatial_patch, height) * min(params.spatial_patch, width)
    training = 3 * params.spatial_steps * params.spatial_batch * spatial_work(params, side)
    forward = spatial_work(params, pixels)
    if params.sampler == "published":
        training += (
            3 * params.spectral_steps * params.spectral_batch * spectral_work(bands)
            + 5e-4 * rate * params.spectral_steps
        )
        passes = 3 if params.gradient == "network" else 1
        data = params.d * (4 * pixels * (h + msi) + 6 * bands * h * w)
        sampling = params.T * (passes * forward + data)
        kept = passes
    else:
        data = params.d * pixels * (2 * h + params.d * (params.classes + 2) + 2 * msi)
        sampling = params.levels * (forward + params.iterations * data)
        kept = 1
    activations = (
        4.0 * params.spatial_base * max(12 * 3 * params.spatial_batch * side, 12 * kept * pixels)
    )
    cube = 4.0 * pixels * (bands + 8 * params.d + 2 * msi)
    return {
        "seconds": (training + sampling) / rate,
        "training_seconds": training / rate,
        "sampling_seconds": sampling / rate,
        "bytes": activations + cube,
    }
