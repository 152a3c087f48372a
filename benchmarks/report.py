"""Figures of a speed benchmark as a plot, and as the tables of ``docs/performance.md``.

The page holds the tables between the lines ``<!-- begin NAME -->`` and ``<!-- end NAME -->``,
which are rewritten; all else on it is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = Mapping[str, Any]
Row = Mapping[str, Any]

_SWEEPS = {
    "side": "side of the scene, pixels",
    "bands": "bands C",
    "d": "dimensions d",
    "base": "channels of the spatial network",
}
_GRADIENTS = {"x0": "at the predictions", "network": "through the networks"}


Tables = Mapping[str, Callable[[Any], list[str]]]


def page(text: str, document: Document, tables: Tables | None = None) -> str:
    """Put the tables of a benchmark into the text of the page.

    Parameters
    ----------
    text : str
    document : mapping
    tables : mapping, optional
        Lines of every table, by the name of its place; those of a speed benchmark by default.

    Raises
    ------
    ValueError
        If the page has no place for a table, or a place for a table that there is not.
    """
    places = set(re.findall(r"<!-- begin ([\w-]+) -->", text))
    tables = _TABLES if tables is None else tables
    if places != set(tables):
        raise ValueError(f"the page has places for {sorted(places)}, not for {sorted(tables)}")
    for name, made in tables.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if text.count(end) != 1:
            raise ValueError(f"the page has not one line {end}")
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        lines = "\n".join(made(document))
        text = f"{before}{begin}\n{lines}\n{end}{after}"
    return text


def figure(document: Document) -> Figure:
    """Draw seconds a step against every size, guidance and training beside."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(12.0, 7.2), dpi=100, facecolor="white")
    FigureCanvasAgg(drawn)
    drawn.subplots_adjust(left=0.07, right=0.98, top=0.88, bottom=0.08, wspace=0.3, hspace=0.35)
    drawn.suptitle(
        f"A sampling step of ARGS-Diff on {_machine(document)}\n"
        "solid: the package, dashed: the plain implementation, dotted: their guidance alone",
        fontsize=10,
    )
    for place, (sweep, label) in enumerate(_SWEEPS.items(), start=1):
        axes = drawn.add_subplot(2, 3, place)
        for gradient, colour in zip(_GRADIENTS, ("tab:blue", "tab:orange"), strict=True):
            rows = [r for r in _steps(document, sweep) if r["gradient"] == gradient]
            _lines(axes, rows, sweep, colour, gradient)
        _label(axes, label, "s a step")
        axes.legend(fontsize=7)
    axes = drawn.add_subplot(2, 3, 5)
    chains = document["chains"]
    for kind, style in (("ours", "o-"), ("plain", "s--")):
        values = [row["per_step"][kind] for row in chains]
        axes.plot([row["T"] for row in chains], values, style, color="tab:blue", ms=4)
    _label(axes, "steps T of a chain", "s a chain")
    _bars(drawn.add_subplot(2, 3, 6), document)
    return drawn


def _lines(axes: Axes, rows: Sequence[Row], sweep: str, colour: str, gradient: str) -> None:
    at = [row[sweep] for row in rows]
    for kind, style in (("ours", "o-"), ("plain", "s--")):
        label = f"gradient {_GRADIENTS[gradient]}" if kind == "ours" else None
        values = [row["per_step"][kind] for row in rows]
        axes.plot(at, values, style, color=colour, ms=4, label=label)
        if gradient == "x0":
            terms = [row["guidance"][kind] for row in rows]
            axes.plot(at, terms, style[0] + ":", color="0.5", ms=3, lw=1.0)


