"""The Compare form: numbers, maps, grid and blinking, and what can go wrong."""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication

from napari_hsfusion import _layers, api, figures, metrics
from napari_hsfusion._layers.limits import carried_limits
from napari_hsfusion._qt import measuring, side_by_side
from napari_hsfusion._qt.compare import CompareWidget
from napari_hsfusion._qt.maps import map_layers
from napari_hsfusion._qt.worker import JobState


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_ENSURE_PLUGIN_MAIN_THREAD", "1")


@pytest.fixture
def said() -> Callable[[], str]:
    """Everything napari has notified of since the test began."""
    start = len(notification_manager.records)

    def read() -> str:
        return "\n".join(str(r.message) for r in list(notification_manager.records)[start:])

    return read


@pytest.fixture
def cubes(tiny_scene: xr.DataArray, srf3: np.ndarray) -> SimpleNamespace:
    """Pair and two results, on a grid in metres."""
    pair = api.simulate(tiny_scene, 4, "box", srf3, 40.0, 3)
    x, y = pair.lr_hsi, pair.hr_msi
    rough = api.fuse(x, y, method="bicubic", device="cpu")
    fine = api.fuse(x, y, method="subspace", d=4, device="cpu")
    return SimpleNamespace(truth=tiny_scene, x=x, y=y, rough=rough, fine=fine)


def add(viewer: Any, cube: xr.DataArray, name: str, *, composite: bool = False) -> Any:
    make = _layers.composite_layer if composite else _layers.band_layer
    data, words, _ = make(cube, name)
    return viewer.add_image(data, **words)


@pytest.fixture
def scene(make_napari_viewer_proxy: Any, cubes: SimpleNamespace) -> SimpleNamespace:
    """A viewer with the truth, the pair and both results, and the form docked."""
    viewer = make_napari_viewer_proxy()
    for name in ("truth", "x", "rough", "fine"):
        add(viewer, getattr(cubes, name), name)
    add(viewer, cubes.y, "y", composite=True)
    form = CompareWidget(viewer)
    viewer.window.add_dock_widget(form, name="Compare")
    return SimpleNamespace(viewer=viewer, form=form, layers=viewer.layers, **vars(cubes))


def shown(form: CompareWidget, part: Any) -> bool:
    return bool(part.native.isVisibleTo(form.form.native))


def finish(form: CompareWidget, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not form.running, timeout=20_000)


def held(monkeypatch: pytest.MonkeyPatch, name: str) -> threading.Event:
    """Have a job's function wait before its second event."""
    gate, original = threading.Event(), getattr(measuring, name)

    def waiting(*args: Any) -> Any:
        events = original(*args)
        yield next(events)
        gate.wait(20)
        return (yield from events)

    monkeypatch.setattr(measuring, name, waiting)
    return gate


def test_what_is_chosen_at_first(scene: SimpleNamespace) -> None:
    form, layers = scene.form, scene.layers
    assert form.reference.layer == layers["truth"]
    assert {layer.name for layer in form.checks.checked} == {"rough", "fine"}
    assert {layer.name for layer in form.checks.listed} == {"truth", "x", "rough", "fine"}
    assert not shown(form, form.ratio_row)
    assert not shown(form, form.pair_rows)
    form.reference.layer = None
    assert shown(form, form.pair_rows)
    assert form.lr_hsi.value == layers["x"]
    assert form.hr_msi.value == layers["y"]
    assert {layer.name for layer in form.checks.checked} == {"rough", "fine"}


@pytest.mark.filterwarnings("ignore:no value")
@pytest.mark.parametrize("convention", ["hsfusion", "args-diff", "emr-diff"])
def test_numbers_are_those_of_the_interface(
    scene: SimpleNamespace, qtbot: Any, convention: str
) -> None:
    form = scene.form
    form.convention.value = convention
    seen = []
    form.table.rows.modelReset.connect(lambda: seen.append(len(form.measures.rows)))
    form.compare()
    finish(form, qtbot)
    wanted = api.compare(
        {"rough": scene.rough, "fine": scene.fine}, scene.truth, convention=convention
    )
    assert [row.name for row in form.measures.rows] == ["rough", "fine"]
    for row, right in zip(form.measures.rows, wanted, strict=True):
        assert set(metrics.metric_infos(convention)) <= set(row.values)
        for key in metrics.metric_infos(convention):
            np.testing.assert_equal(row.values[key], right[key])
    assert seen == [0, 1, 2], "one row at a time"
    assert convention in form.panel.title.text()
    assert "truth" in form.panel.title.text()
    if convention == "emr-diff":
        assert "160" in form.measures.rows[0].notes[0]


