"""The Train form: a run in the window ends as the interface alone would, however it is treated."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'pyqt6')")
pytest.importorskip("qtpy", reason="no Qt binding is installed")

import torch
from napari.utils import progress
from qtpy.QtWidgets import QApplication
from small_pairs import scene

from napari_hsfusion import api
from napari_hsfusion._layers import band_layer, composite_layer, kind_of, layer_cube
from napari_hsfusion._qt.fusing import torch_threads
from napari_hsfusion._qt.settings import Settings
from napari_hsfusion._qt.train import TrainWidget
from napari_hsfusion._qt.worker import JobState
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine.emr.weights import load_weights
from napari_hsfusion.engine.training_state import read_progress

NM = np.linspace(450.0, 650.0, 5)
SRF = "gaussian:480/60,600/80"
DESIGN = {"width": 4, "architecture": "unet", "T": 2}
PARAMS = {"patch": 16, "validate_every": 3, "validation_side": 16, "log_every": 2}


@pytest.fixture(autouse=True)
def layers_on_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_ENSURE_PLUGIN_MAIN_THREAD", "1")


def cube(seed: int, height: int = 32, width: int = 40) -> xr.DataArray:
    values = 3000.0 * scene(5, height, width, seed) + 100.0
    return make_cube(values.astype(np.uint16), wavelength=NM, name=f"scene-{seed}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ with two scenes and something unreadable, val/ with one."""
    for name, seeds in (("train", (1, 2)), ("val", (3,))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            api.save_cube(cube(seed), tmp_path / name / f"{seed}.tif")
    (tmp_path / "train" / "notes.txt").write_text("not a cube")
    return tmp_path


@pytest.fixture
def viewer(make_napari_viewer_proxy: Any) -> Any:
    return make_napari_viewer_proxy(show=True)


def dock(viewer: Any, folder: Path, steps: int = 6) -> TrainWidget:
    """The form, filled in."""
    widget = TrainWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Train")
    form = widget.form
    form.data.add(folder / "train")
    form.validation.add(folder / "val")
    form.ratio.value = 4
    form.psf.value = "box"
    form.srf.kind.value = "Gaussian bands"
    form.srf.gaussians.value = "480/60, 600/80"
    form.out.value = folder / "w.safetensors"
    form.device.value = "cpu"
    for name, value in {**PARAMS, "steps": steps}.items():
        form.params.set_value(name, value)
    for name, value in DESIGN.items():
        form.design.set_value(name, value)
    return widget


def until_over(qtbot: Any, widget: TrainWidget, seconds: float = 60) -> None:
    qtbot.waitUntil(lambda: not widget.running, timeout=int(seconds * 1000))
    qtbot.wait(50)


def until_it_learns(qtbot: Any, widget: TrainWidget, losses: int = 1) -> None:
    qtbot.waitUntil(lambda: len(widget.view.losses) >= losses, timeout=60_000)


def same_weights(first: Path, second: Path) -> bool:
    a, b = (load_weights(path)[0].state_dict() for path in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def alone(folder: Path, out: str, steps: int, resume: bool = False) -> Any:
    """The same run by the interface alone, with the same threads."""
    with torch_threads(Settings().threads):
        return api.train(
            [folder / "train"],
            folder / out,
            val=[folder / "val"],
            scale=4,
            psf="box",
            srf=SRF,
            device="cpu",
            resume=resume,
            design=DESIGN,
            params={**PARAMS, "steps": steps},
        )


def test_a_run_ends_as_the_interface_alone_would(
    viewer: Any, qtbot: Any, folder: Path, messages: list[str]
) -> None:
    """Weights to the bit; curves of all that was said; the preview becomes layers."""
    widget = dock(viewer, folder)
    assert widget.outlook.possible, widget.summary.text()
    assert "6 steps at a ratio of 4" in widget.summary.text()
    said: list[str] = []
    assert widget.run() is not None
    qtbot.waitUntil(
        lambda: said.append(widget.summary.text()) is None and not widget.running, timeout=60_000
    )
    qtbot.wait(50)
    assert widget.job is not None
    assert widget.job.state is JobState.FINISHED
    done = alone(folder, "alone.safetensors", 6)
    assert same_weights(folder / "w.safetensors", folder / "alone.safetensors")
    assert [step for step, _ in widget.view.losses] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in widget.view.metrics] == [3, 6]
    assert max(value for _, value in widget.view.metrics) == pytest.approx(done.record["metric"])
    assert widget.view.isVisible()
    assert widget.view.getAxis("right").isVisible()
    assert any(text.startswith("train ") for text in said)
    assert widget.skipped.isVisible()
    assert "1 skipped, 2 trained on" in widget.skipped.toPlainText()
    assert "notes.txt: unknown format" in widget.skipped.toPlainText()
    assert "Done: w.safetensors, 6 steps, PSNR (dB)" in widget.summary.text()
    assert "EMR-Diff" in widget.summary.text()
    assert [layer.name for layer in viewer.layers] == [
        "3 restored (composite)",
        "3 restored",
    ]
    picture, restored = viewer.layers
    assert (kind_of(picture), kind_of(restored)) == ("composite", "cube")
    shown = layer_cube(restored)
    assert shown.shape == (5, 16, 16)
    truth = cube(3).values[:, 8:24, 12:28].astype(float)
    assert np.abs(shown.values - truth).mean() < 0.3 * truth.mean()
    np.testing.assert_array_equal(shown.values, restored.data)
    assert list(progress._all_instances) == []
    assert messages == []


def test_cancel_keeps_the_state_and_going_on_ends_alike(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    """Cancelled after some steps: no layer stays; the form offers to go on, with one curve."""
    widget = dock(viewer, folder, steps=3000)
    widget.run()
    qtbot.waitUntil(lambda: bool(viewer.layers), timeout=60_000)
    begun = time.perf_counter()
    widget.cancel()
    assert widget.cancel_button.text == "Cancelling…"
    until_over(qtbot, widget, 10)
    assert time.perf_counter() - begun < 10
    assert widget.job is not None
    assert widget.job.state is JobState.CANCELLED
    assert list(viewer.layers) == []
    assert list(progress._all_instances) == []
    step = read_progress(folder / "w.state.safetensors").step
    assert 3 <= step < 3000
    assert f"Goes on after step {step} of 3000" in widget.summary.text()
    assert widget.keywords()["resume"] is True
    assert not widget.keywords()["overwrite"]
    assert widget.form._earlier_row.visible
    assert widget.train_button.text == "Go on"
    widget.form.params.set_value("steps", step + 4)
    assert f"Goes on after step {step} of {step + 4}" in widget.summary.text()
    copy = folder / "alone.safetensors"
    shutil.copy(folder / "w.state.safetensors", copy.with_suffix(".state.safetensors"))
    assert widget.run() is not None
    until_over(qtbot, widget)
    assert widget.job.state is JobState.FINISHED, widget.summary.text()
    steps = [at for at, _ in widget.view.losses]
    assert steps[0] == 2, "the curve begins with the earlier part's log"
    assert steps[-1] == step + 4
    assert steps == sorted(steps)
    alone(folder, copy.name, step + 4, resume=True)
    assert load_weights(copy)[1]["steps"] == step + 4
    assert same_weights(folder / "w.safetensors", copy)


def test_starting_anew_writes_over(viewer: Any, qtbot: Any, folder: Path) -> None:
    widget = dock(viewer, folder, steps=2)
    widget.form.validation.drop(widget.form.validation.entries)
    assert "without validation data" in widget.summary.text()
    widget.run()
    until_over(qtbot, widget)
    assert list(viewer.layers) == []
    assert "PSNR" not in widget.summary.text()
    first = (folder / "w.safetensors").read_bytes()
    (folder / "w.state.safetensors").unlink()
    widget.form.seed.value = "5"
    assert "is there already" in widget.summary.text()
    assert widget.run() is None
    widget.form.earlier.value = "start anew"
    assert widget.keywords()["overwrite"] is True
    assert widget.run() is not None
    until_over(qtbot, widget)
    assert widget.job is not None
    assert widget.job.state is JobState.FINISHED
    assert (folder / "w.safetensors").read_bytes() != first


def test_pause_halts(viewer: Any, qtbot: Any, folder: Path) -> None:
    widget = dock(viewer, folder, steps=3000)
    widget.run()
    until_it_learns(qtbot, widget)
    widget.pause_or_resume()
    qtbot.wait(300)
    assert widget.pause_button.text == "Resume"
    assert widget.summary.text() == "Paused."
    count = len(widget.view.losses)
    qtbot.wait(400)
    assert len(widget.view.losses) == count
    widget.pause_or_resume()
    until_it_learns(qtbot, widget, count + 1)
    widget.pause_or_resume()
    widget.cancel()  # a paused run ends as well, its state kept
    until_over(qtbot, widget, 10)
    assert read_progress(folder / "w.state.safetensors").step >= count


def test_closing_the_viewer_keeps_the_state(
    make_napari_viewer_proxy: Any, qtbot: Any, folder: Path, messages: list[str]
) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    widget = dock(viewer, folder, steps=3000)
    job = widget.run()
    assert job is not None
    until_it_learns(qtbot, widget)
    viewer.close()
    qtbot.waitUntil(lambda: job.over, timeout=10_000)
    assert job.state is JobState.CANCELLED
    assert read_progress(folder / "w.state.safetensors").step >= 1
    assert messages == []
    assert list(progress._all_instances) == []


def test_layers_are_data_too(viewer: Any, qtbot: Any, folder: Path) -> None:
    """A validation layer's preview lies over its central part; one may go during the run."""
    scenes = {name: cube(k, 32, 44) for k, name in enumerate(("a", "b", "look"))}
    for name, one in scenes.items():
        data, words, _ = band_layer(one, name)
        viewer.add_image(data, **{**words, "scale": (1, 2, 2), "units": ("pixel", "m", "m")})
    widget = dock(viewer, folder, steps=3)
    form = widget.form
    for part in (form.data, form.validation):
        part.drop(part.entries)
    form.data.fill_menu()
    offered = {action.text(): action for action in form.data.menu.actions()}
    assert {"Layer a", "Layer b", "Layer look"} <= set(offered)
    offered["Layer a"].trigger()
    form.data.add(viewer.layers["b"])
    form.validation.add(viewer.layers["look"])
    viewer.layers["a"].name = "first"
    assert [form.data.view.item(k).text() for k in range(2)] == ["first (layer)", "b (layer)"]
    widget.run()
    viewer.layers.remove("b")
    assert len(form.data.entries) == 1
    until_over(qtbot, widget)
    restored = viewer.layers["look restored"]
    assert tuple(restored.scale[1:]) == (2, 2)
    assert tuple(restored.translate[1:]) == (2 * 8, 2 * 14)
    assert restored.units == viewer.layers["look"].units
    header = load_weights(folder / "w.safetensors")[1]
    assert [one["name"] for one in header["scenes"]] == ["first", "b"]
    assert header["validation"]["scenes"] == ["look"]


def test_errors_are_said_in_plain_words(
    viewer: Any, qtbot: Any, folder: Path, messages: list[str]
) -> None:
    """Nothing to train on, crops larger than every scene, a state of another run."""
    widget = dock(viewer, folder, steps=2)
    widget.form.params.set_value("patch", 64)
    widget.run()
    until_over(qtbot, widget)
    assert "expected at least one scene of 64 x 64 pixels" in widget.summary.text()
    assert "1.tif" in widget.summary.text()
    widget.form.params.set_value("patch", 16)
    assert widget.run() is not None
    until_over(qtbot, widget)
    widget.form.params.set_value("steps", 4)
    widget.form.seed.value = "3"
    widget.run()
    until_over(qtbot, widget)
    assert "the run to resume has seed = 0, this one 3" in widget.summary.text()
    assert len(messages) == 2
    assert all("Traceback" not in text and text.startswith("Training: ") for text in messages)
    assert widget.train_button.enabled
    assert list(progress._all_instances) == []


def test_weights_go_on_to_a_fusion(session: Any, folder: Path) -> None:
    """Use in Fuse: a pair of that kind is fused with them; the script makes the same weights."""
    pair = api.simulate(cube(4), 4, "box", SRF, None, 0)
    for data, words, _ in (composite_layer(pair.hr_msi, "HR"), band_layer(pair.lr_hsi, "LR")):
        session.viewer.add_image(data, **words)
    widget = dock(session.viewer, folder, steps=2)
    widget.form.keep.value = False
    assert widget.after.copy_path() == ""
    assert widget.after.use_in_fuse() is None
    assert widget.after.copy_script() == ""
    already = len(session.messages)
    widget.run()
    session.finish(widget)
    assert session.names == ["HR", "LR"], "the preview was not to be kept"
    assert widget.view.metrics
    assert widget.after.copy_path() == str(folder / "w.safetensors")
    assert QApplication.clipboard().text() == str(folder / "w.safetensors")
    form = widget.after.use_in_fuse()
    assert form.keywords()["params"] == {"weights": str(folder / "w.safetensors")}
    assert form.run() is not None, form.summary.text()
    session.finish(form)
    fused = layer_cube(session.viewer.layers[-1])
    assert fused.attrs["record"]["method"] == "emr-diff"
    assert fused.attrs["record"]["weights"] == "w.safetensors"
    assert all(message.severity == "info" for message in session.messages[already:])
    script = widget.after.copy_script().replace("w.safetensors", "again.safetensors")
    with torch_threads(Settings().threads):
        exec(script, {})
    assert same_weights(folder / "w.safetensors", folder / "again.safetensors")
