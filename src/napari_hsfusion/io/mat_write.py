"""Save MATLAB files: version 5, or 7.3 where version 5 is too small."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import scipy.io
import xarray as xr

from . import _fields
from ._atomic import atomic_write
from ._fields import Fields
from ._stream import pieces
from .mat import CUBE_NAME, EXTRAS_NAME

# the bytes of an array that every version of MATLAB takes from a version 5 file
MAT5_LIMIT = 2**31 - 2**16
_SUPPORTED = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64"
# MATLAB's names; numbers of the array class and of the data type in version 5
_CLASSES = {
    "float64": ("double", 6, 9),
    "float32": ("single", 7, 7),
    "int8": ("int8", 8, 1),
    "uint8": ("uint8", 9, 2),
    "int16": ("int16", 10, 3),
    "uint16": ("uint16", 11, 4),
    "int32": ("int32", 12, 5),
    "uint32": ("uint32", 13, 6),
    "int64": ("int64", 14, 12),
    "uint64": ("uint64", 15, 13),
    "bool": ("logical", 9, 2),
}


def save_mat(
    cube: xr.DataArray,
    path: Path,
    *,
    record: Mapping[str, Any] | None = None,
    overwrite: bool = True,
) -> Path:
    """Save a cube as MATLAB file.

    The pixels are the variable ``cube`` (y, x, band). Beside it stand, where
    the cube has them, ``wavelength``, ``fwhm`` (nm), ``good_band``, ``crs``,
    ``transform``, ``nodata``, ``scale_factor`` and ``add_offset``; the rest is
    JSON text in ``hsfusion``.

    Parameters
    ----------
    cube : xarray.DataArray
        Of any real type but float16.
    path : Path
    record : mapping, optional
        Run record.
    overwrite : bool

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    FormatError
        If MATLAB has no such type.
    WriteError
        If the file cannot be written.
    """
    _fields.check_dtype(cube, _SUPPORTED, "a MATLAB file")
    small = companions(cube, record)
    nbytes = cube.size * cube.dtype.itemsize
    with atomic_write([path], overwrite=overwrite) as (temporary,):
        if nbytes <= MAT5_LIMIT:
            with temporary.open("r+b") as file:
                _write_mat5(file, cube, small)
        else:
            _write_mat73(temporary, cube, small)
    return path


def companions(cube: xr.DataArray, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Small variables that stand beside the cube."""
    true = Fields.of(cube)
    out: dict[str, Any] = {}
    for key, values in (("wavelength", true.wavelength), ("fwhm", true.fwhm)):
        if values is not None:
            out[key] = np.array([values], dtype=np.float64)
    if true.good_band is not None:
        out["good_band"] = np.array([true.good_band], dtype=bool)
    if true.transform is not None:
        out["transform"] = np.array([true.transform], dtype=np.float64)
    if true.nodata is not None:
        out["nodata"] = np.array([[true.nodata]], dtype=np.float64)
    out["scale_factor"] = np.array([[true.scale_factor]], dtype=np.float64)
    out["add_offset"] = np.array([[true.add_offset]], dtype=np.float64)
    if true.crs is not None and true.crs.isascii():
        out["crs"] = true.crs
    native = Fields(
        wavelength=true.wavelength,
        fwhm=true.fwhm,
        good_band=true.good_band,
        transform=true.transform,
        nodata=None if true.nodata is None else _fields.number(float(true.nodata), cube.dtype),
        scale_factor=float(true.scale_factor),
        add_offset=float(true.add_offset),
        crs=out.get("crs"),
    )
    out[EXTRAS_NAME] = _fields.dumps(_fields.pack(cube, record, native))
    return out


def _write_mat5(file: BinaryIO, cube: xr.DataArray, small: Mapping[str, Any]) -> None:
    """SciPy writes the header and the small variables; the cube follows in pieces."""
    start = io.BytesIO()
    scipy.io.savemat(start, dict(small), long_field_names=True)
    file.write(start.getvalue())
    bands, rows, columns = cube.shape
    name = cube.dtype.newbyteorder("=").name
    _, class_number, type_number = _CLASSES[name]
    nbytes = cube.size * cube.dtype.itemsize
    flags = class_number | (0x200 if name == "bool" else 0)
    label = CUBE_NAME.encode()
    # array flags, dimensions (padded to 8 bytes), name (short form), tag of the data
    inside = struct.pack("=IIII", 6, 8, flags, 0)
    inside += struct.pack("=IIiiii", 5, 12, rows, columns, bands, 0)
    inside += struct.pack("=HH4s", 1, len(label), label)
    inside += struct.pack("=II", type_number, nbytes)
    padding = -nbytes % 8
    file.write(struct.pack("=II", 14, len(inside) + nbytes + padding))
    file.write(inside)
    for _, _, values in pieces(cube, "band"):
        file.write(np.ascontiguousarray(values.transpose(0, 2, 1)).reshape(-1).view(np.uint8).data)
    file.write(bytes(padding))


def _write_mat73(path: Path, cube: xr.DataArray, small: Mapping[str, Any]) -> None:
    bands, rows, columns = cube.shape
    dtype = cube.dtype.newbyteorder("=")
    with h5py.File(path, "w", userblock_size=512, libver=("earliest", "v110")) as file:
        for name, value in small.items():
            if isinstance(value, str):
                letters = np.frombuffer(value.encode("utf-16-le"), "<u2").reshape(-1, 1)
                _mark(file.create_dataset(name, data=letters), "char", 2)
            elif value.dtype == bool:
                _mark(file.create_dataset(name, data=value.T.astype(np.uint8)), "logical", 1)
            else:
                _mark(file.create_dataset(name, data=value.T), "double", None)
        stored = np.dtype(np.uint8) if dtype.kind == "b" else dtype
        line = max(1, rows * stored.itemsize)
        dataset = file.create_dataset(
            CUBE_NAME,
            (bands, columns, rows),
            stored,
            chunks=(1, max(1, min(columns, (1 << 20) // line)), rows),
            compression="gzip",
            compression_opts=4,
            shuffle=True,
        )
        _mark(dataset, _CLASSES[dtype.name][0], 1 if dtype.kind == "b" else None)
        for band, _, values in pieces(cube, "band"):
            dataset[band] = values.transpose(0, 2, 1).view(stored)
    now = time.strftime("%a %b %d %H:%M:%S %Y")
    text = f"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: {now} HDF5 schema 1.00 ."
    with path.open("r+b") as raw:
        raw.write(text.encode().ljust(116) + bytes(8) + b"\x00\x02IM")


def _mark(dataset: h5py.Dataset, kind: str, decode: int | None) -> None:
    dataset.attrs["MATLAB_class"] = np.bytes_(kind)
    if decode is not None:
        dataset.attrs.create("MATLAB_int_decode", decode, dtype=np.int32)
