"""Fusing, estimating and measuring through the Python interface."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from napari_hsfusion import api, metrics
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine import responses
from napari_hsfusion.engine.events import CancelToken, Finished, Preview, Started, Step
from napari_hsfusion.errors import (
    Cancelled,
    CubeError,
    DeviceError,
    FormatError,
    PairError,
    ParameterError,
    ResponseError,
)
from napari_hsfusion.params import BicubicParams, SubspaceParams

QUICK = {"method": "subspace", "d": 4, "device": "cpu"}


@pytest.fixture
def pair(tiny_scene: xr.DataArray, srf3: np.ndarray) -> api.SimulatedPair:
    return api.simulate(tiny_scene, 4, "box", srf3, 40.0, 3)


def test_result_carries_labels_georeference_and_record(
    tiny_scene: xr.DataArray, pair: api.SimulatedPair
) -> None:
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, **QUICK)
    assert cube.shape == tiny_scene.shape
    assert cube.dtype == np.float32
    assert np.isfinite(cube.values).all()
    np.testing.assert_array_equal(cube.wavelength, tiny_scene.wavelength)
    np.testing.assert_array_equal(cube.fwhm, tiny_scene.fwhm)
    assert "good_band" not in cube.coords
    assert cube.attrs["transform"] == tiny_scene.attrs["transform"]
    assert cube.attrs["crs"] == "EPSG:32632"
    assert np.isnan(cube.attrs["nodata"])
    assert [(e["step"], e.get("image")) for e in cube.attrs["history"]] == [
        ("simulate", "lr_hsi"),
        ("simulate", "hr_msi"),
        ("fuse", None),
    ]
    record = json.loads(json.dumps(cube.attrs["record"]))
    assert record["method"] == "subspace"
    assert record["preset"] == "default"
    assert record["parameters"]["d"] == 4
    assert record["scale"] == 4
    assert record["psf"] == "box"
    np.testing.assert_array_equal(record["srf"], pair.response.matrix)
    assert record["inputs"]["lr_hsi"]["shape"] == [12, 6, 8]
    assert record["inputs"]["hr_msi"]["shape"] == [3, 24, 32]
    assert record["versions"]["napari-hsfusion"]
    again = api.fuse(
        pair.lr_hsi.drop_attrs(),
        pair.hr_msi.drop_attrs(),
        method=record["method"],
        params=record["parameters"],
        seed=record["seed"],
        scale=record["scale"],
        psf=record["psf"],
        srf=record["srf"],
        device=record["device"],
    )
    # noise levels, known from the simulation before, are estimated now
    assert np.abs(again.values - cube.values).mean() < 0.02


def test_better_than_bicubic(tiny_scene: xr.DataArray, pair: api.SimulatedPair) -> None:
    rows = api.compare(
        {
            "bicubic": api.fuse(pair.lr_hsi, pair.hr_msi, method="bicubic", device="cpu"),
            "subspace": api.fuse(pair.lr_hsi, pair.hr_msi, **QUICK),
        },
        tiny_scene,
    )
    assert [row["name"] for row in rows] == ["bicubic", "subspace"]
    assert rows[1]["psnr"] > rows[0]["psnr"] + 3


@pytest.mark.parametrize("method", ["bicubic", "subspace"])
def test_same_seed_same_cube(method: str, pair: api.SimulatedPair) -> None:
    first = api.fuse(pair.lr_hsi, pair.hr_msi, method=method, seed=4, device="cpu")
    second = api.fuse(pair.lr_hsi, pair.hr_msi, method=method, seed=4, device="cpu")
    np.testing.assert_array_equal(first.values, second.values)
    assert json.dumps(first.attrs) == json.dumps(second.attrs)


def test_events_are_the_methods_own(pair: api.SimulatedPair) -> None:
    events: list[Any] = []
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, progress=events.append, **QUICK)
    assert isinstance(events[0], Started)
    assert events[0].estimate["bytes"] > 0
    assert isinstance(events[-1], Finished)
    assert any(isinstance(e, Step) for e in events)
    previews = [e for e in events if isinstance(e, Preview)]
    np.testing.assert_allclose(previews[-1].bands(5), cube.values[5], atol=1e-5)
    np.testing.assert_array_equal(events[-1].cube, cube.values)
    assert events[-1].record == cube.attrs["record"]


def test_generator_closes_and_cancels(pair: api.SimulatedPair) -> None:
    events = api.iter_fuse(pair.lr_hsi, pair.hr_msi, **QUICK)
    events.close()
    events = api.iter_fuse(pair.lr_hsi, pair.hr_msi, **QUICK)
    assert isinstance(next(events), Started)
    events.close()
    with pytest.raises(StopIteration):
        next(events)
    token = CancelToken()
    events = api.iter_fuse(pair.lr_hsi, pair.hr_msi, cancel=token, **QUICK)
    next(events)
    token.cancel()
    with pytest.raises(Cancelled):
        list(events)
    with pytest.raises(Cancelled):
        api.fuse(pair.lr_hsi, pair.hr_msi, cancel=token, **QUICK)


def test_nothing_is_read_before_the_first_event(tmp_path: Path) -> None:
    run = api.iter_fuse(tmp_path / "absent.hdr", tmp_path / "absent.tif", method="bicubic")
    with pytest.raises(FormatError, match="absent"):
        next(run)


def test_plain_arrays(pair: api.SimulatedPair) -> None:
    x, y, matrix = pair.lr_hsi.values, pair.hr_msi.values, pair.response.matrix
    cube = api.fuse(x, y, psf="box", srf=matrix, **QUICK)
    assert cube.shape == (12, 24, 32)
    assert "transform" not in cube.attrs
    assert "wavelength" not in cube.coords


def test_low_georeference_is_enough(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    made = api.simulate(tiny_scene, 4, kernel, srf3, 40.0)
    high = made.hr_msi.copy()
    for key in ("crs", "transform"):
        del high.attrs[key]
    cube = api.fuse(made.lr_hsi, high, method="bicubic", device="cpu")
    assert made.record["phase"] == 1.0
    np.testing.assert_allclose(cube.attrs["transform"], tiny_scene.attrs["transform"])
    assert cube.attrs["crs"] == tiny_scene.attrs["crs"]


def test_stored_integers_mean_the_same(pair: api.SimulatedPair) -> None:
    cubes = []
    for image in (pair.lr_hsi, pair.hr_msi):
        stored = np.round(np.clip(image.values, 0, 1) * 60000).astype(np.uint16)
        cubes.append(make_cube(stored, scale_factor=1 / 60000))
    matrix = pair.response.matrix
    one = api.fuse(*cubes, psf="box", srf=matrix, **QUICK)
    other = api.fuse(
        *(c.values * np.float32(1 / 60000) for c in cubes), psf="box", srf=matrix, **QUICK
    )
    np.testing.assert_allclose(one.values, other.values, atol=1e-4)


@pytest.mark.parametrize("method", ["bicubic", "subspace"])
def test_unknown_pixels_are_masked_and_never_spread(
    method: str, tiny_scene: xr.DataArray, pair: api.SimulatedPair
) -> None:
    settings = {"method": method, "device": "cpu"}
    x, y = pair.lr_hsi.copy(deep=True), pair.hr_msi.copy(deep=True)
    x.values[:, 0, 0] = np.nan
    x.values[4, 5, 7] = np.inf
    y.values[1, 12, 3] = np.nan
    cube = api.fuse(x, y, **settings)
    unknown = np.zeros((24, 32), dtype=bool)
    unknown[:4, :4] = unknown[20:, 28:] = unknown[12, 3] = True
    np.testing.assert_array_equal(np.isnan(cube.values), np.broadcast_to(unknown, cube.shape))
    clean = api.fuse(pair.lr_hsi, pair.hr_msi, **settings)
    far = (slice(None), slice(8, 18), slice(12, 24))
    error = np.abs(clean.values - tiny_scene.values)[far].mean()
    assert np.abs(cube.values - clean.values)[far].mean() < 0.2 * error
    near = np.abs(cube.values - tiny_scene.values)[:, ~unknown]
    assert np.isfinite(near).all()
    assert near.max() < 3 * np.abs(clean.values - tiny_scene.values).max()
    assert cube.attrs["record"]["inputs"]["lr_hsi"]["invalid_pixels"] == 2
    assert cube.attrs["record"]["inputs"]["hr_msi"]["invalid_pixels"] == 1


def test_nodata_number_equals_nan(pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi.copy(deep=True), pair.hr_msi.copy(deep=True)
    x.values[:, 2, 2] = np.nan
    wanted = api.fuse(x, y, **QUICK)
    x.values[:, 2, 2] = -9999
    x.attrs["nodata"] = -9999
    np.testing.assert_array_equal(api.fuse(x, y, **QUICK).values, wanted.values)


def test_bad_and_empty_bands_are_left_out(pair: api.SimulatedPair) -> None:
    used = np.ones(12, dtype=bool)
    used[[1, 7]] = False
    x = pair.lr_hsi.copy(deep=True)
    x.values[1] = np.linspace(50, 60, 48).reshape(6, 8)
    x.values[1, 3, 3] = np.nan
    x.values[7] = np.nan
    marked = np.ones(12, dtype=bool)
    marked[1] = False
    x = x.assign_coords(good_band=("band", marked))
    previews: list[Any] = []
    cube = api.fuse(
        x,
        pair.hr_msi,
        progress=lambda e: previews.append(e) if isinstance(e, Preview) else None,
        **QUICK,
    )
    np.testing.assert_array_equal(cube.good_band, used)
    assert cube.attrs["record"]["inputs"]["lr_hsi"]["unused_bands"] == [2, 8]
    assert np.isnan(cube.values[7]).all()
    hole = np.zeros((24, 32), dtype=bool)
    hole[12:16, 12:16] = True
    np.testing.assert_array_equal(np.isnan(cube.values[1]), hole)
    assert cube.values[1][~hole].min() > 45
    assert cube.values[1][~hole].max() < 65
    assert np.isfinite(cube.values[used]).all()
    matrix = pair.response.matrix[:, used]
    matrix = matrix / matrix.sum(1, keepdims=True)
    alone = api.fuse(x.isel(band=used), pair.hr_msi, srf=matrix, **QUICK)
    np.testing.assert_allclose(cube.values[used], alone.values, atol=1e-5)
    np.testing.assert_allclose(previews[-1].bands(2), cube.values[2], atol=1e-5)
    assert np.isnan(previews[-1].bands(7)).all()


def test_bad_multispectral_band_is_left_out(pair: api.SimulatedPair) -> None:
    y = pair.hr_msi.copy(deep=True)
    y.values[1] = np.nan
    cube = api.fuse(pair.lr_hsi, y, **QUICK)
    alone = api.fuse(pair.lr_hsi, y.isel(band=[0, 2]), srf=pair.response.matrix[[0, 2]], **QUICK)
    np.testing.assert_array_equal(cube.values, alone.values)


@pytest.mark.parametrize("method", ["bicubic", "subspace"])
def test_constant_bands_and_images(method: str, tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    values = tiny_scene.values.copy()
    values[3] = 0.25
    values[5] = 0.0
    made = api.simulate(make_cube(values), 4, "box", srf3, None)
    cube = api.fuse(made.lr_hsi, made.hr_msi, method=method, device="cpu")
    np.testing.assert_allclose(cube.values[5], 0, atol=2e-3)
    np.testing.assert_allclose(cube.values[3], 0.25, atol=0.02)
    flat = np.full((12, 24, 32), 0.5)
    made = api.simulate(flat, 4, "box", srf3, None)
    cube = api.fuse(made.lr_hsi, made.hr_msi, method=method, device="cpu")
    np.testing.assert_allclose(cube.values, 0.5, atol=0.01)


def test_one_band_multispectral(tiny_scene: xr.DataArray) -> None:
    made = api.simulate(tiny_scene, 4, "box", np.full((1, 12), 1 / 12), 40.0)
    assert made.hr_msi.shape == (1, 24, 32)
    sharp = api.fuse(made.lr_hsi, made.hr_msi, **QUICK)
    plain = api.fuse(made.lr_hsi, made.hr_msi, method="bicubic", device="cpu")
    rows = api.compare({"sharp": sharp, "plain": plain}, tiny_scene)
    assert rows[0]["psnr"] > rows[1]["psnr"]


def test_wrong_sizes(pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi, pair.hr_msi
    with pytest.raises(PairError, match="6 x 8 pixels, the HR-MSI 23 x 32"):
        api.fuse(x, y.isel(y=slice(0, 23)), **QUICK)
    with pytest.raises(PairError, match=r"6 x 8 pixels, the HR-MSI 24 x 16: ratios 4 and 2"):
        api.fuse(x, y.isel(x=slice(0, 16)), **QUICK)
    with pytest.raises(PairError, match=r"scale 2 was given.*ratio is 4"):
        api.fuse(x, y, scale=2, **QUICK)
    with pytest.raises(PairError, match="swapped"):
        api.fuse(y, x, **QUICK)


def test_two_units_are_noticed_unless_they_are_estimated(pair: api.SimulatedPair) -> None:
    other = make_cube(pair.hr_msi.values * 100)
    known = {key: pair.hr_msi.attrs["observation"][key] for key in ("psf", "srf")}
    with pytest.raises(PairError, match=r"99\.9 times what the LR-HSI gives.*in one unit"):
        api.fuse(pair.lr_hsi, other, psf=known["psf"], srf=np.asarray(known["srf"]), **QUICK)
    with pytest.raises(PairError, match=r"0\.00999 times"):
        api.fuse(pair.lr_hsi * 100, pair.hr_msi.values, psf="box", srf=pair.response, **QUICK)
    found = api.estimate_responses(pair.lr_hsi.values, other, 4, psf="box", srf="estimate")
    fused = api.fuse(pair.lr_hsi.values, other, srf=found, **QUICK)
    assert fused.attrs["record"]["msi_gain"][0] == pytest.approx(100.0, rel=0.2)


def test_wrong_bands(pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi, pair.hr_msi
    with pytest.raises(PairError, match=r"expected 11 columns.*LR-HSI, got 12"):
        api.fuse(x.isel(band=slice(0, 11)), y, **QUICK)
    with pytest.raises(PairError, match="3 bands, the HR-MSI 2"):
        api.fuse(x, y.isel(band=[0, 1]).drop_vars("band_name"), **QUICK)
    with pytest.raises(ParameterError, match="at most the 12 bands"):
        api.fuse(x, y, method="subspace", d=13, device="cpu")


def test_named_bands_are_found_in_the_response(pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi, pair.hr_msi
    picked = api.fuse(x, y.isel(band=[2, 0]), srf=pair.response, **QUICK)
    wanted = api.fuse(x, y.isel(band=[2, 0]), srf=pair.response.matrix[[2, 0]], **QUICK)
    np.testing.assert_array_equal(picked.values, wanted.values)


def test_responses_must_be_known(pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi.values, pair.hr_msi.values
    with pytest.raises(ResponseError, match="--psf"):
        api.fuse(x, y, srf=pair.response.matrix, **QUICK)
    with pytest.raises(ResponseError, match="--srf"):
        api.fuse(x, y, psf="box", **QUICK)


def test_nothing_to_fuse(pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi, pair.hr_msi
    with pytest.raises(PairError, match="without any value"):
        api.fuse(x.copy(data=np.full(x.shape, np.nan)), y, **QUICK)
    holes = x.values.copy()
    for band, image in enumerate(holes):
        image.flat[band::12] = np.nan
    with pytest.raises(PairError, match="no pixel"):
        api.fuse(x.copy(data=holes), y, **QUICK)
    with pytest.raises(CubeError, match="3 dimensions"):
        api.fuse(np.zeros(4), y, **QUICK)


def test_unknown_names_and_values(pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi, pair.hr_msi
    with pytest.raises(ParameterError, match=r"unknown method 'magic'.*subspace"):
        api.fuse(x, y, method="magic")
    with pytest.raises(ParameterError, match=r"unknown preset 'best'.*default"):
        api.fuse(x, y, method="subspace", preset="best")
    with pytest.raises(ParameterError, match="unknown parameter 'colour'"):
        api.fuse(x, y, method="subspace", colour="red")
    with pytest.raises(ParameterError, match="d: expected a whole number"):
        api.fuse(x, y, method="subspace", d="many")
    with pytest.raises(ParameterError, match="expected SubspaceParams, got BicubicParams"):
        api.fuse(x, y, method="subspace", params=BicubicParams())
    with pytest.raises(ParameterError, match="not both"):
        api.fuse(x, y, method="subspace", params=SubspaceParams(), preset="default")
    for seed in (-1, 2**63, 10**400, 2.5, float("inf"), float("nan"), "a", None, True, [1, 2]):
        with pytest.raises(ParameterError, match="seed: expected a whole number from 0 to 9223"):
            api.fuse(x, y, method="subspace", seed=seed)
    with pytest.raises(DeviceError, match="cuda:99"):
        api.fuse(x, y, method="subspace", device="cuda:99")


@pytest.mark.parametrize("method", ["bicubic", "subspace"])
def test_largest_seed(method: str, pair: api.SimulatedPair) -> None:
    made = api.fuse(pair.lr_hsi, pair.hr_msi, method=method, seed=2**63 - 1)
    assert np.isfinite(made.values).all()


def test_assess_without_a_reference(tiny_scene: xr.DataArray, pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi, pair.hr_msi
    true = api.assess(x, y, tiny_scene)
    plain = api.assess(x, y, api.fuse(x, y, method="bicubic", device="cpu"))
    assert 38 < true["psnr_msi"] < 60
    assert plain["psnr_msi"] < true["psnr_msi"] - 5
    assert plain["hqnr"] < true["hqnr"] <= 1
    assert true["hqnr"] == pytest.approx((1 - true["d_lambda"]) * (1 - true["d_s"]))
    assert (true["bands_used"], true["bands"]) == (12, 12)
    spoilt = tiny_scene.copy(deep=True)
    spoilt.values[3] = 1e6
    assert api.assess(x, y, spoilt)["psnr_hsi"] < true["psnr_hsi"] - 10
    marked = x.assign_coords(good_band=("band", np.arange(12) != 3))
    left_out = api.assess(marked, y, spoilt)
    assert left_out["bands_used"] == 11
    assert left_out["psnr_hsi"] == pytest.approx(true["psnr_hsi"], abs=3)
    with pytest.raises(PairError, match=r"\(11, 24, 32\)"):
        api.assess(x, y, tiny_scene[:11])


def test_parameters_three_ways(pair: api.SimulatedPair) -> None:
    x, y = pair.lr_hsi, pair.hr_msi
    by_name = api.fuse(x, y, **QUICK)
    by_mapping = api.fuse(x, y, method="subspace", params={"d": "4"}, device="cpu")
    by_object = api.fuse(x, y, method="subspace", params=SubspaceParams(d=4), device="cpu")
    np.testing.assert_array_equal(by_name.values, by_mapping.values)
    np.testing.assert_array_equal(by_name.values, by_object.values)
    default = api.fuse(x, y, method="subspace", device="cpu")
    assert default.attrs["record"]["parameters"]["d"] != 4


def test_methods_are_described() -> None:
    rows = json.loads(json.dumps(api.methods()))
    assert {"bicubic", "subspace", "args-diff"} <= {row["name"] for row in rows}
    for row in rows:
        assert row["default_preset"] in row["presets"]
        for spec in row["parameters"]:
            assert spec["tooltip"]
            assert spec["name"] in row["presets"][row["default_preset"]]


@pytest.mark.filterwarnings("ignore:no value")
def test_evaluate_masks_both_and_skips_bad_bands(
    tiny_scene: xr.DataArray, pair: api.SimulatedPair
) -> None:
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, **QUICK)
    plain = api.evaluate(tiny_scene, cube, clip=False)
    assert plain["bands_used"] == 12
    assert plain == api.evaluate(tiny_scene.values, cube.values, 4, clip=False)
    wanted = metrics.evaluate(tiny_scene.values, cube.values, 4)
    assert plain["psnr"] == pytest.approx(wanted["psnr"])
    spoilt = cube.copy(deep=True)
    spoilt.values[3] = 1e9
    spoilt.values[5] = np.nan
    good = np.arange(12) != 3
    rest = [b for b in range(12) if b not in (3, 5)]
    some = api.evaluate(tiny_scene, spoilt.assign_coords(good_band=("band", good)), clip=False)
    assert some["bands_used"] == 10
    wanted = metrics.evaluate(tiny_scene.values[rest], cube.values[rest], 4)
    assert some["psnr"] == pytest.approx(wanted["psnr"])
    holes = tiny_scene.copy(deep=True)
    holes.values[0, 0, :5] = np.nan
    assert api.evaluate(holes, cube, mask=np.eye(24, 32, dtype=bool))["masked_pixels"] == 28


def test_evaluate_refuses(tiny_scene: xr.DataArray) -> None:
    with pytest.raises(PairError, match=r"\(12, 24, 32\), the estimate \(12, 24, 31\)"):
        api.evaluate(tiny_scene, tiny_scene.isel(x=slice(0, 31)), 4)
    with pytest.raises(ParameterError, match="--scale"):
        api.evaluate(tiny_scene, tiny_scene)
    with pytest.raises(ParameterError, match="convention"):
        api.evaluate(tiny_scene, tiny_scene, 4, convention="mine")


def test_houston_pair_has_a_whole_ratio(shared_data: Callable[[str], Path]) -> None:
    """A real pair of known ratio 4; three bands against 48."""
    held = np.load(shared_data("pairs/houston2018_hs128x128x48_rgb512x512.npz"))
    x = np.moveaxis(held["cube"], -1, 0)[:, :32, :32].astype(np.float32)
    y = np.moveaxis(held["rgb"], -1, 0)[:, :128, :128].astype(np.float32)
    matrix = np.zeros((3, 48))
    for row, centre in enumerate((18, 12, 6)):
        matrix[row, centre - 2 : centre + 3] = 0.2
    cube = api.fuse(x, y * x.mean() / y.mean(), psf="gaussian:2", srf=matrix, **QUICK)
    assert cube.shape == (48, 128, 128)
    assert np.isfinite(cube.values).all()


def test_a_record_with_an_estimated_kernel_can_be_repeated(
    pair: api.SimulatedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An estimate may have deeper negative lobes than a kernel that somebody gives."""
    kernel = np.full((5, 5), 0.02)
    kernel[2, 2], kernel[1, 1] = 0.7, -0.3
    kernel /= kernel.sum()
    found = SimpleNamespace(kernel=kernel, report={})
    monkeypatch.setattr(responses, "estimate_psf", lambda *_, **__: found)
    x, y = pair.lr_hsi, pair.hr_msi
    first = api.fuse(x, y, psf="estimate", **QUICK)
    stored = {
        **x.attrs["observation"],
        "psf": json.loads(json.dumps(first.attrs["record"]["psf"])),
    }
    second = api.fuse(x.assign_attrs(observation=stored), y, **QUICK)
    np.testing.assert_array_equal(first.values, second.values)
    with pytest.raises(ResponseError, match="no value below"):
        api.fuse(x, y, psf=kernel, **QUICK)
    stored["psf"]["source"] = "mine.npy"
    with pytest.raises(ResponseError, match="no value below"):
        api.fuse(x.assign_attrs(observation=stored), y, **QUICK)
    kernel[1, 1] = -2.0
    with pytest.raises(ResponseError, match="estimated from the pair: expected a kernel"):
        api.fuse(x, y, psf="estimate", **QUICK)


