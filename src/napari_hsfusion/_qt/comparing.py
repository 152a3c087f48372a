"""Which layers are references, results and observations, and what a comparison holds.

Layers are compared with ``==`` here and wherever they come from a viewer: plugins get
proxies of them, of which there may be several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._layers import Placement, placement_of
from ..cube import wavelengths
from .layer_choice import LayerChoice, cube_or_none, shows_cube
from .maps import MapLayer, labels_of
from .measuring import Gallery, Task

if TYPE_CHECKING:
    import xarray as xr
    from napari.layers import Layer
    from napari.viewer import Viewer

Where = Mapping[tuple[str, int], tuple[Placement, tuple[str, str]]]
"""Placement and axis labels of the map of a key (see :class:`.Drawn`) and a task."""

MAP_KINDS = (
    ("error (RMSE)", "rmse"),
    ("error, this band", "band"),
    ("spectral angle", "sam"),
)
"""Maps against a reference: words and key."""

RESIDUAL_KINDS = (("error (RMSE)", "rmse"), ("spectral angle", "sam"))
"""Maps against the pair."""

_WITH = {"": "", "hsi": " to LR-HSI", "msi": " to HR-MSI"}


class _NoReference:
    """What the choice of no reference holds: to Qt, None is no choice at all."""

    name = "none: the observed pair"


NOTHING = _NoReference()


class ReferenceChoice(LayerChoice):
    """Choice of a layer, or of none."""

    @property
    def layer(self) -> Layer | None:
        """The layer that is chosen."""
        return None if isinstance(self.value, _NoReference) else self.value

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        self.value = NOTHING if layer is None else layer

    def _rows(self, widget: Any) -> list[tuple[str, Any]]:
        return [*super()._rows(widget), (NOTHING.name, NOTHING)]


@dataclass(frozen=True)
class Plan:
    """What maps show: the key of their kind, and words for their names."""

    of: str
    name: str


@dataclass(frozen=True)
class Subject:
    """A layer as it was when a comparison started.

    Attributes
    ----------
    layer : Layer
    name : str
    cube : xarray.DataArray
    scale : float
        Ratio of the resolutions, for ERGAS.
    """

    layer: Layer
    name: str
    cube: xr.DataArray
    scale: float


@dataclass(frozen=True)
class Observed:
    """The pair that results were made of."""

    lr_layer: Layer
    hr_layer: Layer
    lr_hsi: xr.DataArray
    hr_msi: xr.DataArray

    @classmethod
    def of(cls, lr_layer: Layer | None, hr_layer: Layer | None) -> Observed | None:
        """Take both layers; None where one is missing, or both are one image."""
        low, high = cube_or_none(lr_layer), cube_or_none(hr_layer)
        if lr_layer is None or hr_layer is None or low is None or high is None:
            return None
        if lr_layer == hr_layer or low is high:
            return None
        return cls(lr_layer, hr_layer, low, high)


def recorded_scale(cube: xr.DataArray) -> float | None:
    """Ratio of the resolutions that a fused cube's record says, or None."""
    said = (cube.attrs.get("record") or {}).get("scale")
    return None if said is None else float(said)


def says_no_scale(cube: xr.DataArray | None) -> bool:
    """Whether the ratio of a cube's resolutions has to be asked for."""
    return cube is not None and recorded_scale(cube) is None


def is_result(cube: xr.DataArray) -> bool:
    """Whether a cube was fused."""
    return any(entry.get("step") == "fuse" for entry in cube.attrs.get("history", []))


def is_lowered(cube: xr.DataArray) -> bool:
    """Whether a cube is an observation, and no result."""
    past = cube.attrs.get("history", [])
    return any(entry.get("step") == "simulate" for entry in past) and not is_result(cube)


def reference_rank(layer: Any, layers: Iterable[Layer]) -> float:
    """How likely a layer, or none of them, is the reference."""
    if isinstance(layer, _NoReference):
        return 0.0
    cube = cube_or_none(layer)
    if cube is None or is_lowered(cube) or is_result(cube):
        return -1.0
    shapes = [c.shape for c in map(_cube, layers) if c is not None and is_result(c)]
    if cube.shape in shapes:
        return 2.0
    return -0.5 if shapes else 0.5


def worth_a_tick(layer: Layer, reference: Layer | None) -> bool:
    """Whether a layer is compared as long as nobody says otherwise."""
    cube, truth = cube_or_none(layer), cube_or_none(reference)
    if cube is None or layer == reference:
        return False
    return is_result(cube) if truth is None else cube.shape == truth.shape


def map_name(of: str, band: int | None, reference: xr.DataArray | None) -> str:
    """What a map shows, for the name of its layer."""
    if of == "sam":
        return "angle (deg)"
    if reference is None:
        return "residual"
    if band is None:
        return "error"
    centres = wavelengths(reference)
    where = f"band {band + 1}" if centres is None else f"{centres[band]:.0f} nm"
    return f"error, {where}"


def tasks_of(subjects: Sequence[Subject]) -> list[Task]:
    """What the other thread is given, numbered in order."""
    return [Task(key, s.cube, s.scale) for key, s in enumerate(subjects)]


def band_on_show(viewer: Viewer, layer: Layer) -> int:
    """0-based band of a layer that the slider stands at."""
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    at = layer.world_to_data(viewer.dims.point)[-3]
    return min(max(round(float(at)), 0), int(shape[0]) - 1)


def whereabouts(subjects: Sequence[Subject], places: Mapping[str, Layer | None]) -> Where:
    """Where maps belong: over the layer of their key, or over each subject's own."""
    return {
        (key, number): (placement_of(over or s.layer), labels_of(over or s.layer))
        for key, over in places.items()
        for number, s in enumerate(subjects)
    }


def layers_of(
    gallery: Gallery, subjects: Sequence[Subject | None], where: Where, plan: Plan
) -> tuple[list[MapLayer], list[str]]:
    """Turn maps into layers, and what could not be drawn into words.

    Parameters
    ----------
    gallery : Gallery
    subjects : sequence of Subject or None
        By the key of the task; None for a layer that has gone.
    where : mapping
    plan : Plan
    """
    maps, problems = [], []
    for drawn in gallery.drawn:
        subject = subjects[drawn.key]
        if subject is None:
            continue
        if drawn.problem:
            problems.append(f"{subject.layer.name}: {drawn.problem}")
        for key, image in drawn.maps.items():
            place, labels = where[key, drawn.key]
            title = f"{subject.layer.name}: {plan.name}{_WITH[key]}"
            maps.append(MapLayer(image, title, plan.of, key, gallery.limits[key], place, labels))
    maps.sort(key=lambda one: one.group)
    return maps, problems


def _cube(layer: Layer) -> xr.DataArray | None:
    return cube_or_none(layer) if shows_cube(layer) else None
