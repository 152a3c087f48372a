"""A training run for people: a table of its steps and a picture of its learning curve."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WriteError
from ..io._atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("step", "seconds", "rate", "loss", "metric")


class Log:
    """A CSV file that holds the rows of a learning curve, and stays consistent on resuming.

    Parameters
    ----------
    path : Path
        Written anew with the rows that there are; later ones are appended.
    rows : sequence of mapping
        Of a resumed run.

    Raises
    ------
    WriteError
        If it cannot be written.
    """

    def __init__(self, path: Path, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self._path = path
        self._count = len(rows)
        with atomic_write([path]) as (temporary,):
            temporary.write_text(_text([dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]))

    def append(self, rows: Sequence[Mapping[str, Any]], *, hold: int = 0) -> None:
        """Append those of all `rows` that are not written yet, but for the last `hold`."""
        upto = len(rows) - hold
        if upto <= self._count:
            return
        try:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(_text(rows[self._count : upto]))
        except OSError as error:
            raise WriteError(f"{self._path}: cannot be written: {error}") from error
        self._count = upto


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow(["" if row[name] is None else _cell(row[name]) for name in COLUMNS])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def curve_figure(rows: Sequence[Mapping[str, Any]], *, metric: str, title: str = "") -> Figure:
    """Draw loss and metric over the steps.

    Parameters
    ----------
    rows : sequence of mapping
        With ``step``, ``loss`` and ``metric``.
    metric : str
        Name of the metric, with its unit.
    title : str
        Line above everything.

    Returns
    -------
    matplotlib.figure.Figure
        With a canvas that can be saved at once.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    # no layout engine: it lays every label out several times, which takes a second
    figure = Figure(figsize=(7.0, 4.2), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.12, right=0.88, top=0.92, bottom=0.13)
    axes = figure.add_subplot()
    axes.plot([r["step"] for r in rows], [r["loss"] for r in rows], color="tab:blue", lw=1.2)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss", color="tab:blue")
    if any(r["loss"] > 0 for r in rows):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    tried = [(r["step"], r["metric"]) for r in rows if r["metric"] is not None]
    if tried:
        other = axes.twinx()
        other.plot(*zip(*tried, strict=True), color="tab:orange", marker="o", ms=3, lw=1.2)
        other.set_ylabel(f"validation: {metric}", color="tab:orange")
    if title:
        axes.set_title(title, fontsize=10)
    return figure
