"""How much the learnt prior is worth on a pair, measured where the truth is known.

Half-way down in scale the LR-HSI itself is the reference: degraded by two it makes
the low-resolution image, and the degraded HR-MSI the high-resolution one (Wald's
protocol, Wald, Ranchin and Mangolini, PE&RS 63:691, 1997).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from ..params import ArgsDiffParams
from .device import limited_threads
from .diffusion.proximal import BandView, Denoiser, proximal_steps
from .events import CancelToken, Step
from .observation import Problem
from .operators import SpatialDegradation
from .subspace import System
from .validity import usable_pixels

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
    if problem.mask_x is not None or problem.mask_y is not None:
        usable = usable_pixels(problem.spatial, problem.mask_x, problem.mask_y)
        fine_valid = usable[:h, :w]
        coarse_valid = down.covered(fine_valid)
        if not coarse_valid.any():
            return None
        mask_y = torch.as_tensor(fine_valid).to(fine)
        mask_x = torch.as_tensor(coarse_valid).to(fine)
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
    trial: Problem,
    basis: Tensor,
    start: Tensor,
    systems: Sequence[System],
    denoiser: Denoiser,
    params: ArgsDiffParams,
    cancel: CancelToken,
    threads: int | None = None,
) -> Generator[Step, None, float]:
    """Weight of the learnt prior that fuses the pair best one octave down.

    Parameters
    ----------
    problem : Problem
    trial : Problem
        What :func:`half_scale` made of it.
    basis : Tensor, shape (d, C)
    start : Tensor, shape (d, h, w)
        What `trial` is estimated as without the learnt prior.
    systems : sequence of System
        Of `trial`.
    denoiser : Denoiser
    params : ArgsDiffParams
        Of the proximal sampler.
    cancel : CancelToken
    threads : int, optional
        CPU threads, if fewer than torch's own setting.

    Returns
    -------
    float
        The largest of :data:`WEIGHTS` that is as good as the best; 0 where none is as
        good as the closed form.

    Yields
    ------
    Step
        One a weight, its loss the squared error relative to that of the start.
    """
    view = BandView.choose(basis, start)
    truth = problem.x[:, : start.shape[-2], : start.shape[-1]]
    target = torch.tensordot(basis, truth, dims=1)

    def error(coefficients: Tensor) -> float:
        difference = coefficients - target
        if trial.mask_y is not None:
            difference = difference * trial.mask_y
        return float(difference.double().square().sum())

    found = {0.0: error(start)}
    for index, weight in enumerate(WEIGHTS, start=1):
        cancel.check()
        with limited_threads(threads):
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
        yield Step("weigh prior", index, len(WEIGHTS), found[weight] / (found[0.0] or 1.0))
    limit = _AS_GOOD * min(found.values())
    return max(weight for weight, value in found.items() if value <= limit)
