"""Response curves over wavelength, for drawing: before they are brought onto a cube's bands."""

from __future__ import annotations

import os

import numpy as np

from .catalogue import SensorCurve, sensor_curves
from .resample import SIGMA_OF_FWHM
from .srf import as_path, parse_gaussians, pick_columns, split_bands
from .tables import read_table

_REACH = 3.0
_SAMPLES = 121


def response_curves(spec: str | os.PathLike[str]) -> list[SensorCurve]:
    """Curves of a spectral response as it is stated, independent of any cube.

    Parameters
    ----------
    spec : str or path
        A sensor, a file, or ``"gaussian:CENTRE/FWHM,…"``, as
        :func:`~napari_hsfusion.sensors.srf.load_response` takes them.

    Returns
    -------
    list of SensorCurve
        One a band: measured curves, the columns of a file, or Gaussians of peak 1
        sampled to three standard deviations. Empty for a file of weights that
        states no wavelengths.

    Raises
    ------
    ResponseError
        If it is unknown or malformed.
    """
    text = os.fspath(spec)
    if text.casefold().startswith("gaussian:"):
        return [_gaussian(c, w) for c, w in zip(*parse_gaussians(text), strict=True)]
    path, columns = as_path(text)
    if path is None:
        return sensor_curves(*split_bands(text))
    table = pick_columns(path, read_table(path), columns)
    if table.wavelength is None:
        return []
    order = np.argsort(table.wavelength, kind="stable")
    return [
        SensorCurve(name, table.wavelength[order], values[order])
        for name, values in zip(table.names, table.values, strict=True)
    ]


def _gaussian(centre: float, width: float) -> SensorCurve:
    sigma = width * SIGMA_OF_FWHM
    steps = np.linspace(-_REACH, _REACH, _SAMPLES)
    return SensorCurve(f"{centre:g}/{width:g}", centre + steps * sigma, np.exp(-0.5 * steps**2))
