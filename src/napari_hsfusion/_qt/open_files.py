"""Open files in a running napari: ask which variable, say what went wrong in plain words.

Without a window everything is as in :mod:`napari_hsfusion._reader`: errors are raised.
Qt and napari are imported when a window is there, so that this module loads anywhere.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _layers, _reader, io
from ..errors import CubeError, FormatError, HSFusionError

if TYPE_CHECKING:
    import xarray as xr
    from qtpy.QtWidgets import QDialog, QListWidget

PLUGIN = "napari-hsfusion"
NOTHING: list[Any] = [(None,)]
"""What napari takes as "read, and there is no layer to add"."""

_DESCRIBED = re.compile(
    r"(?P<name>.+) \((?P<shape>\d+(?: x \d+){1,2}) "
    r"(?P<kind>u?int\d+|single|double|logical|float\d+)\)"
)


def get_reader(path: str | Sequence[str]) -> _reader.Reader | None:
    """Give the function that reads a file, or None if it is not for us.

    At most a kilobyte of each file is read. A file that is none of ours is declined,
    unless no other plugin can read it either: then the function says what is wrong
    with it.

    Parameters
    ----------
    path : str or sequence of str

    Returns
    -------
    callable or None
        From the same `path` to layer data tuples.
    """
    paths = _reader.as_paths(path)
    if not has_window():
        return _reader.get_reader(path)
    if _reader.get_reader(path) is None and not (len(paths) == 1 and _nobody_else(paths[0])):
        return None
    return open_in_window


def open_in_window(path: str | Sequence[str]) -> list[Any]:
    """Layers of a file, or of several, for the current viewer.

    Whatever goes wrong becomes one notification, and nothing is opened.

    Parameters
    ----------
    path : str or sequence of str

    Returns
    -------
    list of (data, keywords, type)
        ``[(None,)]`` if there is nothing to add.
    """
    from napari.utils.notifications import show_error, show_info

    layers: list[Any] = []
    shown, origins = list(_shown_cubes()), dict(_shown_origins())
    try:
        for one in _reader.as_paths(path):
            found = _reader.read(one, choose_variable, origins)
            if not found:
                continue
            cube = _layers.cube_of(*found[-1][:2])
            if _other_half(cube, shown):
                show_info(f"{Path(one).name} belongs to an image that is open already.")
                continue
            shown.append(cube)
            entry = found[-1][1]["metadata"][_layers.KEY]
            if entry["crs"] is not None:
                origins[entry["crs"]] = entry["origin"]
            layers += found
    except HSFusionError as error:
        show_error(f"Cannot open {Path(one).name}: {error}")
        return NOTHING
    except (OSError, MemoryError) as error:
        show_error(f"Cannot open {one}: {error or type(error).__name__}")
        return NOTHING
    if not layers:
        return NOTHING
    name_bands_soon()
    return layers


def choose_variable(path: Path, variables: tuple[str, ...]) -> str | None:
    """Ask which of a MATLAB file's arrays is the cube.

    Parameters
    ----------
    path : Path
    variables : tuple of str
        Descriptions of everything the file holds, as ``name (300 x 200 x 100 uint16)``.

    Returns
    -------
    str or None
        Name of the chosen one; None if the question was cancelled.

    Raises
    ------
    FormatError
        If nothing in the file can be an image.
    """
    offered = openable(variables)
    if not offered:
        held = ", ".join(variables) or "nothing"
        raise FormatError(
            f"{path}: expected an array of numbers with 2 or 3 dimensions; the file holds {held}"
        )
    row = ask(path.name, list(offered.values()))
    return None if row is None else list(offered)[row]


def openable(variables: Iterable[str]) -> dict[str, str]:
    """Names and descriptions of the arrays that open as an image, cubes before bands."""
    found = [match for match in map(_DESCRIBED.fullmatch, variables) if match]
    found.sort(key=lambda match: -match["shape"].count("x"))
    return {
        match["name"]: f"{match['name']}   {match['shape'].replace(' x ', ' × ')}   {match['kind']}"
        for match in found
    }


def ask(title: str, rows: list[str]) -> int | None:
    """Let the user take one row of a list in a modal dialog; None if cancelled."""
    from qtpy.QtWidgets import QDialog

    dialog, choice = variable_dialog(title, rows)
    try:
        taken = dialog.exec() == QDialog.DialogCode.Accepted
        return int(choice.currentRow()) if taken else None
    finally:
        dialog.deleteLater()


def variable_dialog(title: str, rows: list[str]) -> tuple[QDialog, QListWidget]:
    """Build the dialog of :func:`ask`, with Open and Cancel, and the list in it."""
    from napari.qt import get_current_stylesheet
    from qtpy import QtWidgets

    # no window is active while a file is dropped from another program: then it has no parent
    dialog = QtWidgets.QDialog(QtWidgets.QApplication.activeWindow())
    dialog.setStyleSheet(get_current_stylesheet())
    dialog.setWindowTitle(f"Open {title}")
    choice = QtWidgets.QListWidget(dialog)
    choice.addItems(rows)
    choice.setCurrentRow(0)
    choice.setToolTip("Rows × columns × bands and type of each array in the file.")
    choice.itemDoubleClicked.connect(dialog.accept)
    choice.setMinimumWidth(min(600, choice.sizeHintForColumn(0) + 40))
    button = QtWidgets.QDialogButtonBox.StandardButton
    buttons = QtWidgets.QDialogButtonBox(button.Open | button.Cancel, dialog)
    buttons.accepted.connect(dialog.accept)
    buttons.rejected.connect(dialog.reject)
    layout = QtWidgets.QVBoxLayout(dialog)
    question = "The file holds several arrays. Which one is the image?"
    layout.addWidget(QtWidgets.QLabel(question, dialog))
    layout.addWidget(choice)
    layout.addWidget(buttons)
    return dialog, choice


def has_window() -> bool:
    """Whether a Qt application runs, and this is its thread."""
    try:
        from qtpy.QtCore import QThread
        from qtpy.QtWidgets import QApplication
    except ImportError:
        return False
    application = QApplication.instance()
    return (
        isinstance(application, QApplication)
        and QThread.currentThread() is not None
        and (application.thread() == QThread.currentThread())
    )


def _nobody_else(path: str) -> bool:
    """Whether no other plugin can read a file, by its name, that is none of ours."""
    from npe2 import PluginManager

    if Path(path).suffix.lower() in io.SUFFIXES["tiff"]:
        return True  # other readers of these names read TIFF, which it is not
    readers = PluginManager.instance().iter_compatible_readers([path])
    return {reader.plugin_name for reader in readers} <= {PLUGIN}


def _viewer() -> Any:
    import napari

    return napari.current_viewer()


def _shown_images() -> Iterator[Any]:
    """Image layers of this plugin that are open."""
    viewer = _viewer()
    for layer in () if viewer is None else viewer.layers:
        if _layers.is_image(layer) and _layers.kind_of(layer) is not None:
            yield layer


def _shown_cubes() -> Iterator[xr.DataArray]:
    """Cubes that are open; other data may stand in their layers by now."""
    for layer in _shown_images():
        with contextlib.suppress(CubeError):
            yield _layers.layer_cube(layer)


def _shown_origins() -> Iterator[tuple[str, tuple[float, float]]]:
    """Coordinate reference systems of the layers that are open, and the canvas's zero there."""
    for layer in _shown_images():
        zero = _layers.origin_of(layer)
        if zero is not None:
            yield layer.metadata[_layers.KEY]["crs"], zero


def _other_half(cube: xr.DataArray, shown: Iterable[xr.DataArray]) -> bool:
    """Whether the same pixels are shown, opened by the other of an ENVI image's two files.

    Both are dropped together by those who do not know that one of them is enough.
    """
    source = cube.encoding["source"]
    if io.sniff(source) != "envi":
        return False
    for other in shown:
        name = other.encoding.get("source", source)
        same = getattr(other.data, "name", None) == getattr(cube.data, "name", "")
        if same and Path(name) != Path(source):
            return True
    return False


def name_bands_soon() -> None:
    """Show the wavelength of the band on show, once the layers are there."""
    from qtpy.QtCore import QTimer

    def attach() -> None:
        from .overlay import attach as show_bands

        viewer = _viewer()
        if viewer is not None:
            show_bands(viewer)

    QTimer.singleShot(0, attach)
