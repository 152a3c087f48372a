"""Where the materials of the demonstration scene lie, and how the light falls.

The map is drawn on a grid several times finer than the image and averaged down, so
that pixels along edges are mixtures, as in a real image. Everything finer than the
map comes from photographs: grass, gravel, brick and lunar ground that scikit-image
carries in its wheel (public domain), which set brightness, the share of bare soil
between plants, and the drift of each material's parameter.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from skimage import data

from .materials import MATERIALS

Image = NDArray[np.float64]
NAMES = tuple(MATERIALS)
VEGETATION, DRY, SOIL, CLAY, CONCRETE, ASPHALT, METAL, WATER = range(len(NAMES))
TEXTURE_OF = ("grass", "grass", "gravel", "brick", "gravel", "gravel", "moon", "moon")
CONTRAST = (0.20, 0.16, 0.15, 0.16, 0.09, 0.10, 0.04, 0.05)
SUN = (0.55, -0.83)


@dataclass
class Layout:
    """Material map and light of a scene on a fine square grid of side n.

    Attributes
    ----------
    label : ndarray of int, shape (n, n)
        Index into `NAMES`.
    variant : ndarray of float, shape (n, n)
        Parameter of the material, in [0, 1].
    shadow : ndarray of float, shape (n, n)
        Share of the sun that is blocked, in [0, 1].
    relief : ndarray of float, shape (n, n)
        Brightness from the slope of roofs and crowns, around 1.
    rows : ndarray of float, shape (n, n)
        Share of bare soil between the rows of a crop, in [0, 1].
    y, x : ndarray of float, shape (n, n)
        Place of each pixel, in sides of the scene.
    """

    label: NDArray[np.int64]
    variant: Image
    shadow: Image
    relief: Image
    rows: Image
    y: Image
    x: Image

    def window(self, y: float, x: float, reach: float) -> Layout:
        """Part of the map within `reach` of a place; writing to it writes to the map."""
        n = self.label.shape[0]
        rows = slice(max(0, int((y - reach) * n)), max(1, int((y + reach) * n) + 1))
        columns = slice(max(0, int((x - reach) * n)), max(1, int((x + reach) * n) + 1))
        return Layout(*(getattr(self, f.name)[rows, columns] for f in fields(self)))

    def put(self, mask: NDArray[np.bool_], label: int, variant: float | Image) -> None:
        """Cover `mask` with one material."""
        self.label[mask] = label
        self.variant[mask] = variant if isinstance(variant, float) else variant[mask]
        self.rows[mask] = 0.0
        self.relief[mask] = 1.0

    def cast(self, mask: NDArray[np.bool_], height: float, strength: float) -> None:
        """Throw the shadow of what stands on `mask`, `height` in sides of the scene."""
        rows, columns = mask.shape
        steps = max(1, round(height / (self.y[1, 0] - self.y[0, 0])))
        for step in range(1, steps + 1):
            dy, dx = round(SUN[0] * step), round(SUN[1] * step)
            moved = np.zeros_like(mask)
            moved[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)] = mask[
                max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : columns + min(-dx, 0)
            ]
            moved &= ~mask
            self.shadow[moved] = np.maximum(self.shadow[moved], strength)
        self.shadow[mask] = 0.0


def textures(n: int, rng: np.random.Generator) -> dict[str, Image]:
    """Photographic textures of side n, zero mean and unit variance, turned at random."""
    out = {}
    for name in ("grass", "gravel", "brick", "moon"):
        photo = np.asarray(getattr(data, name)(), dtype=np.float64)[:256, :256]
        photo = np.rot90(photo, int(rng.integers(4)))
        photo = photo if rng.integers(2) else photo[:, ::-1]
        photo = photo - gaussian_filter(photo, 40)
        photo = np.clip((photo - photo.mean()) / photo.std(), -2.5, 2.5)
        out[name] = zoom(photo, n / len(photo), order=1, mode="reflect", grid_mode=True)
    return out


def draw(n: int, rng: np.random.Generator) -> Layout:
    """Draw fields, a river, roads, a village and trees on a grid of side n.

    Parameters
    ----------
    n : int
        Side of the fine grid.
    rng : numpy.random.Generator
        Decides positions, sizes and materials.

    Returns
    -------
    Layout
        The whole map.
    """
    y, x = (np.mgrid[0:n, 0:n] + 0.5) / n
    flat = np.zeros((n, n))
    scene = Layout(np.zeros((n, n), np.int64), flat + 0.5, flat.copy(), flat + 1, flat.copy(), y, x)
    _fields(scene, rng)
    river = _river(scene, rng)
    _roads(scene, rng)
    _village(scene, rng)
    _hall(scene, rng)
    _trees(scene, rng, river)
    return scene


def _fields(scene: Layout, rng: np.random.Generator) -> None:
    """Parcels of crops in rows, pasture, cured grass and bare soil, with paths between."""
    y, x = scene.y, scene.x
    u, v = x + 0.35 * y, y - 0.25 * x
    centres = rng.random((13, 2)) * [1.35, 1.25] + [0.0, -0.25]
    distance = np.stack([np.maximum(abs(u - a), 1.3 * abs(v - b)) for a, b in centres])
    order = np.argsort(distance, axis=0)[:2]
    near, second = np.take_along_axis(distance, order, axis=0)
    kinds = rng.permutation(np.resize([VEGETATION, SOIL, VEGETATION, DRY, VEGETATION], 13))
    for parcel, kind in enumerate(kinds):
        mask = order[0] == parcel
        scene.put(mask, int(kind), float(rng.uniform(0.1, 0.9)))
        if kind == VEGETATION and rng.random() < 0.7:
            angle, period = rng.uniform(0, np.pi), rng.uniform(0.020, 0.034)
            wave = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period)
            scene.rows[mask] = (rng.uniform(0.25, 0.6) * (0.5 + 0.5 * wave))[mask]
    scene.put(second - near < 0.008, DRY, 0.6)


def _river(scene: Layout, rng: np.random.Generator) -> Image:
    """Distance from the middle of a winding river, in its own half-widths."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    middle = 0.20 + 0.07 * np.sin(4.5 * scene.y + phase[0]) + 0.02 * np.sin(13 * scene.y + phase[1])
    across = np.asarray(abs(scene.x - middle) / (0.045 + 0.02 * scene.y))
    scene.put(across < 1.35, SOIL, 0.9)
    scene.put(across < 1.0, WATER, np.asarray(np.clip(0.25 + 0.6 * across**2, 0, 1)))
    return across


