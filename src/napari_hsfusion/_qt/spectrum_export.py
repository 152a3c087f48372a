"""Spectra as a table that any program reads."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ParameterError
from ..io._atomic import atomic_write
from .spectra import Spectrum


def write_csv(path: str | Path, spectra: Sequence[Spectrum]) -> Path:
    """Write curves as columns beside their wavelengths, whole or not at all.

    The first row names layer, place and unit of each column, parted by semicolons;
    regions have a second column with the standard deviation. A row is a wavelength
    (nm) of any curve, or a band number (from 1) where a curve has no wavelengths; a
    cell is empty where the curve has no such band or no value.

    Parameters
    ----------
    path : str or Path
    spectra : sequence of Spectrum
        At least one.

    Returns
    -------
    Path

    Raises
    ------
    ParameterError
        If there is no curve.
    WriteError
        If it could not be written; what stood there before still does.
    """
    target = Path(path)
    if not spectra:
        raise ParameterError("there is no spectrum to export: move over a cube, or pin a point")
    in_nm = all(one.wavelength is not None for one in spectra)
    header = ["wavelength_nm" if in_nm else "band"]
    columns: list[dict[tuple[float, int], float]] = []
    for one in spectra:
        rows = _rows(one, in_nm)
        unit = one.unit or "physical value"
        title = f"{one.layer}; {one.place} at {one.where}; {unit}"
        parts = [(title, one.values)]
        if one.std is not None:
            parts = [(f"{title}; mean", one.values), (f"{title}; standard deviation", one.std)]
        for name, values in parts:
            header.append(" ".join(name.split()))
            columns.append(dict(zip(rows, values.tolist(), strict=True)))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in sorted(set().union(*columns)):
        cells = [column.get(row, np.nan) for column in columns]
        writer.writerow([_number(row[0]), *(_number(v) for v in cells)])
    with atomic_write([target]) as (temporary,):
        temporary.write_text(out.getvalue(), encoding="utf-8")
    return target


def _rows(one: Spectrum, in_nm: bool) -> list[tuple[float, int]]:
    """Key of each band's row; bands of one wavelength are told apart by their turn."""
    if not in_nm or one.wavelength is None:
        return [(k + 1.0, 0) for k in range(len(one.values))]
    turns: Counter[float] = Counter()
    rows = []
    for nm in one.wavelength.tolist():
        rows.append((nm, turns[nm]))
        turns[nm] += 1
    return rows


def _number(value: float) -> str:
    return "" if not np.isfinite(value) else f"{value:.12g}"
