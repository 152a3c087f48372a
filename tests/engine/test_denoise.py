"""Non-local Bayes against its formulas, and what it makes of a pair."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_pairs import CPU, observation, problem, response, scene

from napari_hsfusion.engine import denoise
from napari_hsfusion.engine.cleaning import clean_pair, mismatch, msi_noise, with_noise
from napari_hsfusion.engine.denoise import Grouping, nonlocal_bayes, patch_noise
from napari_hsfusion.engine.events import CancelToken
from napari_hsfusion.engine.methods import get_method
from napari_hsfusion.engine.observation import NOISE_FLOOR, Observation, Problem
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse
from napari_hsfusion.engine.subspace import spectral_basis
from napari_hsfusion.errors import Cancelled

SMALL = Grouping(patch=3, window=3, count=9, step=2)


def smooth(channels: int, height: int, width: int) -> np.ndarray:
    """Slow waves, another mixture of two in every channel."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(y / 9 + x / 13), np.cos(y / 11 - x / 7)])
    return np.tensordot(np.random.default_rng(1).uniform(0.2, 1, (channels, 2)), waves, 1)


def noisy(clean: np.ndarray, sigma: float) -> torch.Tensor:
    draw = np.random.default_rng(2).normal(size=clean.shape)
    return torch.as_tensor(clean + sigma * draw)


