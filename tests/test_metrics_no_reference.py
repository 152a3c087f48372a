"""Consistency with the observed pair, D_λ, D_s and HQNR."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio

from napari_hsfusion import metrics
from napari_hsfusion.errors import CubeError, PairError, ParameterError, ResponseError
from napari_hsfusion.metrics import _observe

SCALE = 4


def box(image):
    """H(·): means of 4×4 pixels."""
    bands, rows, columns = image.shape
    return image.reshape(bands, rows // SCALE, SCALE, columns // SCALE, SCALE).mean((2, 4))


@pytest.fixture
def observed():
    """x, y, truth, response: a noise-free pair."""
    random = np.random.default_rng(3)
    truth = gaussian_filter(random.random((6, 64, 80)), (1, 1.5, 1.5)) + 0.2
    response = random.random((3, 6))
    response /= response.sum(1, keepdims=True)
    return box(truth), np.einsum("bc,cyx->byx", response, truth), truth, response


def test_the_truth_is_consistent(observed):
    x, y, truth, response = observed
    got = metrics.consistency(x, y, truth, box, response)
    assert got.psnr_hsi > 190
    assert got.psnr_msi > 190
    assert got.sam_hsi == pytest.approx(0, abs=1e-5)
    assert got.sam_msi == pytest.approx(0, abs=1e-5)
    numbers = metrics.hqnr(x, y, truth, box, response)
    assert numbers["d_lambda"] == pytest.approx(0, abs=1e-9)
    assert numbers["d_s"] == pytest.approx(0, abs=1e-9)
    assert numbers["hqnr"] == pytest.approx(1, abs=1e-9)


def test_consistency_is_the_plain_comparison(observed):
    x, y, truth, response = observed
    random = np.random.default_rng(0)
    estimate = truth + 0.02 * random.standard_normal(truth.shape)
    got = metrics.consistency(x, y, estimate, box, response)
    seen = (box(estimate), np.tensordot(response, estimate, 1))
    for which, image, model in zip(("hsi", "msi"), (x, y), seen, strict=True):
        psnr = [
            peak_signal_noise_ratio(a, b, data_range=a.max())
            for a, b in zip(image, model, strict=True)
        ]
        assert getattr(got, f"psnr_{which}") == pytest.approx(np.mean(psnr), rel=1e-9)
        cosine = (image * model).sum(0)
        cosine /= np.linalg.norm(image, axis=0) * np.linalg.norm(model, axis=0)
        angles = np.degrees(np.arccos(cosine.clip(-1, 1)))
        assert getattr(got, f"sam_{which}") == pytest.approx(angles.mean(), rel=1e-7)
        np.testing.assert_allclose(getattr(got, f"sam_map_{which}"), angles, atol=1e-6)
        np.testing.assert_allclose(
            getattr(got, f"error_map_{which}"),
            np.sqrt(((image - model) ** 2).mean(0)),
            rtol=1e-9,
        )
    assert got.numbers() == {
        key: getattr(got, key)
        for key in ("psnr_hsi", "sam_hsi", "psnr_msi", "sam_msi", "masked_hsi", "masked_msi")
    }
    assert got.masked_hsi == got.masked_msi == 0


def test_d_lambda_sees_the_spectrum_and_not_fine_detail(observed):
    x, _, truth, _ = observed
    random = np.random.default_rng(0)
    detail = random.standard_normal(truth.shape)
    detail -= np.repeat(np.repeat(box(detail), SCALE, 1), SCALE, 2)
    assert metrics.d_lambda(x, truth + 0.1 * detail, box) == pytest.approx(0, abs=1e-9)
    shifted = metrics.d_lambda(x, np.roll(truth, 1, axis=0), box)
    assert shifted > 0.05
    expected = 1 - metrics.q2n(x, box(np.roll(truth, 1, axis=0)), window=8)
    got = metrics.d_lambda(x, np.roll(truth, 1, axis=0), box, window=8)
    assert got == pytest.approx(expected, rel=1e-12)
    assert got != pytest.approx(shifted, rel=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_d_s_is_the_definition(observed, exponent):
    x, y, truth, response = observed
    estimate = np.stack([gaussian_filter(band, 2) for band in truth])
    noisy = x + 0.01 * np.random.default_rng(0).standard_normal(x.shape)
    terms = []
    for k in range(3):
        fused = np.tensordot(response[k], estimate, 1)
        coarse = np.tensordot(response[k], noisy, 1)
        high = metrics.uiqi(fused[None], y[[k]], window=32)
        low = metrics.uiqi(coarse[None], box(y[[k]]), window=8)
        terms.append(abs(high - low) ** exponent)
    expected = np.mean(terms) ** (1 / exponent)
    got = metrics.d_s(noisy, y, estimate, box, response, exponent=exponent)
    assert got == pytest.approx(expected, rel=1e-9)
    assert got > 0.05
    numbers = metrics.hqnr(noisy, y, estimate, box, response, exponent=exponent)
    spectral = metrics.d_lambda(noisy, estimate, box)
    assert numbers["d_s"] == pytest.approx(got)
    assert numbers["d_lambda"] == pytest.approx(spectral)
    assert numbers["hqnr"] == pytest.approx((1 - spectral) * (1 - got))


def test_better_estimates_score_better(observed):
    x, y, truth, response = observed
    coarse = np.repeat(np.repeat(x, SCALE, 1), SCALE, 2)
    halfway = (truth + coarse) / 2
    scores = [
        metrics.hqnr(x, y, image, box, response)["hqnr"] for image in (coarse, halfway, truth)
    ]
    assert scores[0] < scores[1] < scores[2]


def test_holes_are_masked_where_the_kernel_touches_them(observed):
    x, y, truth, response = (image.copy() for image in observed)
    truth[2, 5, 6] = np.nan  # LR pixel (1, 1)
    x[3, 9, 9] = np.inf
    y[0, 0, 0] = np.nan  # LR pixel (0, 0) of H(Y)
    got = metrics.consistency(x, y, truth, box, response)
    assert got.masked_hsi == 2
    assert got.masked_msi == 2
    assert np.isnan(got.sam_map_hsi[1, 1])
    assert np.isnan(got.error_map_hsi[9, 9])
    assert np.isnan(got.error_map_hsi).sum() == 2
    assert np.isnan(got.error_map_msi[5, 6])
    assert np.isnan(got.sam_map_msi).sum() == 2
    assert got.psnr_hsi > 190
    assert got.psnr_msi > 190
    numbers = metrics.hqnr(x, y, truth, box, response, window=8)
    assert numbers["hqnr"] == pytest.approx(1, abs=1e-9)


def test_lobes_that_cancel_do_not_hide_a_hole(observed):
    _, y, truth, response = (image.copy() for image in observed)

    def balanced(image):
        # each LR pixel: one pixel, plus and minus two others
        return image[:, ::4, ::4] + image[:, 1::4, 1::4] - image[:, 2::4, 2::4]

    truth[0, 5, 5] = truth[0, 6, 6] = np.nan
    got = metrics.consistency(balanced(observed[2]), y, truth, balanced, response)
    assert got.masked_hsi == 1
    assert got.psnr_hsi > 190


def test_a_hole_does_not_spread_through_matrix_products(observed):
    x, y, truth, response = (image.copy() for image in observed)
    # decimation as dense matrices, where 0 · NaN would fill whole rows
    rows, columns = (np.kron(np.eye(n // SCALE), np.full(SCALE, 0.25)) for n in (64, 80))

    def dense(image):
        return rows @ image @ columns.T

    truth[2, 5, 6] = np.nan
    y[0, 30, 30] = np.inf
    got = metrics.consistency(x, y, truth, dense, response)
    assert got.masked_hsi == 1
    assert got.psnr_hsi > 190
    assert metrics.hqnr(x, y, truth, dense, response, window=8)["hqnr"] == pytest.approx(1)


def test_bands_are_degraded_a_few_at_a_time(observed, monkeypatch):
    x, y, truth, response = observed
    whole = metrics.consistency(x, y, truth * 1.01, box, response)
    sizes = []

    def counting(image):
        sizes.append(image.shape[0])
        return box(image)

    monkeypatch.setattr(_observe, "_CHUNK_VALUES", 4 * 64 * 80)
    parts = metrics.consistency(x, y, truth * 1.01, counting, response)
    assert sizes == [4, 2]
    assert parts.numbers() == whole.numbers()


def test_a_panchromatic_image(observed):
    x, y, truth, response = observed
    got = metrics.consistency(x, y[0], truth, box, response[:1])
    assert got.psnr_msi > 190
    assert got.sam_msi == 0
    assert metrics.hqnr(x, y[0], truth, box, response[:1])["hqnr"] == pytest.approx(1, abs=1e-9)


def test_bad_input(observed):
    x, y, truth, response = observed
    with pytest.raises(PairError, match=r"as many bands: got \(5, 16, 20\) and \(6, 64, 80\)"):
        metrics.consistency(x[1:], y, truth, box, response)
    with pytest.raises(PairError, match=r"one size: got \(3, 60, 80\) and \(6, 64, 80\)"):
        metrics.consistency(x, y[:, 4:], truth, box, response)
    with pytest.raises(PairError, match=r"should give \(6, 8, 20\).*gave \(6, 16, 20\)"):
        metrics.d_lambda(x[:, :8], truth, box)
    with pytest.raises(ResponseError, match=r"expected shape \(3, 6\).*got \(6, 3\)"):
        metrics.consistency(x, y, truth, box, response.T)
    with pytest.raises(ResponseError, match="finite"):
        metrics.d_s(x, y, truth, box, response * np.nan)
    with pytest.raises(CubeError, match="estimate: no pixel is finite"):
        metrics.d_lambda(x, truth * np.nan, box)
    with pytest.raises(CubeError, match=r"LR-HSI.*no band has a value above 0"):
        metrics.consistency(0 * x, y, truth, box, response)
    for exponent in (0, -1, np.nan):
        with pytest.raises(ParameterError, match="exponent"):
            metrics.d_s(x, y, truth, box, response, exponent=exponent)
    with pytest.raises(ParameterError, match="window"):
        metrics.hqnr(x, y, truth, box, response, window=1)
