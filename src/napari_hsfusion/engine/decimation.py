"""One-dimensional blur-and-decimate and interpolation matrices, float64.

Pixel centres sit on integers. The centre of low-resolution pixel ``i`` lies at
``i * ratio + phase``; the default phase ``(ratio - 1) / 2`` puts it in the middle
of the `ratio` pixels that it covers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..errors import ResponseError

BORDERS = ("symmetric", "reflect", "replicate", "wrap", "zero")

Array = npt.NDArray[np.float64]


def centred_phase(ratio: int) -> float:
    """Phase that centres a low-resolution pixel on the pixels it covers."""
    return (ratio - 1) / 2


def cubic_kernel(t: npt.ArrayLike, a: float = -0.5) -> Array:
    """Keys' piecewise cubic interpolation kernel (IEEE TASSP 29:1153, 1981)."""
    t = np.abs(np.asarray(t, dtype=np.float64))
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = a * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def border_index(j: npt.NDArray[np.int64], n: int, border: str) -> npt.NDArray[np.int64]:
    """Index inside ``0 … n-1`` that stands for `j`; -1 where the border is zero."""
    if border == "wrap":
        return j % n
    if border == "replicate":
        return np.clip(j, 0, n - 1)
    if border == "symmetric":
        j = j % (2 * n)
        return np.where(j >= n, 2 * n - 1 - j, j)
    if border == "reflect":
        if n == 1:
            return np.zeros_like(j)
        j = j % (2 * n - 2)
        return np.where(j >= n, 2 * n - 2 - j, j)
    if border == "zero":
        return np.where((j < 0) | (j >= n), -1, j)
    raise ResponseError(f"border: expected one of {', '.join(BORDERS)}, got {border!r}")


def _assemble(
    n_out: int, n_in: int, taps: Callable[[int], tuple[npt.ArrayLike, Array]], border: str
) -> Array:
    matrix = np.zeros((n_out, n_in))
    for i in range(n_out):
        positions, weights = taps(i)
        index = border_index(np.asarray(positions, dtype=np.int64), n_in, border)
        inside = index >= 0
        np.add.at(matrix[i], index[inside], weights[inside])
    return matrix


def kernel_matrix(
    n: int, ratio: int, kernel: npt.ArrayLike, phase: float | None, border: str = "symmetric"
) -> Array:
    """Correlate with a sampled kernel and keep every `ratio`-th position.

    Parameters
    ----------
    n : int
        High-resolution size, a multiple of `ratio`.
    ratio : int
        Decimation.
    kernel : array_like, shape (k,)
        Weights; tap ``j`` sits at ``centre + j - (k - 1) / 2``.
    phase : float or None
        Position of the centre of pixel 0; None takes the centred phase, or half a
        pixel before it where an odd kernel cannot sit there.
    border : str
        One of :data:`BORDERS`.

    Returns
    -------
    numpy.ndarray, shape (n // ratio, n)

    Raises
    ------
    ResponseError
        If the phase does not put the taps on pixels.
    """
    weights = np.asarray(kernel, dtype=np.float64)
    if phase is None:
        phase = kernel_phase(ratio, weights.size)
    first = phase - (weights.size - 1) / 2
    if abs(first - round(first)) > 1e-9:
        raise ResponseError(
            f"a kernel of {weights.size} taps at phase {phase:g} does not sit on pixels: "
            f"an odd kernel needs a whole phase, an even one a half phase"
        )
    offsets = np.arange(weights.size) + round(first)
    return _assemble(n // ratio, n, lambda i: (offsets + i * ratio, weights), border)


def kernel_phase(ratio: int, size: int) -> float:
    """Phase nearest the centre (or just before it) at which `size` taps sit on pixels."""
    phase = centred_phase(ratio)
    return phase if float(phase - (size - 1) / 2).is_integer() else phase - 0.5


def profile_matrix(
    n: int,
    ratio: int,
    profile: Callable[[Array], Array],
    radius: float,
    phase: float | None = None,
    border: str = "symmetric",
) -> Array:
    """Blur by a continuous profile sampled about each centre, rows summing to one.

    Parameters
    ----------
    n, ratio
        As in :func:`kernel_matrix`.
    profile : callable
        Weight at a distance in high-resolution pixels.
    radius : float
        Distance beyond which the profile is taken as zero.
    phase, border
        As in :func:`kernel_matrix`.
    """
    offset = centred_phase(ratio) if phase is None else phase

    def taps(i: int) -> tuple[npt.ArrayLike, Array]:
        centre = i * ratio + offset
        positions = np.arange(np.floor(centre - radius), np.ceil(centre + radius) + 1)
        weights = profile(positions - centre)
        return positions, weights / weights.sum()

    return _assemble(n // ratio, n, taps, border)


def bicubic_matrix(n: int, ratio: int, border: str = "symmetric") -> Array:
    """Antialiased bicubic decimation: Keys' kernel (a = -0.5) stretched by the ratio."""
    return profile_matrix(
        n, ratio, lambda t: cubic_kernel(t / ratio), 2.0 * ratio, phase=None, border=border
    )


def gaussian_matrix(
    n: int, ratio: int, sigma: float, phase: float | None = None, border: str = "symmetric"
) -> Array:
    """Gaussian blur of `sigma` high-resolution pixels, cut at 4 sigma, then decimation."""
    return profile_matrix(
        n,
        ratio,
        lambda t: np.where(np.abs(t) <= max(4.0 * sigma, 1.0), np.exp(-0.5 * (t / sigma) ** 2), 0),
        max(4.0 * sigma, 1.0),
        phase=phase,
        border=border,
    )


def interpolation_matrix(n: int, ratio: int, phase: float, border: str = "symmetric") -> Array:
    """Cubic interpolation from the low-resolution grid back to `n` pixels.

    Returns
    -------
    numpy.ndarray, shape (n, n // ratio)
        Rows sum to one; low-resolution pixel ``i`` is centred at ``i * ratio + phase``.
    """

    def taps(i: int) -> tuple[npt.ArrayLike, Array]:
        centre = (i - phase) / ratio
        positions = np.arange(np.floor(centre) - 1, np.floor(centre) + 3)
        return positions, cubic_kernel(positions - centre)

    return _assemble(n, n // ratio, taps, border)
