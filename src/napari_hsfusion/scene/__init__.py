"""Scenes that need no download: one made here, one that an optional package carries."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ..cube import make_cube, with_history
from ..errors import HSFusionError, ParameterError
from . import layout
from .materials import MATERIALS, skylight

__all__ = ["demo_response", "demo_scene", "indian_pines"]

_EXTENT_M = 128.0
_LEVELS = 9
_SMALLEST, _LARGEST = 16, 2048
# Indian Pines: 220 bands from 400 to 2500 nm; these (1-based) lie in water vapour and
# are left out of the "corrected" 200-band cube
_PINES_DROPPED = (*range(104, 109), *range(150, 164), 220)


def demo_response() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the four bands of the demonstration's multispectral camera.

    Returns
    -------
    centres : ndarray of float, shape (4,)
        Band centres in nm: blue, green, red, near infrared.
    fwhm : ndarray of float, shape (4,)
        Full widths at half maximum in nm.
    """
    return np.array([480.0, 560.0, 660.0, 835.0]), np.array([70.0, 60.0, 60.0, 120.0])


def demo_scene(
    size: int = 128, bands: int = 60, seed: int = 0, *, longest_nm: float = 1000.0
) -> xr.DataArray:
    """Make the demonstration scene: a village, fields, a river and trees.

    A synthetic scene with the traits that fusion meets: mixed pixels, photographic
    texture, cast shadows under a blue sky, and materials whose spectra vary from
    place to place, so that no small number of spectra spans it exactly. The same
    arguments give the same cube. It always shows the same 128 m by 128 m of ground;
    the coordinates are valid (UTM zone 32N) but the place does not exist.

    Parameters
    ----------
    size : int
        Side in pixels, from 16 to 2048.
    bands : int
        Number of bands, evenly spaced from 400 nm to `longest_nm`; at least 4.
    seed : int
        Another seed is another village.
    longest_nm : float
        Centre of the last band in nm, from 900 to 2500.

    Returns
    -------
    xarray.DataArray
        Reflectance in (0, 1), float32, shape (bands, size, size), with wavelength and
        fwhm in nm, CRS and transform.

    Raises
    ------
    ParameterError
        If a parameter is out of range.
    """
    if not _SMALLEST <= size <= _LARGEST:
        raise ParameterError(f"size: expected {_SMALLEST} to {_LARGEST} pixels, got {size}")
    if bands < 4:
        raise ParameterError(f"bands: expected at least 4, got {bands}")
    if seed < 0:
        raise ParameterError(f"seed: expected 0 or more, got {seed}")
    if not 900.0 <= longest_nm <= 2500.0:
        raise ParameterError(f"longest_nm: expected 900 to 2500, got {longest_nm}")
    wavelength = np.linspace(400.0, longest_nm, bands)
    reflectance = _render(size, wavelength, np.random.default_rng(seed))
    pixel = _EXTENT_M / size
    cube = make_cube(
        reflectance,
        wavelength=wavelength,
        fwhm=np.full(bands, 1.2 * (wavelength[1] - wavelength[0])),
        crs=_utm(32632),
        transform=(pixel, 0.0, 500_000.0, 0.0, -pixel, 5_400_000.0),
        metadata={
            "description": "synthetic demonstration scene made by napari-hsfusion; "
            "the place does not exist",
            "quantity": "surface reflectance",
        },
        name="demo",
    )
    return with_history(
        cube, step="demo_scene", size=size, bands=bands, seed=seed, longest_nm=longest_nm
    )


