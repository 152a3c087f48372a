"""Buttons to pick bands with, as many beside each other as fit."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qtpy.QtCore import Signal
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import QGridLayout, QPushButton, QSizePolicy, QWidget

_WIDTH = 270
_LONGEST = 12


class BandChips(QWidget):
    """One checkable button a band; those that cannot be picked are greyed.

    Attributes
    ----------
    picked : Signal
        Emitted after the user has picked or dropped a band.
    """

    picked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(2)
        self._chips: dict[str, QPushButton] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Bands shown, in order."""
        return tuple(self._chips)

    @property
    def available(self) -> tuple[str, ...]:
        """Bands that can be picked."""
        return tuple(name for name, chip in self._chips.items() if chip.isEnabled())

    @property
    def checked(self) -> tuple[str, ...]:
        """Bands that are picked."""
        return tuple(name for name, chip in self._chips.items() if chip.isChecked())

    def show_bands(
        self, names: Sequence[str], available: Collection[str], checked: Collection[str]
    ) -> None:
        """Show these bands; the buttons are made anew only where the names are others."""
        if tuple(names) != self.names:
            self._rebuild(names)
        for name, chip in self._chips.items():
            can = name in available
            chip.blockSignals(True)
            chip.setEnabled(can)
            chip.setChecked(can and name in checked)
            chip.blockSignals(False)
            chip.setToolTip(
                f"Band {name}: click to leave it out or to take it in."
                if can
                else f"Band {name}: the bands of the cube do not cover it."
            )
        self.setVisible(bool(names))

    def toggle(self, name: str) -> None:
        """Click a band's button."""
        self._chips[name].click()

    def _rebuild(self, names: Sequence[str]) -> None:
        for chip in self._chips.values():
            self._grid.removeWidget(chip)
            chip.setParent(None)
            chip.deleteLater()
        self._chips = {}
        shown = {name: _short(name) for name in names}
        metrics = QFontMetrics(self.font())
        widest = max((metrics.horizontalAdvance(text) for text in shown.values()), default=0)
        count = max(1, _WIDTH // (widest + 14))
        for k, (name, text) in enumerate(shown.items()):
            chip = QPushButton(self)
            chip.setText(text)
            chip.setCheckable(True)
            chip.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            chip.setMinimumWidth(widest + 8)
            chip.toggled.connect(self._toggled)
            self._chips[name] = chip
            self._grid.addWidget(chip, k // count, k % count)

    def _toggled(self, _: bool) -> None:
        self.picked.emit()


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
