"""Quality, time and memory of one method on one pair, each run in a process of its own.

A pair is an ``.npz`` with the reference Z (C, H, W), X (C, h, w), Y (c, H, W), the
response R (c, C), the ``scale``, the ``psf`` and the ``wavelengths``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np


def measure(pair: Path, method: str, preset: str | None, seed: int, device: str) -> dict[str, Any]:
    """Run and score one method; see :func:`_run` for what is returned."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_run, str(pair), method, preset, seed, device).result()


def _run(pair: str, method: str, preset: str | None, seed: int, device: str) -> dict[str, Any]:
    """Fuse, and measure with the default convention.

    ``seconds`` covers the fusion alone, training included; ``peak_bytes`` is the
    process's largest resident size, ``device_bytes`` the accelerator's peak.
    """
    import torch

    from napari_hsfusion import api, make_cube

    with np.load(pair) as data:
        z, x, y, response = (data[key] for key in ("Z", "X", "Y", "R"))
        scale, psf, centres = int(data["scale"]), str(data["psf"]), data["wavelengths"]
    begun = time.perf_counter()
    fused = api.fuse(
        make_cube(x, wavelength=centres),
        y,
        method=method,
        preset=preset,
        scale=scale,
        psf=psf,
        srf=response,
        seed=seed,
        device=device,
    )
    seconds = time.perf_counter() - begun
    record = fused.attrs["record"]
    measured = api.evaluate(z, fused, scale)
    return {
        "scene": Path(pair).stem,
        "shape": list(z.shape),
        "scale": scale,
        "method": method,
        "preset": record["preset"],
        "device": record["device"],
        "device_name": record["name"],
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        "versions": record["versions"],
        **{key: measured[key] for key in ("psnr", "sam", "ergas", "ssim", "uiqi", "q2n")},
    }


def machine() -> dict[str, Any]:
    """Describe the machine that figures were measured on."""
    return {"cpus": os.cpu_count(), "platform": platform.platform()}


def write(path: Path, rows: Sequence[dict[str, Any]], seed: int) -> None:
    """Write all rows so far, with the machine, as one JSON document."""
    document = {
        "benchmark": "accuracy",
        "convention": "hsfusion",
        "seed": seed,
        "machine": machine(),
        "rows": list(rows),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
