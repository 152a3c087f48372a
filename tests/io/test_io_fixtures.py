"""Every real file opens right, compared with an independent reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
from spectral.io import envi as spy

from napari_hsfusion.errors import FormatError, VariableError
from napari_hsfusion.io import open_cube, save_cube, sniff
from napari_hsfusion.io._gdal import quiet

Find = Callable[[str], Path]


@pytest.mark.parametrize("suffix", ["", ".hdr"])
def test_envi_without_extension(shared_data: Find, suffix: str) -> None:
    path = shared_data("fixtures/envi_bsq_f32_noext_gamsberg")
    cube = open_cube(f"{path}{suffix}")
    assert sniff(f"{path}{suffix}") == "envi"
    assert cube.shape == (189, 25, 10)
    assert cube.dtype == np.float32
    assert cube.name == "envi_bsq_f32_noext_gamsberg"
    with quiet(), rasterio.open(path) as source:
        np.testing.assert_array_equal(cube.values, source.read())
    header = spy.read_envi_header(f"{path}.hdr")
    assert cube.wavelength.values.tolist() == [float(v) for v in header["wavelength"]]
    assert cube.fwhm.values.tolist() == [float(v) for v in header["fwhm"]]
    assert cube.wavelength.values[0] == 426.820007
    assert cube.band_name.values[0] == "Resize (Band 1:resampled_clipped_2013317) (426.820007)"
    assert "nodata" not in cube.attrs
    assert "transform" not in cube.attrs
    assert cube.attrs["metadata"]["description"] == "cubus_gamsberg_subset"


def test_envi_with_scale_and_ignore_value(shared_data: Find) -> None:
    path = shared_data("fixtures/envi_bsq_u16_fenix.dat")
    for name in (path, path.with_suffix(".hdr")):
        cube = open_cube(name)
        assert cube.shape == (450, 38, 23)
        assert cube.dtype == np.uint16
        with quiet(), rasterio.open(path) as source:
            np.testing.assert_array_equal(cube.values, source.read())
            assert cube.attrs["nodata"] == source.nodata == 0
        assert cube.attrs["scale_factor"] == 1 / 65535
        header = spy.read_envi_header(path.with_suffix(".hdr"))
        assert cube.wavelength.values.tolist() == [float(v) for v in header["wavelength"]]
        assert cube.fwhm.values.tolist() == [float(v) for v in header["fwhm"]]
        metadata = cube.attrs["metadata"]
        assert metadata["x start"] == 247
        assert metadata["y start"] == 425
        assert metadata["default bands"] == [287, 262, 244]
        assert metadata["sensor type"] == "Fenix"


def test_geotiff_planar(shared_data: Find) -> None:
    path = shared_data("fixtures/geotiff_planar_f32_224b_wavelengths_nodata_EnMAP.tif")
    cube = open_cube(path)
    assert cube.shape == (224, 32, 32)
    assert cube.dtype == np.float32
    with quiet(), rasterio.open(path) as source:
        np.testing.assert_array_equal(cube.values, source.read())
        assert cube.attrs["transform"] == tuple(source.transform)[:6]
        assert rasterio.CRS.from_wkt(cube.attrs["crs"]) == source.crs
        for band in (1, 100, 224):
            tags = source.tags(band)
            assert cube.wavelength.values[band - 1] == float(tags["wavelength"])
            assert cube.fwhm.values[band - 1] == float(tags["fwhm"])
            assert cube.good_band.values[band - 1] == (tags["bbl"] == "1")
    assert cube.attrs["nodata"] == -32768
    assert cube.attrs["scale_factor"] == 0.0001
    assert cube.attrs["metadata"] == {"start_time": "2022-07-24T10:45:26"}


def test_geotiff_chunky(shared_data: Find) -> None:
    path = shared_data("fixtures/geotiff_chunky_i16_426b_NEON.tif")
    cube = open_cube(path)
    assert cube.shape == (426, 40, 40)
    assert cube.dtype == np.int16
    assert cube.attrs["transform"] == (1.0, 0.0, 726491.0, 0.0, -1.0, 4699078.4)
    assert "crs" not in cube.attrs
    assert "wavelength" not in cube.coords
    with quiet(), rasterio.open(path) as source:
        np.testing.assert_array_equal(cube.values, source.read())


def test_mat5_with_several_variables(shared_data: Find) -> None:
    path = shared_data("fixtures/mat5_houston_u16.mat")
    with pytest.raises(VariableError, match="variable='hyprImg'") as caught:
        open_cube(path)
    assert caught.value.variables == (
        "clasLabs (512 x 512 uint8)",
        "hyprImg (128 x 128 x 48 uint16)",
        "rgbImg (512 x 512 x 3 uint8)",
    )
    reference = scipy.io.loadmat(path)
    for name, shape in (("hyprImg", (48, 128, 128)), ("rgbImg", (3, 512, 512))):
        cube = open_cube(path, name)
        assert cube.shape == shape
        assert cube.dtype == reference[name].dtype
        np.testing.assert_array_equal(cube.values, reference[name].transpose(2, 0, 1))
    labels = open_cube(path, "clasLabs")
    np.testing.assert_array_equal(labels.values[0], reference["clasLabs"])
    with pytest.raises(VariableError, match="no variable 'cube'; the file holds clasLabs"):
        open_cube(path, "cube")


def test_mat5_with_one_cube(shared_data: Find) -> None:
    path = shared_data("fixtures/mat5_hydice_u16.mat")
    cube = open_cube(path)
    reference = scipy.io.loadmat(path)["data"]
    assert cube.shape == (162, 100, 80)
    assert cube.dtype == reference.dtype == np.uint16
    np.testing.assert_array_equal(cube.values, reference.transpose(2, 0, 1))


def test_mat73(shared_data: Find) -> None:
    path = shared_data("fixtures/mat73_pavia_102x100x100.mat")
    cube = open_cube(path)
    assert cube.shape == (102, 100, 100)
    assert cube.dtype == np.float64
    with h5py.File(path) as file:
        stored = file["data"][()]
    np.testing.assert_array_equal(cube.values, stored.transpose(0, 2, 1))
    # the same scene, the right way up
    scene = np.load(shared_data("scenes/pavia_centre_100x100x102_uint16.npz"))["cube"]
    np.testing.assert_allclose(cube.values, scene.transpose(2, 0, 1) / 6733, atol=1e-9)


def test_rgba_picture_is_declined(shared_data: Find) -> None:
    path = shared_data("fixtures/cave_watercolors_ms_01_RGBA8.png")
    assert sniff(path) is None
    with pytest.raises(FormatError, match=r"PNG picture, 8-bit RGBA with 4 channels.*not a cube"):
        open_cube(path)


@pytest.mark.parametrize("name", ["train/beads", "val/balloons"])
def test_cave(shared_data: Find, name: str) -> None:
    path = shared_data(f"cave/{name}.tif")
    cube = open_cube(path)
    assert cube.shape == (31, 512, 512)
    assert cube.dtype == np.uint16
    assert cube.wavelength.values.tolist() == list(range(400, 701, 10))
    assert cube.attrs["metadata"]["units"] == "DN of 4095"
    assert "transform" not in cube.attrs
    with quiet(), rasterio.open(path) as source:
        np.testing.assert_array_equal(cube[30].values, source.read(31))


@pytest.mark.parametrize(
    "name",
    [
        "envi_bsq_f32_noext_gamsberg",
        "envi_bsq_u16_fenix.dat",
        "geotiff_planar_f32_224b_wavelengths_nodata_EnMAP.tif",
        "geotiff_chunky_i16_426b_NEON.tif",
        "mat5_hydice_u16.mat",
        "mat73_pavia_102x100x100.mat",
    ],
)
@pytest.mark.parametrize("target", ["out.hdr", "out.tif", "out.mat"])
def test_real_files_survive_every_format(
    shared_data: Find, tmp_path: Path, name: str, target: str
) -> None:
    cube = open_cube(shared_data(f"fixtures/{name}"))
    back = open_cube(save_cube(cube, tmp_path / target))
    assert back.dtype == cube.dtype
    np.testing.assert_array_equal(back.values, cube.values)
    assert set(back.coords) == set(cube.coords)
    for key in cube.coords:
        np.testing.assert_array_equal(back.coords[key].values, cube.coords[key].values)
    assert back.attrs == cube.attrs
