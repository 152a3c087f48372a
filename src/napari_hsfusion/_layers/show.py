"""From cubes to layer data tuples."""

from __future__ import annotations

from typing import Any

import xarray as xr

from .. import cube as cubes
from .pictures import composite_picture, overview_steps, sampled_limits
from .placement import Placement, placement

LayerData = tuple[Any, dict[str, Any], str]

KEY = "hsfusion"
"""Entry of a layer's metadata that belongs to this plugin."""

MSI_BANDS = 16
"""A cube of at most so many bands is shown as a colour composite alone."""


def band_layer(
    cube: xr.DataArray, name: str | None = None, place: Placement | None = None
) -> LayerData:
    """Layer (band, y, x) of a cube's stored values, lazy where the cube is.

    Parameters
    ----------
    cube : xarray.DataArray
    name : str, optional
    place : Placement, optional
        By default :func:`placement`.
    """
    where = placement(cube) if place is None else place
    words = {
        "name": name or _name(cube),
        "contrast_limits": sampled_limits(cube),
        "colormap": "gray",
        "metadata": metadata(cube, "cube", where),
        **where.keywords(3),
    }
    return cube.data, words, "image"


def composite_layer(
    cube: xr.DataArray, name: str | None = None, place: Placement | None = None
) -> LayerData:
    """Colour composite (y, x, RGBA) of a cube; its metadata holds the whole cube.

    The bands are those of :func:`napari_hsfusion.figures.composite_bands`; pixels
    without a value are transparent. Of an image with a side of more than 4096 pixels
    it is an overview of some of the rows and columns: its pixels are larger, lie over
    the same ground, and its name says so.
    """
    where = placement(cube) if place is None else place
    steps = overview_steps(cube)
    picture, bands = composite_picture(cube, steps=steps)
    meta = metadata(cube, "composite", where)
    meta[KEY]["bands"] = bands
    meta[KEY]["steps"] = steps
    title = name or f"{_name(cube)} (composite)"
    if steps != (1, 1):
        title = f"{title} (overview)"
        where = where.of_pixels((float(steps[0]), float(steps[1])))
    words = {"name": title, "rgb": True, "metadata": meta, **where.keywords(2)}
    return picture, words, "image"


def cube_layers(
    cube: xr.DataArray, name: str | None = None, place: Placement | None = None
) -> list[LayerData]:
    """Layers that opening a cube gives, the lowest first.

    A composite alone for a multispectral image, a grey image for a single band, a
    composite under the (band, y, x) layer for a hyperspectral cube.
    """
    name = name or _name(cube)
    where = placement(cube) if place is None else place
    count = cube.sizes["band"]
    if count == 1:
        words = {
            "name": name,
            "contrast_limits": sampled_limits(cube),
            "metadata": metadata(cube, "grey", where),
            **where.keywords(2),
        }
        return [(cube.data[0], words, "image")]
    if not cubes.good_bands(cube).any():
        return [band_layer(cube, name, where)]
    if count <= MSI_BANDS:
        return [composite_layer(cube, name, where)]
    return [composite_layer(cube, f"{name} (composite)", where), band_layer(cube, name, where)]


def metadata(cube: xr.DataArray, kind: str, place: Placement) -> dict[str, Any]:
    """Metadata of a layer that shows a cube.

    ``metadata["hsfusion"]`` holds ``cube``, ``kind`` (``cube``, ``composite``,
    ``grey``), ``origin`` of the placement and ``crs``; of a composite also the
    ``bands`` it shows and the ``steps`` between its rows and columns.
    ``wavelengths_nm`` is there for everybody.
    """
    entry = {
        "cube": cube,
        "kind": kind,
        "origin": place.origin,
        "crs": cube.attrs.get("crs"),
    }
    meta: dict[str, Any] = {KEY: entry}
    centres = cubes.wavelengths(cube)
    if centres is not None:
        meta["wavelengths_nm"] = centres.tolist()
    return meta


def _name(cube: xr.DataArray) -> str:
    return str(cube.name) if cube.name is not None else "cube"
