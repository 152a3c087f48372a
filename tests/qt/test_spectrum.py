"""The Spectrum dock against the cubes it shows."""

from __future__ import annotations

import csv
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari_hsfusion import _layers, api
from napari_hsfusion._qt.spectra import region_mask
from napari_hsfusion._qt.spectrum import SpectrumWidget
from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import ParameterError, WriteError
from napari_hsfusion.io import _source, open_cube, save_cube

Make = Callable[..., Any]


@pytest.fixture
def dock(make_napari_viewer_proxy: Make, qtbot: Any) -> Make:
    """Function that makes a viewer with cubes and the dock beside them."""

    def make(*cubes: xr.DataArray, show: bool = False) -> tuple[Any, SpectrumWidget]:
        viewer = make_napari_viewer_proxy(show=show)
        for cube in cubes:
            data, words, _ = _layers.band_layer(cube)
            viewer.add_image(data, **words)
        widget = SpectrumWidget(viewer)
        viewer.window.add_dock_widget(widget, name="Spectrum", area="bottom")
        return viewer, widget

    return make


def physical(cube: xr.DataArray, row: int, column: int) -> np.ndarray:
    """Values of a pixel by plain arithmetic."""
    stored = np.asarray(cube.data)[:, row, column].astype(float)
    out = stored * cube.attrs["scale_factor"] + cube.attrs["add_offset"]
    if "nodata" in cube.attrs:
        out[stored == cube.attrs["nodata"]] = np.nan
    return out


@pytest.fixture
def pair(tiny_scene: xr.DataArray, srf3: np.ndarray) -> tuple[xr.DataArray, xr.DataArray]:
    """The scene and its LR-HSI, four times as coarse, by plain means."""
    data = np.asarray(tiny_scene.data)
    low = data.reshape(12, 6, 4, 8, 4).mean(axis=(2, 4))
    a, b, c, d, e, f = tiny_scene.attrs["transform"]
    coarse = make_cube(
        low,
        wavelength=tiny_scene.coords["wavelength"].values,
        crs=tiny_scene.attrs["crs"],
        transform=(4 * a, b, c, d, 4 * e, f),
        name="coarse",
    )
    return tiny_scene, coarse


def world(layer: Any, row: float, column: float) -> tuple[float, float]:
    place = layer.data_to_world((0, row, column))
    return float(place[-2]), float(place[-1])


def test_values_are_physical_with_gaps(dock: Make) -> None:
    stored = np.arange(5 * 6 * 8, dtype=np.uint16).reshape(5, 6, 8) + 1
    stored[3, 2, 4] = 0
    cube = make_cube(
        stored,
        wavelength=[900, 500, 600, 700, 800],
        good_band=[True, True, False, True, True],
        nodata=0,
        scale_factor=1e-3,
        add_offset=-0.1,
        metadata={"data units": "reflectance"},
        name="scene",
    )
    viewer, widget = dock(cube)
    widget.show_at(world(viewer.layers[0], 2, 4))
    (one,) = widget.spectra
    expected = physical(cube, 2, 4)
    expected[2] = np.nan
    np.testing.assert_allclose(one.values, expected, rtol=1e-12)
    assert (one.layer, one.place) == ("scene", "cursor")
    assert "row 2, column 4" in one.where
    x, y = widget.plot._curves[0].main.getOriginalDataset()
    np.testing.assert_array_equal(x, [500, 600, 700, 800, 900])
    np.testing.assert_allclose(y, expected[[1, 2, 3, 4, 0]])
    assert widget.plot.plotItem.getAxis("left").labelText == "Value (reflectance)"
    assert widget.plot.plotItem.getAxis("bottom").labelText == "Wavelength (nm)"
    assert widget.plot.legend_names == ["scene"]

    widget.show_at(world(viewer.layers[0], 2, 8))
    assert widget.spectra == []
    assert widget.plot.hint.isVisible()


