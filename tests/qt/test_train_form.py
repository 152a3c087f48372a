"""The settings of a training run: what the form says is what the interface is asked for."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'pyqt6')")
pytest.importorskip("qtpy", reason="no Qt binding is installed")

from magicgui.widgets import FileEdit

from napari_hsfusion import api
from napari_hsfusion._layers import band_layer, composite_layer
from napari_hsfusion._qt import train_data
from napari_hsfusion._qt.forms import ParamsForm
from napari_hsfusion._qt.train_data import DataList
from napari_hsfusion._qt.train_form import TrainForm
from napari_hsfusion._qt.train_preview import TrialLayers, central_place
from napari_hsfusion._qt.train_script import train_script
from napari_hsfusion._qt.train_view import TrainView, thinned
from napari_hsfusion._qt.training import Shown, first_cube
from napari_hsfusion._training.design import make_config
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine.emr.config import EmrConfig
from napari_hsfusion.errors import CubeError, ParameterError
from napari_hsfusion.params import EMR_DIFF_PRESETS, EmrDiffParams
from napari_hsfusion.params.training import TrainingParams
from napari_hsfusion.scene import demo_scene


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy()


def texts(part: DataList) -> list[str]:
    return [part.view.item(k).text() for k in range(part.view.count())]


def test_a_list_of_data(viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders, files and layers come and go; a layer that is removed or renamed is followed."""
    part = DataList(viewer, "Training data", "What is trained on.")
    edits: list[bool] = []
    part.edited.connect(lambda: edits.append(True))
    (tmp_path / "scenes").mkdir()
    file = tmp_path / "a.tif"
    file.write_bytes(b"x")
    cube = demo_scene(16, 8)
    data, words, _ = band_layer(cube, "bands")
    layer = viewer.add_image(data, **words)
    picture, words, _ = composite_layer(cube, "picture")
    viewer.add_image(picture, **words)
    viewer.add_points(np.zeros((1, 2)), name="points")
    dialogs = train_data.QFileDialog
    monkeypatch.setattr(
        dialogs, "getExistingDirectory", lambda *_: str(tmp_path / "scenes"), raising=True
    )
    monkeypatch.setattr(dialogs, "getOpenFileNames", lambda *_: ([str(file), str(file)], ""))
    part.fill_menu()
    actions = {action.text(): action for action in part.menu.actions() if action.text()}
    assert list(actions) == ["Folder…", "Files…", "Layer bands", "Layer picture"]
    for action in actions.values():
        action.trigger()
    assert texts(part) == ["scenes/", "a.tif", "bands (layer)", "picture (layer)"]
    assert part.paths() == [tmp_path / "scenes", file]
    given = part.data()
    assert given[:2] == part.paths()
    assert [one.name for one in given[2:]] == ["bands", "picture"]
    assert given[2].shape == (8, 16, 16)
    np.testing.assert_array_equal(given[3].values, cube.values)
    layer.name = "truth"
    assert "truth (layer)" in texts(part)
    assert part.layer("truth") == layer
    part.view.item(1).setSelected(True)
    assert part.remove_button.enabled
    part.remove_selected()
    assert not part.remove_button.enabled
    count = len(edits)
    viewer.layers.remove("truth")
    assert texts(part) == ["scenes/", "picture (layer)"]
    assert len(edits) == count + 1
    part.release()
    viewer.layers.remove("picture")
    monkeypatch.setattr(dialogs, "getExistingDirectory", lambda *_: "")
    part._ask_folder()
    assert part.entries == []


@pytest.fixture
def form(viewer: Any, qtbot: Any, tmp_path: Path) -> Generator[TrainForm, None, None]:
    """A form with all that must be given; it ends when nothing follows it any more."""
    made = TrainForm(viewer)
    viewer.window.add_dock_widget(made, name="form")
    (tmp_path / "scenes").mkdir()
    made.data.add(tmp_path / "scenes")
    made.srf.sensor.value = "landsat-8"
    made.out.value = tmp_path / "w.safetensors"
    yield made
    qtbot.waitUntil(lambda: not made.busy, timeout=20_000)
    made.release()


def test_an_untouched_form_asks_for_the_defaults(
    form: TrainForm, viewer: Any, tmp_path: Path
) -> None:
    """Nothing but what must be given: the interface's own defaults stay its own."""
    assert form.keywords() == {
        "data": [tmp_path / "scenes"],
        "out": tmp_path / "w.safetensors",
        "val": None,
        "scale": 8,
        "psf": "gauss3-bicubic",
        "srf": "landsat-8",
        "seed": 0,
        "device": "auto",
        "resume": False,
        "overwrite": False,
        "init": None,
        "design": {},
        "params": {},
    }
    shown = {name: form.design.typed(name) for name in form.design.applicable}
    expected = EmrConfig(bands=31, msi_bands=3, ratio=8, width=34)
    assert make_config(shown, bands=31, msi_bands=3, ratio=8) == expected


