"""The experiments of ARGS-Diff: every setting on every scene, resumed, and laid out."""

from __future__ import annotations

import csv
import functools
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import Result
from typer.testing import CliRunner

from napari_hsfusion import api
from napari_hsfusion._reproduce import (
    apart,
    args_designs,
    args_networks,
    args_runs,
    args_tables,
    options,
)
from napari_hsfusion._reproduce.args_designs import EXPERIMENTS, RHOS, tables_of
from napari_hsfusion._reproduce.args_plots import args_figure
from napari_hsfusion._reproduce.args_rows import lines_of
from napari_hsfusion._reproduce.interface import Reproduced, Scored
from napari_hsfusion.cli import app
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine.events import CancelToken, Step
from napari_hsfusion.engine.methods import base
from napari_hsfusion.engine.nets.build import spatial_network, spectral_network
from napari_hsfusion.errors import (
    Cancelled,
    FormatError,
    ParameterError,
    TrainingError,
    WeightsError,
)
from napari_hsfusion.params import ARGS_DIFF_PRESETS, ArgsDiffParams
from napari_hsfusion.scene import demo_scene

NETWORK: dict[str, Any] = {
    "spatial_base": 8,
    "spatial_levels": 1,
    "spatial_blocks": 1,
    "spatial_batch": 2,
    "spatial_patch": 16,
}
QUICK: dict[str, Any] = {
    "budget": "steps=2",
    "device": "cpu",
    "params": {**NETWORK, "T": 3, "d": 4},
}
ARGM, CURVES, RHO, RESOURCES = EXPERIMENTS
DESIGNS = ("argm-false on demo", "full on demo")


@pytest.fixture(scope="module", autouse=True)
def quick_runs() -> Iterator[None]:
    """Leave out the pictures, which a test of their own draws, and collecting after each run.

    Among all that a test session holds, a collection takes longer than a small fusion.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(args_tables, "args_figure", lambda table, lines, record: None)
        patch.setattr(args_tables, "save_png", lambda figure, path: path)
        patch.setattr(base, "release", lambda device: None)
        yield


@functools.cache
def demo(seed: int = 0, size: int = 32) -> xr.DataArray:
    return demo_scene(size, 8, seed)


def reproduce(folder: Path, experiment: str = ARGM, data: Any = None, **options: Any) -> Reproduced:
    scenes = demo() if data is None else data
    return api.reproduce(experiment, scenes, None, folder, **{**QUICK, **options})


def record_in(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return out


def timeless(record: Any) -> dict[str, Any]:
    """Everything of a record's runs that does not hang on the clock."""
    return {
        name: {k: v for k, v in row.items() if not k.endswith("_seconds")}
        for name, row in json.loads(json.dumps(record["designs"])).items()
    }


def rows(path: Path, source: str = "ours") -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["source"] == source]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reproduced, list[Any]]:
    """Folder, result and events of the ablation on one scene."""
    folder = tmp_path_factory.mktemp("args") / "argm"
    events: list[Any] = []
    done = reproduce(folder, progress=events.append)
    return folder, done, events


def test_the_settings_are_those_of_the_paper() -> None:
    """Two of the module, ten of d and of T, a grid of 49, and five methods."""
    tables = [table for name in EXPERIMENTS for table in tables_of(name)]
    assert [(t.name, len(t.rows)) for t in tables] == [
        ("argm", 2),
        ("d", 10),
        ("T", 10),
        ("rho", 49),
        ("resources", 5),
    ]
    paper = ARGS_DIFF_PRESETS["paper"]
    settings = {
        table.name: [replace(paper, **row.changes) for row in table.rows] for table in tables
    }
    assert [p.argm for p in settings["argm"]] == [False, True]
    assert [p.d for p in settings["d"]] == list(range(1, 11))
    assert [p.T for p in settings["T"]] == list(range(100, 1001, 100))
    assert {(p.rho1, p.rho2) for p in settings["rho"]} == {(a, b) for a in RHOS for b in RHOS}
    # the published setting is in each of them, under the label of its published figures
    for table in tables[:4]:
        own = {row.label: replace(paper, **row.changes) for row in table.rows}
        chosen = [p.label for p in table.published if p.figures["psnr"] == 42.33]
        assert len(chosen) == 1
        assert own[chosen[0]] == paper
        assert {p.label for p in table.published} <= own.keys()
    gain = {p.label: p.figures["psnr"] for p in tables[0].published if p.dataset == "KSC"}
    assert gain == {"w/o ARGM": 43.02, "w/ ARGM": 43.63}
    grid = {p.label: p.figures["psnr"] for p in tables[3].published}
    assert (grid["0.02, 0.01"], grid["0.01, 0.02"]) == (40.75, 38.96)
    memory = {p.label: p.figures["bytes"] for p in tables[4].published}
    assert memory == {"PLRDiff": 6.21e9, "S2CycleDiff": 23.34e9, "ARGS-Diff": 2.11e9}


