"""What a cube is: an :class:`xarray.DataArray` with dimensions (band, y, x).

There is no class of our own around it. The conventions, all optional but the
dimensions:

===================  =========================================================
coordinate ``band``        1-based band number
coordinate ``wavelength``  (band) band centre, nm, float64
coordinate ``fwhm``        (band) full width at half maximum, nm, float64
coordinate ``good_band``   (band) bool, False for bands marked as bad
coordinate ``band_name``   (band) str
attribute ``crs``          coordinate reference system as WKT, or absent
attribute ``transform``    (a, b, c, d, e, f): x = a col + b row + c,
                           y = d col + e row + f, of pixel *corners*
attribute ``nodata``       stored value that means "nothing was measured here"
attribute ``scale_factor``, ``add_offset``
                           physical = stored * scale_factor + add_offset
attribute ``history``      list of JSON-able dictionaries, oldest first
attribute ``observation``  JSON-able dictionary: responses and noise of a
                           simulated or calibrated image
attribute ``metadata``     other header fields, as strings or numbers
===================  =========================================================

Pixels keep the type they are stored in and may be lazy (dask);
:func:`to_physical` converts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .errors import CubeError

DIMS = ("band", "y", "x")


def make_cube(
    data: Any,
    *,
    wavelength: Iterable[float] | None = None,
    fwhm: Iterable[float] | None = None,
    good_band: Iterable[bool] | None = None,
    band_name: Iterable[str] | None = None,
    crs: str | None = None,
    transform: Sequence[float] | None = None,
    nodata: float | int | None = None,
    scale_factor: float = 1.0,
    add_offset: float = 0.0,
    history: Iterable[Mapping[str, Any]] = (),
    observation: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> xr.DataArray:
    """Build a cube from an array and what is known of it.

    Parameters
    ----------
    data : array_like, shape (band, y, x)
        NumPy or dask array of any real numeric type; a 2-D array is one band.
    wavelength, fwhm : iterable of float, optional
        Band centres and widths in nm, one a band.
    good_band : iterable of bool, optional
        False marks a bad band.
    band_name : iterable of str, optional
        One a band.
    crs : str, optional
        Coordinate reference system as WKT (or anything rasterio reads).
    transform : sequence of 6 float, optional
        Affine transform of pixel corners.
    nodata : number, optional
        Stored value that means "nothing was measured here".
    scale_factor, add_offset : float
        physical = stored * scale_factor + add_offset.
    history : iterable of dict
        What was done so far, oldest first.
    observation, metadata : dict, optional
        Responses and noise; other header fields.
    name : str, optional
        Name of the scene.

    Returns
    -------
    xarray.DataArray
        Dimensions (band, y, x).

    Raises
    ------
    CubeError
        If a shape, a length or a type does not fit.
    """
    if not hasattr(data, "ndim"):
        data = np.asarray(data)
    if data.ndim == 2:
        data = data[None]
    if data.ndim != 3:
        raise CubeError(f"a cube needs 3 dimensions (band, y, x), got shape {tuple(data.shape)}")
    bands = data.shape[0]
    coords: dict[str, Any] = {"band": np.arange(1, bands + 1)}
    for key, values, dtype in (
        ("wavelength", wavelength, np.float64),
        ("fwhm", fwhm, np.float64),
        ("good_band", good_band, np.bool_),
        ("band_name", band_name, np.str_),
    ):
        if values is None:
            continue
        array = np.asarray(list(values), dtype=dtype)
        if array.shape != (bands,):
            raise CubeError(f"{key}: expected {bands} values, one a band, got {array.size}")
        coords[key] = ("band", array)
    attrs: dict[str, Any] = {
        "scale_factor": float(scale_factor),
        "add_offset": float(add_offset),
        "history": [dict(h) for h in history],
    }
    if crs is not None:
        attrs["crs"] = str(crs)
    if transform is not None:
        values6 = tuple(float(v) for v in transform)[:6]
        if len(values6) != 6:
            raise CubeError(f"transform: expected 6 numbers, got {len(values6)}")
        attrs["transform"] = values6
    if nodata is not None:
        attrs["nodata"] = nodata
    if observation is not None:
        attrs["observation"] = dict(observation)
    if metadata:
        attrs["metadata"] = dict(metadata)
    cube = xr.DataArray(data, dims=DIMS, coords=coords, attrs=attrs, name=name)
    return check_cube(cube)


def check_cube(cube: xr.DataArray, what: str = "cube") -> xr.DataArray:
    """Return `cube` if it keeps this module's conventions.

    Raises
    ------
    CubeError
        Naming what was expected and what came.
    """
    if not isinstance(cube, xr.DataArray):
        raise CubeError(f"{what}: expected an xarray.DataArray, got {type(cube).__name__}")
    if cube.dims != DIMS:
        raise CubeError(f"{what}: expected dimensions {DIMS}, got {cube.dims}")
    if 0 in cube.shape:
        raise CubeError(f"{what}: empty, shape {cube.shape}")
    if cube.dtype.kind not in "iufb":
        raise CubeError(f"{what}: expected real numbers, got {cube.dtype}")
    for key in ("wavelength", "fwhm"):
        if key in cube.coords:
            values = np.asarray(cube.coords[key].values, dtype=float)
            if not np.isfinite(values).all() or (values <= 0).any():
                raise CubeError(f"{what}: {key} must be positive numbers of nm, got {values}")
    return cube


def as_cube(data: Any, what: str = "cube") -> xr.DataArray:
    """Take a cube, or an array of shape (band, y, x), and return a cube."""
    if isinstance(data, xr.DataArray):
        return check_cube(data, what)
    return make_cube(data)


def wavelengths(cube: xr.DataArray) -> np.ndarray | None:
    """Band centres in nm, float64 of shape (band,), or None."""
    if "wavelength" not in cube.coords:
        return None
    return np.asarray(cube.coords["wavelength"].values, dtype=np.float64)


def good_bands(cube: xr.DataArray) -> np.ndarray:
    """Boolean array (band,): True where the band is not marked as bad."""
    if "good_band" not in cube.coords:
        return np.ones(cube.sizes["band"], dtype=bool)
    return np.asarray(cube.coords["good_band"].values, dtype=bool)


def to_physical(cube: xr.DataArray, dtype: Any = np.float32) -> np.ndarray:
    """Physical values of a cube in memory, NaN where nothing was measured.

    Parameters
    ----------
    cube : xarray.DataArray
        Dimensions (band, y, x).
    dtype : floating dtype
        Type of the result.

    Returns
    -------
    numpy.ndarray, shape (band, y, x)
        stored * scale_factor + add_offset; NaN at no-data and non-finite values. In
        a cube of floats the no-data number counts as rounded to the stored type.
    """
    stored = np.asarray(cube.data)
    out = stored.astype(dtype)
    scale = cube.attrs.get("scale_factor", 1.0)
    offset = cube.attrs.get("add_offset", 0.0)
    if scale != 1.0:
        out *= scale
    if offset != 0.0:
        out += offset
    nodata = cube.attrs.get("nodata")
    if nodata is not None:
        out[stored_equals(stored, nodata)] = np.nan
    out[~np.isfinite(out)] = np.nan
    return out


def stored_equals(stored: np.ndarray, nodata: float | int) -> np.ndarray:
    """Where stored values are the no-data number.

    Parameters
    ----------
    stored : ndarray
        Real numbers of any type.
    nodata : number
        Rounded to the type of `stored` if that is a floating one; as it is with
        integers, where one that the type does not hold is found nowhere.

    Returns
    -------
    ndarray of bool, shape of `stored`
        False throughout for NaN.
    """
    number = np.asarray(nodata).item()
    if stored.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(stored == np.asarray(float(number)).astype(stored.dtype))
    if isinstance(number, float):
        if not number.is_integer():
            return np.zeros(stored.shape, dtype=bool)
        number = int(number)
    return np.asarray(stored == number)


def with_history(cube: xr.DataArray, **entry: Any) -> xr.DataArray:
    """Shallow copy of `cube` with one more history entry."""
    out = cube.copy(deep=False)
    out.attrs = {**cube.attrs, "history": [*cube.attrs.get("history", []), entry]}
    return out


def scaled_transform(transform: Sequence[float], ratio: float) -> tuple[float, ...]:
    """Affine transform of the same scene with pixels `ratio` times as large.

    The corner of the scene stays where it is (pixels are areas).
    """
    a, b, c, d, e, f = transform
    return (a * ratio, b * ratio, c, d * ratio, e * ratio, f)
