"""Which cubes a viewer shows, which of their pixels lie under a point, and their spectra.

Points and outlines are in world coordinates; each cube finds its own pixels there, so
that an LR-HSI and an HR-MSI show the same ground.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage import draw

from .. import _layers, api
from .. import cube as cubes
from ..errors import CubeError

if TYPE_CHECKING:
    import xarray as xr

LINES = ("line", "path")
"""Shapes that have no inside: the pixels they cross are theirs."""

_CIRCLE = np.linspace(0.0, 2.0 * np.pi, 73)[:-1]


@dataclass(frozen=True)
class Shown:
    """A cube that the viewer shows.

    Attributes
    ----------
    layer : napari.layers.Image
    cube : xarray.DataArray
    points : bool
        Whether its spectrum is a few separate bands rather than a line.
    steps : tuple of float
        Pixels of the cube for one of the layer, along y and x.
    """

    layer: Any
    cube: xr.DataArray
    points: bool
    steps: tuple[float, float] = (1.0, 1.0)

    @property
    def name(self) -> str:
        """Name of the layer now."""
        return str(self.layer.name)

    @property
    def quick(self) -> bool:
        """Whether a pixel is in memory: reading it takes no time."""
        data = self.cube.data
        return type(data) is np.ndarray

    def pixels(self, world: np.ndarray) -> np.ndarray:
        """Rows and columns (n, 2), float, of world points (n, 2): y, x."""
        ndim = self.layer.ndim
        found = np.empty((len(world), 2))
        for k, point in enumerate(world):
            place = self.layer.world_to_data((0.0,) * (ndim - 2) + (point[0], point[1]))
            found[k] = place[-2:]
        return (found + 0.5) * self.steps - 0.5

    def pixel(self, world: Sequence[float]) -> tuple[int, int] | None:
        """Row and column under a world point (y, x); None outside."""
        place = self.pixels(np.asarray([world], dtype=float))[0]
        if not np.isfinite(place).all():
            return None
        row, column = (int(v) for v in np.floor(place + 0.5))
        rows, columns = self.cube.shape[1:]
        return (row, column) if 0 <= row < rows and 0 <= column < columns else None


@dataclass(frozen=True)
class Outline:
    """A shape in world coordinates.

    Attributes
    ----------
    vertices : numpy.ndarray, shape (n, 2)
        y, x.
    closed : bool
        False for lines.
    """

    vertices: np.ndarray
    closed: bool = True


@dataclass(frozen=True)
class Spectrum:
    """One curve.

    Attributes
    ----------
    place : str
        ``cursor``, ``P1``, ``Shapes 2``: what the curve is of.
    layer : str
        Name of the layer.
    where : str
        The place in words: coordinates, pixel or number of pixels.
    values : numpy.ndarray, shape (band,)
        Physical values; NaN makes a gap.
    std : numpy.ndarray of shape (band,), optional
        Standard deviation, of regions.
    wavelength : numpy.ndarray of shape (band,), optional
        nm.
    unit : str
        Of the values, where the cube says it.
    color, rank, points
        How it is drawn: colour ``#rrggbb``, the layer's rank among the cubes shown,
        and whether as separate points.
    """

    place: str
    layer: str
    where: str
    values: np.ndarray
    std: np.ndarray | None = None
    wavelength: np.ndarray | None = None
    unit: str = ""
    color: str = field(default="#808080", compare=False)
    rank: int = field(default=0, compare=False)
    points: bool = field(default=False, compare=False)


def shown_cubes(layers: Iterable[Any]) -> list[Shown]:
    """Visible cubes, the topmost first.

    Layers (band, y, x) are lines. Composites stand for the cube behind them, as points
    if it is multispectral, unless a visible layer shows that cube itself. Grey layers
    and colour pictures of others have no spectrum.
    """
    stack = [bare(layer) for layer in layers][::-1]
    found: list[Shown] = []
    for layer in stack:
        if not _layers.is_image(layer) or not layer.visible:
            continue
        entry = layer.metadata.get(_layers.KEY) or {}
        if layer.rgb and entry.get("kind") != "composite":
            continue
        if not layer.rgb and layer.ndim != 3:
            continue
        try:
            cube = _layers.layer_cube(layer)
        except CubeError:
            continue
        if not layer.rgb:
            found.append(Shown(layer, cube, points=False))
        elif cube is entry.get("cube"):
            few = cube.sizes["band"] <= _layers.MSI_BANDS
            down, right = entry.get("steps", (1, 1))
            found.append(Shown(layer, cube, few, (float(down), float(right))))
    whole = {id(one.cube) for one in found if not one.layer.rgb}
    return [one for one in found if not (one.layer.rgb and id(one.cube) in whole)]


def bare(layer: Any) -> Any:
    """Give the layer itself, which a plugin may see through a proxy."""
    return getattr(layer, "__wrapped__", layer)


def gaps(cube: xr.DataArray, values: np.ndarray) -> np.ndarray:
    """`values` (band,) with NaN in the bands that are marked as bad."""
    return np.where(cubes.good_bands(cube), values, np.nan)


def read_pixels(wanted: Sequence[tuple[Any, int, int]]) -> list[np.ndarray]:
    """Spectra (band,) of cubes' pixels ``(cube, row, column)``; bad bands are gaps."""
    return [gaps(cube, api.pixel_spectrum(cube, row, column)) for cube, row, column in wanted]


