"""Algorithm 1 of ARGS-Diff: guided reverse diffusion of basis and coefficients."""

from __future__ import annotations

import math
from collections.abc import Generator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ...params import ArgsDiffParams
from ..device import limited_threads, sent
from ..events import CancelToken, Event, Preview, Step
from ..observation import Problem
from ..precision import arithmetic, network_in, sampling_precision
from ..streams import SideStream
from .chain import Chain
from .guidance import guidance_gradient, to_unit
from .schedules import exponential_schedule, sampling_times
from .steps import AdamDirection, StepScalars, clean_weights, ddim_weights, weighted_sum

STAGE = "sample"

_LOOK = 10
"""Steps after which a GPU's loss is looked at; every look waits for the GPU."""


class PublishedSampler:
    """State of the reverse process; :meth:`step` takes it from one time to the next.

    Parameters
    ----------
    problem : Problem
    spatial, spectral : torch.nn.Module
        Noise predictors of coefficient images (1, d, H, W) and spectra (d, C).
    params : ArgsDiffParams
    a, e : Tensor, shapes (d, H, W) and (d, C)
        Starting noise.

    Attributes
    ----------
    a, e : Tensor, shapes (d, H, W) and (d, C)
        The sample.
    a_clean, e_clean : Tensor, shapes (d, H, W) and (d, C)
        The clipped predictions of the clean factors.

    Raises
    ------
    ParameterError
        If the device has no such precision.
    """

    def __init__(
        self,
        problem: Problem,
        spatial: nn.Module,
        spectral: nn.Module,
        params: ArgsDiffParams,
        a: Tensor,
        e: Tensor,
    ) -> None:
        self.problem, self.spatial, self.spectral, self.params = problem, spatial, spectral, params
        self.a, self.e = a, e
        self.a_clean, self.e_clean = a, e
        self.precision = sampling_precision(params.precision, a.device)
        self._nets = network_in(spatial, self.precision), network_in(spectral, self.precision)
        self._table = exponential_schedule()
        moments = (params.beta1, params.beta2, params.epsilon)
        self._direction_a = AdamDirection(a, *moments)
        self._direction_e = AdamDirection(e, *moments)
        self._count = 0

    def step(self, time: int, following: int) -> Tensor:
        """Go from `time` to `following`.

        Afterwards ``a`` and ``e`` hold the sample at `following`: new tensors at every
        step, as are the predictions; the old ones stay as they are.

        Returns
        -------
        Tensor, scalar
            The guidance loss, on the device: nothing in a step waits for a GPU.
        """
        self._count += 1
        moved = self.moved(*self._moment(time, following, self._count))
        self.a, self.e, self.a_clean, self.e_clean, loss = moved
        return loss

    def row(self, time: int, following: int, count: int) -> tuple[float, ...]:
        """Values of :class:`~.steps.StepScalars` for step `count`, from 1, between two times."""
        abar, abar_next = self._table[time + 1], self._table[following + 1]
        first, second = self._direction_a.corrections(count)
        # Eq. 15 subtracts the direction from the noise of the next sample
        share = math.sqrt(1.0 - abar_next) if self.params.guidance == "noise" else 1.0
        return (*clean_weights(abar), *ddim_weights(abar, abar_next), share * first, second)

    def moved(self, now: StepScalars, moment: Tensor) -> tuple[Tensor, ...]:
        """The state after one step, in new tensors; Adam's moments alone change in place.

        Parameters
        ----------
        now : StepScalars
            From a :meth:`row`, on the device.
        moment : Tensor of int, shape (1,)
            The time.

        Returns
        -------
        a, e, a_clean, e_clean : Tensor
            As the attributes.
        loss : Tensor, scalar
        """
        p = self.params
        a_clean, e_clean, loss, grad_a, grad_e = self._gradient(now, moment)
        with torch.no_grad(), arithmetic("float32", self.a.device):
            a = weighted_sum(a_clean, now.next_of_clean, self.a, now.next_of_state)
            e = weighted_sum(e_clean, now.next_of_clean, self.e, now.next_of_state)
            a.sub_(self._direction_a(grad_a, now.first, now.second), alpha=p.rho1)
            e.sub_(self._direction_e(grad_e, now.first, now.second), alpha=p.rho2)
            if p.argm:
                _, grad_a, grad_e = guidance_gradient(self.problem, a, e, p.lambda2)
                a.sub_(grad_a, alpha=p.rho1 / p.r)
                e.sub_(grad_e, alpha=p.rho2 / p.r)
        return a, e, a_clean, e_clean, loss

    def hold(self) -> list[Tensor]:
        """Take tensors of its own for the state and give them all, Adam's moments at the end.

        The first four are those that :meth:`moved` gives anew.
        """
        self.a, self.e = self.a.clone(), self.e.clone()
        self.a_clean, self.e_clean = self.a_clean.clone(), self.e_clean.clone()
        state = [self.a, self.e, self.a_clean, self.e_clean]
        return [*state, *self._direction_a.moments, *self._direction_e.moments]

    def gradient(self, time: int) -> tuple[Tensor, Tensor, Tensor]:
        """Predict the clean factors at `time`, and take the gradient of the guidance there.

        The gradient at the predictions is had in closed form; through the networks it
        takes one vector-Jacobian product more, and no graph of the data terms.

        Returns
        -------
        loss : Tensor, scalar
        grad_a, grad_e : Tensor, shapes (d, H, W) and (d, C)
            With respect to ``a`` and ``e``, or to the predictions with
            ``gradient="x0"``. ``a_clean`` and ``e_clean`` hold the predictions.
        """
        found = self._gradient(*self._moment(time, time - 1, 1))
        self.a_clean, self.e_clean, *others = found
        loss, grad_a, grad_e = others
        return loss, grad_a, grad_e

    def _moment(self, time: int, following: int, count: int) -> tuple[StepScalars, Tensor]:
        row = torch.tensor(self.row(time, following, count), dtype=self.a.dtype)
        when = torch.full((1,), time, device=self.a.device)
        return StepScalars(*sent(row, self.a.device).unbind()), when

    def _gradient(self, now: StepScalars, moment: Tensor) -> tuple[Tensor, ...]:
        p, device = self.params, self.a.device
        through = p.gradient == "network"
        a_state = self.a.detach().requires_grad_(through)
        e_state = self.e.detach().requires_grad_(through)
        with torch.set_grad_enabled(through), arithmetic(self.precision, device):
            a_through, e_through = self._predict(a_state, e_state, now, moment)
        a_clean, e_clean = a_through.detach(), e_through.detach()
        with torch.no_grad(), arithmetic("float32", device):
            loss, grad_a, grad_e = guidance_gradient(self.problem, a_clean, e_clean, p.lambda1)
        if through:
            with arithmetic(self.precision, device):
                (grad_a,) = torch.autograd.grad(a_through, a_state, grad_a)
                (grad_e,) = torch.autograd.grad(e_through, e_state, grad_e)
        return a_clean, e_clean, loss, grad_a, grad_e

    def _predict(
        self, a: Tensor, e: Tensor, now: StepScalars, moment: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Eq. 11 for both factors, clipped to [-1, 1]."""
        spatial, spectral = self._nets
        weights = now.clean_of_state, now.clean_of_noise
        a_noise = spatial(a[None], moment)[0]
        e_noise = spectral(e, moment.expand(len(e)))
        a_clean = weighted_sum(a, weights[0], a_noise, weights[1]).clamp(-1, 1)
        e_clean = weighted_sum(e, weights[0], e_noise, weights[1]).clamp(-1, 1)
        return a_clean, e_clean


def sample_published(
    problem: Problem,
    spatial: nn.Module,
    spectral: nn.Module,
    params: ArgsDiffParams,
    generator: torch.Generator,
    cancel: CancelToken,
    threads: int | None = None,
) -> Generator[Event, None, tuple[Tensor, Tensor, dict[str, Any]]]:
    """Run Algorithm 1 from noise, on so many CPU threads or as torch is set.

    On a GPU only some of the steps that it yields have a loss.

    Returns
    -------
    coefficients, basis : Tensor, shapes (d, H, W) and (d, C)
        The last clean predictions, in [0, 1].
    record : dict
        JSON-able: ``sampling_precision``, and on a GPU ``cuda_graph``, with
        ``cuda_graph_reason`` where it is false.
    """
    like = problem.x
    shape = (params.dimensions, *problem.y.shape[1:])
    a = torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
    e = torch.randn((params.dimensions, len(like)), generator=generator, dtype=like.dtype).to(
        like.device
    )
    sampler = PublishedSampler(problem, spatial, spectral, params, a, e)
    times = [(int(now), int(later)) for now, later in pairwise(sampling_times(params.T))]
    side = SideStream(like.device)
    cancel.check()
    with limited_threads(threads):
        chain = Chain(sampler, times, params.graphs)
    for index in range(1, params.T + 1):
        cancel.check()
        with limited_threads(threads):
            loss = chain.advance()
        seen = like.device.type == "cpu" or index == params.T or index % _LOOK == 0
        yield Step(STAGE, index, params.T, float(loss) if seen else None)
        a_now, e_now = side.take(lambda: (to_unit(sampler.a_clean), to_unit(sampler.e_clean)))
        yield Preview(STAGE, index, params.T, a_now, e_now, problem.scale, side.stream)
    record = {"sampling_precision": sampler.precision, **chain.record}
    return to_unit(sampler.a_clean), to_unit(sampler.e_clean), record
