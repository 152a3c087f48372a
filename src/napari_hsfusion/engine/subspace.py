"""Spectral subspace of a pair and the Gaussian prior of its coefficients.

The maximum-a-posteriori estimate in a subspace (Hardie, Eismann and Wilson, IEEE
TIP 13:1174, 2004; Wei, Dobigeon and Tourneret, IEEE TIP 24:4109, 2015) with a full
covariance: that is what carries detail into the directions that the
multispectral image does not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy.cluster.vq import kmeans2
from scipy.spatial import cKDTree
from torch import Tensor

from ..errors import ParameterError
from .events import CancelToken
from .observation import NormalEquations, Problem
from .workers import ALONE, Crew


def resolve_dimensions(problem: Problem, d: int | None, auto: int = 10) -> int:
    """Subspace dimensions to use; None takes `auto`, or as many as there can be.

    Parameters
    ----------
    problem : Problem
    d : int or None
    auto : int

    Raises
    ------
    ParameterError
        If `d` exceeds the bands or the valid pixels of the LR-HSI.
    """
    bands, count = problem.pixels().shape
    if d is None:
        return min(auto, bands, count)
    if d > bands:
        raise ParameterError(f"d: expected at most the {bands} bands of the LR-HSI, got {d}")
    if d > count:
        raise ParameterError(f"d: expected at most the {count} valid LR pixels, got {d}")
    return d


def signal_dimensions(problem: Problem) -> int:
    """Directions of the LR-HSI's spectra that hold more than noise.

    Eigenvalues of their second moments above those that white noise alone would have
    (Marchenko and Pastur, 1967; Kritchman and Nadler, IEEE TSP 57:3930, 2009).
    """
    spectra = problem.pixels().double()
    bands, count = spectra.shape
    values = torch.linalg.eigvalsh(spectra @ spectra.T / count)
    edge = problem.sigma_x**2 * (1 + (bands / count) ** 0.5) ** 2
    return int((values > edge).sum())


def spectral_basis(problem: Problem, d: int) -> Tensor:
    """First `d` left singular vectors of the valid LR-HSI spectra.

    Returns
    -------
    Tensor, shape (d, C)
        Orthonormal rows; each one's largest entry is positive.
    """
    spectra = problem.pixels()
    count = spectra.shape[1]
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


def _positive(matrix: Tensor, floor: float) -> Tensor:
    """Symmetric matrix with its eigenvalues raised to at least `floor`."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=floor) @ vectors.T


def octave_detail(low: Tensor) -> Tensor:
    """What an image (d, h, w) loses when its resolution is halved.

    The image less the interpolation of its 2 x 2 means; odd sides are extended by
    their last row or column first.
    """
    h, w = low.shape[-2:]
    padded = torch.nn.functional.pad(low[None], (0, w % 2, 0, h % 2), mode="replicate")
    mean = torch.nn.functional.avg_pool2d(padded, 2)
    up = torch.nn.functional.interpolate(mean, scale_factor=2, mode="bicubic", align_corners=False)
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
    flat = flat.double()
    noise = problem.sigma_x**2 * (basis @ basis.T).double()
    covariance = _positive(flat @ flat.T / flat.shape[1] - noise, covariance_floor(problem))
    precision = torch.linalg.inv(covariance).to(basis.dtype)[None]
    return GaussianPrior(problem.spatial.upsample(low), precision)


def class_prior(
    problem: Problem, basis: Tensor, classes: int, seed: int, locality: float = 0.0
) -> GaussianPrior:
    """Prior with a covariance for every class of the multispectral image.

    Classes are found by k-means on the whitened ``H(Y)`` and carried to every
    pixel of Y by the nearest centre; each covariance is that of the class's LR-HSI
    detail, shrunk towards the global one by the weight of `_SHRINK` pixels.

    Parameters
    ----------
    problem : Problem
    basis : Tensor, shape (d, C)
        Orthonormal rows.
    classes : int
        At most this many: classes without a low-resolution pixel are dropped.
    seed : int
        Of the k-means start.
    locality : float
        Weight of a pixel's place beside its spectrum: in units of the spread of the
        whitened bands, over the spread of the places. 0 leaves the place out.
    """
    low = torch.tensordot(basis, problem.x, dims=1)
    detail = octave_detail(low).flatten(1).double()
    usable = torch.ones(detail.shape[1], dtype=torch.bool, device=detail.device)
    if problem.mask_x is not None:
        usable = problem.mask_x.flatten() > 0
    detail = detail[:, usable]
    coarse = problem.spatial.forward(problem.y)
    features, fine = whiten(coarse.flatten(1)[:, usable], problem.y.flatten(1))
    if locality:
        here = places(coarse.shape)[usable.cpu().numpy()]
        features = np.concatenate([features, locality * here], axis=1)
        fine = np.concatenate([fine, locality * places(problem.y.shape)], axis=1)
    classes = min(classes, len(np.unique(features, axis=0)))
    if classes == 1:
        return gaussian_prior(problem, basis)
    centres, labels = kmeans2(
        features, classes, minit="++", seed=np.random.default_rng(seed), iter=30
    )
    kept = [k for k in range(len(centres)) if (labels == k).any()]
    overall = detail @ detail.T / detail.shape[1]
    noise = problem.sigma_x**2 * (basis @ basis.T).double()
    precisions = []
    for k in kept:
        own = detail[:, torch.as_tensor(labels == k, device=detail.device)]
        moment = (own @ own.T + _SHRINK * overall) / (own.shape[1] + _SHRINK)
        precisions.append(torch.linalg.inv(_positive(moment - noise, covariance_floor(problem))))
    nearest = cKDTree(centres[kept]).query(fine)[1]
    membership = np.eye(len(kept))[nearest].T.reshape(len(kept), *problem.y.shape[1:])
    return GaussianPrior(
        problem.spatial.upsample(low),
        torch.stack(precisions).to(basis.dtype),
        torch.as_tensor(membership).to(basis.device, basis.dtype),
    )


