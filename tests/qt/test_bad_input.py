"""What users do wrong in a window: one message in plain words, nothing changed, all goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

from napari_hsfusion import api
from napari_hsfusion._layers import band_layer, composite_layer
from napari_hsfusion._qt.responses import ESTIMATED, STORED
from napari_hsfusion.cube import make_cube
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


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


# -- the layers are not what a run needs


WRONG_SIZES = (
    ((BANDS, 7, 8), (4, 32, 32), "one whole ratio of sizes"),
    ((BANDS, 8, 8), (4, 4, 4), "are the two swapped?"),
    ((4, 32, 32), (BANDS, 8, 8), "are the two swapped?"),
    ((BANDS, 8, 8), None, "LR-HSI and HR-MSI are the same image"),
)


def test_a_wrong_pair(
    session: Session, pair: api.SimulatedPair, random: np.random.Generator
) -> None:
    form = session.dock("Fuse")
    add = session.viewer.add_image
    for low, high, words in WRONG_SIZES:
        first = add(random.random(low), name="low")
        second = first if high is None else add(random.random(high), name="high")
        form.lr_hsi.value, form.hr_msi.value = first, second
        with session.said_once(words):
            assert form.run() is None
        assert words in form.summary.text()
        assert not form.run_button.enabled
        session.viewer.layers.clear()
    session.goes_on(pair)


@pytest.mark.slow
def test_images_in_two_units(session: Session, pair: api.SimulatedPair) -> None:
    """Digital numbers beside reflectance, though the response was given for one unit."""
    session.add_pair(pair)
    session.viewer.layers.remove("HR")
    told = pair.hr_msi.attrs["observation"]
    numbers = make_cube(
        pair.hr_msi.values * 10_000,
        transform=pair.hr_msi.attrs["transform"],
        crs=pair.hr_msi.attrs["crs"],
        observation={key: told[key] for key in ("psf", "srf")},
    )
    data, words, _ = composite_layer(numbers, "numbers")
    layer = session.viewer.add_image(data, **words)
    form = session.dock("Fuse")
    form.hr_msi.value = layer
    form.method.value = "subspace"
    assert form.responses.source.value == STORED
    with session.said_once("expected both images in one unit"):
        form.run()
        session.finish(form)
    assert "1e+04 times" in form.summary.text()
    form.responses.source.value = ESTIMATED
    form.run()
    session.finish(form)
    blind = api.fuse(pair.lr_hsi, pair.hr_msi, method="subspace", psf="estimate", srf="estimate")
    np.testing.assert_allclose(form.result.values, blind.values, atol=0.02)
    session.goes_on(pair)


def test_no_layers(session: Session) -> None:
    simulate, fuse, compare, spectrum = (
        session.dock(title) for title in ("Simulate", "Fuse", "Compare", "Spectrum")
    )
    for act, words in (
        (simulate.run, "open a cube first"),
        (fuse.run, "Open or simulate an LR-HSI and an HR-MSI first"),
        (fuse.copy_script, "no fusion has finished yet"),
        (compare.compare, "tick at least one layer"),
        (compare.show_maps, "tick at least one layer"),
        (partial(setattr, compare.view_row.side_by_side, "value", True), "to see both"),
        (compare.panel.copy, "it is empty"),
        (compare.panel.save_csv, "the table is empty"),
        (spectrum.pin_button.native.click, "Move the mouse over a visible cube first"),
    ):
        with session.said_once(words):
            act()
    assert not compare.view_row.side_by_side.value


def test_layers_that_are_no_cubes_are_not_offered(
    session: Session, pair: api.SimulatedPair
) -> None:
    simulate, fuse, compare, spectrum = (
        session.dock(title) for title in ("Simulate", "Fuse", "Compare", "Spectrum")
    )
    viewer = session.viewer
    viewer.add_labels(np.ones((BANDS, 8, 8), dtype=int), name="labels")
    viewer.add_image(np.ones((2, BANDS, 8, 8)), name="4-D")
    viewer.add_image(np.zeros((8, 8, 3), dtype=np.uint8), rgb=True, name="colour picture")
    viewer.add_image(np.zeros((5, 8, 8, 3), dtype=np.uint8), rgb=True, name="colour film")
    viewer.add_points(np.zeros((3, 3)), name="points")
    assert list(fuse.lr_hsi.choices) == []
    assert list(simulate.reference.choices) == []
    assert compare.checks.listed == []
    with session.said_once("Open or simulate an LR-HSI"):
        assert fuse.run() is None
    with session.said_once("open a cube first"):
        assert simulate.run() is None
    with session.said_once("tick at least one layer"):
        assert compare.compare() is None
    spectrum.show_at((3.0, 3.0))
    session.settle()
    assert spectrum.spectra == []
    session.goes_on(pair)


def test_a_layer_of_nothing_but_nan(session: Session, pair: api.SimulatedPair) -> None:
    session.add_pair(pair)
    empty = pair.lr_hsi.copy(data=np.full_like(pair.lr_hsi.values, np.nan))
    data, words, _ = band_layer(empty, "empty")
    layer = session.viewer.add_image(data, **words)
    fuse, simulate, compare, spectrum = (
        session.dock(title) for title in ("Fuse", "Simulate", "Compare", "Spectrum")
    )
    fuse.method.value = "subspace"
    fuse.lr_hsi.value = layer
    with session.said_once(f"LR-HSI: all {BANDS} bands are marked as bad or without any value"):
        fuse.run()
        session.finish(fuse)
    simulate.reference.value = layer
    simulate.srf.kind.value = "Gaussian bands"
    session.settle()
    with session.said_once(f"reference: all {BANDS} bands are marked as bad"):
        simulate.run()
        session.finish(simulate)
    compare.reference.layer = session.viewer.layers["LR"]
    compare.checks.check(layer)
    before = session.state()
    compare.compare()
    session.finish(compare)
    (row,) = compare.measures.rows
    assert "no band is good and has values in both" in row.problem
    assert row.problem in compare.panel.summary.text()
    assert session.state() == before
    spectrum.show_at((3.0, 3.0))
    session.settle()
    (seen,) = [one for one in spectrum.spectra if one.layer == "empty"]
    assert np.isnan(seen.values).all()
    session.goes_on(pair)


# -- the form says what cannot be


def test_a_parameter_out_of_range(session: Session, pair: api.SimulatedPair) -> None:
    session.add_pair(pair)
    form = session.dock("Fuse")
    form.method.value = "args-diff"
    for name, value in (("sigma_low", "-1"), ("sigma_low", "a lot"), ("weight", "1e9")):
        before = form.params.changes()
        form.params.set_value(name, value)
        with session.said_once(name):
            assert form.run() is None
        assert value in form.summary.text() or f"{float(value):g}" in form.summary.text()
        form.params.set_value(name, getattr(api.preset_params("args-diff"), name))
        assert form.params.changes() == before
    form.seed.value = "half"
    with session.said_once("seed: expected a whole number"):
        assert form.run() is None
    form.seed.value = "0"
    session.goes_on(pair)


@pytest.mark.parametrize("folder", ["a file", "in a file"])
def test_networks_that_cannot_be_kept(
    session: Session, pair: api.SimulatedPair, tmp_path: Path, folder: str
) -> None:
    """It is said before hours of training, not after."""
    (tmp_path / "file").write_text("mine")
    session.add_pair(pair)
    form = session.dock("Fuse")
    form.method.value = "args-diff"
    session.learn(form, 5)
    form.networks.value = tmp_path / "file" / ("" if folder == "a file" else "networks")
    trained: list[str] = []
    with session.said_once("file"):
        if form.run() is not None:
            session.until(lambda: trained.append(form.summary.text()) is None and not form.running)
    assert not any("train" in text for text in trained)
    assert (tmp_path / "file").read_text() == "mine"
    form.networks.value = None
    session.goes_on(pair)
