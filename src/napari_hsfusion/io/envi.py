"""Open ENVI images: a text header and a file of bare pixels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import FormatError, TruncatedFileError
from . import _fields
from ._fields import Fields
from ._source import (
    FileHandle,
    GzipHandle,
    RawSource,
    chunks_for,
    lazy_array,
    per_band_physical,
)
from ._units import to_nanometres
from .envi_files import find_data, find_header
from .envi_georef import KEYS as MAP_KEYS
from .envi_georef import read_georeference
from .envi_header import (
    EXTRAS_KEY,
    cook,
    decode_extras,
    inner,
    integer,
    items,
    read_header,
)

logger = logging.getLogger(__name__)

DTYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX = {6: "complex64", 9: "complex128"}
LAYOUT_KEYS = {
    "samples",
    "lines",
    "bands",
    "header offset",
    "data type",
    "interleave",
    "byte order",
    "file compression",
    "file type",
    EXTRAS_KEY,
}


def open_envi(path: Path) -> xr.DataArray:
    """Open an ENVI image; no pixel is read.

    Parameters
    ----------
    path : Path
        The header (``.hdr``) or the data file.

    Returns
    -------
    xarray.DataArray
        A cube; pixels are memory-mapped piece by piece as they are asked for.

    Raises
    ------
    FormatError
        If there is no ENVI header, no data file, or the variant is not one
        that is read.
    TruncatedFileError
        If the data file is shorter than the header says.
    """
    header, data, fields, extras = _locate(path)
    shape, dtype, interleave, offset = read_layout(fields, header)
    source = _source(data, fields, shape, dtype, interleave, offset)
    pixels = lazy_array(source, chunks_for(shape, dtype.itemsize, interleave))
    native, gains = read_fields(fields, shape[0], source.dtype, header)
    if gains is not None:
        pixels = per_band_physical(pixels, *gains, native.nodata)
        native.nodata = None
    return _fields.build(pixels, native, extras, header.name[: -len(header.suffix)])


def envi_files(path: Path) -> tuple[Path, Path]:
    """Header and data file of the ENVI image that a path names.

    Raises
    ------
    FormatError
        As :func:`open_envi` raises it.
    """
    header, data, _, _ = _locate(path)
    return header, data


def _locate(path: Path) -> tuple[Path, Path, dict[str, str], dict[str, Any]]:
    """Header, data file, fields of the header, and what our own writer added to them."""
    if path.suffix.lower() == ".hdr":
        header, data = path, None
    else:
        found = find_header(path)
        if found is None:
            raise FormatError(
                f"{path}: no ENVI header beside it; looked for {path.stem}.hdr and "
                f"{path.name}.hdr (upper and lower case) beginning with the word ENVI"
            )
        header, data = found, path
    fields = read_header(header)
    extras = _fields.loads(decode_extras(fields.get(EXTRAS_KEY)), header)
    own = _own_data(header, extras.get("data_file"))
    if data is None:
        data = own or find_data(header, read_layout(fields, header)[2])
    elif own is not None and own.name.lower() != data.name.lower():
        raise FormatError(f"{data}: {header.name} does not describe this file but {own.name}")
    return header, data, fields, extras


def _own_data(header: Path, stated: Any) -> Path | None:
    """Data file that the header names, unless the two were copied to other names."""
    if not isinstance(stated, str) or Path(stated).name != stated:
        return None
    path = header.with_name(stated)
    return path if path.is_file() and find_header(path) == header else None


def read_layout(
    fields: dict[str, str], where: Path
) -> tuple[tuple[int, int, int], np.dtype[Any], str, int]:
    """How the pixels lie in the data file.

    Returns
    -------
    shape : (band, y, x)
    dtype : numpy.dtype
        Byte order included.
    interleave : {'bsq', 'bil', 'bip'}
    offset : int
        Bytes before the first pixel.

    Raises
    ------
    FormatError
        Naming the field that is missing or not understood.
    """
    kind = inner(fields.get("file type", "")).lower()
    if any(word in kind for word in ("library", "tiff", "meta", "hdf", "netcdf", "jpeg", "nitf")):
        raise FormatError(f"{where}: describes a file of type '{kind}', not bare ENVI pixels")
    shape = tuple(integer(fields, key, None, where) for key in ("bands", "lines", "samples"))
    if 0 in shape:
        raise FormatError(f"{where}: an empty image, {shape} (bands, lines, samples)")
    code = integer(fields, "data type", None, where)
    if code in _COMPLEX:
        raise FormatError(
            f"{where}: data type {code} is {_COMPLEX[code]}; a cube holds real numbers, "
            f"data types {', '.join(map(str, DTYPES))}"
        )
    if code not in DTYPES:
        known = ", ".join(map(str, DTYPES))
        raise FormatError(f"{where}: unknown data type {code}; expected one of {known}")
    order = integer(fields, "byte order", 0, where)
    if order not in (0, 1):
        raise FormatError(f"{where}: byte order: expected 0 or 1, got {order}")
    interleave = inner(fields.get("interleave", "bsq")).lower()
    if interleave not in ("bsq", "bil", "bip"):
        raise FormatError(f"{where}: interleave: expected bsq, bil or bip, got {interleave!r}")
    for key in ("major frame offsets", "minor frame offsets"):
        if any(v not in ("0", "") for v in items(fields.get(key, ""))):
            raise FormatError(f"{where}: '{key}' other than 0 are not read")
    dtype = np.dtype(DTYPES[code]).newbyteorder("<" if order == 0 else ">")
    offset = integer(fields, "header offset", 0, where)
    return (shape[0], shape[1], shape[2]), dtype, interleave, offset


def _source(
    data: Path,
    fields: dict[str, str],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    interleave: str,
    offset: int,
) -> RawSource:
    packed = inner(fields.get("file compression", "0")) == "1" or data.suffix.lower() == ".gz"
    if packed:
        try:
            with data.open("rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
        except OSError as error:
            raise FormatError(f"{data}: cannot be read: {error}") from error
        if not packed and data.suffix.lower() == ".gz":
            raise FormatError(f"{data}: named .gz, but not compressed with gzip")
    handle = GzipHandle(data) if packed else FileHandle(data)
    source = RawSource(handle, shape, dtype, interleave, offset)
    if not packed and handle.size < source.needed:
        raise TruncatedFileError(data, source.needed, handle.size)
    return source


def read_fields(
    header: dict[str, str], bands: int, dtype: np.dtype[Any], where: Path
) -> tuple[Fields, tuple[np.ndarray, np.ndarray] | None]:
    """What a header says beside the layout of the pixels.

    Parameters
    ----------
    header : dict of str to str
    bands : int
    dtype : numpy.dtype
        Of the pixels.
    where : Path
        Named in messages.

    Returns
    -------
    Fields
    gains, offsets : arrays of shape (band,), or None
        None where one scale and offset hold for all bands.
    """
    native, used = Fields(), set(LAYOUT_KEYS)

    def listed(key: str) -> list[str] | None:
        return items(header[key]) if key in header else None

    wavelength, fwhm = to_nanometres(
        listed("wavelength"), listed("fwhm"), header.get("wavelength units"), bands, where
    )
    if wavelength is not None:
        native.wavelength = wavelength.tolist()
        used |= {"wavelength", "wavelength units"}
    if fwhm is not None:
        native.fwhm = fwhm.tolist()
        used |= {"fwhm", "wavelength units"}
    native.good_band = _fields.flags(listed("bbl"), bands, where)
    if native.good_band is not None:
        used.add("bbl")
    names = listed("band names")
    if names is not None and len(names) == bands:
        native.band_name = names
        used.add("band names")
    native.transform, native.crs = read_georeference(header)
    used |= set(MAP_KEYS)
    if "data ignore value" in header:
        native.nodata = _fields.number(inner(header["data ignore value"]), dtype)
        used.add("data ignore value")
    gains = _read_scale(header, native, bands, used, where)
    native.metadata = {k: cook(k, v) for k, v in header.items() if k not in used}
    return native, gains


def _read_scale(
    header: dict[str, str], native: Fields, bands: int, used: set[str], where: Path
) -> tuple[np.ndarray, np.ndarray] | None:
    """Set scale and offset; return gains and offsets if they differ between bands."""

    def numbers(key: str, default: float) -> np.ndarray | None:
        if key not in header:
            return np.full(bands, default)
        try:
            values = np.array([float(v) for v in items(header[key])])
        except ValueError:
            values = np.array([])
        if values.shape != (bands,) or not np.isfinite(values).all():
            logger.warning("%s: '%s' ignored, expected %d numbers", where, key, bands)
            return None
        return values

    factor = _fields.number(inner(header.get("reflectance scale factor", "")), np.dtype("f8"))
    if factor and np.isfinite(factor) and factor > 0:
        native.scale_factor = 1.0 / factor
        used.add("reflectance scale factor")
    if not {"data gain values", "data offset values"} & set(header):
        return None
    gains = numbers("data gain values", native.scale_factor)
    offsets = numbers("data offset values", 0.0)
    if gains is None or offsets is None:
        return None
    if "data gain values" in header and native.scale_factor != 1.0:
        # two scales: the reflectance is what the file holds, the gains lead to radiance
        return None
    used |= {"data gain values", "data offset values"}
    shared = _fields.check_scales(gains, offsets)
    if shared is None:
        native.scale_factor = 1.0
        return gains, offsets
    native.scale_factor, native.add_offset = shared
    return None
