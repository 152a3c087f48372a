"""Cubes become layers that lie where they should, and come back whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from napari_hsfusion import _layers, api, figures
from napari_hsfusion.cube import make_cube, scaled_transform
from napari_hsfusion.errors import CubeError
from napari_hsfusion.io import open_cube, save_cube
from napari_hsfusion.io._source import RawSource

pytest.importorskip("napari", reason="napari is not installed (extra 'all')")

UTM, LONLAT, FEET = "EPSG:32632", "EPSG:4326", "EPSG:2263"  # the last in US survey feet
GRIDS = {
    "plain": (None, None),
    "picture": (None, (2.0, 0.0, 7.0, 0.0, 2.0, 3.0)),
    "m": (UTM, (1.5, 0.0, 500000.0, 0.0, -1.5, 5400000.0)),
    "degree": (LONLAT, (0.0003, 0.0, 11.0, 0.0, -0.0003, 48.0)),
    "foot": (FEET, (3.0, 0.0, 980000.0, 0.0, -3.0, 190000.0)),
    "rotated": (UTM, (1.2, 0.5, 612345.6, 0.5, -1.2, 5412345.6)),
    "south-up": (UTM, (2.0, 0.0, 500000.0, 0.0, 2.0, 5400000.0)),
}


def layer_of(layer_data: Any) -> Any:
    from napari.layers import Layer

    return Layer.create(*layer_data)


def world(layer: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """World (y, x) of positions in a layer's pixels, by the layer itself."""
    lead = [0.0] * (layer.ndim - 2)
    points = [layer.data_to_world([*lead, r, c]) for r, c in zip(rows, columns, strict=True)]
    return np.array(points)[:, -2:]


def corners(layer: Any) -> np.ndarray:
    """World positions of the four outer corners of an image's pixels."""
    rows, columns = layer.data.shape[:2] if layer.rgb else layer.data.shape[-2:]
    return world(
        layer,
        np.array([0, 0, rows, rows]) - 0.5,
        np.array([0, columns, 0, columns]) - 0.5,
    )


def grid_cube(grid: str, bands: int, rows: int, columns: int, ratio: float = 1.0) -> xr.DataArray:
    crs, transform = GRIDS[grid]
    if transform is not None:
        transform = scaled_transform(transform, ratio)
    y, x = np.indices((rows, columns))
    board = np.broadcast_to((y + x) % 2, (bands, rows, columns)).astype(np.float32)
    return make_cube(board, crs=crs, transform=transform, name=grid)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("grid", [name for name in GRIDS if name != "plain"])
def test_low_and_high_share_their_corners(grid: str, ratio: int) -> None:
    low = layer_of(_layers.band_layer(grid_cube(grid, 20, 6, 8, ratio)))
    high = layer_of(_layers.composite_layer(grid_cube(grid, 4, 6 * ratio, 8 * ratio)))
    size = np.abs(np.diff(corners(high), axis=0)).max()
    np.testing.assert_allclose(corners(low), corners(high), rtol=0, atol=1e-9 * size)
    assert low.units[1:] == high.units
    assert low.axis_labels == ("band", "y", "x")
    assert high.axis_labels == ("y", "x")
    assert str(low.units[0]) == "pixel"


@pytest.mark.parametrize("ratio", [2, 3, 4, 5, 8])
def test_a_checkerboard_lies_over_its_fine_version(ratio: int) -> None:
    """The world centre of every fine pixel falls into the coarse pixel it belongs to."""
    coarse = grid_cube("plain", 1, 5, 7)
    fine = make_cube(np.kron(coarse.values[0], np.ones((ratio, ratio))), name="fine")
    place = _layers.placement(fine).of_pixels(ratio)
    low = layer_of(_layers.band_layer(coarse, place=place))
    high = layer_of(_layers.band_layer(fine))
    y, x = np.indices(fine.shape[1:]).reshape(2, -1)
    for r, c, where in zip(y, x, world(high, y, x), strict=True):
        assert low.get_value((0, *where), world=True) == high.data[0, r, c]
    np.testing.assert_allclose(corners(low), corners(high), atol=1e-12)