def _label(axes: Axes, label: str, unit: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(which="both", labelsize=7)


def _bars(axes: Axes, document: Document) -> None:
    rows = document["memory"]
    for shift, kind, colour in ((-0.2, "ours", "tab:blue"), (0.2, "plain", "0.6")):
        heights = [row["peak_bytes"][kind] / 2**20 for row in rows]
        axes.bar([k + shift for k in range(len(rows))], heights, 0.38, color=colour, label=kind)
    axes.set_xticks(range(len(rows)), [f"{r['gradient']}, {r['base']}" for r in rows], fontsize=8)
    axes.set_xlabel("gradient, channels of the network", fontsize=9)
    axes.set_ylabel("peak memory of a step, MB", fontsize=9)
    axes.legend(fontsize=7)


def _steps(document: Document, sweep: str) -> list[Row]:
    return [row for row in document["steps"] if row["sweep"] == sweep]


def _machine(document: Document) -> str:
    about = document["machine"]
    if document["device"] != "cpu":
        return str(document["device_name"])
    return f"{about['threads']} thread{'s' if about['threads'] > 1 else ''} of a CPU"


def _about(document: Document) -> list[str]:
    versions = ", ".join(f"{name} {value}" for name, value in document["versions"].items())
    return [
        f"On {_machine(document)} ({document['machine']['platform']}; {versions}), seed "
        f"{document['seed']}, medians of {document['repeats']} turns. The largest relative "
        f"difference between the two, over loss, predictions and gradients of all cases: "
        f"{max(row['difference'] for row in document['steps']):.1g}."
    ]


def _width(document: Document) -> list[str]:
    heads = ["channels (weights)", "gradient", "package", "plain", "ratio", "guidance alone, both"]
    lines = [
        [
            f"{row['base']} ({row['parameters'] / 1e6:.2g} million)",
            _GRADIENTS[row["gradient"]],
            *_pair(row["per_step"]),
            f"{_time(row['guidance']['ours'])}, {_time(row['guidance']['plain'])}",
        ]
        for row in _steps(document, "base")
    ]
    return table(heads, lines)


def _sizes(sweep: str) -> Callable[[Document], list[str]]:
    def made(document: Document) -> list[str]:
        heads = [_SWEEPS[sweep], "gradient", "package", "plain", "ratio"]
        lines = [
            [str(row[sweep]), _GRADIENTS[row["gradient"]], *_pair(row["per_step"])]
            for row in _steps(document, sweep)
        ]
        return table(heads, lines)

    return made


def _bands(document: Document) -> list[str]:
    rows = _steps(document, "bands")
    first, last = rows[0]["bands"], rows[-1]["bands"]

    def growth(gradient: str, key: str, kind: str) -> str:
        chosen = [row[key][kind] for row in rows if row["gradient"] == gradient]
        return f"{chosen[-1] / chosen[0]:.2f}"

    at, through = (
        [growth(gradient, "per_step", kind) for kind in ("ours", "plain")]
        for gradient in _GRADIENTS
    )
    terms = [growth("x0", "guidance", kind) for kind in ("ours", "plain")]
    return [
        *_sizes("bands")(document),
        "",
        f"At {last} bands a step with the gradient at the predictions costs {at[0]} times as much "
        f"as at {first} (plain: {at[1]} times), with the gradient through the networks "
        f"{through[0]} times (plain: {through[1]}); the guidance alone {terms[0]} times (plain: "
        f"{terms[1]}).",
    ]


def _chains(document: Document) -> list[str]:
    lines = [[str(row["T"]), *_pair(row["per_step"])] for row in document["chains"]]
    return table(["steps T", "package", "plain", "ratio"], lines)


def _training(document: Document) -> list[str]:
    heads = ["network", "batch", "package", "plain", "ratio"]
    lines = [
        [row["network"], str(row["batch"]), *_pair(row["per_step"])] for row in document["training"]
    ]
    return table(heads, lines)


def _memory(document: Document) -> list[str]:
    heads = ["channels", "gradient", "package", "plain", "ratio", "kept, package", "kept, plain"]
    lines = []
    for row in document["memory"]:
        ours, plain = (row["peak_bytes"][kind] for kind in ("ours", "plain"))
        kept = [_megabytes(row["kept_bytes"][kind]) for kind in ("ours", "plain")]
        sizes = [_megabytes(ours), _megabytes(plain), f"{plain / ours:.2f}", *kept]
        lines.append([str(row["base"]), _GRADIENTS[row["gradient"]], *sizes])
    return table(heads, lines)


_TABLES: Mapping[str, Callable[[Document], list[str]]] = {
    "about": _about,
    "width": _width,
    "side": _sizes("side"),
    "bands": _bands,
    "d": _sizes("d"),
    "chains": _chains,
    "training": _training,
    "memory": _memory,
}


def _pair(seconds: Mapping[str, float]) -> list[str]:
    ours, plain = seconds["ours"], seconds["plain"]
    return [_time(ours), _time(plain), f"{plain / ours:.2f}"]


def _megabytes(count: float) -> str:
    return f"{count / 2**20:.0f} MB"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown, its first column set left."""
    marks = ["---"] + ["---:"] * (len(heads) - 1)
    return [f"| {' | '.join(cells)} |" for cells in (heads, marks, *rows)]


def rewrite(path: Path, document: Document) -> None:
    """Put the tables of a benchmark into a page."""
    path.write_text(page(path.read_text(encoding="utf-8"), document), encoding="utf-8")
