"""Tables of ARGS-Diff's experiments as CSV and Markdown, published figures among ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..figures import save_png
from ..params import ARGS_DIFF_PRESETS
from .args_designs import CITED, PUBLISHED_STEPS, RESOURCES, RHO, RHOS, Published, Table
from .args_plots import args_figure
from .args_rows import Line, lines_of
from .args_runs import CONVENTIONS
from .designs import METRICS
from .record import write_text
from .scores import as_text, columns
from .tables import cell, line, machine, span

_FAR = 0.5  # of the published training steps, below which a budget is called far from it
_TIMES = ("training_seconds", "sampling_seconds")
_BYTES = ("peak_bytes", "base_bytes", "device_bytes")
_COUNTS = ("parameters", *_TIMES, *_BYTES)


def write_table(folder: Path, table: Table, record: Mapping[str, Any]) -> Path:
    """Write one table: ``NAME.csv``, ``NAME.md``, ``NAME.png``.

    Parameters
    ----------
    folder : Path
    table : Table
    record : mapping
        With every run of the table.

    Returns
    -------
    Path
        The Markdown file.

    Raises
    ------
    WriteError
        If a file cannot be written.
    """
    lines = lines_of(table, record)
    write_text(folder / f"{table.name}.csv", csv_text(table, lines))
    write_text(folder / f"{table.name}.md", markdown_text(table, lines, record))
    save_png(args_figure(table, lines, record), folder / f"{table.name}.png")
    return folder / f"{table.name}.md"


def csv_text(table: Table, lines: Sequence[Line]) -> str:
    """Text of a table as CSV, figures in full; the published figures are its last rows."""
    keys = [(convention, key) for convention, key, _, _ in columns(CONVENTIONS)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = ["source", "scene", table.heading, "spatial steps", "spectral steps"]
    heads += [key.replace("_", " ") for key in _COUNTS]
    writer.writerow([*heads, *(" ".join(key) for key in keys), "failed"])
    for row in lines:
        steps = row.found.get("steps") or ["", ""]
        cells = ["ours", row.scene, row.label, *steps]
        cells += [cell(row.found.get(key)) for key in _COUNTS]
        cells += [cell(row.figures[convention][key]) for convention, key in keys]
        writer.writerow([*cells, row.found.get("failed", "")])
    for known in table.published:
        given = known.figures
        counts = {
            "parameters": given.get("parameters"),
            "sampling_seconds": given.get("seconds"),
            "device_bytes": given.get("bytes"),
        }
        cells = ["published", known.dataset, known.label, "", ""]
        cells += [cell(counts.get(key)) for key in _COUNTS]
        cells += [
            cell(given.get(key)) if convention == CONVENTIONS[0] else "" for convention, key in keys
        ]
        writer.writerow([*cells, ""])
    return buffer.getvalue()


def markdown_text(table: Table, lines: Sequence[Line], record: Mapping[str, Any]) -> str:
    """Text of a table as Markdown, with what was run below it."""
    shown = _grids(table, lines) if table.name == RHO else _listed(table, lines)
    return "\n".join([f"# {table.title}", "", *shown, "", *notes(table, lines, record)]) + "\n"


def notes(table: Table, lines: Sequence[Line], record: Mapping[str, Any]) -> list[str]:
    """What the figures of a table are of, one Markdown item each.

    Parameters
    ----------
    table : Table
    lines : sequence of Line
    record : mapping
    """
    run, values = record["run"], record["run"]["parameters"]
    ours = [row for row in lines if row.found]
    trained = [row.found["steps"] for row in ours if row.setting_steps()]
    budget = f"{record['budget']} a pair of networks"
    low = min((steps[0] for steps in trained), default=0)
    far = []
    if low < _FAR * PUBLISHED_STEPS[0]:
        spatial = span([steps[0] for steps in trained], ",.0f")
        spectral = span([steps[1] for steps in trained], ",.0f")
        far = [
            f"- **Far from the published budget: {spatial} training steps of the spatial and "
            f"{spectral} of the spectral network, where the authors take {PUBLISHED_STEPS[0]:,} "
            f"and {PUBLISHED_STEPS[1]:,}. The figures show the form of the table; they cannot "
            "confirm or refute the paper's.**"
        ]
    usual = ARGS_DIFF_PRESETS["paper"].to_record()
    changed = [f"{name} {values[name]}" for name in run["changed"] if values[name] != usual[name]]
    other = []
    if changed:
        other = [f"- **Settings other than the published: {', '.join(changed)}.**"]
    failed = [
        f"- **{row.label} on {row.scene} failed: {row.found['failed']}.**"
        for row in ours
        if "failed" in row.found
    ]
    psf = run["psf"] if isinstance(run["psf"], str) else "a kernel from a file"
    noise = "no noise" if run["snr"] is None else f"{run['snr']:g} dB"
    scenes = "; ".join(
        f"{s['name']}, {' × '.join(str(n) for n in s['shape'])} of its "
        f"{' × '.join(str(n) for n in s['of'])}"
        for s in run["scenes"]
    )
    machines = dict.fromkeys(machine(row.found["hardware"]) for row in ours)
    out = [
        *far,
        *other,
        *failed,
        f"- Budget: {budget}, from the same seed, {run['seed']}; networks are trained on the pair "
        "alone, once a scene and number of dimensions, and shared by the rows that differ in "
        "sampling.",
        f"- Central crops: {scenes}; ratio {run['scale']}, PSF {psf}, SRF {run['srf_source']}, "
        f"{noise}.",
        f"- Scored in the conventions {' and '.join(CONVENTIONS)} against the crop, divided by its "
        "largest value. A dash: no value.",
        f"- Hardware: {'; '.join(machines)}. Seconds are by the clock, those of sampling "
        "with reading the networks.",
        f"- *Published*: {table.place} of {CITED}; PSNR, SAM, ERGAS and SSIM in the convention "
        f"{CONVENTIONS[0]}, time of the sampling alone on an RTX 4090. Other data, another budget "
        "and another machine: figures of different rows can be compared, those of the paper with "
        "ours cannot.",
    ]
    return out + _more(table)


def _more(table: Table) -> list[str]:
    if table.name == RESOURCES:
        return [
            "- Every method ran in a process of its own, its training included. Host memory is the "
            "process's largest resident size; what it was before the run (interpreter, libraries, "
            "the pair) is given beside it. Published memory is the graphics card's.",
            "- `balanced`, `fast`, `subspace` and `bicubic` have their own settings and budgets; "
            "the budget above is of the networks of `paper`.",
        ]
    if table.place == "Figure 5":
        return [
            "- The paper draws this as a curve without figures; the published row is its chosen "
            "setting, from Table 1."
        ]
    return []


def _listed(table: Table, lines: Sequence[Line]) -> list[str]:
    """One row a setting and scene, then what is published."""
    shown = list(columns(CONVENTIONS))
    measured = table.name == RESOURCES
    heads = ["scene", table.heading]
    heads += [f"{convention}: {label}" for convention, _, label, _ in shown]
    counts: list[tuple[str, str, float, str]] = []
    if measured:
        counts += [("parameters", "parameters (M)", 1e6, ".2f")]
        counts += [("peak_bytes", "host memory at most (MB)", 1e6, ".0f")]
        counts += [("base_bytes", "before the run (MB)", 1e6, ".0f")]
        counts += [("device_bytes", "GPU memory at most (MB)", 1e6, ".0f")]
    counts += [("training_seconds", "training (s)", 1.0, ".3g")]
    counts += [("sampling_seconds", "sampling (s)", 1.0, ".3g")]
    heads += [head for _, head, _, _ in counts]
    out = [line(heads), line(["---", "---", *["---:"] * (len(heads) - 2)])]
    for row in lines:
        failed = " (failed)" if "failed" in row.found else ""
        cells = [row.scene, row.label + failed]
        cells += [as_text(row.figures[convention][key], form) for convention, key, _, form in shown]
        for key, _, unit, form in counts:
            value = row.found.get(key)
            cells.append("–" if value is None else format(value / unit, form))
        out.append(line(cells))
    return out + [_published(known, counts) for known in table.published]


def _published(known: Published, counts: Sequence[tuple[str, str, float, str]]) -> str:
    given = known.figures
    cells = [f"*{known.dataset} (published)*", f"*{known.label}*"]
    forms = {"psnr": ".2f", "sam": ".2f", "ergas": ".2f", "ssim": ".3f"}
    values = [f"*{given[key]:{forms[key]}}*" if key in given else "–" for key in METRICS]
    cells += [*values, *["–"] * len(METRICS)]
    of = {"parameters": "parameters", "device_bytes": "bytes", "sampling_seconds": "seconds"}
    for key, _, unit, form in counts:
        value = given.get(of.get(key, ""))
        cells.append("–" if value is None else f"*{value / unit:{form}}*")
    return line(cells)


def _grids(table: Table, lines: Sequence[Line]) -> list[str]:
    """PSNR as a grid for every scene, then the published one; the CSV has all metrics."""
    out: list[str] = []
    scenes = dict.fromkeys(row.scene for row in lines)
    for scene in scenes:
        own = {
            row.label: row.figures[CONVENTIONS[0]]["psnr"] for row in lines if row.scene == scene
        }
        out += [f"PSNR (dB), {scene}, ours:", "", *_grid(own), ""]
    known = {p.label: p.figures["psnr"] for p in table.published}
    where = table.published[0].dataset
    return [*out, f"PSNR (dB), {where}, *published*:", "", *_grid(known)]


def _grid(values: Mapping[str, float | None]) -> list[str]:
    out = [line(["ρ1 \\ ρ2", *(f"{b:g}" for b in RHOS)])]
    out.append(line(["---", *["---:"] * len(RHOS)]))
    for a in RHOS:
        cells = [as_text(values[f"{a:g}, {b:g}"], ".2f") for b in RHOS]
        out.append(line([f"{a:g}", *cells]))
    return out
