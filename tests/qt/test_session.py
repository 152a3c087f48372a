"""Whole sessions in a window: files open, become a pair, a result, numbers, and files again."""

from __future__ import annotations

import csv
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.io
import xarray as xr

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")
pytest.importorskip("qtpy", reason="no Qt binding is installed (extra 'pyqt6' or 'pyside6')")

import torch
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QDialog, QListWidget

from napari_hsfusion import api
from napari_hsfusion._layers import kind_of, layer_cube
from napari_hsfusion._qt.maps import map_layers
from napari_hsfusion._qt.responses import ESTIMATED, STORED
from napari_hsfusion.cube import make_cube
from napari_hsfusion.metrics import metric_infos
from napari_hsfusion.scene import demo_scene

if TYPE_CHECKING:
    from conftest import Session

Data = Callable[[str], Path]

FILES = {"envi": "scene.bil", "geotiff": "scene.tif", "matlab": "scene.mat"}
METHODS: dict[str, dict[str, dict[str, float]]] = {
    "envi": {"subspace": {"d": 5}},
    "geotiff": {"bicubic": {}, "subspace": {"d": 4}},
    "matlab": {"args-diff": {"d": 4, "spatial_steps": 5, "weight": 0.3}},
}
FOUR = "gaussian:480/70,560/60,660/60,835/120"
SAVED = {"envi": "again.mat", "geotiff": "again.hdr", "matlab": "again.tif"}


@pytest.fixture
def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Callable[..., dict[str, Any]], None, None]:
    """Function that runs a script in an empty folder; its names come back."""
    threads = torch.get_num_threads()
    (tmp_path / "played").mkdir()

    def played(script: str, **known: Any) -> dict[str, Any]:
        monkeypatch.chdir(tmp_path / "played")
        exec(script, known)
        return known

    yield played
    torch.set_num_threads(threads)  # scripts of runs set it


def scene(shared_data: Data, kind: str) -> xr.DataArray:
    """Corner of a real scene, (band, 32, 32), with what its sensor's files say of it."""
    if kind == "envi":
        with np.load(shared_data("scenes/jasper_ridge_100x100x198.npz")) as known:
            return make_cube(
                np.moveaxis(known["cube"][20:52, 40:72, :60], -1, 0),
                wavelength=known["wavelengths_nominal"][:60],
                scale_factor=1e-4,
                history=[{"step": "cut", "rows": [20, 52]}],
                name="ridge",
            )
    if kind == "geotiff":
        with np.load(shared_data("scenes/enmap_potsdam_64x128x224.npz")) as known:
            picked = np.r_[0:60, 128:140]  # some of the bad bands, which hold no-data, among them
            return make_cube(
                np.moveaxis(known["cube"][8:40, 64:96][..., picked], -1, 0),
                wavelength=known["wavelengths"][picked],
                fwhm=known["fwhm"][picked],
                good_band=known["bbl"][picked].astype(bool),
                nodata=-32768,
                scale_factor=1e-4,
                crs="EPSG:32633",
                transform=(30.0, 0.0, 366015.0, 0.0, -30.0, 5809965.0),
                name="potsdam",
            )
    with np.load(shared_data("scenes/pavia_centre_100x100x102_uint16.npz")) as known:
        return make_cube(
            np.moveaxis(known["cube"][:32, 60:92], -1, 0),
            wavelength=known["wavelengths_nominal"],
            band_name=[f"band {k}" for k in range(102)],
            name="pavia",
        )


def simulate(session: Session, reference: Any) -> None:
    form = session.dock("Simulate")
    form.reference.value = reference
    form.ratio.value = 4
    form.psf.value = "gaussian:1.5"
    form.srf.sensor.value = "sentinel-2a"
    form.srf.pick(["B2", "B3", "B4"])
    form.snr.value = 35.0
    form.seed.value = "3"
    session.until(lambda: not form.busy)
    form.run()
    session.finish(form)


