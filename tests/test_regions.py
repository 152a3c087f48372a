"""Spectra of pixels and regions, against plain numpy, and how little of a file they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from napari_hsfusion import api
from napari_hsfusion.cube import make_cube, to_physical
from napari_hsfusion.errors import CubeError
from napari_hsfusion.io import _source, open_cube, save_cube
from napari_hsfusion.io.windows import read_window, source_of


@pytest.fixture
def stored() -> xr.DataArray:
    """Integers with a scale, an offset and no-data holes."""
    values = np.random.default_rng(3).integers(1, 4000, (7, 20, 30)).astype(np.uint16)
    values[2, 5, 6] = 0
    values[4, 3:9, :] = 0
    return make_cube(values, nodata=0, scale_factor=1e-4, add_offset=-0.01)


def test_a_pixel_is_in_physical_units(stored: xr.DataArray) -> None:
    found = api.pixel_spectrum(stored, 5, 6)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, to_physical(stored, np.float64)[:, 5, 6])
    assert np.isnan(found[[2, 4]]).all()
    assert np.isfinite(found[[0, 1, 3, 5, 6]]).all()
    for row, column in ((-1, 0), (20, 0), (0, 30)):
        with pytest.raises(CubeError, match="20 rows and 30 columns"):
            api.pixel_spectrum(stored, row, column)


def test_a_region_is_what_numpy_says(stored: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(4).random((20, 30)) < 0.2
    mask[:2] = mask[:, 27:] = False
    values = to_physical(stored, np.float64)[:, mask]
    for block in (1 << 26, 1000):  # all bands at once, and one by one
        monkeypatch.setattr("napari_hsfusion._regions._BLOCK_BYTES", block)
        found = api.region_spectrum(stored, mask)
        np.testing.assert_allclose(found.mean, np.nanmean(values, axis=1), rtol=1e-12)
        np.testing.assert_allclose(found.std, np.nanstd(values, axis=1), rtol=1e-10)
        np.testing.assert_array_equal(found.count, np.isfinite(values).sum(axis=1))
    moved = api.region_spectrum(stored, mask[4:15, 3:25] & True, corner=(4, 3))
    inside = np.zeros_like(mask)
    inside[4:15, 3:25] = mask[4:15, 3:25]
    np.testing.assert_array_equal(moved.mean, api.region_spectrum(stored, inside).mean)


def test_a_band_without_values_is_nan(stored: xr.DataArray) -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:8, 10:12] = True
    found = api.region_spectrum(stored, mask)
    assert np.isnan(found.mean[4])
    assert np.isnan(found.std[4])
    assert found.count.tolist() == [8, 8, 8, 8, 0, 8, 8]
    one = np.zeros((20, 30), dtype=bool)
    one[0, 0] = True
    assert api.region_spectrum(stored, one).std.tolist() == [0.0] * 7


@pytest.mark.parametrize(
    ("mask", "corner", "message"),
    [
        (np.zeros((20, 30), dtype=bool), (0, 0), "no pixel"),
        (np.ones((20, 30)), (0, 0), "float64"),
        (np.ones((7, 20, 30), dtype=bool), (0, 0), r"\(7, 20, 30\)"),
        (np.ones((21, 30), dtype=bool), (0, 0), "rows 0 to 20"),
        (np.ones((5, 5), dtype=bool), (0, 26), "columns 26 to 30"),
        (np.ones((5, 5), dtype=bool), (-1, 0), "rows -1 to 3"),
    ],
)
def test_a_wrong_region_is_refused(
    stored: xr.DataArray, mask: np.ndarray, corner: tuple[int, int], message: str
) -> None:
    with pytest.raises(CubeError, match=message):
        api.region_spectrum(stored, mask, corner)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_a_lazy_cube_reads_the_pixel_alone(
    stored: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interleave: str
) -> None:
    save_cube(stored, tmp_path / "scene.hdr", interleave=interleave)
    cube = open_cube(tmp_path / "scene.hdr")
    assert isinstance(cube.data, da.Array)
    read: list[int] = []
    plain = _source.RawSource.__getitem__

    def counting(self: Any, key: Any) -> np.ndarray:
        values = plain(self, key)
        read.append(values.size)
        return values

    monkeypatch.setattr(_source.RawSource, "__getitem__", counting)
    spectrum = api.pixel_spectrum(cube, 11, 12)
    assert sum(read) == 7
    np.testing.assert_array_equal(spectrum, api.pixel_spectrum(stored, 11, 12))
    read.clear()
    mask = np.zeros((20, 30), dtype=bool)
    mask[2, 3] = mask[5, 8] = True
    region = api.region_spectrum(cube, mask)
    assert sum(read) == 7 * 4 * 6
    np.testing.assert_array_equal(region.mean, api.region_spectrum(stored, mask).mean)


@pytest.mark.parametrize("name", ["scene.tif", "scene.mat", "scene.hdr"])
def test_every_format_gives_its_windows(tmp_path: Path, name: str, stored: xr.DataArray) -> None:
    save_cube(stored, tmp_path / name)
    cube = open_cube(tmp_path / name)
    assert source_of(cube.data) is not None
    window = read_window(cube.data, (1, 4), (5, 6), (7, 20))
    np.testing.assert_array_equal(window, np.asarray(cube.data)[1:4, 5:6, 7:20])


def test_an_array_that_was_changed_is_not_taken_for_its_file(
    tmp_path: Path, stored: xr.DataArray
) -> None:
    save_cube(stored, tmp_path / "scene.hdr")
    cube = open_cube(tmp_path / "scene.hdr")
    whole = np.asarray(cube.data)
    for changed in (cube.data[:, 2:, 3:], cube.data + 1, cube.data.rechunk((2, 20, 30))):
        assert source_of(changed) is None
        found = read_window(changed, (0, 7), (4, 5), (6, 7))
        np.testing.assert_array_equal(found, np.asarray(changed)[:, 4:5, 6:7])
    assert source_of(whole) is None
    with pytest.raises(CubeError, match="columns: expected a window within 0 to 30, got 30 to 31"):
        read_window(cube.data, (0, 7), (4, 5), (30, 31))
