"""What a run will cost, from operation counts, before it starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..params import ArgsDiffParams
from . import working_memory as memory
from .denoise import patch_strips
from .device import threads_for
from .memory import PLAIN, Economy
from .nets.build import spatial_work, spectral_work
from .noise_prediction import SMALL_WORK
from .regression import AT_ONCE, COSINES, MOST_PIXELS
from .subspace import class_counts
from .workers import workers
from .working_memory import Sizes

# Multiply-adds a second that the networks reach: measured, orders of magnitude.
_CPU_RATE_PER_THREAD = 1.0e10
_CUDA_RATE = 1.0e13
_TYPICAL = 14  # dimensions that are chosen from the data
_SOLVE = 40  # conjugate-gradient iterations of a closed form
_COSINE = 180  # multiply-adds that a value of a cosine image costs, made and summed twice
_DECOMPOSED = 6  # and an entry of the cube of a decomposed matrix's side
_STEP_OVERHEAD = 5e-4  # seconds a step of a network too small to fill the machine


def args_diff_cost(
    x_shape: Sequence[int],
    y_shape: Sequence[int],
    params: ArgsDiffParams,
    device: torch.device | None = None,
    train: bool = True,
    economy: Economy = PLAIN,
) -> dict[str, float]:
    """Seconds and bytes that a run of ARGS-Diff is expected to take.

    Parameters
    ----------
    x_shape : (C, h, w)
    y_shape : (c, H, W)
    params : ArgsDiffParams
    device : torch.device, optional
        The CPU by default.
    train : bool
        Whether the networks are trained, and not loaded.
    economy : Economy
        What is done to need less memory.

    Returns
    -------
    dict
        ``seconds`` in all, ``training_seconds``, ``sampling_seconds``, and ``bytes``
        of working memory.
    """
    device = device or torch.device("cpu")
    rate = _CUDA_RATE if device.type == "cuda" else _CPU_RATE_PER_THREAD
    bands, h, w = x_shape
    msi, height, width = y_shape
    d = params.d or min(_TYPICAL, bands)
    params = replace(params, d=d)
    pixels = height * width
    threads = workers(device)
    cores = 1 if economy.alone else threads
    side = min(params.spatial_patch, height) * min(params.spatial_patch, width)
    step = 3 * params.spatial_batch * spatial_work(params, side)
    training = params.spatial_steps * step / (1 if step < SMALL_WORK else threads)
    forward = spatial_work(params, pixels)
    if params.sampler == "published":
        step = 3 * params.spectral_batch * spectral_work(bands)
        training += params.spectral_steps * (step + _STEP_OVERHEAD * rate)
        passes = 3 if params.gradient == "network" else 1
        data = d * (4 * pixels * (h + msi) + 6 * bands * h * w)
        sampling = params.T * (passes * forward + data) / threads
    else:
        data = d * pixels * (2 * h + d * 3 + 2 * msi)
        # parts that are worked out at the same time, on as many cores as there are of them
        closed = _shared(params.partitions * _SOLVE * data, params.partitions, cores)
        if params.denoise:
            size = 9 * msi  # of a patch
            denoised = 2 * pixels / 9 * (200 * size**2 + 40 * size**3)
            closed += _shared(denoised, patch_strips(height, width), cores)
        low = h * w  # pixels of the LR-HSI, which is what is fused in the trial one octave down
        both = _regression(pixels, low) + _regression(low, low // 4)
        closed += _shared(params.regressions * both, params.regressions, cores)
        solves = params.partitions * params.iterations * (2 if params.weight is None else 1)
        learnt = 0.0 if params.weight == 0 else params.levels * (forward + solves * data)
        training = training if learnt else 0
        if device.type == "cpu":
            threads = threads_for(d * pixels) or threads
        sampling = closed + learnt / threads
    if not train:
        training = 0.0
    return {
        "seconds": (training + sampling) / rate,
        "training_seconds": training / rate,
        "sampling_seconds": sampling / rate,
        "bytes": args_diff_bytes(Sizes.of(x_shape, y_shape), params, train, economy, cores),
    }


def _shared(work: float, tasks: int, cores: int) -> float:
    """What of the work of so many equal tasks the busiest core has."""
    return work / tasks * math.ceil(tasks / cores) if tasks else 0.0


def _regression(pixels: int, samples: int) -> float:
    """Multiply-adds of a regression: its cosine images, and the ridge's decomposition."""
    return _COSINE * COSINES * pixels + _DECOMPOSED * min(COSINES, samples, MOST_PIXELS) ** 3


def args_diff_bytes(
    sizes: Sizes, params: ArgsDiffParams, train: bool, economy: Economy, cores: int = 1
) -> float:
    """Working memory of a run of ARGS-Diff whose dimensions are settled.

    Parameters
    ----------
    sizes : Sizes
    params : ArgsDiffParams
    train : bool
        Whether the networks are trained, and not loaded.
    economy : Economy
    cores : int
        That work out partitions, regressions and strips at the same time.
    """
    d = params.dimensions
    published = params.sampler == "published"
    learnt = published or params.weight != 0
    always = memory.LOADED + memory.DECOMPOSITIONS + memory.pair(sizes)
    stages = [memory.preparing(sizes), memory.composing(sizes, d)]
    if not published:
        counts = class_counts(params.classes, params.partitions)
        kept = memory.systems(sizes, d, counts)
        solutions = memory.images(d * len(counts), sizes.pixels)
        solving = memory.solving(sizes, d)
        if params.denoise:
            strips = patch_strips(sizes.high[0], sizes.high[1])
            stages.append(memory.denoising(sizes, min(cores, strips)))
        each = max(solving, memory.classing(sizes, max(counts)))
        stages.append(kept + solutions + memory.together(min(cores, len(counts)), each))
        kept += memory.images(2 * d, sizes.pixels)
        if params.regressions:
            one = memory.regressing(sizes, COSINES, AT_ONCE, MOST_PIXELS)
            stages.append(kept + memory.together(min(cores, params.regressions), one))
    else:
        kept = 0.0
    if learnt:
        stages += _learnt_stages(sizes, params, train, economy, kept)
        always += memory.OPTIMISER if train else 0.0
    return always + max(stages)


def _learnt_stages(
    sizes: Sizes, params: ArgsDiffParams, train: bool, economy: Economy, kept: float
) -> list[float]:
    """Training of the networks, and sampling with them, each with what is kept before."""
    d, base = params.dimensions, params.spatial_base
    shape = params.spatial_levels, params.spatial_blocks
    weights = memory.weight_count(d, base, *shape)
    stages = []
    if train:
        height, width = (min(params.spatial_patch, side) for side in sizes.high)
        pixels = -(-params.spatial_batch // economy.parts) * height * width
        held = memory.kept_images(*shape, frozen=False)
        stages.append(kept + memory.training(weights, held, base, pixels))
    own = 4.0 * weights
    if params.sampler == "published":
        spectral = memory.spectral_weights(sizes.bands)
        own += 4.0 * spectral
        if train:
            stages.append(own + 6 * 4.0 * spectral)
        own += memory.images(10 * d + sizes.msi, sizes.pixels)
        own += memory.images(2 * sizes.bands, sizes.coarse)
    else:
        own += memory.solving(sizes, d)
    images = memory.FORWARD
    if params.sampler == "published" and params.gradient == "network":
        back = memory.kept_images(*shape, frozen=True, again=economy.recompute)
        images = max(images, back + memory.TRANSIENT)
    stages.append(kept + own + memory.images(images * base, sizes.pixels))
    return stages
