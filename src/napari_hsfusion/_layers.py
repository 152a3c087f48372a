"""Cubes as napari layers and back: data, placement on the canvas, metadata. No Qt.

World coordinates are those of the cube's CRS, y turned to point down, less a round
origin (see :class:`Placement`): two images of one scene lie on each other exactly,
whatever their pixel sizes. The band axis stays an index in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from . import cube as cubes
from .errors import CubeError
from .figures import colour_limits, composite, composite_bands

if TYPE_CHECKING:
    from napari.layers import Layer

LayerData = tuple[Any, dict[str, Any], str]

KEY = "hsfusion"
"""Entry of a layer's metadata that belongs to this plugin."""

MSI_BANDS = 16
"""A cube of at most so many bands is shown as a colour composite alone."""

AXES = ("band", "y", "x")

_UNITS = {
    "metre": "m",
    "meter": "m",
    "foot": "foot",
    "us survey foot": "survey_foot",
    "kilometre": "km",
}
_ROUND = {"degree": 1.0}
_ROUND_OTHERWISE = 1e5


@dataclass(frozen=True)
class Placement:
    """Where the pixels of an image lie on the canvas: axes y, x.

    Attributes
    ----------
    scale : tuple of float
        Size of a pixel.
    translate : tuple of float
        Centre of the first pixel.
    unit : str
        ``pixel``, ``m``, ``degree``, ...
    origin : tuple of float
        (y, x) of the canvas's zero in the CRS; y points north there. A round number,
        for graphics cards count in 32 bits: positions near zero stay exact.
    shear : tuple of float
        Off-diagonal terms (y by column, x by row) of a rotated grid; zeros if none.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    translate: tuple[float, float] = (0.0, 0.0)
    unit: str = "pixel"
    origin: tuple[float, float] = (0.0, 0.0)
    shear: tuple[float, float] = (0.0, 0.0)

    def of_pixels(self, factor: float, phase: float | None = None) -> Placement:
        """Placement of pixels `factor` times as large over the same ground.

        Parameters
        ----------
        factor : float
            Ratio of the pixel sizes; below one for smaller pixels.
        phase : float, optional
            Centre of the first new pixel, in pixels of this grid; by default
            ``(factor - 1) / 2``, which keeps the corner of the scene (pixels are
            areas, their centres on whole numbers).
        """
        move = (factor - 1.0) / 2.0 if phase is None else phase
        (sy, sx), (ty, tx), (ky, kx) = self.scale, self.translate, self.shear
        return replace(
            self,
            scale=(sy * factor, sx * factor),
            translate=(ty + move * (sy + ky), tx + move * (sx + kx)),
            shear=(ky * factor, kx * factor),
        )

    def keywords(self, ndim: int) -> dict[str, Any]:
        """Keywords of a layer of 2 (y, x) or 3 (band, y, x) dimensions."""
        lead = ndim - 2
        words: dict[str, Any] = {
            "axis_labels": AXES[3 - ndim :],
            "units": ("pixel",) * lead + (self.unit,) * 2,
        }
        if not any(self.shear):
            words["scale"] = (1.0,) * lead + self.scale
            words["translate"] = (0.0,) * lead + self.translate
            return words
        matrix = np.eye(ndim + 1)
        matrix[lead:ndim, lead:ndim] = [
            [self.scale[0], self.shear[0]],
            [self.shear[1], self.scale[1]],
        ]
        matrix[lead:ndim, ndim] = self.translate
        words["affine"] = matrix
        return words


def placement(cube: xr.DataArray) -> Placement:
    """Where a cube lies, by its CRS and transform, or by how it was simulated.

    Without a georeference, an LR-HSI that says its ratio lies over its HR-MSI, whose
    pixels have size one; any other image has pixels of size one at zero.
    """
    transform = cube.attrs.get("transform")
    if transform is None:
        return _simulated(cube)
    a, b, c, d, e, f = transform
    unit = _unit(cube.attrs.get("crs"))
    # rows grow to the south on a map; without a CRS, and with e > 0, y points down already
    turn = 1.0 if "crs" not in cube.attrs and e > 0 else -1.0
    grain = _ROUND.get(unit, _ROUND_OTHERWISE)
    centre = (turn * (f + (d + e) / 2), c + (a + b) / 2)
    zero = (round(centre[0] / grain) * grain, round(centre[1] / grain) * grain)
    return Placement(
        scale=(turn * e, a),
        translate=(centre[0] - zero[0], centre[1] - zero[1]),
        unit=unit,
        origin=(turn * zero[0], zero[1]),
        shear=(turn * d, b),
    )


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
    without a value are transparent.
    """
    where = placement(cube) if place is None else place
    picture, bands = composite_picture(cube)
    meta = metadata(cube, "composite", where)
    meta[KEY]["bands"] = bands
    words = {
        "name": name or f"{_name(cube)} (composite)",
        "rgb": True,
        "metadata": meta,
        **where.keywords(2),
    }
    return picture, words, "image"


def cube_layers(cube: xr.DataArray, name: str | None = None) -> list[LayerData]:
    """Layers that opening a cube gives, the lowest first.

    A composite alone for a multispectral image, a grey image for a single band, a
    composite under the (band, y, x) layer for a hyperspectral cube.
    """
    name = name or _name(cube)
    count = cube.sizes["band"]
    if count == 1:
        where = placement(cube)
        words = {
            "name": name,
            "contrast_limits": sampled_limits(cube),
            "metadata": metadata(cube, "grey", where),
            **where.keywords(2),
        }
        return [(cube.data[0], words, "image")]
    if count <= MSI_BANDS:
        return [composite_layer(cube, name)]
    return [composite_layer(cube, f"{name} (composite)"), band_layer(cube, name)]


