"""The Spectrum dock: what the cubes on show hold under the cursor, at points, in regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari.viewer
import numpy as np
from magicgui.widgets import CheckBox, ComboBox, Container, PushButton
from napari.layers import Shapes
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QSizePolicy, QWidget
from superqt import QFlowLayout

from .. import cube as cubes
from ..errors import HSFusionError, ParameterError
from .curves import SpectrumPlot
from .links import Links
from .pins import Pins
from .pointer import Pointer
from .readings import Readings
from .rows import fill_dock
from .spectra import Shown, Spectrum, bare
from .spectrum_export import write_csv

_MOUSE_MS = 30
"""The spectrum under the cursor is read so often at most."""

_SETTLE_MS = 60
"""What changes together (layers, pins, shapes) is read again once."""


class SpectrumWidget(Container):
    """Spectra of all visible cubes: under the cursor, at pinned points, in regions.

    Bands that are marked as bad, and values that are missing, are gaps in the curves.
    What lies in a file is read in another thread. While the dock is hidden it follows
    nothing.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    plot : SpectrumPlot
    pins : Pins
    readings : Readings
    regions : magicgui ComboBox
        Shapes layer whose shapes are regions; None for no regions.
    lock : magicgui CheckBox
        Keeps the range of values.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = viewer
        self._links, self._layer_links = Links(), Links()
        self._moved_to: tuple[float, float] | None = None
        self.plot = SpectrumPlot(viewer)
        self.pins = Pins(viewer, self._settle)
        self.readings = Readings(self.native, viewer, self.pins, self._draw)
        self.pointer = Pointer(viewer, self._mouse_moved, self.pin_at)
        self._make_controls()
        self._mouse_timer = self._timer(_MOUSE_MS, self._mouse_rested)
        self._settle_timer = self._timer(_SETTLE_MS, self.refresh)
        self._connect()
        self.attach()

    def _make_controls(self) -> None:
        self.pin_button = PushButton(
            text="Pin", tooltip="Keep the spectra of the last place under the mouse (Shift+click)."
        )
        self.clear_button = PushButton(
            text="Clear", tooltip="Take all pins away. A single one is deleted in its layer."
        )
        self.regions = ComboBox(
            choices=self._region_choices,
            value=None,
            tooltip="Shapes layer: each shape gives mean ± standard deviation, numbered in the "
            "order of drawing.",
        )
        self.lock = CheckBox(
            text="Lock", tooltip="Keep the range of the axes. Off: they follow the curves."
        )
        self.export_button = PushButton(
            text="Export…", tooltip="Write the curves as CSV, or the plot as PNG."
        )
        row = QWidget()
        flow = QFlowLayout(row)
        flow.setContentsMargins(0, 0, 0, 0)
        for control in (
            self.pin_button,
            self.clear_button,
            self.regions,
            self.lock,
            self.export_button,
        ):
            flow.addWidget(control.native)
        row.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.regions.native.setMaximumWidth(150)
        self.margins = (4, 4, 4, 4)
        layout = self.native.layout()
        layout.setSpacing(4)
        layout.addWidget(row)
        layout.addWidget(self.plot, 1)
        fill_dock(self.native)

    def _connect(self) -> None:
        self.pin_button.changed.connect(self._pin_pressed)
        self.clear_button.changed.connect(self._clear_pressed)
        self.export_button.changed.connect(self._export_pressed)
        self.regions.changed.connect(self._settle)
        self.lock.changed.connect(self.plot.lock)
        self.plot.dragged.connect(self.set_band_at)
        self.plot.released.connect(self._follow_slider)
        self.plot.zoomed.connect(self._zoomed)
        self.plot.seen.connect(self._seen)

    def _timer(self, milliseconds: int, then: Callable[[], None]) -> QTimer:
        timer = QTimer(self.native)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(then)
        return timer

    def _region_choices(self, _: Any) -> list[tuple[str, Any]]:
        layers = [bare(layer) for layer in self._viewer.layers]
        shapes = [(layer.name, layer) for layer in layers if isinstance(layer, Shapes)]
        return [("No regions", None), *shapes]

    # -- what the dock shows

    @property
    def spectra(self) -> list[Spectrum]:
        """Curves that are shown now: cursor, pins, regions."""
        return self.readings.spectra

    @property
    def busy(self) -> bool:
        """Whether something is still to be read."""
        return self.readings.busy

    def refresh(self) -> None:
        """Take layers, pins and regions as they are now, and read their spectra again."""
        self._settle_timer.stop()
        self.readings.refresh(self.regions.value)
        self._follow_slider()

    def show_at(self, world: Sequence[float]) -> None:
        """Show the spectra at a world position; its last two numbers are y and x."""
        self.readings.show_at((float(world[-2]), float(world[-1])))

    def pin_at(self, world: Sequence[float]) -> None:
        """Pin a world position; its last two numbers are y and x."""
        place = float(world[-2]), float(world[-1])
        under = [one for one in self.readings.shown if one.pixel(place) is not None]
        if not under:
            show_warning("There is no visible cube at this point: nothing to pin.")
            return
        self.pins.add(place, under[0])
        self.refresh()

    def set_band_at(self, x: float) -> None:
        """Move the viewer's slider to the band of the reference nearest to `x`.

        The reference is the selected layer if it is a cube, else the topmost cube.

        Parameters
        ----------
        x : float
            nm, or a band number where the axis has these.
        """
        reference = self._reference()
        if reference is None:
            return
        band = int(np.argmin(np.abs(self._axis(reference) - x)))
        world = float(reference.layer.data_to_world((band, 0, 0))[0])
        dims = self._viewer.dims
        if dims.point[dims.ndim - 3] != world:
            dims.set_point(dims.ndim - 3, world)
        self._follow_slider()

    def export(self, path: str | Path) -> Path:
        """Write what is shown: the curves as .csv, or the plot as .png.

        Raises
        ------
        ParameterError
            If the name ends in neither, or there is no curve.
        WriteError
            If it could not be written; what stood there before still does.
        """
        target = Path(path)
        kind = target.suffix.lower()
        if kind not in (".csv", ".png"):
            raise ParameterError(f"{target.name}: expected a name that ends in .csv or .png")
        if not self.spectra:
            raise ParameterError("no spectrum is shown: move over a cube, or pin a point")
        return write_csv(target, self.spectra) if kind == ".csv" else self.plot.save_png(target)

    def _draw(self) -> None:
        reference = self._reference()
        empty = None
        if reference is not None:
            centres = cubes.wavelengths(reference.cube)
            numbers = np.arange(1.0, reference.cube.sizes["band"] + 1)
            x = numbers if centres is None else centres
            empty = (float(x.min()), float(x.max()), centres is not None)
        self.plot.show_spectra(self.spectra, empty)
        self._follow_slider()

    # -- the band on show

    def _reference(self) -> Shown | None:
        cubes_shown = [one for one in self.readings.shown if one.layer.ndim == 3]
        active = bare(self._viewer.layers.selection.active)
        for one in cubes_shown:
            if one.layer is active:
                return one
        return cubes_shown[0] if cubes_shown else None

    def _axis(self, shown: Shown) -> np.ndarray:
        centres = cubes.wavelengths(shown.cube) if self.plot.in_nm else None
        return np.arange(1.0, shown.cube.sizes["band"] + 1) if centres is None else centres

    def _follow_slider(self, event: Any = None) -> None:
        reference = self._reference()
        dims = self._viewer.dims
        if reference is None or dims.ndim < 3 or (dims.ndisplay == 3):
            self.plot.mark(None)
            return
        band = round(float(reference.layer.world_to_data(dims.point)[-3]))
        centres = cubes.wavelengths(reference.cube)
        if not 0 <= band < reference.cube.sizes["band"]:
            self.plot.mark(None)
            return
        number = f"band {band + 1}"
        text = number if centres is None else f"{centres[band]:.5g} nm ({number})"
        self.plot.mark(float(self._axis(reference)[band]), text)

    # -- when it listens

    @property
    def attached(self) -> bool:
        """Whether the dock follows the viewer: not while it is hidden."""
        return self.pointer.attached

    def attach(self) -> None:
        """Follow the viewer, and show it as it is."""
        if self.attached:
            return
        self.pointer.attach()
        layers = self._viewer.layers
        for event in ("inserted", "removed", "reordered", "renamed"):
            self._links.connect(getattr(layers.events, event), self._layers_changed)
        self._links.connect(layers.selection.events.active, self._follow_slider)
        self._links.connect(self._viewer.dims.events.point, self._follow_slider)
        self._links.connect(self._viewer.dims.events.ndisplay, self._follow_slider)
        self._layers_changed()
        self.refresh()

    def detach(self) -> None:
        """Leave the viewer alone: no callback, timer or question is left."""
        self.pointer.detach()
        self._links.clear()
        self._layer_links.clear()
        self.pins.release()
        self._mouse_timer.stop()
        self._settle_timer.stop()
        self.readings.forget()

    def _seen(self, seen: bool) -> None:
        if seen:
            self.attach()
        else:
            self.detach()

    def _layers_changed(self, event: Any = None) -> None:
        self._layer_links.clear()
        for layer in self._viewer.layers:
            events = [layer.events.visible, layer.events.data, layer.events.extent]
            for one in (*events, layer.events.metadata):
                self._layer_links.connect(one, self._settle)
        self.regions.reset_choices()
        self._settle()

    def _settle(self, event: Any = None) -> None:
        if self.attached:
            self._settle_timer.start()

    def _mouse_moved(self, place: tuple[float, float]) -> None:
        self._moved_to = place
        if not self._mouse_timer.isActive():
            self._mouse_timer.start()

    def _mouse_rested(self) -> None:
        if self._moved_to is not None:
            self.show_at(self._moved_to)

    # -- buttons

    def _pin_pressed(self) -> None:
        place = self.readings.last_place
        if place is None:
            show_info("Move the mouse over a visible cube first; then Pin keeps that point.")
        else:
            self.pin_at(place)

    def _clear_pressed(self) -> None:
        self.pins.clear()
        self.refresh()

    def _zoomed(self) -> None:
        self.lock.value = True

    def _export_pressed(self) -> None:
        name, chosen = QFileDialog.getSaveFileName(
            self.native, "Export spectra", "spectra.csv", "CSV (*.csv);;PNG (*.png)"
        )
        if not name:
            return
        if not Path(name).suffix:
            name += ".png" if chosen.startswith("PNG") else ".csv"
        try:
            show_info(f"Written: {self.export(name)}")
        except HSFusionError as error:
            show_error(str(error))
