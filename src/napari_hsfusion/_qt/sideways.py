"""A form above its results in a high dock, beside them in a wide one."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QBoxLayout, QFrame, QScrollArea, QSizePolicy, QWidget

from .rows import fill_dock

_WIDE = 760
_FORM_WIDTH = 400


class FormScroll(QScrollArea):
    """Scroll area that is as high as its form where there is room, and no higher.

    Parameters
    ----------
    form : QWidget
    """

    def __init__(self, form: QWidget) -> None:
        self._form = form
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(form)
        self.setMinimumHeight(60)
        self.lie(False)

    def sizeHint(self) -> QSize:
        """Size of the form."""
        return self._form.sizeHint()

    def lie(self, sideways: bool) -> None:
        """Take the height that is there, or the width."""
        free, bound = QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum
        self.setSizePolicy(free, free if sideways else bound)
        self.setMinimumWidth(_FORM_WIDTH if sideways else 0)
        self.setMaximumWidth(_FORM_WIDTH if sideways else 16_777_215)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow the height of the form."""
        asked = event is not None and event.type() == QEvent.Type.LayoutRequest
        if asked and watched is self._form:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))


class Sideways(QObject):
    """Lays a form and its results beside each other where there is more width than height.

    Parameters
    ----------
    widget : QWidget
        Of both, with a box layout.
    form : FormScroll
    """

    def __init__(self, widget: QWidget, form: FormScroll) -> None:
        super().__init__(widget)
        self._form = form
        fill_dock(widget)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow the size."""
        resized = event is not None and event.type() == QEvent.Type.Resize
        if resized and isinstance(watched, QWidget):
            wide = watched.width() > max(_WIDE, 1.2 * watched.height())
            layout = watched.layout()
            wanted = QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom
            if isinstance(layout, QBoxLayout) and layout.direction() != wanted:
                layout.setDirection(wanted)
                self._form.lie(wide)
        return False
