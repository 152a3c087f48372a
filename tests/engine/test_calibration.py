"""What scales deviations so that they fit the errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_pairs import CPU, response
from torch import Tensor

from napari_hsfusion.engine import calibration, subspace
from napari_hsfusion.engine.events import CancelToken
from napari_hsfusion.engine.observation import Observation, Problem
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse
from napari_hsfusion.engine.posterior import Posterior
from napari_hsfusion.engine.spread import SubspaceDeviation, drained
from napari_hsfusion.engine.subspace import System


def pair(side: int = 64, ratio: int = 4) -> tuple[np.ndarray, Problem]:
    """A scene whose detail is alike at all scales, stronger on its right half."""
    rng = np.random.default_rng(3)
    maps = np.zeros((4, side, side))
    for octave in (1, 2, 4, 8, 16):
        noise = rng.standard_normal((4, side // octave, side // octave))
        maps += np.kron(noise, np.ones((octave, octave)))
    maps *= np.where(np.arange(side) < side // 2, 0.3, 1.0)
    z = 1.0 + 0.05 * np.einsum("khw,kb->bhw", maps, rng.random((4, 9)))
    spatial = SpatialDegradation.box((side, side), ratio)
    spectral = SpectralResponse(response())
    x = spatial.forward(torch.as_tensor(z)).numpy()
    y = spectral.forward(torch.as_tensor(z)).numpy()
    x += 0.002 * rng.standard_normal(x.shape)
    y += 0.002 * rng.standard_normal(y.shape)
    return z, Observation(x, y, spatial, spectral).prepare(CPU, torch.float64)


def sampling(p: Problem, share: float = 1.0) -> calibration.CalibratedSampling:
    """The closed form in 4 dimensions, its prior's variances divided by `share`."""
    basis = subspace.spectral_basis(p, 4)

    def closed(problem: Problem) -> tuple[Tensor, list[System]]:
        prior = subspace.choose_prior(problem, basis, 3, 0)
        prior = replace(prior, precision=prior.precision * share)
        mean, system, _ = subspace.solve_map(problem, basis, prior)
        return mean, [system]

    mean, systems = closed(p)
    return calibration.CalibratedSampling(Posterior(p, basis, systems, mean), closed)


def drawn(made: calibration.CalibratedSampling, samples: int = 8) -> SubspaceDeviation:
    return drained(made(samples, torch.Generator().manual_seed(0), CancelToken()))


@pytest.mark.parametrize("share", [1.0, 30.0])
def test_deviations_fit_even_where_the_prior_is_too_sure(share: float) -> None:
    """About two thirds of the errors lie within one deviation, whatever the prior's variances."""
    z, p = pair()
    made = sampling(p, share)
    found = drawn(made)
    error = torch.tensordot(found.basis.T, made.posterior.mean, dims=1) * p.scale
    error = (error - torch.as_tensor(z)).abs()
    inside = (error < found.bands(0, 9) * p.scale).double().mean()
    assert 0.55 < float(inside) < 0.9
    assert found.record["calibration"]["factor"] >= (2 if share > 1 else 1)
    plain = (error < replace(found, factor=1.0).bands(0, 9) * p.scale).double().mean()
    if share > 1:
        assert float(plain) < 0.5


def test_deviations_are_never_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trial says below the posterior's own deviations is not believed."""
    _, p = pair()
    monkeypatch.setattr(calibration, "fitted", lambda *_: (0.01, 0.0))
    found = drawn(sampling(p), 2)
    assert found.record["calibration"] == {"factor": 1.0, "contrast": 0.0}
    torch.testing.assert_close(found.factor, torch.ones_like(p.y[0]))


def test_the_contrast_of_the_msi_tells_where() -> None:
    """With one prior for the whole scene, the right half is found to be less certain."""
    _, p = pair()
    basis = subspace.spectral_basis(p, 4)

    def closed(problem: Problem) -> tuple[Tensor, list[System]]:
        mean, system, _ = subspace.solve_map(
            problem, basis, subspace.gaussian_prior(problem, basis)
        )
        return mean, [system]

    mean, systems = closed(p)
    found = drawn(calibration.CalibratedSampling(Posterior(p, basis, systems, mean), closed))
    assert 0.1 < found.record["calibration"]["contrast"] <= 1
    bands = found.bands(0, 9)
    assert float(bands[..., 32:].mean()) > 1.3 * float(bands[..., :32].mean())
    level = found.factor
    assert isinstance(level, Tensor)
    factor = found.record["calibration"]["factor"]
    assert float(level.log().mean().exp()) == pytest.approx(factor)


