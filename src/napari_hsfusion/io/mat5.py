"""MATLAB files of version 5 (and 4), through SciPy.

Arrays that are stored uncompressed are memory-mapped; SciPy loads the others
whole, when their first pixel is asked for.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import scipy.io

from ..errors import FormatError
from ._source import FileHandle, Key, RawSource, Source, chunks_for, lazy_array
from .mat import MatFile, Variable, broken, text_of
from .mat5_scan import scan

_NUMERIC = {"double": "f8", "single": "f4", "logical": "?"}
_NUMERIC |= {f"{u}int{8 * n}": f"{u[:1] or 'i'}{n}" for u in ("", "u") for n in (1, 2, 4, 8)}


class _Mat5Array:
    """A variable, loaded when a pixel of it is first asked for, then kept."""

    ndim = 3

    def __init__(self, handle: FileHandle, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        rows, columns = shape[:2]
        self.shape = (shape[2] if len(shape) == 3 else 1, rows, columns)
        self.dtype = np.dtype(dtype)
        self.handle, self.name = handle, name
        self._values: np.ndarray | None = None
        self._lock = threading.Lock()

    def __getitem__(self, key: Key) -> np.ndarray:
        with self._lock:
            if self._values is None:
                self._values = self._load()
        return self._values[key]

    def _load(self) -> np.ndarray:
        found = _load(self.handle, self.name)
        if np.iscomplexobj(found):
            raise FormatError(f"{self.handle.path}: {self.name} holds complex numbers")
        if found.ndim == 2:
            found = found[:, :, None]
        cube: np.ndarray[Any, Any] = found.transpose(2, 0, 1).astype(self.dtype, copy=False)
        if cube.shape != self.shape:
            raise FormatError(f"{self.handle.path}: {self.name} changed its shape to {cube.shape}")
        return cube

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("shape", "dtype", "handle", "name")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._values, self._lock = None, threading.Lock()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("mat5", self.handle, self.name)


def _read(handle: FileHandle, **options: Any) -> dict[str, Any]:
    try:
        with handle.reading() as file:
            found: dict[str, Any] = scipy.io.loadmat(file, **options)
            return found
    except FormatError:
        raise
    except Exception as error:  # SciPy's parser lets everything through that damage can cause
        raise broken(Path(handle.path), error) from error


def _load(handle: FileHandle, name: str) -> Any:
    top, *fields = name.split(".")
    found = _read(handle, variable_names=[top]).get(top)
    for field in fields:
        if not isinstance(found, np.ndarray) or found.dtype.names is None:
            raise FormatError(f"{handle.path}: {name} is no field of a structure")
        found = found[field].ravel()[0]
    return found


def _class_of(array: Any) -> str:
    if not isinstance(array, np.ndarray):
        return type(array).__name__
    if array.dtype.names is not None:
        return "struct"
    if array.dtype.kind in "USO":
        return "cell" if array.dtype.kind == "O" else "char"
    for kind, dtype in _NUMERIC.items():
        if array.dtype.newbyteorder("=") == np.dtype(dtype):
            return kind
    return str(array.dtype)


def open_mat5(path: Path) -> MatFile:
    """List the variables of a MATLAB 5 file.

    Raises
    ------
    FormatError
        If SciPy cannot read it.
    """
    handle = FileHandle(path)
    try:
        with handle.reading() as file:
            stored = scan(file, handle.size, path)
            file.seek(0)
            listed = scipy.io.whosmat(file)
    except FormatError:
        raise
    except Exception as error:  # SciPy's parser lets everything through that damage can cause
        raise broken(path, error) from error

    def variable(name: str, shape: tuple[int, ...], kind: str) -> Variable:
        dtype = np.dtype(_NUMERIC[kind]) if kind in _NUMERIC else None
        known = stored.get(name)
        if dtype is not None and known is not None and not known.logical:
            dtype = known.dtype.newbyteorder("=")
        if known is not None and known.imaginary:
            dtype, kind = None, f"complex {kind}"

        def load() -> Any:
            found = _load(handle, name)
            return text_of(found) if kind == "char" else found

        return Variable(name, tuple(int(n) for n in shape), dtype, kind, load)

    top = [variable(*entry) for entry in listed]

    def nested() -> list[Variable]:
        names = [v.name for v in top if v.kind == "struct"]
        found = _read(handle, variable_names=names) if names else {}
        out: list[Variable] = []

        def walk(array: Any, prefix: str) -> None:
            if array.size != 1:
                return
            for field in array.dtype.names:
                value = array[field].ravel()[0]
                kind = _class_of(value)
                name = f"{prefix}.{field}"
                if kind == "struct":
                    walk(value, name)
                elif isinstance(value, np.ndarray):
                    out.append(variable(name, value.shape, kind))

        for name in names:
            if name in found:
                walk(found[name], name)
        return out

    def lazy(chosen: Variable) -> da.Array:
        source: Source = _Mat5Array(handle, chosen.name, chosen.shape, chosen.dtype)
        known = stored.get(chosen.name)
        if known is not None and known.offset is not None and not known.logical:
            source = RawSource(handle, source.shape, known.dtype, "columns", known.offset)
        return lazy_array(source, chunks_for(source.shape, source.dtype.itemsize, "bsq"))

    return MatFile(top, nested, lazy)
