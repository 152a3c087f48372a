"""What lazy cubes read from: array-like views of files, and their dask arrays.

A view holds its file open, so that it still reads the old pixels after the file
was replaced by a newer one (as :func:`napari_hsfusion.io.save_cube` does). A
view that was sent to another process opens the file again there, and refuses if
it is no longer the same.
"""

from __future__ import annotations

import gzip
import mmap
import os
import tempfile
import threading
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import dask.array as da
import numpy as np
from dask.base import tokenize

from ..cube import stored_equals
from ..errors import FormatError, TruncatedFileError

Key = tuple[slice, slice, slice]

# Windows does not replace a file that is open: there, each read opens it anew
_KEEP_OPEN = os.name != "nt"
_SMALL = 1 << 18
_LARGE = 1 << 24


class Source(Protocol):
    """An array-like of shape (band, y, x) that dask can slice."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    ndim: int

    def __getitem__(self, key: Key) -> np.ndarray: ...


class FileHandle:
    """A file that was opened for reading and is recognised when opened again.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FormatError
        If the file cannot be opened, or has changed since it was first opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = os.path.abspath(path)
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error}") from error
        self.size = found.st_size
        self._modified = found.st_mtime_ns
        if _KEEP_OPEN:
            self.descriptor()

    def check(self) -> None:
        """Raise FormatError if the path no longer leads to the same file."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise FormatError(f"{self.path}: cannot be read: {error}") from error
        if (found.st_size, found.st_mtime_ns) != (self.size, self._modified):
            raise FormatError(f"{self.path}: has changed since it was opened; open it again")

    def descriptor(self) -> int:
        """File descriptor to read from; it belongs to this object."""
        with self._lock:
            if self._descriptor is None:
                self.check()
                try:
                    self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
                except OSError as error:
                    raise FormatError(f"{self.path}: cannot be read: {error}") from error
                weakref.finalize(self, os.close, self._descriptor)
            return self._descriptor

    @contextmanager
    def reading(self) -> Iterator[BinaryIO]:
        """File object at the start of the file; one user at a time."""
        with self._reading:
            if not _KEEP_OPEN:
                self.check()
                with open(self.path, "rb") as file:
                    yield file
                return
            # a duplicate shares its position with the original: hence the lock
            with os.fdopen(os.dup(self.descriptor()), "rb") as file:
                file.seek(0)
                yield file

    def map(self, needed: int) -> mmap.mmap:
        """Memory map of the whole file, which must hold `needed` bytes."""
        if _KEEP_OPEN:
            descriptor = self.descriptor()
            return self._map(descriptor, needed)
        self.check()
        with open(self.path, "rb") as file:
            return self._map(file.fileno(), needed)

    def _map(self, descriptor: int, needed: int) -> mmap.mmap:
        # a map beyond the end of a file kills the process when it is read
        size = os.fstat(descriptor).st_size
        if size < needed:
            raise TruncatedFileError(self.path, needed, size)
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "size": self.size, "_modified": self._modified}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._descriptor = None
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return (type(self).__name__, self.path, self.size, self._modified)


class GzipHandle(FileHandle):
    """A gzip-compressed file, decompressed when it is first read.

    The pixels go to a temporary file, piece by piece; it has no name where the
    system allows that, and is gone when this object is.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._plain: Any = None
        self._plain_lock = threading.Lock()

    def map(self, needed: int) -> mmap.mmap:
        """Memory map of the decompressed file, which must hold `needed` bytes."""
        with self._plain_lock:
            if self._plain is None:
                self._plain = self._decompress(needed)
            return self._map(self._plain.fileno(), needed)

    def _decompress(self, needed: int) -> Any:
        plain = tempfile.TemporaryFile(prefix="hsfusion-")  # noqa: SIM115 - closed with this object
        weakref.finalize(self, plain.close)
        written = 0
        try:
            with self.reading() as raw, gzip.GzipFile(fileobj=raw) as packed:
                while written < needed and (piece := packed.read(1 << 20)):
                    plain.write(piece)
                    written += len(piece)
        except EOFError as error:
            raise TruncatedFileError(self.path, needed, written) from error
        except (OSError, zlib.error) as error:
            raise FormatError(f"{self.path}: cannot be decompressed: {error}") from error
        plain.flush()
        return plain

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plain = None
        self._plain_lock = threading.Lock()


