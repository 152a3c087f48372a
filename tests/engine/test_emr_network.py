"""BAF-UNet and its variants: live parameters, tiles, sizes, and a plain implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from program import load_program

from napari_hsfusion.engine.emr.batch import Batch
from napari_hsfusion.engine.emr.config import NOISES, RESIDUALS, EmrConfig
from napari_hsfusion.engine.emr.model import EmrModel
from napari_hsfusion.engine.nets.baf_unet import ARCHITECTURES, BAFUNet, Layout
from napari_hsfusion.engine.nets.initialise import initialise
from napari_hsfusion.engine.nets.msgab import GroupAttentionBlock, tiles

PLAIN = load_program(Path(__file__).parents[2] / "benchmarks" / "emr_plain.py")
F64 = torch.float64


def model(heads: float = 0.1, **options: Any) -> EmrModel:
    """In double precision, its heads drawn at random."""
    given = {"bands": 5, "msi_bands": 2, "ratio": 4, "width": 4, "steps": 3, **options}
    made = EmrModel(EmrConfig(**given)).to(F64)
    generator = torch.Generator().manual_seed(3)
    initialise(made, generator)
    with torch.no_grad():
        for head in made.network.heads:
            for weight in head.parameters():
                weight.copy_(heads * torch.randn(weight.shape, generator=generator, dtype=F64))
    return made


def inputs(height: int, width: int, bands: int = 5, msi: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    return [
        torch.rand(1, k, height, width, dtype=F64, generator=generator) for k in (bands, msi, 1)
    ]


def weights(made: EmrModel) -> dict[str, torch.Tensor]:
    return {k.removeprefix("network."): v for k, v in made.state_dict().items()}


def batch(size: int = 32, ratio: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(8)

    def draw(bands: int, side: int) -> torch.Tensor:
        return torch.rand(2, bands, side, side, dtype=F64, generator=generator)

    return Batch(draw(5, size), draw(5, size // ratio), draw(5, size), draw(2, size), draw(1, size))


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_is_trained(architecture: str, residual: str) -> None:
    """Each value of each parameter gets a gradient: finite, and not zero."""
    made = model(architecture=architecture, residual=residual).train()
    # as large that every tap of the coarsest level's 7 x 7 kernels meets a pixel
    made.loss(batch(64).part(0, 1), torch.Generator().manual_seed(1)).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        live = parameter.grad != 0
        # a sum of the loss's signs, half of them negative, may be zero by chance
        assert bool(live.any() if "heads" in name and "bias" in name else live.all()), name


def test_a_new_network_begins_at_the_start_and_leaves_it() -> None:
    """Zero heads restore A_0 itself; the first step moves them, the second all the rest."""
    made = model(heads=0.0)
    up, msi, edges = inputs(16, 16)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        assert all(torch.equal(cube, up) for cube in made.restore(up, msi, edges, generator))
    before = {k: v.clone() for k, v in made.state_dict().items()}
    optimiser = torch.optim.Adam(made.parameters(), 1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        made.train().loss(batch(), generator).backward()
        optimiser.step()
    assert all(not torch.equal(v, before[k]) for k, v in made.state_dict().items())


@pytest.mark.parametrize(
    ("architecture", "residual", "noise"),
    [
        *((name, "multimodal", "edge-aware") for name in ARCHITECTURES),
        *(("baf-unet", residual, noise) for residual in RESIDUALS for noise in NOISES),
    ],
)
def test_restoration_is_the_plain_one(architecture: str, residual: str, noise: str) -> None:
    """Every step of the chain, on an image of odd sides, against code without a shortcut."""
    made = model(architecture=architecture, residual=residual, noise=noise).eval()
    up, msi, edges = inputs(21, 35)
    with torch.no_grad():
        ours = list(made.restore(up, msi, edges, torch.Generator().manual_seed(2)))
        plain = PLAIN.restore(
            weights(made), made.config, up, msi, edges, torch.Generator().manual_seed(2)
        )
        for mine, other in zip(ours, plain, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(ours[0], ours[-1])


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (15, 17), (16, 16), (33, 5)])
def test_any_size(size: tuple[int, int]) -> None:
    """Sides that are no multiples of 16, and images smaller than that."""
    made = model().eval()
    up, msi, edges = inputs(*size)
    with torch.no_grad():
        *_, ours = made.restore(up, msi, edges, torch.Generator().manual_seed(2))
        *_, plain = PLAIN.restore(
            weights(made), made.config, up, msi, edges, torch.Generator().manual_seed(2)
        )
    assert ours.shape == up.shape
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tile", [19, 48])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiles_change_nothing(architecture: str, tile: int) -> None:
    """Sizes that are no multiple of the tile; the averages are the scene's."""
    made = model(architecture=architecture, steps=2).eval()
    up, msi, edges = inputs(37, 50)
    with torch.no_grad():
        for whole, tiled in zip(
            made.restore(up, msi, edges, torch.Generator().manual_seed(2)),
            made.restore(up, msi, edges, torch.Generator().manual_seed(2), tile),
            strict=True,
        ):
            torch.testing.assert_close(tiled, whole, rtol=1e-10, atol=1e-10)


