"""The spectral angle between two images (band, y, x)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..errors import ParameterError
from ._pair import Pair, prepare
from .reference import mean_defined

_NUDGE = 1e-4


def sam_map(
    reference: Any,
    estimate: Any,
    mask: Any = None,
    *,
    unit: Literal["degrees", "radians"] = "degrees",
    clip: bool = True,
    zero: Literal["mask", "nudge"] = "mask",
) -> np.ndarray:
    """Angle between the two spectra of each pixel (Kruse et al., 1993).

    Parameters
    ----------
    reference, estimate : array_like, shape (band, y, x)
        Same units.
    mask : array_like of bool, shape (y, x), optional
        True where a pixel is to be left out, like those that are NaN or infinite
        in any band of either image.
    unit : {"degrees", "radians"}
        Of the result.
    clip : bool
        Clip the cosine to [-1, 1]. Without it a cosine that rounding has put
        outside has no angle.
    zero : {"mask", "nudge"}
        What to do with spectra that are zero in every band, which have no
        direction. ``"mask"``: a pixel whose reference is zero is left out; an
        estimate that is zero where the reference is not counts as orthogonal,
        90°. ``"nudge"``: 1e-4 is added to every band of a zero spectrum in
        either image.

    Returns
    -------
    numpy.ndarray, shape (y, x), float64
        NaN where masked, and where the angle is undefined.

    Raises
    ------
    ParameterError
        If `unit` or `zero` is unknown.
    PairError, CubeError
        If the images or the mask do not fit.

    References
    ----------
    F. A. Kruse et al., "The spectral image processing system (SIPS)", Remote
    Sensing of Environment 44, 1993.
    """
    pair = prepare(reference, estimate, mask)
    return pair.image_of(spectral_angles(pair, clip=clip, zero=zero) * _per_radian(unit))


def sam(
    reference: Any,
    estimate: Any,
    mask: Any = None,
    *,
    unit: Literal["degrees", "radians"] = "degrees",
    clip: bool = True,
    zero: Literal["mask", "nudge"] = "mask",
) -> float:
    """Mean spectral angle over the pixels where :func:`sam_map` is defined.

    Parameters as :func:`sam_map`.

    Returns
    -------
    float
        In `unit`, 0 is perfect.

    Raises
    ------
    ParameterError
        If `unit` or `zero` is unknown.
    PairError, CubeError
        If the images do not fit, or no pixel has an angle.
    """
    pair = prepare(reference, estimate, mask)
    angles = spectral_angles(pair, clip=clip, zero=zero) * _per_radian(unit)
    return mean_defined(angles, "SAM", "no pixel has a spectral angle")


def spectral_angles(pair: Pair, *, clip: bool, zero: str) -> np.ndarray:
    """Angles, radians, of the valid pixels in row-major order; NaN where undefined."""
    if zero not in ("mask", "nudge"):
        raise ParameterError(f"zero: expected 'mask' or 'nudge', got {zero!r}")
    count = pair.valid_pixels
    dot, aa, bb, sum_a, sum_b = (np.zeros(count) for _ in range(5))
    for a, b in pair.pixels():
        dot += a * b
        aa += a * a
        bb += b * b
        sum_a += a
        sum_b += b
    zero_a, zero_b = aa == 0, bb == 0
    if zero == "nudge":
        dot = np.where(zero_a, _NUDGE * np.where(zero_b, pair.bands * _NUDGE, sum_b), dot)
        dot = np.where(zero_b & ~zero_a, _NUDGE * sum_a, dot)
        aa = np.where(zero_a, pair.bands * _NUDGE**2, aa)
        bb = np.where(zero_b, pair.bands * _NUDGE**2, bb)
    # of the product, not the product of the roots: equal spectra then give exactly 1
    norm = np.sqrt(aa * bb)
    cosine = np.divide(dot, norm, out=np.zeros(count), where=norm > 0)
    cosine = np.clip(cosine, -1, 1) if clip else np.where(np.abs(cosine) > 1, np.nan, cosine)
    angles = np.arccos(cosine)
    if zero == "mask":
        angles[zero_a] = np.nan
    return np.asarray(angles)


def zero_spectra(pair: Pair) -> tuple[int, int]:
    """Number of valid pixels whose reference, and whose estimate, is zero in every band."""
    zero_a = np.ones(pair.valid_pixels, dtype=bool)
    zero_b = zero_a.copy()
    for a, b in pair.pixels():
        zero_a &= a == 0
        zero_b &= b == 0
    return int(zero_a.sum()), int(zero_b.sum())


def _per_radian(unit: str) -> float:
    if unit == "degrees":
        return float(np.degrees(1.0))
    if unit == "radians":
        return 1.0
    raise ParameterError(f"unit: expected 'degrees' or 'radians', got {unit!r}")
