"""What every command shares: consoles, errors and exit codes, progress, JSON."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from ..errors import HSFusionError, ParameterError, WriteError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..engine.events import Event

P = ParamSpec("P")
T = TypeVar("T")

BAD_INPUT = 2
INTERRUPTED = 130
_PIPE_WIDTH = 160


def stderr() -> Console:
    """Console for everything that is not the result."""
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def stdout() -> Console:
    """Console for the result; wide where it is no terminal, so that tables stay whole."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(file=sys.stdout, highlight=False, width=width)


def say(text: str) -> None:
    """Write lines of the result on stdout as they are."""
    stdout().print(text, markup=False, soft_wrap=True)


def reporting(command: Callable[P, T]) -> Callable[P, T]:
    """Turn the package's errors into a line on stderr and an exit code.

    Bad input ends with exit code 2, Ctrl-C with 130; neither shows a traceback.
    An interruption that carries a text has it printed.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except HSFusionError as error:
            stderr().print("[bold red]error:[/]", end=" ")
            stderr().print(str(error), markup=False)
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as stop:
            kept = "; ".join(str(a) for a in stop.args)
            stderr().print(f"interrupted: {kept}" if kept else "interrupted", markup=False)
            raise typer.Exit(INTERRUPTED) from stop

    return wrapped


@contextmanager
def noted_warnings() -> Iterator[None]:
    """Print the package's warnings as notes on stderr, each once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for text in dict.fromkeys(str(w.message) for w in caught):
        stderr().print(f"note: {text}", markup=False)


def jsonable(value: Any) -> Any:
    """Plain copy of `value` for JSON: arrays as lists, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def print_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document on stdout."""
    sys.stdout.write(json.dumps(jsonable(document), indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def write_text(path: Path, text: str) -> None:
    """Write a small text file: whole, or not at all.

    Raises
    ------
    WriteError
        If it cannot be written; whatever stood there before still does.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file: whole, or not at all."""
    write_text(path, json.dumps(jsonable(document), indent=2, ensure_ascii=False) + "\n")


def check_output_file(path: Path, suffixes: tuple[str, ...]) -> None:
    """Make sure, before any work, that a file can be written.

    Raises
    ------
    WriteError
        If the suffix is unknown, or the path is a folder, or its folder is absent
        or takes no new file.
    """
    if path.suffix.lower() not in suffixes:
        raise WriteError(f"{path}: expected a name ending in {', '.join(suffixes)}")
    if path.is_dir():
        raise WriteError(f"{path}: expected a file to write, found a folder")
    _probe(path.parent)


def make_output_folder(path: Path) -> None:
    """Create a folder and make sure that it takes new files.

    Raises
    ------
    WriteError
        If it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path}: cannot be created: {error.strerror or error}") from error
    _probe(path)


def _probe(folder: Path) -> None:
    probe = folder / f".hsfusion-{uuid.uuid4().hex}"
    try:
        try:
            probe.touch(exist_ok=False)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be written to: {error.strerror or error}") from error


def parse_settings(settings: list[str]) -> dict[str, str]:
    """Split ``name=value`` texts.

    Raises
    ------
    ParameterError
        If a text has no ``=``, or a name comes twice.
    """
    out: dict[str, str] = {}
    for text in settings:
        name, sign, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or not name:
            raise ParameterError(f"--set: expected name=value, got {text!r}")
        if name in out:
            raise ParameterError(f"--set: {name!r} is given twice")
        out[name] = value.strip()
    return out


def duration(seconds: float) -> str:
    """Seconds for people: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``, ``4 d 3 h``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, lower, lower_name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = (whole % size) // lower
            return f"{whole // size} {name}" + (f" {rest} {lower_name}" if rest else "")
    return f"{whole} s"


def memory(count: float) -> str:
    """Bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def cost(estimate: Mapping[str, float]) -> str:
    """One line on what a run is expected to take; empty when nothing is known."""
    parts = []
    if "seconds" in estimate:
        parts.append(f"about {duration(estimate['seconds'])}")
    if "bytes" in estimate:
        parts.append(f"{memory(estimate['bytes'])} of memory")
    return ", ".join(parts)


def peak_memory() -> dict[str, int]:
    """Peak memory so far, bytes: of the process, and of CUDA where it was used."""
    out = {}
    try:
        import resource
    except ImportError:  # Windows has no such module
        pass
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out["peak_rss_bytes"] = peak if sys.platform == "darwin" else peak * 1024
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        out["peak_cuda_bytes"] = int(torch.cuda.max_memory_allocated())
    return out


class ProgressBars:
    """Progress bars on stderr, one a stage, with the time left.

    Used as a context manager; :meth:`show` takes a run's events. Where stderr is
    no terminal, only what :meth:`say` is given appears.
    """

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = stderr()
        self._bars: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, markup=False)

    def show(self, event: Event) -> None:
        """Draw one event."""
        from ..engine.events import Started, Step

        if isinstance(event, Started):
            for task in self._tasks.values():
                self._bars.remove_task(task)
            self._tasks = {
                stage: self._bars.add_task(
                    f"{event.method}: {stage}", total=total, loss="", start=False
                )
                for stage, total in event.stages.items()
            }
        elif isinstance(event, Step) and event.stage in self._tasks:
            task = self._tasks[event.stage]
            if not self._bars.tasks[self._bars.task_ids.index(task)].started:
                self._bars.start_task(task)
            loss = "" if event.loss is None else f"loss {event.loss:.4g}"
            self._bars.update(task, completed=event.index, total=event.total, loss=loss)
