"""Presets of ARGS-Diff from end to end on scenes of given sizes, within given minutes.

The scene is the synthetic one of the package's demonstration, so that any machine can do it.
A training budget that does not fit in the time is cut: the row then says so, and what the
whole of it would take.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from .accuracy import machine

RATIO, SNR_DB = 4, 35.0
PROBE = {"spatial_steps": 30, "spectral_steps": 200}
"""Training steps from which is told what the budget would take."""

_TRAINED = {"train spatial network": "spatial_steps", "train spectral network": "spectral_steps"}


def measure(
    side: int,
    bands: int,
    preset: str,
    minutes: float,
    seed: int,
    device: str,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one preset in a process of its own.

    Parameters
    ----------
    side, bands : int
        Of the scene.
    preset : str
    minutes : float
        That the run may take; what is fused before it in order to know is not counted in.
    seed : int
    device : str
    settings : mapping, optional
        Changes to the preset.

    Returns
    -------
    dict
        ``complete`` says whether the budgets were the preset's; ``budgets`` are what they
        were. ``seconds`` and ``stage_seconds`` are measured; ``whole_seconds`` counts every
        training stage at its full budget. ``device_bytes`` and ``peak_bytes`` are the peaks of
        device and process; figures of quality are in the default convention.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        work = pool.submit(_run, side, bands, preset, minutes, seed, device, dict(settings or {}))
        return work.result()


def _run(
    side: int,
    bands: int,
    preset: str,
    minutes: float,
    seed: int,
    device: str,
    settings: dict[str, Any],
) -> dict[str, Any]:
    import torch

    from napari_hsfusion import api
    from napari_hsfusion.engine.events import Step
    from napari_hsfusion.scene import demo_response, demo_scene

    reference = demo_scene(side, bands, seed)
    listed = zip(*demo_response(), strict=True)
    camera = "gaussian:" + ",".join(f"{centre:g}/{width:g}" for centre, width in listed)
    pair = api.simulate(reference, RATIO, "bicubic", camera, SNR_DB, seed)
    named = api.preset_params("args-diff", preset)
    full = type(named).from_settings(settings, named)
    budgets = {name: getattr(full, name) for name in PROBE}

    def fuse(changes: Mapping[str, Any]) -> tuple[Any, float, dict[str, _Stage]]:
        stages: dict[str, _Stage] = {}
        begun = last = time.perf_counter()
        run = api.iter_fuse(
            pair.lr_hsi,
            pair.hr_msi,
            method="args-diff",
            preset=preset,
            scale=RATIO,
            psf="bicubic",
            srf=pair.response,
            seed=seed,
            device=device,
            params={**settings, **changes},
        )
        while True:
            try:
                event = next(run)
            except StopIteration as stop:
                return stop.value, time.perf_counter() - begun, stages
            now = time.perf_counter()
            if isinstance(event, Step):
                stages.setdefault(event.stage, _Stage()).count(event.index, now - last)
            last = now

    changes: dict[str, int] = {}
    if full.sampler == "published":
        tried = {name: min(PROBE[name], budgets[name]) for name in PROBE}
        _, took, stages = fuse(tried)
        training = {
            _TRAINED[name]: stage.rate * budgets[_TRAINED[name]]
            for name, stage in stages.items()
            if name in _TRAINED
        }
        rest = took - sum(stage.seconds for name, stage in stages.items() if name in _TRAINED)
        share = (60.0 * minutes - rest) / (sum(training.values()) or 1.0)
        if share < 1.0:
            changes = {name: max(tried[name], int(share * budgets[name])) for name in training}
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
    cube, seconds, stages = fuse(changes)
    record = cube.attrs["record"]
    missing = sum(
        stages[name].rate * (budgets[key] - changes[key])
        for name, key in _TRAINED.items()
        if key in changes
    )
    measured = api.evaluate(reference, cube, RATIO)
    return {
        "shape": [bands, side, side],
        "preset": preset,
        "settings": settings,
        "minutes": minutes,
        "complete": not changes,
        "budgets": {**budgets, **changes},
        "device": record["device"],
        "device_name": record["name"],
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "whole_seconds": seconds + missing,
        "stage_seconds": {name: stage.seconds for name, stage in stages.items()},
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        "versions": record["versions"],
        "sampling": {
            key: record[key]
            for key in ("sampling_precision", "cuda_graph", "cuda_graph_reason")
            if key in record
        },
        **{key: measured[key] for key in ("psnr", "sam", "ergas", "ssim")},
    }


class _Stage:
    """Seconds of a stage, and a step of it after the first, which prepares much."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._after, self._steps = 0.0, 0

    def count(self, index: int, seconds: float) -> None:
        self.seconds += seconds
        if index > 1:
            self._after += seconds
            self._steps += 1

    @property
    def rate(self) -> float:
        return self._after / self._steps if self._steps else self.seconds


def write(path: Path, rows: Sequence[Mapping[str, Any]], seed: int) -> None:
    """Write all rows, those of an earlier call among them, whole or not at all.

    A row replaces the earlier one of the same shape, preset and settings.
    """
    kept: dict[str, Mapping[str, Any]] = {}
    before = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    for row in (*before, *rows):
        kept[json.dumps([row[key] for key in ("shape", "preset", "settings", "device")])] = row
    document = {
        "benchmark": "endtoend",
        "scene": "demonstration",
        "ratio": RATIO,
        "snr_db": SNR_DB,
        "seed": seed,
        "machine": machine(),
        "rows": list(kept.values()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
