"""Measured response curves of satellite sensors, read from the package ``pyrsr``.

Only its reader of raw tables is used: the tables come in micrometres or
nanometres from one sensor to the next, and hold small negative values where a
measurement was noisy. Both are put right here. Panchromatic bands and ASTER's
backward-looking 3B, which does not see the same scene, are left out unless they
are asked for by name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ResponseError
from .resample import FloatArray


@dataclass(frozen=True)
class _Sensor:
    name: str
    satellite: str
    instrument: str
    aliases: tuple[str, ...] = ()
    not_by_default: tuple[str, ...] = ()


_SENSORS = (
    _Sensor("sentinel-2a", "Sentinel-2A", "MSI", ("s2a", "sentinel-2", "s2")),
    _Sensor("sentinel-2b", "Sentinel-2B", "MSI", ("s2b",)),
    _Sensor("landsat-4", "Landsat-4", "TM", ("l4", "tm4")),
    _Sensor("landsat-5", "Landsat-5", "TM", ("l5", "tm5", "tm")),
    _Sensor("landsat-7", "Landsat-7", "ETM+", ("l7", "etm"), ("8",)),
    _Sensor("landsat-8", "Landsat-8", "OLI_TIRS", ("l8", "oli", "oli-tirs"), ("8",)),
    _Sensor("landsat-9", "Landsat-9", "OLI_TIRS", ("l9", "oli2", "oli-2"), ("8",)),
    _Sensor("aster", "Terra", "ASTER", ("terra-aster",), ("3B",)),
    _Sensor("modis-terra", "Terra", "MODIS", ("modis", "terra-modis")),
    _Sensor("modis-aqua", "Aqua", "MODIS", ("aqua-modis", "aqua")),
    _Sensor("rapideye", "RapidEye", "MSI", tuple(f"rapideye-{k}" for k in range(1, 6))),
    _Sensor("spot-1-hrv1", "SPOT-1", "HRV1", ("spot-1",), ("4",)),
    _Sensor("spot-1-hrv2", "SPOT-1", "HRV2", (), ("4",)),
    _Sensor("spot-2-hrv1", "SPOT-2", "HRV1", ("spot-2",), ("4",)),
    _Sensor("spot-2-hrv2", "SPOT-2", "HRV2", (), ("4",)),
    _Sensor("spot-3-hrv1", "SPOT-3", "HRV1", ("spot-3",), ("4",)),
    _Sensor("spot-3-hrv2", "SPOT-3", "HRV2", (), ("4",)),
    _Sensor("spot-4-hrvir1", "SPOT-4", "HRVIR1", ("spot-4",), ("5",)),
    _Sensor("spot-4-hrvir2", "SPOT-4", "HRVIR2", (), ("5",)),
    _Sensor("spot-5-hrg1", "SPOT-5", "HRG1", ("spot-5",), ("5",)),
    _Sensor("spot-5-hrg2", "SPOT-5", "HRG2", (), ("5",)),
)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


_BY_NAME = {_plain(key): s for s in _SENSORS for key in (s.name, *s.aliases)}


def sensor_names() -> tuple[str, ...]:
    """Sensors that are known by name; case and punctuation do not matter."""
    return tuple(s.name for s in _SENSORS)


def find_sensor(name: str) -> str | None:
    """Canonical name of a sensor, or None if there is none of that name."""
    sensor = _BY_NAME.get(_plain(name))
    return None if sensor is None else sensor.name


def similar_sensors(name: str) -> tuple[str, ...]:
    """Canonical names of sensors spelt like `name`, best first."""
    close = difflib.get_close_matches(_plain(name), _BY_NAME, n=4, cutoff=0.6)
    return tuple(dict.fromkeys(_BY_NAME[key].name for key in close))


def band_key(label: str) -> str:
    """Band label as the tables have it: "B02", "b2" and "2" are all "2"."""
    text = label.strip().upper()
    text = re.sub(r"^(BAND|B)[ _-]?", "", text) or text
    return re.sub(r"^0+(?=\d)", "", text)


@dataclass(frozen=True)
class SensorCurve:
    """One band of a sensor.

    Attributes
    ----------
    name : str
        "B" and the band's number.
    wavelength : ndarray, shape (n,), float64
        nm, strictly increasing.
    response : ndarray, shape (n,), float64
        Not negative; the scale is the table's.
    """

    name: str
    wavelength: FloatArray
    response: FloatArray


def sensor_curves(name: str, bands: Sequence[str] | None = None) -> list[SensorCurve]:
    """Response curves of a sensor.

    Parameters
    ----------
    name : str
        One of :func:`sensor_names`, or an alias such as "s2a" or "OLI".
    bands : sequence of str, optional
        Band labels ("B2", "2", "B8A"), in the order wanted; by default every
        band that is neither panchromatic nor looks another way.

    Returns
    -------
    list of SensorCurve

    Raises
    ------
    ResponseError
        If the sensor or a band is unknown.
    """
    sensor = _BY_NAME.get(_plain(name))
    if sensor is None:
        raise ResponseError(f"unknown sensor {name!r}: expected one of {', '.join(sensor_names())}")
    # pyrsr pulls pandas: only when a sensor is named
    from pyrsr.rsr import RSR_reader

    tables = RSR_reader(sensor.satellite, sensor.instrument)
    if bands is None:
        wanted = [key for key in tables if key not in sensor.not_by_default]
    else:
        wanted = [band_key(label) for label in bands]
        for label, key in zip(bands, wanted, strict=True):
            if key not in tables:
                known = ", ".join(f"B{k}" for k in tables)
                raise ResponseError(f"{sensor.name} has no band {label!r}: expected one of {known}")
        if len(set(wanted)) != len(wanted):
            raise ResponseError(f"{sensor.name}: bands named twice in {', '.join(bands)}")
    curves = []
    for key in wanted:
        table = np.asarray(tables[key], dtype=np.float64)
        wavelength = table[:, 0]
        if wavelength.max() < 100:
            wavelength = wavelength * 1000.0
        curves.append(SensorCurve(f"B{key}", wavelength, np.maximum(table[:, 1], 0.0)))
    return curves
