"""The learning curve of a training run: its loss, and what its trials score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt

from .plots import Plot, pg

if TYPE_CHECKING:
    from napari.viewer import Viewer

_HEIGHT = 150
_POINTS = 300  # of the loss, drawn at most: each is the mean of those it stands for


class TrainView(Plot):
    """Loss on the left axis, validation metric on the right; hidden until there is one.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    losses, metrics : list of (int, float)
        By step.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "step", "loss")
        self.setFixedHeight(_HEIGHT)
        self.setToolTip(
            "Training loss (left axis, logarithmic; lower is better) and the validation metric "
            "(right axis, higher is better; dashed: what the network starts from)."
        )
        self.losses: list[tuple[int, float]] = []
        self.metrics: list[tuple[int, float]] = []
        self.setMouseEnabled(False, False)
        self._curve = self.plot([], pen={"color": self.color(0), "width": 1.5})
        self._right = pg.ViewBox(enableMenu=False)
        self._right.setMouseEnabled(False, False)
        item = self.plotItem
        item.setLogMode(y=True)
        item.getAxis("right").setLogMode(False, False)
        item.scene().addItem(self._right)
        item.getAxis("right").linkToView(self._right)
        self._right.setXLink(item)
        self._tried = pg.PlotDataItem(
            [],
            pen={"color": self.color(1), "width": 1.5},
            symbol="o",
            symbolSize=5,
            symbolBrush=self.color(1),
            symbolPen=None,
        )
        self._right.addItem(self._tried)
        pen = pg.mkPen(self.color(1), width=1.2, style=Qt.PenStyle.DashLine)
        self._start = pg.PlotCurveItem([], [], pen=pen)
        self._right.addItem(self._start)
        item.vb.sigResized.connect(self._follow)
        for side in ("left", "right"):
            self.getAxis(side).setStyle(autoReduceTextSpace=False)
        self._baseline: float | None = None
        self.setVisible(False)

    def begin(self) -> None:
        """Forget the last run."""
        self.losses, self.metrics = [], []
        self._baseline = None
        self.plotItem.showAxis("right", False)
        self._curve.setData([], [])
        self._tried.setData([], [])
        self._start.setData([], [])
        self.setVisible(False)

    def set_metric(self, name: str, baseline: float | None) -> None:
        """Name what trials are scored by, and what the network's start scores."""
        self._labels["right"] = name
        self._style_axis("right")
        self.plotItem.showAxis("right", True)
        self._baseline = baseline
        self._draw()

    def take(
        self,
        losses: Sequence[tuple[int, float]] = (),
        metrics: Sequence[tuple[int, float]] = (),
    ) -> None:
        """Add points of either curve."""
        self.losses += [(step, loss) for step, loss in losses if np.isfinite(loss) and loss > 0]
        self.metrics += [(step, value) for step, value in metrics if np.isfinite(value)]
        if losses or metrics:
            self._draw()

    def _draw(self) -> None:
        steps, losses = thinned(self.losses)
        symbol = "o" if len(steps) == 1 else None
        self._curve.setData(steps, losses, symbol=symbol, symbolSize=5)
        if self.metrics:
            tried = np.array(self.metrics, dtype=float)
            self._tried.setData(tried[:, 0], tried[:, 1])
        known = [step for step, _ in (*self.losses, *self.metrics)]
        if known:
            ends = [min(known), max(known)]
            # of both curves: the left axis's box would follow the loss alone
            self.plotItem.vb.setXRange(*ends, padding=0.03)
            if self._baseline is not None:
                self._start.setData(ends, [self._baseline] * 2)
        self.setVisible(bool(known))
        self._follow()
        self.scene().prepareForPaint()

    def _follow(self, *_: object) -> None:
        """Lay the right axis's box over the left one's."""
        self._right.setGeometry(self.plotItem.vb.sceneBoundingRect())
        self._right.linkedViewChanged(self.plotItem.vb, self._right.XAxis)


def thinned(points: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a curve, means of equal groups where there are too many."""
    if not points:
        return np.empty(0), np.empty(0)
    table = np.array(points, dtype=float)
    every = -(-len(table) // _POINTS)
    groups = len(table) // every
    if every == 1:
        return table[:, 0], table[:, 1]
    means = table[: groups * every].reshape(groups, every, 2).mean(axis=1)
    return means[:, 0], means[:, 1]
