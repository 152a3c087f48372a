"""Parts of a band are those of the whole, and a cube says where it is from."""

from __future__ import annotations

import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import scipy.io
import tifffile

from napari_hsfusion.cube import make_cube
from napari_hsfusion.io import open_cube, read_part, read_windows, save_cube

VALUES = np.arange(5 * 30 * 40, dtype=np.uint16).reshape(5, 30, 40)


@pytest.fixture(params=["a.bsq", "a.bil", "a.bip", "a.tif", "a.mat", "pages.tif", "m73.mat", ""])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    if not request.param:
        return VALUES
    path = tmp_path / request.param
    if request.param == "pages.tif":
        tifffile.imwrite(path, VALUES, photometric="minisblack")
    elif request.param == "m73.mat":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w", userblock_size=512) as file:
            file["a"] = VALUES.transpose(0, 2, 1)
    else:
        save_cube(make_cube(VALUES), path)
    return open_cube(path).data


def test_parts_are_those_of_the_whole(data: object) -> None:
    windows = [(slice(3, 9), slice(0, 40)), (slice(20, 30), slice(5, 6)), (slice(None),) * 2]
    for found, (rows, columns) in zip(read_windows(data, 3, windows), windows, strict=True):
        np.testing.assert_array_equal(found, VALUES[3, rows, columns])
    for rows, columns in [*windows, (slice(1, None, 3), slice(2, None, 5))]:
        np.testing.assert_array_equal(read_part(data, 4, rows, columns), VALUES[4, rows, columns])


def test_parts_of_a_changed_array_are_of_the_changed_one(tmp_path: Path) -> None:
    save_cube(make_cube(VALUES), tmp_path / "a.hdr")
    data = open_cube(tmp_path / "a.hdr").data
    rows, columns = slice(0, 4), slice(0, 5)
    np.testing.assert_array_equal(read_part(data[1:], 0, rows, columns), VALUES[1, :4, :5])
    (found,) = read_windows(data + 1, 2, [(rows, columns)])
    np.testing.assert_array_equal(found, VALUES[2, :4, :5] + 1)


def test_a_band_is_computed_once_for_all_windows() -> None:
    computed = []

    def block(values: np.ndarray) -> np.ndarray:
        computed.append(values.shape)
        return values

    lazy = da.from_array(VALUES, chunks=(1, 30, 40)).map_blocks(block, dtype=VALUES.dtype)
    computed.clear()
    read_windows(lazy, 2, [(slice(k, k + 3), slice(None)) for k in range(0, 30, 3)])
    assert computed == [(1, 30, 40)]


@pytest.mark.parametrize("name", ["a.hdr", "a.img", "a.tif", "a.mat"])
def test_a_cube_says_which_file_it_is_from(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_cube(make_cube(VALUES), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, name, os.path.join(".", name)):
        cube = open_cube(path)
        assert Path(cube.encoding["source"]) == tmp_path / name
        assert os.path.isabs(cube.encoding["source"])
        assert cube.encoding.get("variable") == ("cube" if name == "a.mat" else None)


def test_a_variable_that_was_named_is_said(tmp_path: Path) -> None:
    path = tmp_path / "two.mat"
    scipy.io.savemat(path, {"a": VALUES, "b": VALUES + 1, "s": {"c": VALUES}})
    assert open_cube(path, "b").encoding["variable"] == "b"
    assert open_cube(path, "s.c").encoding["variable"] == "s.c"