def test_every_parameter_is_in_the_form_and_read(
    form: TrainForm, viewer: Any, tmp_path: Path
) -> None:
    """Each has its tooltip; what is typed arrives; what is out of range is named."""
    specs = {spec.name: spec for spec in TrainingParams.describe()}
    assert form.params.applicable == list(specs)
    for name, spec in specs.items():
        assert form.params[name].tooltip.startswith(spec.tooltip)
    for name, value in (("steps", 7), ("minutes", 1.5), ("patch", 64), ("snr", "30")):
        form.params.set_value(name, value)
    for name, value in (("width", 12), ("pseudo", "1,15,31"), ("T", 3), ("noise", "plain")):
        form.design.set_value(name, value)
    asked = form.keywords()
    assert asked["params"] == {"steps": 7, "minutes": 1.5, "patch": 64, "snr": 30.0}
    assert asked["design"] == {"width": 12, "pseudo": "1,15,31", "T": 3, "noise": "plain"}
    assert "7 steps or 1.5 minutes" in form.look_ahead().text
    form.toggle_advanced()
    assert not form.network.native.isHidden()
    form.init.value = tmp_path / "first.safetensors"
    assert form.network.native.isHidden(), "weights to start from have their own network"
    assert form.keywords()["design"] == {}
    assert form.keywords()["init"] == tmp_path / "first.safetensors"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.data.drop(f.data.entries), "Add reference cubes"),
        (lambda f: setattr(f.out, "value", None), "Choose a file for the weights"),
        (lambda f: setattr(f.out, "value", Path("w.pt")), "ending in .safetensors"),
        (lambda f: setattr(f.seed, "value", "-1"), "seed: expected a whole number"),
        (lambda f: setattr(f.ratio, "value", 6), "multiple of the ratio 6, got 128"),
        (lambda f: f.params.set_value("rate", "much"), "rate: expected a number"),
        (lambda f: setattr(f.srf.gaussians, "value", ""), None),
        (lambda f: setattr(f.psf.kind, "value", "Kernel file"), "file of the PSF's kernel"),
        (lambda f: setattr(f.srf.kind, "value", "File"), "bands of the SRF, or its file"),
    ],
)
def test_what_is_missing_is_said(form: TrainForm, change: Any, words: str | None) -> None:
    assert form.look_ahead().possible
    change(form)
    outlook = form.look_ahead()
    assert outlook.possible == (words is None)
    if words is not None:
        assert words in outlook.text


def test_a_name_may_lack_its_ending_and_a_broken_state_is_said(
    form: TrainForm, viewer: Any, tmp_path: Path
) -> None:
    form.out.value = tmp_path / "plain"
    assert form.keywords()["out"] == tmp_path / "plain.safetensors"
    (tmp_path / "plain.state.safetensors").write_bytes(b"not a state")
    form.refresh_files()
    assert not form._earlier_row.native.isHidden()
    outlook = form.look_ahead()
    assert not outlook.possible
    assert "cannot be read as a training state" in outlook.text
    form.earlier.value = "start anew"
    assert form.look_ahead().possible
    assert form.keywords()["overwrite"] is True


def test_the_response_is_drawn_on_the_first_cube(
    form: TrainForm, qtbot: Any, tmp_path: Path
) -> None:
    """Of a folder the first file that is a cube of several bands, whatever lies beside it."""
    folder = tmp_path / "scenes"
    (folder / "0.txt").write_text("notes")
    api.save_cube(make_cube(np.ones((1, 8, 8))), folder / "1.tif")
    api.save_cube(demo_scene(16, 20), folder / "2.tif")
    found = first_cube([folder])
    assert found is not None
    assert found.sizes["band"] == 20
    assert first_cube([tmp_path / "absent", folder / "0.txt"]) is None
    form.data.drop(form.data.entries)
    form.data.add(folder)
    qtbot.waitUntil(lambda: not form.busy and form.srf.response is not None, timeout=20_000)
    assert form.srf.response.matrix.shape[1] == 20


