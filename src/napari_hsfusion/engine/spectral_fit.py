"""Spectral response fitted to coarse images of both sensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PairError, ResponseError
from .convex import FOLDS, block_folds, difference, nonnegative_smooth
from .noise import estimate_noise_x

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_WEIGHTS = 10.0 ** np.arange(-8.0, 2.1, 0.5)
_HOLE = 3.0  # band gaps beyond this many medians are breaks of smoothness


@dataclass(frozen=True)
class SRFEstimate:
    """Estimated spectral response: ``H(Y)_b = gain_b (matrix X)_b + offset_b``.

    Attributes
    ----------
    matrix : ndarray, shape (c, C), float64
        Not negative, rows sum to 1.
    gain : ndarray, shape (c,), float64
        Units of the HR-MSI per unit of the LR-HSI: 1 where both are calibrated alike.
    offset : ndarray, shape (c,), float64
        Units of the HR-MSI; 0 unless it was asked for.
    report : dict
        JSON-able: smoothness weight, residuals a band (rms, and relative to the
        rms of the image), signal directions kept.
    """

    matrix: Array
    gain: Array
    offset: Array
    report: dict[str, Any]

    @property
    def response(self) -> Array:
        """``gain x matrix``, shape (c, C): takes the LR-HSI to the HR-MSI's units."""
        return np.asarray(self.gain[:, None] * self.matrix)


def signal_directions(x: Array, valid: BoolArray) -> tuple[Array, float]:
    """Orthonormal directions (C, p) of the spectra above the noise, and the noise level."""
    spectra = x[:, valid]
    bands, n = spectra.shape
    sigma = estimate_noise_x(x, valid)
    values, vectors = np.linalg.eigh(spectra @ spectra.T / n)
    edge = sigma**2 * (1.0 + np.sqrt(bands / n)) ** 2
    count = max(int((values > max(edge, 1e-14 * values[-1])).sum()), 1)
    return vectors[:, -count:], sigma


def fit_srf(
    x: Array,
    low: Array,
    valid: BoolArray,
    wavelength: npt.ArrayLike | None,
    offset: bool,
    smoothness: float | None = None,
) -> SRFEstimate:
    """Fit R on coarse images where both are valid.

    Parameters
    ----------
    x, low : ndarray, shapes (C, h, w) and (c, h, w)
        The LR-HSI, and the HR-MSI brought to its pixels.
    valid : ndarray of bool, shape (h, w)
    wavelength, offset, smoothness
        As in :func:`~napari_hsfusion.engine.responses.estimate_srf`.

    Returns
    -------
    SRFEstimate

    Raises
    ------
    PairError, ResponseError
        If fewer than 16 pixels are valid, or a band has no response.
    """
    if valid.sum() < 16:
        raise PairError(f"SRF: expected at least 16 pixels valid in both images, got {valid.sum()}")
    basis, sigma = signal_directions(x, valid)
    order, rough = _spectral_roughness(len(x), wavelength)
    basis = basis[order]
    f = basis.T @ x[order][:, valid]
    t = low[:, valid]
    fold = block_folds(*np.nonzero(valid))
    scale = float((f**2).sum() / f.shape[1] / len(x))
    if scale <= 0 or not (t**2).sum(1).all():
        raise ResponseError("SRF: the LR-HSI, or a band of the HR-MSI, is zero everywhere")
    if smoothness is None:
        smoothness = _choose(f, t, fold, basis, sigma, offset, rough, scale)
    rows, offsets = _rows(_moments(f, t, basis, sigma, offset), rough, smoothness * scale)
    gain = rows.sum(1)
    if (gain <= 0).any():
        bad = ", ".join(str(b + 1) for b in np.nonzero(gain <= 0)[0])
        raise ResponseError(f"SRF: band {bad} of the HR-MSI is no sum of the LR-HSI's bands")
    rms = np.sqrt((((rows @ basis) @ f + offsets[:, None] - t) ** 2).mean(1))
    matrix = np.empty_like(rows)
    matrix[:, order] = rows / gain[:, None]
    report = {
        "smoothness": smoothness,
        "directions": basis.shape[1],
        "noise": sigma,
        "pixels": int(valid.sum()),
        "residual_rms": rms.tolist(),
        "relative_residual": (rms / np.sqrt((t**2).mean(1))).tolist(),
        "gain": gain.tolist(),
        "offset": offsets.tolist(),
    }
    return SRFEstimate(matrix, gain, offsets, report)


def _choose(
    f: Array,
    t: Array,
    fold: npt.NDArray[np.int64],
    basis: Array,
    sigma: float,
    offset: bool,
    rough: Array,
    scale: float,
) -> float:
    """Smoothness weight that predicts left-out blocks best, all bands together."""
    parts = [_moments(f[:, fold != k], t[:, fold != k], basis, sigma, offset) for k in range(FOLDS)]
    errors = np.zeros((len(_WEIGHTS), len(t)))
    for i, weight in enumerate(_WEIGHTS):
        for k, part in enumerate(parts):
            out = fold == k
            if not out.any():
                continue
            r, o = _rows(part, rough, weight * scale)
            miss = ((r @ basis) @ f[:, out] + o[:, None] - t[:, out]) ** 2
            errors[i] += miss.sum(1) - out.sum() * sigma**2 * ((r @ basis) ** 2).sum(1)
    floor = 1e-12 * (t**2).sum(1)
    return float(_WEIGHTS[np.log(np.maximum(errors, floor)).sum(1).argmin()])


@dataclass(frozen=True)
class _Moments:
    root: Array
    target: Array
    mean_f: Array
    mean_t: Array


def _moments(f: Array, t: Array, basis: Array, sigma: float, offset: bool) -> _Moments:
    """Square root of the noise-corrected second moments, and right-hand sides."""
    n = max(f.shape[1], 1)
    mean_f = f.mean(1) if offset else np.zeros(len(f))
    mean_t = t.mean(1) if offset else np.zeros(len(t))
    f, t = f - mean_f[:, None], t - mean_t[:, None]
    values, vectors = np.linalg.eigh(f @ f.T / n - sigma**2 * np.eye(len(f)))
    keep = values > 1e-12 * values[-1]
    root = np.sqrt(values[keep])[:, None] * vectors[:, keep].T
    target = (vectors[:, keep].T @ (f @ t.T / n)) / np.sqrt(values[keep])[:, None]
    return _Moments(root @ basis.T, target, basis @ mean_f, mean_t)


def _rows(part: _Moments, rough: Array, weight: float) -> tuple[Array, Array]:
    rows = np.stack(
        [nonnegative_smooth(part.root, target, rough, weight) for target in part.target.T]
    )
    return rows, part.mean_t - rows @ part.mean_f


def _spectral_roughness(
    bands: int, wavelength: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.int64], Array]:
    """Order of the bands by wavelength, and differences between neighbours."""
    if wavelength is None:
        return np.arange(bands), difference(bands, 2)
    centres = np.asarray(wavelength, dtype=np.float64)
    if centres.shape != (bands,):
        raise PairError(f"wavelength: expected {bands} values, got shape {centres.shape}")
    order = np.argsort(centres, kind="stable")
    gaps = np.diff(centres[order])
    return order, difference(bands, 2, np.nonzero(gaps > _HOLE * np.median(gaps))[0])
