"""Sampling steps in every number format, with and without a CUDA graph, against plain code.

Made for a graphics card; on the CPU, which has no graphs and no tf32, the rest is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from .side_by_side import NEXT, NOW, Case, build

if TYPE_CHECKING:
    import torch

    from . import args_plain

Run = Callable[[int], object]


def variants(device: torch.device) -> list[tuple[str, str, str]]:
    """Kind, precision and graphs of everything that is measured on a device."""
    from napari_hsfusion.engine.precision import sampling_precision

    known = ["float32", "bfloat16"]
    if sampling_precision("auto", device) == "tf32":
        known.insert(1, "tf32")
    graphs = ("off", "auto") if device.type == "cuda" else ("off",)
    plain = [("plain", name, "off") for name in known if name != "bfloat16"]
    return plain + [("ours", name, how) for name in known for how in graphs]


def measure_variants(
    case: Case, steps: int, repeats: int, seed: int, device: str
) -> list[dict[str, Any]]:
    """Time so many steps of every variant, in turns, after one turn that does not count.

    Returns
    -------
    list of dict
        Each the case, ``kind``, ``precision``, ``graphs``; ``cuda_graph`` and its reason where
        a graph was tried; ``prepare_seconds``, what comes before the first step; ``seconds`` a
        step in every turn and their median ``per_step``, between waits for the device;
        ``peak_bytes`` and ``reserved_bytes`` of the device on top of images and weights, 0 on
        the CPU; ``ratio``, how many times as long the plain steps of the same precision took
        (of tf32 for bfloat16, where there is such).
    """
    from napari_hsfusion.engine.device import resolve_device

    place = resolve_device(device)
    count = steps * (repeats + 1)
    rows, runs = [], []
    for kind, precision, graphs in variants(place):
        _wait(place)
        before = _start(place)
        begun = time.perf_counter()
        run, record = _prepared(case, kind, precision, graphs, count, seed, device)
        _wait(place)
        prepared = time.perf_counter() - begun
        run(steps)
        _wait(place)
        row = {
            **asdict(case),
            "kind": kind,
            "precision": precision,
            "graphs": graphs,
            **record,
            "prepare_seconds": round(prepared, 4),
            **_peak(place, before),
            "seconds": [],
        }
        rows.append(row)
        runs.append(run)
    for _ in range(repeats):
        for row, run in zip(rows, runs, strict=True):
            _wait(place)
            begun = time.perf_counter()
            run(steps)
            _wait(place)
            row["seconds"].append(round((time.perf_counter() - begun) / steps, 7))
    plain = {}
    for row in rows:
        row["per_step"] = median(row["seconds"])
        if row["kind"] == "plain":
            plain[row["precision"]] = row["per_step"]
    for row in rows:
        against = plain.get(row["precision"], plain[list(plain)[-1]])
        row["ratio"] = against / row["per_step"]
    return rows


def _prepared(
    case: Case, kind: str, precision: str, graphs: str, count: int, seed: int, device: str
) -> tuple[Run, dict[str, Any]]:
    """Take so many steps on call, no more than `count` in all."""
    from napari_hsfusion.engine.diffusion.chain import Chain
    from napari_hsfusion.engine.diffusion.published import PublishedSampler

    both = build(case, seed, device)
    if kind == "plain":
        return partial(_plain_steps, both.plain, precision), {}
    ours = both.ours
    sampler = PublishedSampler(
        ours.problem,
        ours.spatial,
        ours.spectral,
        replace(ours.params, precision=precision, graphs=graphs),
        ours.a,
        ours.e,
    )
    del both, ours  # and with them what the plain one holds
    chain = Chain(sampler, [(NOW, NEXT)] * count, graphs)

    def advance(steps: int) -> None:
        for _ in range(steps):
            chain.advance()

    return advance, chain.record


def _plain_steps(plain: args_plain.Sampler, precision: str, steps: int) -> None:
    from napari_hsfusion.engine.precision import arithmetic

    with arithmetic(precision, plain.a.device):
        for _ in range(steps):
            plain.step(NOW, NEXT)


def in_float32(device: str | torch.device) -> AbstractContextManager[None]:
    """Let the plain implementation round as the package does, on a graphics card."""
    from napari_hsfusion.engine.device import resolve_device
    from napari_hsfusion.engine.precision import arithmetic

    return arithmetic("float32", resolve_device(device))


def _wait(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _start(device: torch.device) -> tuple[int, int]:
    import torch

    if device.type != "cuda":
        return 0, 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)


def _peak(device: torch.device, before: tuple[int, int]) -> dict[str, int]:
    import torch

    if device.type != "cuda":
        return {"peak_bytes": 0, "reserved_bytes": 0}
    return {
        "peak_bytes": torch.cuda.max_memory_allocated(device) - before[0],
        "reserved_bytes": torch.cuda.max_memory_reserved(device) - before[1],
    }
