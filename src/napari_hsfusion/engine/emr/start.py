"""What the chain of EMR-Diff starts from, and what guides it: the LR-HSI at full size."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import WeightsError
from ..device import limited_threads, threads_for
from ..observation import Problem
from ..subspace import GaussianPrior, choose_prior, gaussian_prior, solve_map, spectral_basis
from .config import STARTS

_DIMENSIONS = 16
_CLASSES = 8
_TOLERANCE = 1e-3  # on the way: the network and the consistency step go on from here


def start_estimate(
    problem: Problem, kind: str, seed: int = 0, scene: Problem | None = None
) -> Tensor:
    """Bring the LR-HSI to the size of the HR-MSI.

    Parameters
    ----------
    problem : Problem
    kind : {"bicubic", "subspace"}
        Interpolation, as published; or the closed-form estimate in a spectral subspace
        with a covariance for every class of the HR-MSI, which has the detail of the
        HR-MSI already, so that the network only mends it.
    seed : int
        Of the classes.
    scene : Problem, optional
        The pair that `problem` was degraded from: too small to tell its own subspace and
        covariance, `problem` borrows them there.

    Returns
    -------
    Tensor, shape (C, H, W)

    Raises
    ------
    WeightsError
        If the kind is unknown.
    """
    if kind == "bicubic":
        return problem.spatial.upsample(problem.x)
    if kind != "subspace":
        raise WeightsError(f"start: expected one of {', '.join(STARTS)}, got {kind!r}")
    known = problem if scene is None else scene
    dimensions = min(_DIMENSIONS, *known.pixels().shape)
    basis = spectral_basis(known, dimensions)
    with limited_threads(threads_for(dimensions * problem.y[0].numel())):
        if scene is None:
            prior = choose_prior(problem, basis, _CLASSES, seed)
        else:
            mean = problem.spatial.upsample(torch.tensordot(basis, problem.x, dims=1))
            prior = GaussianPrior(mean, gaussian_prior(scene, basis).precision)
        coefficients, _, _ = solve_map(problem, basis, prior, tolerance=_TOLERANCE)
        return torch.tensordot(basis.T, coefficients, dims=1)
