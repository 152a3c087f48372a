"""Self-learning: networks trained on nothing but the pair itself, or loaded again.

The spatial network sees patches of the HR-MSI whose channels are bands drawn at
random; the spectral network sees pixel spectra of the LR-HSI (ARGS-Diff, Sec. 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..params import ArgsDiffParams
from . import checkpoint
from .diffusion.guidance import to_state
from .diffusion.schedules import exponential_schedule, time_of_noise
from .events import CancelToken, Step
from .nets.build import TIMES, spatial_network, spatial_work, spectral_network, spectral_work
from .nets.initialise import initialise
from .observation import Problem
from .training import SMALL_WORK, Budget, train_noise_predictor

Sampler = Callable[[int, torch.Generator], Tensor]


def patch_sampler(image: Tensor, d: int, patch: int, stride: int, flips: bool) -> Sampler:
    """Patches of a multispectral image with d randomly drawn bands as channels.

    Parameters
    ----------
    image : Tensor, shape (c, H, W)
        On the CPU, in [-1, 1].
    d : int
        Channels of a sample.
    patch, stride : int
        Side of a patch (at most the image's) and the grid it starts on.
    flips : bool
        Mirror and turn patches by right angles at random.

    Returns
    -------
    callable
        ``sample(n, generator)`` gives (n, d, patch, patch).
    """
    bands, height, width = image.shape
    rows, columns = min(patch, height), min(patch, width)
    turn = flips and rows == columns
    tops = list(range(0, height - rows + 1, stride))
    lefts = list(range(0, width - columns + 1, stride))
    if tops[-1] != height - rows:
        tops.append(height - rows)
    if lefts[-1] != width - columns:
        lefts.append(width - columns)

    def sample(count: int, generator: torch.Generator) -> Tensor:
        top = torch.randint(len(tops), (count,), generator=generator).tolist()
        left = torch.randint(len(lefts), (count,), generator=generator).tolist()
        chosen = torch.randint(bands, (count, d), generator=generator)
        kind = torch.randint(8, (count,), generator=generator).tolist() if flips else [0] * count
        out = []
        for i in range(count):
            y, x = tops[top[i]], lefts[left[i]]
            piece = image[chosen[i], y : y + rows, x : x + columns]
            if kind[i] & 1:
                piece = piece.flip(-1)
            if kind[i] & 2:
                piece = piece.flip(-2)
            if kind[i] & 4 and turn:
                piece = piece.transpose(-1, -2)
            out.append(piece)
        return torch.stack(out)

    return sample


def spectrum_sampler(spectra: Tensor) -> Sampler:
    """Single pixel spectra; `spectra` is (C, n) in [-1, 1], on the CPU."""

    def sample(count: int, generator: torch.Generator) -> Tensor:
        return spectra[:, torch.randint(spectra.shape[1], (count,), generator=generator)].T

    return sample


def architecture(
    params: ArgsDiffParams, problem: Problem, spectral: bool, highest: float | None
) -> dict[str, Any]:
    """What saved networks must share with a pair, to be used on it."""
    header: dict[str, Any] = {
        "method": "args-diff",
        "d": params.dimensions,
        "spatial_base": params.spatial_base,
        "spatial_levels": params.spatial_levels,
        "spatial_blocks": params.spatial_blocks,
        "msi_bands": len(problem.y),
        "highest_noise": highest,
    }
    if spectral:
        header["bands"] = len(problem.x)
    return header


def obtain_networks(
    problem: Problem,
    params: ArgsDiffParams,
    *,
    spectral: bool,
    highest: float | None,
    folder: Path | None,
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype,
    cancel: CancelToken,
) -> Generator[Step, None, tuple[nn.Module, nn.Module | None, bool]]:
    """Train both networks (or the spatial one alone), or load them from `folder`.

    Parameters
    ----------
    highest : float, optional
        Noise-to-signal ratio up to which the networks are trained; all times without.

    Returns
    -------
    spatial, spectral : torch.nn.Module
        `spectral` is None if not asked for.
    loaded : bool
        Whether they came from `folder`; if not and it is given, they are saved there.

    Raises
    ------
    WeightsError
        If the folder holds networks of another architecture or kind of pair.
    """
    wanted = architecture(params, problem, spectral, highest)
    with torch.device("meta"):
        nets: dict[str, nn.Module] = {"spatial": spatial_network(params)}
        if spectral:
            nets["spectral"] = spectral_network(len(problem.x))
    for net in nets.values():
        initialise(net.to_empty(device="cpu"), generator)
    if folder is not None and checkpoint.has_networks(folder):
        _expect_header(folder, wanted)
        for name, net in nets.items():
            nets[name] = checkpoint.load_network(folder, name, net.to(dtype)).to(device)
        return nets["spatial"], nets.get("spectral"), True
    table = exponential_schedule(TIMES)
    if highest is not None:
        table = table[: time_of_noise(table, highest) + 2]
    samplers: dict[str, Sampler] = {
        "spatial": patch_sampler(
            to_state(problem.y).cpu(),
            params.dimensions,
            params.spatial_patch,
            params.spatial_stride,
            params.spatial_flips,
        )
    }
    budgets = {
        "spatial": Budget(
            params.spatial_steps, params.spatial_batch, params.spatial_rate, True, params.average
        )
    }
    if spectral:
        samplers["spectral"] = spectrum_sampler(to_state(problem.pixels()).cpu())
        budgets["spectral"] = Budget(
            params.spectral_steps,
            params.spectral_batch,
            params.spectral_rate,
            False,
            params.average,
        )
    side = min(params.spatial_patch, problem.y.shape[1]) * min(
        params.spatial_patch, problem.y.shape[2]
    )
    work = {
        "spatial": params.spatial_batch * spatial_work(params, side),
        "spectral": params.spectral_batch * spectral_work(len(problem.x)),
    }
    for name, net in nets.items():
        nets[name] = yield from train_noise_predictor(
            net.to(device, dtype),
            samplers[name],
            table,
            budgets[name],
            threads=1 if 3 * work[name] < SMALL_WORK else None,
            stage=f"train {name} network",
            generator=generator,
            device=device,
            dtype=dtype,
            cancel=cancel,
        )
    if folder is not None:
        checkpoint.save_networks(folder, nets, wanted)
    return nets["spatial"], nets.get("spectral"), False


def _expect_header(folder: Path, wanted: dict[str, Any]) -> None:
    header = checkpoint.read_header(folder)
    for key, value in wanted.items():
        if header.get(key) != value:
            raise WeightsError(
                f"{folder}: the saved networks have {key} = {header.get(key)}, "
                f"this run needs {value}"
            )
