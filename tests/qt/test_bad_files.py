"""Files that cannot be opened, or saved: one message in plain words, nothing changed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.io
import tifffile

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QDialog, QFileDialog

from napari_hsfusion import api, io
from napari_hsfusion.errors import WriteError
from napari_hsfusion.scene import demo_scene

if TYPE_CHECKING:
    from conftest import PLUGIN, Session
else:
    PLUGIN = "napari-hsfusion"

# one window a test: some minutes in all
pytestmark = pytest.mark.slow


FOUR = "gaussian:480/70,560/60,660/60,835/120"
BANDS = 20


@pytest.fixture(scope="module")
def pair() -> api.SimulatedPair:
    return api.simulate(demo_scene(32, BANDS), 4, "box", FOUR, 35.0, 0)


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    """A window that is not drawn: what is wrong here is wrong before anything is seen."""
    return make_session(show=False)


# -- files


def broken(folder: Path, kind: str) -> tuple[Path, str]:
    """A file that cannot be opened, and words that must be said of it."""
    cube = demo_scene(32, BANDS)
    if kind == "truncated ENVI":
        io.save_cube(cube, folder / "a.hdr")
        with (folder / "a.img").open("r+b") as file:
            file.truncate(1000)
        return folder / "a.hdr", "found 1000 bytes"
    if kind == "truncated MAT":
        io.save_cube(cube, folder / "a.mat")
        with (folder / "a.mat").open("r+b") as file:
            file.truncate(3000)
        return folder / "a.mat", "a.mat"
    if kind.startswith("empty"):
        path = folder / f"a{kind.split()[1]}"
        path.write_bytes(b"")
        return path, "empty"
    if kind == "text as TIFF":
        (folder / "a.tif").write_text("no picture")
        return folder / "a.tif", "not a TIFF"
    if kind == "PNG as MAT":
        (folder / "a.mat").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        return folder / "a.mat", "a PNG picture"
    if kind == "ENVI data as MAT":
        (folder / "a.mat").write_bytes(np.arange(5000, dtype=">f8").tobytes())
        return folder / "a.mat", "a.mat"
    if kind == "complex MAT":
        scipy.io.savemat(folder / "a.mat", {"cube": np.ones((8, 8, BANDS)) * 1j})
        return folder / "a.mat", "complex"
    if kind == "complex TIFF":
        tifffile.imwrite(
            folder / "a.tif", np.ones((3, 8, 8), np.complex64), photometric="minisblack"
        )
        return folder / "a.tif", "complex"
    if kind == "complex ENVI":
        io.save_cube(cube, folder / "a.hdr")
        text = (folder / "a.hdr").read_text().replace("data type = 4", "data type = 6")
        (folder / "a.hdr").write_text(text)
        return folder / "a.hdr", "complex"
    raise AssertionError(kind)


BROKEN = (
    "truncated ENVI",
    "truncated MAT",
    "empty .mat",
    "empty .bsq",
    "empty .tif",
    "text as TIFF",
    "PNG as MAT",
    "ENVI data as MAT",
    "complex MAT",
    "complex TIFF",
    "complex ENVI",
)


def test_bad_files_dropped(session: Session, tmp_path: Path) -> None:
    """As after the user has told napari's dialog to let this plugin read such files."""
    names = ("*.tif", "*.hdr", "*.mat", "*.bsq")
    get_settings().plugins.extension2reader = dict.fromkeys(names, PLUGIN)
    session.viewer.add_image(np.ones((4, 5, 6)), name="kept")
    for kind in BROKEN:
        folder = tmp_path / kind
        folder.mkdir()
        path, words = broken(folder, kind)
        with session.said_once(words):
            session.drop(path)
    io.save_cube(demo_scene(32, BANDS), tmp_path / "good.bsq")
    session.drop(tmp_path / "good.bsq")
    assert len(session.names) == 3


def test_the_question_for_a_variable_cancelled(session: Session, tmp_path: Path) -> None:
    arrays = {"first": np.zeros((5, 6, 20)), "second": np.ones((5, 6, 30))}
    scipy.io.savemat(tmp_path / "two.mat", arrays)
    before = session.state()

    def refuse() -> None:
        dialog = QApplication.activeModalWidget()
        if isinstance(dialog, QDialog):
            dialog.reject()
        else:
            QTimer.singleShot(20, refuse)

    QTimer.singleShot(20, refuse)
    session.drop(tmp_path / "two.mat")
    assert session.state() == before
    assert session.messages == []


@pytest.mark.parametrize("name", ["a.hdr", "a.tif", "a.mat"])
def test_a_full_disk(
    session: Session,
    pair: api.SimulatedPair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Saving says so, once; the files of that name are as they were."""
    session.add_pair(pair)
    session.save(session.viewer.layers["HR"], tmp_path / name)
    held = {file: file.read_bytes() for file in tmp_path.iterdir()}
    session.viewer.layers.selection = {session.viewer.layers["LR"]}
    chosen = (str(tmp_path / name), "")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: chosen)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_hsfusion.io._atomic._flush", full)
        before = session.state()
        with pytest.raises(WriteError) as failed:
            session.main_window._qt_viewer._save_layers_dialog(selected=True)
        assert session.state() == before
    # napari shows what its menu's actions raise; the text is all that the user reads
    notification_manager.receive_error(failed.type, failed.value, failed.tb)
    (message,) = session.messages
    assert "No space left on device" in message
    assert name in message
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == held
    session.main_window._qt_viewer._save_layers_dialog(selected=True)
    again = api.open_cube(tmp_path / name)
    np.testing.assert_array_equal(again.values, pair.lr_hsi.values)
