"""Agreement of a network's cube with both images of the pair.

The cube becomes the prior mean of the closed form in a spectral subspace (Hardie,
Eismann and Wilson, IEEE TIP 13:1174, 2004): what is added to it is the change, in the
first singular vectors of the LR-HSI, that both data terms and the covariance of the
scene's detail agree on.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..device import limited_threads, threads_for
from ..observation import Problem
from ..subspace import GaussianPrior, System, choose_prior, octave_detail, spectral_basis

_DIMENSIONS = 16
_CLASSES = 8
_TOLERANCE = 1e-3
_ITERATIONS = 200
_LEAST_DOUBT = 1e-4


def misfits(problem: Problem, cube: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals X - H(Z), shape (C, h, w), and Y - Z x3 R, shape (c, H, W)."""
    low = problem.x - problem.spatial.forward(cube)
    high = problem.y - torch.tensordot(problem.response, cube, dims=1)
    return low, high


def misfit_levels(problem: Problem, cube: Tensor) -> dict[str, float]:
    """Root mean squares of both residuals over valid pixels, in input units."""
    out = {}
    pairs = zip(("lr_hsi", "hr_msi"), misfits(problem, cube), strict=True)
    for (name, residual), mask in zip(pairs, (problem.mask_x, problem.mask_y), strict=True):
        values = residual if mask is None else residual[:, mask > 0]
        out[name] = float(values.double().square().mean().sqrt()) * problem.scale
    return out


def make_consistent(
    problem: Problem, cube: Tensor, seed: int, generator: torch.Generator | None = None
) -> Tensor:
    """Change a cube as little as the pair demands.

    Its errors are taken to be shaped like the scene's detail, and as large as its misfit
    to the pair exceeds the noise: a cube that fits already is left alone.

    Parameters
    ----------
    problem : Problem
    cube : Tensor, shape (C, H, W)
        Normalised values.
    seed : int
        Of the classes of the HR-MSI.
    generator : torch.Generator, optional
        Draw the change from its normal posterior, in place of taking the most likely one.

    Returns
    -------
    Tensor, shape (C, H, W)
        A new cube.
    """
    basis = spectral_basis(problem, min(_DIMENSIONS, *problem.pixels().shape))
    low, high = misfits(problem, cube)
    left = dataclasses.replace(problem, x=low, y=high)
    with limited_threads(threads_for(basis.shape[0] * high[0].numel())):
        prior = choose_prior(problem, basis, _CLASSES, seed)
        nothing = torch.zeros_like(prior.mean)
        doubt = _doubt(left, problem, basis)
        prior = GaussianPrior(nothing, prior.precision / doubt, prior.membership)
        system = System.of(left, basis, prior)
        wanted = system.rhs
        if generator is not None:
            wanted = wanted + system.equations.draw(generator)
        change, _ = system.equations.solve(
            wanted, prior.mean, iterations=_ITERATIONS, tolerance=_TOLERANCE
        )
        return cube + torch.tensordot(basis.T, change, dims=1)


def _doubt(left: Problem, problem: Problem, basis: Tensor) -> float:
    """Variance of the cube's errors, as a share of the variance of the scene's detail."""
    low = torch.tensordot(basis, problem.x, dims=1)
    detail = octave_detail(low)
    seen = torch.tensordot(problem.response @ basis.T, detail, dims=1)
    excess = _power(torch.tensordot(basis, left.x, dims=1), left.mask_x) - left.sigma_x**2
    coarse = excess / _power(detail, left.mask_x)
    fine = (_power(left.y, left.mask_y) - left.sigma_y**2) / _power(seen, left.mask_x)
    return float(min(1.0, max(_LEAST_DOUBT, coarse, fine)))


def _power(image: Tensor, mask: Tensor | None) -> float:
    values = image if mask is None else image[:, mask > 0]
    return max(float(values.double().square().mean()), 1e-30)
