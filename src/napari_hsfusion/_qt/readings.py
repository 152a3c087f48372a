"""Reading the spectra that the Spectrum dock shows, without holding up the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject

from .. import cube as cubes
from .curves import CURSOR
from .latest import Latest
from .pins import Pins
from .plots import Plot
from .spectra import Shown, Spectrum, outlines, read_pixels, read_regions, shown_cubes, unit_of

Place = tuple[float, float]

_FROM_THE_END = 1
"""Regions take the palette from its end, pins from its middle, the cursor from its start."""


@dataclass(frozen=True)
class Wanted:
    """A spectrum to read.

    Attributes
    ----------
    shown : Shown
    at : tuple
        Row and column; of a region vertices in pixels and whether they are closed.
    place, where, color, rank
        As :class:`~napari_hsfusion._qt.spectra.Spectrum` has them.
    """

    shown: Shown
    at: tuple[Any, Any]
    place: str
    where: str
    color: str
    rank: int


class Readings:
    """Spectra at the cursor, at the pins and in the regions of one viewer.

    Parameters
    ----------
    parent : QObject
        Widget whose end is theirs.
    viewer : napari.viewer.Viewer
    pins : Pins
    changed : callable
        Called after spectra came or went.

    Attributes
    ----------
    shown : list of Shown
        Cubes that are shown, the topmost first.
    last_place : tuple of float or None
        World position (y, x) of the last spectrum at the cursor.
    """

    def __init__(
        self, parent: QObject, viewer: Any, pins: Pins, changed: Callable[[], None]
    ) -> None:
        self._viewer = viewer
        self._pins = pins
        self._changed = changed
        self.shown: list[Shown] = []
        self.last_place: Place | None = None
        self._place: Place | None = None
        self._overtaken = False
        self._told = ""
        self._groups: dict[str, list[Spectrum]] = {"cursor": [], "pins": [], "regions": []}
        self._readers = {
            "cursor": Latest(function=_read_pixels, answered=self._cursor_came, parent=parent),
            "pins": Latest(function=_read_pixels, answered=self._pins_came, parent=parent),
            "regions": Latest(function=_read_regions, answered=self._regions_came, parent=parent),
        }

    @property
    def spectra(self) -> list[Spectrum]:
        """What is known now: cursor, pins, regions."""
        return [one for group in self._groups.values() for one in group]

    @property
    def busy(self) -> bool:
        """Whether something is still to be read."""
        return any(reader.busy for reader in self._readers.values())

    def refresh(self, shapes: Any = None) -> None:
        """Read everything again, for the layers as they are now.

        Parameters
        ----------
        shapes : napari.layers.Shapes, optional
            Its shapes are the regions.
        """
        self.shown = shown_cubes(self._viewer.layers)
        there = {id(one.layer): one.name for one in self.shown}
        names = set(there.values())
        for group, spectra in self._groups.items():
            self._groups[group] = [one for one in spectra if one.layer in names]
        self._read_cursor()
        self._read("pins", [w for pin in self._pins.items() for w in self._under(pin.world, pin)])
        self._read("regions", self._inside(shapes))

    def show_at(self, place: Place) -> None:
        """Read the spectra at a world position (y, x)."""
        self._place = place
        self._read_cursor()

    def forget(self) -> None:
        """Wait for nothing any more."""
        self._overtaken = False
        for reader in self._readers.values():
            reader.forget()

    # -- asking

    def _read_cursor(self) -> None:
        reader = self._readers["cursor"]
        wanted = [] if self._place is None else self._under(self._place, None)
        if wanted:
            self.last_place = self._place
        # while the mouse moves on, each answer is shown, and then the newest place is read
        self._overtaken = bool(wanted) and reader.busy and not _quick(wanted)
        if not self._overtaken:
            self._read("cursor", wanted)

    def _read(self, group: str, wanted: list[Wanted]) -> None:
        reader = self._readers[group]
        if not wanted or (group != "regions" and _quick(wanted)):
            reader.forget()
            try:
                answer = _read_pixels(wanted)
            except Exception as error:  # as the other thread does
                self._take(group, None, str(error))
            else:
                self._take(group, answer, None)
        else:
            reader.ask(wanted)

    def _under(self, place: Place, pin: Any) -> list[Wanted]:
        wanted = []
        for rank, shown in enumerate(self.shown):
            pixel = shown.pixel(place)
            if pixel is None:
                continue
            where = f"{_position(place, shown)} (row {pixel[0]}, column {pixel[1]})"
            name = CURSOR if pin is None else pin.name
            color = Plot.color(rank) if pin is None else pin.color
            wanted.append(Wanted(shown, pixel, name, where, color, rank))
        return wanted

    def _inside(self, shapes: Any) -> list[Wanted]:
        if shapes is None:
            return []
        wanted = []
        for k, outline in enumerate(outlines(shapes)):
            name, color = f"{shapes.name} {k + 1}", Plot.color(-_FROM_THE_END - k)
            for rank, shown in enumerate(self.shown):
                at = (shown.pixels(outline.vertices), outline.closed)
                where = _position(tuple(outline.vertices.mean(axis=0)), shown)
                wanted.append(Wanted(shown, at, name, f"centre {where}", color, rank))
        return wanted

    # -- answers

    def _cursor_came(self, answer: Any, trouble: str | None) -> None:
        self._take("cursor", answer, trouble)
        if self._overtaken:
            self._overtaken = False
            self._read_cursor()

    def _pins_came(self, answer: Any, trouble: str | None) -> None:
        self._take("pins", answer, trouble)

    def _regions_came(self, answer: Any, trouble: str | None) -> None:
        self._take("regions", answer, trouble)

    def _take(self, group: str, answer: Any, trouble: str | None) -> None:
        if trouble is not None:
            if trouble != self._told:  # once, not with every move of the mouse
                self._told = trouble
                show_warning(f"A spectrum could not be read: {trouble}")
            answer = ([], [])
        else:
            self._told = ""
        there = [one.layer for one in self.shown]
        self._groups[group] = [
            _spectrum(wanted, values)
            for wanted, values in zip(*answer, strict=True)
            if values is not None and any(wanted.shown.layer is layer for layer in there)
        ]
        self._changed()


def _quick(wanted: Sequence[Wanted]) -> bool:
    return all(one.shown.quick for one in wanted)


def _read_pixels(wanted: Sequence[Wanted]) -> tuple[Sequence[Wanted], list[Any]]:
    return wanted, list(read_pixels([(one.shown.cube, *one.at) for one in wanted]))


def _read_regions(wanted: Sequence[Wanted]) -> tuple[Sequence[Wanted], list[Any]]:
    return wanted, list(read_regions([(one.shown.cube, *one.at) for one in wanted]))


def _spectrum(wanted: Wanted, values: Any) -> Spectrum:
    cube = wanted.shown.cube
    where, std = wanted.where, None
    if not isinstance(values, np.ndarray):
        where = f"{where}, {int(values.count.max())} pixels"
        values, std = values.mean, values.std
    return Spectrum(
        place=wanted.place,
        layer=wanted.shown.name,
        where=where,
        values=values,
        std=std,
        wavelength=cubes.wavelengths(cube),
        unit=unit_of(cube),
        color=wanted.color,
        rank=wanted.rank,
        points=wanted.shown.points,
    )


def _position(place: Sequence[float], shown: Shown) -> str:
    unit = str(shown.layer.units[-1])
    return f"y {place[0]:.7g}, x {place[1]:.7g} {unit}"
