"""Linear operators of the observation model, each with forward and adjoint.

``X = H(Z) + Nx`` and ``Y = Z x3 R + Ny``. Everything spatial is a sum of separable
terms, so that ``H(A x3 E) = H(A) x3 E``: a d-band image is degraded instead of a
C-band one, and the H x W x C cube is never built inside a loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import PairError, ResponseError
from . import decimation as dec
from .axis import AxisOperator

_FAINT = 1e-12  # weights below this are round-off of a kernel's singular vectors


class SpatialDegradation:
    """Blur and decimation H by an integer ratio, a sum of separable terms.

    Parameters
    ----------
    terms : sequence of (rows, columns)
        Matrices of shape (h, H) and (w, W); ``H(Z) = sum rows Z columns^T``.
    ratio : int
    phase : float
        Position, in high-resolution pixels, of the centre of pixel 0.
    spec : mapping
        JSON-able description for the run record.

    Raises
    ------
    ResponseError
        If the matrices do not fit each other.
    """

    def __init__(
        self,
        terms: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
        ratio: int,
        phase: float,
        spec: Mapping[str, Any],
    ) -> None:
        if not terms or len({(r.shape, c.shape) for r, c in terms}) != 1:
            raise ResponseError("a spatial degradation needs terms of one common shape")
        self.terms = [(AxisOperator(r), AxisOperator(c)) for r, c in terms]
        self.ratio = ratio
        self.phase = phase
        self.spec = dict(spec)
        rows, columns = terms[0]
        self.shape_hr = (rows.shape[1], columns.shape[1])
        self.shape_lr = (rows.shape[0], columns.shape[0])
        self._up = tuple(
            AxisOperator(dec.interpolation_matrix(n, ratio, phase)) for n in self.shape_hr
        )

    @classmethod
    def bicubic(cls, shape_hr: tuple[int, int], ratio: int, border: str = "symmetric") -> Self:
        """Antialiased bicubic decimation (Keys, a = -0.5, width 4 x ratio)."""
        rows, columns = (dec.bicubic_matrix(n, ratio, border) for n in _sizes(shape_hr, ratio))
        spec = {"psf": "bicubic", "border": border}
        return cls([(rows, columns)], ratio, dec.centred_phase(ratio), spec)

    @classmethod
    def gaussian(
        cls,
        shape_hr: tuple[int, int],
        ratio: int,
        sigma: float,
        border: str = "symmetric",
        phase: float | None = None,
    ) -> Self:
        """Gaussian of `sigma` high-resolution pixels about the centre, then decimation."""
        if not (np.isfinite(sigma) and sigma > 0):
            raise ResponseError(f"gaussian: expected a sigma above 0 (pixels), got {sigma}")
        rows, columns = (
            dec.gaussian_matrix(n, ratio, sigma, phase, border) for n in _sizes(shape_hr, ratio)
        )
        at = dec.centred_phase(ratio) if phase is None else phase
        return cls([(rows, columns)], ratio, at, {"psf": f"gaussian:{sigma:g}", "border": border})

    @classmethod
    def gauss3_bicubic(
        cls, shape_hr: tuple[int, int], ratio: int, border: str = "symmetric"
    ) -> Self:
        """3 x 3 Gaussian of sigma 2 (reflected border), then antialiased bicubic."""
        taps = np.exp(-(np.arange(-1.0, 2.0) ** 2) / 8.0)
        taps /= taps.sum()
        rows, columns = (
            dec.bicubic_matrix(n, ratio, border) @ dec.kernel_matrix(n, 1, taps, None, "reflect")
            for n in _sizes(shape_hr, ratio)
        )
        spec = {"psf": "gauss3-bicubic", "border": border}
        return cls([(rows, columns)], ratio, dec.centred_phase(ratio), spec)

    @classmethod
    def box(cls, shape_hr: tuple[int, int], ratio: int, border: str = "symmetric") -> Self:
        """Mean of the ratio x ratio pixels that a low-resolution pixel covers."""
        kernel = np.full(ratio, 1.0 / ratio)
        rows, columns = (
            dec.kernel_matrix(n, ratio, kernel, None, border) for n in _sizes(shape_hr, ratio)
        )
        spec = {"psf": "box", "border": border}
        return cls([(rows, columns)], ratio, dec.centred_phase(ratio), spec)

    @classmethod
    def from_kernel(
        cls,
        kernel: npt.ArrayLike,
        shape_hr: tuple[int, int],
        ratio: int,
        phase: float | None = None,
        border: str = "symmetric",
    ) -> Self:
        """Any two-dimensional kernel, split into separable terms by its singular values.

        Parameters
        ----------
        kernel : array_like, shape (ky, kx)
            Correlation weights; the tap ``j`` of a row sits at
            ``i ratio + phase + j - (k - 1) / 2``. Used as it is: not renormalised.
        phase : float, optional
            One phase for both axes. By default the centred one, or half a pixel
            before it on an axis where an odd kernel meets an even ratio.

        Raises
        ------
        ResponseError
            If the kernel is not a finite 2-D array, or does not sit on pixels.
        """
        array = np.asarray(kernel, dtype=np.float64)
        if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
            raise ResponseError(f"kernel: expected a finite 2-D array, got shape {array.shape}")
        sizes = _sizes(shape_hr, ratio)
        phases = {dec.kernel_phase(ratio, k) for k in array.shape} if phase is None else {phase}
        if len(phases) > 1:
            raise ResponseError(
                f"kernel {array.shape}: one odd and one even side need different phases; "
                "pad it to sides of one parity"
            )
        at = phases.pop()
        u, values, vt = np.linalg.svd(array)
        rank = max(1, int((values > 1e-13 * values[0]).sum())) if values[0] > 0 else 1
        terms = []
        for k in range(rank):
            root = np.sqrt(values[k])
            terms.append(
                (
                    dec.kernel_matrix(sizes[0], ratio, u[:, k] * root, at, border),
                    dec.kernel_matrix(sizes[1], ratio, vt[k] * root, at, border),
                )
            )
        spec = {"psf": "kernel", "kernel": array.tolist(), "border": border, "phase": at}
        return cls(terms, ratio, at, spec)

    def forward(self, image: Tensor) -> Tensor:
        """Degrade an image (..., H, W) to (..., h, w)."""
        self._expect(image, self.shape_hr)
        return self._sum(image, transpose=False)

    def adjoint(self, image: Tensor) -> Tensor:
        """Apply the transpose of :meth:`forward`: (..., h, w) to (..., H, W)."""
        self._expect(image, self.shape_lr)
        return self._sum(image, transpose=True)

    def upsample(self, image: Tensor) -> Tensor:
        """Cubic interpolation (..., h, w) to (..., H, W) that keeps the phase of H."""
        self._expect(image, self.shape_lr)
        return self._up[1].apply(self._up[0].apply(image, -2), -1)

    def footprint(self, marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Low-resolution pixels (h, w) to which a marked pixel (H, W) contributes."""
        out = np.zeros(self.shape_lr, dtype=bool)
        if marked.any():
            weight = marked.astype(np.float64)
            for rows, columns in self.terms:
                reach_y = (np.abs(rows.matrix) > _FAINT).astype(np.float64)
                reach_x = (np.abs(columns.matrix) > _FAINT).astype(np.float64)
                out |= (reach_y @ weight @ reach_x.T) > 0.5
        return out

    def covered(self, known: npt.NDArray[np.bool_], share: float = 0.9) -> npt.NDArray[np.bool_]:
        """Low-resolution pixels (h, w) of whose weight a share is on known pixels (H, W).

        Weights count by their size, whatever their sign.
        """
        unknown = (~known).astype(np.float64)
        lost, whole = np.zeros(self.shape_lr), np.zeros(self.shape_lr)
        for rows, columns in self.terms:
            down, across = np.abs(rows.matrix), np.abs(columns.matrix)
            lost += down @ unknown @ across.T
            whole += np.outer(down.sum(1), across.sum(1))
        return np.asarray(lost <= (1.0 - share) * whole + _FAINT)

    def weights(self, row: int, column: int) -> npt.NDArray[np.float64]:
        """Weights (H, W) of the high-resolution pixels in one low-resolution pixel."""
        out = np.zeros(self.shape_hr)
        for rows, columns in self.terms:
            out += np.outer(rows.matrix[row], columns.matrix[column])
        return out

    def resized(self, shape_hr: tuple[int, int]) -> SpatialDegradation:
        """Return the same degradation for smaller images, with the same borders.

        Each axis keeps the taps of its first half and of its last one.

        Parameters
        ----------
        shape_hr : (int, int)
            Multiples of the ratio, at most the present size.

        Raises
        ------
        PairError
            If a size is larger, or no multiple of the ratio.
        """
        for n, most in zip(_sizes(shape_hr, self.ratio), self.shape_hr, strict=True):
            if n > most:
                raise PairError(f"expected at most {self.shape_hr} pixels, got {shape_hr}")
        terms = [
            (
                _resized(r.matrix, shape_hr[0], self.ratio),
                _resized(c.matrix, shape_hr[1], self.ratio),
            )
            for r, c in self.terms
        ]
        return type(self)(terms, self.ratio, self.phase, self.spec)

    def energy(self) -> float:
        """Mean over low-resolution pixels of the sum of squared weights.

        White noise of variance v at high resolution has variance ``v * energy``
        after :meth:`forward`.
        """
        total = 0.0
        for r1, c1 in self.terms:
            for r2, c2 in self.terms:
                along_y = (r1.matrix * r2.matrix).sum(1).mean()
                along_x = (c1.matrix * c2.matrix).sum(1).mean()
                total += float(along_y * along_x)
        return total

    def _sum(self, image: Tensor, transpose: bool) -> Tensor:
        out = None
        for rows, columns in self.terms:
            term = columns.apply(rows.apply(image, -2, transpose), -1, transpose)
            out = term if out is None else out + term
        assert out is not None
        return out

    def _expect(self, image: Tensor, shape: tuple[int, int]) -> None:
        if tuple(image.shape[-2:]) != shape:
            raise PairError(f"expected an image of {shape} pixels, got {tuple(image.shape[-2:])}")