def test_a_layer_that_does_not_fit_gets_its_reason(scene: SimpleNamespace, qtbot: Any) -> None:
    form = scene.form
    cut = add(scene.viewer, scene.truth[:, :20], "cut")
    form.checks.check(cut)
    form.checks.check(scene.layers["x"])
    assert shown(form, form.ratio_row)
    form.ratio.value = 3
    plain = scene.viewer.add_image(np.asarray(scene.rough.values), name="plain")
    assert plain in form.checks.checked, "a plain array of the reference's shape"
    form.compare()
    finish(form, qtbot)
    rows = {row.name: row for row in form.measures.rows}
    assert set(rows) == {"rough", "fine", "cut", "x", "plain"}
    assert "(12, 20, 32)" in rows["cut"].problem
    assert "(12, 6, 8)" in rows["x"].problem
    assert rows["plain"].values["ergas"] == pytest.approx(rows["rough"].values["ergas"] * 4 / 3)
    assert rows["plain"].values["psnr"] == rows["rough"].values["psnr"]
    assert (rows["plain"].scale, rows["rough"].scale) == (3, 4)
    assert "cut" in form.panel.summary.text()


def test_against_each_other(scene: SimpleNamespace, qtbot: Any) -> None:
    form = scene.form
    form.reference.layer = scene.layers["rough"]
    form.checks.check(scene.layers["truth"], False)
    form.compare()
    finish(form, qtbot)
    (row,) = form.measures.rows
    assert row.name == "fine"
    assert row.values["psnr"] == api.evaluate(scene.rough, scene.fine)["psnr"]
    assert "rough" in form.panel.title.text()


def test_without_a_reference(scene: SimpleNamespace, qtbot: Any) -> None:
    form = scene.form
    form.reference.layer = None
    form.checks.check(scene.layers["truth"])
    form.compare()
    finish(form, qtbot)
    rows = {row.name: row.values for row in form.measures.rows}
    for name in ("truth", "rough", "fine"):
        assert rows[name] == api.assess(scene.x, scene.y, getattr(scene, name))
    assert rows["truth"]["hqnr"] > rows["rough"]["hqnr"]
    assert form.panel.title.text() == "no reference: against x and y"

    form.checks.check(scene.layers["truth"], False)
    form.map_kind.value = "rmse"
    form.show_maps()
    finish(form, qtbot)
    made = {layer.name: layer for layer in map_layers(scene.viewer)}
    assert len(made) == 4
    seen = api.consistency(scene.x, scene.y, scene.rough)
    low, high = made["rough: residual to LR-HSI"], made["rough: residual to HR-MSI"]
    np.testing.assert_allclose(low.data, seen.error_map_hsi, rtol=1e-6)
    np.testing.assert_allclose(high.data, seen.error_map_msi, rtol=1e-6)
    for over, layer in (("x", low), ("y", high)):
        below = scene.layers[over]
        np.testing.assert_allclose(layer.scale, below.scale[-2:])
        np.testing.assert_allclose(layer.translate, below.translate[-2:])
        assert layer.units == below.units[-2:]
    fine = made["fine: residual to LR-HSI"]
    assert tuple(fine.contrast_limits) == tuple(low.contrast_limits)
    assert tuple(low.contrast_limits) != tuple(high.contrast_limits)


def test_table_to_clipboard_and_file(
    scene: SimpleNamespace, qtbot: Any, tmp_path: Path, said: Callable[[], str]
) -> None:
    form = scene.form
    assert form.panel.copy() == ""
    assert form.panel.save_csv(tmp_path / "none.csv") is None
    assert "empty" in said()
    form.compare()
    finish(form, qtbot)
    form.table.sortByColumn(1, form.table.horizontalHeader().sortIndicatorOrder().AscendingOrder)
    text = form.panel.copy()
    assert QApplication.clipboard().text() == text
    assert text.splitlines()[1].split("\t")[0] == "rough"
    path = form.panel.save_csv(tmp_path / "table")
    assert path == tmp_path / "table.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = api.compare({"rough": scene.rough, "fine": scene.fine}, scene.truth)
    assert [float(r["PSNR (dB)"]) for r in rows] == [w["psnr"] for w in wanted]
    assert {(r["convention"], r["reference"], r["ratio"]) for r in rows} == {
        ("hsfusion", "truth", "4")
    }
    assert form.panel.save_csv(tmp_path / "absent" / "table.csv") is None
    assert "no directory" in said()


