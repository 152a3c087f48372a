"""A choice of a spectral response, with its curves over the cube's wavelengths."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, LineEdit

from .._responses import cube_response, stored
from ..errors import HSFusionError, ResponseError
from ..sensors.catalogue import SensorCurve, sensor_names
from ..sensors.curves import response_curves
from ..sensors.srf import Response, as_path
from ..sensors.tables import SUFFIXES
from .band_chips import BandChips
from .latest import Latest
from .response_plot import ResponsePlot
from .rows import row, sentence

if TYPE_CHECKING:
    import xarray as xr
    from napari.viewer import Viewer

SENSOR, GAUSSIANS, FILE = "Sensor", "Gaussian bands", "File"
_EXAMPLE = "480/70, 560/60, 660/60, 835/120"


@dataclass(frozen=True)
class _Found:
    """What a specification amounts to: its curves, and its weights on the cube's bands."""

    names: tuple[str, ...]
    curves: tuple[SensorCurve, ...]
    response: Response | None
    trouble: str | None
    partial: bool = False  # of all bands only some can be had, and they must be named


class SRFPicker(Container):
    """How the multispectral sensor sees the cube's bands; its curves are drawn.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    extra : mapping of str to object, optional
        Choices of the caller's own, named first: ``{"Stored": None, "Estimated":
        "estimate"}``. The value of one is returned as it is; the curves of None are those
        stored with the cube.
    """

    def __init__(self, viewer: Viewer, extra: Mapping[str, Any] | None = None) -> None:
        self._extra = dict(extra or {})
        self._cube: xr.DataArray | None = None
        self._found: _Found | None = None
        # None: every band that the cube covers
        self._picked: tuple[str, ...] | None = None
        self.kind = ComboBox(
            choices=[*self._extra, SENSOR, GAUSSIANS, FILE],
            tooltip="Where the sensor's spectral response comes from.",
        )
        self.sensor = ComboBox(
            choices=sensor_names(), tooltip="Satellite sensor whose measured curves are taken."
        )
        self.gaussians = LineEdit(
            value=_EXAMPLE,
            tooltip="Centre and full width at half maximum of every band in nm: "
            f"CENTRE/FWHM, CENTRE/FWHM, … such as {_EXAMPLE}",
        )
        patterns = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        self.file = FileEdit(
            mode=FileDialogMode.EXISTING_FILE,
            filter=f"Responses ({patterns})",
            tooltip="CSV with a column wavelength_nm and one column a band, or a matrix.",
            nullable=True,
            value=None,
        )
        for part in (self.kind, self.sensor, self.file):
            part.changed.connect(self._forget_bands)
        self._sensor_row = row("Sensor", self.sensor)
        self._gaussian_row = row("nm", self.gaussians)
        self._file_row = row("File", self.file)
        super().__init__(
            widgets=[row("SRF", self.kind), self._sensor_row, self._gaussian_row, self._file_row],
            labels=False,
        )
        self.margins = (0, 0, 0, 0)
        self.chips = BandChips()
        self.plot = ResponsePlot(viewer)
        self.caption = sentence()
        for native in (self.chips, self.plot, self.caption):
            self.native.layout().addWidget(native)
        self.chips.picked.connect(self._chip_clicked)
        self._drawing = Latest(_find, self._show, self.native)
        self.changed.connect(self._refresh)
        self._refresh()

    @property
    def value(self) -> Any:
        """What :func:`napari_hsfusion.api.simulate` and ``fuse`` take as `srf`.

        None where bands or a file are still to be chosen, unless a choice of the
        caller's own means it.
        """
        base = self._base()
        if self.kind.value in self._extra:
            return base
        if not base or self._picked is None:
            return base or None
        return f"{base}:{','.join(self._picked)}" if self._picked else None

    @property
    def response(self) -> Response | None:
        """Response on the cube's bands, as it is drawn; None while there is none."""
        found = self._found
        if found is None or found.response is None or self._picked is None:
            return None if found is None else found.response
        rows = [found.response.names.index(name) for name in self._picked]
        if not rows:
            return None
        return replace(
            found.response, matrix=found.response.matrix[rows], names=self._picked, dropped=()
        )

    @property
    def busy(self) -> bool:
        """Whether the picture still has to follow the choice."""
        return self._drawing.busy

    def set_cube(self, cube: xr.DataArray | None) -> None:
        """Take the cube on whose bands the response is drawn."""
        if cube is not self._cube:
            self._cube = cube
            self._refresh()

    def pick(self, bands: Sequence[str] | None) -> None:
        """Pick bands of the sensor or file; None takes all that the cube covers."""
        self._picked = None if bands is None else tuple(bands)
        self.changed.emit(self)

    def _base(self) -> Any:
        kind = self.kind.value
        if kind in self._extra:
            return self._extra[kind]
        if kind == SENSOR:
            return str(self.sensor.value)
        if kind == GAUSSIANS:
            text = "".join(self.gaussians.value.split()).strip(",;").replace(";", ",")
            return f"gaussian:{text}" if text else ""
        return "" if self.file.value is None else str(self.file.value)

    def _forget_bands(self, _: Any = None) -> None:
        self._picked = None

    def _refresh(self, _: Any = None) -> None:
        kind = self.kind.value
        self._sensor_row.visible = kind == SENSOR
        self._gaussian_row.visible = kind == GAUSSIANS
        self._file_row.visible = kind == FILE
        spec = self._base()
        if kind in self._extra and spec is None and self._cube is not None:
            spec = _stored_response(self._cube)
        if kind in self._extra and spec is None:
            self._clear("No SRF is stored with the images.")
        elif kind in self._extra and isinstance(spec, str) and spec == "estimate":
            self._clear("Estimated from the pair when it runs.")
        elif kind == FILE and not spec:
            self._clear("Choose a file with the response of every band.")
        elif not spec:
            self._clear("Give the centre and width of every band, in nm.")
        else:
            self._drawing.ask(spec, self._cube)
            return
        self._drawing.forget()

    def _clear(self, words: str) -> None:
        self._found = None
        self.chips.show_bands((), (), ())
        self.plot.setVisible(False)
        self.caption.setText(words)

    def _show(self, found: _Found | None, trouble: str | None) -> None:
        if found is None:
            self._clear(trouble or "")
            return
        self._found = found
        if found.response is not None:
            covered = found.response.names
        else:
            covered = found.names if found.trouble is None else ()
        before = self._picked
        if before is not None:
            self._picked = tuple(name for name in before if name in covered)
            if before and not self._picked:
                self._picked = None
        if self._picked is None and found.partial:
            self._picked = covered
        pickable = self.kind.value in (SENSOR, FILE)
        checked = covered if self._picked is None else self._picked
        self.chips.show_bands(found.names if pickable else (), covered, checked)
        self._draw()
        if self._picked != before:
            self.changed.emit(self)

    def _chip_clicked(self) -> None:
        checked = self.chips.checked
        partial = self._found is not None and self._found.partial
        everything = checked == self.chips.available and not partial
        self._picked = None if everything else checked
        self._draw()
        self.changed.emit(self)

    def _draw(self) -> None:
        found = self._found
        if found is None:
            return
        used = self.response
        shown = found.names if self._picked is None else self._picked
        self.plot.setVisible(True)
        self.plot.draw_response(found.names, found.curves, used, self._cube, shown)
        self.caption.setText(_in_words(found, used, self._cube, self._picked))


