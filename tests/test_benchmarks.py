"""The benchmark of speed and the page that reads from it."""

from __future__ import annotations

import functools
import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from napari_hsfusion import scene

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT))
    names = ("args_plain", "cards", "endtoend", "report", "side_by_side", "speed")
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
    tiny = benchmarks["side_by_side"].Case(side=32, bands=9, d=2, base=8, gradient="network")
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


def test_a_pixel_on_the_edge_of_the_clip(
    benchmarks: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding alone decides on its gradient: it is left out, where there are few such."""
    speed = benchmarks["speed"]
    sides = benchmarks["side_by_side"]
    both = sides.build(sides.Case(side=64, bands=9, d=2, base=8), 0, "cpu")
    a0, e0, loss, grad_a, grad_e = both.plain.gradient(500)
    pixel = int(torch.nonzero(a0.abs().flatten() < 0.9)[0, 0])
    for moved, limit in ((pixel, 0.1), (slice(None), None)):
        clipped, wrong = a0.clone(), grad_a.clone()
        clipped.view(-1)[moved] = 1.0
        wrong.view(-1)[moved] += 1.0
        answer = (clipped, e0, loss, wrong, grad_e)
        monkeypatch.setattr(both.plain, "gradient", lambda _, answer=answer: answer)
        found = speed.disagreement(both)
        assert found < limit if limit else found == math.inf
    wrong = grad_a.clone()
    wrong.view(-1)[pixel] += 1.0
    monkeypatch.setattr(both.plain, "gradient", lambda _: (a0, e0, loss, wrong, grad_e))
    assert speed.disagreement(both) > 0.1


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_measuring_variants(benchmarks: dict[str, ModuleType], device: str) -> None:
    """Every format, on a graphics card with a graph and without, against plain steps."""
    case = benchmarks["side_by_side"].Case(side=32, bands=9, d=2, base=8)
    rows = benchmarks["cards"].measure_variants(case, 2 if device == "cpu" else 8, 1, 0, device)
    kinds = [(row["kind"], row["precision"]) for row in rows]
    assert kinds[0] == ("plain", "float32")
    assert {("ours", "float32"), ("ours", "bfloat16")} <= set(kinds)
    for row in rows:
        assert row["ratio"] > 0
        assert len(row["seconds"]) == 1
    if device == "cuda":
        assert any(row.get("cuda_graph") for row in rows)
        assert all(row["peak_bytes"] > 0 for row in rows)


def test_end_to_end(
    benchmarks: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget that does not fit is cut, and its whole is told; rows of two calls are kept."""
    ends = benchmarks["endtoend"]
    monkeypatch.setattr(scene, "demo_scene", functools.cache(scene.demo_scene))
    monkeypatch.setattr(ends, "PROBE", {"spatial_steps": 3, "spectral_steps": 5})
    small = {
        "d": 2,
        "T": 3,
        "spatial_base": 8,
        "spatial_levels": 1,
        "spatial_blocks": 1,
        "spatial_patch": 8,
        "spatial_batch": 1,
    }
    row = ends._run(16, 5, "paper", 1e-3, 0, "cpu", small)
    assert not row["complete"]
    assert 3 <= row["budgets"]["spatial_steps"] < 30_000
    assert row["whole_seconds"] > 10 * row["seconds"]
    assert row["psnr"] > 0
    done = ends._run(
        16, 5, "paper", 5.0, 0, "cpu", small | {"spatial_steps": 2, "spectral_steps": 2}
    )
    assert done["complete"]
    assert done["whole_seconds"] == done["seconds"]
    out = tmp_path / "end.json"
    for rows in ([row], [done], [done | {"psnr": 1.0}]):
        ends.write(out, rows, 0)
    kept = json.loads(out.read_text("utf-8"))["rows"]
    assert [r["psnr"] for r in kept] == [row["psnr"], 1.0]


@pytest.mark.gpu
def test_measuring_a_gpu(benchmarks: dict[str, ModuleType]) -> None:
    speed = benchmarks["speed"]
    case = benchmarks["side_by_side"].Case(side=64, bands=31, base=8)
    row = speed.measure_step(case, 1, 0, "cuda")
    assert row["difference"] < 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", ["x0", "network"])
def test_a_step_takes_at_most_half_of_the_plain_memory(
    benchmarks: dict[str, ModuleType], gradient: str
) -> None:
    """Peak of device memory at 256 x 256 x 103, with a graph and without."""
    case = benchmarks["side_by_side"].Case(256, 103, 8, 16, gradient)
    rows = benchmarks["cards"].measure_variants(case, 6, 1, 0, "cuda")
    plain = next(row["peak_bytes"] for row in rows if row["kind"] == "plain")
    for row in rows[1:]:
        if row["kind"] == "ours":
            assert row["graphs"] == "off" or row["cuda_graph"], row["cuda_graph_reason"]
            assert 2 * row["peak_bytes"] <= plain
