"""Elementary steps of a diffusion process, as pure functions of tensors and levels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def add_noise(clean: Tensor, noise: Tensor, abar: float | Tensor) -> Tensor:
    """Forward process, ARGS-Diff Eq. 1: ``sqrt(abar) x0 + sqrt(1 - abar) eps``."""
    if isinstance(abar, Tensor):
        return abar.sqrt() * clean + (1.0 - abar).sqrt() * noise
    return math.sqrt(abar) * clean + math.sqrt(1.0 - abar) * noise


def predict_clean(state: Tensor, noise: Tensor, abar: float) -> Tensor:
    """Estimate of x0 at time t, Eq. 11: ``(x_t - sqrt(1 - abar) eps) / sqrt(abar)``."""
    of_state, of_noise = clean_weights(abar)
    return of_state * state + of_noise * noise


def clean_weights(abar: float) -> tuple[float, float]:
    """Weights of state and noise in the estimate of x0, Eq. 11."""
    return 1.0 / math.sqrt(abar), -math.sqrt((1.0 - abar) / abar)


def ddim_weights(abar: float, abar_next: float) -> tuple[float, float]:
    """Weights of state and clean image in the deterministic step, Eq. 12 (DDIM with eta = 0).

    The noise is the one that takes the clean image to the state, Eq. 11 solved for eps. Put
    in, ``sqrt(abar_next) clean + sqrt(1 - abar_next) eps`` is a sum of both images.
    """
    of_state = math.sqrt((1.0 - abar_next) / (1.0 - abar))
    return of_state, math.sqrt(abar_next) - of_state * math.sqrt(abar)


def weighted_sum(first: Tensor, weight: Tensor, second: Tensor, other: Tensor) -> Tensor:
    """``weight first + other second``; the weights are tensors of no dimension."""
    return torch.addcmul(first * weight, second, other)


class StepScalars(NamedTuple):
    """All that changes from one step of a sampler to the next, as tensors of no dimension.

    Attributes
    ----------
    clean_of_state, clean_of_noise : Tensor
        :func:`clean_weights`.
    next_of_state, next_of_clean : Tensor
        :func:`ddim_weights`.
    first, second : Tensor
        :meth:`AdamDirection.corrections`; the first may bear a factor of the direction.
    """

    clean_of_state: Tensor
    clean_of_noise: Tensor
    next_of_state: Tensor
    next_of_clean: Tensor
    first: Tensor
    second: Tensor


class AdamDirection:
    """Bias-corrected Adam direction of a sequence of gradients, Eqs. 13 and 14.

    Parameters
    ----------
    like : Tensor
        Has the shape, type and device of the gradients.
    beta1, beta2, eps : float
        As in Kingma and Ba (2015).

    Attributes
    ----------
    moments : tuple of two Tensor
        Changed in place.
    """

    def __init__(self, like: Tensor, beta1: float, beta2: float, eps: float) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.moments = torch.zeros_like(like), torch.zeros_like(like)

    def corrections(self, count: int) -> tuple[float, float]:
        """Factors of the first moment, and of the second one's root, at gradient `count`."""
        return 1 / (1 - self.beta1**count), 1 / math.sqrt(1 - self.beta2**count)

    def __call__(self, gradient: Tensor, first: float | Tensor, second: float | Tensor) -> Tensor:
        """Take the next gradient in and return the direction, corrected by both factors."""
        mean, square = self.moments
        mean.lerp_(gradient, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = square.sqrt().mul_(second).add_(self.eps)
        return torch.div(mean, scale, out=scale).mul_(first)
