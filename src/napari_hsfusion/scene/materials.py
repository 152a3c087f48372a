"""Reflectance spectra of eight land-cover materials, from parametric forms.

Each function takes wavelengths in nm, shape (band,), and one parameter in [0, 1]
that moves the spectrum within its material: pigment, moisture, turbidity, age,
tint. The forms are those of the materials' physics in outline: pigment and
liquid-water absorption by Beer's law, the red edge and iron-oxide edges as
logistic steps, mineral features as Gaussian dips. They are plausible from 400 to
2500 nm; they are not measurements.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Spectrum = NDArray[np.float64]


def _peak(nm: Spectrum, centre: float, width: float) -> Spectrum:
    return np.asarray(np.exp(-0.5 * ((nm - centre) / width) ** 2))


def _step(nm: Spectrum, centre: float, width: float) -> Spectrum:
    return np.asarray(1.0 / (1.0 + np.exp(-(nm - centre) / width)))


def _liquid_water(nm: Spectrum) -> Spectrum:
    """Shape of leaf and soil water absorption: 970, 1190, 1450, 1940 nm and beyond."""
    return np.asarray(
        0.12 * _peak(nm, 970, 22)
        + 0.20 * _peak(nm, 1190, 35)
        + 1.30 * _peak(nm, 1450, 55)
        + 1.90 * _peak(nm, 1940, 70)
        + 1.20 * _step(nm, 2420, 60)
        + 0.35 * _step(nm, 1330, 30)
    )


def vegetation(nm: Spectrum, vigour: float) -> Spectrum:
    """Reflectance of green leaves.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.
    vigour : float
        From 0 (pale, red edge at 706 nm) to 1 (dark, red edge at 722 nm).

    Returns
    -------
    ndarray of float, shape (band,)
        Reflectance.
    """
    pigments = (
        1.00 * _peak(nm, 435, 40)
        + 0.80 * _peak(nm, 485, 32)
        + 0.42 * _peak(nm, 555, 60)
        + 0.62 * _peak(nm, 625, 35)
        + 0.95 * _peak(nm, 678, 24)
    )
    pigments = pigments * (1.0 - _step(nm, 706.0 + 16.0 * vigour, 10.0))
    leaf = (0.44 + 0.12 * vigour) * np.exp(-(2.1 + 1.6 * vigour) * pigments)
    return np.asarray(leaf * np.exp(-(0.5 + 0.6 * vigour) * _liquid_water(nm)) + 0.01)


def dry_grass(nm: Spectrum, greenness: float) -> Spectrum:
    """Reflectance of cured grass: a slow rise, cellulose and lignin dips, some green left.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.
    greenness : float
        From 0 (straw) to 1 (a third of it green).

    Returns
    -------
    ndarray of float, shape (band,)
        Reflectance.
    """
    straw = 0.07 + 0.36 * _step(nm, 640, 95)
    straw = straw * (1 - 0.22 * _peak(nm, 2100, 60) - 0.15 * _peak(nm, 2310, 45))
    straw = straw * np.exp(-0.12 * _liquid_water(nm))
    return np.asarray(straw + 0.33 * greenness * (vegetation(nm, 0.3) - straw))


def soil(nm: Spectrum, moisture: float) -> Spectrum:
    """Reflectance of a loamy soil, darker and with deeper water bands when moist.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.
    moisture : float
        From 0 (dry) to 1 (moist).

    Returns
    -------
    ndarray of float, shape (band,)
        Reflectance.
    """
    dry = 0.05 + 0.38 * (1.0 - np.exp(-np.clip(nm - 380.0, 0.0, None) / 420.0))
    dry = dry * (1 - 0.10 * _peak(nm, 485, 45) - 0.08 * _peak(nm, 880, 70))
    dry = dry * (1 - 0.12 * _peak(nm, 2205, 30))
    return np.asarray(dry * np.exp(-moisture * (0.75 + 0.5 * _liquid_water(nm))))


def clay_roof(nm: Spectrum, age: float) -> Spectrum:
    """Reflectance of red clay tiles: iron-oxide edge near 580 nm and dip near 870 nm.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.
    age : float
        From 0 (new, bright red) to 1 (weathered: darker, shallower features).

    Returns
    -------
    ndarray of float, shape (band,)
        Reflectance.
    """
    iron = 1.0 - 0.5 * age
    tile = 0.06 + 0.04 * age + 0.27 * iron * _step(nm, 588, 24) + 0.10 * _step(nm, 760, 60)
    tile = tile * (1 - 0.18 * iron * _peak(nm, 870, 55) - 0.08 * iron * _peak(nm, 660, 30))
    return np.asarray(tile * (1 - 0.05 * _peak(nm, 1940, 60)))


def concrete(nm: Spectrum, age: float) -> Spectrum:
    """Reflectance of concrete: a bright slow rise with a carbonate dip.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.
    age : float
        From 0 (fresh) to 1 (stained: darker and redder).

    Returns
    -------
    ndarray of float, shape (band,)
        Reflectance.
    """
    rise = 0.24 + 0.16 * _step(nm, 520.0 + 60.0 * age, 70.0) + 0.04 * _step(nm, 1200, 250)
    rise = rise * (1 - 0.10 * _peak(nm, 2340, 35) - 0.06 * _peak(nm, 1940, 60))
    return np.asarray(rise * (1.0 - 0.35 * age))


def asphalt(nm: Spectrum, age: float) -> Spectrum:
    """Reflectance of asphalt: dark and flat, brighter and redder with age.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.
    age : float
        From 0 (fresh tar) to 1 (worn, the stones show).

    Returns
    -------
    ndarray of float, shape (band,)
        Reflectance.
    """
    fresh = 0.045 + 0.015 * _step(nm, 900, 300)
    stones = 0.10 + 0.08 * _step(nm, 620, 120)
    dip = 1 - 0.06 * _peak(nm, 1730, 30) - 0.07 * _peak(nm, 2310, 35)
    return np.asarray((fresh + age * (stones - fresh)) * dip)


def painted_metal(nm: Spectrum, tint: float) -> Spectrum:
    """Reflectance of painted sheet metal, from blue enamel to off-white.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.
    tint : float
        From 0 (blue) to 1 (off-white).

    Returns
    -------
    ndarray of float, shape (band,)
        Reflectance.
    """
    blue = 0.07 + 0.26 * _peak(nm, 465, 38) + 0.30 * _step(nm, 735, 28)
    white = 0.10 + 0.55 * _step(nm, 415, 12)
    binder = 1 - 0.15 * _peak(nm, 1720, 40) - 0.25 * _step(nm, 2200, 80)
    return np.asarray((blue + tint * (white - blue)) * binder)


def water(nm: Spectrum, turbidity: float) -> Spectrum:
    """Reflectance of inland water: a green hump, black beyond the red.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.
    turbidity : float
        From 0 (clear) to 1 (sediment: brighter, its hump towards the red).

    Returns
    -------
    ndarray of float, shape (band,)
        Reflectance.
    """
    hump = (0.035 + 0.06 * turbidity) * _peak(nm, 545.0 + 35.0 * turbidity, 70.0)
    shoulder = 0.02 * turbidity * _peak(nm, 810, 30)
    return np.asarray(0.012 + 0.014 * (1 - _step(nm, 560, 60)) + hump + shoulder)


MATERIALS: dict[str, Callable[[Spectrum, float], Spectrum]] = {
    "vegetation": vegetation,
    "dry grass": dry_grass,
    "soil": soil,
    "clay roof": clay_roof,
    "concrete": concrete,
    "asphalt": asphalt,
    "painted metal": painted_metal,
    "water": water,
}


def skylight(nm: Spectrum) -> Spectrum:
    """Illumination of a cast shadow relative to full sun: weak and blue.

    Parameters
    ----------
    nm : ndarray of float, shape (band,)
        Wavelengths in nm.

    Returns
    -------
    ndarray of float, shape (band,)
        Fraction of the sunlit irradiance.
    """
    return np.asarray(0.08 + 0.22 * (nm / 450.0) ** -2.5)
