"""Regression on the HR-MSI through the degradation: against dense algebra and plain loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_pairs import CPU, dense, drain, observation, problem, response

from napari_hsfusion.engine import regression, subspace
from napari_hsfusion.engine.closed_form import (
    blind_share,
    estimate_stages,
    estimates,
    share_of_regression,
)
from napari_hsfusion.engine.events import CancelToken
from napari_hsfusion.engine.observation import Observation, Problem
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse
from napari_hsfusion.engine.regression import KERNELS, Kernel, blend_share, regress, ridge
from napari_hsfusion.engine.validation import half_scale
from napari_hsfusion.errors import Cancelled
from napari_hsfusion.params import ARGS_DIFF_PRESETS

RIDGES = regression._RIDGES


@pytest.mark.parametrize(("count", "samples"), [(7, 20), (30, 12)])
def test_ridge_against_a_loop_that_leaves_one_out(count: int, samples: int) -> None:
    """Weights and the choice of the ridge equal those of plain solves, for either shape."""
    rng = np.random.default_rng(count)
    design = rng.standard_normal((count, samples))
    target = np.stack(
        [design[:3].sum(0) + level * rng.standard_normal(samples) for level in (0.01, 1.0, 10.0)]
    )

    def weights(kept: np.ndarray, level: float) -> np.ndarray:
        chosen = design[:, kept]
        return np.linalg.solve(
            chosen @ chosen.T + level * np.eye(count), chosen @ target[:, kept].T
        ).T

    everything = np.arange(samples)
    error = np.zeros((len(RIDGES), len(target)))
    for k, level in enumerate(RIDGES):
        for i in everything:
            w = weights(everything != i, level)
            error[k] += (target[:, i] - w @ design[:, i]) ** 2
    best = error.argmin(0)
    assert len(set(best)) > 1
    expected = np.stack([weights(everything, RIDGES[k])[d] for d, k in enumerate(best)])
    found = ridge(torch.as_tensor(design), torch.as_tensor(target))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_cosines_have_the_matern_kernel() -> None:
    """Products of two pixels' cosines tend to the kernel of order 5/2."""
    p = problem()
    kernel = Kernel(1.5, 1.0)
    gram = 0.0
    for seed in range(10):
        images = regression._Images.of(p, kernel, np.random.default_rng(seed))
        cosines = torch.cat(list(images.parts())).flatten(1)[: len(images.frequencies)]
        gram = gram + (cosines.T @ cosines) / 10
    features = images.features.T
    distance = np.sqrt(5) * torch.cdist(features, features) / kernel.length
    expected = (1 + distance + distance**2 / 3) * torch.exp(-distance)
    # 8,000 cosines, each of variance of at most one half
    torch.testing.assert_close(gram, expected, rtol=0, atol=0.06)
    assert float(expected.min()) < 0.2


def _dense_regression(p: Problem, low: torch.Tensor, kernel: Kernel) -> np.ndarray:
    """The same from matrices: the ridge in its dual form, and the upsampled rest."""
    images = regression._Images.of(p, kernel, np.random.default_rng(7))
    phi = torch.cat(list(images.parts())).flatten(1).numpy()
    h = dense(p.spatial)
    seen = phi @ h.T
    target = low.flatten(1).numpy()
    gram = seen.T @ seen
    out = []
    for row in target:
        errors = []
        for level in RIDGES:
            inverse = np.linalg.inv(gram + level * np.eye(len(gram)))
            errors.append(((inverse @ row / np.diag(inverse)) ** 2).mean())
        level = RIDGES[int(np.argmin(errors))]
        out.append(phi.T @ (seen @ np.linalg.solve(gram + level * np.eye(len(gram)), row)))
    return np.stack(out).reshape(len(low), *p.y.shape[1:])