def metadata(cube: xr.DataArray, kind: str, place: Placement) -> dict[str, Any]:
    """Metadata of a layer that shows a cube.

    ``metadata["hsfusion"]`` holds ``cube``, ``kind`` (``cube``, ``composite``,
    ``grey``), ``origin`` of the placement and ``crs``; ``wavelengths_nm`` is there
    for everybody.
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


def cube_of(data: Any, meta: dict[str, Any]) -> xr.DataArray:
    """Give the cube of a layer's data and its keywords (``layer.as_layer_data_tuple()``).

    Parameters
    ----------
    data : array_like
        (band, y, x), (y, x), (y, x, RGB) or a list of scales, the finest first.
    meta : dict
        ``name``, ``rgb``, ``metadata``.

    Raises
    ------
    CubeError
        If the layer is no image of 2 or 3 dimensions.
    """
    entry = meta.get("metadata", {}).get(KEY) or {}
    known = entry.get("cube")
    if known is not None and entry.get("kind") in ("composite", "grey"):
        return known
    name = meta.get("name")
    if meta.get("multiscale"):
        data = data[0]
    if not hasattr(data, "ndim"):
        data = np.asarray(data)
    if known is not None and tuple(data.shape) == known.shape:
        return known if data is known.data else known.copy(data=data)
    if meta.get("rgb"):
        channels = min(3, data.shape[-1])
        names = ("red", "green", "blue")[:channels]
        return cubes.make_cube(
            np.moveaxis(np.asarray(data)[..., :channels], -1, 0), band_name=names, name=name
        )
    if data.ndim not in (2, 3):
        raise CubeError(
            f"layer {name!r}: expected an image of dimensions (band, y, x) or (y, x), "
            f"got shape {tuple(data.shape)}"
        )
    return cubes.make_cube(data, name=name)


def layer_cube(layer: Layer) -> xr.DataArray:
    """Give the cube that an image layer shows, its metadata included.

    Raises
    ------
    CubeError
        If the layer is not an image layer of 2 or 3 dimensions.
    """
    if getattr(layer, "_type_string", None) != "image":
        kind = type(layer).__name__
        raise CubeError(f"layer {getattr(layer, 'name', layer)!r}: expected an image, got {kind}")
    meta = {
        "name": layer.name,
        "metadata": layer.metadata,
        "rgb": layer.rgb,
        "multiscale": layer.multiscale,
    }
    return cube_of(layer.data, meta)


def kind_of(layer: Layer) -> str | None:
    """``cube``, ``composite`` or ``grey`` for layers of this plugin; None for others."""
    entry = layer.metadata.get(KEY) or {}
    kind: str | None = entry.get("kind")
    return kind


def composite_picture(
    cube: xr.DataArray, limits: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Picture (y, x, 4), uint8, and the 0-based bands it shows as red, green, blue."""
    bands = composite_bands(cube)
    values = cubes.to_physical(cube.isel(band=list(bands)))
    picture = composite(values, colour_limits(values) if limits is None else limits)
    return np.rint(picture * 255).astype(np.uint8), bands


def sampled_limits(cube: xr.DataArray, bands: int = 5) -> tuple[float, float]:
    """Contrast limits (0.5 and 99.5 %) in stored values, from a few good bands.

    A window of at most 256 rows and columns in each of nine places is read.
    """
    good = np.flatnonzero(cubes.good_bands(cube))
    if good.size == 0:
        good = np.arange(cube.sizes["band"])
    picks = good[np.unique(np.linspace(0, good.size - 1, bands).round().astype(int))]
    rows, columns = _windows(cube.sizes["y"]), _windows(cube.sizes["x"])
    parts = [
        np.asarray(cube.isel(band=int(b), y=r, x=c).data).ravel()
        for b in picks
        for r in rows
        for c in columns
    ]
    stored = np.concatenate(parts)
    known = stored[np.isfinite(stored)]
    nodata = cube.attrs.get("nodata")
    if nodata is not None:
        known = known[~cubes.stored_equals(known, nodata)]
    if known.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(known, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _windows(size: int, count: int = 3, side: int = 256) -> Sequence[slice]:
    if size <= count * side:
        return [slice(None)]
    starts = np.linspace(0, size - side, count).astype(int)
    return [slice(int(s), int(s) + side) for s in starts]


def _simulated(cube: xr.DataArray) -> Placement:
    said = cube.attrs.get("observation") or {}
    past = cube.attrs.get("history") or []
    lowered = any(h.get("step") == "simulate" and h.get("image") == "lr_hsi" for h in past)
    if not lowered or "scale" not in said or any(h.get("step") == "fuse" for h in past):
        return Placement()
    return Placement().of_pixels(float(said["scale"]), said.get("phase"))


def _unit(crs: str | None) -> str:
    if crs is None:
        return "pixel"
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        system = CRS.from_user_input(crs)
        if system.is_geographic:
            return "degree"
        return _UNITS.get(str(system.linear_units).lower(), "pixel")
    except CRSError:
        return "pixel"


def _name(cube: xr.DataArray) -> str:
    return str(cube.name) if cube.name is not None else "cube"
