"""What is saved comes back as it was, to the last bit, in every format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spectral.io import envi as spy

from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import CubeError, FormatError
from napari_hsfusion.io import open_cube, save_cube

INTEGERS = ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
TYPES = [*INTEGERS, "float32", "float64"]
ENVI = [("c.hdr", i, o) for i in ("bsq", "bil", "bip") for o in ("little", "big")]
TIFF = [("c.tif", i, o) for i in ("bsq", "bip") for o in ("little", "big")]
KINDS = [*ENVI, *TIFF, ("c.mat", None, None)]


def random_bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Every bit pattern of a type, NaN payloads, infinities and denormals included."""
    size = np.dtype(dtype).itemsize
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, size), dtype=np.uint8)
    values = raw.view(dtype)[..., 0]
    if values.dtype.kind == "f":
        unsigned = values.view(f"u{size}")
        quiet = {4: 0x7FC0_1234, 8: 0x7FF8_0000_DEAD_BEEF}[size]
        unsigned[0, 0, 0] = quiet
        unsigned[-1, -1, -1] = quiet | 1 << (8 * size - 1)
        values[0, 0, 1], values[0, 1, 0], values[-1, 0, 0] = np.inf, -np.inf, -0.0
    return values


def rich_cube(data: np.ndarray, nodata: float | int | None = None) -> xr.DataArray:
    """A cube with everything a cube may have, numbers that decimal text would round."""
    bands = data.shape[0]
    wavelength = 400.0 + np.pi * np.arange(bands)
    cube = make_cube(
        data,
        wavelength=wavelength,
        fwhm=np.nextafter(10 / 3 + np.arange(bands), 99),
        good_band=[b % 3 != 1 for b in range(bands)],
        band_name=[f"b{b}, {{n}} = {w:.2f} nm; \u00fc" for b, w in enumerate(wavelength)],
        crs=rasterio.CRS.from_epsg(32633).to_wkt(),
        transform=(30.1, 0.0, 366015.0 + 1 / 3, 0.0, -29.9, 5809965.0 + 1e-9),
        nodata=nodata,
        scale_factor=1 / 3,
        add_offset=-0.1,
        history=[{"step": "x", "seed": 7, "list": [1, 2.5, None, "}{,=\n%\u20ac"]}],
        observation={"srf": [[0.1, 0.2]], "psf": "gaussian:2"},
        metadata={
            "sensor type": "Fenix",
            "default bands": [3, 2, 1],
            "x start": 5,
            "gain": 1.5,
            "odd = key": "a {b, c} d\ne",
            "Upper": "kept",
            "nested": {"a": [1, {"b": None}]},
            "description": "A scene, with commas",
        },
        name="scene \u00e9",
    )
    cube.attrs["note"] = {"free": True}
    return cube


def assert_same(back: xr.DataArray, cube: xr.DataArray) -> None:
    assert back.dtype == cube.dtype.newbyteorder("=")
    assert back.shape == cube.shape
    want = np.ascontiguousarray(cube.values.astype(back.dtype, copy=False))
    assert np.ascontiguousarray(back.values).tobytes() == want.tobytes()
    assert set(back.coords) == set(cube.coords)
    for key in cube.coords:
        np.testing.assert_array_equal(back.coords[key].values, cube.coords[key].values, key)
    left, right = dict(back.attrs), dict(cube.attrs)
    assert json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert back.name == cube.name


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("name", "interleave", "order"), KINDS)
def test_every_type_format_interleave_and_byte_order(
    tmp_path: Path, name: str, interleave: str | None, order: str | None, dtype: str
) -> None:
    cube = rich_cube(random_bits(dtype, (5, 7, 6)))
    options = {} if interleave is None else {"interleave": interleave, "byte_order": order}
    path = save_cube(cube, tmp_path / name, record={"method": "x", "v": [1e-300, 1]}, **options)
    back = open_cube(path)
    cube.attrs["record"] = {"method": "x", "v": [1e-300, 1]}
    assert_same(back, cube)
    # a second trip keeps everything too, the record included
    again = save_cube(back, tmp_path / f"again{Path(name).suffix}", **options)
    assert_same(open_cube(again), cube)


@pytest.mark.parametrize("name", ["c.mat", "c.tif"])
def test_signed_bytes(tmp_path: Path, name: str) -> None:
    cube = rich_cube(random_bits("int8", (3, 4, 5)), nodata=-128)
    assert_same(open_cube(save_cube(cube, tmp_path / name)), cube)


