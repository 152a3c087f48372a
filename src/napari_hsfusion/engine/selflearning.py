"""Self-learning: networks trained on nothing but the pair itself, or loaded again.

The spatial network sees patches of the HR-MSI whose channels are bands drawn at
random; the spectral network sees pixel spectra of the LR-HSI (ARGS-Diff, Sec. 3.2).
"""

from __future__ import annotations

import hashlib
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
from .noise_prediction import SMALL_WORK, Budget, train_noise_predictor
from .observation import Problem

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


def requirements(
    params: ArgsDiffParams, problem: Problem, spectral: bool, highest: float | None
) -> dict[str, Any]:
    """What saved networks must share with a run: architecture, bands and training."""
    wanted: dict[str, Any] = {
        "method": "args-diff",
        "msi_bands": len(problem.y),
        "highest_noise": highest,
        **{
            name: value
            for name, value in params.to_record().items()
            if name == "average" or name.startswith("spatial_")
        },
        "d": params.dimensions,
    }
    if spectral:
        wanted["bands"] = len(problem.x)
        wanted |= {
            name: value
            for name, value in params.to_record().items()
            if name.startswith("spectral_")
        }
    else:  # the proximal sampler's network saw the images as they were denoised, or not
        wanted["denoise"] = params.denoise
    return wanted


def fingerprint(problem: Problem) -> str:
    """Digest of the pair that networks were trained on."""
    digest = hashlib.sha256()
    for image in (problem.x, problem.y):
        digest.update(image.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def obtain_networks(
    problem: Problem,
    params: ArgsDiffParams,
    *,
    spectral: bool,
    highest: float | None,
    folder: Path | None,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    cancel: CancelToken,
    parts: int = 1,
) -> Generator[Step, None, tuple[nn.Module, nn.Module | None, dict[str, Any]]]:
    """Train both networks (or the spatial one alone), or load them from `folder`.

    Parameters
    ----------
    highest : float, optional
        Noise-to-signal ratio up to which the networks are trained; all times without.
    folder : Path, optional
        To load from, if it holds networks; else to save in, which is tried before
        the training starts.
    seed : int
        Of the starting weights, the samples and the noise.
    parts : int
        In which a batch goes through the spatial network, to save memory.

    Returns
    -------
    spatial, spectral : torch.nn.Module
        `spectral` is None if not asked for.
    record : dict
        JSON-able: ``networks_loaded``, and what loaded networks were trained on.

    Raises
    ------
    WeightsError
        If the folder holds networks of another architecture, kind of pair or training.
    WriteError
        If the folder cannot be written.
    """
    wanted = requirements(params, problem, spectral, highest)
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        nets: dict[str, nn.Module] = {"spatial": spatial_network(params)}
        if spectral:
            nets["spectral"] = spectral_network(len(problem.x))
    for net in nets.values():
        initialise(net.to_empty(device="cpu"), generator)
    if folder is not None and checkpoint.has_networks(folder):
        header = _expect_header(folder, wanted)
        for name, net in nets.items():
            nets[name] = checkpoint.load_network(folder, name, net.to(dtype)).to(device)
        origin = {
            "networks_loaded": True,
            "networks_seed": header.get("seed"),
            "networks_of_this_pair": header.get("pair") == fingerprint(problem),
        }
        return nets["spatial"], nets.get("spectral"), origin
    if folder is not None:
        checkpoint.prepare_folder(folder)
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
            parts=parts if name == "spatial" else 1,
        )
    if folder is not None:
        kept = {**wanted, "seed": seed, "pair": fingerprint(problem)}
        checkpoint.save_networks(folder, nets, kept)
    return nets["spatial"], nets.get("spectral"), {"networks_loaded": False}


def _expect_header(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    header = checkpoint.read_header(folder)
    for key, value in wanted.items():
        if header.get(key) != value:
            raise WeightsError(
                f"{folder}: the saved networks have {key} = {header.get(key)}, "
                f"this run needs {value}: give the same settings, or another folder"
            )
    return header
