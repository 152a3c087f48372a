"""Tables of a reproduction as CSV, Markdown and pictures, the published figures beside ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..figures import save_png
from .designs import METRICS, PUBLISHED_ON, TABLES, Table
from .record import write_text
from .scores import CONVENTIONS, as_text, columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PUBLISHED = ("PSNR (dB)", "SSIM", "SAM (rad)", "ERGAS (%)")
_FORMS = (".2f", ".4f", ".4f", ".4f")
_START = "start alone"
_LEAST_GAIN = 1.0  # dB, from where on a table is taken to tell designs apart
_ENDINGS = (".csv", ".md", ".png")


def remove_tables(folder: Path, names: Sequence[str] = TABLES) -> None:
    """Remove the tables of an earlier study, which a new one's would lie among."""
    for name in names:
        for ending in _ENDINGS:
            (folder / f"{name}{ending}").unlink(missing_ok=True)


def write_table(
    folder: Path, table: Table, names: Sequence[str], record: Mapping[str, Any]
) -> Path:
    """Write one table: ``NAME.csv``, ``NAME.md``, ``NAME.png``.

    Parameters
    ----------
    folder : Path
    table : Table
    names : sequence of str
        Names of its rows' designs, all of which are in the record.
    record : mapping

    Returns
    -------
    Path
        The Markdown file.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    write_text(folder / f"{table.name}.csv", csv_text(table, names, record))
    write_text(folder / f"{table.name}.md", markdown_text(table, names, record))
    save_png(table_figure(table, names, record), folder / f"{table.name}.png")
    return folder / f"{table.name}.md"


def csv_text(table: Table, names: Sequence[str], record: Mapping[str, Any]) -> str:
    """Text of a table as CSV, figures in full; the last row is the start of the chain alone."""
    keys = [f"{convention} {key}" for convention, key, _, _ in columns()]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = [table.heading, "design", "parameters", "steps", "hours", *keys]
    writer.writerow([*heads, *(f"published {key}" for key in METRICS), "failed"])
    for row, name in zip(table.rows, names, strict=True):
        done = record["designs"][name]
        cells = [row.label, name, done["parameters"], done["steps"], cell(done["hours"], ".6g")]
        cells += [cell(v) for v in _values(done["figures"])]
        cells += row.published or [""] * len(METRICS)
        writer.writerow([*cells, done.get("failed", "")])
    cells = [_START, "", "", "", "", *(cell(v) for v in _values(record["start"]))]
    writer.writerow([*cells, *[""] * (len(METRICS) + 1)])
    return buffer.getvalue()


def markdown_text(table: Table, names: Sequence[str], record: Mapping[str, Any]) -> str:
    """Text of a table as Markdown, with what was run below it."""
    shown = list(columns())
    heads = [table.heading]
    heads += [f"{convention}: {label}" for convention, _, label, _ in shown]
    heads += [f"*published: {label}*" for label in _PUBLISHED]
    lines = [f"# {table.title}", "", line(heads), line(["---"] + ["---:"] * (len(heads) - 1))]
    for row, name in zip(table.rows, names, strict=True):
        done = record["designs"][name]
        label = f"{row.label} (failed)" if "failed" in done else row.label
        lines.append(line([label, *_texts(done["figures"], row.published)]))
    lines.append(line([f"({_START})", *_texts(record["start"], None)]))
    lines += ["", *notes(names, record)]
    return "\n".join(lines) + "\n"


def notes(names: Sequence[str], record: Mapping[str, Any]) -> list[str]:
    """What the figures of a table are of, one Markdown item each.

    Parameters
    ----------
    names : sequence of str
        Names of its rows' designs.
    record : mapping
    """
    rows = [record["designs"][name] for name in names]
    run = record["run"]
    values = run["parameters"]
    size = " × ".join(str(n) for n in run["validation"]["shape"])
    machines = dict.fromkeys(machine(row["hardware"]) for row in rows)
    hours = [row["hours"] for row in rows if row["hours"] is not None]
    steps = [row["steps"] for row in rows if row["steps"] is not None]
    common = ", ".join(f"{key} {value}" for key, value in run["design"].items())
    noise = "no noise" if values["snr"] is None else f"{values['snr']:g} dB"
    psf = run["psf"] if isinstance(run["psf"], str) else "a kernel from a file"
    tried = [row["figures"][CONVENTIONS[1]]["psnr"] for row in rows]
    best = max((value for value in tried if value is not None), default=None)
    began = record["start"][CONVENTIONS[1]]["psnr"]
    young = []
    if best is not None and began is not None and best < began + _LEAST_GAIN:
        young = [
            f"- **No design is {_LEAST_GAIN:g} dB above what its chain began with: this training "
            "is too short to tell designs apart. It shows the form of the table, and its figures "
            "say nothing about the designs.**"
        ]
    failed = [
        f"- **Design {name} failed: {record['designs'][name]['failed']}.**"
        for name in dict.fromkeys(names)
        if "failed" in record["designs"][name]
    ]
    missing = ""
    if any(v is None for row in rows for v in _values(row["figures"])):
        missing = " A dash: the metric has no value for images of this size or content."
    return [
        *failed,
        *young,
        f"- Budget: {record['budget']} a design, {span(steps, '.0f')} steps in "
        f"{span([60 * h for h in hours], '.3g')} minutes, from the same seed, {run['seed']}; "
        f"crops of {values['patch']} pixels, {values['batch']} a step, rate {values['rate']:g} "
        f"({values['schedule']}); {common}.",
        f"- Trained on {len(run['scenes'])} scenes; scored on {len(run['validation']['scenes'])} "
        f"({', '.join(run['validation']['scenes'])}) of {size}; "
        f"ratio {run['scale']}, PSF {psf}, SRF {run['srf_source']}, {noise}.",
        "- The last weights of every training, averaged over its steps, are scored, as the network "
        f"gives the cube, against the sharp reference.{missing}",
        f"- `{_START}`: what every chain begins with ({run['design']['start']}), before any "
        "network.",
        f"- Hardware: {'; '.join(machines)}.",
        f"- *Published*: {PUBLISHED_ON}. Other data, another budget and another reference: what "
        "can be compared is the order of the rows, not the figures.",
    ]


def table_figure(table: Table, names: Sequence[str], record: Mapping[str, Any]) -> Figure:
    """Draw a table: one panel a metric, ours on the left axis, published on the right one.

    Parameters
    ----------
    table : Table
    names : sequence of str
        Names of its rows' designs.
    record : mapping

    Returns
    -------
    matplotlib.figure.Figure
        With a canvas that can be saved at once.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    convention = CONVENTIONS[0]
    labels = {key: label for named, key, label, _ in columns() if named == convention}
    # no layout engine: it lays every label out several times, which takes a second
    figure = Figure(figsize=(11.0, 6.6), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.08, right=0.92, top=0.87, bottom=0.08, wspace=0.6, hspace=0.3)
    figure.suptitle(
        f"{table.title}: ours (blue, {record['budget']} a design, convention {convention})\n"
        "and published (grey, right axes, other data and budget)",
        fontsize=10,
    )
    published = any(row.published for row in table.rows)
    for place, key in enumerate(METRICS):
        axes = figure.add_subplot(2, 2, place + 1)
        ours = [record["designs"][name]["figures"][convention][key] for name in names]
        _points(axes, ours, "tab:blue", "o-")
        axes.set_xticks(range(len(table.rows)), [row.label for row in table.rows], fontsize=7)
        axes.set_xlim(-0.5, len(table.rows) - 0.5)
        axes.set_ylabel(labels[key], color="tab:blue")
        if published:
            other = axes.twinx()
            theirs = [None if r.published is None else r.published[place] for r in table.rows]
            _points(other, theirs, "0.5", "s--")
            other.set_ylabel(f"published: {_PUBLISHED[place]}", color="0.4", fontsize=8)
    return figure


