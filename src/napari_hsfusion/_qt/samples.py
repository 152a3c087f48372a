"""Sample scenes in a running napari, where the band on show is named.

Without a window everything is as in :mod:`napari_hsfusion._sample_data`.
"""

from __future__ import annotations

from .. import _sample_data
from .._layers import LayerData
from .open_files import has_window, name_bands_soon


def demo_pair() -> list[LayerData]:
    """As :func:`napari_hsfusion._sample_data.demo_pair`."""
    return _named(_sample_data.demo_pair())


def indian_pines() -> list[LayerData]:
    """As :func:`napari_hsfusion._sample_data.indian_pines`."""
    return _named(_sample_data.indian_pines())


def pavia_university() -> list[LayerData]:
    """As :func:`napari_hsfusion._sample_data.pavia_university`."""
    return _named(_sample_data.pavia_university())


def _named(layers: list[LayerData]) -> list[LayerData]:
    if has_window():
        name_bands_soon()
    return layers
