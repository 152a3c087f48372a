"""Algorithm 1 of ARGS-Diff: guided reverse diffusion of basis and coefficients."""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...params import ArgsDiffParams
from ..events import CancelToken, Event, Preview, Step
from ..observation import Problem
from .guidance import guidance_gradient, guidance_loss, to_unit
from .schedules import exponential_schedule, sampling_times
from .steps import AdamDirection, ddim_step, implied_noise, predict_clean

STAGE = "sample"


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

    def step(self, time: int, following: int) -> float:
        """Go from `time` to `following`; return the guidance loss.

        Afterwards ``a`` and ``e`` hold the sample at `following`, ``a_clean`` and
        ``e_clean`` the clipped predictions of the clean factors.
        """
        p = self.params
        abar, abar_next = self._table[time + 1], self._table[following + 1]
        through = p.gradient == "network"
        a_state = self.a.detach().requires_grad_(through)
        e_state = self.e.detach().requires_grad_(through)
        with torch.set_grad_enabled(through):
            a_clean, e_clean = self._predict(a_state, e_state, time, abar)
            if through:
                loss = guidance_loss(self.problem, a_clean, e_clean, p.lambda1)
                grad_a, grad_e = torch.autograd.grad(loss, (a_state, e_state))
        with torch.no_grad():
            a_clean, e_clean = a_clean.detach(), e_clean.detach()
            if not through:
                loss, grad_a, grad_e = guidance_gradient(self.problem, a_clean, e_clean, p.lambda1)
            move_a = p.rho1 * self._direction_a(grad_a)
            move_e = p.rho2 * self._direction_e(grad_e)
            a_noise = implied_noise(self.a, a_clean, abar)
            e_noise = implied_noise(self.e, e_clean, abar)
            if p.guidance == "noise":
                a = ddim_step(a_clean, a_noise - move_a, abar_next)
                e = ddim_step(e_clean, e_noise - move_e, abar_next)
            else:
                a = ddim_step(a_clean, a_noise, abar_next) - move_a
                e = ddim_step(e_clean, e_noise, abar_next) - move_e
            if p.argm:
                _, grad_a, grad_e = guidance_gradient(self.problem, a, e, p.lambda2)
                a = a - (p.rho1 / p.r) * grad_a
                e = e - (p.rho2 / p.r) * grad_e
            self.a, self.e = a, e
            self.a_clean, self.e_clean = a_clean, e_clean
        return float(loss.detach())

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
) -> Generator[Event, None, tuple[Tensor, Tensor]]:
    """Run Algorithm 1 from noise.

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
        loss = sampler.step(int(time), int(following))
        yield Step(STAGE, index, params.T, loss)
        a_now, e_now = to_unit(sampler.a_clean), to_unit(sampler.e_clean)
        yield Preview(STAGE, index, params.T, a_now, e_now, problem.scale)
    return to_unit(sampler.a_clean), to_unit(sampler.e_clean)