def _points(axes: Axes, values: Sequence[float | None], color: str, style: str) -> None:
    heights = [float("nan") if v is None else v for v in values]
    axes.plot(range(len(heights)), heights, style, color=color, ms=5, lw=1.0)
    axes.margins(y=0.15)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.tick_params(axis="y", labelsize=8)


def _values(figures: Mapping[str, Mapping[str, float | None]]) -> list[float | None]:
    return [figures[convention][key] for convention, key, _, _ in columns()]


def _texts(
    figures: Mapping[str, Mapping[str, float | None]], published: Sequence[float] | None
) -> list[str]:
    ours = [as_text(figures[convention][key], form) for convention, key, _, form in columns()]
    if published is None:
        return ours + ["–"] * len(METRICS)
    theirs = zip(published, _FORMS, strict=True)
    return ours + [f"*{format(value, form)}*" for value, form in theirs]


def line(cells: Sequence[str]) -> str:
    """Row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def cell(value: float | None, form: str = ".8g") -> str:
    """Text of a figure in a CSV file, empty where there is none."""
    return "" if value is None else format(value, form)


def span(values: Sequence[float], form: str) -> str:
    """Text of the range of some values; a dash if there are none."""
    if not values:
        return "–"
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def machine(hardware: Mapping[str, Any]) -> str:
    """Text of what :func:`~napari_hsfusion.engine.device.describe_device` says."""
    threads = hardware.get("threads")
    return f"{hardware['name']}, CPU threads: {threads}" if threads else str(hardware["name"])
