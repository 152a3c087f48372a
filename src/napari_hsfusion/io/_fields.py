"""What a file says beside its pixels, and the part that a format cannot hold.

Every format has places of its own for wavelengths, georeference, no-data value
and scale; other programs read those. What does not fit there (history, run
record, or a value that the format would round) travels as JSON text beside
them. A value in the JSON is believed only as long as the native one beside it
is still what it was when both were written: who edits a header is heard.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from ..cube import make_cube
from ..errors import CubeError, FormatError

logger = logging.getLogger(__name__)

VERSION = 1
_OWN_ATTRS = {
    "scale_factor",
    "add_offset",
    "history",
    "crs",
    "transform",
    "nodata",
    "observation",
    "metadata",
    "record",
}


@dataclass
class Fields:
    """Everything native to a file but its pixels; see :mod:`napari_hsfusion.cube`."""

    wavelength: list[float] | None = None
    fwhm: list[float] | None = None
    good_band: list[bool] | None = None
    band_name: list[str] | None = None
    crs: str | None = None
    transform: list[float] | None = None
    nodata: float | int | None = None
    scale_factor: float = 1.0
    add_offset: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, cube: xr.DataArray) -> Fields:
        """Take the fields of a cube."""
        values: dict[str, Any] = {}
        for key in ("wavelength", "fwhm", "good_band", "band_name"):
            if key in cube.coords:
                values[key] = np.asarray(cube.coords[key].values).tolist()
        for key in ("crs", "transform", "nodata", "scale_factor", "add_offset"):
            if cube.attrs.get(key) is not None:
                values[key] = plain(cube.attrs[key], f"attribute {key}")
        if cube.attrs.get("metadata"):
            values["metadata"] = plain(cube.attrs["metadata"], "attribute metadata")
        return cls(**values)


def plain(value: Any, what: str) -> Any:
    """Copy of `value` in JSON types, with NumPy numbers and paths converted.

    Raises
    ------
    CubeError
        If it holds anything that JSON cannot.
    """
    try:
        return json.loads(json.dumps(value, default=_convert))
    except (TypeError, ValueError) as error:
        raise CubeError(f"{what}: expected JSON-able values: {error}") from error


def _convert(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON-able")


def pack(cube: xr.DataArray, record: Mapping[str, Any] | None, native: Fields) -> dict[str, Any]:
    """Collect what must travel as JSON.

    Parameters
    ----------
    cube : xarray.DataArray
    record : mapping or None
        The run's record; without one, the cube's own attribute ``record``.
    native : Fields
        What a reader gets from the format's own places for this cube.

    Returns
    -------
    dict
        JSON-able.

    Raises
    ------
    CubeError
        If record, history, observation or metadata are not JSON-able.
    """
    out: dict[str, Any] = {"version": VERSION}
    if cube.name is not None:
        out["name"] = str(cube.name)
    if "band" in cube.coords:
        bands = np.asarray(cube.coords["band"].values).tolist()
        if bands != list(range(1, len(bands) + 1)):
            out["band"] = plain(bands, "coordinate band")
    record = cube.attrs.get("record") if record is None else record
    if record is not None:
        out["record"] = plain(record, "record")
    for key in ("history", "observation"):
        if cube.attrs.get(key):
            out[key] = plain(cube.attrs[key], f"attribute {key}")
    true = asdict(Fields.of(cube))
    stated = asdict(native)
    metadata = {
        k: v for k, v in true.pop("metadata").items() if not _same(stated["metadata"].get(k), v)
    }
    if metadata:
        out["metadata"] = metadata
    exact = {k: [plain(stated[k], k), v] for k, v in true.items() if not _same(stated[k], v)}
    if exact:
        out["exact"] = exact
    others = {}
    for attribute, value in cube.attrs.items():
        if attribute in _OWN_ATTRS:
            continue
        try:
            others[str(attribute)] = plain(value, str(attribute))
        except CubeError:
            logger.warning("attribute %s is not JSON-able and was not saved", attribute)
    if others:
        out["attrs"] = others
    return out


def _same(a: Any, b: Any) -> bool:
    # as text: NaN equals NaN, 1 differs from 1.0, -0.0 from 0.0
    return json.dumps(a) == json.dumps(b)


def dumps(extras: Mapping[str, Any]) -> str:
    """ASCII JSON text of what :func:`pack` collected."""
    return json.dumps(extras, separators=(",", ":"))


def loads(text: str | None, where: object) -> dict[str, Any]:
    """Inverse of :func:`dumps`; damaged text is reported in the log and ignored."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        logger.warning("%s: damaged record ignored", where)
        return {}
    return found


