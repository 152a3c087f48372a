"""A list of layers with a tick each, that follows the viewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from .links import Links

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer

_ROWS = 4


class LayerChecks(QListWidget):
    """Layers that a function accepts, each ticked or not.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    accept : callable
        Says whether a layer is listed.
    tick : callable
        Says whether a layer is ticked as long as the user has not said.

    Attributes
    ----------
    ticked : Signal
        Emitted when another set of layers is ticked.
    """

    ticked = Signal()

    def __init__(
        self, viewer: Viewer, accept: Callable[[Layer], bool], tick: Callable[[Layer], bool]
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._accept = accept
        self._tick = tick
        self._layers: list[Layer] = []
        self._said: dict[Layer, bool] = {}
        self._before: list[Layer] = []
        self._links = Links()
        self._names = Links()
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            self._links.connect(emitter, self.refresh)
        self.itemChanged.connect(self._item_changed)
        self.setMinimumHeight(2 * self._row_height())
        self.refresh()

    @property
    def listed(self) -> list[Layer]:
        """The layers, the topmost first as in napari's own list."""
        return list(self._layers)

    @property
    def checked(self) -> list[Layer]:
        """The layers that are ticked."""
        return [layer for layer in self._layers if self._is_ticked(layer)]

    def check(self, layer: Layer, ticked: bool = True) -> None:
        """Tick a layer, or take its tick away, as if it were clicked.

        Raises
        ------
        ValueError
            If the layer is not listed.
        """
        state = Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked
        self.item(self._layers.index(layer)).setCheckState(state)

    def refresh(self, event: Any = None) -> None:
        """Take the layers as they are now; ticks the user has set stay."""
        self._names.clear()
        listed = [layer for layer in reversed(self._viewer.layers) if self._accept(layer)]
        self._said = {layer: said for layer, said in self._said.items() if layer in listed}
        self._layers = listed
        self.blockSignals(True)
        try:
            self.clear()
            for layer in self._viewer.layers:
                # of every layer: what a running fusion shows becomes a result by its metadata
                self._names.connect(layer.events.metadata, self.refresh)
            for layer in listed:
                self._names.connect(layer.events.name, self.refresh)
                item = QListWidgetItem(layer.name)
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                ticked = self._is_ticked(layer)
                item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
                bands, rows, columns = (
                    (int(n) for n in layer.level_shapes[0][-3:])
                    if (layer.multiscale)
                    else layer.data.shape[-3:]
                )
                item.setToolTip(f"{layer.name}: {bands} bands, {rows} x {columns} pixels")
                self.addItem(item)
        finally:
            self.blockSignals(False)
        self.setFixedHeight(min(max(len(listed), 2), _ROWS) * self._row_height() + 6)
        self._tell()

    def release(self) -> None:
        """Follow the viewer no more."""
        self._links.clear()
        self._names.clear()
        self._layers, self._said, self._before = [], {}, []

    def _is_ticked(self, layer: Layer) -> bool:
        return self._said.get(layer, self._tick(layer))

    def _item_changed(self, item: QListWidgetItem) -> None:
        layer = self._layers[self.row(item)]
        self._said[layer] = item.checkState() == Qt.CheckState.Checked
        self._tell()

    def _tell(self) -> None:
        now = self.checked
        if now != self._before:
            self._before = now
            self.ticked.emit()

    def _row_height(self) -> int:
        return self.fontMetrics().height() + 8
