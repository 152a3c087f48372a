"""MATLAB and TIFF files as other programs write them; which file is which."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
import tifffile

from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import FormatError, TruncatedFileError, VariableError
from napari_hsfusion.io import open_cube, save_cube, sniff
from napari_hsfusion.io._gdal import quiet

VALUES = np.arange(5 * 6 * 7).reshape(5, 6, 7)
MATLAB = VALUES.transpose(1, 2, 0)


def write_mat(path: Path, version: str, **variables: Any) -> Path:
    if version != "7.3":
        scipy.io.savemat(path, variables, do_compression=version == "5z")
        return path

    def put(group: h5py.Group, name: str, value: Any) -> None:
        if isinstance(value, dict):
            inside = group.create_group(name)
            inside.attrs["MATLAB_class"] = np.bytes_("struct")
            for key, item in value.items():
                put(inside, key, item)
            return
        text = isinstance(value, str)
        array = np.array([[ord(c) for c in value]], "u2") if text else np.atleast_2d(value)
        kind = {"float64": "double", "float32": "single", "bool": "logical"}.get(
            str(array.dtype), str(array.dtype)
        )
        stored = group.create_dataset(
            name, data=array.T.astype("u1") if kind == "logical" else array.T
        )
        stored.attrs["MATLAB_class"] = np.bytes_("char" if text else kind)

    with h5py.File(path, "w", userblock_size=512) as file:
        for key, item in variables.items():
            put(file, key, item)
    return path


@pytest.mark.parametrize("version", ["5", "5z", "7.3"])
def test_matlab(tmp_path: Path, version: str) -> None:
    path = write_mat(
        tmp_path / "a.mat",
        version,
        img=MATLAB.astype("i2"),
        Wavelengths=np.linspace(0.4, 0.8, 5),
        wavelength_units="um",
        bbl=np.array([1, 1, 0, 1, 1]),
        map=np.ones((6, 7)),
        title="words",
    )
    assert sniff(path) == "mat" or version == "7.3"
    cube = open_cube(path)
    assert cube.dtype == np.int16
    np.testing.assert_array_equal(cube.values, VALUES)
    np.testing.assert_allclose(cube.wavelength, [400, 500, 600, 700, 800], rtol=1e-15)
    assert cube.good_band.values.tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(open_cube(path, "map").values, np.ones((1, 6, 7)))
    with pytest.raises(VariableError, match=r"title .* is no array of real numbers"):
        open_cube(path, "title")


@pytest.mark.parametrize("version", ["5", "5z", "7.3"])
def test_structures(tmp_path: Path, version: str) -> None:
    inside = {
        "cube": MATLAB.astype("f4"),
        "wl": np.arange(5) * 10.0 + 400,
        "n": {"b": MATLAB * 1.0},
    }
    path = write_mat(tmp_path / "a.mat", version, s=inside)
    cube = open_cube(path, "s.cube")
    assert cube.dtype == np.float32
    np.testing.assert_array_equal(cube.values, VALUES)
    assert cube.wavelength.values.tolist() == [400, 410, 420, 430, 440]
    np.testing.assert_array_equal(open_cube(path, "s.n.b").values, VALUES)
    with pytest.raises(VariableError, match=r"s\.cube \(6 x 7 x 5 single\).*s\.n\.b"):
        open_cube(path)
    with pytest.raises(VariableError, match=r"no variable 's\.x'"):
        open_cube(path, "s.x")


@pytest.mark.parametrize("version", ["5", "5z", "7.3"])
def test_nothing_to_open(tmp_path: Path, version: str) -> None:
    path = write_mat(tmp_path / "a.mat", version, t="words", z=np.zeros((3, 4)))
    with pytest.raises(VariableError, match=r"no variable with 3 dimensions.*z \(3 x 4 double\)"):
        open_cube(path)


def test_complex_and_logical(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "a.mat", "5", c=MATLAB * 1j)
    with pytest.raises(VariableError, match=r"c \(6 x 7 x 5 complex double\)"):
        open_cube(path)
    path = write_mat(tmp_path / "b.mat", "5", m=MATLAB > 9)
    cube = open_cube(path)
    assert cube.dtype == bool
    np.testing.assert_array_equal(cube.values, VALUES > 9)


def test_truncated_and_damaged_matlab(tmp_path: Path) -> None:
    for version in ("5", "5z", "7.3"):
        path = write_mat(tmp_path / "a.mat", version, img=MATLAB * 1.5)
        raw = path.read_bytes()
        path.write_bytes(raw[: len(raw) // 2])
        expected = FormatError if version == "7.3" else TruncatedFileError
        with pytest.raises(expected):
            np.asarray(open_cube(path))
    path.write_bytes(raw[:128].ljust(600, b"?"))
    with pytest.raises(FormatError):
        open_cube(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("layout", "byteorder", "bigtiff"),
    [
        *itertools.product(["pages", "planar", "chunky", "ome"], "<>", [False, True]),
        ("imagej", ">", False),  # the one sort there is
    ],
)
def test_tiff(
    tmp_path: Path, bigtiff: bool, byteorder: str, compression: str | None, layout: str
) -> None:
    values = VALUES.astype(np.float32)
    options: dict[str, Any] = {"photometric": "minisblack", "compression": compression}
    if layout == "planar":
        options["planarconfig"] = "separate"
    elif layout == "chunky":
        options["planarconfig"] = "contig"
        values = MATLAB.astype(np.float32)
    else:
        options["metadata"] = {
            "pages": {"wavelength": [400.5, 500, 600, 700, 800]},
            "ome": {
                "axes": "CYX",
                "Channel": {
                    "EmissionWavelength": [400.5, 500.0, 600.0, 700.0, 800.0],
                    "EmissionWavelengthUnit": ["nm"] * 5,
                },
            },
            "imagej": {"axes": "CYX"},
        }[layout]
    with tifffile.TiffWriter(
        tmp_path / "a.tif",
        bigtiff=bigtiff,
        byteorder=byteorder,
        ome=layout == "ome",
        imagej=layout == "imagej",
    ) as writer:
        writer.write(values, **options)
    cube = open_cube(tmp_path / "a.tif")
    assert cube.dtype == np.float32
    np.testing.assert_array_equal(cube.values, VALUES)
    if layout in ("pages", "ome"):
        assert cube.wavelength.values.tolist() == [400.5, 500, 600, 700, 800]


def test_overviews_are_no_bands(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 99, (3, 128, 160)).astype("u2")
    path = save_cube(make_cube(values), tmp_path / "a.tif")
    with quiet(), rasterio.open(path, "r+") as source:
        source.build_overviews([2, 4])
    np.testing.assert_array_equal(open_cube(path).values, values)


def test_scales_of_each_band(tmp_path: Path) -> None:
    path = save_cube(make_cube(VALUES.astype("i2"), nodata=3), tmp_path / "a.tif")
    with quiet(), rasterio.open(path, "r+") as source:
        source.scales = (1.0, 2.0, 3.0, 4.0, 5.0)
    expected = VALUES * np.arange(1.0, 6)[:, None, None]
    expected[VALUES == 3] = np.nan
    np.testing.assert_array_equal(open_cube(path).values, expected)


def test_wavelengths_in_other_places(tmp_path: Path) -> None:
    def made(name: str, **change: Any) -> Path:
        path = tmp_path / name
        with (
            quiet(),
            rasterio.open(
                path, "w", driver="GTiff", width=4, height=3, count=2, dtype="uint8"
            ) as out,
        ):
            for key, value in change.items():
                if key == "names":
                    out.descriptions = value
                elif key == "whole":
                    out.update_tags(**value)
                else:
                    for band, tags in enumerate(value, 1):
                        out.update_tags(band, ns=None if key == "own" else key, **tags)
        return path

    def centres(path: Path) -> list[float]:
        return list(open_cube(path).wavelength.values)

    imagery = [{"CENTRAL_WAVELENGTH_UM": "0.45", "FWHM_UM": "0.01"}] * 2
    cube = open_cube(made("a.tif", IMAGERY=imagery))
    assert cube.wavelength.values.tolist() == [450.0, 450.0]
    assert cube.fwhm.values.tolist() == [10.0, 10.0]
    assert centres(made("b.tif", names=("b1 (450.5 Nanometers)", "560 nm"))) == [450.5, 560]
    assert centres(made("c.tif", names=("0.45 um", "0.56 um"))) == [450.0, 560.0]
    assert centres(made("d.tif", own=[{"WAVELENGTH": "0.45"}, {"WAVELENGTH": "0.56"}])) == [
        450,
        560,
    ]
    assert centres(made("e.tif", whole={"wavelength": "{450, 560}"})) == [450, 560]
    assert "wavelength" not in open_cube(made("f.tif", names=("red", "B8"))).coords
    mixed = [{"wavelength": "450", "wavelength_units": "nm"}, {"wavelength": "560"}]
    mixed = [{**tags, "fwhm": "9"} for tags in mixed]
    assert open_cube(made("g.tif", own=mixed)).fwhm.values.tolist() == [9, 9]


def test_tiffs_that_are_declined(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((2, 3, 6, 7), "u2"), ome=True, metadata={"axes": "TCYX"})
    with pytest.raises(FormatError, match="axes TCYX of shape"):
        open_cube(path)
    tifffile.imwrite(path, np.ones((6, 7), np.complex64))
    with pytest.raises(FormatError, match="complex64; a cube holds real numbers"):
        open_cube(path)
    save_cube(make_cube(np.random.default_rng(0).random((4, 50, 60))), path)
    raw = path.read_bytes()
    path.write_bytes(raw[:-3000])
    with pytest.raises(TruncatedFileError) as caught:
        open_cube(path)
    assert caught.value.found == len(raw) - 3000
    path.write_bytes(raw[:4])
    with pytest.raises(FormatError, match="TIFF"):
        open_cube(path)


def test_what_is_no_cube(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        open_cube(tmp_path / "absent.tif")
    with pytest.raises(FormatError, match="found a directory"):
        open_cube(tmp_path)
    pictures = {
        "a.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8) + b"\x08\x02", "8-bit RGB with 3"),
        "b.tif": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8) + b"\x10\x00", "16-bit grey with 1"),
        "c.jpg": (
            b"\xff\xd8\xff\xe0\0\x04ab\xff\xc0\0\x11\x08\0\1\0\1\3" + bytes(9),
            "8-bit with 3",
        ),
    }
    for name, (start, words) in pictures.items():
        (tmp_path / name).write_bytes(start)
        assert sniff(tmp_path / name) is None
        with pytest.raises(FormatError, match=f"picture, {words} channel.*made for display"):
            open_cube(tmp_path / name)
    (tmp_path / "d.xyz").write_bytes(b"hello")
    with pytest.raises(FormatError, match=r"unknown format.*\.hdr.*\.mat.*\.tif"):
        open_cube(tmp_path / "d.xyz")
    (tmp_path / "e.tif").write_bytes(b"")
    with pytest.raises(FormatError, match="the file is empty"):
        open_cube(tmp_path / "e.tif")
    with pytest.raises(FormatError, match="unknown extension"):
        save_cube(make_cube(np.ones((1, 2, 3))), tmp_path / "f.png")
    assert sniff(tmp_path / "absent") is None


def test_content_counts_not_the_extension(tmp_path: Path) -> None:
    path = save_cube(make_cube(VALUES.astype("u2")), tmp_path / "a.tif")
    other = path.rename(tmp_path / "a.mat")
    assert sniff(other) == "tiff"
    np.testing.assert_array_equal(open_cube(other).values, VALUES)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.tif", {"interleave": "bil"}, "GeoTIFF knows bsq and bip"),
        ("a.hdr", {"interleave": "tile"}, "expected bsq, bil or bip"),
        ("a.bip", {"interleave": "bsq"}, "contradict"),
        ("a.hdr", {"byte_order": "middle"}, "expected little or big"),
        ("a.mat", {"interleave": "bsq"}, "no choice of interleave"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, name: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        save_cube(make_cube(np.ones((1, 2, 3))), tmp_path / name, **options)


def test_imports_are_light() -> None:
    code = (
        "import sys, napari_hsfusion.io\n"
        "heavy = {'torch', 'rasterio', 'h5py', 'scipy', 'tifffile', 'xarray', 'napari', 'qtpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from napari_hsfusion.io import envi_write, mat5, mat73, mat_write\n"
        "from napari_hsfusion.io import tiff_pages, tiff_write\n"
        "assert not {'torch', 'napari', 'qtpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