def _resized(matrix: npt.NDArray[np.float64], size: int, ratio: int) -> npt.NDArray[np.float64]:
    rows = size // ratio
    half = rows // 2
    upper, lower = matrix[:half], matrix[len(matrix) - (rows - half) :]
    out = np.concatenate([upper[:, :size], lower[:, matrix.shape[1] - size :]])
    # a kernel wider than half of the new image loses taps, not weight
    kept = np.where(out.sum(1, keepdims=True) == 0, 1.0, out.sum(1, keepdims=True))
    wanted = np.concatenate([upper, lower]).sum(1, keepdims=True)
    return out if np.allclose(kept, wanted) else out * (wanted / kept)


def _sizes(shape_hr: tuple[int, int], ratio: int) -> tuple[int, int]:
    if int(ratio) != ratio or ratio < 1:
        raise ResponseError(f"ratio: expected a whole number of at least 1, got {ratio}")
    for n in shape_hr:
        if n % ratio:
            raise PairError(f"size {tuple(shape_hr)} is not a multiple of the ratio {ratio}")
    return shape_hr


class SpectralResponse:
    """Spectral response R: (C, ...) to (c, ...).

    Parameters
    ----------
    matrix : array_like, shape (c, C)
        Row b holds the weight of every hyperspectral band in band b.

    Raises
    ------
    ResponseError
        If the matrix is not finite or not 2-D, or a row is empty.
    """

    def __init__(self, matrix: npt.ArrayLike) -> None:
        array = np.array(matrix, dtype=np.float64)
        if array.ndim != 2 or not np.isfinite(array).all():
            raise ResponseError(f"SRF: expected a finite matrix (c, C), got shape {array.shape}")
        if not np.abs(array).sum(1).all():
            raise ResponseError("SRF: a multispectral band has no weight on any band of the cube")
        self.matrix = array

    @property
    def bands_in(self) -> int:
        """Number of hyperspectral bands C."""
        return int(self.matrix.shape[1])

    @property
    def bands_out(self) -> int:
        """Number of multispectral bands c."""
        return int(self.matrix.shape[0])

    def tensor(self, like: Tensor) -> Tensor:
        """Return the matrix (c, C) on the device and in the type of `like`."""
        return torch.as_tensor(self.matrix).to(like.device, like.dtype)

    def forward(self, cube: Tensor) -> Tensor:
        """Z x3 R: (C, ...) to (c, ...)."""
        return torch.tensordot(self.tensor(cube), cube, dims=1)

    def adjoint(self, image: Tensor) -> Tensor:
        """Apply the transpose of :meth:`forward`: (c, ...) to (C, ...)."""
        return torch.tensordot(self.tensor(image).T, image, dims=1)