_SHRINK = 20.0  # low-resolution pixels; a covariance of 10 dimensions needs about as many


def whiten(coarse: Tensor, fine: Tensor) -> tuple[npt.NDArray[np.float64], ...]:
    """Rotate and scale both sets of spectra (c, n) to unit variance of the first: (n, c)."""
    a = coarse.double().cpu().numpy().T
    b = fine.double().cpu().numpy().T
    mean = a.mean(0)
    _, values, vt = np.linalg.svd(a - mean, full_matrices=False)
    spread = values / np.sqrt(len(a)) + 1e-3
    return (a - mean) @ vt.T / spread, (b - mean) @ vt.T / spread


def places(shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Rows and columns of an image (c, H, W), each of unit variance: (H W, 2)."""
    axes = [((np.arange(n) + 0.5) / n - 0.5) * np.sqrt(12) for n in shape[-2:]]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def covariance_floor(problem: Problem) -> float:
    """Smallest prior variance that is distinguishable from the noise."""
    return (0.1 * problem.sigma_x) ** 2


def class_counts(classes: int, partitions: int) -> list[int]:
    """Class counts of `partitions` partitions around `classes`; 1 stays alone."""
    if classes == 1:
        return [1]
    counts = [max(1, round(classes * factor)) for factor in _FACTORS[:partitions]]
    return list(dict.fromkeys(counts))


_FACTORS = (1.0, 0.75, 1.5, 1.25, 2.0, 0.625)


@dataclass(frozen=True)
class System:
    """Normal equations of the data terms and one prior, with their right-hand side."""

    equations: NormalEquations
    rhs: Tensor

    @classmethod
    def of(cls, problem: Problem, basis: Tensor, prior: GaussianPrior) -> System:
        """Both data terms and `prior` in the subspace of `basis`."""
        equations = NormalEquations(problem, basis, prior.precision, prior.membership)
        return cls(equations, equations.data() + equations.prior(prior.mean))

    def about(self, mean: Tensor) -> Tensor:
        """Solution for a prior of another mean (d, H, W), of the same covariances."""
        known = self.equations
        return known.solve(
            known.data() + known.prior(mean), mean, iterations=_ITERATIONS, tolerance=_NEAR
        )[0]


def solve_map(
    problem: Problem,
    basis: Tensor,
    prior: GaussianPrior,
    *,
    iterations: int = 200,
    tolerance: float = 1e-5,
) -> tuple[Tensor, System, int]:
    """Coefficients that minimise both data terms plus the prior.

    Returns
    -------
    coefficients : Tensor, shape (d, H, W)
    system : System
        For further solves in the same subspace.
    iterations : int
        Conjugate-gradient iterations taken.
    """
    system = System.of(problem, basis, prior)
    solution, taken = system.equations.solve(
        system.rhs, prior.mean, iterations=iterations, tolerance=tolerance
    )
    return solution, system, taken


def average_map(
    problem: Problem,
    basis: Tensor,
    classes: int,
    partitions: int,
    seed: int,
    cancel: CancelToken | None = None,
    locality: float = 0.0,
    crew: Crew = ALONE,
) -> tuple[Tensor, list[System]]:
    """Mean of the estimates under several partitions into classes.

    One partition draws borders that the scene does not have; the mean over
    partitions of different fineness does not depend on any of them.

    The partitions are worked out by `crew`.

    Returns
    -------
    coefficients : Tensor, shape (d, H, W)
    systems : list of System
        One a partition.
    """

    def solved(count: int) -> tuple[Tensor, System]:
        if cancel is not None:
            cancel.check()
        prior = choose_prior(problem, basis, count, seed, locality)
        solution, system, _ = solve_map(
            problem, basis, prior, iterations=_ITERATIONS, tolerance=_TOLERANCE
        )
        return solution, system

    counts = class_counts(classes, partitions)
    both = list(crew.in_order((partial(solved, count) for count in counts), len(counts)))
    return torch.stack([solution for solution, _ in both]).mean(0), [system for _, system in both]


_TOLERANCE = 1e-4  # of each of the solutions that are averaged
_NEAR = 3e-4  # of a solution that starts near its end
_ITERATIONS = 500  # most take a tenth; few bands and hardly any noise need all


def choose_prior(
    problem: Problem, basis: Tensor, classes: int, seed: int, locality: float = 0.0
) -> GaussianPrior:
    """:func:`gaussian_prior` for one class, :func:`class_prior` for more."""
    if classes == 1:
        return gaussian_prior(problem, basis)
    return class_prior(problem, basis, classes, seed, locality)
