"""What a run of EMR-Diff is expected to cost, against operations that are counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from napari_hsfusion.engine.emr.config import EmrConfig
from napari_hsfusion.engine.emr.cost import emr_cost, work_per_pixel
from napari_hsfusion.engine.memory import PLAIN, Economy
from napari_hsfusion.engine.methods import get_method
from napari_hsfusion.engine.nets.baf_unet import ARCHITECTURES, BAFUNet, Layout
from napari_hsfusion.params import EmrDiffParams

SHAPES = (31, 32, 32), (3, 256, 256)


def counted(net: BAFUNet, layout: Layout, side: int) -> int:
    """Multiply-adds of every convolution of one pass, by its inputs and outputs."""
    total = 0

    def count(layer: nn.Module, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        taps = layer.kernel_size[0] * layer.kernel_size[1]
        total += out.numel() * taps * layer.in_channels // layer.groups

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        guide = net.encode(torch.zeros(1, layout.guidance, side, side))
        net(torch.zeros(1, layout.state, side, side), guide, torch.tensor([1]))
    return total


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_work_is_counted_exactly(architecture: str) -> None:
    layout = Layout(5, 7, 6, architecture)
    found = counted(BAFUNet(layout).eval(), layout, 32)
    assert work_per_pixel(layout) * 32**2 == pytest.approx(found, rel=1e-12)


def test_samples_in_smaller_tiles_take_less() -> None:
    """Unless the parameters name a side."""
    estimate = get_method("emr-diff").sampling_estimator
    assert estimate is not None
    shapes, device = ((31, 64, 64), (3, 512, 512)), torch.device("cpu")

    def needed(params: EmrDiffParams, economy: Economy) -> float:
        return estimate(*shapes, params, device, 2, economy)["bytes"]

    params = EmrDiffParams()
    assert needed(params, Economy(tile=32)) < needed(params, PLAIN)
    told = EmrDiffParams(tile=64)
    assert needed(told, Economy(tile=32)) == needed(told, PLAIN)


def test_what_costs() -> None:
    """The design of the weights counts where there are some; tiles, steps and training do."""
    usual = EmrDiffParams()
    config = EmrConfig(bands=31, msi_bands=3, ratio=8, width=64, steps=10, start="bicubic")
    one = emr_cost(*SHAPES, usual, None, config)
    wide = emr_cost(*SHAPES, EmrDiffParams(train_on="pair", width=64, T=10, start="bicubic"))
    assert wide["sampling_seconds"] == one["sampling_seconds"]
    assert one["training_seconds"] == 0 < wide["training_seconds"]
    assert emr_cost(*SHAPES, EmrDiffParams(train_on="pair"), train=False)["training_seconds"] == 0
    base = emr_cost(*SHAPES, usual)
    for params, ratio in (
        (EmrDiffParams(consistency=False), (0.5, 1)),
        (EmrDiffParams(train_on="pair", T=10), (1.5, 2)),
        (EmrDiffParams(train_on="pair", start="bicubic"), (0.5, 1)),
        (EmrDiffParams(tile=64), (1.1, 1.5)),
        (EmrDiffParams(train_on="pair", residual="unimodal"), (0.8, 1)),
        (EmrDiffParams(train_on="pair", architecture="unet"), (0.1, 0.7)),
    ):
        share = emr_cost(*SHAPES, params)["sampling_seconds"] / base["sampling_seconds"]
        assert ratio[0] < share < ratio[1] + 1e-9, params
        assert share != 1, params
    assert emr_cost(*SHAPES, EmrDiffParams(tile=64))["bytes"] < base["bytes"]
    large = EmrDiffParams(train_on="pair", batch=64, patch=32)
    assert emr_cost(*SHAPES, large)["bytes"] > 1.5 * base["bytes"]
    cuda = emr_cost(*SHAPES, EmrDiffParams(train_on="pair"), torch.device("cuda"))
    cpu = emr_cost(*SHAPES, EmrDiffParams(train_on="pair"))
    assert cuda["seconds"] < 0.5 * cpu["seconds"]


@pytest.mark.parametrize(
    ("side", "measured"),
    [(128, (1.3, 113e6)), (256, (4.1, 235e6)), (512, (22.6, 508e6))],
)
def test_near_what_was_measured(side: int, measured: tuple[float, float]) -> None:
    """Within a factor of 2 of the processor's seconds, a fifth of the growth in memory.

    Of whole runs, by `benchmarks/estimates.py`: with one thread, weights of width 24 that
    start from the closed form, 31 and 3 bands, a ratio of 8.
    """
    config = EmrConfig(bands=31, msi_bands=3, ratio=8, width=24, start="subspace")
    shapes = (31, side // 8, side // 8), (3, side, side)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cost = emr_cost(*shapes, EmrDiffParams(), None, config)
    finally:
        torch.set_num_threads(threads)
    seconds, memory = measured
    assert 0.5 < cost["seconds"] / seconds < 2
    assert 0.8 < cost["bytes"] / memory < 1.2
