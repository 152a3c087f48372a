"""A write that fails or is interrupted leaves everything as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import FormatError, WriteError
from napari_hsfusion.io import _atomic, open_cube, save_cube

TARGETS = ["c.hdr", "c.img", "c.tif", "c.mat"]
FAILURES = [KeyboardInterrupt(), OSError("disk on fire"), ValueError("nonsense")]


def cube_of(value: int, bands: int = 6) -> xr.DataArray:
    return make_cube(np.full((bands, 8, 9), value, "u2"), wavelength=np.arange(bands) + 400.0)


def failing_cube(error: BaseException) -> xr.DataArray:
    """Lazy cube whose fourth band fails, after others were written."""

    def block(values: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        if block_info and block_info[0]["chunk-location"][0] >= 3:
            raise error
        return values

    data = da.from_array(np.full((6, 8, 9), 7, "u2"), chunks=(1, 8, 9))
    return make_cube(data.map_blocks(block, dtype="u2", meta=np.empty((0, 0, 0), "u2")))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("error", FAILURES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("existing", [True, False])
def test_pixels_that_fail_half_way(
    tmp_path: Path, name: str, error: BaseException, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_hsfusion.io._stream.BUDGET", 8 * 9 * 2)
    if existing:
        save_cube(cube_of(1), tmp_path / name)
    before = contents(tmp_path)
    expected = FormatError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        save_cube(failing_cube(error), tmp_path / name)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no")], ids=["ctrl-c", "os"])
@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("links", [True, False])
def test_replacing_that_fails(
    tmp_path: Path,
    name: str,
    call: int,
    error: BaseException,
    existing: bool,
    links: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if existing:
        save_cube(cube_of(1), tmp_path / name)
    before = contents(tmp_path)
    real, done = os.replace, []

    def replace(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp") and not str(target).endswith(".tmp"):
            done.append(target)
            if len(done) == call:
                raise error
        real(source, target)

    def link(*_: object) -> None:
        raise OSError("this file system has no hard links")

    monkeypatch.setattr(_atomic.os, "replace", replace)
    if not links:
        monkeypatch.setattr(_atomic.os, "link", link)
    pair = name in ("c.hdr", "c.img")
    if call == 2 and not pair:
        save_cube(cube_of(2), tmp_path / name)
        assert int(open_cube(tmp_path / name).values.max()) == 2
        return
    with pytest.raises(WriteError if isinstance(error, OSError) else KeyboardInterrupt):
        save_cube(cube_of(2), tmp_path / name)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", TARGETS)
def test_flushed_before_replaced(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(_atomic.os, "fsync", lambda d: (order.append("sync"), sync(d))[1])
    monkeypatch.setattr(
        _atomic.os, "replace", lambda a, b: (order.append(Path(b).suffix), replace(a, b))[1]
    )
    save_cube(cube_of(1), tmp_path / name)
    files = [".img", ".hdr"] if name in ("c.hdr", "c.img") else [Path(name).suffix]
    assert order == ["sync"] * len(files) + files + ["sync"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
@pytest.mark.parametrize("name", TARGETS)
def test_full_disk(tmp_path: Path, name: str) -> None:
    save_cube(cube_of(1), tmp_path / name)
    before = contents(tmp_path)
    script = f"""
        import resource, signal
        import numpy as np
        from napari_hsfusion.cube import make_cube
        from napari_hsfusion.errors import WriteError
        from napari_hsfusion.io import save_cube
        cube = make_cube(np.random.default_rng(0).random((4, 200, 200)))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            save_cube(cube, {str(tmp_path / name)!r})
        except WriteError as error:
            assert "could not be written" in str(error), error
            raise SystemExit(42)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 42, done.stderr
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", TARGETS)
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(WriteError, match="no directory"):
        save_cube(cube_of(1), tmp_path / "absent" / name)
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="no directory"):
        save_cube(cube_of(1), tmp_path / "file" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(WriteError, match="is a directory"):
        save_cube(cube_of(1), tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a directory nobody may write to")
@pytest.mark.parametrize("name", TARGETS)
def test_directory_without_permission(name: str) -> None:
    with pytest.raises(WriteError, match="could not be written"):
        save_cube(cube_of(1), Path("/proc/self") / name)


@pytest.mark.parametrize("name", TARGETS)
def test_overwrite_off(tmp_path: Path, name: str) -> None:
    save_cube(cube_of(1), tmp_path / name, overwrite=False)
    before = contents(tmp_path)
    with pytest.raises(WriteError, match="exists already"):
        save_cube(cube_of(2), tmp_path / name, overwrite=False)
    assert contents(tmp_path) == before


def test_overwrite_off_looks_at_both_files(tmp_path: Path) -> None:
    (tmp_path / "c.hdr").write_text("mine")
    with pytest.raises(WriteError, match="exists already"):
        save_cube(cube_of(2), tmp_path / "c.img", overwrite=False)
    assert contents(tmp_path) == {"c.hdr": b"mine"}


@pytest.mark.parametrize("name", TARGETS)
def test_over_the_file_it_is_read_from(tmp_path: Path, name: str) -> None:
    values = np.arange(6 * 8 * 9, dtype="u2").reshape(6, 8, 9)
    path = save_cube(make_cube(values), tmp_path / name)
    cube = open_cube(path)
    save_cube((cube * 2).astype("u4").assign_attrs(cube.attrs), path)
    np.testing.assert_array_equal(open_cube(path).values, values * 2)
    if sys.platform != "win32":  # who opened the old file still sees it
        np.testing.assert_array_equal(cube.values, values)


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links and modes")
@pytest.mark.parametrize("name", TARGETS)
def test_links_and_modes_are_kept(tmp_path: Path, name: str) -> None:
    real = tmp_path / "real"
    real.mkdir()
    save_cube(cube_of(1), real / name)
    (real / name).chmod(0o640)
    (tmp_path / name).symlink_to(real / name)
    save_cube(cube_of(2), tmp_path / name)
    assert (tmp_path / name).is_symlink()
    assert (real / name).stat().st_mode & 0o777 == 0o640


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    path = save_cube(cube_of(1), tmp_path / "c.hdr")
    for made in (path, path.with_suffix(".img")):
        assert made.stat().st_mode == plain.stat().st_mode
