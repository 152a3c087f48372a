"""Band positions in whatever unit a file states them, as nanometres."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import numpy as np

logger = logging.getLogger(__name__)

_METRE_FACTORS = {"nm": Decimal(1), "um": Decimal(1000), "mm": Decimal(10) ** 6}
_METRE_FACTORS |= {"cm": Decimal(10) ** 7, "m": Decimal(10) ** 9, "angstrom": Decimal("0.1")}
# wavelength in nm = constant / value
_RECIPROCALS = {"cm-1": 1e7, "ghz": 299_792_458.0, "mhz": 299_792_458_000.0}
_SPELLINGS = {
    "nm": "nm nanometer nanometers nanometre nanometres",
    "um": "um \u00b5m \u03bcm micron microns micrometer micrometers micrometre micrometres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres",
    "angstrom": "a \u00e5 angstrom angstroms",
    "cm-1": "cm-1 cm^-1 1/cm wavenumber wavenumbers",
    "ghz": "ghz gigahertz",
    "mhz": "mhz megahertz",
    "index": "index none",
}
_UNITS = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}
_QUANTITY = re.compile(
    r"\(?\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([A-Za-z\u00b5\u03bc/^-]+)\s*\)?\s*$"
)


def unit_of(text: str | None) -> str | None:
    """Canonical name of a unit (``nm``, ``um``, ``cm-1``, ``index`` …), None if unknown."""
    return None if text is None else _UNITS.get(text.strip().strip("{}").strip().lower())


def quantity_in(text: str) -> tuple[str, str] | None:
    """Number and unit at the end of a text such as ``band 3 (429.3 nm)``, if there are any."""
    match = _QUANTITY.search(text)
    if match and unit_of(match[2]) not in (None, "index"):
        return match[1], match[2]
    return None


def _decimal(value: object) -> Decimal:
    return Decimal(value.strip() if isinstance(value, str) else repr(float(value)))  # type: ignore[arg-type]


def to_nanometres(
    centres: Iterable[object] | None,
    widths: Iterable[object] | None,
    unit: str | None,
    bands: int,
    where: object,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Band centres and widths in nm.

    Parameters
    ----------
    centres, widths : iterable of str or float, or None
        As the file states them; text is converted in decimal, so that 0.42 um
        is 420.0 nm and not its neighbour.
    unit : str or None
        As the file states it. Where it is unknown, centres that are all below
        100 (or widths below 1, if there are no centres) are taken for
        micrometres, others for nanometres.
    bands : int
        Number of values that is expected.
    where : object
        Named in the log message if values have to be dropped.

    Returns
    -------
    wavelength, fwhm : numpy.ndarray of float64, shape (bands,), or None
        None where the file has none, or where they make no sense (other
        count, not positive, not numbers).
    """
    name = unit_of(unit)
    if name == "index":
        return None, None
    first = _numbers(centres, bands, "wavelength", where)
    second = _numbers(widths, bands, "fwhm", where)
    if name is None:
        if first is not None:
            name = "um" if max(first) < 100 else "nm"
        elif second is not None:
            name = "um" if max(second) < 1 else "nm"
        else:
            return None, None
    if name in _METRE_FACTORS:
        factor = _METRE_FACTORS[name]
        scaled = [
            None if v is None else np.array([float(x * factor) for x in v]) for v in (first, second)
        ]
        return scaled[0], scaled[1]
    if first is None:
        return None, None
    position = np.array([float(x) for x in first])
    wavelength = _RECIPROCALS[name] / position
    if second is None:
        return wavelength, None
    return wavelength, wavelength * np.array([float(x) for x in second]) / position


def _numbers(
    values: Iterable[object] | None, bands: int, what: str, where: object
) -> list[Decimal] | None:
    if values is None:
        return None
    items = list(values)
    if not items:
        return None
    try:
        numbers = [_decimal(v) for v in items]
    except (InvalidOperation, ValueError, TypeError):
        logger.warning("%s: %s ignored, not all of it are numbers", where, what)
        return None
    if len(numbers) != bands:
        logger.warning("%s: %s ignored, %d values for %d bands", where, what, len(numbers), bands)
        return None
    if not all(n.is_finite() and n > 0 and np.isfinite(float(n)) for n in numbers):
        logger.warning("%s: %s ignored, not all of it are positive numbers", where, what)
        return None
    return numbers
