"""The script of a run repeats it: the same images, the same numbers, to the last bit."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from napari_hsfusion import api
from napari_hsfusion.cube import with_history
from napari_hsfusion.errors import CubeError, FormatError, WeightsError
from napari_hsfusion.params import ArgsDiffParams, BicubicParams
from napari_hsfusion.scene import demo_scene
from napari_hsfusion.sensors.psf import PSF
from napari_hsfusion.sensors.srf import Response

GAUSSIANS = "gaussian:480/70,560/60,660/60"
QUICK = {"method": "subspace", "d": 4, "device": "cpu"}
TINY = {
    "method": "args-diff",
    "preset": "fast",
    "device": "cpu",
    "d": 3,
    "spatial_base": 8,
    "spatial_steps": 3,
    "levels": 2,
    "weight": 0.5,
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[None, None, None]:
    """Scripts save where they run, and set torch's threads."""
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def village() -> xr.DataArray:
    return demo_scene(32, 16, seed=2)


@pytest.fixture(scope="module")
def pair(village: xr.DataArray) -> api.SimulatedPair:
    return api.simulate(village, 4, "gaussian:1.5", GAUSSIANS, 30.0, 5)


def run(script: str, **names: Any) -> dict[str, Any]:
    """Names that a script leaves; it must be good Python in short lines."""
    ast.parse(script)
    assert (
        max(len(line) for line in script.splitlines() if str(Path.cwd().parent) not in line) < 101
    )
    made: dict[str, Any] = dict(names)
    exec(compile(script, "script.py", "exec"), made)
    return made


def repeated(cube: xr.DataArray) -> str:
    """Script of a cube, once it was seen to give the same cube."""
    script = api.as_script(cube)
    again = run(script)["fused"]
    assert again.values.tobytes() == cube.values.tobytes()
    before, after = (json.loads(json.dumps(c.attrs["record"])) for c in (cube, again))
    for record in (before, after):  # images that were in memory come from files the second time
        if not record.get("networks_loaded"):
            record.pop("networks", None)  # where they were kept has no part in the result
        for said in record["inputs"].values():
            for key in ("name", "source", "variable", "history", "srf"):
                said.pop(key, None)
    assert after == before
    saved = api.open_cube("fused.tif")
    assert saved.values.tobytes() == cube.values.tobytes()
    assert "record" in saved.attrs
    return script


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        {"method": "subspace", "preset": "classes", "device": "cpu", "seed": 9},
        {"method": "bicubic", "device": "cpu"},
        TINY,
        {**TINY, "preset": None, "weight": None},
    ],
)
def test_a_simulated_pair_of_a_scene(pair: api.SimulatedPair, settings: dict[str, Any]) -> None:
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, **settings)
    script = repeated(cube)
    assert "demo_scene(size=32, bands=16, seed=2" in script
    assert f'srf="{GAUSSIANS}"' in script
    assert "np.array" not in script
    changed = {k for k in settings if k in cube.attrs["record"]["parameters"]}
    usual = cube.attrs["record"]["preset"]
    call = ast.parse(script)
    named = {
        word.arg
        for node in ast.walk(call)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "hs.fuse"
        for word in node.keywords
    }
    defaults = {"method", "preset", "scale", "seed", "device"}
    assert named <= defaults | changed
    assert f'preset="{usual}"' in script


def test_the_preset_is_not_said_twice(pair: api.SimulatedPair) -> None:
    """A setting that is the preset's own is no difference."""
    usual = {"method": "subspace", "classes": 8, "preset": "classes", "device": "cpu"}
    script = api.as_script(api.fuse(pair.lr_hsi, pair.hr_msi, **usual))
    assert 'preset="classes"' in script
    assert "classes=8" not in script


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("bicubic", BicubicParams()),
        ("args-diff", ArgsDiffParams(d=3, sampler="proximal", weight=0.0)),
    ],
)
def test_parameters_without_a_preset_are_all_there(
    pair: api.SimulatedPair, method: str, params: Any
) -> None:
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, method=method, params=params, device="cpu")
    script = repeated(cube)
    assert "preset" not in script
    for name, value in params.to_record().items():
        text = json.dumps(value) if isinstance(value, str) else repr(value)
        assert f"{name}={text}" in script


def test_networks_that_were_loaded_are_loaded_again(
    pair: api.SimulatedPair, tmp_path: Path
) -> None:
    folder = tmp_path / "net works"
    first = api.fuse(pair.lr_hsi, pair.hr_msi, networks=folder, **TINY)
    assert "networks=" not in repeated(first), "training again gives the same networks"
    second = api.fuse(pair.lr_hsi, pair.hr_msi, networks=folder, **{**TINY, "seed": 4})
    script = repeated(second)
    assert f'networks="{folder}"' in script
    weights = folder / "spatial.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\1\0")
    with pytest.raises(WeightsError, match="trained anew or moved"):
        run(script)


