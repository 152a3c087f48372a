"""Estimated against measured memory of runs, each in a process of its own.

What is measured is what a run adds to a process: its largest resident size from the call to
the result, less that before the call, when torch and the package are imported and both images
are in memory. The result counts. What the C library's heap keeps of arrays below 32 MB that
were freed varies from run to run: it is measured apart.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .accuracy import machine
from .memory import peak, start_of_peak


@dataclass(frozen=True)
class Case:
    """A run whose memory is estimated and measured."""

    method: str
    preset: str
    bands: int
    side: int
    msi_bands: int = 4
    ratio: int = 4
    threads: int = 1
    samples: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def cases() -> Iterator[Case]:
    """Runs of every method at several sizes, with few steps."""
    for bands, side in ((31, 64), (103, 128), (31, 256), (206, 256)):
        yield Case("bicubic", "default", bands, side)
        yield Case("subspace", "default", bands, side)
        yield Case("args-diff", "fast", bands, side)
    yield Case("subspace", "classes", 103, 256)
    yield Case("subspace", "default", 103, 128, samples=4)
    yield Case("args-diff", "fast", 103, 128, samples=4)
    for bands, side in ((31, 64), (103, 256), (31, 512)):
        yield Case("args-diff", "fast", bands, side, threads=2)
    yield Case("args-diff", "fast", 103, 128, threads=2, samples=4)
    yield Case("args-diff", "fast", 31, 384, settings={"denoise": False})
    short: dict[str, Any] = {"spatial_steps": 3, "levels": 2}
    yield Case("args-diff", "balanced", 31, 64, settings=short)
    for threads in (1, 2):
        yield Case("args-diff", "balanced", 103, 256, threads=threads, settings=short)
    yield Case("args-diff", "balanced", 31, 128, settings={**short, "spatial_base": 64})
    short = {"T": 2, "spatial_steps": 2, "spectral_steps": 2, "spatial_batch": 4}
    small = {"spatial_base": 16, "spatial_levels": 2, "spatial_blocks": 1, "spatial_patch": 32}
    for gradient in ("network", "x0"):
        for bands, side in ((31, 64), (103, 128), (103, 256)):
            settings = {**short, **small, "gradient": gradient}
            yield Case("args-diff", "paper", bands, side, settings=settings)
    yield Case("args-diff", "paper", 31, 96, settings=short)
    yield Case("args-diff", "paper", 31, 128, samples=2, settings={**short, **small})
    for side in (64, 256, 384):
        yield Case("emr-diff", "default", 31, side, 3, 8)
    yield Case("emr-diff", "network", 31, 256, 3, 8, threads=2)
    yield Case("emr-diff", "default", 31, 128, 3, 8, samples=2)
    yield Case("emr-diff", "pair", 103, 128, settings={"steps": 2})


def measure(case: Case, seed: int) -> dict[str, Any]:
    """Run a case twice, each time in a new process.

    Returns
    -------
    dict
        The case, and ``dimensions`` as the run settled them; ``estimate`` and ``measured``,
        bytes, ``estimate_to_measured``, and ``stages``, the peak up to the end of each stage, where
        every large array is a mapping of its own; and ``measured_default``, where the C
        library's heap holds arrays as it likes.
    """
    context = multiprocessing.get_context("spawn")
    found = []
    for fixed in (True, False):
        with _mapped_arrays(fixed), ProcessPoolExecutor(1, mp_context=context) as pool:
            found.append(pool.submit(run, case, seed).result())
    return {**found[0], "measured_default": found[1]["measured"]}


@contextmanager
def _mapped_arrays(fixed: bool) -> Iterator[None]:
    """New processes map every array of a megabyte or more (glibc), where that is asked for."""
    if fixed:
        os.environ[_THRESHOLD] = "1000000"
    try:
        yield
    finally:
        os.environ.pop(_THRESHOLD, None)


_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"


def run(case: Case, seed: int) -> dict[str, Any]:
    """Run a case here; as :func:`measure`."""
    import torch

    from napari_hsfusion import api
    from napari_hsfusion.engine import methods as _methods  # noqa: F401  before the run
    from napari_hsfusion.engine.device import release
    from napari_hsfusion.engine.events import Event, Finished, Started, Step

    torch.set_num_threads(case.threads)
    low, high, response = scene(case, seed)
    options: dict[str, Any] = {
        "method": case.method,
        "preset": case.preset,
        "device": "cpu",
        "samples": case.samples,
        "params": dict(case.settings),
    }
    expected = 0.0
    stages: dict[str, int] = {}

    def note(event: Event) -> None:
        nonlocal expected
        if isinstance(event, Started):
            expected = event.estimate["bytes"]
        name = event.stage if isinstance(event, Step) else type(event).__name__
        if isinstance(event, Started | Step | Finished):
            stages[name] = peak() - before

    release(torch.device("cpu"))  # what the scene has left
    before = start_of_peak()
    fused = api.fuse(
        low, high, psf="gaussian:1.7", srf=response, seed=seed, progress=note, **options
    )
    top = peak() - before
    return {
        **asdict(case),
        "dimensions": fused.attrs["record"].get("dimensions"),
        "estimate": expected,
        "measured": top,
        "estimate_to_measured": expected / top,
        "stages": stages,
    }


def scene(case: Case, seed: int) -> tuple[Any, Any, npt.NDArray[np.float64]]:
    """Smooth spectra and maps with edges, seen by both sensors, with some noise in both."""
    import torch

    from napari_hsfusion import make_cube
    from napari_hsfusion.engine.operators import SpatialDegradation

    rng = np.random.default_rng(seed)
    bands, side, count = case.bands, case.side, 8
    rows, columns = np.mgrid[:side, :side] / side
    maps = []
    for _ in range(count):
        a, b, phase = rng.uniform(1, 6, 3)
        image = np.sin(2 * np.pi * (a * rows + b * columns + phase))
        maps.append(np.where(image > 0.3, 1.0, 0.4 + 0.3 * image))
    place = np.linspace(0, 1, bands)[:, None]
    spectra = np.exp(-(((place - rng.uniform(size=count)) / rng.uniform(0.1, 0.5, count)) ** 2))
    cube = np.tensordot(spectra, np.stack(maps), axes=1).astype(np.float32)
    response, centres = _sensor(case)
    spatial = SpatialDegradation.gaussian((side, side), case.ratio, 1.7)
    low = spatial.forward(torch.from_numpy(cube)).numpy()
    high = np.tensordot(response, cube, axes=1).astype(np.float32)
    for image in (low, high):
        image += rng.normal(0, 0.01 * image.std(), image.shape).astype(np.float32)
    return make_cube(low, wavelength=centres), make_cube(high), response


def _sensor(case: Case) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Response (c, C) and band centres; those of shipped weights where they are to be used."""
    from napari_hsfusion.engine.emr.shipped import shipped_weights
    from napari_hsfusion.engine.emr.weights import read_weights_header

    if case.method == "emr-diff" and case.preset != "pair":
        header = read_weights_header(shipped_weights()[0])
        return np.asarray(header["srf"], float), np.asarray(header["wavelengths"], float)
    edges = np.linspace(0, case.bands, case.msi_bands + 1).astype(int)
    response = np.zeros((case.msi_bands, case.bands))
    for row, (first, last) in zip(response, pairwise(edges), strict=True):
        row[first:last] = 1.0 / (last - first)
    return response, np.linspace(400.0, 1000.0, case.bands)


def write(path: Path, rows: Sequence[Mapping[str, Any]], seed: int) -> None:
    """Write all rows so far, with the machine, as one JSON document."""
    document = {"benchmark": "memory", "seed": seed, "machine": machine(), "rows": list(rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
