"""Response curves over wavelength, and the weights that a cube's bands get of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtGui import QColor

from .. import cube as cubes
from ..sensors.catalogue import SensorCurve
from ..sensors.srf import Response
from .plots import Plot, pg

if TYPE_CHECKING:
    import xarray as xr
    from napari.viewer import Viewer

_HEIGHT = 125
_TICKS = (-0.1, -0.04)
_FAINT = 1e-3  # of a band's largest weight: not worth a marker


class ResponsePlot(Plot):
    """Curves as lines, weights of the cube's bands as dots, those bands as ticks below.

    Both are drawn with their largest value as one.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "wavelength (nm)")
        self.setFixedHeight(_HEIGHT)
        self.setMouseEnabled(False, False)
        self.plotItem.getAxis("left").setTicks([[(0.0, "0"), (1.0, "1")]])
        self.setYRange(-0.12, 1.05, padding=0)
        self.setToolTip(
            "Lines: response of every band over wavelength, largest value 1. Dots: the weights "
            "that the cube's bands get, largest value 1. Ticks: the cube's bands."
        )
        self.lines: dict[str, Any] = {}
        self.dots: dict[str, Any] = {}
        self.ticks = pg.PlotCurveItem(connect="pairs", antialias=False)
        self.addItem(self.ticks)
        self.styled.connect(self._colour_ticks)
        self._colour_ticks()

    def draw_response(
        self,
        names: Sequence[str],
        curves: Sequence[SensorCurve],
        used: Response | None,
        cube: xr.DataArray | None,
        shown: Collection[str],
    ) -> None:
        """Draw it all anew.

        Parameters
        ----------
        names : sequence of str
            All bands; a band keeps its colour whichever are shown.
        curves : sequence of SensorCurve
            May be empty.
        used : Response or None
            Weights on the cube's bands.
        cube : xarray.DataArray or None
        shown : collection of str
            Bands whose curves are drawn; the others are left faint.
        """
        for item in (*self.lines.values(), *self.dots.values()):
            self.removeItem(item)
        self.lines, self.dots = {}, {}
        at = _axis(cube)
        centred = cube is not None and cubes.wavelengths(cube) is not None
        self.set_labels("wavelength (nm)" if centred or cube is None else "band of the cube")
        if centred or cube is None:
            for curve in curves:
                colour = QColor(self.color(_index(names, curve.name)))
                if curve.name not in shown:
                    colour.setAlpha(70)
                height = curve.response / max(float(curve.response.max()), 1e-300)
                line = pg.PlotCurveItem(curve.wavelength, height, pen=pg.mkPen(colour, width=1.5))
                self.lines[curve.name] = line
                self.addItem(line)
        if used is not None and at is not None:
            for name, weights in zip(used.names, used.matrix, strict=True):
                seen = weights > _FAINT * weights.max()
                dot = pg.ScatterPlotItem(
                    at[seen],
                    weights[seen] / weights.max(),
                    size=5,
                    pen=None,
                    brush=self.color(_index(names, name)),
                )
                self.dots[name] = dot
                self.addItem(dot)
        if at is None or cube is None:
            self.ticks.setData([], [])
        else:
            there = at[cubes.good_bands(cube)]
            self.ticks.setData(np.repeat(there, 2), np.tile(_TICKS, there.size))
        self._set_span(at, curves)

    def _set_span(self, at: np.ndarray | None, curves: Sequence[SensorCurve]) -> None:
        if at is not None:
            low, high = float(at.min()), float(at.max())
        elif curves:
            low = min(float(curve.wavelength[0]) for curve in curves)
            high = max(float(curve.wavelength[-1]) for curve in curves)
        else:
            return
        aside = 0.03 * (high - low) or 1.0
        self.setXRange(low - aside, high + aside, padding=0)

    def _colour_ticks(self) -> None:
        self.ticks.setPen(pg.mkPen(self.text_color, width=1))


def _axis(cube: xr.DataArray | None) -> np.ndarray | None:
    if cube is None:
        return None
    centres = cubes.wavelengths(cube)
    return np.arange(1.0, cube.sizes["band"] + 1) if centres is None else centres


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else 0
