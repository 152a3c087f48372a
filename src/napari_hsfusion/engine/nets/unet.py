"""The spatial network of ARGS-Diff: a residual UNet that predicts noise.

Convolutions, GroupNorm and SiLU, the time entering every residual block as a
scale and a shift; no attention. Any image size: sides are padded to a multiple of
the coarsest level's stride by replication and cropped again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .frozen import convolution, normalised_silu, transposed_convolution

_LARGE = 2**23
"""Squared width times pixels from which a gradient is taken with channels last: measured."""


def sinusoidal_embedding(times: Tensor, width: int, period: float = 10_000.0) -> Tensor:
    """Sines and cosines of `times` (n,) at `width // 2` frequencies: (n, width)."""
    half = width // 2
    steps = torch.arange(half, device=times.device, dtype=torch.float64)
    angles = times.double()[:, None] * torch.exp(-math.log(period) * steps / half)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def upsampled_convolution(layer: nn.Conv2d, image: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by 2, then a 3 x 3 convolution with padding 1.

    On the CPU both are one transposed convolution: a pixel of the result sees only 2 x 2
    pixels of the image, whose weights are sums of the kernel's, so that 4 products do for 9.

    Parameters
    ----------
    layer : torch.nn.Conv2d
    image : Tensor, shape (n, inside, H, W)

    Returns
    -------
    Tensor, shape (n, outside, 2 H, 2 W)
    """
    if image.device.type != "cpu":
        return convolution(layer, functional.interpolate(image, scale_factor=2.0, mode="nearest"))
    kernel = _doubled(_doubled(layer.weight, 2), 3).transpose(0, 1)
    return transposed_convolution(image, kernel, layer.bias)


def _doubled(kernel: Tensor, dim: int) -> Tensor:
    """Three taps of a correlation, spread by a pair of ones and turned round: four."""
    first, second, third = kernel.unbind(dim)
    return torch.stack([third, second + third, first + second, first], dim)


def _activated(norm: nn.GroupNorm, image: Tensor) -> Tensor:
    """SiLU of the normalised image."""
    return normalised_silu(image, norm.num_groups, norm.weight, norm.bias, norm.eps)


def _plain(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return layer


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a skip; scale and shift from the time embedding."""

    def __init__(self, inside: int, outside: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = _norm(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.time = nn.Linear(embedding, 2 * outside)
        self.norm2 = _norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)

    def forward(self, image: Tensor, embedding: Tensor) -> Tensor:
        """Map (n, inside, H, W) to (n, outside, H, W)."""
        hidden = convolution(self.conv1, _activated(self.norm1, image))
        scale, shift = self.time(functional.silu(embedding)).chunk(2, dim=1)
        hidden = convolution(self.conv2, self._modulated(hidden, 1 + scale, shift))
        skip = convolution(self.skip, image) if isinstance(self.skip, nn.Conv2d) else image
        return hidden.add_(skip)  # nothing keeps what a convolution gave

    def _modulated(self, image: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """SiLU of the second normalisation times `scale` (n, c) plus `shift` (n, c)."""
        norm = self.norm2
        if len(image) > 1:
            shape = (*scale.shape, 1, 1)
            both = torch.addcmul(shift.reshape(shape), norm(image), scale.reshape(shape))
            return functional.silu(both, inplace=not torch.is_grad_enabled())
        # the affine map of the normalisation takes it in: two passes over the image less
        weight, bias = norm.weight * scale[0], norm.bias * scale[0] + shift[0]
        return normalised_silu(image, norm.num_groups, weight, bias, norm.eps)


class SpatialUNet(nn.Module):
    """Noise predictor for coefficient images.

    Parameters
    ----------
    channels : int
        Number of coefficient images d, in and out.
    base : int
        Width of the finest level.
    multipliers : sequence of int
        Width of each level, finest first, in units of `base`.
    blocks : int
        Residual blocks a level on the way down; one more on the way up.
    """

    def __init__(
        self,
        channels: int,
        base: int = 64,
        multipliers: Sequence[int] = (1, 2, 3, 4),
        blocks: int = 2,
    ) -> None:
        super().__init__()
        self.base = base
        self.stride = 2 ** (len(multipliers) - 1)
        width = 4 * base
        self.embed = nn.Sequential(nn.Linear(base, width), nn.SiLU(), nn.Linear(width, width))
        self.head = nn.Conv2d(channels, base, 3, padding=1)
        self.down = nn.ModuleList()
        self.shrink = nn.ModuleList()
        skips = [base]
        current = base
        for level, factor in enumerate(multipliers):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(ResidualBlock(current, factor * base, width))
                current = factor * base
                skips.append(current)
            self.down.append(stage)
            if level < len(multipliers) - 1:
                self.shrink.append(nn.Conv2d(current, current, 3, stride=2, padding=1))
                skips.append(current)
        self.middle = nn.ModuleList(ResidualBlock(current, current, width) for _ in range(2))
        self.up = nn.ModuleList()
        self.grow = nn.ModuleList()
        for level, factor in reversed(list(enumerate(multipliers))):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(ResidualBlock(current + skips.pop(), factor * base, width))
                current = factor * base
            self.up.append(stage)
            if level > 0:
                self.grow.append(nn.Conv2d(current, current, 3, padding=1))
        self.tail_norm = _norm(current)
        self.tail = nn.Conv2d(current, channels, 3, padding=1)

    def _pays(self, image: Tensor) -> bool:
        """Whether a gradient of one image gains by channels last: faster convolutions.

        torch's own gradient of group normalisation, which weights need, is slow in it.
        """
        large = len(image) == 1 and self.base**2 * image[0, 0].numel() >= _LARGE
        return large and not any(weight.requires_grad for weight in self.parameters())

    def forward(self, state: Tensor, times: Tensor) -> Tensor:
        """Predict the noise in `state`.

        Parameters
        ----------
        state : Tensor, shape (n, d, H, W)
            In [-1, 1] plus noise.
        times : Tensor of int, shape (n,)

        Returns
        -------
        Tensor, shape (n, d, H, W)
        """
        height, width = state.shape[-2:]
        pad = (0, -width % self.stride, 0, -height % self.stride)
        image = functional.pad(state, pad, mode="replicate") if any(pad) else state
        if image.device.type == "cpu" and (not torch.is_grad_enabled() or self._pays(image)):
            image = image.contiguous(memory_format=torch.channels_last)
        embedding = self.embed(sinusoidal_embedding(times, self.base).to(state.dtype))
        image = self.head(image)
        skips = [image]
        for level, stage in enumerate(self.down):
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                image = block(image, embedding)
                skips.append(image)
            if level < len(self.shrink):
                image = convolution(_plain(self.shrink[level]), image)
                skips.append(image)
        for block in self.middle:
            image = block(image, embedding)
        for level, stage in enumerate(self.up):
            assert isinstance(stage, nn.ModuleList)
            for block in stage:
                image = block(torch.cat([image, skips.pop()], dim=1), embedding)
            if level < len(self.grow):
                image = upsampled_convolution(_plain(self.grow[level]), image)
        out = convolution(self.tail, _activated(self.tail_norm, image))
        return out[..., :height, :width]
