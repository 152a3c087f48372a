"""From a response curve tabulated over wavelength to weights over a cube's bands.

The radiance that a broad band measures is the integral of response times
spectrum. A cube samples the spectrum at its band centres, so the integral is a
sum over bands of (response at the band) x (width of spectrum the band stands
for). On evenly spaced bands the widths cancel when the row is normalised.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

FloatArray = NDArray[np.float64]

SIGMA_OF_FWHM = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))
"""Standard deviation of a Gaussian of unit full width at half maximum."""

HOLE = 3.0
"""Neighbouring bands further apart than this many usual gaps leave a hole."""


def band_cells(
    wavelength: FloatArray, fwhm: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Interval of the spectrum that each band stands for.

    Cells meet half-way between neighbouring centres; beside holes (removed
    bands) a cell reaches half the usual gap: the larger of the median of all
    gaps and of the five around. Centres need not be in order: sensors with two
    detectors overlap.

    Parameters
    ----------
    wavelength : ndarray, shape (C,)
        Band centres, nm.
    fwhm : ndarray, shape (C,), optional
        Band widths, nm; only the width of a cube of one band comes from it
        (1 nm when absent).

    Returns
    -------
    low, high : ndarray, shape (C,)
        Cell edges in nm, in the order of `wavelength`; cells do not overlap.
    """
    count = wavelength.size
    if count == 1:
        half = 0.5 * (float(fwhm[0]) if fwhm is not None else 1.0)
        return wavelength - half, wavelength + half
    order = np.argsort(wavelength, kind="stable")
    gaps = np.diff(wavelength[order])
    positive = gaps[gaps > 0]
    overall = float(np.median(positive)) if positive.size else 1.0
    starts = np.clip(np.arange(gaps.size) - 2, 0, max(gaps.size - 5, 0))
    usual = np.array([max(overall, float(np.median(gaps[k : k + 5]))) for k in starts])
    half_gap = np.where(gaps <= HOLE * usual, gaps, usual) / 2
    low = np.empty(count)
    high = np.empty(count)
    low[order] = wavelength[order] - np.concatenate([half_gap[:1], half_gap])
    high[order] = wavelength[order] + np.concatenate([half_gap, half_gap[-1:]])
    return low, high


def integral(wavelength: FloatArray, curve: FloatArray, upto: FloatArray) -> FloatArray:
    """Exact integral of a piecewise linear curve, from its start up to `upto`.

    Parameters
    ----------
    wavelength, curve : ndarray, shape (n,)
        Knots in increasing order, and values; zero outside.
    upto : ndarray
        Upper limits, same unit as `wavelength`.

    Returns
    -------
    ndarray, the shape of `upto`
    """
    step = np.diff(wavelength)
    total = np.concatenate([[0.0], np.cumsum(0.5 * (curve[1:] + curve[:-1]) * step)])
    at = np.clip(upto, wavelength[0], wavelength[-1])
    k = np.clip(np.searchsorted(wavelength, at, side="right") - 1, 0, wavelength.size - 2)
    t = at - wavelength[k]
    slope = (curve[k + 1] - curve[k]) / step[k]
    out: FloatArray = total[k] + curve[k] * t + 0.5 * slope * t**2
    return out


def coverage(
    table_wavelength: FloatArray,
    curve: FloatArray,
    wavelength: FloatArray,
    fwhm: FloatArray | None = None,
) -> float:
    """Part of a response curve's energy that lies within a cube's bands, 0 to 1.

    Parameters
    ----------
    table_wavelength, curve : ndarray, shape (n,)
        The curve, nm and response.
    wavelength, fwhm : ndarray, shape (C,)
        The cube's bands, nm.
    """
    whole = float(integral(table_wavelength, curve, table_wavelength[-1:])[0])
    if whole <= 0:
        return 0.0
    low, high = band_cells(wavelength, fwhm)
    inside = integral(table_wavelength, curve, high) - integral(table_wavelength, curve, low)
    return float(inside.sum() / whole)


def gaussian_average(
    table_wavelength: FloatArray, curve: FloatArray, centre: FloatArray, fwhm: FloatArray
) -> FloatArray:
    """Mean of a piecewise linear curve under Gaussians, in closed form.

    Parameters
    ----------
    table_wavelength, curve : ndarray, shape (n,)
        Knots in increasing order, and values; zero outside.
    centre, fwhm : ndarray, shape (C,)
        The Gaussians, nm.

    Returns
    -------
    ndarray, shape (C,)
        Integral of curve(l) N(l; centre, sigma) dl.
    """
    sigma = fwhm * SIGMA_OF_FWHM
    z = (table_wavelength[None, :] - centre[:, None]) / sigma[:, None]
    mass = np.diff(ndtr(z), axis=1)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    slope = np.diff(curve) / np.diff(table_wavelength)
    at_centre = curve[None, :-1] + slope[None] * (centre[:, None] - table_wavelength[None, :-1])
    parts = at_centre * mass - slope[None] * sigma[:, None] * np.diff(density, axis=1)
    out: FloatArray = np.maximum(parts.sum(axis=1), 0.0)
    return out


def resample(
    table_wavelength: FloatArray,
    curve: FloatArray,
    wavelength: FloatArray,
    fwhm: FloatArray | None = None,
) -> FloatArray:
    """Weights of a cube's bands, not yet normalised.

    Where `fwhm` is known the curve is averaged over each band's Gaussian
    response, otherwise it is interpolated linearly at the band centres. Either
    is multiplied by the width of the band's cell (:func:`band_cells`).

    Parameters
    ----------
    table_wavelength, curve : ndarray, shape (n,)
        The curve, nm and response.
    wavelength, fwhm : ndarray, shape (C,)
        The cube's bands, nm.

    Returns
    -------
    ndarray, shape (C,)
    """
    low, high = band_cells(wavelength, fwhm)
    if fwhm is None:
        value = np.interp(wavelength, table_wavelength, curve, left=0.0, right=0.0)
    else:
        value = gaussian_average(table_wavelength, curve, wavelength, fwhm)
    return np.asarray(value * (high - low), dtype=np.float64)


def gaussian_weights(
    centre: float, width: float, wavelength: FloatArray, fwhm: FloatArray | None = None
) -> tuple[FloatArray, float]:
    """Weights of a cube's bands for a Gaussian band, and how much of it they cover.

    Parameters
    ----------
    centre, width : float
        Centre and full width at half maximum of the band, nm.
    wavelength, fwhm : ndarray, shape (C,)
        The cube's bands, nm; with `fwhm` the Gaussian is averaged over each
        band's own Gaussian response.

    Returns
    -------
    weights : ndarray, shape (C,)
        Not yet normalised.
    coverage : float
        Part of the Gaussian within the cube's bands, 0 to 1.
    """
    low, high = band_cells(wavelength, fwhm)
    sigma = width * SIGMA_OF_FWHM
    spread = np.full_like(wavelength, sigma)
    if fwhm is not None:
        spread = np.hypot(sigma, fwhm * SIGMA_OF_FWHM)
    value = np.exp(-0.5 * ((wavelength - centre) / spread) ** 2) * (sigma / spread)
    inside = ndtr((high - centre) / sigma) - ndtr((low - centre) / sigma)
    return value * (high - low), float(inside.sum())
