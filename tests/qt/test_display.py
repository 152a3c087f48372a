"""The ground the graphical tests stand on: a real napari window, drawn with OpenGL."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")


def test_a_window_draws_a_band_of_a_cube(
    make_napari_viewer_proxy: Any, tiny_scene: xr.DataArray
) -> None:
    """A (band, y, x) layer appears on the canvas, and another band looks different."""
    viewer = make_napari_viewer_proxy(show=True)
    data = np.asarray(tiny_scene.data, dtype=np.float32)
    layer = viewer.add_image(
        data, name="scene", contrast_limits=(0.0, 0.6), axis_labels=("band", "y", "x")
    )
    assert viewer.dims.range[0].stop == data.shape[0] - 1
    assert layer.axis_labels == ("band", "y", "x")

    viewer.dims.set_point(0, 1)
    first = viewer.screenshot(canvas_only=True, flash=False)
    assert first.ndim == 3
    assert first.shape[2] == 4
    assert min(first.shape[:2]) > 50
    grey = first[..., :3].astype(float).mean(axis=2)
    assert np.unique(grey.round()).size > 20, "the canvas is blank: OpenGL drew nothing"

    viewer.dims.set_point(0, data.shape[0] - 1)
    second = viewer.screenshot(canvas_only=True, flash=False)
    assert np.abs(second.astype(float) - first).max() > 20, "the band slider changed nothing"
