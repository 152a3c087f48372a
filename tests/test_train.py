"""Training runs from folders to weights: the Python interface and the command line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
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
from napari_hsfusion._training.design import make_config
from napari_hsfusion._training.log import Log
from napari_hsfusion.cli import app
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine.emr.weights import load_weights
from napari_hsfusion.engine.events import CancelToken, Measured, Preview, Started, Step
from napari_hsfusion.engine.training_state import read_progress
from napari_hsfusion.errors import (
    Cancelled,
    PairError,
    ParameterError,
    TrainingError,
    WeightsError,
    WriteError,
)
from napari_hsfusion.params.emr_diff import EmrDiffParams
from napari_hsfusion.params.training import TrainingParams

NM = np.linspace(450.0, 650.0, 5)
SRF = "gaussian:480/60,600/80"
DESIGN = {"width": 4, "architecture": "unet", "T": 2}
QUICK: dict[str, Any] = {
    "scale": 4,
    "psf": "box",
    "srf": SRF,
    "device": "cpu",
    "design": DESIGN,
    "params": {"steps": 6, "patch": 16, "validate_every": 2, "validation_side": 16, "log_every": 2},
}
COMMAND = ["--scale", 4, "--psf", "box", "--srf", SRF, "--device", "cpu", "--steps", 6]
COMMAND += [x for k, v in DESIGN.items() for x in ("--design", f"{k}={v}")]
COMMAND += [x for k, v in QUICK["params"].items() if k != "steps" for x in ("--set", f"{k}={v}")]


def cube(seed: int, height: int = 32, width: int = 40) -> xr.DataArray:
    values = 3000.0 * scene(5, height, width, seed) + 100.0
    return make_cube(values.astype(np.uint16), wavelength=NM, name=f"scene-{seed}")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """train/ with two scenes and something unreadable, val/ with one."""
    for name, seeds in (("train", (1, 2)), ("val", (3,))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            api.save_cube(cube(seed), tmp_path / name / f"{seed}.tif")
    (tmp_path / "train" / "notes.txt").write_text("not a cube")
    return tmp_path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_weights(path)[0].state_dict()


def equal(first: Path, second: Path) -> bool:
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def logged(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def curve(path: Path) -> list[tuple[str, ...]]:
    """Rows of a log without the seconds."""
    return [(r["step"], r["rate"], r["loss"], r["metric"]) for r in logged(path)]


def test_a_run_and_its_files(folders: Path) -> None:
    """Events in order; weights that say everything; log, curve and state beside them."""
    out = folders / "runs" / "w.safetensors"
    events: list[Any] = []
    done = api.train(
        [folders / "train"], out, val=folders / "val", seed=4, progress=events.append, **QUICK
    )
    assert isinstance(events[0], Started)
    assert events[0].method == "emr-diff"
    assert events[0].stages["train"] == 6
    steps = [e for e in events if isinstance(e, Step) and e.stage == "train"]
    assert [s.index for s in steps] == list(range(1, 7))
    assert all(s.loss is not None and s.loss > 0 for s in steps)
    measured = [e for e in events if isinstance(e, Measured)]
    assert [m.index for m in measured] == [2, 4, 6]
    previews = [e for e in events if isinstance(e, Preview)]
    assert len(previews) == 3
    truth = cube(3).values[:, 8:24, 12:28].astype(float)
    shown = previews[-1].bands(list(range(5)))
    assert shown.shape == truth.shape
    assert np.abs(shown - truth).mean() < 0.3 * truth.mean()
    assert events[-1] == done
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "w.csv",
        "w.png",
        "w.safetensors",
        "w.state.safetensors",
    ]
    assert (out.parent / "w.png").read_bytes().startswith(b"\x89PNG")
    assert [r["step"] for r in logged(out.with_suffix(".csv"))] == ["2", "4", "6"]
    metrics = [float(r["metric"]) for r in logged(out.with_suffix(".csv"))]
    np.testing.assert_allclose(metrics, [m.metric for m in measured], rtol=1e-5)

    model, header = load_weights(out)
    assert header == {**json.loads(json.dumps(done.record)), **{k: header[k] for k in _ADDED}}
    assert (model.config.width, model.config.steps) == (4, 2)
    assert (header["bands"], header["msi_bands"], header["ratio"]) == (5, 2, 4)
    assert header["wavelengths"] == NM.tolist()
    assert header["psf"] == "box"
    assert np.shape(header["srf"]) == (2, 5)
    assert [s["name"] for s in header["scenes"]] == ["1.tif", "2.tif"]
    assert all("sha256:" in s["digest"] for s in header["scenes"])
    assert header["skipped"][0][0] == "notes.txt"
    assert header["metric"] == max(m.metric for m in measured)
    assert header["figures"]["3.tif"] == header["metric"]
    assert (header["seed"], header["steps"]) == (4, 6)
    assert header["hours"] > 0
    assert header["hardware"]["device"] == "cpu"
    assert "napari-hsfusion" in header["versions"]
    assert str(folders) not in json.dumps(header)


_ADDED = ("kind", "method", "config", "bands", "msi_bands", "ratio")


def test_a_seed_means_one_result(folders: Path) -> None:
    short = {**QUICK, "params": {**QUICK["params"], "steps": 2}}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        api.train(folders / "train", folders / f"{name}.safetensors", seed=seed, **short)
    assert equal(folders / "a.safetensors", folders / "b.safetensors")
    assert not equal(folders / "a.safetensors", folders / "c.safetensors")


def test_interrupted_and_resumed(folders: Path) -> None:
    """Cancelled twice and resumed: weights, log and figures of the uninterrupted run."""
    whole, parts = folders / "whole.safetensors", folders / "parts.safetensors"
    options = {**QUICK, "val": folders / "val"}
    first = api.train(folders / "train", whole, **options)
    for stop in (2, 3):
        token = CancelToken()

        def cancelling(event: Any, at: int = stop, set_off: CancelToken = token) -> None:
            if isinstance(event, Step) and event.stage == "train" and event.index == at:
                set_off.cancel()

        with pytest.raises(Cancelled):
            api.train(
                folders / "train", parts, resume=True, cancel=token, progress=cancelling, **options
            )
        assert read_progress(parts.with_suffix(".state.safetensors")).step == stop
    second = api.train(folders / "train", parts, resume=True, **options)
    assert equal(whole, parts)
    assert curve(whole.with_suffix(".csv")) == curve(parts.with_suffix(".csv"))
    assert first.record["figures"] == second.record["figures"]
    # done already: resuming changes nothing
    before = parts.read_bytes()
    again = api.train(folders / "train", parts, resume=True, **options)
    assert equal(whole, parts)
    assert again.record["steps"] == 6
    assert load_weights(parts)[1]["figures"] == first.record["figures"]
    assert len(before) == len(parts.read_bytes())
    # and with more steps it goes on
    longer = {**options, "params": {**options["params"], "steps": 8}}
    assert api.train(folders / "train", parts, resume=True, **longer).record["steps"] == 8


def test_nothing_of_an_earlier_run_is_lost(folders: Path) -> None:
    """Files that are there, and states of another run, are refused."""
    out = folders / "w.safetensors"
    api.train(folders / "train", out, **QUICK)
    with pytest.raises(ParameterError, match=r"w\.safetensors and .*w\.state.*resume goes on"):
        api.train(folders / "train", out, **QUICK)
    state = out.with_suffix(".state.safetensors")
    aside = state.rename(folders / "aside")
    with pytest.raises(ParameterError, match=r"there is no w\.state\.safetensors to resume"):
        api.train(folders / "train", out, resume=True, **QUICK)
    aside.rename(state)
    with pytest.raises(ParameterError, match="either resume or overwrite"):
        api.train(folders / "train", out, resume=True, overwrite=True, **QUICK)
    for change, words in (
        ({"seed": 1}, "has seed = 0, this one 1"),
        ({"psf": "bicubic"}, "has psf = box, this one bicubic"),
        ({"design": {**DESIGN, "width": 5}}, "has config"),
        ({"params": {**QUICK["params"], "patch": 20}}, "has patch = 16, this one 20"),
    ):
        with pytest.raises(WeightsError, match=words):
            api.train(folders / "train", out, resume=True, **{**QUICK, **change})
    with pytest.raises(WeightsError, match="has validation = None, this one"):
        api.train(folders / "train", out, resume=True, val=folders / "val", **QUICK)
    api.save_cube(cube(9), folders / "train" / "2.tif")
    with pytest.raises(WeightsError, match="has scenes"):
        api.train(folders / "train", out, resume=True, **QUICK)
    api.train(folders / "train", out, overwrite=True, **QUICK)


def test_what_is_started_anew_is_not_gone_on_with(folders: Path) -> None:
    """Killed before its first state is saved, a new run leaves none of the one before."""
    out = folders / "w.safetensors"
    state = out.with_suffix(".state.safetensors")
    api.train(folders / "train", out, **QUICK)
    with pytest.raises(ParameterError, match="patch"):
        api.train(folders / "train", out, overwrite=True, **{**QUICK, "scale": 3})
    assert read_progress(state).step == 6
    events = api.iter_train(folders / "train", out, overwrite=True, rate=1e-3, **QUICK)
    while not (isinstance(event := next(events), Step) and event.stage == "train"):
        pass
    assert not state.exists()
    assert out.exists()
    events.close()
    assert read_progress(state).step == 1


def test_validation_scenes_are_not_trained_on(folders: Path) -> None:
    """The same file by another way, a copy of another name and format, a cube in memory."""
    out = folders / "w.safetensors"
    copy = folders / "copies"
    copy.mkdir()
    api.save_cube(cube(2), copy / "other.hdr")
    for val, words in (
        (folders / "train" / ".." / "train" / "1.tif", "got 1.tif, which is 1.tif"),
        ([folders / "val", copy], "got other.hdr, which is 2.tif of the training data"),
        (cube(1), "got scene-1, which is 1.tif"),
    ):
        with pytest.raises(ParameterError, match=words):
            api.train(folders / "train", out, val=val, **QUICK)
    with pytest.raises(ParameterError, match="validation data: expected scenes that are not"):
        api.train(folders, out, val=folders / "val", **QUICK)
    assert not out.exists()


def test_fine_tuning(folders: Path) -> None:
    """A run starts from weights that fit, with their design; others are refused."""
    base, tuned = folders / "base.safetensors", folders / "tuned.safetensors"
    api.train(folders / "train", base, **QUICK)
    options = {**QUICK, "design": None, "init": base}
    tiny = {**options["params"], "rate": 1e-7, "steps": 1, "average": 0.0}
    done = api.train(folders / "train", tuned, **{**options, "params": tiny})
    for a, b in zip(weights(base).values(), weights(tuned).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=3e-7)
    assert not equal(base, tuned)
    assert done.record["init"] == "base.safetensors"
    with pytest.raises(ParameterError, match="either init or a design"):
        api.train(folders / "train", folders / "x.safetensors", **{**options, "design": DESIGN})
    with pytest.raises(WeightsError, match="expect 4 as ratio of the resolutions, got 8"):
        api.train(folders / "train", folders / "x.safetensors", **{**options, "scale": 8})
    seven = make_cube(scene(7, 32, 32), wavelength=np.linspace(450, 650, 7))
    with pytest.raises(ParameterError, match="expected 5 good bands, got 7"):
        api.train(seven, folders / "x.safetensors", **options)
    whole = base.read_bytes()
    base.write_bytes(whole[:-10])
    with pytest.raises(WeightsError, match=r"base\.safetensors"):
        api.train(folders / "train", folders / "x.safetensors", **options)
    assert not (folders / "x.safetensors").exists()


def test_time_and_patience_end_a_run(folders: Path) -> None:
    out = folders / "w.safetensors"
    timed = {**QUICK["params"], "steps": 10_000_000, "minutes": 1.5 / 60, "validate_every": 0}
    events: list[Any] = []
    begun = time.monotonic()
    done = api.train(folders / "train", out, progress=events.append, **{**QUICK, "params": timed})
    assert time.monotonic() - begun < 60
    assert out.is_file()
    assert 0 < done.record["steps"] < 10_000_000
    assert done.record["hours"] == pytest.approx(1.5 / 3600, rel=1.0)
    totals = [e.total for e in events if isinstance(e, Step) and e.stage == "train"]
    assert totals[-1] < 100_000  # what the time allows, not what was given
    patient = {**QUICK["params"], "steps": 60, "rate": 0.1, "patience": 1, "validate_every": 1}
    done = api.train(
        folders / "train",
        folders / "p.safetensors",
        val=folders / "val",
        **{**QUICK, "params": patient},
    )
    assert done.record["steps"] < 60


def test_the_closed_form_start(folders: Path) -> None:
    """Training and trials start from the closed-form estimate; its figure is in the record."""
    options = {**QUICK, "design": {**DESIGN, "start": "subspace"}, "val": folders / "val"}
    done = api.train(folders / "train", folders / "w.safetensors", **options)
    plain = api.train(folders / "train", folders / "p.safetensors", val=folders / "val", **QUICK)
    better = done.record["validation"]["subspace"], plain.record["validation"]["bicubic"]
    assert better[0] > better[1] + 1


def test_bad_options(folders: Path) -> None:
    """Each is refused with what was expected, before any file is made."""
    out = folders / "out" / "w.safetensors"
    data = folders / "train"
    for change, kind, words in (
        ({"method": "subspace"}, ParameterError, "trained on scenes.*got 'subspace'"),
        ({"srf": None}, ParameterError, "srf: expected"),
        ({"srf": np.ones((2, 9))}, PairError, "expected 5 columns"),
        ({"psf": "spot"}, Exception, "unknown psf 'spot'"),
        ({"scale": 0}, ParameterError, "scale"),
        ({"scale": 3}, ParameterError, "patch: expected a multiple of the ratio 3, got 16"),
        ({"scale": 20, "params": {"patch": 20, "validation_side": 16}}, ParameterError, "ratio 20"),
        ({"params": {"patch": 64}}, ParameterError, "64 x 64.*got 32 x 40"),
        ({"params": {"speed": 1}}, ParameterError, "unknown parameter 'speed'"),
        ({"design": {"depth": 1}}, ParameterError, "unknown option 'depth'; known: width"),
        ({"design": {"steps": 1}}, ParameterError, "unknown option 'steps'"),
        ({"design": {"width": "wide"}}, ParameterError, "width: expected a whole number"),
        ({"design": {"architecture": "x"}}, ParameterError, "expected one of .*baf-unet"),
        ({"design": {"pseudo": "1,9"}}, ParameterError, "pseudo: .* from 1 to 5, got 1,9"),
        ({"design": {"T": 0}}, ParameterError, "design: T: expected a whole number"),
        ({"val": folders / "train" / "notes.txt"}, ParameterError, "validation data: .*notes"),
        ({"seed": -1}, ParameterError, "seed"),
    ):
        with pytest.raises(kind, match=words):
            api.train(data, out, **{**QUICK, **change})
        assert not out.exists()
    with pytest.raises(ParameterError, match=r"ending in \.safetensors"):
        api.train(data, folders / "w.pt", **QUICK)
    with pytest.raises(WriteError):
        api.train(data, folders / "train" / "notes.txt" / "w.safetensors", **QUICK)
    wild = {**QUICK["params"], "rate": 0.1, "clip": None, "steps": 400, "validate_every": 0}
    poisoned = cube(1).astype(np.float32) * np.float32(1e37)
    with pytest.raises((TrainingError, ParameterError)):
        api.train(poisoned, out, **{**QUICK, "params": wild})


def test_parameters_are_described() -> None:
    """What a form and the command line need: ranges, units, texts; auto where it may be."""
    specs = {spec.name: spec for spec in TrainingParams.describe()}
    assert all(spec.tooltip.endswith(".") for spec in specs.values())
    assert specs["minutes"].optional
    made = TrainingParams.from_settings({"steps": "7", "clip": "auto", "turns": "no"})
    assert (made.steps, made.clip, made.turns) == (7, None, False)
    with pytest.raises(ParameterError, match="precision: expected one of auto"):
        TrainingParams.from_settings({"precision": "half"})


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command(folders: Path) -> None:
    """It trains what the Python interface trains, lists what was skipped, and resumes."""
    out, twin = folders / "w.safetensors", folders / "twin.safetensors"
    api.save_cube(cube(4, 8, 8), folders / "val" / "small.tif")
    api.train(folders / "train", twin, val=folders / "val", **QUICK)
    arguments = ("train", "emr-diff", folders / "train", "-o", out, "--val", folders / "val")
    done = call(*arguments, *COMMAND)
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert equal(out, twin)
    assert "6 steps on 2 scenes" in done.stdout
    assert done.stderr.count("note: notes.txt was skipped: ") == 1
    assert done.stderr.index("notes.txt was skipped") < done.stderr.index("step 2: loss")
    assert done.stderr.count("note: small.tif was skipped: ") == 1
    assert "step 4: loss" in done.stderr
    again = call(*arguments, *COMMAND)
    assert again.exit_code == 2
    assert "resume goes on" in again.stderr
    more = call(*arguments, *COMMAND[:8], "--steps", 7, *COMMAND[10:], "--resume", "--json")
    assert more.exit_code == 0, more.stderr
    document = json.loads(more.stdout)
    assert document["record"]["steps"] == 7
    assert document["output"] == str(out)
    twice = call(*arguments, *COMMAND, "--set", "steps=4")
    assert twice.exit_code == 2
    assert "steps is given twice" in twice.stderr
    assert "emr-diff" in call("train", "--help").stdout


def spawn(folders: Path, *more: Any) -> subprocess.Popen[str]:
    """Run the command in a process of its own, in a group of its own."""
    arguments = ["train", "emr-diff", folders / "train", "-o", folders / "w.safetensors", *COMMAND]
    return subprocess.Popen(
        [sys.executable, "-m", "napari_hsfusion.cli", *[str(a) for a in [*arguments, *more]]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def test_an_interruption_says_what_is_kept(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing before the first step; of a resumed run the state that it was to go on from."""
    arguments = ["train", "emr-diff", folders / "train", "-o", folders / "w.safetensors", *COMMAND]

    def interrupted(*_: Any, cancel: CancelToken, **__: Any) -> Any:
        cancel.cancel()
        cancel.check()
        yield

    with monkeypatch.context() as patch:
        patch.setattr(api, "iter_train", interrupted)
        first = call(*arguments)
    assert first.exit_code == 130
    assert "before the first step: no state was kept" in first.stderr
    assert call(*arguments).exit_code == 0
    with monkeypatch.context() as patch:
        patch.setattr(api, "iter_train", interrupted)
        again = call(*arguments, "--resume")
        anew = call(*arguments, "--overwrite")
    assert "the state is kept; --resume goes on from there" in again.stderr
    assert "no state was kept" in anew.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_ctrl_c_keeps_the_state(folders: Path) -> None:
    """An interruption ends the run between two steps, and says how to go on."""
    child = spawn(folders, "--set", "save_minutes=1000", "--set", "minutes=5")
    state = folders / "w.state.safetensors"
    try:
        ends = time.monotonic() + 100
        while not (folders / "w.csv").exists() or len(logged(folders / "w.csv")) < 1:
            assert time.monotonic() < ends
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        _, told = child.communicate(timeout=60)
    finally:
        child.kill()
    if child.returncode == 0:
        pytest.skip("the run was over before it could be interrupted")
    assert child.returncode == 130, told
    assert "--resume goes on from there" in told
    assert read_progress(state).step >= 2


