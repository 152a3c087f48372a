"""Work in another thread that always ends in a signal and leaves nothing behind.

napari's own workers return a ``RuntimeError`` instead of raising it, and then neither
fail nor finish; torch's out-of-memory error is one. They never close a generator
they abandon, and the exceptions they show keep every frame, and so every tensor, of
the run that failed. The worker here closes, forgets, and raises a fresh error.
"""

from __future__ import annotations

import gc
import re
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from napari.qt.threading import GeneratorWorker

from ..errors import Cancelled, HSFusionError


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
        _SHARING.hold()
        try:
            result, stopped = self._drain()
        except Cancelled:
            stopped = True
        except Exception as error:  # every failure must end in a signal
            failure = self._put_in_words(error)
        finally:
            self._gen: Any = None
            tidy_up()
            _SHARING.let_go()
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
                    _SHARING.let_go()
                    self._go.wait()
                    _SHARING.hold()
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


class _Sharing:
    """How the process shares itself among threads while jobs run.

    What the application holds is passed over by the collector: going through a napari's
    million objects stops every thread for half a second. And a thread that wants to run
    Python waits for another for half a millisecond, not for five: a window that draws and
    a job take turns hundreds of times a second.

    A process has one such switch of each kind, so the jobs are counted; a collector that
    somebody else has halted is left as it is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = 0
        self._froze = False
        self._interval = 0.0

    def hold(self) -> None:
        with self._lock:
            self._held += 1
            if self._held > 1:
                return
            self._interval = sys.getswitchinterval()
            sys.setswitchinterval(min(_TURN, self._interval))
            self._froze = gc.get_freeze_count() == 0
            if self._froze:
                gc.freeze()

    def let_go(self) -> None:
        with self._lock:
            self._held -= 1
            if self._held > 0:
                return
            sys.setswitchinterval(self._interval)
            if self._froze:
                gc.unfreeze()


_TURN = 0.0005  # seconds
_SHARING = _Sharing()
_OUT_OF_MEMORY = re.compile(
    r"out of memory|(can't|cannot|could not|unable to) allocate|bad.?alloc", re.I
)
