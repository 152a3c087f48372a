"""Read cubes as napari layers. No Qt, no viewer: see ``_qt.open_files`` for those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import io
from ._layers import LayerData, cube_layers, placement
from .errors import VariableError

Reader = Callable[[str | Sequence[str]], list[LayerData]]
Choose = Callable[[Path, tuple[str, ...]], str | None]
Origins = Mapping[str, tuple[float, float]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Give the function that reads a file, or None if it is not for us.

    At most a kilobyte of each file is read.

    Parameters
    ----------
    path : str or sequence of str
        Several files must all be ours; each opens as an image of its own.

    Returns
    -------
    callable or None
        From the same `path` to layer data tuples.
    """
    paths = as_paths(path)
    if not paths or any(io.sniff(p) is None for p in paths):
        return None
    return read_all


def read_all(path: str | Sequence[str]) -> list[LayerData]:
    """Layers of one file, or of several one after the other."""
    return [layer for p in as_paths(path) for layer in read(p)]


def read(
    path: str | Path, choose: Choose | None = None, origins: Origins | None = None
) -> list[LayerData]:
    """Layers of a file; pixels stay in it until they are shown.

    Parameters
    ----------
    path : str or Path
    choose : callable, optional
        Asked where a MATLAB file holds several arrays that may be the cube: from the
        path and the descriptions of what the file holds to a variable's name, or None
        to open nothing.
    origins : mapping of str to (float, float), optional
        Zero of the canvas (y, x) for images of these coordinate reference systems, as
        the layers have it that they shall lie beside.

    Returns
    -------
    list of (data, keywords, type)
        The lowest layer first; empty if nothing was chosen.

    Raises
    ------
    VariableError
        Listing the variables, if there are several and nobody to choose.
    FormatError
        If the file cannot be read.
    """
    try:
        cube = io.open_cube(path)
    except VariableError as error:
        if choose is None or not error.variables:
            raise
        name = choose(Path(path), error.variables)
        if name is None:
            return []
        cube = io.open_cube(path, name)
    crs = cube.attrs.get("crs")
    origin = None if crs is None or origins is None else origins.get(crs)
    return cube_layers(cube, place=placement(cube, origin))


def as_paths(path: str | Sequence[str] | Path) -> list[str]:
    """Paths as a list, whether one came or several."""
    return [str(path)] if isinstance(path, (str, Path)) else [str(p) for p in path]