class RawSource:
    """Uncompressed pixels somewhere in a file.

    Parameters
    ----------
    handle : FileHandle
    shape : (band, y, x)
    dtype : numpy.dtype
        As stored, byte order included; reads give native byte order.
    interleave : {'bsq', 'bil', 'bip', 'columns'}
        ``columns`` is bsq with each band stored column by column, as MATLAB does.
    offset : int
        Bytes before the first pixel.

    Attributes
    ----------
    reads : str
        What it can read without anything around it: single pixels.
    """

    ndim = 3
    reads = "pixels"

    def __init__(
        self,
        handle: FileHandle,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        interleave: str,
        offset: int,
    ) -> None:
        self.handle, self.shape, self.stored = handle, shape, dtype
        self.dtype = dtype.newbyteorder("=")
        self.interleave, self.offset = interleave, offset
        self.needed = offset + int(np.prod(shape, dtype=object)) * dtype.itemsize

    def __getitem__(self, key: Key) -> np.ndarray:
        bands, rows, columns = self.shape
        order, axes = {
            "bsq": ((bands, rows, columns), (0, 1, 2)),
            "bil": ((rows, bands, columns), (1, 0, 2)),
            "bip": ((rows, columns, bands), (2, 0, 1)),
            "columns": ((bands, columns, rows), (0, 2, 1)),
        }[self.interleave]
        pixels = self.handle.map(self.needed)
        if self.interleave == "bil" and hasattr(pixels, "madvise"):
            # lines of one band lie far apart: what follows each is not wanted
            pixels.madvise(mmap.MADV_RANDOM)
        stored = np.ndarray(order, self.stored, pixels, self.offset)
        # a copy in the file's own order: quick, and the map is released
        return np.array(stored.transpose(axes)[key], dtype=self.dtype, order="K")

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        handle = self.handle.__dask_tokenize__()
        return (*handle, self.shape, self.stored.str, self.interleave, self.offset)


def chunks_for(
    shape: tuple[int, int, int],
    itemsize: int,
    interleave: str,
    *,
    step: tuple[int, int] = (1, 1),
) -> tuple[int, int, int]:
    """Chunk sizes (band, y, x) that follow a file's order.

    One band a chunk where bands lie apart (several if they are tiny), all bands
    of a few rows where they lie side by side.

    Parameters
    ----------
    shape : (band, y, x)
    itemsize : int
    interleave : {'bsq', 'bil', 'bip'}
    step : (band, y)
        Bands and rows that can only be read together.
    """
    bands, rows, columns = shape
    line = max(1, columns * itemsize)
    if interleave == "bip":
        per = max(step[1], _LARGE // (line * bands) // step[1] * step[1])
        return bands, min(rows, per), columns
    many = max(step[0], _SMALL // (line * rows) // step[0] * step[0])
    if interleave == "bil":  # a band's line shorter than a page brings its neighbours along
        many = max(many, 4096 // line)
    many = min(bands, many)
    per = max(step[1], 2 * _LARGE // (line * many) // step[1] * step[1])
    return many, min(rows, per), columns


def lazy_array(source: Source, chunks: tuple[int, int, int]) -> da.Array:
    """Dask array over `source`; nothing is read."""
    array: da.Array = da.from_array(  # type: ignore[no-untyped-call]
        source,
        chunks=chunks,
        name=f"hsfusion-{tokenize(source, chunks)}",
        lock=False,
        asarray=True,
        fancy=False,
        meta=np.empty((0, 0, 0), source.dtype),
    )
    return array


def per_band_physical(
    data: da.Array, scales: np.ndarray, offsets: np.ndarray, nodata: float | None
) -> da.Array:
    """Lazy floats stored * scale + offset of bands that do not share one scale.

    Parameters
    ----------
    data : dask.array.Array, shape (band, y, x)
    scales, offsets : numpy.ndarray, shape (band,)
    nodata : float or None
        Becomes NaN.
    """
    kind = np.result_type(data.dtype, np.float32)
    floats: da.Array = data.astype(kind)  # type: ignore[no-untyped-call]
    out: da.Array = floats * scales.astype(kind)[:, None, None]
    out = out + offsets.astype(kind)[:, None, None]
    if nodata is not None:
        empty = da.map_blocks(stored_equals, data, nodata, dtype=np.bool_)  # type: ignore[no-untyped-call]
        out = da.where(empty, kind.type(np.nan), out)
    return out
