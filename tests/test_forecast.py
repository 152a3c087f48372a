"""What a simulation will make, said before it runs; and the kernel that it will use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr

from napari_hsfusion import api
from napari_hsfusion._forecast import fitting_size, forecast
from napari_hsfusion._responses import effective_kernel, spatial_operator
from napari_hsfusion.cube import make_cube
from napari_hsfusion.errors import PairError, ParameterError, ResponseError
from napari_hsfusion.sensors.psf import PSF, parse_psf

KERNEL = np.outer([1.0, 2.0, 4.0], [1.0, 3.0, 1.0, 2.0, 1.0]) / 56.0


def test_the_forecast_is_what_comes_out(tiny_scene: xr.DataArray) -> None:
    for scale, crop in ((4, False), (5, True)):
        said = forecast(tiny_scene, scale, "gaussian:1.5", "sentinel-2a:B2,B3,B8", crop=crop)
        made = api.simulate(tiny_scene, scale, "gaussian:1.5", "sentinel-2a:B2,B3,B8", crop=crop)
        assert said.lr_hsi == made.lr_hsi.shape
        assert said.hr_msi == made.hr_msi.shape
        np.testing.assert_array_equal(said.response.matrix, made.response.matrix)


def test_a_forecast_reads_no_pixel(srf3: np.ndarray) -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise AssertionError("a pixel was read")

    pixels = dask.array.zeros((12, 24, 32)).map_blocks(fail, dtype=float, meta=np.zeros((0, 0, 0)))
    assert forecast(make_cube(pixels), 8, "bicubic", srf3).lr_hsi == (12, 3, 4)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"scale": 5}, PairError),
        ({"scale": 64, "crop": True}, PairError),
        ({"scale": 0}, ParameterError),
        ({"srf": None}, ParameterError),
        ({"srf": "nothing"}, ResponseError),
        ({"srf": "sentinel-2a:B12"}, ResponseError),
        ({"srf": np.ones((3, 5))}, PairError),
        ({"psf": "gaussian:0"}, ResponseError),
        ({"psf": np.ones((25, 25))}, ResponseError),
    ],
)
def test_what_simulate_refuses_is_refused_alike(
    words: dict[str, Any], error: type[Exception], tiny_scene: xr.DataArray
) -> None:
    given = {"srf": "rapideye", **words}
    with pytest.raises(error) as first:
        forecast(tiny_scene, **given)
    with pytest.raises(error) as second:
        api.simulate(tiny_scene, **given)
    assert str(first.value) == str(second.value)


def test_fitting_size() -> None:
    assert fitting_size(145, 150, 4) == (144, 148)
    assert fitting_size(144, 148, 4) == (144, 148)
    assert fitting_size(3, 3, 4) == (0, 0)


@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    "psf",
    ["bicubic", "box", "gauss3-bicubic", "gaussian:0.2", "gaussian:1.7", "gaussian:9", KERNEL],
    ids=str,
)
def test_the_effective_kernel_is_what_one_pixel_sees(psf: Any, ratio: int) -> None:
    found = effective_kernel(psf, ratio)
    assert found.weights.sum() == pytest.approx(1.0, abs=1e-12)
    for edge in (found.weights[[0, -1]], found.weights[:, [0, -1]].T):
        assert (np.abs(edge).max(axis=1) > 0).all()
    # independently: the pixel's answer to unit images
    rng = np.random.default_rng(3)
    side = ratio * (2 * int(np.ceil(40 / ratio)) + 1)
    image = rng.standard_normal((side, side))
    import torch

    middle = side // ratio // 2
    seen = spatial_operator(parse_psf(psf), (side, side), ratio).forward(torch.from_numpy(image))
    row, column = (middle * ratio + at for at in found.first)
    height, width = found.weights.shape
    part = image[row : row + height, column : column + width]
    assert float(seen[middle, middle]) == pytest.approx(float((part * found.weights).sum()))


def test_the_effective_kernel_of_a_box_and_of_a_phase() -> None:
    box = effective_kernel("box", 4)
    assert box.first == (0, 0)
    np.testing.assert_allclose(box.weights, np.full((4, 4), 1 / 16))
    moved = effective_kernel(PSF("kernel", kernel=np.ones((1, 1)), phase=6.0), 4)
    assert moved.first == (6, 6)
    note = {"kind": "kernel", "kernel": KERNEL.tolist(), "source": "k.npy", "border": "symmetric"}
    np.testing.assert_allclose(effective_kernel(note, 3).weights, KERNEL)


def test_the_effective_kernel_of_nonsense(tmp_path: Path) -> None:
    with pytest.raises(ResponseError, match="no such kernel file"):
        effective_kernel(str(tmp_path / "none.npy"), 4)
    with pytest.raises(ResponseError, match="pad it"):
        effective_kernel(np.ones((2, 3)), 4)
