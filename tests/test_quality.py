"""The page about quality, its plots, and the benchmark of quality against training."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quality.md"
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def test_the_page_is_up_to_date(load: Callable[[str], ModuleType]) -> None:
    """`python -m benchmarks report` would change nothing."""
    quality, report = load("quality"), load("report")
    text, document = PAGE.read_text("utf-8"), quality.read(RESULTS)
    assert report.page(text, document, quality.TABLES) == text
    document["accuracy"][0]["rows"][0]["psnr"] += 1
    changed = report.page(text, document, quality.TABLES)
    assert changed != text
    if document["training"] is not None:
        document["training"]["rows"][-1]["psnr"] += 1
        assert report.page(text, document, quality.TABLES) != changed


def _rows() -> list[dict[str, Any]]:
    common = {
        **{"scene": "field", "shape": [31, 64, 64], "scale": 4, "method": "args-diff"},
        **{"sam": 1.25, "ergas": 0.5, "threads": 1, "versions": {"torch": "2"}},
        **{"peak_bytes": 500 << 20, "device_bytes": 0},
    }
    cpu = {"device": "cpu", "device_name": "a processor"}
    card = {"device": "cuda", "device_name": "a card", "device_bytes": 700 << 20}
    return [
        {**common, **cpu, "preset": "fast", "psnr": 40.125, "seconds": 2.0},
        {**common, **cpu, "preset": "balanced", "psnr": 40.5, "seconds": 20.0},
        {**common, **card, "preset": "paper", "psnr": 41.0, "seconds": 2000.0},
    ]


def _document(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = {"seed": 3, "machine": {"platform": "Linux"}, "rows": rows}
    return {"accuracy": [found], "training": None}


def test_every_row_is_shown(load: Callable[[str], ModuleType]) -> None:
    """One of the published budget too, with the card that it ran on; without one its estimate."""
    quality = load("quality")
    lines = quality.TABLES["quality"](_document(_rows()))
    assert lines[2].startswith("| field | 31 × 64 × 64, 4 | args-diff fast | 40.12 | 1.25 | 0.50 |")
    assert lines[2].endswith("| 2.0 s | 500 MB |")
    assert "| args-diff paper (a card) | 41.00 |" in lines[4]
    assert lines[4].endswith("| 2000.0 s | 700 MB |")
    assert len(lines) == 5
    short = quality.TABLES["quality"](_document(_rows()[:2]))
    assert len(short) == 5
    assert "args-diff paper" in short[4]
    assert "not run; about " in short[4]
    assert " days expected" in short[4]
    assert quality.TABLES["measured"](_document(_rows())) == [
        "- field: 1 thread of a CPU, a card; Linux, torch 2; seed 3."
    ]


def test_the_plot_of_time_has_a_mark_a_row(load: Callable[[str], ModuleType]) -> None:
    rows = [*_rows(), {**_rows()[0], "scene": "town"}]
    drawn = load("quality").quality_figure(_document(rows))
    (axes,) = drawn.axes
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert sorted((*line.get_xdata(), *line.get_ydata()) for line in marks) == sorted(
        (row["seconds"], row["psnr"]) for row in rows
    )
    assert len({line.get_color() for line in marks}) == 3
    assert len({line.get_marker() for line in marks}) == 2


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (50, "1 minutes"),
        (3000, "50 minutes"),
        (7000, "2 hours"),
        (86_400 * 1.4, "30 hours"),
        (86_400 * 34, "30 days"),
        (86_400 * 360, "400 days"),
    ],
)
def test_long_times(load: Callable[[str], ModuleType], seconds: float, said: str) -> None:
    assert load("quality")._long(seconds) == said


@pytest.fixture(scope="module")
def small_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated pair of 44 × 52 pixels and 8 bands at a ratio of 2."""
    from napari_hsfusion import api
    from napari_hsfusion.scene import demo_scene

    truth = demo_scene(52, 8).isel(y=slice(44))
    centres = np.asarray(truth["wavelength"])
    response = np.kron(np.eye(4), [[0.5, 0.5]])
    pair = api.simulate(truth, 2, "bicubic", response, 35.0, 0)
    path = tmp_path_factory.mktemp("pairs") / "demo.npz"
    np.savez(
        path,
        Z=truth.values,
        X=pair.lr_hsi.values,
        Y=pair.hr_msi.values,
        R=response,
        scale=2,
        psf="bicubic",
        wavelengths=centres,
    )
    return path


