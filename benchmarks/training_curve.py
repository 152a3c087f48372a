"""Quality against training: one training a network, tried at steps spread over a logarithm.

The network of the proximal sampler learns from the very images that the method would show
it, and the cubes come from the method itself, which finds the weights of a moment in a
folder of networks. So nothing of the method is repeated here.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_hsfusion import api, make_cube
from napari_hsfusion.engine import checkpoint, selflearning
from napari_hsfusion.engine.diffusion.schedules import exponential_schedule, time_of_noise
from napari_hsfusion.engine.events import CancelToken, Step
from napari_hsfusion.engine.held_out import BATCHES, EVERY, HeldOutLoss
from napari_hsfusion.engine.methods import args_diff
from napari_hsfusion.engine.methods.base import versions
from napari_hsfusion.engine.nets.build import TIMES, spatial_network, spectral_network
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.noise_prediction import noise_loss
from napari_hsfusion.engine.training import train
from napari_hsfusion.engine.training_recipe import Recipe
from napari_hsfusion.engine.training_state import Progress
from napari_hsfusion.engine.training_team import Team
from napari_hsfusion.params import ARGS_DIFF_PRESETS, ArgsDiffParams

from .accuracy import machine

SPECTRAL_SHARE = 400 / 30
"""Steps of the spectral network for one of the spatial one, as published."""

FIXED = 0.1
"""Weight of the learnt prior, where it is not chosen."""

_SHARED = (
    *("spatial_base", "spatial_levels", "spatial_blocks", "spatial_batch", "spatial_patch"),
    *("spatial_stride", "spatial_rate", "spatial_flips", "average"),
)

Moment = tuple[float, float, dict[str, Tensor]]
"""Processor's seconds of training, held-out loss, averaged weights."""


