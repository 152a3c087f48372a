"""The newest question answered in another thread, for pictures that follow a form.

Reading a sensor's table, or importing torch for a kernel, takes longer than a form may
stand still. While one question is being answered only the newest of those that came
since is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker

from ..errors import HSFusionError

logger = logging.getLogger(__name__)


class Latest:
    """Answers of a function to the newest question.

    Parameters
    ----------
    function : callable
        Called in another thread; touches no layer and no widget.
    answered : callable
        Called in the main thread with ``(value, None)``, or ``(None, sentence)`` where
        the function failed. Answers that a newer question has overtaken are dropped.

    Attributes
    ----------
    busy : bool
        Whether an answer is still to come.
    """

    def __init__(
        self, function: Callable[..., Any], answered: Callable[[Any, str | None], None]
    ) -> None:
        self._function = function
        self._answered = answered
        self._waiting: tuple[Any, ...] | None = None
        self._worker: Any = None
        self._stopped = False
        self._dropped = False

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._worker is not None

    def ask(self, *question: Any) -> None:
        """Ask; what was asked before and is not answered yet is of no interest any more."""
        if self._stopped:
            return
        self._dropped = False
        if self.busy:
            self._waiting = question
        else:
            self._start(question)

    def forget(self) -> None:
        """Let every question go that is not answered yet."""
        self._waiting = None
        self._dropped = self.busy

    def stop(self, *_: object) -> None:
        """Answer nothing any more: for widgets that close."""
        self._stopped = True
        self._waiting = None

    def _start(self, question: tuple[Any, ...]) -> None:
        self._worker = create_worker(_answer, self._function, question, _start_thread=False)
        self._worker.returned.connect(self._returned)
        self._worker.start()

    def _returned(self, answer: tuple[Any, str | None]) -> None:
        self._worker = None
        if self._stopped:
            return
        if self._waiting is not None:
            question, self._waiting = self._waiting, None
            self._start(question)
            return
        if not self._dropped:
            self._answered(*answer)


def _answer(function: Callable[..., Any], question: tuple[Any, ...]) -> tuple[Any, str | None]:
    try:
        return function(*question), None
    except HSFusionError as error:
        return None, str(error)
    except Exception as error:  # whatever it is, the form must hear of it
        logger.exception("%s failed", getattr(function, "__name__", "a preview"))
        return None, f"{type(error).__name__}: {error}"
