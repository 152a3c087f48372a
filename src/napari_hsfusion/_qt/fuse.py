"""The Fuse form: a pair, a method, Run; the result sharpens in its layer meanwhile."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import napari.viewer
from magicgui.widgets import Container, PushButton
from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QApplication

from .. import _layers, api
from .._layers.add import add_deviation
from ..errors import HSFusionError
from .fuse_form import FuseForm
from .fusing import Advance, Begun, Fused, Look, Remark, Snapshot, fusing
from .overlay import attach
from .preview import LiveLayers
from .progress import RunProgress
from .rows import fill_dock, scrolled
from .run_view import RunView, Saying
from .settings import read_settings
from .simulating import with_layer
from .turns import Turns
from .worker import Job, JobError, JobState, run_job

if TYPE_CHECKING:
    import xarray as xr

_ADVICE = (
    "Close other images or programs, crop the scene, choose the preset 'fast' or fewer dimensions "
    "d, or compute on the CPU if a graphics card ran out."
)
_WIDTH = 320  # pixels; a window of 1280 has them to spare


class FuseWidget(Container):
    """Fuse an LR-HSI layer with an HR-MSI layer, and watch it happen.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    lr_hsi, hr_msi, responses, method, preset, params, device, seed, samples, networks, watch
        The controls of the form, for scripted sessions.
    job : Job or None
        The run in progress, or the last one.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = viewer
        self.form = form = FuseForm(viewer)
        self.lr_hsi, self.hr_msi, self.responses = form.lr_hsi, form.hr_msi, form.responses
        self.method, self.preset, self.params = form.method, form.preset, form.params
        self.device, self.seed, self.networks = form.device, form.seed, form.networks
        self.samples, self.watch = form.samples, form.watch
        self.job: Job | None = None
        self._result_ref: Callable[[], xr.DataArray | None] = lambda: None
        self._repeat: xr.DataArray | None = None
        self._live: LiveLayers | None = None
        self._progress: RunProgress | None = None
        self._look = Look()
        self._turns = Turns(self._tell, self._look.drawn)
        self._told = False
        self._make_buttons()
        self._arrange()
        self._connect()
        self._update_outlook()

    # -- what is in it

    def _make_buttons(self) -> None:
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
        self.view = RunView(self._viewer)
        self.summary = Saying()
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
        fill_dock(self.native)

    def _connect(self) -> None:
        self.form.edited.connect(self._update_outlook)
        self.watch.changed.connect(self._watch_changed)
        self.run_button.changed.connect(self.run)
        self.pause_button.changed.connect(self.pause_or_resume)
        self.cancel_button.changed.connect(self.cancel)
        self.script_button.changed.connect(self.copy_script)
        self.native_parent_changed.connect(self._moved)
        self.native.destroyed.connect(self._closed)

    def _update_outlook(self, *_: object) -> None:
        self.outlook = self.form.look_ahead()
        if not self.running:
            self.say(self.outlook.text)
            self.run_button.enabled = self.outlook.possible

    # -- what it says

    @property
    def running(self) -> bool:
        """Whether a fusion is in progress."""
        return self.job is not None and not self.job.over

    @property
    def result(self) -> xr.DataArray | None:
        """Cube of the last run that ended well, as long as its layer is there."""
        return self._result_ref()

    def keywords(self) -> dict[str, Any]:
        """Keywords of :func:`napari_hsfusion.api.iter_fuse` that the form says.

        Raises
        ------
        HSFusionError
            Naming what was expected and what came.
        """
        return self.form.keywords()

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

        lr_hsi, hr_msi = self.form.pair()
        assert lr_hsi is not None
        assert hr_msi is not None
        # all that is asked of the form, before layers of the run change what it shows
        place = _layers.placement_of(self.hr_msi.value)
        low = with_layer(lr_hsi, self.lr_hsi.value.name)
        high = with_layer(hr_msi, self.hr_msi.value.name)
        name = f"{self.lr_hsi.value.name.removesuffix(' LR-HSI')} fused ({self.method.value})"
        options = self.form.keywords()
        chosen = read_settings()
        token = CancelToken()
        self._look = Look(watch=self.watch.value)
        self._turns = Turns(self._tell, self._look.drawn)
        self._told = False
        self.view.begin()
        shape = (lr_hsi.sizes["band"], hr_msi.sizes["y"], hr_msi.sizes["x"])
        self._live = LiveLayers(self._viewer, name, shape, place, self.watch.value)
        self._progress = RunProgress("Fusing")
        self.job = run_job(
            fusing,
            low,
            high,
            options,
            self._look,
            rate=chosen.previews_per_second,
            threads=chosen.threads,
            cancel=token,
            title="Fusing",
            advice=_ADVICE,
            on_event=self._take,
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
        if self._repeat is None:
            show_warning("Copy as script: no fusion has finished yet.")
            return ""
        try:
            script = api.as_script(self._repeat)
        except HSFusionError as error:
            show_warning(f"Copy as script: {error}")
            return ""
        QApplication.clipboard().setText(script)
        show_info("The script is on the clipboard.")
        return script

    # -- what the run says

    def _take(self, event: Begun | Remark | Advance | Snapshot) -> None:
        if isinstance(event, Snapshot) and event.at is not None:
            # the canvas and the form each in a turn of its own: shorter pauses
            self._turns.take(event, event.at)
        else:
            self._turns.take(event)

    def _tell(self, event: Begun | Remark | Advance | Snapshot) -> None:
        live, progress = self._live, self._progress
        if live is None or progress is None:
            return
        if live.removed:
            self._tell_removed()
        if isinstance(event, Begun):
            progress.begin(event.stages, event.estimate)
            self.view.begin()
            live.begin(event)
        elif isinstance(event, Remark):
            show_warning(f"Fusing: {event.text}")
            self.say(event.text)
        elif isinstance(event, Snapshot):
            live.show(event)
        else:
            # first the progress bar: napari's draws at once what has changed so far
            progress.advance(event)
            self.view.advance(event)
            if self.job is not None and self.job.state is JobState.RUNNING:
                self.say(progress.text)

    def _tell_removed(self) -> None:
        if not self._told:
            self._told = True
            show_warning(
                "Fusing: the layers of the run were removed. It goes on unseen and adds its "
                "result at the end; Cancel stops it."
            )

    def _result(self, fused: Fused) -> None:
        self._turns.catch_up()
        assert self._live is not None
        self._result_ref = weakref.ref(fused.cube)
        # a script needs what the cube says, not its pixels
        self._repeat = fused.cube.isel(y=slice(0, 1), x=slice(0, 1)).copy()
        band = self._live.finish(fused)
        if "deviation" in fused.cube.coords:
            add_deviation(self._viewer, fused.cube, band)
        attach(self._viewer)
        self.say(f"Done: {band.name}.")
        self.script_button.enabled = True

    def _failed(self, error: JobError) -> None:
        self._discard()
        self.say(str(error))

    def _cancelled(self) -> None:
        self._discard()
        self.say("Cancelled; nothing was kept.")

    def _discard(self) -> None:
        self._turns.forget()
        if self._live is not None:
            self._live.discard()

    def _ended(self) -> None:
        self._live = None
        if self._progress is not None:
            self._progress.close()
            self._progress = None
        self.run_button.enabled = self.outlook.possible

    def _state_changed(self, state: JobState) -> None:
        self.run_button.enabled = state.over
        self.pause_button.enabled = state in (JobState.RUNNING, JobState.PAUSED)
        self.pause_button.text = "Resume" if state is JobState.PAUSED else "Pause"
        self.cancel_button.enabled = state in (JobState.RUNNING, JobState.PAUSED)
        self.cancel_button.text = "Cancelling…" if state is JobState.CANCELLING else "Cancel"
        if state is JobState.CANCELLING and self._progress is not None:
            self._turns.forget()
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
        # a run that goes on paints at its next step
        if factors is not None and self.job is not None and self.job.state is JobState.PAUSED:
            picture = self._look.paint(factors, watch)
            if picture is not None:
                self._live.paint(watch, picture)

    def _moved(self, *_: object) -> None:
        """Without a window there is nobody to watch: undocking ends the run."""
        if self.native.parent() is None:
            self.cancel()

    def _closed(self, *_: object) -> None:
        """End everything with the dock, or with the window."""
        self.form.release()
        live, progress, job = self._live, self._progress, self.job
        self._live = self._progress = None
        self._turns.forget()
        if job is not None:
            job.abandon()
        if live is not None:
            live.discard()
        if progress is not None:
            progress.close()
