"""Deviations that fit the errors: what a posterior misses, measured on the pair itself.

One octave down the LR-HSI is the truth (:func:`~.validation.half_scale`), and shows by how
much errors exceed deviations, and how that varies with the contrast of the HR-MSI. There
the detail that is missing is of one octave, as the prior's covariances are; in the pair it
is of as many as the ratio has. How much stronger it is than the prior says is seen in the
HR-MSI, at both scales.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .device import limited_threads, threads_for
from .events import CancelToken, Step
from .observation import Problem
from .posterior import Posterior
from .spread import SubspaceDeviation, drained
from .subspace import System
from .validation import half_scale

_SAMPLES = 16  # one octave down, where they cost little
_INSIDE = 0.682689492137086  # share of a normal distribution within one deviation
_FLAT = 1e-10  # of an image's power, below which variances are round-off
_FAINT = 1e-3  # of a mean, below which values do not differ

Closed = Callable[[Problem], tuple[Tensor, list[System]]]
"""Function from a pair to the closed form's mean and its systems, in a known basis."""


@dataclass(frozen=True)
class CalibratedSampling:
    """Sampling of a posterior whose deviations are scaled to fit the errors.

    Attributes
    ----------
    posterior : Posterior
    closed : callable
        The closed form that the posterior is of, for the pair one octave down.
    """

    posterior: Posterior
    closed: Closed

    def __call__(
        self, samples: int, generator: torch.Generator, cancel: CancelToken
    ) -> Generator[Step, None, SubspaceDeviation]:
        """Draw the samples, and calibrate what they say.

        The record's ``calibration`` holds the ``factor`` of a pixel of mean contrast, never
        below 1, and the exponent ``contrast``; it is None where the pair is too small to tell.
        """
        found = yield from self.posterior.deviation(samples, generator, cancel)
        cancel.check()
        problem, basis = self.posterior.problem, self.posterior.basis
        trial = half_scale(problem)
        if trial is None:
            return replace(found, record={"calibration": None})
        with limited_threads(threads_for(basis.shape[0] * trial.y[0].numel())):
            mean, systems = self.closed(trial)
            stronger = detail_strength(problem, basis, self.posterior.systems)
            stronger /= detail_strength(trial, basis, systems)
        below = Posterior(trial, basis, systems, mean)
        said = drained(below.deviation(_SAMPLES, generator, cancel)).bands(0, len(problem.x))
        error = (
            torch.tensordot(basis.T, mean, dims=1) - problem.x[:, : said.shape[1], : said.shape[2]]
        )
        kept = slice(None) if trial.mask_y is None else trial.mask_y.flatten() > 0
        factor, exponent = fitted(
            error.flatten(1)[:, kept],
            said.flatten(1)[:, kept],
            relief(trial.y).flatten()[kept],
            problem.sigma_x,
        )
        factor = max(1.0, factor * stronger)  # a model leaves out; the trial may be flat
        record: dict[str, Any] = {"calibration": {"factor": factor, "contrast": exponent}}
        shape = contrast_shape(problem.y, exponent)
        return replace(found, factor=factor * shape, record=record)


def relief(image: Tensor) -> Tensor:
    """Logarithm of the local variance of an image (c, H, W) over 3 x 3 pixels, less its mean."""
    mean = avg_pool2d(image[None], 3, 1, 1, count_include_pad=False)[0]
    square = avg_pool2d(image.square()[None], 3, 1, 1, count_include_pad=False)[0]
    contrast = (square - mean.square()).clamp(min=0.0).mean(0)
    whole = contrast.mean()
    if not bool(whole > _FLAT * image.square().mean()):
        return torch.zeros_like(contrast)
    logarithm = torch.log(contrast + _FAINT * whole)
    return logarithm - logarithm.mean()


def contrast_shape(image: Tensor, exponent: float) -> Tensor:
    """What deviations are multiplied by at every pixel for its contrast, shape (H, W).

    Between 1 / 4 and 4: a scene that is flat but for its edges has contrasts of many orders.
    """
    return torch.exp(0.5 * exponent * relief(image)).clamp_(1 / _STEEP, _STEEP)


_STEEP = 4.0


def detail_strength(problem: Problem, basis: Tensor, systems: Sequence[System]) -> float:
    """How strong the HR-MSI's detail is, relative to what the prior says of it.

    Root of the mean square of ``Y - R E A_0``, less the noise, over the mean variance of
    the same under the prior of mean A_0; never below a tenth.
    """
    project = problem.response @ basis.T
    start = problem.spatial.upsample(torch.tensordot(basis, problem.x, dims=1))
    power = (problem.y - torch.tensordot(project, start, dims=1)).square().sum(0).double()
    expected = torch.zeros_like(power)
    for system in systems:
        known = system.equations
        variance = torch.linalg.inv(known.precision.double())
        seen = torch.einsum("ij,kjl,il->k", project.double(), variance, project.double())
        shares = known.membership
        one = seen.expand_as(power) if shares is None else torch.tensordot(seen, shares.double(), 1)
        expected += one / len(systems)
    if problem.mask_y is not None:
        power, expected = power[problem.mask_y > 0], expected[problem.mask_y > 0]
    strength = (power.mean() - len(project) * problem.sigma_y**2) / expected.mean()
    return max(0.1, float(strength.clamp(min=0.0).sqrt()))


def fitted(error: Tensor, deviation: Tensor, contrast: Tensor, noise: float) -> tuple[float, float]:
    """Factor f with which deviations fit errors against a noisy truth, and exponent g.

    As many errors as of a normal distribution lie within ``sqrt(f^2 deviation^2 + noise^2)``;
    g is the slope of the logarithm of a pixel's squared ratio against the contrast, between
    0 and 1. That shape has a geometric mean of 1 and leaves the factor as it is: the
    contrasts of the two scales are not distributed alike.

    Parameters
    ----------
    error, deviation : Tensor, shape (C, n)
    contrast : Tensor, shape (n,)
        Of mean zero, :func:`relief`.
    noise : float
        Standard deviation of the reference's own noise.
    """
    beyond = (error.double().square() - noise**2).clamp(min=0.0)
    ratio = (beyond / deviation.double().square().clamp(min=1e-30)).cpu().numpy()
    relative = contrast.double().cpu().numpy()
    return float(np.sqrt(np.quantile(ratio, _INSIDE))), _slope(ratio, relative)


def _slope(ratio: npt.NDArray[np.float64], contrast: npt.NDArray[np.float64]) -> float:
    centred = contrast - contrast.mean()
    power = float(centred @ centred)
    typical = np.quantile(ratio, _INSIDE, axis=0)
    if power == 0 or not typical.any():
        return 0.0
    logarithm = np.log(typical + _FAINT * typical.mean())
    return float(np.clip(centred @ logarithm / power, 0.0, 1.0))
