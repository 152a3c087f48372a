"""Write napari layers as cubes: ENVI, GeoTIFF, MATLAB."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from . import io
from ._layers import KEY, cube_of
from .errors import CubeError, WriteError

FullLayerData = tuple[Any, dict[str, Any], str]

_LONGEST = 120


def write_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save one image layer; the extension chooses the format.

    Wavelengths, georeference, history and record of a cube go with its pixels. A
    composite saves the cube that it shows.

    Parameters
    ----------
    path : str
        ``.hdr .img .dat .raw .bin .bsq .bil .bip`` (ENVI, two files), ``.tif .tiff``,
        ``.mat``.
    data : array_like
    meta : dict
        As of ``layer.as_layer_data_tuple()``.

    Returns
    -------
    list of str
        Every file that was written.

    Raises
    ------
    CubeError
        If the layer is no image of 2 or 3 dimensions.
    FormatError
        If the extension is missing or unknown, or the format does not hold the pixels.
    WriteError
        If the files cannot be written; earlier ones are as they were.
    """
    io.save_cube(cube_of(data, meta), path)
    return [str(file) for file in io.files_written(path)]


def write_images(path: str, layers: Sequence[FullLayerData]) -> list[str]:
    """Save several image layers, each as ``STEM_LAYER.EXT``: all of them, or none.

    A composite beside the layer of the cube that it shows adds no file of its own. A
    single layer takes the name as it is given.

    Parameters
    ----------
    path : str
        Folder, stem and extension.
    layers : sequence of (data, keywords, type)

    Returns
    -------
    list of str
        Every file that was written, in the order of the layers.

    Raises
    ------
    CubeError, FormatError, WriteError
        As :func:`write_image` raises them; no file is then new or changed.
    """
    cubes = _distinct(layers)
    target = Path(path).expanduser()
    if len(cubes) == 1:
        io.save_cube(cubes[0][1], target)
        return [str(file) for file in io.files_written(target)]
    targets = [target.with_name(name) for name in _names(target, [name for name, _ in cubes])]
    folder = target.absolute().parent
    if not folder.is_dir():
        raise WriteError(f"{path}: cannot be written: no folder {folder}")
    stage = folder / f".hsfusion-{secrets.token_hex(8)}"
    written: list[Path] = []
    try:
        stage.mkdir()
        for goal, (_, cube) in zip(targets, cubes, strict=True):
            io.save_cube(cube, stage / goal.name)
            written += io.files_written(stage / goal.name)
        goals = [target.with_name(file.name) for file in written]
        for goal in goals:
            if goal.is_dir():
                raise WriteError(f"{goal}: expected a file to write, found a folder")
        io.replace_together(written, goals)
    except OSError as error:
        if isinstance(error, WriteError):
            raise
        raise WriteError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return [str(goal) for goal in goals]


def write_envi(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save one image layer; as ENVI if the name has no extension."""
    return write_image(_named(path, ".hdr"), data, meta)


def write_geotiff(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save one image layer; as GeoTIFF if the name has no extension."""
    return write_image(_named(path, ".tif"), data, meta)


def write_matlab(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save one image layer; as MATLAB file if the name has no extension."""
    return write_image(_named(path, ".mat"), data, meta)


def write_envi_each(path: str, layers: Sequence[FullLayerData]) -> list[str]:
    """Save several image layers; as ENVI if the name has no extension."""
    return write_images(_named(path, ".hdr"), layers)


def write_geotiff_each(path: str, layers: Sequence[FullLayerData]) -> list[str]:
    """Save several image layers; as GeoTIFF if the name has no extension."""
    return write_images(_named(path, ".tif"), layers)


def write_matlab_each(path: str, layers: Sequence[FullLayerData]) -> list[str]:
    """Save several image layers; as MATLAB files if the name has no extension."""
    return write_images(_named(path, ".mat"), layers)


def _named(path: str, suffix: str) -> str:
    """`path`, with `suffix` where it has none: napari's dialog does not add it."""
    return path if Path(path).suffix else f"{path}{suffix}"


def _distinct(layers: Sequence[FullLayerData]) -> list[tuple[str, xr.DataArray]]:
    """Name and cube of each layer, without composites whose cube is there already."""
    rows = []
    for data, meta, kind in layers:
        name = str(meta.get("name") or "image")
        if kind != "image":
            raise CubeError(f"layer {name!r}: expected an image, got {kind}")
        entry = (meta.get("metadata") or {}).get(KEY) or {}
        rows.append((name, cube_of(data, meta), entry.get("kind") == "composite"))
    whole = [cube for _, cube, composite in rows if not composite]
    return [
        (name, cube)
        for name, cube, composite in rows
        if not (composite and any(cube is other for other in whole))
    ]


def _names(target: Path, layers: Sequence[str]) -> list[str]:
    """One file name a layer: safe on every system, and distinct whatever the case."""
    taken: set[str] = set()
    names = []
    for layer in layers:
        safe = re.sub(r"[^\w.+-]+", "-", layer).strip("-.")[:_LONGEST] or "image"
        # an ENVI image is two files, named alike but for the extension
        stem, number = f"{target.stem}_{safe}", 2
        unique = stem
        while unique.casefold() in taken:
            unique, number = f"{stem}-{number}", number + 1
        taken.add(unique.casefold())
        names.append(f"{unique}{target.suffix}")
    return names
