"""One kind of plot for the whole plugin, in the colours of napari's theme.

pyqtgraph draws; none of its global options is touched, since other plugins of the
same process may rely on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qtpy

# before pyqtgraph: it takes the Qt binding that it finds imported
from qtpy.compat import isalive
from qtpy.QtCore import QBuffer, QIODevice, QRectF, QSize, Signal
from qtpy.QtGui import QColor, QFont, QImage, QPainter
from qtpy.QtWidgets import QWidget

from ..errors import WriteError
from ..io._atomic import atomic_write
from .links import Links

try:
    import pyqtgraph as pg
except ImportError as error:
    raise ImportError(
        "the plots of napari-hsfusion need pyqtgraph: "
        "install the extra, napari-hsfusion[pyqt6] or napari-hsfusion[pyside6]"
    ) from error

if qtpy.API_NAME != pg.Qt.QT_LIB:
    raise ImportError(
        f"napari runs on {qtpy.API_NAME}, but pyqtgraph on {pg.Qt.QT_LIB}: "
        f"start again with the environment variable PYQTGRAPH_QT_LIB={qtpy.API_NAME}"
    )

COLORS = ("#4e62b1", "#d87600", "#279d62", "#9d76ff", "#c42727", "#9d4e76", "#9d00ff")
"""Line colours that stay apart for colour-blind eyes too, on both of napari's themes.

Found by search: the least CIELAB distance between two of them, also as seen in
protanopia, deuteranopia and tritanopia, is as large as seven colours with a contrast
of at least 2.2 to either background allow.
"""

_SIZE = (280, 200)

PNG_SCALE = 2
"""Pixels of a saved picture for one on the screen."""


class Plot(pg.PlotWidget):
    """A plot that looks like the rest of the window, whatever its theme.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose theme is followed.
    x_label, y_label : str
        Labels of the axes.

    Attributes
    ----------
    styled : Signal
        Emitted after the colours have changed with the theme.
    text_color : str
        Colour of text and axes now, ``#rrggbb``.
    background_color : str
        Colour behind the curves now, ``#rrggbb``.
    """

    styled = Signal()

    def __init__(self, viewer: Any, x_label: str = "", y_label: str = "") -> None:
        super().__init__()
        self.text_color = "#808080"
        self.background_color = "#000000"
        self._viewer = viewer
        self._labels = {"bottom": x_label, "left": y_label}
        self._links = Links()
        self._links.connect(viewer.events.theme, self._restyle)
        self.destroyed.connect(self._links.clear)
        # a line of few points is smoother so, and costs little
        self.setAntialiasing(True)
        self.plotItem.setMenuEnabled(False)
        self.plotItem.hideButtons()
        # axis labels hang a little below their axis: room for their lower edge
        self.plotItem.layout.setContentsMargins(2, 4, 8, 6)
        self._restyle()

    def sizeHint(self) -> QSize:
        """Small: pyqtgraph's own, by what is drawn, would take half of a window."""
        return QSize(*_SIZE)

    @staticmethod
    def color(k: int) -> str:
        """The k-th line colour, ``#rrggbb``; they repeat after seven."""
        return COLORS[k % len(COLORS)]

    def set_labels(self, x_label: str | None = None, y_label: str | None = None) -> None:
        """Change the labels of the axes; None leaves one as it is."""
        for side, text in (("bottom", x_label), ("left", y_label)):
            if text is not None and text != self._labels[side]:
                self._labels[side] = text
                self._style_axis(side)

    def add_legend(self, columns: int = 1) -> pg.LegendItem:
        """Legend in the plot's upper right corner, in the theme's colours."""
        legend = self.plotItem.addLegend(offset=(-8, 4), colCount=columns, verSpacing=-4)
        self._style_legend()
        return legend

    def save_png(self, path: str | Path) -> Path:
        """Write the plot as it stands as PNG, whole or not at all.

        Parameters
        ----------
        path : str or Path

        Returns
        -------
        Path

        Raises
        ------
        WriteError
            If it could not be written; what stood there before still does.
        """
        target = Path(path)
        size = self.viewport().size() * PNG_SCALE
        picture = QImage(size, QImage.Format.Format_RGB32)
        painter = QPainter(picture)
        painter.setRenderHints(self.renderHints())
        self.render(painter, QRectF(picture.rect()), self.viewport().rect())
        painter.end()
        buffer = QBuffer()
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        if not picture.save(buffer, "PNG"):
            raise WriteError(f"{target}: the plot could not be drawn as PNG")
        with atomic_write([target]) as (temporary,):
            temporary.write_bytes(bytes(buffer.data().data()))
        return target

    def _restyle(self, event: Any = None) -> None:
        if not isalive(self):
            return
        from napari.utils.theme import get_theme

        theme = get_theme(self._viewer.theme)
        self.text_color = QColor(theme.text.as_hex(format="long")[:7]).name()
        self.background_color = QColor(theme.background.as_hex(format="long")[:7]).name()
        self._font_points = float(str(theme.font_size).removesuffix("pt"))
        self.setBackground(self.background_color)
        for side in self._labels:
            self._style_axis(side)
        self._style_legend()
        self.styled.emit()

    def _style_axis(self, side: str) -> None:
        font = QFont(QWidget.font(self))
        font.setPointSizeF(self._font_points * 0.9)
        axis = self.plotItem.getAxis(side)
        axis.setPen(self.text_color)
        axis.setTextPen(self.text_color)
        axis.setTickFont(font)
        size = f"{self._font_points:g}pt"
        axis.setLabel(self._labels[side], **{"color": self.text_color, "font-size": size})
        axis.showLabel(bool(self._labels[side]))
        # the labels say the unit already: no "k" or "m" of pyqtgraph's own beside it
        axis.enableAutoSIPrefix(False)

    def _style_legend(self) -> None:
        legend = self.plotItem.legend
        if legend is None:
            return
        veil = QColor(self.background_color)
        veil.setAlpha(190)
        legend.setBrush(veil)
        legend.setLabelTextSize(f"{self._font_points * 0.9:g}pt")
        legend.setLabelTextColor(self.text_color)
        for _, label in legend.items:
            label.setText(label.text)
