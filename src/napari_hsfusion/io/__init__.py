"""Cubes from files and into files: ENVI, MATLAB, TIFF.

Reads are lazy, writes are atomic. The modules of the formats, and the libraries
they need, are imported when a file of that format is met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = [
    "SUFFIXES",
    "files_read",
    "files_written",
    "open_cube",
    "read_part",
    "read_windows",
    "replace_together",
    "save_cube",
    "sniff",
]

#: Extensions of each format that is written; ENVI data files may have any, or none.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "envi": (".hdr", ".img", ".dat", ".raw", ".bin", ".bsq", ".bil", ".bip"),
    "mat": (".mat",),
    "tiff": (".tif", ".tiff", ".gtif", ".gtiff", ".btf", ".tf8"),
}


def _supported() -> str:
    return "; ".join(f"{name}: {' '.join(known)}" for name, known in SUFFIXES.items())


def _by_suffix(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return next((name for name, known in SUFFIXES.items() if suffix in known), None)


def sniff(path: str | Path) -> str | None:
    """Format of a file: ``envi``, ``mat``, ``tiff``, or None.

    Reads at most 1024 bytes, and for ENVI data files the first bytes of the
    header beside them; opens nothing.
    """
    from .sniffing import sniff as look

    return look(path)


def files_read(path: str | Path) -> tuple[Path, ...]:
    """Every file that :func:`open_cube` reads for a path: of ENVI, header and data.

    Raises
    ------
    FormatError
        If one of an ENVI image's two files is not found.
    """
    path = Path(path).expanduser()
    if sniff(path) != "envi":
        return (path,)
    from .envi import envi_files

    return envi_files(path)


def files_written(path: str | Path) -> tuple[Path, ...]:
    """Every file that :func:`save_cube` writes for a path: of ENVI, header and data."""
    path = Path(path).expanduser()
    if _by_suffix(path) != "envi":
        return (path,)
    from .envi_write import envi_paths

    return envi_paths(path)


def replace_together(written: Sequence[Path], targets: Sequence[Path]) -> None:
    """Move written files to their places: all of them, or none.

    Parameters
    ----------
    written, targets : sequence of Path
        Pair by pair on one file system. A target that is a symbolic link stays
        one: the file it leads to is replaced.

    Raises
    ------
    OSError
        If a move fails; every target is as it was.
    """
    from ._atomic import replace_all

    replace_all(written, [target.resolve() for target in targets])


def read_part(data: Any, band: int, rows: slice, columns: slice) -> np.ndarray:
    """Rows and columns of one band, read from the file alone where it allows that.

    Parameters
    ----------
    data : array of shape (band, y, x)
        In memory or lazy; of a cube just opened, no more is read than is needed.
    band : int
    rows, columns : slice
        With steps, if only some are wanted.

    Returns
    -------
    ndarray, shape (y, x)
    """
    from ._parts import read_part as read

    return read(data, band, rows, columns)


def read_windows(data: Any, band: int, windows: Sequence[tuple[slice, slice]]) -> list[np.ndarray]:
    """Several windows of one band, which is read whole once where windows cost as much.

    Parameters
    ----------
    data : array of shape (band, y, x)
    band : int
    windows : sequence of (slice, slice)
        Rows and columns, without steps.

    Returns
    -------
    list of ndarray, shape (y, x)
    """
    from ._parts import read_windows as read

    return read(data, band, windows)


def open_cube(path: str | Path, variable: str | None = None) -> xr.DataArray:
    """Open a cube; pixels are read when they are asked for.

    Parameters
    ----------
    path : str or Path
        ENVI header or data file (the data file with any or no extension, bare
        or compressed with gzip), MATLAB file of version 5 or 7.3, TIFF or
        GeoTIFF (one image, or bands as pages). What the file holds counts, not
        its extension.
    variable : str, optional
        MATLAB files with several arrays: name of the one to open,
        ``structure.field`` for a field.

    Returns
    -------
    xarray.DataArray
        Dimensions (band, y, x) in the stored type and native byte order, with
        the coordinates and attributes of :mod:`napari_hsfusion.cube`, and the
        attribute ``record`` if a run record was saved with it. Its ``encoding``
        says where it is from: ``source``, the absolute path that was opened, and
        ``variable``, the one that was taken of a MATLAB file.

    Raises
    ------
    FormatError
        If there is no such file, or it is of a format or variant that is not
        read; display pictures (8-bit PNG, JPEG) are none.
    TruncatedFileError
        If the file is shorter than it says.
    VariableError
        If several arrays may be the cube, or `variable` is not in the file, or
        the format has no variables.
    """
    from ..errors import FormatError, VariableError
    from .sniffing import picture

    path = Path(path).expanduser()
    if path.is_dir():
        raise FormatError(f"{path}: expected a file, found a directory")
    if not path.exists():
        raise FormatError(f"{path}: no such file")
    kind = sniff(path)
    if kind is None:
        try:
            with path.open("rb") as file:
                start = file.read(1024)
        except OSError as error:
            raise FormatError(f"{path}: cannot be read: {error}") from error
        described = picture(start)
        if described is not None:
            raise FormatError(
                f"{path}: {described}: made for display, not a cube; supported are {_supported()}"
            )
        kind = _by_suffix(path)
        if kind is None:
            raise FormatError(
                f"{path}: unknown format, and no ENVI header beside it; "
                f"supported are {_supported()}"
            )
        if not start:
            raise FormatError(f"{path}: the file is empty")
    if kind == "mat":
        from .mat import open_mat

        cube = open_mat(path, variable)
    elif variable is not None:
        raise VariableError(f"{path}: variable={variable!r}: only MATLAB files have variables")
    elif kind == "tiff":
        from .tiff import open_tiff

        cube = open_tiff(path)
    else:
        from .envi import open_envi

        cube = open_envi(path)
    cube.encoding["source"] = str(path.absolute())
    return cube


def save_cube(
    cube: xr.DataArray,
    path: str | Path,
    *,
    record: Mapping[str, Any] | None = None,
    overwrite: bool = True,
    interleave: str | None = None,
    byte_order: str | None = None,
) -> Path:
    """Save a cube, whole or not at all.

    A lazy cube is computed and written in pieces; it may be read from the very
    file it is saved to. Everything that :mod:`napari_hsfusion.cube` lists comes
    back from :func:`open_cube` as it was, to the last bit.

    Parameters
    ----------
    cube : xarray.DataArray
        Dimensions (band, y, x).
    path : str or Path
        The extension chooses the format: ``.hdr`` (data in ``NAME.img``),
        ``.img .dat .raw .bin .bsq .bil .bip`` for ENVI, ``.mat``, ``.tif .tiff``.
    record : mapping, optional
        JSON-able record of the run that made the cube; without one, the cube's
        own attribute ``record`` is kept.
    overwrite : bool
        Whether existing files may be replaced.
    interleave : {'bsq', 'bil', 'bip'}, optional
        ENVI; GeoTIFF (bsq: planar, bip: chunky). By default what the ENVI
        extension says, or bsq.
    byte_order : {'little', 'big'}, optional
        ENVI and GeoTIFF; little by default.

    Returns
    -------
    Path
        The file that was named.

    Raises
    ------
    CubeError
        If it is no cube, or its record or history is not JSON-able.
    FormatError
        If the extension is unknown, or the format does not hold the type of the
        pixels, the interleave or the byte order.
    WriteError
        If the files cannot be written; earlier ones are as they were.
    """
    from ..cube import as_cube
    from ..errors import FormatError

    cube = as_cube(cube)
    path = Path(path).expanduser()
    kind = _by_suffix(path)
    if kind == "mat":
        if interleave is not None or byte_order is not None:
            raise FormatError(f"{path}: a MATLAB file has no choice of interleave or byte order")
        from .mat_write import save_mat

        return save_mat(cube, path, record=record, overwrite=overwrite)
    if kind is None:
        raise FormatError(f"{path}: unknown extension; supported are {_supported()}")
    if kind == "tiff":
        from .tiff_write import save_tiff as save
    else:
        from .envi_write import save_envi as save
    return save(
        cube,
        path,
        record=record,
        overwrite=overwrite,
        interleave=interleave,
        byte_order=byte_order,
    )
