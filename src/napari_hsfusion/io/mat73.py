"""MATLAB files of version 7.3, which are HDF5, through h5py.

MATLAB stores arrays column by column: an array it shows as (y, x, band) is
(band, x, y) in the file.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np

from ..errors import FormatError
from ._source import FileHandle, Key, chunks_for, lazy_array
from .mat import MatFile, Variable, broken

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HIDDEN = {"#refs#", "#subsystem#"}


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, with MATLAB's block before it or without."""
    try:
        with path.open("rb") as file:
            start = file.read(520)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error}") from error
    return start[:8] == _SIGNATURE or start[512:] == _SIGNATURE


class _Mat73Array:
    """A dataset as (band, y, x); chunks are read as they are asked for."""

    ndim = 3

    def __init__(self, handle: FileHandle, dataset: h5py.Dataset, dtype: np.dtype[Any]) -> None:
        self.shape = _shape(dataset.shape)
        self.dtype = dtype
        self.handle, self.name = handle, dataset.name
        self._dataset: h5py.Dataset | None = dataset
        self._lock = threading.Lock()

    def __getitem__(self, key: Key) -> np.ndarray:
        with self._lock:
            if self._dataset is None:
                self.handle.check()
                self._dataset = _open(Path(self.handle.path))[self.name]
        bands, rows, columns = key
        try:
            if len(self._dataset.shape) == 2:
                found = self._dataset[columns, rows][None][bands]
            else:
                found = self._dataset[bands, columns, rows]
        except (OSError, ValueError) as error:
            raise broken(Path(self.handle.path), error) from error
        values: np.ndarray[Any, Any] = found.transpose(0, 2, 1).astype(self.dtype, copy=False)
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("shape", "dtype", "handle", "name")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._dataset, self._lock = None, threading.Lock()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("mat73", self.handle, self.name)


def _shape(stored: tuple[int, ...]) -> tuple[int, int, int]:
    if len(stored) == 2:
        return 1, stored[1], stored[0]
    return stored[0], stored[2], stored[1]


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise broken(path, error) from error


def _variable(name: str, item: Any) -> Variable:
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if not isinstance(item, h5py.Dataset):
        return Variable(name, (1, 1), None, kind or "struct", lambda: None)
    if "MATLAB_empty" in item.attrs or item.shape is None:
        return Variable(name, (0, 0), None, kind, lambda: None)
    dtype: np.dtype[Any] | None = item.dtype.newbyteorder("=")
    kind = kind or str(item.dtype)
    if kind == "logical":
        dtype = np.dtype(bool)
    elif kind in ("char", "cell", "string") or item.dtype.kind not in "iufb":
        dtype = None

    def load() -> Any:
        found = item[()]
        if kind == "char":
            return np.asarray(found, np.uint16).tobytes().decode("utf-16", "replace")
        return np.asarray(found).T

    return Variable(name, tuple(reversed(item.shape)), dtype, kind, load)


def open_mat73(path: Path) -> MatFile:
    """List the variables of a MATLAB 7.3 file.

    Raises
    ------
    FormatError
        If h5py cannot read it.
    """
    handle = FileHandle(path)
    file = _open(path)
    try:
        top = [_variable(name, item) for name, item in file.items() if name not in _HIDDEN]
    except (OSError, KeyError, RuntimeError) as error:
        raise broken(path, error) from error

    def nested() -> list[Variable]:
        out: list[Variable] = []

        def visit(name: str, item: Any) -> None:
            parts = name.split("/")
            if parts[0] not in _HIDDEN and len(parts) > 1 and isinstance(item, h5py.Dataset):
                out.append(_variable(".".join(parts), item))

        file.visititems(visit)
        return out

    def lazy(chosen: Variable) -> da.Array:
        dataset = file[chosen.name.replace(".", "/")]
        assert chosen.dtype is not None
        source = _Mat73Array(handle, dataset, chosen.dtype)
        stored = dataset.chunks or (1,) * dataset.ndim
        step = (1, stored[-1]) if dataset.ndim == 2 else (stored[0], stored[2])
        # chunks that hold most bands are read a few rows at a time
        order = "bip" if 2 * step[0] > source.shape[0] > 1 else "bsq"
        chunks = chunks_for(source.shape, source.dtype.itemsize, order, step=step)
        return lazy_array(source, chunks)

    return MatFile(top, nested, lazy)