def test_maps_share_one_scale_and_replace_one_another(scene: SimpleNamespace, qtbot: Any) -> None:
    form, viewer = scene.form, scene.viewer
    scene.layers["fine"].translate = (0, 10, 20)
    form.show_maps()
    finish(form, qtbot)
    made = {layer.name: layer for layer in map_layers(viewer, "rmse")}
    assert set(made) == {"rough: error", "fine: error"}
    images = [api.error_map(scene.truth, getattr(scene, n)) for n in ("rough", "fine")]
    np.testing.assert_array_equal(made["rough: error"].data, images[0])
    np.testing.assert_array_equal(made["fine: error"].data, images[1])
    limits = figures.error_limits(images)
    for name in ("rough", "fine"):
        layer, below = made[f"{name}: error"], scene.layers[name]
        np.testing.assert_allclose(layer.contrast_limits, limits)
        np.testing.assert_allclose(layer.extent.world, below.extent.world[:, 1:])
        assert layer.units == below.units[1:]
        assert layer.axis_labels == below.axis_labels[1:]
        assert layer.colorbar.visible
    made["rough: error"].contrast_limits = (0.01, 0.02)
    assert tuple(made["fine: error"].contrast_limits) == (0.01, 0.02)
    assert sum(layer.visible for layer in made.values()) == 1, "the others lie under it"

    form.map_kind.value = "sam"
    form.show_maps()
    finish(form, qtbot)
    form.map_kind.value = "rmse"
    form.checks.check(scene.layers["fine"], False)
    form.show_maps()
    finish(form, qtbot)
    names = sorted(layer.name for layer in map_layers(viewer))
    assert names == ["fine: angle (deg)", "rough: angle (deg)", "rough: error"]
    angle = scene.layers["rough: angle (deg)"]
    np.testing.assert_array_equal(angle.data, api.error_map(scene.truth, scene.rough, "sam"))
    assert not set(map_layers(viewer)) & set(form.checks.listed)
    assert form.remove_maps() == 3
    assert {layer.name for layer in scene.layers} == {"truth", "x", "rough", "fine", "y"}


def test_map_of_the_band_on_show(scene: SimpleNamespace, qtbot: Any) -> None:
    form = scene.form
    scene.viewer.dims.set_point(0, 7)
    form.map_kind.value = "band"
    form.show_maps()
    finish(form, qtbot)
    layer = scene.layers["rough: error, 780 nm"]
    assert float(scene.truth.wavelength[7]) == 780
    wanted = api.error_map(scene.truth, scene.rough, "band", band=7)
    np.testing.assert_array_equal(layer.data, wanted)


def state(viewer: Any) -> dict[str, Any]:
    grid, camera = viewer.canvas.grid, viewer.scene.camera
    return {
        "grid": (grid.enabled, grid.stride, grid.shape, grid.spacing),
        "camera": (tuple(camera.center), camera.zoom),
        "layers": {
            layer.name: (
                layer.visible,
                tuple(layer.contrast_limits),
                tuple(layer.contrast_limits_range),
                layer.name_overlay.visible,
                layer.name_overlay.font_size,
            )
            for layer in viewer.layers
        },
    }


def test_side_by_side_and_back(scene: SimpleNamespace, said: Callable[[], str]) -> None:
    form, viewer, layers = scene.form, scene.viewer, scene.layers
    layers["x"].visible = False
    viewer.canvas.grid.shape = (2, 3)
    viewer.canvas.grid.stride = 2
    viewer.scene.camera.zoom = 3.3
    before = state(viewer)
    form.view_row.side_by_side.value = True
    assert viewer.canvas.grid.enabled
    assert {layer.name for layer in layers if layer.visible} == {"truth", "rough", "fine"}
    cells = [viewer.canvas.grid.position(i, layers) for i in range(len(layers))]
    assert cells[layers.index("truth")] == (0, 0)
    assert len({cells[layers.index(n)] for n in ("truth", "rough", "fine")}) == 3
    shared = {tuple(layers[n].contrast_limits) for n in ("truth", "rough", "fine")}
    assert len(shared) == 1
    form.checks.check(layers["fine"], False)
    assert {layer.name for layer in layers if layer.visible} == {"truth", "rough"}
    form.view_row.side_by_side.value = False
    assert state(viewer) == before
    # the viewer's own button ends it, too
    form.view_row.side_by_side.value = True
    viewer.canvas.grid.enabled = False
    assert not form.view_row.side_by_side.value
    assert state(viewer) == before
    form.checks.check(layers["rough"], False)
    form.view_row.side_by_side.value = True
    assert not form.view_row.side_by_side.value
    assert "tick" in said()
    assert state(viewer) == before


