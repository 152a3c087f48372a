"""Layers that sharpen: what is drawn is what the factors say, and nothing is left over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'pyqt6')")
pytest.importorskip("qtpy", reason="no Qt binding is installed")

from napari_hsfusion._layers import Placement, layer_cube
from napari_hsfusion._qt.fusing import (
    Advance,
    Begun,
    Factors,
    Fused,
    Look,
    News,
    Pace,
    Snapshot,
    mosaic,
)
from napari_hsfusion._qt.preview import FactoredCube, LiveLayers
from napari_hsfusion.cube import make_cube

SHAPE = (7, 12, 10)
PLACE = Placement(scale=(2.0, 2.0), translate=(1.0, 5.0), unit="m")


@pytest.fixture
def factors(rng: np.random.Generator) -> Factors:
    return Factors(
        rng.random((3, *SHAPE[1:])).astype(np.float32), rng.random((3, 7)).astype(np.float32)
    )


def whole(factors: Factors) -> np.ndarray:
    return np.einsum("dhw,dc->chw", factors.coefficients, factors.basis)


def shot(factors: Factors, watched: str, picture: Any = None) -> Snapshot:
    return Snapshot("sample", 1, 2, factors, watched, picture)


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        slice(None),
        slice(1, 6, 2),
        (2, slice(None), slice(None)),
        (slice(None), 4, slice(None)),
        (slice(None), slice(2, 9, 3), 7),
        (4, 5, 6),
        (Ellipsis, 3),
        (5, Ellipsis),
        (slice(2, 4), slice(None, None, -1), slice(1, 3)),
        (np.array([0, 5, 2]), slice(None), slice(3)),
        np.int64(2),
    ],
)
def test_a_factored_cube_is_indexed_like_an_array(factors: Factors, key: Any) -> None:
    cube = FactoredCube(SHAPE)
    expected = whole(factors)
    assert np.isnan(cube[key]).all()
    assert cube[key].shape == expected[key].shape
    cube.update(factors)
    assert cube[key].shape == expected[key].shape
    assert np.allclose(cube[key], expected[key], rtol=1e-5)
    assert cube[key].dtype == np.float32


def test_a_factored_cube_is_an_array_to_numpy(factors: Factors) -> None:
    cube = FactoredCube(SHAPE)
    cube.update(factors)
    assert np.allclose(np.asarray(cube), whole(factors))
    assert np.asarray(cube, dtype=np.float64).dtype == np.float64
    assert (len(cube), cube.size, cube.nbytes, cube.ndim) == (7, 840, 3360, 3)
    with pytest.raises(ValueError, match="expected factors of a cube"):
        cube.update(Factors(factors.coefficients[:, :5], factors.basis))


def test_a_mosaic_shows_every_coefficient_image(factors: Factors) -> None:
    picture = mosaic(factors.coefficients)
    assert picture.shape == (24, 20)
    assert np.isnan(picture[12:, 10:]).all()
    for k, (top, left) in enumerate([(0, 0), (0, 10), (12, 0)]):
        tile = picture[top : top + 12, left : left + 10]
        assert tile.min() == 0
        assert tile.max() == 1
        rank = np.corrcoef(tile.ravel(), factors.coefficients[k].ravel())[0, 1]
        assert rank > 0.99


def test_look_paints_what_is_watched(factors: Factors) -> None:
    look = Look("composite", (5, 3, 1), np.array([[0.0, 2.0]] * 3))
    picture = look.paint(factors)
    assert picture is not None
    assert picture.shape == (12, 10, 4)
    red = np.rint((whole(factors)[5] / 2).clip(0, 1) ** 0.8 * 255)
    assert np.abs(picture[..., 0] - red).max() <= 1
    assert look.paint(factors, "band") is None
    mosaic_picture = look.paint(factors, "coefficients")
    assert mosaic_picture is not None
    assert mosaic_picture.shape == (24, 20)


def test_pace_lets_through_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr("napari_hsfusion._qt.fusing.time.perf_counter", lambda: now[0])
    pace = Pace(4.0)
    passed = []
    for _ in range(100):
        passed.append(pace.due())
        now[0] += 0.01
    assert sum(passed) == 4
    assert passed[0]


def test_pace_slows_where_drawing_is_dear_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [10.0]
    monkeypatch.setattr("napari_hsfusion._qt.fusing.time.perf_counter", lambda: now[0])

    def passed(cost: float) -> int:
        pace, count = Pace(4.0), 0
        for _ in range(640):  # ten seconds
            count += pace.due(cost)
            now[0] += 1 / 64
        return count

    assert passed(0.001) == 40
    assert passed(0.04) * 0.04 <= 0.05 * 10
    assert passed(60.0) == 5
    pace = Pace(4.0)
    assert [pace.due(), pace.due(), pace.due(at_once=True)] == [True, False, True]


def test_one_chance_stall_of_the_window_does_not_slow_a_run() -> None:
    look = Look()
    look.drawn(0.03)
    look.drawn(2.0)
    assert look.drawing == 0.03
    look.drawn(0.04)
    look.drawn(0.05)
    assert look.drawing == 0.04


def test_a_step_is_told_with_the_preview_that_follows_it() -> None:
    import torch

    from napari_hsfusion.engine.events import Preview, Step

    news = News(Look("band"))
    coefficients, basis = torch.ones(2, 4, 4), torch.ones(2, 3)

    def preview(index: int) -> Preview:
        return Preview("sample", index, 4, coefficients, basis)

    assert news.step(Step("sample", 1, 4, 0.5))
    assert news.complete
    assert news.tell() == Advance("sample", 1, 4, ((1, 0.5),))
    assert not news.preview(preview(1))
    assert not news.step(Step("sample", 2, 4, 0.4))
    assert not news.complete, "a preview comes"
    assert not news.preview(preview(2))
    assert not news.step(Step("sample", 3, 4, 0.3))
    assert not news.preview(preview(3))
    told = news.tell()
    assert isinstance(told, Snapshot)
    assert told.index == 3
    assert told.at == Advance("sample", 3, 4, ((2, 0.4), (3, 0.3)))
    assert news.tell() is None
    assert news.step(Step("sample", 4, 4))
    assert news.preview(preview(4))
    told = news.tell()
    assert isinstance(told, Snapshot)
    assert told.at == Advance("sample", 4, 4)


def test_a_preview_leaves_the_list_of_layers_alone(
    make_napari_viewer_proxy: Any, factors: Factors
) -> None:
    """Any event of a layer has napari draw its list, and with it the whole window, anew."""
    viewer = make_napari_viewer_proxy()
    live = LiveLayers(viewer, "fused", SHAPE, PLACE)
    live.show(shot(factors, "composite", np.zeros((12, 10, 4), np.uint8)))
    heard: list[str] = []
    drawn: list[str] = []
    viewer.layers.events.connect(lambda event: heard.append(event.type))
    viewer.layers["fused (composite)"].events.set_data.connect(lambda _: drawn.append("set_data"))
    live.show(shot(factors, "composite", np.full((12, 10, 4), 9, np.uint8)))
    assert drawn == ["set_data"]
    assert heard == []
    viewer.layers["fused"].name = "mine"
    assert "name" in heard


def test_layers_are_drawn_in_place_and_become_the_result(
    make_napari_viewer_proxy: Any, factors: Factors
) -> None:
    viewer = make_napari_viewer_proxy()
    live = LiveLayers(viewer, "fused", SHAPE, PLACE)
    assert [layer.name for layer in viewer.layers] == ["fused (composite)", "fused"]
    picture, band = viewer.layers
    start = np.full((12, 10, 4), 7, np.uint8)
    live.begin(Begun({"sample": 2}, {}, (0.25, 1.5), start))
    buffer = picture.data
    assert (np.asarray(buffer) == 7).all()
    assert tuple(band.contrast_limits) == (0.25, 1.5)
    drawn = np.full((12, 10, 4), 90, np.uint8)
    live.show(shot(factors, "composite", drawn))
    assert (np.asarray(picture.data) == 90).all()
    assert np.asarray(picture.data) is not drawn
    assert np.allclose(band.data[4], whole(factors)[4])
    live.set_watch("band")
    assert (picture.visible, band.visible) == (False, True)
    with pytest.raises(ValueError, match="expected one of"):
        live.set_watch("loss")
    cube = make_cube(whole(factors), wavelength=np.linspace(400, 700, 7), name="result")
    last = np.full((12, 10, 4), 200, np.uint8)
    result = live.finish(Fused(cube, last))
    assert result == band
    assert layer_cube(band).equals(cube)
    assert layer_cube(picture).equals(cube)
    assert (np.asarray(picture.data) == 200).all()
    assert band.metadata["wavelengths_nm"][0] == 400
    assert tuple(band.scale) == (1, 2, 2)
    assert tuple(picture.translate) == (1, 5)
    assert tuple(band.contrast_limits) == (0.25, 1.5)
    assert live.factors is None


def test_the_mosaic_lies_within_the_scene(make_napari_viewer_proxy: Any, factors: Factors) -> None:
    viewer = make_napari_viewer_proxy()
    live = LiveLayers(viewer, "fused", SHAPE, PLACE, "coefficients")
    live.show(shot(factors, "coefficients", mosaic(factors.coefficients)))
    layer, picture = viewer.layers["fused (coefficients)"], viewer.layers["fused (composite)"]
    low, high = np.asarray(layer.extent.world)
    scene_low, scene_high = np.asarray(picture.extent.world)
    half, fine = 1.0, 0.5
    assert np.allclose(low - fine, scene_low - half), "the corners do not meet"
    assert ((high + fine) <= scene_high + half + 1e-9).all()
    assert layer.visible
    assert not picture.visible
    live.finish(Fused(make_cube(whole(factors)), np.zeros((12, 10, 4), np.uint8)))
    assert [entry.name for entry in viewer.layers] == ["fused (composite)", "fused"]
    assert any(entry.visible for entry in viewer.layers)


def test_discarding_takes_every_layer_of_the_run(
    make_napari_viewer_proxy: Any, factors: Factors
) -> None:
    viewer = make_napari_viewer_proxy()
    viewer.add_image(np.zeros((4, 4)), name="mine")
    live = LiveLayers(viewer, "fused", SHAPE, PLACE)
    live.show(shot(factors, "coefficients", mosaic(factors.coefficients)))
    assert len(viewer.layers) == 4
    live.discard()
    assert [layer.name for layer in viewer.layers] == ["mine"]
    live.discard()
    assert len(viewer.layers) == 1


def test_a_removed_layer_is_not_drawn_but_the_result_is_whole(
    make_napari_viewer_proxy: Any, factors: Factors
) -> None:
    viewer = make_napari_viewer_proxy()
    live = LiveLayers(viewer, "fused", SHAPE, PLACE)
    viewer.layers.remove("fused")
    assert not live.removed
    live.show(shot(factors, "band"))
    viewer.layers.clear()
    assert live.removed
    live.show(shot(factors, "coefficients", mosaic(factors.coefficients)))
    assert len(viewer.layers) == 0
    cube = make_cube(whole(factors))
    live.finish(Fused(cube, np.zeros((12, 10, 4), np.uint8)))
    assert {layer.name for layer in viewer.layers} == {"fused (composite)", "fused"}
    assert np.array_equal(viewer.layers["fused"].data, cube.values)


def test_a_composite_given_other_data_shows_the_result_in_the_end(
    make_napari_viewer_proxy: Any, factors: Factors
) -> None:
    viewer = make_napari_viewer_proxy()
    live = LiveLayers(viewer, "fused", SHAPE, PLACE)
    viewer.layers["fused (composite)"].data = np.full((12, 10, 4), 3, np.uint8)
    last = np.full((12, 10, 4), 200, np.uint8)
    live.finish(Fused(make_cube(whole(factors)), last))
    assert (np.asarray(viewer.layers["fused (composite)"].data) == 200).all()
