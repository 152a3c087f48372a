"""EMR-Diff through the Python interface: with weights, on the pair itself, and its record."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from small_pairs import scene

from napari_hsfusion import api
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine.emr import shipped
from napari_hsfusion.engine.emr.config import EmrConfig
from napari_hsfusion.engine.emr.model import EmrModel
from napari_hsfusion.engine.emr.weights import save_weights
from napari_hsfusion.engine.events import CancelToken, Finished, Preview, Started, Step
from napari_hsfusion.engine.methods import emr_diff
from napari_hsfusion.errors import (
    Cancelled,
    PairError,
    ParameterError,
    WeightsError,
    WriteError,
)

NM = np.linspace(450.0, 650.0, 5)
SRF = "gaussian:480/60,600/80"
TINY: dict[str, Any] = {
    **{"train_on": "pair", "start": "bicubic", "steps": 3, "width": 4, "T": 2},
    **{"patch": 8, "batch": 1, "rate": 1e-2, "architecture": "unet"},
}
CALL: dict[str, Any] = {"method": "emr-diff", "device": "cpu"}


@pytest.fixture(scope="module")
def truth() -> xr.DataArray:
    return make_cube(scene(5, 32, 32, 1), wavelength=NM, name="scene")


@pytest.fixture(scope="module")
def pair(truth: xr.DataArray) -> api.SimulatedPair:
    """At a ratio of 2: 16 x 16 LR pixels."""
    return api.simulate(truth, 2, "box", SRF, 40.0, 3)


def fuse(pair: api.SimulatedPair, **more: Any) -> xr.DataArray:
    settings = {**TINY, **more.pop("params", {})}
    return api.fuse(pair.lr_hsi, pair.hr_msi, params=settings, **{**CALL, **more})


@pytest.fixture(scope="module")
def own(pair: api.SimulatedPair) -> xr.DataArray:
    return fuse(pair)


def made(
    path: Path, pair: api.SimulatedPair, header: dict[str, Any] | None = None, **design: Any
) -> Path:
    """Random weights of the pair's kind in a file."""
    given = {"bands": 5, "msi_bands": 2, "ratio": 2, "width": 4, "steps": 2}
    model = EmrModel(EmrConfig(**{**given, "architecture": "unet", **design}))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    known = {"wavelengths": NM.tolist(), "srf": pair.response.matrix.tolist(), "psf": "box"}
    save_weights(path, model, {**known, **(header or {})})
    return path


@pytest.fixture
def _whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a few steps change the cube in full, however little it is worth."""
    monkeypatch.setattr(emr_diff, "worth", lambda *_: 1.0)


def psnr(cube: xr.DataArray, truth: xr.DataArray) -> float:
    return float(api.evaluate(truth, cube, 2)["psnr"])


def test_a_network_of_the_pairs_own(
    pair: api.SimulatedPair, own: xr.DataArray, truth: xr.DataArray
) -> None:
    """Events of every stage, the same bits again, and a record that says it all."""
    events: list[Any] = []
    again = fuse(pair, progress=events.append)
    assert again.values.tobytes() == own.values.tobytes()
    assert json.dumps(again.attrs["record"]) == json.dumps(own.attrs["record"])
    started = events[0]
    assert isinstance(started, Started)
    assert started.stages == {"train network": 3, "start": 1, "restore": 2, "agree": 1}
    assert started.estimate["training_seconds"] > 0
    steps = [(e.stage, e.index) for e in events if isinstance(e, Step)]
    wanted = [(stage, i + 1) for stage, n in started.stages.items() for i in range(n)]
    assert steps == wanted
    assert all(e.loss is not None for e in events if isinstance(e, Step) and e.stage[0] == "t")
    previews = [e for e in events if isinstance(e, Preview)]
    assert [e.stage for e in previews] == ["restore", "restore", "agree"]
    np.testing.assert_allclose(previews[-1].bands(3), own.values[3], atol=1e-6)
    assert isinstance(events[-1], Finished)

    assert own.shape == truth.shape
    assert np.isfinite(own.values).all()
    record = json.loads(json.dumps(own.attrs["record"]))
    assert record["parameters"]["train_on"] == "pair"
    assert record["network"]["width"] == 4
    assert record["network"]["steps"] == 2
    assert 0 <= record["network_share"] <= 1
    assert record["networks_loaded"] is False
    misfit = record["misfit"]
    assert misfit["consistent"]["hr_msi"] < misfit["network"]["hr_msi"]
    plain = api.fuse(pair.lr_hsi, pair.hr_msi, method="bicubic", device="cpu")
    assert psnr(own, truth) > psnr(plain, truth) + 3


def test_consistency_is_an_option(
    pair: api.SimulatedPair, own: xr.DataArray, tmp_path: Path
) -> None:
    """Without it the cube is the network's, and the record has its misfit alone."""
    path = made(tmp_path / "w.safetensors", pair)
    with_weights: dict[str, Any] = {"train_on": "weights", "weights": str(path)}
    off, on = (
        api.fuse(
            pair.lr_hsi, pair.hr_msi, params={**with_weights, "consistency": consistent}, **CALL
        )
        for consistent in (False, True)
    )
    first, second = off.attrs["record"]["misfit"], on.attrs["record"]["misfit"]
    assert set(first) == {"network"}
    assert second["network"] == first["network"]
    for image in ("lr_hsi", "hr_msi"):
        assert second["consistent"][image] < first["network"][image]
    assert on.attrs["record"]["weights"] == "w.safetensors"
    assert on.attrs["record"]["weights_psf"] == "box"
    assert on.attrs["record"]["weights_digest"].startswith("sha256:")


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 6])
def test_cancel_within_a_step(pair: api.SimulatedPair, stop: int) -> None:
    """However many of the seven steps were done, no further one is."""
    token = CancelToken()
    run = api.iter_fuse(pair.lr_hsi, pair.hr_msi, params=TINY, cancel=token, **CALL)
    done = 0
    while done < stop:
        done += isinstance(next(run), Step)
    token.cancel()
    after: list[Any] = []
    with pytest.raises(Cancelled):
        after.extend(iter(run))
    assert not any(isinstance(event, Step) for event in after)


