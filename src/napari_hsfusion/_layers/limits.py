"""One contrast for cubes whose stored values are of different scales."""

from __future__ import annotations

import xarray as xr


def carried_limits(
    limits: tuple[float, float], source: xr.DataArray, target: xr.DataArray
) -> tuple[float, float]:
    """Contrast limits of one cube as the same physical values in another.

    Parameters
    ----------
    limits : tuple of float
        In stored values of `source`.
    source, target : xarray.DataArray
        With their ``scale_factor`` and ``add_offset``.

    Returns
    -------
    tuple of float
        In stored values of `target`, the lower first.
    """
    gain, offset = _scaling(source)
    own, shift = _scaling(target)
    low, high = sorted((value * gain + offset - shift) / own for value in limits)
    return low, high


def _scaling(cube: xr.DataArray) -> tuple[float, float]:
    return float(cube.attrs.get("scale_factor", 1.0)), float(cube.attrs.get("add_offset", 0.0))
