"""Bytes that a run adds to a process: what its stages hold and allocate, counted one by one.

Beyond torch and the package, which are loaded, and both images, which are there. Of stages
that follow each other the largest counts, on top of what is held through all of them. Arrays
of several megabytes are counted exactly; what the C library's heap keeps of smaller ones that
were freed varies from run to run and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from .nets.build import spectral_network
from .nets.recompute import recomputed
from .nets.unet import SpatialUNet

LOADED = 3e6
"""Code that every run is the first to use, and its small arrays."""

DECOMPOSITIONS = 1.2e7
"""LAPACK and scipy, at the first decomposition of a matrix."""

OPTIMISER = 7.5e7
"""What torch loads with its first optimiser and backward pass."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a pair: (C, h, w) and (c, H, W)."""

    bands: int
    low: tuple[int, int]
    msi: int
    high: tuple[int, int]

    @classmethod
    def of(cls, x_shape: Sequence[int], y_shape: Sequence[int]) -> Sizes:
        """From the shapes of the LR-HSI and the HR-MSI."""
        (bands, h, w), (msi, height, width) = x_shape, y_shape
        return cls(bands, (h, w), msi, (height, width))

    @property
    def pixels(self) -> int:
        """Of the HR-MSI."""
        return self.high[0] * self.high[1]

    @property
    def coarse(self) -> int:
        """Pixels of the LR-HSI."""
        return self.low[0] * self.low[1]


def images(count: float, pixels: float) -> float:
    """So many single-precision images."""
    return 4.0 * count * pixels


def together(count: int, each: float) -> float:
    """So many equal tasks at a time, whose peaks do not fall together: measured."""
    return each * (1 + 0.85 * (count - 1))


def pair(sizes: Sizes) -> float:
    """Both images in physical values, those that are used, and normalised."""
    return 3 * (images(sizes.bands, sizes.coarse) + images(sizes.msi, sizes.pixels))


def preparing(sizes: Sizes) -> float:
    """Both images in double precision, several times, while noise is estimated."""
    return images(8 * sizes.bands, sizes.coarse) + images(4.5 * sizes.msi, sizes.pixels)


def composing(sizes: Sizes, dimensions: float) -> float:
    """The cube in input units, sixteen bands at work, and the coefficients that it is made of."""
    return images(sizes.bands + 32 + dimensions, sizes.pixels)


def solving(sizes: Sizes, dimensions: int) -> float:
    """Conjugate gradients: eleven coefficient images."""
    return images(11 * dimensions, sizes.pixels)


def classing(sizes: Sizes, classes: int) -> float:
    """Memberships of pixels, worked out in double precision."""
    return images(3 * classes, sizes.pixels) if classes > 1 else 0.0


def systems(sizes: Sizes, dimensions: int, counts: Sequence[int]) -> float:
    """What is kept of every partition: memberships, two orders of the pixels, right-hand side."""
    each = [dimensions + (count + 4 if count > 1 else 0) for count in counts]
    return images(sum(each), sizes.pixels)


def denoising(sizes: Sizes, strips: int = 1) -> float:
    """Patches of strips of the HR-MSI, their groups and distances, so many at a time."""
    width = sizes.high[1]
    strip = min(sizes.pixels, 43_000 + 22 * width)
    return together(strips, 2.3e7 + images(5.7 * 9 * sizes.msi, strip))


def regressing(sizes: Sizes, cosines: int, at_once: int, most: int) -> float:
    """Cosine images, the regressors at the LR pixels in double precision, and their features."""
    held = 2 * 4.0 * min(at_once, cosines * sizes.pixels)
    design = 3.5 * 8.0 * cosines * min(sizes.coarse, most)
    return held + design + images(5 * (sizes.msi + 2), sizes.pixels)


def training(weights: int, kept: float, base: int, pixels: float) -> float:
    """Weights with gradients, moments and averages; activations of `pixels` pixels at a time."""
    return 6 * 4.0 * weights + images((kept + TRANSIENT) * base, pixels)


TRANSIENT = 8.0
"""Images of the finest width in a backward pass, beyond what is kept."""

FORWARD = 19.0
"""Images of the finest width that a pass without gradients holds: measured."""


@lru_cache(maxsize=64)
def kept_images(levels: int, blocks: int, frozen: bool, again: bool = False) -> float:
    """Images of the finest width that the spatial network keeps for the way back.

    Counted on a small network, with zeros: a wider one keeps as many of its own.

    Parameters
    ----------
    levels, blocks : int
        Of the network.
    frozen : bool
        The gradient is the image's, not the weights'.
    again : bool
        Blocks are worked out again.
    """
    with torch.device("meta"):
        net = SpatialUNet(_CHANNELS, _BASE, tuple(range(1, levels + 1)), blocks)
    net = net.to_empty(device="cpu").requires_grad_(not frozen)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    own = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    side = max(16, net.stride)
    image = torch.zeros(1, _CHANNELS, side, side, requires_grad=frozen)
    used = recomputed(net) if again else net
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = used(image, torch.zeros(1, dtype=torch.long))
    del out
    found = sum(size for place, size in kept.items() if place not in own)
    return found / (4.0 * _BASE * side**2)


_BASE, _CHANNELS = 8, 4


@lru_cache(maxsize=64)
def weight_count(channels: int, base: int, levels: int, blocks: int) -> int:
    """Weights of the spatial network."""
    with torch.device("meta"):
        net = SpatialUNet(channels, base, tuple(range(1, levels + 1)), blocks)
    return sum(weight.numel() for weight in net.parameters())


@lru_cache(maxsize=64)
def spectral_weights(bands: int) -> int:
    """Weights of the spectral network."""
    with torch.device("meta"):
        net = spectral_network(bands)
    return sum(weight.numel() for weight in net.parameters())
