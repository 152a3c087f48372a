"""Both networks, their training, and their life on disk."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_pairs import CPU, drain, problem
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from napari_hsfusion.engine import checkpoint, selflearning
from napari_hsfusion.engine.diffusion.schedules import exponential_schedule
from napari_hsfusion.engine.events import CancelToken
from napari_hsfusion.engine.nets.build import (
    spatial_network,
    spatial_work,
    spectral_network,
    spectral_work,
)
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.nets.spectral_mlp import SpectralMLP, published_widths
from napari_hsfusion.engine.nets.unet import SpatialUNet, sinusoidal_embedding
from napari_hsfusion.engine.noise_prediction import Budget, train_noise_predictor
from napari_hsfusion.errors import Cancelled, WeightsError, WriteError
from napari_hsfusion.params import ArgsDiffParams

SMALL = ArgsDiffParams(
    d=3, spatial_base=8, spatial_levels=2, spatial_blocks=1, spatial_steps=4, spectral_steps=5
)
SMALL = replace(SMALL, spatial_batch=2, spatial_patch=8, spatial_stride=4)


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _obtain(folder: Path | None = None, seed: int = 0, params: ArgsDiffParams = SMALL):
    return drain(
        selflearning.obtain_networks(
            problem(),
            params,
            spectral=True,
            highest=None,
            folder=folder,
            seed=seed,
            device=CPU,
            dtype=torch.float64,
            cancel=CancelToken(),
        )
    )


def test_published_size() -> None:
    """20.7 million parameters at d = 8; with the largest spectral network under 21.9."""
    with torch.device("meta"):
        spatial = SpatialUNet(8)
        spectral = SpectralMLP(176, *published_widths(176), 1000)
    assert _count(spatial) == pytest.approx(20.7e6, rel=0.005)
    assert _count(spatial) + _count(spectral) < 21.9e6


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        (48, ((128, 256, 128), 30)),
        (103, ((256, 512, 256), 60)),
        (128, ((256, 512, 256), 70)),
        (176, ((400, 800, 400), 100)),
    ],
)
def test_published_widths(bands: int, expected: tuple[tuple[int, int, int], int]) -> None:
    """The four published sizes; any other band count gets one too."""
    assert published_widths(bands) == expected
    for other in (1, 4, 31, 224, 426):
        hidden, table = published_widths(other)
        assert min(hidden) >= 128
        assert table >= 8


@pytest.mark.parametrize("size", [(8, 8), (13, 21), (5, 32)])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_unet_takes_any_size(size: tuple[int, int], levels: int) -> None:
    """Output as large as the input; every parameter gets a gradient."""
    generator = torch.Generator().manual_seed(0)
    net = initialise(SpatialUNet(5, 8, tuple(range(1, levels + 1)), 1), generator)
    state = torch.randn((2, 5, *size), generator=generator)
    # a second step: the blocks' last convolutions start at zero and hide what is before them
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        out = net(state, torch.tensor([3, 700]))
        assert out.shape == state.shape
        out.square().sum().backward()
        optimiser.step()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name


def test_networks_use_the_time() -> None:
    """Other times give other answers."""
    generator = torch.Generator().manual_seed(0)
    net = initialise(SpectralMLP(7, (8, 8, 8), 4, 1000), generator)
    state = torch.randn((2, 7), generator=generator)
    a, b = net(state, torch.tensor([3, 3])), net(state, torch.tensor([3, 900]))
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[1], b[1])
    embedding = sinusoidal_embedding(torch.tensor([5]), 8)[0]
    angles = [5 * 10_000 ** (-k / 4) for k in range(4)]
    expected = [math.cos(v) for v in angles] + [math.sin(v) for v in angles]
    torch.testing.assert_close(embedding, torch.tensor(expected, dtype=torch.float64))


def test_initialisation_touches_no_global_state() -> None:
    """The same generator gives the same weights; torch's own is not moved."""
    before = torch.get_rng_state()
    _, (first, _, _) = _obtain(seed=3)
    _, (second, _, _) = _obtain(seed=3)
    _, (other, _, _) = _obtain(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)
    )
    with pytest.raises(TypeError, match="LSTM"):
        initialise(nn.LSTM(2, 2), torch.Generator())


