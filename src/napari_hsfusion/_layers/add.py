"""Add a cube to a viewer by one call, as a script does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from .._uncertainty import deviation_cube, deviation_map
from ..cube import check_cube
from .back import placement_of
from .show import band_layer, cube_layers

if TYPE_CHECKING:
    from napari.layers import Image, Layer


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


def add_deviation(viewer: Any, cube: xr.DataArray, layer: Image) -> list[Layer]:
    """Add the deviation of a fused cube and its map, where the cube's own layer lies.

    They are not shown until they are asked for.

    Parameters
    ----------
    viewer : napari.Viewer
    cube : xarray.DataArray
        Fused with samples.
    layer : napari.layers.Image
        That shows it.

    Returns
    -------
    list of napari.layers.Layer
        The map, and above it the deviation (band, y, x).

    Raises
    ------
    CubeError
        If the cube carries no deviation.
    """
    place = placement_of(layer)
    (image,) = cube_layers(deviation_map(cube), f"{layer.name} (relative deviation)", place)
    bands = band_layer(deviation_cube(cube), f"{layer.name} (deviation)", place)
    return [viewer.add_image(data, visible=False, **words) for data, words, _ in (image, bands)]
