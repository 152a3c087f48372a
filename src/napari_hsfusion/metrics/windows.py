"""Metrics of sliding windows: SSIM, multi-scale SSIM and the Wang-Bovik index.

Every function takes two images (band, y, x) in the same units and computes in
float64. Only windows that lie inside the image count, and windows that touch a
masked pixel (NaN or infinite in either image, or True in `mask`) are left out.
A quotient 0/0, as two constant windows give it, counts as 1.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..errors import ParameterError
from ._pair import Pair, UndefinedMetricError, WindowSizeError, prepare
from ._sliding import box_mean, clear_windows, halve, needs_side, similarity
from .reference import mean_defined

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang, Simoncelli and Bovik, 2003)."""

_LIBRARY_WINDOW = 8


def ssim_bands(
    reference: Any,
    estimate: Any,
    mask: Any = None,
    *,
    window: Literal["gaussian", "uniform"] = "gaussian",
    data_range: Literal["reference", "estimate"] = "reference",
) -> np.ndarray:
    """Structural similarity of each band (Wang et al., 2004).

    Parameters
    ----------
    reference, estimate : array_like, shape (band, y, x)
        Same units.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out.
    window : {"gaussian", "uniform"}
        ``"gaussian"``: 11×11, σ 1.5, population covariances. ``"uniform"``:
        7×7, sample covariances.
    data_range : {"reference", "estimate"}
        Whose maximum minus minimum of the band sets the two constants.

    Returns
    -------
    numpy.ndarray, shape (band,), float64
        1 is perfect; NaN for a band whose reference is constant (it has no
        structure).

    Raises
    ------
    ParameterError
        If `window` or `data_range` is unknown.
    PairError, CubeError
        If the images do not fit or are smaller than the window, or every window
        touches a masked pixel.

    References
    ----------
    Z. Wang et al., "Image quality assessment: from error visibility to
    structural similarity", IEEE TIP 13(4), 2004.
    """
    return band_ssim(prepare(reference, estimate, mask), window=window, data_range=data_range)


def ssim(
    reference: Any,
    estimate: Any,
    mask: Any = None,
    *,
    window: Literal["gaussian", "uniform"] = "gaussian",
    data_range: Literal["reference", "estimate"] = "reference",
) -> float:
    """Mean of :func:`ssim_bands` over the bands whose reference is not constant.

    Parameters and errors as there; also a :class:`CubeError` if every reference
    band is constant.
    """
    pair = prepare(reference, estimate, mask)
    bands = band_ssim(pair, window=window, data_range=data_range)
    return mean_defined(bands, "SSIM", "every reference band is constant")


def ms_ssim(reference: Any, estimate: Any, mask: Any = None) -> float:
    """Multi-scale structural similarity, five scales (Wang et al., 2003).

    The window is 11×11, σ 1.5, and one range, that of the whole reference, sets
    the constants. Between scales 2×2 pixels are averaged (a pixel with a masked
    one among them is masked). At each scale the mean is over all bands and
    windows; negative means count as 0; their powers are multiplied. As in the
    usual library, the coarsest scale alone counts the border too, by reflection.

    Parameters
    ----------
    reference, estimate : array_like, shape (band, y, x)
        Same units; both sides over 160 pixels.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out.

    Returns
    -------
    float
        1 is perfect.

    Raises
    ------
    PairError, CubeError
        If the images do not fit, a side is 160 or less, the reference is
        constant, or at some scale every window touches a masked pixel.

    References
    ----------
    Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale structural similarity
    for image quality assessment", Asilomar 2003.
    """
    return pair_ms_ssim(prepare(reference, estimate, mask))


def uiqi_bands(reference: Any, estimate: Any, mask: Any = None, *, window: int = 32) -> np.ndarray:
    """Universal image quality index of each band (Wang and Bovik, 2002).

    Q = [2 x̄ȳ / (x̄² + ȳ²)] · [2 σxy / (σx² + σy²)], the mean over all positions
    of the window.

    Parameters
    ----------
    reference, estimate : array_like, shape (band, y, x)
        Same units.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out.
    window : int
        Side of the window, pixels, at least 2; no more than the smaller side of
        the image is used.

    Returns
    -------
    numpy.ndarray, shape (band,), float64
        From -1 to 1, 1 is perfect.

    Raises
    ------
    ParameterError
        If `window` is below 2.
    PairError, CubeError
        If the images do not fit, or every window touches a masked pixel.

    References
    ----------
    Z. Wang, A. C. Bovik, "A universal image quality index", IEEE Signal
    Processing Letters 9(3), 2002.
    """
    return band_uiqi(prepare(reference, estimate, mask), window)


def uiqi(reference: Any, estimate: Any, mask: Any = None, *, window: int = 32) -> float:
    """Mean of :func:`uiqi_bands` over the bands; parameters and errors as there."""
    return float(band_uiqi(prepare(reference, estimate, mask), window).mean())