def test_a_grid_takes_the_room_there_is(scene: SimpleNamespace) -> None:
    """Images are as large as the canvas lets three be; long names are small."""
    form, layers = scene.form, scene.layers
    rows, columns = np.ptp(layers["truth"].extent.world[:, -2:], axis=0)
    for height, width in ((600, 600), (200, 1200), (1200, 200)):
        sides = {
            shape: min(height / shape[0] / rows, width / shape[1] / columns)
            for shape in ((1, 3), (2, 2), (3, 1))
        }
        best = max(sides, key=lambda shape: sides[shape])
        assert side_by_side._shape(3, (height, width), rows / columns) == best
    form.view_row.side_by_side.value = True
    sizes = {layers[name].name_overlay.font_size for name in ("truth", "rough", "fine")}
    assert sizes == {10.0}
    form.view_row.side_by_side.value = False
    layers["fine"].name = "a result with a name that is much longer than a cell is wide, " * 2
    form.view_row.side_by_side.value = True
    sizes = {layer.name_overlay.font_size for layer in layers if layer.visible}
    assert len(sizes) == 1
    assert 6.0 <= sizes.pop() < 10.0


def test_limits_set_by_hand_in_the_grid_stay(scene: SimpleNamespace) -> None:
    form, layers = scene.form, scene.layers
    form.view_row.side_by_side.value = True
    layers["fine"].contrast_limits = (0.1, 0.2)
    form.view_row.side_by_side.value = False
    assert tuple(layers["fine"].contrast_limits) == (0.1, 0.2)


def test_one_contrast_in_physical_values(cubes: SimpleNamespace) -> None:
    counts = cubes.truth.assign_attrs(scale_factor=1e-4, add_offset=-0.1)
    assert carried_limits((0.0, 0.4), cubes.rough, counts) == pytest.approx((1000, 5000))
    assert carried_limits((1000, 5000), counts, cubes.rough) == pytest.approx((0.0, 0.4))


def test_blink_in_turn_and_back(scene: SimpleNamespace, qtbot: Any) -> None:
    form, viewer, layers = scene.form, scene.viewer, scene.layers
    before = state(viewer)
    form.view_row.rate.value = 3
    form.view_row.blink.value = True
    view = form.view_row.view
    assert view.timer.isActive()
    assert view.timer.interval() == 333
    turns = []
    for _ in range(4):
        turns.append([layer.name for layer in layers if layer.visible])
        view.step()
    assert turns == [["truth"], ["rough"], ["fine"], ["truth"]]
    now = [layer.name for layer in layers if layer.visible]
    qtbot.waitUntil(lambda: [q.name for q in layers if q.visible] != now, timeout=3000)
    # one mode at a time
    form.view_row.side_by_side.value = True
    assert not view.timer.isActive()
    assert not form.view_row.blink.value
    form.view_row.side_by_side.value = False
    assert state(viewer) == before


def test_blink_stops_with_a_layer(scene: SimpleNamespace, said: Callable[[], str]) -> None:
    form, layers = scene.form, scene.layers
    layers["y"].visible = False
    form.view_row.blink.value = True
    form.view_row.view.step()
    layers.remove("rough")
    assert not form.view_row.view.timer.isActive()
    assert not form.view_row.blink.value
    assert {layer.name for layer in layers if layer.visible} == {"truth", "x", "fine"}
    assert "rough was removed" in said()


def test_nothing_blinks_in_a_closed_form(scene: SimpleNamespace, qtbot: Any) -> None:
    form, viewer = scene.form, scene.viewer
    before = state(viewer)
    form.view_row.blink.value = True
    timer = form.view_row.view.timer
    viewer.window.remove_dock_widget(form.native)
    assert not timer.isActive()
    assert state(viewer) == before
    form.native.deleteLater()
    qtbot.wait(50)
    add(viewer, scene.truth, "later")
    viewer.layers["later"].name = "renamed"
    viewer.layers.clear()


