"""``hsfusion script`` and ``hsfusion napari`` as far as they go without a window."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import Result
from typer.testing import CliRunner

from napari_hsfusion import api
from napari_hsfusion.cli import _napari, app
from napari_hsfusion.scene import demo_scene

SRF = "gaussian:480/70,560/60,660/60"


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments: Any) -> str:
    done = call(*arguments)
    assert done.exit_code == 2, (done.stdout, done.stderr, done.exception)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with ref.tif, its pair in pair/, and fused.hdr, made by the commands."""
    monkeypatch.chdir(tmp_path)
    api.save_cube(demo_scene(32, 12), tmp_path / "ref.tif")
    assert call("simulate", "ref.tif", "--srf", SRF, "-o", "pair").exit_code == 0
    done = call(
        *("fuse", "pair/lr_hsi.hdr", "pair/hr_msi.tif", "-o", "fused.hdr", "--device", "cpu"),
        *("--method", "subspace", "--set", "d=4", "--seed", 3),
    )
    assert done.exit_code == 0, done.stderr
    return tmp_path


def test_the_script_of_a_file_repeats_its_run(files: Path) -> None:
    printed = call("script", "fused.hdr")
    assert printed.exit_code == 0, printed.stderr
    assert printed.stdout == api.as_script(files / "fused.hdr")
    written = call("script", "fused.hdr", "-o", "again.py")
    assert (written.exit_code, written.stdout) == (0, "")
    assert (files / "again.py").read_text(encoding="utf-8") == printed.stdout
    (files / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, files / "again.py"],
        cwd=files / "elsewhere",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    again = api.open_cube(files / "elsewhere" / "fused.tif")
    assert again.values.tobytes() == api.open_cube(files / "fused.hdr").values.tobytes()


def test_responses_that_lay_beside_the_files_are_read_again(files: Path) -> None:
    """The observation is in observation.json alone, noise levels included."""
    for name in ("lr_hsi.hdr", "hr_msi.tif"):
        plain = api.open_cube(files / "pair" / name).load()
        plain.attrs = {"nodata": float("nan")}
        api.save_cube(plain, files / "pair" / name)
    done = call(
        *("fuse", "pair/lr_hsi.hdr", "pair/hr_msi.tif", "-o", "plain.tif", "--device", "cpu"),
        *("--method", "subspace"),
    )
    assert done.exit_code == 0, done.stderr
    assert "observation.json" in done.stderr
    script = call("script", "plain.tif").stdout
    assert "observation.json" in script
    made: dict[str, Any] = {}
    exec(script, made)
    assert made["fused"].values.tobytes() == api.open_cube("plain.tif").values.tobytes()


def test_an_image_of_a_simulated_pair_has_a_script(files: Path) -> None:
    script = call("script", "pair/hr_msi.tif").stdout
    assert "hs.simulate" in script
    assert "fuse" not in [
        n.attr for n in ast.walk(ast.parse(script)) if isinstance(n, ast.Attribute)
    ]


def test_wrong_input_of_script(files: Path) -> None:
    assert "no run made it" in refused("script", "ref.tif")
    assert "nothing.tif" in refused("script", "nothing.tif")
    assert "expected a name ending in .py" in refused("script", "fused.hdr", "-o", "again.txt")
    assert not (files / "again.txt").exists()


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command hands to the module that opens the window."""
    seen: list[Any] = []
    module = SimpleNamespace(run=lambda files, widgets: seen.append((files, widgets)))
    monkeypatch.setattr(_napari, "_launcher", lambda: module)
    monkeypatch.setenv("DISPLAY", ":0")
    return seen


def test_napari_hands_over_files_and_widgets(
    launched: list[Any], tmp_path: Path, tiny_scene: xr.DataArray
) -> None:
    first = api.save_cube(tiny_scene, tmp_path / "a b.hdr")
    second = api.save_cube(tiny_scene, tmp_path / "c.mat")
    assert call("napari").exit_code == 0
    done = call("napari", first, second, "--widget", "Compare", "--widget", "simulate")
    assert done.exit_code == 0, done.stderr
    assert launched == [
        ([], ["fuse", "spectrum"]),
        ([first, second], ["compare", "simulate"]),
    ]


def test_a_mat_file_of_several_arrays_is_left_to_the_window(
    launched: list[Any], tmp_path: Path
) -> None:
    import scipy.io

    path = tmp_path / "two.mat"
    scipy.io.savemat(path, {"a": np.ones((4, 5, 6)), "b": np.ones((4, 5, 6))})
    assert call("napari", path).exit_code == 0
    assert launched == [([path], ["fuse", "spectrum"])]


def test_bad_input_is_refused_before_any_window(launched: list[Any], tmp_path: Path) -> None:
    assert "absent.tif" in refused("napari", tmp_path / "absent.tif")
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0 and then nothing")
    assert "broken.tif" in refused("napari", broken)
    assert "expected simulate, fuse, compare, train, spectrum, got 'evaluate'" in refused(
        "napari", "--widget", "evaluate"
    )
    assert launched == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays of Linux")
def test_no_display_is_said(launched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(key, raising=False)
    assert "there is no display" in refused("napari")
    assert launched == []


BLOCKED = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise {error}
sys.meta_path.insert(0, Block())
from napari_hsfusion.cli import main
sys.argv = ["hsfusion", "napari"]
main()
"""


@pytest.mark.parametrize(
    ("blocked", "error", "said"),
    [
        (("napari",), "ImportError('No module named napari', name=name)", ("pyqt6", "pyside6")),
        (
            ("PyQt6", "PySide6", "PyQt5", "PySide2"),
            "ImportError('No module named ' + name, name=name)",
            ("pyqt6", "pyside6"),
        ),
        (("torch",), "OSError('[WinError 1114] c10.dll')", ("PyTorch", "c10.dll", "pytorch.org")),
    ],
)
def test_what_is_not_installed_is_named(
    blocked: tuple[str, ...], error: str, said: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked, error=error)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DISPLAY": ":0"},
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for word in said:
        assert word in done.stderr