def test_a_file_of_weights_is_chosen_or_auto(qapp: Any, tmp_path: Path) -> None:
    """Which fields there are follows what is trained on."""
    form = ParamsForm(EMR_DIFF_PRESETS["default"])
    field = form["weights"]
    assert isinstance(field, FileEdit)
    assert field.line_edit.native.placeholderText() == "auto"
    assert form.applicable == ["train_on", "weights", "consistency", "tile"]
    assert form.changes() == {}
    file = tmp_path / "w.safetensors"
    field.value = file  # as its dialog does
    assert form.changes() == {"weights": str(file)}
    form.set_value("train_on", "pair")
    assert "weights" not in form.applicable
    assert {"steps", "architecture"} <= set(form.applicable)
    assert form["weights"].native.isHidden()
    assert form.changes() == {"train_on": "pair"}
    form.set_value("fine_tune", True)
    assert "weights" in form.applicable
    assert "architecture" not in form.applicable
    assert form.changes() == {"train_on": "pair", "fine_tune": True, "weights": str(file)}
    form.set_value("weights", None)
    assert "weights" not in form.changes()
    form.load(EmrDiffParams(weights="there.safetensors"))
    assert field.line_edit.value == "there.safetensors"
    assert form.changes() == {}


def test_a_form_of_some_parameters_keeps_the_others(qapp: Any) -> None:
    base = EmrDiffParams(train_on="pair", steps=7)
    form = ParamsForm(base, only=("width", "T"))
    assert [field.name for field in form] == ["T", "width"]
    form.set_value("T", 3)
    assert form.changes() == {"T": 3}
    with pytest.raises(ParameterError, match="unknown parameter 'steps'"):
        form.set_value("steps", 1)
    frozen = ParamsForm(EmrDiffParams(), only=("width",))
    assert frozen.applicable == [], "with weights nothing reads the width"


def test_two_curves_on_two_axes(viewer: Any, qtbot: Any) -> None:
    view = TrainView(viewer)
    qtbot.addWidget(view)
    view.begin()
    assert view.isHidden()
    view.set_metric("PSNR (dB)", 33.5)
    assert view.isHidden()
    view.take([(1, 0.5), (2, float("nan")), (3, 0.25)])
    view.take([(4, 0.125)], [(4, 30.0)])
    assert not view.isHidden()
    assert view.losses == [(1, 0.5), (3, 0.25), (4, 0.125)]
    assert view.getAxis("right").labelText == "PSNR (dB)"
    assert not view.getAxis("right").logMode
    assert view.getAxis("left").logMode
    assert tuple(view._tried.getData()[1]) == (30.0,)
    assert tuple(view._start.getData()[1]) == (33.5, 33.5)
    view.begin()
    assert (view.losses, view.metrics) == ([], [])
    steps, values = thinned([(k, float(k)) for k in range(1, 3001)])
    assert len(steps) == 300
    assert (steps[0], values[-1]) == (5.5, 2995.5)


def test_previews_are_drawn_in_place_and_may_be_taken_away(viewer: Any) -> None:
    def shown(value: float, step: int) -> Shown:
        cube = make_cube(np.full((4, 6, 8), value, dtype=np.float32) + np.eye(6, 8), name="look")
        return Shown(cube, np.full((6, 8, 4), int(value), np.uint8), step)

    layers = TrialLayers(viewer, "look restored", central_place(None, (0, 0), {}, 4))
    assert layers.finish(True) == []
    layers.show(shown(1, 1))
    picture, band = viewer.layers
    held = band.data
    layers.show(shown(2, 2))
    assert band.data is held or np.shares_memory(band.data, held)
    assert float(band.data[0, 0, 1]) == 2.0
    assert picture.data[0, 0, 0] == 2
    viewer.layers.remove(picture)
    layers.show(shown(3, 3))
    assert [layer.name for layer in viewer.layers] == ["look restored"]
    assert len(layers.finish(True)) == 1
    layers.discard()
    assert len(viewer.layers) == 1, "what was finished is a layer as any other"


def test_a_layer_of_no_file_has_no_script(form: TrainForm, viewer: Any, tmp_path: Path) -> None:
    script = train_script({**form.keywords(), "params": {"steps": 3}, "design": {"T": 2}})
    assert "hs.train(" in script
    assert "steps=3" in script
    compile(script, "script", "exec")
    api.save_cube(demo_scene(16, 8), tmp_path / "in a file.tif")
    for cube, name in (
        (api.open_cube(tmp_path / "in a file.tif"), "file"),
        (demo_scene(16, 8), "m"),
    ):
        data, words, _ = band_layer(cube, name)
        form.data.add(viewer.add_image(data, **words))
    with pytest.raises(CubeError, match="layer 'm' is in no file"):
        train_script(form.keywords())
    form.data.drop([viewer.layers["m"]])
    assert "in a file.tif" in train_script(form.keywords())
