"""What a running fusion says of itself: a sentence, and the curve of its loss by stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QSize
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QWidget

from .fusing import Advance
from .plots import Plot
from .rows import sentence

if TYPE_CHECKING:
    from napari.viewer import Viewer

_HEIGHT = 130
_POINTS = 2000  # drawn at most; longer runs are thinned


class Saying(QWidget):
    """A sentence that may change at any time, as high as it needs.

    A bare label asks for a new layout of the whole window with every text, which draws
    all of it a second time; this one does only where its height changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._label = sentence()
        self._label.setParent(self)
        self.setSizePolicy(self._label.sizePolicy())

    def text(self) -> str:
        """What it says."""
        return self._label.text()

    def setText(self, text: str) -> None:
        """Say something else."""
        if text == self._label.text():
            return
        self._label.setText(text)
        if self.heightForWidth(self.width()) != self.height():
            self.updateGeometry()

    def sizeHint(self) -> QSize:
        """Size of the text in one line."""
        return self._label.sizeHint()

    def minimumSizeHint(self) -> QSize:
        """Least size of the text."""
        return self._label.minimumSizeHint()

    def heightForWidth(self, width: int) -> int:
        """Height of the text, broken into lines of this width."""
        return self._label.heightForWidth(width)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Give the text all the room."""
        super().resizeEvent(event)
        self._label.setGeometry(self.rect())


class RunView(Plot):
    """Loss against steps of the stage that runs; hidden until there is one.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "step", "loss")
        self.setFixedHeight(_HEIGHT)
        self.setToolTip("Objective of the stage that runs, by step: lower is better.")
        self._curve = self.plot([], pen={"color": self.color(0), "width": 1.5})
        self.stage = ""
        self.steps: list[int] = []
        self.losses: list[float] = []
        # it grows with its numbers, but does not shrink again and again
        self.getAxis("left").setStyle(autoReduceTextSpace=False)
        self.setVisible(False)

    def begin(self) -> None:
        """Forget the last run."""
        self.stage, self.steps, self.losses = "", [], []
        self._curve.setData([], [])
        self.setVisible(False)

    def advance(self, at: Advance) -> None:
        """Take the losses of a report."""
        if not at.losses:
            return
        if at.stage != self.stage:
            self.stage, self.steps, self.losses = at.stage, [], []
            self.set_labels(x_label=f"step ({at.stage})")
        for step, loss in at.losses:
            if np.isfinite(loss):
                self.steps.append(step)
                self.losses.append(loss)
        every = max(1, len(self.steps) // _POINTS)
        steps, losses = self.steps[::every], self.losses[::every]
        symbol = "o" if len(steps) == 1 else None
        self._curve.setData(steps, losses, symbol=symbol, symbolSize=5)
        self.setVisible(bool(self.steps))
        # the range follows now, not when it is painted, which would have it painted twice
        self.scene().prepareForPaint()
