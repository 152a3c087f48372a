"""A list of what a network is trained on, or tried on: folders, files, layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, Label, PushButton
from magicgui.widgets.bases import Widget
from psygnal import Signal
from qtpy.QtWidgets import QAbstractItemView, QFileDialog, QListWidget, QMenu, QSizePolicy

from .layer_choice import cube_or_none
from .links import Links
from .simulating import may_be_reference, with_layer

if TYPE_CHECKING:
    import xarray as xr
    from napari.layers import Layer
    from napari.viewer import Viewer

_LINES = (2, 5)  # of the list, at least and at most
_FILTER = "Cubes (*.hdr *.img *.dat *.mat *.tif *.tiff *.bsq *.bil *.bip);;All files (*)"


class DataList(Container):
    """Folders, files and layers of reference cubes; one adds to it and removes from it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    title : str
        Above the list.
    tooltip : str
        What the cubes are for.
    """

    edited = Signal()

    def __init__(self, viewer: Viewer, title: str, tooltip: str) -> None:
        self._viewer = viewer
        self._entries: list[Path | Layer] = []
        self._names: list[str] = []
        self.add_button = PushButton(
            text="Add", tooltip="A folder, which is searched through, files, or a layer."
        )
        self.remove_button = PushButton(
            text="Remove", tooltip="Take the selected entries off the list.", enabled=False
        )
        said = Label(value=title)
        said.tooltip = tooltip
        parts: list[Widget] = [said, self.add_button, self.remove_button]
        head = Container(widgets=parts, layout="horizontal", labels=False)
        head.margins = (0, 0, 0, 0)
        super().__init__(widgets=[head], labels=False)
        self.margins = (0, 0, 0, 0)
        said.native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.view = QListWidget()
        self.view.setToolTip(tooltip)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self._fit()
        self.view.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.native.layout().addWidget(self.view)
        self.menu = QMenu(self.add_button.native)
        self.menu.aboutToShow.connect(self.fill_menu)
        self.add_button.native.setMenu(self.menu)
        self.view.itemSelectionChanged.connect(self._selection_changed)
        self.remove_button.changed.connect(self.remove_selected)
        self._links = Links()
        self._links.connect(viewer.layers.events.removed, self._layers_changed)

    @property
    def entries(self) -> list[Path | Layer]:
        """What is on the list: paths and layers."""
        return list(self._entries)

    def paths(self) -> list[Path]:
        """The folders and files."""
        return [entry for entry in self._entries if isinstance(entry, Path)]

    def data(self) -> list[Path | xr.DataArray]:
        """What :func:`napari_hsfusion.api.train` takes: paths, and the cubes of the layers."""
        made: list[Path | xr.DataArray] = []
        for entry in self._entries:
            if isinstance(entry, Path):
                made.append(entry)
                continue
            cube = cube_or_none(entry)
            if cube is not None:
                made.append(with_layer(cube, entry.name).rename(entry.name))
        return made

    def layer(self, name: str) -> Layer | None:
        """The layer of that name, if it is on the list."""
        found = (e for e in self._entries if not isinstance(e, Path) and e.name == name)
        return next(found, None)

    def add(self, *entries: str | Path | Layer) -> None:
        """Add folders, files or layers; one that is there already stays once."""
        for entry in entries:
            one = Path(entry).expanduser() if isinstance(entry, str | Path) else entry
            if not any(self._same(one, other) for other in self._entries):
                self._entries.append(one)
                if not isinstance(one, Path):
                    one.events.name.connect(self._renamed)
        self._show()

    def drop(self, entries: Sequence[Path | Layer]) -> None:
        """Take entries off the list."""
        kept = []
        for entry in self._entries:
            if not any(self._same(entry, other) for other in entries):
                kept.append(entry)
            elif not isinstance(entry, Path):
                entry.events.name.disconnect(self._renamed)
        if len(kept) != len(self._entries):
            self._entries = kept
            self._show()

    def remove_selected(self, *_: object) -> None:
        """Take the selected entries off the list."""
        rows = {index.row() for index in self.view.selectedIndexes()}
        self.drop([self._entries[k] for k in sorted(rows)])

    def release(self) -> None:
        """Follow the viewer no more: for windows that close."""
        self._links.clear()
        for entry in self._entries:
            if not isinstance(entry, Path):
                entry.events.name.disconnect(self._renamed)
        self._entries = []

    def fill_menu(self) -> None:
        """Offer the layers that there are now."""
        self.menu.clear()
        self.menu.addAction("Folder…").triggered.connect(self._ask_folder)
        self.menu.addAction("Files…").triggered.connect(self._ask_files)
        layers = [layer for layer in self._viewer.layers if may_be_reference(layer)]
        if layers:
            self.menu.addSeparator()
        for layer in layers:
            action = self.menu.addAction(f"Layer {layer.name}")
            action.triggered.connect(lambda *_, chosen=layer: self.add(chosen))

    def _ask_folder(self, *_: object) -> None:
        chosen = QFileDialog.getExistingDirectory(self.native, "Add a folder of cubes")
        if chosen:
            self.add(Path(chosen))

    def _ask_files(self, *_: object) -> None:
        chosen = QFileDialog.getOpenFileNames(self.native, "Add cubes", "", _FILTER)[0]
        self.add(*(Path(name) for name in chosen))

    @staticmethod
    def _same(one: Path | Layer, other: Path | Layer) -> bool:
        return type(one) is type(other) and one == other

    def _layers_changed(self, *_: object) -> None:
        self.drop(
            [e for e in self._entries if not isinstance(e, Path) and e not in self._viewer.layers]
        )

    def _renamed(self, *_: object) -> None:
        self._show()

    def _show(self) -> None:
        self.view.clear()
        for entry in self._entries:
            if isinstance(entry, Path):
                self.view.addItem(f"{entry.name}/" if entry.is_dir() else entry.name)
                self.view.item(self.view.count() - 1).setToolTip(str(entry))
            else:
                self.view.addItem(f"{entry.name} (layer)")
        self._fit()
        self._selection_changed()
        self.edited.emit()

    def _fit(self) -> None:
        """As high as the entries need."""
        low, high = _LINES
        line = self.view.fontMetrics().height() + 4
        self.view.setFixedHeight(min(max(self.view.count(), low), high) * line + 8)

    def _selection_changed(self, *_: Any) -> None:
        self.remove_button.enabled = bool(self.view.selectedIndexes())
