"""Maps of errors as layers: over the cubes they are of, all of a kind on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._layers import KEY, Placement, kind_of

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer

KIND = "map"
"""Entry ``kind`` of these layers' metadata."""

COLORMAPS = {"sam": "viridis", "rmse": "magma", "band": "magma"}

_BAR, _BAR_FONT = (10.0, 70.0), 8.0
"""Width and height in pixels, points: they fit a cell of a grid too."""

_LINKED = ("contrast_limits", "contrast_limits_range", "gamma", "colormap")


@dataclass(frozen=True)
class MapLayer:
    """A map to be shown.

    Attributes
    ----------
    image : ndarray, shape (rows, columns), float32
    name : str
    of : str
        What it shows: ``rmse``, ``band``, ``sam``.
    group : str
        Maps of one group have one scale.
    limits : tuple of float
        That scale.
    place : Placement
    labels : tuple of str
        Axis labels (y, x).
    """

    image: np.ndarray
    name: str
    of: str
    group: str
    limits: tuple[float, float]
    place: Placement
    labels: tuple[str, str]


def map_layers(viewer: Viewer, of: str | None = None) -> list[Image]:
    """Map layers in a viewer: all of them, or those of one kind."""
    found = [layer for layer in viewer.layers if kind_of(layer) == KIND]
    return [layer for layer in found if of is None or layer.metadata[KEY]["map"] == of]


def show_maps(viewer: Viewer, maps: Sequence[MapLayer], of: str) -> list[Image]:
    """Put maps on top, in place of all earlier ones of their kind.

    Outside the grid only the first is visible: the others lie exactly under it.
    """
    remove_maps(viewer, of)
    made: list[Image] = []
    for number, one in enumerate(reversed(maps), start=1):
        words: dict[str, Any] = one.place.keywords(2)
        words["axis_labels"] = one.labels
        layer = viewer.add_image(
            one.image,
            name=one.name,
            colormap=COLORMAPS[one.of],
            contrast_limits=one.limits,
            visible=viewer.canvas.grid.enabled or number == len(maps),
            metadata={
                KEY: {"kind": KIND, "map": of, "group": one.group, "origin": one.place.origin}
            },
            **words,
        )
        layer.colorbar.position = "top_right"  # band and wavelength are below, the name is left
        layer.colorbar.size, layer.colorbar.font_size = _BAR, _BAR_FONT
        layer.colorbar.visible = True
        layer.name_overlay.visible = viewer.canvas.grid.enabled
        made.insert(0, layer)
    for layers in _groups(made).values():
        if len(layers) > 1:
            viewer.layers.link_layers(layers, _LINKED)
    return made


def remove_maps(viewer: Viewer, of: str | None = None) -> int:
    """Remove map layers, all or those of one kind; their number comes back."""
    gone = map_layers(viewer, of)
    for layers in _groups(gone).values():
        if len(layers) > 1:
            viewer.layers.unlink_layers(layers, _LINKED)
    for layer in gone:
        viewer.layers.remove(layer)
    return len(gone)


def labels_of(layer: Layer) -> tuple[str, str]:
    """Axis labels (y, x) of a layer."""
    return str(layer.axis_labels[-2]), str(layer.axis_labels[-1])


def _groups(layers: Sequence[Image]) -> Mapping[str, list[Image]]:
    out: dict[str, list[Image]] = {}
    for layer in layers:
        out.setdefault(str(layer.metadata[KEY]["group"]), []).append(layer)
    return out