def band_ssim(pair: Pair, *, window: str, data_range: str) -> np.ndarray:
    """:func:`ssim_bands` of a prepared pair."""
    if window not in ("gaussian", "uniform"):
        raise ParameterError(f"window: expected 'gaussian' or 'uniform', got {window!r}")
    if data_range not in ("reference", "estimate"):
        raise ParameterError(f"data_range: expected 'reference' or 'estimate', got {data_range!r}")
    side = 11 if window == "gaussian" else 7
    needs_side(pair, side, f"SSIM with a window of {side}×{side}")
    clear = clear_windows(pair.valid, side, "SSIM")
    unbias = 1.0 if window == "gaussian" else side**2 / (side**2 - 1)
    out = np.full(pair.bands, np.nan)
    for number, (a, b) in enumerate(pair.images()):
        if np.ptp(a[pair.valid]) == 0:
            continue
        span = float(np.ptp((a if data_range == "reference" else b)[pair.valid]))
        light, structure = similarity(a, b, window, side, span, unbias)
        out[number] = (light * structure)[clear].mean()
    return out


def pair_ms_ssim(pair: Pair) -> float:
    """:func:`ms_ssim` of a prepared pair."""
    smallest = 10 * 2 ** (len(MS_SSIM_WEIGHTS) - 1)
    if min(pair.valid.shape) <= smallest:
        raise WindowSizeError(
            f"multi-scale SSIM: expected both sides over {smallest} pixels, "
            f"got {pair.valid.shape[0]}×{pair.valid.shape[1]}"
        )
    low = min(float(a.min()) for a, _ in pair.pixels())
    span = max(float(a.max()) for a, _ in pair.pixels()) - low
    if span == 0:
        raise UndefinedMetricError("multi-scale SSIM: the reference is constant")
    means = np.zeros((pair.bands, len(MS_SSIM_WEIGHTS)))
    last = len(MS_SSIM_WEIGHTS) - 1
    for number, (a, b) in enumerate(pair.images()):
        valid = pair.valid
        for scale in range(last):
            clear = clear_windows(valid, 11, f"multi-scale SSIM, scale {scale + 1}")
            _, structure = similarity(a, b, "gaussian", 11, span, 1.0)
            means[number, scale] = structure[clear].mean()
            a, b, valid = halve(a), halve(b), halve(valid.astype(float)) == 1
        a, b, valid = (np.pad(image, 5, mode="reflect") for image in (a, b, valid))
        clear = clear_windows(valid, 11, f"multi-scale SSIM, scale {last + 1}")
        light, structure = similarity(a, b, "gaussian", 11, span, 1.0)
        means[number, last] = (light * structure)[clear].mean()
    return float(np.prod(np.maximum(means.mean(axis=0), 0) ** np.array(MS_SSIM_WEIGHTS)))


def band_uiqi(pair: Pair, window: int) -> np.ndarray:
    """:func:`uiqi_bands` of a prepared pair."""
    if window < 2:
        raise ParameterError(f"window: expected at least 2 pixels, got {window}")
    needs_side(pair, 2, "UIQI")
    side = min(window, *pair.valid.shape)
    clear = clear_windows(pair.valid, side, "UIQI")
    out = np.empty(pair.bands)
    for number, (a, b) in enumerate(pair.images()):
        light, structure = similarity(a, b, "uniform", side, 0.0, 1.0)
        out[number] = (light * structure)[clear].mean()
    return out


def band_library_uiqi(pair: Pair) -> np.ndarray:
    """The index that ARGS-Diff's tables call UIQI, of each band, for comparison alone.

    The library behind those tables takes means over 8×8 windows where the
    formula asks for sums, so that with N = 64
    q = 4 (N·E[ab] − E[a]E[b]) E[a]E[b] /
    ((N (E[a²] + E[b²]) − E[a]² − E[b]²) (E[a]² + E[b]²)),
    in which the structure hardly counts: a constant image in place of a textured
    one scores over 0.9. It also leaves out the last row and column of windows.

    Raises
    ------
    CubeError
        If a side is 8 pixels or less, or every window touches a masked pixel.
    """
    needs_side(pair, _LIBRARY_WINDOW + 1, "the library's UIQI")
    clear = clear_windows(pair.valid, _LIBRARY_WINDOW, "the library's UIQI", last=False)
    count = _LIBRARY_WINDOW**2
    out = np.empty(pair.bands)
    for number, (a, b) in enumerate(pair.images()):
        ea, eb, eaa, ebb, eab = (
            box_mean(image, _LIBRARY_WINDOW)[:-1, :-1][clear]
            for image in (a, b, a * a, b * b, a * b)
        )
        squares = ea**2 + eb**2
        top = 4 * (count * eab - ea * eb) * ea * eb
        bottom = (count * (eaa + ebb) - squares) * squares
        out[number] = np.divide(top, bottom, out=np.ones_like(top), where=bottom > 0).mean()
    return out
