"""Add a cube to a viewer by one call, as a script does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from ..cube import check_cube
from .show import cube_layers

if TYPE_CHECKING:
    from napari.layers import Layer


def add_cube(viewer: Any, cube: xr.DataArray, name: str | None = None) -> list[Layer]:
    """Show a cube in a napari viewer, as opening its file would.

    Parameters
    ----------
    viewer : napari.Viewer
    cube : xarray.DataArray
    name : str, optional
        Of the layers; by default the cube's own.

    Returns
    -------
    list of napari.layers.Layer
        The lowest first: a colour composite, and above it, of a hyperspectral cube, the
        layer (band, y, x); a grey image of a single band.

    Raises
    ------
    CubeError
        If it is no cube.
    """
    return [
        viewer.add_image(data, **words)
        for data, words, _ in cube_layers(check_cube(cube, "cube to show"), name)
    ]
