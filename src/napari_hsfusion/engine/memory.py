"""Whether a run fits into the memory that is free, and ways to run in less.

A method says what a run needs and which economies it knows. They form a ladder: the first
rung whose need fits is taken, and where an allocation fails all the same, the next. Every
rung gives the same result to rounding.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

MARGIN = 0.2
"""Share that an estimate may be off by."""


@dataclass(frozen=True)
class Economy:
    """What a run does to need less memory.

    Attributes
    ----------
    parts : int
        A training batch goes through the network in so many parts, its gradients added up.
    recompute : bool
        The backward pass of sampling works out again what the forward pass would have kept.
    tile : int or None
        Side of the tiles that a network is worked out in, where the parameters name none.
    alone : bool
        Parts that could be worked out at the same time follow each other.
    """

    parts: int = 1
    recompute: bool = False
    tile: int | None = None
    alone: bool = False

    def record(self) -> dict[str, Any]:
        """What differs from a plain run, JSON-able."""
        found: dict[str, Any] = {}
        if self.parts > 1:
            found["training_parts"] = self.parts
        if self.recompute:
            found["recomputed"] = True
        if self.tile is not None:
            found["tile"] = self.tile
        if self.alone:
            found["alone"] = True
        return found

    def words(self) -> list[str]:
        """The same for people."""
        found = []
        if self.alone:
            found.append("partitions and regressions follow one another")
        if self.parts > 1:
            found.append(f"training batches go in {self.parts} parts")
        if self.recompute:
            found.append("the backward pass computes activations again")
        if self.tile is not None:
            found.append(f"the network works in tiles of {self.tile} pixels")
        return found


PLAIN = Economy()


@dataclass(frozen=True)
class Rung:
    """A device and an economy to run with."""

    device: torch.device
    economy: Economy = PLAIN


def ladder(
    device: torch.device, economies: Sequence[Economy], spare: torch.device | None = None
) -> list[Rung]:
    """Rungs from the plain run down: the economies on the device, then those on a spare one."""
    devices = [device] if spare is None or spare == device else [device, spare]
    rungs = []
    for where in devices:
        for economy in economies:
            # parts of a stage stand side by side on a CPU's cores alone
            rung = Rung(where, economy if where.type == "cpu" else replace(economy, alone=False))
            if rung not in rungs:
                rungs.append(rung)
    return rungs


@dataclass(frozen=True)
class Shortage:
    """Why a rung was left.

    Attributes
    ----------
    needed : float
        Bytes that it was expected to need.
    free : float or None
        Bytes that were free on its device; None where that is not known.
    failed : bool
        An allocation failed; else it was not tried.
    rung : Rung
    """

    needed: float
    free: float | None
    failed: bool
    rung: Rung

    def words(self) -> str:
        """One sentence's part."""
        free = "" if self.free is None else f", and {_size(self.free)} free"
        about = f"about {_size(self.needed)} needed{free}"
        what = "an allocation failed" if self.failed else "the run would not fit"
        return f"{what} on {self.rung.device} ({about})"

    def record(self, taken: Rung) -> dict[str, Any]:
        """What the record of a run says that took another rung, JSON-able."""
        return {
            "because": "allocation" if self.failed else "estimate",
            "on": str(self.rung.device),
            "needed_bytes": int(self.needed),
            "free_bytes": None if self.free is None else int(self.free),
            "device": str(taken.device),
            **taken.economy.record(),
        }

    def notice(self, taken: Rung) -> str:
        """Tell people what is done about it."""
        done = taken.economy.words()
        if taken.device != self.rung.device:
            done = [f"it runs on {taken.device}", *done]
        return (
            f"Memory: {self.words()}; {' and '.join(done)}. The result is the same to rounding, "
            "it takes longer."
        )


class TooLarge(Exception):
    """No economy makes a run fit on a device; it has done nothing yet."""