ODD = 'it\'s a "folder" \\ of ünï {x} 100%'


@pytest.mark.parametrize("suffix", [".hdr", ".tif", ".mat"])
def test_a_pair_from_files(pair: api.SimulatedPair, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    low = api.save_cube(pair.lr_hsi, folder / f"lr{suffix}")
    high = api.save_cube(pair.hr_msi, folder / f"hr{suffix}")
    by_path = api.fuse(low, high, **QUICK)
    script = repeated(by_path)
    assert "simulate" not in script
    assert script.count("hs.open_cube(") == 2
    opened = api.fuse(api.open_cube(low), api.open_cube(high), **QUICK)
    assert api.as_script(opened) == script


def test_a_variable_of_a_mat_file(pair: api.SimulatedPair, tmp_path: Path) -> None:
    import scipy.io

    file = tmp_path / "both.mat"
    low, high = (np.moveaxis(image.values, 0, -1) for image in (pair.lr_hsi, pair.hr_msi))
    scipy.io.savemat(file, {"low": low, "high": high})
    cube = api.fuse(
        api.open_cube(file, "low"),
        api.open_cube(file, "high"),
        psf="gaussian:1.5",
        srf=pair.response,
        **QUICK,
    )
    script = repeated(cube)
    assert 'variable="low"' in script
    assert 'variable="high"' in script


def test_a_pair_simulated_from_a_file(village: xr.DataArray, tmp_path: Path) -> None:
    path = api.save_cube(village, tmp_path / "reference.tif")
    one = api.simulate(path, 4, "box", GAUSSIANS, seed=1, snr_hsi=20.0, snr_msi=30.0)
    script = repeated(api.fuse(one.lr_hsi, one.hr_msi, **QUICK))
    assert f'"{path}"' in script
    assert script.count("hs.open_cube(") == 1
    assert "demo_scene" not in script
    assert "snr_db=20.0" in script
    assert "snr_msi=30.0" in script


@pytest.mark.parametrize(
    ("hsi", "msi"), [(None, None), (None, 25.0), (25.0, None), (20, 30), (15.0, 15.0)]
)
def test_noise_levels_of_a_simulation(
    village: xr.DataArray, hsi: float | None, msi: float | None
) -> None:
    both = api.simulate(village, 4, "box", GAUSSIANS, None, 1, snr_hsi=hsi, snr_msi=msi)
    made = run(api.as_script(both.lr_hsi))
    for key, image in (("lr_hsi", both.lr_hsi), ("hr_msi", both.hr_msi)):
        assert made[key].values.tobytes() == image.values.tobytes()


def test_a_cropped_simulation_with_a_kernel_and_a_matrix(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cube = demo_scene(34, 8)
    kernel = rng.random((5, 3))
    psf = PSF("kernel", kernel=kernel / kernel.sum(), source="k", phase=1.0, border="wrap")
    srf = Response(rng.dirichlet(np.ones(8), 2), None, ("B2", 'b "1"'), "by hand")
    both = api.simulate(cube, 4, psf, srf, 30.0, crop=True)
    script = repeated(api.fuse(both.lr_hsi, both.hr_msi, **QUICK))
    assert "crop=True" in script
    assert "phase=1.0" in script
    assert 'border="wrap"' in script
    for image in (both.lr_hsi, both.hr_msi):
        made = run(api.as_script(image))
        assert made["hr_msi"].values.tobytes() == both.hr_msi.values.tobytes()
        assert made["hr_msi"].band_name.values.tolist() == ["B2", 'b "1"']
        assert made["lr_hsi"].attrs["observation"] == both.lr_hsi.attrs["observation"]
        assert made["lr_hsi"].attrs["history"] == both.lr_hsi.attrs["history"]


def test_a_run_with_other_responses_than_the_simulation(pair: api.SimulatedPair) -> None:
    """The pair is simulated with its own, and fused with those that were given."""
    other = np.random.default_rng(3).dirichlet(np.ones(16), 3)
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, psf="bicubic", srf=other, **QUICK)
    script = repeated(cube)
    assert 'psf="bicubic"' in script
    assert f'srf="{GAUSSIANS}"' in script


def test_a_sensor_is_named_where_its_name_says_it_all(pair: api.SimulatedPair) -> None:
    srf = "sentinel-2a:B4,B3,B2"
    both = api.simulate(demo_scene(32, 24), 4, "box", srf, 30.0)
    cube = api.fuse(both.lr_hsi, both.hr_msi, srf=srf, **QUICK)
    script = repeated(cube)
    assert script.count(f'srf="{srf}"') == 2
    assert "np.array" not in script


@pytest.mark.parametrize(
    ("psf", "srf"), [("estimate", None), (None, "estimate"), ("estimate", "estimate")]
)
def test_estimated_responses(pair: api.SimulatedPair, psf: str | None, srf: str | None) -> None:
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, psf=psf, srf=srf, **QUICK)
    assert "estimated" in cube.attrs["record"]
    script = repeated(cube)
    assert ('psf="estimate"' in script) == (psf is not None)
    assert ('srf="estimate"' in script) == (srf is not None)


