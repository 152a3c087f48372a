"""Pixel-wise metrics against a reference: RMSE, PSNR, ERGAS and error maps.

Every function takes two images (band, y, x) in the same units, computes in
float64, leaves out pixels that are NaN or infinite in any band of either image
or True in `mask`, and clips nothing: an estimate outside the reference's range
is scored as it is.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..errors import ParameterError
from ._pair import Pair, UndefinedMetricError, check_scale, prepare

CEILING_DB = 200.0
"""PSNR of an exact band, dB: finite, so that one exact band does not drown the mean."""


def rmse_bands(reference: Any, estimate: Any, mask: Any = None) -> np.ndarray:
    """Root-mean-square error of each band.

    Parameters
    ----------
    reference, estimate : array_like, shape (band, y, x)
        Same units.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out.

    Returns
    -------
    numpy.ndarray, shape (band,), float64
        In the units of the images.

    Raises
    ------
    PairError, CubeError
        If the images or the mask do not fit.
    """
    return np.asarray(np.sqrt(band_mse(prepare(reference, estimate, mask))))


def rmse(reference: Any, estimate: Any, mask: Any = None) -> float:
    """Root-mean-square error over all bands and pixels, in the units of the images.

    Parameters and errors as :func:`rmse_bands`.
    """
    return float(np.sqrt(band_mse(prepare(reference, estimate, mask)).mean()))


def rmse_map(reference: Any, estimate: Any, mask: Any = None) -> np.ndarray:
    """Root-mean-square error over the bands of each pixel.

    Parameters and errors as :func:`rmse_bands`.

    Returns
    -------
    numpy.ndarray, shape (y, x), float64
        In the units of the images, NaN where masked.
    """
    pair = prepare(reference, estimate, mask)
    total = np.zeros(pair.valid_pixels)
    for a, b in pair.pixels():
        total += (a - b) ** 2
    return pair.image_of(np.sqrt(total / pair.bands))


def absolute_error_map(
    reference: Any, estimate: Any, mask: Any = None, *, band: int | None = None
) -> np.ndarray:
    """Absolute error of each pixel: of one band, or the mean over the bands.

    Parameters
    ----------
    reference, estimate, mask
        As :func:`rmse_bands`.
    band : int, optional
        0-based band; without it the mean over all bands.

    Returns
    -------
    numpy.ndarray, shape (y, x), float64
        In the units of the images, NaN where masked.

    Raises
    ------
    ParameterError
        If there is no such band.
    PairError, CubeError
        If the images or the mask do not fit.
    """
    pair = prepare(reference, estimate, mask)
    if band is not None:
        if not 0 <= band < pair.bands:
            raise ParameterError(f"band: expected 0 to {pair.bands - 1}, got {band}")
        pair = Pair(pair.reference[[band]], pair.estimate[[band]], pair.valid)
    total = np.zeros(pair.valid_pixels)
    for a, b in pair.pixels():
        total += np.abs(a - b)
    return pair.image_of(total / pair.bands)


def psnr_bands(reference: Any, estimate: Any, mask: Any = None) -> np.ndarray:
    """Peak signal-to-noise ratio of each band, 10 log10(max(ref_b)² / MSE_b).

    An error below 1e-20 of the squared largest value of the reference counts as
    that much, so that an exact band gives at most 200 dB and not infinity.

    Parameters
    ----------
    reference, estimate, mask
        As :func:`rmse_bands`.

    Returns
    -------
    numpy.ndarray, shape (band,), float64
        dB; NaN for a band whose reference has no value above 0 (it has no peak).

    Raises
    ------
    PairError, CubeError
        If the images or the mask do not fit.
    """
    return band_psnr(prepare(reference, estimate, mask))


def psnr(
    reference: Any,
    estimate: Any,
    mask: Any = None,
    *,
    over: Literal["bands", "cube"] = "bands",
) -> float:
    """Peak signal-to-noise ratio, dB.

    Parameters
    ----------
    reference, estimate, mask
        As :func:`rmse_bands`.
    over : {"bands", "cube"}
        ``"bands"``: mean of :func:`psnr_bands` over the bands that have a peak.
        ``"cube"``: one mean squared error over the cube, and the reference's
        maximum as the peak.

    Returns
    -------
    float
        dB, at most 200.

    Raises
    ------
    ParameterError
        If `over` is unknown.
    PairError, CubeError
        If the images do not fit, or no band of the reference has a peak.
    """
    pair = prepare(reference, estimate, mask)
    if over == "bands":
        return mean_defined(band_psnr(pair), "PSNR", "no reference band has a value above 0")
    if over == "cube":
        return cube_psnr(pair)
    raise ParameterError(f"over: expected 'bands' or 'cube', got {over!r}")


def ergas(reference: Any, estimate: Any, scale: float, mask: Any = None) -> float:
    """Relative dimensionless global error in synthesis (Wald, 2000).

    ERGAS = (100 / scale) · sqrt(mean_b(MSE_b / mean(ref_b)²)). Bands whose
    reference has mean zero (an all-zero band among them) are left out.

    Parameters
    ----------
    reference, estimate
        As :func:`rmse_bands`.
    scale : float
        Ratio of the LR to the HR pixel size, above 0.
    mask
        As :func:`rmse_bands`.

    Returns
    -------
    float
        Per cent, 0 is perfect.

    Raises
    ------
    ParameterError
        If `scale` is not above 0.
    PairError, CubeError
        If the images do not fit, or every reference band has mean zero.

    References
    ----------
    L. Wald, "Quality of high resolution synthesised images: is there a simple
    criterion?", Fusion of Earth Data, 2000.
    """
    return pair_ergas(prepare(reference, estimate, mask), check_scale(scale))


def band_mse(pair: Pair) -> np.ndarray:
    """Mean squared error of each band over the valid pixels, shape (band,)."""
    return np.array([np.mean((a - b) ** 2) for a, b in pair.pixels()])


def band_psnr(pair: Pair) -> np.ndarray:
    """:func:`psnr_bands` of a prepared pair."""
    mse = band_mse(pair)
    peak = np.array([a.max() for a, _ in pair.pixels()])
    out = np.full(pair.bands, np.nan)
    good = peak > 0
    if good.any():
        floor = 10 ** (-CEILING_DB / 10) * peak.max() ** 2
        out[good] = 10 * np.log10(peak[good] ** 2 / np.maximum(mse[good], floor))
    return out


def cube_psnr(pair: Pair) -> float:
    """:func:`psnr` with ``over="cube"`` of a prepared pair."""
    peak = max(float(a.max()) for a, _ in pair.pixels())
    if peak <= 0:
        raise UndefinedMetricError("PSNR: the reference has no value above 0, hence no peak")
    mse = max(float(band_mse(pair).mean()), 10 ** (-CEILING_DB / 10) * peak**2)
    return float(10 * np.log10(peak**2 / mse))


def band_means(pair: Pair) -> np.ndarray:
    """Mean of each reference band, exactly 0 where it is 0 but for rounding."""
    out = np.zeros(pair.bands)
    for number, (a, _) in enumerate(pair.pixels()):
        mean = a.mean()
        if abs(mean) > 1e-12 * np.abs(a).max():
            out[number] = mean
    return out


def pair_ergas(pair: Pair, scale: float) -> float:
    """:func:`ergas` of a prepared pair and a checked scale."""
    mean = band_means(pair)
    good = mean != 0
    if not good.any():
        raise UndefinedMetricError("ERGAS: every reference band has mean zero")
    return float(100 / scale * np.sqrt(np.mean(band_mse(pair)[good] / mean[good] ** 2)))


def mean_defined(values: np.ndarray, metric: str, why: str) -> float:
    """Mean of the values that are not NaN.

    Raises
    ------
    UndefinedMetricError
        If all are NaN.
    """
    good = values[~np.isnan(values)]
    if good.size == 0:
        raise UndefinedMetricError(f"{metric}: {why}")
    return float(good.mean())
