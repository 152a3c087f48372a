"""Jobs: work in another thread, started and watched from the main one.

Every job ends in exactly one way and tells it; see :mod:`.job_thread` for what runs there.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
import logging
import warnings
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error

from .job_thread import JobError, JobWorker, in_plain_words

__all__ = ["Job", "JobError", "JobState", "JobWorker", "in_plain_words", "run_job"]

logger = logging.getLogger(__name__)


class JobState(enum.Enum):
    """Where a job stands."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether the job has ended, well or not."""
        return self in (JobState.FINISHED, JobState.FAILED, JobState.CANCELLED)


class Job:
    """A running job, seen from the main thread.

    Attributes
    ----------
    title : str
    state : JobState
    error : JobError or None
        Why it failed.
    """

    def __init__(
        self,
        title: str,
        callbacks: dict[str, Callable[..., Any] | None],
        on_cancel: Callable[[], None] | None,
        advice: str = "",
    ) -> None:
        self.title = title
        self.advice = advice
        self.state = JobState.RUNNING
        self.error: JobError | None = None
        self._callbacks = callbacks
        self._on_cancel = on_cancel
        self._worker: JobWorker | None = None
        self._ended: str | None = None
        self._value: Any = None

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.state.over

    def cancel(self) -> None:
        """Ask it to stop; it answers within one step. Nothing happens once it is over."""
        if self.over or self._worker is None:
            return
        self._set(JobState.CANCELLING)
        if self._on_cancel is not None:
            self._on_cancel()
        self._worker.quit()

    def pause(self) -> None:
        """Halt it before its next step."""
        if self.state is JobState.RUNNING and self._worker is not None:
            self._worker.pause()
            self._set(JobState.PAUSED)

    def resume(self) -> None:
        """Let a halted one go on."""
        if self.state is JobState.PAUSED and self._worker is not None:
            self._worker.resume()
            self._set(JobState.RUNNING)

    def abandon(self) -> None:
        """Cancel it and call nobody back: for windows that are closing."""
        self._callbacks = {}
        self.cancel()

    def _start(self, worker: JobWorker) -> None:
        self._worker = worker
        worker.title, worker.advice = self.title, self.advice
        # napari quits the workers itself when its window closes
        worker.on_quit = self._on_cancel
        worker.yielded.connect(self._yielded)
        worker.returned.connect(self._returned)
        worker.errored.connect(self._errored)
        worker.finished.connect(self._finished)
        worker.start()

    def _yielded(self, event: Any) -> None:
        asked_to_stop = self._worker is None or self._worker.abort_requested
        if self.state in (JobState.RUNNING, JobState.PAUSED) and not asked_to_stop:
            self._call("event", event)

    def _returned(self, value: Any) -> None:
        self._ended, self._value = "result", value

    def _errored(self, error: Exception) -> None:
        self._ended = "error"
        self.error = error if isinstance(error, JobError) else None
        if self._callbacks:
            show_error(str(error))
        if self.error is not None:
            logger.info("%s\n%s", error, self.error.details)

    def _finished(self) -> None:
        if self.over:
            return
        ended, value = self._ended or "cancelled", self._value
        if ended == "result" and self.state is JobState.CANCELLING:
            ended = "cancelled"
        self._value = None
        self._worker = None
        try:
            if ended == "result":
                self._set(JobState.FINISHED)
                self._call("result", value)
            elif ended == "error":
                self._set(JobState.FAILED)
                self._call("error", self.error)
            else:
                self._set(JobState.CANCELLED)
                self._call("cancelled")
        finally:
            self._call("end")
            self._callbacks = {}
            self._on_cancel = None

    def _set(self, state: JobState) -> None:
        self.state = state
        self._call("state", state)

    def _call(self, name: str, *values: Any) -> None:
        callback = self._callbacks.get(name)
        if callback is not None:
            callback(*values)


def run_job(
    function: Callable[..., Any],
    *args: Any,
    title: str,
    advice: str = "",
    on_event: Callable[[Any], Any] | None = None,
    on_result: Callable[[Any], Any] | None = None,
    on_error: Callable[[JobError], Any] | None = None,
    on_cancelled: Callable[[], Any] | None = None,
    on_end: Callable[[], Any] | None = None,
    on_state: Callable[[JobState], Any] | None = None,
    on_cancel: Callable[[], None] | None = None,
    **kwargs: Any,
) -> Job:
    """Run a function, or drain a generator function, in another thread.

    Parameters
    ----------
    function : callable
        Called in the other thread; touches no layer and no widget. What a generator
        yields goes to `on_event` (None is passed over), what it returns to
        `on_result`.
    title : str
        What the job does, at the start of messages: ``Fusing``.
    advice : str
        What helps where memory does not suffice.
    on_event, on_result, on_error, on_cancelled, on_end, on_state : callable, optional
        Called in the main thread. A failure has been shown before `on_error` gets
        it. `on_end` is called last and once, however the job ends.
    on_cancel : callable, optional
        Called in the thread that cancels, to stop what runs between two events; safe
        to call more than once.

    Returns
    -------
    Job
    """
    callbacks = {
        "event": on_event,
        "result": on_result,
        "error": on_error,
        "cancelled": on_cancelled,
        "end": on_end,
        "state": on_state,
    }
    job = Job(title, callbacks, on_cancel, advice)
    generator = function if inspect.isgeneratorfunction(function) else _as_generator(function)
    # errors are shown by the worker itself: raised again they would be shown twice, and kept
    worker = create_worker(
        generator,
        *args,
        _start_thread=False,
        _worker_class=JobWorker,
        _ignore_errors=True,
        **kwargs,
    )
    _let_go_of_errors(worker)
    job._start(worker)
    return job


def _let_go_of_errors(worker: JobWorker) -> None:
    """Disconnect napari's own slots from a worker's errors.

    One shows them with their traceback; another, for the list of tasks, fails under
    PySide6, which hands a slot every argument, this one more than it takes.
    """
    with warnings.catch_warnings(), contextlib.suppress(TypeError, RuntimeError):
        warnings.simplefilter("ignore")
        worker.errored.disconnect()


def _as_generator(function: Callable[..., Any]) -> Callable[..., Generator[None, None, Any]]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Generator[None, None, Any]:
        yield None
        return function(*args, **kwargs)

    return run
