"""Spectral response functions: how a multispectral sensor sees a cube's bands.

A response is a matrix R (c, C), rows summing to one, so that an image of the
multispectral sensor is Y = Z x3 R. It comes from a matrix, a file, a sensor's
name, or band centres and widths; curves are brought onto the cube's bands by
:mod:`.resample`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ResponseError
from .catalogue import band_key, find_sensor, sensor_curves, sensor_names, similar_sensors
from .resample import FloatArray, coverage, gaussian_weights, resample
from .response import Response, check_values, fitted, save_response_csv
from .tables import SUFFIXES, Table, numbered, read_table

__all__ = [
    "Response",
    "gaussian_bands",
    "load_response",
    "save_response_csv",
    "sensor_names",
]

MIN_COVERAGE = 0.8
LINEAR = "linear interpolation at the band centres"
AVERAGED = "average over each band's Gaussian response"
_ACCEPTED = (
    "a matrix (bands of the sensor, bands of the cube), a file "
    f"({', '.join(SUFFIXES)}), 'gaussian:CENTRE/FWHM,…' in nm, or a sensor: "
)


def load_response(
    spec: str | os.PathLike[str] | ArrayLike | Response,
    wavelength: ArrayLike | None,
    fwhm: ArrayLike | None = None,
    *,
    min_coverage: float = MIN_COVERAGE,
) -> Response:
    """Spectral response on a cube's bands, from any of the ways to state one.

    Parameters
    ----------
    spec : array_like, path, str or Response
        - a matrix of shape (c, C), or a :class:`Response` to check again;
        - a file as :func:`~napari_hsfusion.sensors.tables.read_table` reads it.
          If its wavelengths are the cube's, its weights are taken as they are;
          otherwise they are curves, brought onto the cube's bands. ``FILE:B,G``
          picks columns;
        - ``"gaussian:CENTRE/FWHM,CENTRE/FWHM,…"`` in nm;
        - a sensor of :func:`sensor_names`, case and punctuation aside, with
          ``"sentinel-2a:B2,B3,B4,B8"`` to pick bands.
    wavelength : array_like, shape (C,), or None
        The cube's band centres in nm, in any order. None where they are not
        known: then only weights will do.
    fwhm : array_like, shape (C,), optional
        The cube's band widths in nm. With them curves are averaged over each
        band's Gaussian response, without them interpolated linearly.
    min_coverage : float
        A band of the sensor counts as covered when at least this part of its
        response's energy lies within the cube's bands. Bands that are not are
        dropped where a whole sensor was named, and an error otherwise.

    Returns
    -------
    Response
        Rows normalised to sum to 1 over the cube's bands.

    Raises
    ------
    ResponseError
        If it is unknown, malformed, negative, or does not fit the cube.
    """
    if not 0 <= min_coverage <= 1:
        raise ResponseError(f"min_coverage: expected 0 to 1, got {min_coverage}")
    centres, widths = _bands_of_cube(wavelength, fwhm)
    if isinstance(spec, Response):
        return fitted(spec.matrix, centres, spec.names, spec.source)
    if not isinstance(spec, str | os.PathLike):
        matrix = _as_matrix(spec)
        return fitted(matrix, centres, numbered(len(matrix)), "matrix")
    text = os.fspath(spec)
    if text.casefold().startswith("gaussian:"):
        centre, width = parse_gaussians(text)
        return gaussian_bands(centre, width, centres, widths, min_coverage=min_coverage)
    path, columns = as_path(text)
    if path is not None:
        table = pick_columns(path, read_table(path), columns)
        return _from_table(table, str(path), centres, widths, min_coverage)
    return _from_sensor(text, centres, widths, min_coverage)


def gaussian_bands(
    centre: Iterable[float],
    fwhm: Iterable[float],
    wavelength: ArrayLike | None,
    cube_fwhm: ArrayLike | None = None,
    *,
    min_coverage: float = MIN_COVERAGE,
) -> Response:
    """Response of Gaussian bands given by centre and width.

    Parameters
    ----------
    centre, fwhm : iterable of float
        Of the c bands of the multispectral sensor, nm.
    wavelength, cube_fwhm : array_like, shape (C,)
        The cube's band centres and, if known, widths, nm.
    min_coverage : float
        Least part of each Gaussian that the cube must cover.

    Returns
    -------
    Response

    Raises
    ------
    ResponseError
        If a number is out of range, or the cube does not cover a band.
    """
    centres, widths = _bands_of_cube(wavelength, cube_fwhm)
    pairs = list(zip(list(centre), list(fwhm), strict=True))
    source = "gaussian:" + ",".join(f"{c:g}/{w:g}" for c, w in pairs)
    if centres is None:
        raise _no_wavelengths(source)
    if not pairs:
        raise ResponseError("gaussian: expected at least one CENTRE/FWHM, got none")
    rows = []
    for c, w in pairs:
        if not (np.isfinite(c) and np.isfinite(w) and c > 0 and w > 0):
            raise ResponseError(f"gaussian: expected CENTRE/FWHM in nm, both above 0, got {c}/{w}")
        weights, part = gaussian_weights(c, w, centres, widths)
        if part < min_coverage or weights.sum() <= 0:
            raise _uncovered(source, [(f"{c:g}/{w:g}", part)], centres, min_coverage)
        rows.append(weights / weights.sum())
    names = tuple(f"{c:g}/{w:g}" for c, w in pairs)
    if len(set(names)) != len(names):
        raise ResponseError(f"gaussian: a band is given twice in {source}")
    return Response(np.stack(rows), centres, names, source, LINEAR if widths is None else AVERAGED)


def _bands_of_cube(
    wavelength: ArrayLike | None, fwhm: ArrayLike | None
) -> tuple[FloatArray | None, FloatArray | None]:
    if wavelength is None:
        return None, None
    centres = np.asarray(wavelength, dtype=np.float64)
    if centres.ndim != 1 or centres.size == 0:
        raise ResponseError(f"wavelength: expected one number a band, got shape {centres.shape}")
    if not np.isfinite(centres).all() or (centres <= 0).any():
        raise ResponseError(f"wavelength: expected positive numbers of nm, got {centres}")
    if fwhm is None:
        return centres, None
    widths = np.asarray(fwhm, dtype=np.float64)
    if widths.shape != centres.shape:
        raise ResponseError(f"fwhm: expected {centres.size} numbers, got shape {widths.shape}")
    if not np.isfinite(widths).all() or (widths <= 0).any():
        raise ResponseError(f"fwhm: expected positive numbers of nm, got {widths}")
    return centres, widths


def _as_matrix(spec: object) -> FloatArray:
    try:
        matrix = np.array(spec, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ResponseError(f"expected {_ACCEPTED}…; got {type(spec).__name__}") from error
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ResponseError(f"a response matrix needs shape (c, C), got {matrix.shape}")
    return matrix


def parse_gaussians(text: str) -> tuple[list[float], list[float]]:
    """Centres and widths of ``gaussian:CENTRE/FWHM,…`` in nm.

    Raises
    ------
    ResponseError
        If it is anything else.
    """
    centre, width = [], []
    for item in text.split(":", 1)[1].split(","):
        parts = item.split("/")
        try:
            c, w = (float(p) for p in parts)
        except ValueError as error:
            raise ResponseError(
                f"{text!r}: expected gaussian:CENTRE/FWHM,CENTRE/FWHM,… in nm, got {item!r}"
            ) from error
        centre.append(c)
        width.append(w)
    return centre, width


def split_bands(text: str) -> tuple[str, list[str] | None]:
    """Part a specification into its name and the bands picked after a colon, or None."""
    head, colon, tail = text.rpartition(":")
    if not colon:
        return text, None
    return head, [label.strip() for label in tail.split(",")]


def as_path(text: str) -> tuple[Path | None, list[str] | None]:
    """Path and picked columns, if the text names a file rather than a sensor."""
    head, bands = split_bands(text)
    for name, columns in ((text, None), (head, bands)):
        if Path(name).suffix.lower() in SUFFIXES:
            return Path(name).expanduser(), columns
    if os.sep in text:
        return Path(text).expanduser(), None
    return None, None


def pick_columns(path: Path, table: Table, columns: Sequence[str] | None) -> Table:
    """Table with the named columns alone, in that order; None takes all.

    Raises
    ------
    ResponseError
        If one is missing, or named twice.
    """
    if columns is None:
        return table
    index = []
    for label in columns:
        exact = [k for k, name in enumerate(table.names) if name == label]
        loose = [k for k, name in enumerate(table.names) if band_key(name) == band_key(label)]
        if not exact and len(loose) != 1:
            raise ResponseError(
                f"{path} has no band {label!r}: expected one of {', '.join(table.names)}"
            )
        index.append((exact or loose)[0])
    if len(set(index)) != len(index):
        raise ResponseError(f"{path}: bands named twice in {', '.join(columns)}")
    return Table(table.values[index], table.wavelength, tuple(table.names[k] for k in index))


def _from_table(
    table: Table,
    source: str,
    centres: FloatArray | None,
    widths: FloatArray | None,
    min_coverage: float,
) -> Response:
    grid = table.wavelength
    same = grid is not None and centres is not None and np.array_equal(grid, centres)
    if grid is None or same:
        return fitted(table.values, centres, table.names, source)
    if centres is None:
        raise _no_wavelengths(source)
    values = table.values
    if grid.size > 1 and (np.diff(grid) < 0).all():
        grid, values = grid[::-1], values[:, ::-1]
    if grid.size < 2 or (np.diff(grid) <= 0).any():
        raise ResponseError(
            f"{source}: expected at least 2 wavelengths in strictly increasing order, got {grid}"
        )
    check_values(values, table.names, source)
    rows = [resample(grid, curve, centres, widths) for curve in values]
    parts = [coverage(grid, curve, centres, widths) for curve in values]
    missing = [
        (name, part)
        for name, row, part in zip(table.names, rows, parts, strict=True)
        if part < min_coverage or row.sum() <= 0
    ]
    if missing:
        raise _uncovered(source, missing, centres, min_coverage)
    matrix = np.stack([row / row.sum() for row in rows])
    return Response(matrix, centres, table.names, source, LINEAR if widths is None else AVERAGED)


def _from_sensor(
    text: str, centres: FloatArray | None, widths: FloatArray | None, min_coverage: float
) -> Response:
    name, bands = split_bands(text)
    sensor = find_sensor(name)
    if sensor is None:
        close = similar_sensors(name)
        hint = f" (close to {name!r}: {', '.join(close)})" if close else ""
        raise ResponseError(
            f"unknown response {text!r}: expected {_ACCEPTED}{', '.join(sensor_names())}{hint}"
        )
    if centres is None:
        raise _no_wavelengths(sensor)
    rows, names, missing = [], [], []
    for curve in sensor_curves(sensor, bands):
        row = resample(curve.wavelength, curve.response, centres, widths)
        part = coverage(curve.wavelength, curve.response, centres, widths)
        if part < min_coverage or row.sum() <= 0:
            missing.append((curve.name, part))
        else:
            rows.append(row / row.sum())
            names.append(curve.name)
    if missing and (bands is not None or not rows):
        raise _uncovered(sensor, missing, centres, min_coverage)
    return Response(
        np.stack(rows),
        centres,
        tuple(names),
        sensor,
        LINEAR if widths is None else AVERAGED,
        tuple(name for name, _ in missing),
    )


def _no_wavelengths(source: str) -> ResponseError:
    return ResponseError(
        f"{source}: needs the cube's wavelengths in nm, and the cube has none; "
        "give a response matrix instead"
    )


def _uncovered(
    source: str, missing: Sequence[tuple[str, float]], centres: FloatArray, least: float
) -> ResponseError:
    listed = ", ".join(f"{name} ({part:.0%})" for name, part in missing)
    return ResponseError(
        f"{source}: expected at least {least:.0%} of each band within the cube's bands "
        f"({centres.min():g} to {centres.max():g} nm, {centres.size} of them), got {listed}"
    )
