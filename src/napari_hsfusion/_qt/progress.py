"""A run in napari's activity dock: its stage, its steps, the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping

from napari.utils import progress
from qtpy.compat import isalive
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QApplication, QLabel, QMainWindow, QStatusBar

from .fusing import Advance

_SETTLE = 3  # steps before a stage's rate is believed


class RunProgress:
    """One progress bar over all stages of a run; `close` it however the run ends.

    Parameters
    ----------
    title : str
        At the head of the description.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar = progress(total=0, desc=f"{title}: reading the pair")
        self._wheels = _wheels()
        self._stages: dict[str, int] = {}
        self._expected: dict[str, float] = {}
        self._done = 0
        self._stage = ""
        self._entered = 0.0
        self._first = 0
        self._idle = 0.0
        self._halted: float | None = None
        self.text = ""

    def begin(self, stages: Mapping[str, int], estimate: Mapping[str, float]) -> None:
        """Take the stages and the expected cost of a run, or of one that starts anew."""
        self._stages = dict(stages)
        self._expected = _spread(self._stages, estimate)
        total = max(1, sum(self._stages.values()))
        if self._done:
            self._bar.reset(total)
            self._done, self._stage = 0, ""
        self._bar.total = total

    def advance(self, at: Advance) -> None:
        """Show where the run stands."""
        if at.stage != self._stage:
            self._stage, self._entered, self._first = at.stage, time.perf_counter(), at.index
            self._idle = 0.0
        if self._stages.get(at.stage, at.total) != at.total:  # its end came sooner
            self._stages[at.stage] = at.total
            self._bar.total = max(1, sum(self._stages.values()))
        names = list(self._stages)
        before = names[: names.index(at.stage)] if at.stage in names else []
        done = sum(self._stages[name] for name in before) + at.index
        left = self._left(at)
        self.text = f"{at.stage} {at.index}/{at.total}"
        if left is not None:
            self.text += f", {words(left)} left"
        if self._halted is None:  # a last step may end after the pause was asked for
            self._bar.set_description(f"{self._title}: {self.text}")
        if done > self._done:
            self._bar.update(done - self._done)
            self._done = done
        self._turn()

    def halt(self) -> None:
        """Say that the run pauses; its time does not count."""
        self._halted = time.perf_counter()
        self._bar.set_description(f"{self._title}: paused")

    def go_on(self) -> None:
        """Count time again."""
        if self._halted is not None:
            self._idle += time.perf_counter() - self._halted
            self._halted = None
        self._bar.set_description(f"{self._title}: {self.text}")

    def say(self, text: str) -> None:
        """Show a word in place of the stage."""
        self._bar.set_description(f"{self._title}: {text}")

    def close(self) -> None:
        """Take the bar away."""
        for wheel in self._wheels:
            if isalive(wheel):
                wheel.setPaused(False)
        self._bar.close()

    def _turn(self) -> None:
        """Turn the wheels of the status bar by a picture, for they do not turn by themselves."""
        for wheel in self._wheels:
            if isalive(wheel):
                wheel.setPaused(True)  # again: any new bar sets them going
                wheel.jumpToNextFrame()

    def _left(self, at: Advance) -> float | None:
        """Seconds left: this stage by its own rate, later ones by what was expected."""
        steps = at.index - self._first
        names = list(self._stages)
        later = names[names.index(at.stage) + 1 :] if at.stage in names else []
        coming = sum(self._expected.get(name, 0.0) for name in later)
        if steps >= _SETTLE:
            spent = time.perf_counter() - self._entered - self._idle
            return spent / steps * (at.total - at.index) + coming
        if not self._expected:
            return None
        share = (at.total - at.index) / max(1, at.total)
        return self._expected.get(at.stage, 0.0) * share + coming


def _wheels() -> list[QMovie]:
    """Wheels that turn in the status bars of napari's windows, now halted.

    Each of their thirty pictures a second composes the whole window anew, in which time
    no other thread may run Python: without a graphics card that stops a fusion for half
    of its time.
    """
    windows = [w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow)]
    bars = [bar for window in windows for bar in window.findChildren(QStatusBar)]
    found = [label.movie() for bar in bars for label in bar.findChildren(QLabel)]
    wheels = [movie for movie in found if movie is not None]
    for wheel in wheels:
        wheel.setPaused(True)
    return wheels


def words(seconds: float) -> str:
    """Return a duration in a few characters."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def _spread(stages: Mapping[str, int], estimate: Mapping[str, float]) -> dict[str, float]:
    """Spread the expected seconds over the stages: training over those that train."""
    if "seconds" not in estimate:
        return {}
    training = [name for name in stages if name.startswith("train")]
    others = [name for name in stages if name not in training]
    if "training_seconds" not in estimate or not training:
        total = max(1, sum(stages.values()))
        return {name: estimate["seconds"] * steps / total for name, steps in stages.items()}
    out: dict[str, float] = {}
    for names, seconds in (
        (training, estimate["training_seconds"]),
        (others, estimate["sampling_seconds"]),
    ):
        total = max(1, sum(stages[name] for name in names))
        out |= {name: seconds * stages[name] / total for name in names}
    return out
