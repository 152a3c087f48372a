"""ARGS-Diff's steps against a plain implementation of the same equations, in one run.

Both have the same weights, images and noise and take their steps in turns, so that another
program's load falls on both; they must agree. Memory is that of a process of its own.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from .accuracy import machine
from .cards import in_float32
from .memory import kept_bytes, peak, start_of_peak
from .side_by_side import NEXT, NOW, Case, Sides, build

KINDS = ("ours", "plain")
GRADIENTS = ("x0", "network")
AGREEMENT = 1e-3


def sweeps(
    case: Case,
    sides: Sequence[int],
    bands: Sequence[int],
    dims: Sequence[int],
    widths: Sequence[int],
) -> Iterator[tuple[str, Case]]:
    """Cases that differ from `case` in one size, each with both gradients."""
    for name, values in (("side", sides), ("bands", bands), ("d", dims), ("base", widths)):
        for value in values:
            for gradient in GRADIENTS:
                yield name, replace(case, gradient=gradient, **{name: value})


def measure_step(case: Case, repeats: int, seed: int, device: str) -> dict[str, Any]:
    """Time sampling steps of both, in turns, and of the guidance alone.

    Returns
    -------
    dict
        The case; ``seconds`` and ``cpu_seconds`` of every step of both; ``per_step``, the
        median of the processor's on the CPU, of the clock's on a GPU; ``guidance``, the same
        of the loss and its gradient at given factors; ``difference`` of the gradients of
        both, the largest relative one in the Euclidean norm.

    Raises
    ------
    RuntimeError
        If they differ by more than 1e-3.
    """
    import torch

    from napari_hsfusion.engine.diffusion.guidance import guidance_gradient

    both = build(case, seed, device)
    difference = disagreement(both)
    if not difference <= AGREEMENT:
        raise RuntimeError(f"{case}: the gradients of the two implementations differ: {difference}")

    def alone(kind: str) -> None:
        a, e = both.ours.a_clean, both.ours.e_clean
        if kind == "ours":
            with torch.no_grad():
                guidance_gradient(both.problem, a, e, 1.0)
        else:
            a, e = a.clone().requires_grad_(), e.clone().requires_grad_()
            torch.autograd.grad(both.plain.pair.loss(a, e, 1.0), (a, e))

    if case.base >= 64:  # takes so long that a first turn would not change it
        repeats = 0
    taken = _turns(lambda kind: getattr(both, kind).step(NOW, NEXT), repeats, device)
    terms = _turns(alone, max(repeats, 1), device)
    return {
        **asdict(case),
        "parameters": both.parameters,
        **taken,
        "guidance": terms["per_step"],
        "difference": difference,
    }


def measure_chain(case: Case, steps: int, seed: int, device: str) -> dict[str, Any]:
    """Time whole chains of `steps` steps of both, our events and previews counted in."""
    import torch

    from napari_hsfusion.engine.diffusion.published import sample_published
    from napari_hsfusion.engine.events import CancelToken

    both = build(case, seed, device)

    def chain(kind: str) -> None:
        if kind == "ours":
            p = replace(both.ours.params, T=steps)
            generator = torch.Generator().manual_seed(seed)
            nets = both.ours.spatial, both.ours.spectral
            for _ in sample_published(both.problem, *nets, p, generator, CancelToken()):
                pass
        else:
            times = [round(999 - 1000 * k / steps) for k in range(steps + 1)]
            for now, following in pairwise(times):
                both.plain.step(now, following)

    return {**asdict(case), "T": steps, **_turns(chain, 1, device)}


def measure_training(
    network: str, case: Case, steps: int, seed: int, device: str
) -> dict[str, Any]:
    """Time training steps of both from the same weights, with batches of 4 and 128.

    Raises
    ------
    RuntimeError
        If the losses of any step differ by more than 1e-3.
    """
    import torch

    from napari_hsfusion.engine.diffusion.schedules import exponential_schedule
    from napari_hsfusion.engine.events import CancelToken
    from napari_hsfusion.engine.noise_prediction import Budget, train_noise_predictor
    from napari_hsfusion.engine.selflearning import patch_sampler, spectrum_sampler

    from . import args_plain

    both = build(case, seed, device)
    net = getattr(both.ours, network)
    image = 2 * (both.problem.y if network == "spatial" else both.problem.x) - 1
    side, rate = min(32, case.side), 1e-3
    batch = 4 if network == "spatial" else 128
    start = {name: w.clone() for name, w in net.state_dict().items()}
    sample = (
        patch_sampler(image.cpu(), case.d, side, 1, False)
        if network == "spatial"
        else spectrum_sampler(image.cpu().flatten(1))
    )
    losses: dict[str, list[float | None]] = {}

    def train(kind: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        if kind == "plain":
            arguments = (network, image, steps, batch, side, rate, generator)
            losses[kind] = list(args_plain.train(start, *arguments)[1])
            return
        net.load_state_dict(start)
        run = train_noise_predictor(
            net.requires_grad_(True),
            sample,
            exponential_schedule(),
            Budget(steps, batch, rate, True, 0.999),
            stage="train",
            generator=generator,
            device=image.device,
            dtype=image.dtype,
            cancel=CancelToken(),
        )
        losses[kind] = [step.loss for step in run]

    taken = _turns(train, 3, device)
    pairs = [(m, t) for m, t in zip(*losses.values(), strict=True) if m is not None and t]
    difference = max(abs(m - t) / t for m, t in pairs)
    if not difference <= AGREEMENT:
        raise RuntimeError(f"{network}: the losses of the two implementations differ: {difference}")
    per_step = {kind: value / steps for kind, value in taken["per_step"].items()}
    row = {"network": network, **asdict(case), "batch": batch, "steps": steps, **taken}
    return {**row, "per_step": per_step, "difference": difference}


def measure_memory(case: Case, seed: int, device: str, threads: int) -> dict[str, Any]:
    """Peak memory of two sampling steps of both, each in a process of its own.

    Returns
    -------
    dict
        The case; ``peak_bytes``, what the steps add to the resident size or to a GPU's
        allocations; ``kept_bytes``, what a step keeps for the backward pass.
    """
    context = multiprocessing.get_context("spawn")
    found = {}
    for kind in KINDS:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found[kind] = pool.submit(_memory, kind, case, seed, device, threads).result()
    names = ("peak_bytes", "kept_bytes")
    return {**asdict(case), **{n: {kind: found[kind][n] for kind in KINDS} for n in names}}


def _memory(kind: str, case: Case, seed: int, device: str, threads: int) -> dict[str, int]:
    import torch

    torch.set_num_threads(threads)
    getattr(build(replace(case, side=32), seed, device), kind).step(NOW, NEXT)
    sampler = getattr(build(case, seed, device), kind)
    on_card = sampler.a.device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = start_of_peak()
    with in_float32(device):
        sampler.step(NOW, NEXT)
        sampler.step(NEXT, NEXT - 2)
    top = (torch.cuda.max_memory_allocated() if on_card else peak()) - before
    return {"peak_bytes": top, "kept_bytes": kept_bytes(lambda: sampler.gradient(NOW))}


def disagreement(both: Sides) -> float:
    """Largest relative difference of loss, predictions and gradients at a common state.

    A prediction that rounding puts on either side of its clip has either gradient: there
    gradients are not compared.
    """
    with in_float32(both.plain.a.device):
        a0, e0, loss, *theirs = both.plain.gradient(NOW)
    ours, *mine = both.ours.gradient(NOW)
    clean = (both.ours.a_clean, both.ours.e_clean)
    pairs = [(ours, loss)]
    for one, other, own, their in zip(clean, (a0, e0), mine, theirs, strict=True):
        alike = (one.abs() < 1) == (other.abs() < 1)
        if not alike.float().mean() > 0.999:
            return math.inf
        pairs += [(one, other), (own * alike, their * alike)]
    return max(float((m - t).norm() / t.norm()) for m, t in pairs)


def _turns(run: Callable[[str], object], repeats: int, device: str) -> dict[str, Any]:
    """Run both kinds in turns, after one turn that does not count; once with no repeats."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(repeats + 1):
        for kind in KINDS:
            begun = _clocks(device)
            with in_float32(device):
                run(kind)
            ended = _clocks(device)
            if turn or not repeats:
                seconds[kind].append(round(ended[0] - begun[0], 6))
                cpu[kind].append(round(ended[1] - begun[1], 6))
    chosen = cpu if _on_cpu(device) else seconds
    per_step = {kind: median(values) for kind, values in chosen.items()}
    return {"seconds": seconds, "cpu_seconds": cpu, "per_step": per_step}


def _clocks(device: str) -> tuple[float, float]:
    import torch

    if not _on_cpu(device):
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def _on_cpu(device: str) -> bool:
    from napari_hsfusion.engine.device import resolve_device

    return resolve_device(device).type == "cpu"


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write the figures with the machine's description, whole or not at all."""
    import torch

    from napari_hsfusion.engine.methods.base import versions

    about = {
        "benchmark": "speed",
        "machine": {**machine(), "threads": torch.get_num_threads()},
        "versions": versions(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps({**about, **document}, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
