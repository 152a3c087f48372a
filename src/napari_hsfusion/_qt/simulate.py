"""The Simulate form: the pair that two sensors would see of a cube."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari.viewer
from magicgui.widgets import CheckBox, Container, LineEdit, PushButton, SpinBox
from napari.layers import Layer
from napari.utils import progress
from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QApplication

from .. import _layers, api
from .._forecast import Forecast, fitting_size
from .._layers import LayerData
from .._numbers import seed_from_text
from ..errors import HSFusionError, ParameterError
from .latest import Latest
from .layer_choice import LayerChoice, cube_or_none
from .links import Links
from .overlay import attach
from .psf_picker import PSFPicker
from .rows import NoiseRow, column, fill_dock, row, sentence
from .simulating import (
    likely_reference,
    look_ahead,
    may_be_reference,
    simulated_layers,
    with_layer,
)
from .srf_picker import SRFPicker
from .worker import Job, JobError, JobState, run_job

if TYPE_CHECKING:
    import xarray as xr

_TITLE = "Simulating"
_LARGEST_RATIO = 64
_WIDTH = 350  # pixels: all of a noise level, beside a scroll bar


class SimulateWidget(Container):
    """Make an LR-HSI and an HR-MSI of a cube in the viewer, as layers over it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    job : Job or None
        The run in progress, or the last one.
    outlook : str
        What will come out, or what does not fit, in words.
    result : xarray.DataArray or None
        The LR-HSI of the last pair that was made.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = viewer
        self._links = Links()
        self._bar: Any = None
        self._subject: Any = None
        self._orphaned = False
        self._fits = False
        self.job: Job | None = None
        self.result: xr.DataArray | None = None
        self.outlook = ""
        self._looking = Latest(look_ahead, self._looked, self.native)
        self._make_controls()
        self._arrange()
        self._connect()
        self._reference_changed()

    # -- what is in the form

    def _make_controls(self) -> None:
        self.reference = LayerChoice(
            self._viewer,
            may_be_reference,
            likely_reference,
            tooltip="The cube that both sensors look at: the truth of the experiment.",
        )
        self.ratio = SpinBox(
            value=4,
            min=1,
            max=_LARGEST_RATIO,
            tooltip="How many HR pixels lie along one side of an LR pixel.",
        )
        self.psf = PSFPicker(self._viewer, self.ratio.value)
        self.srf = SRFPicker(self._viewer)
        self.snr = NoiseRow(
            "SNR",
            tooltip="Signal-to-noise ratio of both images in dB: white Gaussian noise.",
        )
        self.seed = LineEdit(
            value="0", tooltip="The same seed gives the same noise (0 to 2^63 - 1)."
        )
        self.advanced_button = PushButton(
            text="▸ Advanced", tooltip="A noise level for each image; cropping."
        )
        self.apart = CheckBox(
            value=False,
            text="Another noise level for each image",
            tooltip="Give the LR-HSI and the HR-MSI signal-to-noise ratios of their own.",
        )
        self.snr_hsi = NoiseRow("LR-HSI", tooltip="Signal-to-noise ratio of the LR-HSI in dB.")
        self.snr_msi = NoiseRow("HR-MSI", tooltip="Signal-to-noise ratio of the HR-MSI in dB.")
        self.crop = CheckBox(
            value=False,
            text="Crop to a multiple of the ratio",
            tooltip="Cut off rows at the bottom and columns at the right that no LR pixel fills.",
        )
        self.crop_button = PushButton(text="Crop", tooltip="Tick the cropping under Advanced.")
        self.run_button = PushButton(
            text="Run", tooltip="Make both images and add them as layers.", enabled=False
        )
        self.cancel_button = PushButton(
            text="Cancel", tooltip="Throw the result away; no layer is added.", enabled=False
        )
        self.script_button = PushButton(
            text="Copy as script",
            tooltip="Python lines that make the last pair again, to the clipboard.",
            enabled=False,
        )

    def _arrange(self) -> None:
        self.advanced = column([self.apart, self.snr_hsi, self.snr_msi, self.crop])
        self.form = Container(
            widgets=[
                column([row("Reference", self.reference), row("Ratio", self.ratio)]),
                self.psf,
                self.srf,
                column([self.snr, row("Seed", self.seed)]),
                self.advanced_button,
                self.advanced,
            ],
            labels=False,
            scrollable=True,
        )
        self.form.margins = (0, 0, 4, 0)
        self.buttons = Container(
            widgets=[self.run_button, self.cancel_button], layout="horizontal", labels=False
        )
        self.buttons.margins = (0, 0, 0, 0)
        self.advanced.visible = False
        self.summary = sentence()
        self.summary.setToolTip("What will come out of a run, or why it cannot start.")
        self.form.native.layout().addStretch(1)
        self.extend([self.crop_button, self.buttons, self.script_button])
        self.crop_button.visible = False
        layout = self.native.layout()
        # as a child, magicgui would take the form out of its scroll area
        layout.insertWidget(0, self.form.root_native_widget, 1)
        layout.insertWidget(1, self.summary)
        self.native.setMinimumWidth(_WIDTH)
        fill_dock(self.native)

    def _connect(self) -> None:
        self.reference.changed.connect(self._reference_changed)
        self.ratio.changed.connect(self.psf.set_ratio)
        for part in (self.ratio, self.psf, self.srf, self.snr, self.seed, self.advanced):
            part.changed.connect(self._refresh)
        self.advanced_button.changed.connect(self._toggle_advanced)
        self.crop_button.changed.connect(self._take_crop)
        self.run_button.changed.connect(self.run)
        self.cancel_button.changed.connect(self.cancel)
        self.script_button.changed.connect(self.copy_script)
        self._links.connect(self._viewer.layers.events.removed, self._layer_removed)
        self.native_parent_changed.connect(self._moved)
        self.native.destroyed.connect(self._closed)

    # -- what it says

    @property
    def running(self) -> bool:
        """Whether a simulation is in progress."""
        return self.job is not None and not self.job.over

    @property
    def busy(self) -> bool:
        """Whether the outlook or a picture still has to follow the form."""
        return self._looking.busy or self.psf.busy or self.srf.busy

    def values(self) -> dict[str, Any]:
        """Keywords of :func:`napari_hsfusion.api.simulate`, the cube apart.

        Raises
        ------
        ParameterError
            If the seed is no whole number in range, or a file or the bands of the SRF
            are still to be chosen.
        """
        if not self.psf.value:
            raise ParameterError("choose the file of the PSF's kernel")
        if self.srf.value is None:
            raise ParameterError("choose the bands of the SRF, or its file")
        made = {
            "scale": int(self.ratio.value),
            "psf": self.psf.value,
            "srf": self.srf.value,
            "snr_db": self.snr.value,
            "seed": seed_from_text(self.seed.value),
            "crop": bool(self.crop.value),
        }
        if self.apart.value:
            levels = {"snr_hsi": self.snr_hsi.value, "snr_msi": self.snr_msi.value}
            made |= {"snr_db": None, **levels}
        return made

    def _reference_changed(self, *_: object) -> None:
        self.srf.set_cube(cube_or_none(self.reference.value))
        self._refresh()

    def _refresh(self, *_: object) -> None:
        self.snr.enabled = not self.apart.value
        for level in (self.snr_hsi, self.snr_msi):
            level.visible = bool(self.apart.value)
        cube = cube_or_none(self.reference.value)
        misfit = self._offer_crop(cube)
        if cube is None:
            self._say("Open a cube first: a layer with the axes band, y, x.", False)
            return
        try:
            values = self.values()
        except HSFusionError as error:
            self._say(_sentence(str(error)), False)
            return
        if misfit:
            rows, columns = cube.shape[1:]
            self._say(
                f"{rows} × {columns} pixels are no multiple of the ratio {self.ratio.value}.", False
            )
            return
        self._looking.ask(cube, {key: values[key] for key in ("scale", "psf", "srf", "crop")})

    def _offer_crop(self, cube: xr.DataArray | None) -> bool:
        """Offer what makes the size fit, where something does; whether it did."""
        rows, columns = (0, 0) if cube is None else cube.shape[1:]
        fit = fitting_size(rows, columns, int(self.ratio.value))
        offered = fit != (rows, columns) and 0 not in fit and not self.crop.value
        self.crop_button.visible = offered
        if offered:
            self.crop_button.text = f"Crop to {fit[0]} × {fit[1]}"
        return offered

    def _looked(self, ahead: Forecast | None, trouble: str | None) -> None:
        if ahead is None:
            self._say(_sentence(trouble or ""), False, forget=False)
            return
        (bands, rows, columns), (channels, height, width) = ahead.lr_hsi, ahead.hr_msi
        text = f"LR-HSI {rows} × {columns} × {bands}, HR-MSI {height} × {width} × {channels}"
        self._say(text, True, forget=False)

    def _say(self, text: str, possible: bool, forget: bool = True) -> None:
        if forget:
            self._looking.forget()
        self.outlook, self._fits = text, possible
        if not self.running:
            self.summary.setText(text)
            self.run_button.enabled = possible

    def _toggle_advanced(self, *_: object) -> None:
        # not what is seen now: the form may lie behind another
        shown = self.advanced.native.isHidden()
        self.advanced.visible = shown
        self.advanced_button.text = "▾ Advanced" if shown else "▸ Advanced"

    def _take_crop(self, *_: object) -> None:
        self.crop.value = True

    # -- what it does

    def run(self, *_: object) -> Job | None:
        """Start a simulation; None, and a warning, where it cannot start."""
        if self.running:
            return self.job
        layer = self.reference.value
        cube = cube_or_none(layer)
        if layer is None or cube is None:
            show_warning(f"{_TITLE}: open a cube first, a layer with the axes band, y, x.")
            return None
        try:
            values = self.values()
        except HSFusionError as error:
            show_warning(f"{_TITLE}: {error}")
            return None
        self._subject, self._orphaned = layer.unique_id, False
        self._bar = progress(total=0, desc=_TITLE)
        self.job = run_job(
            simulated_layers,
            with_layer(cube, layer.name),
            values,
            layer.name.removesuffix(" (composite)"),
            _layers.placement_of(layer),
            title=_TITLE,
            on_result=self._result,
            on_error=self._failed,
            on_cancelled=self._cancelled,
            on_end=self._ended,
            on_state=self._state_changed,
        )
        self._state_changed(self.job.state)
        return self.job

    def cancel(self, *_: object) -> None:
        """Let the run come to nothing: no layer is added."""
        if self.job is not None:
            self.job.cancel()

    def copy_script(self, *_: object) -> Job | None:
        """Put the lines that make the last pair again on the clipboard."""
        if self.result is None:
            show_warning("Copy as script: no pair has been made yet.")
            return None
        # the script names the image's digest, which takes a while of a large one
        return run_job(
            api.as_script, self.result, title="Copy as script", on_result=self._script_came
        )

    def _script_came(self, script: str) -> None:
        QApplication.clipboard().setText(script)
        show_info("The script is on the clipboard.")

    def _result(self, made: list[LayerData]) -> None:
        layers = [Layer.create(data, dict(words), kind) for data, words, kind in made]
        for layer in layers:
            self._viewer.add_layer(layer)
        attach(self._viewer)
        self.result = _layers.layer_cube(layers[-1])
        self.script_button.enabled = True
        self.summary.setText(f"Added {' and '.join(layer.name for layer in layers)}.")

    def _failed(self, error: JobError) -> None:
        self.summary.setText(str(error))

    def _cancelled(self) -> None:
        if self._orphaned:  # not sooner: closing a window takes its layers away as well
            show_info(f"{_TITLE}: its reference was removed, so nothing was added.")
        self.summary.setText("Cancelled; nothing was added.")

    def _ended(self) -> None:
        self._subject = None
        self._close_bar()
        self.run_button.enabled = self._fits

    def _state_changed(self, state: JobState) -> None:
        going = state is JobState.RUNNING
        self.run_button.enabled = state.over and self._fits
        self.cancel_button.enabled = going
        self.cancel_button.text = "Cancelling…" if state is JobState.CANCELLING else "Cancel"
        if going:
            self.summary.setText("Simulating…")

    def _close_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    # -- what the viewer says

    def _layer_removed(self, event: Any) -> None:
        if not self.running or self._subject is None:
            return
        if all(layer.unique_id != self._subject for layer in self._viewer.layers):
            self._subject, self._orphaned = None, True
            self.cancel()

    def _moved(self, parent: Any) -> None:
        """Let a run come to nothing whose form was taken out of the window."""
        if parent is None:
            self.cancel()

    def _closed(self, *_: object) -> None:
        """End everything with the dock, or with the window."""
        self._links.clear()
        self.reference.release()
        if self.job is not None:
            self.job.abandon()
        self._close_bar()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
