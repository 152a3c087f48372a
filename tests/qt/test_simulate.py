"""The Simulate form: what it makes, what it says before, and every way it can be interrupted."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari.layers import Layer
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication, QScrollArea

from napari_hsfusion import _layers, api
from napari_hsfusion._qt.simulate import SimulateWidget
from napari_hsfusion._qt.simulating import simulated_layers
from napari_hsfusion.cube import make_cube
from napari_hsfusion.scene import demo_scene

WAIT = 20_000
Widget = Callable[[], SimulateWidget]


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A viewer that no other thread may touch."""
    monkeypatch.setenv("NAPARI_ENSURE_PLUGIN_MAIN_THREAD", "1")
    return make_napari_viewer_proxy()


def show(viewer: Any, cube: xr.DataArray, name: str) -> Any:
    """Add the (band, y, x) layer of a cube."""
    data, words, kind = _layers.band_layer(cube, name)
    return viewer.add_layer(Layer.create(data, words, kind))


def cube_at(viewer: Any, name: str) -> xr.DataArray:
    """Cube of a layer, which plugins see through a proxy."""
    return _layers.layer_cube(next(layer for layer in viewer.layers if layer.name == name))


def docked(viewer: Any) -> SimulateWidget:
    """Form in the window, as the menu gives it."""
    widget = SimulateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Simulate")
    return widget


def settle(widget: SimulateWidget, qtbot: Any) -> None:
    """Wait until all pictures and sentences have followed the form."""
    qtbot.waitUntil(lambda: not widget.busy, timeout=WAIT)


def finish(widget: SimulateWidget, qtbot: Any) -> None:
    """Wait until the run is over."""
    job = widget.job
    assert job is not None
    qtbot.waitUntil(lambda: job.over, timeout=WAIT)


def said() -> list[str]:
    """Messages shown so far."""
    return [str(note.message) for note in notification_manager.records]


