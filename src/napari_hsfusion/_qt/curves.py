"""The plot of the Spectrum dock: curves, their shading, and the line of the band on show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QSizePolicy

from .plots import Plot
from .spectra import Spectrum

CURSOR = "cursor"
HINT = "Move the mouse over a cube to see its spectrum. Shift+click pins it."

_STYLES = (
    Qt.PenStyle.SolidLine,
    Qt.PenStyle.DashLine,
    Qt.PenStyle.DotLine,
    Qt.PenStyle.DashDotLine,
)
_SYMBOLS = ("o", "s", "t", "d")
_LONGEST = 24
_LEGEND_ROW = 17
_AXIS_ROOM = 60


class SpectrumPlot(Plot):
    """Curves over wavelength, or over band numbers where one has no wavelengths.

    Attributes
    ----------
    dragged : Signal(float)
        Where the user pulls the band's line to: nm, or a band number.
    released : Signal
        The user let the line go.
    zoomed : Signal
        The user changed the range by hand.
    seen : Signal(bool)
        The plot appeared on the screen, or went.
    in_nm : bool
        Whether the axis is in nm.
    """

    dragged = Signal(float)
    released = Signal()
    zoomed = Signal()
    seen = Signal(bool)

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, "Wavelength (nm)", "Value")
        self.in_nm = True
        self.setMinimumSize(120, 90)
        self._curves: list[_Curve] = []
        self._entries: list[tuple[Any, ...]] = []
        self.legend = _Legend()
        self.plotItem.legend = self.legend
        self._beside: bool | None = None
        self._place_legend()
        self._extent = pg.PlotCurveItem(pen=None)
        self.plotItem.addItem(self._extent)
        self.line = pg.InfiniteLine(angle=90, movable=True, label="", labelOpts={"position": 0.94})
        self.line.setVisible(False)
        self.line.setZValue(5)
        self.plotItem.addItem(self.line, ignoreBounds=True)
        self.line.sigDragged.connect(self._line_dragged)
        self.line.sigPositionChangeFinished.connect(self._line_released)
        self.hint = pg.LabelItem()
        self.hint.setParentItem(self.plotItem.vb)
        self.hint.anchor(itemPos=(0.5, 0.5), parentPos=(0.5, 0.5))
        self.plotItem.vb.sigRangeChangedManually.connect(self._changed_by_hand)
        self.styled.connect(self._style_marks)
        self._restyle()

    @property
    def spectra(self) -> list[Spectrum]:
        """Curves that are drawn now."""
        return [curve.spectrum for curve in self._curves if curve.spectrum is not None]

    def show_spectra(
        self, spectra: Sequence[Spectrum], empty: tuple[float, float, bool] | None = None
    ) -> None:
        """Draw these curves and no others.

        Parameters
        ----------
        spectra : sequence of Spectrum
        empty : tuple, optional
            Where the axis begins and ends, and whether it is in nm, while there is no
            curve: the band's line is there all the same.
        """
        if spectra:
            self.in_nm = all(one.wavelength is not None for one in spectra)
            self._extent.setData([], [])
        elif empty is not None:
            self.in_nm = empty[2]
            self._extent.setData(np.array(empty[:2]), np.array([0.0, 1.0]))
        self.set_labels("Wavelength (nm)" if self.in_nm else "Band", _y_label(spectra))
        while len(self._curves) < len(spectra):
            self._curves.append(_Curve(self.plotItem))
        for k, curve in enumerate(self._curves):
            curve.draw(spectra[k] if k < len(spectra) else None, self.in_nm)
        self.hint.setVisible(not spectra)
        self._name(spectra)

    def lock(self, locked: bool) -> None:
        """Keep the range of values as it is, or let both axes follow the curves again."""
        if locked:
            self.plotItem.vb.disableAutoRange(pg.ViewBox.YAxis)
        else:
            self.plotItem.vb.enableAutoRange(pg.ViewBox.XYAxes)

    def mark(self, x: float | None, text: str = "") -> None:
        """Put the band's line to `x`, unless the user holds it; None hides it."""
        if x is not None and self.line.moving:
            self.line.label.setFormat(text)
            return
        self.line.setVisible(x is not None)
        if x is not None:
            self.line.setPos(x)
            self.line.label.setFormat(text)

    def resizeEvent(self, event: Any) -> None:
        """Keep the legend where there is room."""
        super().resizeEvent(event)
        if event is not None:
            self._place_legend()

    def showEvent(self, event: Any) -> None:
        """Tell that the plot is on the screen."""
        super().showEvent(event)
        self.seen.emit(True)

    def hideEvent(self, event: Any) -> None:
        """Tell that the plot is no longer on the screen."""
        super().hideEvent(event)
        self.seen.emit(False)

    def _place_legend(self) -> None:
        """Legend on the right of a wide plot, below a narrow one: never over the curves."""
        beside = self.width() > 2 * self.height()
        if beside != self._beside:
            layout = self.plotItem.layout
            if self._beside is not None:
                layout.removeItem(self.legend)
            self._beside = beside
            if beside:
                layout.addItem(self.legend, 2, 3, Qt.AlignmentFlag.AlignTop)
            else:
                layout.addItem(self.legend, 4, 0, 1, 3, Qt.AlignmentFlag.AlignLeft)
        self._arrange_legend()

    def _arrange_legend(self) -> None:
        number = len(self.legend.items)
        if self._beside:
            rows = max(1, int((self.height() - _AXIS_ROOM) // _LEGEND_ROW))
            self.legend.setColumnCount(max(1, -(-number // rows)))
        else:
            self.legend.setColumnCount(2 if number > 1 else 1)
        self.legend.updateGeometry()

    def _line_dragged(self, line: Any) -> None:
        self.dragged.emit(float(line.value()))

    def _line_released(self, _: Any) -> None:
        self.released.emit()

    def _changed_by_hand(self, *_: Any) -> None:
        self.zoomed.emit()

    def _style_marks(self) -> None:
        self.line.setPen(pg.mkPen(self.text_color, width=1, style=Qt.PenStyle.DashLine))
        self.line.setHoverPen(pg.mkPen(self.text_color, width=3))
        self.line.label.setColor(self.text_color)
        veil = QColor(self.background_color)
        veil.setAlpha(200)
        self.line.label.fill = pg.mkBrush(veil)
        self.hint.setText(HINT, color=self.text_color)
        self._entries = []
        self._name(self.spectra)

    def _name(self, spectra: Sequence[Spectrum]) -> None:
        """Legend: a line style a layer, a colour a pinned point or region."""
        entries: dict[tuple[str, str], tuple[Any, ...]] = {}
        for one in spectra:
            at_cursor = one.place == CURSOR
            color = one.color if at_cursor else self.text_color
            key = ("layer", one.layer)
            if at_cursor or key not in entries:
                entries[key] = (_short(one.layer), color, one.rank, one.points)
        for one in spectra:
            if one.place != CURSOR:
                entries.setdefault(("place", one.place), (_short(one.place), one.color, 0, False))
        wanted = list(entries.values())
        if wanted == self._entries:
            return
        self._entries = wanted
        self.legend.clear()
        for name, color, rank, points in wanted:
            self.legend.addItem(
                _Sample(pg.PlotDataItem([0], [0], **_look(color, rank, points))), name
            )
        self._arrange_legend()

    @property
    def legend_names(self) -> list[str]:
        """Names in the legend."""
        return [str(label.text) for _, label in self.legend.items]


class _Legend(pg.LegendItem):
    """A legend that a layout places, and that stays there."""

    def __init__(self) -> None:
        super().__init__(verSpacing=-4)
        self.layout.setContentsMargins(6, 0, 4, 0)
        # rows as high as their names: a stretched one parts a name from its line
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        # a saved picture is drawn larger, and the legend with it
        self.setFlag(self.GraphicsItemFlag.ItemIgnoresTransformations, False)

    def updateSize(self) -> None:
        """Tell the layout that the names have changed."""
        self.updateGeometry()

    def hoverEvent(self, event: Any) -> None:
        """Nothing: it is not dragged."""

    def mouseDragEvent(self, event: Any) -> None:
        """Leave the drag to others."""
        event.ignore()


class _Sample(pg.ItemSample):
    """What a line looks like; a click on it hides nothing."""

    def mouseClickEvent(self, event: Any) -> None:
        """Leave the click to others."""
        event.ignore()


class _Curve:
    """Items of one curve; drawn again and again with new values."""

    def __init__(self, plot: Any) -> None:
        self.spectrum: Spectrum | None = None
        self.main = pg.PlotDataItem(antialias=True)
        self._plot = plot
        self._drawn = self._in_nm = False
        self._edges: tuple[Any, Any] | None = None
        self._fill: Any = None
        plot.addItem(self.main)

    def draw(self, spectrum: Spectrum | None, in_nm: bool) -> None:
        if self._drawn and self.spectrum is spectrum and self._in_nm == in_nm:
            return
        self.spectrum, self._in_nm, self._drawn = spectrum, in_nm, True
        if spectrum is None or not np.isfinite(spectrum.values).any():
            self.main.setData([], [])
            self._shade(None, None, None)
            return
        x = np.arange(1.0, len(spectrum.values) + 1)
        if in_nm and spectrum.wavelength is not None:
            x = spectrum.wavelength
        order = np.argsort(x, kind="stable")
        x, y = x[order], spectrum.values[order]
        known = np.isfinite(y)
        look = _look(spectrum.color, spectrum.rank, spectrum.points, spectrum.place == CURSOR)
        if spectrum.points:
            self.main.setData(x[known], y[known], connect="all", **look)
        else:
            self.main.setData(x, y, connect="finite", symbol=None, **look)
        self._shade(x, y, None if spectrum.std is None else spectrum.std[order])

    def _shade(self, x: Any, y: Any, std: Any) -> None:
        if std is None or self.spectrum is None:
            if self._edges is not None:
                for edge in self._edges:
                    edge.setData([], [])
                # an empty one would stretch the axes to the point (0, 0)
                self._fill.setVisible(False)
            return
        if self._edges is None:
            self._edges = (pg.PlotCurveItem(pen=None), pg.PlotCurveItem(pen=None))
            self._fill = pg.FillBetweenItem(*self._edges)
            for item in (*self._edges, self._fill):
                self._plot.addItem(item)
        color = QColor(self.spectrum.color)
        color.setAlpha(60)
        self._fill.setBrush(color)
        self._fill.setVisible(True)
        self._edges[0].setData(x, y - std, connect="finite")
        self._edges[1].setData(x, y + std, connect="finite")


def _look(color: str, rank: int, points: bool, strong: bool = False) -> dict[str, Any]:
    if points:
        symbol = _SYMBOLS[rank % len(_SYMBOLS)]
        return {
            "pen": None,
            "symbol": symbol,
            "symbolSize": 8,
            "symbolBrush": color,
            "symbolPen": color,
        }
    style = _STYLES[rank % len(_STYLES)]
    return {"pen": pg.mkPen(color, width=2.0 if strong else 1.5, style=style)}


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _y_label(spectra: Sequence[Spectrum]) -> str:
    units = {one.unit for one in spectra}
    return f"Value ({units.pop()})" if len(units) == 1 and "" not in units else "Value"
