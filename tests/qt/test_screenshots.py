"""The pictures of the guide: made by the script as it stands, of the size they say, and full."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

import napari
from PIL import Image
from qtpy.QtCore import QPoint, QRect
from qtpy.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QComboBox,
    QDockWidget,
    QLabel,
    QStyle,
    QStyleOptionComboBox,
    QWidget,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLUGIN = "napari-hsfusion"
DOCKED = {
    "cube": {"Spectrum"},
    "simulate": {"Spectrum", "Simulate"},
    "fusing": {"Fuse"},
    "compare": {"Compare"},
    "train": {"Train"},
}


@pytest.fixture
def script() -> Generator[ModuleType, None, None]:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("make_screenshots", DOCS / "make_screenshots.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def colours(picture: np.ndarray) -> int:
    """Number of colours in a part of a picture."""
    return len(np.unique(picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)))


def part(picture: np.ndarray, widget: QWidget, window: QWidget) -> np.ndarray:
    """What a picture of a window shows of a widget; the whole widget is in the window."""
    place = QRect(widget.mapTo(window, QPoint(0, 0)), widget.size())
    assert window.rect().contains(place), f"{widget.windowTitle()} is cut off by the window"
    left, top = place.x(), place.y()
    return picture[top : top + place.height(), left : left + place.width()]


def cut_off(dock: QWidget) -> list[str]:
    """Texts of a dock that are wider than their widget, or that a scroll area cuts."""
    found = []
    for kind in (QLabel, QAbstractButton, QComboBox):
        for widget in dock.findChildren(kind):
            seen = widget.visibleRegion().boundingRect()
            text = widget.currentText() if isinstance(widget, QComboBox) else widget.text()
            if seen.isEmpty() or not text or widget.objectName().startswith("QtCustomTitle"):
                continue
            if seen.size() != widget.size():
                found.append(f"{text} (cut by a scroll area)")
            room, needed = widget.width(), widget.fontMetrics().horizontalAdvance(text)
            if isinstance(widget, QCheckBox):
                needed = widget.sizeHint().width()
            elif isinstance(widget, QComboBox):
                option = QStyleOptionComboBox()
                widget.initStyleOption(option)
                field = QStyle.SubControl.SC_ComboBoxEditField
                complex_ = QStyle.ComplexControl.CC_ComboBox
                room = widget.style().subControlRect(complex_, option, field, widget).width()
            elif isinstance(widget, QLabel) and widget.wordWrap():
                room, needed = widget.height(), widget.heightForWidth(widget.width())
            if needed > room:
                found.append(f"{text} ({needed} pixels in {room})")
    return found


THEMES = {"dark": False, "light": True}


def check(window: Any, picture: np.ndarray, name: str, bright: bool) -> None:
    """A picture of the window shows the docks it is about, whole, and an image beside them."""
    docks = {
        dock.name.split(" (")[0]: dock
        for dock in window.findChildren(QDockWidget)
        if f"({PLUGIN})" in getattr(dock, "name", "") and dock.isVisible()
    }
    assert set(docks) == DOCKED[name]
    for dock in docks.values():
        assert colours(part(picture, dock, window)) > 20
        # a form of that length is scrolled
        scrolled = name == "train"
        assert [t for t in cut_off(dock) if not (scrolled and "scroll area" in t)] == []
    canvas = part(picture, window.centralWidget(), window)
    assert colours(canvas) > 60, "there is no image"
    background = (np.abs(canvas.astype(int) - canvas[5, 5]).sum(axis=2) == 0).mean()
    assert background < 0.8
    assert (picture[400, 5].mean() > 128) == bright


@pytest.mark.slow
def test_pictures_are_whole(
    script: ModuleType,
    tmp_path: Path,
    make_napari_viewer: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In both themes, in turn in one window."""
    assert set(THEMES) == set(script.THEMES)
    monkeypatch.setattr(napari, "Viewer", make_napari_viewer)
    # levels enough that the form, which speaks a few times a second, tells of their middle
    short = {"levels": 200, "weight": 0.3, "spatial_steps": 4, "spatial_base": 8, "iterations": 4}
    changes = tuple(short.items())
    session = script.Session("dark", tmp_path, script.Budget(64, 20, "balanced", changes, 2))
    viewer = session.viewer
    window = viewer.window._qt_window
    assert script.PLUGIN == PLUGIN
    for name in script.NAMES:
        getattr(session, name)()
        for theme, bright in THEMES.items():
            if theme != viewer.theme:
                viewer.theme = theme
                script.pause(0.1)
            path = session.shoot(tmp_path / f"{name}-{theme}.png")
            with Image.open(path) as image:
                picture = np.asarray(image.convert("RGB"))
            assert picture.shape == (800, 1280, 3)
            assert path.stat().st_size < script.LARGEST
            check(window, picture, name, bright)
            if name == "fusing" and theme == "dark":
                form = session.widget("Fuse")
                assert form.running, "the picture was taken too late"
                assert script.half_way(form.summary.text())
                assert form.view.isVisible()
                assert len(form.view.losses) >= 2
                assert session.activity.isChecked()
            elif name == "compare":
                measured = {row.name for row in session.widget("Compare").measures.rows}
                assert measured == {"args-diff", "subspace", "bicubic"}
        viewer.theme = "dark"
    form = session.widget("Train")
    assert form.running, "the picture was taken too late"
    assert form.view.getAxis("right").isVisible()
    assert len(form.view.metrics) >= 2
    form.cancel()
    script.until(lambda: not form.running)


def test_the_guide_shows_pictures_that_are_there() -> None:
    guide = (DOCS / "plugin.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"images/([\w-]+\.png)", guide))
    there = {path.name for path in (DOCS / "images").glob("*.png")}
    assert shown == there
    assert {f"{name}-dark.png" for name in DOCKED} <= there
    for name in there:
        path = DOCS / "images" / name
        with Image.open(path) as picture:
            assert picture.size == (1280, 800)
        assert path.stat().st_size < 400_000