class _Scale(nn.Module):
    """One weight: predicts the noise as a multiple of the state."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def forward(self, state: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return self.weight * state


@pytest.mark.parametrize("decay", [False, True])
def test_training_against_a_plain_loop(decay: bool) -> None:
    """Losses and the averaged weight equal those of a loop written out."""
    table = exponential_schedule()
    clean = torch.full((6, 4), 0.3, dtype=torch.float64)
    budget = Budget(steps=12, batch=6, rate=0.05, decay=decay, average=0.6)
    steps, net = drain(
        train_noise_predictor(
            _Scale(),
            lambda count, generator: clean[:count],
            table,
            budget,
            stage="train",
            generator=torch.Generator().manual_seed(9),
            device=CPU,
            dtype=torch.float64,
            cancel=CancelToken(),
        )
    )
    generator = torch.Generator().manual_seed(9)
    weight, m, v, average = 0.2, 0.0, 0.0, 0.0
    for n in range(1, 13):
        times = torch.randint(1000, (6,), generator=generator)
        noise = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        level = torch.as_tensor(table[1:])[times][:, None]
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        assert steps[n - 1].loss == pytest.approx(float(((weight * noisy - noise) ** 2).mean()))
        gradient = float((2 * (weight * noisy - noise) * noisy).mean())
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rate = 0.05 * (1 - (n - 1) / 12) if decay else 0.05
        weight -= rate * (m / (1 - 0.9**n)) / (math.sqrt(v / (1 - 0.999**n)) + 1e-8)
        keep = 0.0 if n == 1 else min(0.6, n / (9 + n))
        average = keep * average + (1 - keep) * weight
    assert isinstance(net, _Scale)
    assert float(net.weight) == pytest.approx(average, rel=1e-6)
    assert [s.index for s in steps] == list(range(1, 13))
    assert not net.weight.requires_grad


def test_training_learns() -> None:
    """The loss falls well below that of predicting nothing."""
    params = replace(SMALL, spatial_steps=150, spatial_rate=3e-3, spatial_batch=8)
    steps, _ = _obtain(params=params)
    losses = [s.loss for s in steps if s.stage == "train spatial network"]
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])


def test_training_can_be_cancelled_at_any_step() -> None:
    """The token is looked at before every step."""
    token = CancelToken()
    run = selflearning.obtain_networks(
        problem(),
        SMALL,
        spectral=True,
        highest=None,
        folder=None,
        seed=0,
        device=CPU,
        dtype=torch.float64,
        cancel=token,
    )
    next(run)
    token.cancel()
    with pytest.raises(Cancelled):
        next(run)


def test_patches_are_bands_of_the_image() -> None:
    """Every channel of a sample is a band's patch, on the grid, mirrored or not."""
    image = torch.arange(2 * 10 * 12, dtype=torch.float64).reshape(2, 10, 12)
    generator = torch.Generator().manual_seed(0)
    windows = {
        tuple(image[b, y : y + 4, x : x + 4].flatten().tolist())
        for b in range(2)
        for y in (0, 3, 6)
        for x in (0, 3, 6, 8)
    }
    seen = set()
    for patch in selflearning.patch_sampler(image, 3, 4, 3, False)(50, generator):
        for channel in patch:
            seen.add(tuple(channel.flatten().tolist()))
    assert seen == windows
    flipped = selflearning.patch_sampler(image, 1, 4, 3, True)(200, generator)
    kinds = {tuple(p.flatten().tolist()) for p in flipped[:, 0]}
    turned = {
        tuple(torch.tensor(w).reshape(4, 4).rot90(k).flatten().tolist())
        for w in windows
        for k in range(4)
    }
    mirrored = {tuple(torch.tensor(w).reshape(4, 4).flip(0).flatten().tolist()) for w in turned}
    assert kinds <= turned | mirrored
    assert not kinds <= windows
    small = selflearning.patch_sampler(image, 2, 64, 5, True)(3, generator)
    assert small.shape == (3, 2, 10, 12)


def test_spectra_are_pixels() -> None:
    """The spectral network sees valid pixel spectra and nothing else."""
    spectra = torch.arange(12.0).reshape(3, 4)
    drawn = selflearning.spectrum_sampler(spectra)(40, torch.Generator().manual_seed(0))
    assert {tuple(s.tolist()) for s in drawn} == {tuple(s.tolist()) for s in spectra.T}


