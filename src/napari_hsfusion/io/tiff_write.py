"""Save GeoTIFF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
import xarray as xr
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from ..errors import FormatError, TruncatedFileError, WriteError
from . import _fields
from ._atomic import atomic_write
from ._fields import Fields
from ._gdal import parse_crs, quiet
from ._stream import pieces
from .tiff import check_complete, read_raster_fields
from .tiff_tags import EXTRAS_TAG

_SUPPORTED = "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64"
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# names that GDAL gives a meaning of its own
_GDAL_TAGS = {"AREA_OR_POINT", EXTRAS_TAG}


def save_tiff(
    cube: xr.DataArray,
    path: Path,
    *,
    record: Mapping[str, Any] | None = None,
    overwrite: bool = True,
    interleave: str | None = None,
    byte_order: str | None = None,
) -> Path:
    """Save a cube as GeoTIFF, compressed without loss.

    Wavelength, fwhm (nm) and bad-band flag are tags of the bands, in plain
    form and in GDAL's domain IMAGERY (micrometres); history and run record are
    JSON in the tag ``HSFUSION``.

    Parameters
    ----------
    cube : xarray.DataArray
        Of any integer type, float32 or float64.
    path : Path
    record : mapping, optional
        Run record.
    overwrite : bool
    interleave : {'bsq', 'bip'}, optional
        Planar (the default) or chunky.
    byte_order : {'little', 'big'}, optional
        Little by default.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    FormatError
        If GeoTIFF has no such type or interleave.
    WriteError
        If the file cannot be written.
    """
    _fields.check_dtype(cube, _SUPPORTED, "GeoTIFF")
    if interleave not in (None, "bsq", "bip"):
        raise FormatError(f"interleave: GeoTIFF knows bsq and bip, got {interleave!r}")
    if byte_order not in (None, "little", "big"):
        raise FormatError(f"byte_order: expected little or big, got {byte_order!r}")
    true = Fields.of(cube)
    bands, rows, columns = cube.shape
    options: dict[str, Any] = {
        "driver": "GTiff",
        "count": bands,
        "dtype": cube.dtype.newbyteorder("=").name,
        "crs": parse_crs(true.crs),
        "photometric": "MINISBLACK",
        "compress": "deflate",
        "predictor": 3 if cube.dtype.kind == "f" else 2,
        "interleave": "pixel" if interleave == "bip" else "band",
        "BIGTIFF": "IF_SAFER",
        "ENDIANNESS": (byte_order or "little").upper(),
    }
    if true.transform is not None and tuple(true.transform) != _IDENTITY:
        options["transform"] = rasterio.Affine(*true.transform)
    with MemoryFile() as memory:
        # what GDAL makes of the fields is read back from a scene of one pixel
        with quiet(), memory.open(**options, width=1, height=1) as trial:
            _describe(trial, true)
        with quiet(), memory.open() as trial:
            native, _ = read_raster_fields(trial, path)
    extras = _fields.dumps(_fields.pack(cube, record, native))
    with atomic_write([path], overwrite=overwrite) as (temporary,):
        try:
            with (
                quiet(),
                rasterio.open(temporary, "w", **options, width=columns, height=rows) as target,
            ):
                _describe(target, true)
                target.update_tags(**{EXTRAS_TAG: extras})
                for band, row, values in pieces(cube, "y" if interleave == "bip" else "any"):
                    window = Window.from_slices((row.start, row.stop), (0, columns))
                    indexes = list(range(band.start + 1, band.stop + 1))
                    target.write(values, indexes, window=window)
            with tifffile.TiffFile(temporary) as written:
                check_complete(written, temporary.stat().st_size, path)
        except (RasterioError, TruncatedFileError, tifffile.TiffFileError) as error:
            raise WriteError(f"{path}: could not be written: {error}") from error
        finally:
            for stray in temporary.parent.glob(f"{temporary.name}.*"):
                stray.unlink(missing_ok=True)
    return path


def _describe(target: Any, true: Fields) -> None:
    """Give a dataset every native field of a cube."""
    if true.nodata is not None and _fits(true.nodata, np.dtype(target.dtypes[0])):
        target.nodata = true.nodata
    if true.scale_factor != 1.0 or true.add_offset != 0.0:
        target.scales = (true.scale_factor,) * target.count
        target.offsets = (true.add_offset,) * target.count
    tags = {
        k: v
        for k, v in true.metadata.items()
        if isinstance(v, str) and k.isidentifier() and k not in _GDAL_TAGS and v.isprintable()
    }
    if tags:
        target.update_tags(**tags)
    for index in range(target.count):
        band: dict[str, str] = {}
        imagery: dict[str, str] = {}
        if true.wavelength is not None:
            nanometres = float(true.wavelength[index])
            band |= {"wavelength": repr(nanometres), "wavelength_units": "nanometers"}
            imagery["CENTRAL_WAVELENGTH_UM"] = repr(nanometres / 1000)
        if true.fwhm is not None:
            nanometres = float(true.fwhm[index])
            band |= {"fwhm": repr(nanometres), "wavelength_units": "nanometers"}
            imagery["FWHM_UM"] = repr(nanometres / 1000)
        if true.good_band is not None:
            band["bbl"] = str(int(true.good_band[index]))
        if band:
            target.update_tags(index + 1, **band)
        if imagery:
            target.update_tags(index + 1, ns="IMAGERY", **imagery)
        if true.band_name is not None and true.band_name[index]:
            target.set_band_description(index + 1, true.band_name[index])


def _fits(nodata: float | int, dtype: np.dtype[Any]) -> bool:
    """Whether GDAL can hold a no-data value for a type; JSON holds the others."""
    if dtype.kind == "f":
        return bool(np.isnan(nodata) or np.isinf(nodata) or abs(nodata) <= np.finfo(dtype).max)
    if not np.isfinite(nodata) or int(nodata) != nodata or float(nodata) != nodata:
        return False
    limits = np.iinfo(dtype)
    return limits.min <= int(nodata) <= limits.max and abs(int(nodata)) < 2**53
