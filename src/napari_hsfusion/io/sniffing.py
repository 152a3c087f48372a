"""What kind of file this is, from its first bytes."""

from __future__ import annotations

import struct
from pathlib import Path

from ..errors import HSFusionError
from .envi_files import find_header
from .envi_header import is_envi_header

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KINDS = {0: ("grey", 1), 2: ("RGB", 3), 3: ("palette", 1), 4: ("grey + alpha", 2)}
_PNG_KINDS |= {6: ("RGBA", 4)}
_START = 1024


def sniff(path: str | Path) -> str | None:
    """Format of a file, from its first 1024 bytes and, for ENVI, its neighbours' names.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    {'envi', 'mat', 'tiff'} or None
        None if it is none of these, or cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(_START)
        if start[:4] in _TIFF:
            return "tiff"
        if _is_mat(start, path):
            return "mat"
        if is_envi_header(start[:64]):
            return "envi"
        if path.suffix.lower() == ".hdr" or picture(start) is not None:
            return None
        return "envi" if find_header(path) is not None else None
    except (OSError, HSFusionError):
        return None


def _is_mat(start: bytes, path: Path) -> bool:
    if start[:6] == b"MATLAB" and start[126:128] in (b"IM", b"MI"):
        return True
    if path.suffix.lower() != ".mat":
        return False
    if start[:8] == _HDF5 or start[512:520] == _HDF5:
        return True
    # version 4 has no signature: type, rows, columns, imaginary flag, length of the name
    if len(start) < 20:
        return False
    for order in "<>":
        kind, rows, columns, imaginary, name = struct.unpack(f"{order}5i", start[:20])
        if 0 <= kind < 5000 and rows >= 0 and columns >= 0 and imaginary in (0, 1) and name > 0:
            return True
    return False


def picture(start: bytes) -> str | None:
    """Description of a display picture that begins like this, None if it is none."""
    if start[:8] == _PNG and len(start) >= 26:
        name, channels = _PNG_KINDS.get(start[25], ("unknown", 0))
        alpha = ", alpha included" if start[25] in (4, 6) else ""
        return f"a PNG picture, {start[24]}-bit {name} with {_channels(channels)}{alpha}"
    if start[:3] == b"\xff\xd8\xff":
        return f"a JPEG picture, {_jpeg(start)}"
    if start[:6] in (b"GIF87a", b"GIF89a"):
        return "a GIF picture, 8-bit palette"
    if start[:2] == b"BM" and len(start) >= 30 and start[6:10] == bytes(4):
        return f"a BMP picture, {struct.unpack('<H', start[28:30])[0]} bits a pixel"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP picture, 8-bit colour"
    return None


def _channels(count: int) -> str:
    return f"{count} channel{'' if count == 1 else 's'}"


def _jpeg(start: bytes) -> str:
    """Depth and channels from the frame header, if it is among the first bytes."""
    at = 2
    while at + 10 <= len(start) and start[at] == 0xFF:
        marker, length = start[at + 1], int.from_bytes(start[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return f"{start[at + 4]}-bit with {_channels(start[at + 9])}"
        at += 2 + length
    return "8-bit colour"
