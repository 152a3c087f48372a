"""One fusion in a process of its own, so that its peak memory is nobody else's.

The parent writes the pair and what is asked for into a folder; the child, started as
``python -m napari_hsfusion._reproduce.apart FOLDER``, writes the cube there, and one JSON
object a line on its standard output: its steps, then what it took.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..engine.events import CancelToken, Step
from ..errors import HSFusionError
from .failures import FailedRun, noting_failures

_IMAGES = ("lr_hsi", "hr_msi", "srf")
_JOB, _CUBE = "job.json", "cube.npy"
_EVERY = 0.2  # seconds between two steps that are told, but for the last of a stage


def fuse_apart(
    images: Mapping[str, np.ndarray], job: Mapping[str, Any], cancel: CancelToken
) -> Generator[Step, None, tuple[np.ndarray, dict[str, Any]]]:
    """Fuse a pair in a fresh process, and measure it.

    Parameters
    ----------
    images : mapping
        ``lr_hsi`` (C, h, w), ``hr_msi`` (c, H, W), ``srf`` (c, C).
    job : mapping
        JSON-able: ``psf`` as :func:`~napari_hsfusion._responses.psf_note` writes it,
        ``scale``, ``method``, ``preset`` or None, ``params`` (parameters that differ from
        the preset), ``seed``, ``device``.
    cancel : CancelToken
        Looked at whenever the child tells of a step; it is ended then.

    Returns
    -------
    cube : ndarray, shape (C, H, W)
    measured : dict
        ``seconds`` by stage, ``base_bytes`` and ``peak_bytes`` of the process before the
        run and at most (None where the system does not tell), ``device_bytes`` at most on
        a GPU (None without one), and ``dimensions`` of the subspace, where there is one.

    Yields
    ------
    Step

    Raises
    ------
    FailedRun
        If the run comes to nothing, or the process is ended from outside.
    """
    with tempfile.TemporaryDirectory(prefix="hsfusion-") as name:
        folder = Path(name)
        for image, values in images.items():
            np.save(folder / f"{image}.npy", values)
        (folder / _JOB).write_text(json.dumps(job), encoding="utf-8")
        measured: dict[str, Any] | None = None
        with _child(folder) as (process, told, words):
            for line in told:
                cancel.check()
                said = json.loads(line)
                if "failed" in said:
                    raise FailedRun(said["failed"])
                if "measured" in said:
                    measured = said["measured"]
                else:
                    yield Step(*said["step"])
            code = process.wait()
            cancel.check()  # an interruption by hand ends the child as well
            words.seek(0)
            last = words.read().strip().splitlines()[-1:] or ["without a word"]
        if code or measured is None:
            how = f"signal {-code}, perhaps for want of memory" if code < 0 else last[0]
            raise FailedRun(f"the process ended with code {code}: {how}")
        return np.load(folder / _CUBE), measured


@contextmanager
def _child(folder: Path) -> Generator[tuple[subprocess.Popen[str], IO[str], IO[str]], None, None]:
    """Run the child's process; it does not outlive the block."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            encoding="utf-8",
        )
        assert process.stdout is not None
        try:
            with process.stdout as told:
                yield process, told, words
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def main(folder: Path) -> None:
    """Do what the parent left in a folder; the child's whole life.

    Parameters
    ----------
    folder : Path
    """
    import torch

    from .._fuse import iter_fuse
    from .._responses import psf_from_note
    from ..engine.events import Finished
    from ..sensors.psf import parse_psf

    job = json.loads((folder / _JOB).read_text(encoding="utf-8"))
    images = {name: np.load(folder / f"{name}.npy") for name in _IMAGES}
    psf = job["psf"]
    cuda = job["device"].startswith("cuda")
    if cuda:
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(job["device"])
    base = peak_bytes()
    events = iter_fuse(
        images["lr_hsi"],
        images["hr_msi"],
        method=job["method"],
        preset=job["preset"],
        scale=job["scale"],
        psf=parse_psf(psf) if isinstance(psf, str) else psf_from_note(psf),
        srf=images["srf"],
        seed=job["seed"],
        device=job["device"],
        params=job["params"],
    )
    seconds: dict[str, float] = defaultdict(float)
    dimensions: int | None = None
    last = told = time.perf_counter()
    try:
        with noting_failures():
            for event in events:
                now = time.perf_counter()
                stage = event.stage if isinstance(event, Step) else ""
                seconds[stage] += now - last
                last = now
                if isinstance(event, Finished):
                    dimensions = event.record.get("dimensions")
                    np.save(folder / _CUBE, event.cube)
                elif isinstance(event, Step) and (
                    now - told > _EVERY or event.index == event.total
                ):
                    told = now
                    _tell({"step": [event.stage, event.index, event.total]})
    except (FailedRun, HSFusionError) as failure:
        _tell({"failed": str(failure)})
        return
    measured = {
        "seconds": dict(seconds),
        "base_bytes": base,
        "peak_bytes": peak_bytes(),
        "device_bytes": torch.cuda.max_memory_allocated(job["device"]) if cuda else None,
        "dimensions": dimensions,
    }
    _tell({"measured": measured})


def peak_bytes() -> int | None:
    """Largest resident size of this process so far; None where the system does not tell.

    Linux's own count is taken where there is one: that of ``getrusage`` begins with the
    size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((int(s.split()[1]) * 1024 for s in lines if s.startswith("VmHWM:")), None)
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _tell(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
