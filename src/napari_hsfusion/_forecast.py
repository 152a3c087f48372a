"""What a simulation is asked for, checked before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from . import cube as cubes
from ._grid import Bools
from ._numbers import whole_number
from ._observe import as_image
from ._responses import cube_response, restrict_response
from .errors import PairError, ParameterError
from .sensors.psf import parse_psf
from .sensors.srf import Response


@dataclass(frozen=True)
class Forecast:
    """What :func:`napari_hsfusion.api.simulate` will make.

    Attributes
    ----------
    lr_hsi, hr_msi : (int, int, int)
        Shapes (band, y, x).
    response : Response
        Spectral response (c, C) that will be used.
    """

    lr_hsi: tuple[int, int, int]
    hr_msi: tuple[int, int, int]
    response: Response


def forecast(
    cube: Any, scale: int = 4, psf: Any = "bicubic", srf: Any = None, *, crop: bool = False
) -> Forecast:
    """Check what :func:`napari_hsfusion.api.simulate` is asked for, without reading a pixel.

    Parameters
    ----------
    cube, scale, psf, srf, crop
        As :func:`napari_hsfusion.api.simulate` takes them.

    Returns
    -------
    Forecast

    Raises
    ------
    PairError, ResponseError, ParameterError
        As :func:`napari_hsfusion.api.simulate` raises them.
    """
    scale = whole_number(scale, "scale", 1)
    reference = fitted_cube(as_image(cube, "reference"), scale, crop)
    rows, columns = pixels(reference)
    response = restricted(given_response(srf, reference), cubes.good_bands(reference))
    parse_psf(psf, image_shape=(rows, columns))
    low = (int(reference.sizes["band"]), rows // scale, columns // scale)
    return Forecast(low, (len(response.matrix), rows, columns), response)


def fitting_size(rows: int, columns: int, scale: int) -> tuple[int, int]:
    """Largest size (rows, columns) within an image's that is a multiple of `scale`."""
    return rows - rows % scale, columns - columns % scale


def given_response(srf: Any, reference: xr.DataArray) -> Response:
    """Spectral response on the reference's bands, all of them.

    Raises
    ------
    ParameterError
        If none is given.
    ResponseError, PairError
        If it is unknown or malformed, or does not fit the bands.
    """
    if srf is None:
        raise ParameterError("srf: expected a sensor's name, a CSV file or a matrix, got none")
    return cube_response(srf, reference, "reference")


def restricted(response: Response, good: Bools) -> Response:
    """Response without weight on bands that are not good; every row keeps its sum."""
    return replace(response, matrix=restrict_response(response.matrix, good))


def pixels(cube: xr.DataArray) -> tuple[int, int]:
    """Rows and columns of a cube."""
    return int(cube.sizes["y"]), int(cube.sizes["x"])


def fitted_cube(cube: xr.DataArray, scale: int, crop: bool) -> xr.DataArray:
    """Give the cube, or its top left part whose size is a multiple of `scale`.

    Raises
    ------
    PairError
        If it would have to be cropped and `crop` is False, or nothing would be left.
    """
    _, rows, columns = cube.shape
    if rows % scale == 0 and columns % scale == 0:
        return cube
    fit = fitting_size(rows, columns, scale)
    if 0 in fit:
        raise PairError(f"the reference has {rows} x {columns} pixels: too small for scale {scale}")
    if not crop:
        raise PairError(
            f"the reference has {rows} x {columns} pixels, no multiple of the scale {scale}; "
            f"crop it to {fit[0]} x {fit[1]} (crop=True, --crop)"
        )
    return cube.isel(y=slice(0, fit[0]), x=slice(0, fit[1]))
