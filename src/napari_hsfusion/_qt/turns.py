"""News of a run reach the window one by one, each when it has drawn the one before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QCoreApplication, QEvent, QTimer


class Turns:
    """Queue between a job and a form.

    A window stands still while it draws. News that come close together would be drawn in
    one go, and napari's progress bar, which lets events in while it is drawn, would let
    the next begin before the last has ended.

    Parameters
    ----------
    tell : callable
        Changes the window by one piece of news.
    drawn : callable
        Told the seconds that the news of one :meth:`take` took, with the drawing.
    """

    def __init__(self, tell: Callable[[Any], object], drawn: Callable[[float], object]) -> None:
        self._tell = tell
        self._drawn = drawn
        self._waiting: deque[tuple[Any, bool]] = deque()
        self._busy = False
        self._seconds = 0.0

    def take(self, *news: Any) -> None:
        """Tell these when their turn has come: now, if nothing else is being drawn."""
        self._waiting.extend((one, k == len(news) - 1) for k, one in enumerate(news))
        if not self._busy:
            self._next()

    def catch_up(self) -> None:
        """Tell all that waits at once: for the end of a run."""
        while self._waiting:
            self._tell(self._waiting.popleft()[0])

    def forget(self) -> None:
        """Tell nothing of what waits."""
        self._waiting.clear()

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if not self._busy:
            return
        begun = time.perf_counter()
        news, last = self._waiting.popleft()
        try:
            self._tell(news)
        finally:
            _settle_layouts()
            # comes when the window has drawn all that
            QTimer.singleShot(0, partial(self._ended, begun, last))

    def _ended(self, begun: float, last: bool) -> None:
        self._seconds += time.perf_counter() - begun
        if last:
            self._drawn(self._seconds)
            self._seconds = 0.0
        # a timer again, behind those that are due: what the user does comes in between
        QTimer.singleShot(0, self._next)


def _settle_layouts() -> None:
    """Lay out now what waits for it: the next picture of the window then is the only one."""
    for _ in range(3):  # a form, its dock, the window
        QCoreApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest)
