"""The kernel of a blur, fitted to a coarse image and the fine image it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import PairError
from .convex import FOLDS, block_folds, difference, simplex_quadratic, sum_to_one
from .decimation import kernel_phase

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_WEIGHTS = 10.0 ** np.arange(-6.0, 0.6, 0.5)
_SAMPLES = 20_000  # coarse pixels: more add time and no accuracy to a few hundred unknowns
_RANK_TOLERANCE = 1.005  # of the least left-out error
_RANKS = 8
_CHUNK = 2048


@dataclass(frozen=True)
class PSFEstimate:
    """Estimated point spread function.

    Attributes
    ----------
    kernel : ndarray, shape (k, k), float64
        Sums to 1; correlated as
        :meth:`~napari_hsfusion.engine.operators.SpatialDegradation.from_kernel`
        does at its default phase.
    nonnegative : bool
        Whether the fit was held to weights of 0 or more.
    report : dict
        JSON-able: size, smoothness weight, rank, hold-out error of every size,
        residuals a band (rms, and relative to the rms of the target).
    """

    kernel: Array
    nonnegative: bool
    report: dict[str, Any]


@dataclass(frozen=True)
class _Samples:
    """Patches of the fine image about coarse pixels, as views until they are used."""

    windows: Array
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    target: Array
    fold: npt.NDArray[np.int64]

    def patches(self, band: int, which: npt.NDArray[np.int64]) -> Array:
        size = self.windows.shape[-1]
        chosen = self.windows[band, self.rows[which], self.columns[which]]
        return np.asarray(chosen).reshape(-1, size * size)

    def moments(self, weights: Array, which: npt.NDArray[np.int64]) -> tuple[Array, Array]:
        size = self.windows.shape[-1] ** 2
        gram, moment = np.zeros((size, size)), np.zeros(size)
        for band, weight in enumerate(weights):
            for start in range(0, len(which), _CHUNK):
                part = which[start : start + _CHUNK]
                p = self.patches(band, part)
                gram += weight * (p.T @ p)
                moment += weight * (p.T @ self.target[band, part])
        return gram, moment

    def residual(self, kernel: Array, which: npt.NDArray[np.int64]) -> Array:
        """Mean square of the misfit a band, shape (c,)."""
        out = np.zeros(len(self.target))
        for band in range(len(out)):
            for start in range(0, len(which), _CHUNK):
                part = which[start : start + _CHUNK]
                miss = self.patches(band, part) @ kernel.ravel() - self.target[band, part]
                out[band] += float(miss @ miss)
        return out / max(len(which), 1)


def fit_kernel(
    target: Array,
    fine: Array,
    ratio: int,
    valid: BoolArray,
    valid_fine: BoolArray,
    sizes: Sequence[int],
    nonnegative: bool | None,
    smoothness: float | None = None,
) -> PSFEstimate:
    """Kernel that makes `target` of `fine`.

    min over k of  sum_b v_b sum_n (t_bn - p_bn k)^2 + w |D k|^2,  sum(k) = 1

    with p_bn the patch of band b about coarse pixel n, v_b the inverse variance
    of the misfit, D second differences along both axes of the kernel with zeros
    around it. Size, w and sign are the ones that predict left-out blocks best.
    So is the number of separable terms that the kernel is cut to, the fewest that
    predict as well: that steadies a large kernel, and is what it costs to apply.
    (A cut kernel of two or more terms may dip a little below 0 even where the fit
    was held above it.)

    Parameters
    ----------
    target : ndarray, shape (c, h, w)
    fine : ndarray, shape (c, h * ratio, w * ratio)
    ratio : int
    valid, valid_fine : ndarray of bool
        Of the pixels of both.
    sizes : sequence of int
        Sides to choose from.
    nonnegative : bool or None
        Whether to hold k >= 0; None tries both.
    smoothness : float or None
        w relative to the mean square of `fine`; None chooses it.

    Returns
    -------
    PSFEstimate

    Raises
    ------
    PairError
        If too few whole patches are left.
    """
    fits = []
    weights: Array | None = None
    for size in sorted(set(sizes)):
        samples = _samples(target, fine, ratio, valid, valid_fine, size)
        if samples is None:
            continue
        if weights is None:
            weights = _band_weights(samples)
        fits.append((size, samples, *_choose(samples, weights, smoothness)))
    if not fits or weights is None:
        raise PairError(
            f"PSF: too few patches of {min(sizes)} pixels lie whole within the image of "
            f"{fine.shape[1:]}: at least 16 are needed"
        )
    # sizes are compared on the pixels that all of them can use
    common = set.intersection(*(_places(s, ratio, size) for size, s, *_ in fits))
    scores = []
    for size, samples, _, kernels in fits:
        places = zip(*_coarse(samples, ratio, size), strict=True)
        shared = np.array([p in common for p in places])
        # the fewer terms, the better a large kernel is held: compare sizes at their best
        rank = _choose_rank(kernels, samples, weights)
        scores.append(_left_out(samples, [_cut(k, rank) for k in kernels], weights, shared))
    size, samples, weight, kernels = fits[int(np.argmin(scores))]
    sign, kernels = _choose_sign(samples, weights, weight, kernels, nonnegative)
    everything = np.arange(len(samples.rows))
    rank = _choose_rank(kernels, samples, weights)
    kernel = _solve(*samples.moments(weights, everything), size, weight, sign)
    kernel = _cut(kernel, rank).reshape(size, size)
    rms = np.sqrt(samples.residual(kernel, everything))
    report = {
        "size": size,
        "phase": kernel_phase(ratio, size),
        "smoothness": weight,
        "nonnegative": sign,
        "rank": rank,
        "samples": len(everything),
        "holdout": {str(f[0]): s for f, s in zip(fits, scores, strict=True)},
        "residual_rms": rms.tolist(),
        "relative_residual": (rms / np.sqrt((samples.target**2).mean(1))).tolist(),
    }
    return PSFEstimate(kernel, sign, report)


def _samples(
    target: Array, fine: Array, ratio: int, valid: BoolArray, valid_fine: BoolArray, size: int
) -> _Samples | None:
    """Patches that lie whole within the image and its valid pixels; None if too few."""
    if size > min(fine.shape[1:]):
        return None
    first = round(kernel_phase(ratio, size) - (size - 1) / 2)
    windows = sliding_window_view(fine, (size, size), axis=(1, 2))
    clear = sliding_window_view(valid_fine, (size, size))
    i, j = np.nonzero(valid)
    rows, columns = i * ratio + first, j * ratio + first
    inside = (rows >= 0) & (columns >= 0)
    inside &= (rows < clear.shape[0]) & (columns < clear.shape[1])
    i, j, rows, columns = (a[inside] for a in (i, j, rows, columns))
    if len(rows):
        step = max(1, int(np.ceil(len(rows) / _SAMPLES)))
        i, j, rows, columns = (a[::step] for a in (i, j, rows, columns))
        whole = np.array([clear[r, c].all() for r, c in zip(rows, columns, strict=True)])
        i, j, rows, columns = (a[whole] for a in (i, j, rows, columns))
    if len(rows) < 16:
        return None
    return _Samples(windows, rows, columns, target[:, i, j], block_folds(i, j))


def _coarse(
    samples: _Samples, ratio: int, size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first = round(kernel_phase(ratio, size) - (size - 1) / 2)
    return (samples.rows - first) // ratio, (samples.columns - first) // ratio


def _places(samples: _Samples, ratio: int, size: int) -> set[tuple[int, int]]:
    rows, columns = _coarse(samples, ratio, size)
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


def _band_weights(samples: _Samples) -> Array:
    """Inverse variance of each band's misfit in a first fit, their mean 1."""
    everything = np.arange(len(samples.rows))
    size = samples.windows.shape[-1]
    power = (samples.target**2).mean(1)
    equal = 1.0 / np.maximum(power, 1e-12 * power.max())
    kernel = _solve(*samples.moments(equal, everything), size, 1e-3, False)
    misfit = np.maximum(samples.residual(kernel, everything), 1e-10 * power + 1e-300)
    weights = 1.0 / misfit
    return np.asarray(weights / weights.mean())


