"""Work in another thread that always ends in a signal and leaves nothing behind.

napari's own workers return a ``RuntimeError`` instead of raising it, and then neither
fail nor finish; torch's out-of-memory error is one. They never close a generator
they abandon, and the exceptions they show keep every frame, and so every tensor, of
the run that failed. The worker here closes, forgets, and raises a fresh error.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import inspect
import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Generator
from functools import wraps
from typing import Any

from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils.notifications import show_error

from ..errors import Cancelled, HSFusionError

logger = logging.getLogger(__name__)


class JobError(Exception):
    """What went wrong in a job, in words; it holds on to nothing of the run.

    Attributes
    ----------
    kind : str
        Name of the original exception's class.
    details : str
        The formatted traceback.
    """

    def __init__(self, message: str, kind: str, details: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


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


class JobWorker(GeneratorWorker):
    """Generator worker that ends in ``returned``, ``errored`` or ``aborted``, then ``finished``.

    Whatever ends it, the generator is closed in the worker's thread and let go.
    """

    title = "The job"
    advice = ""
    on_quit: Callable[[], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._go = threading.Event()
        self._go.set()

    def quit(self) -> None:
        """Ask the job to stop; a paused one wakes up for it."""
        super().quit()
        if self.on_quit is not None:
            self.on_quit()
        self._go.set()

    def pause(self) -> None:
        """Halt before the next event is asked for."""
        if not self.abort_requested:
            self._go.clear()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    @property
    def is_paused(self) -> bool:
        """Whether a halt was asked for."""
        return not self._go.is_set()

    def work(self) -> Any:
        """Drain the generator (called in the worker's thread)."""
        failure: JobError | None = None
        result: Any = None
        stopped = False
        _HEAP.hold()
        try:
            result, stopped = self._drain()
        except Cancelled:
            stopped = True
        except Exception as error:  # every failure must end in a signal
            failure = self._put_in_words(error)
        finally:
            self._gen: Any = None
            tidy_up()
            _HEAP.let_go()
        if failure is not None:
            raise failure
        if stopped:
            self.aborted.emit()
            return None
        return result

    def _drain(self) -> tuple[Any, bool]:
        events = self._gen
        try:
            while True:
                if not self._go.is_set():
                    _HEAP.let_go()
                    self._go.wait()
                    _HEAP.hold()
                if self.abort_requested:
                    return None, True
                try:
                    event = next(events)
                except StopIteration as stop:
                    return stop.value, False
                if event is not None:
                    self.yielded.emit(event)
                del event
        finally:
            events.close()

    def _put_in_words(self, error: Exception) -> JobError:
        details = "".join(traceback.format_exception(error))
        made = JobError(
            in_plain_words(error, self.title, self.advice), type(error).__name__, details
        )
        seen: BaseException | None = error
        while seen is not None:
            traceback.clear_frames(seen.__traceback__)
            seen = seen.__cause__ or seen.__context__
        error.__traceback__ = None
        return made

    def _relay_error(self, error: Exception) -> None:
        """Nothing: the job shows it; napari's own way would keep the exception for good."""


def in_plain_words(error: BaseException, title: str, advice: str = "") -> str:
    """Say what happened, and what to do next, for somebody who never saw a traceback."""
    kind, text = type(error).__name__, str(error).strip()
    short = text.splitlines()[0] if text else kind
    if isinstance(error, HSFusionError):
        return f"{title}: {text}"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        helps = advice or "Close other images or programs, or crop the scene."
        return f"{title}: there was not enough memory ({short}). {helps}"
    return (
        f"{title} failed: {kind}: {short}. This should not happen: please report it with the "
        "details that the log 'napari_hsfusion' holds."
    )


def tidy_up() -> None:
    """Give memory back: collect cycles, and empty torch's cache if torch is in use."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class _Heap:
    """What the application holds, passed over by the collector while jobs run.

    Going through a napari's million objects stops every thread for half a second. The
    collector has one such switch for the process, so the jobs that want it are counted.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = 0

    def hold(self) -> None:
        with self._lock:
            self._held += 1
            if self._held == 1:
                gc.freeze()

    def let_go(self) -> None:
        with self._lock:
            self._held -= 1
            if self._held == 0:
                gc.unfreeze()


_HEAP = _Heap()
_OUT_OF_MEMORY = re.compile(
    r"out of memory|(can't|cannot|could not|unable to) allocate|bad.?alloc", re.I
)


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
