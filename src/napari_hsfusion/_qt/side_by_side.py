"""Layers beside each other, or in turn; the viewer is as before when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from qtpy.compat import isalive
from qtpy.QtCore import QTimer

from .._layers.limits import carried_limits
from .layer_choice import cube_or_none
from .links import Links

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

SLOWEST, FASTEST = 0.2, 3.0
"""Changes a second; faster flicker can harm people with photosensitive epilepsy."""

_DRAWN = 150  # milliseconds
_FITS = 5

_LARGEST_NAME, _SMALLEST_NAME = 10.0, 6.0
_CHARACTER = 0.9
"""Points of the names in a grid; pixels a character is wide for one point."""
_BAR = 65
"""Pixels that a map's colour bar takes beside its name."""

_GRID_FIELDS = ("enabled", "stride", "shape", "spacing")


@dataclass
class _Before:
    """How a layer was."""

    visible: bool
    name_shown: bool
    name_points: float
    limits: tuple[float, float] | None = None
    limits_range: tuple[float, float] | None = None
    set_limits: tuple[float, float] | None = None


class SideBySide:
    """A grid of some layers, or some layers in turn, with one contrast.

    All layers share the viewer's band slider and camera. Whatever else is visible is
    hidden meanwhile.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    parent : QObject
        The timer lives no longer than it.

    Attributes
    ----------
    mode : str
        ``""``, ``"grid"`` or ``"blink"``.
    ended : Signal
        Emitted when a mode ends by itself, with the reason in words, or empty.
    """

    ended = Signal(str)

    def __init__(self, viewer: Viewer, parent: Any) -> None:
        self.mode = ""
        self._viewer = viewer
        self._shown: list[Layer] = []
        self._before: dict[Layer, _Before] = {}
        self._grid: dict[str, Any] = {}
        self._camera: tuple[tuple[float, ...], float] | None = None
        self._at = 0
        self._busy = False
        self._links = Links()
        self.timer = QTimer(parent)
        self.timer.timeout.connect(self.step)
        # new cells have no size before they are drawn, and the camera then takes another zoom
        self._fits_left = 0
        self._fitted = 0.0
        self._fitting = QTimer(parent)
        self._fitting.setSingleShot(True)
        self._fitting.setInterval(_DRAWN)
        self._fitting.timeout.connect(self._fit_now)

    @property
    def shown(self) -> list[Layer]:
        """The layers that take part."""
        return list(self._shown)

    def start_grid(self, layers: Sequence[Layer], first: Layer | None = None) -> None:
        """Show layers in a grid, `first` nearer to its upper left corner than the others.

        Parameters
        ----------
        layers : sequence of Layer
        first : Layer, optional
            One of them, whose contrast all take; by default the first.
        """
        self.stop()
        self._begin("grid", layers, first)
        grid, listed = self._viewer.canvas.grid, list(self._viewer.layers)
        self._grid = {name: getattr(grid, name) for name in _GRID_FIELDS}
        camera = self._viewer.scene.camera
        self._camera = (tuple(camera.center), camera.zoom)
        # napari fills the grid in the order of its list, or backwards
        places = [listed.index(layer) for layer in self._shown]
        lead = listed.index(self._shown[0])
        self._busy = True
        try:
            for layer in listed:
                layer.visible = layer in self._shown
            grid.stride = 1 if lead - min(places) <= max(places) - lead else -1
            grid.enabled = True
        finally:
            self._busy = False
        self._links.connect(grid.events.enabled, self._grid_toggled)
        self._arrange()
        self._viewer.reset_view()

    def start_blink(self, layers: Sequence[Layer], rate: float, first: Layer | None = None) -> None:
        """Show layers in turn.

        Parameters
        ----------
        layers : sequence of Layer
            At least two.
        rate : float
            Changes a second.
        first : Layer, optional
            As for :meth:`start_grid`.
        """
        self.stop()
        self._begin("blink", layers, first)
        for layer in self._viewer.layers:
            if getattr(layer, "_type_string", None) == "image":
                layer.visible = layer == self._shown[0]
        self._at = 0
        self.set_rate(rate)
        self.timer.start()

    def notice_removed(self) -> None:
        """End where a layer that takes part has gone: blinking, or a grid of one."""
        for gone in [layer for layer in self._shown if layer not in self._viewer.layers]:
            self._shown.remove(gone)
            if self.mode == "blink":
                self._end(f"Blinking stopped: {gone.name} was removed.")
            elif self.mode == "grid" and len(self._shown) < 2:
                self._end(f"Side by side ended: {gone.name} was removed.")

    def fit(self) -> None:
        """Fit a grid that has more or fewer cells than before."""
        if self.mode == "grid" and isalive(self._fitting):
            self._fits_left, self._fitted = _FITS, 0.0
            self._fitting.start()

    def _arrange(self) -> None:
        """Take the rows and columns that show most, and names that their cells hold."""
        named = [layer for layer in self._viewer.layers if layer.visible]
        canvas = self._viewer.canvas
        span = self._shown[0].extent.world[:, -2:]
        rows, columns = np.ptp(span, axis=0)
        canvas.grid.shape = _shape(len(named), canvas.size, rows / columns if columns else 1.0)
        longest = max((len(layer.name) for layer in named), default=0)
        width = canvas.viewbox_size(self._viewer.layers)[1] - _BAR
        points = min(max(width / (_CHARACTER * max(longest, 1)), _SMALLEST_NAME), _LARGEST_NAME)
        for layer in named:
            layer.name_overlay.font_size = points

    def _fit_now(self) -> None:
        camera = self._viewer.scene.camera
        if self.mode != "grid" or self._fits_left == 0 or camera.zoom == self._fitted:
            return
        self._arrange()
        self._viewer.reset_view()
        self._fitted = camera.zoom
        self._fits_left -= 1
        self._fitting.start()

    def set_rate(self, rate: float) -> None:
        """Changes a second, held within limits."""
        self.timer.setInterval(round(1000 / min(max(rate, SLOWEST), FASTEST)))

    def step(self) -> None:
        """Show the next layer in turn."""
        if self.mode != "blink":
            return
        hidden = self._shown[self._at]
        self._at = (self._at + 1) % len(self._shown)
        self._shown[self._at].visible = True
        hidden.visible = False

    def stop(self) -> None:
        """End: visibility, contrast, names, grid and camera are as they were before."""
        for timer in (self.timer, self._fitting):
            if isalive(timer):
                timer.stop()
        if not self.mode:
            return
        mode, self.mode = self.mode, ""
        self._links.clear()
        self._busy = True
        try:
            if mode == "grid":
                self._restore_grid()
            for layer, before in self._before.items():
                if layer in self._viewer.layers:
                    _restore(layer, before)
        finally:
            self._busy = False
            self._before, self._shown, self._grid, self._camera = {}, [], {}, None

    def forget(self) -> None:
        """End without touching the viewer, which may be going."""
        for timer in (self.timer, self._fitting):
            if isalive(timer):
                timer.stop()
        self.mode = ""
        self._links.clear()
        self._before, self._shown, self._grid, self._camera = {}, [], {}, None

    def _begin(self, mode: str, layers: Sequence[Layer], first: Layer | None) -> None:
        lead = first if first in layers else layers[0]
        self._shown = [lead, *(layer for layer in layers if layer != lead)]
        self._before = {
            layer: _Before(layer.visible, layer.name_overlay.visible, layer.name_overlay.font_size)
            for layer in self._viewer.layers
        }
        self.mode = mode
        for layer in self._shown:
            self._share_contrast(layer, lead)
            layer.name_overlay.visible = True
        self._links.connect(self._viewer.layers.events.removed, self._removed)

    def _share_contrast(self, layer: Layer, lead: Layer) -> None:
        source, target = cube_or_none(lead), cube_or_none(layer)
        if layer == lead or source is None or target is None:
            return
        before = self._before[layer]
        before.limits = tuple(layer.contrast_limits)
        before.limits_range = tuple(layer.contrast_limits_range)
        layer.contrast_limits = carried_limits(tuple(lead.contrast_limits), source, target)
        before.set_limits = tuple(layer.contrast_limits)

    def _restore_grid(self) -> None:
        grid = self._viewer.canvas.grid
        for name, value in self._grid.items():
            setattr(grid, name, value)
        if self._camera is not None:
            camera = self._viewer.scene.camera
            camera.center, camera.zoom = self._camera

    def _removed(self, event: Any) -> None:
        self._before.pop(event.value, None)
        self.notice_removed()

    def _grid_toggled(self, event: Any = None) -> None:
        if self._busy or self._viewer.canvas.grid.enabled:
            return
        self._grid["enabled"] = False
        self._end("")

    def _end(self, why: str) -> None:
        self.stop()
        self.ended.emit(why)


def _shape(count: int, size: tuple[int, int], aspect: float) -> tuple[int, int]:
    """Rows and columns of a grid whose cells show images of this aspect (y/x) largest."""
    height, width = size
    shapes = [(rows, -(-count // rows)) for rows in range(1, count + 1)]
    return max(shapes, key=lambda shape: min(height / shape[0] / aspect, width / shape[1]))


def _restore(layer: Layer, before: _Before) -> None:
    layer.visible = before.visible
    layer.name_overlay.visible = before.name_shown
    layer.name_overlay.font_size = before.name_points
    # limits that were changed by hand meanwhile are the user's
    if before.limits is not None and tuple(layer.contrast_limits) == before.set_limits:
        layer.contrast_limits = before.limits
        layer.contrast_limits_range = before.limits_range
