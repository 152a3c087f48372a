"""Open MATLAB files: version 5 through SciPy, version 7.3 through h5py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import FormatError, VariableError
from . import _fields
from ._fields import Fields
from ._units import to_nanometres

logger = logging.getLogger(__name__)

EXTRAS_NAME = "hsfusion"
CUBE_NAME = "cube"
_ALIASES = {
    "wavelength": "wavelength wavelengths wavelength_nm wavelengths_nm wl wls wvl wvls wave waves "
    "lambda lambdas centers centres band_centers band_centres",
    "fwhm": "fwhm fwhms bandwidth bandwidths band_widths",
    "good_band": "bbl good_band good_bands goodbands",
    "units": "wavelength_units wavelength_unit wavelengths_units wl_units units_wavelength",
}
_KEYS = {alias: key for key, aliases in _ALIASES.items() for alias in aliases.split()}


@dataclass(frozen=True)
class Variable:
    """A numeric array, or a text, somewhere in a MATLAB file.

    Attributes
    ----------
    name : str
        With dots between a structure and its fields.
    shape : tuple of int
        As MATLAB shows it.
    dtype : numpy.dtype or None
        None for anything but real numbers and logicals.
    kind : str
        MATLAB's name of the class.
    load : callable
        Returns the array as MATLAB shows it (text as str).
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    kind: str
    load: Callable[[], Any]

    def __str__(self) -> str:
        return f"{self.name} ({' x '.join(map(str, self.shape))} {self.kind})"


@dataclass(frozen=True)
class MatFile:
    """Either version's file: its variables, and how to read one lazily.

    Attributes
    ----------
    top, nested : list of Variable, or a function that lists them
        Variables of the file, and fields of its structures.
    lazy : callable
        Dask array of shape (band, y, x) over a variable.
    """

    top: list[Variable]
    nested: Callable[[], list[Variable]]
    lazy: Callable[[Variable], Any]


def open_mat(path: Path, variable: str | None = None) -> xr.DataArray:
    """Open a MATLAB file; of a version 7.3 file no pixel is read.

    Parameters
    ----------
    path : Path
    variable : str, optional
        Name of the array; ``structure.field`` leads into a structure. Needed
        where the file holds several arrays of three dimensions.

    Returns
    -------
    xarray.DataArray
        A cube. MATLAB's axes are taken as (y, x, band). A two-dimensional
        array, if named, is one band.

    Raises
    ------
    VariableError
        Listing what the file holds, if no variable, or a missing one, or one
        that is no real numeric array was named and it is needed.
    FormatError
        If the file cannot be read.
    """
    file = _open(path)
    chosen = _choose(file, variable, path)
    pixels = file.lazy(chosen)
    prefix = chosen.name.rpartition(".")[0]
    beside = file.nested() if prefix else file.top
    companions = {
        v.name.rpartition(".")[2]: v for v in beside if v.name.rpartition(".")[0] == prefix
    }
    extras: Mapping[str, Any] = {}
    if EXTRAS_NAME in companions and chosen.name == CUBE_NAME:
        extras = _fields.loads(str(companions[EXTRAS_NAME].load()), path)
    native = read_companions(companions, pixels.shape[0], pixels.dtype, bool(extras), path)
    cube = _fields.build(pixels, native, extras, path.stem)
    cube.encoding["variable"] = chosen.name
    return cube