def test_blocks_mix_their_branches_by_averages_over_the_scene() -> None:
    """What is far beyond the halo counts: tiles by themselves would give something else."""
    block = GroupAttentionBlock(3, 4, 4, None).to(F64)
    initialise(block, torch.Generator().manual_seed(1))
    image = inputs(48, 48, bands=3)[0]
    image[..., 32:] *= 9
    with torch.no_grad():
        whole = block(image)
        torch.testing.assert_close(block(image, tile=16), whole, rtol=1e-12, atol=1e-12)
        alone = block(image[..., :32])
    assert not torch.allclose(alone[..., :16], whole[..., :16], atol=1e-6)


@pytest.mark.parametrize(("height", "width", "side", "reach"), [(7, 20, 8, 3), (16, 16, 4, 6)])
def test_tiles_cover_once(height: int, width: int, side: int, reach: int) -> None:
    seen = torch.zeros(height, width)
    image = torch.arange(height * width, dtype=F64).reshape(height, width)
    for read, inner, write in tiles(height, width, side, reach):
        seen[write] += 1
        assert torch.equal(image[read][inner], image[write])
        for r, w, n in zip(read, write, (height, width), strict=True):
            assert (r.start, r.stop) == (max(0, w.start - reach), min(n, w.stop + reach))
    assert bool((seen == 1).all())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_supervised_outputs(architecture: str) -> None:
    """Four scales in training where they are supervised; the finest alone in evaluation."""
    net = BAFUNet(Layout(5, 7, 4, architecture)).to(F64)
    state = torch.zeros(1, 5, 32, 48, dtype=F64)
    guide = net.encode(torch.zeros(1, 7, 32, 48, dtype=F64))
    times = torch.tensor([1])
    levels = range(4 if architecture not in ("baf-unet-s", "unet") else 1)
    shapes = [tuple(o.shape) for o in net.train()(state, guide, times)]
    assert shapes == [(1, 5, 32 // 2**k, 48 // 2**k) for k in levels]
    assert [tuple(o.shape) for o in net.eval()(state, guide, times)] == [(1, 5, 32, 48)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_time_stays_out_of_the_guidance(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guidance is encoded once a restoration; the rest of the network knows the time."""
    made = model(architecture=architecture, steps=5).eval()
    calls: list[int] = []
    encode, forward = BAFUNet.encode, BAFUNet.forward

    def count(name: int, function: Any) -> Any:
        def wrapped(self: BAFUNet, *args: Any) -> Any:
            calls.append(name)
            return function(self, *args)

        return wrapped

    monkeypatch.setattr(BAFUNet, "encode", count(0, encode))
    monkeypatch.setattr(BAFUNet, "forward", count(1, forward))
    up, msi, edges = inputs(16, 16)
    with torch.no_grad():
        list(made.restore(up, msi, edges, torch.Generator().manual_seed(0)))
    assert calls == [0, 1, 1, 1, 1, 1]
    assert not any(".time." in name for name, _ in made.named_parameters() if "guide." in name)
    guide = encode(made.network, torch.cat([up, msi], 1))
    state = torch.cat([up, msi], 1)
    with torch.no_grad():
        one, two = (forward(made.network, state, guide, torch.tensor([t]))[0] for t in (1, 4))
    assert not torch.allclose(one, two, atol=1e-6)


def test_images_of_a_batch_do_not_meet() -> None:
    """Two images with two times give what each gives alone."""
    made = model().eval()
    up, msi, _ = (torch.cat([i, i.flip(-1)]) for i in inputs(32, 16))
    state, times = torch.cat([up, msi], 1), torch.tensor([1, 3])
    with torch.no_grad():
        both = made.network(state, made.encode(state), times)[0]
        for i in range(2):
            part = state[i : i + 1]
            alone = made.network(part, made.encode(part), times[i : i + 1])[0]
            torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-10, atol=1e-10)
