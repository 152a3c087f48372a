"""ENVI as other programs write it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from napari_hsfusion.errors import FormatError, TruncatedFileError, VariableError
from napari_hsfusion.io import open_cube, sniff

VALUES = np.arange(24).reshape(2, 3, 4)
NUMBERS = {"samples": 4, "lines": 3, "bands": 2, "data type": 12, "interleave": "bsq"}


def write(
    folder: Path,
    header: str = "s.hdr",
    data: str | None = "s.img",
    *,
    values: np.ndarray = VALUES,
    dtype: str = "<u2",
    head: bytes = b"",
    first: str = "ENVI",
    encoding: str = "utf-8",
    **fields: object,
) -> Path:
    """Header with these fields (underscores for spaces; None leaves one out), and data."""
    stated = {**NUMBERS, **{k.replace("_", " "): v for k, v in fields.items()}}
    order = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}
    lines = [first, *(f"{k} = {v}" for k, v in stated.items() if v is not None)]
    (folder / header).write_bytes("\n".join(lines).encode(encoding))
    if data is not None:
        axes = order.get(str(stated["interleave"]).lower(), (0, 1, 2))
        raw = head + np.ascontiguousarray(values.transpose(axes).astype(dtype)).tobytes()
        (folder / data).write_bytes(gzip.compress(raw) if data.lower().endswith("gz") else raw)
    return folder / header


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip", "BSQ", "Bil", "BIP"])
@pytest.mark.parametrize(("order", "prefix"), [(0, "<"), (1, ">"), (None, "<")])
@pytest.mark.parametrize(
    ("code", "dtype"),
    [(1, "u1"), (2, "i2"), (3, "i4"), (4, "f4"), (5, "f8"), (12, "u2"), (13, "u4"), (14, "i8"),
     (15, "u8")],
)  # fmt: skip
def test_layouts(
    tmp_path: Path, interleave: str, order: int | None, prefix: str, code: int, dtype: str
) -> None:
    fields = {"interleave": interleave, "byte_order": order, "data_type": code}
    path = write(tmp_path, dtype=prefix + dtype, head=b"12345", header_offset=5, **fields)
    cube = open_cube(path)
    assert cube.dtype == np.dtype(dtype)
    assert cube.dtype.isnative
    np.testing.assert_array_equal(cube.values, VALUES)
    np.testing.assert_array_equal(cube[1, 1:, ::2].values, VALUES[1, 1:, ::2])


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ("s.hdr", "s"), ("s.hdr", "s.img"), ("s.hdr", "s.dat"), ("S.HDR", "S.DAT"),
        ("s.hdr", "S.IMG"), ("S.HDR", "s.bsq"), ("s.img.hdr", "s.img"), ("s.hdr", "s.rfl7"),
        ("s.hdr", "s.img.gz"), ("s.hdr", "s.gz"), ("s.img.hdr", "s.img.gz"), ("s.hdr", "s.raw.GZ"),
        ("s_v1.2.hdr", "s_v1.2"), ("s_v1.2.hdr", "s_v1.2.bin"), ("s.xyz.hdr", "s.xyz"),
    ],
)  # fmt: skip
def test_names(tmp_path: Path, header: str, data: str) -> None:
    write(tmp_path, header, data)
    (tmp_path / "s.png").write_bytes(b"not this")
    (tmp_path / "s.img.aux.xml").write_bytes(b"nor this")
    for name in (header, data):
        assert sniff(tmp_path / name) == "envi"
        np.testing.assert_array_equal(open_cube(tmp_path / name).values, VALUES)


def test_missing_data_file(tmp_path: Path) -> None:
    path = write(tmp_path, data=None)
    with pytest.raises(FormatError, match=r"no data file beside.*s, s\.img, s\.dat.*s\.img\.gz"):
        open_cube(path)
    for name in ("s.one", "s.two"):
        (tmp_path / name).write_bytes(bytes(48))
    with pytest.raises(FormatError, match=r"several files might be it: s\.one, s\.two"):
        open_cube(path)


def test_truncated(tmp_path: Path) -> None:
    path = write(tmp_path, head=b"123", header_offset=3)
    (tmp_path / "s.img").write_bytes(bytes(50))
    with pytest.raises(TruncatedFileError, match="at least 51 bytes, found 50 bytes") as caught:
        open_cube(path)
    assert (caught.value.expected, caught.value.found) == (51, 50)


def test_truncated_and_damaged_gzip(tmp_path: Path) -> None:
    write(tmp_path, data="s.img.gz")
    data = tmp_path / "s.img.gz"
    whole = data.read_bytes()
    data.write_bytes(gzip.compress(bytes(40)))
    with pytest.raises(TruncatedFileError, match="48 bytes, found 40 bytes"):
        np.asarray(open_cube(data))
    data.write_bytes(whole[:-12])
    with pytest.raises(TruncatedFileError):
        np.asarray(open_cube(data))
    data.write_bytes(whole[:20] + b"\xff\xff\xff" + whole[23:])
    with pytest.raises(FormatError):
        np.asarray(open_cube(data))
    data.write_bytes(bytes(48))
    with pytest.raises(FormatError, match="not compressed with gzip"):
        open_cube(data)


def test_compression_that_only_the_header_tells(tmp_path: Path) -> None:
    path = write(tmp_path, file_compression=1)
    data = tmp_path / "s.img"
    data.write_bytes(gzip.compress(data.read_bytes()))
    np.testing.assert_array_equal(open_cube(path).values, VALUES)


def test_keys_in_any_case_comments_and_long_lists(tmp_path: Path) -> None:
    write(tmp_path)
    text = """ENVI