def test_networks_are_kept_and_taken_again(pair: api.SimulatedPair, tmp_path: Path) -> None:
    """The same cube without training; a network of another training or design is refused."""
    folder = tmp_path / "nets"
    first = fuse(pair, networks=folder)
    assert [p.name for p in folder.iterdir()] == ["emr-diff.safetensors"]
    stages: list[Any] = []
    second = fuse(pair, networks=folder, progress=stages.append)
    assert second.values.tobytes() == first.values.tobytes()
    assert "train network" not in stages[0].stages
    assert stages[0].estimate["training_seconds"] == 0
    assert not first.attrs["record"]["networks_loaded"]
    assert second.attrs["record"]["networks_loaded"]
    assert second.attrs["record"]["network_share"] == first.attrs["record"]["network_share"]
    for name, value, words in (
        ("width", 5, "width = 4, this run needs 5"),
        ("start", "subspace", "start = bicubic, this run needs subspace"),
        ("pseudo", "2,3", r"pseudo = \[1, 2\], this run needs \[2, 3\]"),
        ("T", 3, "T = 2, this run needs 3"),
        ("rate", 1e-4, "rate = 0.01, this run needs 0.0001"),
    ):
        with pytest.raises(WeightsError, match=rf"the saved network has {words}"):
            fuse(pair, networks=folder, params={name: value})
    with pytest.raises(
        WeightsError, match=r"emr-diff\.safetensors: .*another multispectral sensor"
    ):
        fuse(pair, networks=folder, srf=pair.response.matrix[::-1])
    shifted = pair.lr_hsi.assign_coords(wavelength=("band", NM + 90))
    with pytest.raises(WeightsError, match=r"expect bands from 450 to 650 nm, got 540 to 740 nm"):
        api.fuse(
            shifted,
            pair.hr_msi,
            srf=pair.response.matrix,
            params=TINY,
            networks=folder,
            **CALL,
        )
    with pytest.raises(WeightsError, match="training_steps = 3, this run needs 4"):
        fuse(pair, networks=folder, params={"steps": 4})
    with pytest.raises(WeightsError, match=r"for 4 and 2 bands at a ratio of 2, got one for 5"):
        api.fuse(
            pair.lr_hsi.isel(band=slice(1, 5)),
            pair.hr_msi,
            srf=pair.response.matrix[:, 1:],
            params=TINY,
            networks=folder,
            **CALL,
        )
    whole = (folder / "emr-diff.safetensors").read_bytes()
    (folder / "emr-diff.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        fuse(pair, networks=folder)
    (tmp_path / "file").touch()
    events: list[Any] = []
    with pytest.raises(WriteError, match="networks cannot be saved"):
        fuse(pair, networks=tmp_path / "file", progress=events.append)
    assert events == []
    with pytest.raises(ParameterError, match="networks has no effect with train_on=weights"):
        api.fuse(pair.lr_hsi, pair.hr_msi, networks=folder, **CALL)


@pytest.mark.usefixtures("_whole")
def test_every_parameter_of_a_new_network_counts(pair: api.SimulatedPair) -> None:
    """Each changes the cube; tiles and nothing else leave it as it is."""
    off: dict[str, Any] = {"consistency": False}
    usual = fuse(pair, params=off)
    assert usual.attrs["record"]["network_share"] == 1
    assert not np.array_equal(fuse(pair, params=off, seed=1).values, usual.values)
    for name, value in (
        *(("start", "subspace"), ("architecture", "b-unet"), ("residual", "none"), ("kappa", 1.0)),
        *(("noise", "plain"), ("T", 3), ("pseudo", "2,3"), ("width", 5), ("steps", 4)),
        *(("batch", 2), ("patch", 16), ("rate", 1e-3), ("average", 0.1)),
    ):
        changed = fuse(pair, params={**off, name: value})
        assert not np.array_equal(changed.values, usual.values), name
    tiled = fuse(pair, params={**off, "tile": 16})
    np.testing.assert_allclose(tiled.values, usual.values, atol=1e-5)
    published = fuse(pair, params={"width": None})
    assert published.attrs["record"]["network"]["width"] == 7


def test_settings_that_nothing_would_read(pair: api.SimulatedPair, tmp_path: Path) -> None:
    """They are refused, and so are values that cannot be."""
    path = made(tmp_path / "w.safetensors", pair)
    fused = {"preset": "default", "params": {}}
    for name, value in (("start", "bicubic"), ("width", 8), ("T", 3), ("steps", 9), ("rate", 1e-4)):
        given = {"train_on": "weights", "weights": str(path), name: value}
        with pytest.raises(ParameterError, match=rf"{name} has no effect with train_on=weights"):
            api.fuse(pair.lr_hsi, pair.hr_msi, **CALL, **{**fused, "params": given})
    for change, words in (
        ({"weights": str(path)}, "weights has no effect"),
        ({"fine_tune": True, "weights": str(path)}, "has no effect with fine_tune=true"),
        ({"pseudo": "1,x"}, "pseudo: expected band numbers, as in 1,15,31, got '1,x'"),
        ({"pseudo": "1,6"}, "pseudo: expected 2 bands from 1 to 5, got 1,6"),
        ({"pseudo": "1"}, "pseudo: expected 2 bands"),
        ({"pseudo": "1,2", "residual": "unimodal"}, "pseudo has no effect with residual=unimodal"),
        ({"tile": 8}, "tile"),
    ):
        with pytest.raises(ParameterError, match=words):
            fuse(pair, params=change)


def test_weights_that_do_not_fit(pair: api.SimulatedPair, tmp_path: Path) -> None:
    """Bands, wavelengths, ratio, sensor, damage: each said before anything is worked out."""

    def refused(words: str, path: Path | str, lr_hsi: Any = pair.lr_hsi, **more: Any) -> None:
        events: list[Any] = []
        with pytest.raises(WeightsError, match=words):
            api.fuse(
                lr_hsi,
                pair.hr_msi,
                params={"weights": str(path)},
                progress=events.append,
                **{**CALL, **more},
            )
        assert events == []

    path = tmp_path / "w.safetensors"
    made(path, pair, bands=6)
    refused("these weights expect 6 hyperspectral bands, got 5", path)
    made(path, pair, {"wavelengths": (NM + 200).tolist()})
    refused("bands from 650 to 850 nm, got 450 to 650 nm: band 1 at 450 nm", path)
    made(path, pair, ratio=4)
    refused("expect 4 as ratio of the resolutions, got 2", path)
    made(path, pair, msi_bands=3)
    refused("expect 3 multispectral bands, got 2", path)
    made(path, pair, {"srf": pair.response.matrix[::-1].tolist(), "srf_source": "camera"})
    refused(r"another multispectral sensor \(camera\)", path)
    made(path, pair)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    refused(r"w\.safetensors: cannot be read as weights", path)
    refused("cannot be read as weights", tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match=r"no weights that come with the package.*train_on=pair"):
        api.fuse(pair.lr_hsi, pair.hr_msi, **CALL)


def test_the_shipped_weights_that_fit_are_taken(
    pair: api.SimulatedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first by name that fits; where none does, each says why."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    made(tmp_path / "emr-diff-a.safetensors", pair, ratio=4)
    with pytest.raises(WeightsError, match=r"emr-diff-a: .* expect 4 as ratio.*train_on=pair"):
        api.fuse(pair.lr_hsi, pair.hr_msi, **CALL)
    fitting = made(tmp_path / "emr-diff-b.safetensors", pair)
    made(tmp_path / "emr-diff-c.safetensors", pair, noise="plain")
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, **CALL)
    assert cube.attrs["record"]["weights"] == "emr-diff-b.safetensors"
    given = api.fuse(pair.lr_hsi, pair.hr_msi, params={"weights": str(fitting)}, **CALL)
    assert given.values.tobytes() == cube.values.tobytes()


@pytest.mark.usefixtures("_whole")
def test_fine_tuning(pair: api.SimulatedPair, tmp_path: Path) -> None:
    """From weights that fit on: their design, other values."""
    path = made(tmp_path / "w.safetensors", pair, noise="plain")
    settings = {"train_on": "pair", "fine_tune": True, "weights": str(path), "steps": 3, "patch": 8}
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, params=settings, **CALL)
    record = cube.attrs["record"]
    assert (record["network"]["noise"], record["network"]["start"]) == ("plain", "bicubic")
    assert record["weights"] == "w.safetensors"
    for change in ({"steps": 6}, {"rate": 1e-2}):
        other = api.fuse(pair.lr_hsi, pair.hr_msi, params={**settings, **change}, **CALL)
        assert not np.array_equal(other.values, cube.values)
    with pytest.raises(WeightsError, match="no weights that come with the package fit"):
        api.fuse(pair.lr_hsi, pair.hr_msi, params={**settings, "weights": None}, **CALL)


