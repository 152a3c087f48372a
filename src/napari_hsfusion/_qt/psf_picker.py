"""A choice of a point spread function, with a picture of the kernel it amounts to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.types import FileDialogMode
from magicgui.widgets import ComboBox, Container, FileEdit, FloatSpinBox
from qtpy.QtCore import QRectF
from qtpy.QtWidgets import QHBoxLayout

from .._responses import EffectiveKernel, effective_kernel, stored
from ..errors import ResponseError
from ..sensors.psf import KERNEL_SUFFIXES, parse_psf
from .latest import Latest
from .plots import Plot, pg
from .rows import row, sentence

if TYPE_CHECKING:
    import xarray as xr
    from napari.viewer import Viewer

BICUBIC, GAUSSIAN, GAUSS3, BOX, FILE = (
    "Bicubic",
    "Gaussian",
    "3×3 Gaussian + bicubic",
    "Box (mean)",
    "Kernel file",
)
_NAMED = {BICUBIC: "bicubic", GAUSS3: "gauss3-bicubic", BOX: "box"}
_SIDE = 100


class PSFPicker(Container):
    """How the fine grid is blurred before it is sampled; a picture shows the kernel.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    ratio : int
        Ratio of the resolutions, for the picture.
    extra : mapping of str to object, optional
        Choices of the caller's own, named first: ``{"Stored": None, "Estimated":
        "estimate"}``. The value of one is returned as it is; the picture of None is the
        kernel stored with the cube.
    """

    def __init__(
        self, viewer: Viewer, ratio: int = 4, extra: Mapping[str, Any] | None = None
    ) -> None:
        self._extra = dict(extra or {})
        self._ratio = ratio
        self._cube: xr.DataArray | None = None
        self.kind = ComboBox(
            choices=[*self._extra, BICUBIC, GAUSSIAN, GAUSS3, BOX, FILE],
            tooltip="Point spread function: how HR pixels are weighted to give an LR pixel.",
        )
        self.sigma = FloatSpinBox(
            value=2.0,
            min=0.01,
            max=100.0,
            step=0.1,
            tooltip="Standard deviation of the Gaussian, in HR pixels.",
        )
        patterns = " ".join(f"*{suffix}" for suffix in KERNEL_SUFFIXES)
        self.file = FileEdit(
            mode=FileDialogMode.EXISTING_FILE,
            filter=f"Kernels ({patterns})",
            tooltip="File with a 2-D array of weights on the HR grid; it is brought to sum 1.",
            nullable=True,
            value=None,
        )
        self._sigma_row = row("σ (pixels)", self.sigma)
        self._file_row = row("File", self.file)
        super().__init__(
            widgets=[row("PSF", self.kind), self._sigma_row, self._file_row], labels=False
        )
        self.margins = (0, 0, 0, 0)
        self.plot = Plot(viewer)
        self.plot.setFixedSize(_SIDE, _SIDE)
        self.plot.setAspectLocked(True)
        self.plot.invertY(True)
        self.plot.setMouseEnabled(False, False)
        self.plot.setToolTip(
            "Weights of the HR pixels in one LR pixel; the frame is the LR pixel's own area."
        )
        self._image = pg.ImageItem(axisOrder="row-major")
        self._image.setColorMap(pg.colormap.get("viridis"))
        self._frame = pg.PlotCurveItem()
        self.plot.addItem(self._image)
        self.plot.addItem(self._frame)
        self.caption = sentence()
        beside = QHBoxLayout()
        beside.addWidget(self.plot)
        beside.addWidget(self.caption, 1)
        self.native.layout().addLayout(beside)
        self.kernel: np.ndarray | None = None
        self._drawing = Latest(effective_kernel, self._draw, self.native)
        self.changed.connect(self._refresh)
        self._refresh()

    @property
    def value(self) -> Any:
        """What :func:`napari_hsfusion.api.simulate` and ``fuse`` take as `psf`.

        The path of a file that is not chosen yet is ``""``, which they refuse.
        """
        kind = self.kind.value
        if kind in self._extra:
            return self._extra[kind]
        if kind == GAUSSIAN:
            return f"gaussian:{float(self.sigma.value)!r}"
        if kind == FILE:
            return "" if self.file.value is None else str(self.file.value)
        return _NAMED[kind]

    @value.setter
    def value(self, value: Any) -> None:
        if not (value is None or isinstance(value, str | os.PathLike)):
            raise ResponseError(
                f"PSF picker: expected a specification or a file, got {type(value).__name__}"
            )
        for label, meant in self._extra.items():
            if value == meant:
                self.kind.value = label
                return
        if value is None:
            known = ", ".join(map(str, self.kind.choices))
            raise ResponseError(f"PSF picker: expected one of {known}, got none")
        spread = parse_psf(value)
        names = {kind: label for label, kind in _NAMED.items()}
        if spread.kind == "gaussian" and spread.sigma is not None:
            self.sigma.value = spread.sigma
            self.kind.value = GAUSSIAN
        elif spread.kind == "kernel":
            self.file.value = Path(str(value))
            self.kind.value = FILE
        else:
            self.kind.value = names[spread.kind]

    @property
    def busy(self) -> bool:
        """Whether the picture still has to follow the choice."""
        return self._drawing.busy

    def set_ratio(self, ratio: int) -> None:
        """Draw the kernel for another ratio of resolutions."""
        if ratio != self._ratio:
            self._ratio = ratio
            self._refresh()

    def set_cube(self, cube: xr.DataArray | None) -> None:
        """Take the cube whose stored PSF is meant where one that is stored is chosen."""
        self._cube = cube
        if self._extra:
            self._refresh()

    def _refresh(self, _: Any = None) -> None:
        kind = self.kind.value
        self._sigma_row.visible = kind == GAUSSIAN
        self._file_row.visible = kind == FILE
        spec = self.value
        if kind in self._extra and spec is None and self._cube is not None:
            spec = stored("psf", self._cube)
        if kind == FILE and not spec:
            self._clear("Choose a file with the kernel's weights.")
        elif kind in self._extra and spec is None:
            self._clear("No PSF is stored with the images.")
        elif kind in self._extra and spec == "estimate":
            self._clear("Estimated from the pair when it runs.")
        else:
            self._drawing.ask(spec, self._ratio)
            return
        self._drawing.forget()

    def _clear(self, words: str) -> None:
        self.kernel = None
        self.plot.setVisible(False)
        self.caption.setText(words)

    def _draw(self, kernel: EffectiveKernel | None, trouble: str | None) -> None:
        if kernel is None:
            self._clear(trouble or "")
            return
        self.kernel = kernel.weights
        rows, columns = kernel.weights.shape
        top, left = kernel.first
        self._image.setImage(kernel.weights, autoLevels=True)
        self._image.setRect(QRectF(left - 0.5, top - 0.5, columns, rows))
        low, high = -0.5, self._ratio - 0.5
        self._frame.setData([low, high, high, low, low], [low, low, high, high, low])
        self._frame.setPen(pg.mkPen("#ffffff", width=1.5))
        self.plot.setVisible(True)
        self.plot.getViewBox().autoRange(padding=0.05)
        least, most = float(kernel.weights.min()), float(kernel.weights.max())
        below = f", least {least:.3g}" if least < 0 else ""
        self.caption.setText(
            f"{rows} × {columns} HR pixels at a ratio of {self._ratio}.\n"
            f"Largest weight {most:.3g}{below}.\nThe frame is the LR pixel's own area."
        )
