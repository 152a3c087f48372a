"""Cubes as napari layers and back: data, placement on the canvas, metadata. No Qt.

World coordinates are those of the cube's CRS, y turned to point down, less a round
origin (see :class:`Placement`): two images of one scene lie on each other exactly,
whatever their pixel sizes. The band axis stays an index in pixels.
"""

from __future__ import annotations

from .back import cube_of, is_image, kind_of, layer_cube, origin_of, placement_of
from .pictures import composite_picture, overview_steps, sampled_limits
from .placement import AXES, Placement, placement
from .show import (
    KEY,
    MSI_BANDS,
    LayerData,
    band_layer,
    composite_layer,
    cube_layers,
    metadata,
)

__all__ = [
    "AXES",
    "KEY",
    "MSI_BANDS",
    "LayerData",
    "Placement",
    "band_layer",
    "composite_layer",
    "composite_picture",
    "cube_layers",
    "cube_of",
    "is_image",
    "kind_of",
    "layer_cube",
    "metadata",
    "origin_of",
    "overview_steps",
    "placement",
    "placement_of",
    "sampled_limits",
]
