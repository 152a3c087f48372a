"""SSIM, multi-scale SSIM and the Wang-Bovik index against libraries and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from napari_hsfusion import metrics
from napari_hsfusion.errors import CubeError, ParameterError
from napari_hsfusion.metrics._sliding import box_mean


def scene(seed=0, bands=3, rows=45, columns=52, noise=0.03):
    random = np.random.default_rng(seed)
    reference = gaussian_filter(random.random((bands, rows, columns)), (0, 2, 2))
    reference = (reference - reference.min()) / np.ptp(reference)
    return reference, reference * 0.97 + noise * random.standard_normal(reference.shape)


@pytest.fixture
def pair():
    return scene()


def plain_uiqi(a, b, side):
    """Wang-Bovik, one window after another, with the textbook's sample moments."""
    values = []
    for y in range(a.shape[0] - side + 1):
        for x in range(a.shape[1] - side + 1):
            p = a[y : y + side, x : x + side].ravel()
            q = b[y : y + side, x : x + side].ravel()
            cov = np.cov(p, q)
            light = 2 * p.mean() * q.mean() / (p.mean() ** 2 + q.mean() ** 2)
            values.append(light * 2 * cov[0, 1] / (cov[0, 0] + cov[1, 1]))
    return np.mean(values)


def test_ssim_gaussian_is_skimages(pair):
    reference, estimate = pair
    expected = [
        structural_similarity(
            a,
            b,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=np.ptp(a),
        )
        for a, b in zip(reference, estimate, strict=True)
    ]
    np.testing.assert_allclose(metrics.ssim_bands(reference, estimate), expected, rtol=1e-10)
    assert metrics.ssim(reference, estimate) == pytest.approx(np.mean(expected), rel=1e-10)


def test_ssim_uniform_with_the_estimates_range_is_skimages_default(pair):
    reference, estimate = pair
    expected = [
        structural_similarity(a, b, data_range=np.ptp(b))
        for a, b in zip(reference, estimate, strict=True)
    ]
    got = metrics.ssim_bands(reference, estimate, window="uniform", data_range="estimate")
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_ssim_is_torchmetrics(pair):
    image = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    reference, estimate = pair
    for a, b in zip(reference, estimate, strict=True):
        _, full = image.structural_similarity_index_measure(
            torch.from_numpy(b)[None, None],
            torch.from_numpy(a)[None, None],
            data_range=float(np.ptp(a)),
            return_full_image=True,
        )
        inside = float(full[0, 0, 5:-5, 5:-5].mean())
        assert metrics.ssim(a[None], b[None]) == pytest.approx(inside, rel=1e-9)


@pytest.mark.parametrize("noise", [0.03, 0.5])
@pytest.mark.parametrize("shape", [(176, 190), (207, 181)])
def test_ms_ssim_is_torchmetrics(shape, noise):
    image = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    reference, estimate = scene(5, 3, *shape, noise=noise)
    expected = image.multiscale_structural_similarity_index_measure(
        torch.from_numpy(estimate)[None],
        torch.from_numpy(reference)[None],
        data_range=float(np.ptp(reference)),
    )
    assert metrics.ms_ssim(reference, estimate) == pytest.approx(float(expected), rel=1e-6)


def test_ms_ssim_just_over_160():
    # the coarsest scale has 10 pixels a side, one less than the window: reflected
    reference, estimate = scene(5, 2, 161, 161)
    assert metrics.ms_ssim(reference, reference) == pytest.approx(1, abs=1e-12)
    assert 0.5 < metrics.ms_ssim(reference, estimate) < 1


def test_ms_ssim_of_a_negative_is_zero_not_nan():
    reference, _ = scene(5, 2, 161, 161)
    assert metrics.ms_ssim(reference, 1 - reference) == 0


@pytest.mark.parametrize("shape", [(160, 400), (400, 160), (96, 96)])
def test_ms_ssim_needs_sides_over_160(shape):
    reference, estimate = scene(1, 1, *shape)
    with pytest.raises(CubeError, match=f"over 160 pixels, got {shape[0]}×{shape[1]}"):
        metrics.ms_ssim(reference, estimate)


@pytest.mark.parametrize("side", [2, 7, 32])
def test_uiqi_is_the_plain_loop(side):
    reference, estimate = scene(2, 2, 36, 40)
    expected = [plain_uiqi(a, b, side) for a, b in zip(reference, estimate, strict=True)]
    got = metrics.uiqi_bands(reference, estimate, window=side)
    np.testing.assert_allclose(got, expected, rtol=1e-8)
    assert metrics.uiqi(reference, estimate, window=side) == pytest.approx(np.mean(expected))


