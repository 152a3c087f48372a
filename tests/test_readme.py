"""What the README shows works as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import napari_hsfusion
from napari_hsfusion.cli import app

ROOT = Path(__file__).resolve().parents[1]


def blocks(language: str) -> list[str]:
    """Code blocks of one language in the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_examples_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python blocks, and every line of the console blocks."""
    monkeypatch.chdir(tmp_path)
    makes_scene, example = blocks("python")
    exec(compile(makes_scene, "README.md", "exec"), {})
    assert (tmp_path / "scene.hdr").exists()

    commands = [shlex.split(line) for block in blocks("console") for line in block.splitlines()]
    for command in commands:
        assert command[0] == "hsfusion"
        result = CliRunner().invoke(app, command[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert {command[1] for command in commands} >= {"simulate", "fuse", "evaluate", "info"}
    for name in ("lr_hsi.hdr", "hr_msi.tif", "srf.csv", "observation.json"):
        assert (tmp_path / "pair" / name).exists(), name
    assert (tmp_path / "fused.hdr").exists()

    (tmp_path / "fused.tif").unlink()
    capsys.readouterr()
    exec(compile(example, "README.md", "exec"), {})
    assert float(capsys.readouterr().out) > 30.0
    assert (tmp_path / "fused.tif").exists()


def test_every_method_is_in_the_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(method["name"] for method in napari_hsfusion.methods())


def test_both_papers_can_be_cited() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == napari_hsfusion.__version__
    assert [paper["year"] for paper in cited["references"]] == [2025, 2026]
    readme = re.sub(r"\s+", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    for paper in cited["references"]:
        assert paper["title"] in readme.replace("*", "").replace("\n", " ")
        assert len(paper["authors"]) >= 5
