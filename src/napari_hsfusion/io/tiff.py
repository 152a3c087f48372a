"""Open TIFF and GeoTIFF: through GDAL, or through tifffile where bands are pages."""

from __future__ import annotations

import logging
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
import xarray as xr
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ..errors import FormatError, TruncatedFileError
from . import _fields
from ._fields import Fields
from ._gdal import quiet
from ._source import FileHandle, Key, chunks_for, lazy_array, per_band_physical
from .tiff_tags import EXTRAS_TAG, read_band_tags

logger = logging.getLogger(__name__)


def open_tiff(path: Path) -> xr.DataArray:
    """Open a TIFF file; no pixel is read.

    Bands may be planar or chunky in one image, or pages (OME-TIFF and ImageJ
    included).

    Parameters
    ----------
    path : Path

    Returns
    -------
    xarray.DataArray
        A cube that is read band by band, or some rows at a time where bands
        are interleaved.

    Raises
    ------
    FormatError
        If it is no TIFF file, or not one image of a cube.
    TruncatedFileError
        If pixels lie beyond the end of the file.
    """
    from .tiff_pages import has_pages, open_pages

    handle = FileHandle(path)
    try:
        tif = tifffile.TiffFile(path)
    except (tifffile.TiffFileError, OSError, ValueError, struct.error) as error:
        raise FormatError(f"{path}: cannot be read as TIFF file: {error}") from error
    keep = False
    try:
        check_complete(tif, handle.size, path)
        keep = has_pages(tif)
        if keep:
            return open_pages(tif, handle, path)
    except (tifffile.TiffFileError, IndexError, struct.error) as error:
        raise FormatError(f"{path}: damaged TIFF file: {error}") from error
    finally:
        if not keep:
            tif.close()
    return _open_raster(handle, path)


def check_complete(tif: tifffile.TiffFile, size: int, path: Path) -> None:
    """Raise TruncatedFileError if a page's pixels lie beyond the end of the file."""
    end = 0
    for page in tif.pages:
        counts = page.databytecounts
        for offset, count in zip(page.dataoffsets, counts, strict=False):
            if offset:
                end = max(end, offset + count)
    if end > size:
        raise TruncatedFileError(path, end, size)


def _dataset(path: Path | str) -> Any:
    try:
        with quiet():
            return rasterio.open(path, driver="GTiff", sharing=False)
    except RasterioError as error:
        raise FormatError(f"{path}: cannot be read as TIFF file: {error}") from error


class RasterSource:
    """Pixels through GDAL. A dataset serves one thread at a time: hence the lock."""

    ndim = 3
    reads = "windows"

    def __init__(self, handle: FileHandle, dataset: Any) -> None:
        self.shape = (dataset.count, dataset.height, dataset.width)
        self.dtype = np.dtype(dataset.dtypes[0])
        self.handle = handle
        self._open: Any = dataset
        self._lock = threading.Lock()

    def __getitem__(self, key: Key) -> np.ndarray:
        bands, rows, columns = (
            range(*part.indices(length)) for part, length in zip(key, self.shape, strict=True)
        )
        if not (len(bands) and len(rows) and len(columns)):
            return np.empty((len(bands), len(rows), len(columns)), self.dtype)
        window = Window.from_slices((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1))
        with self._lock:
            if self._open is None:
                self.handle.check()
                self._open = _dataset(self.handle.path)
            try:
                found: np.ndarray[Any, Any] = self._open.read([b + 1 for b in bands], window=window)
            except (RasterioError, OSError) as error:
                raise FormatError(f"{self.handle.path}: pixels cannot be read: {error}") from error
        return found[:, :: rows.step, :: columns.step]

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("shape", "dtype", "handle")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open, self._lock = None, threading.Lock()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("raster", self.handle, self.shape, self.dtype.str)


def _open_raster(handle: FileHandle, path: Path) -> xr.DataArray:
    dataset = _dataset(path)
    if len(set(dataset.dtypes)) > 1:
        raise FormatError(f"{path}: bands of different types: {sorted(set(dataset.dtypes))}")
    if np.dtype(dataset.dtypes[0]).kind not in "iuf":
        raise FormatError(f"{path}: pixels of type {dataset.dtypes[0]}; a cube holds real numbers")
    source = RasterSource(handle, dataset)
    block_rows = dataset.block_shapes[0][0]
    chunky = dataset.profile.get("interleave") == "pixel" and dataset.count > 1
    chunks = chunks_for(
        source.shape,
        source.dtype.itemsize,
        "bip" if chunky else "bsq",
        step=(1, block_rows),
    )
    pixels = lazy_array(source, chunks)
    native, gains = read_raster_fields(dataset, path)
    if gains is not None:
        pixels = per_band_physical(pixels, *gains, native.nodata)
        native.nodata = None
    extras = _fields.loads(dataset.tags().get(EXTRAS_TAG), path)
    return _fields.build(pixels, native, extras, path.stem)


def read_raster_fields(
    dataset: Any, where: object
) -> tuple[Fields, tuple[np.ndarray, np.ndarray] | None]:
    """What a raster dataset says beside its pixels.

    Parameters
    ----------
    dataset : rasterio.DatasetReader
    where : object
        Named in messages.

    Returns
    -------
    Fields
    scales, offsets : arrays of shape (band,), or None
        None where one scale and offset hold for all bands.
    """
    native = Fields()
    read_band_tags(dataset, native, where)
    transform, native.crs = read_place(dataset)
    native.transform = transform
    if dataset.nodata is not None:
        native.nodata = _fields.number(dataset.nodata, np.dtype(dataset.dtypes[0]))
    hidden = {EXTRAS_TAG, "AREA_OR_POINT"}
    native.metadata |= {k: v for k, v in dataset.tags().items() if k not in hidden}
    scales, offsets = np.array(dataset.scales, float), np.array(dataset.offsets, float)
    shared = _fields.check_scales(scales, offsets)
    if shared is None:
        return native, (scales, offsets)
    native.scale_factor, native.add_offset = shared
    return native, None


def read_place(dataset: Any) -> tuple[list[float] | None, str | None]:
    """Transform and coordinate reference system; None where the file has none."""
    transform = [float(v) for v in tuple(dataset.transform)[:6]]
    placed = transform != [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return (transform if placed else None), (dataset.crs.to_wkt() if dataset.crs else None)