def fuse(session: Session, method: str, **settings: Any) -> xr.DataArray:
    form = session.dock("Fuse")
    form.method.value = method
    for name, value in settings.items():
        form.params.set_value(name, value)
    assert form.run() is not None, form.summary.text()
    session.finish(form)
    assert form.result is not None, form.summary.text()
    return form.result


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_from_a_file_to_a_file(
    make_session: Callable[..., Session],
    shared_data: Data,
    tmp_path: Path,
    kind: str,
    play: Callable[..., dict[str, Any]],
) -> None:
    """Open, simulate, fuse, compare, save; open in another window, and repeat from there.

    With two methods all four forms lie open from the start, as in a session of hours.
    """
    truth = scene(shared_data, kind)
    file = tmp_path / FILES[kind]
    api.save_cube(truth, file)
    session = make_session()
    everything = len(METHODS[kind]) > 1
    for title in ("Simulate", "Fuse", "Compare", "Spectrum") if everything else ():
        session.dock(title)
    layers = session.open(file)
    assert [kind_of(layer) for layer in layers] == ["composite", "cube"]
    reference = layers[-1]
    xr.testing.assert_identical(layer_cube(reference).compute(), truth)

    simulate(session, reference)
    low, high = (session.viewer.layers[f"{truth.name} {n}"] for n in ("LR-HSI", "HR-MSI"))
    pair = api.simulate(file, 4, "gaussian:1.5", "sentinel-2a:B2,B3,B4", 35.0, 3)
    np.testing.assert_array_equal(layer_cube(low).values, pair.lr_hsi.values)
    np.testing.assert_array_equal(layer_cube(high).values, pair.hr_msi.values)
    form = session.dock("Fuse")
    assert (form.lr_hsi.value, form.hr_msi.value) == (low, high)
    assert form.responses.source.value == STORED

    results = {name: fuse(session, name, **words) for name, words in METHODS[kind].items()}
    for name, cube in results.items():
        alone = api.fuse(pair.lr_hsi, pair.hr_msi, method=name, **METHODS[kind][name])
        np.testing.assert_array_equal(cube.values, alone.values)
    measured(session, reference, results, truth)
    if everything:
        looked_at(session, reference)
        spectra(session, reference, tmp_path)

    name, fused = results.popitem()
    shown = saved_and_opened(session, make_session, name, tmp_path / SAVED[kind])
    xr.testing.assert_identical(shown.compute(), fused)
    assert shown.attrs["record"] == fused.attrs["record"]
    assert [step["step"] for step in shown.attrs["history"]][-2:] == ["simulate", "fuse"]
    assert play(api.as_script(shown))["fused"].values.tobytes() == fused.values.tobytes()
    assert session.messages == []


def measured(
    session: Session, reference: Any, results: dict[str, xr.DataArray], truth: xr.DataArray
) -> None:
    """The table holds the interface's numbers."""
    compare = session.dock("Compare")
    assert compare.reference.layer == reference
    assert len(compare.checks.checked) == len(results), "the results are ticked"
    compare.compare()
    session.finish(compare)
    rows = {row.name: row for row in compare.measures.rows}
    wanted = api.compare(results, truth)
    for method, right in zip(results, wanted, strict=True):
        row = rows[f"{truth.name} fused ({method})"]
        assert row.problem == ""
        for key in metric_infos("hsfusion"):
            np.testing.assert_equal(row.values[key], right[key])
        assert row.values["psnr"] > 20


def looked_at(session: Session, reference: Any) -> None:
    """Maps come and go, and so does the grid: the layers are as before."""
    compare = session.dock("Compare")
    before = session.state()
    compare.map_kind.value = "sam"
    compare.show_maps()
    session.finish(compare)
    maps = map_layers(session.viewer)
    assert len(maps) == 2
    assert len({tuple(layer.contrast_limits) for layer in maps}) == 1
    assert all(np.isfinite(layer.data).any() for layer in maps)
    compare.view_row.side_by_side.value = True
    assert session.viewer.canvas.grid.enabled
    session.qtbot.wait(50)
    compare.view_row.side_by_side.value = False
    assert not session.viewer.canvas.grid.enabled
    assert compare.remove_maps() == 2
    assert session.state() == before