def indian_pines() -> xr.DataArray:
    """Open AVIRIS Indian Pines from the optional package tensorly, which carries it.

    145 by 145 pixels of 20 m, 200 bands: the 220 less those in water vapour. Band
    centres are nominal, evenly spaced from 400 to 2500 nm over the 220. The licence
    is Creative Commons Attribution 3.0; cite Baumgardner, Biehl and Landgrebe, 220
    Band AVIRIS Hyperspectral Image Data Set: June 12, 1992 Indian Pine Test Site 3
    (2015), doi:10.4231/R7RX991C.

    Returns
    -------
    xarray.DataArray
        Calibrated counts divided by their maximum: float32 in [0, 1], shape
        (200, 145, 145), with nominal wavelength and fwhm in nm.

    Raises
    ------
    HSFusionError
        If tensorly is not installed, or its copy is not the scene expected.
    """
    try:
        from tensorly.datasets import load_indian_pines
    except ImportError as error:
        raise HSFusionError(
            "the Indian Pines scene comes with the optional package tensorly: "
            "run `pip install tensorly`"
        ) from error
    counts = np.asarray(load_indian_pines()["tensor"])
    if counts.shape != (145, 145, 200):
        raise HSFusionError(
            f"Indian Pines: expected shape (145, 145, 200) from tensorly, got {counts.shape}"
        )
    nominal = np.linspace(400.0, 2500.0, 220)
    kept = np.setdiff1d(np.arange(220), np.array(_PINES_DROPPED) - 1)
    peak = float(counts.max())
    cube = make_cube(
        np.ascontiguousarray(counts.transpose(2, 0, 1) / peak, dtype=np.float32),
        wavelength=nominal[kept],
        fwhm=np.full(kept.size, 10.0),
        metadata={
            "description": "AVIRIS Indian Pines, 12 June 1992, CC BY 3.0, doi:10.4231/R7RX991C",
            "wavelengths": "nominal",
            "bands left out": "104-108, 150-163, 220 of 220 (water vapour)",
            "divided by": peak,
        },
        name="indian-pines",
    )
    return with_history(cube, step="indian_pines", divided_by=peak)


def _utm(epsg: int) -> str:
    from rasterio.crs import CRS

    return str(CRS.from_epsg(epsg).to_wkt())


def _render(
    size: int, wavelength: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Reflectance (band, y, x): the drawn map, textured, lit, averaged and coloured."""
    fine = min(max(1, round(512 / size)), 8)
    n = fine * size
    scene = layout.draw(n, rng)
    texture = layout.textures(n, rng)
    drift = {name: gaussian_filter(photo, n / 60) for name, photo in texture.items()}
    drift = {name: smooth / smooth.std() for name, smooth in drift.items()}
    hills = 1.0 + 0.05 * np.sin(5 * scene.x + 3 * scene.y) + 0.03 * np.cos(7 * scene.y)
    sun = hills * scene.relief * (1.0 - scene.shadow)

    def average(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(image.reshape(size, fine, size, fine).mean(axis=(1, 3)))

    # plants cover the ground as the grass photograph is bright; the rest is soil
    green = scene.label == layout.VEGETATION
    gaps = np.clip(scene.rows + 0.10 * np.clip(-texture["grass"] - 0.3, 0, None), 0, 1) * green
    sky = skylight(wavelength)
    levels = np.linspace(0.0, 1.0, _LEVELS)
    cube = np.zeros((wavelength.size, size, size))
    for index, spectrum in enumerate(MATERIALS.values()):
        name = layout.TEXTURE_OF[index]
        cover = (scene.label == index).astype(float)
        if index == layout.VEGETATION:
            cover -= gaps
        elif index == layout.SOIL:
            cover += gaps
        share = average(cover)
        if not share.any():
            continue
        variant = scene.variant + 0.17 * drift[name]
        place = average(cover * np.clip(variant, 0, 1)) / np.maximum(share, 1e-12)
        bright = cover * (1.0 + layout.CONTRAST[index] * texture[name])
        library = np.stack([spectrum(wavelength, float(level)) for level in levels])
        position = np.clip(place, 0, 1) * (_LEVELS - 1)
        lower = np.minimum(position.astype(int), _LEVELS - 2)
        weight = (position - lower)[..., None]
        local = (1 - weight) * library[lower] + weight * library[lower + 1]
        lit, shaded = average(bright * sun), average(bright * scene.shadow)
        cube += (local * (lit[..., None] + shaded[..., None] * sky)).transpose(2, 0, 1)
    return np.clip(cube, 1e-3, 1.0 - 1e-3).astype(np.float32)
