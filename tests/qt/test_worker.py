"""Jobs end in exactly one way, tell it, and leave nothing alive."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'pyqt6')")
pytest.importorskip("qtpy", reason="no Qt binding is installed")

from qtpy.QtCore import QThread
from qtpy.QtWidgets import QApplication

from napari_hsfusion._qt.worker import Job, JobError, JobState, in_plain_words, run_job
from napari_hsfusion.errors import Cancelled, PairError


class Heavy:
    """Something whose life can be watched."""


class Seen:
    """Collects what a job says, and the thread it says it in."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.threads: set[Any] = set()
        self.main = QThread.currentThread()

    def note(self, name: str) -> Callable[..., None]:
        def called(*values: Any) -> None:
            assert QThread.currentThread() is self.main or (
                QApplication.instance().thread() is QThread.currentThread()
            )
            self.calls.append((name, *values))

        return called

    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Job:
        return run_job(
            function,
            *args,
            title="Testing",
            on_event=self.note("event"),
            on_result=self.note("result"),
            on_error=self.note("error"),
            on_cancelled=self.note("cancelled"),
            on_end=self.note("end"),
            on_state=self.note("state"),
            **kwargs,
        )


def finish(qtbot: Any, job: Job) -> None:
    qtbot.waitUntil(lambda: job.over, timeout=10_000)
    qtbot.wait(20)


def test_a_generator_yields_and_returns_on_the_main_thread(qtbot: Any) -> None:
    threads = []

    def work(start: int, *, stop: int) -> Generator[int, None, str]:
        threads.append(threading.current_thread())
        yield from range(start, stop)
        return "done"

    seen = Seen()
    job = seen.start(work, 2, stop=5)
    finish(qtbot, job)
    assert seen.names() == ["event"] * 3 + ["state", "result", "end"]
    assert [call[1] for call in seen.calls[:3]] == [2, 3, 4]
    assert ("result", "done") in seen.calls
    assert job.state is JobState.FINISHED
    assert threads[0] is not threading.main_thread()


