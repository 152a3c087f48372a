"""The curve of the loss of a running fusion, stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .fusing import Advance
from .plots import Plot

if TYPE_CHECKING:
    from napari.viewer import Viewer

_HEIGHT = 130
_POINTS = 2000  # drawn at most; longer runs are thinned


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
