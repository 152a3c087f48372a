"""Drive napari and the plugin's widgets by a script: open, simulate, fuse, compare, save.

Everything happens as if by hand: the forms are filled in and their buttons' methods are
called. The window closes at the end; with --stay it stays open.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch  # noqa: F401  before Qt: on Windows its libraries may not load after Qt's have

# isort: split
import napari
from qtpy.QtWidgets import QApplication

import napari_hsfusion as hs
from napari_hsfusion._qt.compare import CompareWidget
from napari_hsfusion._qt.fuse import FuseWidget
from napari_hsfusion._qt.simulate import SimulateWidget
from napari_hsfusion.scene import demo_scene

PLUGIN = "napari-hsfusion"
PATIENCE = 60  # seconds


def until(done: Callable[[], bool]) -> None:
    """Let the window live until something has happened; jobs run in threads of their own."""
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"nothing after {PATIENCE} s")
        QApplication.processEvents()
        time.sleep(0.01)


def simulate(viewer: napari.Viewer) -> None:
    """Let the reference be seen by two cameras: two more layers."""
    widget = SimulateWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Simulate", area="right")
    widget.ratio.value = 4
    widget.psf.value = "gaussian:1.5"
    widget.srf.sensor.value = "sentinel-2a"
    widget.srf.pick(["B2", "B3", "B4", "B8"])
    widget.snr.value = 35.0
    until(lambda: not widget.busy)
    widget.run()
    until(lambda: not widget.running)


def fuse(viewer: napari.Viewer) -> FuseWidget:
    """Fuse the two layers with a quick method."""
    widget = FuseWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Fuse", area="right", tabify=True)
    widget.lr_hsi.value = viewer.layers["village LR-HSI"]
    widget.hr_msi.value = viewer.layers["village HR-MSI"]
    widget.method.value = "subspace"
    widget.device.value = "cpu"
    widget.run()
    until(lambda: not widget.running)
    return widget


def compare(viewer: napari.Viewer) -> dict[str, float]:
    """Measure the result against the reference."""
    widget = CompareWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Compare", area="right", tabify=True)
    widget.reference.value = viewer.layers["village"]
    widget.compare()
    until(lambda: not widget.running)
    row = widget.measures.rows[0]
    return dict(row.values)


def main() -> None:
    """Go through a whole session."""
    hs.save_cube(demo_scene(size=64, bands=30), "village.tif")
    viewer = napari.Viewer()
    try:
        viewer.open("village.tif", plugin=PLUGIN)
        viewer.layers[-1].name = "village"
        simulate(viewer)
        form = fuse(viewer)
        measured = compare(viewer)
        print(f"PSNR {measured['psnr']:.2f} dB, SAM {measured['sam']:.2f} degrees")

        result = next(layer for layer in viewer.layers if "fused" in layer.name)
        viewer.layers.selection = {result}
        viewer.layers.save("fused.tif", selected=True, plugin=PLUGIN)
        Path("fuse_again.py").write_text(form.copy_script(), encoding="utf-8")
        if "--stay" in sys.argv:
            napari.run()
    finally:
        viewer.close()


if __name__ == "__main__":
    main()
