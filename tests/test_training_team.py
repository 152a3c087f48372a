"""Two processes that train together take the steps of one with both their crops."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import response, scene
from torch import nn

from napari_hsfusion._training.crops import Crops
from napari_hsfusion._training.scenes import open_scenes
from napari_hsfusion._training.sensors import Sensors
from napari_hsfusion.cube import make_cube
from napari_hsfusion.engine.events import CancelToken
from napari_hsfusion.engine.training import train
from napari_hsfusion.engine.training_recipe import Recipe
from napari_hsfusion.engine.training_team import Team
from napari_hsfusion.sensors.psf import parse_psf

STEPS = 4


class Mend(nn.Module):
    """A convolution that mends the upsampled image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(7, 5, 3, padding=1)
        generator = torch.Generator().manual_seed(8)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))


def run(team: Team, batch: int) -> dict[str, list[float]]:
    """Some steps on two scenes with `batch` crops a process: losses, gradients, weights."""
    cubes = [make_cube(scene(5, 40, 48, seed).astype(np.float32)) for seed in range(2)]
    reading = open_scenes(cubes, ratio=4, patch=16)
    try:
        while True:
            next(reading)
    except StopIteration as stop:
        scenes = stop.value
    crops = Crops(scenes, Sensors(4, parse_psf("box"), response(5, 2)), patch=16)

    def loss(network: Any, generator: torch.Generator) -> torch.Tensor:
        got = crops.draw(batch, generator, rank=team.rank, world=team.world)
        mended = got.up + network.conv(torch.cat([got.up, got.msi], 1))
        return (mended - got.clean).square().mean()

    network = Mend()
    events = train(
        network,
        loss,
        Recipe(steps=STEPS, rate=0.01, schedule="cosine", clip=1e3, average=0.5),
        stage="train",
        generator=torch.Generator().manual_seed(3),
        cancel=CancelToken(),
        team=team,
    )
    told = [event.loss for event in events]
    weights = list(network.parameters())
    return {
        "losses": told,
        "gradient": torch.cat([p.grad.flatten() for p in weights]).tolist(),
        "weights": torch.cat([p.detach().flatten() for p in weights]).tolist(),
        "generator": team.agreed(float(team.rank)),
    }


_CHILD = """
import json, sys
sys.path[:0] = [{tests!r}]
import torch
torch.set_num_threads(1)
from test_training_team import run
from napari_hsfusion.engine.training_team import make_team
team = make_team(torch.device("cpu"))
assert team.world == 2
with open({out!r} + str(team.rank), "w") as file:
    json.dump(run(team, 1), file)
team.wait()
team.close()
"""


def together(code: str) -> list[int]:
    """Exit codes of two processes that know of each other."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning:napari_hsfusion", "-c", code],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        return [child.wait(120) for child in children]
    finally:
        for child in children:
            child.kill()


def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    """Batch 1 in each of two equals batch 2 in one: gradients and weights, to rounding."""
    pytest.importorskip("accelerate")
    out = str(tmp_path / "rank")
    code = _CHILD.format(tests=str(Path(__file__).parent), out=out)
    assert together(code) == [0, 0]
    ranks = [json.loads(Path(out + str(rank)).read_text()) for rank in range(2)]
    assert ranks[0]["losses"] != ranks[1]["losses"]  # each sees its own crops
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[1]["generator"] == 0.0
    alone = run(Team(torch.device("cpu")), 2)
    one = run(Team(torch.device("cpu")), 1)
    np.testing.assert_allclose(ranks[0]["gradient"], alone["gradient"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(ranks[0]["weights"], alone["weights"], rtol=1e-4, atol=1e-6)
    means = np.mean([r["losses"] for r in ranks], axis=0)
    np.testing.assert_allclose(means, alone["losses"], rtol=1e-5)
    assert np.abs(np.subtract(one["gradient"], alone["gradient"])).max() > 1e-4
