"""Q2n against a slow transcription with hypercomplex numbers, and Hamilton's quaternions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_hsfusion import metrics
from napari_hsfusion.errors import ParameterError
from napari_hsfusion.metrics.hypercomplex import product_signs


def conjugate(z):
    return [z[0], *(-v for v in z[1:])]


def product(z, w):
    """(p, q)(r, s) = (pr − s*q, sp + qr*), down to real numbers."""
    n = len(z)
    if n == 1:
        return [z[0] * w[0]]
    p, q, r, s = z[: n // 2], z[n // 2 :], w[: n // 2], w[n // 2 :]
    left = [a - b for a, b in zip(product(p, r), product(conjugate(s), q), strict=True)]
    right = [a + b for a, b in zip(product(s, p), product(q, conjugate(r)), strict=True)]
    return left + right


def modulus(z):
    return np.sqrt(sum(v**2 for v in z))


def plain_block(a, b, multiply=product):
    """Index of one block, (band, y, x), number by number."""
    bands = a.shape[0]
    size = 1
    while size < bands:
        size *= 2
    za = [list(v) + [0.0] * (size - bands) for v in a.reshape(bands, -1).T]
    zb = [list(v) + [0.0] * (size - bands) for v in b.reshape(bands, -1).T]
    count = len(za)
    mean_a, mean_b = list(np.mean(za, axis=0)), list(np.mean(zb, axis=0))
    products = [multiply(p, conjugate(q)) for p, q in zip(za, zb, strict=True)]
    covariance = np.mean(products, axis=0) - multiply(mean_a, conjugate(mean_b))
    var_a = sum(modulus(z) ** 2 for z in za) / count - modulus(mean_a) ** 2
    var_b = sum(modulus(z) ** 2 for z in zb) / count - modulus(mean_b) ** 2
    correlation = modulus(covariance) / np.sqrt(var_a * var_b)
    contrast = 2 * np.sqrt(var_a * var_b) / (var_a + var_b)
    bias = 2 * modulus(mean_a) * modulus(mean_b) / (modulus(mean_a) ** 2 + modulus(mean_b) ** 2)
    return correlation * contrast * bias


def hamilton(z, w):
    """Product of quaternions as Hamilton wrote it."""
    a1, b1, c1, d1 = z
    a2, b2, c2, d2 = w
    return [
        a1 * a2 - b1 * b2 - c1 * c2 - d1 * d2,
        a1 * b2 + b1 * a2 + c1 * d2 - d1 * c2,
        a1 * c2 - b1 * d2 + c1 * a2 + d1 * b2,
        a1 * d2 + b1 * c2 - c1 * b2 + d1 * a2,
    ]


def scene(seed, bands, rows=16, columns=16):
    random = np.random.default_rng(seed)
    base = random.random((3, rows, columns))
    mix = random.random((bands, 3))
    reference = np.einsum("bd,dyx->byx", mix, base)
    twist = random.standard_normal((bands, bands)) * 0.1
    estimate = np.einsum("bc,cyx->byx", np.eye(bands) + twist, reference)
    return reference, estimate + 0.1 * random.standard_normal(reference.shape)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 8, 13, 31])
def test_is_the_plain_transcription(bands):
    reference, estimate = scene(bands, bands)
    got = metrics.q2n(reference, estimate, window=16)
    assert got == pytest.approx(plain_block(reference, estimate), rel=1e-9)
    # the imaginary parts of the covariance matter, or this would not see their signs
    if bands > 1:
        a, b = (image.reshape(bands, -1) for image in (reference, estimate))
        light = 2 * np.linalg.norm(a.mean(1)) * np.linalg.norm(b.mean(1))
        light /= (a.mean(1) ** 2 + b.mean(1) ** 2).sum()
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        assert got > 1.001 * light * 2 * (a * b).sum() / ((a**2).sum() + (b**2).sum())


def test_four_bands_are_hamiltons_quaternions():
    reference, estimate = scene(0, 4)
    expected = plain_block(reference, estimate, hamilton)
    assert metrics.q2n(reference, estimate, window=16) == pytest.approx(expected, rel=1e-10)


def test_signs_are_the_algebras():
    for size in (1, 2, 4, 8, 16, 32):
        signs = product_signs(size)
        units = np.eye(size)
        for i in range(size):
            for j in range(size):
                expected = np.zeros(size)
                expected[i ^ j] = signs[i, j]
                np.testing.assert_array_equal(product(list(units[i]), list(units[j])), expected)


def test_bad_signs_would_be_seen():
    # swapping the two images conjugates the covariance: the modulus, and Q2n, stay;
    # negating one imaginary band of one image does not
    reference, estimate = scene(9, 8)
    got = metrics.q2n(reference, estimate, window=16)
    assert metrics.q2n(estimate, reference, window=16) == pytest.approx(got, rel=1e-9)
    flipped = estimate.copy()
    flipped[5] *= -1
    assert abs(metrics.q2n(reference, flipped, window=16) - got) > 1e-2


def test_blocks_cover_the_image_to_its_border():
    reference, estimate = scene(3, 3, 40, 33)
    starts = [(y, x) for y in (0, 16, 24) for x in (0, 16, 17)]
    blocks = [(slice(None), slice(y, y + 16), slice(x, x + 16)) for y, x in starts]
    expected = [plain_block(reference[k], estimate[k]) for k in blocks]
    assert metrics.q2n(reference, estimate, window=16) == pytest.approx(np.mean(expected))
    # a masked pixel takes its blocks away, and no others
    holed = estimate.copy()
    holed[0, 30, 16] = np.nan
    kept = [
        q
        for (y, x), q in zip(starts, expected, strict=True)
        if not (y <= 30 < y + 16 and x <= 16 < x + 16)
    ]
    assert len(kept) == 7
    assert metrics.q2n(reference, holed, window=16) == pytest.approx(np.mean(kept))


def test_one_band_is_wang_bovik_but_for_the_sign():
    reference, estimate = scene(4, 1)
    expected = metrics.uiqi(reference, estimate, window=16)
    assert metrics.q2n(reference, estimate, window=16) == pytest.approx(expected, rel=1e-9)


def test_constant_blocks():
    flat = np.full((5, 20, 20), 0.3)
    assert metrics.q2n(flat, flat) == 1
    assert metrics.q2n(flat, 2 * flat) == pytest.approx(0.8)
    zero = np.zeros_like(flat)
    assert metrics.q2n(zero, zero) == 1
    assert metrics.q2n(flat, zero) == 0
    textured, _ = scene(1, 5, 20, 20)
    assert metrics.q2n(textured, flat) == pytest.approx(0, abs=1e-12)


def test_window_is_checked():
    reference, estimate = scene(1, 3)
    assert metrics.q2n(reference, estimate) == metrics.q2n(reference, estimate, window=16)
    with pytest.raises(ParameterError, match="window"):
        metrics.q2n(reference, estimate, window=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), bands=st.integers(1, 20), factor=st.floats(1e-5, 1e5))
def test_properties(seed, bands, factor):
    reference, estimate = scene(seed, bands, 12, 12)
    assert metrics.q2n(reference, reference) == pytest.approx(1, abs=1e-9)
    value = metrics.q2n(reference, estimate)
    assert 0 <= value < 1
    assert metrics.q2n(reference * factor, estimate * factor) == pytest.approx(value, rel=1e-8)