@pytest.mark.parametrize("kernel", [Kernel(2.0, 3.0), Kernel(3.0, 1.0, (0.5, 1.0), 0.4)])
def test_regression_against_dense_algebra(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One regression equals its equations, however few images are held at a time."""
    p = problem()
    basis = subspace.spectral_basis(p, 4)
    low = torch.tensordot(basis, p.x, dims=1)
    expected = _dense_regression(p, low, kernel)
    seen = np.ones(low.shape[1:], dtype=bool)
    found = regress(p, low, kernel, np.random.default_rng(7), seen)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)
    monkeypatch.setattr(regression, "AT_ONCE", 37 * p.y[0].numel())
    in_parts = regress(p, low, kernel, np.random.default_rng(7), seen)
    torch.testing.assert_close(in_parts, found, rtol=0, atol=1e-9)


def _bent(noise: float = 0.0, **more: object) -> tuple[np.ndarray, Problem]:
    """Three materials along a curve, the third hidden from a HR-MSI of two bands."""
    height, width, bands = 48, 48, 8
    y, x = np.mgrid[:height, :width] / 48
    first = 0.5 + 0.3 * np.sin(9 * x) * np.cos(7 * y) + 0.2 * ((x * 7) % 1 > 0.5)
    second = 0.5 + 0.4 * np.cos(5 * x * y + 11 * y)
    third = (first - 0.5) ** 2 * 2 + 0.3 * np.sin(4 * second)
    spectra = np.zeros((3, bands))
    spectra[0, :3], spectra[1, 3:6], spectra[2, 6:] = 1, 1, 1
    z = np.einsum("khw,kb->bhw", np.stack([first, second, third]), spectra)
    matrix = np.zeros((2, bands))
    matrix[0, :3], matrix[1, 3:6] = 1 / 3, 1 / 3
    spatial = SpatialDegradation.bicubic((height, width), 4)
    spectral = SpectralResponse(matrix)
    images = [op.forward(torch.as_tensor(z)).numpy() for op in (spatial, spectral)]
    rng = np.random.default_rng(0)
    images = [image + noise * rng.standard_normal(image.shape) for image in images]
    made = Observation(*images, spatial, spectral, **more)
    return z, made.prepare(CPU, torch.float64)


def test_hidden_bands_follow_what_is_seen() -> None:
    """Where hidden bands are a function of the seen ones, it is found; classes do worse."""
    z, p = _bent()
    basis = subspace.spectral_basis(p, 3)
    truth = torch.tensordot(basis, torch.as_tensor(z) / p.scale, dims=1)
    plain, _ = subspace.average_map(p, basis, 4, 2, 0)
    regressed = torch.stack(list(regression.regressions(p, basis, 3, 0))).mean(0)
    assert (regressed - truth).square().mean() < 0.2 * (plain - truth).square().mean()
    # as it goes into the mean it agrees with the LR-HSI
    params = dataclasses.replace(ARGS_DIFF_PRESETS["fast"], classes=4, partitions=2, regressions=3)
    _, found = drain(estimates(p, basis, params, 0, CancelToken()))
    assert (found.regressed - truth).square().mean() < 0.2 * (plain - truth).square().mean()
    torch.testing.assert_close(
        p.spatial.forward(found.regressed), torch.tensordot(basis, p.x, dims=1), rtol=0, atol=2e-3
    )


def test_seed_and_cancel() -> None:
    """The same seed gives the same bits, another one other cosines; cancelling ends it."""
    p = problem()
    basis = subspace.spectral_basis(p, 3)
    one, two, other = (list(regression.regressions(p, basis, 2, s)) for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[1])
    cancel = CancelToken()
    run = regression.regressions(p, basis, 2, 0, cancel)
    next(run)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(run)


def test_invalid_pixels_are_not_fitted() -> None:
    """What stands in invalid pixels of either image moves no valid one's regression."""
    z, _ = observation()
    spatial = SpatialDegradation.box(z.shape[1:], 4)
    spectral = SpectralResponse(response())
    x = spatial.forward(torch.as_tensor(z)).numpy()
    y = spectral.forward(torch.as_tensor(z)).numpy()
    valid_x, valid_y = np.ones((4, 6), dtype=bool), np.ones((16, 24), dtype=bool)
    valid_x[1, 4] = False
    valid_y[14, 1:3] = False  # an eighth of what LR pixel (3, 0) sees
    valid_y[6, 9] = False  # too little to matter
    made = Observation(x, y, spatial, spectral, valid_x, valid_y).prepare(CPU, torch.float64)
    basis = subspace.spectral_basis(made, 3)
    seen = regression._usable(made)
    assert set(zip(*np.nonzero(~seen), strict=True)) == {(1, 4), (3, 0)}
    odd = made.x.clone()
    odd[:, 1, 4] = 7.0
    odd[:, 3, 0] = -3.0
    moved = dataclasses.replace(made, x=odd)
    for a, b in zip(
        regression.regressions(made, basis, 2, 0),
        regression.regressions(moved, basis, 2, 0),
        strict=True,
    ):
        assert torch.equal(a, b)
    every = np.zeros_like(valid_y)
    every[::4, ::4] = True
    none = dataclasses.replace(made, mask_y=torch.as_tensor(every).double())
    np.testing.assert_array_equal(regression._usable(none), valid_x)


def test_very_many_pixels_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a number of pixels a part of them is fitted, and the rest still reproduced."""
    _, p = _bent()
    basis = subspace.spectral_basis(p, 3)
    low = torch.tensordot(basis, p.x, dims=1)
    seen = np.ones(low.shape[1:], dtype=bool)
    whole = regress(p, low, KERNELS[0], np.random.default_rng(0), seen)
    monkeypatch.setattr(regression, "MOST_PIXELS", 100)
    part = regress(p, low, KERNELS[0], np.random.default_rng(0), seen)
    assert not torch.equal(part, whole)
    assert (part - whole).square().mean() < 0.01 * whole.square().mean()
    _, (system, *_) = subspace.average_map(p, basis, 4, 2, 0)
    missed = p.spatial.forward(system.about(part)) - low
    assert missed.square().mean() < 1e-4 * low.square().mean()


def test_share_is_between_half_and_what_fits_best() -> None:
    """Half-way to the best share, of pixels that count alone."""
    generator = torch.Generator().manual_seed(0)
    plain, other = torch.randn((2, 3, 5, 6), generator=generator, dtype=torch.float64)
    for best in (0.0, 0.3, 1.0):
        truth = plain.lerp(other, best)
        assert blend_share(plain, other, truth, None) == pytest.approx(0.25 + best / 2)
    assert blend_share(plain, other, plain.lerp(other, -2.0), None) == 0.25
    assert blend_share(plain, other, plain.lerp(other, 3.0), None) == 0.75
    assert blend_share(plain, plain, other, None) == 0.5
    mask = torch.zeros((5, 6), dtype=torch.float64)
    mask[:2] = 1
    mixed = torch.where(mask > 0, plain.lerp(other, 0.3), plain)
    assert blend_share(plain, other, mixed, mask) == pytest.approx(0.4)


@pytest.mark.parametrize("told", [1.3, 2.3])
def test_a_blur_that_is_told_wrongly_does_not_spoil_it(told: float) -> None:
    """The regression bends to both images; forced into the LR-HSI it would be far off."""
    z, _ = _bent()
    real = SpatialDegradation.gaussian(z.shape[1:], 4, 1.7)
    wrong = SpatialDegradation.gaussian(z.shape[1:], 4, told)
    matrix = np.zeros((2, 8))
    matrix[0, :3], matrix[1, 3:6] = 1 / 3, 1 / 3
    spectral = SpectralResponse(matrix)
    x, y = (op.forward(torch.as_tensor(z)).numpy() for op in (real, spectral))
    p = Observation(x, y, wrong, spectral).prepare(CPU, torch.float64)
    p = dataclasses.replace(p, sigma_y=0.002)
    basis = subspace.spectral_basis(p, 3)
    params = dataclasses.replace(ARGS_DIFF_PRESETS["fast"], classes=4, partitions=2, regressions=2)
    _, found = drain(estimates(p, basis, params, 0, CancelToken()))
    truth = torch.tensordot(basis, torch.as_tensor(z) / p.scale, dims=1)
    raw = torch.stack(list(regression.regressions(p, basis, 2, 0))).mean(0)
    low = torch.tensordot(basis, p.x, dims=1)
    forced = raw + p.spatial.upsample(low - p.spatial.forward(raw))
    assert found.regressed is not None
    errors = [float((a - truth).square().mean()) for a in (found.regressed, forced)]
    assert errors[0] < 0.5 * errors[1]


def test_few_pixels_say_little() -> None:
    """Without a trial the share of the regression grows with the pixels, up to one half."""
    p = problem()  # 4 x 6 LR pixels
    assert blind_share(p) == 0.5 * 24 / 64
    assert blind_share(_bent()[1]) == 0.5
    some = torch.zeros(4, 6, dtype=torch.float64)
    some[0, :4] = 1
    assert blind_share(dataclasses.replace(p, mask_x=some)) == 0.5 * 4 / 64


def test_estimates_are_announced_and_blended() -> None:
    """A step a kernel, in the counts that were announced; the mean is of both."""
    _, p = _bent(0.002)
    assert half_scale(p) is None  # 12 x 12 LR pixels say nothing one octave down
    params = dataclasses.replace(ARGS_DIFF_PRESETS["fast"], classes=4, partitions=2, regressions=3)
    basis = subspace.spectral_basis(p, 3)
    steps, found = drain(estimates(p, basis, params, 0, CancelToken(), pair=1, pairs=2))
    assert estimate_stages(params, 2) == {"closed form": 2, "regression": 6}
    assert [(s.stage, s.index, s.total) for s in steps] == [
        ("closed form", 2, 2),
        *(("regression", k, 6) for k in (4, 5, 6)),
    ]
    members = torch.stack(list(regression.regressions(p, basis, 3, 0)))
    about = found.systems[0].about(members.mean(0))
    torch.testing.assert_close(found.regressed, about)
    torch.testing.assert_close(found.mean(0.25), 0.75 * found.plain + 0.25 * about)
    alone = dataclasses.replace(found, regressed=None)
    assert torch.equal(alone.mean(0.6), found.plain)
    assert share_of_regression(p, p, alone, basis) == 0.0
    assert estimate_stages(dataclasses.replace(params, regressions=0), 1) == {"closed form": 1}
