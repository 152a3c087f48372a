"""Open a viewer with cubes and the plugin's widgets, as ``hsfusion napari`` does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# isort: off
import torch  # noqa: F401  before Qt: on Windows its libraries may not load after Qt's have

# isort: on
import napari
from napari.layers import Layer
from npe2 import PluginManager
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow

from .. import io
from ..errors import ParameterError
from .open_files import PLUGIN, open_in_window

WIDGETS = {
    "simulate": "Simulate",
    "fuse": "Fuse",
    "compare": "Compare",
    "train": "Train",
    "spectrum": "Spectrum",
}
"""Widgets by the names of the command line, with their titles in the manifest."""

DEFAULT = ("fuse", "spectrum")
_BELOW = "spectrum"  # wide and low: the others are tall forms
_HEIGHT = 240


def open_viewer(
    files: Iterable[str | Path] = (),
    widgets: Iterable[str] = DEFAULT,
    show: bool = True,
) -> napari.Viewer:
    """Open a viewer with cubes and widgets of the plugin.

    Parameters
    ----------
    files : iterable of path
        Opened by the plugin's reader, in order; what cannot be opened becomes a
        notification.
    widgets : iterable of str
        Keys of :data:`WIDGETS`: docked on the right in tabs, the spectrum below.
    show : bool
        Whether the window appears.

    Returns
    -------
    napari.Viewer

    Raises
    ------
    ParameterError
        If there is no such widget; no viewer is opened.
    """
    names = list(dict.fromkeys(widgets))
    for name in names:
        if name not in WIDGETS:
            raise ParameterError(f"widget: expected {', '.join(WIDGETS)}, got {name!r}")
    viewer = napari.Viewer(show=show)
    for file in files:
        _open(viewer, Path(file).expanduser())
    tabs = [_dock(viewer, name) for name in names]
    if tabs:
        _settle_soon(viewer, tabs[0])
    return viewer


def run(files: Iterable[str | Path], widgets: Iterable[str]) -> None:
    """Open a viewer and stay until its window is closed."""
    open_viewer(files, widgets)
    napari.run()


def _open(viewer: napari.Viewer, path: Path) -> None:
    """Open one file, whatever its extension: what it holds counts."""
    if io.sniff(path) == "envi":
        path = io.files_read(path)[0]
    readers = PluginManager.instance().iter_compatible_readers([str(path)])
    if any(reader.plugin_name == PLUGIN for reader in readers):
        viewer.open(str(path), plugin=PLUGIN)
        return
    for data in open_in_window(str(path)):
        if len(data) > 1:  # napari's mark for "read, and nothing to add" is (None,)
            viewer.add_layer(Layer.create(*data))


def _settle_soon(viewer: napari.Viewer, first: QDockWidget) -> None:
    """Once the window is laid out, bring the first tab to the front and fit the view."""

    def settle() -> None:
        first.raise_()
        viewer.reset_view()

    timer = QTimer(first)  # which it does not outlive
    timer.setSingleShot(True)
    timer.timeout.connect(settle)
    timer.start(0)


def _dock(viewer: napari.Viewer, name: str) -> QDockWidget:
    tabs = name != _BELOW
    dock: QDockWidget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGETS[name], tabs)[0]
    if name == _BELOW:
        main = dock.parent()
        if isinstance(main, QMainWindow):
            # under the canvas alone: the layer list and the forms keep the window's height
            main.setCorner(Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea)
            main.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)
            main.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, dock)
            main.resizeDocks([dock], [_HEIGHT], Qt.Orientation.Vertical)
    return dock
