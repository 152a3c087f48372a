"""From two images to an observation: sizes, bands, masks and responses that fit.

Between the cubes of the outer rooms and the arrays of the engine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from . import cube as cubes
from ._grid import Bools, check_ground, integer_ratio
from ._responses import (
    Floats,
    restrict_response,
    spatial_operator,
    stored,
)
from .errors import PairError
from .io import open_cube
from .sensors.psf import PSF

if TYPE_CHECKING:
    from .engine.observation import Observation


@dataclass(frozen=True)
class Pair:
    """Two images that fit each other, in physical values.

    Attributes
    ----------
    lr_hsi, hr_msi : xarray.DataArray
        The images as they came.
    x : ndarray, shape (C, h, w), float32
        LR-HSI, all bands; NaN where nothing was measured.
    y : ndarray, shape (c, H, W), float32
        HR-MSI, all bands.
    bands_x : ndarray of bool, shape (C,)
        Bands that are used: not marked as bad, and with a value somewhere.
    bands_y : ndarray of bool, shape (c,)
    ratio : int
        H / h.
    """

    lr_hsi: xr.DataArray
    hr_msi: xr.DataArray
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    bands_x: Bools
    bands_y: Bools
    ratio: int

    @property
    def shape_hr(self) -> tuple[int, int]:
        """Rows and columns of the HR-MSI."""
        return int(self.y.shape[1]), int(self.y.shape[2])

    def valid_x(self) -> Bools:
        """Pixels (h, w) with a value in every band used."""
        return np.asarray(np.isfinite(self.x[self.bands_x]).all(axis=0))

    def valid_y(self) -> Bools:
        """Pixels (H, W) with a value in every band used."""
        return np.asarray(np.isfinite(self.y[self.bands_y]).all(axis=0))

    def observation(self, psf: PSF, matrix: Floats) -> Observation:
        """Build what a method takes.

        Parameters
        ----------
        psf : PSF
        matrix : ndarray, shape (c, C)
            Spectral response in the units of both images, over all bands.

        Returns
        -------
        Observation
            Of the bands used, with the noise levels that are stored with the images.
        """
        from .engine.observation import Observation
        from .engine.operators import SpectralResponse

        centres = cubes.wavelengths(self.lr_hsi)
        return Observation(
            x=self.x[self.bands_x],
            y=self.y[self.bands_y],
            spatial=spatial_operator(psf, self.shape_hr, self.ratio),
            spectral=SpectralResponse(self.used_response(matrix)),
            valid_x=self.valid_x(),
            valid_y=self.valid_y(),
            noise_x=_noise(self.lr_hsi, "noise_x"),
            noise_y=_noise(self.hr_msi, "noise_y"),
            wavelengths=None if centres is None else centres[self.bands_x],
        )

    def used_response(self, matrix: Floats) -> Floats:
        """Rows and columns of the SRF that belong to the bands used."""
        return restrict_response(matrix[self.bands_y], self.bands_x)[:, self.bands_x]


def as_image(image: Any, what: str) -> xr.DataArray:
    """Take a cube, an array (band, y, x) or a path, and return a cube."""
    if isinstance(image, str | os.PathLike):
        return open_cube(Path(image))
    return cubes.as_cube(image, what)


def make_pair(lr_hsi: Any, hr_msi: Any, scale: int | None = None) -> Pair:
    """Read two images and check that they form a pair.

    Parameters
    ----------
    lr_hsi, hr_msi : xarray.DataArray, array_like of shape (band, y, x), or path
    scale : int, optional
        Checked against the sizes.

    Raises
    ------
    PairError
        If the sizes are no integer ratio, or not `scale`, the images lie in two
        coordinate systems or apart, or an image has no band to use.
    """
    low = as_image(lr_hsi, "LR-HSI")
    high = as_image(hr_msi, "HR-MSI")
    ratio = integer_ratio(low.shape[1:], high.shape[1:], scale)
    check_ground(low, high)
    x = cubes.to_physical(low)
    y = cubes.to_physical(high)
    bands_x = used_bands(low, x, "LR-HSI")
    bands_y = used_bands(high, y, "HR-MSI")
    return Pair(low, high, x, y, bands_x, bands_y, ratio)


def used_bands(cube: xr.DataArray, values: npt.NDArray[np.floating], what: str) -> Bools:
    """Bands (C,) that are not marked as bad and have a value somewhere.

    Raises
    ------
    PairError
        If none is left.
    """
    used = cubes.good_bands(cube) & np.array([bool(np.isfinite(v).any()) for v in values])
    if not used.any():
        raise PairError(f"{what}: all {used.size} bands are marked as bad or without any value")
    return np.asarray(used)


def _noise(image: xr.DataArray, key: str) -> float | None:
    value = stored(key, image)
    return None if value is None else float(value)