@pytest.mark.parametrize("georeferenced", [True, False])
@pytest.mark.parametrize("psf", ["box", "bicubic"])
def test_a_simulated_pair_lies_over_its_reference(
    tiny_scene: xr.DataArray, srf3: np.ndarray, georeferenced: bool, psf: str
) -> None:
    reference = tiny_scene
    if not georeferenced:
        reference = make_cube(tiny_scene.values, wavelength=tiny_scene.wavelength.values)
    pair = api.simulate(reference, 4, psf, srf3, None)
    phase = pair.record["phase"]
    low = layer_of(_layers.band_layer(pair.lr_hsi))
    high = layer_of(_layers.composite_layer(pair.hr_msi))
    whole = layer_of(_layers.band_layer(reference))
    centre = np.array([0.0, 3.0])  # first and fourth LR pixel along the diagonal
    expected = world(high, phase + 4 * centre, phase + 4 * centre)
    np.testing.assert_allclose(world(low, centre, centre), expected, atol=1e-9)
    np.testing.assert_allclose(corners(whole), corners(high), atol=1e-9)


def test_only_the_last_step_of_a_simulation_counts(
    tiny_scene: xr.DataArray, srf3: np.ndarray
) -> None:
    """The HR-MSI made of an image that was an LR-HSI itself is no LR-HSI."""
    bare = make_cube(tiny_scene.values, wavelength=tiny_scene.wavelength.values)
    first = api.simulate(bare, 2, "box", srf3, None).lr_hsi
    second = api.simulate(first, 2, "box", srf3, None)
    assert _layers.placement(second.hr_msi) == _layers.Placement()
    assert _layers.placement(second.lr_hsi).scale == (2.0, 2.0)


@pytest.mark.parametrize("grid", ["m", "degree", "foot"])
@pytest.mark.parametrize("shift", [-0.6, -0.01, 0.0, 0.3, 1.7])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.25, 0.5, 1 / 3])
def test_images_of_one_scene_have_one_origin(grid: str, shift: float, part: float) -> None:
    """At whole steps of the rounding, and at round parts of them, shifted or not."""
    crs, transform = GRIDS[grid]
    assert transform is not None
    grain = 1.0 if grid == "degree" else 1e5
    a, _, c, _, e, f = transform
    c, f = round(c / grain) * grain + part * grain, round(f / grain) * grain - part * grain
    high = (a, 0.0, c, 0.0, e, f)
    low = (8 * a, 0.0, c + shift * 8 * a, 0.0, 8 * e, f + shift * 8 * e)
    places = [
        _layers.placement(make_cube(np.zeros((2, 4, 4)), crs=crs, transform=t)) for t in (high, low)
    ]
    assert places[0].origin == places[1].origin
    assert places[0].unit == {"foot": "survey_foot"}.get(grid, grid)
    # positions stay within what 32 bits resolve to a hundredth of a pixel
    step = np.spacing(np.float32(np.abs(places[0].translate).max()))
    assert step <= 0.01 * abs(a)


def test_an_origin_can_be_shared_on_purpose() -> None:
    far = (1.5, 0.0, 800000.0, 0.0, -1.5, 5100000.0)
    near = grid_cube("m", 20, 4, 4)
    other = make_cube(np.zeros((20, 4, 4)), crs=UTM, transform=far)
    first = layer_of(_layers.band_layer(near))
    origin = _layers.origin_of(first)
    assert origin == (5400000.0, 500000.0)
    assert _layers.placement(other).origin != origin
    second = layer_of(_layers.band_layer(other, place=_layers.placement(other, origin)))
    assert _layers.origin_of(second) == origin
    np.testing.assert_allclose(
        corners(second)[0] - corners(first)[0], [300000.0, 300000.0], atol=1e-6
    )
    assert _layers.origin_of(layer_of((np.zeros((4, 4)), {}, "image"))) is None