def read_regions(wanted: Sequence[tuple[Any, np.ndarray, bool]]) -> list[api.RegionSpectrum | None]:
    """Mean spectra of outlines in pixels ``(cube, vertices, closed)``; None outside."""
    found: list[api.RegionSpectrum | None] = []
    for cube, vertices, closed in wanted:
        made = region_mask(vertices, closed, cube.shape[1:])
        if made is None:
            found.append(None)
            continue
        region = api.region_spectrum(cube, *made)
        mean, std = gaps(cube, region.mean), gaps(cube, region.std)
        found.append(api.RegionSpectrum(mean, std, region.count))
    return found


def region_mask(
    vertices: np.ndarray, closed: bool, shape: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """Pixels of an outline, as a mask and the row and column of its first pixel.

    A closed outline has the pixels whose centres lie inside, or, if it is too small to
    have any, the pixel under its middle; a line has those it crosses.

    Parameters
    ----------
    vertices : numpy.ndarray, shape (n, 2)
        Rows and columns; pixel centres lie on whole numbers.
    closed : bool
    shape : (rows, columns)
        Of the image.

    Returns
    -------
    tuple, or None where the outline lies outside
        Mask of bool, corner.
    """
    if not np.isfinite(vertices).all():
        return None
    low = np.maximum(np.floor(vertices.min(axis=0) + 0.5), 0).astype(int)
    high = np.minimum(np.floor(vertices.max(axis=0) + 0.5), np.subtract(shape, 1)).astype(int)
    if (high < low).any():
        return None
    mask = np.zeros(tuple(high - low + 1), dtype=bool)
    inner = vertices - low
    if closed and len(vertices) > 2:
        mask[draw.polygon(inner[:, 0], inner[:, 1], mask.shape)] = True
        if not mask.any():
            _mark(mask, inner.mean(axis=0)[None])
    else:
        for start, stop in pairwise(inner):
            # two samples a pixel miss no pixel that the line crosses for longer than that
            number = 2 * int(np.ceil(np.abs(stop - start).max())) + 1
            _mark(mask, np.linspace(start, stop, max(2, number)))
    corner = int(low[0]), int(low[1])
    return (mask, corner) if mask.any() else None


def _mark(mask: np.ndarray, places: np.ndarray) -> None:
    at = np.floor(places + 0.5).astype(int)
    at = at[((at >= 0) & (at < mask.shape)).all(axis=1)]
    mask[at[:, 0], at[:, 1]] = True


def outlines(layer: Any) -> list[Outline]:
    """Shapes of a Shapes layer in world coordinates (y, x)."""
    made = []
    for kind, vertices in zip(layer.shape_type, layer.data, strict=True):
        world = np.array([layer.data_to_world(v)[-2:] for v in np.asarray(vertices, dtype=float)])
        if kind == "ellipse":
            middle = world.mean(axis=0)
            first, second = (world[1] - world[0]) / 2, (world[3] - world[0]) / 2
            world = middle + np.cos(_CIRCLE)[:, None] * first + np.sin(_CIRCLE)[:, None] * second
        made.append(Outline(world, kind not in LINES))
    return made


def unit_of(cube: xr.DataArray) -> str:
    """Unit of a cube's physical values, as its metadata say; empty if they do not."""
    said = cube.attrs.get("metadata") or {}
    for key in ("data units", "data_units", "units", "unit"):
        if key in said:
            return str(said[key])
    return str(cube.attrs.get("units", ""))
