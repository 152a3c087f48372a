"""Noise schedules as float64 tables, and the times at which a sampler visits them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import ParameterError

Table = npt.NDArray[np.float64]


def exponential_schedule(times: int = 1000, rate: float = 10.0, low: float = 1e-3) -> Table:
    """Cumulative signal level of ARGS-Diff's exponential schedule.

    ``g(k) = 1 - exp(-rate (1 - k / times))`` for k = 0 … times, rescaled linearly
    so that its extremes are `low` and 1; ``abar_t = g(t + 1)``.

    Returns
    -------
    numpy.ndarray, shape (times + 1,)
        ``table[t + 1]`` is abar at time t, t = -1 … times - 1; ``table[0]`` is 1.
    """
    k = np.arange(times + 1, dtype=np.float64)
    g = -np.expm1(-rate * (1.0 - k / times))
    return low + (1.0 - low) * (g - g[-1]) / (g[0] - g[-1])


def sampling_times(steps: int, times: int = 1000) -> npt.NDArray[np.int64]:
    """Times of a sampler, evenly spaced from ``times - 1`` down to -1.

    Returns
    -------
    numpy.ndarray of int, shape (steps + 1,)

    Raises
    ------
    ParameterError
        If there are more steps than times.
    """
    if not 1 <= steps <= times:
        raise ParameterError(f"steps: expected 1 to {times}, got {steps}")
    return np.rint(np.linspace(times - 1, -1, steps + 1)).astype(np.int64)


def noise_levels(count: int, high: float, low: float) -> Table:
    """Geometric sequence of noise standard deviations from `high` down to `low`."""
    if not 0 < low <= high:
        raise ParameterError(f"noise levels: expected 0 < low <= high, got {low} and {high}")
    return np.geomspace(high, low, count) if count > 1 else np.array([high])


def time_of_noise(table: Table, sigma: float) -> int:
    """Time t whose noise-to-signal ratio ``sqrt((1 - abar) / abar)`` is nearest `sigma`."""
    ratio = np.sqrt((1.0 - table[1:]) / table[1:])
    return int(np.abs(np.log(ratio) - np.log(sigma)).argmin())
