"""Simulation of pairs: equality with an independent program, masks, bands, geometry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
from program import load_program

from napari_hsfusion import api
from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import CubeError, PairError, ParameterError, ResponseError
from napari_hsfusion.sensors.psf import PSF

Shared = Callable[[str], Path]
BenchPair = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize("name", ["pavia_centre", "sandiego", "beach1", "jasper"])
def test_bicubic_pairs_equal_the_benchmark(name: str, bench_pair: BenchPair) -> None:
    wanted = bench_pair(name)
    cube = make_cube(wanted["Z"], wavelength=wanted["wavelengths"])
    made = api.simulate(cube, 4, "bicubic", wanted["response"], 35.0, 0)
    np.testing.assert_allclose(made.lr_hsi.values, wanted["X"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(made.hr_msi.values, wanted["Y"], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("name", ["balloons", "chart_and_stuffed_toy", "feathers", "pompoms"])
def test_gauss3_bicubic_pairs_equal_the_benchmark(name: str, shared_data: Shared) -> None:
    shared_data(f"cave/val/{name}.tif")
    pairs = load_program(shared_data("../bench/pairs.py"))
    wanted = pairs.cave_pair(next(f for f in pairs.CAVE if f.stem == name))
    cube = make_cube(wanted["Z"], wavelength=wanted["wavelengths"])
    made = api.simulate(cube, 8, "gauss3-bicubic", wanted["R"].astype(float), None)
    np.testing.assert_allclose(made.lr_hsi.values, wanted["X"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(made.hr_msi.values, wanted["Y"], rtol=0, atol=1e-6)


def test_record_and_labels(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    made = api.simulate(tiny_scene, 4, "gaussian:1.5", srf3, 30.0, 5)
    x, y = made.lr_hsi, made.hr_msi
    assert x.shape == (12, 6, 8)
    assert y.shape == (3, 24, 32)
    assert x.dtype == y.dtype == np.float32
    np.testing.assert_array_equal(x.wavelength, tiny_scene.wavelength)
    np.testing.assert_array_equal(x.fwhm, tiny_scene.fwhm)
    np.testing.assert_allclose(y.wavelength, srf3 @ tiny_scene.wavelength.values)
    assert x.attrs["transform"] == (8.0, 0.0, 500000.0, 0.0, -8.0, 5400000.0)
    assert y.attrs["transform"] == tiny_scene.attrs["transform"]
    assert x.attrs["crs"] == y.attrs["crs"] == "EPSG:32632"
    for cube in (x, y):
        said = cube.attrs["observation"]
        assert said["scale"] == 4
        assert said["psf"] == "gaussian:1.5"
        assert said["seed"] == 5
        assert said["snr_db"] == 30.0
        np.testing.assert_allclose(said["srf"], srf3)
        assert cube.attrs["history"][-1]["step"] == "simulate"
    clean = api.simulate(tiny_scene, 4, "gaussian:1.5", srf3, None)
    for noisy, exact, key in ((x, clean.lr_hsi, "noise_x"), (y, clean.hr_msi, "noise_y")):
        sigma = np.sqrt((exact.values.astype(float) ** 2).mean() / 1000)
        assert made.record[key] == pytest.approx(sigma, rel=1e-5)
        assert (noisy - exact).std() == pytest.approx(sigma, rel=0.1)
    assert clean.record["noise_x"] == clean.record["noise_y"] == 0


def test_the_record_repeats_the_run(tiny_scene: xr.DataArray, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.npy"
    np.save(kernel, np.outer([1, 2, 1], [1, 3, 1]) / 20)
    scene = tiny_scene.copy()
    scene.encoding["source"] = "/somewhere/scene.hdr"
    asked = "sentinel-2a:B2,B3,B8"
    made = api.simulate(scene, 5, kernel, asked, None, 9, snr_hsi=31.25, snr_msi=None, crop=True)
    for cube, image in ((made.lr_hsi, "lr_hsi"), (made.hr_msi, "hr_msi")):
        past = cube.attrs["history"][-1]
        assert json.loads(json.dumps(past)) == past
        assert past["image"] == image
        assert past["source"] == "/somewhere/scene.hdr"
        assert past["srf"] == asked
        assert past["bands"] == ["B2", "B3", "B8"]
        assert (past["snr_hsi_db"], past["snr_msi_db"]) == (31.25, None)
        assert (past["crop"], past["cropped"]["to"]) == (True, [20, 30])
        kept = past["psf"]["kernel"]
        again = api.simulate(
            scene,
            past["scale"],
            np.array(kept),
            cube.attrs["observation"]["srf"],
            past["snr_db"],
            past["seed"],
            snr_hsi=past["snr_hsi_db"],
            snr_msi=past["snr_msi_db"],
            crop=past["crop"],
        )
        np.testing.assert_array_equal(again.lr_hsi, made.lr_hsi)
        np.testing.assert_array_equal(again.hr_msi, made.hr_msi)
    plain = api.simulate(tiny_scene, 4, "box", made.response.matrix, 30.0)
    past = plain.lr_hsi.attrs["history"][-1]
    assert "source" not in past
    assert "srf" not in past
    assert past["crop"] is False


def test_a_path_is_the_source(tiny_scene: xr.DataArray, tmp_path: Path) -> None:
    path = tmp_path / "scene.hdr"
    api.save_cube(tiny_scene, path)
    made = api.simulate(path, 4, "box", "rapideye", 30.0)
    assert Path(made.hr_msi.attrs["history"][-1]["source"]) == path


def test_one_snr_an_image(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    clean = api.simulate(tiny_scene, 4, "box", srf3, None)
    made = api.simulate(tiny_scene, 4, "box", srf3, None, snr_hsi=20.0)
    np.testing.assert_array_equal(made.hr_msi, clean.hr_msi)
    assert made.record["noise_x"] > 0
    assert made.record["noise_y"] == 0
    assert not np.array_equal(made.lr_hsi, clean.lr_hsi)


def test_box_is_the_mean(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    made = api.simulate(tiny_scene, 4, "box", srf3, None)
    mean = tiny_scene.values.reshape(12, 6, 4, 8, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(made.lr_hsi, mean, rtol=1e-6)
    wanted = np.einsum("bc,cyx->byx", srf3, tiny_scene.values)
    np.testing.assert_allclose(made.hr_msi, wanted, rtol=1e-6)


def test_lazy_scaled_and_chunked_input(
    tiny_scene: xr.DataArray, srf3: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.round(tiny_scene.values * 10000).astype(np.uint16)
    lazy = make_cube(
        dask.array.from_array(stored, chunks=(5, 24, 32)),
        wavelength=tiny_scene.wavelength.values,
        scale_factor=1e-4,
    )
    plain = make_cube(stored * 1e-4, wavelength=tiny_scene.wavelength.values)
    whole = api.simulate(plain, 4, "bicubic", srf3, 35.0, 1)
    monkeypatch.setattr("napari_hsfusion._simulate._CHUNK_BYTES", 24 * 32 * 8 * 5)
    made = api.simulate(lazy, 4, "bicubic", srf3, 35.0, 1)
    np.testing.assert_allclose(made.lr_hsi, whole.lr_hsi, atol=1e-6)
    np.testing.assert_allclose(made.hr_msi, whole.hr_msi, atol=1e-6)


@pytest.mark.parametrize("psf", ["bicubic", "box", "gaussian:1", "kernel"])
def test_unknown_pixels_are_masked_and_never_spread(
    psf: str, tiny_scene: xr.DataArray, srf3: np.ndarray
) -> None:
    given: Any = np.outer([1, 2, 2, 1], [1, 3, 3, 1]) / 48 if psf == "kernel" else psf
    holes = np.zeros((24, 32), dtype=bool)
    holes[13, 9] = True
    values = tiny_scene.values.copy()
    values[3, holes] = np.nan
    clean = api.simulate(tiny_scene, 4, given, srf3, None)
    made = api.simulate(tiny_scene.copy(data=values), 4, given, srf3, None)
    assert np.isnan(made.hr_msi.values[:, holes]).all()
    np.testing.assert_array_equal(made.hr_msi.values[:, ~holes], clean.hr_msi.values[:, ~holes])
    # an independent footprint: where a large change at the hole moves the LR image
    footprint = np.zeros((6, 8), dtype=bool)
    for amount in (1e3, -7e4):
        moved = tiny_scene.values.copy()
        moved[:, holes] += amount
        other = api.simulate(tiny_scene.copy(data=moved), 4, given, srf3, None)
        footprint |= np.abs(other.lr_hsi.values - clean.lr_hsi.values).max(0) > 1e-3
    np.testing.assert_array_equal(np.isnan(made.lr_hsi.values).all(0), footprint)
    np.testing.assert_array_equal(np.isnan(made.lr_hsi.values).any(0), footprint)
    np.testing.assert_array_equal(
        made.lr_hsi.values[:, ~footprint], clean.lr_hsi.values[:, ~footprint]
    )
    assert footprint.any()
    assert not footprint.all()


def test_nodata_value_is_a_hole(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    stored = np.round(tiny_scene.values * 1000).astype(np.int16)
    stored[:, 0, 0] = -9999
    made = api.simulate(make_cube(stored, nodata=-9999), 4, "box", srf3, 40.0)
    assert np.isnan(made.lr_hsi.values[:, 0, 0]).all()
    assert np.isnan(made.lr_hsi.values).sum() == 12
    assert np.isnan(made.hr_msi.values).sum() == 3
    assert np.nanmin(made.hr_msi.values) > -500


def test_bad_and_empty_bands_have_no_part(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    values = tiny_scene.values.copy()
    values[2] = 1e6  # marked as bad
    values[4] = np.nan  # empty
    values[6, 5, 5] = np.nan  # marked as bad, one hole
    good = np.ones(12, dtype=bool)
    good[[2, 6]] = False
    cube = make_cube(values, wavelength=tiny_scene.wavelength.values, good_band=good)
    made = api.simulate(cube, 4, "box", srf3, 40.0)
    used = good.copy()
    used[4] = False
    weights = srf3 * used
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(made.response.matrix, weights)
    exact = np.einsum("bc,cyx->byx", weights[:, used], tiny_scene.values[used])
    assert np.abs(made.hr_msi.values - exact).max() < 6 * made.record["noise_y"]
    assert made.record["noise_x"] < 0.1
    np.testing.assert_array_equal(made.lr_hsi.good_band, used)
    assert np.isnan(made.lr_hsi.values[4]).all()
    assert np.isnan(made.lr_hsi.values[6]).sum() == 1
    assert np.isfinite(made.lr_hsi.values[used]).all()


def test_crop_is_asked_for_and_recorded(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    with pytest.raises(PairError, match=r"24 x 32 pixels, no multiple of the scale 5.*20 x 30"):
        api.simulate(tiny_scene, 5, "bicubic", srf3)
    made = api.simulate(tiny_scene, 5, "bicubic", srf3, None, crop=True)
    assert made.record["cropped"] == {"from": [24, 32], "to": [20, 30]}
    assert made.lr_hsi.shape == (12, 4, 6)
    inner = tiny_scene.isel(y=slice(0, 20), x=slice(0, 30))
    same = api.simulate(inner, 5, "bicubic", srf3, None)
    np.testing.assert_array_equal(made.lr_hsi, same.lr_hsi)
    assert made.hr_msi.attrs["transform"] == tiny_scene.attrs["transform"]


def test_phase_moves_the_low_grid(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    """A delta at phase 0 samples the corner pixel of every block."""
    delta = PSF("kernel", kernel=np.ones((1, 1)), source="delta", phase=0.0)
    made = api.simulate(tiny_scene, 4, delta, srf3, None)
    np.testing.assert_allclose(made.lr_hsi, tiny_scene.values[:, ::4, ::4], rtol=1e-6)
    a, _, c, _, e, f = made.lr_hsi.attrs["transform"]
    assert (c + a / 2, f + e / 2) == (500000.0 + 1.0, 5400000.0 - 1.0)
    assert made.record["psf"]["phase"] == 0.0


def test_wrong_input(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    with pytest.raises(PairError, match=r"\(3, 11\): expected 12 columns.*got 11"):
        api.simulate(tiny_scene, 4, "bicubic", srf3[:, :11])
    with pytest.raises(ResponseError, match="unknown psf 'cubic'"):
        api.simulate(tiny_scene, 4, "cubic", srf3)
    with pytest.raises(ResponseError, match="unknown response"):
        api.simulate(tiny_scene, 4, "bicubic", "no-such-sensor")
    for scale in (0, None, 2.5, "a", "4", float("inf"), True):
        with pytest.raises(ParameterError, match="scale: expected a whole number of at least 1"):
            api.simulate(tiny_scene, scale, "bicubic", srf3)
    for seed in (-1, 2**63, None, 2.5, "a", float("nan")):
        with pytest.raises(ParameterError, match="seed: expected a whole number from 0 to 9223"):
            api.simulate(tiny_scene, 4, "bicubic", srf3, seed=seed)
    whole = api.simulate(tiny_scene, np.float64(4.0), "bicubic", srf3, seed=np.int64(2**63 - 1))
    assert whole.record["seed"] == 2**63 - 1
    for snr in (float("nan"), "loud"):
        with pytest.raises(ParameterError, match="SNR"):
            api.simulate(tiny_scene, 4, "bicubic", srf3, snr)
    with pytest.raises(ParameterError, match="srf"):
        api.simulate(tiny_scene, 4)
    with pytest.raises(PairError, match="too small"):
        api.simulate(tiny_scene, 40, "bicubic", srf3, crop=True)
    nothing = tiny_scene.copy(data=np.full(tiny_scene.shape, np.nan))
    with pytest.raises(CubeError, match="without any value"):
        api.simulate(nothing, 4, "bicubic", srf3)
    only_bad = np.zeros((1, 12))
    only_bad[0, 2] = 1
    marked = tiny_scene.assign_coords(good_band=("band", np.arange(12) != 2))
    with pytest.raises(ResponseError, match="bad bands"):
        api.simulate(marked, 4, "bicubic", only_bad)
