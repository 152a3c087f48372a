"""The choosers of responses: every kind, its value, and that the picture is the engine's own."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from magicgui.widgets import Container
from qtpy.QtCore import QObject

from napari_hsfusion import api
from napari_hsfusion._qt.latest import Latest
from napari_hsfusion._qt.psf_picker import PSFPicker
from napari_hsfusion._qt.srf_picker import SRFPicker
from napari_hsfusion._responses import effective_kernel
from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import ResponseError
from napari_hsfusion.sensors.catalogue import sensor_names

WAIT = 20_000
EXTRA = {"Stored": None, "Estimated": "estimate"}


@pytest.fixture
def hold(qtbot: Any) -> Any:
    """Keeps pickers in a window of their own, and waits for their pictures."""

    class Hold:
        def __call__(self, picker: Any) -> Any:
            box = Container(widgets=[picker], labels=False)
            qtbot.addWidget(box.native)
            self.box = box
            self.settle(picker)
            return picker

        def settle(self, picker: Any) -> None:
            qtbot.waitUntil(lambda: not picker.busy, timeout=WAIT)

    return Hold()


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


def test_every_kernel(viewer: Any, hold: Any, tmp_path: Path) -> None:
    file = tmp_path / "kernel.npy"
    np.save(file, np.outer([1, 4, 2, 1], [1, 3, 3, 1]))
    picker = hold(PSFPicker(viewer, ratio=4))
    heard: list[Any] = []
    picker.changed.connect(lambda _: heard.append(picker.value))
    seen = [picker.kernel]
    for kind, value in (
        ("Gaussian", "gaussian:2.0"),
        ("3×3 Gaussian + bicubic", "gauss3-bicubic"),
        ("Box (mean)", "box"),
        ("Kernel file", ""),
        ("Bicubic", "bicubic"),
    ):
        picker.kind.value = kind
        assert picker.value == heard[-1] == value
        hold.settle(picker)
        seen.append(picker.kernel)
        if value:
            np.testing.assert_array_equal(picker.kernel, effective_kernel(value, 4).weights)
            drawn = picker._image.image
            np.testing.assert_array_equal(drawn, picker.kernel)
        else:
            assert picker.kernel is None
            assert picker.plot.isHidden()
    assert {k.shape for k in seen if k is not None} == {(16, 16), (18, 18), (4, 4)}
    picker.value = "gaussian:0.75"
    assert (picker.kind.value, picker.sigma.value) == ("Gaussian", 0.75)
    hold.settle(picker)
    np.testing.assert_array_equal(picker.kernel, effective_kernel("gaussian:0.75", 4).weights)
    picker.value = str(file)
    assert picker.kind.value == "Kernel file"
    hold.settle(picker)
    assert picker.kernel.shape == (4, 4)
    np.testing.assert_allclose(picker.kernel, np.load(file) / np.load(file).sum())
    assert not picker.plot.isHidden()
    picker.set_ratio(8)
    hold.settle(picker)
    assert "ratio of 8" in picker.caption.text()


def test_the_picture_lies_where_the_kernel_does(viewer: Any, hold: Any) -> None:
    picker = hold(PSFPicker(viewer, ratio=4))
    picker.value = "box"
    hold.settle(picker)
    box = picker._image.mapRectToParent(picker._image.boundingRect())
    assert (box.left(), box.top(), box.right(), box.bottom()) == (-0.5, -0.5, 3.5, 3.5)
    frame = picker._frame.getData()
    assert (frame[0].min(), frame[0].max()) == (-0.5, 3.5)


def test_a_bad_kernel_file_is_said_in_words(viewer: Any, hold: Any, tmp_path: Path) -> None:
    file = tmp_path / "kernel.csv"
    file.write_text("1,2\nx,4\n")
    picker = hold(PSFPicker(viewer))
    picker.file.value = file
    picker.kind.value = "Kernel file"
    hold.settle(picker)
    assert "expected rows of numbers" in picker.caption.text()
    assert picker.kernel is None
    picker.value = "box"
    hold.settle(picker)
    assert picker.kernel is not None


@pytest.mark.parametrize("value", [None, 3.0, np.ones((3, 3)), "nothing", "gaussian:0"])
def test_a_bad_value_changes_nothing(value: Any, viewer: Any, hold: Any) -> None:
    picker = hold(PSFPicker(viewer))
    with pytest.raises(ResponseError):
        picker.value = value
    assert picker.value == "bicubic"


def test_choices_of_the_caller(viewer: Any, hold: Any, tiny_scene: xr.DataArray) -> None:
    made = api.simulate(tiny_scene, 4, "gaussian:1.5", "sentinel-2a:B2,B3,B8", None)
    psf = hold(PSFPicker(viewer, 4, EXTRA))
    assert psf.value is None
    assert "No PSF is stored" in psf.caption.text()
    psf.set_cube(made.lr_hsi)
    hold.settle(psf)
    np.testing.assert_array_equal(psf.kernel, effective_kernel("gaussian:1.5", 4).weights)
    psf.value = "estimate"
    assert psf.kind.value == "Estimated"
    hold.settle(psf)
    assert psf.kernel is None
    srf = hold(SRFPicker(viewer, EXTRA))
    assert srf.value is None
    srf.set_cube(made.lr_hsi)
    hold.settle(srf)
    np.testing.assert_array_equal(srf.response.matrix, made.response.matrix)
    assert srf.response.names == ("B2", "B3", "B8")
    assert set(srf.plot.dots) == {"B2", "B3", "B8"}
    srf.kind.value = "Estimated"
    assert srf.value == "estimate"
    assert srf.response is None


def test_sensors_and_their_bands(viewer: Any, hold: Any, tiny_scene: xr.DataArray) -> None:
    picker = hold(SRFPicker(viewer))
    assert list(picker.sensor.choices) == list(sensor_names())
    assert "Choose a cube" in picker.caption.text()
    picker.set_cube(tiny_scene)
    hold.settle(picker)
    assert picker.value == "sentinel-2a"
    wanted = api.simulate(tiny_scene, 4, "box", "sentinel-2a", None)
    np.testing.assert_array_equal(picker.response.matrix, wanted.response.matrix)
    assert picker.chips.available == wanted.response.names
    assert "does not cover B10, B11, B12" in picker.caption.text()
    at, height = picker.plot.dots["B2"].getData()
    assert height.max() == 1.0
    assert set(at) <= set(tiny_scene.wavelength.values)
    ticks = picker.plot.ticks.getData()[0][::2]
    np.testing.assert_array_equal(ticks, tiny_scene.wavelength)
    heard: list[Any] = []
    picker.changed.connect(lambda _: heard.append(picker.value))
    picker.chips.toggle("B3")
    assert picker.value == heard[-1] == "sentinel-2a:B1,B2,B4,B5,B6,B7,B8,B8A,B9"
    assert "B3" not in picker.plot.dots
    assert "B3" in picker.plot.lines
    picker.chips.toggle("B3")
    assert picker.value == "sentinel-2a"
    picker.pick(["B8", "B2"])
    hold.settle(picker)
    assert picker.value == "sentinel-2a:B8,B2"
    assert picker.response.names == ("B8", "B2")
    assert picker.chips.checked == ("B2", "B8")
    for name in ("B2", "B8"):
        picker.chips.toggle(name)
    assert picker.value is None
    assert picker.caption.text() == "Choose at least one band."
    picker.sensor.value = "landsat-8"
    assert picker.value == "landsat-8"
    hold.settle(picker)
    assert set(picker.chips.available) < set(picker.chips.names)
    picker.pick(["B10"])
    hold.settle(picker)
    assert picker.value == "landsat-8"


def test_a_picked_subset_is_what_the_interface_takes(
    viewer: Any, hold: Any, tiny_scene: xr.DataArray
) -> None:
    picker = hold(SRFPicker(viewer))
    picker.set_cube(tiny_scene)
    picker.pick(["B4", "B3"])
    hold.settle(picker)
    made = api.simulate(tiny_scene, 4, "box", picker.value, None)
    np.testing.assert_array_equal(picker.response.matrix, made.response.matrix)
    assert picker.response.names == made.response.names


def test_gaussians(viewer: Any, hold: Any, tiny_scene: xr.DataArray) -> None:
    picker = hold(SRFPicker(viewer))
    picker.set_cube(tiny_scene)
    picker.kind.value = "Gaussian bands"
    hold.settle(picker)
    assert picker.value == "gaussian:480/70,560/60,660/60,835/120"
    assert len(picker.plot.lines) == len(picker.plot.dots) == 4
    assert picker.chips.names == ()
    for text, words in (
        ("480/", "expected gaussian:CENTRE/FWHM"),
        ("2200/50", "at least 80%"),
        ("", "Give the centre"),
    ):
        picker.gaussians.value = text
        hold.settle(picker)
        assert words in picker.caption.text()
        assert picker.response is None
    assert picker.value is None


def test_files(viewer: Any, hold: Any, tiny_scene: xr.DataArray, tmp_path: Path) -> None:
    file = tmp_path / "srf.csv"
    grid = np.arange(400.0, 2400.0, 10.0)
    columns = [np.exp(-0.5 * ((grid - centre) / 40) ** 2) for centre in (550, 700, 1600)]
    lines = [",".join(map(str, row)) for row in zip(grid, *columns, strict=True)]
    file.write_text("\n".join(["wavelength_nm,green,red,swir", *lines]) + "\n")
    picker = hold(SRFPicker(viewer))
    picker.set_cube(tiny_scene)
    picker.kind.value = "File"
    assert picker.value is None
    picker.file.value = file
    hold.settle(picker)
    # the infrared column lies beyond the cube: left out, and said
    assert picker.value == f"{file}:green,red"
    assert "does not cover swir" in picker.caption.text()
    assert picker.chips.available == ("green", "red")
    assert api.simulate(tiny_scene, 4, "box", picker.value, None).hr_msi.shape == (2, 24, 32)
    picker.chips.toggle("green")
    assert picker.value == f"{file}:red"
    picker.chips.toggle("green")
    assert picker.value == f"{file}:green,red"
    weights = tmp_path / "weights.npy"
    np.save(weights, np.eye(12)[[2, 5]])
    picker.file.value = weights
    hold.settle(picker)
    assert picker.value == str(weights)
    assert picker.response.matrix.shape == (2, 12)


def test_a_cube_without_wavelengths(viewer: Any, hold: Any, tmp_path: Path) -> None:
    cube = make_cube(np.ones((5, 4, 4)))
    picker = hold(SRFPicker(viewer))
    picker.set_cube(cube)
    hold.settle(picker)
    assert "the cube has none" in picker.caption.text()
    assert picker.response is None
    weights = tmp_path / "weights.npy"
    np.save(weights, np.ones((1, 5)))
    picker.kind.value = "File"
    picker.file.value = weights
    hold.settle(picker)
    assert picker.response.matrix.shape == (1, 5)
    at, _ = picker.plot.dots["B1"].getData()
    np.testing.assert_array_equal(at, [1, 2, 3, 4, 5])
    assert picker.plot._labels["bottom"] == "band of the cube"


def test_only_the_newest_question_is_answered(qtbot: Any) -> None:
    from threading import Event

    parent = QObject()
    go, asked, answers = Event(), [], []

    def slow(number: int) -> int:
        asked.append(number)
        assert go.wait(10)
        if number == 5:
            raise ZeroDivisionError("five")
        return number

    latest = Latest(slow, lambda value, trouble: answers.append((value, trouble)), parent)
    latest.ask(0)
    latest.ask(1)
    qtbot.waitUntil(lambda: asked == [1], timeout=WAIT)
    latest.ask(2)
    latest.ask(3)
    go.set()
    qtbot.waitUntil(lambda: not latest.busy, timeout=WAIT)
    assert asked == [1, 3]
    assert answers == [(3, None)]
    latest.ask(5)
    qtbot.waitUntil(lambda: not latest.busy, timeout=WAIT)
    assert answers[-1] == (None, "ZeroDivisionError: five")
    for end in (latest.forget, latest.stop):
        latest.ask(6)
        end()
        qtbot.waitUntil(lambda: not latest.busy, timeout=WAIT)
    latest.ask(7)
    assert not latest.busy
    assert len(answers) == 2


def test_a_question_outlives_whoever_asked(qtbot: Any) -> None:
    """Collected with its form while an answer is on its way, it is still there to take it."""
    parent = QObject()
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        assert go_on.wait(10)
        return 1

    class Form:
        def __init__(self) -> None:
            self.answers: list[Any] = []
            self.latest = Latest(slow, lambda *answer: self.answers.append(answer), parent)

    form = Form()
    asked, answers = weakref.ref(form.latest), form.answers
    form.latest.ask()
    qtbot.waitUntil(begun.is_set)
    del form
    gc.collect()
    assert asked() is not None
    go_on.set()
    qtbot.waitUntil(lambda: answers == [(1, None)])
    gc.collect()
    assert asked() is None

    closed = Form()
    begun.clear()
    go_on.clear()
    asked, answers, kept = weakref.ref(closed.latest), closed.answers, weakref.ref(closed)
    closed.latest.ask()
    qtbot.waitUntil(begun.is_set)
    closed.latest.stop()
    del closed
    gc.collect()
    assert kept() is None  # but the question is there until it is answered
    assert asked() is not None
    go_on.set()

    def gone() -> None:
        gc.collect()
        assert asked() is None

    qtbot.waitUntil(gone)
    assert answers == []
