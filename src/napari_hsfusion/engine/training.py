"""The one training loop: noise prediction by gradient descent, one event a step."""

from __future__ import annotations

from collections.abc import Callable, Generator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .device import limited_threads
from .diffusion.steps import add_noise
from .events import CancelToken, Step

SMALL_WORK = 2e9
"""Multiply-adds of a step below which one thread is as fast as several, and does not
stall when another program takes a core: threads that wait for each other spin."""


@dataclass(frozen=True)
class Budget:
    """How long and how to train.

    Attributes
    ----------
    steps : int
        Gradient steps.
    batch : int
        Samples a step.
    rate : float
        Adam's learning rate at the start.
    decay : bool
        Whether the rate falls linearly to zero over `steps`.
    average : float
        Decay of the exponential moving average of the weights, warmed up.
    """

    steps: int
    batch: int
    rate: float
    decay: bool
    average: float


def train_noise_predictor(
    network: nn.Module,
    sample: Callable[[int, torch.Generator], Tensor],
    abar: np.ndarray,
    budget: Budget,
    *,
    threads: int | None = None,
    stage: str,
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype,
    cancel: CancelToken,
) -> Generator[Step, None, nn.Module]:
    """Train `network` to predict the noise in noisy samples (plain mean squared error).

    Parameters
    ----------
    network : torch.nn.Module
        Called with a noisy batch and the times (n,).
    sample : callable
        Gives a clean batch (n, ...) in [-1, 1], on the CPU or the device.
    abar : numpy.ndarray, shape (times + 1,)
        Schedule table; ``abar[t + 1]`` belongs to time t.
    budget : Budget
    threads : int, optional
        CPU threads of a step, where fewer than torch's own setting serve better.
    stage : str
        Name of the stage in the events.
    generator : torch.Generator
        On the CPU: samples, times and noise are drawn from it, so that a seed
        means the same on every device.

    Returns
    -------
    torch.nn.Module
        The averaged network, in evaluation mode.

    Yields
    ------
    Step
        With the loss of that step.
    """
    network.train()
    fused = device.type == "cuda"
    optimiser = torch.optim.Adam(network.parameters(), lr=budget.rate, fused=fused)
    averaged = AveragedModel(network, multi_avg_fn=_warm_average(budget.average))
    table = torch.as_tensor(abar[1:]).to(device, dtype)
    for index in range(1, budget.steps + 1):
        cancel.check()
        if budget.decay:
            left = 1.0 - (index - 1) / budget.steps
            optimiser.param_groups[0]["lr"] = budget.rate * left
        clean = sample(budget.batch, generator).to(device, dtype)
        times = torch.randint(len(table), (len(clean),), generator=generator)
        noise = torch.randn(clean.shape, generator=generator, dtype=dtype).to(device)
        times = times.to(device)
        level = table[times].reshape(-1, *[1] * (clean.ndim - 1))
        with limited_threads(threads):
            optimiser.zero_grad(set_to_none=True)
            loss = nn.functional.mse_loss(network(add_noise(clean, noise, level), times), noise)
            loss.backward()
            optimiser.step()
            averaged.update_parameters(network)
        if index == budget.steps or device.type == "cpu" or index % 10 == 0:
            yield Step(stage, index, budget.steps, float(loss.detach()))
        else:
            yield Step(stage, index, budget.steps)
    result: nn.Module = deepcopy(averaged.module)
    result.eval()
    return result.requires_grad_(False)


Tensors = tuple[Tensor, ...] | list[Tensor]


def _warm_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Moving average whose memory grows with the steps taken, up to `decay`."""

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = float(count)
        torch._foreach_lerp_(averaged, current, 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

    return update
