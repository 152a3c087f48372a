"""What a comparison found: rows, the best of each column, CSV. No widget."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path

from ..io._atomic import atomic_write
from ..metrics import MetricInfo

_DIGITS = {"dB": ".2f", "1": ".4f"}

NO_REFERENCE = "none"
"""Stands for the convention of the scores without a reference."""


@dataclass
class MeasuredRow:
    """One layer in a comparison.

    Attributes
    ----------
    name : str
        Of the layer.
    values : mapping of str to float
        By the metric's key; NaN where it has no value. Empty if nothing was measured.
    scale : float or None
        Ratio of the resolutions that ERGAS was computed with.
    notes : tuple of str
        Why metrics have no value.
    problem : str
        Why the layer could not be measured at all.
    """

    name: str
    values: Mapping[str, float] = field(default_factory=dict)
    scale: float | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass
class Measures:
    """A table of metrics.

    Attributes
    ----------
    infos : sequence of MetricInfo
        The columns.
    convention : str
        How they are computed; ``none`` for scores without a reference.
    reference : str
        What the layers were compared with: name of a layer, or of both observations.
    rows : list of MeasuredRow
    """

    infos: Sequence[MetricInfo] = ()
    convention: str = ""
    reference: str = ""
    rows: list[MeasuredRow] = field(default_factory=list)

    def value(self, row: int, column: int) -> float:
        """Number of a row and a metric, NaN where there is none."""
        return float(self.rows[row].values.get(self.infos[column].key, nan))

    def best(self, column: int) -> set[int]:
        """Rows with the best number of a column; none where fewer than two have one."""
        numbers = {row: self.value(row, column) for row in range(len(self.rows))}
        known = {row: number for row, number in numbers.items() if isfinite(number)}
        if len(known) < 2:
            return set()
        choose = max if self.infos[column].higher_is_better else min
        top = choose(known.values())
        return {row for row, number in known.items() if number == top}

    def sort(self, column: int, descending: bool) -> None:
        """Sort the rows by a metric, by name where `column` is negative.

        Rows without a number stay at the end either way.
        """
        if column < 0:
            self.rows.sort(key=lambda row: row.name.casefold(), reverse=descending)
            return
        key = self.infos[column].key
        known = [row for row in self.rows if isfinite(row.values.get(key, nan))]
        rest = [row for row in self.rows if not isfinite(row.values.get(key, nan))]
        known.sort(key=lambda row: row.values[key], reverse=descending)
        self.rows[:] = known + rest

    def text(self, row: int, column: int) -> str:
        """Number of a cell as it is shown; a dash where there is none."""
        number = self.value(row, column)
        return (
            format(number, _DIGITS.get(self.infos[column].unit, ".3f")) if isfinite(number) else "–"
        )

    def title(self) -> str:
        """One line: what was compared with, under which convention."""
        if not self.infos:
            return ""
        if self.convention == NO_REFERENCE:
            return f"no reference: against {self.reference}"
        return f"against {self.reference}, convention {self.convention}"

    def lines(self) -> list[list[str]]:
        """Header and rows as texts, numbers in full precision, empty where there is none."""
        heads = [
            info.label if info.unit == "1" else f"{info.label} ({info.unit})" for info in self.infos
        ]
        out = [["layer", *heads, "ratio", "convention", "reference", "note"]]
        for number, row in enumerate(self.rows):
            values = [self.value(number, column) for column in range(len(self.infos))]
            out.append(
                [
                    row.name,
                    *(repr(value) if isfinite(value) else "" for value in values),
                    "" if row.scale is None else f"{row.scale:g}",
                    self.convention,
                    self.reference,
                    row.problem or "; ".join(row.notes),
                ]
            )
        return out

    def as_text(self, delimiter: str = ",") -> str:
        """Header and rows, separated by commas, or by tabs for a spreadsheet."""
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(self.lines())
        return out.getvalue()

    def save_csv(self, path: Path) -> Path:
        """Write a CSV file: whole, or not at all.

        Every row names the convention and the reference.

        Raises
        ------
        WriteError
            If it cannot be written; whatever stood there before still does.
        """
        with atomic_write([path]) as (temporary,):
            # a byte-order mark tells spreadsheets that the text is UTF-8
            temporary.write_text(self.as_text(), encoding="utf-8-sig", newline="")
        return path
