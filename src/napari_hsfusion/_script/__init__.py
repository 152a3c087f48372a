"""The Python lines that repeat a run exactly: from a cube's record to a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from .._observe import as_image
from .._provenance import image_fingerprint
from ..errors import CubeError, HSFusionError
from .images import IMAGES, image_lines, simulate_lines
from .responses import response_arguments
from .text import Call, Source, quoted

__all__ = ["as_script"]

_RECORD: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("method", str),
    ("parameters", Mapping),
    ("seed", int),
    ("scale", int),
    ("psf", (str, Mapping)),
    ("srf", list),
    ("msi_gain", list),
    ("inputs", Mapping),
    ("versions", Mapping),
    ("device", str),
)
_OUTPUTS = ("fused", "fused-again", "fused-once-more", "fused-at-last", "fused-in-the-end")


def as_script(cube: Any) -> str:
    """Give the Python lines that repeat exactly the run that made a cube.

    They run in napari's console, where the result becomes a layer, and as a program,
    which saves it. Images are opened from the files they came from, or simulated again;
    one that was in memory alone is taken from the viewer, or from a file to be saved
    first. The script checks that each image is still the one of the run.

    Parameters
    ----------
    cube : xarray.DataArray or path
        A fused cube, or an image of a simulated pair.

    Returns
    -------
    str
        Python source.

    Raises
    ------
    CubeError
        If no run made the cube, or its record lacks what it takes.
    """
    image = as_image(cube, "cube")
    past = image.attrs.get("history") or []
    record = image.attrs.get("record")
    if past and past[-1].get("step") == "simulate":
        return _simulated(image, past)
    if not isinstance(record, Mapping):
        raise CubeError(
            f"cube {str(image.name)!r}: no run made it, so there is none to repeat; expected a "
            "cube of fuse or an image of simulate, or a file that either was saved to"
        )
    for key, kind in _RECORD:
        if not isinstance(record.get(key), kind):
            got = type(record.get(key)).__name__
            raise CubeError(f"the record of the run: expected {key!r}, got {got}")
    for key in IMAGES:
        if not isinstance(record["inputs"].get(key), Mapping):
            raise CubeError(f"the record of the run: expected inputs {' and '.join(IMAGES)}")
    if record.get("dtype", "float32") != "float32":
        raise CubeError(f"the record of the run: expected dtype float32, got {record['dtype']}")
    return _fused(image, record)


def _fused(cube: xr.DataArray, record: Mapping[str, Any]) -> str:
    source = Source()
    _head(source, cube, record)
    source.gap()
    if "threads" in record:
        source.use("import torch")
        source.line(f"torch.set_num_threads({int(record['threads'])})")
        source.gap()
    image_lines(source, cube, record)
    source.gap()
    settings = _settings(source, record)
    preset = record.get("preset")
    call = Call("hs.fuse", *IMAGES, method=quoted(record["method"]))
    if preset is not None:
        call.add(preset=quoted(preset))
    call.add(scale=repr(record["scale"]), **response_arguments(source, cube, record))
    call.add(seed=repr(record["seed"]), device=quoted(record["device"]))
    if record.get("networks_loaded"):
        call.add(networks=_networks(source, record))
    samples = record.get("samples", 0)
    if samples:
        call.add(samples=repr(int(samples)))
    call.add(**settings)
    source.line(f"fused = {call}")
    read = {Path(str(said.get("source", ""))).name for said in record["inputs"].values()}
    results = {"fused": ""} | ({"hs.deviation_cube(fused)": "-deviation"} if samples else {})
    files = ({r: f"{stem}{end}.tif" for r, end in results.items()} for stem in _OUTPUTS)
    source.ending(next(named for named in files if not read & set(named.values())))
    return source.text()


def _head(source: Source, cube: xr.DataArray, record: Mapping[str, Any]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    where = [record["device"], record.get("name")]
    if "threads" in record:
        where.append(f"CPU threads: {record['threads']}")
    source.comment(
        f"Repeats the run that made the cube {str(cube.name)!r} with the method "
        f"{record['method']!r}. It ran with {versions} on {', '.join(str(w) for w in where if w)}. "
        "The same versions give the same bits on a CPU, and nearly the same on a GPU."
    )
    later = _steps_after(cube.attrs.get("history") or [])
    if later:
        source.comment(f"What was done to the cube after the run is not repeated: {later}.")


def _steps_after(past: Sequence[Mapping[str, Any]]) -> str:
    steps = [str(entry.get("step")) for entry in past]
    if "fuse" not in steps:
        return ""
    last = len(steps) - 1 - steps[::-1].index("fuse")
    return ", ".join(steps[last + 1 :])


def _simulated(cube: xr.DataArray, past: Sequence[Mapping[str, Any]]) -> str:
    entry = past[-1]
    image = entry.get("image")
    matrix = (cube.attrs.get("observation") or {}).get("srf")
    if image not in IMAGES or not isinstance(matrix, list):
        raise CubeError("a simulated image: expected its 'observation' with 'srf', got none")
    source = Source()
    source.comment(
        f"Repeats the simulation that made the image {str(cube.name)!r}, "
        f"with napari-hsfusion {entry.get('version')}."
    )
    source.gap()
    simulate_lines(source, cube, past, matrix, "pair")
    for key in IMAGES:
        source.line(f"{key} = pair.{key}")
    source.line(f"hs.verify({image}, {quoted(image_fingerprint(cube))})")
    source.ending({key: f"{key}.tif" for key in IMAGES})
    return source.text()


def _settings(source: Source, record: Mapping[str, Any]) -> dict[str, str]:
    """Settings that differ from the preset; all parameters where there was none."""
    from ..engine.methods import get_method

    version = record["versions"].get("napari-hsfusion")
    by = f"the record of the run, made by napari-hsfusion {version}"
    try:
        method = get_method(record["method"])
    except HSFusionError as error:
        raise CubeError(f"{by}: {error}") from error
    values = record["parameters"]
    known = {spec.name for spec in method.params.describe()}
    if set(values) != known:
        raise CubeError(
            f"{by}: expected the parameters {', '.join(sorted(known)) or 'none'} of method "
            f"{method.name!r}, got {', '.join(sorted(values)) or 'none'}"
        )
    preset = record.get("preset")
    if preset is None:
        name = method.params.__name__
        source.use(f"from napari_hsfusion.params import {name}")
        made = Call(name, **{key: _plain(value) for key, value in values.items()})
        return {"params": source.name("params", str(made))}
    if preset not in method.presets:
        raise CubeError(f"{by}: method {method.name!r} has no preset {preset!r}")
    usual = method.presets[preset].to_record()
    return {key: _plain(value) for key, value in values.items() if value != usual[key]}


def _plain(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


def _networks(source: Source, record: Mapping[str, Any]) -> str:
    said = record.get("networks")
    if not isinstance(said, Mapping):
        raise CubeError("the record of the run: it loaded networks, but does not say from where")
    folder = quoted(said["folder"])
    if said.get("fingerprint") is not None:
        source.line(f"hs.verify({folder}, {quoted(said['fingerprint'])})")
    return folder
