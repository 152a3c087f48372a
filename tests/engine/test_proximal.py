"""The proximal sampler: its view of the bands, its data step, and what its weight does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_pairs import CPU, drain, observation, problem, response, scene
from torch import Tensor

from napari_hsfusion.engine import subspace, validation
from napari_hsfusion.engine.closed_form import blind_share, estimates, share_of_regression
from napari_hsfusion.engine.diffusion.proximal import BandView, Denoiser, proximal_steps
from napari_hsfusion.engine.diffusion.schedules import exponential_schedule, time_of_noise
from napari_hsfusion.engine.events import CancelToken, Started
from napari_hsfusion.engine.methods import get_method
from napari_hsfusion.engine.observation import Observation
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse
from napari_hsfusion.params import ARGS_DIFF_PRESETS


class _Known(torch.nn.Module):
    """A noise predictor that knows the clean image: the perfect denoiser."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean = clean

    def forward(self, state: Tensor, times: Tensor) -> Tensor:
        abar = float(exponential_schedule()[int(times[0]) + 1])
        return (state - abar**0.5 * self.clean) / (1 - abar) ** 0.5


def _start() -> tuple:
    p = problem()
    basis = subspace.spectral_basis(p, 3)
    prior = subspace.gaussian_prior(p, basis)
    start, system, _ = subspace.solve_map(p, basis, prior, tolerance=1e-10)
    return p, basis, start, system


def test_view_is_a_stretch_of_bands() -> None:
    """Channels are bands of the estimate between -1 and 1; the map inverts; Q measures it."""
    _, basis, start, _ = _start()
    view = BandView.choose(basis, start)
    state = view.to_state(start)
    cube = torch.einsum("khw,kb->bhw", start, basis)
    for channel in state:
        correlation = [np.corrcoef(channel.flatten(), band.flatten())[0, 1] for band in cube]
        assert max(correlation) > 1 - 1e-9
        low, high = np.percentile(channel, [0.1, 99.9])
        assert (low, high) == pytest.approx((-1, 1), abs=1e-6)
    torch.testing.assert_close(view.to_coefficients(state), start)
    step = torch.ones_like(start) * 0.01
    moved = (view.to_state(start + step) - state).square().sum()
    quadratic = (step * torch.tensordot(view.metric(), step, dims=1)).sum()
    torch.testing.assert_close(moved, quadratic)


