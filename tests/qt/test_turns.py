"""News reach a window one by one, each when the last is drawn."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_hsfusion._qt.turns import Turns


def test_news_are_told_in_order_with_the_window_alive_between_them(qtbot: Any) -> None:
    told: list[str] = []
    took: list[float] = []
    turns = Turns(told.append, took.append)
    QTimer.singleShot(0, lambda: told.append("window"))
    turns.take("a", "b")
    turns.take("c")
    assert told == ["a"]
    qtbot.waitUntil(lambda: len(took) == 2, timeout=2000)
    assert told == ["a", "window", "b", "c"]
    assert all(seconds > 0 for seconds in took)
    turns.take("d")
    assert told[4:] == ["d"], "after a rest there is nothing to wait for"
    qtbot.waitUntil(lambda: len(took) == 3, timeout=2000)


def test_what_the_window_lets_in_while_it_is_told_waits(qtbot: Any) -> None:
    told: list[str] = []

    def tell(news: str) -> None:
        told.append(f"{news} begins")
        if news == "a":
            turns.take("b")
            QApplication.processEvents()
        told.append(f"{news} ends")

    turns = Turns(tell, lambda _: None)
    turns.take("a")
    assert told == ["a begins", "a ends"]
    qtbot.waitUntil(lambda: len(told) == 4, timeout=2000)
    assert told[2:] == ["b begins", "b ends"]


def test_at_the_end_what_waits_is_told_at_once_or_never(qtbot: Any) -> None:
    told: list[str] = []
    turns = Turns(told.append, lambda _: None)
    turns.take("a", "b", "c")
    turns.catch_up()
    assert told == ["a", "b", "c"]
    turns.take("d", "never")
    turns.forget()
    qtbot.wait(50)
    assert told[3:] == []
    turns.take("e")
    assert told[3:] == ["e"]


def test_an_error_in_one_does_not_stop_the_others(qtbot: Any) -> None:
    told: list[str] = []

    def tell(news: str) -> None:
        if news == "bad":
            raise ValueError(news)
        told.append(news)

    turns = Turns(tell, lambda _: None)
    with pytest.raises(ValueError, match="bad"):
        turns.take("bad", "good")
    qtbot.waitUntil(lambda: told == ["good"], timeout=2000)