def test_booleans_in_matlab(tmp_path: Path) -> None:
    cube = rich_cube(np.random.default_rng(0).random((3, 4, 5)) > 0.5)
    assert_same(open_cube(save_cube(cube, tmp_path / "c.mat")), cube)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("c.hdr", "int8"), ("c.hdr", "bool"), ("c.tif", "bool"), ("c.hdr", "float16"),
     ("c.tif", "float16"), ("c.mat", "float16")],
)  # fmt: skip
def test_types_a_format_lacks_are_declined(tmp_path: Path, name: str, dtype: str) -> None:
    cube = make_cube(np.ones((2, 3, 4), dtype))
    with pytest.raises(FormatError, match=f"type {dtype}; expected one of"):
        save_cube(cube, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat"])
@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 255),
        ("int16", -9999),
        ("uint16", 65535),
        ("int32", -(2**31)),
        ("int64", -(2**63)),
        ("int64", 2**53 + 1),
        ("uint64", 2**64 - 1),
        ("float32", -9999.0),
        ("float32", float("nan")),
        ("float32", -3.4028234663852886e38),
        ("float64", 0.1),
        ("float64", float("inf")),
        ("uint8", -9999),
        ("float32", -9999),
    ],
)
def test_nodata(tmp_path: Path, name: str, dtype: str, nodata: float) -> None:
    cube = make_cube(np.ones((2, 3, 4), dtype), nodata=nodata, name="c")
    back = open_cube(save_cube(cube, tmp_path / name))
    assert repr(back.attrs["nodata"]) == repr(nodata)


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat"])
@pytest.mark.parametrize(
    "transform",
    [
        (30.0, 0.0, 5.0, 0.0, -30.0, 7.0),
        (30.0, 0.0, 5.0, 0.0, 30.0, 7.0),
        (2.8, 0.7, 5.0, 1.0, -1.9, 6.0),
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        None,
    ],
)
@pytest.mark.parametrize("crs", [None, "EPSG:3035", "EPSG:4326"])
def test_georeference(
    tmp_path: Path, name: str, transform: tuple[float, ...] | None, crs: str | None
) -> None:
    cube = make_cube(np.ones((2, 3, 4), "u1"), transform=transform, crs=crs, name="c")
    assert_same(open_cube(save_cube(cube, tmp_path / name)), cube)


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat"])
def test_bare_cube_gains_nothing(tmp_path: Path, name: str) -> None:
    cube = make_cube(np.arange(24, dtype="f4").reshape(2, 3, 4), name="c")
    assert_same(open_cube(save_cube(cube, tmp_path / name)), cube)


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1), (3, 1, 1), (4, 1, 7), (1, 3, 4)])
def test_small_shapes(tmp_path: Path, name: str, shape: tuple[int, int, int]) -> None:
    cube = rich_cube(random_bits("uint16", shape))
    assert_same(open_cube(save_cube(cube, tmp_path / name)), cube)


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat"])
def test_a_subset_keeps_its_band_numbers(tmp_path: Path, name: str) -> None:
    cube = rich_cube(random_bits("uint16", (6, 3, 4)))[[4, 1]]
    assert_same(open_cube(save_cube(cube, tmp_path / name)), cube)


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat"])
@pytest.mark.parametrize("dtype", [">u2", ">f4", ">f8"])
def test_foreign_byte_order_in_memory(tmp_path: Path, name: str, dtype: str) -> None:
    cube = rich_cube(np.arange(60).reshape(3, 4, 5).astype(dtype))
    assert_same(open_cube(save_cube(cube, tmp_path / name)), cube)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["c.hdr", "c.tif", "c.mat"]),
    wavelength=st.lists(st.floats(1e-3, 1e6, exclude_min=True), min_size=1, max_size=5),
    scale=st.floats(1e-12, 1e12),
    text=st.text(max_size=40),
)
def test_any_number_and_any_text(
    tmp_path: Path, name: str, wavelength: list[float], scale: float, text: str
) -> None:
    text = text.encode("utf-8", "replace").decode()
    cube = make_cube(
        np.ones((len(wavelength), 2, 3), "u1"),
        wavelength=wavelength,
        band_name=[text.strip() for _ in wavelength],
        scale_factor=scale,
        metadata={"k": text, text: 1},
        history=[{"t": text}],
        name="c",
    )
    assert_same(
        open_cube(save_cube(cube, tmp_path / name, record={"t": text})),
        cube.assign_attrs(record={"t": text}),
    )


def test_others_read_our_envi(tmp_path: Path) -> None:
    cube = rich_cube(random_bits("uint16", (5, 7, 6)), nodata=3)
    for interleave in ("bsq", "bil", "bip"):
        path = save_cube(cube, tmp_path / f"{interleave}.hdr", interleave=interleave)
        with rasterio.open(path.with_suffix(".img")) as source:
            np.testing.assert_array_equal(source.read(), cube.values)
            assert [v + 0.0 for v in tuple(source.transform)[:6]] == list(cube.attrs["transform"])
            assert source.crs == rasterio.CRS.from_wkt(cube.attrs["crs"])
            assert source.nodata == 3
            assert source.scales == (1 / 3,) * 5
            assert source.offsets == (-0.1,) * 5
            assert float(source.tags(2)["wavelength"]) == pytest.approx(
                float(cube.wavelength[1]), abs=1e-5
            )
        image = spy.open(path, path.with_suffix(".img"))
        np.testing.assert_array_equal(image.load(dtype="u2").transpose(2, 0, 1), cube.values)
        assert image.bands.centers == cube.wavelength.values.tolist()
        assert image.bands.bandwidths == cube.fwhm.values.tolist()
        assert [float(v) == 1 for v in image.metadata["bbl"]] == cube.good_band.values.tolist()


