"""Where the images of a run came from, and whether an image is still the one of the run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from . import cube as cubes
from ._estimate import Responses
from ._observe import used_bands
from .errors import CubeError, WeightsError

SCENES = {"demo_scene": ("size", "bands", "seed", "longest_nm"), "indian_pines": ()}
"""History steps that make a scene, and their arguments: functions of
:mod:`napari_hsfusion.scene`."""

_DIGITS = 32


def verify(target: Any, fingerprint: str) -> None:
    """Make sure that an image, or a folder of networks, is the one of an earlier run.

    Parameters
    ----------
    target : xarray.DataArray, or path of a folder
    fingerprint : str
        As the run's record has it: of an image's physical values, used bands,
        wavelengths and stored responses; of a folder's weights.

    Raises
    ------
    CubeError
        If it is another image, or none.
    WeightsError
        If the folder holds other networks, or none.
    """
    if isinstance(target, str | os.PathLike):
        found = networks_fingerprint(Path(target))
        if found != fingerprint:
            raise WeightsError(
                f"{target}: expected the networks of the earlier run (fingerprint "
                f"{fingerprint}), got {found or 'a folder without networks'}: they were trained "
                "anew or moved"
            )
        return
    cube = cubes.check_cube(target, "image of the earlier run")
    found = image_fingerprint(cube)
    if found != fingerprint:
        raise CubeError(
            f"image {str(cube.name)!r}: expected the image of the earlier run (fingerprint "
            f"{fingerprint}), got another ({found}): its file has changed, or it was changed in "
            "memory before that run; save the image as it was, and open that file here"
        )


def image_fingerprint(
    cube: xr.DataArray,
    values: npt.NDArray[np.float32] | None = None,
    used: npt.NDArray[np.bool_] | None = None,
) -> str:
    """Digest of everything of an image that a fusion reads.

    Parameters
    ----------
    cube : xarray.DataArray
    values : ndarray, shape (band, y, x), float32, optional
        Its physical values, where they are in memory.
    used : ndarray of bool, shape (band,), optional
        Bands that are used, where that is known.
    """
    if values is None:
        values = cubes.to_physical(cube)
    if used is None:
        used = used_bands(cube, values, "image")
    said = cube.attrs.get("observation")
    stored = {key: said[key] for key in _STORED if said.get(key) is not None} if said else {}
    centres = cubes.wavelengths(cube)
    about = {
        "shape": list(values.shape),
        "used": used.tolist(),
        "wavelength": None if centres is None else centres.tolist(),
        "observation": stored,
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=_plain).encode())
    for band in values:
        digest.update(np.ascontiguousarray(band, dtype="<f4").data)
    return digest.hexdigest()[:_DIGITS]


_STORED = ("psf", "srf", "noise_x", "noise_y")


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def networks_fingerprint(folder: Path) -> str | None:
    """Digest of the weights in a folder of networks; None if there are none."""
    files = sorted(folder.expanduser().glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:_DIGITS]


def run_origins(
    responses: Responses, psf: Any, srf: Any, networks: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """What a run's record says of how its responses and networks were come by.

    Parameters
    ----------
    responses : Responses
        That were used.
    psf, srf, networks
        As the run was given them.

    Returns
    -------
    dict
        ``psf_from`` and ``srf_from`` (``given``, ``images``, ``estimated``),
        ``srf_bands``, and ``networks`` (``folder``, ``fingerprint``) if any.
    """
    estimated = responses.record
    given = isinstance(srf, Responses)
    out: dict[str, Any] = {
        "psf_from": _whence(psf is not None or given, bool({"psf", "both"} & estimated.keys())),
        "srf_from": _whence(srf is not None, bool({"srf", "both"} & estimated.keys())),
        "srf_bands": list(responses.srf.names),
    }
    if networks is not None:
        folder = Path(networks).expanduser().absolute()
        out["networks"] = {"folder": str(folder), "fingerprint": networks_fingerprint(folder)}
    return out


def _whence(given: bool, estimated: bool) -> str:
    if estimated:
        return "estimated"
    return "given" if given else "images"


def input_origin(
    cube: xr.DataArray,
    values: npt.NDArray[np.float32],
    used: npt.NDArray[np.bool_],
    record: Mapping[str, Any],
) -> dict[str, Any]:
    """What a run's record says of where one of its images came from.

    Parameters
    ----------
    cube : xarray.DataArray
    values : ndarray, shape (band, y, x), float32
        Its physical values.
    used : ndarray of bool, shape (band,)
    record : mapping
        The record so far, with ``srf``.

    Returns
    -------
    dict
        ``fingerprint``; ``source``, ``variable`` and ``observation`` (a JSON file) of
        an image from a file, else ``history`` and ``srf`` of a simulated one;
        ``layer`` of one from the viewer.
    """
    out: dict[str, Any] = {"fingerprint": image_fingerprint(cube, values, used)}
    for key in ("source", "variable", "observation", "layer"):
        if cube.encoding.get(key) is not None:
            out[key] = str(cube.encoding[key])
    past = cube.attrs.get("history") or []
    if "source" not in out and past and past[-1].get("step") in ("simulate", *SCENES):
        out["history"] = [dict(entry) for entry in past]
        simulated = (cube.attrs.get("observation") or {}).get("srf")
        if past[-1]["step"] == "simulate" and simulated != record["srf"]:
            out["srf"] = simulated
    return out
