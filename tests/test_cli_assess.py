"""``hsfusion assess``: the same numbers as from Python, and wrong input refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from napari_hsfusion import api
from napari_hsfusion.cli import app


def call(*arguments: Any, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else " ".join(done.stderr.split())


@pytest.fixture
def files(tiny_scene: xr.DataArray, srf3: np.ndarray, tmp_path: Path) -> Path:
    """Folder with ref.hdr, x.hdr, y.hdr, z.hdr and srf.csv."""
    pair = api.simulate(tiny_scene, 4, "box", srf3, 40.0, 3)
    fused = api.fuse(pair.lr_hsi, pair.hr_msi, method="bicubic", device="cpu")
    api.save_cube(tiny_scene.astype(np.float32), tmp_path / "ref.hdr")
    for name, cube in (("x", pair.lr_hsi), ("y", pair.hr_msi), ("z", fused)):
        api.save_cube(cube, tmp_path / f"{name}.hdr")
    lines = ["wavelength_nm,blue,green,red"]
    for nm, row in zip(tiny_scene.wavelength.values, srf3.T, strict=True):
        lines.append(",".join(repr(float(v)) for v in (nm, *row)))
    (tmp_path / "srf.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_numbers_are_those_of_the_interface(files: Path) -> None:
    x, y, z, ref = (files / f"{n}.hdr" for n in ("x", "y", "z", "ref"))
    told = json.loads(call("assess", x, y, z, "--json"))
    assert told.pop("fused") == str(z)
    assert (told.pop("lr_hsi"), told.pop("hr_msi")) == (str(x), str(y))
    wanted = api.assess(x, y, z)
    assert told == pytest.approx(wanted)
    better = json.loads(call("assess", x, y, ref, "--json", "--scale", 4))
    assert better["hqnr"] > told["hqnr"]
    table = call("assess", x, y, z)
    assert "without a reference" in table
    assert "HQNR" in table
    assert f"{wanted['psnr_msi']:.2f}" in table
    assert f"{wanted['hqnr']:.4f}" in table


def test_responses_from_options_or_from_the_record(files: Path) -> None:
    """Images that say nothing of their responses: the options or the fused cube do."""
    for name in ("x", "y"):
        cube = api.open_cube(files / f"{name}.hdr")
        cube = cube.load().assign_attrs(observation={}, history=[])
        del cube.attrs["observation"]
        api.save_cube(cube, files / f"bare_{name}.hdr")
    x, y = files / "bare_x.hdr", files / "bare_y.hdr"
    wanted = api.assess(files / "x.hdr", files / "y.hdr", files / "z.hdr")
    by_record = json.loads(call("assess", x, y, files / "z.hdr", "--json"))
    assert by_record["hqnr"] == pytest.approx(wanted["hqnr"], abs=1e-6)
    said = call("assess", x, y, files / "ref.hdr", code=2)
    assert "error:" in said
    options = ("--psf", "box", "--srf", files / "srf.csv", "--json")
    by_option = json.loads(call("assess", x, y, files / "z.hdr", *options))
    assert by_option["hqnr"] == pytest.approx(wanted["hqnr"], abs=1e-3)
    other = json.loads(call("assess", x, y, files / "z.hdr", "--psf", "bicubic", "--json"))
    assert other["psnr_hsi"] != pytest.approx(wanted["psnr_hsi"], abs=0.01)


def test_wrong_input_is_refused(files: Path) -> None:
    x, y, z = (files / f"{n}.hdr" for n in ("x", "y", "z"))
    assert "(12, 6, 8)" in call("assess", x, y, x, code=2)
    assert "the ratio is 4" in call("assess", x, y, z, "--scale", 3, code=2)
    call("assess", x, files / "none.hdr", z, code=2)
