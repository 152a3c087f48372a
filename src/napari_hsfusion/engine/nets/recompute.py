"""Activations worked out again on the way back, in place of being kept.

Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", 2016: of every
block its input alone is kept, and the block runs again when its gradient is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .unet import ResidualBlock


def recomputed(network: nn.Module) -> nn.Module:
    """Network of the same weights whose residual blocks keep nothing but their input.

    Parameters
    ----------
    network : torch.nn.Module
        Stays as it is.

    Returns
    -------
    torch.nn.Module
        Gives the same values and gradients; without gradients it does the same work.
    """
    return _copied(network)


def _copied(module: nn.Module) -> nn.Module:
    """Copy of the tree of modules, on the same weights."""
    twin = copy(module)
    twin._modules = {
        name: None if child is None else _copied(child) for name, child in module._modules.items()
    }
    if isinstance(twin, ResidualBlock):
        plain: Callable[..., Tensor] = partial(type(twin).forward, twin)
        twin.forward = partial(_run, plain)  # type: ignore[method-assign]
    return twin


def _run(block: Callable[..., Tensor], *arguments: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return block(*arguments)
    # nothing in a block is random
    out: Tensor = checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
    return out
