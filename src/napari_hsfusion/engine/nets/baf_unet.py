"""BAF-UNet: EMR-Diff's bilateral attention fusion UNet, and the variants it is compared with.

Two encoders, one for the noisy state and the time, one for the guidance alone; a middle
block on both; a decoder that takes both encoders' skips and is supervised at every level.
The guidance encoder sees no time, so that one pass serves all sampling steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .msgab import Block, GroupAttentionBlock, PlainBlock
from .unet import sinusoidal_embedding

ARCHITECTURES = {
    "baf-unet": (True, True, True),
    "baf-unet-s": (True, True, False),
    "af-unet": (False, True, True),
    "b-unet": (True, False, True),
    "unet": (False, False, False),
}
"""Name to (bilateral, attention blocks, supervision at every level)."""

LEVELS = 5


@dataclass(frozen=True)
class Layout:
    """Shape of a network.

    Attributes
    ----------
    state : int
        Channels of the state, in and out.
    guidance : int
        Channels of the guidance.
    width : int
        Channels of every level.
    architecture : str
        One of :data:`ARCHITECTURES`.
    """

    state: int
    guidance: int
    width: int
    architecture: str = "baf-unet"


class Encoder(nn.Module):
    """One block a level, stride-2 convolutions between."""

    def __init__(self, inside: int, layout: Layout, embedding: int | None) -> None:
        super().__init__()
        width = layout.width
        first = [inside] + [width] * (LEVELS - 1)
        self.blocks = nn.ModuleList(_block(n, layout, embedding) for n in first)
        self.shrink = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(LEVELS - 1)
        )

    def forward(self, image: Tensor, embedding: Tensor | None, tile: int = 0) -> list[Tensor]:
        """Images (n, width, H / 2^k, W / 2^k) of every level k, finest first."""
        out = []
        for level, block in enumerate(self.blocks):
            image = block(image if level == 0 else self.shrink[level - 1](image), embedding, tile)
            out.append(image)
        return out


class BAFUNet(nn.Module):
    """Network f(x_t, guidance, t) that predicts what to add to the start A_0.

    Parameters
    ----------
    layout : Layout
    """

    stride = 2 ** (LEVELS - 1)
    """Sides must be multiples of it."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.bilateral, _, self.multiscale = ARCHITECTURES[layout.architecture]
        width = layout.width
        self.frequencies = 32
        embedding = 4 * self.frequencies
        self.embed = nn.Sequential(
            nn.Linear(self.frequencies, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        inside = layout.state if self.bilateral else layout.state + layout.guidance
        self.noisy = Encoder(inside, layout, embedding)
        self.guide = Encoder(layout.guidance, layout, None) if self.bilateral else None
        sides = 2 if self.bilateral else 1
        self.middle = _block(sides * width, layout, embedding)
        self.grow = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(LEVELS - 1))
        self.decoder = nn.ModuleList(
            _block((1 + sides) * width, layout, embedding) for _ in range(LEVELS - 1)
        )
        supervised = LEVELS - 1 if self.multiscale else 1
        self.heads = nn.ModuleList(
            nn.Conv2d(width, layout.state, 3, padding=1) for _ in range(supervised)
        )

    def encode(self, guidance: Tensor, tile: int = 0) -> list[Tensor]:
        """What the guidance (n, g, H, W) contributes to every step."""
        image = guidance.contiguous(memory_format=torch.channels_last)
        return [image] if self.guide is None else self.guide(image, None, tile)

    def forward(
        self, state: Tensor, guide: Sequence[Tensor], times: Tensor, tile: int = 0
    ) -> list[Tensor]:
        """Predict ``x_0 - A_0``.

        Parameters
        ----------
        state : Tensor, shape (n, state, H, W)
            H and W multiples of :attr:`stride`.
        guide : sequence of Tensor
            From :meth:`encode`.
        times : Tensor of int, shape (n,)
        tile : int
            Side of the tiles that blocks are worked out in; 0 for none.

        Returns
        -------
        list of Tensor, shapes (n, state, H / 2^k, W / 2^k)
            Finest first; the finest alone in evaluation, or where coarser levels are
            not supervised.
        """
        embedding = self.embed(sinusoidal_embedding(times, self.frequencies).to(state.dtype))
        image = state.contiguous(memory_format=torch.channels_last)
        if self.guide is None:
            skips = [
                [level] for level in self.noisy(torch.cat([image, *guide], 1), embedding, tile)
            ]
        else:
            own = self.noisy(image, embedding, tile)
            skips = [[a, b] for a, b in zip(own, guide, strict=True)]
            del own
        image = self.middle(torch.cat(skips.pop(), 1), embedding, tile)
        outputs = []
        for level in reversed(range(LEVELS - 1)):
            image = functional.interpolate(image, scale_factor=2.0, mode="nearest")
            image = self.grow[level](image)
            image = self.decoder[level](torch.cat([image, *skips.pop()], 1), embedding, tile)
            if level == 0 or (self.training and self.multiscale):
                outputs.append(self.heads[level](image))
        return outputs[::-1]


def _block(inside: int, layout: Layout, embedding: int | None) -> Block:
    attention = ARCHITECTURES[layout.architecture][1]
    kind = GroupAttentionBlock if attention else PlainBlock
    return kind(inside, layout.width, layout.width, embedding)
