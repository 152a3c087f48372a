"""The scenes that need no download."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rasterio.crs import CRS

from napari_hsfusion.cube import check_cube, wavelengths
from napari_hsfusion.errors import HSFusionError, ParameterError
from napari_hsfusion.scene import demo_response, demo_scene, indian_pines
from napari_hsfusion.scene.layout import NAMES, draw
from napari_hsfusion.scene.materials import MATERIALS, skylight


@pytest.fixture(scope="module")
def scene() -> xr.DataArray:
    return demo_scene()


def test_the_default_is_a_cube_of_reflectance(scene: xr.DataArray) -> None:
    check_cube(scene)
    assert scene.shape == (60, 128, 128)
    assert scene.dtype == np.float32
    values = np.asarray(scene.data)
    assert 0.0 < values.min() < 0.02
    assert 0.5 < values.max() < 1.0
    nm = wavelengths(scene)
    assert nm is not None
    assert nm[0] == 400.0
    assert nm[-1] == 1000.0
    assert (scene.coords["fwhm"].values > np.diff(nm)[0]).all()
    assert scene.attrs["history"][0]["step"] == "demo_scene"


def test_it_lies_in_a_valid_place_and_says_that_it_is_made_up(scene: xr.DataArray) -> None:
    assert CRS.from_wkt(scene.attrs["crs"]).to_epsg() == 32632
    assert scene.attrs["transform"] == (1.0, 0.0, 500_000.0, 0.0, -1.0, 5_400_000.0)
    assert "synthetic" in scene.attrs["metadata"]["description"]
    assert demo_scene(64, 4).attrs["transform"][0] == 2.0


def test_the_same_seed_gives_the_same_cube_and_another_another() -> None:
    first, again, other = demo_scene(48, 8), demo_scene(48, 8), demo_scene(48, 8, seed=1)
    np.testing.assert_array_equal(first.data, again.data)
    assert np.abs(np.asarray(first.data) - np.asarray(other.data)).mean() > 0.02


def test_it_is_nearly_but_not_exactly_of_low_rank(scene: xr.DataArray) -> None:
    flat = np.asarray(scene.data, dtype=np.float64).reshape(60, -1)
    energy = np.linalg.svd(flat, compute_uv=False) ** 2
    left = np.sqrt(energy[::-1].cumsum()[::-1] / energy.sum())
    assert left[4] < 0.06, "four spectra should explain most of it"
    assert left[8] > 5e-4, "eight spectra should not explain all of it"


def test_the_texture_is_fine(scene: xr.DataArray) -> None:
    """Detail that decimation by 4 loses: the demonstration needs something to restore."""
    band = np.asarray(scene.sel(band=30).data, dtype=np.float64)
    coarse = band.reshape(32, 4, 32, 4).mean(axis=(1, 3)).repeat(4, 0).repeat(4, 1)
    assert np.std(band - coarse) > 0.25 * np.std(band)


def test_vegetation_and_water_look_like_themselves(scene: xr.DataArray) -> None:
    values, nm = np.asarray(scene.data, dtype=np.float64), scene.coords["wavelength"].values
    red, green, nir = (values[np.abs(nm - at).argmin()] for at in (660, 560, 835))
    index = (nir - red) / (nir + red)
    assert 0.15 < (index > 0.5).mean() < 0.7, "share of green vegetation"
    water_index = (green - nir) / (green + nir)
    assert 0.03 < (water_index > 0.2).mean() < 0.25, "share of water"


def test_every_material_is_on_the_map_of_many_seeds() -> None:
    for seed in range(5):
        drawn = draw(256, np.random.default_rng(seed))
        assert set(np.unique(drawn.label)) == set(range(len(NAMES)))
        for image in (drawn.variant, drawn.shadow, drawn.rows):
            assert image.min() >= 0.0
            assert image.max() <= 1.0
        assert 0.02 < (drawn.shadow > 0.5).mean() < 0.3


@pytest.mark.parametrize("name", list(MATERIALS))
def test_spectra_are_reflectances_that_move_with_their_parameter(name: str) -> None:
    nm = np.linspace(400.0, 2500.0, 301)
    low, middle, high = (MATERIALS[name](nm, p) for p in (0.0, 0.5, 1.0))
    for spectrum in (low, middle, high):
        assert spectrum.min() > 0.0
        assert spectrum.max() < 0.75
        assert np.abs(np.diff(spectrum)).max() < 0.15, "no jumps"
    cosine = low @ high / np.linalg.norm(low) / np.linalg.norm(high)
    assert np.degrees(np.arccos(min(cosine, 1.0))) > 1.0, "the parameter only scales it"
    assert not np.allclose(low, middle)


def test_the_red_edge_and_the_sky_are_where_they_belong() -> None:
    nm = np.linspace(400.0, 1000.0, 601)
    leaf = MATERIALS["vegetation"](nm, 0.5)
    assert 695 < nm[np.gradient(leaf).argmax()] < 730
    assert 530 < nm[100:200][leaf[100:200].argmax()] < 580
    sky = skylight(nm)
    assert (np.diff(sky) < 0).all()
    assert sky.max() < 0.5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"size": 8}, "size: expected 16 to 2048 pixels, got 8"),
        ({"size": 4096}, "got 4096"),
        ({"bands": 3}, "bands: expected at least 4, got 3"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
        ({"longest_nm": 700.0}, "longest_nm: expected 900 to 2500, got 700"),
    ],
)
def test_what_is_out_of_range_is_declined(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        demo_scene(**arguments)  # type: ignore[arg-type]


def test_other_sizes_and_ranges() -> None:
    odd = demo_scene(37, 21, longest_nm=2500.0)
    assert odd.shape == (21, 37, 37)
    assert wavelengths(odd)[-1] == 2500.0  # type: ignore[index]
    small, large = demo_scene(32, 6), demo_scene(64, 6)
    halved = np.asarray(large.data).reshape(6, 32, 2, 32, 2).mean(axis=(2, 4))
    correlation = np.corrcoef(halved.ravel(), np.asarray(small.data).ravel())[0, 1]
    assert correlation > 0.98, "every size shows the same ground"


def test_the_camera_has_four_bands_within_the_scene(scene: xr.DataArray) -> None:
    centres, fwhm = demo_response()
    assert centres.shape == fwhm.shape == (4,)
    assert (np.diff(centres) > 0).all()
    assert (centres - fwhm > 400).all()
    assert (centres + fwhm < 1000).all()


def test_indian_pines() -> None:
    pytest.importorskip("tensorly", reason="tensorly, which carries the scene, is not installed")
    cube = indian_pines()
    assert cube.shape == (200, 145, 145)
    assert float(cube.max()) == 1.0
    assert float(cube.min()) >= 0.0
    nm = cube.coords["wavelength"].values
    assert (np.diff(nm) > 0).all()
    assert nm[0] == 400.0
    # the gaps are the water vapour bands near 1400 and 1900 nm
    gaps = nm[:-1][np.diff(nm) > 20]
    assert gaps.size == 2
    assert (abs(gaps - [1377, 1818]) < 10).all()


def test_indian_pines_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorly.datasets", None)
    with pytest.raises(HSFusionError, match="pip install tensorly"):
        indian_pines()


def test_no_photograph_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The textures lie in scikit-image's wheel: no network, no cache is touched."""
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the scene tried to open a network connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("SKIMAGE_DATADIR", str(tmp_path))
    assert demo_scene(16, 4).shape == (4, 16, 16)
