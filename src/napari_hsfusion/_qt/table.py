"""The table of a comparison: sortable, the best of each column in bold."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtGui import QColor, QFont
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from .measures import MeasuredRow, Measures

_NAME_WIDTH = 170
_ALIGN_NUMBER = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_ALIGN_TEXT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
_BEST = QColor(39, 157, 98, 70)


class MeasuresModel(QAbstractTableModel):
    """Qt's view of :class:`.Measures`: the layer's name, then the metrics."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.measures = Measures()
        self._order: tuple[int, bool] | None = None

    def begin(self, measures: Measures) -> None:
        """Show another comparison; the order of rows is kept where its column is."""
        self.beginResetModel()
        self.measures = measures
        if self._order is not None and self._order[0] >= len(measures.infos):
            self._order = None
        self._sort()
        self.endResetModel()

    def add(self, row: MeasuredRow) -> None:
        """Add a row where the order asks for it."""
        self.beginResetModel()
        self.measures.rows.append(row)
        self._sort()
        self.endResetModel()

    def refresh(self) -> None:
        """Show names and numbers as they are now."""
        if self.measures.rows:
            last = self.index(len(self.measures.rows) - 1, self.columnCount() - 1)
            self.dataChanged.emit(self.index(0, 0), last)

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self.measures.rows)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() or not self.measures.infos else 1 + len(self.measures.infos)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Text, alignment, weight and tooltip of a cell."""
        if not index.isValid():
            return None
        row, column = index.row(), index.column() - 1
        of = self.measures.rows[row]
        if role == Qt.ItemDataRole.DisplayRole:
            if column < 0:
                return of.name
            return of.problem if of.problem and column == 0 else self.measures.text(row, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tooltip(row, column)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _ALIGN_TEXT if column < 0 or of.problem else _ALIGN_NUMBER
        best = column >= 0 and row in self.measures.best(column)
        if role == Qt.ItemDataRole.FontRole:
            font = QFont()
            font.setBold(best)
            font.setItalic(bool(of.problem) and column >= 0)
            return font
        if role == Qt.ItemDataRole.BackgroundRole and best:
            return _BEST
        return None

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Metric, unit and an arrow that says which way is better."""
        if orientation != Qt.Orientation.Horizontal or section > len(self.measures.infos):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            if section == 0:
                return "layer"
            info = self.measures.infos[section - 1]
            arrow = "↑" if info.higher_is_better else "↓"
            label, _, rest = info.label.partition(" to ")
            unit = "" if info.unit == "1" else f"({info.unit})"
            return f"{label} {arrow}\n{f'{rest} {unit}'.strip()}".strip()
        if role == Qt.ItemDataRole.ToolTipRole and section > 0:
            info = self.measures.infos[section - 1]
            better = "higher" if info.higher_is_better else "lower"
            unit = "no unit" if info.unit == "1" else f"in {info.unit}"
            return f"{info.label}, {unit}; {better} is better. Click to sort."
        return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; unmeasured rows stay at the end."""
        if column < 0:
            return
        self._order = (column - 1, order == Qt.SortOrder.DescendingOrder)
        self.beginResetModel()
        self._sort()
        self.endResetModel()

    def _sort(self) -> None:
        if self._order is not None:
            self.measures.sort(*self._order)

    def _tooltip(self, row: int, column: int) -> str:
        of = self.measures.rows[row]
        if of.problem:
            return f"not measured: {of.problem}"
        if column >= 0 and row in self.measures.best(column):
            return "the best of this column"
        ratio = "" if of.scale is None else f"ERGAS for the ratio {of.scale:g}"
        return "\n".join((of.name, *of.notes, ratio)).strip()


class MeasuresTable(QTableView):
    """Sortable table of metrics.

    Attributes
    ----------
    rows : MeasuresModel
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows = MeasuresModel(self)
        self.setModel(self.rows)
        # in the order of the layers, until a column is clicked
        self.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        self.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignCenter)
        self.verticalHeader().hide()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setMinimumHeight(60)
        self.rows.modelReset.connect(self._fit)

    def _fit(self) -> None:
        """Widths that show every number; a problem takes the place of all of them."""
        self.clearSpans()
        columns = self.rows.columnCount()
        for number, row in enumerate(self.rows.measures.rows):
            if row.problem and columns > 2:
                self.setSpan(number, 1, 1, columns - 1)
        metrics = self.fontMetrics()
        for column in range(columns):
            head = str(self.rows.headerData(column, Qt.Orientation.Horizontal))
            texts = [*head.split("\n")] + [
                row.name if column == 0 else self.rows.measures.text(number, column - 1)
                for number, row in enumerate(self.rows.measures.rows)
            ]
            wide = max(metrics.horizontalAdvance(text) for text in texts) + 16
            self.setColumnWidth(column, min(wide, _NAME_WIDTH) if column == 0 else wide)
        self.resizeRowsToContents()
