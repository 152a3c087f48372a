"""What a run will cost, from operation counts, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ..params import ArgsDiffParams
from .nets.spectral_mlp import published_widths
from .selflearning import spatial_network

# Multiply-adds a second that the networks reach: measured, orders of magnitude.
_CPU_RATE_PER_THREAD = 2.0e10
_CUDA_RATE = 1.0e13


def spatial_work(params: ArgsDiffParams, pixels: float) -> float:
    """Multiply-adds of one forward pass of the spatial network over `pixels` pixels.

    Counted layer by layer: a convolution does all its weights once a pixel of its
    own resolution. The time embedding is left out.
    """
    with torch.device("meta"):
        net = spatial_network(params)
    last = params.spatial_levels - 1
    parts: list[tuple[nn.Module, int]] = [(net.head, 0), (net.tail, 0), (net.middle, last)]
    parts += [(stage, level) for level, stage in enumerate(net.down)]
    parts += [(stage, last - k) for k, stage in enumerate(net.up)]
    parts += [(layer, level + 1) for level, layer in enumerate(net.shrink)]
    parts += [(layer, last - k - 1) for k, layer in enumerate(net.grow)]
    return sum(
        layer.weight.numel() * pixels / 4**level
        for part, level in parts
        for layer in part.modules()
        if isinstance(layer, nn.Conv2d)
    )


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
    d = params.d or min(10, bands)
    params = replace(params, d=d)
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
        data = d * (4 * pixels * (h + msi) + 6 * bands * h * w)
        sampling = params.T * (passes * forward + data)
        kept = passes
    else:
        data = d * pixels * (2 * h + d * (params.classes + 2) + 2 * msi)
        solves = params.partitions * params.iterations * (2 if params.weight is None else 1)
        sampling = params.levels * (forward + solves * data)
        kept = 1
    activations = (
        4.0 * params.spatial_base * max(12 * 3 * params.spatial_batch * side, 12 * kept * pixels)
    )
    cube = 4.0 * pixels * (bands + 8 * d + 2 * msi)
    return {
        "seconds": (training + sampling) / rate,
        "training_seconds": training / rate,
        "sampling_seconds": sampling / rate,
        "bytes": activations + cube,
    }