@pytest.mark.slow
def test_estimated_responses(tiny_scene: xr.DataArray, srf3: np.ndarray) -> None:
    """Told nothing, one or the other response, the result stays near the informed one."""
    large = np.concatenate([tiny_scene.values, tiny_scene.values[:, ::-1]], axis=1)
    large = np.concatenate([large, large[:, :, ::-1] ** 1.1], axis=2)
    scene = make_cube(large, wavelength=tiny_scene.wavelength.values)
    made = api.simulate(scene, 4, "gaussian:1.8", srf3, 45.0)
    x, y = made.lr_hsi, made.hr_msi
    told = api.evaluate(scene, api.fuse(x, y, **QUICK))["psnr"]
    plain = api.evaluate(scene, api.fuse(x, y, method="bicubic", device="cpu"))["psnr"]
    for psf, srf in (("estimate", None), (None, "estimate"), ("estimate", "estimate")):
        cube = api.fuse(x, y, psf=psf, srf=srf, **QUICK)
        assert cube.attrs["record"]["estimated"]
        json.dumps(cube.attrs["record"], allow_nan=False)
        blind = api.evaluate(scene, cube)["psnr"]
        assert blind > plain + 0.5 * (told - plain), (psf, srf)
    both = api.estimate_responses(x, y)
    assert both.srf.matrix.shape == (3, 12)
    np.testing.assert_allclose(both.srf.matrix.sum(1), 1)
    assert both.psf.kernel is not None
    assert both.psf.kernel.sum() == pytest.approx(1)
    again = api.fuse(x, y, srf=both, **QUICK)
    np.testing.assert_array_equal(again.values, cube.values)
    half = y.copy(data=y.values * 0.5)
    blind = api.evaluate(scene, api.fuse(x, half, srf="estimate", **QUICK))["psnr"]
    assert blind > plain + 0.5 * (told - plain)


