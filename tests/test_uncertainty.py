"""Deviations of fused cubes: from the run to the record, the script, the files and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from napari_hsfusion import api
from napari_hsfusion.engine.events import CancelToken, Finished, Started, Step
from napari_hsfusion.engine.methods import emr_diff
from napari_hsfusion.engine.spread import CubeSpread
from napari_hsfusion.errors import Cancelled, CubeError, ParameterError
from napari_hsfusion.scene import demo_scene

SRF = "gaussian:480/70,560/60,660/60"
SMALL = {"spatial_base": 8, "spatial_levels": 2, "spatial_steps": 3, "spatial_batch": 2}
ONE = {"partitions": 1, "denoise": False}
RUNS: dict[str, dict[str, Any]] = {
    "subspace": {"method": "subspace", "d": 4},
    "classes": {"method": "subspace", "preset": "classes"},
    "fast": {"method": "args-diff", "preset": "fast"},
    "proximal": {"method": "args-diff", "preset": "fast", "d": 3, "weight": 0.5, **ONE, **SMALL},
    "published": {
        **{"method": "args-diff", "preset": "paper", "d": 3, "T": 4, "spectral_steps": 3},
        **{"spatial_blocks": 1, "spatial_patch": 16, **SMALL},
    },
    "emr-diff": {
        **{"method": "emr-diff", "preset": "pair", "start": "bicubic", "steps": 3, "width": 4},
        **{"T": 2, "patch": 8, "batch": 1, "architecture": "unet"},
    },
}


@pytest.fixture(scope="module")
def truth() -> xr.DataArray:
    return demo_scene(48, 16, seed=2)


@pytest.fixture(scope="module")
def pair(truth: xr.DataArray) -> api.SimulatedPair:
    return api.simulate(truth, 3, "bicubic", SRF, 35.0, 5)


@pytest.fixture(scope="module")
def sampled(pair: api.SimulatedPair) -> xr.DataArray:
    return fuse(pair, "classes", samples=6)


def fuse(pair: api.SimulatedPair, run: str, **more: Any) -> xr.DataArray:
    return api.fuse(pair.lr_hsi, pair.hr_msi, device="cpu", **RUNS[run], **more)


@pytest.mark.parametrize("run", RUNS)
def test_samples_tell_the_deviation_and_leave_the_cube_alone(
    run: str, pair: api.SimulatedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits of the cube without them, of both with the same seed again."""
    monkeypatch.setattr(emr_diff, "worth", lambda *_: 1.0)
    alone = fuse(pair, run, seed=1)
    events: list[Any] = []
    first = fuse(pair, run, seed=1, samples=3, progress=events.append)
    assert first.values.tobytes() == alone.values.tobytes()
    assert "deviation" not in alone.coords
    assert "samples" not in alone.attrs["record"]
    assert first.attrs["record"]["samples"] == 3
    deviation = first.coords["deviation"]
    assert deviation.dims == first.dims
    assert deviation.dtype == np.float32
    assert np.isfinite(deviation).all()
    assert (deviation >= 0).all()
    assert float(deviation.mean()) > 0
    assert float(deviation.std()) > 0
    again = fuse(pair, run, seed=1, samples=3)
    assert again.deviation.values.tobytes() == deviation.values.tobytes()
    other = fuse(pair, run, seed=2, samples=3)
    assert not np.array_equal(other.deviation, deviation)
    (started,) = (event for event in events if isinstance(event, Started))
    assert list(started.stages)[-1] == "uncertainty"
    assert started.stages["uncertainty"] == 3
    assert started.estimate["uncertainty_seconds"] > 0
    steps = [e for e in events if isinstance(e, Step) and e.stage == "uncertainty"]
    assert steps == [Step("uncertainty", k, 3) for k in (1, 2, 3)]
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("run", ["classes", "fast"])
def test_deviations_fit_the_errors(run: str, truth: xr.DataArray, pair: api.SimulatedPair) -> None:
    """About as many errors as of a normal distribution lie within, large ones where it is large.

    Both of a pair that is denoised first, too; with 16 x 16 pixels to calibrate on the share is
    known roughly.
    """
    cube = fuse(pair, run, samples=6)
    assert cube.attrs["record"]["calibration"]["factor"] > 0
    assert ("denoised_x" in cube.attrs["record"]) == (run == "fast")
    error = np.abs(cube.values - truth.values)
    deviation = cube.deviation.values
    assert 0.5 < np.mean(error < deviation) < 0.95
    assert 0.75 < np.mean(error < 2 * deviation) < 0.999
    assert np.mean(error < 0.1 * deviation) < 0.25
    order = np.argsort(deviation, axis=None)
    least, most = order[: len(order) // 5], order[-len(order) // 5 :]
    assert error.ravel()[most].mean() > 1.5 * error.ravel()[least].mean()


def test_the_map_sums_the_cube_up(sampled: xr.DataArray) -> None:
    expected = np.sqrt((sampled.deviation.values**2).mean(0) / (sampled.values**2).mean())
    np.testing.assert_allclose(sampled.relative_deviation, expected, rtol=1e-5)
    image = api.deviation_map(sampled)
    assert image.shape == (1, 48, 48)
    np.testing.assert_array_equal(image.values[0], sampled.relative_deviation)
    part = api.deviation_cube(sampled.isel(band=slice(2, 5), y=slice(0, 7)))
    np.testing.assert_array_equal(part, sampled.deviation[2:5, :7])
    np.testing.assert_array_equal(part.wavelength, sampled.wavelength[2:5])
    np.testing.assert_array_equal(part.band, [3, 4, 5])


def test_what_was_left_out_has_no_deviation(pair: api.SimulatedPair) -> None:
    """Neither bad bands nor pixels where nothing was measured."""
    good = np.arange(16) != 5
    low = pair.lr_hsi.assign_coords(good_band=("band", good))
    high = pair.hr_msi.copy(deep=True)
    high.values[:, 3:6, 4:9] = np.nan
    cube = api.fuse(low, high, method="subspace", d=4, samples=2)
    known = np.isfinite(cube.deviation.values)
    expected = np.broadcast_to(good[:, None, None], cube.shape) & np.isfinite(cube.values)
    np.testing.assert_array_equal(known, expected)
    assert known.sum() == 15 * (48 * 48 - 15)
    np.testing.assert_array_equal(np.isfinite(cube.relative_deviation), known[0])


@pytest.mark.parametrize(
    ("method", "samples", "said"),
    [
        ("bicubic", 8, "method 'bicubic' has no uncertainty to sample.*expected 0, got 8"),
        ("subspace", 1, "samples: expected 0, or 2 and more, got 1"),
        ("subspace", -2, "samples: expected a whole number of at least 0, got -2"),
        ("subspace", 2.5, "samples: expected a whole number of at least 0, got 2.5"),
    ],
)
def test_samples_that_cannot_be_drawn(
    pair: api.SimulatedPair, method: str, samples: Any, said: str
) -> None:
    with pytest.raises(ParameterError, match=said):
        api.fuse(pair.lr_hsi, pair.hr_msi, method=method, samples=samples)
    with pytest.raises(ParameterError, match=said):
        api.expected_cost((16, 12, 12), (3, 48, 48), method=method, samples=samples)


def test_methods_say_whether_they_have_samples() -> None:
    assert {row["name"]: row["samples"] for row in api.methods()} == {
        **{"bicubic": False, "subspace": True, "args-diff": True, "emr-diff": True}
    }


@pytest.mark.parametrize("method", ["subspace", "args-diff", "emr-diff"])
def test_samples_cost_time_that_is_told(method: str) -> None:
    sizes = (16, 12, 12), (3, 48, 48)
    none, some, more = (
        api.expected_cost(*sizes, method=method, samples=n, device="cpu") for n in (0, 8, 64)
    )
    assert "uncertainty_seconds" not in none
    assert some["seconds"] == pytest.approx(none["seconds"] + some["uncertainty_seconds"])
    assert more["uncertainty_seconds"] > 2 * some["uncertainty_seconds"]
    assert some["bytes"] >= none["bytes"]


def test_cancel_between_samples(pair: api.SimulatedPair) -> None:
    token = CancelToken()
    seen: list[Any] = []

    def stop(event: Any) -> None:
        seen.append(event)
        if event == Step("uncertainty", 2, 9):
            token.cancel()

    with pytest.raises(Cancelled):
        fuse(pair, "subspace", samples=9, cancel=token, progress=stop)
    assert seen[-1] == Step("uncertainty", 2, 9)


def test_deviations_of_plain_runs_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    cubes = 100.0 + rng.standard_normal((7, 3, 4, 5))
    spread = CubeSpread()
    for cube in cubes:
        spread.add(torch.as_tensor(cube))
    np.testing.assert_allclose(spread.bands(1, 3), cubes.std(0, ddof=1)[1:3], rtol=1e-10)


def test_consistency_has_a_posterior_of_its_own(
    pair: api.SimulatedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network is worth nothing the chains agree; what both images leave open stays."""
    monkeypatch.setattr(emr_diff, "worth", lambda *_: 0.0)
    assert not fuse(pair, "emr-diff", samples=2, consistency=False).deviation.any()
    assert fuse(pair, "emr-diff", samples=2).deviation.values.min() > 0


def test_a_script_repeats_the_samples(
    pair: api.SimulatedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cube = fuse(pair, "subspace", samples=4)
    script = api.as_script(cube)
    assert "samples=4" in script
    made: dict[str, Any] = {}
    threads = torch.get_num_threads()
    exec(compile(script, "script.py", "exec"), made)
    torch.set_num_threads(threads)
    assert made["fused"].deviation.values.tobytes() == cube.deviation.values.tobytes()
    saved = api.open_cube("fused-deviation.tif")
    np.testing.assert_array_equal(saved, cube.deviation)


@pytest.mark.parametrize("suffix", [".hdr", ".tif", ".mat"])
def test_files(sampled: xr.DataArray, tmp_path: Path, suffix: str) -> None:
    """The cube is saved as one without samples; its deviation is a cube to be saved."""
    for name, cube in (
        ("cube", sampled),
        ("deviation", api.deviation_cube(sampled)),
        ("map", api.deviation_map(sampled)),
    ):
        api.save_cube(cube, tmp_path / f"{name}{suffix}")
        back = api.open_cube(tmp_path / f"{name}{suffix}")
        np.testing.assert_array_equal(back, cube)
        assert back.attrs["record"] == sampled.attrs["record"]
    cube = api.open_cube(tmp_path / f"cube{suffix}")
    assert "samples=6" in api.as_script(cube)
    with pytest.raises(CubeError, match="expected one that was fused with samples"):
        api.deviation_cube(cube)


def test_georeference_goes_along(pair: api.SimulatedPair) -> None:
    high = pair.hr_msi.assign_attrs(crs="EPSG:32632", transform=(2.0, 0, 5e5, 0, -2.0, 5.4e6))
    low = pair.lr_hsi.assign_attrs(crs="EPSG:32632", transform=(6.0, 0, 5e5, 0, -6.0, 5.4e6))
    cube = api.fuse(low, high, method="subspace", d=3, samples=2)
    for made in (api.deviation_cube(cube), api.deviation_map(cube)):
        assert made.attrs["crs"] == cube.attrs["crs"]
        assert made.attrs["transform"] == cube.attrs["transform"]


@pytest.mark.gpu
def test_on_a_gpu_the_deviations_are_nearly_the_same(pair: api.SimulatedPair) -> None:
    """The noise is drawn on the CPU."""
    on_cpu, on_gpu = (
        api.fuse(pair.lr_hsi, pair.hr_msi, samples=3, device=device, **RUNS["classes"])
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(on_gpu.deviation, on_cpu.deviation, rtol=0.05, atol=1e-6)
