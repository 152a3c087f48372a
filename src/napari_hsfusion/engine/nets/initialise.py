"""Starting weights drawn from a generator of our own; torch's global one is not touched."""

from __future__ import annotations

import math

import torch
from torch import nn

from .baf_unet import BAFUNet
from .unet import ResidualBlock


def initialise(network: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give every layer its starting weights, in the order of the modules.

    Convolutions and linear layers get He et al.'s uniform law for a leaky slope of
    sqrt(5), as torch's own do; tables a normal law; normalisations the identity;
    the second convolution of a residual block zero, so that blocks start as skips, and so
    are the heads of :class:`~.baf_unet.BAFUNet`, so that training starts from its start.

    Raises
    ------
    TypeError
        If a layer with weights is of a kind that has no rule here.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, generator=generator)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif any(True for _ in module.parameters(recurse=False)):
            raise TypeError(f"no rule for the starting weights of {type(module).__name__}")
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.conv2.weight)
            assert module.conv2.bias is not None
            nn.init.zeros_(module.conv2.bias)
        elif isinstance(module, BAFUNet):
            for head in module.heads:
                assert isinstance(head, nn.Conv2d)
                assert head.bias is not None
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
    return network
