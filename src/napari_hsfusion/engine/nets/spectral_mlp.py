"""The spectral network of ARGS-Diff: a fully connected noise predictor for spectra."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def published_widths(bands: int) -> tuple[tuple[int, int, int], int]:
    """Hidden widths and time-table width for a number of bands.

    The published sizes at 48 (128-256-128, 30), 103 and 128 (256-512-256, 60 and
    70) and 176 bands (400-800-400, 100), and steps of the same kind in between and
    beyond.
    """
    table = max(8, round(0.57 * bands))
    if bands <= 64:
        return (128, 256, 128), table if bands != 48 else 30
    if bands <= 103:
        return (256, 512, 256), 60
    if bands <= 140:
        return (256, 512, 256), 70
    if bands <= 256:
        return (400, 800, 400), 100
    return (2 * bands, 4 * bands, 2 * bands), table


class SpectralMLP(nn.Module):
    """Five layers counting input and output; the time is a learned table.

    Parameters
    ----------
    bands : int
        Number of bands C, in and out.
    hidden : sequence of int
        Widths of the hidden layers.
    table : int
        Width of the learned time vector that is joined to the input.
    times : int
        Number of training times.
    """

    def __init__(self, bands: int, hidden: Sequence[int], table: int, times: int) -> None:
        super().__init__()
        self.table = nn.Embedding(times, table)
        layers: list[nn.Module] = []
        width = bands + table
        for size in hidden:
            layers += [nn.Linear(width, size), nn.SiLU()]
            width = size
        layers.append(nn.Linear(width, bands))
        self.layers = nn.Sequential(*layers)

    def forward(self, state: Tensor, times: Tensor) -> Tensor:
        """Predict the noise in spectra `state` (n, C), in [-1, 1] plus noise, at `times` (n,)."""
        out: Tensor = self.layers(torch.cat([state, self.table(times)], dim=1))
        return out
