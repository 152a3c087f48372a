"""Algorithm 1 of ARGS-Diff: guided reverse diffusion of basis and coefficients."""

from __future__ import annotations

import math
from collections.abc import Generator
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...params import ArgsDiffParams
from ..device import limited_threads
from ..events import CancelToken, Event, Preview, Step
from ..observation import Problem
from .guidance import guidance_gradient, to_unit
from .schedules import exponential_schedule, sampling_times
from .steps import AdamDirection, ddim_step, predict_clean

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
        self._table = exponential_schedule()
        moments = (params.beta1, params.beta2, params.epsilon)
        self._direction_a = AdamDirection(*moments)
        self._direction_e = AdamDirection(*moments)

    def step(self, time: int, following: int) -> Tensor:
        """Go from `time` to `following`.

        Afterwards ``a`` and ``e`` hold the sample at `following`, ``a_clean`` and
        ``e_clean`` the clipped predictions of the clean factors: new tensors at every
        step, the old ones stay as they are.

        Returns
        -------
        Tensor, scalar
            The guidance loss, on the device: nothing in a step waits for a GPU.
        """
        p = self.params
        abar, abar_next = self._table[time + 1], self._table[following + 1]
        loss, grad_a, grad_e = self.gradient(time)
        with torch.no_grad():
            # Eq. 15 subtracts the direction from the noise of the next sample
            share = math.sqrt(1.0 - abar_next) if p.guidance == "noise" else 1.0
            a = ddim_step(self.a, self.a_clean, abar, abar_next)
            e = ddim_step(self.e, self.e_clean, abar, abar_next)
            a.sub_(self._direction_a(grad_a), alpha=p.rho1 * share)
            e.sub_(self._direction_e(grad_e), alpha=p.rho2 * share)
            if p.argm:
                _, grad_a, grad_e = guidance_gradient(self.problem, a, e, p.lambda2)
                a.sub_(grad_a, alpha=p.rho1 / p.r)
                e.sub_(grad_e, alpha=p.rho2 / p.r)
            self.a, self.e = a, e
        return loss

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
        p = self.params
        through = p.gradient == "network"
        a_state = self.a.detach().requires_grad_(through)
        e_state = self.e.detach().requires_grad_(through)
        with torch.set_grad_enabled(through):
            a_clean, e_clean = self._predict(a_state, e_state, time, self._table[time + 1])
        self.a_clean, self.e_clean = a_clean.detach(), e_clean.detach()
        with torch.no_grad():
            loss, grad_a, grad_e = guidance_gradient(
                self.problem, self.a_clean, self.e_clean, p.lambda1
            )
        if through:
            (grad_a,) = torch.autograd.grad(a_clean, a_state, grad_a)
            (grad_e,) = torch.autograd.grad(e_clean, e_state, grad_e)
        return loss, grad_a, grad_e

    def _predict(self, a: Tensor, e: Tensor, time: int, abar: float) -> tuple[Tensor, Tensor]:
        """Eq. 11 for both factors, clipped to [-1, 1]."""
        moment = torch.full((1,), time, device=a.device)
        a_noise = self.spatial(a[None], moment)[0]
        e_noise = self.spectral(e, moment.expand(len(e)))
        a_clean = predict_clean(a, a_noise, abar).clamp(-1, 1)
        e_clean = predict_clean(e, e_noise, abar).clamp(-1, 1)
        return a_clean, e_clean


def sample_published(
    problem: Problem,
    spatial: nn.Module,
    spectral: nn.Module,
    params: ArgsDiffParams,
    generator: torch.Generator,
    cancel: CancelToken,
    threads: int | None = None,
) -> Generator[Event, None, tuple[Tensor, Tensor]]:
    """Run Algorithm 1 from noise, on so many CPU threads or as torch is set.

    On a GPU only some of the steps that it yields have a loss.

    Returns
    -------
    coefficients, basis : Tensor, shapes (d, H, W) and (d, C)
        The last clean predictions, in [0, 1].
    """
    like = problem.x
    shape = (params.dimensions, *problem.y.shape[1:])
    a = torch.randn(shape, generator=generator, dtype=like.dtype).to(like.device)
    e = torch.randn((params.dimensions, len(like)), generator=generator, dtype=like.dtype).to(
        like.device
    )
    sampler = PublishedSampler(problem, spatial, spectral, params, a, e)
    times = sampling_times(params.T)
    for index, (time, following) in enumerate(pairwise(times), start=1):
        cancel.check()
        with limited_threads(threads):
            loss = sampler.step(int(time), int(following))
        seen = like.device.type == "cpu" or index == params.T or index % _LOOK == 0
        yield Step(STAGE, index, params.T, float(loss) if seen else None)
        a_now, e_now = to_unit(sampler.a_clean), to_unit(sampler.e_clean)
        yield Preview(STAGE, index, params.T, a_now, e_now, problem.scale)
    return to_unit(sampler.a_clean), to_unit(sampler.e_clean)