def numeric_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of real numbers at the top of a MATLAB file, as MATLAB shows them.

    For files of small tables: everything is read into memory.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FormatError
        If the file cannot be read.
    """
    try:
        return {v.name: np.asarray(v.load()) for v in _open(path).top if v.dtype is not None}
    except (OSError, RuntimeError) as error:
        raise broken(path, error) from error


def _open(path: Path) -> MatFile:
    from .mat5 import open_mat5
    from .mat73 import is_hdf5, open_mat73

    return open_mat73(path) if is_hdf5(path) else open_mat5(path)


def _choose(file: MatFile, variable: str | None, path: Path) -> Variable:
    if variable is not None:
        known = file.top + (file.nested() if "." in variable else [])
        for found in known:
            if found.name != variable:
                continue
            if found.dtype is None or len(found.shape) not in (2, 3) or 0 in found.shape:
                raise VariableError(
                    f"{path}: {found} is no array of real numbers with 2 or 3 dimensions",
                    [str(v) for v in known],
                )
            return found
        known = file.top + file.nested()
        raise VariableError(
            f"{path}: no variable '{variable}'; the file holds {_list(known)}",
            [str(v) for v in known],
        )
    candidates = [v for v in file.top if _is_cube(v)]
    own = [v for v in candidates if v.name == CUBE_NAME]
    if own and any(v.name == EXTRAS_NAME for v in file.top):
        candidates = own
    everything = file.top
    if not candidates:
        everything = file.top + file.nested()
        candidates = [v for v in everything if _is_cube(v)]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise VariableError(
            f"{path}: no variable with 3 dimensions of real numbers; the file holds "
            f"{_list(everything)}; name a matrix to open it as one band",
            [str(v) for v in everything],
        )
    raise VariableError(
        f"{path}: several variables may be the cube: {_list(candidates)}; "
        f"name one, for instance variable='{candidates[0].name}'; the file holds "
        f"{_list(everything)}",
        [str(v) for v in everything],
    )


def _is_cube(variable: Variable) -> bool:
    return variable.dtype is not None and len(variable.shape) == 3 and 0 not in variable.shape


def _list(variables: Iterable[Variable]) -> str:
    return ", ".join(map(str, variables)) or "nothing"


def read_companions(
    variables: Mapping[str, Variable],
    bands: int,
    dtype: np.dtype[Any],
    own: bool,
    where: object,
) -> Fields:
    """Fields of a cube from the small variables beside it.

    Parameters
    ----------
    variables : mapping of str to Variable
    bands : int
    dtype : numpy.dtype
        Of the pixels.
    own : bool
        Whether this package wrote the file: then ``crs``, ``transform``,
        ``nodata``, ``scale_factor`` and ``add_offset`` mean what they say.
    where : object
        Named in messages.
    """
    native = Fields()
    lists: dict[str, list[Any]] = {}
    unit: str | None = None
    for name, found in variables.items():
        key = _KEYS.get(name.lower())
        if key == "units" and found.kind == "char":
            unit = str(found.load())
        elif key in ("wavelength", "fwhm", "good_band") and _is_list(found, bands):
            lists.setdefault(key, np.asarray(found.load()).ravel().tolist())
            unit = unit or ("nm" if name.lower().endswith("_nm") else None)
    if own:
        unit = "nm"
    wavelength, fwhm = to_nanometres(lists.get("wavelength"), lists.get("fwhm"), unit, bands, where)
    native.wavelength = None if wavelength is None else wavelength.tolist()
    native.fwhm = None if fwhm is None else fwhm.tolist()
    native.good_band = _fields.flags(lists.get("good_band"), bands, where)
    if not own:
        return native

    def numbers(name: str, count: int) -> list[float] | None:
        found = variables.get(name)
        if found is None or found.dtype is None or int(np.prod(found.shape)) != count:
            return None
        return [float(v) for v in np.asarray(found.load()).ravel()]

    native.transform = numbers("transform", 6)
    nodata = numbers("nodata", 1)
    native.nodata = _fields.number(nodata[0], dtype) if nodata else None
    native.scale_factor = (numbers("scale_factor", 1) or [1.0])[0]
    native.add_offset = (numbers("add_offset", 1) or [0.0])[0]
    crs = variables.get("crs")
    if crs is not None and crs.kind == "char":
        native.crs = str(crs.load()) or None
    return native


def _is_list(variable: Variable, bands: int) -> bool:
    shape = variable.shape
    return (
        variable.dtype is not None
        and int(np.prod(shape)) == bands
        and sum(n != 1 for n in shape) <= 1
    )


def text_of(array: Any) -> str:
    """Text of a MATLAB character array, its rows joined."""
    return "".join(str(v) for v in np.asarray(array).ravel())


def broken(path: Path, error: Exception) -> FormatError:
    """Error that says a MATLAB file could not be read."""
    return FormatError(f"{path}: cannot be read as MATLAB file: {error}")
