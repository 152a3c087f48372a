"""Two layers as a pair: which are likely one, how they lie, what fusing them will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _layers, api
from .._grid import check_ground, integer_ratio
from .._layers import Placement
from ..cli._console import cost, memory
from ..errors import HSFusionError, PairError
from .layer_choice import cube_or_none

if TYPE_CHECKING:
    import xarray as xr
    from napari.layers import Layer
    from napari.viewer import Viewer


_OPENED = ("cube", "composite", "grey")


@dataclass(frozen=True)
class Outlook:
    """Whether a fusion can start, and what it will take or why it cannot, in words."""

    possible: bool
    text: str


def likely_lr(layer: Layer) -> float:
    """Rank of a layer as LR-HSI: what says it is one, many bands, few pixels, no result."""
    cube = cube_or_none(layer)
    if cube is None:
        return -np.inf
    bands, rows, columns = cube.shape
    score = np.log2(bands) - 0.25 * np.log2(rows * columns)
    if _image_of(cube) == "lr_hsi":
        score += 100.0
    return float(score - 50.0 * _is_result(cube))


def likely_hr(layer: Layer, lr_layer: Layer | None) -> float:
    """Rank of a layer as HR-MSI of an LR-HSI: fitting sizes, few bands, a colour composite."""
    cube, low = cube_or_none(layer), cube_or_none(lr_layer)
    if cube is None or layer == lr_layer:
        return -np.inf
    score = -np.log2(cube.sizes["band"])
    if _layers.kind_of(layer) not in _OPENED and (layer.rgb or layer.ndim == 2):
        score -= 20.0  # a map of errors, or what a running fusion shows
    if low is not None:
        try:
            integer_ratio(low.shape[1:], cube.shape[1:])
        except PairError:
            score -= 200.0
        if cube is low or cube.sizes["band"] >= low.sizes["band"]:
            score -= 100.0
    if _image_of(cube) == "hr_msi":
        score += 50.0
    return float(score - 50.0 * _is_result(cube))


def lay_over(viewer: Viewer, lr_layer: Layer, hr_layer: Layer) -> bool:
    """Lay an LR-HSI over its HR-MSI where nothing says yet how they lie.

    Corners meet (pixels are areas). Images with a georeference, and layers that were
    moved, stay where they are; other layers of the same LR-HSI go along.

    Returns
    -------
    bool
        Whether anything was moved.
    """
    low, high = cube_or_none(lr_layer), cube_or_none(hr_layer)
    if low is None or high is None or low is high:
        return False
    if "transform" in low.attrs or "transform" in high.attrs:
        return False
    untouched = Placement()
    if any(_bare(layer) != untouched for layer in (lr_layer, hr_layer)):
        return False
    try:
        ratio = integer_ratio(low.shape[1:], high.shape[1:])
    except PairError:
        return False
    if ratio == 1:
        return False
    place = untouched.of_pixels(ratio)
    for layer in viewer.layers:
        mine = layer == lr_layer or cube_or_none(layer) is low
        if mine and _bare(layer) == untouched:
            lead = (1.0,) * (layer.ndim - 2), (0.0,) * (layer.ndim - 2)
            layer.scale = lead[0] + place.scale
            layer.translate = lead[1] + place.translate
    return True


def look_ahead(
    lr_hsi: xr.DataArray | None, hr_msi: xr.DataArray | None, options: Mapping[str, Any]
) -> Outlook:
    """Say what a fusion will take, or what is missing for it, without reading a pixel.

    Parameters
    ----------
    lr_hsi, hr_msi : xarray.DataArray, optional
    options : mapping
        Keywords of :func:`napari_hsfusion.api.iter_fuse`.
    """
    missing = [
        name for name, cube in (("an LR-HSI", lr_hsi), ("an HR-MSI", hr_msi)) if cube is None
    ]
    if lr_hsi is None or hr_msi is None:
        return Outlook(False, f"Open or simulate {' and '.join(missing)} first.")
    try:
        check_ground(lr_hsi, hr_msi)
        ratio = integer_ratio(lr_hsi.shape[1:], hr_msi.shape[1:])
        words = ("method", "preset", "device", "samples", "params")
        chosen = {key: options[key] for key in words if key in options}
        estimate = api.expected_cost(lr_hsi.shape, hr_msi.shape, **chosen)
    except HSFusionError as error:
        return Outlook(False, str(error))
    rows, columns = hr_msi.shape[1:]
    text = f"{rows}×{columns}×{lr_hsi.sizes['band']}, ratio {ratio}: {cost(estimate)}"
    free = _free_memory(str(options.get("device", "auto")))
    if free is not None and estimate.get("bytes", 0.0) > free:
        text += (
            f". That is more than the {memory(free)} that are free: where the method knows a way, "
            "it takes less and longer. Else close other images, crop the scene, or choose fewer "
            "dimensions d"
        )
    return Outlook(True, text)


def _free_memory(device: str) -> float | None:
    from ..engine.device import resolve_device
    from ..engine.memory import free_bytes

    return free_bytes(resolve_device(device))


def _bare(layer: Layer) -> Placement:
    """Return the geometry of a layer alone, for comparing."""
    place = _layers.placement_of(layer)
    return Placement(scale=place.scale, translate=place.translate, shear=place.shear)


def _is_result(cube: xr.DataArray) -> bool:
    return any(entry.get("step") == "fuse" for entry in cube.attrs.get("history", []))


def _image_of(cube: xr.DataArray) -> str | None:
    """``lr_hsi`` or ``hr_msi`` for images that a simulation made."""
    for entry in reversed(cube.attrs.get("history", [])):
        if entry.get("step") == "simulate":
            said: str | None = entry.get("image")
            return said
    return None
