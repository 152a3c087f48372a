"""The plugin's plot: theme, colours, export, and that it goes when its window goes."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from qtpy.QtCore import QRectF

from napari_hsfusion._qt.plots import COLORS, Plot
from napari_hsfusion.errors import WriteError

# what the eye sees without one kind of cone: Machado, Oliveira and Fernandes (2009), severity 1
SEEN = {
    "all": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(name: str) -> np.ndarray:
    """Linear RGB of ``#rrggbb``."""
    srgb = np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(first: str, second: str) -> float:
    """Contrast ratio of the web's accessibility guidelines."""
    low, high = sorted(float(linear(n) @ (0.2126, 0.7152, 0.0722)) for n in (first, second))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("eye", SEEN)
def test_line_colours_stay_apart(eye: str) -> None:
    from skimage.color import rgb2lab

    seen = np.clip([np.asarray(SEEN[eye]) @ linear(c) for c in COLORS], 0, 1)
    srgb = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(srgb[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert apart[np.triu_indices(len(COLORS), 1)].min() > 20


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_line_colours_are_readable(theme: str) -> None:
    from napari.utils.theme import get_theme

    background = get_theme(theme).background.as_hex(format="long")
    assert min(contrast(c, background) for c in COLORS) >= 2.2


def test_it_follows_the_theme(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer_proxy()
    viewer.theme = "dark"
    plot = Plot(viewer, "Wavelength (nm)", "Value")
    qtbot.addWidget(plot)
    legend = plot.add_legend()
    plot.plotItem.plot([0, 1], [1, 2], name="one")
    dark = plot.background_color, plot.text_color
    assert contrast(*dark) > 7
    with qtbot.waitSignal(plot.styled):
        viewer.theme = "light"
    light = plot.background_color, plot.text_color
    assert contrast(*light) > 7
    assert dark[0] != light[0]
    assert plot.backgroundBrush().color().name() == light[0]
    axis = plot.plotItem.getAxis("left")
    assert axis.textPen().color().name() == light[1]
    assert axis.labelStyle["color"] == light[1]
    assert axis.labelText == "Value"
    assert legend.labelTextColor().name() == light[1]
    assert light[1] in legend.items[0][1].item.toHtml()
    plot.set_labels(y_label="Reflectance")
    assert axis.labelText == "Reflectance"
    assert plot.plotItem.getAxis("bottom").labelText == "Wavelength (nm)"


def test_no_option_of_pyqtgraph_is_changed(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    import pyqtgraph as pg

    before = dict(pg.CONFIG_OPTIONS)
    plot = Plot(make_napari_viewer_proxy())
    qtbot.addWidget(plot)
    assert before == pg.CONFIG_OPTIONS


def test_png_is_whole_or_absent(make_napari_viewer_proxy: Any, qtbot: Any, tmp_path: Path) -> None:
    from skimage.io import imread

    plot = Plot(make_napari_viewer_proxy())
    qtbot.addWidget(plot)
    plot.resize(400, 200)
    plot.show()
    plot.plotItem.plot([0, 1, 2], [1, 3, 2], pen=Plot.color(1))
    path = plot.save_png(tmp_path / "plot.png")
    picture = imread(path)
    assert picture.shape[:2] == (400, 800)
    colours = {tuple(int(v) for v in pixel[:3]) for row in picture for pixel in row}
    wanted = tuple(int(Plot.color(1)[i : i + 2], 16) for i in (1, 3, 5))
    assert wanted in colours
    with pytest.raises(WriteError, match="no directory"):
        plot.save_png(tmp_path / "absent" / "plot.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plot.png"]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_labels_are_whole_in_a_low_plot(
    make_napari_viewer_proxy: Any, qtbot: Any, theme: str
) -> None:
    viewer = make_napari_viewer_proxy()
    viewer.theme = theme
    plot = Plot(viewer, "step (training)", "loss (g)")
    qtbot.addWidget(plot)
    assert plot.sizeHint().width() < 320, "it would take half of a window"
    plot.resize(300, 130)
    plot.plotItem.plot([0, 100], [0.0001, 0.0004])
    plot.show()
    qtbot.wait(50)
    inside = QRectF(plot.viewport().rect())
    for side in ("bottom", "left"):
        axis = plot.plotItem.getAxis(side)
        label = axis.label
        # a text item's rectangle has a margin of four pixels around the text
        text = label.mapRectToScene(label.boundingRect().adjusted(4, 4, -4, -4))
        assert inside.contains(text), f"{side}: {text} is cut off by {inside}"


def test_a_plot_that_is_gone_hears_nothing(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer_proxy()
    heard = len(viewer.events.theme.callbacks)
    plot = Plot(viewer)
    assert len(viewer.events.theme.callbacks) == heard + 1
    plot.deleteLater()
    qtbot.waitUntil(lambda: len(viewer.events.theme.callbacks) == heard)
    viewer.theme = "light"

    other = Plot(viewer)
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None
    viewer.theme = "dark"
