"""Number formats of the networks' passes: what is asked for is what is calculated in."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_pairs import CPU, observation
from torch import Tensor, nn

from napari_hsfusion.engine import precision as formats
from napari_hsfusion.engine.diffusion.proximal import Denoiser
from napari_hsfusion.engine.diffusion.published import sample_published
from napari_hsfusion.engine.events import CancelToken, Finished
from napari_hsfusion.engine.methods import get_method
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.nets.spectral_mlp import SpectralMLP
from napari_hsfusion.engine.nets.unet import SpatialUNet
from napari_hsfusion.engine.spread import drained
from napari_hsfusion.errors import ParameterError
from napari_hsfusion.params import ArgsDiffParams

CARD = torch.device("cuda", 0)
D, BANDS = 3, 9
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def _networks(device: torch.device = CPU) -> list[nn.Module]:
    generator = torch.Generator().manual_seed(5)
    nets = [
        initialise(SpatialUNet(D, 8, (1, 2), 1), generator),
        initialise(SpectralMLP(BANDS, (16, 32, 16), 8, 1000), generator),
    ]
    for net in nets:
        for weight in net.requires_grad_(False).eval().parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return [net.to(device) for net in nets]


def test_what_auto_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """tf32 where a training would take bfloat16; tf32 is refused where there is none."""
    for name in ("float32", "bfloat16"):
        assert formats.sampling_precision(name, CPU) == name
    assert formats.sampling_precision("auto", CPU) == "float32"
    with pytest.raises(ParameterError, match=r"tf32 is a format of graphics cards.*is on cpu"):
        formats.sampling_precision("tf32", CPU)
    for capability, expected in (((7, 5), "float32"), ((8, 0), "tf32"), ((9, 0), "tf32")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert formats.sampling_precision("auto", CARD) == expected
    assert formats.sampling_precision("tf32", CARD) == "tf32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(ParameterError, match="tf32"):
        formats.sampling_precision("tf32", CARD)


def _flags() -> list[Any]:
    return [getattr(owner, name) for owner, name, _ in formats._switches()]


def test_switches_of_the_process_are_put_back() -> None:
    """For a card alone, in blocks within blocks, after an error too."""
    before = _flags()
    with formats.arithmetic("tf32", CPU):
        assert _flags() == before
    with formats.arithmetic("tf32", CARD):
        inside = _flags()
        with formats.arithmetic("float32", CARD):
            assert _flags() != inside
        with formats.arithmetic("bfloat16", CARD):
            assert _flags() != inside
        assert _flags() == inside != before
        if hasattr(torch.backends.cudnn, "conv"):
            assert set(inside) == {"tf32"}
    with pytest.raises(ZeroDivisionError), formats.arithmetic("tf32", CARD):
        raise ZeroDivisionError
    assert _flags() == before


def test_switches_of_an_older_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.9 they are called allow_tf32."""
    cudnn, matmul = SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=False)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    with formats.arithmetic("tf32", CARD):
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (True, True)
        with formats.arithmetic("float32", CARD):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
    assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, True)


def _sampled(device: str, precision: str, **changes: Any) -> tuple[Tensor, dict[str, Any]]:
    """Cube of a short chain, and the record."""
    place = torch.device(device, 0) if device == "cuda" else CPU
    pair = observation()[1].prepare(place, torch.float32)
    params = replace(ArgsDiffParams(d=D, T=12, precision=precision), **changes)
    a, e, record = drained(
        sample_published(
            pair,
            *_networks(place),
            params,
            torch.Generator().manual_seed(0),
            CancelToken(),
        )
    )
    assert a.dtype == e.dtype == torch.float32
    return torch.tensordot(e.T, a, dims=1).cpu(), record


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gradient", ["x0", "network"])
def test_a_chain_in_bfloat16(gradient: str, device: str) -> None:
    """The cube is within 5 % of float32's, and not the same."""
    full, record = _sampled(device, "float32", gradient=gradient)
    assert record["sampling_precision"] == "float32"
    found, record = _sampled(device, "bfloat16", gradient=gradient)
    assert record["sampling_precision"] == "bfloat16"
    apart = float((found - full).norm() / full.norm())
    assert 1e-5 < apart < 0.05


@pytest.mark.gpu
@pytest.mark.parametrize("gradient", ["x0", "network"])
def test_a_chain_in_tf32(gradient: str) -> None:
    """The cube is within 1 % of float32's; auto is tf32 where the card has it."""
    full, _ = _sampled("cuda", "float32", gradient=gradient)
    found, record = _sampled("cuda", "auto", gradient=gradient)
    newer = torch.cuda.get_device_capability(CARD) >= (8, 0)
    assert record["sampling_precision"] == ("tf32" if newer else "float32")
    assert float((found - full).norm() / full.norm()) < 0.01


@pytest.mark.parametrize("device", DEVICES)
def test_a_denoiser_in_bfloat16(device: str) -> None:
    """The proximal sampler's network: the image's type comes back, its own stays."""
    place = torch.device(device, 0) if device == "cuda" else CPU
    network = _networks(place)[0]
    state = torch.rand((D, 16, 24), generator=torch.Generator().manual_seed(1)).to(place)
    full = Denoiser(network)(state, 0.05)
    found = Denoiser(network, precision="bfloat16")(state, 0.05)
    assert found.dtype == torch.float32
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    assert 1e-6 < float((found - full).norm() / full.norm()) < 1e-2


SMALL = {
    "published": {"T": 3, "spectral_steps": 2},
    "proximal": {"sampler": "proximal", "levels": 2, "weight": 0.1, "partitions": 1},
}


@pytest.mark.parametrize("sampler", SMALL)
def test_a_run_says_what_it_calculated_in(sampler: str) -> None:
    """Both samplers read the parameter; what the device lacks is refused before any work."""
    method = get_method("args-diff")
    params = ArgsDiffParams(
        d=D,
        spatial_base=8,
        spatial_levels=1,
        spatial_blocks=1,
        spatial_steps=2,
        spatial_batch=1,
        spatial_patch=8,
        precision="bfloat16",
        **SMALL[sampler],
    )
    cubes = []
    for name in ("auto", "bfloat16"):
        *_, done = method.run(observation()[1], replace(params, precision=name))
        assert isinstance(done, Finished)
        assert done.record["sampling_precision"] == ("float32" if name == "auto" else name)
        assert done.record["parameters"]["precision"] == name
        cubes.append(done.cube)
    assert abs(cubes[0] - cubes[1]).max() > 0
    run = method.run(observation()[1], replace(params, precision="tf32"))
    with pytest.raises(ParameterError, match="tf32"):
        next(run)
