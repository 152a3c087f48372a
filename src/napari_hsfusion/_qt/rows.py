"""Parts of forms: rows with a label before them, a noise level, sentences, sections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FileEdit,
    FloatSpinBox,
    Label,
    LineEdit,
)
from magicgui.widgets.bases import Widget
from qtpy.QtCore import Qt
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import QFrame, QLabel, QScrollArea, QSizePolicy, QWidget

_WIDEST = "Responses"


def row(label: str, *widgets: Widget, tooltip: str = "") -> Container:
    """Lay widgets beside each other, after a label as wide as that of every other row."""
    said = Label(value=label)
    said.tooltip = tooltip or widgets[0].tooltip
    made = Container(widgets=[said, *widgets], layout="horizontal", labels=False)
    made.margins = (0, 0, 0, 0)
    # a long name of a layer or a file may not widen the form
    for widget in widgets:
        if isinstance(widget, ComboBox | FileEdit | LineEdit):
            widget.native.setMinimumWidth(60)
            widget.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    metrics = QFontMetrics(said.native.font())
    said.native.setFixedWidth(metrics.horizontalAdvance(_WIDEST) + 16)
    return made


def narrow_file(field: FileEdit) -> None:
    """Let the field of a file be as narrow as its form is, however long the path."""
    line = field.line_edit.native
    line.setMinimumWidth(60)
    line.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    field.choose_btn.text = "…"
    field.choose_btn.tooltip = "Choose a file."
    field.choose_btn.native.setMaximumWidth(30)


def path_of(field: FileEdit) -> Path | None:
    """Path that a field names; an empty line names none."""
    text = field.line_edit.value.strip()
    return Path(text).expanduser() if text else None


def column(widgets: Sequence[Widget]) -> Container:
    """Lay rows below each other, without margins."""
    made = Container(widgets=widgets, labels=False)
    made.margins = (0, 0, 0, 0)
    return made


def sentence() -> QLabel:
    """Label for sentences: as wide as there is room, as high as they need."""
    label = QLabel()
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    return label


def scrolled(form: Container) -> QScrollArea:
    """Scroll a form up and down where it is higher than the dock; it is as wide as that."""
    area = QScrollArea()
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    form.native.layout().addStretch(1)
    area.setWidget(form.native)
    return area


class NoiseRow(Container):
    """A signal-to-noise ratio in dB, or no noise at all.

    Parameters
    ----------
    label : str
    value : float or None
        dB; None for no noise.
    tooltip : str
    """

    def __init__(self, label: str, value: float | None = 35.0, tooltip: str = "") -> None:
        self.level = FloatSpinBox(
            value=35.0 if value is None else value, min=-20.0, max=200.0, step=1.0, tooltip=tooltip
        )
        self.noisy = CheckBox(
            value=value is not None, text="noise (dB)", tooltip="Untick to add no noise at all."
        )
        self.noisy.changed.connect(self._switch)
        super().__init__(
            widgets=[row(label, self.level, self.noisy)], layout="horizontal", labels=False
        )
        self.margins = (0, 0, 0, 0)
        self._switch(self.noisy.value)

    @property
    def value(self) -> float | None:
        """The ratio in dB, or None for no noise."""
        return float(self.level.value) if self.noisy.value else None

    @value.setter
    def value(self, value: float | None) -> None:
        if value is not None:
            self.level.value = value
        self.noisy.value = value is not None

    def _switch(self, noisy: bool) -> None:
        self.level.enabled = noisy


def fill_dock(widget: QWidget) -> None:
    """Let a form take all the height of its dock.

    napari looks through the layout of one that does not, for somewhere to put the rest.
    Under PySide6 that is fatal: the Python objects of the layout's items, which it then
    has looked at, delete them a second time when the form is collected as garbage.
    """
    policy = widget.sizePolicy()
    policy.setVerticalPolicy(QSizePolicy.Policy.Expanding)
    widget.setSizePolicy(policy)
