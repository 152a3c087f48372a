"""ARGS-Diff's engine against the plain implementation that it is timed against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from program import load_program
from small_pairs import CPU, problem
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from napari_hsfusion.engine.device import sent
from napari_hsfusion.engine.diffusion.published import PublishedSampler
from napari_hsfusion.engine.diffusion.schedules import exponential_schedule
from napari_hsfusion.engine.events import CancelToken
from napari_hsfusion.engine.nets import unet
from napari_hsfusion.engine.nets.frozen import (
    channels_last_silu,
    convolution,
    recomputed_silu,
)
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.nets.spectral_mlp import SpectralMLP
from napari_hsfusion.engine.nets.unet import SpatialUNet, upsampled_convolution
from napari_hsfusion.engine.noise_prediction import Budget, train_noise_predictor
from napari_hsfusion.engine.observation import Problem
from napari_hsfusion.engine.selflearning import patch_sampler, spectrum_sampler
from napari_hsfusion.params import ArgsDiffParams

PLAIN = load_program(Path(__file__).parents[2] / "benchmarks" / "args_plain.py")
D = 3
TIGHT = {"rtol": 1e-10, "atol": 1e-12}
GRADIENTS = ("x0", "network")


def _awake(network: nn.Module, seed: int = 5) -> nn.Module:
    """Weights of which none is zero, in float64."""
    generator = torch.Generator().manual_seed(seed)
    initialise(network, generator).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return network


def _networks(bands: int) -> tuple[nn.Module, nn.Module]:
    nets = _awake(SpatialUNet(D, 8, (1, 2), 1)), _awake(SpectralMLP(bands, (16, 32, 16), 8, 1000))
    return nets[0].requires_grad_(False), nets[1].requires_grad_(False)


def _both(pair: Problem, gradient: str, seed: int = 3) -> tuple[PublishedSampler, Any]:
    spatial, spectral = _networks(len(pair.x))
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn((D, *pair.y.shape[1:]), generator=generator, dtype=torch.float64)
    e = torch.randn((D, len(pair.x)), generator=generator, dtype=torch.float64)
    params = ArgsDiffParams(d=D, gradient=gradient)
    rows, columns = (torch.as_tensor(axis.matrix) for axis in pair.spatial.terms[0])
    plain = PLAIN.Sampler(
        PLAIN.Pair(pair.x, pair.y, rows, columns, pair.response),
        spatial.state_dict(),
        spectral.state_dict(),
        a,
        e,
        through=gradient == "network",
    )
    return PublishedSampler(pair, spatial, spectral, params, a, e), plain


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_agree(gradient: str) -> None:
    """Predictions, loss and both gradients to 1e-10, at early, middle and last times."""
    ours, plain = _both(problem(), gradient)
    for time in (999, 500, 20, 0):
        loss, grad_a, grad_e = ours.gradient(time)
        mine = (ours.a_clean, ours.e_clean, loss, grad_a, grad_e)
        for one, other in zip(mine, plain.gradient(time), strict=True):
            torch.testing.assert_close(one, other, **TIGHT)
        if time < 999:  # where everything is clipped, nothing comes through the networks
            assert all(float(g.abs().max()) > 0 for g in (grad_a, grad_e))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_step_agrees(gradient: str) -> None:
    """The sample after a step, Adam and the residual module included."""
    ours, plain = _both(problem(), gradient)
    loss = ours.step(700, 690)
    assert float(loss) == pytest.approx(plain.step(700, 690), rel=1e-12)
    torch.testing.assert_close(ours.a, plain.a, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.e, plain.e, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, D, 16, 24), (1, D, 13, 18), (3, D, 8, 8), (2, D, 11, 9)])
@pytest.mark.parametrize("levels", [(1,), (1, 2), (1, 2, 3)])
def test_the_spatial_network_agrees(shape: tuple[int, ...], levels: tuple[int, ...]) -> None:
    """Output, and gradients of images and weights, with and without a graph."""
    network = _awake(SpatialUNet(D, 8, levels, 2))
    generator = torch.Generator().manual_seed(1)
    state = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    times = torch.arange(shape[0]) * 300
    weights = {name: w.detach().clone().requires_grad_() for name, w in network.named_parameters()}
    expected = PLAIN.spatial(weights, state, times)
    with torch.no_grad():
        torch.testing.assert_close(network(state, times), expected.detach(), **TIGHT)
    got = network(state, times)
    torch.testing.assert_close(got, expected, **TIGHT)
    pull = torch.randn(shape, generator=generator, dtype=torch.float64)
    mine = torch.autograd.grad(got, (state, *network.parameters()), pull)
    theirs = torch.autograd.grad(expected, (state, *weights.values()), pull)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_a_call_leaves_its_input_alone() -> None:
    """Activations overwrite their own input without a graph, never the caller's image."""
    network = _awake(SpatialUNet(D, 8, (1, 2), 1))
    state = torch.randn((1, D, 8, 8), dtype=torch.float64, generator=torch.Generator())
    state = state.contiguous(memory_format=torch.channels_last)
    before = state.clone()
    with torch.no_grad():
        first = network(state, torch.zeros(1, dtype=torch.long))
        again = network(state, torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(state, before, rtol=0, atol=0)
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_upsampling_within_the_convolution() -> None:
    """Borders included; every tap counts."""
    generator = torch.Generator().manual_seed(0)
    layer = _awake(nn.Conv2d(4, 5, 3, padding=1))
    assert isinstance(layer, nn.Conv2d)
    image = torch.randn((2, 4, 5, 7), generator=generator, dtype=torch.float64)
    expected = layer(functional.interpolate(image, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(upsampled_convolution(layer, image), expected, **TIGHT)


@pytest.mark.parametrize("sides", [(16, 16), (13, 18)])
@pytest.mark.parametrize("last", [False, True])
def test_what_a_frozen_network_keeps(
    sides: tuple[int, int], last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen weights: the same gradient of the image, and no input of a convolution kept."""
    if last:  # as for large images
        monkeypatch.setattr(unet, "_LARGE", 0)
    network = _awake(SpatialUNet(D, 8, (1, 2), 1))
    generator = torch.Generator().manual_seed(1)
    state = torch.randn((1, D, *sides), generator=generator, dtype=torch.float64).requires_grad_()
    gradients, kept = [], []
    for free in (True, False):
        network.requires_grad_(free)
        storages: dict[int, Tensor] = {}

        def pack(tensor: Tensor, storages: dict[int, Tensor] = storages) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = network(state, torch.tensor([400]))
        columns = [
            t.is_contiguous(memory_format=torch.channels_last)
            for t in storages.values()
            if t.ndim == 4 and min(t.shape[1:]) > 3
        ]
        assert any(columns) == (last and not free)
        gradients.append(torch.autograd.grad(out.square().sum(), state)[0])
        images = [t for t in storages.values() if t.ndim == 4 and t.shape[0] == 1]
        kept.append(sum(t.untyped_storage().nbytes() for t in images))
    torch.testing.assert_close(gradients[1], gradients[0], **TIGHT)
    assert kept[1] < 0.75 * kept[0]


def test_an_activation_worked_out_again() -> None:
    """The gradient of the normalised SiLU, against differences and torch's own."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randn((2, 4, 3, 5), generator=generator, dtype=torch.float64).requires_grad_()
    weight, bias = torch.rand((2, 4), generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: recomputed_silu(x, 2, weight, bias, 1e-5), image)
    expected = functional.silu(functional.group_norm(image, 2, weight, bias, 1e-5))
    torch.testing.assert_close(recomputed_silu(image, 2, weight, bias, 1e-5), expected, **TIGHT)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_an_activation_with_channels_last(groups: int) -> None:
    """The gradient written out, against differences and torch's own; away from zero mean."""
    generator = torch.Generator().manual_seed(1)
    image = 2.0 + torch.randn((2, 6, 3, 5), generator=generator, dtype=torch.float64)
    image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.rand((2, 6), generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: channels_last_silu(x, groups, weight, bias, 1e-5), image
    )
    expected = functional.silu(functional.group_norm(image, groups, weight, bias, 1e-5))
    got = channels_last_silu(image, groups, weight, bias, 1e-5)
    torch.testing.assert_close(got, expected, **TIGHT)
    assert got.is_contiguous(memory_format=torch.channels_last)
    pull = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    mine, theirs = (torch.autograd.grad(out, image, pull)[0] for out in (got, expected))
    torch.testing.assert_close(mine, theirs, **TIGHT)
    assert mine.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (1, 1), (3, 2)])
def test_the_gradient_of_a_frozen_convolution(taps: int, stride: int, last: bool) -> None:
    """At even and odd sides; in the image's own format."""
    generator = torch.Generator().manual_seed(2)
    layer = _awake(nn.Conv2d(4, 6, taps, stride, taps // 2)).requires_grad_(False)
    assert isinstance(layer, nn.Conv2d)
    for shape in ((1, 4, 7, 10), (2, 4, 6, 9)):
        image = torch.randn(shape, generator=generator, dtype=torch.float64)
        if last:
            image = image.contiguous(memory_format=torch.channels_last)
        image.requires_grad_()
        got, expected = convolution(layer, image), layer(image)
        pull = torch.randn(got.shape, generator=generator, dtype=torch.float64)
        mine, theirs = (torch.autograd.grad(out, image, pull)[0] for out in (got, expected))
        torch.testing.assert_close(got, expected, **TIGHT)
        torch.testing.assert_close(mine, theirs, **TIGHT)
        assert not last or mine.is_contiguous(memory_format=torch.channels_last)


class _Watch(TorchDispatchMode):
    """Counts reads of single values, and keeps the largest tensor that any call gives."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.numel())
        return out


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_step_reads_nothing_and_never_builds_the_cube(gradient: str) -> None:
    """No value goes to the host within a step; the plain one builds the cube, this one not."""
    pair = problem(bands=60)
    ours, plain = _both(pair, gradient)
    cube = 60 * pair.y[0].numel()
    with _Watch() as watch:
        ours.step(500, 498)
    assert watch.reads == 0
    assert watch.largest < cube
    with _Watch() as watch:
        plain.step(500, 498)
    assert watch.reads > 0
    assert watch.largest >= cube


def _training(network: str, steps: int) -> tuple[nn.Module, Callable[..., Any], Any, int]:
    pair = problem()
    net = _networks(len(pair.x))[0 if network == "spatial" else 1].requires_grad_(True)
    image = 2 * (pair.y if network == "spatial" else pair.x) - 1
    draw = (
        patch_sampler(image, D, 8, 1, False)
        if network == "spatial"
        else spectrum_sampler(image.flatten(1))
    )
    return net, draw, image, steps


@pytest.mark.parametrize("network", ["spatial", "spectral"])
def test_training_agrees(network: str) -> None:
    """Losses and averaged weights of both, from the same seed."""
    net, draw, image, steps = _training(network, 6)
    start = {name: w.clone() for name, w in net.state_dict().items()}
    wanted, losses = PLAIN.train(
        start, network, image, steps, 4, 8, 1e-3, torch.Generator().manual_seed(7)
    )
    run = train_noise_predictor(
        net,
        draw,
        exponential_schedule(),
        Budget(steps, 4, 1e-3, True, 0.999),
        stage="train",
        generator=torch.Generator().manual_seed(7),
        device=CPU,
        dtype=torch.float64,
        cancel=CancelToken(),
    )
    got = []
    while True:
        try:
            got.append(next(run).loss)
        except StopIteration as stop:
            averaged = stop.value.state_dict()
            break
    assert got == pytest.approx(losses, rel=1e-9)
    for name, weight in wanted.items():
        torch.testing.assert_close(averaged[name], weight.detach(), rtol=0, atol=1e-7)
        assert not torch.equal(start[name], averaged[name])


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_step_does_not_wait_for_the_gpu(gradient: str) -> None:
    """torch itself watches for synchronisation."""
    device = torch.device("cuda", 0)
    spatial, spectral = (net.float().to(device) for net in _networks(9))
    small = problem()
    move = {name: getattr(small, name).float().to(device) for name in ("x", "y")}
    pair = type(small)(**{**small.__dict__, **move})
    pair.__dict__.pop("response", None)
    a, e = torch.randn((D, 16, 24), device=device), torch.randn((D, 9), device=device)
    params = ArgsDiffParams(d=D, gradient=gradient)
    sampler = PublishedSampler(pair, spatial, spectral, params, a, e)
    sampler.step(700, 690)  # operators go to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = sampler.step(690, 680)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)


@pytest.mark.gpu
def test_training_does_not_wait_for_the_gpu() -> None:
    """Steps between two looks at the loss."""
    device = torch.device("cuda", 0)
    net, draw, _, steps = _training("spatial", 30)
    run = train_noise_predictor(
        net.float().to(device),
        draw,
        exponential_schedule(),
        Budget(steps, 4, 1e-3, True, 0.999),
        stage="train",
        generator=torch.Generator().manual_seed(7),
        device=device,
        dtype=torch.float32,
        cancel=CancelToken(),
    )
    next(run)
    next(run)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert [next(run).loss for _ in range(5)] == [None] * 5
    finally:
        torch.cuda.set_sync_debug_mode("default")
        run.close()


@pytest.mark.gpu
def test_sending_keeps_the_values() -> None:
    values = torch.arange(5.0)
    assert sent(values, torch.device("cuda", 0)).cpu().tolist() == values.tolist()
