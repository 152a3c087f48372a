"""The training objective of EMR-Diff, transcribed; designs of models; seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from program import load_program

from napari_hsfusion.engine.emr.batch import Batch
from napari_hsfusion.engine.emr.config import RESIDUALS, EmrConfig
from napari_hsfusion.engine.emr.model import EmrModel, pad_to
from napari_hsfusion.engine.operators import SpatialDegradation
from napari_hsfusion.errors import WeightsError

PLAIN = load_program(Path(__file__).parents[2] / "benchmarks" / "emr_plain.py")
F64 = torch.float64


def model(**options: Any) -> EmrModel:
    """In double precision, its weights drawn at random."""
    given = {"bands": 4, "msi_bands": 2, "ratio": 8, "width": 4, "steps": 3, **options}
    made = EmrModel(EmrConfig(**given)).to(F64)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator, dtype=F64))
    return made


def batch(ratio: int, height: int, width: int) -> Batch:
    generator = torch.Generator().manual_seed(8)

    def draw(bands: int, by: int = 1) -> torch.Tensor:
        return torch.rand(2, bands, height // by, width // by, dtype=F64, generator=generator)

    coarse = draw(4, ratio)
    up = SpatialDegradation.bicubic((height, width), ratio).upsample(coarse)
    return Batch(draw(4), coarse, up, draw(2), draw(1))


def enlarged(image: np.ndarray, ratio: int) -> np.ndarray:
    """Cubic interpolation (Keys, a = -0.5) of the last two axes, pixel by pixel; mirrored."""

    def along(rows: np.ndarray) -> np.ndarray:
        out = np.zeros((len(rows) * ratio, *rows.shape[1:]))
        for i in range(len(out)):
            at = (i + 0.5) / ratio - 0.5
            for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
                t = abs(at - j)
                near = 1.5 * t**3 - 2.5 * t**2 + 1
                far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
                k = -1 - j if j < 0 else min(j, 2 * len(rows) - 1 - j)
                out[i] += (near if t <= 1 else far if t < 2 else 0.0) * rows[k]
        return out

    for axis in (-2, -1):
        image = np.moveaxis(along(np.moveaxis(image, axis, 0)), 0, axis)
    return image


def transcribed(made: EmrModel, part: Batch, seed: int) -> float:
    """METHODS' equation: the loss of a batch at the times and with the noise of a seed."""
    config = made.config
    generator = torch.Generator().manual_seed(seed)
    times = torch.randint(1, config.steps + 1, (len(part),), generator=generator)
    weights = {k.removeprefix("network."): v for k, v in made.state_dict().items()}
    x_0 = part.clean
    if config.residual != "unimodal":
        x_0 = torch.cat([x_0, x_0[:, list(config.pseudo)]], 1)
    noise = torch.randn(x_0.shape, generator=generator, dtype=F64) * part.edges
    # A_0 at every scale
    starts = []
    for k in range(4):
        by = 2**k
        up = part.up[..., ::by, ::by]
        if config.start == "bicubic" and config.ratio % by == 0:
            up = torch.as_tensor(enlarged(part.coarse.numpy(), config.ratio // by))
        if by == config.ratio and config.start == "bicubic":
            assert torch.equal(up, part.coarse)
        both = [up] if config.residual == "unimodal" else [up, part.msi[..., ::by, ::by]]
        starts.append(torch.cat(both, 1) * (config.residual != "none"))
    eta = PLAIN.schedule(config.steps, config.kappa)
    total = 0.0
    for i, t in enumerate(times.tolist()):
        x, a, n = x_0[i : i + 1], starts[0][i : i + 1], noise[i : i + 1]
        x_t = x + eta[t] * (a - x) + config.kappa * eta[t] ** 0.5 * n
        guidance = torch.cat([part.up, part.msi], 1)[i : i + 1]
        for k, output in enumerate(PLAIN.network(weights, x_t, guidance, t)):
            wanted = x[..., :: 2**k, :: 2**k]
            output = output[..., : wanted.shape[-2], : wanted.shape[-1]]
            error = (output + starts[k][i : i + 1] - wanted).abs().mean()
            total += float(error) / len(part)
    return total


@pytest.mark.parametrize(
    ("options", "size"),
    [
        *(({"residual": residual}, (16, 32)) for residual in RESIDUALS),
        ({"ratio": 4, "pseudo": (3, 1)}, (16, 32)),
        ({"ratio": 3}, (15, 27)),
        ({"start": "subspace", "kappa": 0.7, "steps": 5}, (24, 40)),
        ({"architecture": "baf-unet-s"}, (16, 32)),
        ({"architecture": "unet", "residual": "unimodal"}, (16, 32)),
    ],
)
def test_loss_as_it_is_written(options: dict[str, Any], size: tuple[int, int]) -> None:
    """Four scales, the coarsest from the LR-HSI itself; every image at its own time."""
    made = model(**options).train()
    part = batch(made.config.ratio, *size)
    seen = set()
    for seed in range(3):
        with torch.no_grad():
            loss = float(made.loss(part, torch.Generator().manual_seed(seed)))
            wanted = transcribed(made, part, seed)
        assert loss == pytest.approx(wanted, rel=1e-9)
        seen.add(round(loss, 9))
    assert len(seen) == 3


def test_perfect_predictions_cost_nothing() -> None:
    """A network that gives x_0 - A_0 at every scale has no loss, whatever its state."""
    made = model().train()
    part = batch(8, 32, 16)
    changes = []
    for k in range(4):
        by = 2**k
        up = torch.as_tensor(enlarged(part.coarse.numpy(), 8 // by))
        x_0 = torch.cat([part.clean, part.clean[:, :2]], 1)[..., ::by, ::by]
        changes.append(x_0 - torch.cat([up, part.msi[..., ::by, ::by]], 1))
    made.network.forward = lambda *_: changes
    assert float(made.loss(part, torch.Generator().manual_seed(0))) == pytest.approx(0, abs=1e-12)
    made.network.forward = lambda *_: [c + 0.25 for c in changes]
    assert float(made.loss(part, torch.Generator().manual_seed(0))) == pytest.approx(1, rel=1e-9)


def test_times_are_all_drawn() -> None:
    """Every time from 1 to T, evenly, and a seed gives the same ones."""
    made = model(steps=4).train()
    part = batch(8, 16, 16)
    drawn: list[int] = []

    def spy(state: torch.Tensor, guide: Any, times: torch.Tensor, tile: int = 0) -> Any:
        drawn.extend(times.tolist())
        return [torch.zeros_like(state)]

    made.network.encode = lambda *_: []
    made.network.forward = spy
    generator = torch.Generator().manual_seed(5)
    for _ in range(150):
        made.loss(part, generator)
    assert sorted(set(drawn)) == [1, 2, 3, 4]
    assert min(drawn.count(t) for t in range(1, 5)) > 45


def test_seeds() -> None:
    """The same seed gives the same bits, another another cube; without edges there is no noise."""
    made = model().eval()
    generator = torch.Generator().manual_seed(0)
    up, msi, edges = (torch.rand(1, k, 16, 24, dtype=F64, generator=generator) for k in (4, 2, 1))

    def cube(seed: int, edges: torch.Tensor = edges) -> torch.Tensor:
        with torch.no_grad():
            return list(made.restore(up, msi, edges, torch.Generator().manual_seed(seed)))[-1]

    assert torch.equal(cube(1), cube(1))
    assert not torch.allclose(cube(1), cube(2))
    none = torch.zeros_like(edges)
    assert torch.equal(cube(1, none), cube(2, none))


def test_state_and_start() -> None:
    """The pseudo-MSI stands where the HR-MSI stands in the start; none starts from zero."""
    clean, up, msi = (torch.rand(1, k, 3, 3) for k in (4, 4, 2))
    made = model(pseudo=(3, 0))
    assert torch.equal(made.target(clean), torch.cat([clean, clean[:, 3:], clean[:, :1]], 1))
    assert torch.equal(made.begin(up, msi), torch.cat([up, msi], 1))
    alone = model(residual="unimodal")
    assert torch.equal(alone.target(clean), clean)
    assert torch.equal(alone.begin(up, msi), up)
    none = model(residual="none")
    assert none.target(clean).shape == (1, 6, 3, 3)
    assert not none.begin(up, msi).any()
    assert torch.equal(pad_to(clean, 3), clean)
    padded = pad_to(clean, 4)
    assert torch.equal(padded[..., :3, :3], clean)
    assert torch.equal(padded[..., 3, 3], clean[..., 2, 2])


def test_designs() -> None:
    """Options that cannot be are refused by name; a record comes back."""
    config = EmrConfig(bands=2, msi_bands=3, ratio=4, width=8)
    assert config.pseudo == (0, 1, 0)
    assert (config.state, config.layout.guidance) == (5, 5)
    assert EmrConfig.from_record(config.to_record()) == config
    assert EmrConfig(bands=31, msi_bands=3, ratio=8, width=34, pseudo=(0, 14, 30)).state == 34
    good = {"bands": 4, "msi_bands": 2, "ratio": 4, "width": 8}
    for change, words in (
        ({"bands": 0}, "bands: expected a whole number of at least 1, got 0"),
        ({"width": 2.5}, "width: expected a whole number"),
        ({"steps": True}, "T: expected a whole number"),
        ({"kappa": 0.0}, "kappa: expected a number above 0, got 0"),
        ({"kappa": float("nan")}, "kappa: expected a number above 0, got nan"),
        ({"architecture": "vit"}, "architecture: expected one of baf-unet, .*got 'vit'"),
        ({"residual": "some"}, "residual: expected one of multimodal"),
        ({"noise": "pink"}, "noise: expected one of edge-aware, plain"),
        ({"start": "zero"}, "start: expected one of bicubic, subspace"),
        ({"pseudo": (1,)}, "pseudo: expected 2 bands from 1 to 4, got 2"),
        ({"pseudo": (1, 4)}, "pseudo: expected 2 bands from 1 to 4, got 2,5"),
    ):
        with pytest.raises(WeightsError, match=words):
            EmrConfig(**{**good, **change})
    record = config.to_record()
    for broken in (
        {k: v for k, v in record.items() if k != "kappa"},
        {**record, "depth": 3},
        {**record, "pseudo": None},
        {**record, "kappa": "much"},
        {**record, "kappa": float("inf")},
        {**record, "width": "8"},
        {**record, "bands": 0},
    ):
        with pytest.raises(WeightsError):
            EmrConfig.from_record(broken)