def _parts(samples: _Samples, weights: Array) -> list[tuple[Array, Array]]:
    """Moments of each fold."""
    return [samples.moments(weights, np.nonzero(samples.fold == k)[0]) for k in range(FOLDS)]


def _without(
    parts: Sequence[tuple[Array, Array]], size: int, weight: float, sign: bool
) -> list[Array]:
    """Kernels fitted without each fold in turn."""
    gram = sum((p[0] for p in parts), np.zeros((size**2, size**2)))
    moment = sum((p[1] for p in parts), np.zeros(size**2))
    return [_solve(gram - g, moment - m, size, weight, sign) for g, m in parts]


def _choose(
    samples: _Samples, weights: Array, smoothness: float | None
) -> tuple[float, list[Array]]:
    """Smoothness weight by hold-out, and the kernels fitted without each fold."""
    parts = _parts(samples, weights)
    size = samples.windows.shape[-1]
    tried = _WEIGHTS if smoothness is None else np.array([smoothness])
    trials = [_without(parts, size, weight, False) for weight in tried]
    errors = [
        sum(float(k @ g @ k - 2 * m @ k) for k, (g, m) in zip(kernels, parts, strict=True))
        for kernels in trials
    ]
    best = int(np.argmin(errors))
    return float(tried[best]), trials[best]