def test_uiqi_with_torchmetrics_window():
    # torchmetrics weighs by a Gaussian; with one so wide that it is flat, it is a box
    image = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    reference, estimate = scene(2, 1, 24, 24)
    expected = image.universal_image_quality_index(
        torch.from_numpy(estimate)[None],
        torch.from_numpy(reference)[None],
        kernel_size=(9, 9),
        sigma=(1e5, 1e5),
        reduction="none",
    ).numpy()
    if expected.shape[-1] == 24:
        expected = expected[..., 4:-4, 4:-4]
    assert metrics.uiqi(reference, estimate, window=9) == pytest.approx(expected.mean(), rel=1e-6)


def test_uiqi_uses_at_most_the_smaller_side():
    reference, estimate = scene(2, 1, 20, 28)
    assert metrics.uiqi(reference, estimate) == pytest.approx(
        plain_uiqi(reference[0], estimate[0], 20), rel=1e-9
    )


def test_a_constant_estimate_has_no_structure():
    reference, _ = scene(2, 1, 40, 40)
    flat = np.full_like(reference, reference.mean())
    assert metrics.uiqi(reference, flat) == pytest.approx(0, abs=1e-9)
    assert metrics.ssim(reference, flat) < 0.2
    # range of the estimate is 0: the published form then has no constants, and no NaN here
    assert metrics.ssim(reference, flat, window="uniform", data_range="estimate") == pytest.approx(
        0, abs=1e-9
    )


@pytest.mark.parametrize("side", [5, 7, 31, 32])
@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, 60000.1])
def test_constant_windows_count_by_their_means(value, side):
    # rounding leaves most of these windows a variance: it must not be scored
    flat = np.full((1, 40, 40), value)
    assert metrics.uiqi(flat, flat, window=side) == 1
    assert metrics.uiqi(flat, 2.3 * flat, window=side) == pytest.approx(4.6 / 6.29, rel=1e-12)
    zero = np.zeros_like(flat)
    assert metrics.uiqi(zero, zero, window=side) == 1
    assert metrics.uiqi(flat, zero, window=side) == 0


def test_constant_reference_bands_are_left_out_of_ssim(pair):
    reference, estimate = (image.copy() for image in pair)
    rest = metrics.ssim_bands(reference, estimate)
    reference[1] = 0.4
    got = metrics.ssim_bands(reference, estimate)
    np.testing.assert_array_equal(np.isnan(got), [False, True, False])
    assert metrics.ssim(reference, estimate) == pytest.approx(rest[[0, 2]].mean(), rel=1e-12)
    with pytest.raises(CubeError, match="every reference band is constant"):
        metrics.ssim(reference[[1]], estimate[[1]])
    flat = np.full((1, 170, 170), 2.0)
    with pytest.raises(CubeError, match="constant"):
        metrics.ms_ssim(flat, flat)


def uiqi_map(a, b):
    views = (np.lib.stride_tricks.sliding_window_view(image, (7, 7)) for image in (a, b))
    pairs = zip(*(view.reshape(-1, 7, 7) for view in views), strict=True)
    return np.reshape([plain_uiqi(p, q, 7) for p, q in pairs], (a.shape[0] - 6, a.shape[1] - 6))


def gaussian_map(a, b):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, full = structural_similarity(a, b, full=True, data_range=np.ptp(a), **options)
    return full[5:-5, 5:-5]


def uniform_map(a, b):
    _, full = structural_similarity(a, b, full=True, data_range=np.ptp(b))
    return full[3:-3, 3:-3]


