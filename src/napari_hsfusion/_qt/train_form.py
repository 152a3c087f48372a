"""The settings of a training run as a form: data, sensors, the file of weights, parameters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FileEdit,
    Label,
    LineEdit,
    PushButton,
    SpinBox,
)
from psygnal import Signal

from .._numbers import seed_from_text
from ..errors import HSFusionError, ParameterError
from ..params import EmrDiffParams
from ..params.training import TrainingParams
from .forms import ParamsForm
from .fuse_form import devices
from .latest import Latest
from .pair import Outlook
from .psf_picker import PSFPicker
from .rows import column, narrow_file, path_of, row
from .settings import read_settings
from .srf_picker import SRFPicker
from .train_data import DataList
from .training import first_cube

if TYPE_CHECKING:
    import xarray as xr
    from napari.viewer import Viewer

    from .._training.files import RunFiles

DESIGN = ("start", "architecture", "residual", "noise", "T", "kappa", "pseudo", "width")
"""Parameters of the network itself; weights to start from have their own."""

GO_ON, ANEW = "go on with it", "start anew"
_SUFFIX = ".safetensors"
_FILTER = f"Weights (*{_SUFFIX})"
_LARGEST_RATIO = 64


class TrainForm(Container):
    """What a network is trained on and for, where its weights go, and how.

    Parameters
    ----------
    viewer : napari.viewer.Viewer

    Attributes
    ----------
    data, validation : DataList
    ratio, psf, srf, out, earlier, init, seed, device, keep
        The controls, for scripted sessions.
    design, params : ParamsForm
        Of the network, and of its training.
    goes_on : bool
        Whether a run now would go on with an earlier one.
    """

    edited = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(labels=False)
        self.margins = (0, 0, 4, 0)
        self._viewer = viewer
        self.goes_on = False
        self._make_data()
        self._make_files()
        self._make_advanced()
        self._arrange()
        self._looking = Latest(first_cube, self._looked, self.native)
        self._connect()
        self._refresh()

    # -- what is in it

    def _make_data(self) -> None:
        self.data = DataList(
            self._viewer,
            "Training data",
            "Reference cubes, sharp in both ways: both sensors' images are simulated from them.",
        )
        self.validation = DataList(
            self._viewer,
            "Validation data",
            "Reference cubes that are never trained on: the network is tried on them, and the "
            "best weights are kept. Without any the last ones are.",
        )
        self.ratio = SpinBox(
            value=8,
            min=1,
            max=_LARGEST_RATIO,
            tooltip="How many HR pixels lie along one side of an LR pixel.",
        )
        self.psf = PSFPicker(self._viewer, 8)
        self.psf.value = "gauss3-bicubic"
        self.srf = SRFPicker(self._viewer)

    def _make_files(self) -> None:
        self.out = FileEdit(
            mode=FileDialogMode.OPTIONAL_FILE,
            filter=_FILTER,
            nullable=True,
            value=None,
            tooltip="File of weights to write, NAME.safetensors; beside it the state that an "
            "interrupted run goes on from, a log and the curve as a picture.",
        )
        self.earlier = ComboBox(
            choices=[GO_ON, ANEW],
            value=GO_ON,
            tooltip="There are files of an earlier run: go on where it stopped, with the same data "
            "and options, or write over them.",
        )
        self.init = FileEdit(
            mode=FileDialogMode.EXISTING_FILE,
            filter=_FILTER,
            nullable=True,
            value=None,
            tooltip="Weights to start from, with their own network. Empty: a new network.",
        )
        for field in (self.out, self.init):
            narrow_file(field)
        self.init.line_edit.native.setPlaceholderText("a new network")

    def _make_advanced(self) -> None:
        chosen = read_settings()
        self.advanced_button = PushButton(
            text="▸ Advanced",
            tooltip="Steps, time limit, and every option of network and training.",
        )
        self.seed = LineEdit(
            value="0", tooltip="The same seed gives the same weights on the CPU (0 to 2^63 - 1)."
        )
        self.device = ComboBox(
            choices=devices(chosen.device),
            value=chosen.device,
            tooltip="Where to compute; auto takes the first CUDA device, else the CPU.",
        )
        self.keep = CheckBox(
            value=True,
            text="Keep the last preview",
            tooltip="When the training ends, leave the restored validation scene in the viewer.",
        )
        self.params = ParamsForm(TrainingParams())
        # the interface's own defaults: the published design
        self.design = ParamsForm(
            EmrDiffParams(train_on="pair", start="bicubic", width=None), only=DESIGN
        )

    def _arrange(self) -> None:
        self._earlier_row = row("Files there", self.earlier)
        self.advanced = column(
            [
                row("Seed", self.seed),
                row("Device", self.device),
                row("Start from", self.init),
                self.keep,
                Label(value="Training"),
                self.params,
            ]
        )
        self.network = column([Label(value="Network"), self.design])
        self.extend(
            [
                self.data,
                self.validation,
                row("Weights", self.out),
                self._earlier_row,
                row("Ratio", self.ratio),
                self.psf,
                self.srf,
                self.advanced_button,
                self.advanced,
                self.network,
            ]
        )
        self.advanced.visible = self.network.visible = self._earlier_row.visible = False

    def _connect(self) -> None:
        self.data.edited.connect(self._data_changed)
        self.validation.edited.connect(self._refresh)
        self.ratio.changed.connect(self._ratio_changed)
        parts = (self.psf, self.srf, self.out, self.earlier, self.seed, self.device)
        for part in parts:
            part.changed.connect(self._refresh)
        for form in (self.params, self.design):
            form.edited.connect(self._refresh)
        self.init.changed.connect(self._init_changed)
        self.advanced_button.changed.connect(self.toggle_advanced)

    # -- what it says

    @property
    def busy(self) -> bool:
        """Whether a picture still has to follow the form."""
        return self._looking.busy or self.psf.busy or self.srf.busy

    def keywords(self) -> dict[str, Any]:
        """Keywords of :func:`napari_hsfusion.api.iter_train` that the form says.

        Raises
        ------
        HSFusionError
            Naming what was expected and what came.
        """
        data = self.data.data()
        if not data:
            raise ParameterError("Add reference cubes to train on: a folder, files or layers.")
        ratio = int(self.ratio.value)
        if not self.psf.value:
            raise ParameterError("Choose the file of the PSF's kernel.")
        if self.srf.value is None:
            raise ParameterError("Choose the bands of the SRF, or its file.")
        out, init = self.weights(), path_of(self.init)
        if out is None:
            raise ParameterError("Choose a file for the weights.")
        changes = self.params.changes()
        TrainingParams.from_settings(changes).check_ratio(ratio)
        files = self._files(out)
        anew = files is not None and self.earlier.value == ANEW
        return {
            "data": data,
            "out": out,
            "val": self.validation.data() or None,
            "scale": ratio,
            "psf": self.psf.value,
            "srf": self.srf.value,
            "seed": seed_from_text(self.seed.value),
            "device": self.device.value,
            "resume": files is not None and files.state.is_file() and not anew,
            "overwrite": anew,
            "init": init,
            "design": {} if init is not None else self.design.changes(),
            "params": changes,
        }

    def weights(self) -> Path | None:
        """The file to write; its ending may be left out."""
        path = path_of(self.out)
        return path if path is None or path.suffix else path.with_suffix(_SUFFIX)

    def look_ahead(self) -> Outlook:
        """Say what the training will do, or why it cannot start."""
        self.goes_on = False
        from .._training.files import RunFiles
        from ..engine.training_state import read_progress

        try:
            options = self.keywords()
            files = RunFiles.beside(options["out"])
            params = TrainingParams.from_settings(options["params"])
            begun = read_progress(files.state).step if options["resume"] else 0
        except HSFusionError as error:
            return Outlook(False, str(error))
        if files.weights.exists() and not (options["resume"] or options["overwrite"]):
            return Outlook(
                False,
                f"{files.weights.name} is there already, without a state to go on from: choose "
                f"another name, or '{ANEW}'.",
            )
        text = f"{params.steps} steps"
        if params.minutes is not None:
            text += f" or {params.minutes:g} minutes"
        if options["resume"]:
            self.goes_on = True
            return Outlook(True, f"Goes on after step {begun} of {text}.")
        tried = "" if options["val"] else "; without validation data the last weights are kept"
        return Outlook(True, f"{text} at a ratio of {options['scale']}{tried}.")

    def toggle_advanced(self, *_: object) -> None:
        """Show or hide all that has a default."""
        # not what is seen now: the form may lie behind another
        shown = self.advanced.native.isHidden()
        self.advanced.visible = shown
        self.network.visible = shown and path_of(self.init) is None
        self.advanced_button.text = "▾ Advanced" if shown else "▸ Advanced"

    def release(self) -> None:
        """Follow the viewer no more: for windows that close."""
        for part in (self.data, self.validation):
            part.release()

    # -- what follows what

    def _ratio_changed(self, ratio: int) -> None:
        self.psf.set_ratio(ratio)
        self._refresh()

    def _data_changed(self, *_: object) -> None:
        self._looking.ask(self.data.data())
        self._refresh()

    def _looked(self, cube: xr.DataArray | None, trouble: str | None) -> None:
        if trouble is None:
            self.srf.set_cube(cube)

    def _init_changed(self, *_: object) -> None:
        self.network.visible = path_of(self.init) is None and not self.advanced.native.isHidden()
        self._refresh()

    def _refresh(self, *_: object) -> None:
        self._earlier_row.visible = self._files(self.weights()) is not None
        self.edited.emit()

    def refresh_files(self) -> None:
        """Look again which files there are: a run has written some."""
        self._refresh()

    def _files(self, out: Path | None) -> RunFiles | None:
        """Files of a run that are there already; None where there is none."""
        from .._training.files import RunFiles

        try:
            files = None if out is None else RunFiles.beside(out)
        except ParameterError:
            return None
        there = files is not None and (files.state.is_file() or files.weights.exists())
        return files if there else None
