"""The Train form: data, two sensors, Train; the curve and a validation scene show how it goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari.viewer
from magicgui.widgets import Container, PushButton
from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QPlainTextEdit

from .fusing import Advance, Look
from .layer_choice import cube_or_none
from .progress import RunProgress
from .rows import fill_dock, scrolled
from .run_view import Saying
from .settings import read_settings
from .train_form import TrainForm
from .train_preview import TrialLayers, central_place
from .train_result import ResultRow
from .train_view import TrainView
from .training import TRAIN, Begun, Ready, Shown, training
from .turns import Turns
from .worker import Job, JobError, JobState, run_job

if TYPE_CHECKING:
    from .._train import Surveyed, Trained
    from .training import TrainingNews

_TITLE = "Training"
_ADVICE = (
    "Close other images or programs, give smaller crops (patch), fewer a step (batch), a narrower "
    "network (width), or keep less of the scenes in memory (memory)."
)
_WIDTH = 350  # pixels: a window of 1280 has them to spare
_LISTED = 4  # lines of what was skipped


class TrainWidget(Container):
    """Train a network on reference cubes, and watch it learn.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    form : TrainForm
        All settings.
    job : Job or None
        The run in progress, or the last one.
    after : ResultRow
        What can be done with the weights of the last run.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(labels=False)
        self._viewer = viewer
        self.form = TrainForm(viewer)
        self.job: Job | None = None
        self._out, self._ratio = Path(), 1
        self._scenes: Surveyed | None = None
        self._trials: TrialLayers | None = None
        self._progress: RunProgress | None = None
        self._stages: dict[str, int] = {}
        self._scored = ""
        self._last_words = ""
        self._look = Look()
        self._turns = Turns(self._tell, self._look.drawn)
        self._make_buttons()
        self._arrange()
        self._connect()
        self._update_outlook()

    # -- what is in it

    def _make_buttons(self) -> None:
        self.train_button = PushButton(text="Train", tooltip="Start the training, or go on.")
        self.pause_button = PushButton(
            text="Pause", tooltip="Halt, and go on later.", enabled=False
        )
        self.cancel_button = PushButton(
            text="Cancel",
            tooltip="Stop at the next step; the state is kept, to go on from.",
            enabled=False,
        )
        self.after = ResultRow(self._viewer)

    def _arrange(self) -> None:
        self.view = TrainView(self._viewer)
        self.summary = Saying()
        self.summary.setToolTip("What the training will do, or why it cannot start.")
        self.skipped = QPlainTextEdit()
        self.skipped.setReadOnly(True)
        self.skipped.setToolTip("What cannot be trained on, and why.")
        self.skipped.setFixedHeight(_LISTED * self.skipped.fontMetrics().height() + 8)
        self.skipped.setVisible(False)
        self.buttons = Container(
            widgets=[self.train_button, self.pause_button, self.cancel_button],
            layout="horizontal",
            labels=False,
        )
        self.buttons.margins = (0, 0, 0, 0)
        self.extend([self.buttons, self.after])
        layout = self.native.layout()
        layout.insertWidget(0, scrolled(self.form), 1)
        layout.insertWidget(1, self.skipped)
        layout.insertWidget(2, self.summary)
        layout.insertWidget(3, self.view)
        self.native.setMinimumWidth(_WIDTH)
        fill_dock(self.native)

    def _connect(self) -> None:
        self.form.edited.connect(self._update_outlook)
        self.train_button.changed.connect(self.run)
        self.pause_button.changed.connect(self.pause_or_resume)
        self.cancel_button.changed.connect(self.cancel)
        self.native_parent_changed.connect(self._moved)
        self.native.destroyed.connect(self._closed)

    def _update_outlook(self, *_: object) -> None:
        if self.running:
            return
        self.outlook = self.form.look_ahead()
        self.say(self.outlook.text)
        self.train_button.enabled = self.outlook.possible
        self.train_button.text = "Go on" if self.form.goes_on else "Train"

    # -- what it says

    @property
    def running(self) -> bool:
        """Whether a training is in progress."""
        return self.job is not None and not self.job.over

    @property
    def result(self) -> Trained | None:
        """Path and header of the weights, once the last run has ended well."""
        return self.after.result

    @property
    def busy(self) -> bool:
        """Whether a picture still has to follow the form."""
        return self.form.busy

    def keywords(self) -> dict[str, Any]:
        """Keywords of :func:`napari_hsfusion.api.iter_train` that the form says.

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
        """Start the training, or go on with it; None, and a warning, where it cannot start."""
        if self.running:
            return self.job
        self._update_outlook()
        if not self.outlook.possible:
            show_warning(f"{_TITLE}: {self.outlook.text}")
            return None
        from ..engine.events import CancelToken

        options = self.form.keywords()
        self._out, self._ratio = Path(options["out"]), int(options["scale"])
        chosen = read_settings()
        token = CancelToken()
        self._look, self._scored = Look(), ""
        self._turns = Turns(self._tell, self._look.drawn)
        self._scenes = None
        self.after.begin(options)
        self._stages = {}
        self.view.begin()
        self.skipped.setVisible(False)
        self._progress = RunProgress(_TITLE)
        self._progress.say("reading the scenes")
        self.say("Reading the scenes.")
        self.job = run_job(
            training,
            options,
            self._look,
            rate=chosen.previews_per_second,
            threads=chosen.threads,
            cancel=token,
            title=_TITLE,
            advice=_ADVICE,
            on_event=self._turns.take,
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
        """Stop the run at its next step; its state is kept."""
        if self.job is not None:
            self.job.cancel()

    # -- what the run says

    def _tell(self, event: TrainingNews) -> None:
        if isinstance(event, Begun):
            self._stages = dict(event.stages)
        elif isinstance(event, Ready):
            self._ready(event)
        elif isinstance(event, Advance):
            self._advance(event)
        elif isinstance(event, Shown):
            self._show(event)
        else:
            self._scored = f"{event.metric:.2f} (best {event.best:.2f})"
            self.view.take(metrics=[(event.index, event.metric)])

    def _ready(self, event: Ready) -> None:
        self._scenes = scenes = event.scenes
        if scenes.skipped:
            lines = [f"{len(scenes.skipped)} skipped, {len(scenes.scenes)} trained on:"]
            lines += [f"{name}: {reason}" for name, reason in scenes.skipped]
            self.skipped.setPlainText("\n".join(lines))
            self.skipped.setVisible(True)
        if scenes.validation is not None:
            said = scenes.validation
            self.view.set_metric(str(said["metric"]), said.get(scenes.start))
        self.view.take(event.losses, event.metrics)

    def _advance(self, at: Advance) -> None:
        if at.stage == TRAIN:
            self.view.take(at.losses)
        if self._progress is None:
            return
        if self._stages.get(at.stage) != at.total:
            self._stages[at.stage] = at.total
            self._progress.begin(self._stages, {})
        self._progress.advance(at)
        # napari's bar may have let the end of the run in
        told = self._progress
        if told is not None and self.job is not None and self.job.state is JobState.RUNNING:
            scored = f"; validation {self._scored}" if self._scored else ""
            self.say(told.text + scored)

    def _show(self, shown: Shown) -> None:
        if self._trials is None:
            scene = str(shown.cube.name)
            of_layer = self.form.validation.layer(scene) is not None
            name = f"{scene if of_layer else Path(scene).stem} restored"
            self._trials = TrialLayers(self._viewer, name, self._place(scene))
        self._trials.show(shown)

    def _place(self, scene: str) -> Any:
        assert self._scenes is not None
        layer = self.form.validation.layer(scene)
        cube = cube_or_none(layer)
        size = (0, 0) if cube is None else (cube.sizes["y"], cube.sizes["x"])
        chosen = layer if cube is not None else None
        return central_place(chosen, size, self._scenes.validation or {}, self._ratio)

    def _result(self, trained: Trained) -> None:
        self._turns.catch_up()
        self.after.finish(trained)
        if self._trials is not None:
            self._trials.finish(bool(self.form.keep.value))
            self._trials = None
        record = trained.record
        tried = record["validation"]
        scored = "" if tried is None else f", {tried['metric']} {record['metric']:.2f}"
        self._last_words = (
            f"Done: {trained.path.name}, {record['steps']} steps{scored}. To fuse with it choose "
            "EMR-Diff in the Fuse form and give this file as weights: 'Use in Fuse' does so."
        )

    def _failed(self, error: JobError) -> None:
        self._discard()
        self._last_words = str(error)

    def _cancelled(self) -> None:
        self._discard()
        self._last_words = "Cancelled before the first step; nothing was written."
        ahead = self.form.look_ahead()
        if ahead.possible and self._state_file().is_file():
            self._last_words = f"Cancelled; the state is kept. {ahead.text}"

    def _state_file(self) -> Path:
        from .._training.files import RunFiles

        return RunFiles.beside(self._out).state

    def _discard(self) -> None:
        self._turns.forget()
        if self._trials is not None:
            self._trials.discard()
            self._trials = None

    def _ended(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None
        self.form.refresh_files()
        self.say(self._last_words)

    def _state_changed(self, state: JobState) -> None:
        self.train_button.enabled = state.over
        self.pause_button.enabled = state in (JobState.RUNNING, JobState.PAUSED)
        self.pause_button.text = "Resume" if state is JobState.PAUSED else "Pause"
        self.cancel_button.enabled = state in (JobState.RUNNING, JobState.PAUSED)
        self.cancel_button.text = "Cancelling…" if state is JobState.CANCELLING else "Cancel"
        if state is JobState.CANCELLING and self._progress is not None:
            self._progress.say("cancelling…")
        if state is JobState.PAUSED:
            self.say("Paused.")

    # -- what the viewer says

    def _moved(self, *_: object) -> None:
        """Without a window there is nobody to watch: undocking ends the run."""
        if self.native.parent() is None:
            self.cancel()

    def _closed(self, *_: object) -> None:
        """End everything with the dock, or with the window; the state is kept."""
        self.form.release()
        trials, progress, job = self._trials, self._progress, self.job
        self._trials = self._progress = None
        self._turns.forget()
        if job is not None:
            job.abandon()
        if trials is not None:
            trials.discard()
        if progress is not None:
            progress.close()
