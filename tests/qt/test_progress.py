"""A run in napari's activity dock."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari.utils import progress

from napari_hsfusion._qt.fusing import Advance
from napari_hsfusion._qt.progress import RunProgress, words


@pytest.fixture
def bar() -> Generator[Any, None, None]:
    before = set(progress._all_instances)
    made = RunProgress("Fusing")
    (shown,) = set(progress._all_instances) - before
    yield made, shown
    made.close()
    assert set(progress._all_instances) == before, "a bar was left behind"


def test_stages_add_up(bar: Any) -> None:
    run, shown = bar
    run.begin({"estimate": 4, "sample": 6}, {})
    assert shown.total == 10
    run.advance(Advance("estimate", 4, 4))
    assert shown.n == 4
    run.advance(Advance("sample", 3, 6))
    assert shown.n == 7
    assert shown.desc.startswith("Fusing: sample 3/6")


def test_a_stage_that_ends_sooner_is_done(bar: Any) -> None:
    """Networks that were known, or a training whose held-out loss stayed flat."""
    run, shown = bar
    run.begin({"train": 100, "sample": 6}, {"seconds": 9.0})
    run.advance(Advance("train", 40, 100))
    run.advance(Advance("train", 40, 40))
    assert (shown.n, shown.total) == (40, 46)
    run.advance(Advance("sample", 1, 6))
    assert (shown.n, shown.total) == (41, 46)
    run.advance(Advance("sample", 6, 6))
    assert (shown.n, shown.total) == (46, 46)


def test_a_step_that_ends_after_the_pause_does_not_hide_it(bar: Any) -> None:
    run, shown = bar
    run.begin({"sample": 6}, {})
    run.advance(Advance("sample", 1, 6))
    run.halt()
    run.advance(Advance("sample", 2, 6))
    assert shown.desc.startswith("Fusing: paused")
    assert shown.n == 2
    run.go_on()
    assert shown.desc.startswith("Fusing: sample 2/6")


def test_time_left_is_what_was_expected_until_a_rate_is_known(bar: Any) -> None:
    run, _ = bar
    run.begin(
        {"train": 10, "sample": 10},
        {"seconds": 120.0, "training_seconds": 100.0, "sampling_seconds": 20.0},
    )
    run.advance(Advance("train", 5, 10))
    assert run.text == "train 5/10, 70 s left"


def test_the_wheel_of_the_window_turns_with_the_run_and_not_by_itself(
    make_napari_viewer_proxy: Any, qtbot: Any
) -> None:
    """By itself it would have the whole window drawn thirty times a second."""
    from qtpy.QtGui import QMovie
    from qtpy.QtWidgets import QApplication, QLabel, QMainWindow, QStatusBar

    make_napari_viewer_proxy(show=True)
    windows = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow)]
    labels = [
        label
        for window in windows
        for bar in window.findChildren(QStatusBar)
        for label in bar.findChildren(QLabel)
        if label.movie() is not None
    ]
    assert labels, "napari shows its progress in another way now"
    wheel = labels[-1].movie()
    run = RunProgress("Fusing")
    assert labels[-1].isVisible()
    qtbot.wait(200)
    frames = [wheel.currentFrameNumber()]
    qtbot.wait(200)
    frames.append(wheel.currentFrameNumber())
    run.begin({"sample": 6}, {})
    for index in (1, 2, 3):
        run.advance(Advance("sample", index, 6))
        frames.append(wheel.currentFrameNumber())
    assert np.diff(frames).tolist() == [0, 1, 1, 1]
    another = progress(total=3)
    assert wheel.state() == QMovie.MovieState.Running, "napari sets it going for any bar"
    run.advance(Advance("sample", 4, 6))
    assert wheel.state() == QMovie.MovieState.Paused
    run.close()
    assert wheel.state() == QMovie.MovieState.Running, "the bar of somebody else stands still"
    another.close()
    qtbot.waitUntil(lambda: not labels[-1].isVisible(), timeout=5000)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h"), (200_000, "2 days")],
)
def test_durations(seconds: float, said: str) -> None:
    assert words(seconds) == said
