"""Proximal sampling: a learnt denoiser alternates with exact data steps.

The spectral basis is fixed and the coefficients start from the closed-form
estimate. At falling noise levels sigma the denoiser proposes clean coefficients,
and conjugate gradients find the exact minimiser of both data terms, of the
closed-form prior and of ``weight / sigma^2`` times the squared distance to the
proposal (half-quadratic splitting, as in DiffPIR, Zhu et al., CVPRW 2023).

The denoiser was trained on image bands, so it is shown band-like images: the
estimate at d well-chosen bands, each stretched to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from ..precision import arithmetic, network_in
from ..subspace import System
from .schedules import Table, exponential_schedule, noise_levels, time_of_noise
from .steps import predict_clean


@dataclass(frozen=True)
class BandView:
    """Affine map between coefficients and d band-like images in [-1, 1].

    ``state = gain * (matrix A - low) - 1`` with one gain and one low a channel.
    """

    matrix: Tensor
    inverse: Tensor
    gain: Tensor
    low: Tensor

    @classmethod
    def choose(cls, basis: Tensor, coefficients: Tensor) -> BandView:
        """Take the d bands that pivoted QR picks from the basis, least alike first.

        Parameters
        ----------
        basis : Tensor, shape (d, C)
        coefficients : Tensor, shape (d, H, W)
            Each band's 0.1 and 99.9 percentiles go to -1 and 1.
        """
        pivots = scipy.linalg.qr(basis.double().cpu().numpy(), mode="r", pivoting=True)[1]
        bands = np.sort(pivots[: len(basis)])
        matrix = basis[:, torch.as_tensor(bands, device=basis.device)].T.contiguous()
        images = torch.tensordot(matrix, coefficients, dims=1).flatten(1).cpu().double().numpy()
        low, high = np.percentile(images, [0.1, 99.9], axis=1)
        gain = 2.0 / np.maximum(high - low, 1e-6)
        shape = (-1, 1, 1)
        return cls(
            matrix,
            torch.linalg.inv(matrix),
            torch.as_tensor(gain).to(basis).reshape(shape),
            torch.as_tensor(low).to(basis).reshape(shape),
        )

    def to_state(self, coefficients: Tensor) -> Tensor:
        """Band-like images (d, H, W) of coefficients (d, H, W)."""
        return self.gain * (torch.tensordot(self.matrix, coefficients, dims=1) - self.low) - 1.0

    def to_coefficients(self, state: Tensor) -> Tensor:
        """Inverse of :meth:`to_state`."""
        return torch.tensordot(self.inverse, (state + 1.0) / self.gain + self.low, dims=1)

    def metric(self) -> Tensor:
        """Matrix Q (d, d) with ``A^T Q A`` the squared length of the state's change."""
        scaled = self.gain.reshape(-1, 1) * self.matrix
        return scaled.T @ scaled


class Denoiser:
    """A noise predictor used as a denoiser of images with noise of a given level.

    Parameters
    ----------
    network : torch.nn.Module
    table : numpy.ndarray, optional
        Schedule that it was trained on.
    precision : {"float32", "tf32", "bfloat16"}
        Of its passes.
    """

    def __init__(
        self, network: nn.Module, table: Table | None = None, precision: str = "float32"
    ) -> None:
        self.network = network_in(network, precision)
        self.precision = precision
        self.table = exponential_schedule() if table is None else table

    def __call__(self, state: Tensor, sigma: float) -> Tensor:
        """Clean images from `state` (d, H, W) in [-1, 1] with noise of `sigma`."""
        time = time_of_noise(self.table, sigma)
        abar = self.table[time + 1]
        moment = torch.full((1,), time, device=state.device)
        with torch.no_grad():
            scaled = state * float(np.sqrt(abar))
            with arithmetic(self.precision, state.device):
                noise = self.network(scaled[None], moment)[0]
            return predict_clean(scaled, noise, abar)


def proximal_steps(
    systems: Sequence[System],
    start: Tensor,
    view: BandView,
    denoiser: Denoiser,
    *,
    weight: float,
    levels: int,
    high: float,
    low: float,
    iterations: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Alternate denoiser and exact data step at falling noise levels.

    Parameters
    ----------
    systems : sequence of System
        Data terms and closed-form prior, one a partition of the scene; their
        solutions are averaged.
    start : Tensor, shape (d, H, W)
        The estimate without a learnt prior: the closed-form prior is centred so that
        every system has it as its solution.
    view : BandView
    denoiser : Denoiser
    weight : float
        Of the learnt prior; 0 leaves the closed form alone.
    levels, high, low
        Number of noise levels and the extremes, in units of half a band's range.
    iterations : int
        Conjugate-gradient iterations a level.

    Yields
    ------
    coefficients : Tensor, shape (d, H, W)
    proposal : Tensor, shape (d, H, W)
        The denoiser's, as coefficients.
    """
    metric = view.metric()
    current = start
    centred = [s.equations.apply(start) for s in systems]
    for sigma in noise_levels(levels, high, low):
        proposal = view.to_coefficients(denoiser(view.to_state(current), float(sigma)))
        extra = metric * (weight / float(sigma) ** 2)
        pull = torch.tensordot(extra, proposal, dims=1)
        solved = [
            s.equations.solve(rhs + pull, current, extra=extra, iterations=iterations)[0]
            for s, rhs in zip(systems, centred, strict=True)
        ]
        current = torch.stack(solved).mean(0)
        yield current, proposal
