"""The layers of a running fusion: they sharpen in place, and become the result.

The estimate stays factored until the end: drawing a band costs a band, and no cube is
held twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._layers import KEY, Placement, metadata
from .fusing import WATCH, Begun, Factors, Fused, Snapshot

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer


RUNNING = "running"
"""Kind of the layers that a run still changes; they stand for no cube yet."""


class FactoredCube:
    """Array of shape (C, H, W), float32, that multiplies its factors where it is looked at.

    NaN until there are factors.
    """

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._factors: Factors | None = None

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes that the whole would take."""
        return self.size * self.dtype.itemsize

    @property
    def factors(self) -> Factors | None:
        """What it multiplies."""
        return self._factors

    def update(self, factors: Factors) -> None:
        """Show other factors from now on."""
        shape = (factors.basis.shape[1], *factors.coefficients.shape[1:])
        if shape != self.shape:
            raise ValueError(f"expected factors of a cube {self.shape}, got {shape}")
        self._factors = factors

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = key if isinstance(key, tuple) else (key,)
        for at in [k for k, part in enumerate(keys) if part is Ellipsis]:
            keys = keys[:at] + (slice(None),) * (4 - len(keys)) + keys[at + 1 :]
        keys += (slice(None),) * (3 - len(keys))
        if self._factors is None:
            empty = np.broadcast_to(np.float32(np.nan), self.shape)
            return np.array(empty[keys])
        basis = self._factors.basis[(slice(None), keys[0])]
        coefficients = self._factors.coefficients[(slice(None), *keys[1:])]
        # einsum without its optimiser calls no BLAS: its threads would fight the run's own
        return (
            np.einsum("d...,d->...", coefficients, basis)
            if basis.ndim == 1
            else np.stack([np.einsum("d...,d->...", coefficients, column) for column in basis.T])
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype)


class LiveLayers:
    """The layers that a run shows: the cube, its colour composite, the coefficient images.

    Cube and composite are added at once, empty, and stay to become the result: adding a
    layer costs napari more than drawing one, so that none is added while a run goes on.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    name : str
        Of the result.
    shape : (C, H, W)
    place : Placement
        Of the HR-MSI.
    watch : str
        What is seen: one of :data:`~.fusing.WATCH`.
    """

    def __init__(
        self,
        viewer: Viewer,
        name: str,
        shape: tuple[int, int, int],
        place: Placement,
        watch: str = "composite",
    ) -> None:
        self._viewer = viewer
        self._name = name
        self._place = place
        self._data = FactoredCube(shape)
        self._layers: dict[str, Image] = {}
        self._buffers: dict[str, np.ndarray] = {}
        self.watch = watch
        self._add_picture("composite", np.zeros((*shape[1:], 4), np.uint8))
        self._add_band_layer()

    @property
    def factors(self) -> Factors | None:
        """The estimate as it stands."""
        return self._data.factors

    @property
    def alive(self) -> list[Layer]:
        """The layers that are still in the viewer."""
        return [layer for layer in self._layers.values() if layer in self._viewer.layers]

    @property
    def removed(self) -> bool:
        """Whether the user took all of them away."""
        return not self.alive

    def begin(self, begun: Begun) -> None:
        """Show the LR-HSI as a start, and set the stretch of the cube."""
        self.paint("composite", begun.picture)
        band = self._layer("band")
        if band is not None:
            band.contrast_limits = begun.contrast_limits

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        self._data.update(snapshot.factors)
        band = self._layer("band")
        # in three dimensions every preview would multiply the whole cube
        if band is not None and band.visible and self._viewer.dims.ndisplay == 2:
            _redraw(self._viewer, band)
        if snapshot.picture is not None:
            self.paint(snapshot.watched, snapshot.picture)

    def paint(self, watched: str, picture: np.ndarray) -> None:
        """Draw a ready-made picture in the layer it belongs to."""
        buffer = self._buffers.get(watched)
        if buffer is None:
            if not self.removed:
                self._add_picture(watched, picture)
            return
        buffer[...] = picture
        layer = self._layer(watched)
        if layer is not None:
            _redraw(self._viewer, layer)

    def set_watch(self, watch: str) -> None:
        """Choose what is seen: ``composite``, ``band`` or ``coefficients``."""
        if watch not in WATCH:
            raise ValueError(f"expected one of {WATCH}, got {watch!r}")
        self.watch = watch
        for kind in self._layers:
            layer = self._layer(kind)
            if layer is not None:
                layer.visible = kind == watch

    def finish(self, fused: Fused) -> Image:
        """Turn the layers into the result: the cube, under it its composite.

        Returns
        -------
        napari.layers.Image
            The layer of the cube.
        """
        self._drop("coefficients")
        if self._layer("composite") is None:
            self._add_picture("composite", fused.picture)
        picture, buffer = self._layers["composite"], self._buffers["composite"]
        buffer[...] = fused.picture
        if picture.data is not buffer:  # somebody gave the layer other data meanwhile
            picture.data = buffer
        picture.metadata = {**metadata(fused.cube, "composite", self._place)}
        picture.refresh(extent=False, highlight=False)
        if self._layer("band") is None:
            self._add_band_layer()
        band = self._layers["band"]
        band.data = fused.cube.data
        band.metadata = metadata(fused.cube, "cube", self._place)
        if not picture.visible:
            band.visible = True
        self._forget()
        return band

    def discard(self) -> None:
        """Take everything away again."""
        for kind in list(self._layers):
            self._drop(kind)
        self._forget()

    def _forget(self) -> None:
        self._layers.clear()
        self._buffers.clear()
        self._data = FactoredCube(self._data.shape)

    def _layer(self, kind: str) -> Image | None:
        layer = self._layers.get(kind)
        return layer if layer is not None and layer in self._viewer.layers else None

    def _drop(self, kind: str) -> None:
        layer = self._layer(kind)
        if layer is not None:
            self._viewer.layers.remove(layer)
        self._layers.pop(kind, None)
        self._buffers.pop(kind, None)

    def _add_band_layer(self) -> None:
        self._layers["band"] = self._viewer.add_image(
            self._data,
            name=self._name,
            contrast_limits=(0.0, 1.0),
            colormap="gray",
            visible=self.watch == "band",
            metadata={KEY: {"kind": RUNNING}},
            **self._place.keywords(3),
        )

    def _add_picture(self, kind: str, picture: np.ndarray) -> None:
        self._buffers[kind] = buffer = picture.copy()
        place = self._place
        words: dict[str, Any] = {"rgb": True}
        if kind == "coefficients":
            # the whole mosaic over the ground of the scene, so that one view holds either
            _, height, width = self._data.shape
            place = place.of_pixels(max(height / picture.shape[0], width / picture.shape[1]))
            words = {"contrast_limits": (0.0, 1.0), "colormap": "gray"}
        self._layers[kind] = self._viewer.add_image(
            buffer,
            name=f"{self._name} ({kind})",
            visible=self.watch == kind,
            metadata={KEY: {"kind": RUNNING}},
            **words,
            **place.keywords(2),
        )


def _redraw(viewer: Viewer, layer: Image) -> None:
    # the list of layers, which shows nothing of it, would be drawn anew
    with viewer.layers.events.blocker():
        layer.refresh(extent=False, thumbnail=False, highlight=False)
