"""The Gaussian posterior of the closed form: its covariance at every pixel, by samples.

With a fixed basis and a Gaussian prior the coefficients given both images are normal,
``N(A_map, Q^-1)``, Q the operator of the normal equations. A sample costs one solve:
noise of covariance Q takes the place of the right-hand side (perturb and MAP: Papandreou
and Yuille, NIPS 2010; Orieux, Feron and Giovannelli, IEEE SPL 19:251, 2012).

The samples are not used as they are. Given all other pixels, a pixel has the covariance
``Q_pp^-1``, and its mean varies with them; the law of total covariance adds the two, and
only the second needs samples (Siden, Lindgren, Bolin and Villani, JCGS 27:898, 2018).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .device import limited_threads, threads_for
from .events import CancelToken, Step
from .observation import NormalEquations, Problem
from .spread import STAGE, SubspaceDeviation
from .subspace import System
from .workers import ALONE, Crew
from .working_memory import DECOMPOSITIONS, LOADED, images, together

_TOLERANCE = 1e-3  # of a sample's solve: far below what a few samples leave uncertain
_ITERATIONS = 100
_APART = 1e-4  # of the partitions' solutions, of which only the differences count
_PIXELS = 4096  # whose matrices are inverted at a time


@dataclass(frozen=True)
class Posterior:
    """Equal mixture of the posteriors under several partitions of the scene.

    Attributes
    ----------
    problem : Problem
        As it was given, noise and all.
    basis : Tensor, shape (d, C)
        Orthonormal rows.
    systems : sequence of System
        One a partition; of the pair, or of what was made of it by denoising.
    mean : Tensor, shape (d, H, W)
        Mean of their solutions.
    alone : bool
        Draw one sample at a time.
    """

    problem: Problem
    basis: Tensor
    systems: Sequence[System]
    mean: Tensor
    alone: bool = False

    def deviation(
        self, samples: int, generator: torch.Generator, cancel: CancelToken
    ) -> Generator[Step, None, SubspaceDeviation]:
        """Draw `samples` samples, a step each, the partitions taking turns."""
        like = self.mean
        threads = threads_for(like.numel())
        crew = Crew.of(like.device, like.numel(), self.alone)
        count = len(self.systems)
        dimensions, *shape = like.shape
        total = like.new_zeros(dimensions, dimensions, *shape)
        weights = pixel_weights(self.problem)
        index = 0
        for k, system in enumerate(self.systems):
            cancel.check()
            with limited_threads(threads):
                local = local_covariance(system.equations, weights, crew)
                total.add_(local, alpha=1.0 / count)
                if count > 1:
                    own, _ = system.equations.solve(system.rhs, like, tolerance=_APART)
                    _add_outer(total, own - like, 1.0 / count)
            own_samples = len(range(k, samples, count))
            # the noise is drawn here, one sample after the other, whoever works them out
            draws = (
                partial(_varying_mean, system, local, system.equations.draw(generator), cancel)
                for _ in range(own_samples)
            )
            for image in crew.in_order(draws, own_samples):
                cancel.check()
                with limited_threads(threads):
                    _add_outer(total, image, 1.0 / samples)
                index += 1
                yield Step(STAGE, index, samples)
            del local
        return SubspaceDeviation(
            total,
            self.basis,
            outside_variance(self.problem, self.basis),
            outside_profile(self.problem, self.basis),
        )


def _varying_mean(system: System, local: Tensor, noise: Tensor, cancel: CancelToken) -> Tensor:
    """Mean of every pixel given all others of one sample, of which the expectation is zero.

    `noise` is what :meth:`~.observation.NormalEquations.draw` gives.
    """
    cancel.check()
    equations = system.equations
    sample, _ = equations.solve(
        noise, torch.zeros_like(noise), iterations=_ITERATIONS, tolerance=_TOLERANCE
    )
    return sample - torch.einsum("ijyx,jyx->iyx", local, equations.apply(sample))


def _add_outer(total: Tensor, image: Tensor, weight: float) -> None:
    """Add ``weight a a^T`` at every pixel of an image (d, H, W) to (d, d, H, W)."""
    total.addcmul_(image[:, None], image[None], value=weight)


def pixel_weights(problem: Problem) -> Tensor:
    """Diagonal of H^T M_x H, shape (H, W)."""
    spatial = problem.spatial
    if problem.mask_x is None:
        mask = np.ones(spatial.shape_lr)
    else:
        mask = problem.mask_x.double().cpu().numpy()
    out = np.zeros(spatial.shape_hr)
    for rows, columns in spatial.terms:
        for others, across in spatial.terms:
            out += (rows.matrix * others.matrix).T @ mask @ (columns.matrix * across.matrix)
    return torch.as_tensor(out).to(problem.x)


def local_covariance(equations: NormalEquations, weights: Tensor, crew: Crew = ALONE) -> Tensor:
    """Covariance (d, d, H, W) of every pixel given all others.

    Parameters
    ----------
    equations : NormalEquations
    weights : Tensor, shape (H, W)
        Diagonal of the LR-HSI's term, :func:`pixel_weights`.
    crew : Crew, optional
        Inverts the pixels' matrices.
    """
    like = equations.precision
    mask = equations.problem.mask_y
    seen = torch.ones_like(weights) if mask is None else mask
    gram_x, gram_y = equations.gram_x.double(), equations.gram_y.double()
    precision = equations.precision.double()
    membership = equations.membership
    shares = torch.ones_like(weights)[None] if membership is None else membership
    d = len(gram_x)
    out = like.new_empty(d, d, weights.numel())
    parts = zip(
        weights.flatten().double().split(_PIXELS),
        seen.flatten().double().split(_PIXELS),
        shares.flatten(1).double().split(_PIXELS, 1),
        out.split(_PIXELS, 2),
        strict=True,
    )

    def invert(weight: Tensor, known: Tensor, share: Tensor, place: Tensor) -> None:
        matrix = torch.tensordot(share.T, precision, dims=1)
        matrix += weight[:, None, None] * gram_x + known[:, None, None] * gram_y
        place.copy_(torch.linalg.inv(matrix).permute(1, 2, 0))

    count = math.ceil(weights.numel() / _PIXELS)
    for _ in crew.in_order((partial(invert, *part) for part in parts), count):
        pass
    return out.reshape(d, d, *weights.shape)


def outside_variance(problem: Problem, basis: Tensor) -> Tensor:
    """Mean square of what the LR-HSI has outside a subspace, beyond its noise, shape (C,)."""
    spectra = problem.pixels().double()
    e = basis.double()
    rest = spectra - e.T @ (e @ spectra)
    noise = problem.sigma_x**2 * (1.0 - e.square().sum(0))
    return (rest.square().mean(1) - noise).clamp(min=0.0).to(basis.dtype)


def outside_profile(problem: Problem, basis: Tensor) -> Tensor:
    """Where the signal outside a subspace is, shape (H, W): 1 on average, and nowhere negative.

    The residual's power in the LR-HSI over all bands, less the noise, over 3 x 3 pixels.
    """
    rest = problem.x - torch.tensordot(basis.T, torch.tensordot(basis, problem.x, dims=1), dims=1)
    power = rest.square().mean(0)
    if problem.mask_x is not None:
        power = torch.where(problem.mask_x > 0, power, power[problem.mask_x > 0].mean())
    power = power - problem.sigma_x**2 * (1.0 - len(basis) / len(problem.x))
    smooth = avg_pool2d(power[None], 3, 1, 1, count_include_pad=False)
    image = problem.spatial.upsample(smooth)[0].clamp(min=0.0)
    mean = image.mean()
    return image / mean if bool(mean > 0) else torch.ones_like(image)


def posterior_cost(
    pixels: int, d: int, bands: int, rows: int, samples: int, partitions: int = 1, cores: int = 1
) -> dict[str, float]:
    """Seconds and bytes that samples of a posterior take on a CPU.

    Parameters
    ----------
    pixels : int
        Of the HR-MSI.
    d, bands : int
        Dimensions of the subspace, bands of the LR-HSI.
    rows : int
        Of the LR-HSI.
    samples, partitions : int
    cores : int
        That draw samples at the same time.
    """
    hands = max(1, min(cores, math.ceil(samples / partitions)))  # a partition's at a time
    solve = _SOLVES * d * pixels * (2 * rows + 3 * d) / _RATE
    local = d**3 * pixels / _INVERTING
    composing = d * d * bands * pixels / _RATE
    each = images(_HELD * d, pixels)  # of the solves; that of one is counted below
    return {
        "seconds": (samples / hands + 2 * partitions) * solve
        + partitions * local / cores
        + composing,
        "bytes": LOADED
        + DECOMPOSITIONS
        + images(4 * d * d + 2 * bands + (8 + 2 * partitions) * d, pixels)
        + together(hands, each)
        - each
        + 3 * 8.0 * d * d * min(pixels, _PIXELS),
    }


_HELD = 11  # coefficient images of a solve
_SOLVES = 60  # conjugate-gradient iterations of a sample: measured
_RATE = 2e10  # multiply-adds a second on one core: measured
_INVERTING = 4e8  # entries of d x d x d a second: measured
