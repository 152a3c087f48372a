"""Small pairs for the engine's tests, and plain dense versions of its operators."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch

from napari_hsfusion.engine.observation import Observation, Problem
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse

CPU = torch.device("cpu")


def scene(bands: int = 9, height: int = 16, width: int = 24, seed: int = 0) -> np.ndarray:
    """A cube in [0, 1] of rank 4 with smooth and sharp structure."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    maps = np.stack(
        [
            0.5 + 0.4 * np.sin(9 * x + 3 * y),
            0.5 + 0.4 * np.cos(7 * y * x + 5 * y),
            ((x > 0.3) & (y < 0.4)).astype(float),
            rng.random((height, width)),
        ]
    )
    spectra = rng.random((4, bands)) / 4
    return np.einsum("khw,kb->bhw", maps, spectra)


def response(bands: int = 9, out: int = 3) -> np.ndarray:
    """Overlapping triangles over the bands, rows summing to one."""
    centres = np.linspace(0, bands - 1, out + 2)[1:-1]
    matrix = np.clip(1 - np.abs(np.arange(bands)[None] - centres[:, None]) / (bands / out), 0, None)
    return matrix / matrix.sum(1, keepdims=True)


def observation(
    ratio: int = 4,
    noise: float = 0.002,
    bands: int = 9,
    out: int = 3,
    seed: int = 0,
    **more: object,
) -> tuple[np.ndarray, Observation]:
    """A noisy simulated pair and its truth."""
    z = scene(bands, seed=seed)
    rng = np.random.default_rng(seed + 1)
    spatial = SpatialDegradation.bicubic(z.shape[1:], ratio)
    spectral = SpectralResponse(response(bands, out))
    x = spatial.forward(torch.as_tensor(z)).numpy()
    y = spectral.forward(torch.as_tensor(z)).numpy()
    x = x + noise * rng.standard_normal(x.shape)
    y = y + noise * rng.standard_normal(y.shape)
    return z, Observation(x, y, spatial, spectral, **more)


def problem(**more: object) -> Problem:
    """The same pair, prepared in float64 on the CPU."""
    return observation(**more)[1].prepare(CPU, torch.float64)


def dense(operator: SpatialDegradation) -> np.ndarray:
    """Matrix (h w, H W) of a degradation, column by column from unit images."""
    height, width = operator.shape_hr
    units = torch.eye(height * width, dtype=torch.float64).reshape(-1, height, width)
    return operator.forward(units).flatten(1).numpy().T


def drain(run: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """What a generator yields, and what it returns."""
    events = []
    while True:
        try:
            events.append(next(run))
        except StopIteration as stop:
            return events, stop.value
