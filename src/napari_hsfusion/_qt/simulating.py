"""What the Simulate form hands to its worker, and which layers it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import _layers, api
from .._forecast import Forecast, forecast
from .._layers import LayerData, Placement
from .layer_choice import cube_or_none, shows_cube

if TYPE_CHECKING:
    import xarray as xr
    from napari.layers import Layer


def simulated_layers(
    cube: xr.DataArray, values: Mapping[str, Any], name: str, place: Placement
) -> list[LayerData]:
    """Simulate a pair and lay it over its reference (called in another thread).

    Parameters
    ----------
    cube : xarray.DataArray
        Reference.
    values : mapping
        Keywords of :func:`napari_hsfusion.api.simulate`.
    name : str
        Of the reference, at the head of the names of both layers.
    place : Placement
        Of the reference on the canvas.

    Returns
    -------
    list of LayerData
        HR-MSI as a composite, LR-HSI above it.
    """
    pair = api.simulate(cube, **values)
    below = place.of_pixels(float(pair.record["scale"]), float(pair.record["phase"]))
    return [
        _layers.composite_layer(pair.hr_msi, f"{name} HR-MSI", place),
        _layers.band_layer(pair.lr_hsi, f"{name} LR-HSI", below),
    ]


def look_ahead(cube: xr.DataArray, values: Mapping[str, Any]) -> Forecast:
    """Say what a run will make (called in another thread)."""
    return forecast(cube, **values)


def may_be_reference(layer: Layer) -> bool:
    """Whether a layer shows a cube: as bands, or as a composite."""
    return shows_cube(layer) or _layers.kind_of(layer) == "composite"


def likely_reference(layer: Layer) -> float:
    """Rank of a layer: cubes of many pixels and bands before composites and LR-HSIs."""
    cube = cube_or_none(layer)
    if cube is None:
        return -1.0
    made = any(entry.get("step") in ("simulate", "fuse") for entry in cube.attrs.get("history", []))
    composite = _layers.kind_of(layer) == "composite"
    return float(cube.size) * (1e-12 if made else 1.0) * (1e-6 if composite else 1.0)


def with_layer(cube: xr.DataArray, layer: str) -> xr.DataArray:
    """Cube that says which layer it came from, where no file is known."""
    out = cube.copy(deep=False)
    out.encoding = {"layer": layer, **cube.encoding}
    if "source" in out.encoding:
        del out.encoding["layer"]
    return out