class Descent:
    """Where on its ladder a run stands, and why it left the rungs above.

    Parameters
    ----------
    rungs : sequence of Rung
        As :func:`ladder` gives them.
    """

    def __init__(self, rungs: Sequence[Rung]) -> None:
        self._rungs = list(rungs)
        self._index = 0
        self._free: float | None = None
        self._needed = 0.0
        self._short: Shortage | None = None

    @property
    def rung(self) -> Rung:
        """The one to run on."""
        return self._rungs[self._index]

    @property
    def over(self) -> bool:
        """Whether there is none left."""
        return self._index == len(self._rungs)

    def look(self) -> None:
        """See how much memory is free on this rung's device."""
        self._free = free_bytes(self.rung.device)

    def settles(self, needed: float) -> bool:
        """Whether a run that needs so many bytes may start here; else go a rung down.

        The last rung is tried unless it is certain not to fit in the host's memory: a GPU
        refuses an allocation, where a host may end the whole process.

        Raises
        ------
        TooLarge
            If the next rung is another device's, or there is none.
        """
        self._needed = needed
        if self._fits(needed):
            return True
        device = self.rung.device
        self._leave(failed=False)
        if self.over or self.rung.device != device:
            raise TooLarge
        return False

    def fail(self) -> None:
        """Go a rung down, for an allocation failed on this one."""
        self._leave(failed=True)

    def notice(self) -> str | None:
        """What to tell people where this is not the plain run."""
        return None if self._short is None else self._short.notice(self.rung)

    def record(self) -> dict[str, Any]:
        """What a run's record says of it."""
        return {} if self._short is None else {"fallback": self._short.record(self.rung)}

    def words(self) -> str:
        """Why no rung is left."""
        why = "" if self._short is None else f"{self._short.words()}, and "
        return (
            f"not enough memory: {why}no way of running in less suffices. Crop the scene, choose "
            "fewer dimensions or a smaller network, or free memory"
        )

    def _fits(self, needed: float) -> bool:
        last = self._index == len(self._rungs) - 1
        before = self._short
        if before is not None and before.failed and before.rung.device == self.rung.device:
            less = needed < before.needed
        else:
            less = True
        if self._free is None:
            return less or last
        if last:
            host = self.rung.device.type == "cpu"
            return not host or needed * (1 - MARGIN) <= self._free + _swap()
        return less and needed * (1 + MARGIN) <= self._free

    def _leave(self, *, failed: bool) -> None:
        if failed or self._short is None:
            self._short = Shortage(self._needed, self._free, failed, self.rung)
        self._index += 1


def ran_out(error: BaseException) -> bool:
    """Whether an error says that an allocation failed: torch's, numpy's or a library's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


_SIGNS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
)


def free_bytes(device: torch.device) -> float | None:
    """Bytes that a run may still take on a device; None where the system does not say.

    Of a host what is available without swapping, and no more than its control group leaves.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    limits = list(_group_room(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")))
    available = _meminfo("MemAvailable")
    if available is None:
        available = _reported()
    if available is not None:
        limits.append(available)
    return min(limits) if limits else None


def _reported() -> float | None:
    """What psutil says, where it is installed and the system has no /proc."""
    if Path("/proc").is_dir():
        return None
    try:
        psutil: Any = importlib.import_module("psutil")
    except ImportError:
        return None
    return float(psutil.virtual_memory().available)


def _swap() -> float:
    return _meminfo("SwapFree") or 0.0


def _meminfo(name: str, source: Path = Path("/proc/meminfo")) -> float | None:
    try:
        lines = source.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key == name:
            return float(value.split()[0]) * 1024
    return None


def _group_room(membership: Path, root: Path) -> Iterator[float]:
    """Bytes left in every control group of this process that has a limit, versions 1 and 2."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers == "":
            names, base, idle = ("memory.max", "memory.current"), root, "inactive_file"
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            base, idle = root / "memory", "total_inactive_file"
        else:
            continue
        # in a container the path may be the host's: then only the root is there
        own = base / inside.lstrip("/")
        for folder in (own, *own.parents):
            if folder == base.parent:
                break
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                yield max(0.0, limit - used + _idle(folder / "memory.stat", idle))


def _number(path: Path) -> float | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return float(text) if text.isdigit() else None  # "max": no limit


def _idle(path: Path, name: str) -> float:
    """Bytes of files that the group gives up when asked."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((float(v) for k, _, v in (s.partition(" ") for s in lines) if k == name), 0.0)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
