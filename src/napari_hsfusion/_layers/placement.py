"""Where the pixels of a cube lie on napari's canvas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

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
# scenes begin at round numbers: no whole kilometre, and no round part of a degree, may lie
# where one origin gives way to the next, or LR and HR of one scene would get different ones
_ODD = 0.2853179


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

    def of_pixels(
        self, factor: float | tuple[float, float], phase: float | None = None
    ) -> Placement:
        """Placement of pixels `factor` times as large over the same ground.

        Parameters
        ----------
        factor : float or tuple of float
            Ratio of the pixel sizes, of one for y and one for x if they differ; below
            one for smaller pixels.
        phase : float, optional
            Centre of the first new pixel, in pixels of this grid; by default
            ``(factor - 1) / 2``, which keeps the corner of the scene (pixels are
            areas, their centres on whole numbers).
        """
        fy, fx = factor if isinstance(factor, tuple) else (factor, factor)
        down = (fy - 1.0) / 2.0 if phase is None else phase
        right = (fx - 1.0) / 2.0 if phase is None else phase
        (sy, sx), (ty, tx), (ky, kx) = self.scale, self.translate, self.shear
        return replace(
            self,
            scale=(sy * fy, sx * fx),
            translate=(ty + down * sy + right * ky, tx + right * sx + down * kx),
            shear=(ky * fx, kx * fy),
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


def placement(cube: xr.DataArray, origin: tuple[float, float] | None = None) -> Placement:
    """Where a cube lies, by its CRS and transform, or by how it was simulated.

    Without a georeference, an LR-HSI that says its ratio lies over its HR-MSI, whose
    pixels have size one; any other image has pixels of size one at zero.

    Parameters
    ----------
    cube : xarray.DataArray
    origin : tuple of float, optional
        (y, x) in the CRS of the canvas's zero, to share the canvas with a layer that
        has this one (``origin_of``); by default a round number nearby. Without a
        georeference it has no meaning and is left aside.
    """
    transform = cube.attrs.get("transform")
    if transform is None:
        return _simulated(cube)
    a, b, c, d, e, f = transform
    unit = _unit(cube.attrs.get("crs"))
    # rows grow to the south on a map; without a CRS, and with e > 0, y points down already
    turn = 1.0 if "crs" not in cube.attrs and e > 0 else -1.0
    centre = (turn * (f + (d + e) / 2), c + (a + b) / 2)
    if origin is None:
        grain = _ROUND.get(unit, _ROUND_OTHERWISE)
        zero = (_rounded(centre[0], grain), _rounded(centre[1], grain))
    else:
        zero = (turn * origin[0], origin[1])
    return Placement(
        scale=(turn * e, a),
        translate=(centre[0] - zero[0], centre[1] - zero[1]),
        unit=unit,
        origin=(turn * zero[0] + 0.0, zero[1]),
        shear=(turn * d + 0.0, b + 0.0),
    )


def _rounded(value: float, grain: float) -> float:
    """Whole multiple of `grain` near `value`."""
    return round(value / grain + _ODD) * grain + 0.0


def _simulated(cube: xr.DataArray) -> Placement:
    said = cube.attrs.get("observation") or {}
    past = [h for h in cube.attrs.get("history") or [] if h.get("step") in ("simulate", "fuse")]
    # only the last step counts: an image may be made of one that was simulated itself
    lowered = bool(past) and past[-1]["step"] == "simulate" and past[-1].get("image") == "lr_hsi"
    if not lowered or "scale" not in said:
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
