"""Reproducing a paper's tables: every design once, alike, resumed, and laid out."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import Result
from small_pairs import scene
from typer.testing import CliRunner

from napari_hsfusion import api
from napari_hsfusion._reproduce import study
from napari_hsfusion._reproduce.designs import TABLES, tables_for, variants_of
from napari_hsfusion._reproduce.failures import FailedRun, noting_failures
from napari_hsfusion._reproduce.interface import Budget, Reproduced, Scored
from napari_hsfusion._reproduce.tables import markdown_text
from napari_hsfusion._training import run as training
from napari_hsfusion.cli import app
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine.emr.weights import load_weights
from napari_hsfusion.engine.events import CancelToken, Started, Step
from napari_hsfusion.errors import (
    Cancelled,
    PairError,
    ParameterError,
    TrainingError,
    WriteError,
)
from napari_hsfusion.params import ArgsDiffParams

NAME = "emr-diff-ablation"
NM = np.linspace(450.0, 650.0, 5)
SRF = "gaussian:480/60,600/80"
QUICK: dict[str, Any] = {
    "budget": "steps=2",
    "scale": 4,
    "psf": "box",
    "srf": SRF,
    "device": "cpu",
    "design": {"width": 8},
    "params": {"patch": 16, "validation_side": 16},
}
SMALL = {**QUICK, "tables": "noise"}
COMMAND = ["reproduce", NAME, "--budget", "steps=2", "--scale", 4, "--psf", "box", "--srf", SRF]
COMMAND += ["--device", "cpu", "--design", "width=8", "--set", "patch=16"]
COMMAND += ["--set", "validation_side=16"]


def cube(seed: int, height: int = 32, width: int = 40) -> xr.DataArray:
    values = 3000.0 * scene(5, height, width, seed) + 100.0
    return make_cube(values.astype(np.uint16), wavelength=NM, name=f"scene-{seed}")


@pytest.fixture(scope="module", autouse=True)
def no_learning_curves() -> Iterator[None]:
    """Leave out the picture of every training, which is tested with trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "curve_figure", lambda *_, **__: None)
        patch.setattr(training, "save_png", lambda figure, path: path)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """train/ with two scenes and something unreadable, val/ with two, all/ with a study.

    That is done in two parts, first one table, then all of them.
    """
    root = tmp_path_factory.mktemp("study")
    for name, seeds in (("train", (1, 2)), ("val", (3, 4))):
        (root / name).mkdir()
        for seed in seeds:
            api.save_cube(cube(seed), root / name / f"{seed}.tif")
    (root / "train" / "notes.txt").write_text("not a cube")
    reproduce(root, "all", **SMALL)
    events: list[Any] = []
    done = reproduce(root, "all", resume=True, progress=events.append, **QUICK)
    assert set(done.tables) == set(TABLES)
    return Made(root, events, done)


@dataclass(frozen=True)
class Made:
    """What is made once for all tests: folder, and the second part's events and result."""

    root: Path
    events: list[Any]
    done: Reproduced


