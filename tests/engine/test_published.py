"""ARGS-Diff's Algorithm 1: the engine against a slow, obvious transcription."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from small_pairs import problem
from torch import Tensor, nn

from napari_hsfusion.engine.diffusion.published import PublishedSampler, sample_published
from napari_hsfusion.engine.events import CancelToken, Preview, Step
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.nets.spectral_mlp import SpectralMLP
from napari_hsfusion.engine.nets.unet import SpatialUNet
from napari_hsfusion.engine.observation import Problem
from napari_hsfusion.errors import Cancelled
from napari_hsfusion.params import ArgsDiffParams

D, BANDS = 3, 9


def _networks() -> tuple[nn.Module, nn.Module]:
    generator = torch.Generator().manual_seed(5)
    spatial = initialise(SpatialUNet(D, 8, (1, 2), 1), generator).double().eval()
    spectral = initialise(SpectralMLP(BANDS, (16, 32, 16), 8, 1000), generator).double().eval()
    # blocks start as identities: wake them, or half of the network is not tested
    with torch.no_grad():
        for weight in spatial.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return spatial.requires_grad_(False), spectral.requires_grad_(False)


def _abar(time: int) -> float:
    def g(k: int) -> float:
        return 1 - math.exp(-10 * (1 - k / 1000))

    return 1e-3 + (1 - 1e-3) * (g(time + 1) - g(1000)) / (g(0) - g(1000))


def _loss(pair: Problem, a: Tensor, e: Tensor, weight: float) -> Tensor:
    """Eq. 10 on the cube written out; states in [-1, 1] stand for factors in [0, 1]."""
    cube = torch.einsum("khw,kb->bhw", (a + 1) / 2, (e + 1) / 2)
    low = torch.stack([pair.spatial.forward(band) for band in cube])
    multi = torch.einsum("cb,bhw->chw", pair.response, cube)
    first = ((low - pair.x) ** 2).sum().sqrt()
    return first + weight * ((multi - pair.y) ** 2).sum().sqrt()


def transcription(
    pair: Problem, spatial: nn.Module, spectral: nn.Module, p: ArgsDiffParams, a: Tensor, e: Tensor
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Algorithm 1 line by line, with autograd for every gradient."""
    times = [round(999 - 1000 * i / p.T) for i in range(p.T + 1)]
    moments = {name: [torch.zeros_like(v), torch.zeros_like(v)] for name, v in (("a", a), ("e", e))}
    history = []
    for number, (t, following) in enumerate(itertools.pairwise(times), start=1):
        now, later = _abar(t), _abar(following)
        a = a.detach().requires_grad_()
        e = e.detach().requires_grad_()
        when = torch.tensor([t])
        s = spatial(a[None], when)[0]
        c = torch.cat([spectral(row[None], when) for row in e])
        a0 = ((a - math.sqrt(1 - now) * s) / math.sqrt(now)).clamp(-1, 1)
        e0 = ((e - math.sqrt(1 - now) * c) / math.sqrt(now)).clamp(-1, 1)
        if p.gradient == "network":
            grads = torch.autograd.grad(_loss(pair, a0, e0, p.lambda1), (a, e))
        else:
            at_a, at_e = a0.detach().requires_grad_(), e0.detach().requires_grad_()
            grads = torch.autograd.grad(_loss(pair, at_a, at_e, p.lambda1), (at_a, at_e))
        a0, e0 = a0.detach(), e0.detach()
        fresh = []
        for name, state, clean, grad, rho in (
            ("a", a.detach(), a0, grads[0], p.rho1),
            ("e", e.detach(), e0, grads[1], p.rho2),
        ):
            m, v = moments[name]
            m = p.beta1 * m + (1 - p.beta1) * grad
            v = p.beta2 * v + (1 - p.beta2) * grad**2
            moments[name] = [m, v]
            m_hat, v_hat = m / (1 - p.beta1**number), v / (1 - p.beta2**number)
            direction = m_hat / (v_hat.sqrt() + p.epsilon)
            noise = (state - math.sqrt(now) * clean) / math.sqrt(1 - now)
            if p.guidance == "noise":
                noise = noise - rho * direction
            new = math.sqrt(later) * clean + math.sqrt(1 - later) * noise
            fresh.append(new - rho * direction if p.guidance == "sample" else new)
        a, e = fresh
        if p.argm:
            a, e = a.requires_grad_(), e.requires_grad_()
            grad_a, grad_e = torch.autograd.grad(_loss(pair, a, e, p.lambda2), (a, e))
            a = a.detach() - p.rho1 / p.r * grad_a
            e = e.detach() - p.rho2 / p.r * grad_e
        history.append((a, e, a0, e0))
    return history