def test_evaluate_counts_overshoot_as_the_ends_of_the_range() -> None:
    """Values beyond the reference's range are clipped to it, unless asked otherwise."""
    truth = np.random.default_rng(0).random((3, 16, 16))
    guess = truth.copy()
    guess[0, 0, 0], guess[1, 2, 2] = truth.max() + 1, -0.5
    ends = truth.copy()
    ends[0, 0, 0], ends[1, 2, 2] = truth.max(), 0.0
    clipped = api.evaluate(truth, guess, 4)
    assert clipped["clipped_values"] == 2
    assert clipped["psnr"] == pytest.approx(api.evaluate(truth, ends, 4)["psnr"])
    whole = api.evaluate(truth, guess, 4, clip=False)
    assert whole["clipped_values"] == 0
    assert whole["psnr"] < clipped["psnr"] - 1


def test_the_expected_cost_is_what_a_run_says_first(pair: api.SimulatedPair) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("bicubic", {}),
        ("subspace", {"classes": 2}),
        ("args-diff", {"spatial_steps": 7}),
    ]
    shapes = (pair.lr_hsi.shape, pair.hr_msi.shape)
    for method, settings in cases:
        events = api.iter_fuse(pair.lr_hsi, pair.hr_msi, method=method, params=settings)
        started = next(events)
        events.close()
        assert isinstance(started, Started)
        expected = api.expected_cost(*shapes, method=method, params=settings)
        assert expected["seconds"] > 0
        assert expected["bytes"] > 0
        if method != "args-diff":
            assert dict(started.estimate) == pytest.approx(expected)
    longer = api.expected_cost(*shapes, spatial_steps=3000)
    assert longer["training_seconds"] > api.expected_cost(*shapes)["training_seconds"]
    with pytest.raises(ParameterError, match="unknown preset"):
        api.expected_cost(*shapes, preset="finest")
