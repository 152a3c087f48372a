"""RMSE, PSNR, ERGAS and SAM against libraries, plain formulas and the independent scorer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import skimage.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from napari_hsfusion import metrics
from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import CubeError, PairError, ParameterError


def scene(seed=0, bands=6, rows=40, columns=48):
    """A smooth reference in [0, 1] and an estimate with noise that grows with the band."""
    random = np.random.default_rng(seed)
    reference = gaussian_filter(random.random((bands, rows, columns)), (1, 2, 2))
    reference = (reference - reference.min()) / np.ptp(reference) * 0.9 + 0.05
    level = np.linspace(0.005, 0.03, bands)[:, None, None]
    return reference, np.clip(reference + level * random.standard_normal(reference.shape), 0, 1)


@pytest.fixture
def pair():
    return scene()


def test_psnr_of_a_band_is_skimages(pair):
    reference, estimate = pair
    expected = [
        skimage.metrics.peak_signal_noise_ratio(a, b, data_range=a.max())
        for a, b in zip(reference, estimate, strict=True)
    ]
    np.testing.assert_allclose(metrics.psnr_bands(reference, estimate), expected, rtol=1e-12)
    assert metrics.psnr(reference, estimate) == pytest.approx(np.mean(expected), rel=1e-12)


def test_psnr_of_a_cube_is_torchmetrics(pair):
    image = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    reference, estimate = pair
    expected = image.peak_signal_noise_ratio(
        torch.from_numpy(estimate), torch.from_numpy(reference), data_range=reference.max()
    )
    got = metrics.psnr(reference, estimate, over="cube")
    assert got == pytest.approx(float(expected), rel=1e-6)
    assert abs(got - metrics.psnr(reference, estimate)) > 0.1


def test_rmse(pair):
    reference, estimate = pair
    expected = [
        np.sqrt(skimage.metrics.mean_squared_error(a, b))
        for a, b in zip(reference, estimate, strict=True)
    ]
    np.testing.assert_allclose(metrics.rmse_bands(reference, estimate), expected, rtol=1e-12)
    assert metrics.rmse(reference, estimate) == pytest.approx(
        np.sqrt(skimage.metrics.mean_squared_error(reference, estimate)), rel=1e-12
    )


@pytest.mark.parametrize("scale", [4, 8, 2.5])
def test_ergas_is_torchmetrics_whose_ratio_divides(pair, scale):
    image = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    reference, estimate = pair
    expected = image.error_relative_global_dimensionless_synthesis(
        torch.from_numpy(estimate)[None], torch.from_numpy(reference)[None], ratio=scale
    )
    assert metrics.ergas(reference, estimate, scale) == pytest.approx(float(expected), rel=1e-9)


def test_ergas_of_one_per_cent_error():
    # every pixel 1 % off: MSE/mean² = 1e-4 in each band, so 100/4 · 0.01
    reference = np.stack([np.full((5, 7), 2.0), np.full((5, 7), 30.0)])
    assert metrics.ergas(reference, reference * 1.01, 4) == pytest.approx(0.25, rel=1e-12)


def test_sam_is_torchmetrics(pair):
    image = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    reference, estimate = pair
    expected = image.spectral_angle_mapper(
        torch.from_numpy(estimate)[None], torch.from_numpy(reference)[None], reduction="none"
    )[0].numpy()
    angles = metrics.sam_map(reference, estimate, unit="radians")
    np.testing.assert_allclose(angles, expected, atol=1e-9)
    assert metrics.sam(reference, estimate) == pytest.approx(np.degrees(expected.mean()), rel=1e-9)


def test_sam_of_known_angles():
    reference = np.array([[[1.0, 1.0, 1.0]], [[0.0, 1.0, 0.0]]])
    estimate = np.array([[[0.0, 5.0, 2.0]], [[3.0, 5.0, 2.0]]])
    np.testing.assert_allclose(metrics.sam_map(reference, estimate), [[90, 0, 45]], atol=1e-6)
    assert metrics.sam(reference, estimate) == pytest.approx(45, abs=1e-6)


def test_zero_spectra_are_left_out_or_nudged():
    reference = np.ones((2, 1, 4))
    estimate = np.ones((2, 1, 4))
    reference[:, 0, 0] = 0  # no direction to compare with
    estimate[1, 0, 0] = 0
    estimate[:, 0, 1] = 0  # nothing where there is something
    reference[:, 0, 2] = estimate[:, 0, 2] = 0
    angles = metrics.sam_map(reference, estimate)
    np.testing.assert_array_equal(np.isnan(angles), [[True, False, True, False]])
    np.testing.assert_allclose(angles[0, [1, 3]], [90, 0], atol=1e-6)
    assert metrics.sam(reference, estimate) == pytest.approx(45)
    # plainly: add 1e-4 to every band of a zero spectrum
    a, b = reference.copy(), estimate.copy()
    a[:, (a == 0).all(0)] += 1e-4
    b[:, (b == 0).all(0)] += 1e-4
    cosine = (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
    expected = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    np.testing.assert_allclose(
        metrics.sam_map(reference, estimate, zero="nudge"), expected, atol=2e-6
    )


def test_nudge_of_uneven_spectra():
    reference = np.array([[[0.0, 3.0]], [[0.0, 1.0]], [[0.0, -1.0]]])
    estimate = np.array([[[1.0, 0.0]], [[2.0, 0.0]], [[0.5, 0.0]]])
    expected = [
        np.degrees(np.arccos(3.5 / np.sqrt(3) / np.sqrt(5.25))),
        np.degrees(np.arccos(3 / np.sqrt(3) / np.sqrt(11))),
    ]
    got = metrics.sam_map(reference, estimate, zero="nudge", clip=False)
    np.testing.assert_allclose(got, [expected], rtol=1e-9)


def test_unclipped_cosine_has_no_angle_where_rounding_exceeds_one():
    random = np.random.default_rng(0)
    reference = random.random((7, 40, 40))
    estimate = reference * random.random((40, 40))
    aa, bb = (reference**2).sum(0), (estimate**2).sum(0)
    free = metrics.sam_map(reference, estimate, clip=False)
    clipped = metrics.sam_map(reference, estimate)
    assert np.isnan(free).any()
    assert np.isfinite(clipped).all()
    above = (reference * estimate).sum(0) > np.sqrt(aa) * np.sqrt(bb) * (1 - 1e-15)
    assert above[np.isnan(free)].all()
    assert np.isfinite(metrics.sam(reference, estimate, clip=False))


def test_maps(pair):
    reference, estimate = pair
    error = np.abs(reference - estimate)
    np.testing.assert_allclose(metrics.absolute_error_map(reference, estimate), error.mean(0))
    np.testing.assert_allclose(metrics.absolute_error_map(reference, estimate, band=3), error[3])
    np.testing.assert_allclose(
        metrics.rmse_map(reference, estimate), np.sqrt((error**2).mean(0)), rtol=1e-12
    )
    with pytest.raises(ParameterError, match="0 to 5, got 6"):
        metrics.absolute_error_map(reference, estimate, band=6)


def test_agrees_with_the_independent_scorer(shared_data, monkeypatch):
    path = shared_data("README.md").parent.parent / "bench" / "score.py"
    if not path.exists():
        pytest.skip(f"independent scorer is absent: {path}")
    spec = importlib.util.spec_from_file_location("score", path)
    score = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec.loader.exec_module(score)
    score.round = lambda value, _digits: value
    cube = np.load(shared_data("scenes/jasper_ridge_100x100x198.npz"))["cube"][:48, :64]
    real = np.clip(cube.astype(np.float64) / np.percentile(cube, 99.9), 0, 1).transpose(2, 0, 1)
    noise = np.random.default_rng(1).standard_normal(real.shape)
    pairs = [scene(3), (real, np.clip(real + 0.01 * noise, 0, 1))]
    dark = real.copy()
    dark[:, 5:9, 7] = 0
    pairs.append((dark, np.clip(dark + 0.01 * noise, 0, 1)))
    for reference, estimate in pairs:
        expected = score.score(reference, estimate, 4)
        got = metrics.evaluate(reference, estimate, 4)
        for key, value in expected.items():
            assert got[key] == pytest.approx(value, abs=1e-6), key


def test_an_estimate_is_not_clipped(pair):
    reference, estimate = pair
    outside = estimate.copy()
    outside[0, 0, 0] = 3.0
    assert metrics.psnr(reference, outside) < metrics.psnr(reference, np.clip(outside, 0, 1)) - 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["reference", "estimate"])
def test_bad_pixels_are_left_out_of_everything(pair, bad, where):
    reference, estimate = (image.copy() for image in pair)
    keep = np.ones(reference.shape[1:], dtype=bool)
    keep[4, 5] = keep[20, 30] = keep[39, 47] = False
    target = reference if where == "reference" else estimate
    target[2, 4, 5] = bad
    target[:, 20, 30] = bad
    target[5, 39, 47] = bad
    clean = [image[:, keep][:, None, :] for image in pair]
    for function in (metrics.psnr_bands, metrics.rmse_bands, metrics.rmse, metrics.sam):
        np.testing.assert_allclose(function(reference, estimate), function(*clean), rtol=1e-12)
        # the same by a mask over untouched images
        np.testing.assert_allclose(function(*pair, ~keep), function(*clean), rtol=1e-12)
    assert metrics.ergas(reference, estimate, 4) == pytest.approx(metrics.ergas(*clean, 4))
    for image in (
        metrics.sam_map(reference, estimate),
        metrics.rmse_map(reference, estimate),
        metrics.absolute_error_map(reference, estimate),
        metrics.absolute_error_map(reference, estimate, band=0),
    ):
        np.testing.assert_array_equal(np.isnan(image), ~keep)


def test_no_data_of_a_cube_is_masked_and_scale_applied(pair):
    reference, estimate = pair
    stored = np.round(reference * 1000).astype(np.int16)
    stored[:, 3, 3] = -9999
    cube = make_cube(stored, nodata=-9999, scale_factor=1e-3)
    got = metrics.evaluate(cube, estimate, 4)
    assert got["masked_pixels"] == 1
    plain = np.round(reference * 1000) / 1000
    mask = np.zeros(reference.shape[1:], dtype=bool)
    mask[3, 3] = True
    assert got["psnr"] == pytest.approx(metrics.psnr(plain, estimate, mask), rel=1e-9)


def test_integers_do_not_wrap():
    reference = np.full((2, 3, 3), 200, dtype=np.uint8)
    estimate = np.full((2, 3, 3), 250, dtype=np.uint8)
    assert metrics.rmse(reference, estimate) == 50
    assert metrics.sam(reference, estimate) == pytest.approx(0, abs=1e-6)


def test_peakless_and_zero_mean_bands_are_left_out(pair):
    reference, estimate = (image.copy() for image in pair)
    full = metrics.psnr_bands(reference, estimate)
    reference[1] = 0
    reference[4] = -1.0
    got = metrics.psnr_bands(reference, estimate)
    np.testing.assert_array_equal(np.isnan(got), [False, True, False, False, True, False])
    assert metrics.psnr(reference, estimate) == pytest.approx(full[[0, 2, 3, 5]].mean())
    reference[4] -= 0.3  # negative mean: ERGAS has its square
    keep = [0, 2, 3, 4, 5]
    assert metrics.ergas(reference, estimate, 4) == pytest.approx(
        metrics.ergas(reference[keep], estimate[keep], 4), rel=1e-12
    )
    balanced = np.tile([0.1, 0.2, -0.3], (1, 5, 7))
    assert balanced.mean() != 0  # but for rounding
    with pytest.raises(CubeError, match="mean zero"):
        metrics.ergas(balanced, balanced, 4)
    with pytest.raises(CubeError, match="value above 0"):
        metrics.psnr(np.zeros((2, 4, 4)), np.ones((2, 4, 4)))
    with pytest.raises(CubeError, match="value above 0"):
        metrics.psnr(np.zeros((2, 4, 4)), np.ones((2, 4, 4)), over="cube")
    with pytest.raises(CubeError, match="spectral angle"):
        metrics.sam(np.zeros((2, 4, 4)), np.ones((2, 4, 4)))


def test_identity_is_perfect(pair):
    reference, _ = pair
    assert metrics.psnr(reference, reference) == pytest.approx(200, abs=3)
    assert metrics.psnr(reference, reference, over="cube") == pytest.approx(200)
    assert metrics.rmse(reference, reference) == 0
    assert metrics.ergas(reference, reference, 4) == 0
    assert metrics.sam(reference, reference) == 0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    factor=st.floats(1e-6, 1e6),
    other=st.floats(1e-3, 1e3),
)
def test_scaling(seed, factor, other):
    reference, estimate = scene(seed, 3, 6, 7)
    for function in (
        metrics.psnr,
        metrics.sam,
        lambda a, b: metrics.ergas(a, b, 4),
        lambda a, b: metrics.psnr(a, b, over="cube"),
    ):
        assert function(reference * factor, estimate * factor) == pytest.approx(
            function(reference, estimate), rel=1e-7
        )
    assert metrics.rmse(reference * factor, estimate * factor) == pytest.approx(
        factor * metrics.rmse(reference, estimate), rel=1e-9
    )
    # brightness alone does not turn a spectrum
    assert metrics.sam(reference, estimate * other) == pytest.approx(
        metrics.sam(reference, estimate), rel=1e-7
    )
    assert metrics.ergas(reference, estimate, 8) == pytest.approx(
        metrics.ergas(reference, estimate, 4) / 2, rel=1e-12
    )


def test_bad_input_is_named(pair):
    reference, estimate = pair
    with pytest.raises(PairError, match=r"\(6, 40, 48\) and \(6, 39, 48\)"):
        metrics.psnr(reference, estimate[:, 1:])
    with pytest.raises(PairError, match=r"\(6, 40, 48\) and \(5, 40, 48\)"):
        metrics.sam(reference, estimate[1:])
    with pytest.raises(CubeError, match=r"reference.*shape \(40,\)"):
        metrics.rmse(reference[0, :, 0], estimate)
    with pytest.raises(CubeError, match="complex"):
        metrics.rmse(reference, estimate + 1j)
    with pytest.raises(CubeError, match="empty"):
        metrics.rmse(reference[:, :0], estimate[:, :0])
    with pytest.raises(CubeError, match=r"mask: expected shape \(40, 48\).*\(48, 40\)"):
        metrics.rmse(reference, estimate, np.zeros((48, 40), dtype=bool))
    with pytest.raises(CubeError, match=r"booleans.*float64"):
        metrics.rmse(reference, estimate, np.zeros((40, 48)))
    with pytest.raises(CubeError, match="no pixel of the 1920"):
        metrics.rmse(reference, estimate, np.ones((40, 48), dtype=bool))
    dead = estimate.copy()
    dead[3] = np.nan
    with pytest.raises(CubeError, match=r"estimate: band 4.*drop such bands"):
        metrics.rmse(reference, dead)
    for scale in (0, -4, np.nan, np.inf, "x", None):
        with pytest.raises(ParameterError, match="scale"):
            metrics.ergas(reference, estimate, scale)
    with pytest.raises(ParameterError, match="over"):
        metrics.psnr(reference, estimate, over="pixels")
    with pytest.raises(ParameterError, match="unit"):
        metrics.sam(reference, estimate, unit="grad")
    with pytest.raises(ParameterError, match="zero"):
        metrics.sam_map(reference, estimate, zero="drop")


def test_inputs_stay_as_they_are(pair):
    reference, estimate = pair
    before = reference.copy(), estimate.copy()
    metrics.evaluate(reference, estimate, 4)
    np.testing.assert_array_equal(reference, before[0])
    np.testing.assert_array_equal(estimate, before[1])


def test_no_torch_is_imported():
    code = (
        "import sys; import napari_hsfusion.metrics as m, numpy as np;"
        "a = np.random.default_rng(0).random((2, 16, 16)); m.evaluate(a, a, 4);"
        "bad = {'torch', 'torchmetrics', 'napari', 'qtpy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
