"""The switches for layers side by side and in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Container, FloatSpinBox
from magicgui.widgets.bases import Widget
from napari.utils.notifications import show_info, show_warning

from .rows import row
from .side_by_side import FASTEST, SLOWEST, SideBySide

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.viewer import Viewer


class ViewRow(Container):
    """Two switches, of which one at most is on.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    members : callable
        Gives the layers to look at, the one whose contrast all take first.

    Attributes
    ----------
    side_by_side, blink : CheckBox
    rate : FloatSpinBox
        Changes a second; shown by whoever owns this row.
    view : SideBySide
    """

    def __init__(self, viewer: Viewer, members: Callable[[], list[Layer]]) -> None:
        self._members = members
        self.side_by_side = CheckBox(
            value=False,
            text="Side by side",
            tooltip="The reference and the ticked layers in a grid, with one band, camera and "
            "contrast. Untick: all is as before.",
        )
        self.blink = CheckBox(
            value=False,
            text="Blink",
            tooltip="The reference and the ticked layers in turn, in one contrast.",
        )
        self.rate = FloatSpinBox(
            value=1.0,
            min=SLOWEST,
            max=FASTEST,
            step=0.2,
            tooltip="Changes a second while layers blink.",
        )
        said = row("View", self.side_by_side, self.blink, tooltip="Ways to look at the layers.")
        super().__init__(widgets=[said], labels=False)
        self.margins = (0, 0, 0, 0)
        self.view = SideBySide(viewer, self.native)
        self.side_by_side.changed.connect(self._side_by_side_toggled)
        self.blink.changed.connect(self._blink_toggled)
        self.rate.changed.connect(self.view.set_rate)
        self.view.ended.connect(self._ended)

    def members_changed(self) -> None:
        """Show the layers that are members now; end where they are fewer than two."""
        self.view.notice_removed()
        mode, members = self.view.mode, self._members()
        if not mode or members == self.view.shown:
            return
        if len(members) < 2:
            self.stop()
        else:
            self._toggle(mode, True)

    def stop(self) -> None:
        """End whatever is on; the viewer is as before."""
        self.view.stop()
        self._show_mode()

    def _side_by_side_toggled(self, on: bool) -> None:
        self._toggle("grid", on)

    def _blink_toggled(self, on: bool) -> None:
        self._toggle("blink", on)

    def _toggle(self, mode: str, on: bool) -> None:
        if not on:
            if self.view.mode == mode:
                self.view.stop()
            return
        members = self._members()
        if len(members) < 2:
            show_warning("Choose a reference and tick a layer, or tick two layers, to see both.")
        elif mode == "grid":
            self.view.start_grid(members)
        else:
            self.view.start_blink(members, float(self.rate.value))
        self._show_mode()

    def _show_mode(self, *_: Any) -> None:
        for mode, box in (("grid", self.side_by_side), ("blink", self.blink)):
            with box.changed.blocked():
                box.value = self.view.mode == mode

    def _ended(self, why: str) -> None:
        self._show_mode()
        if why:
            show_info(why)


def beside(*widgets: Widget) -> Container:
    """Lay buttons beside each other, without margins."""
    made = Container(widgets=widgets, layout="horizontal", labels=False)
    made.margins = (0, 0, 0, 0)
    return made
