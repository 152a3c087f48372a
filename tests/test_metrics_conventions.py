"""The three named conventions, each against the paper's own recipe written out plainly."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter
from skimage.metrics import structural_similarity

from napari_hsfusion import metrics
from napari_hsfusion.errors import CubeError, PairError, ParameterError

COUNTS = {
    "masked_pixels",
    "zero_spectra",
    "zero_spectra_estimate",
    "undefined_angles",
    "peakless_bands",
    "zero_mean_bands",
    "constant_bands",
}


def scene(seed=0, bands=4, rows=48, columns=40):
    random = np.random.default_rng(seed)
    reference = gaussian_filter(random.random((bands, rows, columns)), (1, 2, 2))
    reference = (reference - reference.min()) / np.ptp(reference) * 0.9 + 0.05
    return reference, reference * 0.98 + 0.01 * random.standard_normal(reference.shape)


@pytest.fixture
def pair():
    return scene()


def library_uiqi(a, b):
    """The published index, window by window: means where the formula asks for sums."""
    values = []
    for y in range(a.shape[0] - 8):
        for x in range(a.shape[1] - 8):
            p, q = a[y : y + 8, x : x + 8], b[y : y + 8, x : x + 8]
            pp, qq, pq = (p * p).mean(), (q * q).mean(), (p * q).mean()
            p, q = p.mean(), q.mean()
            values.append(
                4 * (64 * pq - p * q) * p * q / ((64 * (pp + qq) - p**2 - q**2) * (p**2 + q**2))
            )
    return np.mean(values)


def test_default_convention(pair):
    got = metrics.evaluate(*pair, 4)
    assert got == metrics.evaluate(*pair, 4, "hsfusion")
    assert list(got)[:6] == ["psnr", "sam", "ergas", "ssim", "uiqi", "q2n"]
    assert set(got) == {*metrics.units("hsfusion"), *COUNTS}
    assert got["psnr"] == metrics.psnr(*pair)
    assert got["sam"] == metrics.sam(*pair)
    assert got["ergas"] == metrics.ergas(*pair, 4)
    assert got["ssim"] == metrics.ssim(*pair)
    assert got["uiqi"] == metrics.uiqi(*pair)
    assert got["q2n"] == metrics.q2n(*pair)


def test_args_diff_convention(pair):
    reference, estimate = pair
    got = metrics.evaluate(reference, estimate, 4, "args-diff")
    mse = ((reference - estimate) ** 2).mean((1, 2))
    assert got["psnr"] == pytest.approx(np.mean(10 * np.log10(reference.max((1, 2)) ** 2 / mse)))
    cosine = (reference * estimate).sum(0)
    cosine /= np.linalg.norm(reference, axis=0) * np.linalg.norm(estimate, axis=0)
    assert got["sam"] == pytest.approx((np.arccos(cosine) * 180 / np.pi).mean(), rel=1e-9)
    relative = mse / reference.mean((1, 2)) ** 2
    assert got["ergas"] == pytest.approx(100 / 4 * np.sqrt(relative.mean()))
    ssim = [
        structural_similarity(a, b, data_range=b.max() - b.min())
        for a, b in zip(reference, estimate, strict=True)
    ]
    assert got["ssim"] == pytest.approx(np.mean(ssim), rel=1e-9)
    uiqi = [library_uiqi(a, b) for a, b in zip(reference, estimate, strict=True)]
    assert got["uiqi"] == pytest.approx(np.mean(uiqi), rel=1e-9)
    assert set(got) == {"psnr", "sam", "ergas", "ssim", "uiqi", *COUNTS}


def test_args_diff_uiqi_hardly_sees_structure(pair):
    reference, _ = pair
    flat = np.broadcast_to(reference.mean((1, 2), keepdims=True), reference.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        published = metrics.evaluate(reference, flat, 4, "args-diff")["uiqi"]
    assert published > 0.9
    assert abs(metrics.uiqi(reference, flat)) < 1e-9


def test_args_diff_nudges_zero_spectra(pair):
    reference, estimate = (image.copy() for image in pair)
    estimate[:, 3, 4] = 0
    reference[:, 9, 9] = 0
    got = metrics.evaluate(reference, estimate, 4, "args-diff")
    assert got["zero_spectra"] == 1
    assert got["zero_spectra_estimate"] == 1
    assert got["undefined_angles"] == 0
    estimate[:, 3, 4] += 1e-4
    reference[:, 9, 9] += 1e-4
    assert got["sam"] == pytest.approx(metrics.sam(reference, estimate), rel=1e-9)
    reference[:, 9, 9] = estimate[:, 3, 4] = 0
    ours = metrics.evaluate(reference, estimate, 4)
    assert ours["undefined_angles"] == 1
    assert ours["zero_spectra"] == 1


def test_emr_diff_convention():
    image = pytest.importorskip("torchmetrics.functional.image")
    torch = pytest.importorskip("torch")
    reference, estimate = scene(2, 3, 165, 180)
    a, b = torch.from_numpy(reference)[None], torch.from_numpy(estimate)[None]
    got = metrics.evaluate(reference, estimate, 8, "emr-diff")
    mse = ((reference - estimate) ** 2).mean()
    assert got["psnr"] == pytest.approx(10 * np.log10(reference.max() ** 2 / mse), rel=1e-12)
    assert got["sam"] == pytest.approx(float(image.spectral_angle_mapper(b, a)), rel=1e-7)
    ergas = image.error_relative_global_dimensionless_synthesis(b, a)  # its default ratio is 4
    assert got["ergas"] == pytest.approx(float(ergas), rel=1e-9)
    assert got["ergas"] == pytest.approx(2 * metrics.ergas(reference, estimate, 8), rel=1e-12)
    assert got["ssim"] == metrics.ms_ssim(reference, estimate)
    assert set(got) == {"psnr", "sam", "ergas", "ssim", *COUNTS}


@pytest.mark.parametrize(
    ("convention", "side", "expected"),
    [
        ("emr-diff", 40, "over 160 pixels, got 40×40"),
        ("hsfusion", 10, "at least 11 pixels, got 10×40"),
        ("args-diff", 8, "at least 9 pixels, got 8×40"),
    ],
)
def test_a_window_that_does_not_fit_costs_its_own_number_alone(pair, convention, side, expected):
    reference, estimate = (image[:, :side, :40] for image in pair)
    with pytest.warns(UserWarning, match=f"no value: .*{expected}"):
        got = metrics.evaluate(reference, estimate, 8, convention)
    lost = {key for key, value in got.items() if np.isnan(value)}
    assert lost == {"uiqi" if convention == "args-diff" else "ssim"}
    assert got["ergas"] == metrics.ergas(reference, estimate, 4 if convention == "emr-diff" else 8)


def test_blurred_target():
    reference, estimate = scene(3, 2, 165, 170)
    line = np.exp(-np.array([1, 0, 1]) / 8.0)
    kernel = np.outer(line, line) / line.sum() ** 2
    # scipy calls a border that does not repeat the edge "mirror"
    blurred = np.stack([convolve(band, kernel, mode="mirror") for band in reference])
    np.testing.assert_allclose(metrics.emr_blurred(reference), blurred, rtol=1e-12)
    got = metrics.evaluate(reference, estimate, 8, "emr-diff", target="emr-blurred")
    assert got == pytest.approx(metrics.evaluate(blurred, estimate, 8, "emr-diff"), rel=1e-9)
    sharp = metrics.evaluate(reference, estimate, 8, "emr-diff", target="sharp")
    assert sharp == metrics.evaluate(reference, estimate, 8, "emr-diff")
    assert abs(sharp["psnr"] - got["psnr"]) > 0.01
    for convention in ("hsfusion", "args-diff"):
        with pytest.raises(ParameterError, match="'emr-diff' alone"):
            metrics.evaluate(reference, estimate, 8, convention, target="emr-blurred")
    with pytest.raises(ParameterError, match="target"):
        metrics.evaluate(reference, estimate, 8, "emr-diff", target="blurred")


def test_blurred_target_masks_what_the_kernel_touches():
    reference, estimate = scene(3, 2, 400, 400)
    reference[1, 0, 0] = np.nan
    mask = np.zeros((400, 400), dtype=bool)
    mask[3, 1] = True
    got = metrics.evaluate(reference, estimate, 8, "emr-diff", mask, target="emr-blurred")
    # 2×2 at the corner and 3×3 about (3, 1), which reaches column 0
    assert got["masked_pixels"] == 13
    assert np.isfinite([got[key] for key in metrics.units("emr-diff")]).all()
    with pytest.raises(CubeError, match="at least 2"):
        metrics.emr_blurred(np.ones((2, 1, 5)))


def test_infos_and_units():
    assert metrics.CONVENTIONS == ("hsfusion", "args-diff", "emr-diff")
    assert metrics.units()["sam"] == "deg"
    assert metrics.units("args-diff")["sam"] == "deg"
    assert metrics.units("emr-diff")["sam"] == "rad"
    assert metrics.units()["psnr"] == "dB"
    for convention in metrics.CONVENTIONS:
        for key, info in metrics.metric_infos(convention).items():
            assert info.key == key
            assert info.higher_is_better == (key not in ("sam", "ergas"))
    assert metrics.metric_infos("emr-diff")["ssim"].label == "MS-SSIM"
    for call in (
        metrics.units,
        metrics.metric_infos,
        lambda name: metrics.evaluate(np.ones((1, 12, 12)), np.ones((1, 12, 12)), 4, name),
    ):
        with pytest.raises(ParameterError, match="hsfusion, args-diff, emr-diff, got 'emr'"):
            call("emr")


@pytest.mark.parametrize("convention", metrics.CONVENTIONS)
def test_a_worse_estimate_scores_worse(convention):
    reference, _ = scene(4, 3, 165, 165)
    noise = np.random.default_rng(9).standard_normal(reference.shape)
    near = metrics.evaluate(reference, reference + 0.01 * noise, 4, convention)
    far = metrics.evaluate(reference, reference + 0.1 * noise, 4, convention)
    for key, info in metrics.metric_infos(convention).items():
        assert (near[key] > far[key]) == info.higher_is_better, key


@pytest.mark.parametrize("convention", metrics.CONVENTIONS)
def test_identity_is_perfect(convention):
    reference, _ = scene(4, 3, 165, 165)
    got = metrics.evaluate(reference, reference, 4, convention)
    assert got["psnr"] > 195
    assert got["sam"] == pytest.approx(0, abs=1e-9)
    assert got["ergas"] == 0
    for key in {"ssim", "uiqi", "q2n"} & set(got):
        assert got[key] == pytest.approx(1, abs=1e-9), key


def test_counts(pair):
    reference, estimate = (image.copy() for image in pair)
    reference[:, 0, :3] = 0
    estimate[:, 1, :2] = 0
    reference[0, 47, 39] = np.nan
    reference[:, 47, 38] = 0  # a zero spectrum that is masked does not count
    mask = np.zeros((48, 40), dtype=bool)
    mask[47, 38] = mask[46, 39] = True
    got = metrics.evaluate(reference, estimate, 4, mask=mask)
    assert got["masked_pixels"] == 3
    assert got["zero_spectra"] == 3
    assert got["zero_spectra_estimate"] == 2
    assert got["undefined_angles"] == 3
    assert got["constant_bands"] == got["zero_mean_bands"] == got["peakless_bands"] == 0
    reference[1] = 0
    reference[2] = 0.7
    got = metrics.evaluate(reference, estimate, 4, mask=mask)
    assert got["constant_bands"] == 2
    assert got["zero_mean_bands"] == 1
    assert got["peakless_bands"] == 1
    assert np.isfinite(list(got.values())).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("convention", metrics.CONVENTIONS)
def test_bad_pixels_never_spread(convention, bad):
    reference, estimate = scene(5, 3, 400, 400)
    clean = metrics.evaluate(reference, estimate, 4, convention)
    reference[1, 5, 5] = bad
    estimate[0, 6, 390] = bad
    got = metrics.evaluate(reference, estimate, 4, convention)
    assert got["masked_pixels"] == 2
    for key in metrics.units(convention):
        assert got[key] == pytest.approx(clean[key], rel=0.01), key


def test_a_metric_without_a_value_warns(pair):
    reference, estimate = pair
    mask = np.zeros((48, 40), dtype=bool)
    mask[::10, ::10] = True
    with pytest.warns(UserWarning, match="no value") as caught:
        got = metrics.evaluate(reference, estimate, 4, mask=mask)
    assert {str(w.message).split(":")[1].strip() for w in caught} == {"SSIM", "UIQI", "Q2n"}
    assert np.isnan([got[key] for key in ("ssim", "uiqi", "q2n")]).all()
    assert got["psnr"] == metrics.psnr(reference, estimate, mask)
    zero = np.zeros((2, 12, 12))
    with pytest.warns(UserWarning, match="no value") as caught:
        got = metrics.evaluate(zero, zero, 4)
    assert len(caught) == 4
    assert np.isnan([got[key] for key in ("psnr", "sam", "ergas", "ssim")]).all()
    assert got["uiqi"] == got["q2n"] == 1
    assert got["constant_bands"] == got["peakless_bands"] == 2


def test_bad_input(pair):
    reference, estimate = pair
    with pytest.raises(PairError, match=r"\(4, 48, 40\) and \(4, 40, 48\)"):
        metrics.evaluate(reference, estimate.transpose(0, 2, 1), 4)
    for scale in (0, -1, np.nan):
        with pytest.raises(ParameterError, match="scale"):
            metrics.evaluate(reference, estimate, scale, "emr-diff")
    with pytest.raises(CubeError, match="no pixel"):
        metrics.evaluate(reference, np.full_like(estimate, np.nan), 4)


def test_types_give_the_same_numbers(pair):
    reference, estimate = (np.round(image * 4000).clip(0) for image in pair)
    expected = metrics.evaluate(reference, estimate, 4)
    for dtype in (np.uint16, np.int32, np.float32, ">f4"):
        got = metrics.evaluate(reference.astype(dtype), estimate.astype(dtype), 4)
        assert got == pytest.approx(expected, rel=1e-12)


def test_a_large_cube_takes_seconds():
    random = np.random.default_rng(0)
    reference = random.random((31, 512, 512), dtype=np.float32)
    estimate = reference + 0.01 * random.standard_normal(reference.shape, dtype=np.float32)
    start = time.process_time()
    metrics.evaluate(reference, estimate, 8)
    assert time.process_time() - start < 20