@pytest.mark.parametrize("psf", [None, "box", "estimate"])
def test_responses_estimated_beforehand_with_their_gain(
    pair: api.SimulatedPair, psf: str | None
) -> None:
    brighter = pair.hr_msi.copy(data=pair.hr_msi.values * np.float32(2.5))
    brighter.attrs.pop("observation")
    known = api.estimate_responses(pair.lr_hsi, brighter)
    assert (known.gain != 1).any()
    api.save_cube(brighter, "hr.hdr")
    cube = api.fuse(pair.lr_hsi, api.open_cube("hr.hdr"), psf=psf, srf=known, **QUICK)
    script = repeated(cube)
    assert "gain=np.array" in script


def test_stored_responses_keep_the_order_of_their_bands(village: xr.DataArray) -> None:
    """Bands called B2, B1 are no permutation of the stored matrix's rows."""
    matrix = np.random.default_rng(8).dirichlet(np.ones(16), 2)
    named = Response(matrix, None, ("B2", "B1"), "by hand")
    both = api.simulate(village, 4, "box", named, 40.0)
    cube = api.fuse(both.lr_hsi, both.hr_msi, **QUICK)
    assert cube.attrs["record"]["srf"] == matrix.tolist()
    second = both.hr_msi.isel(band=[1])
    cube = api.fuse(both.lr_hsi, second, **QUICK)
    assert cube.attrs["record"]["srf"] == matrix[1:].tolist()
    cube = api.fuse(both.lr_hsi, both.hr_msi, srf=matrix, **QUICK)
    assert cube.attrs["record"]["srf"] == matrix.tolist()


def test_the_saved_cube_has_the_same_script(pair: api.SimulatedPair, tmp_path: Path) -> None:
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, psf=np.full((3, 5), 1 / 15), **QUICK)
    for image in (cube, pair.lr_hsi, pair.hr_msi):
        for suffix in (".hdr", ".tif", ".mat"):
            path = api.save_cube(image, tmp_path / f"kept{suffix}")
            assert api.as_script(api.open_cube(path)) == api.as_script(image)
            assert api.as_script(path) == api.as_script(image)


def test_images_from_memory_are_asked_for(pair: api.SimulatedPair) -> None:
    low, high = np.asarray(pair.lr_hsi), np.asarray(pair.hr_msi)
    cube = api.fuse(low, high, psf="box", srf=pair.response, **QUICK)
    script = api.as_script(cube)
    assert "lr_hsi was in memory alone" in script
    with pytest.raises(FormatError, match=r"lr_hsi\.tif"):
        run(script)
    api.save_cube(api.open_cube(api.save_cube(pair.hr_msi, "x.tif")), "lr_hsi.tif")
    with pytest.raises(CubeError, match="expected the image of the earlier run"):
        run(script)
    for name, image in (("lr_hsi.tif", low), ("hr_msi.tif", high)):
        api.save_cube(xr.DataArray(image, dims=("band", "y", "x")), name)
    assert run(script)["fused"].values.tobytes() == cube.values.tobytes()


def test_images_of_the_viewer_are_taken_from_it(pair: api.SimulatedPair) -> None:
    """With napari's layers, and a stand-in for the viewer that its console knows."""
    from types import SimpleNamespace

    napari_layers = pytest.importorskip("napari.layers")
    from napari_hsfusion._layers import cube_layers

    name = 'the "low" one'
    images = {}
    for key, image in ((name, pair.lr_hsi), ("high", pair.hr_msi)):
        images[key] = xr.DataArray(image.values, dims=image.dims)
        images[key].attrs = {**image.attrs, "history": []}
        images[key].encoding["layer"] = key
    cube = api.fuse(*images.values(), **QUICK)
    script = api.as_script(cube)
    assert "viewer.layers['the \"low\" one']" in script
    assert 'viewer.layers["high"]' in script
    assert "save that layer to a file" in script.replace("\n# ", " ")
    with pytest.raises(NameError, match="viewer"):
        run(script)
    layers = {}
    for key, image in images.items():
        data, words, _ = cube_layers(image, key)[-1]
        layers[key] = napari_layers.Image(data, **words)
    shown: list[str] = []
    viewer = SimpleNamespace(
        layers=layers, add_image=lambda data, **words: shown.append(words["name"])
    )
    made = run(script, viewer=viewer)
    assert made["fused"].values.tobytes() == cube.values.tobytes()
    assert shown[-1] == "fused"
    assert not Path("fused.tif").exists()


