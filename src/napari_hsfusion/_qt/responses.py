"""Where the responses of a pair come from: stored with it, estimated from it, or chosen."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, Container

from .._grid import integer_ratio
from .._responses import stored
from ..errors import PairError, ParameterError, ResponseError
from .psf_picker import PSFPicker
from .rows import row
from .srf_picker import SRFPicker

if TYPE_CHECKING:
    import xarray as xr
    from napari.viewer import Viewer

STORED, ESTIMATED, CHOSEN = "stored with the images", "estimated from the pair", "chosen here"
_EXTRA = {"Stored": None, "Estimated": "estimate"}


class ResponsesForm(Container):
    """One choice for both responses, or each by its own picker.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        self.source = ComboBox(
            choices=[STORED, ESTIMATED, CHOSEN],
            value=ESTIMATED,
            tooltip="Spectral response (SRF) and point spread function (PSF) that turn the sharp "
            "cube into the two images: stored by a simulation, estimated from the pair, or "
            "chosen here (a sensor, a CSV file, a kernel).",
        )
        self.srf = SRFPicker(viewer, extra=_EXTRA)
        self.psf = PSFPicker(viewer, extra=_EXTRA)
        super().__init__(
            widgets=[row("Responses", self.source), self.srf, self.psf],
            labels=False,
        )
        for inner in self:
            inner.margins = (0, 0, 0, 0)
        self.margins = (0, 0, 0, 0)
        self._pair: tuple[xr.DataArray | None, xr.DataArray | None] = (None, None)
        self._chosen_by_user = False
        self._settling = False
        self.source.changed.connect(self._source_changed)
        self._show()

    def set_pair(self, lr_hsi: xr.DataArray | None, hr_msi: xr.DataArray | None) -> None:
        """Take another pair; what the user chose stays."""
        self._pair = (lr_hsi, hr_msi)
        if lr_hsi is not None:
            told = self._told()
            self.srf.set_cube(told if told is not None else lr_hsi)
            self.psf.set_cube(told if told is not None else lr_hsi)
            if hr_msi is not None:
                with contextlib.suppress(PairError):
                    self.psf.set_ratio(integer_ratio(lr_hsi.shape[1:], hr_msi.shape[1:]))
        if not self._chosen_by_user:
            self._settling = True
            try:
                self.source.value = STORED if not self._lacking() else ESTIMATED
            finally:
                self._settling = False
        self._show()

    def keywords(self) -> dict[str, Any]:
        """``psf`` and ``srf`` for :func:`napari_hsfusion.api.fuse`.

        Raises
        ------
        ResponseError
            If one is to be stored with the images and is not.
        ParameterError
            If a file is not chosen yet.
        """
        if self.source.value == ESTIMATED:
            return {"psf": "estimate", "srf": "estimate"}
        made: dict[str, Any] = {"psf": None, "srf": None}
        if self.source.value == CHOSEN:
            made = {"psf": self.psf.value, "srf": self.srf.value}
        for key, value in made.items():
            if isinstance(value, str) and not value:
                raise ParameterError(f"{key.upper()}: choose a file, or another kind")
            if value is None and self._pair[0] is not None and key in self._lacking():
                raise ResponseError(
                    f"no {key.upper()} is stored with these images: choose one under "
                    "'responses', or have it estimated"
                )
        return made

    def _told(self) -> xr.DataArray | None:
        for cube in self._pair:
            if cube is not None and "observation" in cube.attrs:
                return cube
        return None

    def _lacking(self) -> list[str]:
        images = [cube for cube in self._pair if cube is not None]
        return [key for key in ("psf", "srf") if stored(key, *images) is None]

    def _source_changed(self, _: str) -> None:
        if not self._settling:
            self._chosen_by_user = True
        self._show()

    def _show(self) -> None:
        chosen = self.source.value == CHOSEN
        self.srf.visible = chosen
        self.psf.visible = chosen