def _roads(scene: Layout, rng: np.random.Generator) -> None:
    """A main road on a bridge across the river, a side road, their verges and a line."""
    slope, height = rng.uniform(-0.12, 0.12), rng.uniform(0.50, 0.56)
    main = abs(scene.y - height - slope * (scene.x - 0.5))
    side = abs(scene.x - 0.60 - 0.1 * (scene.y - 0.5)) + np.where(scene.y < height, 0.0, 1.0)
    scene.put(np.minimum(main, side + 0.006) < 0.034, CONCRETE, 0.7)
    scene.put(main < 0.026, ASPHALT, 0.65)
    scene.put(side < 0.020, ASPHALT, 0.25)
    scene.put((main < 0.0035) & ((scene.x * 22) % 1 < 0.5), METAL, 1.0)


def _roof(
    scene: Layout, u: Image, v: Image, half: tuple[float, float], label: int, variant: float
) -> None:
    """Put a gabled roof, its ridge along u: one side in the sun, the other away from it."""
    mask = (abs(u) < half[0]) & (abs(v) < half[1])
    scene.put(mask, label, variant)
    scene.relief[mask] = np.where(v < 0, 1.12, 0.72)[mask]
    scene.cast(mask, 0.05, 0.9)


def _village(scene: Layout, rng: np.random.Generator) -> None:
    """Houses with gardens along streets, upper right."""
    angle = rng.uniform(0.1, 0.3)
    cos, sin = np.cos(angle), np.sin(angle)
    for row in range(4):
        for column in range(4):
            cy, cx = 0.06 + 0.115 * row, 0.685 + 0.095 * column
            cy, cx = cy + rng.uniform(-0.012, 0.012), cx + rng.uniform(-0.01, 0.01)
            plot = scene.window(cy, cx, 0.12)
            u = cos * (plot.x - cx) + sin * (plot.y - cy)
            v = -sin * (plot.x - cx) + cos * (plot.y - cy)
            garden = (abs(u) < 0.046) & (abs(v) < 0.054)
            plot.put(garden, VEGETATION if rng.random() < 0.7 else DRY, float(rng.random()))
            half = (rng.uniform(0.022, 0.034), rng.uniform(0.018, 0.028))
            kind = rng.choice([CLAY, CLAY, CLAY, CONCRETE, ASPHALT, METAL])
            _roof(plot, u, v, half, int(kind), float(rng.random()))


def _hall(scene: Layout, rng: np.random.Generator) -> None:
    """Two halls with metal roofs, their yard, and parked cars, lower right."""
    yard = scene.window(0.78, 0.80, 0.25)
    u, v = yard.x - 0.80, yard.y - 0.78
    yard.put((abs(u) < 0.165) & (abs(v) < 0.135), CONCRETE, 0.35)
    _roof(yard, u + 0.05, v + 0.03, (0.075, 0.065), METAL, 0.85)
    _roof(yard, u - 0.10, v + 0.06, (0.035, 0.045), METAL, 0.05)
    for row in range(2):
        for place in range(11):
            if rng.random() < 0.75:
                cu, cv = -0.14 + 0.027 * place, 0.075 + 0.04 * row
                car = (abs(u - cu) < 0.008) & (abs(v - cv) < 0.015)
                yard.put(car, METAL, float(rng.random()))
                yard.cast(car, 0.01, 0.7)


def _trees(scene: Layout, rng: np.random.Generator, river: Image) -> None:
    """Round crowns along the river, in gardens and in the fields; none on a roof or road."""
    n = len(scene.y)
    soft = np.isin(scene.label, (VEGETATION, DRY, SOIL))
    wanted = soft & ((river < 3.0) | ((scene.x > 0.63) & (scene.y < 0.5)))
    planted = 0
    # every try draws the same number of variates, so that all grids get the same trees
    for cy, cx, size, vigour, luck in rng.random((600, 5)):
        at = int(cy * n), int(cx * n)
        if planted == 75 or not (soft[at] and (wanted[at] or luck < 0.12)):
            continue
        planted += 1
        radius = 0.011 + 0.015 * size
        near = scene.window(cy, cx, 3.0 * radius)
        dy, dx = (near.y - cy) / radius, (near.x - cx) / radius
        crown = (dy**2 + dx**2 < 1) & ~np.isin(near.label, (CLAY, METAL, CONCRETE))
        near.cast(crown, 1.6 * radius, 0.75)
        near.put(crown, VEGETATION, 0.6 + 0.4 * float(vigour))
        near.relief[crown] = (0.80 - 0.35 * (SUN[0] * dy + SUN[1] * dx))[crown]