def test_others_read_our_geotiff(tmp_path: Path) -> None:
    cube = rich_cube(random_bits("float32", (5, 7, 6)), nodata=-9.5)
    with rasterio.open(save_cube(cube, tmp_path / "c.tif")) as source:
        assert source.read().tobytes() == cube.values.tobytes()
        assert tuple(source.transform)[:6] == cube.attrs["transform"]
        assert source.crs == rasterio.CRS.from_wkt(cube.attrs["crs"])
        assert source.nodata == -9.5
        assert source.profile["interleave"] == "band"
        assert source.profile["compress"] == "deflate"
        assert source.tags(3)["wavelength"] == repr(float(cube.wavelength[2]))
        micrometres = float(source.tags(3, ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"])
        assert micrometres == pytest.approx(float(cube.wavelength[2]) / 1000, rel=1e-15)
        assert "FWHM_UM" in source.tags(1, ns="IMAGERY")
        assert source.tags(2)["bbl"] == "0"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.tif"]


def test_an_edited_header_is_heard(tmp_path: Path) -> None:
    cube = rich_cube(random_bits("uint16", (2, 3, 4)))
    cube.attrs |= {"add_offset": 0.0, "scale_factor": 0.3}
    path = save_cube(cube, tmp_path / "c.hdr")
    lines = path.read_text(encoding="utf-8").splitlines()
    edited = ["reflectance scale factor = 4" if "scale factor" in line else line for line in lines]
    assert edited != lines
    path.write_text("\n".join(edited), encoding="utf-8")
    back = open_cube(path)
    assert back.attrs["scale_factor"] == 0.25
    assert back.attrs["history"] == cube.attrs["history"]


def test_damaged_extras_cost_only_the_extras(tmp_path: Path) -> None:
    cube = rich_cube(random_bits("uint16", (2, 3, 4)))
    path = save_cube(cube, tmp_path / "c.hdr")
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index("hsfusion = {") + 40] + "}", encoding="utf-8")
    back = open_cube(path)
    np.testing.assert_array_equal(back.values, cube.values)
    np.testing.assert_array_equal(back.wavelength, cube.wavelength)
    assert back.attrs["history"] == []


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat"])
def test_a_record_that_is_no_json(tmp_path: Path, name: str) -> None:
    with pytest.raises(CubeError, match="record: expected JSON-able values"):
        save_cube(make_cube(np.ones((2, 3, 4))), tmp_path / name, record={"a": object()})
    assert not list(tmp_path.iterdir())


def test_numpy_values_in_the_record(tmp_path: Path) -> None:
    record = {"psnr": np.float32(1.5), "n": np.int64(3), "list": np.arange(3), "p": Path("a")}
    back = open_cube(save_cube(make_cube(np.ones((2, 3, 4))), tmp_path / "c.hdr", record=record))
    assert back.attrs["record"] == {"psnr": 1.5, "n": 3, "list": [0, 1, 2], "p": "a"}


@pytest.mark.parametrize("name", ["c.hdr", "c.tif", "c.mat"])
def test_a_crs_that_is_none(tmp_path: Path, name: str) -> None:
    cube = make_cube(np.ones((2, 3, 4), "u1"), crs="nowhere")
    if name.endswith("mat"):
        assert open_cube(save_cube(cube, tmp_path / name)).attrs["crs"] == "nowhere"
        return
    with pytest.raises(CubeError, match="crs: expected WKT"):
        save_cube(cube, tmp_path / name)


def test_large_matlab_file_is_version_73(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_hsfusion.io.mat_write.MAT5_LIMIT", 10)
    for dtype in [*TYPES, "int8"]:
        cube = rich_cube(random_bits(dtype, (3, 4, 5)))
        path = save_cube(cube, tmp_path / "c.mat", record={"a": 1})
        start = path.read_bytes()[:520]
        assert start.startswith(b"MATLAB 7.3 MAT-file")
        assert start[124:128] == b"\x00\x02IM"
        assert_same(open_cube(path), cube.assign_attrs(record={"a": 1}))
    cube = rich_cube(np.random.default_rng(0).random((3, 4, 5)) > 0.5)
    assert_same(open_cube(save_cube(cube, tmp_path / "c.mat")), cube)