def test_pairs_too_small_to_train_on(truth: xr.DataArray) -> None:
    small = api.simulate(truth, 8, "box", SRF, 40.0)
    with pytest.raises(PairError, match=r"at least 24 x 24 pixels at a ratio of 8, got 4 x 4"):
        fuse(small)


def test_gaps(pair: api.SimulatedPair, own: xr.DataArray) -> None:
    """Unknown pixels stay unknown, and what is under them changes nothing."""
    cubes = []
    for rubbish in (np.nan, np.inf):
        x, y = pair.lr_hsi.copy(deep=True), pair.hr_msi.copy(deep=True)
        x.values[:, 2, 3] = rubbish
        y.values[1, 20, 9] = rubbish
        cubes.append(api.fuse(x, y, params=TINY, **CALL))
    unknown = np.zeros((32, 32), bool)
    unknown[4:6, 6:8] = unknown[20, 9] = True
    np.testing.assert_array_equal(np.isnan(cubes[0].values).all(0), unknown)
    assert np.isfinite(cubes[0].values[:, ~unknown]).all()
    np.testing.assert_array_equal(cubes[0].values, cubes[1].values)


@pytest.mark.parametrize("kept", [False, True])
def test_the_script_repeats_the_run(
    truth: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Bit for bit, with a network that was trained or one that was loaded."""
    api.save_cube(truth, tmp_path / "scene.tif")
    pair = api.simulate(api.open_cube(tmp_path / "scene.tif"), 2, "box", SRF, 40.0, 3)
    more = {"networks": tmp_path / "nets"} if kept else {}
    cube = fuse(pair, **more)
    if kept:
        cube = fuse(pair, **more)
    script = api.as_script(cube)
    ast.parse(script)
    assert ("networks=" in script) == kept
    assert ("hs.verify(" in script) >= kept
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    names: dict[str, Any] = {}
    exec(compile(script, "script.py", "exec"), names)
    torch.set_num_threads(threads)
    assert names["fused"].values.tobytes() == cube.values.tobytes()


def test_expected_cost() -> None:
    """Grows with the image and the training, and is known without the images."""
    shapes = (31, 32, 32), (3, 256, 256)
    cost = {
        name: api.expected_cost(*shapes, method="emr-diff", device="cpu", params=params)
        for name, params in {
            "weights": {},
            "pair": {"train_on": "pair"},
            "longer": {"train_on": "pair", "steps": 2000},
            "wider": {"train_on": "pair", "width": 64},
            "small": {"tile": 32},
        }.items()
    }
    assert cost["weights"]["training_seconds"] == 0 < cost["weights"]["sampling_seconds"]
    trained = [cost[name]["training_seconds"] for name in ("pair", "longer")]
    assert trained[1] == pytest.approx(10 * trained[0])
    assert cost["wider"]["training_seconds"] > 1.5 * trained[0]
    assert cost["small"]["bytes"] < cost["weights"]["bytes"]
    for said in cost.values():
        assert said["seconds"] == said["training_seconds"] + said["sampling_seconds"]
    large = api.expected_cost((31, 64, 64), (3, 512, 512), method="emr-diff", device="cpu")
    assert 3 < large["seconds"] / cost["weights"]["seconds"] < 8
