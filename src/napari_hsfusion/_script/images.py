"""Lines that get the images of a run: opened, simulated again, or from the viewer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from .._provenance import SCENES
from ..errors import CubeError
from .responses import psf_text, response_text, short_response
from .text import Call, Source, quoted

IMAGES = ("lr_hsi", "hr_msi")
_SIMULATED = ("scale", "psf", "snr_hsi_db", "snr_msi_db", "seed")

History = Sequence[Mapping[str, Any]]


def image_lines(source: Source, cube: xr.DataArray, record: Mapping[str, Any]) -> None:
    """Add the lines that define ``lr_hsi`` and ``hr_msi`` and check them.

    Parameters
    ----------
    source : Source
    cube : xarray.DataArray
        The fused cube; its wavelengths are the LR-HSI's.
    record : mapping
        Of the run.
    """
    pairs: dict[str, str] = {}
    for key in IMAGES:
        said = record["inputs"][key]
        past = said.get("history") or []
        if "source" in said:
            source.line(f"{key} = {_open(said)}")
        elif _is_simulated(past) and (_has_reference(past) or "layer" not in said):
            matrix = said.get("srf", record["srf"])
            twin = json.dumps([*past[:-1], {**past[-1], "image": None}, matrix])
            if twin not in pairs:
                name = f"pair_{len(pairs) + 1}" if pairs else "pair"
                simulate_lines(source, cube, past, matrix, name)
                pairs[twin] = name
            source.line(f"{key} = {pairs[twin]}.{past[-1]['image']}")
        elif _is_scene(past):
            source.line(f"{key} = {_scene(source, past[0])}")
        else:
            _from_memory(source, key, said)
        if "observation" in said and "source" in said:
            source.use("import json")
            source.use("from pathlib import Path")
            read = Call("json.loads", f'Path({quoted(said["observation"])}).read_text("utf-8")')
            source.line(f'{key}.attrs["observation"] = {read}')
        if "fingerprint" in said:
            source.line(f"hs.verify({key}, {quoted(said['fingerprint'])})")


def simulate_lines(
    source: Source, cube: xr.DataArray, past: History, matrix: list[Any], name: str
) -> None:
    """Add the lines that simulate a pair again.

    Parameters
    ----------
    source : Source
    cube : xarray.DataArray
        With the wavelengths of the reference, or without use for them.
    past : sequence of mapping
        History of an image of the pair; the simulation is its last entry.
    matrix : list of list of float
        Spectral response that was used.
    name : str
        Of the pair in the script.
    """
    entry = past[-1]
    for key in _SIMULATED:
        if key not in entry:
            raise CubeError(f"history of a simulated image: expected {key!r}, got none")
    reference = f"reference{name.removeprefix('pair')}"
    if "source" in entry:
        source.line(f"{reference} = {_open(entry)}")
    elif _is_scene(past[:-1]):
        source.line(f"{reference} = {_scene(source, past[0])}")
    else:
        _from_memory(source, reference, entry)
    bands = [str(band) for band in entry.get("bands") or ()]
    said = str(entry.get("srf_source", "matrix"))
    short = short_response(cube, (str(entry.get("srf", said)), said), bands, matrix)
    call = Call("hs.simulate", reference, scale=repr(entry["scale"]))
    call.add(
        psf=psf_text(source, entry["psf"]),
        srf=short or response_text(source, matrix, bands, said),
        **_noise(entry["snr_hsi_db"], entry["snr_msi_db"]),
        seed=repr(entry["seed"]),
    )
    if entry.get("crop") or "cropped" in entry:
        call.add(crop="True")
    source.line(f"{name} = {call}")


def _noise(hsi: float | None, msi: float | None) -> dict[str, str]:
    """Arguments for two levels in dB; a level of one image alone goes over None for both."""
    if hsi == msi:
        return {"snr_db": repr(hsi)}
    if msi is None:
        return {"snr_db": "None", "snr_hsi": repr(hsi)}
    return {"snr_db": repr(hsi), "snr_msi": repr(msi)}


def _is_simulated(past: History) -> bool:
    return bool(past) and past[-1].get("step") == "simulate" and past[-1].get("image") in IMAGES


def _has_reference(past: History) -> bool:
    return "source" in past[-1] or _is_scene(past[:-1])


def _is_scene(past: History) -> bool:
    return len(past) == 1 and past[0].get("step") in SCENES


def _scene(source: Source, entry: Mapping[str, Any]) -> str:
    name = str(entry["step"])
    source.use(f"from napari_hsfusion.scene import {name}")
    return str(Call(name, **{key: repr(entry[key]) for key in SCENES[name] if key in entry}))


def _open(said: Mapping[str, Any]) -> str:
    call = Call("hs.open_cube", quoted(said["source"]))
    if "variable" in said:
        call.add(variable=quoted(said["variable"]))
    return str(call)


def _from_memory(source: Source, key: str, said: Mapping[str, Any]) -> None:
    file = quoted(f"{key}.tif")
    if "layer" in said:
        source.comment(
            f"{key} was in napari's viewer alone: the next line is for napari's console. To run "
            f"elsewhere, save that layer to a file and write {key} = hs.open_cube(FILE)."
        )
        source.line(f"{key} = hs.layer_cube(viewer.layers[{quoted(said['layer'])}])")
        return
    name = "" if said.get("name") is None else f" under the name {said['name']!r}"
    source.comment(
        f"{key} was in memory alone{name}: save it first with hs.save_cube(IMAGE, {file}), or "
        "have the next line take it from where it is."
    )
    source.line(f"{key} = hs.open_cube({file})")