def test_lr_and_hr_show_the_same_ground(
    dock: Make, pair: tuple[xr.DataArray, xr.DataArray]
) -> None:
    fine, coarse = pair
    viewer, widget = dock(fine, coarse)
    for row, column in ((0, 0), (3, 3), (4, 3), (3, 4), (23, 31), (13, 22)):
        widget.show_at(world(viewer.layers[0], row, column))
        low, high = widget.spectra  # the topmost first
        assert (low.layer, high.layer) == ("coarse", "tiny")
        np.testing.assert_allclose(high.values, physical(fine, row, column))
        np.testing.assert_allclose(low.values, physical(coarse, row // 4, column // 4))
    # the whole area of the corner pixels counts, and nothing beyond
    widget.show_at(world(viewer.layers[0], -0.45, 31.45))
    assert len(widget.spectra) == 2
    widget.show_at(world(viewer.layers[0], -0.55, 31))
    assert widget.spectra == []


def test_a_composite_shows_its_bands_as_points(
    dock: Make, tiny_scene: xr.DataArray, srf3: np.ndarray
) -> None:
    msi = make_cube(
        np.einsum("cb,byx->cyx", srf3, np.asarray(tiny_scene.data)),
        wavelength=[480, 560, 660],
        crs=tiny_scene.attrs["crs"],
        transform=tiny_scene.attrs["transform"],
        name="msi",
    )
    viewer, widget = dock(tiny_scene)
    for cube in (tiny_scene, msi):
        data, words, _ = _layers.composite_layer(cube)
        viewer.add_image(data, **words)
    widget.refresh()
    widget.show_at(world(viewer.layers["tiny"], 10, 11))
    shown = {one.layer: one for one in widget.spectra}
    # the composite of the cube that is shown itself is no second curve
    assert set(shown) == {"tiny", "msi (composite)"}
    assert shown["msi (composite)"].points
    np.testing.assert_allclose(shown["msi (composite)"].values, physical(msi, 10, 11))
    viewer.layers["tiny"].visible = False
    widget.refresh()
    shown = {one.layer: one for one in widget.spectra}
    assert set(shown) == {"tiny (composite)", "msi (composite)"}
    np.testing.assert_allclose(shown["tiny (composite)"].values, physical(tiny_scene, 10, 11))


def test_the_overview_of_a_huge_image_shows_the_pixel_under_the_point(dock: Make) -> None:
    values = np.arange(3 * 9 * 7, dtype=np.float32).reshape(3, 9, 7)
    cube = make_cube(values, wavelength=[480, 560, 660], name="huge")
    meta = _layers.metadata(cube, "composite", _layers.placement(cube))
    meta[_layers.KEY]["steps"] = (2, 2)
    viewer, widget = dock()
    place = _layers.placement(cube).of_pixels((2.0, 2.0))
    picture = np.zeros((4, 3, 4), np.uint8)
    viewer.add_image(picture, rgb=True, metadata=meta, **place.keywords(2))
    widget.refresh()
    for row, column in ((0, 0), (3, 4), (7, 5)):
        widget.show_at((row, column))
        (one,) = widget.spectra
        np.testing.assert_array_equal(one.values, values[:, row, column])


def test_without_wavelengths_bands_are_numbered(dock: Make, tiny_scene: xr.DataArray) -> None:
    viewer, widget = dock(tiny_scene)
    viewer.add_image(np.random.default_rng(0).random((4, 24, 32)), name="plain")
    widget.refresh()
    viewer.layers["plain"].scale = (1, 2, 2)
    viewer.layers["plain"].translate = viewer.layers["tiny"].translate
    widget.refresh()
    widget.show_at(world(viewer.layers["tiny"], 3, 3))
    assert {one.layer for one in widget.spectra} == {"plain", "tiny"}
    assert widget.plot.plotItem.getAxis("bottom").labelText == "Band"
    np.testing.assert_array_equal(
        widget.plot._curves[1].main.getOriginalDataset()[0][[0, -1]], [1, 12]
    )
    widget.set_band_at(3.2)
    assert viewer.dims.point[0] == 2
    viewer.layers["plain"].visible = False
    widget.refresh()
    assert widget.plot.plotItem.getAxis("bottom").labelText == "Wavelength (nm)"


def test_a_lazy_cube_is_read_pixel_by_pixel_elsewhere(
    dock: Make, tmp_path: Path, tiny_scene: xr.DataArray, monkeypatch: Any, qtbot: Any
) -> None:
    save_cube(tiny_scene, tmp_path / "scene.hdr", interleave="bsq")
    cube = open_cube(tmp_path / "scene.hdr")
    viewer, widget = dock(cube)
    read: list[int] = []
    plain = _source.RawSource.__getitem__
    start = world(viewer.layers[0], 0, 0)

    def counting(self: Any, key: Any) -> np.ndarray:
        import threading

        assert threading.current_thread() is not threading.main_thread()
        values = plain(self, key)
        read.append(values.size)
        return values

    monkeypatch.setattr(_source.RawSource, "__getitem__", counting)
    widget.show_at(start)
    # a mouse that moves on while a file is read: the last place counts, few are read
    places = [world(viewer.layers[0], row, 5) for row in range(20)]
    for place in places:
        widget.show_at(place)
    qtbot.waitUntil(lambda: not widget.busy, timeout=5000)
    (one,) = widget.spectra
    np.testing.assert_allclose(one.values, physical(tiny_scene, 19, 5))
    assert set(read) == {12}
    assert len(read) <= 4


def test_a_file_that_cannot_be_read_is_told_once(
    dock: Make, tmp_path: Path, tiny_scene: xr.DataArray, monkeypatch: Any, qtbot: Any
) -> None:
    save_cube(tiny_scene, tmp_path / "scene.hdr")
    viewer, widget = dock(open_cube(tmp_path / "scene.hdr"))
    told: list[str] = []
    monkeypatch.setattr("napari_hsfusion._qt.readings.show_warning", told.append)

    def broken(self: Any, key: Any) -> np.ndarray:
        from napari_hsfusion.errors import FormatError

        raise FormatError("scene.dat: has changed since it was opened; open it again")

    monkeypatch.setattr(_source.RawSource, "__getitem__", broken)
    for row in (1, 2):
        widget.show_at(world(viewer.layers[0], row, 5))
        qtbot.waitUntil(lambda: not widget.busy, timeout=5000)
    assert widget.spectra == []
    assert len(told) == 1
    assert "has changed" in told[0]


def test_pins_stay_move_and_go(dock: Make, pair: tuple[xr.DataArray, xr.DataArray]) -> None:
    fine, coarse = pair
    viewer, widget = dock(fine, coarse)
    hr = viewer.layers["tiny"]
    viewer.layers.selection.active = hr
    widget.pin_at(world(hr, 5, 6))
    widget.pin_at(world(hr, 9, 20))
    points = viewer.layers["Pinned spectra"]
    assert viewer.layers.selection.active == hr
    assert points.units == hr.units[-2:]
    assert points.axis_labels == ("y", "x")
    assert [(one.place, one.layer) for one in widget.spectra] == [
        ("P1", "coarse"),
        ("P1", "tiny"),
        ("P2", "coarse"),
        ("P2", "tiny"),
    ]
    np.testing.assert_allclose(widget.spectra[3].values, physical(fine, 9, 20))
    np.testing.assert_allclose(widget.spectra[2].values, physical(coarse, 2, 5))
    marks = [tuple(int(v) for v in np.rint(c[:3] * 255)) for c in points.face_color]
    drawn = [tuple(int(widget.spectra[k].color[i : i + 2], 16) for i in (1, 3, 5)) for k in (0, 2)]
    assert marks == drawn
    assert list(points.text.values) == ["P1", "P2"]
    assert widget.plot.legend_names == ["coarse", "tiny", "P1", "P2"]

    moved = points.data.copy()
    moved[0] = world(hr, 15, 16)
    points.data = moved
    widget.refresh()
    np.testing.assert_allclose(widget.spectra[1].values, physical(fine, 15, 16))

    points.selected_data = {0}
    points.remove_selected()
    widget.refresh()
    assert [one.place for one in widget.spectra] == ["P2", "P2"]
    # one that the user adds with napari's own tool is a pin too, with a number of its own
    points.add(world(hr, 1, 1))
    widget.refresh()
    assert [one.place for one in widget.spectra] == ["P2", "P2", "P3", "P3"]
    np.testing.assert_allclose(widget.spectra[3].values, physical(fine, 1, 1))

    points.visible = False
    widget.refresh()
    assert widget.spectra == []
    points.visible = True
    widget.clear_button.changed.emit(True)
    assert widget.spectra == []
    assert len(points.data) == 0
    viewer.layers.remove("Pinned spectra")
    widget.pin_at(world(hr, 2, 2))
    assert [one.place for one in widget.spectra] == ["P1", "P1"]


def test_pinning_nothing_is_said(dock: Make, tiny_scene: xr.DataArray, monkeypatch: Any) -> None:
    told: list[str] = []
    monkeypatch.setattr("napari_hsfusion._qt.spectrum.show_warning", told.append)
    monkeypatch.setattr("napari_hsfusion._qt.spectrum.show_info", told.append)
    viewer, widget = dock(tiny_scene)
    widget.pin_button.changed.emit(True)
    widget.pin_at((1e6, 1e6))
    assert len(told) == 2
    assert len(viewer.layers) == 1
    widget.show_at(world(viewer.layers[0], 2, 3))
    widget.show_at((1e6, 1e6))
    widget.pin_button.changed.emit(True)
    (one,) = widget.spectra
    np.testing.assert_allclose(one.values, physical(tiny_scene, 2, 3))


def test_a_shift_click_pins_and_a_drag_does_not(dock: Make, tiny_scene: xr.DataArray) -> None:
    viewer, widget = dock(tiny_scene)
    place = (0.0, *world(viewer.layers[0], 4, 7))
    press = widget.pointer._on_press

    def click(modifiers: tuple[str, ...], way: int) -> None:
        event = SimpleNamespace(
            type="mouse_press", position=place, modifiers=modifiers, pos=np.array([10, 10])
        )
        steps = press(viewer, event)
        for kind in ("mouse_move", "mouse_release"):
            if next(steps, "over") == "over":
                return
            event.type, event.pos = kind, np.array([10 + way, 10])
        next(steps, None)

    click((), 0)
    click(("Shift",), 30)
    assert widget.pins.items() == []
    click(("Shift",), 1)
    (pin,) = widget.pins.items()
    assert pin.world == pytest.approx(place[1:])
    viewer.layers["Pinned spectra"].mode = "add"
    viewer.layers.selection.active = viewer.layers["Pinned spectra"]
    click(("Shift",), 0)
    assert len(widget.pins.items()) == 1


def test_a_region_that_went_leaves_no_trace_on_the_axes(
    dock: Make, tiny_scene: xr.DataArray, qtbot: Any
) -> None:
    viewer, widget = dock(tiny_scene, show=True)
    hr = viewer.layers["tiny"]
    corners = [world(hr, *p) for p in ((4, 8), (4, 20), (16, 20), (16, 8))]
    viewer.add_shapes([corners], shape_type="polygon", name="fields", units=hr.units[-2:])
    widget.regions.value = viewer.layers["fields"].__wrapped__
    widget.show_at(world(hr, 3, 3))
    widget.refresh()
    qtbot.waitUntil(lambda: len(widget.spectra) == 2 and not widget.busy, timeout=5000)
    viewer.layers.remove("fields")
    qtbot.waitUntil(lambda: len(widget.spectra) == 1 and not widget.busy, timeout=5000)
    qtbot.wait(50)
    (low, high), _ = widget.plot.viewRange()
    assert low > 350, "the axis of wavelengths begins where the cube's do"
    assert high < 1050


@pytest.mark.parametrize("kind", ["rectangle", "ellipse", "polygon"])
def test_regions_are_mean_and_deviation_on_each_grid(
    dock: Make, pair: tuple[xr.DataArray, xr.DataArray], qtbot: Any, kind: str
) -> None:
    fine, coarse = pair
    viewer, widget = dock(fine, coarse)
    hr = viewer.layers["tiny"]
    corners = [world(hr, *p) for p in ((3.6, 7.6), (3.6, 23.4), (19.4, 23.4), (19.4, 7.6))]
    viewer.add_shapes([corners], shape_type=kind, name="fields", units=hr.units[-2:])
    widget.regions.value = viewer.layers["fields"].__wrapped__
    widget.refresh()
    qtbot.waitUntil(lambda: not widget.busy, timeout=5000)
    low, high = widget.spectra
    assert (high.place, high.layer, low.layer) == ("fields 1", "tiny", "coarse")
    for one, cube, ratio in ((high, fine, 1), (low, coarse, 4)):
        y, x = np.mgrid[0 : 24 // ratio, 0 : 32 // ratio] * ratio + (ratio - 1) / 2
        if kind == "ellipse":
            inside = ((y - 11.5) / 7.9) ** 2 + ((x - 15.5) / 7.9) ** 2 < 1
        else:
            inside = (y > 3.6) & (y < 19.4) & (x > 7.6) & (x < 23.4)
        pixels = np.asarray(cube.data)[:, inside]
        np.testing.assert_allclose(one.values, pixels.mean(axis=1), rtol=1e-9)
        assert one.std is not None
        np.testing.assert_allclose(one.std, pixels.std(axis=1), rtol=1e-9)
        assert f"{inside.sum()} pixels" in one.where
    edges = widget.plot._curves[1]._edges
    assert edges is not None
    np.testing.assert_allclose(edges[1].yData - edges[0].yData, 2 * high.std)

    viewer.layers["fields"].data = []
    widget.refresh()
    assert widget.spectra == []
    viewer.layers.remove("fields")
    assert widget.regions.value is None


def test_masks_of_lines_specks_and_what_lies_outside() -> None:
    line = region_mask(np.array([[1.0, 1.0], [1.0, 4.0], [3.0, 4.0]]), False, (10, 10))
    assert line is not None
    mask, corner = line
    assert corner == (1, 1)
    assert mask.tolist() == [[True] * 4, [False] * 3 + [True], [False] * 3 + [True]]
    speck = np.array([[2.2, 3.2], [2.2, 3.4], [2.4, 3.4], [2.4, 3.2]])
    found = region_mask(speck, True, (10, 10))
    assert found is not None
    assert (found[0].tolist(), found[1]) == ([[True]], (2, 3))
    assert region_mask(speck + 50, True, (10, 10)) is None
    part = region_mask(np.array([[-5.0, -5], [-5, 1.2], [1.2, 1.2], [1.2, -5]]), True, (10, 10))
    assert part is not None
    assert (part[0].shape, part[0].all(), part[1]) == ((2, 2), True, (0, 0))
    assert region_mask(np.array([[np.nan, 0.0], [1, 1], [2, 0]]), True, (10, 10)) is None


def test_line_and_slider_follow_each_other(dock: Make, tiny_scene: xr.DataArray) -> None:
    centres = tiny_scene.coords["wavelength"].values
    other = make_cube(np.asarray(tiny_scene.data)[::2], wavelength=centres[::2] + 3, name="other")
    viewer, widget = dock(tiny_scene, other)
    line = widget.plot.line
    viewer.layers.selection.active = viewer.layers["tiny"]
    viewer.dims.set_point(0, 7)
    assert line.value() == centres[7]
    assert "band 8" in line.label.format
    assert f"{centres[7]:.5g} nm" in line.label.format
    line.setValue(centres[2] + 10)
    line.sigDragged.emit(line)
    assert viewer.dims.point[0] == 2
    assert line.value() == centres[2]
    # the selected cube is the one whose bands count
    viewer.layers.selection.active = viewer.layers["other"]
    assert line.value() == pytest.approx(centres[4] + 3)
    widget.set_band_at(centres[8])
    assert viewer.dims.point[0] == 4
    # a line in the user's hand is not pulled away
    line.moving = True
    line.setValue(600.0)
    widget.set_band_at(600.0)
    assert line.value() == 600.0
    line.moving = False
    line.sigPositionChangeFinished.emit(line)
    assert line.value() != 600.0
    # the axis spans the bands before there is a curve
    box = widget.plot.plotItem.vb
    box.updateAutoRange()
    assert box.viewRange()[0] == pytest.approx([centres[0] + 3, centres[10] + 3], abs=60)
    viewer.dims.set_point(0, 9)
    assert not line.isVisible(), "the slider is beyond the bands of the selected cube"


def test_the_range_is_locked_by_hand_or_button(dock: Make, tiny_scene: xr.DataArray) -> None:
    _, widget = dock(tiny_scene)
    box = widget.plot.plotItem.vb
    assert all(box.autoRangeEnabled())
    widget.lock.value = True
    assert not box.autoRangeEnabled()[1]
    widget.lock.value = False
    assert all(box.autoRangeEnabled())
    box.sigRangeChangedManually.emit([True, True])
    assert widget.lock.value


def test_layers_that_go_or_change_their_name(
    dock: Make, pair: tuple[xr.DataArray, xr.DataArray], qtbot: Any
) -> None:
    fine, coarse = pair
    viewer, widget = dock(fine, coarse)
    widget.show_at(world(viewer.layers["tiny"], 5, 6))
    viewer.layers["tiny"].name = "fused"
    qtbot.waitUntil(lambda: [s.layer for s in widget.spectra] == ["coarse", "fused"])
    assert widget.plot.legend_names == ["coarse", "fused"]
    viewer.layers["coarse"].visible = False
    qtbot.waitUntil(lambda: [s.layer for s in widget.spectra] == ["fused"])
    new = np.full((12, 24, 32), 0.25)
    viewer.layers["fused"].data = new
    qtbot.waitUntil(lambda: bool((widget.spectra[0].values == 0.25).all()))
    assert widget.spectra[0].wavelength is not None
    viewer.layers.clear()
    qtbot.waitUntil(lambda: widget.spectra == [])
    assert widget.plot.spectra == []
    viewer.add_shapes(name="a")
    assert "a" in [str(c) for c in widget.regions.choices[1:]] or len(widget.regions.choices) == 2


def test_csv_holds_what_is_shown(
    dock: Make, pair: tuple[xr.DataArray, xr.DataArray], tmp_path: Path, qtbot: Any
) -> None:
    fine, coarse = pair
    coarse = coarse.isel(band=slice(0, 12, 2)).assign_coords(
        good_band=("band", [True, True, False, True, True, True])
    )
    coarse.name = 'coarse, "old"\nimage'
    viewer, widget = dock(fine, coarse)
    hr = viewer.layers["tiny"]
    widget.pin_at(world(hr, 5, 6))
    widget.show_at(world(hr, 8, 9))
    box = [world(hr, *p) for p in ((0, 0), (0, 9), (9, 9), (9, 0))]
    viewer.add_shapes([box], shape_type="rectangle", name="field", units=hr.units[-2:])
    widget.regions.value = viewer.layers["field"].__wrapped__
    widget.refresh()
    qtbot.waitUntil(lambda: not widget.busy, timeout=5000)
    path = widget.export(tmp_path / "out.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    header, body = rows[0], rows[1:]
    assert header[0] == "wavelength_nm"
    assert len(header) == 1 + 2 + 2 + 4
    assert sum("standard deviation" in name for name in header) == 2
    assert any("tiny; P1 at y" in name and "row 5, column 6" in name for name in header)
    assert any('coarse, "old" image; field 1' in name for name in header)
    table = np.array([[float(v) if v else np.nan for v in row] for row in body])
    np.testing.assert_array_equal(table[:, 0], fine.coords["wavelength"].values)
    column = header.index(next(h for h in header if h.startswith("tiny; cursor")))
    np.testing.assert_allclose(table[:, column], physical(fine, 8, 9), rtol=1e-10)
    column = next(k for k, h in enumerate(header) if h.startswith("coarse") and "P1" in h)
    expected = np.full(12, np.nan)
    expected[::2] = physical(coarse, 1, 1)
    expected[4] = np.nan
    np.testing.assert_allclose(table[:, column], expected, rtol=1e-10)

    picture = widget.export(tmp_path / "out.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ParameterError, match=r"\.csv or \.png"):
        widget.export(tmp_path / "out.txt")
    with pytest.raises(WriteError):
        widget.export(tmp_path / "absent" / "out.csv")
    viewer.layers.clear()
    widget.refresh()
    with pytest.raises(ParameterError, match="no spectrum is shown"):
        widget.export(tmp_path / "none.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.png"]


def test_the_dialog_writes_or_says_why_not(
    dock: Make, tiny_scene: xr.DataArray, tmp_path: Path, monkeypatch: Any
) -> None:
    viewer, widget = dock(tiny_scene)
    told: list[str] = []
    for name in ("show_info", "show_error"):
        monkeypatch.setattr(f"napari_hsfusion._qt.spectrum.{name}", told.append)
    answer = [""]
    monkeypatch.setattr(
        "napari_hsfusion._qt.spectrum.QFileDialog.getSaveFileName",
        lambda *_: (answer[0], "PNG (*.png)"),
    )
    widget.export_button.changed.emit(True)
    assert told == []
    answer[0] = str(tmp_path / "plot")
    widget.export_button.changed.emit(True)
    assert "no spectrum is shown" in told[-1]
    widget.show_at(world(viewer.layers[0], 1, 1))
    widget.export_button.changed.emit(True)
    assert "Written" in told[-1]
    assert (tmp_path / "plot.png").exists()


def test_the_mouse_is_heard_while_the_dock_is_seen(
    dock: Make, tiny_scene: xr.DataArray, qtbot: Any
) -> None:
    viewer, widget = dock(tiny_scene, show=True)
    layer = viewer.layers[0]
    heard = {
        "move": len(viewer.mouse_move_callbacks),
        "drag": len(viewer.mouse_drag_callbacks),
        "theme": len(viewer.events.theme.callbacks),
        "inserted": len(viewer.layers.events.inserted.callbacks),
        "point": len(viewer.dims.events.point.callbacks),
        "visible": len(layer.events.visible.callbacks),
    }
    event = SimpleNamespace(position=(0.0, *world(layer, 3, 4)), modifiers=(), type="mouse_move")
    widget.pointer._on_move(viewer, event)
    qtbot.waitUntil(lambda dock=widget: len(dock.spectra) == 1)
    np.testing.assert_allclose(widget.spectra[0].values, physical(tiny_scene, 3, 4))
    widget.pin_at(world(layer, 3, 4))
    frame = widget.native.parent()
    frame.hide()
    assert not widget.attached
    assert not widget._mouse_timer.isActive()
    assert not widget._settle_timer.isActive()
    assert len(viewer.mouse_move_callbacks) == heard["move"] - 1
    assert len(viewer.mouse_drag_callbacks) == heard["drag"] - 1
    viewer.layers["Pinned spectra"].data = [world(layer, 10, 10)]
    frame.show()
    assert widget.attached
    np.testing.assert_allclose(widget.spectra[-1].values, physical(tiny_scene, 10, 10))

    gone = weakref.ref(widget)
    viewer.window.remove_dock_widget(widget.native)
    assert not widget.attached
    del widget, frame
    qtbot.wait(50)
    gc.collect()
    assert gone() is None
    assert len(viewer.mouse_move_callbacks) == heard["move"] - 1
    assert len(viewer.dims.events.point.callbacks) == heard["point"] - 1
    assert len(layer.events.visible.callbacks) == heard["visible"] - 1
    assert len(viewer.layers.events.inserted.callbacks) < heard["inserted"]
    assert "Pinned spectra" in viewer.layers
    viewer.dims.set_point(0, 3)
    viewer.theme = "light"
    assert len(viewer.events.theme.callbacks) == heard["theme"] - 1
    # another dock takes the pins up again
    again = SpectrumWidget(viewer)
    viewer.window.add_dock_widget(again, name="Spectrum")
    assert [one.place for one in again.spectra] == ["P1"]


def test_closing_the_viewer_while_a_file_is_read(
    dock: Make, tmp_path: Path, tiny_scene: xr.DataArray, monkeypatch: Any, qtbot: Any
) -> None:
    import threading

    save_cube(tiny_scene, tmp_path / "scene.hdr")
    viewer, widget = dock(open_cube(tmp_path / "scene.hdr"), show=True)
    qtbot.waitUntil(widget.plot.isVisible)
    go = threading.Event()
    plain = _source.RawSource.__getitem__

    def slow(self: Any, key: Any) -> np.ndarray:
        go.wait(5)
        return plain(self, key)

    monkeypatch.setattr(_source.RawSource, "__getitem__", slow)
    widget.show_at(world(viewer.layers[0], 3, 4))
    assert widget.busy
    widget.native.parent().close()
    assert not widget.attached
    go.set()
    qtbot.waitUntil(lambda: not widget.busy, timeout=5000)
    assert widget.spectra == []
    viewer.close()


def test_the_theme_reaches_the_curves(dock: Make, tiny_scene: xr.DataArray, qtbot: Any) -> None:
    viewer, widget = dock(tiny_scene)
    viewer.theme = "dark"
    widget.show_at(world(viewer.layers[0], 3, 4))
    before = widget.plot.line.pen.color().name()
    viewer.theme = "light"
    assert widget.plot.line.pen.color().name() == widget.plot.text_color != before
    assert widget.plot.legend_names == ["tiny"]
    assert widget.plot.legend.labelTextColor().name() == widget.plot.text_color


def test_api_and_dock_agree_on_a_pixel(dock: Make, tiny_scene: xr.DataArray) -> None:
    viewer, widget = dock(tiny_scene)
    widget.show_at(world(viewer.layers[0], 8, 8))
    np.testing.assert_array_equal(widget.spectra[0].values, api.pixel_spectrum(tiny_scene, 8, 8))
