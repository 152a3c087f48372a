"""Plots of ARGS-Diff's experiments: bars, curves, grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .args_designs import DIMENSIONS, RESOURCES, RHO, RHOS, STEPS, Table
from .args_rows import MEAN, Line
from .args_runs import CONVENTIONS
from .designs import METRICS
from .scores import columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHOSEN = {DIMENSIONS: "8", STEPS: "500"}
_MISSING = float("nan")


def args_figure(table: Table, lines: Sequence[Line], record: Mapping[str, Any]) -> Figure:
    """Draw a table.

    Parameters
    ----------
    table : Table
    lines : sequence of Line
    record : mapping

    Returns
    -------
    matplotlib.figure.Figure
        With a canvas that can be saved at once.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # no layout engine: it lays every label out several times, which takes a second
    figure = Figure(figsize=(11.0, 6.6), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.09, right=0.95, top=0.88, bottom=0.09, wspace=0.35, hspace=0.35)
    figure.suptitle(
        f"{table.title}\nours after {record['budget']} a pair of networks, convention "
        f"{CONVENTIONS[0]}; published: other data, budget and machine",
        fontsize=10,
    )
    if table.name == RHO:
        _grids(figure, table, lines)
    elif table.name == RESOURCES:
        _bars(figure, table, lines)
    else:
        _curves(figure, table, lines)
    return figure


def _curves(figure: Figure, table: Table, lines: Sequence[Line]) -> None:
    """One panel a metric, one line a scene; the published settings' figures in grey."""
    labels = [row.label for row in table.rows]
    for place, (key, title) in enumerate(_titles().items(), start=1):
        axes = figure.add_subplot(2, 2, place)
        for scene in dict.fromkeys(row.scene for row in lines):
            ours = [_number(r.figures[CONVENTIONS[0]][key]) for r in lines if r.scene == scene]
            axes.plot(range(len(labels)), ours, "o-", ms=4, lw=1.0, label=scene)
        for dataset in dict.fromkeys(p.dataset for p in table.published):
            theirs = {p.label: p.figures.get(key) for p in table.published if p.dataset == dataset}
            heights = [_number(theirs.get(label)) for label in labels]
            if np.isfinite(heights).any():
                axes.plot(range(len(labels)), heights, "s--", ms=5, lw=1.0, color="0.6")
        if _CHOSEN.get(table.name) in labels:
            axes.axvline(labels.index(_CHOSEN[table.name]), color="0.8", lw=1.0, zorder=0)
        axes.set_xticks(range(len(labels)), labels, fontsize=8)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_xlabel(table.heading, fontsize=8)
        axes.set_ylabel(title)
        axes.tick_params(axis="y", labelsize=8)
        if place == 1:
            axes.plot([], [], "s--", ms=5, lw=1.0, color="0.6", label="published")
            axes.legend(fontsize=7)


def _grids(figure: Figure, table: Table, lines: Sequence[Line]) -> None:
    """PSNR of ours, the mean where there are several scenes, beside the published one."""
    scenes = [row.scene for row in lines]
    shown = MEAN if MEAN in scenes else scenes[0]
    ours = {r.label: r.figures[CONVENTIONS[0]]["psnr"] for r in lines if r.scene == shown}
    theirs = {p.label: p.figures["psnr"] for p in table.published}
    known = f"published, {table.published[0].dataset}"
    both: dict[str, Mapping[str, float | None]] = {f"ours, {shown}": ours, known: theirs}
    for place, (title, values) in enumerate(both.items(), start=1):
        axes = figure.add_subplot(1, 2, place)
        grid = np.array([[_number(values[f"{a:g}, {b:g}"]) for b in RHOS] for a in RHOS])
        image = axes.imshow(grid, origin="lower", cmap="viridis")
        middle = np.nanmean(grid) if np.isfinite(grid).any() else 0.0
        for (y, x), value in np.ndenumerate(grid):
            text = "–" if np.isnan(value) else f"{value:.2f}"
            dark = np.isnan(value) or value > middle
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="k" if dark else "w")
        ticks = [f"{rho:g}" for rho in RHOS]
        axes.set_xticks(range(len(RHOS)), ticks, fontsize=8)
        axes.set_yticks(range(len(RHOS)), ticks, fontsize=8)
        axes.set_xlabel("ρ2")
        axes.set_ylabel("ρ1")
        axes.set_title(f"{title}: PSNR (dB)", fontsize=9)
        figure.colorbar(image, ax=axes, shrink=0.6)


def _bars(figure: Figure, table: Table, lines: Sequence[Line]) -> None:
    """PSNR, parameters, memory and time; published methods in grey below ours."""
    scenes = dict.fromkeys(row.scene for row in lines if row.found)
    several = len(scenes) > 1
    names = [f"{r.label}, {r.scene}" if several else r.label for r in lines if r.found]
    names += [f"{p.label} (published)" for p in table.published]
    ours = [row for row in lines if row.found]
    given = [p.figures for p in table.published]
    psnr = [r.figures[CONVENTIONS[0]]["psnr"] for r in ours] + [g["psnr"] for g in given]
    weights = [r.found.get("parameters") for r in ours] + [g["parameters"] for g in given]
    on_gpu = any(r.found.get("device_bytes") for r in ours)
    memory = "device_bytes" if on_gpu else "peak_bytes"
    sizes = [r.found.get(memory) for r in ours] + [g["bytes"] for g in given]
    training = [r.found.get("training_seconds") for r in ours] + [None] * len(given)
    sampling = [r.found.get("sampling_seconds") for r in ours] + [g["seconds"] for g in given]
    where = "GPU memory" if on_gpu else "memory (ours: host, published: GPU)"
    panels = (
        ("PSNR (dB)", psnr, 1.0, False),
        ("parameters (M)", weights, 1e6, True),
        (f"{where} (GB)", sizes, 1e9, True),
        ("seconds: sampling, and training (light)", sampling, 1.0, True),
    )
    figure.subplots_adjust(left=0.2, wspace=0.1)
    colors = ["tab:blue"] * len(ours) + ["0.6"] * len(given)
    places = np.arange(len(names))
    for place, (title, values, unit, log) in enumerate(panels, start=1):
        axes = figure.add_subplot(2, 2, place)
        if place == len(panels):
            both = [_number(t) + _number(s) for t, s in zip(training, sampling, strict=True)]
            axes.barh(places, both, color="lightblue")
        lengths = [_number(v) / unit for v in values]
        axes.barh(places, lengths, color=colors)
        if log and any(v > 0 for v in lengths):
            axes.set_xscale("log")
        axes.set_yticks(places, names if place % 2 else [""] * len(names), fontsize=7)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9)
        _spare(axes)


def _spare(axes: Axes) -> None:
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _titles() -> dict[str, str]:
    """Metrics in the paper's convention, with their units."""
    known = {key: label for named, key, label, _ in columns(CONVENTIONS[:1]) if named}
    return {key: known[key] for key in METRICS}


def _number(value: float | None) -> float:
    return _MISSING if value is None else float(value)
