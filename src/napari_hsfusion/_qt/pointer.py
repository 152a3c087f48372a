"""The mouse on the canvas: where it is, and where it was clicked with Shift."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

_STILL = 4
"""Pixels of the screen that a hand may move during a click."""


class Pointer:
    """Mouse callbacks of a viewer that keep nobody alive.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    moved, pinned : callable
        Bound methods; they get the world position (y, x).
    """

    def __init__(
        self,
        viewer: Any,
        moved: Callable[[tuple[float, float]], None],
        pinned: Callable[[tuple[float, float]], None],
    ) -> None:
        self._viewer = viewer
        moved_ref, pinned_ref = weakref.WeakMethod(moved), weakref.WeakMethod(pinned)

        def on_move(seen: Any, event: Any) -> None:
            tell = moved_ref()
            place = _place(seen, event)
            if tell is not None and place is not None:
                tell(place)

        def on_press(seen: Any, event: Any) -> Iterator[None]:
            place = _place(seen, event)
            if not _shift(event) or place is None or not _free(seen):
                return
            start = tuple(event.pos)
            yield
            while event.type == "mouse_move":
                yield
            if max(abs(now - then) for now, then in zip(event.pos, start, strict=True)) > _STILL:
                return  # a drag is no click
            tell = pinned_ref()
            if tell is not None:
                tell(place)

        self._on_move, self._on_press = on_move, on_press
        self.attached = False

    def attach(self) -> None:
        """Hear the mouse from now on."""
        if not self.attached:
            self._viewer.mouse_move_callbacks.append(self._on_move)
            self._viewer.mouse_drag_callbacks.append(self._on_press)
            self.attached = True

    def detach(self, *_: object) -> None:
        """Hear it no more."""
        if self.attached:
            self._viewer.mouse_move_callbacks.remove(self._on_move)
            self._viewer.mouse_drag_callbacks.remove(self._on_press)
            self.attached = False


def _place(viewer: Any, event: Any) -> tuple[float, float] | None:
    """World position (y, x) of an event; None in three dimensions, where it is a ray."""
    if viewer.dims.ndisplay != 2 or len(event.position) < 2:
        return None
    y, x = event.position[-2:]
    return float(y), float(x)


def _shift(event: Any) -> bool:
    return any(str(getattr(key, "name", key)) == "Shift" for key in event.modifiers)


def _free(viewer: Any) -> bool:
    """Whether a click means nothing to the active layer's tool."""
    active = viewer.layers.selection.active
    return active is None or str(getattr(active, "mode", "pan_zoom")) == "pan_zoom"
