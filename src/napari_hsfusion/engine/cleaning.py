"""A pair with most of its noise taken out, before it is fused.

The data terms ask the result to reproduce both images, noise and all, and the prior of a
pixel knows nothing of its neighbours. Where an HR-MSI is noisy, this is what limits the
fusion; what images of a scene have in common in several places tells signal from noise.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .denoise import Grouping, nonlocal_bayes, patch_noise
from .events import CancelToken
from .observation import NOISE_FLOOR, Problem
from .validity import usable_pixels
from .workers import ALONE, Crew

WORTH = 2e-3
"""Noise, relative to an image's rms, below which it is left alone (54 dB)."""

_LEFT_Y, _LEFT_X = 0.35, 0.6
"""Noise that the data terms are told is left, as a share: chosen on the four scenes of the
accuracy benchmark. Below the error that is left, for that is not white."""

_PIXELS = Grouping(patch=1, window=6, count=40, step=1)
_DOUBT = 0.05  # of the LR-HSI's noise variance, as it is estimated


def with_noise(problem: Problem, noise_x: float | None, noise_y: float | None) -> Problem:
    """Pair whose noise is told, and not what was found; None leaves a level as it is.

    Parameters
    ----------
    problem : Problem
    noise_x, noise_y : float, optional
        Standard deviations in the unit of the images; never below what an estimate would be
        raised to, for exact data would make the systems singular.
    """
    floor = NOISE_FLOOR * _rms(problem.x)
    told = {"sigma_x": noise_x, "sigma_y": noise_y}
    levels = {name: max(v / problem.scale, floor) for name, v in told.items() if v is not None}
    return dataclasses.replace(problem, **levels)  # type: ignore[arg-type]


def clean_pair(
    problem: Problem,
    basis: Tensor,
    cancel: CancelToken | None = None,
    told: bool = False,
    crew: Crew = ALONE,
) -> tuple[Problem, dict[str, float]]:
    """Denoise the HR-MSI, and the LR-HSI in the subspace, by non-local Bayes.

    Parameters
    ----------
    problem : Problem
    basis : Tensor, shape (d, C)
        Orthonormal rows. What of the LR-HSI lies outside is left as it is.
    cancel : CancelToken, optional
    told : bool
        Whether the noise of the HR-MSI is known, and not bounded by :func:`msi_noise`.
    crew : Crew, optional
        Does the denoising.

    Returns
    -------
    problem : Problem
        With the noise levels that are left; an image whose noise is not worth it is
        left as it is.
    record : dict
        In normalised units. ``denoised_x`` and ``denoised_y``: standard deviations of the
        noise that was taken out, 0 for none; ``mismatch``, where the noise was not told.

    Raises
    ------
    Cancelled
    """
    record = {"denoised_x": 0.0, "denoised_y": 0.0}
    changes: dict[str, Tensor | float] = {}
    level = problem.sigma_y if told else msi_noise(problem)
    wrong = 0.0 if told else mismatch(problem, level)
    left = level
    if level > WORTH * _rms(problem.y):
        changes["y"] = nonlocal_bayes(problem.y, level, cancel=cancel, crew=crew)
        left = _LEFT_Y * level
        record["denoised_y"] = level
    if not told:
        floor = NOISE_FLOOR * _rms(problem.x)
        changes["sigma_y"] = max(floor, min(problem.sigma_y, math.hypot(left, wrong)))
        record["mismatch"] = wrong
    elif "y" in changes:
        changes["sigma_y"] = left
    level = problem.sigma_x
    if level > WORTH * _rms(problem.x):
        low = torch.tensordot(basis, problem.x, dims=1)
        noise = low - nonlocal_bayes(low, level, _PIXELS, cancel, crew)
        changes |= {
            "x": problem.x - torch.tensordot(basis.T, noise, dims=1),
            "sigma_x": _LEFT_X * level,
        }
        record["denoised_x"] = level
    return dataclasses.replace(problem, **changes), record  # type: ignore[arg-type]


def msi_noise(problem: Problem) -> float:
    """Standard deviation of the HR-MSI's white noise, in normalised units.

    Two upper bounds, and the lower of them. What both images disagree on at low resolution
    bounds it unless the LR-HSI is much the noisier, whose share is known to a few percent
    only; responses that are off raise it. The HR-MSI's own patches bound it whatever the
    responses are; texture that no band shares raises it.
    """
    share = problem.sigma_x**2 * float(problem.response.square().sum(1).mean())
    pair = problem.sigma_y**2 + _DOUBT * share / problem.spatial.energy()
    return min(math.sqrt(pair), patch_noise(problem.y))


def mismatch(problem: Problem, noise: float) -> float:
    """What the images contradict each other by, whatever the blur; rms, in normalised units.

    ``R X`` and ``H(Y)`` are the same but for noise. Where they are not, a blur or a shift that
    was told wrongly is mended by a small kernel, fitted band by band, and leaves the HR-MSI as
    true as it is. What no kernel mends, a scene that has changed or a response that is not
    linear, is an error of the HR-MSI's data term.

    Parameters
    ----------
    problem : Problem
    noise : float
        Standard deviation of the HR-MSI's noise.

    Returns
    -------
    float
        0 where it does not exceed what noise makes of it.
    """
    coarse = problem.spatial.forward(problem.y).double()
    wanted = torch.tensordot(problem.response, problem.x, dims=1).double()
    known = usable_pixels(problem.spatial, problem.mask_x, problem.mask_y)
    where = torch.as_tensor(np.flatnonzero(known), device=coarse.device)
    free = len(where) - _TAPS**2 - 1
    if free < _TAPS**2:
        return 0.0
    padded = functional.pad(coarse[None], (_TAPS // 2,) * 4, mode="replicate")[0]
    left = apart = 0.0
    for image, target in zip(padded, wanted.flatten(1)[:, where], strict=True):
        around = image.unfold(0, _TAPS, 1).unfold(1, _TAPS, 1).reshape(-1, _TAPS**2)[where]
        design = torch.cat([around, torch.ones_like(around[:, :1])], 1)
        # of the normal equations: lstsq's last bits depend on where its arrays lie
        gram = design.T @ design
        gram.diagonal().add_(1e-12 * gram.trace())
        kernel = torch.linalg.solve(gram, design.T @ target[:, None])
        left += float((target - (design @ kernel)[:, 0]).square().sum()) / (free * len(padded))
        apart += float((target - around[:, _TAPS**2 // 2]).square().mean()) / len(padded)
    share = problem.sigma_x**2 * float(problem.response.square().sum(1).mean())
    expected = share + noise**2 * problem.spatial.energy()
    # a kernel of LR pixels cannot mend what is aliased: up to half of the contradiction
    mended = 0.25 * max(0.0, apart - expected)
    return math.sqrt(max(0.0, left - _CERTAIN * expected - mended))


_TAPS = 3  # a side, of the kernels
_CERTAIN = 1.2  # times the variance that is expected: more than its estimates are off by


def _rms(image: Tensor) -> float:
    return float(image.square().mean().sqrt())
