"""A choice of a layer that follows the viewer: insertions, removals, names, what layers show."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox

from .. import _layers
from ..errors import CubeError
from .preview import RUNNING

if TYPE_CHECKING:
    import xarray as xr
    from napari.layers import Layer
    from napari.viewer import Viewer


class LayerChoice(ComboBox):
    """Combo box of the layers that a function accepts; None where there is none.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    accept : callable
        Says whether a layer may be chosen.
    prefer : callable, optional
        Rank of a layer, the highest is chosen while the user has chosen nothing.
    **words
        As magicgui's ComboBox takes them.
    """

    def __init__(
        self,
        viewer: Viewer,
        accept: Callable[[Layer], bool],
        prefer: Callable[[Layer], float] | None = None,
        **words: Any,
    ) -> None:
        self._viewer = viewer
        self._accept = accept
        self._prefer = prefer
        self._chosen_by_user = False
        self._settling = False
        super().__init__(choices=self._rows, nullable=False, **words)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.refresh)
        viewer.layers.events.reordered.connect(self.refresh)
        self._followed: list[Layer] = []
        self.changed.connect(self._user_chose)
        self.refresh()

    def refresh(self, event: Any = None) -> None:
        """Take the layers as they are now; what was chosen by hand stays, if it is there.

        ``changed`` is emitted once, and only if another layer is chosen in the end.
        """
        before = self.value
        self._follow_layers()
        with self.changed.blocked():
            self.reset_choices()
            there = list(self.choices)
            if before not in there:
                self._chosen_by_user = False
            if not self._chosen_by_user and self._prefer is not None and there:
                self.value = max(there, key=self._prefer)
        if self.value != before:
            self._settling = True
            try:
                self.changed.emit(self.value)
            finally:
                self._settling = False

    def release(self) -> None:
        """Follow the viewer no more: for widgets that close."""
        for event in (
            self._viewer.layers.events.inserted,
            self._viewer.layers.events.removed,
            self._viewer.layers.events.reordered,
        ):
            with contextlib.suppress(ValueError):
                event.disconnect(self.refresh)
        for layer in self._followed:
            self._leave(layer)
        self._followed = []

    def _rows(self, _: Any) -> Sequence[tuple[str, Layer]]:
        return [(layer.name, layer) for layer in self._viewer.layers if self._accept(layer)]

    def _follow_layers(self) -> None:
        for layer in self._followed:
            if layer not in self._viewer.layers:
                self._leave(layer)
        for layer in self._viewer.layers:
            if layer not in self._followed:
                # metadata: a running fusion's layer shows a result once it is over
                for event in (layer.events.name, layer.events.metadata):
                    event.connect(self.refresh)
        self._followed = list(self._viewer.layers)

    def _leave(self, layer: Layer) -> None:
        for event in (layer.events.name, layer.events.metadata):
            with contextlib.suppress(ValueError):
                event.disconnect(self.refresh)

    def _user_chose(self, _: Any) -> None:
        if not self._settling:
            self._chosen_by_user = True


def cube_or_none(layer: Layer | None) -> xr.DataArray | None:
    """Give the cube that a layer shows; None for layers that show none."""
    if layer is None:
        return None
    try:
        return _layers.layer_cube(layer)
    except CubeError:
        return None


def shows_cube(layer: Layer) -> bool:
    """Whether a layer may serve as an LR-HSI, a reference or a result: several bands."""
    if not _layers.is_image(layer) or _layers.kind_of(layer) == "composite":
        return False
    return _layers.kind_of(layer) != RUNNING and not layer.rgb and layer.ndim == 3


def shows_image(layer: Layer) -> bool:
    """Whether a layer may serve as an HR-MSI: any image of bands, a composite, a grey one."""
    if not _layers.is_image(layer) or _layers.kind_of(layer) == RUNNING:
        return False
    return layer.rgb or layer.ndim in (2, 3)
