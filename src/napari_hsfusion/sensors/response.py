"""What a spectral response is, its checks, and how it is written to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ResponseError
from .resample import FloatArray
from .tables import write_atomically

AS_GIVEN = "weights as given"


@dataclass(frozen=True)
class Response:
    """Spectral response of a multispectral sensor on the bands of a cube.

    Attributes
    ----------
    matrix : ndarray, shape (c, C), float64
        Not negative; each row sums to 1.
    wavelength : ndarray, shape (C,), float64, or None
        The cube's band centres in nm, None where the cube has none.
    names : tuple of str
        Names of the c bands.
    source : str
        Where it came from: "matrix", a file's path, a sensor's name, or the
        specification of the Gaussians.
    resampling : str
        How curves were brought onto the cube's bands.
    dropped : tuple of str
        Bands of the named sensor that the cube does not cover.
    """

    matrix: FloatArray
    wavelength: FloatArray | None
    names: tuple[str, ...]
    source: str
    resampling: str = AS_GIVEN
    dropped: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the record of a result; empty if all is well."""
        if not self.dropped:
            return ()
        return (
            f"{self.source}: the cube does not cover {', '.join(self.dropped)}; "
            f"used {', '.join(self.names)}",
        )

    def record(self) -> dict[str, Any]:
        """JSON-able description, without the matrix."""
        return {
            "source": self.source,
            "bands": list(self.names),
            "resampling": self.resampling,
            "dropped": list(self.dropped),
        }


def save_response_csv(response: Response, path: str | os.PathLike[str]) -> None:
    """Write a response as CSV: ``wavelength_nm`` and one column a band.

    Numbers are written with as many digits as bring back the same float64, so
    :func:`load_response` on the same bands returns the same matrix bit for bit.
    Where the cube has no wavelengths the first column is ``band``, 1 to C.

    Raises
    ------
    WriteError
        If it could not be written; what stood there before still does.
    """
    for name in response.names:
        if not name or any(c in name for c in ',;\t\n\r"#') or name != name.strip():
            raise ResponseError(f"a band's name cannot be a CSV column: {name!r}")
    known = response.wavelength is not None
    lines = [",".join(["wavelength_nm" if known else "band", *response.names])]
    for k, weights in enumerate(response.matrix.T):
        first = repr(float(response.wavelength[k])) if response.wavelength is not None else k + 1
        lines.append(",".join([str(first), *(repr(float(w)) for w in weights)]))
    content = ("\n".join(lines) + "\n").encode()

    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(Path(path), write)


def check_values(values: FloatArray, names: Sequence[str], source: str) -> None:
    """Raise :class:`ResponseError` unless all are finite, none negative, no row zero."""
    if not np.isfinite(values).all():
        raise ResponseError(f"{source}: expected finite responses, got NaN or infinity")
    for name, row in zip(names, values, strict=True):
        if (row < 0).any():
            raise ResponseError(
                f"{source}: expected responses of 0 or more, got {row.min():g} in {name}"
            )
        if row.sum() <= 0:
            raise ResponseError(f"{source}: expected a response above 0 in {name}, got all zeros")


def fitted(
    matrix: FloatArray, centres: FloatArray | None, names: tuple[str, ...], source: str
) -> Response:
    """Weights that count the cube's bands: checked, rows brought to sum 1."""
    if centres is not None and matrix.shape[1] != centres.size:
        turned = matrix.shape[0] == centres.size
        hint = " (it fits when transposed)" if turned else ""
        raise ResponseError(
            f"{source}: expected {centres.size} columns, one a band of the cube, "
            f"got a matrix of shape {matrix.shape}{hint}"
        )
    check_values(matrix, names, source)
    total = matrix.sum(axis=1, keepdims=True)
    # rows that already sum to one keep their bits, so that a saved response comes back as it was
    matrix = np.where(np.abs(total - 1) <= 1e-12, matrix, matrix / total)
    return Response(matrix, centres, tuple(names), source)
