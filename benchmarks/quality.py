"""Figures of quality against time and against training: plots, and the tables of a page.

The page ``docs/quality.md`` holds the tables between lines as those of
:mod:`benchmarks.report`. Whatever rows the accuracy files have are shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .report import page, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
Row = Mapping[str, Any]

METRICS = (("psnr", "PSNR, dB", ".2f"), ("sam", "SAM, °", ".2f"), ("ergas", "ERGAS", ".2f"))
SAMPLERS = {
    "chosen": "proximal, weight chosen",
    "fixed": "proximal, weight 0.1",
    "published": "published",
}

_COLOURS = ("0.6", "tab:brown", "tab:olive", "tab:blue", "tab:orange", "tab:red", "tab:purple")
_MARKS = "osD^vP*XhpdH<>"
_SPAN = 0.2  # dB, of an axis at least
_MSI_BANDS = 4  # for an estimate, which they hardly change


def read(results: Path) -> dict[str, Any]:
    """Read all accuracy files of a folder, and the curve of training if it is there."""
    accuracy = [json.loads(p.read_text("utf-8")) for p in sorted(results.glob("accuracy*.json"))]
    curve = results / "training-curve.json"
    training = json.loads(curve.read_text("utf-8")) if curve.exists() else None
    return {"accuracy": accuracy, "training": training}


def write(results: Path, text: Path) -> None:
    """Draw the plots beside the files, and put the tables into the page."""
    from napari_hsfusion.figures import save_png

    document = read(results)
    save_png(quality_figure(document), results / "quality.png")
    if document["training"] is not None:
        save_png(training_figure(document["training"]), results / "training-curve.png")
    text.write_text(page(text.read_text("utf-8"), document, TABLES), encoding="utf-8")


def quality_figure(document: Document) -> Figure:
    """Draw PSNR against seconds: a colour a run, a mark and a line a scene."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = _rows(document)
    drawn = Figure(figsize=(10.5, 6.0), dpi=100, facecolor="white")
    FigureCanvasAgg(drawn)
    drawn.subplots_adjust(left=0.08, right=0.72, top=0.95, bottom=0.1)
    axes = drawn.add_subplot()
    runs = list(dict.fromkeys(_run(row) for row in rows))
    colours = {run: _COLOURS[k % len(_COLOURS)] for k, run in enumerate(runs)}
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    marks = {scene: _MARKS[k % len(_MARKS)] for k, scene in enumerate(scenes)}
    for scene, mark in marks.items():
        own = sorted((r for r in rows if r["scene"] == scene), key=lambda row: row["seconds"])
        at = [row["seconds"] for row in own]
        axes.plot(at, [row["psnr"] for row in own], "-", color="0.8", lw=0.8, zorder=1)
        for row in own:
            where = row["seconds"], row["psnr"]
            axes.plot(*where, mark, color=colours[_run(row)], ms=6, ls="none", zorder=2)
    axes.set_xscale("log")
    axes.set_xlabel("seconds of a fusion, training included")
    axes.set_ylabel("PSNR, dB")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    shown = [Line2D([], [], marker="o", ls="none", color=c, label=r) for r, c in colours.items()]
    shown += [Line2D([], [], marker=m, ls="none", color="k", label=s) for s, m in marks.items()]
    axes.legend(handles=shown, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return drawn


def training_figure(document: Document) -> Figure:
    """Draw PSNR against training steps: a row a sampler, a column a scene, a line a width."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = document["rows"]
    scenes = list(dict.fromkeys(row["scene"] for row in rows))
    widths = _widths(document)
    size = (1.5 + 4.0 * len(scenes), 8.5)
    drawn = Figure(figsize=size, dpi=100, facecolor="white")
    FigureCanvasAgg(drawn)
    drawn.subplots_adjust(left=0.1, right=0.98, top=0.95, bottom=0.07, wspace=0.25, hspace=0.4)
    place = 0
    for kind, title in SAMPLERS.items():
        for scene in scenes:
            place += 1
            axes = drawn.add_subplot(len(SAMPLERS), len(scenes), place)
            axes.set_title(f"{scene}, {title}", fontsize=9)
            for width in widths:
                own = _line(rows, scene, kind, width)
                at = [row["steps"] for row in own]
                label = f"{width} channels" if own else None
                axes.plot(at, [row["psnr"] for row in own], "o-", ms=4, label=label)
            closed = _closed(rows, scene)
            if kind != "published" and closed is not None:
                axes.axhline(closed["psnr"], color="0.4", ls="--", lw=1.0, label="no training")
            steps = sorted({row["steps"] for w in widths for row in _line(rows, scene, kind, w)})
            if steps:
                axes.set_xscale("log")
                axes.set_xticks(steps, list(map(str, steps)))
                axes.set_xticks([], minor=True)
                axes.legend(fontsize=7)
            axes.set_xlabel("training steps of the spatial network", fontsize=8)
            axes.set_ylabel("PSNR, dB", fontsize=8)
            axes.ticklabel_format(axis="y", useOffset=False)
            axes.tick_params(which="both", labelsize=7)
            low, high = axes.get_ylim()
            if high - low < _SPAN:  # hundredths of a decibel are not to look like a mountain
                axes.set_ylim((low + high - _SPAN) / 2, (low + high + _SPAN) / 2)
    return drawn


def paper_seconds(row: Row) -> float:
    """Seconds that the published budget is expected to take on one thread of a CPU."""
    import torch

    from napari_hsfusion.engine.cost import args_diff_cost
    from napari_hsfusion.engine.device import limited_threads
    from napari_hsfusion.params import ARGS_DIFF_PRESETS

    bands, height, width = row["shape"]
    low = (bands, height // row["scale"], width // row["scale"])
    high = (_MSI_BANDS, height, width)
    with limited_threads(1):
        cost = args_diff_cost(low, high, ARGS_DIFF_PRESETS["paper"], torch.device("cpu"))
    return cost["seconds"]


def _about(document: Document) -> list[str]:
    lines = []
    for found in document["accuracy"]:
        rows = found["rows"]
        names = ", ".join(dict.fromkeys(row["scene"] for row in rows))
        lines.append(
            f"- {names}: {_places(rows)}; {found['machine']['platform']}, torch "
            f"{', '.join(dict.fromkeys(row['versions']['torch'] for row in rows))}; seed "
            f"{found['seed']}."
        )
    return lines


def _places(rows: Sequence[Row]) -> str:
    where = dict.fromkeys((row["device"], row["device_name"], row["threads"]) for row in rows)
    return ", ".join(
        f"{threads} thread{'s' if threads > 1 else ''} of a CPU" if device == "cpu" else str(name)
        for device, name, threads in where
    )


def _quality(document: Document) -> list[str]:
    rows = _rows(document)
    heads = ["scene", "bands × rows × columns, ratio", "run", *(name for _, name, _ in METRICS)]
    lines = []
    for scene in dict.fromkeys(row["scene"] for row in rows):
        own = [row for row in rows if row["scene"] == scene]
        for row in own:
            figures = [format(row[key], how) for key, _, how in METRICS]
            lines.append([scene, _size(row), _run(row), *figures, *_cost(row)])
        if not any(row["preset"] == "paper" for row in own):
            guess = f"not run; about {_long(paper_seconds(own[0]))} expected"
            empty = ["" for _ in METRICS]
            lines.append([scene, _size(own[0]), "args-diff paper", *empty, guess, ""])
    return table([*heads, "time", "memory"], lines)


def _cost(row: Row) -> list[str]:
    size = row["peak_bytes"] if row["device"] == "cpu" else row["device_bytes"]
    return [f"{row['seconds']:.1f} s", f"{size / 2**20:.0f} MB"]


def _size(row: Row) -> str:
    return f"{' × '.join(map(str, row['shape']))}, {row['scale']}"


def _curve_about(document: Document) -> list[str]:
    found = document["training"]
    if found is None:
        return ["Not measured."]
    threads = found["machine"]["threads"]
    sizes = {row["scene"]: row["shape"] for row in found["rows"]}
    cut = ", ".join(f"{name} ({' × '.join(map(str, size))})" for name, size in sizes.items())
    return [
        f"On {threads} thread{'s' if threads > 1 else ''} of a CPU "
        f"({found['machine']['platform']}), seed {found['seed']}: {cut}. Without a learnt prior: "
        + ", ".join(
            f"{name} {closed['psnr']:.2f} dB"
            for name in sizes
            if (closed := _closed(found["rows"], name)) is not None
        )
        + "."
    ]


def _curve(document: Document) -> list[str]:
    found = document["training"]
    if found is None:
        return []
    rows = found["rows"]
    steps = sorted({row["steps"] for row in rows if "steps" in row})
    heads = ["scene", "sampler", "channels", *(f"{step} steps" for step in steps), "training"]
    lines = []
    for scene in dict.fromkeys(row["scene"] for row in rows):
        for kind, title in SAMPLERS.items():
            for width in _widths(found):
                own = {row["steps"]: row for row in _line(rows, scene, kind, width)}
                if own:
                    cells = [f"{own[s]['psnr']:.3f}" if s in own else "" for s in steps]
                    last = own[max(own)]
                    spent = f"{last['training_seconds']:.0f} s"
                    lines.append([scene, title, str(width), *cells, spent])
    return table(heads, lines)


def _held_out(document: Document) -> list[str]:
    found = document["training"]
    if found is None:
        return []
    rows = found["rows"]
    steps = sorted({row["steps"] for row in rows if "steps" in row})
    heads = ["scene", "network of the sampler", "channels", *(f"{step} steps" for step in steps)]
    lines = []
    for scene in dict.fromkeys(row["scene"] for row in rows):
        for kind in ("fixed", "published"):  # the chosen weight has the network of the fixed one
            for width in _widths(found):
                own = {row["steps"]: row for row in _line(rows, scene, kind, width)}
                if own:
                    cells = [f"{own[s]['held_out']:.4f}" if s in own else "" for s in steps]
                    name = "proximal" if kind == "fixed" else kind
                    lines.append([scene, name, str(width), *cells])
    return table(heads, lines)


TABLES: Mapping[str, Callable[[Document], list[str]]] = {
    "measured": _about,
    "quality": _quality,
    "curve-about": _curve_about,
    "curve": _curve,
    "held-out": _held_out,
}


def _rows(document: Document) -> list[Row]:
    return [row for found in document["accuracy"] for row in found["rows"]]


def _run(row: Row) -> str:
    name = row["method"] if row["preset"] == "default" else f"{row['method']} {row['preset']}"
    return name if row["device"] == "cpu" else f"{name} ({row['device_name']})"


def _widths(document: Document) -> list[int]:
    return sorted({row["width"] for row in document["rows"] if "width" in row})


def _line(rows: Iterable[Row], scene: str, kind: str, width: int) -> list[Row]:
    """Rows of one line of the curve, from few steps to many."""
    own = [
        row
        for row in rows
        if row["scene"] == scene
        and row.get("width") == width
        and (row.get("weight") or row["sampler"]) == kind
    ]
    return sorted(own, key=lambda row: row["steps"])


def _closed(rows: Iterable[Row], scene: str) -> Row | None:
    return next((r for r in rows if r["scene"] == scene and r["sampler"] == "closed form"), None)


def _long(seconds: float) -> str:
    """Return a long time to one digit."""
    for unit, name in ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= 1.5 * unit or name == "minute":
            number = seconds / unit
            step = 10.0 ** math.floor(math.log10(max(number, 1.0)))
            return f"{max(1, round(number / step) * step):.0f} {name}s"
    raise AssertionError
