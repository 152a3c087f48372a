"""``hsfusion info``, ``hsfusion methods`` and ``hsfusion evaluate``."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ._console import memory, noted_warnings, print_json, reporting, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from ..metrics import MetricInfo

_LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "xarray",
    "dask",
    "rasterio",
    "spectral",
    "tifffile",
    "h5py",
    "scikit-image",
    "pyrsr",
    "napari",
    "tensorly",
)

_DIGITS = {"dB": ".2f", "1": ".4f"}

JsonOption = Annotated[
    bool, typer.Option("--json", help="Write one JSON document on stdout instead of a table.")
]


@reporting
def info(as_json: JsonOption = False) -> None:
    """Show versions, devices, methods and sensors."""
    from .. import api
    from ..engine.device import describe_device, resolve_device
    from ..sensors.srf import sensor_names

    versions: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    devices = [describe_device(resolve_device("cpu"))]
    chosen = resolve_device("auto")
    if chosen.type != "cpu":
        devices.append(describe_device(chosen))
    listed = [row["name"] for row in api.methods()]
    sensors = list(sensor_names())
    document = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "devices": devices,
        "default_device": str(chosen),
        "methods": listed,
        "sensors": sensors,
        "libraries": versions,
    }
    if as_json:
        print_json(document)
        return
    table = _table("", "")
    table.show_header = False
    table.add_row("hsfusion", f"{__version__} on Python {document['python']}")
    table.add_row("platform", str(document["platform"]))
    for device in devices:
        size = f", {memory(device['memory_bytes'])}" if "memory_bytes" in device else ""
        threads = f", {device['threads']} threads" if "threads" in device else ""
        mark = " (default)" if device["device"] == str(chosen) else ""
        table.add_row("device", f"{device['device']}: {device['name']}{size}{threads}{mark}")
    table.add_row("methods", ", ".join(listed))
    table.add_row("sensors", ", ".join(sensors))
    table.add_row("libraries", ", ".join(f"{k} {v or 'absent'}" for k, v in versions.items()))
    stdout().print(table)


@reporting
def methods(as_json: JsonOption = False) -> None:
    """List the methods, their presets and every parameter."""
    from .. import api

    rows = api.methods()
    if as_json:
        print_json({"version": __version__, "methods": rows})
        return
    console = stdout()
    for row in rows:
        console.print(f"[bold]{row['name']}[/]: {row['title']}")
        console.print(row["description"], markup=False, soft_wrap=True)
        presets = [
            name + (" (default)" if name == row["default_preset"] else "")
            for name in row["presets"]
        ]
        console.print(f"presets: {', '.join(presets)}")
        if row["parameters"]:
            table = _table("parameter", *row["presets"], "allowed", "unit", "what it does")
            for spec in row["parameters"]:
                values = [_value(preset[spec["name"]]) for preset in row["presets"].values()]
                table.add_row(spec["name"], *values, _allowed(spec), spec["unit"], spec["tooltip"])
            console.print(table)
        console.print()


@reporting
def evaluate(
    reference: Annotated[Path, typer.Argument(metavar="REF", help="Reference cube.")],
    estimate: Annotated[Path, typer.Argument(metavar="EST", help="Cube to be measured.")],
    scale: Annotated[
        int | None,
        typer.Option(help="Ratio of the resolutions, for ERGAS; by default the estimate's own."),
    ] = None,
    convention: Annotated[
        str, typer.Option(help="hsfusion, args-diff or emr-diff: how the figures are computed.")
    ] = "hsfusion",
    reference_variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the reference.")
    ] = None,
    estimate_variable: Annotated[
        str | None, typer.Option(help="Variable of a MAT file that holds the estimate.")
    ] = None,
    clip: Annotated[
        bool,
        typer.Option(help="Count values beyond the reference's range as the ends of the range."),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure a cube against its reference: PSNR, SAM, ERGAS, SSIM, UIQI."""
    from .. import api

    with noted_warnings():
        measured = api.evaluate(
            api.open_cube(reference, variable=reference_variable),
            api.open_cube(estimate, variable=estimate_variable),
            scale,
            convention=convention,
            clip=clip,
        )
    if as_json:
        print_json({"reference": reference, "estimate": estimate, **measured})
        return
    stdout().print(measures_table([{"name": estimate.name, **measured}], convention))


def measures_table(rows: Iterable[Mapping[str, Any]], convention: str) -> Table:
    """Table of measures, one row an estimate; ``seconds`` is shown where it is known.

    Parameters
    ----------
    rows : iterable of mapping
        ``name``, the metrics of the convention, and perhaps ``seconds``.
    convention : str
        Named in the title.
    """
    from ..metrics import metric_infos

    return table_of(rows, metric_infos(convention).values(), f"convention: {convention}")


def table_of(rows: Iterable[Mapping[str, Any]], infos: Iterable[MetricInfo], title: str) -> Table:
    """Table of the metrics in `infos`, as :func:`measures_table` draws it."""
    listed, infos = list(rows), list(infos)
    timed = any("seconds" in row for row in listed)
    heads = [i.label if i.unit == "1" else f"{i.label} ({i.unit})" for i in infos]
    table = _table("method" if timed else "cube", *heads, *(["time (s)"] if timed else []))
    table.title = title
    for column in table.columns[1:]:
        column.justify = "right"
    for row in listed:
        cells = [
            format(row[i.key], _DIGITS.get(i.unit, ".3f")) if isfinite(row[i.key]) else "–"
            for i in infos
        ]
        if timed:
            cells.append(format(row["seconds"], ".2f"))
        table.add_row(str(row["name"]), *cells)
    return table


def _table(*heads: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _value(value: Any) -> str:
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _allowed(spec: Mapping[str, Any]) -> str:
    kind, choices = str(spec["type"]), list(spec["choices"])
    if choices or kind == "bool":
        return ", ".join(choices or ["true", "false"])
    low, high = spec["low"], spec["high"]
    if low is None and high is None:
        return kind
    return f"{'' if low is None else _value(low)}…{'' if high is None else _value(high)}"