def test_processes_share_no_gpu(folders: Path) -> None:
    """One GPU that is named for several processes is refused, not passed over."""
    pytest.importorskip("accelerate")
    arguments = ["train", "emr-diff", folders / "train", "-o", folders / "w.safetensors"]
    done = call(*arguments, "--srf", SRF, "--processes", 2, "--device", "cuda:1")
    assert done.exit_code == 2
    assert "expected --device cuda, got cuda:1" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_two_processes_from_the_command_line(folders: Path) -> None:
    """One set of files, of two processes; errors are those of the first."""
    pytest.importorskip("accelerate")
    child = spawn(folders, "--processes", 2, "--val", folders / "val")
    out, told = child.communicate(timeout=240)
    assert child.returncode == 0, told
    assert out.count("6 steps on 2 scenes") == 1
    assert load_weights(folders / "w.safetensors")[1]["processes"] == 2
    assert told.count("notes.txt was skipped") == 1


def test_designs_go_by_the_names_of_the_method() -> None:
    """Text or values, bands from 1, auto for what is left out."""
    sizes = {"bands": 31, "msi_bands": 3, "ratio": 8}
    made = make_config({"pseudo": "1,15,31", "T": "3", "kappa": "1.5"}, **sizes)
    assert (made.pseudo, made.steps, made.kappa, made.width) == ((0, 14, 30), 3, 1.5, 34)
    assert made == make_config({"pseudo": (1, 15, 31), "T": 3, "kappa": 1.5}, **sizes)
    plain = make_config({"width": "auto", "pseudo": None}, **sizes)
    assert plain == make_config({}, **sizes)
    names = {spec.name for spec in EmrDiffParams.describe()}
    for name in ("width", "architecture", "residual", "noise", "start", "T", "kappa", "pseudo"):
        assert name in names
        make_config({name: "auto"}, **sizes)


def test_a_log_is_whole_from_the_start(tmp_path: Path) -> None:
    """Rows of the part before are there at once; a row waits while it may get a metric."""
    rows = [
        {"step": k, "seconds": 0.5 * k, "rate": 1e-4, "loss": 0.25, "metric": None}
        for k in (2, 4, 6)
    ]
    path = tmp_path / "w.csv"
    path.write_text("of another run")
    log = Log(path, rows[:1])
    assert [r["step"] for r in logged(path)] == ["2"]
    log.append(rows, hold=1)
    assert [r["step"] for r in logged(path)] == ["2", "4"]
    rows[2]["metric"] = 31.5
    log.append(rows)
    log.append(rows)
    assert [(r["step"], r["metric"]) for r in logged(path)] == [("2", ""), ("4", ""), ("6", "31.5")]
    with pytest.raises(WriteError):
        Log(tmp_path / "absent" / "w.csv")
