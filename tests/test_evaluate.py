"""Maps of errors and residuals, and measuring step by step, through the Python interface."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from napari_hsfusion import api, metrics
from napari_hsfusion._evaluate import iter_evaluate
from napari_hsfusion.errors import PairError, ParameterError


@pytest.fixture
def pair(tiny_scene: xr.DataArray, srf3: np.ndarray) -> api.SimulatedPair:
    return api.simulate(tiny_scene, 4, "box", srf3, 40.0, 3)


@pytest.fixture
def plain(pair: api.SimulatedPair) -> xr.DataArray:
    return api.fuse(pair.lr_hsi, pair.hr_msi, method="bicubic", device="cpu")


def test_maps_are_of_the_numbers(tiny_scene: xr.DataArray, plain: xr.DataArray) -> None:
    measured = api.evaluate(tiny_scene, plain, convention="args-diff")
    rmse = api.error_map(tiny_scene, plain)
    assert rmse.shape == (24, 32)
    assert rmse.dtype == np.float32
    truth = tiny_scene.values
    guess = np.clip(plain.values.astype(float), min(0, truth.min()), truth.max())
    np.testing.assert_allclose(rmse, np.sqrt(((truth - guess) ** 2).mean(0)), rtol=1e-5)
    angle = api.error_map(tiny_scene, plain, "sam")
    assert np.nanmean(angle) == pytest.approx(measured["sam"], rel=1e-4)
    one = api.error_map(tiny_scene, plain, "band", band=7)
    np.testing.assert_allclose(one, np.abs(truth[7] - guess[7]), rtol=1e-5, atol=1e-7)


def test_maps_leave_bad_bands_and_pixels_out(tiny_scene: xr.DataArray, plain: xr.DataArray) -> None:
    spoilt = plain.copy(deep=True)
    spoilt.values[3] = 0.9
    marked = spoilt.assign_coords(good_band=("band", np.arange(12) != 3))
    rest = [b for b in range(12) if b != 3]
    wanted = api.error_map(tiny_scene[rest], plain[rest])
    np.testing.assert_allclose(api.error_map(tiny_scene, marked), wanted, rtol=1e-6)
    # the fifth band of the cube is the fourth of those that are used
    wanted = np.abs(tiny_scene.values[4] - plain.values[4])
    got = api.error_map(tiny_scene, marked, "band", band=4, clip=False)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
    with pytest.raises(PairError, match="band 4 is marked as bad"):
        api.error_map(tiny_scene, marked, "band", band=3)
    holes = plain.copy(deep=True)
    holes.values[2, 5, 6] = np.nan
    assert np.argwhere(np.isnan(api.error_map(tiny_scene, holes))).tolist() == [[5, 6]]


def test_maps_refuse(tiny_scene: xr.DataArray) -> None:
    with pytest.raises(ParameterError, match="rmse, band, sam, got 'x'"):
        api.error_map(tiny_scene, tiny_scene, "x")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="0-based band"):
        api.error_map(tiny_scene, tiny_scene, "band")
    with pytest.raises(ParameterError, match="0-based band"):
        api.error_map(tiny_scene, tiny_scene, band=2)
    with pytest.raises(ParameterError, match="expected 0 to 11, got 12"):
        api.error_map(tiny_scene, tiny_scene, "band", band=12)
    with pytest.raises(PairError, match=r"\(12, 24, 32\), the estimate \(12, 24, 31\)"):
        api.error_map(tiny_scene, tiny_scene[..., :31])


@pytest.mark.filterwarnings("ignore:no value")
@pytest.mark.parametrize("convention", metrics.CONVENTIONS)
def test_step_by_step_is_the_same(
    tiny_scene: xr.DataArray, plain: xr.DataArray, convention: str
) -> None:
    steps = iter_evaluate(tiny_scene, plain, None, convention)
    done = []
    while True:
        try:
            done.append(next(steps))
        except StopIteration as stop:
            told = stop.value
            break
    assert done == sorted(done)
    assert done[-1] == 1
    assert len(done) == len(metrics.metric_infos(convention)) + 1
    assert told.row.keys() == api.evaluate(tiny_scene, plain, convention=convention).keys()
    np.testing.assert_equal(told.row, api.evaluate(tiny_scene, plain, convention=convention))
    without = [key for key in metrics.metric_infos(convention) if np.isnan(told.row[key])]
    assert len(told.notes) == len(without)
    if convention == "emr-diff":
        assert without == ["ssim"]
        assert "over 160 pixels" in told.notes[0]


def test_notes_are_warnings_of_the_caller(tiny_scene: xr.DataArray, plain: xr.DataArray) -> None:
    with pytest.warns(UserWarning, match="no value: ") as caught:
        api.evaluate(tiny_scene, plain, convention="emr-diff")
    assert caught[0].filename == __file__


def test_consistency_maps(
    tiny_scene: xr.DataArray, pair: api.SimulatedPair, plain: xr.DataArray
) -> None:
    seen = api.consistency(pair.lr_hsi, pair.hr_msi, plain)
    told = api.assess(pair.lr_hsi, pair.hr_msi, plain)
    assert {k: told[k] for k in seen.numbers()} == seen.numbers()
    assert set(metrics.no_reference_infos()) < set(told)
    assert seen.error_map_hsi.shape == (6, 8)
    assert seen.error_map_msi.shape == (24, 32)
    projected = np.einsum("cb,byx->cyx", np.array(plain.attrs["record"]["srf"]), plain.values)
    wanted = np.sqrt(((projected - pair.hr_msi.values) ** 2).mean(0))
    np.testing.assert_allclose(seen.error_map_msi, wanted, rtol=1e-4, atol=1e-6)
    boxed = plain.values.reshape(12, 6, 4, 8, 4).mean((2, 4))
    wanted = np.sqrt(((boxed - pair.lr_hsi.values) ** 2).mean(0))
    np.testing.assert_allclose(seen.error_map_hsi, wanted, rtol=1e-3, atol=1e-5)
    best: Any = api.consistency(pair.lr_hsi, pair.hr_msi, tiny_scene)
    assert best.error_map_msi.mean() < seen.error_map_msi.mean() / 2
    with pytest.raises(PairError, match=r"\(11, 24, 32\)"):
        api.consistency(pair.lr_hsi, pair.hr_msi, tiny_scene[:11])


def test_responses_of_the_run_serve_a_pair_that_has_none(pair: api.SimulatedPair) -> None:
    """The gain of an HR-MSI in other units comes along."""
    bare = [image.assign_attrs(observation={}, history=[]) for image in (pair.lr_hsi, pair.hr_msi)]
    x, y = bare[0], bare[1] * 3
    y.attrs.update(bare[1].attrs)
    fused = api.fuse(x, y, method="bicubic", psf="box", srf="estimate", device="cpu")
    assert fused.attrs["record"]["msi_gain"] == pytest.approx([3, 3, 3], rel=0.1)
    found = api.estimate_responses(x, y, psf="box")
    assert api.assess(x, y, fused) == pytest.approx(api.assess(x, y, fused, srf=found), rel=1e-6)
