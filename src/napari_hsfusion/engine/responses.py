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
from .decimation import kernel_phase
from .kernels import PSFEstimate, fit_kernel
from .operators import SpatialDegradation
from .spectral_fit import SRFEstimate, fit_srf, signal_directions
from .validity import fill_invalid, valid_pixels

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

__all__ = [
    "PSFEstimate",
    "ResponseEstimate",
    "SRFEstimate",
    "estimate_both",
    "estimate_psf",
    "estimate_srf",
]


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
    smoothness: float | None = None,
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
    smoothness : float, optional
        w, relative to the mean square of the LR-HSI; chosen by hold-out when absent.

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
    valid = ok_x & (np.abs(touched) < 1e-9)
    return fit_srf(xs, low, valid, wavelength, offset, smoothness)


def estimate_psf(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    response: npt.ArrayLike,
    ratio: int,
    *,
    size: int | Sequence[int] | None = None,
    nonnegative: bool | None = None,
    smoothness: float | None = None,
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
    smoothness : float, optional
        Weight of the kernel's roughness, relative to the mean square of Y; chosen
        by hold-out when absent.
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
    basis, _ = signal_directions(xs, ok_x)
    target = np.tensordot(matrix @ basis @ basis.T, xs, axes=1)
    sides = _sizes(size, ratio, xs.shape)
    return fit_kernel(target, ys, ratio, ok_x, ok_y, sides, nonnegative, smoothness)


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
    srf = fit_srf(
        ndimage.gaussian_filter(xs, blur, mode="reflect"),
        ndimage.gaussian_filter(low, blur, mode="reflect"),
        clear if clear.sum() > 16 else ok_x & whole,
        wavelength,
        offset,
    )
    best: tuple[float, SRFEstimate, PSFEstimate] | None = None
    history: list[float] = []
    sides, sign = _sizes(size, ratio, xs.shape), nonnegative
    smooth_r: float | None = None
    smooth_k: float | None = None
    for round_ in range(iterations):
        psf = estimate_psf(
            xs,
            ys,
            srf.response,
            ratio,
            size=sides,
            nonnegative=sign,
            smoothness=smooth_k,
            offset=srf.offset,
            valid_x=ok_x,
            valid_y=ok_y,
        )
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
            smoothness=smooth_r,
        )
        if round_ == 2:  # before, R is too rough to settle these on
            sides, sign = [len(psf.kernel)], psf.nonnegative
            smooth_k, smooth_r = psf.report["smoothness"], srf.report["smoothness"]
        residual = float(np.sqrt(np.mean(np.square(srf.report["relative_residual"]))))
        history.append(residual)
        if best is None or residual < best[0]:
            best = (residual, srf, psf)
        if round_ >= 3 and history[-2] - residual <= tolerance * history[-2]:
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
        valid = valid_pixels(image, given, name)
        images.append(fill_invalid(image, valid))
        masks.append(valid)
    return images[0], images[1], masks[0], masks[1]


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
