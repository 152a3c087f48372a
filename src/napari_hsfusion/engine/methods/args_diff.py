"""ARGS-Diff: self-learning hyperspectral and multispectral fusion by subspace diffusion.

Zhu et al., "Self-Learning Hyperspectral and Multispectral Image Fusion via Adaptive
Residual Guided Subspace Diffusion Model", CVPR 2025. Preset ``paper`` is the
published method with its published budget; ``balanced`` and ``fast`` start from
estimates that need no training (:mod:`..closed_form`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...errors import ParameterError
from ...params import ARGS_DIFF_PRESETS, ArgsDiffParams
from ..calibration import CalibratedSampling
from ..checkpoint import has_networks
from ..cleaning import clean_pair, with_noise
from ..closed_form import blind_share, estimate_stages, estimates, share_of_regression
from ..cost import args_diff_cost
from ..device import limited_threads, threads_for
from ..diffusion.proximal import BandView, Denoiser, proximal_steps
from ..diffusion.published import sample_published
from ..events import Event, Preview, Started, Step
from ..memory import PLAIN, Economy
from ..nets.build import spatial_work
from ..nets.recompute import recomputed
from ..noise_prediction import SMALL_WORK
from ..observation import Problem
from ..posterior import Posterior, posterior_cost
from ..precision import sampling_precision
from ..selflearning import networks_cached, obtain_networks
from ..spread import drained, spread_of_runs
from ..subspace import System, resolve_dimensions, signal_dimensions, spectral_basis
from ..validation import WEIGHTS, choose_weight, half_scale
from ..workers import Crew, workers
from .base import Context, Method, Outcome, Shape


def _settled(problem: Problem, params: ArgsDiffParams, device: torch.device) -> ArgsDiffParams:
    """Dimensions that hold more than noise, and the device's number format."""
    told = with_noise(problem, params.noise_x, params.noise_y)
    auto = max(_FEWEST, min(_MOST, signal_dimensions(told)))
    return replace(
        params,
        d=resolve_dimensions(problem, params.d, auto),
        precision=sampling_precision(params.precision, device),
    )


def _run(
    problem: Problem, params: ArgsDiffParams, context: Context
) -> Generator[Event, None, Outcome]:
    if params.sampler == "published":
        return (yield from _published(problem, params, context))
    return (yield from _proximal(problem, params, context))


def _published(
    problem: Problem, params: ArgsDiffParams, context: Context
) -> Generator[Event, None, Outcome]:
    train = not _saved(context)
    stages = {"sample": params.T}
    if train:
        stages = {
            "train spatial network": params.spatial_steps,
            "train spectral network": params.spectral_steps,
            **stages,
        }
    train = train and not networks_cached(problem, params, **_order(params, context, True))
    yield Started("args-diff", stages, _cost(problem, params, context, train))
    spatial, spectral, origin = yield from _networks(problem, params, context, True)
    assert spectral is not None
    if context.economy.recompute:
        spatial = recomputed(spatial)
    # a stream of its own: the noise is the same whether the networks are new or loaded
    generator = torch.Generator().manual_seed((context.seed + _STREAM) % 2**63)
    work = 3 * spatial_work(params, problem.y[0].numel())
    threads = 1 if work < SMALL_WORK else None
    coefficients, basis, sampled = yield from sample_published(
        problem, spatial, spectral, params, generator, context.cancel, threads
    )
    record = {"dimensions": params.dimensions, **origin, **sampled}

    def draw(noise: torch.Generator) -> Tensor:
        run = sample_published(problem, spatial, spectral, params, noise, context.cancel, threads)
        a, e, _ = drained(run)
        return torch.tensordot(e.T, a, dims=1).clamp_(*_LIMITS)

    sampling = partial(spread_of_runs, draw)
    return Outcome(coefficients, basis, record, limits=_LIMITS, sampling=sampling)


