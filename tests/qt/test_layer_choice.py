"""Choices of layers that follow the viewer, and the pair that they come to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari_hsfusion import _layers, cube
from napari_hsfusion._qt.fuse_form import FuseForm
from napari_hsfusion._qt.layer_choice import LayerChoice, shows_cube, shows_image
from napari_hsfusion._qt.preview import LiveLayers


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


def make(bands: int, side: int, name: str) -> xr.DataArray:
    """A cube that says nothing of where it came from, as most files do."""
    values = np.random.default_rng(bands + side).random((bands, side, side), dtype=np.float32)
    return cube.make_cube(values, wavelength=np.linspace(450, 900, bands), name=name)


def show(viewer: Any, image: xr.DataArray) -> None:
    for data, words, _ in _layers.cube_layers(image):
        viewer.add_image(data, **words)


def names(form: FuseForm) -> tuple[str, str]:
    return form.lr_hsi.value.name, form.hr_msi.value.name


def test_one_change_is_told_once(viewer: Any) -> None:
    """What a combo box holds between two choices would lay one image over another."""
    choice = LayerChoice(viewer, shows_image, lambda layer: float(layer.name[-1]))
    told: list[str] = []
    choice.changed.connect(lambda layer: told.append(layer.name))
    for name in ("a2", "b1", "c3", "d2"):
        viewer.add_image(np.zeros((4, 4)), name=name)
    assert told == ["a2", "c3"]
    viewer.layers.remove("c3")
    assert told == ["a2", "c3", "a2"]
    choice.value = viewer.layers["b1"]
    viewer.add_image(np.zeros((4, 4)), name="e9")
    assert told[3:] == ["b1"], "a choice by hand was taken back"
    viewer.layers.remove("b1")
    assert told[4:] == ["e9"]
    choice.release()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_pair_is_found_whichever_opens_first(viewer: Any, order: tuple[int, int]) -> None:
    form = FuseForm(viewer)
    pair = make(40, 16, "low"), make(4, 64, "high")
    for k in order:
        show(viewer, pair[k])
    assert names(form) == ("low", "high")
    form.release()


def test_another_lr_hsi_finds_its_own_partner(viewer: Any) -> None:
    form = FuseForm(viewer)
    for image in (make(40, 16, "low"), make(4, 64, "high"), make(4, 60, "other high")):
        show(viewer, image)
    assert names(form) == ("low", "high")
    show(viewer, make(50, 15, "other low"))
    assert names(form) == ("other low", "other high")
    form.lr_hsi.value = viewer.layers["low"]
    assert names(form) == ("low", "high")
    form.release()


def test_a_fusion_that_runs_is_no_cube_yet(viewer: Any) -> None:
    choice = LayerChoice(viewer, shows_cube)
    live = LiveLayers(viewer, "fused", (40, 64, 64), _layers.Placement())
    assert "fused" in viewer.layers
    assert choice.value is None
    viewer.layers["fused"].data = np.zeros((40, 64, 64), np.float32)
    viewer.layers["fused"].metadata = {}
    assert choice.value == viewer.layers["fused"], "nor is its result"
    live.discard()
    choice.release()
