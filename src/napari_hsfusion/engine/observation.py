"""The pair and its responses, and the least-squares systems they define in a subspace.

With ``Z = A x3 E`` (A: d images, E: d x C) the data terms are

    ||X - H(A) x3 E||^2 / sx^2 + ||Y - A x3 (E R^T)||^2 / sy^2

and every product below costs d images, not C.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import PairError
from .noise import estimate_noise_x, estimate_noise_y
from .operators import SpatialDegradation, SpectralResponse
from .validity import BoolArray, fill_invalid, mask_of, valid_pixels


class Observation:
    """A pair of images with what is known of how they came about.

    Parameters
    ----------
    x : array_like, shape (C, h, w)
        LR-HSI; NaN where nothing was measured.
    y : array_like, shape (c, H, W)
        HR-MSI in the same radiometric unit; NaN where nothing was measured.
    spatial : SpatialDegradation
        H, from (H, W) to (h, w).
    spectral : SpectralResponse
        R, from C to c bands.
    valid_x, valid_y : array_like of bool, optional
        False where a pixel is not to be used; pixels with NaN never are.
    noise_x, noise_y : float, optional
        Standard deviations in the unit of the images; estimated when absent.
    wavelengths : array_like, shape (C,), optional
        Band centres of the LR-HSI, nm.

    Raises
    ------
    PairError
        If sizes or band counts do not fit, or nothing valid is left.
    """

    def __init__(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        spatial: SpatialDegradation,
        spectral: SpectralResponse,
        valid_x: npt.ArrayLike | None = None,
        valid_y: npt.ArrayLike | None = None,
        noise_x: float | None = None,
        noise_y: float | None = None,
        wavelengths: npt.ArrayLike | None = None,
    ) -> None:
        self.x = np.asarray(x)
        self.wavelengths = None if wavelengths is None else np.asarray(wavelengths, float)
        self.y = np.asarray(y)
        self.spatial = spatial
        self.spectral = spectral
        for name, array, bands, shape in (
            ("LR-HSI", self.x, spectral.bands_in, spatial.shape_lr),
            ("HR-MSI", self.y, spectral.bands_out, spatial.shape_hr),
        ):
            if array.ndim != 3:
                raise PairError(f"{name}: expected (band, y, x), got shape {array.shape}")
            if array.shape[0] != bands:
                raise PairError(
                    f"{name}: the SRF expects {bands} bands, the image has {array.shape[0]}"
                )
            if array.shape[1:] != shape:
                raise PairError(f"{name}: expected {shape} pixels, got {array.shape[1:]}")
        self.valid_x = valid_pixels(self.x, valid_x, "LR-HSI")
        self.valid_y = valid_pixels(self.y, valid_y, "HR-MSI")
        self.noise_x = noise_x
        self.noise_y = noise_y
        if not self.known().any():
            raise PairError("no valid pixel of the HR-MSI lies on a valid pixel of the LR-HSI")

    def known(self) -> BoolArray:
        """Pixels (H, W) that both images cover: the others stay unknown in the result."""
        ratio = self.spatial.ratio
        covered = self.valid_x.repeat(ratio, 0).repeat(ratio, 1)
        return covered & self.valid_y

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Problem:
        """Normalise the pair so that its largest value is 1, and move it to a device."""
        x = fill_invalid(self.x, self.valid_x)
        y = fill_invalid(self.y, self.valid_y)
        scale = float(max(np.abs(x).max(), np.abs(y).max()))
        if not x.any():
            raise PairError("the LR-HSI is zero everywhere: there is nothing to fuse")
        xt = torch.as_tensor(x / scale).to(device, dtype)
        yt = torch.as_tensor(y / scale).to(device, dtype)
        noise_x = self.noise_x
        noise_y = self.noise_y
        sigma_x = estimate_noise_x(x / scale, self.valid_x) if noise_x is None else noise_x / scale
        floor = NOISE_FLOOR * float(np.sqrt(np.mean((x / scale) ** 2)))
        sigma_x = max(sigma_x, floor)
        if noise_y is None:
            sigma_y = estimate_noise_y(
                x / scale,
                y / scale,
                self.spatial,
                self.spectral,
                sigma_x,
                self.valid_x,
                self.valid_y,
            )
        else:
            sigma_y = noise_y / scale
        sigma_y = max(sigma_y, floor)
        return Problem(
            x=xt,
            y=yt,
            spatial=self.spatial,
            spectral=self.spectral,
            sigma_x=sigma_x,
            sigma_y=sigma_y,
            scale=scale,
            mask_x=mask_of(self.valid_x, device, dtype),
            mask_y=mask_of(self.valid_y, device, dtype),
            wavelengths=self.wavelengths,
        )


NOISE_FLOOR = 2e-3
"""Noise, of an image's rms, that is reckoned with at least: exact data make systems singular."""


