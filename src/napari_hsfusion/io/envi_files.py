"""Which header belongs to which data file."""

from __future__ import annotations

from pathlib import Path

from ..errors import FormatError
from .envi_header import is_envi_header

DATA_SUFFIXES = (".img", ".dat", ".raw", ".bin", ".bsq", ".bil", ".bip")
_MORE_SUFFIXES = (".cube", ".hyspex", ".bsg", ".envi", ".bin32", ".lan", ".rfl", ".rad")
# files that stand beside a scene and are not its pixels
_COMPANIONS = {".hdr", ".xml", ".txt", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".mat", ".csv"}
_COMPANIONS |= {".ovr", ".enp", ".sta", ".prj", ".json", ".pdf", ".log", ".kml", ".roi", ".md"}


def _neighbours(directory: Path) -> dict[str, list[str]]:
    """File names of a directory under their lower-case spelling."""
    found: dict[str, list[str]] = {}
    try:
        for entry in sorted(directory.iterdir()):
            found.setdefault(entry.name.lower(), []).append(entry.name)
    except OSError as error:
        raise FormatError(f"{directory}: cannot be listed: {error}") from error
    return found


def _pick(directory: Path, names: dict[str, list[str]], wanted: str) -> Path | None:
    """The file called `wanted`, in this case or, failing that, in any."""
    candidates = names.get(wanted.lower(), [])
    for name in [wanted] if wanted in candidates else candidates:
        path = directory / name
        if path.is_file():
            return path
    return None


def find_header(data: Path) -> Path | None:
    """ENVI header of a data file, None if there is none.

    ``NAME.hdr`` is looked for before ``NAME.EXT.hdr``, as GDAL does; a
    ``.gz`` at the end of the name counts for nothing.
    """
    name = data.name
    stems = [name]
    if name.lower().endswith(".gz"):
        stems.insert(0, name[:-3])
    wanted = [f"{stem.rpartition('.')[0]}.hdr" for stem in stems if "." in stem.lstrip(".")]
    wanted += [f"{stem}.hdr" for stem in stems]
    names = _neighbours(data.parent)
    for candidate in dict.fromkeys(wanted):
        path = _pick(data.parent, names, candidate)
        if path is None:
            continue
        with path.open("rb") as file:
            if is_envi_header(file.read(64)):
                return path
    return None


def find_data(header: Path, interleave: str) -> Path:
    """Data file of an ENVI header.

    Parameters
    ----------
    header : Path
    interleave : str
        One of the extensions that are tried.

    Raises
    ------
    FormatError
        Listing what was looked for, if there is no such file or no single one.
    """
    directory, names = header.parent, _neighbours(header.parent)
    stem = header.name[: -len(header.suffix)] if header.suffix else header.name
    suffixes = dict.fromkeys(["", *DATA_SUFFIXES, f".{interleave}", *_MORE_SUFFIXES])
    wanted = [f"{stem}{suffix}" for suffix in suffixes]
    wanted += [f"{name}.gz" for name in wanted]
    for candidate in wanted:
        path = _pick(directory, names, candidate)
        if path is not None and path != header:
            return path
    # any other extension, if only one file has it
    others = [
        directory / name
        for group in names.values()
        for name in group
        if name.lower().startswith(f"{stem.lower()}.")
        and Path(name).suffix.lower() not in _COMPANIONS
        and "." not in Path(name.lower().removesuffix(".gz")[len(stem) + 1 :]).name
        and (directory / name).is_file()
    ]
    if len(others) == 1:
        return others[0]
    looked = ", ".join(wanted)
    several = f"; several files might be it: {', '.join(p.name for p in others)}" if others else ""
    raise FormatError(
        f"{header}: no data file beside this header; looked for {looked} "
        f"(upper and lower case){several}"
    )
