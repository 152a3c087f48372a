"""Where a MATLAB 5 file keeps its arrays, and in which type.

SciPy tells the class of a variable without loading it, but not the type it is
stored in (MATLAB stores a double array of small whole numbers as uint16), nor
where. This reads the tags alone; see "MAT-File Format", MathWorks, chapter 1.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from ..errors import TruncatedFileError

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_TYPES |= {12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED, _HEADER = 14, 15, 128
_LOGICAL, _COMPLEX = 0x200, 0x800
_ENOUGH = 4096


@dataclass(frozen=True)
class Stored:
    """How a numeric variable is stored.

    Attributes
    ----------
    dtype : numpy.dtype
        Byte order included.
    logical, imaginary : bool
    offset : int or None
        Of the first number in the file; None if the variable is compressed.
    """

    dtype: np.dtype[Any]
    logical: bool
    imaginary: bool
    offset: int | None


def scan(file: BinaryIO, size: int, where: object) -> dict[str, Stored]:
    """Numeric variables of a MATLAB 5 file.

    Parameters
    ----------
    file : binary file
        At its start.
    size : int
        Of the file, bytes.
    where : object
        Named in the error.

    Returns
    -------
    dict of str to Stored
        Empty if it is a file of another version.

    Raises
    ------
    TruncatedFileError
        If a variable reaches beyond the end of the file.
    """
    header = file.read(_HEADER)
    marks = {b"IM": "<", b"MI": ">"}
    if len(header) < _HEADER or header[126:] not in marks:
        return {}
    order = marks[header[126:]]
    found: dict[str, Stored] = {}
    at = _HEADER
    while at + 8 <= size:
        file.seek(at)
        kind, length = struct.unpack(f"{order}II", file.read(8))
        end = at + 8 + length
        if end > size:
            raise TruncatedFileError(where, end, size)
        body = file.read(min(length, _ENOUGH))
        try:
            if kind == _COMPRESSED:
                named = _variable(zlib.decompressobj().decompress(body, _ENOUGH)[8:], order, None)
            elif kind == _MATRIX:
                named = _variable(body, order, at + 8)
            else:
                return found
        except (struct.error, zlib.error, UnicodeDecodeError):
            named = None
        if named is not None:
            found[named[0]] = named[1]
        at = end
    return found


def _variable(body: bytes, order: str, base: int | None) -> tuple[str, Stored] | None:
    """Name and storage of a numeric matrix, None if it is anything else."""
    flags = struct.unpack(f"{order}I", body[8:12])[0]
    if not 6 <= flags & 0xFF <= 15:
        return None
    _, _, _, at = _element(body, 16, order)
    _, start, length, at = _element(body, at, order)
    name = body[start : start + length].decode("latin-1")
    kind, start, _, _ = _element(body, at, order)
    if kind not in _TYPES:
        return None
    dtype = np.dtype(f"{'<' if order == '<' else '>'}{_TYPES[kind]}")
    offset = None if base is None else base + start
    return name, Stored(dtype, bool(flags & _LOGICAL), bool(flags & _COMPLEX), offset)


def _element(body: bytes, at: int, order: str) -> tuple[int, int, int, int]:
    """Type, start and length of an element's data, and where the next one begins."""
    word = struct.unpack(f"{order}I", body[at : at + 4])[0]
    if word >> 16:  # short form: both in one word, four bytes of data
        return word & 0xFFFF, at + 4, word >> 16, at + 8
    length = struct.unpack(f"{order}I", body[at + 4 : at + 8])[0]
    return word, at + 8, length, at + 8 + length + (-length % 8)
