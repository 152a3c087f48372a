"""Number formats of the networks' passes when sampling; all else keeps its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ParameterError
from .training_recipe import best_precision


def sampling_precision(named: str, device: torch.device) -> str:
    """Settle the format of the networks' passes in a sampler.

    Parameters
    ----------
    named : {"auto", "float32", "tf32", "bfloat16"}
        ``auto`` takes tf32 where a training would take bfloat16, else float32.
    device : torch.device

    Returns
    -------
    str
        One of the last three.

    Raises
    ------
    ParameterError
        If the device has no tf32.
    """
    quick = best_precision(device) == "bfloat16"
    if named == "auto":
        return "tf32" if quick else "float32"
    if named == "tf32" and not quick:
        raise ParameterError(
            f"precision: tf32 is a format of graphics cards of compute capability 8.0 and later, "
            f"this run is on {device}; expected auto, float32 or bfloat16"
        )
    return named


def network_in(network: nn.Module, precision: str) -> nn.Module:
    """Network that calculates in a format, and takes and gives images in their own.

    Parameters
    ----------
    network : torch.nn.Module
        Called with an image and times; frozen.
    precision : {"float32", "tf32", "bfloat16"}

    Returns
    -------
    torch.nn.Module
        The network itself, but for bfloat16 a rounded copy. Calls, and gradients of their
        images, belong within :func:`arithmetic`.
    """
    return _Rounded(network) if precision == "bfloat16" else network


class _Rounded(nn.Module):
    """A network with its weights and images in bfloat16; sums are float32 in the kernels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = deepcopy(network).to(torch.bfloat16).requires_grad_(False)

    def forward(self, state: Tensor, times: Tensor) -> Tensor:
        out: Tensor = self.network(state.to(torch.bfloat16), times)
        return out.to(state.dtype)


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Let products of float32 numbers on a graphics card round to tf32 in the block, or not.

    torch's switches are those of the process: they are as before when the block ends, and
    what another thread calculates on a card meanwhile follows them too. Nothing happens
    where the device is a CPU.

    Parameters
    ----------
    precision : {"float32", "tf32", "bfloat16"}
        All but tf32 round to float32.
    device : torch.device
    """
    if device.type != "cuda":
        yield
        return
    switches = _switches()
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, values in switches:
            setattr(owner, name, values[precision == "tf32"])
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def _switches() -> list[tuple[Any, str, tuple[Any, Any]]]:
    """Owner, attribute, and its values for float32 and tf32."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(cudnn, "conv"):  # torch 2.9 and later, which warn of the older ones
        owners = (matmul, cudnn.conv, cudnn.rnn)  # all of cudnn alike, or reading it fails
        return [(owner, "fp32_precision", ("ieee", "tf32")) for owner in owners]
    return [(owner, "allow_tf32", (False, True)) for owner in (matmul, cudnn)]