def test_a_file_that_changed_is_no_silent_other_run(
    pair: api.SimulatedPair, tmp_path: Path
) -> None:
    low = api.save_cube(pair.lr_hsi, tmp_path / "lr.tif")
    high = api.save_cube(pair.hr_msi, tmp_path / "hr.tif")
    script = api.as_script(api.fuse(low, high, **QUICK))
    part = api.open_cube(low).isel(y=slice(0, 4))
    smaller = api.fuse(part, api.open_cube(high).isel(y=slice(0, 16)), **QUICK)
    with pytest.raises(CubeError, match="expected the image of the earlier run"):
        run(api.as_script(smaller))
    changed = pair.hr_msi.copy(deep=True)
    changed.values[0, 0, 0] = np.nextafter(changed.values[0, 0, 0], np.float32(9))
    api.save_cube(changed, high)
    with pytest.raises(CubeError, match="its file has changed"):
        run(script)
    noisier = pair.hr_msi.copy()
    noisier.attrs = {**noisier.attrs, "observation": {**noisier.attrs["observation"]}}
    noisier.attrs["observation"]["noise_y"] = 0.5
    api.save_cube(noisier, high)
    with pytest.raises(CubeError, match="its file has changed"):
        run(script)


def test_bad_and_empty_bands(village: xr.DataArray, tmp_path: Path) -> None:
    marked = village.assign_coords(good_band=("band", np.arange(16) != 3))
    marked = marked.copy(data=marked.values.copy())
    marked.values[7] = np.nan
    path = api.save_cube(marked, tmp_path / "ref.hdr")
    both = api.simulate(path, 4, "box", GAUSSIANS, 30.0)
    repeated(api.fuse(both.lr_hsi, both.hr_msi, **QUICK))


def test_threads_of_the_run_are_set(pair: api.SimulatedPair) -> None:
    torch.set_num_threads(2)
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, method="bicubic", device="cpu")
    torch.set_num_threads(1)
    run(api.as_script(cube))
    assert torch.get_num_threads() == 2


def test_an_input_is_not_overwritten(pair: api.SimulatedPair) -> None:
    low = api.save_cube(pair.lr_hsi, "fused.tif")
    cube = api.fuse(low, pair.hr_msi, **QUICK)
    run(api.as_script(cube))
    assert api.open_cube("fused.tif").shape == pair.lr_hsi.shape
    assert api.open_cube("fused-again.tif").shape == cube.shape


def test_later_steps_are_named(pair: api.SimulatedPair) -> None:
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, **QUICK)
    later = with_history(with_history(cube, step="denoise"), step="stretch")
    assert "is not repeated: denoise, stretch." in api.as_script(later)


def _without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(record: dict[str, Any]) -> None:
        for key in keys:
            del record[key]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("seed"), "expected 'seed'"),
        (_without("inputs"), "expected 'inputs'"),
        (lambda record: record["inputs"].pop("hr_msi"), "lr_hsi and hr_msi"),
        (lambda record: record.update(method="magic"), "magic"),
        (lambda record: record.update(preset="magic"), "no preset 'magic'"),
        (lambda record: record["parameters"].update({"x=1)#": 2}), "expected the parameters"),
        (lambda record: record.update(dtype="float64"), "expected dtype float32"),
        (lambda record: record.update(networks_loaded=True), "does not say from where"),
    ],
)
def test_a_record_that_cannot_be_repeated(
    pair: api.SimulatedPair, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, **QUICK)
    record = json.loads(json.dumps(cube.attrs["record"]))
    change(record)
    cube.attrs["record"] = record
    with pytest.raises(CubeError, match=said):
        api.as_script(cube)


def test_a_cube_that_no_run_made(village: xr.DataArray) -> None:
    with pytest.raises(CubeError, match="'demo': no run made it"):
        api.as_script(village)
    with pytest.raises(CubeError, match="no run made it"):
        api.as_script(np.zeros((2, 3, 4)))


def test_a_record_cannot_bring_code_into_the_script(pair: api.SimulatedPair) -> None:
    """Texts of a file somebody sent are quoted; names are never taken from it."""
    cube = api.fuse(pair.lr_hsi, pair.hr_msi, **QUICK)
    record = json.loads(json.dumps(cube.attrs["record"]))
    evil = '"\nraise SystemExit  # '
    record["device"] = record["psf"] = record["srf_source"] = record["versions"]["torch"] = evil
    record["psf_from"] = record["srf_from"] = "given"
    for said in record["inputs"].values():
        said["history"][0][evil] = 1
        said["history"][-1].update({"psf": evil, "srf_source": evil, "srf": evil, "bands": [evil]})
        said["name"] = said["fingerprint"] = evil
    cube.attrs["record"] = record
    cube.name = evil
    tree = ast.parse(api.as_script(cube))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
