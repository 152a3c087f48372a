"""Spectral subspace of a pair and the Gaussian prior of its coefficients.

The maximum-a-posteriori estimate in a subspace (Hardie, Eismann and Wilson, IEEE
TIP 13:1174, 2004; Wei, Dobigeon and Tourneret, IEEE TIP 24:4109, 2015) with a full
covariance: that is what carries detail into the directions that the
multispectral image does not see.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ParameterError
from .observation import NormalEquations, Problem


def spectral_basis(problem: Problem, d: int) -> Tensor:
    """First `d` left singular vectors of the valid LR-HSI spectra.

    Returns
    -------
    Tensor, shape (d, C)
        Orthonormal rows; each one's largest entry is positive.

    Raises
    ------
    ParameterError
        If `d` exceeds the bands or the valid pixels.
    """
    spectra = problem.pixels()
    bands, count = spectra.shape
    if d > bands:
        raise ParameterError(f"d: expected at most the {bands} bands of the LR-HSI, got {d}")
    if d > count:
        raise ParameterError(f"d: expected at most the {count} valid LR pixels, got {d}")
    second = (spectra.double() @ spectra.double().T) / count
    vectors = torch.linalg.eigh(second).eigenvectors.flip(1)[:, :d].T
    peak = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return (vectors * torch.sign(peak)).to(spectra.dtype)


@dataclass(frozen=True)
class GaussianPrior:
    """Gaussian prior of the coefficients: A ~ N(mean, sum_k m_k(p) Sigma_k) at pixel p.

    Attributes
    ----------
    mean : Tensor, shape (d, H, W)
    precision : Tensor, shape (k, d, d)
    membership : Tensor, shape (k, H, W), or None
    """

    mean: Tensor
    precision: Tensor
    membership: Tensor | None = None


def detail_covariance(detail: Tensor, noise: Tensor, floor: float) -> Tensor:
    """Second moment of `detail` (d, n) less the noise covariance, kept positive.

    Eigenvalues below `floor` are raised to it.
    """
    moment = detail.double() @ detail.double().T / max(detail.shape[1], 1)
    values, vectors = torch.linalg.eigh(moment - noise.double())
    return vectors * values.clamp(min=floor) @ vectors.T


def octave_detail(low: Tensor) -> Tensor:
    """What an image (d, h, w) loses when its resolution is halved.

    The image less the interpolation of its 2 x 2 means; odd sides are extended by
    their last row or column first.
    """
    h, w = low.shape[-2:]
    padded = torch.nn.functional.pad(low[None], (0, w % 2, 0, h % 2), mode="replicate")
    mean = torch.nn.functional.avg_pool2d(padded, 2)
    up = torch.nn.functional.interpolate(
        mean, scale_factor=2, mode="bicubic", align_corners=False
    )
    return (low - up[0, :, :h, :w]).contiguous()


def gaussian_prior(problem: Problem, basis: Tensor) -> GaussianPrior:
    """Prior with one covariance: that of the LR-HSI's detail one octave down.

    Parameters
    ----------
    problem : Problem
    basis : Tensor, shape (d, C)
        Orthonormal rows.
    """
    low = torch.tensordot(basis, problem.x, dims=1)
    detail = octave_detail(low)
    flat = detail.flatten(1)
    if problem.mask_x is not None:
        flat = flat[:, problem.mask_x.flatten() > 0]
    noise = problem.sigma_x**2 * (basis @ basis.T)
    covariance = detail_covariance(flat, noise, covariance_floor(problem))
    precision = torch.linalg.inv(covariance).to(basis.dtype)[None]
    return GaussianPrior(problem.spatial.upsample(low), precision)


def covariance_floor(problem: Problem) -> float:
    """Smallest prior variance that is distinguishable from the noise."""
    return (0.1 * problem.sigma_x) ** 2


def solve_map(
    problem: Problem,
    basis: Tensor,
    prior: GaussianPrior,
    *,
    iterations: int = 200,
    tolerance: float = 1e-5,
) -> tuple[Tensor, NormalEquations, int]:
    """Coefficients that minimise both data terms plus the prior.

    Returns
    -------
    coefficients : Tensor, shape (d, H, W)
    equations : NormalEquations
        For further solves in the same subspace.
    iterations : int
        Conjugate-gradient iterations taken.
    """
    equations = NormalEquations(problem, basis, prior.precision, prior.membership)
    rhs = equations.data() + equations.prior(prior.mean)
    solution, taken = equations.solve(
        rhs, prior.mean, iterations=iterations, tolerance=tolerance
    )
    return solution, equations, taken