def test_measuring(load: Callable[[str], ModuleType], small_pair: Path) -> None:
    """Few steps on a small pair: every sampler, moment and figure; then the plot and tables."""
    curve, quality = load("training_curve"), load("quality")
    pair = curve.Pair(small_pair, 32)
    assert pair.truth.shape == (8, 32, 32)
    assert pair.low.shape == (8, 16, 16)
    with np.load(small_pair) as data:
        assert np.array_equal(pair.truth, data["Z"][:, 6:38, 10:42])
        assert np.array_equal(pair.low.values, data["X"][:, 3:19, 5:21])
    changes = {
        **{"d": 3, "spatial_patch": 8, "spatial_batch": 2, "denoise": False, "classes": 1},
        **{"partitions": 1, "regressions": 0, "levels": 2, "iterations": 3},
    }
    rows = list(curve.measure(pair, None, [], changes=changes))
    rows += curve.measure(pair, 8, [2, 6], levels=1, T=2, changes=changes)
    assert [(r["sampler"], r.get("weight"), r.get("steps")) for r in rows] == [
        ("closed form", None, None),
        ("proximal", "chosen", 2),
        ("proximal", "chosen", 6),
        ("proximal", "fixed", 2),
        ("proximal", "fixed", 6),
        ("published", None, 2),
        ("published", None, 6),
    ]
    assert [r.get("spectral_steps") for r in rows[5:]] == [27, 80]
    fixed = rows[3:5]
    assert [r["prior_weight"] for r in fixed] == [0.1, 0.1]
    assert fixed[0]["psnr"] != fixed[1]["psnr"]
    assert fixed[0]["held_out"] != fixed[1]["held_out"]
    assert all(abs(r["psnr"] - rows[0]["psnr"]) < 3 for r in rows[:5])
    assert all(r["training_seconds"] > 0 for r in rows[1:])
    document = {"seed": 0, "machine": {"threads": 1, "platform": "Linux"}, "rows": rows}
    drawn = quality.training_figure(document)
    assert len(drawn.axes) == 3
    line = drawn.axes[1].lines[0]
    assert list(line.get_ydata()) == [r["psnr"] for r in fixed]
    lines = quality.TABLES["curve"]({"training": document})
    assert f"{fixed[1]['psnr']:.3f}" in lines[3]
    assert len(quality.TABLES["held-out"]({"training": document})) == 4


def test_the_networks_of_the_benchmark_are_those_of_a_run(
    load: Callable[[str], ModuleType], small_pair: Path
) -> None:
    """To the bit, after as many steps of a run that holds something out."""
    import dataclasses

    import torch

    from napari_hsfusion.engine.events import CancelToken
    from napari_hsfusion.engine.selflearning import obtain_networks

    curve = load("training_curve")
    pair = curve.Pair(small_pair, 32)
    params = dataclasses.replace(
        curve.proximal(8, 1),
        **{"d": 3, "spatial_patch": 8, "spatial_batch": 2, "spatial_steps": 3, "patience": 100},
        **{"denoise": False, "classes": 1, "partitions": 1, "regressions": 0},
    )
    lesson = curve._lesson(pair, params, 0)
    found = curve.learn(lesson, "spatial", [3], 0)
    run = obtain_networks(
        lesson.problem,
        dataclasses.replace(lesson.params, patience=100, weight=0.1),
        spectral=False,
        highest=lesson.highest,
        folder=None,
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float32,
        cancel=CancelToken(),
    )
    try:
        while True:
            next(run)
    except StopIteration as stop:
        network = stop.value[0]
    weights = found[3][2]
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_command(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its options arrive, rows are written as they come, and a plot is put beside."""
    from typer.testing import CliRunner

    main, curve = load("__main__"), load("training_curve")
    asked: list[Any] = []

    class Pair:
        def __init__(self, path: Path, side: int) -> None:
            self.name = path.stem
            asked.append((path.name, side))

    def measure(pair: Pair, width: int | None, moments: list[int], T: int, seed: int) -> Any:
        asked.append((pair.name, width, moments, T, seed))
        common = {"scene": pair.name, "shape": [4, 8, 8], "scale": 2, "psnr": 30.0}
        if width is None:
            yield {**common, "sampler": "closed form"}
            return
        row = {"sampler": "proximal", "weight": "fixed", "steps": 5, "width": width}
        yield {**common, **row, "training_seconds": 1.0, "held_out": 0.5}

    monkeypatch.setattr(curve, "Pair", Pair)
    monkeypatch.setattr(curve, "measure", measure)
    out = tmp_path / "curve.json"
    options = ["--scenes", "a,b", "--widths", "8", "--steps", "5", "--sampling", "7"]
    result = CliRunner().invoke(
        main.app, ["training", str(tmp_path), "-o", str(out), "--side", "40", *options]
    )
    assert result.exit_code == 0, result.output
    assert asked == [
        *(("a.npz", 40), ("b.npz", 40)),
        *(("a", None, [5], 7, 0), ("b", None, [5], 7, 0)),
        *(("a", 8, [5], 7, 0), ("b", 8, [5], 7, 0)),
    ]
    document = json.loads(out.read_text("utf-8"))
    assert [row["scene"] for row in document["rows"]] == ["a", "b", "a", "b"]
    assert document["benchmark"] == "training"
    assert out.with_suffix(".png").stat().st_size > 1000
