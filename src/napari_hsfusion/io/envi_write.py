"""Save ENVI images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import xarray as xr

from ..errors import FormatError
from . import _fields
from ._atomic import atomic_write
from ._fields import Fields
from ._stream import pieces
from .envi import DTYPES, LAYOUT_KEYS, read_fields
from .envi_georef import KEYS as MAP_KEYS
from .envi_georef import write_georeference
from .envi_header import (
    EXTRAS_KEY,
    compose,
    encode_extras,
    format_list,
    format_value,
    parse_header,
    survives,
)

_CODES = {np.dtype(name).name: code for code, name in DTYPES.items()}
_ORDERS: dict[str, tuple[Literal["<", ">"], str]] = {"little": ("<", "0"), "big": (">", "1")}
# what the writer states itself, never taken from the metadata
_RESERVED = {
    *LAYOUT_KEYS,
    "wavelength",
    "wavelength units",
    "fwhm",
    "bbl",
    "band names",
    "data ignore value",
    "reflectance scale factor",
    "data gain values",
    "data offset values",
    "major frame offsets",
    "minor frame offsets",
    *MAP_KEYS,
}


def envi_paths(path: Path) -> tuple[Path, Path]:
    """Data file and header that saving to `path` makes."""
    if path.suffix.lower() == ".hdr":
        return path.with_suffix(".img"), path
    return path, path.with_suffix(".hdr")


def save_envi(
    cube: xr.DataArray,
    path: Path,
    *,
    record: Mapping[str, Any] | None = None,
    overwrite: bool = True,
    interleave: str | None = None,
    byte_order: str | None = None,
) -> Path:
    """Save a cube as ENVI image: data file and header, both or neither.

    Parameters
    ----------
    cube : xarray.DataArray
        Of any type ENVI knows (uint8, int16 to int64, uint16 to uint64,
        float32, float64).
    path : Path
        ``NAME.hdr`` (the data go to ``NAME.img``) or the data file (the header
        goes to ``NAME.hdr``).
    record : mapping, optional
        Run record.
    overwrite : bool
    interleave : {'bsq', 'bil', 'bip'}, optional
        By default what the extension says, or bsq.
    byte_order : {'little', 'big'}, optional
        Little by default.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    FormatError
        If ENVI has no such type, or the interleave contradicts the extension.
    WriteError
        If a file cannot be written.
    """
    named = path.suffix.lower()[1:] if path.suffix.lower() in (".bsq", ".bil", ".bip") else None
    interleave = interleave or named or "bsq"
    if interleave not in ("bsq", "bil", "bip"):
        raise FormatError(f"interleave: expected bsq, bil or bip, got {interleave!r}")
    if named and named != interleave:
        raise FormatError(f"{path}: extension and interleave {interleave} contradict each other")
    if byte_order not in (None, *_ORDERS):
        raise FormatError(f"byte_order: expected little or big, got {byte_order!r}")
    _fields.check_dtype(cube, " ".join(_CODES), "ENVI")
    prefix, order = _ORDERS[byte_order or "little"]
    data, header = envi_paths(path)
    layout = {
        "samples": str(cube.sizes["x"]),
        "lines": str(cube.sizes["y"]),
        "bands": str(cube.sizes["band"]),
        "header offset": "0",
        "file type": "ENVI Standard",
        "data type": str(_CODES[cube.dtype.newbyteorder("=").name]),
        "interleave": interleave,
        "byte order": order,
    }
    text = header_text(cube, layout, record, data)
    with atomic_write([data, header], overwrite=overwrite) as (pixels, words):
        with pixels.open("r+b") as file:
            write_pixels(file, cube, interleave, cube.dtype.newbyteorder(prefix))
        words.write_text(text, encoding="utf-8", newline="\n")
    return path


def header_text(
    cube: xr.DataArray, layout: dict[str, str], record: Mapping[str, Any] | None, data: Path
) -> str:
    """Header of a cube: layout, native fields, and the rest as JSON in base64."""
    true = Fields.of(cube)
    metadata = {k: v for k, v in true.metadata.items() if k not in _RESERVED and survives(k, v)}
    stated = {k: format_value(k, v) for k, v in metadata.items() if k == "description"}
    stated |= layout | _native(true, cube.sizes["band"])
    stated |= {k: format_value(k, v) for k, v in metadata.items() if k != "description"}
    back = parse_header(compose(stated), data)
    native, _ = read_fields(back, cube.sizes["band"], cube.dtype, data)
    extras = _fields.pack(cube, record, native)
    extras["data_file"] = data.name
    return compose({**stated, EXTRAS_KEY: encode_extras(_fields.dumps(extras))})


def _native(true: Fields, bands: int) -> dict[str, str]:
    """The fields that ENVI has keys for."""
    out: dict[str, str] = {}
    if true.band_name is not None:
        swap = str.maketrans({",": ";", "{": "(", "}": ")", "\n": " ", "\r": " "})
        names = [n.translate(swap) for n in true.band_name]
        if all(name.strip() for name in names):
            out["band names"] = format_list(names, 1)
    if true.wavelength is not None or true.fwhm is not None:
        out["wavelength units"] = "Nanometers"
    for key, values in (("wavelength", true.wavelength), ("fwhm", true.fwhm)):
        if values is not None:
            out[key] = format_list([repr(float(v)) for v in values])
    if true.good_band is not None:
        out["bbl"] = format_list(["1" if good else "0" for good in true.good_band], 20)
    out |= write_georeference(true.transform, true.crs)
    if true.nodata is not None:
        out["data ignore value"] = repr(true.nodata)
    if true.add_offset == 0.0 and true.scale_factor > 0 and np.isfinite(1 / true.scale_factor):
        if true.scale_factor != 1.0:
            out["reflectance scale factor"] = repr(1.0 / true.scale_factor)
    else:
        out["data gain values"] = format_list([repr(true.scale_factor)] * bands)
        out["data offset values"] = format_list([repr(true.add_offset)] * bands)
    return out


def write_pixels(file: BinaryIO, cube: xr.DataArray, interleave: str, dtype: np.dtype[Any]) -> None:
    """Write a cube's pixels from the start of `file`, a piece at a time."""
    bands, rows, columns = cube.shape
    size = dtype.itemsize
    if interleave == "bip":
        for _, _, values in pieces(cube, "y"):
            _write(file, values.transpose(1, 2, 0), dtype)
        return
    for band, row, values in pieces(cube):
        if interleave == "bsq":
            runs: Iterator[tuple[int, np.ndarray]] = (
                ((band.start + i) * rows + row.start, v) for i, v in enumerate(values)
            )
        elif values.shape[0] == bands:
            runs = iter([(row.start * bands, values.transpose(1, 0, 2))])
        else:
            runs = (
                ((row.start + i) * bands + band.start, values[:, i]) for i in range(values.shape[1])
            )
        for line, run in runs:
            file.seek(line * columns * size)
            _write(file, run, dtype)
    file.seek(0, os.SEEK_END)


def _write(file: BinaryIO, values: np.ndarray, dtype: np.dtype[Any]) -> None:
    file.write(np.ascontiguousarray(values, dtype=dtype).reshape(-1).view(np.uint8).data)
