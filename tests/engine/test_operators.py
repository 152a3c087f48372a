"""Spatial and spectral operators: adjoints, gradients, and independent implementations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_hsfusion.engine import axis
from napari_hsfusion.engine.decimation import BORDERS, border_index
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse
from napari_hsfusion.errors import PairError, ResponseError

SHAPE = (12, 20)
KERNEL = np.random.default_rng(3).random((5, 7)) - 0.2

MAKERS: dict[str, Callable[[tuple[int, int]], SpatialDegradation]] = {
    "bicubic": lambda s: SpatialDegradation.bicubic(s, 4),
    "bicubic by 2": lambda s: SpatialDegradation.bicubic(s, 2),
    "gaussian": lambda s: SpatialDegradation.gaussian(s, 4, 1.7),
    "gaussian, zero border": lambda s: SpatialDegradation.gaussian(s, 4, 2.5, "zero", 0.0),
    "gauss3-bicubic": lambda s: SpatialDegradation.gauss3_bicubic(s, 4),
    "box": lambda s: SpatialDegradation.box(s, 4),
    "kernel": lambda s: SpatialDegradation.from_kernel(KERNEL, s, 4),
    "kernel, wrapped": lambda s: SpatialDegradation.from_kernel(KERNEL, s, 2, 0.0, "wrap"),
    "ratio 1": lambda s: SpatialDegradation.gaussian(s, 1, 0.8),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("tapped", [False, True])
def test_adjoint(
    make: Callable[[tuple[int, int]], SpatialDegradation],
    tapped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """<H a, b> = <a, H* b>, dense and tap by tap."""
    if tapped:
        monkeypatch.setattr(axis, "_DENSE_LIMIT", 0)
    spatial = make(SHAPE)
    generator = torch.Generator().manual_seed(1)
    a = torch.randn((3, *spatial.shape_hr), generator=generator, dtype=torch.float64)
    b = torch.randn((3, *spatial.shape_lr), generator=generator, dtype=torch.float64)
    left = torch.sum(spatial.forward(a) * b)
    right = torch.sum(a * spatial.adjoint(b))
    assert float(left) == pytest.approx(float(right), rel=1e-12)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("tapped", [False, True])
def test_gradient(
    make: Callable[[tuple[int, int]], SpatialDegradation],
    tapped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Autograd agrees with finite differences, and its gradient is the adjoint."""
    if tapped:
        monkeypatch.setattr(axis, "_DENSE_LIMIT", 0)
    spatial = make((8, 8))
    image = torch.randn((2, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    image.requires_grad_()
    assert torch.autograd.gradcheck(spatial.forward, (image,))
    out = spatial.forward(image)
    (gradient,) = torch.autograd.grad(out.square().sum() / 2, image)
    torch.testing.assert_close(gradient, spatial.adjoint(out.detach()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_taps_equal_dense(
    make: Callable[[tuple[int, int]], SpatialDegradation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways of multiplying give the same numbers."""
    image = torch.randn(
        (2, *SHAPE), dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    plain = make(SHAPE).forward(image)
    monkeypatch.setattr(axis, "_DENSE_LIMIT", 0)
    torch.testing.assert_close(make(SHAPE).forward(image), plain, rtol=1e-12, atol=1e-12)


def _plain_bicubic(image: np.ndarray, ratio: int) -> np.ndarray:
    """Antialiased bicubic decimation, weight by weight from Keys' formula."""

    def keys(t: float) -> float:
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    def along(line: np.ndarray) -> np.ndarray:
        n = len(line)
        out = []
        for i in range(n // ratio):
            centre = (i + 0.5) * ratio - 0.5
            total = weights = 0.0
            for j in range(int(centre) - 3 * ratio, int(centre) + 3 * ratio + 1):
                inside = j
                while not 0 <= inside < n:
                    inside = -1 - inside if inside < 0 else 2 * n - 1 - inside
                weight = keys((j - centre) / ratio)
                total += weight * line[inside]
                weights += weight
            out.append(total / weights)
        return np.array(out)

    rows = np.apply_along_axis(along, 0, image)
    return np.apply_along_axis(along, 1, rows)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_bicubic_against_plain_loops(ratio: int, rng: np.random.Generator) -> None:
    """The matrices equal a loop over pixels and taps."""
    image = rng.random((12, 24))
    got = SpatialDegradation.bicubic((12, 24), ratio).forward(torch.as_tensor(image)).numpy()
    np.testing.assert_allclose(got, _plain_bicubic(image, ratio), atol=1e-12)


def test_gauss3_bicubic_is_blur_then_bicubic(rng: np.random.Generator) -> None:
    """3 x 3 Gaussian of sigma 2 with a reflected border, by scipy, then bicubic."""
    image = rng.random((16, 16))
    taps = np.exp(-np.array([1.0, 0, 1]) / 8)
    blurred = ndimage.correlate(image, np.outer(taps, taps) / taps.sum() ** 2, mode="mirror")
    expected = _plain_bicubic(blurred, 4)
    got = SpatialDegradation.gauss3_bicubic((16, 16), 4).forward(torch.as_tensor(image)).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("border", "mode"),
    [("symmetric", "reflect"), ("reflect", "mirror"), ("replicate", "nearest"), ("wrap", "wrap")],
)
def test_kernel_against_scipy(border: str, mode: str, rng: np.random.Generator) -> None:
    """A non-separable kernel at a whole phase is scipy's correlation, sampled."""
    image = rng.random(SHAPE)
    kernel = rng.random((5, 3))
    operator = SpatialDegradation.from_kernel(kernel, SHAPE, 4, phase=1.0, border=border)
    expected = ndimage.correlate(image, kernel, mode=mode)[1::4, 1::4]
    np.testing.assert_allclose(
        operator.forward(torch.as_tensor(image)).numpy(), expected, atol=1e-12
    )


def test_even_kernel_is_centred(rng: np.random.Generator) -> None:
    """An even kernel sits symmetrically about the middle of the block: box by hand."""
    image = rng.random(SHAPE)
    operator = SpatialDegradation.from_kernel(np.full((4, 4), 1 / 16), SHAPE, 4)
    assert operator.phase == 1.5
    expected = image.reshape(3, 4, 5, 4).mean((1, 3))
    np.testing.assert_allclose(
        operator.forward(torch.as_tensor(image)).numpy(), expected, atol=1e-14
    )
    box = SpatialDegradation.box(SHAPE, 4)
    np.testing.assert_allclose(box.forward(torch.as_tensor(image)).numpy(), expected, atol=1e-14)


def test_gaussian_centred_between_pixels() -> None:
    """The response to a point follows the Gaussian about the block's centre."""
    image = np.zeros((32, 32))
    image[13, 18] = 1.0
    got = SpatialDegradation.gaussian((32, 32), 4, 2.0).forward(torch.as_tensor(image)).numpy()
    centres = np.arange(8) * 4 + 1.5
    weights = np.exp(-((np.arange(-8, 8) + 0.5) ** 2) / 8.0)
    weights = weights[np.abs(np.arange(-8, 8) + 0.5) <= 8].sum()
    expected = np.outer(
        np.exp(-((13 - centres) ** 2) / 8) * (np.abs(13 - centres) <= 8),
        np.exp(-((18 - centres) ** 2) / 8) * (np.abs(18 - centres) <= 8),
    )
    np.testing.assert_allclose(got, expected / weights**2, atol=1e-12)


@pytest.mark.parametrize("border", BORDERS)
def test_borders_against_numpy(border: str) -> None:
    """Indices far outside agree with numpy's padding."""
    line = np.arange(1.0, 5.0)
    positions = np.arange(-6, 10)
    index = border_index(positions, 4, border)
    got = np.where(index >= 0, line[index], 0.0)
    mode = {"replicate": "edge", "zero": "constant"}.get(border, border)
    np.testing.assert_array_equal(got, np.pad(line, 6, mode=mode))


def test_ones_stay_ones() -> None:
    """Every normalised degradation keeps a constant image, and so does interpolation."""
    for name in ("bicubic", "gaussian", "gauss3-bicubic", "box"):
        spatial = MAKERS[name](SHAPE)
        ones = torch.ones(SHAPE, dtype=torch.float64)
        low = spatial.forward(ones)
        torch.testing.assert_close(low, torch.ones_like(low), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(spatial.upsample(low), ones, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("phase", [None, 0.0, 2.0])
def test_upsampling_keeps_the_phase(phase: float | None) -> None:
    """A ramp comes back as the same ramp away from the border, whatever the phase."""
    kernel = np.ones((4, 4)) / 16 if phase is None else np.ones((3, 3)) / 9
    spatial = SpatialDegradation.from_kernel(kernel, (32, 40), 4, phase=phase)
    y, x = torch.meshgrid(
        torch.arange(32, dtype=torch.float64), torch.arange(40, dtype=torch.float64), indexing="ij"
    )
    ramp = 0.3 * y - 0.1 * x
    again = spatial.upsample(spatial.forward(ramp))
    torch.testing.assert_close(again[12:20, 12:28], ramp[12:20, 12:28], rtol=0, atol=1e-9)


def test_energy_is_the_noise_gain(rng: np.random.Generator) -> None:
    """The stated noise gain is the mean squared row norm of the dense matrix."""
    for make in MAKERS.values():
        spatial = make(SHAPE)
        units = torch.eye(SHAPE[0] * SHAPE[1], dtype=torch.float64).reshape(-1, *SHAPE)
        matrix = spatial.forward(units).flatten(1).T
        assert spatial.energy() == pytest.approx(float(matrix.square().sum(1).mean()), rel=1e-10)


def test_footprint_is_the_support(rng: np.random.Generator) -> None:
    """A low-resolution pixel is marked exactly where a dense row has a weight on a marked pixel."""
    marked = rng.random(SHAPE) > 0.97
    for make in MAKERS.values():
        spatial = make(SHAPE)
        units = torch.eye(SHAPE[0] * SHAPE[1], dtype=torch.float64).reshape(-1, *SHAPE)
        weights = spatial.forward(units).flatten(1).numpy().T
        expected = (np.abs(weights[:, marked.ravel()]) > 1e-12).any(1)
        got = spatial.footprint(marked)
        assert (expected <= got.ravel()).all()
        if len(spatial.terms) == 1:
            np.testing.assert_array_equal(got.ravel(), expected)
        assert not spatial.footprint(np.zeros(SHAPE, dtype=bool)).any()


def test_covered_is_the_share_of_the_weights(rng: np.random.Generator) -> None:
    """Against the dense rows, whose sizes count."""
    known = rng.random(SHAPE) > 0.1
    for make in MAKERS.values():
        spatial = make(SHAPE)
        assert spatial.covered(np.ones(SHAPE, dtype=bool)).all()
        assert not spatial.covered(np.zeros(SHAPE, dtype=bool)).any()
        if len(spatial.terms) > 1:  # sizes of the terms, not of their sum
            continue
        units = torch.eye(SHAPE[0] * SHAPE[1], dtype=torch.float64).reshape(-1, *SHAPE)
        weights = np.abs(spatial.forward(units).flatten(1).numpy().T)
        share = weights[:, known.ravel()].sum(1) / weights.sum(1)
        for wanted in (0.7, 0.9, 0.95):
            got = spatial.covered(known, wanted).ravel()
            np.testing.assert_array_equal(got, share >= wanted)


def test_degradation_commutes_with_the_basis(rng: np.random.Generator) -> None:
    """H(A x3 E) = H(A) x3 E."""
    a = torch.as_tensor(rng.random((3, *SHAPE)))
    e = torch.as_tensor(rng.random((3, 7)))
    spatial = MAKERS["kernel"](SHAPE)
    whole = spatial.forward(torch.einsum("khw,kb->bhw", a, e))
    split = torch.einsum("khw,kb->bhw", spatial.forward(a), e)
    torch.testing.assert_close(whole, split, rtol=1e-12, atol=1e-12)


def test_spectral_adjoint_and_gradient(rng: np.random.Generator) -> None:
    """<R z, y> = <z, R* y>; autograd agrees."""
    spectral = SpectralResponse(rng.random((3, 7)))
    z = torch.as_tensor(rng.random((7, 4, 5))).requires_grad_()
    y = torch.as_tensor(rng.random((3, 4, 5)))
    left = torch.sum(spectral.forward(z) * y)
    assert float(left.detach()) == pytest.approx(float(torch.sum(z.detach() * spectral.adjoint(y))))
    (gradient,) = torch.autograd.grad(left, z)
    torch.testing.assert_close(gradient, spectral.adjoint(y))
    assert torch.autograd.gradcheck(spectral.forward, (z,))


def test_wrong_input_is_named() -> None:
    """Sizes, kernels and responses that do not fit say what came."""
    with pytest.raises(PairError, match=r"\(13, 20\) is not a multiple of the ratio 4"):
        SpatialDegradation.bicubic((13, 20), 4)
    with pytest.raises(ResponseError, match="sigma above 0"):
        SpatialDegradation.gaussian(SHAPE, 4, 0.0)
    with pytest.raises(ResponseError, match="2-D"):
        SpatialDegradation.from_kernel(np.ones(3), SHAPE, 4)
    with pytest.raises(ResponseError, match="does not sit on pixels"):
        SpatialDegradation.from_kernel(np.ones((4, 4)), SHAPE, 4, phase=1.0)
    with pytest.raises(ResponseError, match="one parity"):
        SpatialDegradation.from_kernel(np.ones((4, 3)), SHAPE, 4)
    with pytest.raises(ResponseError, match="border"):
        SpatialDegradation.bicubic(SHAPE, 4, border="mirror")
    with pytest.raises(PairError, match=r"\(12, 20\) pixels, got \(12, 21\)"):
        SpatialDegradation.bicubic(SHAPE, 4).forward(torch.zeros(12, 21))
    with pytest.raises(ResponseError, match="no weight"):
        SpectralResponse(np.array([[0.0, 0.0], [0.5, 0.5]]))
    with pytest.raises(ResponseError, match="finite"):
        SpectralResponse(np.array([[np.nan, 1.0]]))
