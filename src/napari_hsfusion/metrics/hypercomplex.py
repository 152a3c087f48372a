"""Q2n: the Wang-Bovik index of spectra taken as hypercomplex numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ParameterError
from ._pair import Pair, UndefinedMetricError, prepare

_ROUNDING = 1e-14


def q2n(reference: Any, estimate: Any, mask: Any = None, *, window: int = 32) -> float:
    """Q2n index of a hyperspectral image (Garzelli and Nencini, 2009).

    The spectrum of a pixel, padded with zero bands to a power of two, is a
    hypercomplex number z. With u* the conjugate and |·| the modulus,

    Q = [|σ_ab| / (σ_a σ_b)] · [2 σ_a σ_b / (σ_a² + σ_b²)]
    · [2 |ā| |b̄| / (|ā|² + |b̄|²)],  σ_ab = E[(a − ā)(b − b̄)*],

    averaged over blocks: Q4 for four bands (Alparone et al., 2004). The product
    is that of Cayley and Dickson, (p, q)(r, s) = (pr − s*q, sp + qr*). Spectra
    enter as they are; toolboxes that first standardise every block print other
    figures. Beyond eight bands that product does not keep moduli, so values a
    little over 1 are possible in principle. The last block of a row or column is
    moved inwards to end at the border.

    Parameters
    ----------
    reference, estimate : array_like, shape (band, y, x)
        Same units.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out, with every block that touches it.
    window : int
        Side of a block, pixels, at least 2; no more than the smaller side of the
        image is used.

    Returns
    -------
    float
        From 0 up, 1 is perfect. A factor 0/0 counts as 1.

    Raises
    ------
    ParameterError
        If `window` is below 2.
    PairError, CubeError
        If the images do not fit, or every block touches a masked pixel.

    References
    ----------
    A. Garzelli, F. Nencini, "Hypercomplex quality assessment of
    multi/hyperspectral images", IEEE GRSL 6(4), 2009.
    L. Alparone et al., "A global quality measurement of pan-sharpened
    multispectral imagery", IEEE GRSL 1(4), 2004.
    """
    return pair_q2n(prepare(reference, estimate, mask), window)


def pair_q2n(pair: Pair, window: int) -> float:
    """:func:`q2n` of a prepared pair."""
    if window < 2:
        raise ParameterError(f"window: expected at least 2 pixels, got {window}")
    side = min(window, *pair.valid.shape)
    size = 1 << (pair.bands - 1).bit_length()
    index = np.arange(pair.bands)
    signs = product_signs(size)[: pair.bands, : pair.bands]
    # the second factor is conjugated
    signs = signs * np.where(index == 0, 1, -1)
    unit = index[:, None] ^ index[None, :]
    values = []
    for rows, columns in _blocks(pair.valid.shape, side):
        if not pair.valid[rows, columns].all():
            continue
        a, b = (
            image[:, rows, columns].reshape(pair.bands, -1).astype(np.float64)
            for image in (pair.reference, pair.estimate)
        )
        values.append(_block_q2n(a, b, signs, unit, size))
    if not values:
        raise UndefinedMetricError(f"Q2n: every block of {side}×{side} touches a masked pixel")
    return float(np.mean(values))


def product_signs(size: int) -> np.ndarray:
    """Signs of the products of the units of a Cayley-Dickson algebra.

    Parameters
    ----------
    size : int
        Dimension of the algebra, a power of two.

    Returns
    -------
    numpy.ndarray of int, shape (size, size)
        e_i e_j = signs[i, j] · e_(i xor j).
    """
    signs = np.ones((1, 1), dtype=np.int64)
    while signs.shape[0] < size:
        conjugate = np.where(np.arange(signs.shape[0]) == 0, 1, -1)
        signs = np.block([[signs, signs.T], [signs * conjugate, -(signs * conjugate[:, None]).T]])
    return signs


def _block_q2n(
    a: np.ndarray, b: np.ndarray, signs: np.ndarray, unit: np.ndarray, size: int
) -> float:
    """Index of one block: `a`, `b` of shape (band, pixel)."""
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    power = ((a**2).sum() + (b**2).sum()) / a.shape[1]
    a, b = a - mean_a[:, None], b - mean_b[:, None]
    spread = ((a**2).sum() + (b**2).sum()) / a.shape[1]
    structure = 1.0
    if spread > _ROUNDING * power:
        # the hypercomplex covariance is a signed sum of the bands' cross-covariances
        cross = a @ b.T / a.shape[1]
        parts = np.bincount(unit.ravel(), weights=(signs * cross).ravel(), minlength=size)
        structure = 2 * float(np.linalg.norm(parts)) / spread
    norm_a, norm_b = float(np.linalg.norm(mean_a)), float(np.linalg.norm(mean_b))
    squares = norm_a**2 + norm_b**2
    light = 2 * norm_a * norm_b / squares if squares > 0 else 1.0
    return structure * light


def _blocks(shape: tuple[int, ...], side: int) -> Iterator[tuple[slice, slice]]:
    starts = [sorted({*range(0, length - side + 1, side), length - side}) for length in shape]
    for y in starts[0]:
        for x in starts[1]:
            yield slice(y, y + side), slice(x, x + side)
