"""The table of a comparison with what belongs to it: title, progress, copy, CSV."""

from __future__ import annotations

from pathlib import Path

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..errors import WriteError
from .measures import MeasuredRow, Measures
from .rows import sentence
from .table import MeasuresTable


class ResultsPanel(QWidget):
    """Table of metrics under a line that says what was compared, and how.

    Attributes
    ----------
    table : MeasuresTable
    summary : QLabel
        What could not be done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = MeasuresTable()
        self.title = sentence()
        self.title.setToolTip("What the table compares with, and how.")
        self.summary = sentence()
        self.summary.setToolTip("What could not be done, and why.")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setToolTip("How far the computation is.")
        self.bar.hide()
        self.copy_button = QPushButton("Copy table")
        self.copy_button.setToolTip("The table to the clipboard, for a spreadsheet.")
        self.copy_button.clicked.connect(self.copy)
        self.csv_button = QPushButton("Save CSV…")
        self.csv_button.setToolTip("The table as a file, in full precision.")
        self.csv_button.clicked.connect(lambda: self.save_csv())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.title)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.bar)
        layout.addWidget(self.summary)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy_button)
        buttons.addWidget(self.csv_button)
        layout.addLayout(buttons)
        self.begin(Measures())

    @property
    def measures(self) -> Measures:
        """What the table shows."""
        return self.table.rows.measures

    def begin(self, measures: Measures) -> None:
        """Show another comparison."""
        self.table.rows.begin(measures)
        self._refresh_title()

    def add(self, row: MeasuredRow) -> None:
        """Add a row; say below the table which layers were not measured."""
        self.table.rows.add(row)
        said = [f"{r.name} ({r.problem})" for r in self.measures.rows if r.problem]
        if said:
            self.summary.setText(f"Not measured: {'; '.join(said)}.")

    def renamed(self) -> None:
        """Show the names as they are now."""
        self._refresh_title()
        self.table.rows.refresh()

    def work_begins(self) -> None:
        """Show an empty bar."""
        self.summary.setText("")
        self.advance(0.0)
        self.bar.show()

    def advance(self, done: float) -> None:
        """Show the share of the work that is done."""
        self.bar.setValue(round(1000 * done))

    def work_ends(self) -> None:
        """Take the bar away."""
        self.bar.hide()
        # the sentence below may need more lines than before
        self.layout().invalidate()
        self.layout().activate()

    def copy(self, *_: object) -> str:
        """Put the table on the clipboard, with tabs between cells, and give it."""
        if not self.measures.rows:
            show_warning("Copy table: it is empty. Compare some layers first.")
            return ""
        text = self.measures.as_text("\t")
        QApplication.clipboard().setText(text)
        show_info("The table is on the clipboard.")
        return text

    def save_csv(self, path: str | Path | None = None) -> Path | None:
        """Write the table as CSV; without a path, ask for one."""
        if not self.measures.rows:
            show_warning("Save CSV: the table is empty. Compare some layers first.")
            return None
        if path is None:
            path, _ = QFileDialog.getSaveFileName(
                self, "Save the table", "comparison.csv", "Comma-separated values (*.csv)"
            )
        if not str(path):
            return None
        target = Path(path)
        target = target if target.suffix else target.with_suffix(".csv")
        try:
            self.measures.save_csv(target)
        except WriteError as error:
            show_error(f"Save CSV: {error}")
            return None
        show_info(f"The table is in {target}.")
        return target

    def _refresh_title(self) -> None:
        self.title.setText(self.measures.title() or "Nothing compared yet.")