def _proximal(
    problem: Problem, params: ArgsDiffParams, context: Context
) -> Generator[Event, None, Outcome]:
    problem = with_noise(problem, params.noise_x, params.noise_y)
    if params.weight == 0 and context.networks is not None:
        raise ParameterError("networks has no effect with weight=0: no network is trained or used")
    trial = half_scale(problem) if params.weight is None or params.regressions else None
    weigh = params.weight is None and trial is not None
    learnt = weigh or bool(params.weight)
    train = learnt and not _saved(context)
    stages = {"denoise": 1} if params.denoise else {}
    pairs = 1 if trial is None else 2
    stages |= estimate_stages(params, pairs)
    if train:
        stages["train spatial network"] = params.spatial_steps
    if weigh:
        stages["weigh prior"] = len(WEIGHTS)
    if learnt:
        stages["sample"] = params.levels
    train = train and not networks_cached(problem, params, **_order(params, context, False))
    yield Started("args-diff", stages, _cost(problem, params, context, train))
    basis = spectral_basis(problem, params.dimensions)
    values = params.dimensions * problem.y[0].numel()
    threads = threads_for(values)
    crew = Crew.of(context.device, values, context.economy.alone)
    record: dict[str, Any] = {
        "dimensions": params.dimensions,
        "prior_weight": 0.0,
        "noise_x": problem.sigma_x * problem.scale,
        "noise_y": problem.sigma_y * problem.scale,
    }
    given, told = problem, params.noise_y is not None
    if params.denoise:
        with limited_threads(threads):
            problem, taken = clean_pair(problem, basis, context.cancel, told, crew)
        record |= {name: level * problem.scale for name, level in taken.items()}
        trial = None if trial is None else half_scale(problem)
        yield Step("denoise", 1, 1)
    both = partial(
        estimates,
        basis=basis,
        params=params,
        seed=context.seed,
        cancel=context.cancel,
        crew=crew,
        pairs=pairs,
    )
    found = yield from both(problem)
    share = blind_share(problem) if params.regressions else 0.0
    if trial is not None:
        below = yield from both(trial, pair=1)
        share = share_of_regression(problem, trial, below, basis)
    start = found.mean(share)
    record["regression_share"] = share
    yield Preview("closed form", pairs, pairs, start, basis, problem.scale)

    def closed(pair: Problem) -> tuple[Tensor, list[System]]:
        if params.denoise:
            pair, _ = clean_pair(pair, basis, context.cancel, told, crew)
        made = drained(both(pair))
        return made.mean(share), made.systems

    sampling = CalibratedSampling(
        Posterior(given, basis, found.systems, start, context.economy.alone), closed
    )
    if not learnt:
        return Outcome(start, basis, record, sampling=sampling)
    network, _, origin = yield from _networks(problem, params, context, False)
    denoiser = Denoiser(network, precision=params.precision)
    weight = params.weight
    if weigh:
        assert trial is not None
        weight = yield from choose_weight(
            problem,
            trial,
            basis,
            below.mean(share),
            below.systems,
            denoiser,
            params,
            context.cancel,
            threads,
        )
    assert weight is not None
    coefficients: Tensor = start
    steps = proximal_steps(
        found.systems,
        start,
        BandView.choose(basis, start),
        denoiser,
        weight=weight,
        levels=params.levels,
        high=params.sigma_high,
        low=params.sigma_low,
        iterations=params.iterations,
    )
    for index in range(1, params.levels + 1):
        context.cancel.check()
        with limited_threads(threads):
            coefficients, proposal = next(steps)
        moved = torch.linalg.vector_norm(proposal - coefficients)
        loss = float(moved / torch.linalg.vector_norm(coefficients))
        yield Step("sample", index, params.levels, loss)
        yield Preview("sample", index, params.levels, coefficients, basis, problem.scale)
    record |= {**origin, "prior_weight": weight, "sampling_precision": params.precision}
    return Outcome(coefficients, basis, record, sampling=sampling)


def _saved(context: Context) -> bool:
    return context.networks is not None and has_networks(context.networks)


def _order(params: ArgsDiffParams, context: Context, spectral: bool) -> dict[str, Any]:
    """Which networks a run asks for, besides pair and parameters.

    Those of this process are found by the images that they saw: before these are denoised,
    networks of denoised ones are not.
    """
    return {
        "spectral": spectral,
        "highest": None if spectral else _MARGIN * params.sigma_high,
        "seed": context.seed,
        "device": context.device,
        "dtype": context.dtype,
        "parts": context.economy.parts,
    }


def _cost(
    problem: Problem, params: ArgsDiffParams, context: Context, train: bool
) -> dict[str, float]:
    return args_diff_cost(
        problem.x.shape, problem.y.shape, params, context.device, train, context.economy
    )


def _networks(
    problem: Problem, params: ArgsDiffParams, context: Context, spectral: bool
) -> Generator[Step, None, tuple[torch.nn.Module, torch.nn.Module | None, dict[str, Any]]]:
    order = _order(params, context, spectral)
    return obtain_networks(problem, params, folder=context.networks, cancel=context.cancel, **order)


def _economies(params: ArgsDiffParams) -> Sequence[Economy]:
    """Parts of stages one by one, training batches in parts, less kept for the way back."""
    published = params.sampler == "published"
    parts = [2**k for k in range(params.spatial_batch.bit_length())]
    if published:
        back = (False, True) if params.gradient == "network" else (False,)
        return [Economy(count, again) for again in back for count in parts]
    several = torch.get_num_threads() > 1
    rungs = [PLAIN, Economy(alone=True)] if several else [PLAIN]
    if params.weight != 0:
        rungs += [Economy(count, alone=several) for count in parts[1:]]
    return rungs


def _sampling_cost(
    x_shape: Shape,
    y_shape: Shape,
    params: ArgsDiffParams,
    device: torch.device,
    samples: int,
    economy: Economy,
) -> dict[str, float]:
    if params.sampler == "published":
        cost = args_diff_cost(x_shape, y_shape, params, device, False, economy)
        cubes = 4 * 4.0 * x_shape[0] * y_shape[1] * y_shape[2]
        return {"seconds": samples * cost["sampling_seconds"], "bytes": cost["bytes"] + cubes}
    d = params.d or min(_MOST, x_shape[0])
    pixels = y_shape[1] * y_shape[2]
    cores = 1 if economy.alone else workers(device)
    return posterior_cost(pixels, d, x_shape[0], x_shape[1], samples, params.partitions, cores)


_FEWEST, _MOST = 8, 16  # dimensions that are chosen by themselves
_LIMITS = (0.0, 1.0)  # of the published sampler's cube
_STREAM = 0x5EED
_MARGIN = 2.0  # the network is trained to twice the noise it will be asked to remove


METHOD = Method(
    name="args-diff",
    title="ARGS-Diff",
    description=(
        "Trains small diffusion networks on the pair itself, then samples the coefficients of a "
        "spectral subspace under the guidance of both images (CVPR 2025)."
    ),
    params=ArgsDiffParams,
    presets=ARGS_DIFF_PRESETS,
    default_preset="balanced",
    trains=True,
    runner=_run,
    estimator=args_diff_cost,
    sampling_estimator=_sampling_cost,
    economies=_economies,
    settled=_settled,
)
