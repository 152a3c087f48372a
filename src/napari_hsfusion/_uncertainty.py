"""Where a fused cube carries its deviation: two coordinates, which every selection goes with.

================================  =================================================
coordinate ``deviation``          (band, y, x) standard deviation of every value, in
                                  its unit; NaN in bands that were left out
coordinate ``relative_deviation`` (y, x) root mean square of the deviation over the
                                  bands, relative to the cube's root mean square
================================  =================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from . import cube as cubes
from ._observe import as_image
from .errors import CubeError

CUBE, MAP = "deviation", "relative_deviation"
_OF_GROUND = ("crs", "transform", "history", "record")


def with_deviation(
    cube: xr.DataArray, deviation: npt.NDArray[np.floating], used: npt.NDArray[np.bool_]
) -> xr.DataArray:
    """Cube with the deviation of its used bands, and the map made of it.

    Parameters
    ----------
    cube : xarray.DataArray, shape (C, H, W)
    deviation : ndarray, shape (used, H, W)
        In the cube's unit; NaN where nothing is known.
    used : ndarray of bool, shape (C,)
    """
    values = np.full(cube.shape, np.nan, dtype=np.float32)
    values[used] = deviation
    # band by band: no third cube is held
    signal = np.mean([np.nanmean(np.square(band, dtype=np.float64)) for band in cube.data[used]])
    power = np.zeros(cube.shape[1:])
    for band in deviation:
        power += np.square(band, dtype=np.float64)
    relative = np.sqrt(power / len(deviation) / signal).astype(np.float32)
    return cube.assign_coords({CUBE: (cubes.DIMS, values), MAP: (cubes.DIMS[1:], relative)})


def deviation_cube(cube: Any) -> xr.DataArray:
    """Standard deviation of every value of a fused cube, as a cube.

    Parameters
    ----------
    cube : xarray.DataArray
        Fused with samples.

    Returns
    -------
    xarray.DataArray, shape (C, H, W), float32
        In the cube's unit; NaN where nothing is known, and in bands that the fusion left
        out. It shares its memory with the coordinate ``deviation``.

    Raises
    ------
    CubeError
        If the cube carries none.
    """
    known = _carrying(cube)
    bands = {
        key: known.coords[key].values.tolist()
        for key in ("wavelength", "fwhm", "good_band", "band_name")
        if key in known.coords
    }
    made = cubes.make_cube(known.coords[CUBE].data, name=_name(known, CUBE), **bands)
    return _on_ground(made, known).assign_coords(band=known.coords["band"].values)


def deviation_map(cube: Any) -> xr.DataArray:
    """Where a fused cube is uncertain: one image of its relative deviation.

    Parameters
    ----------
    cube : xarray.DataArray
        Fused with samples.

    Returns
    -------
    xarray.DataArray, shape (1, H, W), float32
        Root mean square of the deviation over the bands, relative to the root mean square
        of the whole cube: 0.01 is one per cent of the typical signal.

    Raises
    ------
    CubeError
        If the cube carries none.
    """
    known = _carrying(cube)
    made = cubes.make_cube(known.coords[MAP].data, name=_name(known, MAP.replace("_", " ")))
    return _on_ground(made, known)


def _carrying(cube: Any) -> xr.DataArray:
    known = as_image(cube, "cube")
    if not {CUBE, MAP} <= set(known.coords):
        raise CubeError(
            f"cube {str(known.name)!r}: expected one that was fused with samples, got one without "
            "a deviation; files do not keep it beside the cube"
        )
    return known


def _name(cube: xr.DataArray, what: str) -> str:
    return what if cube.name is None else f"{cube.name} {what}"


def _on_ground(made: xr.DataArray, known: xr.DataArray) -> xr.DataArray:
    made.attrs |= {key: known.attrs[key] for key in _OF_GROUND if key in known.attrs}
    made.attrs["nodata"] = float("nan")
    return made
