"""Source text of point spread functions and spectral responses, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from .. import cube as cubes
from ..errors import CubeError, ResponseError
from ..sensors.catalogue import find_sensor
from ..sensors.psf import PSF
from ..sensors.srf import load_response
from .text import Call, Source, array_text, quoted

_ESTIMATE = quoted("estimate")


def response_arguments(
    source: Source, cube: xr.DataArray, record: Mapping[str, Any]
) -> dict[str, str]:
    """Give the arguments ``psf`` and ``srf`` of a run; none of those the images carry.

    Parameters
    ----------
    source : Source
        Gets the lines that define them where they are long.
    cube : xarray.DataArray
        The fused cube.
    record : mapping
        Of the run.
    """
    out = {}
    spread, response = record.get("psf_from", "given"), record.get("srf_from", "given")
    if spread == "estimated":
        out["psf"] = _ESTIMATE
    elif spread == "given":
        out["psf"] = psf_text(source, record["psf"])
    if response == "estimated":
        out["srf"] = _ESTIMATE
    elif response == "given":
        bands = [str(band) for band in record.get("srf_bands") or ()]
        said = str(record.get("srf_source", "matrix"))
        if all(gain == 1.0 for gain in record["msi_gain"]):
            specs = (said, f"{said}:{','.join(bands)}")
            short = short_response(cube, specs, bands, record["srf"])
            out["srf"] = short or response_text(source, record["srf"], bands, said)
        else:
            out["srf"] = _with_gain(source, record, bands, said, out.get("psf", _ESTIMATE))
    return out


def _with_gain(
    source: Source, record: Mapping[str, Any], bands: Sequence[str], said: str, psf: str
) -> str:
    source.use("import numpy as np")
    source.use("from napari_hsfusion.api import Responses")
    call = Call(
        "Responses",
        psf="None" if psf == _ESTIMATE else psf_object(source, record["psf"]),
        srf=response_text(source, record["srf"], bands, said),
        gain=f"np.array({array_text(record['msi_gain'])})",
        record="{}",
    )
    return source.name("responses", str(call))


def psf_text(source: Source, note: str | Mapping[str, Any]) -> str:
    """Text of a point spread function as a record notes it."""
    return quoted(note) if isinstance(note, str) else psf_object(source, note)


def psf_object(source: Source, note: str | Mapping[str, Any]) -> str:
    """Text of the same as a :class:`~napari_hsfusion.sensors.psf.PSF`."""
    if isinstance(note, str):
        source.use("from napari_hsfusion.sensors.psf import parse_psf")
        return str(Call("parse_psf", quoted(note)))
    if "kind" not in note:
        raise CubeError(f"a PSF of the record: expected 'kind', got {', '.join(note)}")
    source.use("from napari_hsfusion.sensors.psf import PSF")
    call = Call("PSF", quoted(note["kind"]))
    if "sigma" in note:
        call.add(sigma=repr(float(note["sigma"])))
    if "kernel" in note:
        source.use("import numpy as np")
        call.add(kernel=f"np.array({array_text(note['kernel'])})")
    call.add(source=quoted(note.get("source", "")))
    if note.get("phase") is not None:
        call.add(phase=repr(float(note["phase"])))
    call.add(border=quoted(note.get("border", PSF.border)))
    return source.name("psf", str(call))


def response_text(source: Source, matrix: list[Any], bands: Sequence[str], said: str) -> str:
    """Text of a spectral response by its numbers."""
    source.use("import numpy as np")
    source.use("from napari_hsfusion.sensors.srf import Response")
    names = bands or [f"B{k}" for k in range(1, len(matrix) + 1)]
    call = Call(
        "Response",
        f"np.array({array_text(matrix)})",
        wavelength="None",
        names=f"({', '.join(quoted(name) for name in names)}{',' * (len(names) == 1)})",
        source=quoted(said),
    )
    return source.name("srf", str(call))


def short_response(
    cube: xr.DataArray, specs: Sequence[str], bands: Sequence[str], matrix: list[Any]
) -> str | None:
    """Text of a sensor's name, or of Gaussians, that gives a matrix to the last bit.

    Parameters
    ----------
    cube : xarray.DataArray
        With the wavelengths of the hyperspectral image.
    specs : sequence of str
        Specifications to try.
    bands : sequence of str
        Names of the matrix's rows.
    matrix : list of list of float

    Returns
    -------
    str or None
        None if none of them does.
    """
    widths = cube.coords["fwhm"].values if "fwhm" in cube.coords else None
    for spec in specs:
        head = spec.split(":")[0]
        if head.casefold() != "gaussian" and find_sensor(head) is None:
            continue
        try:
            response = load_response(spec, cubes.wavelengths(cube), widths)
        except ResponseError:
            continue
        if response.matrix.tolist() == matrix and list(response.names) == list(bands):
            return quoted(spec)
    return None
