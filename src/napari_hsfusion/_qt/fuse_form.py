"""The settings of a fusion as a form: the pair, its responses, a method and its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, LineEdit, PushButton, SpinBox
from psygnal import Signal

from .. import api
from .._numbers import seed_from_text
from ..errors import HSFusionError
from .forms import ParamsForm
from .fusing import WATCH
from .layer_choice import LayerChoice, cube_or_none, shows_cube, shows_image
from .pair import Outlook, lay_over, likely_hr, likely_lr, look_ahead
from .responses import ResponsesForm
from .rows import column, row
from .settings import read_settings

if TYPE_CHECKING:
    import xarray as xr
    from napari.viewer import Viewer


class FuseForm(Container):
    """What is to be fused, and how.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    edited = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 0, 0)
        self._viewer = viewer
        self._rows = _methods()
        self._make_controls()
        self._arrange()
        self._connect()
        self._method_changed()
        self._pair_changed()

    def _make_controls(self) -> None:
        chosen = read_settings()
        self.lr_hsi = LayerChoice(
            self._viewer,
            shows_cube,
            likely_lr,
            tooltip="Low-resolution hyperspectral image: many bands, few pixels.",
        )
        self.hr_msi = LayerChoice(
            self._viewer,
            shows_image,
            lambda layer: likely_hr(layer, self.lr_hsi.value),
            tooltip="High-resolution multispectral image of the same scene, in the same unit.",
        )
        self.responses = ResponsesForm(self._viewer)
        self.method = ComboBox(
            choices=[(row["title"], name) for name, row in self._rows.items()],
            value="args-diff",
            tooltip="How the pair is fused.",
        )
        self._wanted_preset = chosen.preset
        # choices given as a list would come back whenever the widget gets another parent
        self.preset = ComboBox(
            choices=lambda _: list(self._rows[self.method.value]["presets"]),
            tooltip="A set of parameters that belong together.",
        )
        self.device = ComboBox(
            choices=devices(chosen.device),
            value=chosen.device,
            tooltip="Where to compute; auto takes the first CUDA device, else the CPU.",
        )
        self.advanced_button = PushButton(
            text="▸ Advanced", tooltip="Seed, samples, networks, and every parameter of the method."
        )
        self.seed = LineEdit(
            value="0", label="seed", tooltip="The same seed gives the same cube (0 to 2^63 - 1)."
        )
        self.samples = SpinBox(
            value=0,
            max=10_000,
            tooltip="Samples to draw at the end, which tell how uncertain every value is: two more "
            "layers. 0 for none; 16 are enough.",
        )
        self.networks = FileEdit(
            mode=FileDialogMode.EXISTING_DIRECTORY,
            nullable=True,
            value=None,
            tooltip="Folder to keep trained networks in, or to take them from. Empty: not kept.",
        )
        self.params = ParamsForm(api.preset_params("args-diff"))
        self.watch = ComboBox(
            choices=list(WATCH),
            value="composite",
            tooltip="What is seen while the fusion runs: colours, the band of the slider, or the "
            "coefficient images side by side.",
        )

    def _arrange(self) -> None:
        self.advanced = column(
            [
                row("Watch", self.watch),
                row("Seed", self.seed),
                row("Samples", self.samples),
                row("Networks", self.networks),
            ]
        )
        self.extend(
            [
                row("LR-HSI", self.lr_hsi),
                row("HR-MSI", self.hr_msi),
                self.responses,
                row("Method", self.method),
                row("Preset", self.preset),
                row("Device", self.device),
                self.advanced_button,
                self.advanced,
                self.params,
            ]
        )
        self.advanced.visible = self.params.visible = False

    def _connect(self) -> None:
        # the likely HR-MSI is the one that fits, and is asked for first
        self.lr_hsi.changed.connect(self.hr_msi.refresh)
        self.lr_hsi.changed.connect(self._pair_changed)
        self.hr_msi.changed.connect(self._pair_changed)
        self.method.changed.connect(self._method_changed)
        self.preset.changed.connect(self._preset_changed)
        for part in (self.responses, self.device, self.seed, self.samples, self.networks):
            part.changed.connect(self._emit_edited)
        self.params.edited.connect(self._emit_edited)
        self.advanced_button.changed.connect(self.toggle_advanced)

    def _emit_edited(self, *_: object) -> None:
        self.networks.enabled = self._trains()
        self.samples.enabled = bool(self._rows[self.method.value]["samples"])
        self.edited.emit()

    def _trains(self) -> bool:
        """Whether the run would train networks, which a folder can keep."""
        on = self.params.typed("train_on")
        return bool(self._rows[self.method.value]["trains"]) and on in (None, "pair")

    def toggle_advanced(self, *_: object) -> None:
        """Show or hide seed, networks and every parameter of the method."""
        # not what is seen now: the form may lie behind another
        shown = self.advanced.native.isHidden()
        self.advanced.visible = shown
        self.params.visible = shown
        self.advanced_button.text = "▾ Advanced" if shown else "▸ Advanced"

    def _method_changed(self, *_: object) -> None:
        row = self._rows[self.method.value]
        presets = list(row["presets"])
        first = self._wanted_preset if self._wanted_preset in presets else row["default_preset"]
        with self.preset.changed.blocked():
            self.preset.reset_choices()
            self.preset.value = first
        self.method.tooltip = row["description"]
        self._preset_changed()

    def _preset_changed(self, *_: object) -> None:
        self.params.load(api.preset_params(self.method.value, self.preset.value))
        self.params.visible = not self.advanced.native.isHidden()
        self._emit_edited()

    def _pair_changed(self, *_: object) -> None:
        lr_hsi, hr_msi = self.pair()
        if lr_hsi is not None and hr_msi is not None:
            lay_over(self._viewer, self.lr_hsi.value, self.hr_msi.value)
        self.responses.set_pair(lr_hsi, hr_msi)
        self._emit_edited()

    def pair(self) -> tuple[xr.DataArray | None, xr.DataArray | None]:
        """Give the cubes of the two layers chosen; None where there is none."""
        return cube_or_none(self.lr_hsi.value), cube_or_none(self.hr_msi.value)

    def keywords(self) -> dict[str, Any]:
        """Keywords of :func:`napari_hsfusion.api.iter_fuse` that the form says.

        Raises
        ------
        HSFusionError
            Naming what was expected and what came.
        """
        folder: Any = self.networks.value
        # an empty line reads as the current folder
        kept = None if folder is None or str(folder) in ("", ".") else Path(folder)
        if not self.networks.enabled:
            kept = None
        return {
            "method": self.method.value,
            "preset": self.preset.value,
            "params": self.params.changes(),
            "seed": seed_from_text(self.seed.value),
            "device": self.device.value,
            "networks": kept,
            "samples": self.samples.value if self.samples.enabled else 0,
            **self.responses.keywords(),
        }

    def look_ahead(self) -> Outlook:
        """Say what the fusion will take, or why it cannot start."""
        if self.lr_hsi.value is not None and self.lr_hsi.value == self.hr_msi.value:
            return Outlook(False, "LR-HSI and HR-MSI are the same image: choose two.")
        try:
            options = self.keywords()
        except HSFusionError as error:
            return Outlook(False, str(error))
        return look_ahead(*self.pair(), options)

    def release(self) -> None:
        """Follow the viewer no more: for windows that close."""
        for choice in (self.lr_hsi, self.hr_msi):
            choice.release()


def _methods() -> dict[str, dict[str, Any]]:
    try:
        return {row["name"]: row for row in api.methods()}
    except OSError as error:
        # on Windows torch's libraries may not load once Qt's have
        raise HSFusionError(
            f"torch could not be loaded into the running napari ({error}). Start napari by "
            "'hsfusion napari', which loads torch first."
        ) from error


def devices(wanted: str) -> list[str]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ["auto", "cpu", *(f"cuda:{k}" for k in range(count))]
    return names if wanted in names else [*names, wanted]
