"""Several processes that run one command together, as launchers of training start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO

from ..errors import DeviceError

_POLL = 0.2


def run_together(count: int, arguments: Sequence[str], device: str) -> int:
    """Run ``hsfusion ARGUMENTS`` in `count` processes that know of each other.

    The first one speaks; the others' words are shown only where one of them fails and
    the first has not.

    Parameters
    ----------
    count : int
    arguments : sequence of str
    device : str
        As the command takes it.

    Returns
    -------
    int
        Exit code: that of the first process, or of one that failed before it.

    Raises
    ------
    DeviceError
        If accelerate is not installed, there are fewer GPUs than processes, or one GPU
        is named.
    """
    from importlib.util import find_spec

    if find_spec("accelerate") is None:
        raise DeviceError("--processes needs accelerate: install napari-hsfusion[train]")
    _check_devices(count, device)
    with ExitStack() as stack:
        words: list[IO[bytes]] = [
            stack.enter_context(tempfile.TemporaryFile()) for _ in range(count - 1)
        ]
        port = _free_port()
        processes = []
        for rank in range(count):
            named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
            environment = {**os.environ, "MASTER_ADDR": "127.0.0.1"}
            environment |= {name: str(value) for name, value in named.items()}
            quiet = words[rank - 1] if rank else None
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "napari_hsfusion.cli", *arguments],
                    env=environment,
                    stdout=subprocess.DEVNULL if rank else None,
                    stderr=quiet,
                )
            )
        codes = _waited(processes)
        for rank, code in enumerate(codes[1:], start=1):
            if code > 0 and codes[0] <= 0:
                words[rank - 1].seek(0)
                sys.stderr.write(words[rank - 1].read().decode(errors="replace"))
    return next((code for code in codes if code > 0), 0 if not any(codes) else 1)


def _waited(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes; where one process fails, the others, who would wait for it, are ended."""
    try:
        while any(p.poll() is None for p in processes):
            if any(p.returncode for p in processes):
                break
            for process in processes:
                try:
                    process.wait(_POLL)
                except subprocess.TimeoutExpired:
                    continue
        return [_ended(p) for p in processes]
    except KeyboardInterrupt:
        # they were interrupted as well, and keep the state before they end
        processes[0].wait()
        for process in processes:
            _ended(process)
        raise


def _ended(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.terminate()
    return process.wait()


def _check_devices(count: int, device: str) -> None:
    import torch

    if ":" in device:
        raise DeviceError(
            "--processes: every process takes a GPU of its own: expected --device cuda, "
            f"got {device}"
        )
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if there < count:
        raise DeviceError(f"--processes: expected at most one a GPU, got {count} for {there}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
