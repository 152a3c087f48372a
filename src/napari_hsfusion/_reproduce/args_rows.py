"""Lines of a table: every setting on every scene, and the mean where there are several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .args_designs import FULL, Table
from .scores import Figures, mean, to_numbers

MEAN = "mean of the scenes"
"""In the place of a scene's name."""


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes
    ----------
    scene, label : str
    figures : mapping
        Convention to metric to value.
    found : mapping
        The run, as the record has it; empty for a mean.
    """

    scene: str
    label: str
    figures: Figures
    found: Mapping[str, Any] = field(default_factory=dict)

    def setting_steps(self) -> bool:
        """Whether it was trained for the study's budget, and not a preset's own."""
        own = self.found.get("setting") == FULL or bool(self.found.get("changes"))
        return own and bool(self.found.get("steps"))


def lines_of(table: Table, record: Mapping[str, Any]) -> list[Line]:
    """Lines of a table, scene by scene, then the means.

    Parameters
    ----------
    table : Table
    record : mapping
        With every run of the table.
    """
    names = record["tables"][table.name]
    labels = [row.label for row in table.rows]
    out = []
    for index, name in enumerate(names):
        found = record["designs"][name]
        figures = to_numbers(found["figures"])
        out.append(Line(found["scene"], labels[index % len(labels)], figures, found))
    if len(out) == len(labels):
        return out
    means = [
        Line(MEAN, label, mean([row.figures for row in out[place :: len(labels)]]))
        for place, label in enumerate(labels)
    ]
    return out + means