def build(data: Any, native: Fields, extras: Mapping[str, Any], name: str) -> xr.DataArray:
    """Cube of pixels, native fields and what travelled as JSON.

    Parameters
    ----------
    data : array of shape (band, y, x)
    native : Fields
    extras : mapping
        As :func:`loads` returns it.
    name : str
        Name of the scene if `extras` holds none.

    Raises
    ------
    FormatError
        If the fields do not form a cube.
    """
    values = asdict(native)
    metadata = {**values.pop("metadata"), **_mapping(extras, "metadata")}
    for key, pair in _mapping(extras, "exact").items():
        if key in values and isinstance(pair, list) and len(pair) == 2:
            stated = plain(values[key], key)
            if _same(stated, pair[0]):
                values[key] = pair[1]
    history = extras.get("history")
    observation = extras.get("observation")
    try:
        cube = make_cube(
            data,
            **values,
            history=history if isinstance(history, list) else (),
            observation=observation if isinstance(observation, dict) else None,
            metadata=metadata,
            name=str(extras.get("name", name)),
        )
    except CubeError as error:
        raise FormatError(f"{name}: {error}") from error
    bands = extras.get("band")
    if isinstance(bands, list) and len(bands) == cube.sizes["band"]:
        cube = cube.assign_coords(band=bands)
    if "record" in extras:
        cube.attrs["record"] = extras["record"]
    for key, value in _mapping(extras, "attrs").items():
        cube.attrs.setdefault(key, value)
    return cube


def _mapping(extras: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = extras.get(key)
    return value if isinstance(value, dict) else {}


def flags(values: list[Any] | None, bands: int, where: object) -> list[bool] | None:
    """Bad-band list as booleans (non-zero is good), None if it does not fit."""
    if not values:
        return None
    try:
        out = [float(v) != 0 for v in values]
    except (TypeError, ValueError):
        logger.warning("%s: bad-band list ignored, not all of it are numbers", where)
        return None
    if len(out) != bands:
        logger.warning("%s: bad-band list ignored, %d values for %d bands", where, len(out), bands)
        return None
    return out


def number(value: Any, dtype: np.dtype[Any]) -> float | int | None:
    """A no-data value as the pixels' own kind of number, None if it is no number."""
    try:
        if isinstance(value, str) and dtype.kind in "iu":
            try:
                return int(value)
            except ValueError:
                value = float(value)
        out = float(value)
    except (TypeError, ValueError):
        return None
    return int(out) if dtype.kind in "iu" and out.is_integer() else out


def check_dtype(cube: xr.DataArray, supported: str, what: str) -> None:
    """Raise FormatError unless the cube's type is among `supported` (names, spaced)."""
    name = cube.dtype.newbyteorder("=").name
    if name not in supported.split():
        raise FormatError(
            f"{what} cannot hold pixels of type {name}; expected one of {supported}: "
            "convert with cube.astype(...) first"
        )


def check_scales(scales: np.ndarray, offsets: np.ndarray) -> tuple[float, float] | None:
    """The one scale and offset that all bands share, or None if they differ."""
    if (scales == scales[0]).all() and (offsets == offsets[0]).all():
        return float(scales[0]), float(offsets[0])
    return None


__all__ = [
    "Fields",
    "build",
    "check_dtype",
    "check_scales",
    "dumps",
    "flags",
    "loads",
    "number",
    "pack",
    "plain",
]
