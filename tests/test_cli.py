"""The commands on files: results, JSON, exit codes, wrong input."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import xarray as xr
from click.testing import Result
from program import load_program
from typer.testing import CliRunner

from napari_hsfusion import __version__, api
from napari_hsfusion.cli import app
from napari_hsfusion.cube import make_cube

MAIN = [sys.executable, "-c", "from napari_hsfusion.cli import main; main()"]
QUICK = ["--method", "subspace", "--set", "d=4", "--device", "cpu"]


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def ok(*arguments: Any) -> str:
    done = call(*arguments)
    assert done.exit_code == 0, (done.stderr, done.exception)
    return done.stdout


def refused(*arguments: Any) -> str:
    """Run a command that must end with exit code 2; its words on stderr."""
    done = call(*arguments)
    assert done.exit_code == 2, (done.stdout, done.stderr, done.exception)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.fixture
def scene_files(tiny_scene: xr.DataArray, srf3: np.ndarray, tmp_path: Path) -> Path:
    """Folder with ref.hdr and srf.csv."""
    api.save_cube(tiny_scene.astype(np.float32), tmp_path / "ref.hdr")
    lines = ["wavelength_nm,blue,green,red"]
    for nm, row in zip(tiny_scene.wavelength.values, srf3.T, strict=True):
        lines.append(",".join(repr(float(v)) for v in (nm, *row)))
    (tmp_path / "srf.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def pair_files(scene_files: Path) -> Path:
    """The same with a simulated pair in pair/."""
    ok(
        *("simulate", scene_files / "ref.hdr", "--srf", scene_files / "srf.csv"),
        *("--snr", 40, "--psf", "box", "-o", scene_files / "pair"),
    )
    return scene_files


def images(folder: Path) -> tuple[Path, Path]:
    return folder / "pair" / "lr_hsi.hdr", folder / "pair" / "hr_msi.tif"


def test_version_and_help() -> None:
    assert ok("--version").split() == ["hsfusion", __version__]
    text = ok("--help")
    for command in ("info", "demo", "simulate", "fuse", "evaluate", "methods"):
        assert command in text


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom napari_hsfusion.cli import app\n"
        "try: app(['fuse', '--help'])\nexcept SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'xarray', 'scipy', 'matplotlib', 'rasterio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_simulate_writes_the_four_files(scene_files: Path, tiny_scene: xr.DataArray) -> None:
    out = scene_files / "made" / "deep"
    said = json.loads(
        ok(
            *("simulate", scene_files / "ref.hdr", "--srf", scene_files / "srf.csv"),
            *("--psf", "gaussian:1.5", "--seed", 3, "-o", out, "--json"),
        )
    )
    names = {p.name for p in out.iterdir()}
    assert {"lr_hsi.hdr", "hr_msi.tif", "srf.csv", "observation.json"} <= names
    assert not [n for n in names if n.startswith(".")]
    assert set(said["files"]) == {"lr_hsi", "hr_msi", "srf", "observation"}
    made = api.simulate(
        scene_files / "ref.hdr", 4, "gaussian:1.5", str(scene_files / "srf.csv"), 35.0, 3
    )
    x, y = api.open_cube(out / "lr_hsi.hdr"), api.open_cube(out / "hr_msi.tif")
    np.testing.assert_array_equal(x.values, made.lr_hsi.values)
    np.testing.assert_array_equal(y.values, made.hr_msi.values)
    np.testing.assert_array_equal(x.wavelength, tiny_scene.wavelength)
    assert list(y.band_name.values) == ["blue", "green", "red"]
    np.testing.assert_allclose(x.attrs["transform"], made.lr_hsi.attrs["transform"])
    written = json.loads((out / "observation.json").read_text())
    assert written == json.loads(json.dumps(made.record | {"srf_source": written["srf_source"]}))
    assert (out / "srf.csv").read_text().startswith("wavelength_nm,blue,green,red\n")


def test_simulate_fuse_evaluate(pair_files: Path) -> None:
    hsi, msi = images(pair_files)
    out = pair_files / "fused.hdr"
    done = call("fuse", hsi, msi, "-o", out, *QUICK, "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["record"]["parameters"]["d"] == 4
    assert said["record"]["seed"] == 0
    assert said["shape"] == [12, 24, 32]
    assert 0 < said["seconds"] < 60
    assert said["peak_rss_bytes"] > 50e6
    assert "subspace: about" in done.stderr
    cube = api.open_cube(out)
    assert json.loads(json.dumps(cube.attrs["record"])) == said["record"]
    measured = json.loads(ok("evaluate", pair_files / "ref.hdr", out, "--scale", 4, "--json"))
    wanted = api.evaluate(pair_files / "ref.hdr", out, 4)
    for key in ("psnr", "sam", "ergas", "ssim", "uiqi"):
        assert measured[key] == pytest.approx(wanted[key], nan_ok=False)
    table = ok("evaluate", pair_files / "ref.hdr", out, "--convention", "args-diff")
    assert f"{wanted['psnr']:.2f}" in table
    assert "convention: args-diff" in table


@pytest.mark.parametrize("suffix", [".hdr", ".tif", ".mat"])
def test_output_by_extension_keeps_the_record(suffix: str, pair_files: Path) -> None:
    out = pair_files / f"fused{suffix}"
    text = ok("fuse", *images(pair_files), "-o", out, *QUICK)
    assert "12 bands, 24 x 32 pixels" in text
    cube = api.open_cube(out)
    direct = api.fuse(*images(pair_files), method="subspace", d=4, device="cpu")
    np.testing.assert_array_equal(cube.values, direct.values)
    assert cube.attrs["record"]["method"] == "subspace"
    np.testing.assert_allclose(cube.wavelength, direct.wavelength)


@pytest.mark.parametrize("method", ["subspace", "args-diff"])
def test_same_seed_same_bytes(method: str, pair_files: Path) -> None:
    settings = {"subspace": ["d=4"], "args-diff": ["d=4", "spatial_steps=3", "levels=2"]}
    chosen = [a for text in settings[method] for a in ("--set", text)]
    written = []
    for name in ("a", "b"):
        out = pair_files / name / "fused.hdr"
        out.parent.mkdir()
        ok(
            *("fuse", *images(pair_files), "-o", out, "--method", method, *chosen),
            *("--seed", 7, "--device", "cpu"),
        )
        written.append({p.name: p.read_bytes() for p in sorted(out.parent.iterdir())})
    assert written[0]["fused.img"] == written[1]["fused.img"]
    assert written[0] == written[1]


def test_samples_write_the_deviation(pair_files: Path) -> None:
    """The cube, its deviation and the map, each a file; all three or a clear refusal."""
    out, deviation, image = (pair_files / f"{n}.tif" for n in ("fused", "deviation", "map"))
    fuse = ["fuse", *images(pair_files), "-o", out, *QUICK]
    files = ["--deviation", deviation, "--deviation-map", image]
    text = ok(*fuse, "--samples", 4, *files)
    alone = api.fuse(*images(pair_files), method="subspace", d=4, samples=4, device="cpu")
    np.testing.assert_array_equal(api.open_cube(out), alone)
    np.testing.assert_array_equal(api.open_cube(deviation), alone.deviation)
    np.testing.assert_array_equal(api.open_cube(image)[0], alone.relative_deviation)
    share = float(np.sqrt(np.mean(alone.relative_deviation.values.astype(float) ** 2)))
    assert f"{deviation}: deviation cube of 4 samples, {share:.2%} of the signal" in text
    said = json.loads(ok(*fuse, "--samples", 4, *files, "--json"))
    assert said["deviation_cube"] == str(deviation)
    assert said["record"]["samples"] == 4
    assert "expected --samples N with --deviation" in refused(*fuse, "--samples", 4)
    assert "--samples 0 and" in refused(*fuse, *files)
    assert "expected 0, or 2 and more" in refused(*fuse, "--samples", 1, *files)
    text = refused(*fuse, "--samples", 4, "--deviation", out)
    assert "is an output as well" in text
    bicubic = ["fuse", *images(pair_files), "-o", out, "--method", "bicubic"]
    assert "no uncertainty to sample" in refused(*bicubic, "--samples", 4, *files)


def test_paper_preset_states_its_cost(pair_files: Path) -> None:
    small = ["T=2", "d=3", "spatial_steps=1", "spectral_steps=1", "spatial_batch=1"]
    chosen = [a for text in small for a in ("--set", text)]
    out = pair_files / "paper.hdr"
    arguments = ["fuse", *images(pair_files), "-o", out, "--preset", "paper", "--device", "cpu"]
    done = call(*arguments, *chosen)
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert "args-diff: about" in done.stderr
    assert np.isfinite(api.open_cube(out).values).all()


def test_observation_beside_the_msi(pair_files: Path) -> None:
    hsi, msi = images(pair_files)
    bare = pair_files / "pair"
    for name, image in (("lr_hsi.mat", hsi), ("hr_msi.mat", msi)):
        scipy.io.savemat(bare / name, {"image": api.open_cube(image).values.transpose(1, 2, 0)})
    inputs = (bare / "lr_hsi.mat", bare / "hr_msi.mat")
    done = call("fuse", *inputs, "-o", pair_files / "a.hdr", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "psf and srf taken from" in done.stderr
    told = api.fuse(*images(pair_files), method="subspace", d=4, device="cpu")
    np.testing.assert_array_equal(api.open_cube(pair_files / "a.hdr").values, told.values)
    (bare / "observation.json").write_text("{")
    assert "JSON" in refused("fuse", *inputs, "-o", pair_files / "b.hdr", *QUICK)
    (bare / "observation.json").unlink()
    assert "--psf" in refused("fuse", *inputs, "-o", pair_files / "b.hdr", *QUICK)


def test_responses_by_option(pair_files: Path) -> None:
    out = pair_files / "fused.hdr"
    ok(
        *("fuse", *images(pair_files), "-o", out, *QUICK, "--scale", 4),
        *("--psf", "gaussian:2", "--srf", pair_files / "pair" / "srf.csv"),
    )
    record = api.open_cube(out).attrs["record"]
    assert record["psf"] == "gaussian:2.0"
    assert record["srf_source"].endswith("srf.csv")


def test_wrong_pairs(pair_files: Path, tiny_scene: xr.DataArray) -> None:
    hsi, msi = images(pair_files)
    out = pair_files / "out.hdr"
    cut = pair_files / "cut.tif"
    api.save_cube(api.open_cube(msi).isel(y=slice(0, 22)), cut)
    text = refused("fuse", hsi, cut, "-o", out, *QUICK)
    assert "6 x 8 pixels" in text
    assert "22 x 32" in text
    text = refused("fuse", hsi, msi, "-o", out, *QUICK, "--scale", 2)
    assert "scale 2 was given" in text
    assert "ratio is 4" in text
    table = pair_files / "four.csv"
    table.write_text("band,a,b,c,d\n" + "\n".join(f"{k},1,1,1,1" for k in range(1, 13)) + "\n")
    text = refused("fuse", hsi, msi, "-o", out, *QUICK, "--srf", table)
    assert "has 4 bands, the HR-MSI 3" in text
    text = refused("fuse", hsi, msi, "-o", out, "--method", "subspace", "--set", "d=13")
    assert "at most the 12 bands" in text
    assert not list(pair_files.glob("out*"))


def test_unknown_names(pair_files: Path) -> None:
    fuse = ["fuse", *images(pair_files), "-o", pair_files / "out.hdr"]
    assert "unknown method 'magic'; known: bicubic" in refused(*fuse, "--method", "magic")
    assert "unknown preset 'best'; known" in refused(*fuse, "--preset", "best")
    text = refused(*fuse, "--method", "subspace", "--set", "colour=red")
    assert "unknown parameter 'colour'; known: d," in text
    assert "expected name=value, got 'd'" in refused(*fuse, "--set", "d")
    assert "given twice" in refused(*fuse, "--set", "d=3", "--set", "d=4")
    assert "expected a whole number" in refused(*fuse, "--set", "d=three")
    assert "cuda:9" in refused(*fuse, "--device", "cuda:9")
    assert "unknown psf" in refused(*fuse, "--psf", "sharp")
    assert not list(pair_files.glob("out*"))
    done = call(*fuse, "--no-such-option")
    assert done.exit_code == 2


def test_truncated_data_file(pair_files: Path) -> None:
    hsi, msi = images(pair_files)
    data = hsi.with_suffix(".img")
    whole = data.stat().st_size
    data.write_bytes(data.read_bytes()[:100])
    text = refused("fuse", hsi, msi, "-o", pair_files / "out.hdr", *QUICK)
    assert f"{whole} bytes" in text
    assert "found 100 bytes" in text


def test_missing_file_and_variable(pair_files: Path) -> None:
    hsi, msi = images(pair_files)
    refused("fuse", pair_files / "absent.hdr", msi, "-o", pair_files / "out.hdr", *QUICK)
    two = pair_files / "two.mat"
    values = api.open_cube(hsi).values.transpose(1, 2, 0)
    scipy.io.savemat(two, {"first": values, "second": values * 2})
    fuse = ["fuse", two, msi, "-o", pair_files / "out.hdr", *QUICK]
    text = refused(*fuse)
    assert "first" in text
    assert "second" in text
    assert "third" in refused(*fuse, "--hsi-variable", "third")
    ok(*fuse, "--hsi-variable", "first")


def test_unwritable_output_is_found_before_the_run(pair_files: Path) -> None:
    fuse = ["fuse", *images(pair_files), *QUICK, "-o"]
    plain = pair_files / "plain"
    plain.write_text("a regular file")
    assert "cannot be written" in refused(*fuse, plain / "out.hdr")
    folder = pair_files / "folder.hdr"
    folder.mkdir()
    assert "found a folder" in refused(*fuse, folder)
    assert "cannot be written" in refused(*fuse, pair_files / "absent" / "out.hdr")
    text = refused(*fuse, pair_files / "out.xyz")
    assert ".hdr" in text
    assert "is an input" in refused(*fuse, images(pair_files)[0])
    simulate = ["simulate", pair_files / "ref.hdr", "--srf", pair_files / "srf.csv", "-o"]
    assert "cannot be created" in refused(*simulate, plain / "deep")
    for command in (["demo", "--out", plain], [*simulate, plain]):
        assert "cannot be created" in refused(*command)
    assert plain.read_text() == "a regular file"


def test_no_output_replaces_a_file_of_an_input(pair_files: Path) -> None:
    """An ENVI image is two files, and a link is the file it leads to."""
    hsi, msi = images(pair_files)
    (pair_files / "link.tif").symlink_to(msi)
    before = {p: p.read_bytes() for p in pair_files.rglob("*") if p.is_file()}
    for source, out in (
        (hsi.with_suffix(".img"), hsi),
        (hsi, pair_files / "link.tif"),
        (hsi, hsi.parent / ".." / "pair" / "lr_hsi.hdr"),
    ):
        assert "is an input" in refused("fuse", source, msi, *QUICK, "-o", out)
    for name in ("lr_hsi.hdr", "lr_hsi.img", "hr_msi.tif"):
        text = refused(
            *("simulate", pair_files / "pair" / name, "--srf", pair_files / "srf.csv"),
            *("-o", pair_files / "pair"),
        )
        assert "is an input" in text
    text = refused("simulate", pair_files / "ref.hdr", "--srf", "srf.csv", "-o", pair_files)
    assert "no such" in text
    text = refused(
        *("simulate", pair_files / "ref.hdr", "--srf", pair_files / "srf.csv"), "-o", pair_files
    )
    assert "is an input" in text
    assert before == {p: p.read_bytes() for p in pair_files.rglob("*") if p.is_file()}


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("moment", ["writing", "moving"])
@pytest.mark.parametrize("blow", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("there", [False, True])
def test_simulate_writes_all_or_nothing(
    there: bool,
    blow: BaseException,
    moment: str,
    scene_files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = scene_files / "deep" / "pair"
    simulate = ["simulate", scene_files / "ref.hdr", "--srf", scene_files / "srf.csv", "-o", out]
    if there:
        ok(*simulate, "--seed", 1)
        (out / "mine.txt").write_text("kept")
        (out / "hr_msi.tif").unlink()
    before = tree(scene_files)

    def strike(*_: object) -> None:
        raise blow

    if moment == "writing":
        monkeypatch.setattr("napari_hsfusion.sensors.srf.save_response_csv", strike)
    else:
        real, moved = os.replace, []

        def replace(source: Path, target: Path) -> None:
            if Path(target).parent == out and ".hsfusion-" not in Path(target).name:
                moved.append(target)
                if len(moved) == 3:
                    strike()
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
    done = call(*simulate)
    assert done.exit_code == (130 if isinstance(blow, KeyboardInterrupt) else 2), done.exception
    said = "interrupted\n" if done.exit_code == 130 else "No space left on device"
    assert done.stderr == said if done.exit_code == 130 else said in done.stderr
    monkeypatch.undo()
    assert tree(scene_files) == before


def test_demo_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_hsfusion import figures, scene
    from napari_hsfusion.cli import _demo

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    full = scene.demo_scene
    monkeypatch.setattr(scene, "demo_scene", lambda: full(size=48, bands=16))
    monkeypatch.setattr(_demo, "METHODS", ("bicubic",))
    monkeypatch.setattr(_demo, "SHOWN", "bicubic")
    monkeypatch.setattr(figures, "save_png", strike)
    done = call("demo", "--out", tmp_path / "d", "--device", "cpu")
    assert done.exit_code == 130, (done.stderr, done.exception)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_fuse_says_what_it_keeps(
    pair_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = pair_files / "networks"
    networks.mkdir()
    (networks / "older.txt").write_text("was there")

    def strike(*_: object, **__: object) -> None:
        (networks / "spatial.pt").write_bytes(b"weights")
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_hsfusion.cli._fuse.run_method", strike)
    fuse = ["fuse", *images(pair_files), *QUICK, "-o", pair_files / "z.hdr"]
    done = call(*fuse, "--networks", networks)
    assert done.exit_code == 130
    words = "".join(done.stderr.splitlines()[-1:])
    assert words == f"interrupted: kept {networks / 'spatial.pt'}"
    (networks / "spatial.pt").unlink()
    assert call(*fuse).stderr.splitlines()[-1] == "interrupted"


def test_simulate_refuses(scene_files: Path) -> None:
    simulate = ["simulate", scene_files / "ref.hdr", "-o", scene_files / "out"]
    table = ["--srf", scene_files / "srf.csv"]
    assert "no multiple of the scale 5" in refused(*simulate, *table, "--scale", 5)
    ok(*simulate, *table, "--scale", 5, "--crop")
    assert "unknown response" in refused(*simulate, "--srf", "kodak")
    assert "B12" in refused(*simulate, "--srf", "sentinel-2a:B12")
    assert "from 0 to 9223" in refused(*simulate, *table, "--seed", 2**63)
    fuse = ["fuse", *images(scene_files), *QUICK, "-o", scene_files / "z.hdr", "--seed", 2**64]
    ok(*simulate[:-1], scene_files / "pair", *table)
    assert "from 0 to 9223" in refused(*fuse)


def test_named_sensor(scene_files: Path) -> None:
    out = scene_files / "s2"
    ok("simulate", scene_files / "ref.hdr", "--srf", "sentinel-2a:B2,B3,B4,B8", "-o", out)
    y = api.open_cube(out / "hr_msi.tif")
    assert list(y.band_name.values) == ["B2", "B3", "B4", "B8"]
    assert np.all(np.diff(y.wavelength.values) > 0)


def test_evaluate_refuses(scene_files: Path, tiny_scene: xr.DataArray) -> None:
    ref = scene_files / "ref.hdr"
    other = scene_files / "other.tif"
    api.save_cube(tiny_scene.isel(band=slice(0, 11)).astype(np.float32), other)
    text = refused("evaluate", ref, other, "--scale", 4)
    assert "(12, 24, 32)" in text
    assert "(11, 24, 32)" in text
    assert "--scale" in refused("evaluate", ref, ref)
    assert "hsfusion, args-diff" in refused("evaluate", ref, ref, "--scale", 4, "--convention", "x")


def test_info_and_methods() -> None:
    said = json.loads(ok("info", "--json"))
    assert said["version"] == __version__
    assert said["devices"][0]["device"] == "cpu"
    assert "sentinel-2a" in said["sensors"]
    assert "args-diff" in ok("info")
    said = json.loads(ok("methods", "--json"))
    assert said["methods"] == json.loads(json.dumps(api.methods()))
    text = ok("methods")
    for row in said["methods"]:
        assert row["title"] in text


@pytest.mark.slow
def test_interrupt_leaves_nothing_behind(tiny_scene: xr.DataArray, tmp_path: Path) -> None:
    """SIGINT to a real process in the middle of a long fuse."""
    import signal

    values = np.tile(tiny_scene.values, (1, 3, 3)).astype(np.float32)
    made = api.simulate(make_cube(values), 4, "box", np.eye(3, 12) * 0.5 + 0.1, 40.0)
    api.save_cube(made.lr_hsi, tmp_path / "x.hdr")
    api.save_cube(made.hr_msi, tmp_path / "y.tif")
    out = tmp_path / "out"
    out.mkdir()
    command = [
        *MAIN,
        *("fuse", str(tmp_path / "x.hdr"), str(tmp_path / "y.tif"), "-o", str(out / "z.hdr")),
        *("--set", "spatial_steps=100000", "--device", "cpu", "--json"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "args-diff" in process.stderr.readline()
        time.sleep(2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_exit_codes_of_a_real_process(pair_files: Path) -> None:
    hsi, msi = images(pair_files)
    fuse = ["fuse", str(hsi), str(msi), "-o", str(pair_files / "z.hdr")]
    absent = ["fuse", str(pair_files / "absent.hdr"), *fuse[2:]]
    bad = subprocess.run([*MAIN, *absent], capture_output=True, text=True)
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: ")
    assert "absent.hdr: no such file" in bad.stderr
    assert bad.stdout == ""
    good = subprocess.run([*MAIN, *fuse, *QUICK, "--json"], capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["record"]["method"] == "subspace"


def test_a_stage_that_ends_sooner_fills_its_bar() -> None:
    """A training that ended by itself, and one that was not needed."""
    from napari_hsfusion.cli._console import ProgressBars
    from napari_hsfusion.engine.events import Started, Step

    bars = ProgressBars()
    bars.show(Started("args-diff", {"train": 300, "train more": 50, "sample": 8}))
    for event in (Step("train", 150, 300, 0.5), Step("train", 150, 150), Step("train more", 9, 9)):
        bars.show(event)
    assert [(task.completed, task.total) for task in bars._bars.tasks] == [
        (150, 150),
        (9, 9),
        (0, 8),
    ]
    assert [task.finished for task in bars._bars.tasks] == [True, True, False]


def test_fuse_says_what_it_does_about_memory(
    pair_files: Path, failing_trainings: list[int]
) -> None:
    out = pair_files / "out.hdr"
    settings = ["d=4", "weight=0.3", "spatial_steps=2", "levels=1", "regressions=0"]
    chosen = [word for text in settings for word in ("--set", text)]
    fuse = ["fuse", *images(pair_files), "-o", out, *chosen, "--seed", 41, "--device", "cpu"]
    done = call(*fuse, "--json")
    assert done.exit_code == 0, done.stderr
    assert "note: Memory: an allocation failed on cpu" in " ".join(done.stderr.split())
    assert json.loads(done.stdout)["record"]["fallback"]["training_parts"] >= 2
    failing_trainings[0] = 99
    out.unlink()
    assert "not enough memory" in refused(*fuse[:-4], "--seed", 42, "--device", "cpu")
    assert not out.exists()


@pytest.fixture
def quick_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on a smaller scene, with little training of args-diff."""
    from napari_hsfusion import scene
    from napari_hsfusion.engine import methods

    full = scene.demo_scene
    monkeypatch.setattr(scene, "demo_scene", lambda: full(size=32, bands=16))
    method = methods.get_method("args-diff")
    short = dataclasses.replace(method.presets["balanced"], spatial_steps=25, levels=2)
    quick = dataclasses.replace(method, presets={"short": short}, default_preset="short")
    monkeypatch.setitem(methods._METHODS, "args-diff", quick)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_demo")
