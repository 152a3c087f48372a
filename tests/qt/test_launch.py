"""``hsfusion napari``: files open, widgets docked, torch before Qt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow

import napari_hsfusion as hs
from napari_hsfusion._qt import launch
from napari_hsfusion.cli import _napari
from napari_hsfusion.errors import ParameterError
from napari_hsfusion.scene import demo_scene

Open = Callable[..., Any]


@pytest.fixture
def open_viewer(make_napari_viewer: Any, monkeypatch: pytest.MonkeyPatch) -> Open:
    """`launch.open_viewer` whose viewer belongs to napari's fixture, which checks for leaks."""
    monkeypatch.setattr(napari, "Viewer", make_napari_viewer)

    def opened(*arguments: Any, **named: Any) -> Any:
        return launch.open_viewer(*arguments, **{"show": False, **named})

    return opened


@pytest.fixture
def pair_files(tmp_path: Path) -> tuple[Path, Path]:
    pair = hs.simulate(demo_scene(32, 20), 4, "box", "gaussian:480/70,560/60,660/60")
    low = hs.save_cube(pair.lr_hsi, tmp_path / "it's low.img")
    return low, hs.save_cube(pair.hr_msi, tmp_path / "high.tif")


def docks(viewer: Any) -> dict[str, QDockWidget]:
    """Docks of the plugin by the title of their widget."""
    main = viewer.window._qt_window
    assert isinstance(main, QMainWindow)
    found = main.findChildren(QDockWidget)
    return {d.name.split(" (")[0]: d for d in found if "napari-hsfusion" in getattr(d, "name", "")}


def test_files_become_layers_of_our_reader(
    open_viewer: Open, pair_files: tuple[Path, Path]
) -> None:
    viewer = open_viewer([str(pair_files[0]), pair_files[1]], [])
    names = [layer.name for layer in viewer.layers]
    assert names == ["demo_lr_hsi (composite)", "demo_lr_hsi", "demo_hr_msi"]
    low = hs.layer_cube(viewer.layers["demo_lr_hsi"])
    assert low.encoding["source"].endswith(("it's low.img", "it's low.hdr"))
    np.testing.assert_array_equal(low.values, hs.open_cube(pair_files[0]).values)
    assert docks(viewer) == {}


def test_a_file_of_a_strange_extension_opens(open_viewer: Open, tmp_path: Path) -> None:
    cube = demo_scene(32, 20)
    odd = hs.save_cube(cube, tmp_path / "scene.tif").rename(tmp_path / "scene.20260101")
    viewer = open_viewer([odd], [])
    np.testing.assert_array_equal(hs.layer_cube(viewer.layers["demo"]).values, cube.values)


def test_a_script_shows_its_cube(open_viewer: Open) -> None:
    """`add_cube` gives the layers that opening a file would."""
    viewer = open_viewer([], [])
    cube = demo_scene(32, 20)
    layers = hs.add_cube(viewer, cube, name="made")
    assert [layer.name for layer in viewer.layers] == ["made (composite)", "made"]
    assert layers == list(viewer.layers)
    assert hs.layer_cube(layers[-1]) is cube


@pytest.mark.parametrize("name", launch.WIDGETS)
def test_every_widget_docks_where_it_fits(open_viewer: Open, name: str) -> None:
    viewer = open_viewer([], [name, name])
    found = docks(viewer)
    assert list(found) == [launch.WIDGETS[name]]
    area = viewer.window._qt_window.dockWidgetArea(found[launch.WIDGETS[name]])
    below = Qt.DockWidgetArea.BottomDockWidgetArea
    assert area == (below if name == "spectrum" else Qt.DockWidgetArea.RightDockWidgetArea)


def test_the_first_widget_lies_on_top(open_viewer: Open, qtbot: Any) -> None:
    viewer = open_viewer([], ["fuse", "simulate", "spectrum"], show=True)
    viewer.window._qt_window.resize(1280, 800)
    found = docks(viewer)
    assert set(found) == {"Fuse", "Simulate", "Spectrum"}
    main = viewer.window._qt_window

    def fuse_is_seen() -> None:
        assert main.tabifiedDockWidgets(found["Fuse"]) == [found["Simulate"]]
        assert not found["Fuse"].visibleRegion().isEmpty()
        assert found["Simulate"].visibleRegion().isEmpty()
        assert not found["Spectrum"].visibleRegion().isEmpty()

    qtbot.waitUntil(fuse_is_seen, timeout=5000)


def test_an_unknown_widget_opens_no_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(napari, "Viewer", lambda **_: opened.append(1))
    with pytest.raises(ParameterError, match="expected simulate, fuse, compare, train, spectrum"):
        launch.open_viewer([], ["evaluate"])
    assert opened == []


def test_the_command_line_knows_the_same_widgets() -> None:
    """It cannot import this room, so it has its own list."""
    assert tuple(launch.WIDGETS) == _napari.WIDGETS
    assert _napari.DEFAULT == launch.DEFAULT


ORDER = """
import sys
from napari_hsfusion.cli import _napari
assert not {"torch", "qtpy", "napari"} & set(sys.modules)
module = _napari._launcher()
loaded = list(sys.modules)
assert module.run.__module__ == "napari_hsfusion._qt.launch"
first = min(i for i, name in enumerate(loaded) if name.startswith(("PyQt6", "PySide6")))
assert loaded.index("torch") < first, "Qt was loaded before torch"
print("in order")
"""


def test_torch_is_loaded_before_qt() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORDER],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.stdout.strip() == "in order", done.stderr
