"""Reading and writing layers without a window."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.io
import tifffile
import xarray as xr

from napari_hsfusion import _reader, _sample_data, _writer, api, io
from napari_hsfusion._layers import band_layer, composite_layer, cube_layers, cube_of
from napari_hsfusion.cli import _demo
from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import (
    CubeError,
    FormatError,
    HSFusionError,
    TruncatedFileError,
    VariableError,
    WriteError,
)
from napari_hsfusion.scene import demo_scene

NAMES = ["a.hdr", "a.img", "a.bil", "a.tif", "a.mat"]


@pytest.fixture
def cube(tiny_scene: xr.DataArray) -> xr.DataArray:
    """Twenty bands with everything that a cube may say."""
    values = np.concatenate([tiny_scene.values] * 2)[:20].astype(np.float32)
    made = make_cube(
        values,
        wavelength=np.linspace(410.5, 990.25, 20),
        fwhm=np.full(20, 9.75),
        good_band=np.arange(20) != 7,
        crs=tiny_scene.attrs["crs"],
        transform=tiny_scene.attrs["transform"],
        nodata=-1.0,
        history=[{"step": "made", "seed": 4}],
        metadata={"sensor type": "X"},
        name="scene",
    )
    made.attrs["record"] = {"method": "args-diff", "seed": 3}
    return made


def tuples(shown: xr.DataArray) -> list[Any]:
    return cube_layers(shown)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


@pytest.mark.parametrize("name", NAMES)
def test_a_cube_goes_round(tmp_path: Path, cube: xr.DataArray, name: str) -> None:
    data, words, _ = band_layer(cube)
    written = _writer.write_image(str(tmp_path / name), data, words)
    assert sorted(written) == sorted(str(p) for p in tmp_path.iterdir())
    reader = _reader.get_reader(str(tmp_path / name))
    assert reader is not None
    below, above = reader(str(tmp_path / name))
    again = cube_of(*above[:2])
    assert above[0].dtype == np.float32
    assert isinstance(above[0], da.Array)
    xr.testing.assert_identical(again.compute(), cube)
    assert again.attrs["record"] == {"method": "args-diff", "seed": 3}
    assert below[1]["rgb"]


@pytest.mark.parametrize("name", ["a.hdr", "a.tif", "a.mat"])
def test_a_composite_saves_its_cube(tmp_path: Path, cube: xr.DataArray, name: str) -> None:
    data, words, _ = composite_layer(cube)
    _writer.write_image(str(tmp_path / name), data, words)
    xr.testing.assert_identical(io.open_cube(tmp_path / name).compute(), cube)


def test_plain_layers_are_saved_as_cubes(tmp_path: Path, rng: np.random.Generator) -> None:
    flat = rng.random((6, 8))
    _writer.write_image(str(tmp_path / "flat.mat"), flat, {"name": "flat"})
    np.testing.assert_array_equal(io.open_cube(tmp_path / "flat.mat", "cube")[0], flat)
    colours = rng.integers(0, 255, (6, 8, 4), dtype=np.uint8)
    _writer.write_image(str(tmp_path / "rgb.tif"), colours, {"name": "rgb", "rgb": True})
    found = io.open_cube(tmp_path / "rgb.tif")
    np.testing.assert_array_equal(found, colours[..., :3].transpose(2, 0, 1))
    assert found.band_name.values.tolist() == ["red", "green", "blue"]
    before = files(tmp_path)
    with pytest.raises(CubeError, match=r"'many'.*\(2, 3, 4, 5\)"):
        _writer.write_image(str(tmp_path / "flat.mat"), np.zeros((2, 3, 4, 5)), {"name": "many"})
    with pytest.raises(FormatError, match=r"unknown extension; supported are envi"):
        _writer.write_image(str(tmp_path / "flat.xyz"), flat, {"name": "flat"})
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("one", "each", "suffix"),
    [
        (_writer.write_envi, _writer.write_envi_each, ".hdr"),
        (_writer.write_geotiff, _writer.write_geotiff_each, ".tif"),
        (_writer.write_matlab, _writer.write_matlab_each, ".mat"),
    ],
)
def test_a_name_without_extension_gets_one(
    tmp_path: Path, cube: xr.DataArray, one: Any, each: Any, suffix: str
) -> None:
    layer = band_layer(cube)
    assert str(tmp_path / f"one{suffix}") in one(str(tmp_path / "one"), *layer[:2])
    written = each(str(tmp_path / "two"), [layer, composite_layer(cube[:3])])
    assert str(tmp_path / f"two_scene{suffix}") in written
    assert str(tmp_path / f"two_scene-composite{suffix}") in written
    assert one(str(tmp_path / "other.mat"), *layer[:2]) == [str(tmp_path / "other.mat")]


@pytest.mark.parametrize("name", NAMES)
def test_saving_over_the_file_that_is_read(tmp_path: Path, cube: xr.DataArray, name: str) -> None:
    path = str(tmp_path / name)
    io.save_cube(cube, path)
    read = _reader.get_reader(path)
    assert read is not None
    data, words, _ = read(path)[-1]
    _writer.write_image(path, data, words)
    xr.testing.assert_identical(io.open_cube(path).compute(), cube)
    _writer.write_images(path, [(data, words, "image")])
    xr.testing.assert_identical(io.open_cube(path).compute(), cube)


def named(cube: xr.DataArray, name: str) -> Any:
    return band_layer(cube, name)


def test_several_layers_get_safe_and_distinct_names(tmp_path: Path, cube: xr.DataArray) -> None:
    odd = ["a", "A", "a", "a-2", "x/../y: z?", "...", "Ünïcode β", "n" * 300]
    layers = [named(cube + k, name) for k, name in enumerate(odd)]
    written = _writer.write_images(str(tmp_path / "s.tif"), layers)
    names = [Path(p).name for p in written]
    assert names[:4] == ["s_a.tif", "s_A-2.tif", "s_a-3.tif", "s_a-2-2.tif"]
    assert names[4:7] == ["s_x-..-y-z.tif", "s_image.tif", "s_Ünïcode-β.tif"]
    assert len(names[7]) < 200
    assert len({n.casefold() for n in names}) == len(odd)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    for k, path in enumerate(written):
        np.testing.assert_array_equal(io.open_cube(path), cube.values + np.float32(k))


def test_several_envi_images_keep_their_data_files(tmp_path: Path, cube: xr.DataArray) -> None:
    layers = [named(cube, "one"), named(cube + 1, "two")]
    written = _writer.write_images(str(tmp_path / "s.hdr"), layers)
    assert sorted(Path(p).name for p in written) == [
        "s_one.hdr",
        "s_one.img",
        "s_two.hdr",
        "s_two.img",
    ]
    np.testing.assert_array_equal(io.open_cube(tmp_path / "s_two.img"), cube.values + 1)


def test_a_composite_beside_its_cube_adds_no_file(tmp_path: Path, cube: xr.DataArray) -> None:
    written = _writer.write_images(str(tmp_path / "s.mat"), tuples(cube))
    assert [Path(p).name for p in written] == ["s.mat"]
    other = [*tuples(cube), composite_layer(cube[:3], "other")]
    written = _writer.write_images(str(tmp_path / "t.mat"), other)
    assert [Path(p).name for p in written] == ["t_scene.mat", "t_other.mat"]


def test_all_files_or_none(tmp_path: Path, cube: xr.DataArray) -> None:
    _writer.write_images(str(tmp_path / "s.hdr"), [named(cube, "a"), named(cube, "b")])
    before = files(tmp_path)
    bad = [
        (named(cube * 2, "a"), (np.zeros((2, 2, 2, 2)), {"name": "b"}, "image"), CubeError),
        (named(cube * 2, "a"), (np.zeros((2, 3)), {"name": "b"}, "labels"), CubeError),
        (named(cube * 2, "a"), (np.zeros((3, 4, 5), "f2"), {"name": "b"}, "image"), FormatError),
    ]
    for first, second, error in bad:
        with pytest.raises(error):
            _writer.write_images(str(tmp_path / "s.hdr"), [first, second])
        assert files(tmp_path) == before
        assert not [p for p in tmp_path.iterdir() if p.is_dir()]
    with pytest.raises(WriteError, match="no folder"):
        _writer.write_images(str(tmp_path / "no" / "s.hdr"), [named(cube, "a"), named(cube, "b")])
    (tmp_path / "s_c.img").mkdir()
    with pytest.raises(WriteError, match=r"s_c\.img: expected a file to write, found a folder"):
        _writer.write_images(str(tmp_path / "s.hdr"), [named(cube * 2, "a"), named(cube, "c")])
    assert files(tmp_path) == before


def test_a_move_that_fails_brings_everything_back(
    tmp_path: Path, cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _writer.write_images(str(tmp_path / "s.tif"), [named(cube, "a"), named(cube, "b")])
    before = files(tmp_path)
    plain = os.replace
    failed: list[Any] = []

    def failing(source: Any, target: Any) -> None:
        if Path(target) == tmp_path / "s_b.tif" and not failed:
            failed.append(target)
            raise OSError(28, "No space left on device")
        plain(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(WriteError, match="No space left on device"):
        _writer.write_images(str(tmp_path / "s.tif"), [named(cube * 2, "a"), named(cube * 3, "b")])
    monkeypatch.undo()
    assert files(tmp_path) == before
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_what_the_reader_declines(tmp_path: Path, cube: xr.DataArray) -> None:
    (tmp_path / "sky.hdr").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n")
    (tmp_path / "notes.dat").write_text("no header beside this")
    (tmp_path / "fake.tif").write_text("no TIFF")
    (tmp_path / "empty.mat").write_bytes(b"")
    (tmp_path / "folder.tif").mkdir()
    io.save_cube(cube, tmp_path / "good.hdr")
    for name in ("sky.hdr", "notes.dat", "fake.tif", "empty.mat", "folder.tif", "missing.hdr"):
        assert _reader.get_reader(str(tmp_path / name)) is None, name
    good, bad = str(tmp_path / "good.hdr"), str(tmp_path / "sky.hdr")
    assert _reader.get_reader([good, bad]) is None
    assert _reader.get_reader([]) is None
    both = _reader.get_reader([good, good])
    assert both is not None
    assert len(both([good, good])) == 4


def test_asking_for_a_reader_reads_next_to_nothing(
    tmp_path: Path, cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        io.save_cube(cube, tmp_path / name)

    def no(*_: Any, **__: Any) -> None:
        raise AssertionError("opened a cube")

    monkeypatch.setattr(io, "open_cube", no)
    for name in NAMES:
        assert _reader.get_reader(str(tmp_path / name)) is not None


def test_broken_files_say_what_is_wrong(tmp_path: Path, cube: xr.DataArray) -> None:
    io.save_cube(cube, tmp_path / "a.hdr")
    with (tmp_path / "a.img").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(TruncatedFileError, match=r"expected at least \d+ bytes, found 1000 bytes"):
        _reader.read(tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    with pytest.raises(FormatError, match="no data file beside this header"):
        _reader.read(tmp_path / "a.hdr")


def test_which_variable(tmp_path: Path) -> None:
    first, second = np.zeros((5, 6, 20)), np.ones((5, 6, 20))
    scipy.io.savemat(tmp_path / "two.mat", {"first": first, "second": second, "t": "text"})
    asked: list[Any] = []

    def choose(path: Path, variables: tuple[str, ...]) -> str | None:
        asked.append((path, variables))
        return "second"

    layers = _reader.read(tmp_path / "two.mat", choose)
    assert float(layers[-1][0].mean()) == 1.0
    assert layers[-1][1]["metadata"]["hsfusion"]["cube"].encoding["variable"] == "second"
    assert asked == [
        (
            tmp_path / "two.mat",
            ("first (5 x 6 x 20 double)", "second (5 x 6 x 20 double)", "t (1 char)"),
        )
    ]
    assert _reader.read(tmp_path / "two.mat", lambda *_: None) == []
    with pytest.raises(VariableError, match="several variables may be the cube: first"):
        _reader.read(tmp_path / "two.mat")


def test_origins_are_shared_with_what_is_there(tmp_path: Path, cube: xr.DataArray) -> None:
    io.save_cube(cube, tmp_path / "a.tif")
    crs = io.open_cube(tmp_path / "a.tif").attrs["crs"]
    layers = _reader.read(tmp_path / "a.tif", origins={crs: (5000000.0, 400000.0)})
    for layer in layers:
        assert layer[1]["metadata"]["hsfusion"]["origin"] == (5000000.0, 400000.0)
        np.testing.assert_allclose(layer[1]["translate"][-2:], (-399999.0, 100001.0))


def test_a_picture_tiff_opens_as_bands(tmp_path: Path) -> None:
    picture = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    tifffile.imwrite(tmp_path / "p.tif", picture, photometric="rgb")
    (layer,) = _reader.read(tmp_path / "p.tif")
    np.testing.assert_array_equal(cube_of(*layer[:2]), picture.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("envi_bsq_u16_fenix.dat", 2),
        ("envi_bsq_f32_noext_gamsberg.hdr", 2),
        ("geotiff_planar_f32_224b_wavelengths_nodata_EnMAP.tif", 2),
        ("geotiff_chunky_i16_426b_NEON.tif", 2),
        ("mat5_hydice_u16.mat", 2),
        ("mat73_pavia_102x100x100.mat", 2),
    ],
)
def test_real_files(shared_data: Callable[[str], Path], name: str, layers: int) -> None:
    path = shared_data(f"fixtures/{name}")
    reader = _reader.get_reader(str(path))
    assert reader is not None
    found = reader(str(path))
    assert len(found) == layers
    low, high = found[-1][1]["contrast_limits"]
    assert low < high
    assert cube_of(*found[0][:2]) is cube_of(*found[-1][:2])


def test_the_demonstration_pair_is_that_of_the_command_line() -> None:
    whole, high, low = _sample_data.demo_pair()
    reference, srf, _ = _demo._scene("generated")
    pair = api.simulate(reference, _demo.SCALE, "bicubic", srf, _demo.SNR_DB, 0, crop=True)
    xr.testing.assert_identical(cube_of(*low[:2]), pair.lr_hsi)
    xr.testing.assert_identical(cube_of(*high[:2]), pair.hr_msi)
    xr.testing.assert_identical(cube_of(*whole[:2]), demo_scene())
    assert [x[1]["name"] for x in (whole, high, low)] == [
        "demo reference",
        "demo HR-MSI",
        "demo LR-HSI",
    ]
    origins = {x[1]["metadata"]["hsfusion"]["origin"] for x in (whole, high, low)}
    assert origins == {(5400000.0, 500000.0)}
    corners = [
        np.subtract(x[1]["translate"][-2:], np.divide(x[1]["scale"][-2:], 2)) for x in (whole, low)
    ]
    np.testing.assert_allclose(corners[0], corners[1])


def test_indian_pines_names_the_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorly")
    assert len(_sample_data.indian_pines()) == 2
    monkeypatch.setitem(__import__("sys").modules, "tensorly.datasets", None)
    with pytest.raises(HSFusionError, match="pip install tensorly"):
        _sample_data.indian_pines()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a web server on this machine."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_address[1]}", folder
        web.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    for key in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(key, raising=False)
    return tmp_path / "cache" / "napari-hsfusion"


def test_pavia_is_downloaded_once_and_checked(
    server: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    address, folder = server
    values = np.arange(9 * 7 * 103, dtype=np.uint16).reshape(9, 7, 103)
    scipy.io.savemat(folder / "PaviaU.mat", {"paviaU": values})
    known = f"md5:{pooch.file_hash(str(folder / 'PaviaU.mat'), alg='md5')}"
    file = replace(
        _sample_data.PAVIA,
        urls=(f"{address}/gone.mat", f"{address}/PaviaU.mat"),
        known_hash=known,
    )
    monkeypatch.setattr(_sample_data, "PAVIA", file)
    layers = _sample_data.pavia_university()
    found = cube_of(*layers[-1][:2])
    np.testing.assert_array_equal(found, values.transpose(2, 0, 1))
    assert (found.wavelength.values[0], found.wavelength.values[-1]) == (430.0, 860.0)
    assert found.encoding["source"] == str(cache / "PaviaU.mat")
    assert [p.name for p in cache.iterdir()] == ["PaviaU.mat"]
    (folder / "PaviaU.mat").unlink()
    assert len(_sample_data.pavia_university()) == 2, "not taken from the cache"


def test_another_file_than_the_one_known_is_refused(server: tuple[str, Path], cache: Path) -> None:
    address, folder = server
    (folder / "PaviaU.mat").write_bytes(b"something else")
    file = replace(_sample_data.PAVIA, urls=(f"{address}/PaviaU.mat",))
    with pytest.raises(HSFusionError, match="another file than the one known, it was thrown away"):
        _sample_data.fetch(file)
    assert not list(cache.iterdir())


def test_without_a_network_it_says_what_to_do(cache: Path) -> None:
    file = replace(_sample_data.PAVIA, urls=("http://127.0.0.1:9/PaviaU.mat",))
    with pytest.raises(HSFusionError, match="Check the network connection") as raised:
        _sample_data.fetch(file)
    assert str(cache / "PaviaU.mat") in str(raised.value)
    assert "md5:165a3c74" in str(raised.value)


def test_a_server_that_is_silent_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(_sample_data, "_SILENCE_SECONDS", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/PaviaU.mat"
        with pytest.raises(HSFusionError, match="Timeout"):
            _sample_data.fetch(replace(_sample_data.PAVIA, urls=(url,)))


def test_downloads_name_the_package_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pooch", None)
    with pytest.raises(HSFusionError, match="pip install pooch"):
        _sample_data.fetch(_sample_data.PAVIA)
