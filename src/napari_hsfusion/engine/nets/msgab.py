"""Blocks of EMR-Diff's networks: the multi-scale group attention block, and a plain one.

Both also run tile by tile with the same result: what a block averages over the image is
gathered over all its tiles before any of them goes on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

_SLOPE = 0.2

Parts = tuple[Tensor, ...]
Window = tuple[slice, slice]


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of an image (n, C, H, W), pixel by pixel."""

    def forward(self, image: Tensor) -> Tensor:
        """Normalise every pixel's channels; the shape stays."""
        last = image.permute(0, 2, 3, 1)
        out = functional.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps)
        return out.permute(0, 3, 1, 2)


class Block(nn.Module):
    """What both kinds of block share: the entrance of the time, and work by tiles.

    Parameters
    ----------
    outside : int
        Channels out.
    embedding : int or None
        Width of the time embedding; None for a block that sees no time.
    """

    reach: int
    """Pixels around a pixel that its result depends on, averages apart."""

    def __init__(self, outside: int, embedding: int | None) -> None:
        super().__init__()
        self.outside = outside
        self.time = None if embedding is None else nn.Linear(embedding, outside)

    @abstractmethod
    def local(self, image: Tensor, embedding: Tensor | None) -> Parts:
        """Whatever can be had without an average over the image."""

    @abstractmethod
    def averages(self, parts: Parts, inner: Window) -> Tensor | None:
        """Means over a window of what :meth:`local` gave; None where none are needed."""

    @abstractmethod
    def join(self, parts: Parts, averages: Tensor | None) -> Tensor:
        """Give the result."""

    def forward(self, image: Tensor, embedding: Tensor | None = None, tile: int = 0) -> Tensor:
        """Map (n, inside, H, W) to (n, outside, H, W).

        Parameters
        ----------
        image : Tensor, shape (n, inside, H, W)
        embedding : Tensor, shape (n, e), optional
            Of the time, for a block that sees it.
        tile : int
            Side of the tiles that it is worked out in; 0 for the whole image at once.
        """
        height, width = image.shape[-2:]
        if not tile or max(height, width) <= tile:
            parts = self.local(image, embedding)
            return self.join(parts, self.averages(parts, (slice(None), slice(None))))
        pieces = list(tiles(height, width, tile, self.reach))
        averages: Tensor | None = None
        for read, inner, write in pieces:
            found = self.averages(self.local(image[..., *read], embedding), inner)
            if found is None:
                break
            share = _area(write) / (height * width)
            averages = found * share if averages is None else averages + found * share
        out = torch.empty(
            (len(image), self.outside, height, width),
            dtype=image.dtype,
            device=image.device,
            memory_format=torch.channels_last,
        )
        for read, inner, write in pieces:
            done = self.join(self.local(image[..., *read], embedding), averages)
            out[..., *write] = done[..., *inner]
        return out

    def _with_time(self, image: Tensor, embedding: Tensor | None) -> Tensor:
        if self.time is None:
            return image
        assert embedding is not None
        shift: Tensor = self.time(functional.silu(embedding))
        return image + shift[:, :, None, None]