@pytest.fixture(autouse=True)
def no_notes() -> None:
    notification_manager.records.clear()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A gate before every simulation: ``reached`` is set there, ``open`` lets it go on."""

    class Gate:
        reached, open = threading.Event(), threading.Event()

    gate = Gate()

    def held(*args: Any, **words: Any) -> Any:
        gate.reached.set()
        assert gate.open.wait(15)
        return simulated_layers(*args, **words)

    monkeypatch.setattr("napari_hsfusion._qt.simulate.simulated_layers", held)
    return gate


def test_it_makes_what_the_interface_makes(viewer: Any, qtbot: Any) -> None:
    scene = demo_scene(64, 20)
    layer = show(viewer, scene, "village")
    widget = docked(viewer)
    widget.psf.value = "gaussian:1.25"
    widget.srf.sensor.value = "landsat-8"
    widget.srf.pick(["B4", "B2"])
    widget.snr.value = 28.0
    widget.seed.value = "11"
    settle(widget, qtbot)
    assert widget.outlook == "LR-HSI 16 × 16 × 20, HR-MSI 64 × 64 × 2"
    assert widget.values() == {
        "scale": 4,
        "psf": "gaussian:1.25",
        "srf": "landsat-8:B4,B2",
        "snr_db": 28.0,
        "seed": 11,
        "crop": False,
    }
    assert widget.run() is widget.job
    assert not widget.run_button.enabled
    assert widget.cancel_button.enabled
    assert widget.run() is widget.job
    finish(widget, qtbot)
    assert widget.run_button.enabled
    assert not widget.cancel_button.enabled
    wanted = api.simulate(scene, **widget.values())
    low, high = viewer.layers["village LR-HSI"], viewer.layers["village HR-MSI"]
    made = cube_at(viewer, "village LR-HSI"), cube_at(viewer, "village HR-MSI")
    for cube, other in zip(made, (wanted.lr_hsi, wanted.hr_msi), strict=True):
        np.testing.assert_array_equal(cube, other)
        assert cube.attrs["observation"] == other.attrs["observation"]
        past = cube.attrs["history"][-1]
        assert past["layer"] == "village"
        assert past["srf"] == "landsat-8:B4,B2"
        again = api.simulate(
            scene,
            past["scale"],
            past["psf"],
            past["srf"],
            seed=past["seed"],
            snr_hsi=past["snr_hsi_db"],
            snr_msi=past["snr_msi_db"],
        )
        np.testing.assert_array_equal(again.lr_hsi, wanted.lr_hsi)
    assert (low.rgb, high.rgb) == (False, True)
    assert low.units == layer.units
    assert tuple(high.units) == tuple(layer.units[1:])
    assert low.axis_labels == layer.axis_labels == ("band", *high.axis_labels)
    assert len(viewer.layers) == 3
    assert said() == []


@pytest.mark.parametrize("ratio", [2, 3])
def test_a_checkerboard_lies_on_its_reference(ratio: int, viewer: Any, qtbot: Any) -> None:
    squares = np.indices((4, 6)).sum(0) % 2
    data = np.stack([np.kron(squares, np.ones((ratio, ratio)))] * 3) + 1.0
    layer = viewer.add_image(
        data, name="board", scale=(1, 2.5, 2.5), translate=(0, -7, 30), units=("pixel", "m", "m")
    )
    widget = docked(viewer)
    widget.ratio.value = ratio
    widget.psf.value = "box"
    widget.snr.value = None
    widget.srf.kind.value = "File"
    settle(widget, qtbot)
    assert "file" in widget.outlook
    matrix = np.ones((1, 3)) / 3
    made = simulated_layers(
        cube_at(viewer, "board"),
        {**_plain(widget), "srf": matrix},
        "board",
        _layers.placement_of(layer),
    )
    high, low = (viewer.add_layer(Layer.create(d, w, k)) for d, w, k in made)
    for y, x in ((0, 0), (1, 2), (3, 5)):
        world = layer.data_to_world((0, ratio * y + (ratio - 1) / 2, ratio * x + (ratio - 1) / 2))
        np.testing.assert_allclose(low.world_to_data(world), (0, y, x), atol=1e-12)
        assert low.data[0, y, x] == squares[y, x] + 1
    corner = layer.data_to_world((0, 5, 7))
    np.testing.assert_allclose(high.world_to_data(corner[1:]), (5, 7))
    assert [str(unit) for unit in low.units] == ["pixel", "meter", "meter"]


def _plain(widget: SimulateWidget) -> dict[str, Any]:
    return {"scale": widget.ratio.value, "psf": widget.psf.value, "snr_db": widget.snr.value}


def test_the_script_makes_the_pair_again(
    viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(viewer, demo_scene(32, 20), "village")
    widget = docked(viewer)
    widget.srf.sensor.value = "landsat-8"
    widget.srf.pick(["B4", "B2"])
    settle(widget, qtbot)
    assert not widget.script_button.enabled
    assert widget.copy_script() is None
    assert "no pair has been made" in said()[-1]
    widget.run()
    finish(widget, qtbot)
    assert viewer.canvas.overlays.text.text.endswith("nm"), "the band on show is not named"
    assert widget.script_button.enabled
    job = widget.copy_script()
    assert job is not None
    qtbot.waitUntil(lambda: job.over, timeout=WAIT)
    script = QApplication.clipboard().text()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(script, names)  # it verifies the image itself
    np.testing.assert_array_equal(names["lr_hsi"], cube_at(viewer, "village LR-HSI"))
    assert {file.name for file in tmp_path.iterdir()} >= {"lr_hsi.tif", "hr_msi.tif"}


def test_noise_levels_apart_and_cropping(viewer: Any, tiny_scene: xr.DataArray, qtbot: Any) -> None:
    show(viewer, tiny_scene, "tiny")
    widget = docked(viewer)
    widget.srf.sensor.value = "rapideye"
    settle(widget, qtbot)
    assert widget.crop_button.native.isHidden()
    widget.ratio.value = 5
    settle(widget, qtbot)
    assert widget.outlook == "24 × 32 pixels are no multiple of the ratio 5."
    assert not widget.crop_button.native.isHidden()
    assert widget.crop_button.text == "Crop to 20 × 30"
    assert not widget.run_button.enabled
    widget.crop_button.native.click()
    settle(widget, qtbot)
    assert widget.crop.value
    assert widget.run_button.enabled
    assert "LR-HSI 4 × 6 × 12" in widget.outlook
    assert widget.advanced.native.isHidden()
    widget.advanced_button.native.click()
    assert not widget.advanced.native.isHidden()
    assert widget.snr_hsi.native.isHidden()
    widget.apart.value = True
    assert not widget.snr_hsi.native.isHidden()
    widget.snr_hsi.value = None
    widget.snr_msi.value = 20.0
    assert widget.values()["snr_db"] is None
    widget.run()
    finish(widget, qtbot)
    made = cube_at(viewer, "tiny LR-HSI").attrs["observation"]
    assert (made["snr_hsi_db"], made["snr_msi_db"]) == (None, 20.0)
    assert made["cropped"] == {"from": [24, 32], "to": [20, 30]}


def test_what_does_not_fit_is_said(viewer: Any, tiny_scene: xr.DataArray, qtbot: Any) -> None:
    show(viewer, tiny_scene, "tiny")
    widget = docked(viewer)
    widget.srf.kind.value = "Gaussian bands"
    widget.srf.gaussians.value = "1600/100"
    settle(widget, qtbot)
    assert "430 to 980 nm" in widget.outlook
    assert not widget.run_button.enabled
    widget.srf.gaussians.value = "550/60; 650/60"
    settle(widget, qtbot)
    assert widget.run_button.enabled
    widget.seed.value = "-3"
    assert "from 0 to 9223372036854775807, got '-3'" in widget.outlook
    assert not widget.run_button.enabled
    assert widget.run() is None
    widget.seed.value = "0"
    widget.psf.kind.value = "Kernel file"
    assert widget.outlook == "Choose the file of the PSF's kernel"
    assert widget.run() is None
    widget.psf.kind.value = "Bicubic"
    widget.ratio.value = 40
    settle(widget, qtbot)
    assert "too small for scale 40" in widget.outlook
    assert widget.run() is not None
    finish(widget, qtbot)
    assert any("too small" in text for text in said())
    assert len(viewer.layers) == 1
    assert widget.job.state.name == "FAILED"
    widget.ratio.value = 4
    settle(widget, qtbot)
    assert widget.run_button.enabled


def test_an_unknown_file_is_said_in_words(
    viewer: Any, tiny_scene: xr.DataArray, tmp_path: Path, qtbot: Any
) -> None:
    show(viewer, tiny_scene, "tiny")
    widget = docked(viewer)
    widget.srf.kind.value = "File"
    widget.srf.file.value = tmp_path / "none.csv"
    settle(widget, qtbot)
    assert "no such response file" in widget.outlook
    assert "no such response file" in widget.srf.caption.text()
    widget.run()
    finish(widget, qtbot)
    assert any("no such response file" in text for text in said())
    assert [layer.name for layer in viewer.layers] == ["tiny"]


def test_without_layers(viewer: Any, qtbot: Any) -> None:
    widget = docked(viewer)
    settle(widget, qtbot)
    assert "Open a cube first" in widget.outlook
    assert not widget.run_button.enabled
    assert widget.run() is None
    assert any("open a cube first" in text for text in said())
    viewer.add_points(np.zeros((1, 3)))
    assert widget.reference.value is None


def test_the_choice_follows_the_layers(viewer: Any, tiny_scene: xr.DataArray, qtbot: Any) -> None:
    widget = docked(viewer)
    layer = show(viewer, tiny_scene, "tiny")
    settle(widget, qtbot)
    assert widget.reference.value.name == "tiny"
    assert widget.run_button.enabled
    layer.name = "renamed"
    assert widget.reference.native.currentText() == "renamed"
    widget.run()
    layer.name = "renamed again"
    finish(widget, qtbot)
    assert {"renamed LR-HSI", "renamed HR-MSI"} < {layer.name for layer in viewer.layers}
    assert widget.reference.value.name == "renamed again"
    viewer.layers.clear()
    settle(widget, qtbot)
    assert "Open a cube first" in widget.outlook


def test_a_composite_stands_for_its_cube(viewer: Any, tiny_scene: xr.DataArray, qtbot: Any) -> None:
    data, words, kind = _layers.composite_layer(tiny_scene)
    viewer.add_layer(Layer.create(data, words, kind))
    widget = docked(viewer)
    settle(widget, qtbot)
    widget.run()
    finish(widget, qtbot)
    assert "tiny LR-HSI" in viewer.layers
    assert viewer.layers["tiny LR-HSI"].data.shape == (12, 6, 8)


def test_reference_removed_during_the_run(
    viewer: Any, tiny_scene: xr.DataArray, gate: Any, qtbot: Any
) -> None:
    show(viewer, tiny_scene, "tiny")
    widget = docked(viewer)
    widget.run()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    viewer.layers.clear()
    gate.open.set()
    finish(widget, qtbot)
    assert [text for text in said() if "its reference was removed" in text] == said() != []
    assert len(viewer.layers) == 0
    assert widget.job.state.name == "CANCELLED"
    assert not widget.cancel_button.enabled


def test_cancelling(viewer: Any, tiny_scene: xr.DataArray, gate: Any, qtbot: Any) -> None:
    show(viewer, tiny_scene, "tiny")
    widget = docked(viewer)
    settle(widget, qtbot)
    widget.run()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    widget.cancel_button.native.click()
    assert widget.cancel_button.text == "Cancelling…"
    gate.open.set()
    finish(widget, qtbot)
    assert [layer.name for layer in viewer.layers] == ["tiny"]
    assert widget.summary.text() == "Cancelled; nothing was added."
    assert widget.run_button.enabled


def test_the_form_taken_out_of_the_window_during_the_run(
    viewer: Any, tiny_scene: xr.DataArray, gate: Any, qtbot: Any
) -> None:
    show(viewer, tiny_scene, "tiny")
    widget = docked(viewer)
    widget.run()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    viewer.window.remove_dock_widget(widget.native)
    gate.open.set()
    finish(widget, qtbot)
    assert [layer.name for layer in viewer.layers] == ["tiny"]


def test_the_viewer_closed_during_the_run(
    viewer: Any, tiny_scene: xr.DataArray, gate: Any, qtbot: Any
) -> None:
    show(viewer, tiny_scene, "tiny")
    widget = docked(viewer)
    widget.run()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    job = widget.job
    gate.open.set()
    viewer.close()
    qtbot.waitUntil(lambda: job.over, timeout=WAIT)
    assert len(viewer.layers) == 0


def test_a_destroyed_form_hears_nothing_more(
    viewer: Any, tiny_scene: xr.DataArray, gate: Any, qtbot: Any
) -> None:
    show(viewer, tiny_scene, "tiny")
    widget = SimulateWidget(viewer)
    widget.run()
    qtbot.waitUntil(gate.reached.is_set, timeout=WAIT)
    job = widget.job
    widget.native.deleteLater()
    qtbot.wait(50)
    gate.open.set()
    qtbot.waitUntil(lambda: job.over, timeout=WAIT)
    viewer.theme = "light"
    show(viewer, tiny_scene, "another")
    viewer.layers["tiny"].name = "renamed"
    assert len(viewer.layers) == 2
    gone = weakref.ref(widget)
    del widget
    gc.collect()
    assert gone() is None


def test_run_stays_in_view_however_small_the_window(viewer: Any, qtbot: Any) -> None:
    show(viewer, make_cube(np.random.default_rng(0).random((5, 8, 8))), "plain")
    widget = docked(viewer)
    widget.advanced_button.native.click()
    widget.apart.value = True
    settle(widget, qtbot)
    area = widget.form.root_native_widget
    assert isinstance(area, QScrollArea)
    assert area.widget() is widget.form.native
    assert area.parent() is widget.native
    assert widget.native.minimumSizeHint().height() < 300
    assert widget.native.minimumSizeHint().width() <= 330
    assert widget.buttons.native.parent() is widget.native
