"""From layers back to cubes, with everything that is still true of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .. import cube as cubes
from ..errors import CubeError
from .placement import Placement
from .show import KEY

_OF_BANDS = ("wavelength", "fwhm", "good_band", "band_name")
_OF_VALUES = ("nodata", "scale_factor", "add_offset", "metadata", "history")


def cube_of(data: Any, meta: dict[str, Any]) -> xr.DataArray:
    """Give the cube of a layer's data and its keywords (``layer.as_layer_data_tuple()``).

    A composite gives the cube it shows. A layer of this plugin whose data were replaced
    gives a cube of the new data, with what still holds: everything if the shape is the
    same (but no source file), the bands if their number is, the georeference if the
    rows and columns are.

    Parameters
    ----------
    data : array_like
        (band, y, x), (y, x), (y, x, RGB) or a list of scales, the finest first.
    meta : dict
        ``name``, ``rgb``, ``multiscale``, ``metadata``.

    Raises
    ------
    CubeError
        If the layer is no image of real numbers of 2 or 3 dimensions.
    """
    name = meta.get("name")
    entry = (meta.get("metadata") or {}).get(KEY) or {}
    known: xr.DataArray | None = entry.get("cube")
    if meta.get("multiscale"):
        data = data[0]
    data = _array(data)
    if meta.get("rgb"):
        if known is not None and data.shape[:2] == _shown(known, entry.get("steps", (1, 1))):
            return known
        return _of_colours(data, name)
    if data.ndim not in (2, 3):
        raise CubeError(
            f"layer {name!r}: expected an image of dimensions (band, y, x) or (y, x), "
            f"got shape {tuple(data.shape)}"
        )
    if known is None:
        return _plain(data, name)
    if data.ndim == 2 and known.shape == (1, *data.shape):
        if _same_array(data, known.data[0]):
            return known
        data = data[None]
    if tuple(data.shape) == known.shape:
        return known if _same_array(data, known.data) else _changed(known, data)
    return _what_holds(known, _plain(data, name))


def layer_cube(layer: Any) -> xr.DataArray:
    """Give the cube that a napari image layer shows, its metadata included.

    Raises
    ------
    CubeError
        If the layer is not an image layer of 2 or 3 dimensions.
    """
    if not is_image(layer):
        kind = type(layer).__name__
        raise CubeError(f"layer {getattr(layer, 'name', layer)!r}: expected an image, got {kind}")
    meta = {
        "name": layer.name,
        "metadata": layer.metadata,
        "rgb": layer.rgb,
        "multiscale": layer.multiscale,
    }
    return cube_of(layer.data, meta)


def is_image(layer: Any) -> bool:
    """Whether a layer is an image (labels are none), seen through a proxy or not."""
    from napari.layers import Image

    return isinstance(layer, Image)


def kind_of(layer: Any) -> str | None:
    """``cube``, ``composite`` or ``grey`` for layers of this plugin; None for others."""
    entry = layer.metadata.get(KEY) or {}
    kind: str | None = entry.get("kind")
    return kind


def origin_of(layer: Any) -> tuple[float, float] | None:
    """Give the origin of a georeferenced layer, for :func:`placement`; None for others."""
    entry = layer.metadata.get(KEY) or {}
    if entry.get("crs") is None:
        return None
    origin: tuple[float, float] | None = entry.get("origin")
    return origin


def placement_of(layer: Any) -> Placement:
    """Where the cube of a layer lies on the canvas, as the layer lies there now.

    Of an overview it is the placement of the whole image.

    Parameters
    ----------
    layer : napari.layers.Image
        Any image layer, of this plugin or not.
    """
    rows, columns = layer.ndim - 2, layer.ndim - 1
    start = np.asarray(layer.data_to_world([0.0] * layer.ndim))
    steps = np.eye(layer.ndim)
    down, right = (np.asarray(layer.data_to_world(steps[k])) - start for k in (rows, columns))
    scale, move = (float(down[rows]), float(right[columns])), (start[rows], start[columns])
    shear = (float(right[rows]), float(down[columns]))
    simple = np.array_equal(layer.affine.affine_matrix, np.eye(layer.ndim + 1))
    if simple and shear == (0.0, 0.0):  # as they were given, to the last bit
        scale, move = tuple(layer.scale[rows:]), tuple(layer.translate[rows:])
    entry = layer.metadata.get(KEY) or {}
    place = Placement(
        scale=(float(scale[0]), float(scale[1])),
        translate=(float(move[0]), float(move[1])),
        unit=str(layer.units[rows]),
        origin=entry.get("origin", (0.0, 0.0)),
        shear=shear,
    )
    step_y, step_x = entry.get("steps", (1, 1)) if layer.rgb else (1, 1)
    return place if (step_y, step_x) == (1, 1) else place.of_pixels((1 / step_y, 1 / step_x))


def _array(data: Any) -> Any:
    """`data` if it is an array in memory or of dask; others are wrapped, not read."""
    import dask.array as da

    if isinstance(data, (np.ndarray, da.Array)):
        return data
    if isinstance(data, xr.DataArray):
        return data.data
    if hasattr(data, "shape") and hasattr(data, "dtype") and hasattr(data, "__getitem__"):
        return da.from_array(data)  # type: ignore[no-untyped-call]
    return np.asarray(data)


def _shown(cube: xr.DataArray, steps: tuple[int, int]) -> tuple[int, ...]:
    sizes = zip((cube.sizes["y"], cube.sizes["x"]), steps, strict=True)
    return tuple(len(range(step // 2, size, step)) for size, step in sizes)


def _same_array(first: Any, second: Any) -> bool:
    """Whether two arrays of one shape are one: the same memory, or the same dask graph."""
    if first is second:
        return True
    if type(first) is not type(second) or first.dtype != second.dtype:
        return False
    if isinstance(first, np.ndarray):
        facts = first.__array_interface__, second.__array_interface__
        return bool(facts[0]["data"] == facts[1]["data"] and first.strides == second.strides)
    return bool(first.name == second.name)


def _changed(known: xr.DataArray, data: Any) -> xr.DataArray:
    """`known` with other pixels, which no file holds."""
    cube = known.copy(data=data)
    cube.encoding = {k: v for k, v in known.encoding.items() if k not in ("source", "variable")}
    return cube


def _what_holds(known: xr.DataArray, cube: xr.DataArray) -> xr.DataArray:
    """`cube` with what is true of it as it was of `known`, whose shape is another."""
    if cube.sizes["band"] == known.sizes["band"]:
        kept = {key: known.coords[key] for key in _OF_BANDS if key in known.coords}
        cube = cube.assign_coords(kept)
    same_ground = cube.shape[1:] == known.shape[1:]
    keys = (*_OF_VALUES, *(("crs", "transform") if same_ground else ()))
    cube.attrs |= {key: known.attrs[key] for key in keys if key in known.attrs}
    return cube


def _of_colours(data: Any, name: str | None) -> xr.DataArray:
    if data.ndim != 3:
        raise CubeError(
            f"layer {name!r}: expected a colour image of dimensions (y, x, colours), "
            f"got shape {tuple(data.shape)}"
        )
    channels = min(3, data.shape[-1])
    names = ("red", "green", "blue")[:channels]
    # NumPy hands this on to dask: colours that lie in a file are not read here
    bands = np.moveaxis(data[..., :channels], -1, 0)
    return cubes.make_cube(bands, band_name=names, name=name)


def _plain(data: Any, name: str | None) -> xr.DataArray:
    try:
        return cubes.make_cube(data, name=name)
    except CubeError as error:
        raise CubeError(f"layer {name!r}: {error}") from error