@pytest.mark.parametrize("grid", list(GRIDS))
def test_the_placement_of_a_layer_is_read_back(grid: str) -> None:
    cube = grid_cube(grid, 20, 6, 8)
    place = _layers.placement(cube)
    layer = layer_of(_layers.band_layer(cube))
    found = _layers.placement_of(layer)
    np.testing.assert_allclose(found.scale, place.scale)
    np.testing.assert_allclose(found.translate, place.translate)
    np.testing.assert_allclose(found.shear, place.shear)
    assert found.origin == place.origin
    again = layer_of((cube.data, found.keywords(3), "image"))
    np.testing.assert_allclose(corners(again), corners(layer))
    assert again.units == layer.units
    layer.translate = np.add(layer.translate, [0, 10, 20])
    moved = layer_of((cube.data, _layers.placement_of(layer).keywords(3), "image"))
    np.testing.assert_allclose(corners(moved), corners(layer))
    assert not np.allclose(corners(moved), corners(again))


def test_the_placement_of_a_foreign_layer() -> None:
    layer = layer_of((np.zeros((4, 5)), {"scale": (2, 3), "units": ("um", "um")}, "image"))
    place = _layers.placement_of(layer)
    assert (place.scale, place.translate, place.origin) == ((2.0, 3.0), (0.0, 0.0), (0.0, 0.0))
    assert layer_of((np.zeros((4, 5)), place.keywords(2), "image")).units == layer.units


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that each read of an ENVI file takes out of it."""
    taken: list[int] = []
    plain = RawSource.__getitem__

    def counted(self: RawSource, key: Any) -> np.ndarray:
        found = plain(self, key)
        taken.append(found.nbytes)
        return found

    monkeypatch.setattr(RawSource, "__getitem__", counted)
    return taken


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_contrast_limits_read_windows_alone(
    tmp_path: Path, reads: list[int], interleave: str
) -> None:
    rows, columns, bands = 2000, 1500, 40
    header = f"ENVI\nsamples = {columns}\nlines = {rows}\nbands = {bands}\ndata type = 12\n"
    (tmp_path / "a.hdr").write_text(f"{header}interleave = {interleave}\nbyte order = 0\n")
    with (tmp_path / "a.img").open("wb") as file:
        file.truncate(rows * columns * bands * 2)
    cube = open_cube(tmp_path / "a.hdr")
    _layers.band_layer(cube)
    windows = 5 * 9 * 256 * 256 * 2
    assert 0 < sum(reads) <= windows, f"{sum(reads)} of {rows * columns * bands * 2} bytes read"
    reads.clear()
    _layers.composite_layer(cube)
    assert 0 < sum(reads) <= 3 * rows * columns * 2


@pytest.mark.parametrize("lazy", [True, False])
def test_contrast_limits_keep_nodata_out(lazy: bool, rng: np.random.Generator) -> None:
    values = rng.uniform(100, 200, (8, 60, 70)).astype(np.float32)
    values[:, :30] = -9999
    values[:, 30:40, :20] = np.nan
    values[:, 40, 0] = np.inf
    data = da.from_array(values, chunks=(1, 60, 70)) if lazy else values
    low, high = _layers.sampled_limits(make_cube(data, nodata=-9999))
    assert 100 <= low < 110
    assert 190 < high <= 200
    assert _layers.sampled_limits(make_cube(np.full((2, 4, 4), np.nan))) == (0.0, 1.0)
    low, high = _layers.sampled_limits(make_cube(np.full((2, 4, 4), 7, dtype=np.uint8)))
    assert low == 7 < high
    assert _layers.sampled_limits(make_cube(np.eye(4, dtype=bool)[None])) == (0.0, 1.0)


def test_bad_bands_have_no_part_in_limits_and_composites() -> None:
    data = np.ones((20, 8, 8), dtype=np.float32) * np.arange(20)[:, None, None]
    data[5:15] = 1e6
    good = np.ones(20, dtype=bool)
    good[5:15] = False
    cube = make_cube(data, wavelength=np.linspace(400, 1000, 20), good_band=good)
    assert _layers.sampled_limits(cube)[1] < 100
    _, bands = _layers.composite_picture(cube)
    assert good[list(bands)].all()
    hopeless = make_cube(data, good_band=np.zeros(20, dtype=bool))
    layers = _layers.cube_layers(hopeless)
    assert [words["name"] for _, words, _ in layers] == ["cube"]


@pytest.mark.parametrize(
    ("wavelength", "wanted"),
    [
        (np.linspace(400, 1000, 31), (640, 550, 460)),
        (np.linspace(800, 2500, 35), (1650, 850, 800)),
        (None, None),
    ],
)
def test_composites_are_chosen_by_wavelength(
    wavelength: np.ndarray | None, wanted: tuple[int, ...] | None
) -> None:
    bands = 20 if wavelength is None else len(wavelength)
    data = np.random.default_rng(1).random((bands, 9, 11)).astype(np.float32)
    data[:, 2, 3] = np.nan
    cube = make_cube(data, wavelength=wavelength)
    picture, words, kind = _layers.composite_layer(cube)
    chosen = words["metadata"]["hsfusion"]["bands"]
    if wavelength is not None and wanted is not None:
        nearest = [int(np.abs(wavelength - nm).argmin()) for nm in wanted]
        assert list(chosen) == nearest
    else:
        assert chosen == (14, 10, 5)
    values = data[list(chosen)]
    limits = np.array([np.nanpercentile(v, (1, 99)) for v in values])
    expected = np.rint(figures.composite(values, limits) * 255)
    np.testing.assert_allclose(picture.astype(int), expected, atol=1)
    assert picture[2, 3, 3] == 0
    assert (picture.dtype, picture.shape, kind) == (np.uint8, (9, 11, 4), "image")
    assert words["rgb"] is True


@pytest.mark.parametrize(("rows", "columns"), [(9000, 5000), (4097, 30)])
def test_a_huge_image_gets_an_overview(rows: int, columns: int) -> None:
    def block(block_info: Any = None) -> np.ndarray:
        where = block_info[None]["array-location"]
        y, x = np.ogrid[where[1][0] : where[1][1], where[2][0] : where[2][1]]
        return np.broadcast_to((y + x)[None], (1, *np.broadcast_shapes(y.shape, x.shape))).astype(
            np.float32
        )

    chunks = ((1,) * 4, da.core.normalize_chunks(1000, (rows,))[0], (columns,))
    data = da.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), "f4"))
    cube = make_cube(data, crs=UTM, transform=(2.0, 0.0, 5e5, 0.0, -2.0, 5.4e6), name="big")
    start = time.perf_counter()
    layer = layer_of(_layers.composite_layer(cube))
    assert time.perf_counter() - start < 5
    assert max(layer.data.shape[:2]) <= 2048
    assert layer.name == "big (composite) (overview)"
    assert _layers.layer_cube(layer) is cube
    full = layer_of((np.zeros((2, 2)), _layers.placement(cube).keywords(2), "image"))
    steps = _layers.overview_steps(cube)
    shown = [
        len(range(step // 2, size, step)) for size, step in zip((rows, columns), steps, strict=True)
    ]
    assert list(layer.data.shape[:2]) == shown
    # the corner at the start is the image's, and every shown pixel lies over its group
    start_of_image = np.array([-0.5])
    np.testing.assert_allclose(
        world(layer, start_of_image, start_of_image), world(full, start_of_image, start_of_image)
    )
    y, x = (np.array([10 * step + (step - 1) / 2]) for step in steps)
    ten = np.array([10.0])
    np.testing.assert_allclose(world(layer, ten, ten), world(full, y, x))
    place = _layers.placement_of(layer)
    np.testing.assert_allclose(place.scale, (2.0, 2.0))
    np.testing.assert_allclose(place.translate, _layers.placement(cube).translate)


def full_cube(lazy: bool = True) -> xr.DataArray:
    values = np.arange(20 * 6 * 8, dtype=np.uint16).reshape(20, 6, 8)
    cube = make_cube(
        da.from_array(values, chunks=(1, 6, 8)) if lazy else values,
        wavelength=np.linspace(400, 1000, 20),
        fwhm=np.full(20, 10.0),
        good_band=np.arange(20) != 3,
        band_name=[f"b{k}" for k in range(20)],
        crs=UTM,
        transform=GRIDS["m"][1],
        nodata=0,
        scale_factor=0.0001,
        history=[{"step": "made"}],
        observation={"scale": 4},
        metadata={"sensor type": "X"},
        name="scene",
    )
    cube.attrs["record"] = {"seed": 3}
    return cube


@pytest.mark.parametrize("bands", [20, 4, 1])
@pytest.mark.parametrize("lazy", [True, False])
def test_a_cube_comes_back_from_its_layers(bands: int, lazy: bool) -> None:
    cube = full_cube(lazy).isel(band=slice(0, bands))
    for layer_data in _layers.cube_layers(cube):
        layer = layer_of(layer_data)
        assert _layers.layer_cube(layer) is cube
        copy = layer_of(layer.as_layer_data_tuple())
        again = _layers.layer_cube(copy)
        xr.testing.assert_identical(again, cube)
        assert type(again.data) is type(cube.data)
        assert copy.metadata["wavelengths_nm"] == cube.wavelength.values.tolist()
        np.testing.assert_allclose(corners(copy), corners(layer))
        assert copy.units == layer.units
        assert copy.axis_labels == layer.axis_labels


@pytest.mark.parametrize(("bands", "kinds"), [(17, ["composite", "cube"]), (16, ["composite"])])
def test_what_opening_shows(bands: int, kinds: list[str]) -> None:
    layers = [layer_of(x) for x in _layers.cube_layers(full_cube().isel(band=slice(0, bands)))]
    assert [_layers.kind_of(layer) for layer in layers] == kinds
    grey = layer_of(_layers.cube_layers(full_cube()[:1])[0])
    assert (_layers.kind_of(grey), grey.ndim) == ("grey", 2)


def test_source_of_an_untouched_layer_alone(tmp_path: Path) -> None:
    save_cube(full_cube(False), tmp_path / "scene.hdr")
    cube = open_cube(tmp_path / "scene.hdr")
    assert cube.encoding["source"] == str(tmp_path / "scene.hdr")
    layer = layer_of(_layers.band_layer(cube))
    assert _layers.layer_cube(layer).encoding["source"] == str(tmp_path / "scene.hdr")
    layer.data = np.zeros((20, 6, 8))
    changed = _layers.layer_cube(layer)
    assert "source" not in changed.encoding
    assert cube.encoding["source"] == str(tmp_path / "scene.hdr")
    assert float(changed.max()) == 0
    np.testing.assert_array_equal(changed.wavelength, cube.wavelength)
    assert changed.attrs["transform"] == cube.attrs["transform"]


def test_data_of_another_shape_keep_what_holds() -> None:
    cube = full_cube()
    layer = layer_of(_layers.band_layer(cube))
    layer.data = np.ones((20, 3, 4))
    cropped = _layers.layer_cube(layer)
    np.testing.assert_array_equal(cropped.wavelength, cube.wavelength)
    assert cropped.attrs["scale_factor"] == 0.0001
    assert "transform" not in cropped.attrs
    assert "observation" not in cropped.attrs
    layer.data = np.ones((5, 6, 8))
    fewer = _layers.layer_cube(layer)
    assert "wavelength" not in fewer.coords
    assert fewer.attrs["transform"] == cube.attrs["transform"]
    grey = layer_of(_layers.cube_layers(cube[:1])[0])
    grey.data = np.full((6, 8), 9)
    assert float(_layers.layer_cube(grey).mean()) == 9
    assert _layers.layer_cube(grey).attrs["crs"] == UTM
    picture = layer_of(_layers.composite_layer(cube))
    picture.data = np.zeros((3, 3, 4), dtype=np.uint8)
    assert _layers.layer_cube(picture).shape == (3, 3, 3)


def test_layers_that_napari_makes_of_ours() -> None:
    """Its own actions: rename, duplicate, split."""
    from napari.components import ViewerModel
    from napari.layers._layer_actions import _duplicate_layer, _split_stack

    viewer = ViewerModel()
    cube = full_cube()
    for layer_data in _layers.cube_layers(cube):
        viewer._add_layer_from_data(*layer_data)
    for layer in list(viewer.layers):
        viewer.layers.selection = {layer}
        _duplicate_layer(viewer.layers)
        copy = viewer.layers[viewer.layers.index(layer) + 1]
        assert copy.name.endswith("copy")
        xr.testing.assert_identical(_layers.layer_cube(copy), cube)
        assert _layers.placement_of(copy) == _layers.placement_of(layer)
    layer.name = "renamed"
    assert _layers.layer_cube(layer) is cube
    viewer.layers.selection.active = viewer.layers["renamed"]
    _split_stack(viewer.layers)
    one = _layers.layer_cube(next(x for x in viewer.layers if x.name == "renamed layer 4"))
    assert one.shape == (1, 6, 8)
    np.testing.assert_array_equal(one.values[0], cube.values[4])
    assert one.attrs["transform"] == cube.attrs["transform"]
    assert "wavelength" not in one.coords


def test_layers_that_are_not_ours(rng: np.random.Generator) -> None:
    from napari.layers import Image, Labels, Points

    cases: list[tuple[Any, tuple[int, ...]]] = [
        (Image(rng.random((6, 8))), (1, 6, 8)),
        (Image(rng.random((5, 6, 8))), (5, 6, 8)),
        (Image(rng.random((6, 8, 3)), rgb=True), (3, 6, 8)),
        (Image(rng.random((6, 8, 4)), rgb=True), (3, 6, 8)),
        (Image([rng.random((5, 32, 32)), rng.random((5, 16, 16))], multiscale=True), (5, 32, 32)),
    ]
    for layer, shape in cases:
        cube = _layers.layer_cube(layer)
        assert cube.shape == shape
        assert _layers.kind_of(layer) is None
        assert cube.name == layer.name
    colours = _layers.layer_cube(cases[2][0])
    assert colours.band_name.values.tolist() == ["red", "green", "blue"]
    np.testing.assert_array_equal(colours.values[1], cases[2][0].data[..., 1])
    with pytest.raises(CubeError, match=r"'Image'.*\(band, y, x\) or \(y, x\).*\(2, 3, 4, 5\)"):
        _layers.layer_cube(Image(rng.random((2, 3, 4, 5))))
    with pytest.raises(CubeError, match=r"colour image .*\(2, 6, 8, 3\)"):
        _layers.layer_cube(Image(rng.random((2, 6, 8, 3)), rgb=True))
    with pytest.raises(CubeError, match="expected an image, got Points"):
        _layers.layer_cube(Points(np.zeros((1, 2))))
    with pytest.raises(CubeError, match="expected an image, got Labels"):
        _layers.layer_cube(Labels(np.zeros((4, 4), dtype=int)))
    with pytest.raises(CubeError, match=r"'odd'.*real numbers, got complex"):
        _layers.cube_of(np.zeros((4, 4), dtype=complex), {"name": "odd"})


def test_arrays_of_other_libraries_are_not_read(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = file.create_dataset("a", data=np.ones((5, 6, 7)))
        cube = _layers.cube_of(stored, {"name": "h5"})
        assert isinstance(cube.data, da.Array)
        assert cube.shape == (5, 6, 7)


def test_a_real_pair_in_a_viewer(shared_data: Callable[[str], Path]) -> None:
    """A GeoTIFF's cube in metres: units that napari accepts, a composite exactly below."""
    from napari.components import ViewerModel

    name = "fixtures/geotiff_planar_f32_224b_wavelengths_nodata_EnMAP.tif"
    cube = open_cube(shared_data(name))
    viewer = ViewerModel()
    for layer_data in _layers.cube_layers(cube):
        viewer._add_layer_from_data(*layer_data)
    below, above = viewer.layers
    np.testing.assert_allclose(corners(below), corners(above))
    assert viewer.dims.axis_labels == ("band", "y", "x")
    assert str(above.units[1]) in ("m", "meter")
    assert above.contrast_limits[0] > cube.attrs["nodata"]


def test_colours_that_lie_in_a_file_are_not_read() -> None:
    """A choice of layers asks every layer for its cube, whenever one comes or goes."""
    from napari.layers import Image

    read: list[int] = []

    def block(block_info: Any = None) -> np.ndarray:
        read.append(1)
        return np.full((4, 5, 3), 7, np.uint8)

    lazy = da.map_blocks(block, chunks=((4,), (5,), (3,)), dtype=np.uint8, meta=np.zeros(0, "u1"))
    layer = Image(lazy, rgb=True, contrast_limits=(0, 255))
    before = len(read)
    cube = _layers.layer_cube(layer)
    assert len(read) == before
    assert cube.shape == (3, 4, 5)
    assert int(cube[1, 2, 3]) == 7
    assert len(read) > before
