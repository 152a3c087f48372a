"""How much the learnt prior is worth on a pair, measured where the truth is known.

Half-way down in scale the LR-HSI itself is the reference: degraded by two it makes
the low-resolution image, and the degraded HR-MSI the high-resolution one (Wald's
protocol, Wald, Ranchin and Mangolini, PE&RS 63:691, 1997).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..params import ArgsDiffParams
from .diffusion.proximal import BandView, Denoiser, proximal_steps
from .events import CancelToken
from .observation import Problem
from .operators import SpatialDegradation
from .subspace import average_map

WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)
_RATIO = 2
_AS_GOOD = 1.003
"""Squared errors that near count as equal, and the larger weight is taken: one
octave down the scene is sharper than what the denoiser was trained on, so the trial
judges it a little too severely."""

_LEAST = 16  # low-resolution pixels a side, below which the trial says nothing


def half_scale(problem: Problem) -> Problem | None:
    """The pair one octave down, with its own noise levels; None if it is too small.

    Its HR side is cut to a multiple of two. The reference is ``problem.x`` cut alike.
    """
    h, w = (n - n % _RATIO for n in problem.x.shape[-2:])
    if min(h, w) < _LEAST:
        return None
    down = SpatialDegradation.bicubic((h, w), _RATIO)
    fine = problem.spatial.forward(problem.y)[:, :h, :w]
    coarse = down.forward(problem.x[:, :h, :w].contiguous())
    mask_y = mask_x = None
    if problem.mask_x is not None:
        mask_y = problem.mask_x[:h, :w].contiguous()
        mask_x = (down.forward(mask_y) > 0.999).to(mask_y.dtype)
        if not bool(mask_x.any()):
            return None
    energy = problem.spatial.energy()
    return dataclasses.replace(
        problem,
        x=coarse,
        y=fine.contiguous(),
        spatial=down,
        sigma_x=max(problem.sigma_x * down.energy() ** 0.5, 1e-6),
        sigma_y=max(problem.sigma_y * energy**0.5, 1e-6),
        mask_x=mask_x,
        mask_y=mask_y,
    )


def choose_weight(
    problem: Problem,
    basis: Tensor,
    denoiser: Denoiser,
    params: ArgsDiffParams,
    seed: int,
    cancel: CancelToken | None = None,
) -> float:
    """Weight of the learnt prior that fuses the pair best one octave down.

    Returns
    -------
    float
        The largest of :data:`WEIGHTS` that is as good as the best; 0 where none is as
        good as the closed form, or the pair is too small to tell.
    """
    trial = half_scale(problem)
    if trial is None:
        return 0.0
    start, systems = average_map(trial, basis, params.classes, params.partitions, seed)
    view = BandView.choose(basis, start)
    truth = problem.x[:, : start.shape[-2], : start.shape[-1]]
    target = torch.tensordot(basis, truth, dims=1)

    def error(coefficients: Tensor) -> float:
        difference = coefficients - target
        if trial.mask_y is not None:
            difference = difference * trial.mask_y
        return float(difference.double().square().sum())

    found = {0.0: error(start)}
    for weight in WEIGHTS:
        if cancel is not None:
            cancel.check()
        *_, (coefficients, _) = proximal_steps(
            systems,
            start,
            view,
            denoiser,
            weight=weight,
            levels=params.levels,
            high=params.sigma_high,
            low=params.sigma_low,
            iterations=params.iterations,
        )
        found[weight] = error(coefficients)
    limit = _AS_GOOD * min(found.values())
    return max(weight for weight, value in found.items() if value <= limit)
