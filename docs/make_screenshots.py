"""Make the pictures of docs/plugin.md: the real window, driven through its own widgets.

Run it where there is a display, or under a virtual one::

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/make_screenshots.py
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch  # noqa: F401  before Qt: on Windows its libraries may not load after Qt's have

# isort: split
import numpy as np
from PIL import Image
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication, QToolButton

import napari_hsfusion as hs
from napari_hsfusion.scene import demo_scene

PLUGIN = "napari-hsfusion"
SIZE = (1280, 800)
THEMES = ("dark", "light")
NAMES = ("cube", "simulate", "fusing", "compare", "train")
PATIENCE = 180  # seconds
LARGEST = 400_000  # bytes; pictures above are brought to 256 colours

PINS = ((32, 17), (96, 92), (84, 52))
"""Water, a roof, grass: rows and columns of 128; another size is pinned in proportion."""

TRAINING = (
    ("steps", 2000),
    ("patch", 32),
    ("rate", 0.002),
    ("average", 0.9),
    ("validate_every", 10),
    ("log_every", 1),
)
"""Parameters of a training short enough for a picture."""

CURSOR = (16, 100)
"""A tiled roof."""

REGION = ((24, 38), (24, 52), (46, 62), (46, 38))
"""Corners of a piece of ploughed field."""


@dataclass(frozen=True)
class Budget:
    """How large the scene is and how long the fusion trains.

    Attributes
    ----------
    size, bands : int
        Side of the scene in pixels, number of its bands.
    preset : str
        Of ARGS-Diff.
    changes : mapping of str to object
        Parameters that differ from the preset.
    trials : int
        How often the network of EMR-Diff has been tried when the picture is taken.
    """

    size: int = 128
    bands: int = 60
    preset: str = "balanced"
    changes: tuple[tuple[str, Any], ...] = (("levels", 24), ("spatial_steps", 100))
    trials: int = 12


class Session:
    """One window, from opening a cube to comparing results; a method a picture.

    Parameters
    ----------
    theme : str
    folder : Path
        For the cube that is opened; its name is seen in no picture.
    budget : Budget
    """

    def __init__(self, theme: str, folder: Path, budget: Budget | None = None) -> None:
        from napari_hsfusion._qt.launch import open_viewer

        self.budget = budget or Budget()
        self.folder = folder
        scene = demo_scene(self.budget.size, self.budget.bands).rename("village")
        file = hs.save_cube(scene, folder / "village.hdr")
        self.viewer = open_viewer([file], ["spectrum"])
        self.viewer.theme = theme
        self.viewer.window.resize(*SIZE)
        pause(0.5)
        self.viewer.reset_view()

    # -- the pictures

    def cube(self) -> None:
        """Open a cube: a band with its wavelength, spectra of points and of a region."""
        layer = self.viewer.layers["village"]
        spectrum = self.widget("Spectrum")
        self.viewer.dims.set_point(0, layer.data_to_world((self.budget.bands * 2 // 3, 0, 0))[0])
        for row, column in PINS:
            spectrum.pin_at(self._world(row, column))
        self.viewer.add_shapes(
            [np.array([self._world(*corner) for corner in REGION])],
            shape_type="polygon",
            name="field",
            face_color="transparent",
            edge_color="yellow",
            edge_width=1.0,
            units=layer.units[-2:],
            axis_labels=layer.axis_labels[-2:],
        )
        self.viewer.layers.selection = {layer}
        spectrum.regions.value = self.viewer.layers["field"]
        spectrum.show_at(self._world(*CURSOR))
        until(lambda: not spectrum.busy)
        pause(0.5)

    def simulate(self) -> None:
        """Let two cameras look at the cube: the pair lies over it."""
        for name in ("Pinned spectra", "field"):
            self.viewer.layers.remove(name)
        form = self.dock("Simulate")
        form.reference.value = self.viewer.layers["village"]
        form.psf.value = "gaussian:1.7"
        form.srf.sensor.value = "landsat-8"
        form.srf.pick(["B2", "B3", "B4", "B5"])
        until(lambda: not form.busy)
        form.run()
        until(lambda: not form.running)
        pause(0.5)

    def fusing(self) -> None:
        """Fuse the pair; the run is half-way through its sampling, and goes on."""
        self.only("village LR-HSI", "village HR-MSI")
        self.undock("Simulate")
        self.undock("Spectrum")
        form = self.dock("Fuse")
        form.method.value = "args-diff"
        form.preset.value = self.budget.preset
        form.device.value = "cpu"
        for name, value in self.budget.changes:
            form.params.set_value(name, value)
        self.activity.click()
        form.run()
        for layer in self.viewer.layers:
            layer.name_overlay.visible = layer.visible
            layer.name_overlay.font_size = 7.0
        self.viewer.canvas.grid.stride = -1
        self.viewer.canvas.grid.enabled = True
        pause(0.5)
        self.viewer.reset_view()
        until(lambda: half_way(form.summary.text()))

    def compare(self) -> None:
        """Compare three methods with the truth: a table, a grid, maps of the error."""
        form = self.widget("Fuse")
        until(lambda: not form.running)
        self.activity.click()
        self.viewer.canvas.grid.enabled = False
        self.viewer.canvas.grid.stride = 1
        self.rename("args-diff")
        for method in ("subspace", "bicubic"):
            form.method.value = method
            form.run()
            until(lambda: not form.running)
            self.rename(method)
        self.undock("Fuse")
        form = self.dock("Compare", below=True)
        form.reference.value = self.viewer.layers["village"]
        form.compare()
        until(lambda: not form.running)
        form.view_row.side_by_side.value = True
        form.map_kind.value = "sam"
        form.show_maps()
        until(lambda: not form.running)
        pause(2.0)

    def train(self) -> None:
        """Train a network on two cubes; it has been tried a few times, and goes on."""
        self.undock("Compare")
        self.viewer.layers.clear()
        for part, seeds in (("training scenes", (1, 2)), ("validation scenes", (0,))):
            (self.folder / part).mkdir()
            for seed in seeds:
                scene = demo_scene(self.budget.size, 31, seed=seed)
                hs.save_cube(scene, self.folder / part / f"village {seed}.tif")
        form = self.dock("Train")
        settings = form.form
        settings.data.add(self.folder / "training scenes")
        settings.validation.add(self.folder / "validation scenes")
        # long: the end is seen, which is the same in every picture
        weights = self.folder / "trained for villages and landsat 8" / "villages.safetensors"
        settings.out.value = weights
        settings.ratio.value = 4
        settings.srf.sensor.value = "landsat-8"
        settings.srf.pick(["B2", "B3", "B4"])
        settings.device.value = "cpu"
        for name, value in TRAINING:
            settings.params.set_value(name, value)
        for name, value in (("start", "subspace"), ("width", 8)):
            settings.design.set_value(name, value)
        until(lambda: not form.busy)
        form.run()
        until(lambda: len(form.view.metrics) >= self.budget.trials)
        self.viewer.reset_view()
        pause(0.5)

    # -- parts

    def dock(self, name: str, below: bool = False) -> Any:
        """Open a widget of the plugin as its menu does; drag it below the canvas."""
        dock, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, name)
        if below:
            main = dock.parent()
            main.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, dock)
            main.resizeDocks([dock], [280], Qt.Orientation.Vertical)
        pause(0.5)
        return widget

    def undock(self, name: str) -> None:
        """Close a widget of the plugin."""
        self.viewer.window.remove_dock_widget(self.widget(name).native.parent())

    def widget(self, name: str) -> Any:
        """Widget of the plugin that is docked."""
        return self.viewer.window.dock_widgets[f"{name} ({PLUGIN})"]

    @property
    def activity(self) -> QToolButton:
        """Button of napari's activity dock, at the right end of the status bar."""
        windows = QApplication.topLevelWidgets()
        found = [window.findChild(QToolButton, "QtActivityButton") for window in windows]
        return next(button for button in found if button is not None)

    def rename(self, method: str) -> None:
        """Give a result a short name, as a double click on it in the list does."""
        long = f"village fused ({method})"
        for name, short in ((long, method), (f"{long} (composite)", f"{method} (composite)")):
            self.viewer.layers[name].name = short

    def only(self, *names: str) -> None:
        """Show these layers and no others."""
        for layer in self.viewer.layers:
            layer.visible = layer.name in names

    def shoot(self, path: Path) -> Path:
        """Write a picture of the window; small, and readable."""
        return save(self.viewer.screenshot(canvas_only=False, flash=False), path)

    def close(self) -> None:
        """Close the window; the training that goes on in it keeps its state and ends."""
        docked = f"Train ({PLUGIN})" in self.viewer.window.dock_widgets
        job = self.widget("Train").job if docked else None
        self.viewer.close()
        if job is not None:
            until(lambda: job.over)

    def _world(self, row: float, column: float) -> tuple[float, float]:
        share = self.budget.size / 128
        place = self.viewer.layers["village"].data_to_world((0, row * share, column * share))
        return float(place[-2]), float(place[-1])


