"""Networks that predict noise: one use of the training loop."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from .device import sent
from .diffusion.steps import add_noise
from .events import CancelToken, Step
from .held_out import BATCHES, EVERY, GAIN, HeldOutLoss, Sampler
from .training import Loss, averaged_network, train
from .training_recipe import Recipe
from .training_state import Progress, TrainingState
from .training_team import Team

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
    patience : int
        Steps without a gain in the held-out loss after which the training comes to its
        end; 0 takes all steps.
    """

    steps: int
    batch: int
    rate: float
    decay: bool
    average: float
    patience: int = 0


def train_noise_predictor(
    network: nn.Module,
    sample: Sampler,
    abar: np.ndarray,
    budget: Budget,
    *,
    threads: int | None = None,
    stage: str,
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype,
    cancel: CancelToken,
    parts: int = 1,
    held_out: Sampler | None = None,
    progress: Progress | None = None,
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
    parts : int
        A batch goes through the network in so many parts, one after the other: less
        memory, the same draws, and the same gradients to rounding.
    held_out : callable, optional
        As `sample`, of samples that are not trained on: needed where the budget has
        patience. Their loss is looked at now and then, and the rate stays what it is: a
        falling one would make any loss flat, and the average does as much for the noise.
    progress : Progress, optional
        Filled as the training goes on: its curve has the held-out losses, their signs
        changed, as the metric.

    Returns
    -------
    torch.nn.Module
        The averaged network, in evaluation mode: with patience that of the lowest
        held-out loss, else the last.

    Yields
    ------
    Step
        With the loss of that step; where training ends early one more, without a loss,
        says that the stage is done.
    """
    table = torch.as_tensor(abar[1:]).to(device, dtype)
    loss = noise_loss(sample, table, budget.batch, parts)
    recipe = Recipe(
        steps=budget.steps,
        rate=budget.rate,
        schedule="linear" if budget.decay else "constant",
        average=budget.average,
    )
    validate = None
    if budget.patience and held_out is not None:
        looks = max(1, round(budget.patience / EVERY))
        recipe = replace(
            recipe, schedule="constant", validate_every=EVERY, patience=looks, gain=GAIN
        )
        at_once = -(-budget.batch // parts)
        seed = generator.initial_seed()
        validate = HeldOutLoss(held_out, BATCHES * budget.batch, at_once, table, seed, threads)
    run = train(
        network,
        loss,
        recipe,
        stage=stage,
        generator=generator,
        cancel=cancel,
        team=Team(device),
        threads=threads,
        validate=validate,
        progress=progress,
    )
    last: Step | None = None
    try:
        while True:
            event = next(run)
            if isinstance(event, Step):
                last = event
                yield event
    except StopIteration as stop:
        state: TrainingState = stop.value
        result = averaged_network(state)
        if state.best:
            result.load_state_dict(state.best)
    finally:
        run.close()
    if last is not None and last.index < last.total:
        yield Step(stage, last.index, last.index)
    return result


def noise_loss(sample: Sampler, table: Tensor, batch: int, parts: int = 1) -> Loss:
    """Mean squared error of the predicted noise, as the training loop wants it.

    Parameters
    ----------
    sample : callable
    table : Tensor, shape (times,)
        Signal level of every time, on the device and of the type of the training.
    batch, parts : int
        As :func:`train_noise_predictor` takes them.
    """
    device, dtype = table.device, table.dtype

    def loss(model: nn.Module, source: torch.Generator) -> Tensor | Iterator[Tensor]:
        clean = sent(sample(batch, source).to(dtype=dtype), device)
        times = sent(torch.randint(len(table), (len(clean),), generator=source), device)
        noise = sent(torch.randn(clean.shape, generator=source, dtype=dtype), device)
        level = table[times].reshape(-1, *[1] * (clean.ndim - 1))
        noisy = add_noise(clean, noise, level)
        if parts == 1:
            return nn.functional.mse_loss(model(noisy, times), noise)
        return _part_losses(model, noisy, times, noise, parts)

    return loss


def _part_losses(
    model: nn.Module, noisy: Tensor, times: Tensor, noise: Tensor, parts: int
) -> Iterator[Tensor]:
    """Shares of the mean squared error of a batch, a part of its samples at a time."""
    batches = (tensor.tensor_split(min(parts, len(noisy))) for tensor in (noisy, times, noise))
    for some, when, wanted in zip(*batches, strict=True):
        share = len(some) / len(noisy)
        yield share * nn.functional.mse_loss(model(some, when), wanted)
