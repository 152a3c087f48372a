"""What can be done with trained weights: fuse with them, take their path, repeat the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from magicgui.widgets import Container, PushButton
from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QApplication

from ..errors import HSFusionError
from .settings import PLUGIN
from .train_script import train_script

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from .._train import Trained


class ResultRow(Container):
    """Buttons below a training run.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    result : Trained or None
        Path and header of the weights, once the last run has ended well.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self.result: Trained | None = None
        self._script = ""
        self._trouble = "no training has been started yet."
        self.use_button = PushButton(
            text="Use in Fuse",
            tooltip="Open the Fuse form with the method EMR-Diff and these weights.",
            enabled=False,
        )
        self.path_button = PushButton(
            text="Copy path", tooltip="Path of the weights, to the clipboard.", enabled=False
        )
        self.script_button = PushButton(
            text="Copy as script",
            tooltip="Python lines that train as the last run did, to the clipboard.",
            enabled=False,
        )
        super().__init__(
            widgets=[self.use_button, self.path_button, self.script_button],
            layout="horizontal",
            labels=False,
        )
        self.margins = (0, 0, 0, 0)
        self.use_button.changed.connect(self.use_in_fuse)
        self.path_button.changed.connect(self.copy_path)
        self.script_button.changed.connect(self.copy_script)

    def begin(self, options: Mapping[str, Any]) -> None:
        """Take what a run is asked for; it has no result yet."""
        self.result, self._script, self._trouble = None, "", ""
        # now: kept until it is asked for, the options would keep the cubes of removed layers
        try:
            self._script = train_script(options)
        except HSFusionError as error:
            self._trouble = str(error)
        self.use_button.enabled = self.path_button.enabled = False
        self.script_button.enabled = True

    def finish(self, trained: Trained) -> None:
        """Take what came of it."""
        self.result = trained
        self.use_button.enabled = self.path_button.enabled = True

    def use_in_fuse(self, *_: object) -> Any:
        """Open the Fuse form with the method EMR-Diff and the weights; give the form."""
        if self.result is None:
            show_warning("Training: no network has been trained yet.")
            return None
        _, form = self._viewer.window.add_plugin_dock_widget(PLUGIN, "Fuse", True)
        form.method.value = "emr-diff"
        form.params.set_value("train_on", "weights")
        form.params.set_value("weights", str(self.result.path.absolute()))
        show_info("The Fuse form has the weights: choose a pair there and press Run.")
        return form

    def copy_path(self, *_: object) -> str:
        """Put the path of the weights on the clipboard, and give it."""
        if self.result is None:
            show_warning("Training: no network has been trained yet.")
            return ""
        path = str(self.result.path.absolute())
        QApplication.clipboard().setText(path)
        show_info(
            "The path is on the clipboard: in the Fuse form choose EMR-Diff and give it as "
            "weights; or on the command line, --method emr-diff --set weights=FILE."
        )
        return path

    def copy_script(self, *_: object) -> str:
        """Put the lines that train as the last run did on the clipboard, and give them."""
        if self._trouble:
            show_warning(f"Copy as script: {self._trouble}")
            return ""
        QApplication.clipboard().setText(self._script)
        show_info("The script is on the clipboard.")
        return self._script