; a comment = 5
Samples=4
LINES =3
Bands   = 2
Data Type = 12
INTERLEAVE = bsq
Byte  Order = 0
Wavelength Units = Nanometers
Wavelength = {
; bands = 7
 400.5,
 500.25 }  trailing words
FWHM = { 10 , 12.5, }
BBL = {1,0}
Band Names = {red,
 near  infrared}
Data Ignore Value = -1e0
DESCRIPTION = {
 two
 lines}
free words without a value
Empty =
Zip = 007
"""
    (tmp_path / "s.hdr").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    cube = open_cube(tmp_path / "s.hdr")
    assert cube.wavelength.values.tolist() == [400.5, 500.25]
    assert cube.fwhm.values.tolist() == [10, 12.5]
    assert cube.good_band.values.tolist() == [True, False]
    assert cube.band_name.values.tolist() == ["red", "near infrared"]
    assert repr(cube.attrs["nodata"]) == "-1"
    metadata = {"description": "two\nlines", "empty": "", "zip": "007"}
    assert cube.attrs["metadata"] == metadata
    np.testing.assert_array_equal(cube.values, VALUES)


@pytest.mark.parametrize(
    ("unit", "centres", "widths", "wavelength", "fwhm"),
    [
        ("Nanometers", "400,500", "10,20", [400, 500], [10, 20]),
        ("Micrometers", "0.42,2.3", "0.01,0.02", [420.0, 2300.0], [10.0, 20.0]),
        ("\u00b5m", "0.42,2.3", None, [420.0, 2300.0], None),
        ("Unknown", "0.42,2.3", "0.01,0.02", [420.0, 2300.0], [10.0, 20.0]),
        (None, "0.42,99", None, [420.0, 99000.0], None),
        (None, "42,400", None, [42, 400], None),
        ("Wavenumber", "10000,5000", "100,50", [1000, 2000], [10, 20]),
        ("cm-1", "10000,5000", None, [1000, 2000], None),
        ("Angstroms", "4000,5000", None, [400.0, 500.0], None),
        ("GHz", "299792458,149896229", None, [1, 2], None),
        ("Index", "1,2", None, None, None),
        ("nm", "400,500,600", "1,2", None, [1, 2]),
        ("nm", "400,0", None, None, None),
        ("nm", "400,nan", "1,2", None, [1, 2]),
        ("nm", "400,red", None, None, None),
    ],
)
def test_wavelength_units(
    tmp_path: Path,
    unit: str | None,
    centres: str,
    widths: str | None,
    wavelength: list[float] | None,
    fwhm: list[float] | None,
) -> None:
    fields = {"wavelength": f"{{{centres}}}", "wavelength_units": unit}
    fields["fwhm"] = None if widths is None else f"{{{widths}}}"
    cube = open_cube(write(tmp_path, **fields))
    for key, expected in (("wavelength", wavelength), ("fwhm", fwhm)):
        found = cube.coords[key].values.tolist() if key in cube.coords else None
        assert found == (expected if expected is None else pytest.approx(expected, rel=1e-15))
    if wavelength is None:  # nothing is lost that could not be used
        assert "wavelength" in cube.attrs["metadata"]


def test_map_info(tmp_path: Path) -> None:
    info = "{UTM, 1.5, 1.5, 500015.25, 3999985.0, 30, 20, 33, South, WGS-84, units=Meters}"
    cube = open_cube(write(tmp_path, map_info=info))
    assert cube.attrs["transform"] == (30.0, 0.0, 500000.25, 0.0, -20.0, 3999995.0)
    assert 'PARAMETER["central_meridian",15]' in cube.attrs["crs"]
    assert 'PARAMETER["false_northing",10000000]' in cube.attrs["crs"]
    cube = open_cube(write(tmp_path, map_info="{Arbitrary, 1, 1, 5, 6, 1, 1, 0, North}"))
    assert cube.attrs["transform"] == (1.0, 0.0, 5.0, 0.0, -1.0, 6.0)
    assert "crs" not in cube.attrs


def test_scales(tmp_path: Path) -> None:
    cube = open_cube(write(tmp_path, reflectance_scale_factor="10000.0"))
    assert cube.attrs["scale_factor"] == 1e-4
    same = open_cube(write(tmp_path, data_gain_values="{2,2}", data_offset_values="{1,1}"))
    assert (same.attrs["scale_factor"], same.attrs["add_offset"]) == (2.0, 1.0)
    assert same.dtype == np.uint16
    fields = {"data_gain_values": "{2,4}", "data_offset_values": "{1,0}", "data_ignore_value": 5}
    each = open_cube(write(tmp_path, **fields))
    expected = VALUES * np.array([2.0, 4.0])[:, None, None] + np.array([1.0, 0])[:, None, None]
    expected[VALUES == 5] = np.nan
    np.testing.assert_array_equal(each.values, expected)
    assert each.attrs["scale_factor"] == 1.0
    assert "nodata" not in each.attrs


def test_encodings(tmp_path: Path) -> None:
    path = write(tmp_path, encoding="latin-1", sensor_type="\u00c9tude 20\u00b0")
    assert open_cube(path).attrs["metadata"]["sensor type"] == "\u00c9tude 20\u00b0"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data_type": 6}, "data type 6 is complex64"),
        ({"data_type": 9}, "data type 9 is complex128"),
        ({"data_type": 7}, "unknown data type 7"),
        ({"data_type": None}, "lacks 'data type'"),
        ({"samples": None}, "lacks 'samples'"),
        ({"lines": "three"}, "'lines': expected a whole number, got 'three'"),
        ({"bands": -2}, "'bands': expected a whole number"),
        ({"bands": 0}, "an empty image"),
        ({"interleave": "tile"}, "expected bsq, bil or bip, got 'tile'"),
        ({"byte_order": 2}, "byte order: expected 0 or 1, got 2"),
        ({"file_type": "ENVI Spectral Library"}, "of type 'envi spectral library'"),
        ({"file_type": "TIFF"}, "of type 'tiff'"),
        ({"major_frame_offsets": "{4, 4}"}, "'major frame offsets' other than 0"),
        ({"wavelength": "{1, 2"}, "the brace after 'wavelength =' is not closed"),
    ],
)
def test_headers_that_are_declined(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    path = write(tmp_path, **fields)
    with pytest.raises(FormatError, match=message):
        open_cube(path)


def test_other_kinds_of_hdr(tmp_path: Path) -> None:
    path = tmp_path / "s.hdr"
    path.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 3 +X 4\n" + bytes(200))
    assert sniff(path) is None
    with pytest.raises(FormatError, match="expected the word ENVI in its first line"):
        open_cube(path)
    write(tmp_path, first="ENVISAT")
    with pytest.raises(FormatError, match="expected the word ENVI"):
        open_cube(path)
    with pytest.raises(FormatError, match="no ENVI header beside it"):
        open_cube(tmp_path / "s.img")


def test_variable_has_no_meaning(tmp_path: Path) -> None:
    with pytest.raises(VariableError, match="only MATLAB files have variables"):
        open_cube(write(tmp_path), "x")
