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
from qtpy.QtCore import QObject, QTimer

from ..errors import HSFusionError

logger = logging.getLogger(__name__)

_PATIENCE_MS = 20

_busy: set[Latest] = set()
"""Those with a question. Qt's connections do not keep a Python object, and PySide6 calls one
that was collected with its form in the meantime."""


class Latest:
    """Answers of a function to the newest question.

    A question waits a moment for newer ones.

    Parameters
    ----------
    function : callable
        Called in another thread; touches no layer and no widget.
    answered : callable
        Called in the main thread with ``(value, None)``, or ``(None, sentence)`` where
        the function failed. Answers that a newer question has overtaken are dropped.
    parent : QObject, optional
        Widget that asks: nothing is begun or answered after it has gone.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        answered: Callable[[Any, str | None], None],
        parent: QObject | None = None,
    ) -> None:
        self._function = function
        self._answered = answered
        self._waiting: tuple[Any, ...] | None = None
        self._worker: Any = None
        self._stopped = False
        self._dropped = False
        self._timer = QTimer(parent)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PATIENCE_MS)
        self._timer.timeout.connect(self._begin)
        if parent is not None:
            parent.destroyed.connect(self.stop)

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._worker is not None or self._waiting is not None

    def ask(self, *question: Any) -> None:
        """Ask; what was asked before and is not answered yet is of no interest any more."""
        if self._stopped:
            return
        self._waiting = question
        self._dropped = True
        _busy.add(self)
        if self._worker is None and not self._timer.isActive():
            self._timer.start()

    def forget(self) -> None:
        """Let every question go that is not answered yet."""
        self._waiting = None
        self._dropped = True

    def stop(self, *_: object) -> None:
        """Answer nothing any more: for widgets that close."""
        self._stopped = True
        self._waiting = None
        self._answered = _nobody  # a form that has closed is not kept by what is on its way
        self._let_go_if_idle()

    def _let_go_if_idle(self) -> None:
        if self._worker is None:
            _busy.discard(self)

    def _begin(self) -> None:
        if self._waiting is None or self._worker is not None or self._stopped:
            self._let_go_if_idle()
            return
        question, self._waiting = self._waiting, None
        self._dropped = False
        self._worker = create_worker(_answer, self._function, question, _start_thread=False)
        self._worker.returned.connect(self._returned)
        self._worker.start()

    def _returned(self, answer: tuple[Any, str | None]) -> None:
        self._worker = None
        if not (self._stopped or self._dropped):
            self._answered(*answer)
        self._begin()


def _nobody(value: Any, trouble: str | None) -> None:
    """Hear no answer."""


def _answer(function: Callable[..., Any], question: tuple[Any, ...]) -> tuple[Any, str | None]:
    try:
        return function(*question), None
    except HSFusionError as error:
        return None, str(error)
    except Exception as error:  # whatever it is, the form must hear of it
        logger.exception("%s failed", getattr(function, "__name__", "a preview"))
        return None, f"{type(error).__name__}: {error}"