class Pair:
    """The middle of a simulated pair, as the methods take it.

    Parameters
    ----------
    path : Path
        As :mod:`benchmarks.accuracy` reads it.
    side : int
        Pixels to cut it to, if it is larger.
    """

    def __init__(self, path: Path, side: int) -> None:
        with np.load(path) as data:
            z, x, y, self.response = (data[key] for key in ("Z", "X", "Y", "R"))
            self.scale, self.psf = int(data["scale"]), str(data["psf"])
            centres = data["wavelengths"]
        self.name = path.stem
        self.truth, high = (_middle(image, side, self.scale) for image in (z, y))
        self.low = make_cube(_middle(x, side // self.scale, 1), wavelength=centres)
        self.high = high
        self.spectral: dict[int, Moment] = {}

    def fuse(self, params: ArgsDiffParams, folder: Path | None, seed: int) -> tuple[Any, float]:
        """Fuse the pair; the cube, and the processor's seconds."""
        begun = time.process_time()
        fused = api.fuse(
            self.low,
            self.high,
            method="args-diff",
            params=params,
            scale=self.scale,
            psf=self.psf,
            srf=self.response,
            seed=seed,
            device="cpu",
            networks=folder,
        )
        return fused, time.process_time() - begun

    def psnr(self, cube: Any) -> float:
        """PSNR in the default convention, dB."""
        return float(api.evaluate(self.truth, cube, self.scale)["psnr"])


def proximal(width: int, levels: int) -> ArgsDiffParams:
    """Parameters of the preset `balanced` with a learnt prior of some size."""
    preset = ARGS_DIFF_PRESETS["balanced"]
    return replace(
        preset, sampler="proximal", spatial_base=width, spatial_levels=levels, patience=0
    )


def published(width: int, levels: int, steps: int) -> ArgsDiffParams:
    """Parameters of the published sampler with a spatial network of the same size."""
    like = proximal(width, levels)
    same = {name: getattr(like, name) for name in _SHARED}
    return replace(ARGS_DIFF_PRESETS["paper"], gradient="x0", T=steps, **same)


def measure(
    pair: Pair,
    width: int | None,
    moments: list[int],
    levels: int = 2,
    T: int = 100,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """Train and try; a row for every sampler and moment.

    Parameters
    ----------
    pair : Pair
    width, levels : int
        Of the spatial network; without a width a row for no training.
    moments : list of int
        Training steps of the spatial network after which it is tried.
    T : int
        Steps of the published sampler.
    seed : int
    changes : mapping, optional
        Other parameters of both samplers.

    Yields
    ------
    dict
        ``training_seconds`` are the processor's, of all networks that the row needs, and
        so are ``sampling_seconds``; ``held_out`` is the spatial network's loss.
    """
    changes = dict(changes or {})
    common = {"scene": pair.name, "shape": list(pair.truth.shape), "scale": pair.scale}
    if width is None:
        plain, seconds = pair.fuse(replace(proximal(8, 1), weight=0.0, **changes), None, seed)
        row = {"sampler": "closed form", "psnr": pair.psnr(plain), "sampling_seconds": seconds}
        yield {**common, **row}
        return
    for params, kinds in (
        (proximal(width, levels), ("chosen", "fixed")),
        (published(width, levels, T), ("published",)),
    ):
        params = replace(params, **changes)
        lesson = _lesson(pair, params, seed)
        found = learn(lesson, "spatial", moments, seed)
        if kinds == ("published",) and not pair.spectral:  # of any width
            later = [round(SPECTRAL_SHARE * step) for step in moments]
            pair.spectral = learn(lesson, "spectral", later, seed)
        for kind in kinds:
            for step in moments:
                row = _tried(pair, lesson, kind, step, found, seed)
                yield {**common, "width": width, "levels": levels, **row}


class _Lesson:
    """What a run of the method trains on."""

    def __init__(self, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        self.problem, self.params = arguments
        self.spectral, self.highest = options["spectral"], options["highest"]


class _Caught(Exception):
    """Carries the lesson out of the run."""


def _lesson(pair: Pair, params: ArgsDiffParams, seed: int) -> _Lesson:
    """Start a run, and stop it where it would train."""

    def stop(*arguments: Any, **options: Any) -> Generator[Step, None, Any]:
        yield from ()
        raise _Caught(_Lesson(arguments, options))

    real = args_diff.obtain_networks
    args_diff.obtain_networks = stop
    # with a weight that is given the network is trained whatever the pair
    chosen = replace(params, weight=FIXED) if params.sampler == "proximal" else params
    try:
        pair.fuse(chosen, None, seed)
    except _Caught as caught:
        lesson: _Lesson = caught.args[0]
        return lesson
    finally:
        args_diff.obtain_networks = real
    raise RuntimeError("the method trained nothing")


def learn(lesson: _Lesson, name: str, moments: list[int], seed: int) -> dict[int, Moment]:
    """Train one network at a constant rate; its averaged weights at some moments."""
    params = replace(lesson.params, patience=1)  # something is held out
    taught = selflearning.make_lessons(lesson.problem, params, name == "spectral")[name]
    assert taught.held_out is not None
    network: nn.Module = (
        spatial_network(params) if name == "spatial" else spectral_network(len(lesson.problem.x))
    )
    generator = torch.Generator().manual_seed(seed)
    initialise(network, generator)
    table = exponential_schedule(TIMES)
    if lesson.highest is not None:
        table = table[: time_of_noise(table, lesson.highest) + 2]
    levels = torch.as_tensor(table[1:]).to(lesson.problem.x.dtype)
    batch = taught.budget.batch
    loss = HeldOutLoss(taught.held_out, BATCHES * batch, batch, levels, seed, None)
    found: dict[int, Moment] = {}
    begun = time.process_time()

    def look(averaged: nn.Module, progress: Progress) -> Generator[Any, None, float]:
        nonlocal begun
        stopped = time.process_time()
        value = yield from loss(averaged, progress)
        if progress.step in moments:
            weights = {k: v.clone() for k, v in averaged.state_dict().items()}
            found[progress.step] = stopped - begun, -value, weights
        begun += time.process_time() - stopped
        return value

    last = max(moments)
    recipe = Recipe(
        steps=last,
        rate=taught.budget.rate,
        average=taught.budget.average,
        validate_every=int(np.gcd.reduce([*moments, EVERY * last])),
    )
    run = train(
        network,
        noise_loss(taught.sample, levels, batch),
        recipe,
        stage=name,
        generator=generator,
        cancel=CancelToken(),
        team=Team(torch.device("cpu")),
        validate=look,
    )
    with contextlib.closing(run):
        next(run)
        begun = time.process_time()  # torch sets itself up in the first step
        for _event in run:
            pass
    return found


def _tried(
    pair: Pair,
    lesson: _Lesson,
    kind: str,
    step: int,
    spatial: Mapping[int, Moment],
    seed: int,
) -> dict[str, Any]:
    """Fuse with the networks of a moment; a row without what all rows have."""
    params = replace(lesson.params, spatial_steps=step, d=lesson.params.dimensions)
    seconds, loss, weights = spatial[step]
    nets: dict[str, nn.Module] = {"spatial": spatial_network(params)}
    nets["spatial"].load_state_dict(weights)
    row: dict[str, Any] = {"sampler": params.sampler, "weight": kind, "steps": step}
    if kind == "published":
        steps = round(SPECTRAL_SHARE * step)
        more, _, weights = pair.spectral[steps]
        nets["spectral"] = spectral_network(len(lesson.problem.x))
        nets["spectral"].load_state_dict(weights)
        params = replace(params, spectral_steps=steps)
        seconds += more
        row |= {"weight": None, "spectral_steps": steps, "T": params.T}
    else:
        params = replace(params, weight=None if kind == "chosen" else FIXED)
    wanted = selflearning.requirements(params, lesson.problem, lesson.spectral, lesson.highest)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save_networks(Path(folder), nets, {**wanted, "seed": seed})
        fused, sampling = pair.fuse(params, Path(folder), seed)
    return {
        **row,
        "training_seconds": seconds,
        "held_out": loss,
        "sampling_seconds": sampling,
        "prior_weight": fused.attrs["record"].get("prior_weight"),
        "psnr": pair.psnr(fused),
    }


def write(path: Path, rows: list[dict[str, Any]], seed: int) -> None:
    """Write all rows so far, with the machine, as one JSON document."""
    document = {
        "benchmark": "training",
        "convention": "hsfusion",
        "seed": seed,
        "machine": {**machine(), "threads": torch.get_num_threads()},
        "versions": versions(),
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _middle(image: np.ndarray, side: int, step: int) -> np.ndarray:
    """Cut the middle out, on the grid of the ratio."""
    cut = []
    for size in image.shape[1:]:
        length = min(size, side) // step * step
        first = (size - length) // 2 // step * step
        cut.append(slice(first, first + length))
    return np.ascontiguousarray(image[:, cut[0], cut[1]])
