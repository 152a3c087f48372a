"""Where a run computes: choice of device, its description, release of its memory."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..errors import DeviceError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turn a name into a device that is there.

    Parameters
    ----------
    name : str or torch.device
        ``auto`` (the first CUDA device, else the CPU), ``cpu``, ``cuda``,
        ``cuda:N``.

    Raises
    ------
    DeviceError
        If the device is unknown or absent.
    """
    text = str(name)
    if text == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise DeviceError(f"device: expected auto, cpu, cuda or cuda:N, got {text!r}") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index or 0
        if index >= count:
            raise DeviceError(f"device {text!r} is not there: torch sees {count} CUDA device(s)")
        return torch.device("cuda", index)
    if device.type != "cpu":
        raise DeviceError(f"device: expected auto, cpu, cuda or cuda:N, got {text!r}")
    return device


def describe_device(device: torch.device) -> dict[str, Any]:
    """Name, memory in bytes and thread count of a device, JSON-able."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "device": str(device),
            "name": properties.name,
            "memory_bytes": int(properties.total_memory),
        }
    return {
        "device": str(device),
        "name": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Use `count` CPU threads inside the block; None changes nothing.

    Holds for the calling thread alone, and only until the block ends, so that it
    never outlives a step of a generator.
    """
    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(values: int) -> int | None:
    """Return the CPU threads for :func:`limited_threads` on images of so many values.

    One below a million: there several are no faster, and where another program
    takes a core they wait for each other by spinning, many times slower than one.
    """
    return 1 if values < 1_000_000 else None


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Tensor on `device`, sent without waiting for what a GPU is still busy with."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def release(device: torch.device) -> None:
    """Give cached memory back, so that a failed or cancelled run leaves none behind."""
    gc.collect()
    trim()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def trim() -> None:
    """Give the system what the C library keeps of memory that was freed, where it can (glibc)."""
    give = _trimmer()
    if give is not None:
        give(0)


@lru_cache(maxsize=1)
def _trimmer() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # Windows opens no program by None
        return None
    return found
