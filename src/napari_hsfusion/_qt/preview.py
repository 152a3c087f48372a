"""The layers of a running fusion: they sharpen in place, and become the result.

The estimate stays factored until the end: drawing a band costs a band, and no cube is
held twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .. import cube as cubes
from .._layers import Placement, metadata
from .fusing import WATCH, Factors, Fused, Snapshot

if TYPE_CHECKING:
    from napari.layers import Image, Layer
    from napari.viewer import Viewer


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
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
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

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    name : str
        Of the result.
    lr_hsi : xarray.DataArray
        Gives bands and wavelengths.
    shape : (H, W)
    place : Placement
        Of the HR-MSI.
    limits : tuple of float
        Contrast limits of the cube's layer.
    """

    def __init__(
        self,
        viewer: Viewer,
        name: str,
        lr_hsi: xr.DataArray,
        shape: tuple[int, int],
        place: Placement,
        limits: tuple[float, float],
    ) -> None:
        self._viewer = viewer
        self._name = name
        self._lr_hsi = lr_hsi
        self._place = place
        self._limits = limits
        self._data = FactoredCube((lr_hsi.sizes["band"], *shape))
        self._layers: dict[str, Image] = {}
        self._buffers: dict[str, np.ndarray] = {}
        self._shown = False
        self.watch = "composite"

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
        return self._shown and not self.alive

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot; the first one adds the layers."""
        self._data.update(snapshot.factors)
        if not self._shown:
            self._shown = True
            self._add_band_layer()
        band = self._layer("band")
        if band is not None and band.visible:
            _redraw(band)
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
            _redraw(layer)

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
        cube = fused.cube
        self._remake_composite(fused)
        band = self._layer("band")
        if band is None:
            self._add_band_layer()
            band = self._layers["band"]
        band.data = cube.data
        band.metadata = {**band.metadata, **metadata(cube, "cube", self._place)}
        band.visible = True
        self._viewer.layers.move(self._viewer.layers.index(band), len(self._viewer.layers))
        self._viewer.layers.selection.active = band
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
            contrast_limits=self._limits,
            colormap="gray",
            visible=self.watch == "band",
            metadata=self._metadata(),
            **self._place.keywords(3),
        )

    def _add_picture(self, kind: str, picture: np.ndarray) -> None:
        self._buffers[kind] = buffer = picture.copy()
        place = self._place
        words: dict[str, Any] = {"rgb": True}
        if kind == "coefficients":
            # the whole mosaic over the ground of the scene, so that one view holds either
            factor = self._data.shape[1] / picture.shape[0], self._data.shape[2] / picture.shape[1]
            place = place.of_pixels(max(factor))
            words = {"contrast_limits": (0.0, 1.0), "colormap": "gray"}
        self._layers[kind] = self._viewer.add_image(
            buffer,
            name=f"{self._name} ({kind})",
            visible=self.watch == kind,
            **words,
            **place.keywords(2),
        )

    def _remake_composite(self, fused: Fused) -> None:
        if self._shown and "composite" in self._layers and self._layer("composite") is None:
            self._layers.pop("composite")
            self._buffers.pop("composite")
        if "composite" not in self._layers:
            self._add_picture("composite", fused.picture)
        layer = self._layers["composite"]
        self._buffers["composite"][...] = fused.picture
        layer.metadata = {**layer.metadata, **metadata(fused.cube, "composite", self._place)}
        _redraw(layer, thumbnail=True)

    def _metadata(self) -> dict[str, Any]:
        centres = cubes.wavelengths(self._lr_hsi)
        return {} if centres is None else {"wavelengths_nm": centres.tolist()}


def _redraw(layer: Image, thumbnail: bool = False) -> None:
    layer.refresh(extent=False, thumbnail=thumbnail, highlight=False)
