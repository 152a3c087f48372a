"""Estimated responses: judged by what they predict of a scene they have not seen sharp."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from napari_hsfusion.engine.convex import (
    block_folds,
    difference,
    nonnegative_smooth,
    project_simplex,
    simplex_quadratic,
    sum_to_one,
)
from napari_hsfusion.engine.operators import SpatialDegradation
from napari_hsfusion.engine.responses import estimate_both, estimate_psf, estimate_srf
from napari_hsfusion.errors import PairError, ResponseError

SharedData = Callable[[str], Path]
Array = np.ndarray
BANDS, SIDE, RATIO = 24, 96, 4
WAVELENGTH = np.linspace(430.0, 900.0, BANDS)


def snr(reference: Array, estimate: Array) -> float:
    return float(10 * np.log10((reference**2).mean() / ((reference - estimate) ** 2).mean()))


def noisy(image: Array, decibel: float, rng: np.random.Generator) -> Array:
    return image + rng.standard_normal(image.shape) * np.sqrt(
        (image**2).mean() / 10 ** (decibel / 10)
    )


def make_scene(rng: np.random.Generator) -> Array:
    """Sharp fields of 9 materials with broad spectral features, (24, 96, 96)."""
    seeds = rng.uniform(0, SIDE, (90, 2))
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    nearest = np.argmin((rows - seeds[:, :1, None]) ** 2 + (columns - seeds[:, 1:, None]) ** 2, 0)
    spectra = np.zeros((90, BANDS))
    materials = np.zeros((9, BANDS))
    for k in range(9):
        centre, width = rng.uniform(430, 900), rng.uniform(30, 120)
        materials[k] = 0.1 + rng.uniform() * np.exp(-(((WAVELENGTH - centre) / width) ** 2))
    spectra = rng.dirichlet(np.full(9, 0.5), 90) @ materials
    texture = 1 + 0.15 * rng.standard_normal((SIDE, SIDE))
    return spectra[nearest].transpose(2, 0, 1) * texture


def make_response() -> Array:
    centres = np.array([[490.0], [560.0], [660.0], [830.0]])
    rows = np.exp(-(((WAVELENGTH - centres) / 45.0) ** 2))
    return rows / rows.sum(1, keepdims=True)


def operator(psf: str, ratio: int = RATIO, side: int = SIDE) -> SpatialDegradation:
    if psf == "bicubic":
        return SpatialDegradation.bicubic((side, side), ratio)
    return SpatialDegradation.gaussian((side, side), ratio, 0.42 * ratio)


def degrade(op: SpatialDegradation, image: Array) -> Array:
    return op.forward(torch.as_tensor(image)).numpy()


@pytest.fixture(scope="module")
def scene() -> Array:
    return make_scene(np.random.default_rng(3))


@pytest.fixture(scope="module", params=["bicubic", "gaussian"])
def pair(request: pytest.FixtureRequest, scene: Array) -> tuple[str, Array, Array]:
    """LR-HSI and HR-MSI at 35 dB."""
    rng = np.random.default_rng(11)
    x = noisy(degrade(operator(request.param), scene), 35, rng)
    y = noisy(np.tensordot(make_response(), scene, 1), 35, rng)
    return request.param, x, y


def test_srf_predicts_the_sharp_scene(scene: Array, pair: tuple[str, Array, Array]) -> None:
    psf, x, y = pair
    found = estimate_srf(x, y, operator(psf).forward, wavelength=WAVELENGTH)
    assert (found.matrix >= 0).all()
    np.testing.assert_allclose(found.matrix.sum(1), 1, rtol=1e-12)
    truth = np.tensordot(make_response(), scene, 1)
    assert snr(truth, np.tensordot(found.response, scene, 1)) > 45
    np.testing.assert_allclose(found.gain, 1, atol=0.02)
    np.testing.assert_array_equal(found.offset, 0)
    again = estimate_srf(x, y, operator(psf).forward, wavelength=WAVELENGTH)
    np.testing.assert_array_equal(again.matrix, found.matrix)


def test_kernel_predicts_the_blurred_scene(scene: Array, pair: tuple[str, Array, Array]) -> None:
    psf, x, y = pair
    found = estimate_psf(x, y, make_response(), RATIO)
    assert found.kernel.sum() == pytest.approx(1, abs=1e-12)
    blur = SpatialDegradation.from_kernel(found.kernel, (SIDE, SIDE), RATIO)
    assert blur.phase == operator(psf).phase == 1.5
    inner = np.s_[:, 3:-3, 3:-3]
    assert snr(degrade(operator(psf), scene)[inner], degrade(blur, scene)[inner]) > 45
    # only the bicubic kernel has negative lobes
    assert found.nonnegative is (psf == "gaussian")
    lobes = found.kernel.min() / found.kernel.max()
    assert lobes < -0.02 if psf == "bicubic" else lobes > -0.01
    assert found.report["rank"] <= 3


def test_both_predict_the_scene(scene: Array, pair: tuple[str, Array, Array]) -> None:
    psf, x, y = pair
    found = estimate_both(x, y, RATIO, wavelength=WAVELENGTH)
    truth = np.tensordot(make_response(), scene, 1)
    assert snr(truth, np.tensordot(found.srf.response, scene, 1)) > 40
    blur = SpatialDegradation.from_kernel(found.kernel, (SIDE, SIDE), RATIO)
    inner = np.s_[:, 3:-3, 3:-3]
    assert snr(degrade(operator(psf), scene)[inner], degrade(blur, scene)[inner]) > 40
    residuals = found.report["relative_residuals"]
    assert len(residuals) == found.report["iterations"] <= 8
    assert min(residuals) < 0.03


def test_odd_ratio_is_centred_on_a_pixel(scene: Array) -> None:
    blur = operator("gaussian", 3)
    x = degrade(blur, scene)
    y = np.tensordot(make_response(), scene, 1)
    found = estimate_psf(x, y, make_response(), 3)
    assert len(found.kernel) % 2 == 1
    assert found.report["phase"] == 1.0
    peak = np.unravel_index(found.kernel.argmax(), found.kernel.shape)
    assert peak == (len(found.kernel) // 2,) * 2
    again = SpatialDegradation.from_kernel(found.kernel, (SIDE, SIDE), 3)
    inner = np.s_[:, 4:-4, 4:-4]
    assert snr(degrade(blur, scene)[inner], degrade(again, scene)[inner]) > 45


def test_shifted_kernel_is_found_shifted(scene: Array) -> None:
    kernel = np.zeros((8, 8))
    kernel[2:5, 4:8] = 1 / 12
    blur = SpatialDegradation.from_kernel(kernel, (SIDE, SIDE), RATIO)
    x = degrade(blur, scene)
    y = np.tensordot(make_response(), scene, 1)
    found = estimate_psf(x, y, make_response(), RATIO, size=8, nonnegative=True)
    at = np.arange(8) - 3.5
    assert found.kernel.sum(1) @ at == pytest.approx(-0.5, abs=0.1)
    assert found.kernel.sum(0) @ at == pytest.approx(2.0, abs=0.1)


def test_gain_offset_and_units(scene: Array) -> None:
    gain, offset = np.array([30.0, 500.0, 2.0, 80.0]), np.array([3.0, -20.0, 0.5, 9.0])
    blur = operator("gaussian")
    x = degrade(blur, scene)
    y = np.tensordot(make_response(), scene, 1) * gain[:, None, None] + offset[:, None, None]
    found = estimate_srf(x, y, blur.forward, offset=True)
    np.testing.assert_allclose(found.gain, gain, rtol=0.02)
    np.testing.assert_allclose(found.offset, offset, atol=0.01 * gain.max(), rtol=0.05)
    predicted = np.tensordot(found.response, scene, 1) + found.offset[:, None, None]
    assert snr(y, predicted) > 50
    both = estimate_both(x, y, RATIO, offset=True)
    predicted = np.tensordot(both.srf.response, scene, 1) + both.srf.offset[:, None, None]
    assert snr(y, predicted) > 40


def test_gaps_do_not_spread(scene: Array) -> None:
    blur = operator("gaussian")
    x = degrade(blur, scene)
    y = np.tensordot(make_response(), scene, 1)
    x_bad, y_bad = x.copy(), y.copy()
    x_bad[:, 5, 7] = np.nan
    y_bad[2, 40:50, 60:64] = np.nan
    mask = np.ones((SIDE, SIDE), dtype=bool)
    mask[10:20, 10:20] = False
    y_bad[:, 10:20, 10:20] = 1e6
    truth = np.tensordot(make_response(), scene, 1)
    srf = estimate_srf(x_bad, y_bad, blur.forward, valid_y=mask)
    assert snr(truth, np.tensordot(srf.response, scene, 1)) > 50
    assert srf.report["pixels"] < x[0].size - 20
    psf = estimate_psf(x_bad, y_bad, make_response(), RATIO, size=12, valid_y=mask)
    again = SpatialDegradation.from_kernel(psf.kernel, (SIDE, SIDE), RATIO)
    inner = np.s_[:, 3:-3, 3:-3]
    assert snr(degrade(blur, scene)[inner], degrade(again, scene)[inner]) > 45


def test_band_order_follows_wavelength(scene: Array) -> None:
    blur = operator("gaussian")
    x = degrade(blur, scene)
    y = np.tensordot(make_response(), scene, 1)
    order = np.random.default_rng(0).permutation(BANDS)
    plain = estimate_srf(x, y, blur.forward, wavelength=WAVELENGTH)
    mixed = estimate_srf(x[order], y, blur.forward, wavelength=WAVELENGTH[order])
    np.testing.assert_allclose(mixed.matrix, plain.matrix[:, order], atol=1e-6)


def test_settings_that_are_given_are_kept(scene: Array) -> None:
    blur = operator("bicubic")
    x, y = degrade(blur, scene), np.tensordot(make_response(), scene, 1)
    srf = estimate_srf(x, y, blur.forward, smoothness=0.5)
    assert srf.report["smoothness"] == 0.5
    assert not np.array_equal(srf.matrix, estimate_srf(x, y, blur.forward, smoothness=5e-4).matrix)
    held = estimate_psf(x, y, make_response(), RATIO, size=10, nonnegative=True, smoothness=0.01)
    assert (held.kernel.shape, held.nonnegative) == ((10, 10), True)
    assert held.kernel.min() > -0.02 * held.kernel.max()
    free = estimate_psf(x, y, make_response(), RATIO, size=10, nonnegative=False)
    assert free.kernel.min() < -0.02 * free.kernel.max()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones((24, 24))}, PairError, "LR-HSI: expected"),
        ({"y": np.full((4, 96, 96), np.nan)}, PairError, "HR-MSI: no pixel"),
        ({"ratio": 3}, PairError, r"ratio 3: expected an HR-MSI of \(72, 72\)"),
        ({"valid_x": np.ones((3, 3), bool)}, PairError, "mask of"),
        ({"valid_x": np.eye(24, dtype=bool) & (np.arange(24) < 9)}, PairError, "at least 16"),
        ({"wavelength": [500.0]}, PairError, "expected 24 values"),
        ({"y": np.zeros((4, 96, 96))}, ResponseError, "zero everywhere"),
        ({"iterations": 0}, ResponseError, "at least 1"),
        ({"size": 0}, ResponseError, "at least 1, got 0"),
        ({"size": 90}, PairError, "too few patches of 90 pixels"),
    ],
)
def test_bad_pairs(
    scene: Array, change: dict[str, object], error: type[Exception], message: str
) -> None:
    given: dict[str, object] = {
        "x": degrade(operator("gaussian"), scene),
        "y": np.tensordot(make_response(), scene, 1),
        "ratio": RATIO,
    }
    with pytest.raises(error, match=message):
        estimate_both(**{**given, **change})  # type: ignore[arg-type]


def test_unrelated_band_is_refused(scene: Array) -> None:
    blur = operator("gaussian")
    with pytest.raises(ResponseError, match="band 1 of the HR-MSI is no sum"):
        estimate_srf(degrade(blur, scene), -scene[:1], blur.forward)
    with pytest.raises(PairError, match=r"SRF: expected shape \(4, 24\), got \(3, 24\)"):
        estimate_psf(degrade(blur, scene), scene[:4], np.ones((3, 24)), RATIO)


def test_quadratics_against_a_general_solver(rng: np.random.Generator) -> None:
    root = rng.standard_normal((14, 9))
    gram, moment = root.T @ root, rng.standard_normal(9)

    def cost(k: Array) -> float:
        return float(k @ gram @ k - 2 * moment @ k)

    line = {"type": "eq", "fun": lambda k: k.sum() - 1}
    start = np.full(9, 1 / 9)
    free = minimize(cost, start, constraints=line, method="SLSQP", options={"ftol": 1e-14})
    np.testing.assert_allclose(sum_to_one(gram, moment), free.x, atol=1e-6)
    held = minimize(cost, start, bounds=[(0, None)] * 9, constraints=line, options={"ftol": 1e-14})
    ours = simplex_quadratic(gram, moment, start, tolerance=1e-10)
    assert (ours >= 0).all()
    np.testing.assert_allclose(ours, held.x, atol=1e-5)
    nearest = project_simplex(moment)
    assert nearest.sum() == pytest.approx(1)
    np.testing.assert_allclose(nearest, simplex_quadratic(np.eye(9), moment, start), atol=1e-6)
    rough = difference(9, 2)
    target = rng.standard_normal(14)
    smooth = nonnegative_smooth(root, target, rough, 0.3)
    system, right = root.T @ root + 0.3 * rough.T @ rough, root.T @ target
    gradient = system @ smooth - right
    assert (smooth >= 0).all()
    assert abs(gradient[smooth > 0]).max() < 1e-6
    assert gradient.min() > -1e-6


def test_differences_stop_at_breaks() -> None:
    second = difference(7, 2, [3])
    ramp = np.array([0.0, 1, 2, 3, 50, 40, 30])
    np.testing.assert_array_equal(second @ ramp, 0)
    assert len(second) == 3
    assert len(difference(7, 2)) == 5


def test_folds_are_blocks_of_like_size() -> None:
    rows, columns = np.nonzero(np.ones((24, 32), dtype=bool))
    fold = block_folds(rows, columns)
    np.testing.assert_array_equal(np.bincount(fold), [192] * 4)
    image = fold.reshape(24, 32)
    assert (image[:6, :8] == image[0, 0]).all()


def test_real_pan_pair(shared_data: SharedData) -> None:
    with np.load(shared_data("pairs/eo1_paris_hyperion_ali.npz")) as file:
        x = file["hs_for_pan"].transpose(2, 0, 1)
        y = file["pan"][None]
    found = estimate_both(x, y, 3)
    assert found.report["relative_residuals"][-1] < 0.08
    centre = np.array(found.kernel.shape) // 2
    at = np.arange(len(found.kernel)) - centre[0]
    # the images are registered to a pixel of the finer one
    assert abs(found.kernel.sum(0) @ at) < 1.5
    assert abs(found.kernel.sum(1) @ at) < 1.5
