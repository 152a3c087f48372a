"""Pinned points: a Points layer that stays the user's, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Points

from .._layers import KEY, kind_of
from .links import Links
from .plots import Plot
from .spectra import Shown, bare

NAME = "Pinned spectra"
KIND = "pins"

_FIRST_COLOR = 3
"""The first colours of the palette belong to the curves under the cursor."""


@dataclass(frozen=True)
class Pin:
    """A pinned point.

    Attributes
    ----------
    number : int
        It keeps it when others are deleted.
    world : tuple of float
        y, x.
    """

    number: int
    world: tuple[float, float]

    @property
    def name(self) -> str:
        """Name on the canvas and in the legend."""
        return f"P{self.number}"

    @property
    def color(self) -> str:
        """Colour of the mark and of the curves."""
        return Plot.color(_FIRST_COLOR + self.number - 1)


class Pins:
    """Points of the layer "Pinned spectra" of a viewer; made with the first pin.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    changed : callable
        Bound method, called after a point came, went or moved.
    """

    def __init__(self, viewer: Any, changed: Callable[[], None]) -> None:
        self._viewer = viewer
        self._changed = changed
        self._links = Links()
        self.layer: Any = None

    def find(self) -> None:
        """Take the layer of the viewer, or forget one that was removed."""
        there = [bare(layer) for layer in self._viewer.layers]
        if self.layer is not None and any(layer is self.layer for layer in there):
            return
        self.release()
        ours = [layer for layer in there if isinstance(layer, Points) and kind_of(layer) == KIND]
        if ours:
            self._take(ours[-1])

    def items(self) -> list[Pin]:
        """Pins as they are now; none while the layer is hidden."""
        self.find()
        if self.layer is None or not self.layer.visible:
            return []
        numbers = self.layer.features["pin"].astype(int)
        places = [self.layer.data_to_world(point)[-2:] for point in self.layer.data]
        return [
            Pin(int(number), (float(y), float(x)))
            for number, (y, x) in zip(numbers, places, strict=True)
        ]

    def add(self, world: Sequence[float], reference: Shown) -> None:
        """Pin a world point (y, x); a new layer takes units and axis names of `reference`."""
        self.find()
        if self.layer is None:
            self._make(reference)
        self.layer.visible = True
        place = self.layer.world_to_data((0.0,) * (self.layer.ndim - 2) + tuple(world))
        self.layer.add(np.asarray(place, dtype=float))
        self._number()

    def clear(self) -> None:
        """Take every pin away; the layer stays."""
        self.find()
        if self.layer is not None:
            self.layer.selected_data = set(range(len(self.layer.data)))
            self.layer.remove_selected()

    def release(self) -> None:
        """Leave the layer to the user."""
        self._links.clear()
        self.layer = None

    def _make(self, reference: Shown) -> None:
        layer = reference.layer
        world = layer.extent.world[:, -2:]
        before = self._viewer.layers.selection.active
        made = self._viewer.add_points(
            np.zeros((0, 2)),
            name=NAME,
            features={"pin": np.zeros(0, dtype=int)},
            size=float(np.ptp(world, axis=0).max()) / 50.0,
            symbol="disc",
            border_color="white",
            units=layer.units[-2:],
            axis_labels=layer.axis_labels[-2:],
            metadata={KEY: {"kind": KIND}},
        )
        # the cube that was at work stays at work
        if before is not None:
            self._viewer.layers.selection.active = before
        self._take(bare(made))

    def _take(self, layer: Any) -> None:
        self.layer = layer
        for event in (layer.events.data, layer.events.visible, layer.events.extent):
            self._links.connect(event, self._layer_changed)
        self._number()

    def _layer_changed(self, event: Any = None) -> None:
        if event is not None and str(getattr(event, "action", "")) in ("adding", "removing"):
            return
        self._number()
        self._changed()

    def _number(self) -> None:
        """Give points that came without a number, or with another's, a new one."""
        layer = self.layer
        features = layer.features
        given = features["pin"].tolist() if "pin" in features else []
        given = [int(number) if number == number else 0 for number in given]
        given += [0] * (len(layer.data) - len(given))
        numbers: list[int] = []
        for number in given:
            fresh = number < 1 or number in numbers
            numbers.append(max([0, *numbers, *given]) + 1 if fresh else number)
        if numbers != given:
            layer.features = {"pin": np.asarray(numbers, dtype=int)}
        layer.feature_defaults = {"pin": 0}  # a new point has no number yet
        colors = [Pin(number, (0.0, 0.0)).color for number in numbers]
        if colors:
            layer.face_color = colors
            layer.text = {
                "string": [f"P{number}" for number in numbers],
                "color": colors,
                "size": 10,
                "anchor": "lower_left",
            }
