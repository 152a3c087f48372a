"""Connections to events of napari that end with the widget that made them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class Links:
    """Bound methods connected to emitters; their objects are not kept alive by it.

    A widget keeps one, connects through it, and calls :meth:`clear` when it goes:
    from then on no event of the viewer reaches it.
    """

    def __init__(self) -> None:
        self._made: list[tuple[Any, weakref.WeakMethod[Any]]] = []

    def __len__(self) -> int:
        return len(self._made)

    def connect(self, emitter: Any, method: Callable[..., Any]) -> None:
        """Connect a bound method to an emitter with ``connect`` and ``disconnect``."""
        emitter.connect(method)
        self._made.append((emitter, weakref.WeakMethod(method)))

    def clear(self, *_: object) -> None:
        """Disconnect everything; calling it again does nothing."""
        made, self._made = self._made, []
        for emitter, method_ref in made:
            method = method_ref()
            if method is not None:
                emitter.disconnect(method)
