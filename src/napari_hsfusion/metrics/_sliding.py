"""Statistics of every window that lies inside an image (y, x)."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from ._pair import Pair, UndefinedMetricError, WindowSizeError

_K1, _K2 = 0.01, 0.03
_ROUNDING = 1e-14


def similarity(
    a: np.ndarray, b: np.ndarray, window: str, side: int, span: float, unbias: float
) -> tuple[np.ndarray, np.ndarray]:
    """The two factors of SSIM at every window inside the image.

    `span` sets the constants, 0 for none; `unbias` multiplies the covariances.
    """
    mean = gaussian_mean if window == "gaussian" else box_mean
    ea, eb = mean(a, side), mean(b, side)
    eaa, ebb, eab = mean(a * a, side), mean(b * b, side), mean(a * b, side)
    squares = ea**2 + eb**2
    spread = (eaa + ebb - squares) * unbias
    # variances below rounding are none: constant windows must not be scored by noise
    spread[spread <= _ROUNDING * (eaa + ebb)] = 0
    covariance = np.where(spread > 0, (eab - ea * eb) * unbias, 0)
    light = _ratio(2 * ea * eb + (_K1 * span) ** 2, squares + (_K1 * span) ** 2)
    return light, _ratio(2 * covariance + (_K2 * span) ** 2, spread + (_K2 * span) ** 2)


def gaussian_mean(image: np.ndarray, side: int) -> np.ndarray:
    """Gaussian mean, σ 1.5, of the windows inside the image."""
    half = side // 2
    kernel = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    rows = correlate1d(image, kernel, axis=0)[half : image.shape[0] - half]
    return np.asarray(correlate1d(rows, kernel, axis=1)[:, half : image.shape[1] - half])


def box_mean(image: np.ndarray, side: int) -> np.ndarray:
    """Mean of the side×side windows inside the image.

    Sums of 2, 4, 8, … neighbours are built from one another and put together by
    the binary digits of `side`: few additions, and unlike a running sum no
    rounding is carried from one window to the next.
    """
    return _box_sum(_box_sum(image, side).T, side).T / side**2


def _box_sum(image: np.ndarray, side: int) -> np.ndarray:
    length = image.shape[0] - side + 1
    total = np.zeros((length, image.shape[1]))
    power, start, sums = 1, 0, image
    while power <= side:
        if side & power:
            total += sums[start : start + length]
            start += power
        sums = sums[:-power] + sums[power:]
        power *= 2
    return total


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(top, bottom, out=np.ones_like(top), where=bottom > 0))


def halve(image: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels; a last odd row or column is dropped."""
    rows, columns = (n // 2 * 2 for n in image.shape)
    even = image[:rows, :columns]
    return np.asarray((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4)


def clear_windows(valid: np.ndarray, side: int, metric: str, last: bool = True) -> np.ndarray:
    """Which windows inside the image touch no masked pixel.

    Raises
    ------
    UndefinedMetricError
        If none.
    """
    masked = box_mean((~valid).astype(np.float64), side)
    clear = masked == 0 if last else masked[:-1, :-1] == 0
    if not clear.any():
        raise UndefinedMetricError(
            f"{metric}: every window of {side}×{side} pixels touches a masked pixel"
        )
    return np.asarray(clear)


def needs_side(pair: Pair, side: int, metric: str) -> None:
    if min(pair.valid.shape) < side:
        raise WindowSizeError(
            f"{metric}: expected both sides at least {side} pixels, "
            f"got {pair.valid.shape[0]}×{pair.valid.shape[1]}"
        )
