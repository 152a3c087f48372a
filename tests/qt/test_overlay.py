"""The band on show is named as the slider moves, and nobody else's text is touched."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari.components import ViewerModel

from napari_hsfusion import _layers
from napari_hsfusion._qt.overlay import BandOverlay, attach, band_text
from napari_hsfusion.cube import make_cube


def cube(bands: int = 102, name: str = "scene") -> xr.DataArray:
    good = np.ones(bands, dtype=bool)
    good[4:5] = False
    return make_cube(
        np.zeros((bands, 6, 8), dtype=np.float32),
        wavelength=np.linspace(400, 1000, bands),
        good_band=good,
        name=name,
    )


def show(viewer: Any, shown: xr.DataArray) -> Any:
    added = [viewer._add_layer_from_data(*x)[0] for x in _layers.cube_layers(shown)]
    return added[-1]


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def text(viewer: ViewerModel) -> str:
    overlay = viewer.canvas.overlays.text
    assert overlay.visible == bool(overlay.text)
    return str(overlay.text)


def test_the_band_is_named_as_the_slider_moves(viewer: ViewerModel) -> None:
    attach(viewer)
    assert text(viewer) == ""
    show(viewer, cube())
    for band, said in [
        (0, "Band 1 of 102 · 400 nm"),
        (41, "Band 42 of 102 · 644 nm"),
        (4, "Band 5 of 102 · 424 nm (bad band)"),
        (101, "Band 102 of 102 · 1000 nm"),
    ]:
        viewer.dims.set_point(0, band)
        assert text(viewer) == said
    assert viewer.dims.axis_labels == ("band", "y", "x")


def test_narrow_bands_get_a_decimal(viewer: ViewerModel) -> None:
    attach(viewer)
    fine = make_cube(np.zeros((20, 4, 4)), wavelength=np.linspace(760, 765, 20))
    show(viewer, fine)
    viewer.dims.set_point(0, 1)
    assert text(viewer) == "Band 2 of 20 · 760.3 nm"


def test_which_layer_is_named(viewer: ViewerModel) -> None:
    attach(viewer)
    low = show(viewer, cube(102, "low"))
    high = show(viewer, cube(51, "high"))
    viewer.dims.set_point(0, 10)
    viewer.layers.selection.clear()
    assert text(viewer) == "Band 11 of 51 · 520 nm"
    viewer.layers.selection.active = low
    assert text(viewer) == "Band 11 of 102 · 459 nm"
    low.visible = False
    assert text(viewer) == "Band 11 of 51 · 520 nm"
    viewer.dims.set_point(0, 80)
    assert text(viewer) == "", "the visible cube has no such band"
    low.visible = True
    assert text(viewer).startswith("Band 81 of 102")
    viewer.layers.selection.clear()
    viewer.dims.set_point(0, 10)
    viewer.layers.move(viewer.layers.index(low), len(viewer.layers))
    assert text(viewer).startswith("Band 11 of 102")
    viewer.layers.remove(low)
    assert text(viewer).startswith("Band 11 of 51")
    viewer.layers.remove(high)
    assert text(viewer) == ""
    viewer.layers.append(high)
    viewer.dims.set_point(0, 3)
    assert text(viewer).startswith("Band 4 of 51")
    high.visible = False
    assert text(viewer) == ""


def test_composites_and_foreign_layers_are_not_named(viewer: ViewerModel) -> None:
    attach(viewer)
    show(viewer, cube(4))
    viewer.add_image(np.zeros((9, 6, 8)), name="foreign")
    viewer.dims.set_point(0, 3)
    assert text(viewer) == ""


def test_bands_that_are_drawn_side_by_side_are_not_named(viewer: ViewerModel) -> None:
    attach(viewer)
    show(viewer, cube())
    assert text(viewer)
    viewer.dims.ndisplay = 3
    assert text(viewer) == ""
    viewer.dims.ndisplay = 2
    assert text(viewer)
    viewer.dims.order = (1, 0, 2)
    assert text(viewer) == ""


def test_a_cube_below_more_axes(viewer: ViewerModel) -> None:
    attach(viewer)
    layer = show(viewer, cube())
    viewer.add_image(np.zeros((3, 102, 6, 8)), name="four")
    viewer.layers.selection.active = layer
    viewer.dims.set_point(1, 7)
    assert text(viewer).startswith("Band 8 of 102")


def test_replaced_data_are_named_by_number(viewer: ViewerModel) -> None:
    attach(viewer)
    layer = show(viewer, cube())
    layer.data = np.zeros((7, 6, 8))
    viewer.dims.set_point(0, 2)
    assert text(viewer) == "Band 3 of 7"


def test_attaching_again_changes_nothing(viewer: ViewerModel) -> None:
    first = attach(viewer)
    assert attach(viewer) is first
    show(viewer, cube())
    callbacks = [c for c in viewer.dims.events.point.callbacks if isinstance(c, BandOverlay)]
    assert callbacks == [first]
    assert first.text == text(viewer)


def test_a_text_of_the_user_stays(viewer: ViewerModel) -> None:
    overlay = viewer.canvas.overlays.text
    overlay.text, overlay.visible = "mine", True
    mark = attach(viewer)
    show(viewer, cube())
    viewer.dims.set_point(0, 3)
    assert (overlay.text, overlay.visible, mark.text) == ("mine", True, "")
    overlay.text = ""
    viewer.dims.set_point(0, 5)
    assert overlay.text.startswith("Band 6")
    overlay.text = "mine again"
    viewer.dims.set_point(0, 6)
    assert overlay.text == "mine again"
    overlay.text = ""
    assert overlay.position == "bottom_left", "the names of layers in a grid are at the top"
    overlay.position = "top_right"
    viewer.dims.set_point(0, 7)
    assert overlay.text.startswith("Band 8")
    assert overlay.position == "top_right", "where the user moved it"


def test_labels_of_the_user_stay(viewer: ViewerModel) -> None:
    data, words, _ = _layers.band_layer(cube())
    del words["axis_labels"]
    viewer.add_image(data, **words)
    viewer.dims.axis_labels = ("lambda", "north", "east")
    attach(viewer)
    assert viewer.dims.axis_labels == ("lambda", "north", "east")
    viewer.dims.axis_labels = ("0", "1", "2")
    viewer.dims.set_point(0, 3)
    assert viewer.dims.axis_labels == ("band", "y", "x")


def test_a_viewer_is_not_kept_alive() -> None:
    viewer = ViewerModel()
    mark = attach(viewer)
    layer = show(viewer, cube())
    gone = weakref.ref(viewer)
    viewer.layers.clear()
    del viewer
    gc.collect()
    assert gone() is None
    layer.visible = False
    mark()
    assert mark.text == ""


def test_in_a_real_window(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    attach(viewer)
    data, words, _ = _layers.band_layer(cube())
    words["contrast_limits"] = (0, 1)
    viewer.add_image(data, **words)
    viewer.dims.set_point(0, 41)
    assert viewer.canvas.overlays.text.text == band_text(viewer) == "Band 42 of 102 · 644 nm"
    with_text = viewer.screenshot(canvas_only=True, flash=False).astype(int)
    viewer.canvas.overlays.text.visible = False
    without = viewer.screenshot(canvas_only=True, flash=False).astype(int)
    assert np.abs(with_text - without).max() > 50, "the text is not drawn"
