"""Residual diffusion in a few steps: EMR-Diff's eta schedule, forward and reverse process.

The chain runs from the wanted state ``x_0`` to the start ``A_0`` plus noise:

    x_t = x_0 + eta_t E_0 + kappa sqrt(eta_t) N*,   E_0 = A_0 - x_0,   N* = N W

so that a sampler begins next to its goal (Yue et al., NeurIPS 2023, for the chain;
EMR-Diff, CVPR 2026, for the multimodal state and the edge-aware noise).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...errors import ParameterError

Table = npt.NDArray[np.float64]

_LOW, _HIGH, _POWER = 1e-3, 0.999, 0.3


def eta_schedule(steps: int, kappa: float) -> Table:
    """Shares eta of the residual at times 0 … T.

    ``sqrt(eta)`` grows geometrically from ``min(0.001 / kappa, 0.001)`` to 0.999, on a grid
    of exponents warped by the power 0.3.

    Parameters
    ----------
    steps : int
        T, at least 1.
    kappa : float
        Noise level.

    Returns
    -------
    numpy.ndarray, shape (steps + 1,)
        ``table[t]`` is eta at time t; ``table[0]`` is 0.

    Raises
    ------
    ParameterError
        If there is no step, or `kappa` is not positive.
    """
    if steps < 1:
        raise ParameterError(f"steps: expected at least 1, got {steps}")
    if not (np.isfinite(kappa) and kappa > 0):
        raise ParameterError(f"kappa: expected a number above 0, got {kappa}")
    first = min(_LOW / kappa, _LOW)
    if steps == 1:
        return np.array([0.0, _HIGH**2])
    grid = (np.arange(steps) / (steps - 1)) ** _POWER
    roots = first * (_HIGH / first) ** grid
    return np.concatenate([[0.0], roots**2])


def diffuse(clean: Tensor, start: Tensor, noise: Tensor, eta: Tensor, kappa: float) -> Tensor:
    """Forward process: state x_t at shares `eta` (n,), from x_0, A_0 and N* of one shape."""
    share = eta.reshape(-1, *[1] * (clean.ndim - 1))
    return clean + share * (start - clean) + kappa * share.sqrt() * noise


def prior(start: Tensor, noise: Tensor, kappa: float) -> Tensor:
    """State x_T that sampling begins with: A_0 + kappa N*."""
    return start + kappa * noise


def reverse_step(
    state: Tensor, clean: Tensor, noise: Tensor | None, eta: Table, time: int, kappa: float
) -> Tensor:
    """Draw x_{t-1} from x_t and the predicted x_0.

    The Gaussian posterior of the forward process: mean
    ``(eta_{t-1} / eta_t) x_t + (alpha_t / eta_t) x_0`` and standard deviation
    ``kappa sqrt(eta_{t-1} alpha_t / eta_t)`` times the edge map, alpha_t = eta_t - eta_{t-1}.

    Parameters
    ----------
    state, clean : Tensor
        x_t and the prediction of x_0.
    noise : Tensor or None
        N* of the same shape; None leaves it out.
    eta : numpy.ndarray, shape (T + 1,)
    time : int
        t, from T down to 1; at 1 nothing is random and x_0 is returned.
    kappa : float
    """
    if time == 1:
        return clean
    now, before = float(eta[time]), float(eta[time - 1])
    alpha = now - before
    mean = (before / now) * state + (alpha / now) * clean
    if noise is None:
        return mean
    return mean + kappa * float(np.sqrt(before * alpha / now)) * noise