CASES = {
    "published": {},
    "without the residual module": {"argm": False},
    "noise form": {"guidance": "noise"},
    "noise form without the residual module": {"guidance": "noise", "argm": False},
    "gradient at x0": {"gradient": "x0"},
    "other weights": {"lambda1": 0.3, "lambda2": 2.5, "rho1": 0.02, "rho2": 0.07, "r": 4.0},
    "other Adam": {"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_engine_agrees_with_the_transcription_at_every_step(changes: dict[str, object]) -> None:
    """Samples and predictions agree to 1e-5 at every step from the same noise, in float64."""
    pair = problem()
    spatial, spectral = _networks()
    params = replace(ArgsDiffParams(d=D, T=25), **changes)
    generator = torch.Generator().manual_seed(11)
    a = torch.randn((D, 16, 24), generator=generator, dtype=torch.float64)
    e = torch.randn((D, BANDS), generator=generator, dtype=torch.float64)
    sampler = PublishedSampler(pair, spatial, spectral, params, a, e)
    times = [round(999 - 1000 * i / params.T) for i in range(params.T + 1)]
    for (t, following), expected in zip(
        itertools.pairwise(times),
        transcription(pair, spatial, spectral, params, a, e),
        strict=True,
    ):
        sampler.step(t, following)
        got = (sampler.a, sampler.e, sampler.a_clean, sampler.e_clean)
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_every_case_differs_from_the_published_one() -> None:
    """No option is dead: each changes the outcome."""
    pair = problem()
    spatial, spectral = _networks()
    generator = torch.Generator().manual_seed(11)
    a = torch.randn((D, 16, 24), generator=generator, dtype=torch.float64)
    e = torch.randn((D, BANDS), generator=generator, dtype=torch.float64)
    ends = {}
    for name, changes in CASES.items():
        sampler = PublishedSampler(
            pair, spatial, spectral, replace(ArgsDiffParams(d=D, T=6), **changes), a, e
        )
        times = [round(999 - 1000 * i / 6) for i in range(7)]
        for t, following in itertools.pairwise(times):
            sampler.step(t, following)
        ends[name] = sampler.a
    for name, end in ends.items():
        if name != "published":
            assert float((end - ends["published"]).abs().max()) > 1e-4, name


def test_events_and_cancel() -> None:
    """One step and one preview a sampling step; a cancelled run stops before the next."""
    pair = problem()
    spatial, spectral = _networks()
    params = ArgsDiffParams(d=D, T=4)
    token = CancelToken()
    events = sample_published(
        pair, spatial, spectral, params, torch.Generator().manual_seed(0), token
    )
    first, second = next(events), next(events)
    assert isinstance(first, Step)
    assert (first.index, first.total) == (1, 4)
    assert isinstance(second, Preview)
    cube = torch.einsum("khw,kb->bhw", second.coefficients, second.basis) * pair.scale
    torch.testing.assert_close(torch.as_tensor(second.bands([0, 5])), cube[[0, 5]])
    torch.testing.assert_close(torch.as_tensor(second.bands(2)), cube[2])
    token.cancel()
    with pytest.raises(Cancelled):
        next(events)


def test_sampling_leaves_grad_mode_alone() -> None:
    """The caller's gradient mode is the same between any two events."""
    pair = problem()
    spatial, spectral = _networks()
    params = ArgsDiffParams(d=D, T=2, gradient="x0")
    for _ in sample_published(
        pair, spatial, spectral, params, torch.Generator().manual_seed(0), CancelToken()
    ):
        assert torch.is_grad_enabled()