def spectra(session: Session, reference: Any, folder: Path) -> None:
    """Every visible cube shows its own pixel under a point of the ground."""
    dock = session.dock("Spectrum")
    for layer in session.viewer.layers:
        layer.visible = kind_of(layer) == "cube"
    session.settle()
    dock.show_at(reference.data_to_world((0, 9, 14)))
    session.until(lambda: not dock.busy)
    found = {one.layer: one for one in dock.spectra}
    assert len(found) == 4
    for name, (row, column) in {
        reference.name: (9, 14),
        f"{reference.name} LR-HSI": (2, 3),
    }.items():
        cube = layer_cube(session.viewer.layers[name])
        wanted = api.pixel_spectrum(cube, row, column)
        if "good_band" in cube.coords:
            wanted = np.where(cube.coords["good_band"].values, wanted, np.nan)
        np.testing.assert_array_equal(found[name].values, wanted)
        np.testing.assert_array_equal(found[name].wavelength, cube.coords["wavelength"].values)
    dock.export(folder / "spectra.csv")
    with (folder / "spectra.csv").open(newline="", encoding="utf-8-sig") as file:
        assert len(list(csv.reader(file))) > cube.sizes["band"]


def saved_and_opened(
    session: Session, make_session: Callable[..., Session], method: str, file: Path
) -> xr.DataArray:
    """Save the layer of a result, and open the file in another window."""
    result = next(
        layer
        for layer in session.viewer.layers
        if f"fused ({method})" in layer.name and kind_of(layer) == "cube"
    )
    written = session.save(result, file)
    assert file in written
    assert all(one.exists() for one in written)
    return layer_cube(make_session().open(file)[-1])


