"""Schedules, elementary steps and guidance, against formulas and autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_pairs import problem

from napari_hsfusion.engine.diffusion import guidance, schedules, steps
from napari_hsfusion.errors import ParameterError


def test_exponential_schedule_by_formula() -> None:
    """abar_t = g(t + 1), rescaled to 1e-3 … 1."""
    table = schedules.exponential_schedule()
    g = [1 - math.exp(-10 * (1 - k / 1000)) for k in range(1001)]
    low, high = min(g), max(g)
    for time in (-1, 0, 1, 250, 500, 998, 999):
        expected = 1e-3 + (1 - 1e-3) * (g[time + 1] - low) / (high - low)
        assert table[time + 1] == pytest.approx(expected, abs=1e-14)
    assert table[0] == 1.0
    assert table[-1] == pytest.approx(1e-3)
    assert (np.diff(table) < 0).all()


def test_most_of_the_published_chain_has_little_noise() -> None:
    """Over half of the 500 steps have 1 - abar < 0.01."""
    times = schedules.sampling_times(500)
    table = schedules.exponential_schedule()
    assert (1 - table[times[:-1] + 1] < 0.01).mean() > 0.5


@pytest.mark.parametrize("count", [1, 3, 100, 500, 1000])
def test_sampling_times(count: int) -> None:
    """From 999 to -1, strictly falling, evenly spaced to half a step."""
    times = schedules.sampling_times(count)
    assert (times[0], times[-1], len(times)) == (999, -1, count + 1)
    assert (np.diff(times) < 0).all()
    assert np.ptp(np.diff(times)) <= 1


def test_schedule_errors() -> None:
    """Impossible step counts and noise levels are refused."""
    with pytest.raises(ParameterError, match="expected 1 to 1000"):
        schedules.sampling_times(1001)
    with pytest.raises(ParameterError, match="low <= high"):
        schedules.noise_levels(3, 0.1, 0.2)


def test_time_of_noise_inverts_the_schedule() -> None:
    """The time found has the noise-to-signal ratio asked for, as near as the table is fine."""
    table = schedules.exponential_schedule()
    for time in (5, 300, 900):
        abar = table[time + 1]
        assert schedules.time_of_noise(table, math.sqrt((1 - abar) / abar)) == time


def test_steps_are_consistent(rng: np.random.Generator) -> None:
    """Adding noise, predicting the clean image and the noise undo one another."""
    x0 = torch.as_tensor(rng.standard_normal((2, 3)))
    eps = torch.as_tensor(rng.standard_normal((2, 3)))
    xt = steps.add_noise(x0, eps, 0.3)
    torch.testing.assert_close(xt, math.sqrt(0.3) * x0 + math.sqrt(0.7) * eps)
    torch.testing.assert_close(steps.predict_clean(xt, eps, 0.3), x0)
    for later, expected in ((1.0, x0), (0.8, steps.add_noise(x0, eps, 0.8))):
        weights = torch.tensor(steps.ddim_weights(0.3, later), dtype=torch.float64)
        found = steps.weighted_sum(xt, weights[0], x0, weights[1])
        torch.testing.assert_close(found, expected)
    levels = torch.tensor([0.3, 0.9], dtype=torch.float64).reshape(2, 1)
    torch.testing.assert_close(steps.add_noise(x0, eps, levels)[0], xt[0])


def test_adam_direction_against_torch(rng: np.random.Generator) -> None:
    """A walk along the direction is torch's own Adam."""
    start = torch.as_tensor(rng.standard_normal(20))
    weight = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=0.05, betas=(0.9, 0.999), eps=1e-8)
    direction = steps.AdamDirection(start, 0.9, 0.999, 1e-8)
    walk = start.clone()
    for count in range(1, 31):
        gradient = torch.as_tensor(rng.standard_normal(20))
        weight.grad = gradient.clone()
        optimiser.step()
        walk = walk - 0.05 * direction(gradient, *direction.corrections(count))
        torch.testing.assert_close(walk, weight.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_guidance_gradient_against_autograd_of_the_full_cube(
    masked: bool, rng: np.random.Generator
) -> None:
    """The closed form equals autograd through the H x W x C cube, in float64."""
    masks = {}
    if masked:
        masks = {"valid_x": rng.random((4, 6)) > 0.2, "valid_y": rng.random((16, 24)) > 0.2}
    p = problem(**masks)
    a = torch.as_tensor(rng.uniform(-1, 1, (4, 16, 24))).requires_grad_()
    e = torch.as_tensor(rng.uniform(-1, 1, (4, 9))).requires_grad_()
    cube = torch.einsum("khw,kb->bhw", (a + 1) / 2, (e + 1) / 2)
    rx, ry = p.x - p.spatial.forward(cube), p.y - p.spectral.forward(cube)
    if masked:
        rx, ry = rx * p.mask_x, ry * p.mask_y
    loss = rx.square().sum().sqrt() + 0.7 * ry.square().sum().sqrt()
    expected = torch.autograd.grad(loss, (a, e))
    got_loss, *got = guidance.guidance_gradient(p, a.detach(), e.detach(), 0.7)
    assert float(got_loss) == pytest.approx(float(loss.detach()), rel=1e-12)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_gradient_at_a_perfect_fit_is_finite() -> None:
    """Zero residuals give a zero gradient, not NaN."""
    p = problem()
    a = torch.zeros(2, 16, 24, dtype=torch.float64)
    e = torch.zeros(2, 9, dtype=torch.float64)
    cube = torch.full((9, 16, 24), 0.5, dtype=torch.float64)
    exact = type(p)(**{**p.__dict__, "x": p.spatial.forward(cube), "y": p.spectral.forward(cube)})
    _, grad_a, grad_e = guidance.guidance_gradient(exact, a, e, 1.0)
    assert torch.isfinite(grad_a).all()
    assert torch.isfinite(grad_e).all()
