"""Elementary steps of a diffusion process, as pure functions of tensors and levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def add_noise(clean: Tensor, noise: Tensor, abar: float | Tensor) -> Tensor:
    """Forward process, ARGS-Diff Eq. 1: ``sqrt(abar) x0 + sqrt(1 - abar) eps``."""
    if isinstance(abar, Tensor):
        return abar.sqrt() * clean + (1.0 - abar).sqrt() * noise
    return math.sqrt(abar) * clean + math.sqrt(1.0 - abar) * noise


def predict_clean(state: Tensor, noise: Tensor, abar: float) -> Tensor:
    """Estimate of x0 at time t, Eq. 11: ``(x_t - sqrt(1 - abar) eps) / sqrt(abar)``."""
    return (state - math.sqrt(1.0 - abar) * noise) / math.sqrt(abar)


def ddim_step(state: Tensor, clean: Tensor, abar: float, abar_next: float) -> Tensor:
    """Deterministic step from `state` to the next time, Eq. 12 (DDIM with eta = 0).

    The noise is the one that takes `clean` to `state`, Eq. 11 solved for eps. Put in,
    ``sqrt(abar_next) clean + sqrt(1 - abar_next) eps`` is a sum of both images.
    """
    of_state = math.sqrt((1.0 - abar_next) / (1.0 - abar))
    of_clean = math.sqrt(abar_next) - of_state * math.sqrt(abar)
    return (of_clean * clean).add_(state, alpha=of_state)


class AdamDirection:
    """Bias-corrected Adam direction of a sequence of gradients, Eqs. 13 and 14.

    Parameters
    ----------
    beta1, beta2, eps : float
        As in Kingma and Ba (2015).
    """

    def __init__(self, beta1: float, beta2: float, eps: float) -> None:
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        self.count = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        """Take the next gradient in and return the direction."""
        if self._first is None or self._second is None:
            self._first = gradient.new_zeros(gradient.shape)
            self._second = gradient.new_zeros(gradient.shape)
        self.count += 1
        self._first.lerp_(gradient, 1 - self.beta1)
        self._second.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        scale = self._second.sqrt()
        scale.mul_(1 / math.sqrt(1 - self.beta2**self.count)).add_(self.eps)
        return torch.div(self._first, scale, out=scale).mul_(1 / (1 - self.beta1**self.count))