class GroupAttentionBlock(Block):
    """Multi-scale group attention block (MSGAB).

    A 3 x 3 convolution with normalisation; spatial attention from the channels' mean and
    maximum; two branches of 3 x 3 convolutions over twice the width, one of a single group
    and one of `groups` groups, mixed by a softmax of their averages over the image; an MLP
    of 1 x 1 convolutions; a 1 x 1 skip.

    Parameters
    ----------
    inside, outside : int
        Channels in and out.
    groups : int
        Groups of the second branch; `outside` is a multiple of it.
    embedding : int or None
        Width of the time embedding, added after the spatial attention.
    """

    reach = 6  # 3 x 3, 7 x 7, then twice 3 x 3

    def __init__(self, inside: int, outside: int, groups: int, embedding: int | None) -> None:
        super().__init__(outside, embedding)
        self.head = nn.Conv2d(inside, outside, 3, padding=1)
        self.head_norm = ChannelNorm(outside)
        self.attention = nn.Conv2d(2, 1, 7, padding=3)
        wide = 2 * outside
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(outside, wide, 3, padding=1, groups=count),
                ChannelNorm(wide),
                nn.LeakyReLU(_SLOPE),
                nn.Conv2d(wide, outside, 3, padding=1, groups=count),
            )
            for count in (1, groups)
        )
        self.weigh = nn.ModuleList(nn.Linear(outside, outside) for _ in range(2))
        self.mlp = nn.Sequential(
            nn.Conv2d(outside, 4 * outside, 1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(4 * outside, outside, 1),
        )
        self.skip = nn.Conv2d(inside, outside, 1)

    def local(self, image: Tensor, embedding: Tensor | None) -> Parts:
        """Skip, and both branches, each (n, outside, H, W)."""
        hidden = functional.leaky_relu(self.head_norm(self.head(image)), _SLOPE)
        summary = torch.cat([hidden.mean(1, keepdim=True), hidden.amax(1, keepdim=True)], dim=1)
        hidden = hidden * torch.sigmoid(self.attention(summary))
        hidden = self._with_time(hidden, embedding)
        return (self.skip(image), *(branch(hidden) for branch in self.branches))

    def averages(self, parts: Parts, inner: Window) -> Tensor:
        """Mean of each branch over the window: (2, n, outside)."""
        return torch.stack([part[..., *inner].mean((-2, -1)) for part in parts[1:]])

    def join(self, parts: Parts, averages: Tensor | None) -> Tensor:
        """Mix the branches, then MLP and skip."""
        assert averages is not None
        logits = [layer(mean) for layer, mean in zip(self.weigh, averages, strict=True)]
        share = torch.stack(logits).softmax(0)[..., None, None]
        mixed = share[0] * parts[1] + share[1] * parts[2]
        out: Tensor = parts[0] + self.mlp(mixed)
        return out


class PlainBlock(Block):
    """Two 3 x 3 convolutions and a skip: what the attention block is compared with."""

    reach = 2

    def __init__(self, inside: int, outside: int, groups: int, embedding: int | None) -> None:
        super().__init__(outside, embedding)
        self.head = nn.Conv2d(inside, outside, 3, padding=1)
        self.head_norm = ChannelNorm(outside)
        self.tail = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1)

    def local(self, image: Tensor, embedding: Tensor | None) -> Parts:
        """Give the result, (n, outside, H, W)."""
        hidden = functional.leaky_relu(self.head_norm(self.head(image)), _SLOPE)
        return (self.skip(image) + self.tail(self._with_time(hidden, embedding)),)

    def averages(self, parts: Parts, inner: Window) -> None:
        """Nothing is averaged."""

    def join(self, parts: Parts, averages: Tensor | None) -> Tensor:
        """Return what there is."""
        return parts[0]


def tiles(
    height: int, width: int, side: int, reach: int
) -> Iterator[tuple[Window, Window, Window]]:
    """Cut an image into tiles with a halo.

    Yields
    ------
    read : window of the image, with a halo of `reach` pixels where there are any
    inner : window of what was read, without the halo
    write : window of the image that `inner` covers; these are disjoint and cover it all
    """
    for top in range(0, height, side):
        for left in range(0, width, side):
            axes = [_halo(top, side, height, reach), _halo(left, side, width, reach)]
            read, inner, write = zip(*axes, strict=True)
            yield (read[0], read[1]), (inner[0], inner[1]), (write[0], write[1])


def _halo(start: int, side: int, size: int, reach: int) -> tuple[slice, slice, slice]:
    stop = min(start + side, size)
    low, high = max(0, start - reach), min(size, stop + reach)
    return slice(low, high), slice(start - low, stop - low), slice(start, stop)


def _area(window: Window) -> int:
    return (window[0].stop - window[0].start) * (window[1].stop - window[1].start)