def _find(spec: Any, cube: xr.DataArray | None) -> _Found:
    """Curves and weights of a specification (called in another thread)."""
    curves: list[SensorCurve] = []
    if isinstance(spec, str):
        curves = response_curves(spec)
    names = tuple(curve.name for curve in curves)
    if cube is None:
        return _Found(names, tuple(curves), None, None)
    try:
        response = cube_response(spec, cube, "cube")
    except HSFusionError as error:
        some = _covered(spec, names, cube) if as_path(str(spec))[0] is not None else None
        return _Found(names, tuple(curves), some, str(error), partial=some is not None)
    return _Found(names or response.names, tuple(curves), response, None)


def _covered(spec: str, names: Sequence[str], cube: xr.DataArray) -> Response | None:
    """Response of those columns of a file that the cube covers; None if there is none."""
    found = []
    for name in names:
        with contextlib.suppress(ResponseError):
            found.append(cube_response(f"{spec}:{name}", cube, "cube"))
    if not found:
        return None
    kept = tuple(response.names[0] for response in found)
    return replace(
        found[0],
        matrix=np.concatenate([response.matrix for response in found]),
        names=kept,
        dropped=tuple(name for name in names if name not in kept),
    )


def _stored_response(cube: xr.DataArray) -> Any:
    """Matrix stored with a cube, under the bands' names; None if there is none."""
    matrix = stored("srf", cube)
    if matrix is None:
        return None
    weights = np.asarray(matrix, dtype=np.float64)
    names = tuple(str(name) for name in stored("bands", cube) or ())
    if weights.ndim != 2 or len(names) != len(weights):
        return weights
    return Response(weights, None, names, str(stored("srf_source", cube) or "stored"))


def _in_words(
    found: _Found,
    used: Response | None,
    cube: xr.DataArray | None,
    picked: tuple[str, ...] | None,
) -> str:
    if found.trouble is not None and found.response is None:
        return found.trouble
    if cube is None:
        return "Choose a cube to see the response on its bands."
    if picked == () or used is None:
        return "Choose at least one band."
    text = f"{len(used.names)} bands, over the cube's {used.matrix.shape[1]}."
    dropped = found.response.dropped if found.response is not None else ()
    if dropped:
        text += f" The cube does not cover {', '.join(dropped)}."
    return text
