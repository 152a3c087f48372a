"""Self-learning: networks trained on nothing but the pair itself, or loaded again.

The spatial network sees patches of the HR-MSI whose channels are bands drawn at
random; the spectral network sees pixel spectra of the LR-HSI (ARGS-Diff, Sec. 3.2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass
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
from .held_out import Sampler, split_image, split_spectra
from .nets.build import TIMES, spatial_network, spatial_work, spectral_network, spectral_work
from .nets.initialise import initialise
from .network_cache import CACHE, place
from .noise_prediction import SMALL_WORK, Budget, train_noise_predictor
from .observation import Problem
from .training_state import Progress


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
            if name in ("average", "patience") or name.startswith("spatial_")
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
    for image in (problem.x, problem.y, problem.mask_x):
        if image is not None:
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

    Networks that this process trained before, on the same pair and in the same way, are
    taken from its cache; the one step that is then yielded is the last of its stage.

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
        JSON-able: ``networks_loaded``, and what loaded networks were trained on;
        ``networks_cached``, for networks that this process had trained before; and
        ``networks_training``: steps taken, those of the weights that were kept, and the
        held-out losses, network by network.

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
    lessons = make_lessons(problem, params, spectral)
    if folder is not None and checkpoint.has_networks(folder):
        header = _expect_header(folder, wanted)
        for name, net in nets.items():
            nets[name] = checkpoint.load_network(folder, name, net.to(dtype)).to(device)
        origin = {
            "networks_loaded": True,
            "networks_seed": header.get("seed"),
            "networks_of_this_pair": header.get("pair") == fingerprint(problem),
            "networks_training": header.get("training"),
        }
        return nets["spatial"], nets.get("spectral"), origin
    if folder is not None:
        checkpoint.prepare_folder(folder)
    key = _key(problem, wanted, seed, device, dtype, parts)
    known = CACHE.get(key)
    if known is not None:
        for name, net in nets.items():
            nets[name] = known.fill(name, net.to(dtype)).to(device)
            steps = known.record[name]["steps"]
            yield Step(_STAGES[name], steps, steps)
        trained = dict(known.record)
    else:
        table = exponential_schedule(TIMES)
        if highest is not None:
            table = table[: time_of_noise(table, highest) + 2]
        trained = {}
        for name, net in nets.items():
            progress = Progress()
            nets[name] = yield from train_noise_predictor(
                net.to(device, dtype),
                lessons[name].sample,
                table,
                lessons[name].budget,
                threads=1 if 3 * lessons[name].work < SMALL_WORK else None,
                stage=_STAGES[name],
                generator=generator,
                device=device,
                dtype=dtype,
                cancel=cancel,
                parts=parts if name == "spatial" else 1,
                held_out=lessons[name].held_out,
                progress=progress,
            )
            trained[name] = lessons[name].report(progress)
        CACHE.put(key, nets, trained)
    if folder is not None:
        kept = {**wanted, "seed": seed, "pair": fingerprint(problem), "training": trained}
        checkpoint.save_networks(folder, nets, kept)
    origin = {
        "networks_loaded": False,
        "networks_cached": known is not None,
        "networks_training": trained,
    }
    return nets["spatial"], nets.get("spectral"), origin


def networks_cached(
    problem: Problem,
    params: ArgsDiffParams,
    *,
    spectral: bool,
    highest: float | None,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    parts: int = 1,
) -> bool:
    """Whether :func:`obtain_networks` would find its networks in this process."""
    wanted = requirements(params, problem, spectral, highest)
    return _key(problem, wanted, seed, device, dtype, parts) in CACHE


_STAGES = {"spatial": "train spatial network", "spectral": "train spectral network"}


@dataclass(frozen=True)
class Lesson:
    """What one network learns from, for how long, and what shows whether it still learns.

    Attributes
    ----------
    sample, held_out : callable
        `held_out` is None where the budget has no patience.
    apart : bool
        Whether the two have nothing in common.
    budget : Budget
    work : float
        Multiply-adds of a batch.
    """

    sample: Sampler
    held_out: Sampler | None
    apart: bool
    budget: Budget
    work: float

    def report(self, progress: Progress) -> dict[str, Any]:
        """What the record has of a training."""
        if self.held_out is None:
            return {"steps": progress.step}
        return {
            "steps": progress.step,
            "steps_at_most": self.budget.steps,
            "kept_step": progress.best_step,
            "held_out_apart": self.apart,
            "held_out_loss": [
                [row["step"], -row["metric"]] for row in progress.curve if row["metric"] is not None
            ],
        }


def make_lessons(problem: Problem, params: ArgsDiffParams, spectral: bool) -> dict[str, Lesson]:
    """What both networks learn from, or the spatial one alone, by name."""
    d, patch, flips = params.dimensions, params.spatial_patch, params.spatial_flips
    image = to_state(problem.y).cpu()
    side = min(patch, image.shape[1]) * min(patch, image.shape[2])
    budget = Budget(
        params.spatial_steps,
        params.spatial_batch,
        params.spatial_rate,
        True,
        params.average,
        params.patience,
    )
    work = params.spatial_batch * spatial_work(params, side)
    out, apart = None, False
    if params.patience:
        parts = split_image(image, patch)
        image, apart = parts.kept, parts.apart
        out = patch_sampler(parts.out, d, patch, 1, flips)
    sample = patch_sampler(image, d, patch, params.spatial_stride, flips)
    lessons = {"spatial": Lesson(sample, out, apart, budget, work)}
    if not spectral:
        return lessons
    spectra = to_state(problem.pixels()).cpu()
    budget = Budget(
        params.spectral_steps,
        params.spectral_batch,
        params.spectral_rate,
        False,
        params.average,
        params.patience,
    )
    work = params.spectral_batch * spectral_work(len(problem.x))
    out, apart = None, False
    if params.patience:
        parts = split_spectra(spectra)
        spectra, apart = parts.kept, parts.apart
        out = spectrum_sampler(parts.out)
    lessons["spectral"] = Lesson(spectrum_sampler(spectra), out, apart, budget, work)
    return lessons


def _key(
    problem: Problem,
    wanted: dict[str, Any],
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    parts: int,
) -> str:
    """Everything that the weights depend on, to the bit."""
    shapes = [list(problem.x.shape), list(problem.y.shape)]
    pair = [fingerprint(problem), shapes]
    return json.dumps([pair, wanted, seed, str(dtype), place(device), parts], sort_keys=True)


_BEFORE = {"patience": 0}  # of networks that were saved before there was such a setting


def _expect_header(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    header = checkpoint.read_header(folder)
    for key, value in wanted.items():
        if header.get(key, _BEFORE.get(key)) != value:
            raise WeightsError(
                f"{folder}: the saved networks have {key} = {header.get(key)}, "
                f"this run needs {value}: give the same settings, or another folder"
            )
    return header
