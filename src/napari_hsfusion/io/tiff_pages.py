"""TIFF files whose bands are pages, OME-TIFF and ImageJ stacks, through tifffile."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import tifffile
import xarray as xr
from rasterio.errors import RasterioError

from ..errors import FormatError
from . import _fields
from ._fields import Fields
from ._gdal import quiet
from ._source import FileHandle, Key, RawSource, Source, chunks_for, lazy_array
from ._units import to_nanometres
from .tiff import read_place
from .tiff_tags import EXTRAS_TAG

logger = logging.getLogger(__name__)

_LISTS = {"wavelength": "wavelength", "wavelengths": "wavelength", "wl": "wavelength"}
_LISTS |= {"fwhm": "fwhm", "bandwidth": "fwhm", "bbl": "good_band", "good_band": "good_band"}


def has_pages(tif: tifffile.TiffFile) -> bool:
    """Whether the bands are in several pages, which GDAL would show one by one."""
    if tif.is_imagej and len(tif.series) > 0 and len(tif.series[0].shape) > 2:
        return True
    whole = [page for page in tif.pages if not _minor(page)]
    return len(whole) > 1


def _minor(page: Any) -> bool:
    """Overviews and masks."""
    kind = int(getattr(page, "subfiletype", 0) or 0)
    return bool(kind & 0b101)


def _series(tif: tifffile.TiffFile, path: Path) -> Any:
    found = [s for s in tif.series if not _minor(s.keyframe)]
    if not found:
        raise FormatError(f"{path}: a TIFF file without an image")
    largest = max(int(np.prod(s.shape)) for s in found)
    best = [s for s in found if int(np.prod(s.shape)) == largest]
    if len(best) > 1:
        listed = ", ".join(f"{s.name or i} {s.shape} {s.dtype}" for i, s in enumerate(found))
        raise FormatError(f"{path}: several images of the same size, expected one: {listed}")
    return best[0]


class PageSource:
    """Bands that are pages; a page is decoded whole."""

    ndim = 3

    def __init__(
        self, handle: FileHandle, tif: tifffile.TiffFile, series: Any, shape: tuple[int, int, int]
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(series.dtype).newbyteorder("=")
        self.handle = handle
        self._pages: Any = series.pages
        self._lock = threading.Lock()
        weakref.finalize(self, tif.close)

    def __getitem__(self, key: Key) -> np.ndarray:
        bands, rows, columns = key
        out = [self._page(b)[rows, columns] for b in range(*bands.indices(self.shape[0]))]
        if not out:
            return np.empty((0, 0, 0), self.dtype)
        return np.stack(out).astype(self.dtype, copy=False)

    def _page(self, band: int) -> np.ndarray:
        with self._lock:
            if self._pages is None:
                self.handle.check()
                tif = tifffile.TiffFile(self.handle.path)
                weakref.finalize(self, tif.close)
                self._pages = _series(tif, Path(self.handle.path)).pages
            page = self._pages[band]
            if page is None:  # a page that was never written
                return np.zeros(self.shape[1:], self.dtype)
            try:
                found = page.asarray(maxworkers=1)
            except Exception as error:  # the codecs' own errors
                raise FormatError(
                    f"{self.handle.path}: page {band + 1} cannot be decoded: {error}"
                ) from error
        values: np.ndarray[Any, Any] = np.asarray(found).reshape(self.shape[1:])
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("shape", "dtype", "handle")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pages, self._lock = None, threading.Lock()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("pages", self.handle, self.shape)


def open_pages(tif: tifffile.TiffFile, handle: FileHandle, path: Path) -> xr.DataArray:
    """Open a multi-page TIFF; `tif` stays open as long as the cube needs it.

    Raises
    ------
    FormatError
        If the pages do not form one cube of real numbers.
    """
    try:
        series = _series(tif, path)
        source, chunks = _source(tif, handle, series, path)
    except BaseException:
        tif.close()
        raise
    native, extras = _read_fields(tif, source, path)
    if isinstance(source, RawSource):
        tif.close()
    return _fields.build(lazy_array(source, chunks), native, extras, path.stem)


def _source(
    tif: tifffile.TiffFile, handle: FileHandle, series: Any, path: Path
) -> tuple[Source, tuple[int, int, int]]:
    dtype = np.dtype(series.dtype)
    if dtype.kind not in "iufb":
        raise FormatError(f"{path}: pixels of type {dtype}; a cube holds real numbers")
    kept = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True)]
    others = [(axis, n) for axis, n in kept if axis not in "YX" and n > 1]
    sizes = dict(kept)
    if "Y" not in sizes or "X" not in sizes or len(others) > 1:
        raise FormatError(
            f"{path}: axes {series.axes} of shape {series.shape}; expected rows, columns and "
            "one axis of bands"
        )
    axis, bands = others[0] if others else ("", 1)
    shape = (bands, sizes["Y"], sizes["X"])
    order = series.axes.replace("Y", "y").replace("X", "x")
    last = bool(axis) and order.index(axis) > order.index("x")
    interleave = "bip" if last else "bsq"
    if order.index("y") > order.index("x"):
        raise FormatError(f"{path}: axes {series.axes}; expected rows before columns")
    if series.dataoffset is not None and dtype.kind != "b":
        stored = dtype.newbyteorder(tif.byteorder)
        raw = RawSource(handle, shape, stored, interleave, int(series.dataoffset))
        return raw, chunks_for(shape, dtype.itemsize, interleave)
    if last or len(series.pages) != bands:
        raise FormatError(
            f"{path}: {len(series.pages)} pages with axes {series.axes} of shape "
            f"{series.shape}; expected one band a page"
        )
    paged = PageSource(handle, tif, series, shape)
    return paged, (1, shape[1], shape[2])


def _read_fields(
    tif: tifffile.TiffFile, source: Source, path: Path
) -> tuple[Fields, dict[str, Any]]:
    native, extras = Fields(), {}
    bands = source.shape[0]
    with contextlib.suppress(RasterioError), quiet(), rasterio.open(path, driver="GTiff") as first:
        native.transform, native.crs = read_place(first)
        if first.nodata is not None:
            native.nodata = _fields.number(first.nodata, source.dtype)
        extras = _fields.loads(first.tags().get(EXTRAS_TAG), path)
    stated: dict[str, Any] = {}
    if tif.is_ome and tif.ome_metadata:
        stated |= _ome(tif.ome_metadata, bands)
    for found in [*(tif.shaped_metadata or ()), tif.imagej_metadata or {}]:
        stated |= _lists(found)
    wavelength, fwhm = to_nanometres(
        stated.get("wavelength"), stated.get("fwhm"), stated.get("units"), bands, path
    )
    native.wavelength = None if wavelength is None else wavelength.tolist()
    native.fwhm = None if fwhm is None else fwhm.tolist()
    native.good_band = _fields.flags(stated.get("good_band"), bands, path)
    names = stated.get("names")
    if names and len(names) == bands:
        native.band_name = [str(n) for n in names]
    return native, extras


def _lists(found: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in found.items():
        name = str(key).lower()
        if name in _LISTS and isinstance(value, list | tuple | np.ndarray):
            out[_LISTS[name]] = list(value)
        elif name in ("wavelength_units", "wavelength_unit"):
            out["units"] = str(value)
        elif name == "labels" and isinstance(value, list | tuple):
            out["names"] = list(value)
    return out


def _ome(text: str, bands: int) -> dict[str, Any]:
    """Emission wavelengths and names of the channels of an OME-TIFF."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        logger.warning("OME metadata ignored: %s", error)
        return {}
    channels = [e for e in root.iter() if e.tag.rpartition("}")[2] == "Channel"][:bands]
    out: dict[str, Any] = {}
    waves = [c.get("EmissionWavelength") for c in channels]
    if len(waves) == bands and None not in waves:
        units = {c.get("EmissionWavelengthUnit", "nm") for c in channels}
        if len(units) == 1:
            out |= {"wavelength": waves, "units": units.pop()}
    names = [c.get("Name") for c in channels]
    if len(names) == bands and None not in names:
        out["names"] = names
    return out
