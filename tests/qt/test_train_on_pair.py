"""EMR-Diff in the Fuse form: weights that do not fit are said, a pair's own network is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'pyqt6')")
pytest.importorskip("qtpy", reason="no Qt binding is installed")

from napari_hsfusion import api
from napari_hsfusion._layers import band_layer, composite_layer
from napari_hsfusion._qt.worker import JobState
from napari_hsfusion.engine.emr.on_pair import STAGE
from napari_hsfusion.scene import demo_scene

QUICK = {"steps": 2, "width": 4, "architecture": "unet", "T": 2, "patch": 8, "batch": 1}


@pytest.fixture(scope="module")
def pair() -> api.SimulatedPair:
    return api.simulate(demo_scene(32, 12), 2, "bicubic", "gaussian:480/70,560/60,660/60", 35.0, 0)


def form_with(session: Any, pair: api.SimulatedPair) -> Any:
    for data, words, _ in (composite_layer(pair.hr_msi, "HR"), band_layer(pair.lr_hsi, "LR")):
        session.viewer.add_image(data, **words)
    form = session.dock("Fuse")
    form.lr_hsi.value, form.hr_msi.value = session.viewer.layers["LR"], session.viewer.layers["HR"]
    form.method.value = "emr-diff"
    form.device.value = "cpu"
    return form


def test_weights_that_do_not_fit_are_said(
    session: Any, pair: api.SimulatedPair, tmp_path: Path
) -> None:
    """None that is shipped fits 12 bands at a ratio of 2; the words say what helps."""
    form = form_with(session, pair)
    assert "of memory" in form.summary.text()
    assert not form.networks.enabled
    before = session.state()
    assert form.run() is not None
    session.finish(form)
    assert form.job.state is JobState.FAILED
    form.params.set_value("weights", str(tmp_path / "absent.safetensors"))
    assert form.run() is not None
    session.finish(form)
    assert session.state() == before
    assert form.run_button.enabled
    (first, second) = session.messages
    assert "no weights that come with the package fit this pair" in first
    assert "train_on=pair" in first
    assert "absent.safetensors" in second
    for message in session.messages:
        assert not message.raw
        assert "Traceback" not in message


def test_a_pairs_own_network_is_trained_live(session: Any, pair: api.SimulatedPair) -> None:
    """Losses of the training, then previews; the cube is the one of the interface alone."""
    form = form_with(session, pair)
    weights_first = form.summary.text()
    form.params.set_value("train_on", "pair")
    assert form.summary.text() != weights_first, "the expected cost follows"
    assert form.networks.enabled
    for name, value in QUICK.items():
        form.params.set_value(name, value)
    stages: list[str] = []
    stage_of: dict[str, list[float]] = {}
    form.view.advance, told = _watching(form.view.advance, stages, stage_of)
    frames: list[np.ndarray] = []
    form.run()
    picture = session.viewer.layers["LR fused (emr-diff) (composite)"]
    picture.events.set_data.connect(lambda _: frames.append(np.array(picture.data)))
    session.finish(form)
    assert told() > 0
    assert form.job.state is JobState.FINISHED, form.summary.text()
    assert STAGE in stages
    assert "restore" in stages
    assert len(stage_of[STAGE]) == 2
    assert all(np.isfinite(stage_of[STAGE]))
    assert len(frames) >= 2
    alone = api.fuse(pair.lr_hsi, pair.hr_msi, method="emr-diff", train_on="pair", **QUICK)
    assert form.result is not None
    np.testing.assert_array_equal(form.result.values, alone.values)
    assert form.result.attrs["record"]["parameters"]["train_on"] == "pair"


def _watching(advance: Any, stages: list[str], losses: dict[str, list[float]]) -> Any:
    """The same, with notes of every report."""
    count = [0]

    def watched(at: Any) -> None:
        count[0] += 1
        if at.stage not in stages:
            stages.append(at.stage)
        losses.setdefault(at.stage, []).extend(loss for _, loss in at.losses)
        advance(at)

    return watched, lambda: count[0]
