"""Files open and layers are saved through a real napari."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari.utils.notifications import notification_manager
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QDialog, QListWidget

from napari_hsfusion import _layers, io
from napari_hsfusion._qt import open_files
from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import TruncatedFileError

PLUGIN = "napari-hsfusion"
Said = Callable[[], list[str]]
NAMES = ["a.hdr", "a.img", "a.tif", "a.mat"]


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    """A viewer that found this plugin by its entry point."""
    from npe2 import PluginManager

    shown = make_napari_viewer_proxy()
    assert PLUGIN in PluginManager.instance()
    return shown


@pytest.fixture
def said() -> Callable[[], list[str]]:
    """Function that gives the notifications since the test began, as "severity: text"."""
    start = len(notification_manager.records)
    return lambda: [f"{n.severity}: {n.message}" for n in notification_manager.records[start:]]


@pytest.fixture
def cube(tiny_scene: xr.DataArray) -> xr.DataArray:
    made = make_cube(
        np.concatenate([tiny_scene.values] * 2)[:20].astype(np.float32),
        wavelength=np.linspace(410.5, 990.25, 20),
        good_band=np.arange(20) != 7,
        crs=tiny_scene.attrs["crs"],
        transform=tiny_scene.attrs["transform"],
        history=[{"step": "made"}],
        name="scene",
    )
    made.attrs["record"] = {"method": "args-diff"}
    return made


@pytest.mark.parametrize("name", NAMES)
def test_open_and_save_and_open_again(
    viewer: Any, tmp_path: Path, cube: xr.DataArray, name: str, qtbot: Any
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "again").mkdir()
    io.save_cube(cube, tmp_path / "first" / name)
    below, above = viewer.open(str(tmp_path / "first" / name), plugin=PLUGIN)
    assert (_layers.kind_of(below), _layers.kind_of(above)) == ("composite", "cube")
    again = tmp_path / "again" / name
    written = above.save(str(again), plugin=PLUGIN)
    assert str(again) in written
    assert "crs" in io.open_cube(again).attrs, "written by somebody else"
    _, reopened = viewer.open(str(again), plugin=PLUGIN)
    found = _layers.layer_cube(reopened)
    xr.testing.assert_identical(found.compute(), cube)
    assert found.attrs["record"] == {"method": "args-diff"}
    qtbot.waitUntil(lambda: viewer.canvas.overlays.text.text.startswith("Band"), timeout=3000)


def test_save_selected_and_all(viewer: Any, tmp_path: Path, cube: xr.DataArray) -> None:
    io.save_cube(cube, tmp_path / "a.hdr")
    io.save_cube(cube[:4], tmp_path / "b.hdr")
    viewer.open([str(tmp_path / "a.hdr"), str(tmp_path / "b.hdr")], plugin=PLUGIN)
    assert len(viewer.layers) == 3
    written = viewer.layers.save(str(tmp_path / "all.tif"), plugin=PLUGIN)
    assert [Path(p).name for p in written] == ["all_scene.tif", "all_scene-1.tif"]
    viewer.layers.selection.active = viewer.layers[1]
    written = viewer.layers.save(str(tmp_path / "one.tif"), selected=True, plugin=PLUGIN)
    assert [Path(p).name for p in written] == ["one.tif"]
    xr.testing.assert_identical(io.open_cube(tmp_path / "one.tif").compute(), cube)


def test_the_save_dialog_offers_our_formats(viewer: Any, cube: xr.DataArray) -> None:
    from napari.plugins._npe2 import file_extensions_string_for_layers

    layer = viewer.add_image(np.zeros((4, 5, 6)))
    offered, writers = file_extensions_string_for_layers([layer])
    assert offered is not None
    rows = offered.split(";;")
    ours = [row for row, w in zip(rows, writers, strict=True) if w.plugin_name == PLUGIN]
    assert "Hyperspectral Fusion ENVI (*.hdr *.img *.dat *.bsq *.bil *.bip)" in ours
    assert "Hyperspectral Fusion GeoTIFF (*.tif *.tiff)" in ours
    assert "Hyperspectral Fusion MATLAB (*.mat)" in ours
    points = viewer.add_points(np.zeros((1, 2)))
    _, writers = file_extensions_string_for_layers([points])
    assert not [w for w in writers if w.plugin_name == PLUGIN]


def broken(folder: Path, cube: xr.DataArray, case: str) -> tuple[Path, str]:
    """A file that cannot be opened, and words that its notification must hold."""
    if case == "truncated":
        io.save_cube(cube, folder / "a.hdr")
        with (folder / "a.img").open("r+b") as file:
            file.truncate(1000)
        return folder / "a.hdr", "expected at least 61440 bytes, found 1000 bytes"
    if case == "no data":
        io.save_cube(cube, folder / "a.hdr")
        (folder / "a.img").unlink()
        return folder / "a.hdr", "no data file beside this header"
    if case == "no header":
        (folder / "a.bsq").write_bytes(bytes(1000))
        return folder / "a.bsq", "no ENVI header beside it"
    if case == "empty":
        (folder / "a.mat").write_bytes(b"")
        return folder / "a.mat", "the file is empty"
    if case == "truncated mat":
        io.save_cube(cube, folder / "a.mat")
        with (folder / "a.mat").open("r+b") as file:
            file.truncate(3000)
        return folder / "a.mat", "a.mat: "
    if case == "truncated tif":
        io.save_cube(cube, folder / "a.tif")
        with (folder / "a.tif").open("r+b") as file:
            file.truncate(20000)
        return folder / "a.tif", "truncated data file: expected at least"
    scipy.io.savemat(folder / "a.mat", {"text": "only text", "cell": {"x": "y"}})
    return folder / "a.mat", "expected an array of numbers with 2 or 3 dimensions"


@pytest.mark.parametrize(
    "case",
    ["truncated", "no data", "no header", "empty", "truncated mat", "truncated tif", "no array"],
)
def test_what_cannot_be_opened_is_said_once(
    viewer: Any, tmp_path: Path, cube: xr.DataArray, case: str, said: Said
) -> None:
    path, words = broken(tmp_path, cube, case)
    kept = viewer.add_image(np.zeros((4, 5, 6)), name="kept")
    before = (viewer.dims.range, viewer.dims.point, viewer.scene.camera.center)
    assert viewer.open(str(path), plugin=PLUGIN) == []
    (message,) = said()
    assert message.startswith(f"error: Cannot open {path.name}: ")
    assert words in message
    assert "Traceback" not in message
    assert [layer.name for layer in viewer.layers] == [kept.name]
    assert (viewer.dims.range, viewer.dims.point, viewer.scene.camera.center) == before


def test_a_drop_on_the_window(viewer: Any, tmp_path: Path, cube: xr.DataArray, said: Said) -> None:
    """The way of a dropped file, with no plugin named."""
    path, words = broken(tmp_path, cube, "no header")
    window = viewer.__wrapped__.window._qt_viewer
    window._qt_open([str(path)], stack=False)
    (message,) = said()
    assert words in message
    assert len(viewer.layers) == 0
    io.save_cube(cube, tmp_path / "good.bil")
    window._qt_open([str(tmp_path / "good.bil")], stack=False)
    assert len(viewer.layers) == 2


def test_both_files_of_an_envi_image_open_once(
    viewer: Any, tmp_path: Path, cube: xr.DataArray, said: Said
) -> None:
    io.save_cube(cube, tmp_path / "a.hdr")
    io.save_cube(cube, tmp_path / "b.hdr")
    paths = [str(tmp_path / name) for name in ("a.hdr", "a.img", "b.img", "b.hdr")]
    viewer.open(paths, plugin=PLUGIN)
    assert len(viewer.layers) == 4
    assert said() == [
        "info: a.img belongs to an image that is open already.",
        "info: b.hdr belongs to an image that is open already.",
    ]
    viewer.open(paths[0], plugin=PLUGIN)
    assert len(viewer.layers) == 6, "the same file is opened again if that is asked for"


def test_a_file_that_others_read_is_declined(viewer: Any, tmp_path: Path) -> None:
    sky = tmp_path / "sky.hdr"
    sky.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n")
    from npe2 import PluginManager

    others = {r.plugin_name for r in PluginManager.instance().iter_compatible_readers([str(sky)])}
    if others - {PLUGIN}:
        assert open_files.get_reader(str(sky)) is None


@pytest.fixture
def two(tmp_path: Path) -> Path:
    arrays = {
        "flat": np.ones((9, 9)),
        "first": np.zeros((5, 6, 20)),
        "second": np.ones((5, 6, 30)),
        "t": "text",
    }
    scipy.io.savemat(tmp_path / "two.mat", arrays)
    return tmp_path / "two.mat"


def answer(accept: bool, row: int, seen: list[Any]) -> None:
    """Answer the dialog that is about to appear."""

    def act() -> None:
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, QDialog):
            QTimer.singleShot(20, act)
            return
        choice = dialog.findChild(QListWidget)
        seen.append(dialog.windowTitle())
        seen.extend(choice.item(k).text() for k in range(choice.count()))
        choice.setCurrentRow(row)
        if accept:
            dialog.accept()
        else:
            dialog.reject()

    QTimer.singleShot(20, act)


def test_the_dialog_asks_which_variable(viewer: Any, two: Path, said: Said) -> None:
    seen: list[Any] = []
    answer(True, 1, seen)
    _, above = viewer.open(str(two), plugin=PLUGIN)
    assert seen == [
        "Open two.mat",
        "first   5 × 6 × 20   double",
        "second   5 × 6 × 30   double",
        "flat   9 × 9   double",
    ]
    assert above.data.shape == (30, 5, 6)
    cube = _layers.layer_cube(above)
    assert cube.encoding["variable"] == "second"
    assert cube.encoding["source"] == str(two)
    assert said() == []


def test_cancelling_the_dialog_opens_nothing(viewer: Any, two: Path, said: Said) -> None:
    answer(False, 1, [])
    assert viewer.open(str(two), plugin=PLUGIN) == []
    assert len(viewer.layers) == 0
    assert said() == []


def test_scenes_of_one_crs_share_the_canvas(
    viewer: Any, tmp_path: Path, cube: xr.DataArray
) -> None:
    io.save_cube(cube, tmp_path / "a.tif")
    far = cube.copy()
    a, b, c, d, e, f = cube.attrs["transform"]
    far.attrs = {**cube.attrs, "transform": (a, b, c + 400000.0, d, e, f - 300000.0)}
    io.save_cube(far, tmp_path / "b.tif")
    viewer.open([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")], plugin=PLUGIN)
    first, second = viewer.layers[1], viewer.layers[3]
    np.testing.assert_allclose(
        np.subtract(second.translate, first.translate), [0, 300000.0, 400000.0]
    )


def test_files_read_at_once_share_the_canvas(
    viewer: Any, tmp_path: Path, cube: xr.DataArray
) -> None:
    far = cube.copy()
    a, b, c, d, e, f = cube.attrs["transform"]
    far.attrs = {**cube.attrs, "transform": (a, b, c + 400000.0, d, e, f)}
    io.save_cube(cube, tmp_path / "a.tif")
    io.save_cube(far, tmp_path / "b.tif")
    found = open_files.open_in_window([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])
    moves = [words["translate"][-1] for _, words, _ in found]
    np.testing.assert_allclose(np.subtract(moves, moves[0]), [0, 0, 400000.0, 400000.0])


@pytest.mark.parametrize("shape", [(20, 9, 9), (2, 2, 9, 9)])
def test_files_open_beside_layers_whose_data_were_replaced(
    viewer: Any, tmp_path: Path, cube: xr.DataArray, said: Said, shape: tuple[int, ...]
) -> None:
    """A part of a scene has no georeference of its own; what is no cube at all has none."""
    io.save_cube(cube, tmp_path / "a.tif")
    viewer.open(str(tmp_path / "a.tif"), plugin=PLUGIN)
    zero = _layers.origin_of(viewer.layers[-1])
    viewer.layers[-1].data = np.zeros(shape, np.float32)
    io.save_cube(cube, tmp_path / "b.tif")
    opened = viewer.open(str(tmp_path / "b.tif"), plugin=PLUGIN)
    assert _layers.origin_of(opened[-1]) == zero
    assert not [text for text in said() if "units" not in text]  # napari's word on four axes


def test_without_a_window_errors_are_raised(
    tmp_path: Path, cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = broken(tmp_path, cube, "truncated")
    monkeypatch.setattr(open_files, "has_window", lambda: False)
    reader = open_files.get_reader(str(path))
    assert reader is not None
    with pytest.raises(TruncatedFileError, match="found 1000 bytes"):
        reader(str(path))


def test_it_reads_without_qt(tmp_path: Path, cube: xr.DataArray) -> None:
    """In a fresh interpreter where no Qt binding can be imported."""
    import subprocess
    import sys

    io.save_cube(cube, tmp_path / "a.hdr")
    code = f"""
