"""Spectral responses: every way to state one, and every way to get one wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.io import loadmat, savemat

from napari_hsfusion.errors import ResponseError, WriteError
from napari_hsfusion.sensors.catalogue import band_key, sensor_curves
from napari_hsfusion.sensors.resample import SIGMA_OF_FWHM, band_cells, coverage, gaussian_average
from napari_hsfusion.sensors.srf import (
    Response,
    gaussian_bands,
    load_response,
    save_response_csv,
    sensor_names,
)

SharedData = Callable[[str], Path]
VNIR = np.arange(400.0, 1001.0, 10.0)
FULL = np.arange(400.0, 2501.0, 10.0)


def write_curves(path: Path, grid: np.ndarray, **curves: np.ndarray) -> Path:
    lines = [",".join(["wavelength_nm", *curves])]
    rows = np.stack([grid, *curves.values()], axis=1).tolist()
    lines += [",".join(map(repr, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def triangle(grid: np.ndarray, centre: float, half: float) -> np.ndarray:
    return np.maximum(0.0, 1 - np.abs(grid - centre) / half)


def test_matrix_rows_are_normalised_and_checked() -> None:
    response = load_response([[1.0, 3.0], [0.0, 2.0]], [500.0, 600.0])
    np.testing.assert_array_equal(response.matrix, [[0.25, 0.75], [0.0, 1.0]])
    assert response.names == ("B1", "B2")
    assert load_response(np.ones((1, 3)), None).wavelength is None


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 5)), r"expected 3 columns.*got a matrix of shape \(2, 5\)"),
        (np.ones((3, 2)), "fits when transposed"),
        (np.ones(3), r"shape \(c, C\), got \(3,\)"),
        ([[1.0, -0.1, 0.0]], "0 or more, got -0.1 in B1"),
        ([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], "above 0 in B2"),
        ([[1.0, np.nan, 0.0]], "finite"),
        ([["a", "b", "c"]], "expected a matrix"),
        (object(), "expected a matrix"),
        (np.ones((0, 3)), "got"),
    ],
)
def test_bad_matrices(matrix: object, message: str) -> None:
    with pytest.raises(ResponseError, match=message):
        load_response(matrix, [500.0, 600.0, 700.0])  # type: ignore[arg-type]


def test_csv_on_other_wavelengths_is_interpolated(tmp_path: Path) -> None:
    grid = np.arange(380.0, 1021.0, 1.0)
    path = write_curves(
        tmp_path / "r.csv", grid, blue=triangle(grid, 480, 40), red=triangle(grid, 655, 30)
    )
    response = load_response(path, VNIR)
    expected = triangle(VNIR, 655, 30)
    np.testing.assert_allclose(response.matrix[1], expected / expected.sum(), atol=1e-15)
    assert response.names == ("blue", "red")
    assert "linear" in response.resampling
    averaged = load_response(path, VNIR, np.full(VNIR.size, 12.0))
    assert "average" in averaged.resampling
    # a Gaussian of 12 nm at the apex of the triangle sees less than the apex
    k = int(np.argmin(abs(VNIR - 480)))
    assert averaged.matrix[0, k] < response.matrix[0, k]
    np.testing.assert_allclose(averaged.matrix.sum(axis=1), 1)


def test_descending_table_equals_the_ascending_one(tmp_path: Path) -> None:
    grid = np.arange(380.0, 1021.0, 1.0)
    curve = triangle(grid, 500, 40)
    up = load_response(write_curves(tmp_path / "u.csv", grid, a=curve), VNIR)
    down = load_response(write_curves(tmp_path / "d.csv", grid[::-1], a=curve[::-1]), VNIR)
    np.testing.assert_array_equal(up.matrix, down.matrix)


def test_gaussian_average_is_the_integral() -> None:
    grid = np.array([400.0, 430.0, 500.0, 510.0, 600.0])
    curve = np.array([0.1, 0.9, 1.0, 0.2, 0.0])
    centre, fwhm = np.array([410.0, 505.0, 640.0]), np.array([8.0, 30.0, 60.0])
    got = gaussian_average(grid, curve, centre, fwhm)
    for value, c, w in zip(got, centre, fwhm, strict=True):
        s = w * SIGMA_OF_FWHM

        def integrand(x: float, c: float = c, s: float = s) -> float:
            density = np.exp(-0.5 * ((x - c) / s) ** 2) / (s * np.sqrt(2 * np.pi))
            return float(np.interp(x, grid, curve) * density)

        want = quad(integrand, 400, 600, points=[430, 500, 510], limit=300, epsabs=1e-13)[0]
        assert value == pytest.approx(want, abs=1e-10)


def test_cells_tile_the_range_and_leave_holes() -> None:
    low, high = band_cells(np.array([500.0, 400.0, 410.0, 420.0, 430.0, 510.0]))
    np.testing.assert_allclose(low, [495, 395, 405, 415, 425, 505])
    np.testing.assert_allclose(high, [505, 405, 415, 425, 435, 515])


def test_uneven_bands_stand_for_their_width(tmp_path: Path) -> None:
    # bands 5 nm apart, then 20 nm: the sum must approximate the integral
    cube = np.concatenate([np.arange(500.0, 600.0, 5.0), np.arange(600.0, 701.0, 20.0)])
    grid = np.arange(480.0, 721.0)
    path = write_curves(tmp_path / "f.csv", grid, f=triangle(grid, 600, 90))
    assert load_response(path, cube).matrix[0] @ cube == pytest.approx(600, abs=1)


def test_coverage_is_the_part_of_the_energy() -> None:
    grid = np.arange(300.0, 501.0)
    assert coverage(grid, triangle(grid, 400, 50), np.arange(405.0, 500.0, 10.0)) == pytest.approx(
        0.5, abs=1e-12
    )


def test_csv_round_trip_is_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    cube = np.sort(rng.uniform(400, 2500, 61))
    first = load_response(rng.uniform(size=(4, 61)) ** 9, cube)
    path = tmp_path / "out.csv"
    save_response_csv(first, path)
    again = load_response(path, cube)
    np.testing.assert_array_equal(again.matrix, first.matrix)
    np.testing.assert_array_equal(again.wavelength, cube)  # type: ignore[arg-type]
    assert path.read_text().startswith("wavelength_nm,B1,B2,B3,B4\n")
    # the cube's own order may be any, as where two detectors overlap
    mixed = cube[::-1].copy()
    mixed[[3, 7]] = mixed[[7, 3]]
    save_response_csv(load_response(first.matrix, mixed), path)
    np.testing.assert_array_equal(load_response(path, mixed).matrix, first.matrix)


def test_csv_round_trip_without_wavelengths(tmp_path: Path) -> None:
    first = load_response([[0.1, 0.7, 0.3]], None)
    save_response_csv(first, tmp_path / "r.csv")
    again = load_response(tmp_path / "r.csv", None)
    np.testing.assert_array_equal(again.matrix, first.matrix)
    with pytest.raises(ResponseError, match="expected 2 columns"):
        load_response(tmp_path / "r.csv", [500.0, 600.0])


def test_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    response = load_response([[1.0]], [500.0])
    (tmp_path / "dir").mkdir()
    with pytest.raises(WriteError, match="could not be written"):
        save_response_csv(response, tmp_path / "dir")
    with pytest.raises(WriteError, match="could not be written"):
        save_response_csv(response, tmp_path / "absent" / "r.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["dir"]
    odd = Response(response.matrix, response.wavelength, ("a,b",), "matrix")
    with pytest.raises(ResponseError, match="a,b"):
        save_response_csv(odd, tmp_path / "r.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wl,a\n400,1\n500,1\n", "first column wavelength_nm.*got the columns wl, a"),
        ("wavelength_nm,a\n400,1\n500\n", "line 3: expected 2 columns, got 1"),
        ("wavelength_nm,a\n400,x\n", "line 2: could not convert"),
        ("wavelength_nm,a\n500,1\n400,1\n450,1\n", "strictly increasing"),
        ("wavelength_nm,a\n400,1\n400,1\n", "strictly increasing"),
        ("wavelength_nm,a\n400,1\n700,-1\n", "0 or more, got -1 in a"),
        ("wavelength_nm,a\n400,1\n700,nan\n", "finite"),
        ("wavelength_nm,a,a\n400,1,1\n700,1,1\n", "different band names"),
        ("wavelength_nm,a\n-400,1\n700,1\n", "positive"),
        ("wavelength_nm,a\n", "header line and lines of numbers, got 1"),
        ("", "got 0"),
        ("band,a\n1,1\n3,1\n", "count 1, 2, 3"),
        ("wavelength_nm,a\n900,1\n1100,1\n", r"at least 80% of each band.*a \(\d+%\)"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ResponseError, match=message):
        load_response(path, np.arange(400.0, 700.0, 10.0))


def test_csv_variants(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_bytes(b"\xef\xbb\xbf# made by hand\r\nWavelength_um; g\r\n0.5; 1\r\n0.6; 1\r\n")
    response = load_response(path, [510.0, 550.0, 590.0])
    np.testing.assert_allclose(response.matrix, np.full((1, 3), 1 / 3))
    assert response.names == ("g",)


def test_files_of_arrays(tmp_path: Path, rng: np.random.Generator) -> None:
    matrix = rng.uniform(size=(3, VNIR.size))
    expected = matrix / matrix.sum(axis=1, keepdims=True)
    np.save(tmp_path / "m.npy", matrix)
    np.savez(tmp_path / "m.npz", srf=matrix, wavelengths=VNIR, note=np.array("text"))
    savemat(tmp_path / "m.mat", {"R": matrix, "other": np.ones((4, 4))})
    for name in ("m.npy", "m.npz", "m.mat"):
        got = load_response(tmp_path / name, VNIR).matrix
        np.testing.assert_allclose(got, expected, rtol=1e-14)
    savemat(tmp_path / "pan.mat", {"wl": VNIR, "gain": 2.0, "curve": matrix[:1], "name": "pan"})
    got = load_response(tmp_path / "pan.mat", VNIR).matrix
    np.testing.assert_allclose(got, expected[:1], rtol=1e-12)
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["any"], file["wavelength"], file["ratio"] = matrix.T, VNIR[:, None], [[4.0]]
    got = load_response(tmp_path / "v73.mat", VNIR).matrix
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    savemat(tmp_path / "two.mat", {"a": matrix, "b": matrix})
    with pytest.raises(ResponseError, match=r"expected one 2-D array.*a \(3, 61\), b \(3, 61\)"):
        load_response(tmp_path / "two.mat", VNIR)
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 no more")
    (tmp_path / "cut.mat").write_bytes((tmp_path / "v73.mat").read_bytes()[:900])
    for name in ("broken.mat", "cut.mat"):
        with pytest.raises(ResponseError, match=f"{name}: cannot be read"):
            load_response(tmp_path / name, VNIR)
    with pytest.raises(ResponseError, match="no such response file"):
        load_response(tmp_path / "absent.npz", VNIR)


def test_columns_of_a_file(tmp_path: Path) -> None:
    grid = np.arange(380.0, 1021.0)
    path = write_curves(
        tmp_path / "r.csv", grid, B1=triangle(grid, 480, 40), nir=triangle(grid, 850, 30)
    )
    both = load_response(path, VNIR)
    picked = load_response(f"{path}:nir,b01", VNIR)
    assert picked.names == ("nir", "B1")
    np.testing.assert_array_equal(picked.matrix, both.matrix[::-1])
    with pytest.raises(ResponseError, match="no band 'x': expected one of B1, nir"):
        load_response(f"{path}:x", VNIR)
    with pytest.raises(ResponseError, match="twice"):
        load_response(f"{path}:nir,nir", VNIR)


@pytest.mark.parametrize("name", sensor_names())
def test_every_sensor_loads_over_the_solar_range(name: str) -> None:
    response = load_response(name, FULL, np.full(FULL.size, 10.0))
    assert len(response.names) >= 3
    np.testing.assert_allclose(response.matrix.sum(axis=1), 1, rtol=1e-12)
    assert (response.matrix >= 0).all()
    centres = response.matrix @ FULL
    assert ((centres > 400) & (centres < 2500)).all()
    assert response.source == name


def test_every_sensor_of_the_library_is_offered() -> None:
    import pyrsr

    root = Path(pyrsr.__file__).parent / "data"
    folders = {(p.parent.name, p.name) for p in root.glob("*/*") if p.is_dir()}
    from napari_hsfusion.sensors.catalogue import _SENSORS

    assert {(s.satellite, s.instrument) for s in _SENSORS} == folders


def test_sensor_centres_are_the_published_ones() -> None:
    fine = np.arange(400.0, 2501.0, 1.0)
    s2 = load_response("Sentinel 2A", fine)
    published = {"B2": 492.4, "B3": 559.8, "B4": 664.6, "B8": 832.8, "B8A": 864.7, "B11": 1613.7}
    for name, centre in published.items():
        assert s2.matrix[s2.names.index(name)] @ fine == pytest.approx(centre, abs=1.5)
    # Landsat-8's table is in micrometres
    l8 = load_response("LANDSAT_8", fine)
    assert l8.names == ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9")
    assert l8.dropped == ("B10", "B11")
    assert "does not cover B10, B11" in l8.warnings[0]
    assert l8.matrix[l8.names.index("B4")] @ fine == pytest.approx(654.6, abs=1.5)
    assert l8.record()["dropped"] == ["B10", "B11"]


def test_bands_of_a_sensor() -> None:
    picked = load_response("s2a:B8,B02, b3", VNIR)
    assert picked.names == ("B8", "B2", "B3")
    whole = load_response("sentinel-2a", VNIR)
    np.testing.assert_array_equal(picked.matrix[1], whole.matrix[whole.names.index("B2")])
    assert whole.dropped == ("B10", "B11", "B12")
    assert "B8" not in load_response("landsat-8", FULL).names
    assert load_response("landsat-8:B8", FULL).names == ("B8",)
    assert "B3B" not in load_response("aster", FULL).names
    with pytest.raises(ResponseError, match=r"at least 80%.*B11 \(0%\)"):
        load_response("sentinel-2a:B2,B11", VNIR)
    with pytest.raises(ResponseError, match="no band 'B99': expected one of B1, B2"):
        load_response("sentinel-2a:B99", VNIR)
    with pytest.raises(ResponseError, match="twice"):
        load_response("sentinel-2a:B2,B02", VNIR)
    with pytest.raises(ResponseError, match=r"3000 to 3990 nm.*got B1 \(0%\)"):
        load_response("sentinel-2a", np.arange(3000.0, 4000.0, 10.0))


def test_removed_bands_do_not_cover() -> None:
    kept = FULL[(FULL < 1350) | (FULL > 1420)]
    assert "B10" in load_response("sentinel-2a", FULL).names
    assert "B10" in load_response("sentinel-2a", kept).dropped


@pytest.mark.parametrize(
    ("label", "key"), [("B02", "2"), ("b8a", "8A"), ("10", "10"), ("band_3N", "3N"), ("6L", "6L")]
)
def test_band_labels(label: str, key: str) -> None:
    assert band_key(label) == key


def test_measured_negatives_are_cut() -> None:
    for curve in sensor_curves("spot-1-hrv2"):
        assert curve.response.min() >= 0
        assert (np.diff(curve.wavelength) > 0).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sentinel-3", "close to 'sentinel-3': sentinel-2"),
        ("worldview-2", "expected a matrix.*landsat-8"),
        ("", "unknown response ''"),
        ("gaussian:500", "CENTRE/FWHM"),
        ("gaussian:", "CENTRE/FWHM"),
        ("gaussian:500/0", "above 0"),
        ("gaussian:500/nan", "above 0"),
        ("gaussian:500/20,500/20", "twice"),
        ("gaussian:2200/20", r"2200/20 \(0%\)"),
    ],
)
def test_bad_specifications(spec: str, message: str) -> None:
    with pytest.raises(ResponseError, match=message):
        load_response(spec, VNIR)


def test_gaussian_bands() -> None:
    response = load_response("gaussian:490/60, 850/100", VNIR)
    expected = np.exp(-4 * np.log(2) * ((VNIR - 490) / 60) ** 2)
    np.testing.assert_allclose(response.matrix[0], expected / expected.sum(), atol=1e-15)
    assert response.names == ("490/60", "850/100")
    wider = gaussian_bands([490], [60], VNIR, np.full(VNIR.size, 30.0))
    spread = [np.sqrt(m @ (VNIR - 490) ** 2) for m in (response.matrix[0], wider.matrix[0])]
    assert spread[1] == pytest.approx(np.hypot(60, 30) * SIGMA_OF_FWHM, rel=5e-3)
    assert spread[0] == pytest.approx(60 * SIGMA_OF_FWHM, rel=1e-3)


@pytest.mark.parametrize("spec", ["sentinel-2a", "gaussian:500/30"])
def test_cube_without_wavelengths(spec: str) -> None:
    with pytest.raises(ResponseError, match="needs the cube's wavelengths"):
        load_response(spec, None)


@pytest.mark.parametrize(
    ("wavelength", "fwhm", "message"),
    [
        ([[500.0]], None, "one number a band"),
        ([500.0, np.nan], None, "positive numbers"),
        ([500.0, 600.0], [10.0], "fwhm: expected 2"),
        ([500.0, 600.0], [10.0, 0.0], "fwhm: expected positive"),
    ],
)
def test_bad_bands_of_the_cube(wavelength: object, fwhm: object, message: str) -> None:
    with pytest.raises(ResponseError, match=message):
        load_response("gaussian:550/50", wavelength, fwhm)  # type: ignore[arg-type]


def test_real_tables(shared_data: SharedData) -> None:
    nikon = load_response(shared_data("srf/nikon_d700_3x31.npz"), np.arange(400.0, 701.0, 10.0))
    with np.load(shared_data("srf/nikon_d700_3x31.npz")) as file:
        np.testing.assert_allclose(nikon.matrix, file["srf"], atol=1e-15)
    cube = np.linspace(430.0, 860.0, 102)
    path = shared_data("srf/ikonos_138x6.mat")
    ikonos = load_response(f"{path}:2,3,4,5", cube)
    table = loadmat(path)["spec_resp"]
    for row, column in zip(ikonos.matrix, (2, 3, 4, 5), strict=True):
        expected = np.interp(cube, table[:, 0], table[:, column])
        np.testing.assert_allclose(row, expected / expected.sum(), atol=1e-14)
    given = loadmat(shared_data("srf/argsdiff_pavia_R.mat"))["R"].astype(float)
    pavia = load_response(shared_data("srf/argsdiff_pavia_R.mat"), np.linspace(430, 860, 103))
    np.testing.assert_allclose(pavia.matrix, given, atol=1e-6)
    np.testing.assert_allclose(pavia.matrix.sum(axis=1), 1, atol=1e-15)


def test_two_detectors_out_of_order(shared_data: SharedData) -> None:
    with np.load(shared_data("scenes/enmap_potsdam_64x128x224.npz")) as file:
        wavelength, fwhm = file["wavelengths"], file["fwhm"]
    assert (np.diff(wavelength) < 0).any()
    response = load_response("sentinel-2a", wavelength, fwhm)
    assert len(response.names) == 13
    assert response.matrix[response.names.index("B9")] @ wavelength == pytest.approx(945, abs=3)


def test_importing_is_light() -> None:
    code = (
        "import sys, napari_hsfusion.sensors.srf, napari_hsfusion.sensors.psf;"
        "bad = {'torch', 'pyrsr', 'pandas', 'matplotlib', 'napari', 'xarray'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
