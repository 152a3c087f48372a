"""The Fuse form: a pair, a method, Run; the result sharpens in its layer meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import (
    ComboBox,
    Container,
    FileEdit,
    LineEdit,
    PushButton,
)
from napari.utils.notifications import show_info, show_warning
from napari.viewer import Viewer
from qtpy.QtWidgets import QApplication

from .. import _layers, api
from ..errors import HSFusionError, ParameterError
from .forms import ParamsForm
from .fusing import WATCH, Advance, Begun, Fused, Look, Snapshot, fusing
from .layer_choice import LayerChoice, cube_or_none, shows_cube, shows_image
from .pair import Outlook, lay_over, likely_hr, likely_lr, look_ahead
from .preview import LiveLayers
from .progress import RunProgress
from .responses import ResponsesForm
from .rows import column, row, scrolled, sentence
from .run_view import RunView
from .settings import read_settings
from .simulating import with_layer
from .worker import Job, JobError, JobState, run_job

if TYPE_CHECKING:
    import xarray as xr

_MOST = 2**63 - 1
_WIDTH = 320  # pixels; a window of 1280 has them to spare


class FuseWidget(Container):
    """Fuse an LR-HSI layer with an HR-MSI layer, and watch it happen.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    job : Job or None
        The run in progress, or the last one.
    result : xarray.DataArray or None
        The cube of the last run that ended well.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = viewer
        self._rows = {row["name"]: row for row in api.methods()}
        self.job: Job | None = None
        self.result: xr.DataArray | None = None
        self._live: LiveLayers | None = None
        self._progress: RunProgress | None = None
        self._look = Look()
        self._told = False
        self._make_controls()
        self._arrange()
        self._connect()
        self._method_changed()
        self._pair_changed()

    # -- what is in the form

    def _make_controls(self) -> None:
        chosen = read_settings()
        self.lr_hsi = LayerChoice(
            self._viewer,
            shows_cube,
            likely_lr,
            tooltip="Low-resolution hyperspectral image: many bands, few pixels.",
        )
        self.hr_msi = LayerChoice(
            self._viewer,
            shows_image,
            lambda layer: likely_hr(layer, self.lr_hsi.value),
            tooltip="High-resolution multispectral image of the same scene, in the same unit.",
        )
        self.responses = ResponsesForm(self._viewer)
        self.method = ComboBox(
            choices=[(row["title"], name) for name, row in self._rows.items()],
            value="args-diff",
            tooltip="How the pair is fused.",
        )
        self._wanted_preset = chosen.preset
        # choices given as a list would come back whenever the widget gets another parent
        self.preset = ComboBox(
            choices=lambda _: list(self._rows[self.method.value]["presets"]),
            tooltip="A set of parameters that belong together.",
        )
        self.device = ComboBox(
            choices=_devices(chosen.device),
            value=chosen.device,
            tooltip="Where to compute; auto takes the first CUDA device, else the CPU.",
        )
        self.advanced_button = PushButton(
            text="▸ Advanced", tooltip="Seed, saved networks, and every parameter of the method."
        )
        self.seed = LineEdit(
            value="0", label="seed", tooltip="The same seed gives the same cube (0 to 2^63 - 1)."
        )
        self.networks = FileEdit(
            mode=FileDialogMode.EXISTING_DIRECTORY,
            nullable=True,
            value=None,
            tooltip="Folder to keep trained networks in, or to take them from. Empty: not kept.",
        )
        self.params = ParamsForm(api.preset_params("args-diff"))
        self.watch = ComboBox(
            choices=list(WATCH),
            value="composite",
            tooltip="What is seen while the fusion runs: colours, the band of the slider, or the "
            "coefficient images side by side.",
        )
        self.run_button = PushButton(text="Run", tooltip="Start the fusion.")
        self.pause_button = PushButton(
            text="Pause", tooltip="Halt, and go on later.", enabled=False
        )
        self.cancel_button = PushButton(
            text="Cancel", tooltip="Stop at the next step; nothing is kept.", enabled=False
        )
        self.script_button = PushButton(
            text="Copy as script",
            tooltip="Python lines that repeat the last run exactly, to the clipboard.",
            enabled=False,
        )

    def _arrange(self) -> None:
        self.advanced = column(
            [row("Watch", self.watch), row("Seed", self.seed), row("Networks", self.networks)]
        )
        self.form = column(
            [
                row("LR-HSI", self.lr_hsi),
                row("HR-MSI", self.hr_msi),
                self.responses,
                row("Method", self.method),
                row("Preset", self.preset),
                row("Device", self.device),
                self.advanced_button,
                self.advanced,
                self.params,
            ]
        )
        self.advanced.visible = self.params.visible = False
        self.view = RunView(self._viewer)
        self.summary = sentence()
        self.summary.setToolTip("What the run will take, or why it cannot start.")
        self.buttons = Container(
            widgets=[self.run_button, self.pause_button, self.cancel_button],
            layout="horizontal",
            labels=False,
        )
        self.buttons.margins = (0, 0, 0, 0)
        self.extend([self.buttons, self.script_button])
        layout = self.native.layout()
        layout.insertWidget(0, scrolled(self.form), 1)
        layout.insertWidget(1, self.summary)
        layout.insertWidget(2, self.view)
        self.native.setMinimumWidth(_WIDTH)

    def _connect(self) -> None:
        self.lr_hsi.changed.connect(self._pair_changed)
        self.hr_msi.changed.connect(self._pair_changed)
        self.responses.changed.connect(self._update_outlook)
        self.method.changed.connect(self._method_changed)
        self.preset.changed.connect(self._preset_changed)
        self.device.changed.connect(self._update_outlook)
        self.seed.changed.connect(self._update_outlook)
        self.params.edited.connect(self._update_outlook)
        self.watch.changed.connect(self._watch_changed)
        self.advanced_button.changed.connect(self._toggle_advanced)
        self.run_button.changed.connect(self.run)
        self.pause_button.changed.connect(self.pause_or_resume)
        self.cancel_button.changed.connect(self.cancel)
        self.script_button.changed.connect(self.copy_script)
        self.native_parent_changed.connect(self._moved)
        self.native.destroyed.connect(self._closed)

    def _toggle_advanced(self, *_: object) -> None:
        # not what is seen now: the form may lie behind another
        shown = self.advanced.native.isHidden()
        self.advanced.visible = shown
        self.params.visible = shown
        self.advanced_button.text = "▾ Advanced" if shown else "▸ Advanced"

    def _method_changed(self, *_: object) -> None:
        row = self._rows[self.method.value]
        presets = list(row["presets"])
        first = self._wanted_preset if self._wanted_preset in presets else row["default_preset"]
        with self.preset.changed.blocked():
            self.preset.reset_choices()
            self.preset.value = first
        self.method.tooltip = row["description"]
        self._preset_changed()

    def _preset_changed(self, *_: object) -> None:
        self.params.load(api.preset_params(self.method.value, self.preset.value))
        self.params.visible = not self.advanced.native.isHidden()
        self._update_outlook()

    def _pair_changed(self, *_: object) -> None:
        lr_hsi, hr_msi = self.pair()
        if lr_hsi is not None and hr_msi is not None:
            lay_over(self._viewer, self.lr_hsi.value, self.hr_msi.value)
        self.responses.set_pair(lr_hsi, hr_msi)
        self._update_outlook()

    def _update_outlook(self, *_: object) -> None:
        self.outlook = self._look_ahead()
        if not self.running:
            self.say(self.outlook.text)
            self.run_button.enabled = self.outlook.possible

    def _look_ahead(self) -> Outlook:
        try:
            options = self.keywords()
        except HSFusionError as error:
            return Outlook(False, str(error))
        return look_ahead(*self.pair(), options)

    # -- what it says

    @property
    def running(self) -> bool:
        """Whether a fusion is in progress."""
        return self.job is not None and not self.job.over

    def pair(self) -> tuple[xr.DataArray | None, xr.DataArray | None]:
        """Give the cubes of the two layers chosen; None where there is none."""
        return cube_or_none(self.lr_hsi.value), cube_or_none(self.hr_msi.value)

    def keywords(self) -> dict[str, Any]:
        """Keywords of :func:`napari_hsfusion.api.iter_fuse` that the form says.

        Raises
        ------
        HSFusionError
            Naming what was expected and what came.
        """
        folder: Any = self.networks.value
        # an empty line reads as the current folder
        kept = None if folder is None or str(folder) in ("", ".") else Path(folder)
        if kept is not None and not self._rows[self.method.value]["trains"]:
            kept = None
        return {
            "method": self.method.value,
            "preset": self.preset.value,
            "params": self.params.changes(),
            "seed": _whole(self.seed.value),
            "device": self.device.value,
            "networks": kept,
            **self.responses.keywords(),
        }

    def say(self, text: str) -> None:
        """Show a sentence above the buttons."""
        self.summary.setText(text)

    # -- what it does

    def run(self, *_: object) -> Job | None:
        """Start the fusion; None, and a warning, where it cannot start."""
        if self.running:
            return self.job
        self._update_outlook()
        if not self.outlook.possible:
            show_warning(f"Fusing: {self.outlook.text}")
            return None
        from ..engine.events import CancelToken

        lr_hsi, hr_msi = self.pair()
        assert lr_hsi is not None
        assert hr_msi is not None
        place = _layers.placement_of(self.hr_msi.value)
        name = f"{self.lr_hsi.value.name} fused ({self.method.value})"
        options = self.keywords()
        chosen = read_settings()
        token = CancelToken()
        self._look = Look(watch=self.watch.value)
        self._told = False
        self.view.begin()
        self._progress = RunProgress("Fusing")
        shape = (lr_hsi.sizes["band"], hr_msi.sizes["y"], hr_msi.sizes["x"])
        self._live = LiveLayers(self._viewer, name, shape, place, self.watch.value)
        self.job = run_job(
            fusing,
            with_layer(lr_hsi, self.lr_hsi.value.name),
            with_layer(hr_msi, self.hr_msi.value.name),
            options,
            self._look,
            rate=chosen.previews_per_second,
            threads=chosen.threads,
            cancel=token,
            title="Fusing",
            on_event=self._event,
            on_result=self._result,
            on_error=self._failed,
            on_cancelled=self._cancelled,
            on_end=self._ended,
            on_state=self._state_changed,
            on_cancel=token.cancel,
        )
        self._state_changed(self.job.state)
        return self.job

    def pause_or_resume(self, *_: object) -> None:
        """Halt the run, or let it go on."""
        if self.job is None or self._progress is None:
            return
        if self.job.state is JobState.PAUSED:
            self.job.resume()
            self._progress.go_on()
        elif self.job.state is JobState.RUNNING:
            self.job.pause()
            self._progress.halt()

    def cancel(self, *_: object) -> None:
        """Stop the run at its next step; nothing of it is kept."""
        if self.job is not None:
            self.job.cancel()

    def copy_script(self, *_: object) -> str:
        """Put the lines that repeat the last run on the clipboard, and give them."""
        if self.result is None:
            show_warning("Copy as script: no fusion has finished yet.")
            return ""
        try:
            script = api.as_script(self.result)
        except HSFusionError as error:
            show_warning(f"Copy as script: {error}")
            return ""
        QApplication.clipboard().setText(script)
        show_info("The script is on the clipboard.")
        return script

    # -- what the run says

    def _event(self, event: Begun | Advance | Snapshot) -> None:
        assert self._progress is not None
        assert self._live is not None
        if self._live.removed:
            self._tell_removed()
        if isinstance(event, Advance):
            self._progress.advance(event)
            self.view.advance(event)
            if self.job is not None and self.job.state is JobState.RUNNING:
                self.say(self._progress.text)
            return
        if isinstance(event, Begun):
            self._progress.begin(event.stages, event.estimate)
            self._live.begin(event)
        else:
            self._live.show(event)

    def _tell_removed(self) -> None:
        if not self._told:
            self._told = True
            show_warning(
                "Fusing: the layers of the run were removed. It goes on unseen and adds its "
                "result at the end; Cancel stops it."
            )

    def _result(self, fused: Fused) -> None:
        assert self._live is not None
        self.result = fused.cube
        band = self._live.finish(fused)
        self.say(f"Done: {band.name}.")
        self.script_button.enabled = True

    def _failed(self, error: JobError) -> None:
        self._discard()
        self.say(str(error))

    def _cancelled(self) -> None:
        self._discard()
        self.say("Cancelled; nothing was kept.")

    def _discard(self) -> None:
        if self._live is not None:
            self._live.discard()

    def _ended(self) -> None:
        self._live = None
        if self._progress is not None:
            self._progress.close()
            self._progress = None
        self.outlook = self._look_ahead()
        self.run_button.enabled = self.outlook.possible

    def _state_changed(self, state: JobState) -> None:
        self.run_button.enabled = state.over
        self.pause_button.enabled = state in (JobState.RUNNING, JobState.PAUSED)
        self.pause_button.text = "Resume" if state is JobState.PAUSED else "Pause"
        self.cancel_button.enabled = state in (JobState.RUNNING, JobState.PAUSED)
        self.cancel_button.text = "Cancelling…" if state is JobState.CANCELLING else "Cancel"
        if state is JobState.CANCELLING and self._progress is not None:
            self._progress.say("cancelling…")
        if state is JobState.PAUSED:
            self.say("Paused.")

    # -- what the viewer says

    def _watch_changed(self, watch: str) -> None:
        self._look.watch = watch
        if self._live is None:
            return
        self._live.set_watch(watch)
        factors = self._live.factors
        if factors is not None:
            picture = self._look.paint(factors, watch)
            if picture is not None:
                self._live.paint(watch, picture)

    def _moved(self, *_: object) -> None:
        """Without a window there is nobody to watch: undocking ends the run."""
        if self.native.parent() is None:
            self.cancel()

    def _closed(self, *_: object) -> None:
        """End everything with the dock, or with the window."""
        for choice in (self.lr_hsi, self.hr_msi):
            choice.release()
        self.responses.release()
        live, progress, job = self._live, self._progress, self.job
        self._live = self._progress = None
        if job is not None:
            job.abandon()
        if live is not None:
            live.discard()
        if progress is not None:
            progress.close()


def _devices(wanted: str) -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ["auto", "cpu", *(f"cuda:{k}" for k in range(count))]
    return names if wanted in names else [*names, wanted]


def _whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= _MOST:
        raise ParameterError(f"seed: expected a whole number from 0 to 2^63 - 1, got {text!r}")
    return value
