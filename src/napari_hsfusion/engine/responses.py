"""Responses of a real pair, estimated from the pair itself.

Both ways from the scene to a coarse multispectral image agree: ``H(Y) = R X`` but
for noise. With H known that is a linear equation for R, with R known one for the
kernel of H; both are solved as convex problems, and in turn where neither is
known (Simões, Bioucas-Dias, Almeida and Chanussot, IEEE TGRS 53:3373, 2015,
section IV, whose blurred start this keeps). Every smoothness weight is chosen by
predicting blocks of the image that were left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import PairError, ResponseError
from .convex import FOLDS, block_folds, difference, nonnegative_smooth
from .decimation import kernel_phase
from .kernels import PSFEstimate, fit_kernel
from .noise import estimate_noise_x
from .observation import fill_invalid
from .operators import SpatialDegradation

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


@dataclass(frozen=True)
class ResponseEstimate:
    """Both responses of a pair.

    Attributes
    ----------
    srf : SRFEstimate
    psf : PSFEstimate
    report : dict
        JSON-able: iterations, relative residual after each, both parts' reports.
    """

    srf: SRFEstimate
    psf: PSFEstimate
    report: dict[str, Any]

    @property
    def matrix(self) -> Array:
        """Rows of the spectral response, each summing to 1, shape (c, C)."""
        return self.srf.matrix

    @property
    def kernel(self) -> Array:
        """Kernel for :meth:`SpatialDegradation.from_kernel`."""
        return self.psf.kernel


def estimate_srf(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    spatial_forward: Callable[[Tensor], Tensor],
    *,
    valid_x: npt.ArrayLike | None = None,
    valid_y: npt.ArrayLike | None = None,
    wavelength: npt.ArrayLike | None = None,
    offset: bool = False,
) -> SRFEstimate:
    """Spectral response of a pair whose blur is known.

    For every band b of the HR-MSI

        min over r >= 0 of  sum_n (H(Y)_bn - r x_n)^2 - n s^2 |P r|^2 + w |D2 r|^2

    with x_n the LR-HSI's spectra in the directions that stand above its noise
    (projector P, noise level s: the middle term takes out what the noise in x_n
    adds, Fuller, Measurement Error Models, 1987), D2 second differences between
    neighbouring bands, and one w for all bands, the one that predicts left-out
    blocks best.

    Parameters
    ----------
    x : array_like, shape (C, h, w)
        LR-HSI, any real unit; NaN where nothing was measured.
    y : array_like, shape (c, H, W)
        HR-MSI; NaN where nothing was measured.
    spatial_forward : callable
        H: tensor (..., H, W) float64 to (..., h, w).
    valid_x, valid_y : array_like of bool, optional
        False where a pixel is not to be used.
    wavelength : array_like, shape (C,), optional
        Band centres in nm: bands are then neighbours by wavelength, and not
        across removed bands.
    offset : bool
        Also fit an additive offset a band (haze, dark current).

    Returns
    -------
    SRFEstimate

    Raises
    ------
    PairError
        If shapes do not fit or too few pixels are left.
    ResponseError
        If a band of the HR-MSI has nothing in common with the LR-HSI.
    """
    xs, ys, ok_x, ok_y = _pair(x, y, valid_x, valid_y)
    low = spatial_forward(torch.as_tensor(ys)).numpy()
    touched = spatial_forward(torch.as_tensor((~ok_y).astype(np.float64))).numpy()
    if low.shape[1:] != xs.shape[1:]:
        raise PairError(f"H(Y) has {low.shape[1:]} pixels, the LR-HSI {xs.shape[1:]}")
    return _fit_srf(xs, low, ok_x & (np.abs(touched) < 1e-9), wavelength, offset)


def estimate_psf(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    response: npt.ArrayLike,
    ratio: int,
    *,
    size: int | Sequence[int] | None = None,
    nonnegative: bool | None = None,
    offset: npt.ArrayLike | None = None,
    valid_x: npt.ArrayLike | None = None,
    valid_y: npt.ArrayLike | None = None,
) -> PSFEstimate:
    """Kernel of the blur of a pair whose spectral response is known.

    Fits ``R X`` by patches of Y about the centre of every LR pixel, i s + (s-1)/2,
    with a kernel that sums to one and is smooth: see
    :func:`~napari_hsfusion.engine.kernels.fit_kernel`. Pixels whose patch leaves
    the image are not used, so no border is assumed.

    Parameters
    ----------
    x : array_like, shape (C, h, w)
    y : array_like, shape (c, H, W)
    response : array_like, shape (c, C)
        In the units of both images: :attr:`SRFEstimate.response`.
    ratio : int
        H = h x ratio, W = w x ratio.
    size : int or sequence of int, optional
        Side of the kernel, or sides to choose from by hold-out. By default about
        2, 3 and 4 ratios, of the parity that sits centred on an LR pixel (even
        for an even ratio). A size of the other parity shifts by half a pixel.
    nonnegative : bool, optional
        Whether weights may be negative (those of a bicubic kernel are). By
        default whichever predicts left-out blocks better.
    offset : array_like, shape (c,), optional
        Subtracted from Y first.
    valid_x, valid_y : array_like of bool, optional

    Returns
    -------
    PSFEstimate

    Raises
    ------
    PairError, ResponseError
        If shapes do not fit, or too few whole patches are left.
    """
    xs, ys, ok_x, ok_y = _pair(x, y, valid_x, valid_y)
    matrix = np.asarray(response, dtype=np.float64)
    if matrix.shape != (len(ys), len(xs)):
        raise PairError(f"SRF: expected shape {(len(ys), len(xs))}, got {matrix.shape}")
    if ratio < 1 or ys.shape[1:] != tuple(n * ratio for n in xs.shape[1:]):
        raise PairError(
            f"ratio {ratio}: expected an HR-MSI of {tuple(n * ratio for n in xs.shape[1:])} "
            f"pixels, got {ys.shape[1:]}"
        )
    if offset is not None:
        ys = ys - np.asarray(offset, dtype=np.float64).reshape(-1, 1, 1)
    basis, _ = _signal_directions(xs, ok_x)
    target = np.tensordot(matrix @ basis @ basis.T, xs, axes=1)
    return fit_kernel(target, ys, ratio, ok_x, ok_y, _sizes(size, ratio, xs.shape), nonnegative)


def estimate_both(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    ratio: int,
    *,
    size: int | Sequence[int] | None = None,
    nonnegative: bool | None = None,
    valid_x: npt.ArrayLike | None = None,
    valid_y: npt.ArrayLike | None = None,
    wavelength: npt.ArrayLike | None = None,
    offset: bool = False,
    iterations: int = 8,
    tolerance: float = 0.01,
) -> ResponseEstimate:
    """Both responses of a pair: blurred start, then kernel and SRF in turn.

    The start blurs both images alike until their own blurs hardly matter (Y by a
    box of one LR pixel, then both by a Gaussian of one LR pixel) and fits R.

    Parameters
    ----------
    x, y, ratio, size, nonnegative, valid_x, valid_y, wavelength, offset
        As in :func:`estimate_srf` and :func:`estimate_psf`.
    iterations : int
        At most so many rounds of kernel and SRF.
    tolerance : float
        Stops when the relative residual falls by less than this part of itself.

    Returns
    -------
    ResponseEstimate
        The round of least residual.
    """
    xs, ys, ok_x, ok_y = _pair(x, y, valid_x, valid_y)
    if iterations < 1:
        raise ResponseError(f"iterations: expected at least 1, got {iterations}")
    if ratio < 1 or ys.shape[1:] != tuple(n * ratio for n in xs.shape[1:]):
        raise PairError(
            f"ratio {ratio}: expected an HR-MSI of {tuple(n * ratio for n in xs.shape[1:])} "
            f"pixels, got {ys.shape[1:]}"
        )
    box = SpatialDegradation.box(ys.shape[1:], ratio)
    low = box.forward(torch.as_tensor(ys)).numpy()
    whole = box.forward(torch.as_tensor(ok_y.astype(np.float64))).numpy() > 1 - 1e-9
    blur = (0.0, 1.0, 1.0)
    clear = ndimage.binary_erosion(ok_x & whole, iterations=2, border_value=1)
    srf = _fit_srf(
        ndimage.gaussian_filter(xs, blur, mode="reflect"),
        ndimage.gaussian_filter(low, blur, mode="reflect"),
        clear if clear.sum() > 16 else ok_x & whole,
        wavelength,
        offset,
    )
    best: tuple[float, SRFEstimate, PSFEstimate] | None = None
    history: list[float] = []
    sides, sign = _sizes(size, ratio, xs.shape), nonnegative
    masks = {"valid_x": ok_x, "valid_y": ok_y}
    for round_ in range(iterations):
        psf = estimate_psf(
            xs, ys, srf.response, ratio, size=sides, nonnegative=sign, offset=srf.offset, **masks
        )
        if round_ >= 1:  # the start is too rough to settle these on
            sides, sign = [len(psf.kernel)], psf.nonnegative
        operator = SpatialDegradation.from_kernel(psf.kernel, ys.shape[1:], ratio)
        inner = _without_border(ok_x, ratio, len(psf.kernel))
        srf = estimate_srf(
            xs,
            ys,
            operator.forward,
            valid_x=inner,
            valid_y=ok_y,
            wavelength=wavelength,
            offset=offset,
        )
        residual = float(np.sqrt(np.mean(np.square(srf.report["relative_residual"]))))
        history.append(residual)
        if best is None or residual < best[0]:
            best = (residual, srf, psf)
        if round_ >= 2 and history[-2] - residual <= tolerance * history[-2]:
            break
    assert best is not None
    report = {
        "iterations": len(history),
        "relative_residuals": history,
        "srf": best[1].report,
        "psf": best[2].report,
    }
    return ResponseEstimate(best[1], best[2], report)


def _pair(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    valid_x: npt.ArrayLike | None,
    valid_y: npt.ArrayLike | None,
) -> tuple[Array, Array, BoolArray, BoolArray]:
    """Both images in float64 with gaps filled, and where they hold measurements."""
    images: list[Array] = []
    masks: list[BoolArray] = []
    for name, data, given in (("LR-HSI", x, valid_x), ("HR-MSI", y, valid_y)):
        image = np.asarray(data, dtype=np.float64)
        if image.ndim != 3 or 0 in image.shape:
            raise PairError(f"{name}: expected (band, y, x), got shape {image.shape}")
        valid = np.isfinite(image).all(0)
        if given is not None:
            mask = np.asarray(given, dtype=bool)
            if mask.shape != valid.shape:
                raise PairError(f"{name}: mask of {mask.shape} for an image of {valid.shape}")
            valid &= mask
        if not valid.any():
            raise PairError(f"{name}: no pixel has a value in every band")
        images.append(fill_invalid(image, valid))
        masks.append(valid)
    return images[0], images[1], masks[0], masks[1]


def _signal_directions(x: Array, valid: BoolArray) -> tuple[Array, float]:
    """Orthonormal directions (C, p) of the spectra above the noise, and the noise level."""
    spectra = x[:, valid]
    bands, n = spectra.shape
    sigma = estimate_noise_x(x, valid)
    values, vectors = np.linalg.eigh(spectra @ spectra.T / n)
    edge = sigma**2 * (1.0 + np.sqrt(bands / n)) ** 2
    count = max(int((values > max(edge, 1e-14 * values[-1])).sum()), 1)
    return vectors[:, -count:], sigma


def _fit_srf(
    x: Array, low: Array, valid: BoolArray, wavelength: npt.ArrayLike | None, offset: bool
) -> SRFEstimate:
    """Fit R on LR images (C, h, w) and (c, h, w) where both are valid."""
    if valid.sum() < 16:
        raise PairError(f"SRF: expected at least 16 pixels valid in both images, got {valid.sum()}")
    basis, sigma = _signal_directions(x, valid)
    order, rough = _spectral_roughness(len(x), wavelength)
    basis = basis[order]
    f = basis.T @ x[order][:, valid]
    t = low[:, valid]
    fold = block_folds(*np.nonzero(valid))
    scale = float((f**2).sum() / f.shape[1] / len(x))
    if scale <= 0 or not (t**2).sum(1).all():
        raise ResponseError("SRF: the LR-HSI, or a band of the HR-MSI, is zero everywhere")
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
    chosen = int(np.log(np.maximum(errors, floor)).sum(1).argmin())
    rows, offsets = _rows(_moments(f, t, basis, sigma, offset), rough, _WEIGHTS[chosen] * scale)
    gain = rows.sum(1)
    if (gain <= 0).any():
        bad = ", ".join(str(b + 1) for b in np.nonzero(gain <= 0)[0])
        raise ResponseError(f"SRF: band {bad} of the HR-MSI is no sum of the LR-HSI's bands")
    rms = np.sqrt((((rows @ basis) @ f + offsets[:, None] - t) ** 2).mean(1))
    matrix = np.empty_like(rows)
    matrix[:, order] = rows / gain[:, None]
    report = {
        "smoothness": float(_WEIGHTS[chosen]),
        "directions": basis.shape[1],
        "noise": sigma,
        "pixels": int(valid.sum()),
        "residual_rms": rms.tolist(),
        "relative_residual": (rms / np.sqrt((t**2).mean(1))).tolist(),
        "gain": gain.tolist(),
        "offset": offsets.tolist(),
    }
    return SRFEstimate(matrix, gain, offsets, report)


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


def _sizes(size: int | Sequence[int] | None, ratio: int, shape: tuple[int, ...]) -> list[int]:
    """Sides to try: those given, or 2, 3 and 4 ratios in the parity that sits centred."""
    if size is not None:
        sides = [size] if isinstance(size, int) else list(size)
        if not sides or min(sides) < 1:
            raise ResponseError(f"kernel size: expected at least 1, got {size}")
        return sides
    even = ratio % 2 == 0
    sides = [k * ratio if even or k * ratio % 2 else k * ratio - 1 for k in (2, 3, 4)]
    fits = [k for k in sides if k <= ratio * (min(shape[1:]) - 4) and k * k <= 1600]
    return fits or sides[:1]


def _without_border(valid: BoolArray, ratio: int, size: int) -> BoolArray:
    """Leave out LR pixels whose kernel reaches beyond the image, if enough remain."""
    reach = (size - 1) / 2
    phase = kernel_phase(ratio, size)
    inside = []
    for n in valid.shape:
        centre = np.arange(n) * ratio + phase
        inside.append((centre - reach >= 0) & (centre + reach <= n * ratio - 1))
    inner = valid & inside[0][:, None] & inside[1][None, :]
    return inner if inner.sum() >= 64 else valid