def _plain(image: np.ndarray, sigma: float, how: Grouping) -> np.ndarray:
    """Both passes patch by patch, with loops."""
    c, height, width = image.shape
    k = how.patch
    down, across = height - k + 1, width - k + 1
    places = [(y, x) for y in range(down) for x in range(across)]

    def patches(of: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
        return {(y, x): of[:, y : y + k, x : x + k].ravel() for y, x in places}

    observed = patches(image)
    all_of = np.array(list(observed.values()))
    values, vectors = np.linalg.eigh(np.cov(all_of.T))
    kept = max(c, int((values > 1.05 * sigma**2).sum()))
    centre, directions = all_of.mean(0), vectors[:, -kept:]

    def references(count: int) -> list[int]:
        return sorted({*range(0, count, how.step), count - 1})

    guide = image
    for noise_in_groups in (True, False):
        known = patches(guide)
        total, weight = np.zeros_like(image), np.zeros((height, width))
        for y in references(down):
            for x in references(across):
                near = [
                    p for p in places if abs(p[0] - y) <= how.window and abs(p[1] - x) <= how.window
                ]
                near.sort(key=lambda p: float(((known[p] - known[y, x]) ** 2).sum()))
                group = near[: how.count]
                z = np.array([(known[p] - centre) @ directions for p in group])
                mean = z.mean(0)
                spread, axes = np.linalg.eigh(np.cov(z.T))
                spread = spread.clip(min=0)
                if noise_in_groups:
                    gain = (spread - sigma**2).clip(min=0) / spread.clip(min=sigma**2)
                else:
                    gain = spread / (spread + sigma**2)
                for p in group:
                    own = (observed[p] - centre) @ directions - mean
                    found = mean + axes @ (gain * (axes.T @ own))
                    patch = (directions @ found + centre).reshape(c, k, k)
                    total[:, p[0] : p[0] + k, p[1] : p[1] + k] += patch
                    weight[p[0] : p[0] + k, p[1] : p[1] + k] += 1
        guide = total / weight
    return guide


def test_both_passes_are_those_of_the_formulas() -> None:
    image = noisy(smooth(2, 12, 15), 0.1)
    ours = nonlocal_bayes(image, 0.1, SMALL).numpy()
    np.testing.assert_allclose(ours, _plain(image.numpy(), 0.1, SMALL), atol=1e-10)


def test_strips_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noisy(smooth(2, 30, 17), 0.1)
    whole = nonlocal_bayes(image, 0.1, SMALL)
    monkeypatch.setattr(denoise, "_STRIP", 1)
    monkeypatch.setattr(denoise, "_CHUNK", 1)
    monkeypatch.setattr(denoise, "_HELD", 1)
    torch.testing.assert_close(nonlocal_bayes(image, 0.1, SMALL), whole, atol=1e-10, rtol=0)


def test_noise_goes_and_the_image_stays() -> None:
    clean = smooth(3, 40, 44)
    clean[:, 10:20, 10:20] += 1.0  # an edge that a blur would cost
    image = noisy(clean, 0.1)
    found = nonlocal_bayes(image, 0.1).numpy()
    left = np.sqrt(((found - clean) ** 2).mean())
    assert left < 0.045
    assert np.abs(found - clean)[:, 9:21, 9:21].max() < 0.3


def test_nothing_is_done_without_noise_or_room() -> None:
    image = noisy(smooth(2, 20, 20), 0.1)
    torch.testing.assert_close(nonlocal_bayes(image, 0.0), image, atol=0, rtol=0)
    tiny = image[:, :3, :9]
    torch.testing.assert_close(nonlocal_bayes(tiny, 0.1), tiny, atol=0, rtol=0)
    small = image[:, :4, :9]
    assert torch.isfinite(nonlocal_bayes(small, 0.1)).all()
    flat = torch.ones(2, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(nonlocal_bayes(flat, 0.1), flat)


def test_it_ends_when_it_is_told() -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        nonlocal_bayes(noisy(smooth(2, 20, 20), 0.1), 0.1, cancel=token)


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_the_noise_of_related_channels_is_found(sigma: float) -> None:
    found = patch_noise(noisy(smooth(6, 60, 70), sigma))
    assert found == pytest.approx(sigma, rel=0.15)
    assert found <= 1.02 * sigma


def test_too_few_patches_bound_nothing() -> None:
    assert patch_noise(torch.zeros(4, 2, 9)) == float("inf")
    assert patch_noise(torch.zeros(4, 5, 5)) == float("inf")


def smooth_pair(sigma: float) -> Problem:
    """A pair of a smooth scene of 12 bands and three, 48 x 48, with white noise."""
    z = smooth(12, 48, 48)
    spatial, spectral = SpatialDegradation.bicubic((48, 48), 4), SpectralResponse(response(12, 3))
    y = noisy(spectral.forward(torch.as_tensor(z)).numpy(), sigma).numpy()
    x = noisy(spatial.forward(torch.as_tensor(z)).numpy(), sigma).numpy()
    return Observation(x, y, spatial, spectral).prepare(CPU, torch.float64)


def test_a_pair_is_changed_in_its_subspace_alone() -> None:
    p = smooth_pair(0.03)
    basis = spectral_basis(p, 3)
    cleaned, record = clean_pair(p, basis)
    change = cleaned.x - p.x
    assert float(change.abs().max()) > 0
    torch.testing.assert_close(change, torch.tensordot(basis.T @ basis, change, dims=1))
    assert record["denoised_x"] == p.sigma_x
    assert record["denoised_y"] * p.scale == pytest.approx(0.03, rel=0.1)
    truth = smooth(12, 48, 48)
    wanted = np.tensordot(p.response.numpy(), truth, 1) / p.scale
    before, after = ((q.y.numpy() - wanted).std() for q in (p, cleaned))
    assert after < 0.4 * before
    assert 0 < cleaned.sigma_y < p.sigma_y
    assert 0 < cleaned.sigma_x < p.sigma_x


def test_a_pair_without_noise_is_left_alone() -> None:
    p = dataclasses.replace(problem(noise=0.0), sigma_x=1e-6, sigma_y=1e-6)
    cleaned, record = clean_pair(p, spectral_basis(p, 3))
    assert record == {"denoised_x": 0.0, "denoised_y": 0.0, "mismatch": 0.0}
    assert cleaned.x is p.x
    assert cleaned.y is p.y
    assert cleaned.sigma_y == pytest.approx(NOISE_FLOOR * float(p.x.square().mean().sqrt()))


def test_responses_that_are_off_do_not_blur_the_image() -> None:
    """The pair then disagrees by far more than the HR-MSI's noise."""
    p = smooth_pair(0.03)
    wrong = dataclasses.replace(p, sigma_y=10 * p.sigma_y)
    assert msi_noise(wrong) == pytest.approx(patch_noise(p.y))
    assert msi_noise(wrong) * p.scale == pytest.approx(0.03, rel=0.15)


def _seen(z: np.ndarray, other: np.ndarray, sigma: float = 1.7, noise: float = 0.004) -> Problem:
    """One scene seen by the LR-HSI and another by the HR-MSI, with a blur of 1.7 told."""
    told = SpatialDegradation.gaussian(z.shape[1:], 4, 1.7)
    real = SpatialDegradation.gaussian(z.shape[1:], 4, sigma)
    spectral = SpectralResponse(response(len(z), 3))
    x = real.forward(torch.as_tensor(z)).numpy()
    y = spectral.forward(torch.as_tensor(other)).numpy()
    rng = np.random.default_rng(4)
    x, y = (image + noise * rng.standard_normal(image.shape) for image in (x, y))
    return Observation(x, y, told, spectral).prepare(CPU, torch.float64)


def test_what_the_images_contradict_each_other_by() -> None:
    """Nothing but noise: none; a wrong blur: little of it; another scene: most of it."""
    z = scene(9, 96, 96)
    known = 0.004
    right = _seen(z, z)
    assert mismatch(right, known / right.scale) == 0.0
    blurred = _seen(z, z, 2.4)
    changed = z.copy()
    changed[:, 30:60, 40:80] = z[:, 30:60, 40:80].mean((1, 2), keepdims=True)
    other = _seen(z, changed)

    def apart(p: Problem) -> float:
        seen = torch.tensordot(p.response, p.x, dims=1) - p.spatial.forward(p.y)
        return float(seen.square().mean().sqrt())

    assert mismatch(blurred, known / blurred.scale) < 0.5 * apart(blurred)
    assert mismatch(other, known / other.scale) > 0.7 * apart(other)
    # pixels of no value have no say
    hole = np.ones((96, 96), dtype=bool)
    hole[24:66, 34:86] = False
    masked = dataclasses.replace(other, mask_y=torch.as_tensor(hole).double())
    assert mismatch(masked, known / other.scale) < 0.1 * mismatch(other, known / other.scale)
    few = dataclasses.replace(other, mask_x=torch.eye(24, dtype=torch.float64)[:, :24] * 0)
    assert mismatch(few, 0.0) == 0.0


def test_a_contradiction_is_noise_of_the_hr_msi() -> None:
    """Of its data term alone: the image itself is denoised by what its patches have."""
    z = scene(9, 96, 96)
    changed = z.copy()
    changed[:, 30:60, 40:80] = z[:, 30:60, 40:80].mean((1, 2), keepdims=True)
    p = _seen(z, changed)
    cleaned, record = clean_pair(p, spectral_basis(p, 3))
    wrong = mismatch(p, msi_noise(p))
    assert record["mismatch"] == pytest.approx(wrong)
    assert wrong > 3 * msi_noise(p)
    assert record["denoised_y"] == pytest.approx(msi_noise(p))
    assert wrong < cleaned.sigma_y <= p.sigma_y
    told, record = clean_pair(p, spectral_basis(p, 3), told=True)
    assert "mismatch" not in record
    assert told.sigma_y < p.sigma_y


def test_noise_that_is_told_is_believed() -> None:
    """In the images' unit, down to the floor; of the HR-MSI even beyond what its patches have."""
    p = smooth_pair(0.03)
    told = with_noise(p, 0.05, 0.2)
    assert (told.sigma_x * p.scale, told.sigma_y * p.scale) == pytest.approx((0.05, 0.2))
    basis = spectral_basis(p, 3)
    _, record = clean_pair(told, basis, told=True)
    assert record == {"denoised_x": told.sigma_x, "denoised_y": told.sigma_y}
    assert clean_pair(told, basis)[1]["denoised_y"] < 0.5 * told.sigma_y
    assert with_noise(p, None, None) == p
    floor = with_noise(p, 0.0, None)
    assert floor.sigma_x == pytest.approx(NOISE_FLOOR * float(p.x.square().mean().sqrt()))
    assert floor.sigma_y == p.sigma_y


def test_a_run_goes_by_the_noise_it_is_told() -> None:
    """The record has it, and so do the denoising and the cube."""
    z = smooth(12, 48, 48)
    spatial, spectral = SpatialDegradation.bicubic((48, 48), 4), SpectralResponse(response(12, 3))
    x, y = spatial.forward(torch.as_tensor(z)), spectral.forward(torch.as_tensor(z))
    rng = np.random.default_rng(0)
    pair = Observation(x.numpy() + 0.002 * rng.standard_normal(x.shape), y, spatial, spectral)
    method = get_method("args-diff")
    few = {"classes": 1, "partitions": 1, "regressions": 0}
    found = {}
    for noise in (None, 0.004):
        told = {} if noise is None else {"noise_x": noise, "noise_y": 2 * noise}
        params = dataclasses.replace(method.presets["fast"], **few, **told)
        *_, found[noise] = method.run(pair, params)
    record = found[0.004].record
    assert (record["noise_x"], record["noise_y"]) == pytest.approx((0.004, 0.008))
    assert (record["denoised_x"], record["denoised_y"]) == pytest.approx((0.004, 0.008))
    assert found[None].record["noise_x"] == pytest.approx(0.002, rel=0.3)
    assert not np.array_equal(found[0.004].cube, found[None].cube)


def test_gaps_stay_out_of_it() -> None:
    _, o = observation()
    y = o.y.copy()
    y[:, 2, 3] = np.nan
    holed = type(o)(o.x, y, o.spatial, o.spectral).prepare(CPU, torch.float64)
    cleaned, _ = clean_pair(holed, spectral_basis(holed, 3))
    assert torch.isfinite(cleaned.y).all()
    assert cleaned.mask_y is holed.mask_y
