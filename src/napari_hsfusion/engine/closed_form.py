"""What the data and Gaussian models say of the coefficients, before anything is learnt.

Two estimates whose errors differ, and their mean: the maximum a posteriori under class
covariances (:mod:`.subspace`), and the regression on the HR-MSI (:mod:`.regression`).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..params import ArgsDiffParams
from .device import limited_threads
from .events import CancelToken, Step
from .observation import Problem
from .regression import blend_share, regressions
from .subspace import System, average_map
from .workers import ALONE, Crew

STAGES = ("closed form", "regression")


@dataclass(frozen=True)
class Estimates:
    """Both estimates of a pair.

    Attributes
    ----------
    plain : Tensor, shape (d, H, W)
        Under the class covariances.
    systems : list of System
        Whose solutions it is the mean of.
    regressed : Tensor, shape (d, H, W), or None
        The most likely coefficients where the regression is the prior's mean, under the class
        covariances of the first system. None where no regression was asked for.
    """

    plain: Tensor
    systems: list[System]
    regressed: Tensor | None

    def mean(self, share: float) -> Tensor:
        """Both, the regression with a share from 0 to 1."""
        return self.plain if self.regressed is None else self.plain.lerp(self.regressed, share)


def estimate_stages(params: ArgsDiffParams, pairs: int) -> dict[str, int]:
    """Stages and steps of the estimates of so many pairs."""
    out = {STAGES[0]: pairs}
    if params.regressions:
        out[STAGES[1]] = pairs * params.regressions
    return out


def estimates(
    problem: Problem,
    basis: Tensor,
    params: ArgsDiffParams,
    seed: int,
    cancel: CancelToken,
    *,
    crew: Crew = ALONE,
    pair: int = 0,
    pairs: int = 1,
) -> Generator[Step, None, Estimates]:
    """Work out both estimates.

    Parameters
    ----------
    problem : Problem
    basis : Tensor, shape (d, C)
        Orthonormal rows.
    params : ArgsDiffParams
        Of the proximal sampler.
    seed : int
        Of the classes and the regressions.
    cancel : CancelToken
    crew : Crew, optional
        Works out partitions and regressions.
    pair, pairs : int
        Of how many pairs this is which, counted from 0, for the steps.
    """
    plain, systems = average_map(
        problem, basis, params.classes, params.partitions, seed, cancel, params.locality, crew
    )
    yield Step(STAGES[0], pair + 1, pairs)
    regressed = None
    if params.regressions:
        regressed = torch.zeros_like(plain)
        total = pairs * params.regressions
        members = regressions(problem, basis, params.regressions, seed, cancel, crew)
        for index, image in enumerate(members, start=1):
            regressed += image / params.regressions
            yield Step(STAGES[1], pair * params.regressions + index, total)
        with limited_threads(crew.threads):
            regressed = systems[0].about(regressed)
    return Estimates(plain, systems, regressed)


def blind_share(problem: Problem) -> float:
    """Share of the regression where nothing is known of its errors: the more, the more pixels."""
    return 0.5 * min(1.0, len(problem.pixels()[0]) / _ENOUGH)


_ENOUGH = 64  # LR pixels, from which on a regression is worth as much as the closed form


def share_of_regression(problem: Problem, trial: Problem, below: Estimates, basis: Tensor) -> float:
    """Share of the regression that the pair one octave down speaks for.

    Parameters
    ----------
    problem, trial : Problem
        The pair, and what :func:`~.validation.half_scale` made of it.
    below : Estimates
        Of `trial`.
    basis : Tensor, shape (d, C)
    """
    if below.regressed is None:
        return 0.0
    height, width = below.plain.shape[-2:]
    truth = torch.tensordot(basis, problem.x[:, :height, :width], dims=1)
    return blend_share(below.plain, below.regressed, truth, trial.mask_y)