def test_demo(tmp_path: Path) -> None:
    from matplotlib import image

    said = json.loads(ok("demo", "--out", tmp_path / "d", "--json", "--device", "cpu"))
    assert [row["name"] for row in said["rows"]] == ["bicubic", "subspace", "args-diff"]
    assert said["convention"] == "hsfusion"
    psnr = {row["name"]: row["psnr"] for row in said["rows"]}
    assert psnr["subspace"] > psnr["bicubic"] + 15
    assert psnr["args-diff"] > psnr["bicubic"] + 15
    names = {p.name for p in (tmp_path / "d").iterdir()}
    assert names == {"args-diff.hdr", "args-diff.img", "args-diff.json", "comparison.png"}
    cube = api.open_cube(said["files"]["cube"])
    assert cube.shape == (16, 32, 32)
    record = json.loads(Path(said["files"]["record"]).read_text())
    assert record["record"] == json.loads(json.dumps(cube.attrs["record"]))
    picture = image.imread(said["files"]["figure"])
    assert min(picture.shape[:2]) > 500
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 1000


def test_demo_scenes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = refused("demo", "--scene", "moon", "--out", tmp_path / "d")
    assert "indian-pines" in text
    monkeypatch.setitem(sys.modules, "tensorly", None)
    monkeypatch.setitem(sys.modules, "tensorly.datasets", None)
    text = refused("demo", "--scene", "indian-pines", "--out", tmp_path / "d")
    assert "pip install tensorly" in text
    assert not (tmp_path / "d").exists()


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize("name", ["pavia_centre", "sandiego", "beach1", "jasper"])
def test_real_scenes_from_files_agree_with_the_benchmark(
    name: str,
    bench_pair: Callable[[str], dict[str, Any]],
    shared_data: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Files in, files out; an independent program scores the result alike."""
    wanted = bench_pair(name)
    score = load_program(shared_data("../bench/score.py"))
    api.save_cube(make_cube(wanted["Z"], wavelength=wanted["wavelengths"]), tmp_path / "ref.hdr")
    lines = ["band," + ",".join(f"b{k}" for k in range(len(wanted["R"])))]
    for k, row in enumerate(wanted["R"].T, start=1):
        lines.append(f"{k}," + ",".join(repr(float(v)) for v in row))
    (tmp_path / "r.csv").write_text("\n".join(lines) + "\n")
    ok("simulate", tmp_path / "ref.hdr", "--srf", tmp_path / "r.csv", "-o", tmp_path / "pair")
    fused = tmp_path / "fused.hdr"
    ok("fuse", *images(tmp_path), "-o", fused, "--method", "subspace", "--device", "cpu")
    said = json.loads(ok("evaluate", tmp_path / "ref.hdr", fused, "--scale", 4, "--json"))
    theirs = score.score(wanted["Z"], score.load(str(fused), wanted["Z"].shape), 4)
    assert said["psnr"] == pytest.approx(theirs["psnr"], abs=0.01)
    assert said["sam"] == pytest.approx(theirs["sam"], abs=0.01)
    assert said["ssim"] == pytest.approx(theirs["ssim"], abs=0.001)
    assert said["ergas"] == pytest.approx(theirs["ergas"], rel=0.001)
    floor = {"pavia_centre": 41.0, "sandiego": 39.7, "beach1": 41.8, "jasper": 38.5}
    assert theirs["psnr"] > floor[name]