def _choose_sign(
    samples: _Samples,
    weights: Array,
    weight: float,
    free: list[Array],
    nonnegative: bool | None,
) -> tuple[bool, list[Array]]:
    """Whether to hold the kernel above 0, and the kernels fitted without each fold."""
    if nonnegative is False:
        return False, free
    held = _without(_parts(samples, weights), samples.windows.shape[-1], weight, True)
    everywhere = np.ones(len(samples.rows), dtype=bool)
    errors = []
    for kernels in (free, held):
        rank = _choose_rank(kernels, samples, weights)
        cut = [_cut(k, rank) for k in kernels]
        errors.append(_left_out(samples, cut, weights, everywhere))
    if nonnegative or errors[1] <= errors[0]:
        return True, held
    return False, free


def _solve(gram: Array, moment: Array, size: int, weight: float, nonnegative: bool) -> Array:
    second = difference(size + 4, 2)[:, 2:-2]
    along = second.T @ second
    eye = np.eye(size)
    rough = np.kron(along, eye) + np.kron(eye, along)
    scale = float(np.trace(gram)) / size**2
    system = gram + weight * scale * rough
    kernel = sum_to_one(system, moment)
    if nonnegative and kernel.min() < 0:
        kernel = simplex_quadratic(system, moment, kernel)
    return kernel


def _cut(kernel: Array, rank: int) -> Array:
    """Sum of the first `rank` separable terms of a square kernel, brought to sum 1."""
    size = round(kernel.size**0.5)
    u, values, vt = np.linalg.svd(kernel.reshape(size, size))
    out = ((u[:, :rank] * values[:rank]) @ vt[:rank]).ravel()
    return np.asarray(out / out.sum())


def _choose_rank(kernels: Sequence[Array], samples: _Samples, weights: Array) -> int:
    """Fewest separable terms that predict left-out blocks within half a percent of the best."""
    size = samples.windows.shape[-1]
    everywhere = np.ones(len(samples.rows), dtype=bool)
    errors = [
        _left_out(samples, [_cut(k, rank) for k in kernels], weights, everywhere)
        for rank in range(1, min(size, _RANKS) + 1)
    ]
    return int(np.nonzero(np.array(errors) <= _RANK_TOLERANCE * min(errors))[0][0]) + 1


def _left_out(samples: _Samples, kernels: Sequence[Array], weights: Array, use: BoolArray) -> float:
    """Weighted squared error of every fold under the kernel that was fitted without it."""
    error = 0.0
    for k, kernel in enumerate(kernels):
        which = np.nonzero(use & (samples.fold == k))[0]
        error += float(weights @ samples.residual(kernel, which)) * len(which)
    return error
