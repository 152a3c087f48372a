"""The example sessions run from an empty folder, and leave what they say."""

from __future__ import annotations

import csv
import json
import runpy
from collections.abc import Callable, Generator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import napari_hsfusion as hs
from napari_hsfusion.scene import demo_scene

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Play = Callable[[str], str]


@pytest.fixture
def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Generator[Play, None, None]:
    """Run an example in an empty folder; what it prints comes back."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["example"])

    def played(name: str) -> str:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    yield played
    torch.set_num_threads(threads)  # scripts of runs set it


def test_all_are_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    assert len(names) >= 6
    assert [name for name in names if f'play("{name}")' not in here] == []


def test_fuse_a_pair(play: Play) -> None:
    assert "30 bands, 64 x 64 pixels" in play("fuse_a_pair")
    cube = hs.open_cube("fused.tif")
    assert hs.evaluate(demo_scene(64, 30), cube)["psnr"] > 35
    made: dict[str, Any] = {}
    exec(Path("fuse_again.py").read_text(encoding="utf-8"), made)
    assert made["fused"].values.tobytes() == cube.values.tobytes()


def test_simulate_and_compare(play: Play) -> None:
    assert "subspace   PSNR" in play("simulate_and_compare")
    with open("metrics.csv", newline="", encoding="utf-8") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["subspace"]["psnr"]) > float(rows["bicubic"]["psnr"]) + 10
    assert float(rows["subspace"]["sam"]) < float(rows["bicubic"]["sam"])
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")


def test_watch_a_fusion(play: Play) -> None:
    text = play("watch_a_fusion")
    assert "args-diff: denoise, closed form, regression, train spatial network, sample" in text
    assert "train spatial network 10/10" in text
    assert "stopped: the run was cancelled" in text
    previews = np.load("previews.npy")
    assert previews.shape == (5, 32, 32)
    assert np.isfinite(previews).all()
    assert all((a != b).any() for a, b in pairwise(previews))


def test_without_reference(play: Play) -> None:
    assert "HQNR" in play("without_reference")
    scores = json.loads(Path("scores.json").read_text(encoding="utf-8"))
    assert scores["subspace"]["hqnr"] > scores["bicubic"]["hqnr"]
    with np.load("maps_subspace.npz") as maps:
        assert maps["lr_hsi"].shape == (16, 16)
        assert maps["hr_msi"].shape == (64, 64)


def test_own_responses(play: Play) -> None:
    text = play("own_responses")
    known, blind = (float(line.split()[3]) for line in text.splitlines())
    assert known > 32
    assert blind > known - 4
    assert np.load("estimated_srf.npy").shape == (3, 30)
    assert Path("estimated_psf.csv").exists()


def test_train_and_fuse(play: Play) -> None:
    text = play("train_and_fuse")
    assert "network.safetensors: 60 steps on 3 scenes" in text
    after, before = (float(word) for word in text.split("validation ")[1].split()[0:3:2])
    assert after > before
    cube = hs.open_cube("fused.tif")
    truth = demo_scene(64, 16, 9)
    found = hs.evaluate(truth, cube)["psnr"]
    assert found == pytest.approx(float(text.split()[-2]), abs=0.006)
    pair = hs.simulate(truth, 4, "gauss3-bicubic", "gaussian:480/70,560/60,660/60")
    plain = hs.fuse(pair.lr_hsi, pair.hr_msi, method="bicubic")
    assert found > hs.evaluate(truth, plain)["psnr"] + 3
    script = hs.as_script("fused.tif")
    assert "network.safetensors" in script


def test_napari_session(
    play: Play, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    napari = pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
    pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")
    make_viewer = request.getfixturevalue("make_napari_viewer")
    monkeypatch.setattr(napari, "Viewer", lambda: make_viewer(show=True))
    monkeypatch.setenv("NAPARI_ENSURE_PLUGIN_MAIN_THREAD", "1")
    text = play("napari_session")
    measured = float(text.split("PSNR ")[1].split()[0])
    cube = hs.open_cube("fused.tif")
    found = hs.evaluate(demo_scene(64, 30), cube)["psnr"]
    assert found > 35
    assert measured == pytest.approx(found, abs=0.006)
    script = Path("fuse_again.py").read_text(encoding="utf-8")
    assert script == hs.as_script("fused.tif")
    made: dict[str, Any] = {}
    exec(script, made)
    assert made["fused"].values.tobytes() == cube.values.tobytes()
