"""Response tables in files: CSV, MAT, NPY and NPZ; and atomic writing of CSV."""

from __future__ import annotations

import csv
import os
import uuid
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import FormatError, ResponseError, WriteError
from .resample import FloatArray

SUFFIXES = (".csv", ".txt", ".mat", ".npy", ".npz")
_MATRIX_KEYS = ("srf", "r", "spec_resp", "response", "matrix")
_WAVELENGTH_KEYS = ("wavelengths", "wavelength", "wavelength_nm", "wl")


@dataclass(frozen=True)
class Table:
    """What a response file holds.

    Attributes
    ----------
    values : ndarray, shape (c, n), float64
        One row a band of the multispectral sensor.
    wavelength : ndarray, shape (n,), float64, or None
        nm, strictly increasing; None for a matrix that counts a cube's bands.
    names : tuple of str
        c names.
    """

    values: FloatArray
    wavelength: FloatArray | None
    names: tuple[str, ...]


def read_table(path: Path) -> Table:
    """Read a response table.

    Parameters
    ----------
    path : Path
        ``.csv``/``.txt`` with a header line: ``wavelength_nm`` (or
        ``wavelength_um``) and one column a band; or ``band`` in its place for
        weights of a cube without wavelengths. ``.npz``/``.mat`` with a 2-D array
        (``srf``, ``R``, ``spec_resp``, or the only one) and optionally
        ``wavelengths``; ``.npy`` with a 2-D array. An array with more rows than
        columns whose first column increases from at least 200 is a table with
        its wavelengths (nm) in front; any other is a matrix (bands of the
        sensor, bands of the cube).

    Raises
    ------
    ResponseError
        If the file is missing or malformed; the message says what was expected.
    """
    if not path.is_file():
        raise ResponseError(f"{path}: no such response file")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".txt"):
        table = _read_csv(path)
    elif suffix in (".mat", ".npz", ".npy"):
        table = _from_arrays(path, load_arrays(path))
    else:
        raise ResponseError(
            f"{path}: expected a response file of type {', '.join(SUFFIXES)}, got {suffix!r}"
        )
    return _checked(path, table)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Numeric arrays of an ``.npy``, ``.npz`` or ``.mat`` file by name.

    Those of a ``.mat`` file are as MATLAB shows them: its lists are matrices of one
    row or one column.

    Raises
    ------
    ResponseError
        If the file cannot be read as what its name says.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            content: Mapping[str, Any] = {path.stem: np.load(path, allow_pickle=False)}
        elif suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                content = {key: file[key] for key in file.files}
        else:
            from ..io.mat import numeric_arrays

            content = numeric_arrays(path)
    except FormatError as error:
        raise ResponseError(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResponseError(f"{path}: cannot be read as {suffix}: {error}") from error
    return {
        key: np.asarray(value)
        for key, value in content.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "iufb"
    }


def find_matrix(arrays: Mapping[str, np.ndarray], names: Container[str]) -> str | None:
    """Name of the one array that is meant, or None.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        As :func:`load_arrays` gives them.
    names : container of str
        Names, in lower case, that go before all others; next come matrices, then lists
        (one row or one column), then single numbers.
    """
    planes = {key: value for key, value in arrays.items() if value.ndim == 2 and value.size}
    chosen = [key for key in planes if key.casefold() in names]
    if not chosen:
        sides = {key: sum(n > 1 for n in value.shape) for key, value in planes.items()}
        chosen = [key for key in planes if sides[key] == max(sides.values())]
    return chosen[0] if len(chosen) == 1 else None


def _read_csv(path: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ResponseError(f"{path}: expected text in UTF-8: {error}") from error
    lines = [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(lines) < 2:
        raise ResponseError(
            f"{path}: expected a header line and lines of numbers, got {len(lines)}"
        )
    delimiter = next((d for d in (",", ";", "\t") if d in lines[0][1]), ",")
    rows = list(csv.reader((line for _, line in lines), delimiter=delimiter))
    header = [cell.strip() for cell in rows[0]]
    first = header[0].casefold()
    if first not in ("wavelength_nm", "wavelength_um", "band") or len(header) < 2:
        raise ResponseError(
            f"{path}: expected a first column wavelength_nm and one column a band, "
            f"got the columns {', '.join(header)}"
        )
    numbers = np.empty((len(rows) - 1, len(header)))
    for k, row in enumerate(rows[1:]):
        if len(row) != len(header):
            raise ResponseError(
                f"{path}, line {lines[k + 1][0]}: expected {len(header)} columns, got {len(row)}"
            )
        try:
            numbers[k] = [float(cell) for cell in row]
        except ValueError as error:
            raise ResponseError(f"{path}, line {lines[k + 1][0]}: {error}") from error
    wavelength = numbers[:, 0]
    if first == "band":
        if not np.array_equal(wavelength, np.arange(1, len(wavelength) + 1)):
            raise ResponseError(f"{path}: expected the column band to count 1, 2, 3, …")
        return Table(numbers[:, 1:].T.copy(), None, tuple(header[1:]))
    if first == "wavelength_um":
        wavelength = wavelength * 1000.0
    return Table(numbers[:, 1:].T.copy(), wavelength.copy(), tuple(header[1:]))


def _from_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Table:
    others = {key: value for key, value in arrays.items() if key.casefold() not in _WAVELENGTH_KEYS}
    chosen = find_matrix(others, _MATRIX_KEYS)
    if chosen is None:
        held = ", ".join(f"{k} {v.shape}" for k, v in arrays.items()) or "no numeric array"
        raise ResponseError(
            f"{path}: expected one 2-D array, or one named among {', '.join(_MATRIX_KEYS)}; "
            f"got {held}"
        )
    values = arrays[chosen].astype(np.float64)
    for key, value in arrays.items():
        if key.casefold() in _WAVELENGTH_KEYS:
            return Table(values, value.astype(np.float64).ravel(), numbered(len(values)))
    lead = values[:, 0]
    if values.shape[0] > values.shape[1] and lead.min() >= 200 and (np.diff(lead) > 0).all():
        return Table(values[:, 1:].T.copy(), lead.copy(), numbered(values.shape[1] - 1))
    return Table(values, None, numbered(len(values)))


def numbered(count: int) -> tuple[str, ...]:
    """Names for bands that have none: B1, B2 and so on."""
    return tuple(f"B{k}" for k in range(1, count + 1))


def _checked(path: Path, table: Table) -> Table:
    values, wavelength = table.values, table.wavelength
    if values.shape[0] == 0 or values.shape[1] == 0:
        raise ResponseError(f"{path}: expected at least one band, got an array {values.shape}")
    if len(set(table.names)) != len(table.names) or "" in table.names:
        raise ResponseError(f"{path}: expected different band names, got {', '.join(table.names)}")
    if wavelength is None:
        return table
    if wavelength.shape != (values.shape[1],):
        raise ResponseError(
            f"{path}: expected as many wavelengths as columns, "
            f"got {wavelength.size} wavelengths and {values.shape[1]} columns"
        )
    if not np.isfinite(wavelength).all() or (wavelength <= 0).any():
        raise ResponseError(f"{path}: expected wavelengths in nm, positive, got {wavelength}")
    return table


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file whole or not at all: beside its place first, then moved there.

    Parameters
    ----------
    path : Path
        Where to.
    write : callable
        Gets a binary file to write to.

    Raises
    ------
    WriteError
        If it could not be written; what stood there before still does.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(f"{path}: could not be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
