"""Metrics without a reference: how well an estimate explains the pair it came from.

X is the LR-HSI (C, h, w), Y the HR-MSI (c, H, W), Z the estimate (C, H, W), H(·)
the spatial degradation and R the spectral response (c, C). H(·) is any callable
from an array (bands, H, W) to an array (bands, h, w) that treats every band
alike; it is called on a few bands at a time. Pixels that are NaN or infinite in
an image are left out, and LR pixels whose H(·) touches one are, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ParameterError
from ._observe import SpatialForward, degrade, high_pair, low_pair, project
from ._pair import Pair, as_array, prepare
from .conventions import MetricInfo
from .hypercomplex import pair_q2n
from .reference import band_psnr, mean_defined
from .spectral_angle import spectral_angles
from .windows import band_uiqi

_INFOS = (
    MetricInfo("psnr_hsi", "PSNR to LR-HSI", "dB", True),
    MetricInfo("sam_hsi", "SAM to LR-HSI", "deg", False),
    MetricInfo("psnr_msi", "PSNR to HR-MSI", "dB", True),
    MetricInfo("sam_msi", "SAM to HR-MSI", "deg", False),
    MetricInfo("d_lambda", "D_lambda", "1", False),
    MetricInfo("d_s", "D_s", "1", False),
    MetricInfo("hqnr", "HQNR", "1", True),
)


def no_reference_infos() -> dict[str, MetricInfo]:
    """Numbers of :func:`consistency` and :func:`hqnr` in the order of a table, by key."""
    return {info.key: info for info in _INFOS}


@dataclass(frozen=True)
class Consistency:
    """Agreement of an estimate with both observations.

    Attributes
    ----------
    psnr_hsi, sam_hsi : float
        PSNR (dB, mean over bands) and SAM (degrees) of H(Z) against X.
    psnr_msi, sam_msi : float
        The same of Z ×3 R against Y. With one MSI band SAM says nothing.
    sam_map_hsi, error_map_hsi : numpy.ndarray, shape (h, w)
        Spectral angle in degrees, and RMSE over the bands in the images' units;
        NaN where masked (the angle also where X is zero in every band).
    sam_map_msi, error_map_msi : numpy.ndarray, shape (H, W)
        The same for Y.
    masked_hsi, masked_msi : int
        Pixels left out of either comparison.
    """

    psnr_hsi: float
    sam_hsi: float
    psnr_msi: float
    sam_msi: float
    sam_map_hsi: np.ndarray
    error_map_hsi: np.ndarray
    sam_map_msi: np.ndarray
    error_map_msi: np.ndarray
    masked_hsi: int
    masked_msi: int

    def numbers(self) -> dict[str, float]:
        """The attributes that are numbers, by name."""
        return {key: value for key, value in vars(self).items() if np.ndim(value) == 0}


def consistency(
    x: Any, y: Any, estimate: Any, spatial_forward: SpatialForward, response: Any
) -> Consistency:
    """Compare H(Z) with X and Z ×3 R with Y.

    Parameters
    ----------
    x : array_like, shape (C, h, w)
        LR-HSI.
    y : array_like, shape (c, H, W)
        HR-MSI.
    estimate : array_like, shape (C, H, W)
        Fused cube, in the units of `x` and `y`.
    spatial_forward : callable
        H(·), from (bands, H, W) to (bands, h, w).
    response : array_like, shape (c, C)
        R.

    Returns
    -------
    Consistency

    Raises
    ------
    PairError
        If the sizes do not fit one another or H(·).
    ResponseError
        If `response` does not fit the bands or is not finite.
    CubeError
        If an image is malformed, no pixel is left, or PSNR or SAM has no value
        (an observation without a value above 0).
    """
    low = low_pair(x, _estimate(estimate), spatial_forward)
    high = high_pair(y, _estimate(estimate), response)
    psnr_hsi, sam_hsi, sam_map_hsi, error_map_hsi = _compare(low, "H(estimate) against the LR-HSI")
    psnr_msi, sam_msi, sam_map_msi, error_map_msi = _compare(high, "estimate × SRF against the MSI")
    return Consistency(
        psnr_hsi=psnr_hsi,
        sam_hsi=sam_hsi,
        psnr_msi=psnr_msi,
        sam_msi=sam_msi,
        sam_map_hsi=sam_map_hsi,
        error_map_hsi=error_map_hsi,
        sam_map_msi=sam_map_msi,
        error_map_msi=error_map_msi,
        masked_hsi=low.masked_pixels,
        masked_msi=high.masked_pixels,
    )


def d_lambda(x: Any, estimate: Any, spatial_forward: SpatialForward, *, window: int = 32) -> float:
    """Spectral distortion by Khan's protocol, D_λ = 1 − Q2n(X, H(Z)).

    Wald's consistency property: the estimate, degraded as the sensor degrades,
    should give back the LR-HSI.

    Parameters
    ----------
    x, estimate, spatial_forward
        As :func:`consistency`.
    window : int
        Side of Q2n's blocks, LR pixels.

    Returns
    -------
    float
        0 is perfect.

    Raises
    ------
    PairError, CubeError, ParameterError
        As :func:`consistency` and :func:`.q2n`.

    References
    ----------
    M. M. Khan, L. Alparone, J. Chanussot, "Pansharpening quality assessment
    using the modulation transfer functions of instruments", IEEE TGRS 47(11),
    2009.
    """
    return 1.0 - pair_q2n(low_pair(x, _estimate(estimate), spatial_forward), window)


def d_s(
    x: Any,
    y: Any,
    estimate: Any,
    spatial_forward: SpatialForward,
    response: Any,
    *,
    window: int = 32,
    exponent: float = 1.0,
) -> float:
    """Spatial distortion on SRF-projected bands.

    D_s = (1/c · Σ_k |Q((Z ×3 R)_k, Y_k) − Q((X ×3 R)_k, H(Y)_k)|^q)^(1/q)

    with the Wang-Bovik index Q. Alparone's D_s compares every fused band with
    the one panchromatic image, at both scales. Here the sharp image has c bands;
    projection by the SRF pairs each with the hyperspectral band it should
    resemble: what X and the degraded MSI share at the low scale, Z and Y should
    share at the high one. At the low scale the window covers the same ground:
    `window` over the ratio, at least 2 pixels.

    Parameters
    ----------
    x, y, estimate, spatial_forward, response
        As :func:`consistency`.
    window : int
        Side of Q's window, HR pixels, at least 2.
    exponent : float
        q, above 0.

    Returns
    -------
    float
        0 is perfect.

    Raises
    ------
    PairError, ResponseError, CubeError, ParameterError
        As :func:`consistency` and :func:`.uiqi`.

    References
    ----------
    L. Alparone et al., "Multispectral and panchromatic data fusion assessment
    without reference", Photogrammetric Engineering and Remote Sensing 74(2),
    2008.
    """
    if not exponent > 0:
        raise ParameterError(f"exponent: expected a number above 0, got {exponent!r}")
    sharp = as_array(y, "HR-MSI")
    coarse = as_array(x, "LR-HSI")
    high = band_uiqi(high_pair(sharp, _estimate(estimate), response), window)
    degraded = degrade(sharp, spatial_forward, coarse.shape[1:], "HR-MSI")
    seen = project(coarse, response, sharp.shape[0], "LR-HSI")
    ratio = sharp.shape[1] / coarse.shape[1]
    low_pair = prepare(seen, degraded, names=("LR-HSI × SRF", "H(HR-MSI)"))
    low = band_uiqi(low_pair, max(2, round(window / ratio)))
    return float(np.mean(np.abs(high - low) ** exponent) ** (1 / exponent))


def hqnr(
    x: Any,
    y: Any,
    estimate: Any,
    spatial_forward: SpatialForward,
    response: Any,
    *,
    window: int = 32,
    exponent: float = 1.0,
) -> dict[str, float]:
    """Hybrid quality with no reference, HQNR = (1 − D_λ)(1 − D_s).

    Parameters
    ----------
    x, y, estimate, spatial_forward, response, window, exponent
        As :func:`d_lambda` (`window` in LR pixels) and :func:`d_s` (`window` in
        HR pixels).

    Returns
    -------
    dict of str to float
        ``d_lambda``, ``d_s`` and ``hqnr``; 1 is perfect for the last.

    Raises
    ------
    PairError, ResponseError, CubeError, ParameterError
        As :func:`d_lambda` and :func:`d_s`.

    References
    ----------
    B. Aiazzi et al., "Full scale assessment of pansharpening methods and data
    products", Proc. SPIE 9244, 2014.
    """
    spectral = d_lambda(x, estimate, spatial_forward, window=window)
    spatial = d_s(x, y, estimate, spatial_forward, response, window=window, exponent=exponent)
    return {"d_lambda": spectral, "d_s": spatial, "hqnr": (1 - spectral) * (1 - spatial)}


def _estimate(estimate: Any) -> np.ndarray:
    return as_array(estimate, "estimate")


def _compare(pair: Pair, what: str) -> tuple[float, float, np.ndarray, np.ndarray]:
    psnr = mean_defined(band_psnr(pair), f"PSNR of {what}", "no band has a value above 0")
    angles = np.degrees(spectral_angles(pair, clip=True, zero="mask"))
    sam = mean_defined(angles, f"SAM of {what}", "every spectrum is zero")
    squares = np.zeros(pair.valid_pixels)
    for a, b in pair.pixels():
        squares += (a - b) ** 2
    return psnr, sam, pair.image_of(angles), pair.image_of(np.sqrt(squares / pair.bands))
