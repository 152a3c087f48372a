"""Name the band and wavelength on show in napari's text overlay."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from .. import cube as cubes
from .._layers import AXES, KEY, kind_of


def attach(viewer: Any) -> BandOverlay:
    """Let a viewer name the band and wavelength on show; once is enough.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Returns
    -------
    BandOverlay
        The viewer's own, brought up to date.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)
    for callback in viewer.dims.events.point.callbacks:
        if isinstance(callback, BandOverlay):
            callback()
            return callback
    return BandOverlay(viewer)


def band_text(viewer: Any) -> str:
    """What is said of the band on show; empty if no layer (band, y, x) is drawn.

    The layer is the selected one if it shows a cube, else the topmost visible one that
    does.
    """
    for layer in _candidates(viewer):
        first = viewer.dims.ndim - layer.ndim
        if first in viewer.dims.displayed:
            continue
        where = layer.world_to_data(viewer.dims.point[first:])[0]
        band, count = int(np.rint(where)), layer.data.shape[0]
        if 0 <= band < count:
            return _describe(layer, band, count)
    return ""


class BandOverlay:
    """Keeps a viewer's text overlay at the band on show.

    It belongs to the viewer's events and knows the viewer weakly: it goes with it. A
    text that somebody else wrote is left alone until it is empty again.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = weakref.ref(viewer)
        self._written: str | None = None
        for name in ("point", "ndim", "ndisplay", "order"):
            getattr(viewer.dims.events, name).connect(self)
        for name in ("inserted", "removed", "reordered"):
            getattr(viewer.layers.events, name).connect(self)
        viewer.layers.selection.events.active.connect(self)
        self()

    @property
    def text(self) -> str:
        """What this wrote last; empty if nothing, or if somebody else wrote since."""
        viewer = self._viewer()
        if viewer is None or viewer.canvas.overlays.text.text != self._written:
            return ""
        return self._written or ""

    def __call__(self, event: Any = None) -> None:
        """Bring the overlay up to date."""
        viewer = self._viewer()
        if viewer is None:
            return
        for layer in viewer.layers:
            # connecting again does nothing, and a layer that has left may come back
            layer.events.visible.connect(self)
            if kind_of(layer) == "cube":
                for emitter in (layer.events.data, layer.events.metadata):
                    emitter.connect(self)
        self._write(viewer.canvas.overlays.text, band_text(viewer))
        self._label_axes(viewer.dims)

    def _write(self, overlay: Any, text: str) -> None:
        if self._written is None and (overlay.text or not text):
            return
        if self._written is not None and overlay.text not in ("", self._written):
            return
        if self._written is None:
            # names of layers in a grid, and colour bars of maps, are at the top
            overlay.position = "bottom_left"
        if overlay.text != text:
            overlay.text = text
        self._written = text
        if overlay.visible != bool(text):
            overlay.visible = bool(text)

    def _label_axes(self, dims: Any) -> None:
        """Name the axes where they are only numbered and a cube is there."""
        viewer = self._viewer()
        if viewer is None or dims.ndim != len(AXES):
            return
        numbered = (tuple(map(str, range(3))), tuple(map(str, range(-3, 0))))
        if tuple(dims.axis_labels) in numbered and any(map(_shows_bands, viewer.layers)):
            dims.axis_labels = AXES


def _shows_bands(layer: Any) -> bool:
    return kind_of(layer) == "cube" and layer.ndim == len(AXES)


def _candidates(viewer: Any) -> list[Any]:
    """Visible layers that show bands: the selected one, then from the top down."""
    found = [layer for layer in reversed(viewer.layers) if layer.visible and _shows_bands(layer)]
    active = viewer.layers.selection.active
    return sorted(found, key=lambda layer: layer is not active)


def _describe(layer: Any, band: int, count: int) -> str:
    text = f"Band {band + 1} of {count}"
    cube = layer.metadata[KEY]["cube"]
    if cube.sizes["band"] != count:
        return text
    centres = cubes.wavelengths(cube)
    if centres is not None:
        near = count > 1 and np.abs(np.diff(centres)).min() < 1.0
        text += f" · {centres[band]:.{1 if near else 0}f} nm"
    return text if cubes.good_bands(cube)[band] else f"{text} (bad band)"
