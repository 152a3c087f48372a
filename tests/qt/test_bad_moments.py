"""Layers, windows and clicks at the wrong moment: runs end in order, and all goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari.utils import progress

from napari_hsfusion import api, io
from napari_hsfusion._layers import layer_cube
from napari_hsfusion._qt import measuring, readings
from napari_hsfusion._qt import simulate as simulate_form
from napari_hsfusion._qt.fuse import FuseWidget
from napari_hsfusion._qt.simulating import simulated_layers
from napari_hsfusion.scene import demo_scene

if TYPE_CHECKING:
    from conftest import Session

# one window a test: some minutes in all
pytestmark = pytest.mark.slow


FOUR = "gaussian:480/70,560/60,660/60,835/120"
BANDS = 20


@pytest.fixture(scope="module")
def pair() -> api.SimulatedPair:
    return api.simulate(demo_scene(32, BANDS), 4, "box", FOUR, 35.0, 0)


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    """A window that is not drawn: what is wrong here is wrong before anything is seen."""
    return make_session(show=False)


# -- what a run needs goes away, or changes, while it runs


def begin(session: Session, steps: int = 15) -> FuseWidget:
    form: FuseWidget = session.dock("Fuse")
    session.learn(form, steps)
    form.run()
    session.until(lambda: "train" in form.summary.text())
    return form


@pytest.mark.slow
def test_inputs_replaced_or_removed_while_a_fusion_runs(
    session: Session, pair: api.SimulatedPair
) -> None:
    """The run goes on with what it was given."""
    session.add_pair(pair)
    form = begin(session)
    session.viewer.layers["LR"].data = np.zeros((3, 5, 7))
    session.viewer.layers.remove("HR")
    session.finish(form)
    alone = api.fuse(pair.lr_hsi, pair.hr_msi, spatial_steps=15, **session.LEARNT)
    np.testing.assert_array_equal(layer_cube(session.viewer.layers[-1]).values, alone.values)
    assert session.messages == []
    session.goes_on(pair)


@pytest.mark.slow
def test_results_replaced_while_they_are_made(session: Session, pair: api.SimulatedPair) -> None:
    """Somebody's pixels under the result's names are not taken for the result."""
    session.add_pair(pair)
    form = begin(session)
    name = "LR fused (args-diff)"
    session.viewer.layers[f"{name} (composite)"].data = np.zeros((16, 16, 3), np.uint8)
    session.viewer.layers[name].data = np.zeros((3, 5, 7))
    session.finish(form)
    assert session.messages == []
    alone = api.fuse(pair.lr_hsi, pair.hr_msi, spatial_steps=15, **session.LEARNT)
    for shown in session.viewer.layers[2:]:
        np.testing.assert_array_equal(layer_cube(shown).values, alone.values)
    assert session.viewer.layers[f"{name} (composite)"].data.shape[:2] == (32, 32)
    session.goes_on(pair)


class Gate:
    """Holds a worker at a point until it is opened."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.open.wait(20)


@pytest.fixture
def held() -> Generator[pytest.MonkeyPatch, None, None]:
    """Patches that a test may undo early, without undoing those of napari's own fixtures."""
    with pytest.MonkeyPatch.context() as made:
        yield made


@pytest.fixture
def gate() -> Generator[Gate, None, None]:
    made = Gate()
    yield made
    made.open.set()


def hold(monkeypatch: pytest.MonkeyPatch, gate: Gate, title: str) -> None:
    """Have the work of a form wait at the gate."""
    if title == "Simulate":

        def simulated(*args: Any) -> Any:
            gate.wait()
            return simulated_layers(*args)

        monkeypatch.setattr(simulate_form, "simulated_layers", simulated)
    elif title == "Compare":
        measure = measuring.measure

        def measured(*args: Any) -> Any:
            gate.wait()
            yield from measure(*args)

        monkeypatch.setattr(measuring, "measure", measured)
    else:
        read = readings.read_pixels

        def spectra(wanted: Any) -> Any:
            if wanted:
                gate.wait()
            return read(wanted)

        monkeypatch.setattr(readings, "read_pixels", spectra)


def start(session: Session, title: str, folder: Path) -> Any:
    form = session.dock(title)
    if title == "Compare":
        session.viewer.layers.clear()
        truth = session.viewer.add_image(demo_scene(32, BANDS).values, name="truth")
        session.viewer.add_image(demo_scene(32, BANDS).values + 0.01, name="guess")
        form.reference.layer = truth
        form.checks.check(session.viewer.layers["guess"])
        form.compare()
    elif title == "Simulate":
        form.srf.kind.value = "Gaussian bands"
        session.settle()
        form.run()
    else:
        io.save_cube(demo_scene(32, BANDS), folder / "lazy.hdr")
        session.open(folder / "lazy.hdr")
        form.refresh()
        form.show_at((3.0, 3.0))
    return form


@pytest.mark.parametrize("title", ["Simulate", "Compare", "Spectrum"])
def test_the_viewer_closed_while_something_is_computed(
    make_session: Callable[..., Session],
    pair: api.SimulatedPair,
    gate: Gate,
    held: pytest.MonkeyPatch,
    title: str,
    tmp_path: Path,
) -> None:
    session = make_session()
    session.add_pair(pair)
    hold(held, gate, title)
    form = start(session, title, tmp_path)
    session.until(gate.reached.is_set)
    job = getattr(form, "job", None)
    session.viewer.close()
    gate.open.set()
    session.settle()
    if title != "Spectrum":
        assert job.over
    assert session.messages == []
    assert list(progress._all_instances) == []
    held.undo()
    if title == "Simulate":  # one new window says it for all
        make_session(show=False).goes_on(pair)


def test_a_compared_layer_removed_meanwhile(
    session: Session,
    pair: api.SimulatedPair,
    gate: Gate,
    held: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    hold(held, gate, "Compare")
    form = start(session, "Compare", tmp_path)
    session.until(gate.reached.is_set)
    session.viewer.layers.clear()
    gate.open.set()
    session.finish(form)
    (row,) = form.measures.rows
    assert row.name == "guess"
    wanted = api.evaluate(demo_scene(32, BANDS), demo_scene(32, BANDS).values + 0.01, 4)
    assert row.values["psnr"] == wanted["psnr"]
    form.show_maps()
    assert session.names == []
    assert len(session.messages) == 1
    assert "tick at least one layer" in session.messages[0]
    held.undo()
    session.goes_on(pair)


def test_a_read_layer_removed_meanwhile(
    session: Session,
    pair: api.SimulatedPair,
    gate: Gate,
    held: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    hold(held, gate, "Spectrum")
    form = start(session, "Spectrum", tmp_path)
    session.until(gate.reached.is_set)
    session.viewer.layers.clear()
    gate.open.set()
    session.settle()
    assert form.spectra == []
    assert session.messages == []
    held.undo()
    session.goes_on(pair)


# -- buttons pressed too often


def test_run_pressed_twice(session: Session, pair: api.SimulatedPair) -> None:
    session.add_pair(pair)
    form = begin(session)
    job, before = form.job, session.names
    assert not form.run_button.enabled
    assert form.run() is job
    assert session.names == before
    session.finish(form)
    assert form.job is job
    assert len(session.viewer.layers) == 4
    assert session.messages == []