import sys
for name in ("qtpy", "PyQt6", "PySide6", "napari"):
    sys.modules[name] = None
from npe2 import PluginManager, PluginManifest, read
import napari_hsfusion, pathlib
path = pathlib.Path(napari_hsfusion.__file__).parent / "napari.yaml"
PluginManager.instance().register(PluginManifest.from_file(path))
layers = read([{str(tmp_path / "a.hdr")!r}], stack=False, plugin_name={PLUGIN!r})
assert [layer[0].shape for layer in layers] == [(24, 32, 4), (20, 24, 32)], layers
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "bands"),
    [
        ("fixtures/envi_bsq_u16_fenix.dat", 450),
        ("fixtures/geotiff_chunky_i16_426b_NEON.tif", 426),
        ("fixtures/mat73_pavia_102x100x100.mat", None),
        ("cave/val/balloons.tif", 31),
    ],
)
def test_real_files_in_a_real_window(
    make_napari_viewer_proxy: Any,
    shared_data: Callable[[str], Path],
    name: str,
    bands: int | None,
    said: Said,
) -> None:
    path = shared_data(name)
    viewer = make_napari_viewer_proxy(show=True)
    for data, words, _ in open_files.open_in_window(str(path)):
        viewer.add_image(data, **words)
    assert said() == []
    assert bands is None or viewer.layers[-1].data.shape[0] == bands
    picture = viewer.screenshot(canvas_only=True, flash=False)
    assert np.unique(picture[..., 0]).size > 20, "the canvas is blank"
    QApplication.processEvents()
    assert viewer.canvas.overlays.text.text.startswith("Band")


def test_samples_open(viewer: Any) -> None:
    layers = viewer.open_sample(PLUGIN, "pair")
    assert [layer.name for layer in layers] == ["demo reference", "demo HR-MSI", "demo LR-HSI"]
    assert len({tuple(map(str, layer.units[-2:])) for layer in layers}) == 1
    assert viewer.canvas.overlays.text.text == ""
    QApplication.processEvents()
    assert viewer.canvas.overlays.text.text.endswith("nm"), "the band on show is not named"