def test_the_ablation(made: tuple[Path, Reproduced, list[Any]]) -> None:
    """The networks are trained once; the rows differ by the module alone; all is written."""
    folder, done, events = made
    scored = [e for e in events if isinstance(e, Scored)]
    assert [e.name for e in scored] == list(DESIGNS)
    assert [(e.index, e.total, e.earlier, e.failed) for e in scored] == [
        (1, 2, False, None),
        (2, 2, False, None),
    ]
    steps = [e for e in events if isinstance(e, Step)]
    assert sum(e.stage == args_networks.SPATIAL for e in steps) == 2
    assert sum(e.stage == args_networks.SPECTRAL for e in steps) == 27  # 2 x 400,000 / 30,000
    assert sum(e.stage == "sample" for e in steps) == 2 * 3
    assert [(e.index, e.total) for e in steps if e.stage == "all runs"] == [(1, 2), (2, 2)]
    assert {p.name for p in folder.iterdir()} == {"argm.csv", "argm.md", "record.json", "networks"}
    record = record_in(folder)
    assert record == {**json.loads(json.dumps(done.record)), "kind": record["kind"]}
    without, full = (record["designs"][name] for name in DESIGNS)
    assert (without["changes"], full["changes"]) == ({"argm": False}, {})
    assert without["figures"] != full["figures"]
    assert full["steps"] == [2, 27]
    params = ArgsDiffParams(**{**NETWORK, "d": 4})
    both = (spatial_network(params), spectral_network(8))
    assert full["parameters"] == sum(p.numel() for net in both for p in net.parameters())
    assert full["training_seconds"] == without["training_seconds"] > 0
    assert full["sampling_seconds"] > 0
    run = record["run"]
    assert (run["scale"], run["psf"], run["snr"], run["size"]) == (4, "bicubic", 35.0, 256)
    assert run["scenes"][0]["shape"] == [8, 32, 32]

    first, second = rows(folder / "argm.csv")
    assert (first["sampling"], second["sampling"]) == ("w/o ARGM", "w/ ARGM")
    assert float(second["args-diff psnr"]) == pytest.approx(full["figures"]["args-diff"]["psnr"])
    assert float(second["hsfusion sam"]) == pytest.approx(full["figures"]["hsfusion"]["sam"])
    known = rows(folder / "argm.csv", "published")
    assert [r["args-diff psnr"] for r in known[:2]] == ["41.86", "42.33"]
    assert [r["sampling seconds"] for r in known] == ["11", "12", "11", "12", "11", "13"]
    assert {r["hsfusion psnr"] for r in known} == {""}
    text = done.tables["argm"].read_text(encoding="utf-8")
    assert "Far from the published budget: 2 training steps of the spatial and 27 of" in text
    assert "30,000 and 400,000" in text
    assert "Settings other than the published: T 3, d 4, spatial_base 8" in text
    assert "| *KSC (published)* | *w/ ARGM* | *43.63* | – | *2.54* |" in text
    assert "Table 4 of Zhu et al." in text