def test_a_function_returns(qtbot: Any) -> None:
    seen = Seen()
    job = seen.start(lambda a, b: a + b, 2, b=3)
    finish(qtbot, job)
    assert ("result", 5) in seen.calls
    assert seen.names() == ["state", "result", "end"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "not enough memory"),
        (RuntimeError("a plain failure"), "Testing failed: RuntimeError: a plain failure"),
        (ValueError("bad value"), "Testing failed: ValueError: bad value"),
        (PairError("expected 3 bands, got 4"), "Testing: expected 3 bands, got 4"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_every_error_ends_in_words_and_leaves_nothing_alive(
    qtbot: Any, messages: list[str], error: Exception, words: str
) -> None:
    closed = []
    lives: list[weakref.ref[Any]] = []

    def work() -> Generator[int, None, None]:
        heavy = Heavy()
        lives.append(weakref.ref(heavy))
        try:
            yield 1
            deeper(heavy, error)
        finally:
            closed.append(True)

    seen = Seen()
    job = seen.start(work)
    finish(qtbot, job)
    assert seen.names() == ["event", "state", "error", "end"]
    assert isinstance(job.error, JobError)
    assert words in str(job.error)
    assert "deeper" in job.error.details
    assert job.error.__cause__ is None
    assert job.error.__context__ is None
    assert [m for m in messages if words in m] == [str(job.error)]
    assert closed == [True]
    gc.collect()
    assert lives[0]() is None, "the run's frames are still alive"


def deeper(heavy: Heavy, error: Exception) -> None:
    try:
        raise KeyError("an inner error keeps frames too")
    except KeyError as inner:
        raise error from inner


def test_a_cancelled_generator_is_closed_and_let_go(qtbot: Any, messages: list[str]) -> None:
    closed = threading.Event()
    lives: list[weakref.ref[Any]] = []

    def work() -> Generator[int, None, None]:
        heavy = Heavy()
        lives.append(weakref.ref(heavy))
        try:
            count = 0
            while True:
                time.sleep(0.005)
                count += 1
                yield count
        finally:
            closed.set()

    seen = Seen()
    job = seen.start(work)
    qtbot.waitUntil(lambda: len(seen.calls) > 3, timeout=5000)
    job.cancel()
    assert job.state is JobState.CANCELLING
    events = seen.names().count("event")
    finish(qtbot, job)
    assert closed.is_set()
    assert job.state is JobState.CANCELLED
    assert seen.names()[-3:] == ["state", "cancelled", "end"]
    assert seen.names().count("event") == events, "events after the cancel"
    assert messages == []
    gc.collect()
    assert lives[0]() is None
    job.cancel()  # over: nothing happens
    assert job.state is JobState.CANCELLED


def test_a_long_step_is_stopped_from_outside(qtbot: Any) -> None:
    """What runs between two events hears of the cancel through its own token."""
    token = threading.Event()

    def work() -> Generator[int, None, None]:
        yield 1
        while not token.wait(0.01):
            pass
        raise Cancelled("stopped")

    seen = Seen()
    job = seen.start(work, on_cancel=token.set)
    qtbot.waitUntil(lambda: "event" in seen.names(), timeout=5000)
    job.cancel()
    finish(qtbot, job)
    assert job.state is JobState.CANCELLED
    assert "error" not in seen.names()


def test_pause_halts_and_resume_goes_on(qtbot: Any) -> None:
    done: list[int] = []

    def work() -> Generator[int, None, None]:
        for index in range(40):
            time.sleep(0.01)
            done.append(index)
            yield index

    seen = Seen()
    job = seen.start(work)
    qtbot.waitUntil(lambda: len(done) > 2, timeout=5000)
    job.pause()
    assert job.state is JobState.PAUSED
    qtbot.wait(50)
    halted = len(done)
    qtbot.wait(150)
    assert len(done) == halted
    job.resume()
    finish(qtbot, job)
    assert [call[1] for call in seen.calls if call[0] == "event"] == list(range(40))
    assert job.state is JobState.FINISHED


def test_a_paused_job_can_be_cancelled(qtbot: Any) -> None:
    def work() -> Generator[int, None, None]:
        while True:
            time.sleep(0.005)
            yield 1

    seen = Seen()
    job = seen.start(work)
    qtbot.waitUntil(lambda: len(seen.calls) > 1, timeout=5000)
    job.pause()
    qtbot.wait(30)
    job.cancel()
    finish(qtbot, job)
    assert job.state is JobState.CANCELLED


def test_an_abandoned_job_calls_nobody(qtbot: Any) -> None:
    stopped = threading.Event()

    def work() -> Generator[int, None, None]:
        try:
            while True:
                time.sleep(0.005)
                yield 1
        finally:
            stopped.set()

    seen = Seen()
    job = seen.start(work)
    qtbot.waitUntil(lambda: len(seen.calls) > 1, timeout=5000)
    job.abandon()
    said = len(seen.calls)
    finish(qtbot, job)
    assert stopped.is_set()
    assert len(seen.calls) == said


def test_a_result_that_comes_after_the_cancel_is_dropped(qtbot: Any) -> None:
    def work() -> Generator[int, None, str]:
        yield 1
        time.sleep(0.2)
        return "late"

    seen = Seen()
    job = seen.start(work)
    qtbot.waitUntil(lambda: "event" in seen.names(), timeout=5000)
    job.cancel()
    finish(qtbot, job)
    assert "result" not in seen.names()
    assert job.state is JobState.CANCELLED


def test_closing_the_window_ends_the_jobs(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer_proxy()
    token = threading.Event()

    def work() -> Generator[int, None, None]:
        while not token.is_set():
            time.sleep(0.005)
            yield 1

    seen = Seen()
    job = seen.start(work, on_cancel=token.set)
    qtbot.waitUntil(lambda: len(seen.calls) > 1, timeout=5000)
    viewer.close()
    finish(qtbot, job)
    assert token.is_set(), "what runs between two events was not told"
    assert job.state is JobState.CANCELLED


def test_words_for_errors_without_text() -> None:
    assert in_plain_words(KeyError(), "Saving").startswith("Saving failed: KeyError")
    assert "crop the scene" in in_plain_words(MemoryError(), "Fusing")
    assert "close the door" in in_plain_words(MemoryError(), "Fusing", "close the door")
    missing = FileNotFoundError("No such file: '/data/allocation/x.hdr'")
    assert "memory" not in in_plain_words(missing, "Opening")


def test_the_collector_is_whole_again_after_jobs_in_parallel(qtbot: Any) -> None:
    release = threading.Event()

    def work() -> Generator[int, None, None]:
        while not release.is_set():
            time.sleep(0.005)
            yield 1

    gc.unfreeze()
    first, second = (Seen().start(work) for _ in range(2))
    qtbot.waitUntil(lambda: gc.get_freeze_count() > 0, timeout=5000)
    first.pause()
    second.cancel()
    finish(qtbot, second)
    qtbot.waitUntil(lambda: gc.get_freeze_count() == 0, timeout=5000)
    first.resume()
    qtbot.waitUntil(lambda: gc.get_freeze_count() > 0, timeout=5000)
    release.set()
    finish(qtbot, first)
    assert gc.get_freeze_count() == 0


def test_a_collector_that_somebody_else_halted_stays_so(qtbot: Any) -> None:
    gc.freeze()
    finish(qtbot, Seen().start(lambda: 1))
    assert gc.get_freeze_count() > 0


def test_threads_take_shorter_turns_while_a_job_runs(qtbot: Any) -> None:
    before = sys.getswitchinterval()
    during: list[float] = []

    def work() -> Generator[int, None, None]:
        during.append(sys.getswitchinterval())
        yield 1

    finish(qtbot, Seen().start(work))
    assert during[0] < before
    qtbot.waitUntil(lambda: sys.getswitchinterval() == before, timeout=5000)
