"""Wavelengths and the like among the tags of a raster dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import _fields
from ._fields import Fields
from ._units import quantity_in, to_nanometres, unit_of

EXTRAS_TAG = "HSFUSION"
_CENTRES = ("wavelength", "wavelengths", "center_wavelength", "central_wavelength", "wavelength_nm")
_WIDTHS = ("fwhm", "bandwidth", "fwhm_nm")
_UNITS = ("wavelength_units", "wavelength_unit", "units_wavelength", "fwhm_units")
_FLAGS = ("bbl", "good_band")


def _first(tags: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    for name in names:
        if tags.get(name, "").strip():
            return tags[name].strip()
    return None


def _lower(tags: Mapping[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in tags.items()}


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [v.strip() for v in text.strip(" {}[]()").split(",")]


def read_band_tags(dataset: Any, native: Fields, where: object) -> None:
    """Set wavelength, fwhm, good bands and names from what the bands say.

    Looked at in turn: tags of the bands, GDAL's domain IMAGERY, descriptions
    of the bands such as ``band 3 (429.3 nm)``, lists among the tags of the
    whole dataset.

    Parameters
    ----------
    dataset : rasterio.DatasetReader
    native : Fields
        Changed in place.
    where : object
        Named in messages.
    """
    bands = range(1, dataset.count + 1)
    own = [_lower(dataset.tags(b)) for b in bands]
    imagery = [_lower(dataset.tags(b, ns="IMAGERY")) for b in bands]
    whole = _lower(dataset.tags())
    names = [d or "" for d in dataset.descriptions]
    centres, unit = _centres(own, imagery, names, whole)
    widths, width_unit = _widths(own, imagery, whole)
    # widths of another unit than the centres are converted apart
    both = width_unit in (None, unit) or centres is None
    wavelength, fwhm = to_nanometres(
        centres, widths if both else None, unit or width_unit, dataset.count, where
    )
    if not both:
        _, fwhm = to_nanometres(None, widths, width_unit, dataset.count, where)
    native.wavelength = None if wavelength is None else wavelength.tolist()
    native.fwhm = None if fwhm is None else fwhm.tolist()
    marks: list[Any] | None = [_first(tags, _FLAGS) for tags in own]
    if marks is not None and None in marks:
        marks = _list(_first(whole, _FLAGS))
    native.good_band = _fields.flags(marks, dataset.count, where)
    if any(names):
        native.band_name = names


def _centres(
    own: list[dict[str, str]],
    imagery: list[dict[str, str]],
    names: list[str],
    whole: dict[str, str],
) -> tuple[list[str] | None, str | None]:
    found = [_first(tags, _CENTRES) for tags in own]
    if None not in found:
        return _split(found, _first(own[0], _UNITS) or _first(whole, _UNITS) or _nm(own[0], "wave"))
    found = [tags.get("central_wavelength_um") for tags in imagery]
    if None not in found:
        return _split(found, "um")
    quantities = [quantity_in(name) for name in names]
    known = [q for q in quantities if q is not None]
    if len(known) == len(names) and len({unit_of(unit) for _, unit in known}) == 1:
        return [value for value, _ in known], known[0][1]
    return _list(_first(whole, _CENTRES)), _first(whole, _UNITS) or _nm(whole, "wave")


def _widths(
    own: list[dict[str, str]], imagery: list[dict[str, str]], whole: dict[str, str]
) -> tuple[list[str] | None, str | None]:
    found = [_first(tags, _WIDTHS) for tags in own]
    if None not in found:
        return _split(found, _first(own[0], _UNITS) or _nm(own[0], "fwhm"))
    found = [tags.get("fwhm_um") for tags in imagery]
    if None not in found:
        return _split(found, "um")
    return _list(_first(whole, _WIDTHS)), _first(whole, _UNITS) or _nm(whole, "fwhm")


def _nm(tags: Mapping[str, str], start: str) -> str | None:
    return "nm" if any(k.startswith(start) and k.endswith("_nm") for k in tags) else None


def _split(values: list[str | None], unit: str | None) -> tuple[list[str], str | None]:
    """Numbers of texts such as ``400 nm``, and the unit they state."""
    out: list[str] = []
    for value in values:
        quantity = quantity_in(value or "")
        if quantity is not None:
            out.append(quantity[0])
            unit = quantity[1]
        else:
            out.append(value or "")
    return out, unit
