"""The house keeps its shape: arrows point one way, and heavy parts load when needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest

import napari_hsfusion

ROOT = Path(__file__).resolve().parents[1]
GUI = ("napari", "npe2", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui", "superqt")

BLOCK = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked in this test", name=name)

sys.meta_path.insert(0, Block())
"""


def python(
    code: str, *options: str, blocked: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, with some packages made impossible to import."""
    if blocked:
        code = f"BLOCKED = {blocked!r}\n{BLOCK}\n{code}"
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def run_ok(code: str, blocked: tuple[str, ...] = ()) -> str:
    """Output of code that must end well."""
    done = python(code, blocked=blocked)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_contracts_are_kept() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kept = re.search(r"Contracts: (\d+) kept, 0 broken", done.stdout)
    assert kept is not None, done.stdout
    assert int(kept[1]) >= 4


def test_importing_the_package_is_instant() -> None:
    """Under 0.2 s over an empty interpreter, by the interpreter's own count, best of three."""
    seconds = []
    for _ in range(3):
        done = python("import napari_hsfusion", "-X", "importtime")
        assert done.returncode == 0, done.stderr
        lines = [line.split("|") for line in done.stderr.splitlines()]
        ours = [int(cells[1]) for cells in lines if cells[-1].strip() == "napari_hsfusion"]
        assert len(ours) == 1, done.stderr
        seconds.append(ours[0] / 1e6)
    assert min(seconds) < 0.2, f"{seconds} s"


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = set(
        json.loads(
            run_ok("import napari_hsfusion, sys, json; print(json.dumps(list(sys.modules)))")
        )
    )
    heavy = {"torch", "numpy", "scipy", "xarray", "dask", "matplotlib", "rasterio", "typer", *GUI}
    assert loaded & heavy == set()
    assert "napari_hsfusion" in loaded


def test_every_public_name_is_there() -> None:
    names = json.loads(
        run_ok(
            "import napari_hsfusion as p, json\n"
            "print(json.dumps([[n, type(getattr(p, n)).__name__] for n in p.__all__]))",
            blocked=GUI,
        )
    )
    assert {"open_cube", "save_cube", "simulate", "fuse", "evaluate"} <= {name for name, _ in names}
    assert sorted(name for name, _ in names) == sorted(set(dir(napari_hsfusion)))
    with pytest.raises(AttributeError, match="no attribute 'sharpen'"):
        napari_hsfusion.sharpen  # noqa: B018


@pytest.mark.parametrize("room", ["api", "cli", "io", "metrics", "sensors", "scene"])
def test_a_room_imports_without_napari_and_qt(room: str) -> None:
    """Each room, and every module in it; the engine's have a stricter test below."""
    code = f"""
import importlib, pkgutil
package = importlib.import_module("napari_hsfusion.{room}")
names = [package.__name__]
if hasattr(package, "__path__"):
    walk = pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    names += [found.name for found in walk if not found.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    assert int(run_ok(code, blocked=GUI)) >= 1


def test_the_block_blocks() -> None:
    """The test above means something only if the block holds."""
    done = python("import qtpy", blocked=GUI)
    assert done.returncode != 0
    assert "qtpy is blocked in this test" in done.stderr


def test_the_engine_runs_where_there_is_torch_numpy_and_scipy_alone() -> None:
    """Every module of the engine imports with all other dependencies blocked."""
    code = """
import importlib, pkgutil
import napari_hsfusion.engine as engine
for found in pkgutil.walk_packages(engine.__path__, engine.__name__ + "."):
    importlib.import_module(found.name)
"""
    others = ("dask", "h5py", "matplotlib", "pandas", "pyrsr", "rasterio", "rich")
    others += ("skimage", "spectral", "tifffile", "typer", "xarray")
    run_ok(code, blocked=(*GUI, *others))


def test_opening_a_file_loads_no_torch(tmp_path: Path) -> None:
    data = np.arange(2 * 3 * 4, dtype="<u2").reshape(2, 3, 4)
    (tmp_path / "scene.dat").write_bytes(data.tobytes())
    header = tmp_path / "scene.hdr"
    header.write_text(
        "ENVI\nsamples = 4\nlines = 3\nbands = 2\nheader offset = 0\nfile type = ENVI Standard\n"
        "data type = 12\ninterleave = bsq\nbyte order = 0\n"
    )
    code = f"""
import sys, napari_hsfusion
cube = napari_hsfusion.open_cube({str(header)!r})
assert cube.shape == (2, 3, 4), cube.shape
print(int(cube.sum()))
assert "torch" not in sys.modules, "opening a file imported torch"
assert "matplotlib" not in sys.modules, "opening a file imported matplotlib"
"""
    assert int(run_ok(code, blocked=("torch", *GUI))) == int(data.sum())


def test_modules_stay_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "src").rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_nothing_prints_or_shares_random_state() -> None:
    """No print outside the command line, no hidden global generator, no pickle of weights."""
    banned = {
        "print": r"(?<![\w.])print\(",
        "global random state": r"(np\.random\.(seed|rand|randn|random|normal|uniform)\(|"
        r"torch\.manual_seed|^import random|random\.seed)",
        "pickle": r"(torch\.load\(|import pickle)",
    }
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        if "cli" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path.relative_to(ROOT)}: {what}"
            for what, pattern in banned.items()
            if re.search(pattern, text, re.MULTILINE)
        ]
    assert found == []


def test_a_server_installs_light_and_the_extras_bring_the_rest() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    base = {re.split(r"[^\w.-]", line)[0].lower() for line in project["dependencies"]}
    assert {"torch", "numpy", "xarray"} <= base
    assert base & {name.lower() for name in (*GUI, "distributed", "accelerate")} == set()
    assert extras.keys() >= {"pyqt6", "pyside6", "all", "distributed", "train", "dev"}
    assert any("napari[pyqt6]" in line for line in extras["pyqt6"])
    assert any("napari[pyside6]" in line for line in extras["pyside6"])
    assert "napari-hsfusion[pyqt6,distributed,train]" in extras["all"]


def test_the_constraints_hold_every_requirement() -> None:
    """Each direct dependency, extras included, is pinned once, within its own bounds."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    versions = {canonicalize_name(name): version for name, version in pins}
    assert len(versions) == len(pins)
    assert versions["torch"] == "2.13.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    for line in wanted:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if name != "napari-hsfusion":
            assert requirement.specifier.contains(versions[name]), line


def test_this_is_typed_and_one_licence() -> None:
    assert (ROOT / "src" / "napari_hsfusion" / "py.typed").exists()
    assert metadata("napari-hsfusion")["License-Expression"] == "BSD-3-Clause"
    assert metadata("napari-hsfusion")["Version"] == napari_hsfusion.__version__