def test_the_figures_are_those_of_fusing(
    made: tuple[Path, Reproduced, list[Any]], tmp_path: Path
) -> None:
    """Simulating, fusing with the study's parameters and evaluating gives the same numbers."""
    cube = demo()
    scaled = cube.copy(data=(cube.values / cube.values.max()).astype(np.float32))
    pair = api.simulate(scaled, 4, "bicubic", "gaussian:480/70,560/60,660/60,800/100", 35.0, 0)
    params = replace(
        ARGS_DIFF_PRESETS["paper"], **NETWORK, T=3, d=4, spatial_steps=2, spectral_steps=27
    )
    for name, argm in zip(DESIGNS, (False, True), strict=True):
        fused = api.fuse(
            pair.lr_hsi, pair.hr_msi, params=replace(params, argm=argm), device="cpu", seed=0
        )
        for convention in ("args-diff", "hsfusion"):
            measured = api.evaluate(scaled, fused, convention=convention)
            for key, value in made[1].record["designs"][name]["figures"][convention].items():
                assert measured[key] == pytest.approx(value, rel=1e-6), (name, convention, key)


def test_interrupted_and_resumed(made: tuple[Path, Reproduced, list[Any]], tmp_path: Path) -> None:
    """Stopped in a training, then in a sampling: the same bits as in one go."""
    whole = timeless(made[1].record)
    for stage, left in ((args_networks.SPECTRAL, 0), ("sample", 1)):
        token, seen = CancelToken(), []

        def stop(event: Any, at: str = stage, n: int = left, t: Any = token, s: Any = seen) -> None:
            if isinstance(event, Scored):
                s.append(event)
            if isinstance(event, Step) and event.stage == at and event.index == 2 and len(s) == n:
                t.cancel()

        with pytest.raises(Cancelled):
            reproduce(tmp_path / "out", resume=True, cancel=token, progress=stop)
        assert len(record_in(tmp_path / "out")["designs"]) == left
    events: list[Any] = []
    done = reproduce(tmp_path / "out", resume=True, progress=events.append)
    assert timeless(done.record) == whole
    assert [e.earlier for e in events if isinstance(e, Scored)] == [True, False]
    assert not [e for e in events if isinstance(e, Step) and e.stage == args_networks.SPATIAL]
    trained = [
        (p.relative_to(f / "networks"), p.read_bytes())
        for f in (made[0], tmp_path / "out")
        for p in sorted((f / "networks").rglob("*.safetensors"))
    ]
    assert trained[:2] == trained[2:]