@dataclass(frozen=True)
class Problem:
    """A normalised pair on a device; values of valid pixels are at most 1.

    Attributes
    ----------
    x : Tensor, shape (C, h, w)
    y : Tensor, shape (c, H, W)
    sigma_x, sigma_y : float
        Noise standard deviations, in normalised units.
    scale : float
        Input value = normalised value * scale.
    mask_x, mask_y : Tensor or None
        1 where valid, 0 elsewhere; None when all is valid.
    wavelengths : ndarray or None
        Band centres, nm.
    """

    x: Tensor
    y: Tensor
    spatial: SpatialDegradation
    spectral: SpectralResponse
    sigma_x: float
    sigma_y: float
    scale: float
    mask_x: Tensor | None
    mask_y: Tensor | None
    wavelengths: npt.NDArray[np.float64] | None = None

    @cached_property
    def response(self) -> Tensor:
        """R as a tensor (c, C)."""
        return self.spectral.tensor(self.x)

    def residuals(self, coefficients: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """X - H(A) x3 E, shape (C, h, w), and Y - A x3 E x3 R, shape (c, H, W), masked."""
        low = self.spatial.forward(coefficients)
        rx = self.x - torch.tensordot(basis.T, low, dims=1)
        ry = self.y - torch.tensordot(self.response @ basis.T, coefficients, dims=1)
        return _masked(rx, self.mask_x), _masked(ry, self.mask_y)

    def pixels(self) -> Tensor:
        """Valid spectra of the LR-HSI, shape (C, n)."""
        flat = self.x.flatten(1)
        return flat if self.mask_x is None else flat[:, self.mask_x.flatten() > 0]


def _masked(image: Tensor, mask: Tensor | None) -> Tensor:
    return image if mask is None else image * mask


class NormalEquations:
    """Normal equations of both data terms and a Gaussian prior, in a fixed subspace.

    ``A -> H^T M_x H(A) x3 Gx + M_y A x3 Gy + P A`` with ``Gx = E E^T / sx^2``,
    ``Gy = E R^T R E^T / sy^2`` and P a pixel-wise mixture of precisions.

    Parameters
    ----------
    problem : Problem
    basis : Tensor, shape (d, C)
    precision : Tensor, shape (k, d, d)
        Prior precision matrices, symmetric positive definite.
    membership : Tensor, shape (k, H, W), or None
        Weights of the k precisions at every pixel, summing to one; None for k = 1.
    """

    def __init__(
        self, problem: Problem, basis: Tensor, precision: Tensor, membership: Tensor | None = None
    ) -> None:
        self.problem = problem
        self.basis = basis
        self.precision = precision
        self.membership = membership
        self._classes = None if membership is None else _Classes.of(membership)
        project = basis @ problem.response.T
        self.gram_x = basis @ basis.T / problem.sigma_x**2
        self.gram_y = project @ project.T / problem.sigma_y**2
        self._project = project

    def data(self) -> Tensor:
        """Right-hand side of the data terms alone, shape (d, H, W)."""
        p = self.problem
        low = torch.tensordot(self.basis, _masked(p.x, p.mask_x), dims=1) / p.sigma_x**2
        high = torch.tensordot(self._project, _masked(p.y, p.mask_y), dims=1) / p.sigma_y**2
        return p.spatial.adjoint(low) + high

    def prior(self, coefficients: Tensor) -> Tensor:
        """P A."""
        return self._pointwise(self.precision, coefficients)

    def apply(self, coefficients: Tensor, extra: Tensor | None = None) -> Tensor:
        """Apply the whole operator, plus the matrix `extra` (d, d) at every pixel."""
        p = self.problem
        low = _masked(p.spatial.forward(coefficients), p.mask_x)
        out = p.spatial.adjoint(torch.tensordot(self.gram_x, low, dims=1))
        out += _masked(torch.tensordot(self.gram_y, coefficients, dims=1), p.mask_y)
        out += self.prior(coefficients)
        if extra is not None:
            out += torch.tensordot(extra, coefficients, dims=1)
        return out

    def solve(
        self,
        rhs: Tensor,
        start: Tensor,
        *,
        extra: Tensor | None = None,
        iterations: int = 100,
        tolerance: float = 1e-5,
    ) -> tuple[Tensor, int]:
        """Preconditioned conjugate gradients (Hestenes and Stiefel, 1952).

        The preconditioner is the pixel-wise inverse of everything but the
        LR-HSI's term.

        Parameters
        ----------
        rhs, start : Tensor, shape (d, H, W)
        extra : Tensor, shape (d, d), optional
            One more precision, the same at every pixel.
        iterations : int
            At most.
        tolerance : float
            Relative residual, in the preconditioner's norm, at which it stops.

        Returns
        -------
        solution : Tensor, shape (d, H, W)
        iterations : int
            How many were taken.
        """
        local = self.precision + self.gram_y
        inverse = torch.linalg.inv(local if extra is None else local + extra)
        solution = start.clone()
        residual = self.apply(solution, extra)
        torch.sub(rhs, residual, out=residual)
        z = self._pointwise(inverse, residual)
        direction = z.clone()
        # one image for all products: the allocator keeps a hole for every one that is freed
        work = residual * z
        rz = torch.sum(work)
        limit = tolerance**2 * torch.sum(torch.mul(rhs, self._pointwise(inverse, rhs), out=work))
        taken = 0
        while taken < iterations and bool(rz > limit):
            q = self.apply(direction, extra)
            alpha = rz / torch.sum(torch.mul(direction, q, out=work))
            solution += torch.mul(alpha, direction, out=work)
            residual -= torch.mul(alpha, q, out=work)
            del q, z
            z = self._pointwise(inverse, residual)
            fresh = torch.sum(torch.mul(residual, z, out=work))
            direction *= fresh / rz
            direction += z
            rz = fresh
            taken += 1
        return solution, taken

    def draw(self, generator: torch.Generator) -> Tensor:
        """Normal noise (d, H, W) of mean zero whose covariance is this operator.

        :meth:`solve` makes of it a sample with the operator's inverse as covariance.

        Parameters
        ----------
        generator : torch.Generator
            On the CPU, so that every device gets the same noise.
        """
        p = self.problem
        shape = (len(self.basis), *p.y.shape[1:])

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=p.y.dtype).to(p.y.device)

        low = _masked(normal(len(self.basis), *p.x.shape[1:]), p.mask_x)
        out = p.spatial.adjoint(torch.tensordot(_root(self.gram_x), low, dims=1))
        high = _masked(normal(*p.y.shape), p.mask_y)
        out += torch.tensordot(self._project, high, dims=1) / p.sigma_y
        roots = _root(self.precision)
        if self.membership is None or self._classes is not None:
            return out + self._pointwise(roots, normal(*shape))
        for root, share in zip(roots, self.membership, strict=True):
            out += torch.tensordot(root, normal(*shape), dims=1) * share.sqrt()
        return out

    def _pointwise(self, matrices: Tensor, image: Tensor) -> Tensor:
        if self.membership is None:
            return torch.tensordot(matrices[0], image, dims=1)
        if self._classes is not None:
            return self._classes.multiply(matrices, image)
        out = torch.zeros_like(image)
        for matrix, weight in zip(matrices, self.membership, strict=True):
            out += torch.tensordot(matrix, image, dims=1) * weight
        return out


def _root(matrix: Tensor) -> Tensor:
    """L of L L^T, positive definite matrices (..., d, d), found in double precision."""
    return torch.linalg.cholesky(matrix.double()).to(matrix.dtype)


@dataclass(frozen=True)
class _Classes:
    """Pixels by their class, where every pixel has one: a matrix then meets its own alone."""

    order: Tensor
    back: Tensor
    counts: list[int]

    @classmethod
    def of(cls, membership: Tensor) -> _Classes | None:
        """Classes of a membership (k, H, W); None where a pixel has several."""
        label = membership.argmax(0)
        if not bool((membership.amax(0) == 1).all() and (membership.sum(0) == 1).all()):
            return None
        order = label.flatten().argsort(stable=True)
        counts = torch.bincount(label.flatten(), minlength=len(membership))
        return cls(order, order.argsort(), counts.tolist())

    def multiply(self, matrices: Tensor, image: Tensor) -> Tensor:
        """Multiply every pixel of an image (d, H, W) by its class's matrix (k, d, d)."""
        parts = image.flatten(1).index_select(1, self.order).split(self.counts, 1)
        done = torch.cat([m @ part for m, part in zip(matrices, parts, strict=True)], 1)
        return done.index_select(1, self.back).reshape(image.shape)
