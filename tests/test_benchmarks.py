"""The benchmark of speed and the page that reads from it."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT))
    names = ("args_plain", "report", "speed")
    return {name: importlib.import_module(f"benchmarks.{name}") for name in names}


def _results() -> dict[str, object]:
    return json.loads((ROOT / "benchmarks" / "results" / "speed.json").read_text("utf-8"))


def test_the_page_is_up_to_date(benchmarks: dict[str, ModuleType]) -> None:
    """`python -m benchmarks report` would change nothing."""
    text = PAGE.read_text("utf-8")
    document = _results()
    assert benchmarks["report"].page(text, document) == text
    document["chains"][0]["per_step"]["ours"] *= 2
    assert benchmarks["report"].page(text, document) != text


def test_the_page_keeps_its_places(benchmarks: dict[str, ModuleType]) -> None:
    text = PAGE.read_text("utf-8")
    with pytest.raises(ValueError, match="places for"):
        benchmarks["report"].page(text.replace("<!-- begin bands -->", ""), _results())
    with pytest.raises(ValueError, match="end bands"):
        benchmarks["report"].page(text.replace("<!-- end bands -->", ""), _results())


def test_the_plot_shows_every_size(benchmarks: dict[str, ModuleType]) -> None:
    """Six panels; in each of sizes three kinds of lines."""
    drawn = benchmarks["report"].figure(_results())
    assert len(drawn.axes) == 6
    assert [len(axes.lines) for axes in drawn.axes[:4]] == [6] * 4


def test_what_was_measured(benchmarks: dict[str, ModuleType]) -> None:
    """The kept figures are of implementations that agree, and bear out what is said of them."""
    rows = _results()["steps"]
    assert {row["sweep"] for row in rows} == {"side", "bands", "d", "base"}
    assert max(row["difference"] for row in rows) < 1e-4
    steps = {(r["bands"], r["base"]): r["per_step"] for r in rows if r["gradient"] == "x0"}
    usual = steps[103, 16]
    assert usual["plain"] > 2 * usual["ours"]
    assert steps[206, 16]["ours"] < 1.3 * steps[31, 16]["ours"]


def test_measuring(benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """Small cases run; implementations that differ are found out."""
    speed = benchmarks["speed"]
    tiny = speed.Case(side=32, bands=9, d=2, base=8, gradient="network")
    row = speed.measure_step(tiny, 1, 0, "cpu")
    assert row["difference"] < 1e-5
    assert all(row["per_step"][kind] > 0 for kind in ("ours", "plain"))
    assert speed.measure_chain(tiny, 2, 0, "cpu")["T"] == 2
    for network in ("spatial", "spectral"):
        trained = speed.measure_training(network, tiny, 2, 0, "cpu")
        assert trained["difference"] < 1e-4
    plain = benchmarks["args_plain"].Pair.loss
    monkeypatch.setattr(
        benchmarks["args_plain"].Pair, "loss", lambda self, a, e, w: plain(self, a, e, 1.01 * w)
    )
    with pytest.raises(RuntimeError, match="gradients of the two implementations differ"):
        speed.measure_step(replace(tiny, gradient="x0"), 1, 0, "cpu")


@pytest.mark.gpu
def test_measuring_a_gpu(benchmarks: dict[str, ModuleType]) -> None:
    speed = benchmarks["speed"]
    row = speed.measure_step(speed.Case(side=64, bands=31, base=8), 1, 0, "cuda")
    assert row["difference"] < 1e-3