def test_denoiser_scales_into_the_network_and_back() -> None:
    """With a perfect noise predictor the denoiser returns the clean image at any level."""
    clean = torch.rand((3, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(_Known(clean))
    for sigma in (0.01, 0.1, 0.5):
        noisy = clean + sigma
        torch.testing.assert_close(denoiser(noisy, sigma), clean, rtol=1e-9, atol=1e-9)
    assert time_of_noise(denoiser.table, 0.5) > time_of_noise(denoiser.table, 0.01)


def test_data_step_minimises_the_stated_objective() -> None:
    """The gradient of all four terms vanishes at the result, by autograd."""
    p, basis, start, system = _start()
    view = BandView.choose(basis, start)
    target = view.to_state(start) + 0.1
    ((result, proposal),) = proximal_steps(
        [system],
        start,
        view,
        Denoiser(_Known(target)),
        weight=0.7,
        levels=1,
        high=0.05,
        low=0.05,
        iterations=3000,
    )
    torch.testing.assert_close(view.to_state(proposal), target, rtol=1e-6, atol=1e-6)
    prior = subspace.gaussian_prior(p, basis)
    a = result.clone().requires_grad_()
    rx, ry = p.residuals(a, basis)
    off = a - prior.mean
    objective = rx.square().sum() / p.sigma_x**2 + ry.square().sum() / p.sigma_y**2
    objective = objective + (off * torch.tensordot(prior.precision[0], off, dims=1)).sum()
    objective = objective + 0.7 / 0.05**2 * (view.to_state(a) - target).square().sum()
    (gradient,) = torch.autograd.grad(objective, a)
    scale = torch.autograd.grad((system.rhs * a).sum(), a)[0].abs().max()
    assert float(gradient.abs().max()) < 1e-3 * float(scale)


def test_weight_zero_is_the_closed_form_and_large_the_proposal() -> None:
    """The learnt prior weighs what the parameter says."""
    _, basis, start, system = _start()
    view = BandView.choose(basis, start)
    target = view.to_state(start) + 0.05
    ends = {}
    for weight in (0.0, 0.1, 1e6):
        *_, (ends[weight], _) = proximal_steps(
            [system],
            start,
            view,
            Denoiser(_Known(target)),
            weight=weight,
            levels=3,
            high=0.1,
            low=0.01,
            iterations=400,
        )
    torch.testing.assert_close(ends[0.0], start, rtol=0, atol=1e-4)
    torch.testing.assert_close(view.to_state(ends[1e6]), target, rtol=0, atol=1e-3)
    assert float((ends[0.1] - start).abs().max()) > 1e-4


def test_weight_is_chosen_by_what_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A perfect prior gets weight, a misleading one none; every weight is one step."""
    monkeypatch.setattr(validation, "_LEAST", 2)
    p = problem()
    basis = subspace.spectral_basis(p, 3)
    params = ARGS_DIFF_PRESETS["balanced"]
    trial = validation.half_scale(p)
    assert trial is not None
    assert trial.y.shape[1:] == (4, 6)
    assert trial.x.shape[1:] == (2, 3)
    start, systems = subspace.average_map(trial, basis, params.classes, params.partitions, 0)
    view = BandView.choose(basis, start)
    truth = view.to_state(torch.tensordot(basis, p.x, dims=1))
    ends = {}
    for name, known in (("good", truth), ("bad", -9 * truth - 30)):
        steps, ends[name] = drain(
            validation.choose_weight(
                p, trial, basis, start, systems, Denoiser(_Known(known)), params, CancelToken()
            )
        )
        assert [s.index for s in steps] == list(range(1, len(validation.WEIGHTS) + 1))
    assert ends["good"] >= 0.3
    assert ends["bad"] == 0.0


def test_half_scale_masks_what_invalid_pixels_touch() -> None:
    """Invalid pixels of either image are masked in the trial wherever they weigh."""
    z = scene(9, 72, 80)
    spatial = SpatialDegradation.box(z.shape[1:], 4)
    spectral = SpectralResponse(response())
    x, y = spatial.forward(torch.as_tensor(z)), spectral.forward(torch.as_tensor(z))
    valid_x, valid_y = np.ones((18, 20), dtype=bool), np.ones((72, 80), dtype=bool)
    whole = validation.half_scale(Observation(x, y, spatial, spectral).prepare(CPU, torch.float64))
    assert whole is not None
    assert whole.mask_x is None
    assert whole.mask_y is None
    valid_x[12, 3] = False
    valid_y[1, 2:4] = False  # an eighth of what LR pixel (0, 0) sees
    valid_y[30, 50] = False  # too little to matter
    holed = Observation(x, y, spatial, spectral, valid_x, valid_y).prepare(CPU, torch.float64)
    trial = validation.half_scale(holed)
    assert trial is not None
    assert trial.mask_x is not None
    assert trial.mask_y is not None
    hidden = {tuple(place) for place in (trial.mask_y == 0).nonzero().tolist()}
    assert hidden == {(0, 0), (12, 3)}
    # bicubic by two reaches two pixels to either side of a pair
    low = {tuple(place) for place in (trial.mask_x == 0).nonzero().tolist()}
    assert {(0, 0), (6, 1)} <= low
    assert (4, 6) not in low
    assert len(low) < 30


def test_small_pairs_are_not_tried() -> None:
    """Below 16 low-resolution pixels a side there is no trial: nothing is trained for it."""
    assert validation.half_scale(problem()) is None
    _, pair = observation()
    method = get_method("args-diff")
    events = list(method.run(pair, method.presets["balanced"]))
    started = events[0]
    assert isinstance(started, Started)
    assert dict(started.stages) == {"denoise": 1, "closed form": 1, "regression": 8}
    assert events[-1].record["prior_weight"] == 0.0
    # 24 LR pixels
    assert events[-1].record["regression_share"] == 0.5 * 24 / 64


@pytest.mark.parametrize("least", [2, 100])
def test_without_a_network_a_run_is_the_mean_of_both_estimates(
    monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    """With the share that is recorded: by the pixels, or what the trial one octave down says."""
    monkeypatch.setattr(validation, "_LEAST", least)
    _, pair = observation()
    method = get_method("args-diff")
    params = replace(
        method.presets["fast"], d=3, denoise=False, classes=3, partitions=2, regressions=2
    )
    *_, finished = method.run(pair, params, dtype=torch.float64)
    p = pair.prepare(CPU, torch.float64)
    basis = subspace.spectral_basis(p, 3)
    _, found = drain(estimates(p, basis, params, 0, CancelToken()))
    share = blind_share(p)
    trial = validation.half_scale(p)
    if trial is not None:
        _, below = drain(estimates(trial, basis, params, 0, CancelToken()))
        share = share_of_regression(p, trial, below, basis)
        assert abs(share - 0.5) > 1e-3
    assert finished.record["regression_share"] == share
    assert found.regressed is not None
    mean = (1 - share) * found.plain + share * found.regressed
    expected = torch.tensordot(basis.T, mean, dims=1) * p.scale
    np.testing.assert_allclose(finished.cube, expected.numpy(), rtol=0, atol=1e-9)


def test_partitions_are_averaged_at_every_level() -> None:
    """With two systems each level's result is the mean of theirs."""
    p = problem()
    basis = subspace.spectral_basis(p, 3)
    start, systems = subspace.average_map(p, basis, 4, 3, seed=0)
    assert len(systems) == 3
    alone = [
        subspace.solve_map(p, basis, subspace.choose_prior(p, basis, k, 0))[0] for k in (4, 3, 6)
    ]
    torch.testing.assert_close(start, torch.stack(alone).mean(0), atol=1e-3, rtol=0)
    view = BandView.choose(basis, start)
    known = Denoiser(_Known(view.to_state(start) + 0.1))
    options = {"weight": 0.5, "levels": 1, "high": 0.05, "low": 0.05, "iterations": 50}
    ((both, _),) = proximal_steps(systems, start, view, known, **options)
    single = [next(iter(proximal_steps([s], start, view, known, **options)))[0] for s in systems]
    torch.testing.assert_close(both, torch.stack(single).mean(0))


def test_without_weight_a_start_of_its_own_stays() -> None:
    """The closed-form prior is centred so that the start solves it, wherever it comes from."""
    p = problem()
    basis = subspace.spectral_basis(p, 3)
    start, systems = subspace.average_map(p, basis, 4, 3, seed=0)
    moved = start + 0.02
    view = BandView.choose(basis, start)
    denoiser = Denoiser(_Known(view.to_state(start) + 0.3))
    options = {"levels": 2, "high": 0.05, "low": 0.01, "iterations": 30}
    *_, (result, _) = proximal_steps(systems, moved, view, denoiser, weight=0.0, **options)
    torch.testing.assert_close(result, moved, rtol=0, atol=1e-6)


def test_class_counts() -> None:
    """Around the count asked for, without repeats, at least one."""
    assert subspace.class_counts(8, 3) == [8, 6, 12]
    assert subspace.class_counts(8, 1) == [8]
    assert subspace.class_counts(1, 5) == [1]
