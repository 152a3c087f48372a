"""``hsfusion train``: a network for a kind of pair, from folders of reference cubes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Cancelled, ParameterError
from ._console import (
    ProgressBars,
    duration,
    memory,
    parse_settings,
    peak_memory,
    print_json,
    reporting,
    say,
)
from ._processes import run_together
from ._report import JsonOption

if TYPE_CHECKING:
    from .._train import Trained
    from ..engine.events import CancelToken


@reporting
def train(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="emr-diff.")],
    data: Annotated[
        list[Path],
        typer.Argument(metavar="DATA…", help="Reference cubes: folders and files, any format."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="WEIGHTS", help="Weights to write: NAME.safetensors."),
    ],
    srf: Annotated[
        str, typer.Option(help="Spectral response of the HR-MSI: a sensor's name or a CSV file.")
    ],
    val: Annotated[
        list[Path] | None,
        typer.Option(metavar="DATA", help="Validation cubes, never trained on; repeatable."),
    ] = None,
    scale: Annotated[int, typer.Option(min=1, help="Ratio of the resolutions.")] = 8,
    psf: Annotated[
        str,
        typer.Option(help="bicubic, gaussian:SIGMA, gauss3-bicubic, box, or a kernel's file."),
    ] = "gauss3-bicubic",
    steps: Annotated[int | None, typer.Option(min=1, help="Gradient steps at most.")] = None,
    hours: Annotated[
        float | None, typer.Option(min=0, help="End after this time, whatever steps are left.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(metavar="WEIGHTS", help="Start from these weights.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was interrupted, if any.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where files of a run are there.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="The same seed gives the same weights on the CPU.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that train together, one a GPU (accelerate).")
    ] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Change a training parameter; repeatable."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--design", metavar="NAME=VALUE", help="Option of the network; repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a network on reference cubes, degraded as two sensors would see them."""
    from ..engine.training_team import launched_together

    if processes > 1 and launched_together() == 1:
        raise typer.Exit(run_together(processes, sys.argv[1:], device))
    changes: dict[str, Any] = dict(parse_settings(settings or []))
    for name, value in (("steps", steps), ("minutes", None if hours is None else 60 * hours)):
        if value is not None:
            if name in changes:
                raise ParameterError(f"{name} is given twice: as an option and with --set")
            changes[name] = value
    leads = os.environ.get("RANK", "0") == "0"
    begun = time.perf_counter()
    trained = _run(
        list(data),
        out,
        leads=leads,
        method=method,
        val=val or None,
        scale=scale,
        psf=psf,
        srf=srf,
        seed=seed,
        device=device,
        resume=resume,
        overwrite=overwrite,
        init=init,
        design=parse_settings(options or []),
        params=changes,
    )
    if not leads:
        return
    record, used = trained.record, peak_memory()
    if as_json:
        seconds = time.perf_counter() - begun
        print_json({"output": trained.path, "seconds": seconds, **used, "record": record})
        return
    tried = record["validation"]
    scored = "" if tried is None else f", {tried['metric']} {record['metric']:.2f}"
    start = record["config"]["start"]
    scored += "" if tried is None else f" (start, {start}: {tried[start]:.2f})"
    peak = f"; at most {memory(used['peak_rss_bytes'])} of memory" if used else ""
    say(
        f"{trained.path}: {record['steps']} steps on {len(record['scenes'])} scenes in "
        f"{duration(3600 * record['hours'])}{scored}{peak}"
    )


def _run(data: list[Path], out: Path, *, leads: bool, **options: Any) -> Trained:
    """Drain :func:`napari_hsfusion.api.iter_train` with progress bars on stderr."""
    from .. import api
    from .._train import Surveyed
    from ..engine.events import CancelToken, Measured, Started, Step

    token = CancelToken()
    events = api.iter_train(data, out, cancel=token, **options)
    begun, step, loss = time.perf_counter(), 0, None
    with ProgressBars() as bars, stopping(token):
        try:
            while True:
                event = next(events)
                if not leads:
                    continue
                if isinstance(event, Surveyed):
                    for name, reason in event.skipped:
                        bars.say(f"note: {name} was skipped: {reason}")
                elif isinstance(event, Measured):
                    losses = "" if loss is None else f"loss {loss:.4g}, "
                    spent = duration(time.perf_counter() - begun)
                    bars.say(
                        f"step {event.index}: {losses}validation {event.metric:.3f} "
                        f"(best {event.best:.3f}), {spent}"
                    )
                elif isinstance(event, Started | Step):
                    if isinstance(event, Step) and event.stage == "train":
                        step = event.index
                        loss = loss if event.loss is None else event.loss
                    bars.show(event)
        except StopIteration as stop:
            done: Trained = stop.value
            return done
        except Cancelled:
            if not step and not (options["resume"] and _state_of(out).is_file()):
                raise KeyboardInterrupt("before the first step: no state was kept") from None
            after = f" after step {step}" if step else ""
            raise KeyboardInterrupt(
                f"the state{after} is kept; --resume goes on from there"
            ) from None
        finally:
            events.close()


def _state_of(out: Path) -> Path:
    from .._training.files import RunFiles

    return RunFiles.beside(out).state


@contextmanager
def stopping(token: CancelToken) -> Iterator[None]:
    """Let the first interruption end the run between two steps, a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: Any) -> None:
        token.cancel()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
