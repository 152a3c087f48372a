"""The layers of a running training: a validation scene as the network restores it by now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _layers
from .._layers import KEY, Placement, metadata
from .preview import RUNNING
from .training import Shown

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer


class TrialLayers:
    """Cube and colour composite of a validation scene, redrawn after every trial.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    name : str
        Of the layers.
    place : Placement
    """

    def __init__(self, viewer: Viewer, name: str, place: Placement) -> None:
        self._viewer = viewer
        self._name = name
        self._place = place
        self._layers: list[Image] = []
        self._buffers: list[np.ndarray] = []
        self._last: Shown | None = None

    @property
    def alive(self) -> list[Layer]:
        """The layers that are still in the viewer."""
        return [layer for layer in self._layers if layer in self._viewer.layers]

    def show(self, shown: Shown) -> None:
        """Draw a restored scene; layers that were taken away stay away."""
        fresh = (shown.picture, shown.cube.values)
        if self._last is None:
            self._buffers = [np.array(values) for values in fresh]
            self._add(shown)
        else:
            for buffer, values in zip(self._buffers, fresh, strict=True):
                buffer[...] = values
        self._last = shown
        for layer in self.alive:
            layer.refresh(extent=False, thumbnail=True, highlight=False)

    def finish(self, keep: bool) -> list[Layer]:
        """Turn what is there into layers as any other, or take it away.

        Returns
        -------
        list of napari.layers.Layer
            Those that stay.
        """
        if not keep or self._last is None:
            self.discard()
            return []
        cube = self._last.cube
        stay = self.alive
        for layer in stay:
            kind = "cube" if layer.ndim == 3 else "composite"
            layer.metadata = {**metadata(cube, kind, self._place)}
        self._forget()
        return stay

    def discard(self) -> None:
        """Take everything away again."""
        for layer in self.alive:
            self._viewer.layers.remove(layer)
        self._forget()

    def _forget(self) -> None:
        self._layers, self._buffers, self._last = [], [], None

    def _add(self, shown: Shown) -> None:
        picture, values = self._buffers
        low, high = np.nanpercentile(values[:, ::2, ::2], (0.5, 99.5))
        ours: dict[str, Any] = {"metadata": {KEY: {"kind": RUNNING}}}
        self._layers = [
            self._viewer.add_image(
                picture,
                name=f"{self._name} (composite)",
                rgb=True,
                **ours,
                **self._place.keywords(2),
            ),
            self._viewer.add_image(
                values,
                name=self._name,
                contrast_limits=(float(low), float(max(high, np.nextafter(low, np.inf)))),
                colormap="gray",
                visible=False,
                **ours,
                **self._place.keywords(3),
            ),
        ]


def central_place(
    layer: Layer | None, size: tuple[int, int], validation: Mapping[str, Any], ratio: int
) -> Placement:
    """Where the central part of a validation scene lies: over the layer it is of, if it is one.

    Parameters
    ----------
    layer : napari.layers.Layer, optional
    size : (int, int)
        Rows and columns of the layer's cube.
    validation : mapping
        With ``shape``, (C, H, W) of the part.
    ratio : int
        What the rows and columns were cut to a multiple of.
    """
    if layer is None:
        return Placement()
    place = _layers.placement_of(layer)
    down, right = (
        (whole - whole % ratio - part) // 2
        for whole, part in zip(size, validation["shape"][1:], strict=True)
    )
    (sy, sx), (ty, tx), (ky, kx) = place.scale, place.translate, place.shear
    moved = (ty + down * sy + right * ky, tx + right * sx + down * kx)
    return replace(place, translate=moved)
