"""Networks of a set of parameters, and the work that a pass through them takes."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from ...params import ArgsDiffParams
from .spectral_mlp import SpectralMLP, published_widths
from .unet import SpatialUNet

TIMES = 1000
"""Training times of the diffusion."""


def spatial_network(params: ArgsDiffParams) -> SpatialUNet:
    """Build the noise predictor of d coefficient images."""
    multipliers = tuple(range(1, params.spatial_levels + 1))
    return SpatialUNet(params.dimensions, params.spatial_base, multipliers, params.spatial_blocks)


def spectral_network(bands: int) -> SpectralMLP:
    """Build the noise predictor of one spectrum of `bands` bands, at the published widths."""
    hidden, table = published_widths(bands)
    return SpectralMLP(bands, hidden, table, TIMES)


def spatial_work(params: ArgsDiffParams, pixels: float) -> float:
    """Multiply-adds of one forward pass of the spatial network over `pixels` pixels.

    Counted layer by layer: a convolution does all its weights once a pixel of its
    own resolution. The time embedding is left out, and what the CPU saves at upsamplings.
    """
    shape = (params.dimensions, params.spatial_base, params.spatial_levels, params.spatial_blocks)
    return pixels * _work_per_pixel(*shape)


@lru_cache(maxsize=256)
def _work_per_pixel(channels: int, base: int, levels: int, blocks: int) -> float:
    # forms ask for costs at every key: building the network each time would be felt
    with torch.device("meta"):
        net = SpatialUNet(channels, base, tuple(range(1, levels + 1)), blocks)
    last = levels - 1
    parts: list[tuple[nn.Module, int]] = [(net.head, 0), (net.tail, 0), (net.middle, last)]
    parts += [(stage, level) for level, stage in enumerate(net.down)]
    parts += [(stage, last - k) for k, stage in enumerate(net.up)]
    parts += [(layer, level + 1) for level, layer in enumerate(net.shrink)]
    parts += [(layer, last - k - 1) for k, layer in enumerate(net.grow)]
    return sum(
        layer.weight.numel() / 4**level
        for part, level in parts
        for layer in part.modules()
        if isinstance(layer, nn.Conv2d)
    )


def spectral_work(bands: int) -> float:
    """Multiply-adds of one forward pass of the spectral network on one spectrum."""
    (a, b, c), table = published_widths(bands)
    return float((bands + table) * a + a * b + b * c + c * bands)
