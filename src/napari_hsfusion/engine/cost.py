"""What a run will cost, from operation counts, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..params import ArgsDiffParams
from .device import threads_for
from .memory import PLAIN, Economy
from .nets.build import spatial_work, spectral_work
from .noise_prediction import SMALL_WORK

# Multiply-adds a second that the networks reach: measured, orders of magnitude.
_CPU_RATE_PER_THREAD = 1.0e10
_CUDA_RATE = 1.0e13
_TYPICAL = 14  # dimensions that are chosen from the data
_SOLVE = 40  # conjugate-gradient iterations of a closed form
_BUFFERS = 6e7  # bytes: libraries loaded on the way, strips; as much again for a training
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
    threads = 1 if device.type == "cuda" else torch.get_num_threads()
    side = min(params.spatial_patch, height) * min(params.spatial_patch, width)
    step = 3 * params.spatial_batch * spatial_work(params, side)
    training = params.spatial_steps * step / (1 if step < SMALL_WORK else threads)
    forward = spatial_work(params, pixels)
    if params.sampler == "published":
        step = 3 * params.spectral_batch * spectral_work(bands)
        training += params.spectral_steps * (step + _STEP_OVERHEAD * rate)
        passes = 3 if params.gradient == "network" else 1
        data = d * (4 * pixels * (h + msi) + 6 * bands * h * w)
        sampling = params.T * (passes * forward + data)
        held = 19 * passes  # images of the finest width, in a pass: measured
    else:
        data = d * pixels * (2 * h + d * 3 + 2 * msi)
        closed = float(params.partitions * _SOLVE * data)
        if params.denoise:
            size = 9 * msi  # of a patch
            closed += 2 * pixels / 9 * (200 * size**2 + 40 * size**3)
        solves = params.partitions * params.iterations * (2 if params.weight is None else 1)
        learnt = 0.0 if params.weight == 0 else params.levels * (forward + solves * data)
        training = training if learnt else 0
        sampling = closed + learnt
        held = 32 if learnt else 0
    if not train:
        training = 0.0
    if device.type == "cpu" and params.sampler == "proximal":
        threads = threads_for(d * pixels) or threads
    batch = 3 * params.spatial_batch * side if held else 0
    activations = 4.0 * params.spatial_base * max(12 * batch, held * pixels)
    cube = 4.0 * pixels * (bands + 8 * d + 2 * msi)
    if params.sampler == "proximal":
        cube += 4.0 * pixels * params.partitions * (params.classes + d + 4)
        cube += _BUFFERS * (2 if held else 1)
    return {
        "seconds": training / rate + sampling / rate / threads,
        "training_seconds": training / rate,
        "sampling_seconds": sampling / rate / threads,
        "bytes": activations + cube,
    }
