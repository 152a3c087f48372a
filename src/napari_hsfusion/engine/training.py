"""The one training loop: gradient steps on a loss that draws its own batch, one event a step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel

from ..errors import Cancelled, TrainingError
from .device import limited_threads
from .events import CancelToken, Measured, Preview, Step
from .training_recipe import Recipe
from .training_state import Progress, TrainingState, diverged
from .training_team import Team

Loss = Callable[[nn.Module, torch.Generator], Tensor | Iterator[Tensor]]
"""Draws a batch from the generator and gives the loss, a scalar; or, in one process, its parts
in turn, of which it is the sum: each is sent backward before the next is worked out."""

Validation = Callable[[nn.Module, Progress], Generator[Preview | Step, None, float]]
"""Tries the averaged network; returns a metric, higher is better."""

_LOOK = 10
"""Steps after which a GPU's loss is looked at; every look waits for the GPU."""


@dataclass
class Keeping:
    """Where a run's state is kept, and what it is told to whoever reads it.

    Attributes
    ----------
    path : Path
    header : mapping
        JSON-able.
    resume : bool
        Go on from the state that is there.
    """

    path: Path
    header: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False


class _Objective(nn.Module):
    """The loss as a module, so that several processes can average its gradients."""

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self._loss = loss

    def forward(self, generator: torch.Generator) -> Tensor | Iterator[Tensor]:
        return self._loss(self.network, generator)


def train(
    network: nn.Module,
    loss: Loss,
    recipe: Recipe,
    *,
    stage: str,
    generator: torch.Generator,
    cancel: CancelToken,
    team: Team,
    threads: int | None = None,
    keeping: Keeping | None = None,
    validate: Validation | None = None,
    progress: Progress | None = None,
) -> Generator[Step | Measured | Preview, None, TrainingState]:
    """Minimise a loss by Adam.

    Parameters
    ----------
    network : torch.nn.Module
        On the team's device; trained in place.
    loss : callable
        See :data:`Loss`.
    recipe : Recipe
    stage : str
        Name of the stage in the events.
    generator : torch.Generator
        On the CPU, so that a seed means the same on every device; in the same state
        in every process of the team.
    cancel : CancelToken
        Looked at before every step.
    team : Team
    threads : int, optional
        CPU threads of a step, where fewer than torch's own setting serve better.
    keeping : Keeping, optional
        Saves the state from time to time, after validations, at the end, and when
        the run is cancelled or closed.
    validate : callable, optional
        See :data:`Validation`.
    progress : Progress, optional
        Filled as the run goes on, for whoever wants to read it.

    Returns
    -------
    TrainingState
        Its ``averaged`` holds the averaged weights, its ``best`` those of the best
        validation.

    Yields
    ------
    Step, Measured, Preview
        Each Step with its loss; on a GPU only some have one.

    Raises
    ------
    TrainingError
        If the loss or a weight is no longer finite; the saved state is as it was.
    WeightsError
        If the state to resume from is damaged or of another network.
    Cancelled
    """
    network.train()
    device = team.device
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.rate, fused=True)
    averaged = _WarmAverage(network, recipe.average)
    scaler = GradScaler(device.type, enabled=recipe.precision == "float16")
    progress = Progress() if progress is None else progress
    state = TrainingState(network, averaged, optimiser, scaler, generator, progress)
    if keeping is not None and keeping.resume:
        state.load(keeping.path)
    keeper = _Keeper(state, keeping if team.leads else None, recipe.save_seconds)
    objective = team.joined(_Objective(network, loss))
    pending: list[Tensor] = []
    clock = _Clock(progress.seconds, team, cancel)
    try:
        while True:
            progress.seconds = clock.read()
            ended = _ended(progress, recipe)
            if _due(progress, recipe, ended) and (validate is not None):
                yield from _validated(state, recipe, validate, stage, team)
                progress.seconds = clock.read()
                ended = _ended(progress, recipe)
                keeper.save()
            if ended:
                if progress.counted:
                    _log(progress, optimiser.param_groups[0]["lr"])
                break
            keeper.save_if_due()
            rate = recipe.rate_at(progress.step, progress.seconds)
            optimiser.param_groups[0]["lr"] = rate
            with limited_threads(threads):
                value = _step(state, objective, recipe, device)
            progress.step += 1
            pending.append(value)
            row = progress.step == recipe.steps or progress.step % recipe.log_every == 0
            if row or device.type == "cpu" or progress.step % _LOOK == 0:
                seen = _settled(progress, pending)
                if row:
                    _log(progress, rate)
                yield Step(stage, progress.step, recipe.steps, seen)
            else:
                yield Step(stage, progress.step, recipe.steps)
    except (Cancelled, GeneratorExit):  # between two steps: the state is whole
        if pending:
            _settled(state.progress, pending)
        keeper.save()
        raise
    keeper.save()
    network.eval()
    return state


def averaged_network(state: TrainingState) -> nn.Module:
    """Copy of the averaged network, in evaluation mode, without gradients."""
    result: nn.Module = deepcopy(state.averaged.module)
    return result.eval().requires_grad_(False)