def test_another_study_is_refused_and_a_new_one_starts_anew(
    made: tuple[Path, Reproduced, list[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(made[0], folder)
    before = (folder / "record.json").read_bytes()
    with pytest.raises(ParameterError, match=r"record\.json: there already; resume"):
        reproduce(folder)
    for change, words in (
        ({"seed": 1}, "has seed"),
        ({"budget": "steps=3"}, "has budget"),
        ({"snr": 30}, "has snr = 35.0, this one 30.0"),
        ({"snr": "none"}, "has snr"),
        ({"psf": "box"}, "has psf"),
        ({"size": 16}, "has size"),
        ({"params": {**QUICK["params"], "lambda1": 2}}, "has parameters"),
        ({"data": demo(1)}, "has scenes"),
        ({"experiment": RHO}, "has experiment"),
    ):
        with pytest.raises(ParameterError, match=words):
            reproduce(folder, resume=True, **change)
    assert (folder / "record.json").read_bytes() == before
    for path in (folder / "networks").rglob("training.json"):
        path.unlink()
    events: list[Any] = []
    done = reproduce(folder, overwrite=True, progress=events.append)
    assert timeless(done.record) == timeless(made[1].record)
    assert [e for e in events if isinstance(e, Step) and e.stage == args_networks.SPATIAL]
    assert list((folder / "networks").rglob("training.json"))


def test_a_folder_of_somebody_is_left_alone(tmp_path: Path) -> None:
    """Where no study was, overwriting one deletes nothing."""
    (tmp_path / "networks").mkdir()
    kept = [tmp_path / "networks" / "mine.txt", tmp_path / "rho.csv"]
    for path in kept:
        path.write_text("mine")
    reproduce(tmp_path, overwrite=True)
    assert [path.read_text() for path in kept] == ["mine", "mine"]


def test_experiments_share_networks(
    made: tuple[Path, Reproduced, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grid takes those of the ablation, and has the ablation's run in its middle."""
    table = args_designs._TABLES["rho"]
    few = [row for row in table.rows if row.label in ("0.05, 0.05", "0.01, 0.02", "0.02, 0.01")]
    monkeypatch.setitem(args_designs._TABLES, "rho", replace(table, rows=tuple(few)))
    networks = tmp_path / "kept"
    shutil.copytree(made[0] / "networks", networks)
    events: list[Any] = []
    monkeypatch.setattr(args_tables, "_grids", lambda table, lines: ["grid"])
    done = reproduce(tmp_path / "rho", RHO, networks=networks, progress=events.append)
    stages = {e.stage for e in events if isinstance(e, Step)}
    assert stages == {"read scenes", "sample", "all runs"}
    designs = done.record["designs"]
    assert (
        designs["full on demo"]["figures"] == made[1].record["designs"]["full on demo"]["figures"]
    )
    assert len({json.dumps(row["figures"]) for row in designs.values()}) == 3
    assert not (tmp_path / "rho" / "networks").exists()
    for change, words in (
        ({"budget": "steps=3"}, r"of budget \{'steps': 2"),
        ({"params": {**QUICK["params"], "spatial_rate": 1e-3}}, "of settings"),
    ):
        with pytest.raises(WeightsError, match=words):
            reproduce(tmp_path / "other", RHO, networks=networks, **{**change, "overwrite": True})
    # another pair of the same scene has networks of its own
    reproduce(tmp_path / "noise", networks=networks, snr="none")
    assert len(list(networks.iterdir())) == 2


def test_the_grid(made: tuple[Path, Reproduced, list[Any]]) -> None:
    """Markdown has ρ1 down and ρ2 across, ours as the paper's; the CSV has all 49 in full."""
    (table,) = tables_of(RHO)
    found = made[1].record["designs"]["full on demo"]
    designs = {}
    for row in table.rows:
        psnr = 100 * row.changes["rho1"] + row.changes["rho2"]
        figures = {c: {**found["figures"][c], "psnr": psnr} for c in found["figures"]}
        designs[f"{row.name} on demo"] = {**found, "figures": figures}
    record = {**made[1].record, "designs": designs, "tables": {"rho": [*designs]}}
    listed = lines_of(table, record)
    assert len(args_tables.csv_text(table, listed).splitlines()) == 1 + 2 * 49
    lines = args_tables.markdown_text(table, listed, record).splitlines()
    assert "| ρ1 \\ ρ2 | 0.01 | 0.02 | 0.03 | 0.04 | 0.05 | 0.06 | 0.07 |" in lines
    assert "| 0.02 | 2.01 | 2.02 | 2.03 | 2.04 | 2.05 | 2.06 | 2.07 |" in lines
    assert "| 0.02 | 40.75 | 40.69 | 40.82 | 41.15 | 41.41 | 41.50 | 40.73 |" in lines


def test_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """d trains its own networks and fails beyond the bands; T shares them; two scenes, a mean."""
    for name, wanted in (("d", ("2", "8", "9")), ("T", ("300", "500"))):
        table = args_designs._TABLES[name]
        kept = tuple(row for row in table.rows if row.label in wanted)
        if name == "T":
            kept = tuple(replace(row, changes={"T": int(row.label) // 100}) for row in kept)
        monkeypatch.setitem(args_designs._TABLES, name, replace(table, rows=kept))
    short = {"paper": replace(ARGS_DIFF_PRESETS["paper"], T=5)}
    monkeypatch.setattr(options, "ARGS_DIFF_PRESETS", short)
    (tmp_path / "data").mkdir()
    for seed in (0, 1):
        api.save_cube(demo(seed, 20), tmp_path / "data" / f"{seed}.tif")
    (tmp_path / "data" / "notes.txt").write_text("not a cube")
    api.save_cube(demo(2, 16).isel(y=slice(0, 8)), tmp_path / "data" / "flat.tif")
    events: list[Any] = []
    out = tmp_path / "out"
    asked = {"params": NETWORK, "progress": events.append}
    first = reproduce(out, CURVES, data=tmp_path / "data", tables="T", **asked)
    assert set(first.tables) == {"T"}
    done = reproduce(out, CURVES, data=[tmp_path / "data"], resume=True, **asked)
    assert set(done.tables) == {"d", "T"}
    assert sorted(name for name, _ in done.record["skipped"]) == ["flat.tif", "notes.txt"]
    scored = [e for e in events if isinstance(e, Scored)]
    # 500 steps, five here, of 8 dimensions are in both tables
    assert [e.earlier for e in scored] == [False] * 4 + [True] * 4 + [False] * 4
    failed = {e.name: e.failed for e in scored if e.failed}
    words = "9 dimensions: the scene has 8 bands and 25 low-resolution pixels"
    assert failed == {"d-9 on 0.tif": words, "d-9 on 1.tif": words}
    folders = sorted(str(p.parent.name) for p in (out / "networks").rglob("networks.json"))
    assert folders == ["d2", "d2", "d8", "d8"]
    listed = rows(out / "d.csv")
    assert [(r["scene"], r["d"]) for r in listed] == [
        (scene, d) for scene in ("0.tif", "1.tif", "mean of the scenes") for d in ("2", "8", "9")
    ]
    psnr = [r["hsfusion psnr"] for r in listed]
    assert float(psnr[6]) == pytest.approx((float(psnr[0]) + float(psnr[3])) / 2)
    assert psnr[2] == psnr[5] == psnr[8] == ""
    assert listed[2]["failed"] == words
    text = done.tables["d"].read_text(encoding="utf-8")
    assert f"**9 on 0.tif failed: {words}.**" in text
    assert "| 0.tif | 9 (failed) | – |" in text
    assert "| *Pavia University (published)* | *8* | *42.33* | *0.977* | *2.64* | *1.49* |" in text


def test_a_training_that_diverges_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run of its networks says so, tried once; other networks go on."""
    table = args_designs._TABLES["d"]
    kept = tuple(row for row in table.rows if row.label in ("1", "2"))
    monkeypatch.setitem(args_designs._TABLES, "d", replace(table, rows=kept))
    real, tried = args_networks.iter_fuse, []

    def failing(*arguments: Any, **options: Any) -> Any:
        tried.append(options["params"].d)
        if options["params"].d == 1:
            raise TrainingError("training diverged at step 7")
        return real(*arguments, **options)

    monkeypatch.setattr(args_networks, "iter_fuse", failing)
    done = reproduce(tmp_path / "d", CURVES, tables="d", params={**NETWORK, "T": 2})
    first, second = (done.record["designs"][f"d-{d} on demo"] for d in (1, 2))
    assert first["failed"] == "training: training diverged at step 7"
    assert first["figures"]["args-diff"] == dict.fromkeys(("psnr", "ssim", "sam", "ergas"))
    assert "failed" not in second
    tried.clear()
    done = reproduce(tmp_path / "argm", params={**NETWORK, "d": 1})
    assert [row["failed"] for row in done.record["designs"].values()] == [first["failed"]] * 2
    assert tried == [1]
    assert "w/ ARGM (failed)" in done.tables["argm"].read_text(encoding="utf-8")


def test_a_sampling_that_diverges_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = args_runs.Runner._sampled

    def broken(self: Any, run: Any, *arguments: Any) -> Any:
        cube, seconds, loss = yield from real(self, run, *arguments)
        if run.setting == "full":
            cube[3, 5, 7] = np.inf
        return cube, seconds, loss

    monkeypatch.setattr(args_runs.Runner, "_sampled", broken)
    done = reproduce(tmp_path)
    without, full = (done.record["designs"][name] for name in DESIGNS)
    assert "failed" not in without
    assert full["failed"] == "diverged: 1 of 8192 values of the result are not finite"


def test_gaps_and_bad_bands(tmp_path: Path) -> None:
    """Bad bands are left out, and pixels without a value are not scored."""
    cube = demo()
    values = cube.values.astype(np.float32)
    values[:, 3:5, 8:10] = np.nan
    good = [True] * 7 + [False]
    gappy = make_cube(values, wavelength=cube.wavelength.values, good_band=good, name="gappy")
    srf = np.ones((2, 7)) / 7
    done = reproduce(tmp_path, data=gappy, srf=srf)
    assert done.record["run"]["scenes"][0]["shape"] == [7, 32, 32]
    for row in done.record["designs"].values():
        assert row["figures"]["hsfusion"]["psnr"] > 0


def test_a_budget_of_time(tmp_path: Path) -> None:
    """As many steps as fit, in the published proportion; kept for all that resumes."""
    minutes = 0.005
    done = reproduce(tmp_path, budget=f"minutes={minutes}")
    full = done.record["designs"]["full on demo"]
    spatial, spectral = full["steps"]
    assert spectral == round(spatial * 400 / 30)
    assert full["training_seconds"] < 60 * minutes + 5  # on a busy machine
    (plan,) = (tmp_path / "networks").rglob("plan.json")
    kept = json.loads(plan.read_text(encoding="utf-8"))
    assert (kept["spatial_steps"], kept["spectral_steps"]) == (spatial, spectral)
    del done.record["designs"]["full on demo"]
    record = record_in(tmp_path)
    del record["designs"]["full on demo"]
    (tmp_path / "record.json").write_text(json.dumps(record), encoding="utf-8")
    again = reproduce(tmp_path, budget=f"minutes={minutes}", resume=True)
    assert again.record["designs"]["full on demo"]["figures"] == full["figures"]
    plan.write_text("{}", encoding="utf-8")
    (tmp_path / "record.json").unlink()
    with pytest.raises(WeightsError, match="the networks there are of budget None"):
        reproduce(tmp_path, budget=f"minutes={minutes}")


def test_a_scene_of_few_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a step is found with as many dimensions as it has bands."""
    table = args_designs._TABLES["d"]
    kept = tuple(row for row in table.rows if row.label in ("1", "9"))
    monkeypatch.setitem(args_designs._TABLES, "d", replace(table, rows=kept))
    few = make_cube(demo().values[:3], name="few")
    asked = {"budget": "minutes=0.002", "params": {**NETWORK, "T": 2}, "srf": np.ones((2, 3)) / 3}
    done = reproduce(tmp_path, CURVES, data=few, tables="d", **asked)
    first, second = done.record["designs"].values()
    assert first["figures"]["hsfusion"]["psnr"] > 0
    assert second["failed"].startswith("9 dimensions: the scene has 3 bands")


@pytest.mark.slow
def test_resources(
    made: tuple[Path, Reproduced, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in a process of its own; figures are those of fusing here."""
    table = args_designs._TABLES["resources"]
    kept = tuple(row for row in table.rows if row.name in ("full", "fast", "bicubic"))
    monkeypatch.setitem(args_designs._TABLES, "resources", replace(table, rows=kept))
    done = reproduce(tmp_path / "resources", RESOURCES)
    full, fast, plain = done.record["designs"].values()
    twin = made[1].record["designs"]["full on demo"]
    assert full["figures"] == twin["figures"]
    assert (full["steps"], full["parameters"]) == ([2, 27], twin["parameters"])
    for row in (fast, plain):
        assert (row["steps"], row["parameters"], row["training_seconds"]) == (None, 0, 0)
    assert full["training_seconds"] > 0
    assert full["sampling_seconds"] > 0
    assert fast["figures"]["hsfusion"]["psnr"] > plain["figures"]["hsfusion"]["psnr"] > 10
    for row in (full, fast, plain):
        assert row["device_bytes"] is None
        assert 5e7 < row["base_bytes"] <= row["peak_bytes"] < 5e9
    text = done.tables["resources"].read_text(encoding="utf-8")
    assert "*391.05*" in text
    assert "| *23340* |" in text
    assert "Every method ran in a process of its own" in text
    listed = rows(tmp_path / "resources" / "resources.csv")
    assert float(listed[2]["peak bytes"]) == pytest.approx(plain["peak_bytes"])


STEP = "import json, sys; print(json.dumps({'step': ['train', 1, 9]}), flush=True); "


@pytest.mark.skipif(sys.platform == "win32", reason="processes end by signals elsewhere")
@pytest.mark.parametrize(
    ("does", "expected", "words"),
    [
        ("raise ValueError('a bug')", apart.FailedRun, "ended with code 1: ValueError: a bug"),
        ("print(json.dumps({'failed': 'diverged'}))", apart.FailedRun, "^diverged$"),
        ("import os; os.kill(os.getpid(), 9)", apart.FailedRun, "code -9: signal 9, perhaps"),
        ("pass", apart.FailedRun, "the process ended with code 0: without a word"),
        ("print(STEP); import time; time.sleep(60)", Cancelled, "cancelled"),
        ("import os; os.kill(os.getpid(), 2)", Cancelled, "cancelled"),
    ],
)
def test_a_process_that_ends_is_a_failed_run(
    monkeypatch: pytest.MonkeyPatch, does: str, expected: type[Exception], words: str
) -> None:
    """By an error of the run, a bug, or from outside; if it is cancelled, none is left."""
    started: list[Any] = []
    popen = apart.subprocess.Popen
    script = STEP + does.replace("STEP", "json.dumps({'step': ['train', 2, 9]}), flush=True")

    def other(command: list[str], **options: Any) -> Any:
        assert command[1:3] == ["-m", "napari_hsfusion._reproduce.apart"]
        started.append(popen([sys.executable, "-c", script], **options))
        return started[-1]

    monkeypatch.setattr(apart.subprocess, "Popen", other)
    token = CancelToken()
    events = apart.fuse_apart({"lr_hsi": np.ones(3)}, {}, token)
    assert next(events) == Step("train", 1, 9)
    if expected is Cancelled:
        token.cancel()
    with pytest.raises(expected, match=words):
        list(events)
    assert started[0].poll() is not None


def test_bad_options(tmp_path: Path) -> None:
    """Each is refused with what was expected, before anything is made."""
    out = tmp_path / "out"
    for change, words in (
        ({"budget": "hours=1"}, "budget: expected minutes=NUMBER or steps=NUMBER"),
        ({"budget": "steps=0"}, "steps: expected"),
        ({"budget": "steps=20000000"}, "budget: expected at most 1e"),
        ({"budget": "steps=1.5"}, "steps: expected a whole number"),
        ({"tables": "d"}, "tables: args-diff-argm expected some of argm, got 'd'"),
        ({"tables": "argm,argm"}, "each name once"),
        ({"size": 8}, "size: expected a whole number of at least 16, got 8"),
        ({"scale": 1}, "scale: expected a whole number of at least 2"),
        ({"snr": "much"}, "snr: expected a number from -20 to 200"),
        ({"snr": 1000}, "snr: expected a number from -20 to 200"),
        ({"start": "subspace"}, "start has no effect with args-diff-argm"),
        ({"design": {"width": 8}}, "design has no effect"),
        ({"params": {"argm": False}}, "argm: the table argm sets this"),
        ({"params": {"spatial_steps": 9}}, "spatial_steps has no effect here: the budget"),
        ({"params": {"spectral_steps": 9}}, "spectral_steps has no effect here"),
        ({"params": {"sampler": "proximal"}}, "sampler has no effect here"),
        ({"params": {"levels": 9}}, "levels has no effect with sampler=published"),
        ({"params": {"depth": 9}}, "unknown parameter 'depth'"),
        ({"params": {"d": None}}, "d: expected a whole number, got auto"),
        ({"params": 3}, "params: expected ArgsDiffParams, got int"),
        ({"experiment": RHO, "params": {"rho1": 1}}, "rho1: the table rho sets this"),
        ({"experiment": CURVES, "tables": "T"}, "T: the table T sets this"),
        ({"experiment": RESOURCES, "networks": out}, "networks has no effect"),
        ({"data": 3}, "data: expected folders, files or cubes, got int"),
        ({"resume": True, "overwrite": True}, "either resume or overwrite"),
    ):
        with pytest.raises(ParameterError, match=words):
            reproduce(out, **change)
    with pytest.raises(ParameterError, match="val has no effect with args-diff-argm: networks"):
        api.reproduce(ARGM, demo(), demo(1), out, **QUICK)
    with pytest.raises(FormatError, match="no such file or folder"):
        reproduce(out, data=tmp_path / "nothing")
    nameless = make_cube(demo().values)
    with pytest.raises(ParameterError, match=r"data: expected reference cubes .*wavelength"):
        reproduce(out, data=nameless)
    with pytest.raises(ParameterError, match="expected at least 16 x 16 pixels, got 16 x 12"):
        reproduce(out, data=demo(size=16).isel(x=slice(0, 12)))
    assert not (out / "record.json").exists()


def test_pictures(made: tuple[Path, Reproduced, list[Any]]) -> None:
    """Bars, curves and grids are drawn, with failed runs and several scenes too."""
    found = made[1].record["designs"]["full on demo"]
    for experiment in EXPERIMENTS:
        for table in tables_of(experiment):
            designs: dict[str, Any] = {}
            for scene in ("a", "b"):
                for number, row in enumerate(table.rows):
                    designs[f"{row.name} on {scene}"] = {**found, "scene": scene}
                    if number == 0:
                        unknown = {c: dict.fromkeys(v) for c, v in found["figures"].items()}
                        broken = {"scene": scene, "failed": "diverged", "figures": unknown}
                        designs[f"{row.name} on {scene}"] = broken
            record = {**made[1].record, "designs": designs, "tables": {table.name: [*designs]}}
            lines = lines_of(table, record)
            assert len(lines) == 3 * len(table.rows)
            figure = args_figure(table, lines, record)
            figure.canvas.draw()
            assert len(figure.axes) == 4
            if table.name in ("d", "T", "argm"):
                ours = figure.axes[0].get_lines()[0].get_ydata()
                expected = found["figures"]["args-diff"]["psnr"]
                assert np.isnan(ours[0])
                assert ours[1] == pytest.approx(expected)


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command(made: tuple[Path, Reproduced, list[Any]], tmp_path: Path) -> None:
    """It gives the Python interface's figures, tells of progress, and resumes."""
    api.save_cube(demo(), tmp_path / "demo.tif")
    out = tmp_path / "out"
    arguments = ["reproduce", ARGM, "--data", tmp_path / "demo.tif", "--budget", "steps=2"]
    arguments += ["-o", out, "--device", "cpu", "--set", "T=3", "--set", "d=4"]
    for name, value in NETWORK.items():
        arguments += ["--set", f"{name}={value}"]
    done = call(*arguments)
    assert done.exit_code == 0, (done.stderr, done.exception)
    twin = made[1].record["designs"]["full on demo"]
    found = record_in(out)["designs"]["full on demo.tif"]
    assert found["figures"] == twin["figures"]
    assert "design 1 of 2, argm-false on demo.tif: PSNR (dB) " in done.stderr
    assert "argm, 2 steps a training; convention: args-diff" in done.stdout
    again = call(*arguments, "--resume", "--json")
    assert again.exit_code == 0, again.stderr
    assert "done before" in again.stderr
    assert json.loads(again.stdout)["tables"] == {"argm": str(out / "argm.md")}
    refused = call(*arguments, "--resume", "--val", tmp_path / "demo.tif")
    assert refused.exit_code == 2
    assert "val has no effect" in refused.stderr
    missing = call("reproduce", "emr-diff-ablation", *arguments[2:])
    assert missing.exit_code == 2
    assert "expected scenes to score on, got none" in missing.stderr


def test_memory_is_counted_from_this_process() -> None:
    """The peak grows with what is held, and stays."""
    before = apart.peak_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    held = torch.ones(32 * 2**20)
    grown = apart.peak_bytes()
    assert grown is not None
    assert grown >= before
    assert grown >= held.numel() * held.element_size()