def half_way(text: str) -> bool:
    """Whether a run says that half of its sampling is done."""
    said = re.match(r"sample (\d+)/(\d+)", text)
    return said is not None and 2 * int(said[1]) >= int(said[2])


def until(done: Callable[[], bool]) -> None:
    """Let the window live until something has happened; jobs run in threads of their own."""
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing after {PATIENCE} s")
        # a loop of Qt's own: what is to be deleted later goes, as in a running napari
        loop = QEventLoop()
        QTimer.singleShot(10, loop.quit)
        loop.exec()


def pause(seconds: float) -> None:
    """Let the window live for a while: layouts and timers settle."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def save(picture: np.ndarray, path: Path) -> Path:
    """Write a picture (rows, columns, 4) of the window as PNG."""
    image = Image.fromarray(picture[..., :3])
    if image.size != SIZE:
        raise ValueError(f"{path.name}: expected a window of {SIZE}, got {image.size}")
    image.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def make(theme: str, out: Path, budget: Budget | None = None) -> list[Path]:
    """Make all pictures in one theme.

    Parameters
    ----------
    theme : str
        ``dark`` or ``light``.
    out : Path
        Existing folder.
    budget : Budget, optional

    Returns
    -------
    list of Path
    """
    made = []
    with tempfile.TemporaryDirectory() as folder:
        session = Session(theme, Path(folder), budget)
        try:
            for name in NAMES:
                getattr(session, name)()
                made.append(session.shoot(out / f"{name}-{theme}.png"))
        finally:
            session.close()
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description="Make the pictures of docs/plugin.md.")
    parser.add_argument("--theme", choices=[*THEMES, "both"], default="both")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    said = parser.parse_args(arguments)
    said.out.mkdir(parents=True, exist_ok=True)
    for theme in THEMES if said.theme == "both" else (said.theme,):
        make(theme, said.out)


if __name__ == "__main__":
    # the settings of whoever runs this neither show in the pictures nor change
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_CONFIG"] = str(Path(home) / "settings.yaml")
        main()