@pytest.fixture
def houston(shared_data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A corner of a real pair: (16, 16, 48) and (64, 64, 3), and the wavelengths in nm."""
    with np.load(shared_data("pairs/houston2018_hs128x128x48_rgb512x512.npz")) as known:
        low, high = known["cube"][40:56, 60:76], known["rgb"][160:224, 240:304]
        return low, high, known["wavelengths_nominal"]


def choose(row: int) -> None:
    """Answer the dialog that is about to ask which array of a file is the image."""

    def act() -> None:
        dialog = QApplication.activeModalWidget()
        if not isinstance(dialog, QDialog):
            QTimer.singleShot(20, act)
            return
        dialog.findChild(QListWidget).setCurrentRow(row)
        dialog.accept()

    QTimer.singleShot(20, act)


def test_a_real_pair_of_one_file_is_fused_blind(
    make_session: Callable[..., Session],
    houston: tuple[np.ndarray, np.ndarray, np.ndarray],
    tmp_path: Path,
    play: Callable[..., dict[str, Any]],
) -> None:
    """Both arrays of one MATLAB file, without any response, and without a reference."""
    low, high, _ = houston
    file = tmp_path / "houston.mat"
    scipy.io.savemat(file, {"hyprImg": low, "rgbImg": high}, do_compression=True)
    session = make_session()
    for title in ("Fuse", "Compare"):
        session.dock(title)
    for row in (0, 1):
        choose(row)
        session.open(file)
    form = session.dock("Fuse")
    chosen = [layer_cube(c.value).encoding["variable"] for c in (form.lr_hsi, form.hr_msi)]
    assert chosen == ["hyprImg", "rgbImg"]
    assert form.responses.source.value == ESTIMATED
    assert tuple(form.lr_hsi.value.scale) == (1, 4, 4)
    fused = fuse(session, "subspace", d=6)
    assert fused.shape == (48, 64, 64)
    assert fused.attrs["record"]["srf_source"] == "estimated from the pair"
    consistent(session, fused, np.moveaxis(low, -1, 0), np.moveaxis(high, -1, 0))

    # the second run takes the same pair, though more layers are there now
    chosen = [layer_cube(c.value).encoding["variable"] for c in (form.lr_hsi, form.hr_msi)]
    assert chosen == ["hyprImg", "rgbImg"]
    script = form.copy_script()
    assert QApplication.clipboard().text() == script
    assert play(script)["fused"].values.tobytes() == fused.values.tobytes()
    assert [m.severity for m in session.messages] == ["info"]


def test_a_real_panchromatic_image_of_another_ratio(
    make_session: Callable[..., Session], shared_data: Data, tmp_path: Path
) -> None:
    """Hyperion and ALI's panchromatic band, 3 : 1, as an ENVI image and a TIFF."""
    with np.load(shared_data("pairs/eo1_paris_hyperion_ali.npz")) as known:
        low = np.moveaxis(known["hs_for_pan"][8:28, 8:24], -1, 0).astype(np.float32)
        pan = known["pan"][24:84, 24:72].astype(np.float32)
    api.save_cube(make_cube(low, name="hyperion"), tmp_path / "hyperion.hdr")
    api.save_cube(make_cube(pan, name="pan"), tmp_path / "pan.tif")
    session = make_session()
    for title in ("Fuse", "Compare"):
        session.dock(title)
    session.open(tmp_path / "pan.tif")
    session.open(tmp_path / "hyperion.hdr")
    form = session.dock("Fuse")
    assert (form.lr_hsi.value.name, form.hr_msi.value.name) == ("hyperion", "pan")
    fused = fuse(session, "subspace")
    assert fused.shape == (128, 60, 48)
    consistent(session, fused, low, pan[None])
    assert session.messages == []


def consistent(session: Session, fused: xr.DataArray, low: np.ndarray, high: np.ndarray) -> None:
    """Compare knows the pair without a reference, and its scores are the interface's."""
    compare = session.dock("Compare")
    assert compare.reference.layer is None
    fuse_form = session.dock("Fuse")
    assert compare.lr_hsi.value == fuse_form.lr_hsi.value
    assert compare.hr_msi.value == fuse_form.hr_msi.value
    (ticked,) = compare.checks.checked
    assert "fused" in ticked.name
    compare.compare()
    session.finish(compare)
    (row,) = compare.measures.rows
    wanted = api.assess(low, high, fused)
    assert row.problem == ""
    for key in ("psnr_hsi", "psnr_msi", "sam_hsi", "d_lambda", "d_s", "hqnr"):
        assert row.values[key] == wanted[key]
    assert row.values["psnr_hsi"] > 25
    compare.show_maps()
    session.finish(compare)
    maps = map_layers(session.viewer)
    assert {layer.data.shape for layer in maps} == {low.shape[1:], high.shape[1:]}
    compare.remove_maps()


def test_a_script_of_images_that_are_layers_alone(
    session: Session,
    tiny_scene: xr.DataArray,
    srf3: np.ndarray,
    play: Callable[..., dict[str, Any]],
) -> None:
    """In napari's console the copied lines take the pair from the layers, and show the result."""
    pair = api.simulate(tiny_scene, 4, "box", srf3, 40.0, 1)
    session.viewer.add_image(pair.hr_msi.values, name="sharp", axis_labels=("band", "y", "x"))
    session.viewer.add_image(pair.lr_hsi.values, name="it's low", axis_labels=("band", "y", "x"))
    form = session.dock("Fuse")
    form.seed.value = "5"
    fused = fuse(session, "args-diff", d=4, spatial_steps=6, weight=0.3)
    assert form.view.losses, "a network was trained"
    script = form.copy_script()
    assert 'viewer.layers["it\'s low"]' in script
    before = session.names
    made = play(script, viewer=session.viewer)
    assert made["fused"].values.tobytes() == fused.values.tobytes()
    assert len(session.names) > len(before)
    shown = layer_cube(session.viewer.layers[-1])
    assert shown.values.tobytes() == fused.values.tobytes()


def test_the_pair_is_found_whatever_comes_first(session: Session, tmp_path: Path) -> None:
    """The form is there before the files are; what the user chose is not taken away."""
    pair = api.simulate(demo_scene(32, 20), 4, "box", FOUR, None)
    api.save_cube(make_cube(pair.lr_hsi.values, name="low"), tmp_path / "low.hdr")
    api.save_cube(make_cube(pair.hr_msi.values, name="high"), tmp_path / "high.hdr")
    form = session.dock("Fuse")
    for name in ("low", "high"):
        session.open(tmp_path / f"{name}.hdr")
    assert (form.lr_hsi.value.name, form.hr_msi.value.name) == ("low", "high")
    form.method.value = "subspace"
    form.run()
    assert (form.lr_hsi.value.name, form.hr_msi.value.name) == ("low", "high"), "while it runs"
    session.finish(form)
    assert (form.lr_hsi.value.name, form.hr_msi.value.name) == ("low", "high"), "after it"
    session.viewer.layers.clear()
    for name in ("high", "low"):
        session.open(tmp_path / f"{name}.hdr")
    assert (form.lr_hsi.value.name, form.hr_msi.value.name) == ("low", "high")
    session.viewer.add_image(pair.hr_msi.values[:2], name="two bands")
    assert form.hr_msi.value.name == "two bands", "nobody has chosen yet"
    form.hr_msi.value = session.viewer.layers["high"]
    session.viewer.add_image(pair.hr_msi.values[:1], name="one band")
    assert form.hr_msi.value.name == "high"
