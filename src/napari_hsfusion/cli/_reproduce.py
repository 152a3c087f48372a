"""``hsfusion reproduce``: the tables of a paper, from one's own data, by one command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import Cancelled
from ._console import (
    ProgressBars,
    duration,
    parse_settings,
    print_json,
    reporting,
    say,
    stdout,
)
from ._report import JsonOption, table_of
from ._train import stopping

if TYPE_CHECKING:
    from .._reproduce.interface import Reproduced


@reporting
def reproduce(
    experiment: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT",
            help="emr-diff-ablation, args-diff-argm, args-diff-curves, args-diff-rho or "
            "args-diff-resources.",
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="DATA",
            help="Cubes to train on, for ARGS-Diff references: folders and files; repeatable.",
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            metavar="UNIT=NUMBER",
            help="What every design, or pair of networks, is trained for: minutes=… or steps=….",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for tables, record and weights."),
    ],
    val: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA",
            help="Cubes to score on, never trained on; repeatable. For EMR-Diff alone, and needed.",
        ),
    ] = None,
    srf: Annotated[
        str | None,
        typer.Option(
            help="Spectral response of the HR-MSI: a sensor's name or a CSV file. Needed for "
            "EMR-Diff; blue, green, red and near infrared for ARGS-Diff by default."
        ),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            help="Some of the experiment's tables: residual,noise,steps,network,pseudo; d,T of "
            "args-diff-curves. All by default."
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(min=1, help="Ratio of the resolutions; 8 for EMR-Diff, 4 for ARGS-Diff."),
    ] = None,
    psf: Annotated[
        str | None,
        typer.Option(
            help="bicubic, gaussian:SIGMA, gauss3-bicubic, box, or a kernel's file; as published "
            "by default."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Side of the central crop at most, 256 by default; ARGS-Diff alone."),
    ] = None,
    snr: Annotated[
        str | None,
        typer.Option(help="Of both images in dB, 35 by default, or none; ARGS-Diff alone."),
    ] = None,
    networks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder to keep networks in and take them from, which experiments can share; "
            "ARGS-Diff alone.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="What the chains start from: bicubic, as published, or subspace; EMR-Diff alone."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every training and sampling.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the reproduction in the folder, if any.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew where there is one.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a training parameter, or one of ARGS-Diff; repeatable.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--design",
            metavar="NAME=VALUE",
            help="width or kappa of all designs of EMR-Diff; repeatable.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run every variant of a paper's study alike, score it, and lay out the tables."""
    begun = time.perf_counter()
    done = _run(
        experiment,
        list(data),
        list(val) if val else None,
        out,
        budget=budget,
        tables=tables,
        scale=scale,
        psf=psf,
        srf=srf,
        size=size,
        snr=snr,
        networks=networks,
        start=start,
        seed=seed,
        device=device,
        resume=resume,
        overwrite=overwrite,
        params=parse_settings(settings or []),
        design=parse_settings(options or []),
    )
    if as_json:
        seconds = time.perf_counter() - begun
        print_json({"tables": done.tables, "seconds": seconds, "record": done.record})
        return
    _show(done)


def _run(
    experiment: str, data: list[Path], val: list[Path] | None, out: Path, **options: Any
) -> Reproduced:
    """Drain :func:`napari_hsfusion.api.iter_reproduce` with progress bars on stderr."""
    from .. import api
    from .._reproduce.interface import Scored
    from ..engine.events import CancelToken, Started, Step

    token = CancelToken()
    events = api.iter_reproduce(experiment, data, val, out, cancel=token, **options)
    begun, fresh = time.perf_counter(), 0
    with ProgressBars() as bars, stopping(token):
        try:
            while True:
                event = next(events)
                if isinstance(event, Started | Step):
                    bars.show(event)
                elif isinstance(event, Scored):
                    fresh += not event.earlier
                    spent = time.perf_counter() - begun
                    bars.say(_told(event, spent, fresh))
        except StopIteration as stop:
            done: Reproduced = stop.value
        except Cancelled:
            raise KeyboardInterrupt(
                f"what is done is kept in {out}; --resume goes on from there"
            ) from None
        finally:
            events.close()
    for name, reason in done.record["skipped"]:
        bars.say(f"note: {name} was skipped: {reason}")
    return done


def _told(event: Any, spent: float, fresh: int) -> str:
    """One line on a design that is done, with the time that the others will take."""
    from .._reproduce.scores import as_text, columns

    begun = f"{event.index} of {event.total}, {event.name}"
    if event.failed is not None:
        return f"design {begun} failed: {event.failed}"
    convention = next(iter(event.figures))
    figures = ", ".join(
        f"{label} {as_text(event.figures[named][key], form)}"
        for named, key, label, form in columns([convention])
    )
    text = f"design {begun}: {figures} ({convention})"
    if event.earlier:
        return f"{text}, done before"
    left = spent / fresh * (event.total - event.index)
    return f"{text}; {duration(spent)}" + (f", about {duration(left)} left" if left else "")


def _show(done: Reproduced) -> None:
    """Tables on stdout, one convention each, and where they lie."""
    from .._reproduce.designs import METRICS
    from ..metrics import metric_infos

    record = done.record
    for name, path in done.tables.items():
        designs = {design: record["designs"][design] for design in record["tables"][name]}
        conventions = next(iter(designs.values()))["figures"]
        for convention in conventions:
            infos = [metric_infos(convention)[key] for key in METRICS]
            rows = []
            for design, found in designs.items():
                figures = found["figures"][convention]
                known = {k: float("nan") if v is None else v for k, v in figures.items()}
                failed = " (failed)" if "failed" in found else ""
                rows.append({"name": f"{design}{failed}", **known})
            title = f"{name}, {record['budget']} a training; convention: {convention}"
            stdout().print(table_of(rows, infos, title))
        say(str(path))