def test_layers_renamed_and_removed_during_a_run(
    scene: SimpleNamespace, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, layers = scene.form, scene.layers
    gate = held(monkeypatch, "measure")
    form.compare()
    qtbot.waitUntil(lambda: form.panel.bar.value() > 0)
    layers["rough"].name = "coarse"
    layers["truth"].name = "ground"
    layers.remove("fine")
    gate.set()
    finish(form, qtbot)
    assert form.job.state is JobState.FINISHED
    assert [row.name for row in form.measures.rows] == ["coarse", "fine"]
    assert all(row.values for row in form.measures.rows)
    assert "ground" in form.panel.title.text()
    layers["coarse"].name = "rough again"
    assert form.measures.rows[0].name == "rough again"

    gate = held(monkeypatch, "draw")
    add(scene.viewer, scene.fine, "fine")
    form.show_maps()
    qtbot.waitUntil(lambda: form.panel.bar.value() > 0)
    layers.remove("rough again")
    gate.set()
    finish(form, qtbot)
    assert [layer.name for layer in map_layers(scene.viewer)] == ["fine: error"]


def test_cancel_keeps_what_is_there(
    scene: SimpleNamespace, qtbot: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    form = scene.form
    gate = held(monkeypatch, "measure")
    form.compare()
    qtbot.waitUntil(lambda: form.panel.bar.value() > 0)
    assert not form.compare_button.enabled
    assert form.compare() is None
    assert "wait" in said()
    form.cancel()
    assert form.cancel_button.text == "Cancelling…"
    gate.set()
    finish(form, qtbot)
    assert form.job.state is JobState.CANCELLED
    assert form.measures.rows == []
    assert form.compare_button.enabled
    assert not form.cancel_button.enabled
    assert not form.panel.bar.isVisibleTo(form.panel)
    monkeypatch.undo()
    form.compare()
    finish(form, qtbot)
    assert len(form.measures.rows) == 2


def test_a_failure_leaves_the_form_usable(
    scene: SimpleNamespace, qtbot: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    form = scene.form

    def fail(*_: Any) -> Any:
        yield None
        raise RuntimeError("out of memory: tried to allocate 9 GB")

    with monkeypatch.context() as patched:
        patched.setattr(measuring, "measure", fail)
        form.compare()
        finish(form, qtbot)
    assert form.job.state is JobState.FAILED
    assert "not enough memory" in said()
    form.compare()
    finish(form, qtbot)
    assert len(form.measures.rows) == 2


def test_viewer_closed_during_a_run(
    scene: SimpleNamespace, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = scene.form
    gate = held(monkeypatch, "measure")
    form.view_row.blink.value = True
    job = form.compare()
    qtbot.waitUntil(lambda: form.panel.bar.value() > 0)
    threading.Timer(0.2, gate.set).start()
    scene.viewer.close()
    qtbot.waitUntil(lambda: job.over, timeout=20_000)
    assert job.state is JobState.CANCELLED


def test_no_layers_at_all(make_napari_viewer_proxy: Any, said: Callable[[], str]) -> None:
    viewer = make_napari_viewer_proxy()
    form = CompareWidget(viewer)
    viewer.window.add_dock_widget(form)
    assert form.reference.layer is None
    assert form.compare() is None
    assert form.show_maps() is None
    form.view_row.blink.value = True
    assert not form.view_row.blink.value
    assert form.remove_maps() == 0
    assert "tick at least one layer" in said()
    layer = viewer.add_image(np.zeros((3, 4, 5)), name="zeros")
    viewer.add_labels(np.zeros((4, 5), dtype=int))
    viewer.add_image(np.zeros((4, 5, 3), dtype=np.uint8), rgb=True)
    assert form.checks.listed == [layer]
    form.reference.layer = None
    form.checks.check(layer)
    form.lr_hsi.value, form.hr_msi.value = layer, layer
    assert form.compare() is None
    assert "an LR-HSI and an HR-MSI" in said()


def test_wide_docks_lay_the_table_beside_the_form(scene: SimpleNamespace, qtbot: Any) -> None:
    form = scene.form
    scene.viewer.window.remove_dock_widget(form.native)
    form.native.resize(1200, 300)
    form.native.show()
    qtbot.waitUntil(lambda: form.panel.x() > 300)
    form.native.resize(400, 760)
    qtbot.waitUntil(lambda: form.panel.x() < 20)
    assert form.panel.y() > 150
    assert form.native.minimumSizeHint().width() <= 400
    form.native.close()


def test_more_opens_and_closes_behind_another_form(scene: SimpleNamespace) -> None:
    form = scene.form
    assert not form.native.isVisible(), "the window of this test is not shown"
    form.more_button.changed.emit(True)
    assert shown(form, form.more)
    form.more_button.changed.emit(True)
    assert not shown(form, form.more)
    assert form.more_button.text.startswith("▸")