@pytest.mark.parametrize(
    ("function", "options", "plain_map", "side"),
    [
        (metrics.uiqi_bands, {"window": 7}, uiqi_map, 7),
        (metrics.ssim_bands, {}, gaussian_map, 11),
        (
            metrics.ssim_bands,
            {"window": "uniform", "data_range": "estimate"},
            uniform_map,
            7,
        ),
    ],
)
def test_windows_that_touch_a_masked_pixel_are_left_out(function, options, plain_map, side):
    reference, estimate = scene(4, 2, 40, 30)
    holed = reference.copy()
    holed[1, 16, 12] = np.nan  # one band: the pixel goes from both
    clear = np.ones((40 - side + 1, 30 - side + 1), dtype=bool)
    clear[16 - side + 1 : 17, 12 - side + 1 : 13] = False
    expected = [plain_map(a, b)[clear].mean() for a, b in zip(reference, estimate, strict=True)]
    got = function(holed, estimate, **options)
    np.testing.assert_allclose(got, expected, rtol=1e-8)
    # whatever stands at a masked pixel
    wild = estimate.copy()
    wild[:, 16, 12] = -77.0
    mask = np.zeros((40, 30), dtype=bool)
    mask[16, 12] = True
    np.testing.assert_allclose(function(reference, wild, mask, **options), got, rtol=1e-12)


def test_ms_ssim_leaves_out_masked_pixels():
    reference, estimate = scene(6, 2, 400, 400)
    holed = estimate.copy()
    holed[0, 2, 3] = np.nan
    wild = estimate.copy()
    wild[:, 2, 3] = 1e6
    mask = np.zeros((400, 400), dtype=bool)
    mask[2, 3] = True
    got = metrics.ms_ssim(reference, holed)
    assert got == pytest.approx(metrics.ms_ssim(reference, wild, mask), rel=1e-12)
    assert got == pytest.approx(metrics.ms_ssim(reference, estimate), abs=2e-3)
    everywhere = np.zeros((400, 400), dtype=bool)
    everywhere[::90, ::90] = True
    with pytest.raises(CubeError, match=r"scale 5.*touches a masked pixel"):
        metrics.ms_ssim(reference, estimate, everywhere)


def test_every_window_masked_is_an_error(pair):
    reference, estimate = pair
    mask = np.zeros(reference.shape[1:], dtype=bool)
    mask[::6, ::6] = True
    for function in (metrics.ssim, metrics.uiqi, metrics.q2n):
        with pytest.raises(CubeError, match="touches a masked pixel"):
            function(reference, estimate, mask)


def test_small_images_and_unknown_options(pair):
    reference, estimate = pair
    with pytest.raises(CubeError, match="at least 11 pixels, got 10×52"):
        metrics.ssim(reference[:, :10], estimate[:, :10])
    assert np.isfinite(metrics.ssim(reference[:, :11], estimate[:, :11]))
    with pytest.raises(CubeError, match="at least 7 pixels"):
        metrics.ssim(reference[:, :6], estimate[:, :6], window="uniform")
    with pytest.raises(CubeError, match=r"UIQI.*at least 2"):
        metrics.uiqi(reference[:, :1], estimate[:, :1])
    with pytest.raises(ParameterError, match="window"):
        metrics.ssim(reference, estimate, window="box")
    with pytest.raises(ParameterError, match="data_range"):
        metrics.ssim(reference, estimate, data_range="both")
    with pytest.raises(ParameterError, match="at least 2 pixels, got 1"):
        metrics.uiqi(reference, estimate, window=1)


@pytest.mark.parametrize("side", [1, 2, 3, 8, 11, 31, 32, 40])
def test_box_mean_is_the_mean_of_every_window(side):
    image = np.random.default_rng(side).random((40, 43))
    views = np.lib.stride_tricks.sliding_window_view(image, (side, side))
    np.testing.assert_allclose(box_mean(image, side), views.mean((2, 3)), rtol=1e-12)


def test_a_spike_does_not_disturb_windows_it_is_not_in():
    reference, estimate = scene(7, 1, 64, 64)
    spiked = estimate.copy()
    spiked[0, 0, 0] = 1e8
    mask = np.zeros((64, 64), dtype=bool)
    mask[0, 0] = True
    clean = metrics.uiqi(reference, estimate, mask, window=8)
    count = 57 * 57
    got = metrics.uiqi(reference, spiked, window=8)
    # one window of all sees the spike, and its index is next to nothing
    assert got == pytest.approx(clean * (count - 1) / count, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), factor=st.floats(1e-5, 1e5))
def test_properties(seed, factor):
    reference, estimate = scene(seed, 2, 20, 22)
    for function in (metrics.ssim, metrics.uiqi):
        assert function(reference, reference) == pytest.approx(1, abs=1e-9)
        value = function(reference, estimate)
        assert -1 <= value < 1
        assert function(reference * factor, estimate * factor) == pytest.approx(value, rel=1e-6)
    assert metrics.uiqi(estimate, reference) == pytest.approx(metrics.uiqi(reference, estimate))