@pytest.fixture
def folders(made: Made, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    shutil.copytree(made.root, tmp_path / "copy")
    return tmp_path / "copy"


def reproduce(folders: Path, out: str = "out", **options: Any) -> Reproduced:
    return api.reproduce(NAME, folders / "train", folders / "val", folders / out, **options)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record_in(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return out


def figures(record: Any) -> dict[str, Any]:
    """Everything of a record's designs that does not hang on the clock."""
    return {
        name: {k: v for k, v in row.items() if k != "hours"}
        for name, row in json.loads(json.dumps(record["designs"])).items()
    }


def of(whole: dict[str, Any], record: Any) -> dict[str, Any]:
    """Those designs that a record has."""
    return {name: row for name, row in whole.items() if name in record["designs"]}


def test_the_designs_are_those_of_the_slides() -> None:
    """Thirteen distinct ones in sixteen rows; each row differs as its label says."""
    tables = tables_for(TABLES, 31, 3)
    assert [len(table.rows) for table in tables] == [3, 2, 4, 5, 3]
    variants, names = variants_of(tables, {"width": 16}, 31, 3, 8)
    assert len(variants) == 13
    assert [n for listed in names.values() for n in listed].count("full") == 5
    full = variants["full"].config
    assert (full.residual, full.noise, full.steps) == ("multimodal", "edge-aware", 5)
    assert (full.architecture, full.pseudo, full.start) == ("baf-unet", (0, 1, 2), "bicubic")
    assert all(v.config.width == 16 for v in variants.values())
    found = [
        (variants[n].config.residual, variants[n].config.noise, variants[n].config.steps)
        for table in ("residual", "noise", "steps")
        for n in names[table]
    ]
    assert [f[0] for f in found[:3]] == ["none", "unimodal", "multimodal"]
    assert [f[1] for f in found[3:5]] == ["plain", "edge-aware"]
    assert [f[2] for f in found[5:]] == [3, 4, 5, 10]
    networks = [variants[n].config.architecture for n in names["network"]]
    assert networks == ["unet", "b-unet", "af-unet", "baf-unet-s", "baf-unet"]
    pseudo = [variants[n].config.pseudo for n in names["pseudo"]]
    assert pseudo == [(28, 29, 30), (0, 14, 30), (0, 1, 2)]
    for table in tables:
        assert all(row.published is not None for row in table.rows)
        assert table.rows[-2 if table.name == "steps" else -1].published[0] == 49.28


@pytest.mark.parametrize(("bands", "msi", "count"), [(5, 2, 3), (4, 4, 1), (7, 1, 3), (2, 3, 3)])
def test_pseudo_bands_of_other_cubes(bands: int, msi: int, count: int) -> None:
    """As many as the MSI has, within the cube, each choice once; nothing was published."""
    (table,) = tables_for(["pseudo"], bands, msi)
    variants, names = variants_of((table,), {}, bands, msi, 4)
    assert len(table.rows) == len(set(names["pseudo"])) == count
    assert names["pseudo"][-1] == "full"
    assert all(row.published is None for row in table.rows)
    assert all(len(v.config.pseudo) == msi for v in variants.values())
    if (bands, msi) == (7, 1):
        assert [row.label for row in table.rows] == ["(7)", "(4)", "(1)"]


def test_everything_by_one_call(made: Made) -> None:
    """All tables: each design trained once for the budget, scored, written three ways."""
    events, done, out = made.events, made.done, made.root / "all"
    assert isinstance(events[0], Started)
    assert events[-1] == done
    scored = [e for e in events if isinstance(e, Scored)]
    assert [e.index for e in scored] == list(range(1, 14))
    assert {e.total for e in scored} == {13}
    # the table that was there already is not trained again
    assert [e.name for e in scored if e.earlier] == ["full", "noise-plain"]
    steps = [e for e in events if isinstance(e, Step) and e.stage == "train"]
    assert len(steps) == 2 * 11
    whole = [e for e in events if isinstance(e, Step) and e.stage == "all designs"]
    assert [e.index for e in whole] == list(range(5, 27))
    assert {e.total for e in whole} == {26}

    assert sorted(done.tables) == sorted(TABLES)
    expected = {f"{t}.{e}" for t in TABLES for e in ("csv", "md", "png")}
    assert {p.name for p in out.iterdir()} == expected | {"record.json", "weights"}
    assert not list((out / "weights").glob("*.state.*"))
    record = record_in(out)
    assert record == {**json.loads(json.dumps(done.record)), "kind": record["kind"]}
    assert record["skipped"][0][0] == "notes.txt"
    assert (record["run"]["seed"], record["run"]["budget"]) == (0, {"steps": 2})
    assert record["hardware"]["device"] == "cpu"
    assert "napari-hsfusion" in record["versions"]
    assert [s["name"] for s in record["run"]["scenes"]] == ["1.tif", "2.tif"]
    assert str(made.root) not in json.dumps(record)
    assert len(record["designs"]) == 13
    for name, row in record["designs"].items():
        assert row["steps"] == 2
        assert row["loss"] > 0
        model, header = load_weights(out / "weights" / f"{name}.safetensors")
        assert model.config.to_record() == row["config"]
        assert header["seed"] == 0
    distinct = {json.dumps(row["figures"]) for row in record["designs"].values()}
    assert len(distinct) == 13

    for table in TABLES:
        listed = rows(out / f"{table}.csv")
        assert listed[-1]["design"] == ""
        names = [row["design"] for row in listed[:-1]]
        assert names == record["tables"][table]
        for row in listed[:-1]:
            kept = record["designs"][row["design"]]["figures"]
            assert float(row["hsfusion psnr"]) == pytest.approx(kept["hsfusion"]["psnr"])
            assert float(row["emr-diff sam"]) == pytest.approx(kept["emr-diff"]["sam"])
            assert row["emr-diff ssim"] == ""  # it takes sides over 160
        assert (out / f"{table}.png").read_bytes().startswith(b"\x89PNG")
        text = (out / f"{table}.md").read_text(encoding="utf-8")
        assert "Budget: 2 steps a design, 2 steps in " in text
        assert "the order of the rows, not the figures" in text
        assert text.count("\n| ") == len(listed) + 2
        assert "its figures say nothing about the designs" in text  # after two steps
    assert "| multimodal |" in (out / "residual.md").read_text(encoding="utf-8")
    assert "*49.28*" in (out / "residual.md").read_text(encoding="utf-8")
    assert [r["published psnr"] for r in rows(out / "pseudo.csv")] == [""] * 4


def test_a_table_that_tells_designs_apart(made: Made) -> None:
    """The warning of a short training goes where one design is well above its start."""
    record = json.loads(json.dumps(made.done.record))
    table = tables_for(["noise"], 5, 2)[0]
    names = record["tables"]["noise"]
    figures = record["designs"]["full"]["figures"]["hsfusion"]
    figures["psnr"] = record["start"]["hsfusion"]["psnr"] + 1.1
    assert "say nothing about" not in markdown_text(table, names, record)
    figures["psnr"] = None
    record["designs"]["noise-plain"]["figures"]["hsfusion"]["psnr"] = None
    text = markdown_text(table, names, record)
    assert "say nothing about" not in text
    assert "A dash: the metric has no value" in text


def test_scores_are_those_of_the_weights(folders: Path) -> None:
    """The figures are those of evaluating what the saved network gives for each scene."""
    from napari_hsfusion._training.scenes import open_scenes
    from napari_hsfusion._training.sensors import Sensors
    from napari_hsfusion._training.trial import Trial
    from napari_hsfusion.sensors.psf import parse_psf

    reading = open_scenes(folders / "val", ratio=4, patch=16)
    try:
        while True:
            next(reading)
    except StopIteration as stop:
        scenes = stop.value
    model, header = load_weights(folders / "all" / "weights" / "noise-plain.safetensors")
    trial = Trial(
        scenes,
        Sensors(4, parse_psf("box"), np.asarray(header["srf"])),
        side=16,
        device=torch.device("cpu"),
        seed=0,
        cancel=CancelToken(),
    )
    found = []
    for case in trial.cases:
        batch = case.batch
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            *_, last = model.restore(batch.up, batch.msi, batch.edges, generator)
        found.append(api.evaluate(batch.clean[0].numpy(), last[0].numpy(), 4))
    record = record_in(folders / "all")
    row = record["designs"]["noise-plain"]
    for key in ("psnr", "sam", "ergas", "ssim"):
        expected = np.mean([f[key] for f in found])
        assert row["figures"]["hsfusion"][key] == pytest.approx(expected, rel=1e-6)
    plain = [api.evaluate(c.batch.clean[0].numpy(), c.batch.up[0].numpy(), 4) for c in trial.cases]
    start = record["start"]["hsfusion"]["psnr"]
    assert start == pytest.approx(np.mean([f["psnr"] for f in plain]), rel=1e-6)


def test_interrupted_and_resumed(folders: Path) -> None:
    """Stopped twice in trainings: the figures and tables of the uninterrupted run."""
    for scored, step in ((0, 1), (1, 1)):
        token = CancelToken()
        seen: list[Any] = []

        def stopping(event: Any, at: int = step, n: int = scored, t: Any = token) -> None:
            if isinstance(event, Scored):
                seen.append(event)  # noqa: B023
            last = isinstance(event, Step) and event.stage == "train" and event.index == at
            if last and len(seen) == n:  # noqa: B023
                t.cancel()

        with pytest.raises(Cancelled):
            reproduce(folders, "parts", resume=True, cancel=token, progress=stopping, **SMALL)
        assert len(record_in(folders / "parts")["designs"]) == scored
        assert len(list((folders / "parts" / "weights").glob("*.state.safetensors"))) == 1
    events: list[Any] = []
    parts = reproduce(folders, "parts", resume=True, progress=events.append, **SMALL)
    assert figures(parts.record) == of(figures(record_in(folders / "all")), parts.record)
    assert [e.earlier for e in events if isinstance(e, Scored)] == [True, False]
    assert sum(isinstance(e, Step) and e.stage == "train" for e in events) == 1
    first, second = (
        [{k: v for k, v in r.items() if k != "hours"} for r in rows(folders / part / "noise.csv")]
        for part in ("all", "parts")
    )
    assert first == second


def test_nothing_of_an_earlier_study_is_lost(folders: Path) -> None:
    """A folder with a record is refused; so is going on with another study."""
    path = folders / "all" / "record.json"
    before = path.read_bytes()
    with pytest.raises(ParameterError, match=r"record\.json: there already; resume"):
        reproduce(folders, "all", **SMALL)
    with pytest.raises(ParameterError, match="either resume or overwrite"):
        reproduce(folders, "all", resume=True, overwrite=True, **SMALL)
    for change, words in (
        ({"seed": 1}, "has seed = 0, this one 1"),
        ({"budget": {"steps": 3}}, "has budget"),
        ({"psf": "bicubic"}, "has psf = box, this one bicubic"),
        ({"design": {"width": 9}}, "has design"),
        ({"start": "subspace"}, "has design"),
        ({"params": {**SMALL["params"], "rate": 1e-3}}, "has parameters"),
    ):
        with pytest.raises(ParameterError, match=words):
            reproduce(folders, "all", resume=True, **{**SMALL, **change})
    api.save_cube(cube(9), folders / "val" / "4.tif")
    with pytest.raises(ParameterError, match="has validation"):
        reproduce(folders, "all", resume=True, **SMALL)
    assert path.read_bytes() == before
    path.write_bytes(before[:-40])
    with pytest.raises(ParameterError, match="not the record of a reproduction"):
        reproduce(folders, "all", resume=True, **SMALL)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        reproduce(folders, "all", overwrite=True, cancel=token, **SMALL)

    def stopping(event: Any) -> None:
        if isinstance(event, Step) and event.stage == "train":
            token.cancel()

    token = CancelToken()
    left = folders / "all" / "weights"
    assert len(list(left.glob("*.safetensors"))) > 1
    with pytest.raises(Cancelled):
        reproduce(folders, "all", overwrite=True, cancel=token, progress=stopping, **SMALL)
    assert [p.name for p in left.glob("*.safetensors")] == ["full.state.safetensors"]
    done = reproduce(folders, "all", resume=True, **SMALL)
    assert set(done.record["designs"]) == {"noise-plain", "full"}
    assert (folders / "all" / "noise.md").exists()
    assert not (folders / "all" / "residual.md").exists()


def test_a_budget_of_time(folders: Path) -> None:
    """Each design ends with its time; the progress counts seconds."""
    events: list[Any] = []
    options = {**QUICK, "budget": "minutes=0.01", "tables": "noise"}
    done = reproduce(folders, progress=events.append, **options)
    for row in done.record["designs"].values():
        assert 1 <= row["steps"] < 1000
        assert row["hours"] >= 0.6 / 3600
    whole = [e for e in events if isinstance(e, Step) and e.stage == "all designs"]
    assert {e.total for e in whole} == {2}
    assert whole[-1].index == 2
    assert "Budget: 0.01 minutes a design" in done.tables["noise"].read_text(encoding="utf-8")


def test_bad_options(folders: Path) -> None:
    """Each is refused with what was expected, before anything is made."""
    for change, kind, words in (
        ({"budget": "forever"}, ParameterError, "budget: expected minutes=NUMBER"),
        ({"budget": "hours=1"}, ParameterError, "budget: expected minutes=NUMBER"),
        ({"budget": "steps=0"}, ParameterError, "steps: expected"),
        ({"budget": "minutes=auto"}, ParameterError, "budget: expected"),
        ({"budget": {"steps": 1, "minutes": 1}}, ParameterError, "budget: expected"),
        ({"tables": "colours"}, ParameterError, "tables: expected some of residual, .*'colours'"),
        ({"tables": "noise,noise"}, ParameterError, "each name once"),
        ({"tables": []}, ParameterError, "each name once"),
        ({"srf": None}, ParameterError, "srf: expected"),
        ({"start": "warm"}, ParameterError, "start: expected one of bicubic, subspace"),
        ({"design": {"T": 3}}, ParameterError, "design: T: the tables set this"),
        ({"design": {"start": "subspace"}}, ParameterError, "an option of its own"),
        ({"design": {"depth": 3}}, ParameterError, "unknown option 'depth'"),
        ({"params": {"steps": 9}}, ParameterError, "steps has no effect here"),
        ({"params": {"patch": 18}}, ParameterError, "multiple of the ratio 4, got 18"),
        ({"scale": 0}, ParameterError, "scale"),
        ({"patience": 2}, ParameterError, "patience has no effect here"),
    ):
        with pytest.raises(kind, match=words):
            reproduce(folders, **{**SMALL, **change})
        assert not (folders / "out").exists(), change
    with pytest.raises(
        ParameterError,
        match=r"expected one of emr-diff-ablation, args-diff-argm, .*, got 'table-9'",
    ):
        api.reproduce("table-9", folders / "train", folders / "val", folders / "out", **SMALL)
    for option, words in (
        ({"size": 64}, "size has no effect with emr-diff-ablation: .*validation_side"),
        ({"snr": 35}, "snr has no effect .*training parameter"),
        ({"networks": "kept"}, "networks has no effect"),
        ({"params": ArgsDiffParams()}, "expected TrainingParams, got ArgsDiffParams"),
    ):
        with pytest.raises(ParameterError, match=words):
            reproduce(folders, **{**SMALL, **option})
    for missing in (None, []):
        with pytest.raises(ParameterError, match="val: emr-diff-ablation expected scenes"):
            api.reproduce(NAME, folders / "train", missing, folders / "out", **SMALL)
    assert not (folders / "out").exists()
    with pytest.raises(WriteError):
        reproduce(folders, "train/notes.txt", **SMALL)
    with pytest.raises(PairError, match="expected 5 columns"):
        reproduce(folders, **{**SMALL, "srf": np.ones((2, 9))})
    with pytest.raises(ParameterError, match=r"not trained on, got 1\.tif, which is 1\.tif"):
        api.reproduce(NAME, folders / "train", folders / "train", folders / "out", **SMALL)
    (folders / "copy").mkdir()
    shutil.copy(folders / "train" / "2.tif", folders / "copy" / "5.tif")
    with pytest.raises(ParameterError, match=r"not trained on, got 5\.tif, which is 2\.tif"):
        api.reproduce(NAME, folders / "train", folders / "copy", folders / "out", **SMALL)
    with pytest.raises(ParameterError, match=r"validation data: .*notes"):
        api.reproduce(
            NAME, folders / "train", folders / "train" / "notes.txt", folders / "out", **SMALL
        )


def test_a_design_that_fails_is_a_row(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says why; the others are as without it, and resuming does not try it again."""
    words = "training diverged at step 1"
    real = study.training_events
    tried: list[Any] = []

    def failing(*arguments: Any, **options: Any) -> Any:
        tried.append(options["design"])
        if options["design"].get("noise") == "plain":
            raise TrainingError(words)
        return (yield from real(*arguments, **options))

    monkeypatch.setattr(study, "training_events", failing)
    events: list[Any] = []
    done = reproduce(folders, progress=events.append, **SMALL)
    assert len(tried) == 2
    scored = [e for e in events if isinstance(e, Scored)]
    assert [(e.name, e.failed) for e in scored] == [("full", None), ("noise-plain", words)]
    designs = record_in(folders / "out")["designs"]
    assert designs["noise-plain"]["failed"] == words
    assert set(designs["noise-plain"]["figures"]["hsfusion"].values()) == {None}
    assert figures(done.record)["full"] == figures(record_in(folders / "all"))["full"]
    text = done.tables["noise"].read_text(encoding="utf-8")
    assert "| plain (failed) | – |" in text
    assert f"**Design noise-plain failed: {words}.**" in text
    assert "2 steps a design, 2 steps in " in text
    plain, full, _ = rows(folders / "out" / "noise.csv")
    assert (plain["failed"], plain["hsfusion psnr"], plain["steps"]) == (words, "", "")
    assert (full["failed"], full["steps"]) == ("", "2")
    assert (folders / "out" / "noise.png").read_bytes().startswith(b"\x89PNG")
    again = reproduce(folders, resume=True, **SMALL)
    assert len(tried) == 2
    assert again.record["designs"] == designs


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TrainingError("training diverged at step 1"), "training diverged at step 1"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "the memory does not suffice"),
        (MemoryError(), "the memory does not suffice"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "the memory does not suffice",
        ),
        (torch.linalg.LinAlgError("singular"), "no solution: singular"),
    ],
)
def test_what_fails_a_design(error: Exception, words: str) -> None:
    with pytest.raises(FailedRun, match=words), noting_failures():
        raise error


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), Cancelled("cancelled")])
def test_what_ends_a_study(error: Exception) -> None:
    """A bug, or whoever waits for it."""
    with pytest.raises(type(error), match=str(error)), noting_failures():
        raise error


def test_a_cube_that_is_not_finite_is_a_failed_design(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = study.restored

    def broken(*arguments: Any) -> Any:
        cube = real(*arguments)
        cube[0, :2, 0] = float("nan")
        return cube

    monkeypatch.setattr(study, "restored", broken)
    done = reproduce(folders, **SMALL)
    size = 5 * 16 * 16
    for row in done.record["designs"].values():
        assert row["failed"] == f"diverged: 2 of {size} values of the result are not finite"
    text = done.tables["noise"].read_text(encoding="utf-8")
    assert "Budget: 2 steps a design, – steps in – minutes" in text


def test_budgets_are_read() -> None:
    assert Budget.of("minutes=2.5") == Budget("minutes", 2.5)
    assert Budget.of({"steps": 60}).settings() == {"steps": 60, "minutes": None}
    assert str(Budget.of(" steps = 60 ")) == "60 steps"
    assert Budget.of("minutes=1").settings()["steps"] == 100_000_000


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command(folders: Path) -> None:
    """It gives the Python interface's figures, tells of progress, and resumes."""
    twin = record_in(folders / "all")
    out = folders / "out"
    arguments = (*COMMAND, "--data", folders / "train", "--val", folders / "val", "-o", out)
    done = call(*arguments, "--tables", "noise")
    assert done.exit_code == 0, (done.stderr, done.exception)
    record = record_in(out)
    assert set(record["designs"]) == {"full", "noise-plain"}
    assert figures(record) == of(figures(twin), record)
    assert record["run"] == twin["run"]
    assert "note: notes.txt was skipped: " in done.stderr
    assert "design 1 of 2, full: PSNR (dB) " in done.stderr
    assert "about " in done.stderr
    assert "noise, 2 steps a training; convention: emr-diff" in done.stdout
    assert str(out / "noise.md") in done.stdout
    again = call(*arguments)
    assert again.exit_code == 2
    assert "resume goes on" in again.stderr
    more = call(*arguments, "--tables", "noise", "--resume", "--json")
    assert more.exit_code == 0, more.stderr
    assert "full: " in more.stderr
    assert "done before" in more.stderr
    document = json.loads(more.stdout)
    assert document["tables"] == {"noise": str(out / "noise.md")}
    assert figures(document["record"]) == figures(record)
    assert "emr-diff-ablation" in call("reproduce", "--help").stdout
