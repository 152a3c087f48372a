"""The pair one ratio down, where the truth is known (Wald's protocol).

The LR-HSI is the wanted cube there: degraded by the pair's own response and ratio it
makes the LR image, and the degraded HR-MSI the HR image (Wald, Ranchin and Mangolini,
PE&RS 63:691, 1997).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from .observation import Problem


def one_ratio_down(problem: Problem) -> Problem | None:
    """Degrade a pair by its own ratio; its noise levels follow.

    The reference is ``problem.x``, cut to the size of the new HR-MSI.

    Parameters
    ----------
    problem : Problem
        Its LR-HSI of at least one coarse pixel a side.

    Returns
    -------
    Problem or None
        None where gaps touch every coarse pixel.
    """
    s = problem.spatial.ratio
    h, w = (n - n % s for n in problem.x.shape[-2:])
    down = problem.spatial.resized((h, w))
    fine = problem.spatial.forward(problem.y)[:, :h, :w].contiguous()
    usable = _usable(problem, h, w)
    coarse_usable = ~down.footprint(~usable)
    if not coarse_usable.any():
        return None
    return dataclasses.replace(
        problem,
        x=down.forward(problem.x[:, :h, :w].contiguous()),
        y=fine,
        spatial=down,
        sigma_x=max(problem.sigma_x * down.energy() ** 0.5, 1e-6),
        sigma_y=max(problem.sigma_y * problem.spatial.energy() ** 0.5, 1e-6),
        mask_x=None if coarse_usable.all() else torch.as_tensor(coarse_usable).to(fine),
        mask_y=None if usable.all() else torch.as_tensor(usable).to(fine),
    )


def _usable(problem: Problem, h: int, w: int) -> npt.NDArray[np.bool_]:
    usable = np.ones(problem.x.shape[-2:], dtype=bool)
    if problem.mask_x is not None:
        usable &= problem.mask_x.cpu().numpy() > 0
    if problem.mask_y is not None:
        usable &= ~problem.spatial.footprint(problem.mask_y.cpu().numpy() == 0)
    return usable[:h, :w]