def _step(
    state: TrainingState, objective: nn.Module, recipe: Recipe, device: torch.device
) -> Tensor:
    state.optimiser.zero_grad(set_to_none=True)
    losses = []
    for part in _parts(objective, state.generator, recipe.precision, device):
        state.scaler.scale(part).backward()
        losses.append(part.detach())
    if recipe.clip is not None:
        state.scaler.unscale_(state.optimiser)
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.averaged.update_parameters(state.network)
    return torch.stack(losses).sum() if len(losses) > 1 else losses[0]


def _parts(
    objective: nn.Module, generator: torch.Generator, precision: str, device: torch.device
) -> Iterator[Tensor]:
    """Parts of the loss, or the whole of it, worked out in a number format."""
    with _autocast(precision, device):
        found: Tensor | Iterator[Tensor] = objective(generator)
    if isinstance(found, Tensor):
        yield found
        return
    while True:
        with _autocast(precision, device):
            part = next(found, None)
        if part is None:
            return
        yield part


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def _settled(progress: Progress, pending: list[Tensor]) -> float:
    """Count the losses of the last steps in; the last of them comes back."""
    values = [float(value) for value in pending]
    pending.clear()
    if not all(math.isfinite(value) for value in values):
        raise TrainingError(diverged(progress.step))
    progress.total += sum(values)
    progress.counted += len(values)
    return values[-1]


def _log(progress: Progress, rate: float) -> None:
    progress.curve.append(
        {
            "step": progress.step,
            "seconds": progress.seconds,
            "rate": rate,
            "loss": progress.total / progress.counted,
            "metric": None,
        }
    )
    progress.total, progress.counted = 0.0, 0


def _ended(progress: Progress, recipe: Recipe) -> bool:
    return (
        progress.step >= recipe.steps
        or (recipe.minutes is not None and progress.seconds >= 60.0 * recipe.minutes)
        or (recipe.patience is not None and progress.stale >= recipe.patience)
    )


def _due(progress: Progress, recipe: Recipe, ended: bool) -> bool:
    if progress.step == 0 or progress.validated == progress.step:
        return False
    every = recipe.validate_every
    return ended or (every > 0 and progress.step % every == 0)


def _validated(
    state: TrainingState, recipe: Recipe, validate: Validation, stage: str, team: Team
) -> Generator[Measured | Preview | Step, None, None]:
    progress = state.progress
    metric = 0.0
    if team.leads:
        module = state.averaged.module
        module.eval()
        metric = yield from _tried(validate, module, progress)
    metric = team.agreed(metric)
    if not math.isfinite(metric):
        raise TrainingError(diverged(progress.step))
    progress.validated = progress.step
    mark = progress.best if progress.mark is None else progress.mark
    if progress.best is None or metric > progress.best:
        progress.best, progress.best_step = metric, progress.step
        state.remember_best()
    if mark is None or metric > mark + recipe.gain * abs(mark):
        progress.mark, progress.stale = metric, 0
    else:
        progress.stale += 1
    if progress.curve and progress.curve[-1]["step"] == progress.step:
        progress.curve[-1]["metric"] = metric
    elif progress.counted:
        _log(progress, recipe.rate_at(progress.step - 1, progress.seconds))
        progress.curve[-1]["metric"] = metric
    yield Measured(stage, progress.step, recipe.steps, metric, progress.best)


@torch.no_grad()  # within the validation alone: not for whoever takes its events
def _tried(
    validate: Validation, network: nn.Module, progress: Progress
) -> Generator[Preview | Step, None, float]:
    return (yield from validate(network, progress))


class _Clock:
    """Seconds of a run, over all its parts; the first process tells them to the others.

    It tells in the same breath whether the run was cancelled, so that all end alike.
    """

    def __init__(self, before: float, team: Team, cancel: CancelToken) -> None:
        self._begun = time.monotonic() - before
        self._team, self._cancel = team, cancel

    def read(self) -> float:
        """Seconds so far; Cancelled is raised if the run was."""
        told = self._team.agreed(-1.0 if self._cancel.cancelled else self._seconds())
        if told < 0:
            self._cancel.cancel()
            self._cancel.check()
        return told

    def _seconds(self) -> float:
        return max(0.0, time.monotonic() - self._begun)


class _Keeper:
    """Saves a run's state from time to time."""

    def __init__(self, state: TrainingState, keeping: Keeping | None, seconds: float) -> None:
        self._state, self._keeping, self._seconds = state, keeping, seconds
        self._last = self._now()
        self._when = time.monotonic()

    def save_if_due(self) -> None:
        if time.monotonic() - self._when >= self._seconds:
            self.save()

    def save(self) -> None:
        if self._keeping is not None and self._now() != self._last:
            self._state.save(self._keeping.path, self._keeping.header)
            self._last = self._now()
        self._when = time.monotonic()

    def _now(self) -> tuple[int, int]:
        return self._state.progress.step, self._state.progress.validated


class _WarmAverage(AveragedModel):
    """Moving average whose memory grows with the steps taken, up to `decay`.

    Counted on the host and in one call for all weights: a step waits for no GPU.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self._decay = decay
        self._average = [p.detach() for p in self.module.parameters()]
        self._current = [p.detach() for p in network.parameters()]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights of a step in; the first are taken as they are."""
        n = int(self.n_averaged)
        if n == 0:
            torch._foreach_copy_(self._average, self._current)
        else:
            weight = 1.0 - min(self._decay, (1.0 + n) / (10.0 + n))
            torch._foreach_lerp_(self._average, self._current, weight)
        for mine, theirs in zip(self.module.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
        self.n_averaged += 1