def test_networks_are_saved_and_reused(tmp_path: Path) -> None:
    """A second run trains nothing and gets the same weights."""
    folder = tmp_path / "nets"
    trained, (spatial, spectral, origin) = _obtain(folder)
    training = {"spatial": {"steps": 4}, "spectral": {"steps": 5}}
    assert origin == {
        "networks_loaded": False,
        "networks_cached": False,
        "networks_training": training,
    }
    assert sorted(p.name for p in folder.iterdir()) == [
        "networks.json",
        "spatial.safetensors",
        "spectral.safetensors",
    ]
    again, (spatial2, spectral2, origin) = _obtain(folder, seed=77)
    assert origin == {
        "networks_loaded": True,
        "networks_seed": 0,
        "networks_of_this_pair": True,
        "networks_training": training,
    }
    assert len(trained) == 9
    assert again == []
    for first, second in ((spatial, spatial2), (spectral, spectral2)):
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)


def test_networks_know_whether_the_images_were_denoised() -> None:
    """Those of the proximal sampler, that is: the published one reads the images as they are."""
    noisy = replace(SMALL, sampler="proximal", denoise=False)
    assert selflearning.requirements(noisy, problem(), False, 0.1)["denoise"] is False
    assert (
        selflearning.requirements(replace(noisy, denoise=True), problem(), False, 0.1)["denoise"]
        is True
    )
    assert "denoise" not in selflearning.requirements(SMALL, problem(), True, None)


def test_saved_networks_that_do_not_fit(tmp_path: Path) -> None:
    """Another architecture, truncated weights, a damaged or later header: each is refused."""
    _obtain(tmp_path)
    with pytest.raises(WeightsError, match="d = 3, this run needs 2"):
        _obtain(tmp_path, params=replace(SMALL, d=2))
    with pytest.raises(WeightsError, match="spatial_steps = 4, this run needs 9"):
        _obtain(tmp_path, params=replace(SMALL, spatial_steps=9))
    weights = tmp_path / "spatial.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"spatial\.safetensors: these weights do not fit"):
        _obtain(tmp_path)
    weights.unlink()
    with pytest.raises(WeightsError, match="spatial"):
        _obtain(tmp_path)
    header = tmp_path / "networks.json"
    header.write_text(json.dumps({"format": 99}))
    with pytest.raises(WeightsError, match="format 1, got 99"):
        _obtain(tmp_path)
    header.write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        _obtain(tmp_path)


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    """The error comes before the first step."""
    blocked = tmp_path / "file"
    blocked.write_text("here")
    run = selflearning.obtain_networks(
        problem(),
        SMALL,
        spectral=True,
        highest=None,
        folder=blocked / "nets",
        seed=0,
        device=CPU,
        dtype=torch.float64,
        cancel=CancelToken(),
    )
    with pytest.raises(WriteError, match="cannot be saved"):
        next(run)


def test_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be made is an error; an interrupted write leaves no stray file."""
    blocked = tmp_path / "file"
    blocked.write_text("here")
    with pytest.raises(WriteError, match="cannot be saved"):
        checkpoint.save_networks(blocked / "nets", {}, {})

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "replace", broken)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_networks(tmp_path / "nets", {"a": nn.Linear(1, 1)}, {})
    assert list((tmp_path / "nets").iterdir()) == []


@pytest.mark.parametrize(("base", "levels", "blocks"), [(8, 1, 1), (16, 2, 1), (16, 4, 2)])
def test_work_is_what_torch_counts(base: int, levels: int, blocks: int) -> None:
    """The estimate of multiply-adds is within a per cent of torch's operation counter.

    That of the network as it is written down; on the CPU upsampling takes fewer.
    """
    params = ArgsDiffParams(d=6, spatial_base=base, spatial_levels=levels, spatial_blocks=blocks)
    net = spatial_network(params)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 6, 32, 32), torch.tensor([1]))
    assert counter.get_total_flops() / 2 <= 1.01 * spatial_work(params, 32 * 32)
    net.to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 6, 32, 32, device="meta"), torch.tensor([1], device="meta"))
    assert spatial_work(params, 32 * 32) == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
    spectral = spectral_network(40)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        spectral(torch.zeros(1, 40), torch.tensor([1]))
    assert spectral_work(40) == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
