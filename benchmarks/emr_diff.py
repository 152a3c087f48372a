"""EMR-Diff's restoration against a plain implementation of its equations, in one run.

Both have the same weights, images and noise, and each runs in a process of its own: what
its memory grows by is counted from a warm start. They must agree.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .accuracy import machine
from .memory import peak as top
from .memory import start_of_peak

BANDS, MSI_BANDS, RATIO = 31, 3, 8
KINDS = ("ours", "plain")
AGREEMENT = 1e-4


def measure(
    side: int, width: int, repeats: int, seed: int, weights: Path | None = None
) -> list[dict[str, Any]]:
    """Restore a scene of `side` x `side` x (31 + 3) by both, turn by turn.

    Returns
    -------
    list of dict
        One a kind: ``parameters``; ``peak_bytes``, the growth of the resident size over
        what it was before the restoration; ``seconds`` of every repeat and ``cpu_seconds``
        of the process, which another program's load changes less; ``seconds_per_call``, the
        median over a call of the network; ``change``, the root mean square of what the
        network changes; ``difference``, the largest one of the two cubes.

    Raises
    ------
    RuntimeError
        If the cubes differ by more than 1e-4.
    """
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        cubes = {kind: str(Path(folder) / f"{kind}.npy") for kind in KINDS}
        for _ in range(repeats):
            for kind in KINDS:
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    job = pool.submit(_run, kind, side, width, seed, weights, cubes[kind])
                    found[kind].append(job.result())
        first, second = (np.load(cubes[kind]) for kind in KINDS)
    difference = float(np.abs(first - second).max())
    if not difference <= AGREEMENT:
        raise RuntimeError(f"the two implementations differ by {difference:g}")
    rows = []
    for kind, runs in found.items():
        seconds = [run.pop("seconds") for run in runs]
        cpu = [run.pop("cpu_seconds") for run in runs]
        peak = max(run.pop("peak_bytes") for run in runs)
        rows.append(
            {
                "kind": kind,
                "shape": [BANDS, side, side],
                **runs[0],
                "peak_bytes": peak,
                "seconds": seconds,
                "cpu_seconds": cpu,
                "seconds_per_call": round(median(seconds) / runs[0]["calls"], 4),
                "cpu_seconds_per_call": round(median(cpu) / runs[0]["calls"], 4),
                "difference": difference,
            }
        )
    return rows


def _run(
    kind: str, side: int, width: int, seed: int, weights: Path | None, out: str
) -> dict[str, Any]:
    """Restore once, after a small scene that does not count; the cube goes to a file."""
    import torch

    from napari_hsfusion.engine.methods.base import versions

    from . import emr_plain

    model = _model(width, seed, weights)
    plain = {k.removeprefix("network."): v for k, v in model.state_dict().items()}

    def restore(size: int) -> torch.Tensor:
        up, msi, edges = _scene(size, seed)
        generator = torch.Generator().manual_seed(seed)
        begun = time.perf_counter(), time.process_time()
        with torch.no_grad():
            if kind == "plain":
                steps = emr_plain.restore(plain, model.config, up, msi, edges, generator)
            else:
                # as the method runs it
                steps = model.restore(up, msi, edges, generator, 256 if size > 256 else 0)
            for step in steps:
                cube = step
        times[:] = time.perf_counter() - begun[0], time.process_time() - begun[1]
        return cube

    times = [0.0, 0.0]
    restore(48)
    before = start_of_peak()
    cube = restore(side)
    peak = top() - before
    np.save(out, cube.numpy())
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "width": model.config.width,
        "calls": model.config.steps,
        "weights": None if weights is None else weights.name,
        "threads": torch.get_num_threads(),
        "peak_bytes": peak,
        "change": float((cube - _scene(side, seed)[0]).square().mean().sqrt()),
        "seconds": round(times[0], 3),
        "cpu_seconds": round(times[1], 3),
        "versions": versions(),
    }


def _model(width: int, seed: int, weights: Path | None) -> Any:
    import torch

    from napari_hsfusion.engine.emr.config import EmrConfig
    from napari_hsfusion.engine.emr.model import EmrModel
    from napari_hsfusion.engine.emr.weights import load_weights
    from napari_hsfusion.engine.nets.initialise import initialise

    if weights is not None:
        return load_weights(weights)[0]
    model = EmrModel(EmrConfig(bands=BANDS, msi_bands=MSI_BANDS, ratio=RATIO, width=width))
    generator = torch.Generator().manual_seed(seed)
    initialise(model, generator)
    with torch.no_grad():
        for head in model.network.heads:  # a new network's are zero
            for weight in head.parameters():
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    return model.eval().requires_grad_(False)


def _scene(side: int, seed: int) -> tuple[Any, Any, Any]:
    """Interpolated LR-HSI, HR-MSI and edge map of smooth random spectra and maps."""
    import torch

    from napari_hsfusion.engine.diffusion.edges import edge_map
    from napari_hsfusion.engine.operators import SpatialDegradation

    side -= side % RATIO
    rng = np.random.default_rng(seed)
    maps = rng.random((4, side, side), dtype=np.float32)
    maps[:2, side // 3 :] *= 0.2
    spectra = np.cumsum(rng.random((4, BANDS), dtype=np.float32), 1) / BANDS / 4
    cube = torch.as_tensor(np.einsum("kyx,kb->byx", maps, spectra))
    low = SpatialDegradation.bicubic((side, side), RATIO)
    up = low.upsample(low.forward(cube))[None]
    msi = cube[None, [4, 15, 26]]
    return up, msi, edge_map(msi)


def write(path: Path, rows: Sequence[dict[str, Any]], seed: int) -> None:
    """Write all rows so far, with the machine, whole or not at all."""
    document = {"benchmark": "emr-diff", "seed": seed, "machine": machine(), "rows": list(rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