def test_the_fit() -> None:
    """Factor and exponent come back, through the noise of the reference."""
    rng = np.random.default_rng(0)
    deviation = torch.as_tensor(rng.uniform(0.01, 0.1, (40, 2500)))
    contrast = torch.as_tensor(rng.uniform(-2, 2, 2500))
    white = torch.as_tensor(rng.standard_normal(deviation.shape))
    error = 3.0 * deviation * white
    assert calibration.fitted(error, deviation, contrast, 0.0)[0] == pytest.approx(3.0, rel=0.02)
    shaped = error * torch.exp(0.3 * contrast)
    assert calibration.fitted(shaped, deviation, contrast, 0.0)[1] == pytest.approx(0.6, abs=0.05)
    seen = error + 0.05 * torch.as_tensor(rng.standard_normal(deviation.shape))
    assert calibration.fitted(seen, deviation, contrast, 0.0)[0] > 3.1
    assert calibration.fitted(seen, deviation, contrast, 0.05)[0] == pytest.approx(3.0, rel=0.06)
    upside_down = error * torch.exp(-0.3 * contrast)
    assert calibration.fitted(upside_down, deviation, contrast, 0.0)[1] == 0.0
    flat = calibration.fitted(error, deviation, torch.zeros_like(contrast), 0.0)
    assert flat[1] == 0.0


def test_the_shape_is_bounded() -> None:
    """Grows with the contrast, and by no more than four either way; no exponent, no shape."""
    flat = torch.full((2, 24, 24), 0.5, dtype=torch.float64)
    flat += 1e-5 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    flat[:, 11:13, 11:13] += 0.4
    relief = calibration.relief(flat)
    assert float(relief.max()) > 4  # unbounded, more than sevenfold
    shape = calibration.contrast_shape(flat, 1.0)
    assert float(shape.max()) == 4.0
    assert float(shape.min()) >= 0.25
    small = calibration.contrast_shape(flat, 0.1)
    torch.testing.assert_close(small, torch.exp(0.05 * relief))
    torch.testing.assert_close(calibration.contrast_shape(flat, 0.0), torch.ones_like(relief))


def test_the_strength_of_the_detail() -> None:
    """Variances a hundred times too small make the HR-MSI's detail ten times too strong."""
    _, p = pair()
    made = [sampling(p, share).posterior for share in (1.0, 100.0)]
    basis = made[0].basis
    usual, strong = (calibration.detail_strength(p, basis, m.systems) for m in made)
    assert 0.5 < usual < 3
    assert strong == pytest.approx(10 * usual, rel=1e-6)
    deaf = replace(p, sigma_y=10.0)
    assert calibration.detail_strength(deaf, basis, made[0].systems) == 0.1


def test_relief() -> None:
    image = torch.zeros(3, 12, 12, dtype=torch.float64)
    assert not calibration.relief(image + 5.0).any()
    image[:, ::2, 6:] = 1.0
    found = calibration.relief(image)
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found[:, 7:].min()) > 3 + float(found[:, :5].max())
    torch.testing.assert_close(calibration.relief(4.0 * image), found)


@pytest.mark.parametrize("gaps", [False, True])
def test_gaps_and_small_pairs(gaps: bool) -> None:
    """Gaps are passed over; too few pixels leave the deviations as they are, and it is said."""
    z, p = pair(64 if gaps else 32)
    if gaps:
        valid = np.ones((64, 64), dtype=bool)
        valid[8:15, 20:40] = False
        y = np.where(valid, (p.y * p.scale).numpy(), np.nan)
        made = Observation((p.x * p.scale).numpy(), y, p.spatial, p.spectral)
        found = drawn(sampling(made.prepare(CPU, torch.float64)), 2)
        assert 0.3 < found.record["calibration"]["factor"] < 5
        assert bool(torch.isfinite(found.bands(0, 9)).all())
    else:
        found = drawn(sampling(p), 2)
        assert found.record == {"calibration": None}
        assert found.factor == 1.0
    assert z.shape == (9, *p.spatial.shape_hr)
