"""Scenes that networks are trained on: found, opened, measured; or skipped with a reason."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from .. import cube as cubes
from ..errors import CubeError, FormatError, HSFusionError, ParameterError
from ..io import files_read, open_cube
from ..io.windows import read_window

TILE = 256
"""Side of the tiles that a scene is measured by, pixels."""

MOST_TILES = 64
"""Tiles that a scene is measured by at most, evenly spread over it."""

_WHOLE_DIGEST = 256 * 2**20
_END = 2**20
_APART_NM = 1.0


@dataclass(frozen=True)
class Skipped:
    """An input that is not trained on, and why."""

    name: str
    reason: str


@dataclass
class Scene:
    """A reference cube whose pixels are read window by window.

    Attributes
    ----------
    name : str
        File name, or the cube's own name.
    cube : xarray.DataArray
        As it was opened; may be lazy.
    shape : (int, int, int)
        Good bands, rows and columns; the size is a multiple of the ratio.
    bands : ndarray of int, shape (C,)
        Good bands, 0-based.
    path : Path or None
    low, high : float
        Extremes of the values, of a sample of tiles if the scene is large.
    sampled : bool
        Whether they are of a sample.
    stored : ndarray or None
        Pixels in the stored type, where they are kept in memory.
    """

    name: str
    cube: xr.DataArray
    shape: tuple[int, int, int]
    bands: npt.NDArray[np.intp]
    path: Path | None = None
    low: float = 0.0
    high: float = 0.0
    sampled: bool = False
    stored: npt.NDArray[Any] | None = field(default=None, repr=False)

    @property
    def wavelength(self) -> npt.NDArray[np.float64] | None:
        """Centres of the good bands, nm."""
        centres = cubes.wavelengths(self.cube)
        return None if centres is None else centres[self.bands]

    @property
    def span(self) -> float:
        """Difference of the largest and the smallest value, by which crops are divided."""
        return self.high - self.low

    def nbytes(self) -> int:
        """Bytes of all its pixels in the stored type."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.cube.dtype.itemsize

    def window(self, rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Physical values (C, rows, columns) of a part, NaN where nothing was measured."""
        if self.stored is not None:
            part = self.stored[:, slice(*rows), slice(*columns)]
        else:
            part = self._read(rows, columns)
        values = xr.DataArray(part, dims=cubes.DIMS, attrs=self.cube.attrs)
        return cubes.to_physical(values)

    def keep(self) -> None:
        """Read all pixels into memory."""
        self.stored = self._read((0, self.shape[1]), (0, self.shape[2]))

    def _read(self, rows: tuple[int, int], columns: tuple[int, int]) -> npt.NDArray[Any]:
        part = read_window(self.cube.data, (0, self.cube.shape[0]), rows, columns)
        return part if len(self.bands) == len(part) else part[self.bands]

    def tiles(self) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Rows and columns of the tiles that the scene is measured by."""
        _, height, width = self.shape
        places = [
            ((y, min(y + TILE, height)), (x, min(x + TILE, width)))
            for y in range(0, height, TILE)
            for x in range(0, width, TILE)
        ]
        if len(places) > MOST_TILES:
            picks = np.linspace(0, len(places) - 1, MOST_TILES).round().astype(int)
            places = [places[k] for k in picks]
            self.sampled = True
        yield from places

    def measure(self) -> None:
        """Find the extremes of the values.

        Raises
        ------
        CubeError
            If there is no value, or only one.
        """
        low, high = np.inf, -np.inf
        for rows, columns in self.tiles():
            values = self.window(rows, columns)
            known = values[np.isfinite(values)]
            if known.size:
                low, high = min(low, float(known.min())), max(high, float(known.max()))
        if not high > low:
            found = "no value" if high < low else f"{low:g} throughout"
            raise CubeError(f"expected a scene of several values, got {found}")
        self.low, self.high = low, high

    def record(self) -> dict[str, Any]:
        """JSON-able: name, size, extremes and a digest of the pixels."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "low": self.low,
            "high": self.high,
            "sampled": self.sampled,
            "digest": self._digest(),
        }

    def _digest(self) -> str:
        if self.path is None:
            digest = hashlib.sha256()
            for rows, columns in self.tiles():
                digest.update(np.ascontiguousarray(self.window(rows, columns)).data)
            return f"sha256-values:{digest.hexdigest()}"
        return "; ".join(f"{file.name} {_file_digest(file)}" for file in files_read(self.path))


@dataclass(frozen=True)
class SceneSet:
    """Scenes of one kind: the same bands, each at least as large as a patch.

    Attributes
    ----------
    scenes : tuple of Scene
    skipped : tuple of Skipped
    """

    scenes: tuple[Scene, ...]
    skipped: tuple[Skipped, ...]

    @property
    def bands(self) -> int:
        """Bands C of every scene."""
        return self.scenes[0].shape[0]

    @property
    def wavelength(self) -> npt.NDArray[np.float64] | None:
        """Band centres in nm, of the first scene that has them."""
        known = (scene.wavelength for scene in self.scenes)
        return next((centres for centres in known if centres is not None), None)

    def kept_bytes(self) -> int:
        """Bytes of the scenes that are kept in memory."""
        return sum(s.stored.nbytes for s in self.scenes if s.stored is not None)


def open_scenes(
    data: Any,
    *,
    ratio: int,
    patch: int,
    bands: int | None = None,
    wavelength: Sequence[float] | None = None,
    memory: float = 1e9,
    what: str = "training data",
) -> Generator[tuple[int, int], None, SceneSet]:
    """Open and measure every scene there is; what cannot be used is listed.

    Parameters
    ----------
    data : path, xarray.DataArray, iterable of them, or SceneSet
        Folders are searched through, hidden files left out. A set that is open already
        is given back as it is.
    ratio : int
        Scenes are cut at the bottom and right to a multiple of it.
    patch : int
        Least side of a scene, pixels.
    bands : int, optional
        Band count that is wanted; by default the one that most scenes have.
    wavelength : sequence of float, optional
        Band centres that are wanted, nm; by default the first scene's.
    memory : float
        Bytes of pixels that may be kept in memory; other scenes are read as needed.
    what : str
        What the scenes are, for the messages.

    Returns
    -------
    SceneSet

    Yields
    ------
    tuple of int
        Scenes looked at, and how many there are.

    Raises
    ------
    ParameterError
        If no scene is left, saying what was found.
    """
    if isinstance(data, SceneSet):
        yield len(data.scenes), len(data.scenes)
        return data
    found, skipped = find_scenes(data)
    wanted = bands if bands is not None else _usual(found)
    kept: list[Scene] = []
    centres = None if wavelength is None else np.asarray(wavelength, dtype=np.float64)
    left = memory
    for index, scene in enumerate(found, start=1):
        yield index, len(found)
        reason = _misfit(scene, wanted, centres, ratio, patch)
        if reason is None:
            reason = _measured(scene, left)
        if reason is not None:
            skipped.append(Skipped(scene.name, reason))
            continue
        left -= 0 if scene.stored is None else scene.stored.nbytes
        kept.append(scene)
        centres = scene.wavelength if centres is None else centres
    if not kept:
        raise ParameterError(f"{what}: {_nothing(skipped, patch)}")
    return SceneSet(tuple(kept), tuple(skipped))


def find_scenes(data: Any, what: str = "training data") -> tuple[list[Scene], list[Skipped]]:
    """Open every cube there is, whatever its bands and size; nothing is measured yet.

    Parameters
    ----------
    data : path, xarray.DataArray, or iterable of them
        As :func:`open_scenes` takes them.
    what : str
        What they are, for the messages.

    Returns
    -------
    scenes : list of Scene
    skipped : list of Skipped
        What cannot be opened.

    Raises
    ------
    ParameterError
        If `data` is none of these.
    FormatError
        If there is no such file or folder.
    """
    return _opened(_items(data, what))


def _items(data: Any, what: str) -> list[Any]:
    if isinstance(data, str | os.PathLike | xr.DataArray | np.ndarray):
        return [data]
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise ParameterError(f"{what}: expected folders, files or cubes, got {type(data).__name__}")
    return list(data)


def _opened(items: list[Any]) -> tuple[list[Scene], list[Skipped]]:
    scenes: list[Scene] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    for number, item in enumerate(items, start=1):
        if not isinstance(item, str | os.PathLike):
            cube = cubes.as_cube(item, f"scene {number}")
            scenes.append(_scene(str(cube.name or f"scene {number}"), cube, None))
            continue
        path = Path(item).expanduser()
        if not path.exists():
            raise FormatError(f"{path}: no such file or folder")
        for file in _files(path) if path.is_dir() else [path]:
            if file.resolve() in seen:
                continue
            name = str(file.relative_to(path)) if path.is_dir() else file.name
            try:
                seen.update(part.resolve() for part in files_read(file))
                scenes.append(_scene(name, open_cube(file), file))
            except (HSFusionError, OSError, ValueError) as error:
                skipped.append(Skipped(name, _plain(error, file)))
    return scenes, skipped


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _scene(name: str, cube: xr.DataArray, path: Path | None) -> Scene:
    good = np.flatnonzero(cubes.good_bands(cube))
    _, rows, columns = cube.shape
    return Scene(name, cube, (len(good), rows, columns), good, path)


def _plain(error: Exception, file: Path) -> str:
    """Text of an error without the path that the list names anyway."""
    text = str(error) or type(error).__name__
    return text.replace(f"{file.absolute()}: ", "").replace(f"{file}: ", "")


def _usual(scenes: Iterable[Scene]) -> int:
    """Band count of most scenes, the first of equals; single-band pictures are no cubes."""
    counts = Counter(scene.shape[0] for scene in scenes if scene.shape[0] > 1)
    return counts.most_common(1)[0][0] if counts else 0


def _misfit(
    scene: Scene,
    bands: int,
    centres: npt.NDArray[np.float64] | None,
    ratio: int,
    patch: int,
) -> str | None:
    """Why a scene is none of the set; its size is cut to the ratio if it is."""
    count, rows, columns = scene.shape
    if count != bands:
        return f"expected {bands} good bands, got {count}" if bands else f"it has {count} band"
    own = scene.wavelength
    if own is not None and centres is not None:
        apart = float(np.abs(own - centres).max())
        if apart > _APART_NM:
            return f"expected the other scenes' wavelengths, got bands up to {apart:.1f} nm away"
    scene.shape = (count, rows - rows % ratio, columns - columns % ratio)
    if min(scene.shape[1:]) < patch:
        return f"expected at least {patch} x {patch} pixels (a patch), got {rows} x {columns}"
    return None


def _measured(scene: Scene, left: float) -> str | None:
    """Read a scene, into memory if it fits in `left` bytes; why it cannot be, or None."""
    try:
        if scene.nbytes() <= left:
            scene.keep()
        scene.measure()
    except (HSFusionError, OSError, ValueError) as error:
        return str(error) if scene.path is None else _plain(error, scene.path)
    return None


def _nothing(skipped: Sequence[Skipped], patch: int) -> str:
    if not skipped:
        return "expected cubes, found no file"
    listed = "; ".join(f"{s.name}: {s.reason}" for s in skipped[:8])
    more = f"; and {len(skipped) - 8} more" if len(skipped) > 8 else ""
    return (
        f"expected at least one scene of {patch} x {patch} pixels or more, "
        f"found none among {len(skipped)} ({listed}{more})"
    )


def _file_digest(file: Path) -> str:
    """SHA-256 of a file; of size, first and last MiB where it is very large."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= _WHOLE_DIGEST:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        digest = hashlib.sha256(str(size).encode() + stream.read(_END))
        stream.seek(-_END, os.SEEK_END)
        digest.update(stream.read(_END))
    return f"sha256-ends:{digest.hexdigest()}"
