"""Maximum-a-posteriori estimate in a spectral subspace: the instant method.

Hardie, Eismann and Wilson (IEEE TIP 13:1174, 2004); Wei, Dobigeon and Tourneret
(IEEE TIP 24:4109, 2015).
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor

from ...params import SUBSPACE_PRESETS, SubspaceParams
from .. import working_memory as memory
from ..calibration import CalibratedSampling
from ..device import limited_threads, threads_for
from ..events import Event, Preview, Started, Step
from ..memory import Economy
from ..observation import Problem
from ..posterior import Posterior, posterior_cost
from ..subspace import System, choose_prior, resolve_dimensions, solve_map, spectral_basis
from ..workers import workers
from ..working_memory import Sizes
from .base import Context, Method, Outcome, Shape


def _run(
    problem: Problem, params: SubspaceParams, context: Context
) -> Generator[Event, None, Outcome]:
    yield Started("subspace", {"prior": 1, "solve": 1})
    basis = spectral_basis(problem, resolve_dimensions(problem, params.d))
    prior = choose_prior(problem, basis, params.classes, context.seed)
    yield Step("prior", 1, 1)
    yield Preview("prior", 1, 1, prior.mean, basis, problem.scale)
    context.cancel.check()
    with limited_threads(threads_for(basis.shape[0] * problem.y[0].numel())):
        coefficients, system, taken = solve_map(
            problem, basis, prior, iterations=params.iterations, tolerance=params.tolerance
        )
    yield Step("solve", 1, 1)
    yield Preview("solve", 1, 1, coefficients, basis, problem.scale)

    def closed(trial: Problem) -> tuple[Tensor, list[System]]:
        prior = choose_prior(trial, basis, params.classes, context.seed)
        mean, system, _ = solve_map(trial, basis, prior)
        return mean, [system]

    posterior = Posterior(problem, basis, [system], coefficients)
    return Outcome(
        coefficients,
        basis,
        {"dimensions": len(basis), "iterations": taken},
        sampling=CalibratedSampling(posterior, closed),
    )


def _estimate(
    x_shape: Shape, y_shape: Shape, params: SubspaceParams, device: torch.device
) -> dict[str, float]:
    sizes = Sizes.of(x_shape, y_shape)
    classes = params.classes
    d = params.d or min(10, sizes.bands)
    solving = memory.solving(sizes, d)  # the right-hand side of one system is among its images
    if classes > 1:
        solving += memory.systems(sizes, 0, [classes])
    stages = memory.preparing(sizes), solving, memory.composing(sizes, d)
    always = memory.LOADED + memory.DECOMPOSITIONS + memory.pair(sizes)
    return {
        "seconds": 1e-8 * sizes.pixels * (d**2 * 3 * classes + sizes.bands),
        "bytes": always + max(*stages, memory.classing(sizes, classes)),
    }


def _sampling(
    x_shape: Shape,
    y_shape: Shape,
    params: SubspaceParams,
    device: torch.device,
    samples: int,
    economy: Economy,
) -> dict[str, float]:
    d = params.d or min(10, x_shape[0])
    pixels = y_shape[1] * y_shape[2]
    return posterior_cost(pixels, d, x_shape[0], x_shape[1], samples, cores=workers(device))


METHOD = Method(
    name="subspace",
    title="Subspace MAP",
    description=(
        "Closed-form Bayesian estimate in the singular vectors of the LR-HSI, with a full "
        "covariance of the spatial detail; seconds at most."
    ),
    params=SubspaceParams,
    presets=SUBSPACE_PRESETS,
    default_preset="default",
    runner=_run,
    estimator=_estimate,
    sampling_estimator=_sampling,
)
