"""A network trained on the pair itself, one ratio down (Wald's protocol).

The LR-HSI is the wanted cube there: degraded by the pair's own response and ratio it
makes the LR image, and the degraded HR-MSI the HR image (Wald, Ranchin and Mangolini,
PE&RS 63:691, 1997). A strip of the scene is held back; on it is judged how much of what
the network changes is worth keeping.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...errors import PairError
from ..device import limited_threads
from ..diffusion.edges import edge_map
from ..events import CancelToken, Step
from ..observation import Problem
from ..training import averaged_network, train
from ..training_recipe import Recipe
from ..training_team import Team
from .batch import Batch
from .model import EmrModel
from .start import start_estimate

STAGE = "train network"


@dataclass(frozen=True)
class SmallScene:
    """The pair one ratio down, with its truth.

    Attributes
    ----------
    batch : Batch
        Of the whole scene, n = 1.
    kept : int
        Columns that are trained on; those after them are held back.
    """

    batch: Batch
    kept: int


def small_scene(problem: Problem, start: str, seed: int) -> SmallScene:
    """Degrade a pair by its own ratio.

    Parameters
    ----------
    problem : Problem
    start : {"bicubic", "subspace"}
    seed : int
        Of the start's classes.

    Raises
    ------
    PairError
        If the LR-HSI has fewer than three coarse pixels a side.
    """
    s = problem.spatial.ratio
    h, w = (n - n % s for n in problem.x.shape[-2:])
    if min(h, w) < 3 * s:
        raise PairError(
            f"training on the pair: expected an LR-HSI of at least {3 * s} x {3 * s} pixels at a "
            f"ratio of {s}, got {problem.x.shape[-2]} x {problem.x.shape[-1]}"
        )
    down = problem.spatial.resized((h, w))
    clean = problem.x[:, :h, :w].contiguous()
    fine = problem.spatial.forward(problem.y)[:, :h, :w].contiguous()
    usable = _usable(problem, h, w)
    coarse_usable = ~down.footprint(~usable)
    if not coarse_usable.any():
        raise PairError("training on the pair: gaps touch every coarse pixel of the LR-HSI")
    small = dataclasses.replace(
        problem,
        x=down.forward(clean),
        y=fine,
        spatial=down,
        sigma_x=max(problem.sigma_x * down.energy() ** 0.5, 1e-6),
        sigma_y=max(problem.sigma_y * problem.spatial.energy() ** 0.5, 1e-6),
        mask_x=None if coarse_usable.all() else torch.as_tensor(coarse_usable).to(fine),
        mask_y=None if usable.all() else torch.as_tensor(usable).to(fine),
    )
    batch = Batch(
        clean=clean[None],
        coarse=small.x[None],
        up=start_estimate(small, start, seed, problem)[None],
        msi=fine[None],
        edges=edge_map(fine[None]),
    )
    held = max(s, w // 4 // s * s)
    return SmallScene(batch, w - held)


def train_on_pair(
    scene: SmallScene,
    model: EmrModel,
    *,
    steps: int,
    batch: int,
    patch: int,
    rate: float,
    average: float,
    seed: int,
    team: Team,
    cancel: CancelToken,
) -> Generator[Step, None, EmrModel]:
    """Train a model on crops of the small scene.

    Parameters
    ----------
    scene : SmallScene
    model : EmrModel
        On the team's device; trained in place.
    steps, batch, patch, rate, average
        As :class:`~napari_hsfusion.params.EmrDiffParams` describes them.
    seed : int
    team : Team
    cancel : CancelToken

    Returns
    -------
    EmrModel
        Averaged weights, in evaluation mode.

    Yields
    ------
    Step
    """
    crops = _Crops(scene, patch, model.config.ratio)

    def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
        learner: Any = network
        value: Tensor = learner.loss(crops.draw(batch, generator), generator)
        return value

    recipe = Recipe(
        steps=steps, rate=rate, schedule="cosine", average=average, clip=1.0, log_every=steps
    )
    run = train(
        model.requires_grad_(True),
        loss,
        recipe,
        stage=STAGE,
        generator=torch.Generator().manual_seed(seed),
        cancel=cancel,
        team=team,
        threads=1 if team.device.type == "cpu" else None,
    )
    try:
        while True:
            event = next(run)
            if isinstance(event, Step):
                yield event
    except StopIteration as stop:
        state = stop.value
    finally:
        run.close()
    network: Any = averaged_network(state)
    return network


class _Crops:
    """Crops of the kept part, mirrored and turned at random."""

    def __init__(self, scene: SmallScene, patch: int, ratio: int) -> None:
        self._batch = scene.batch
        self._ratio = ratio
        rows = scene.batch.clean.shape[-2]
        self._size = [min(n, max(ratio, patch - patch % ratio)) for n in (rows, scene.kept)]
        self._room = [
            (n - k) // ratio + 1 for n, k in zip((rows, scene.kept), self._size, strict=True)
        ]

    def draw(self, count: int, generator: torch.Generator) -> Batch:
        """Draw a batch."""
        parts = []
        for _ in range(count):
            at = [int(torch.randint(room, (), generator=generator)) for room in self._room]
            turn = int(torch.randint(8, (), generator=generator))
            if self._size[0] != self._size[1]:
                turn &= 3
            parts.append([self._cut(name, at, turn) for name in _NAMES])
        return Batch(*(torch.cat(images) for images in zip(*parts, strict=True)))

    def _cut(self, name: str, at: list[int], turn: int) -> Tensor:
        image: Tensor = getattr(self._batch, name)
        step = 1 if name == "coarse" else self._ratio
        size = [n // self._ratio if name == "coarse" else n for n in self._size]
        top, left = (k * step for k in at)
        piece = image[..., top : top + size[0], left : left + size[1]]
        flips = [-1] * (turn & 1) + [-2] * (turn >> 1 & 1)
        piece = piece.flip(flips) if flips else piece
        return piece.transpose(-1, -2) if turn & 4 else piece


_NAMES = ("clean", "coarse", "up", "msi", "edges")


def worth(scene: SmallScene, model: EmrModel, seed: int) -> float:
    """Share of the network's change that serves best where it was not trained.

    The least-squares weight w of ``start + w (network - start)`` against the truth on
    the columns that were held back, between 0 and 1.
    """
    batch = scene.batch
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad(), limited_threads(1 if batch.clean.device.type == "cpu" else None):
        *_, cube = model.restore(batch.up, batch.msi, batch.edges, generator)
    held = (..., slice(scene.kept, None))
    change = (cube - batch.up)[held].double()
    wanted = (batch.clean - batch.up)[held].double()
    power = float(change.square().sum())
    return min(1.0, max(0.0, float((change * wanted).sum()) / power)) if power > 0 else 0.0


def _usable(problem: Problem, h: int, w: int) -> npt.NDArray[np.bool_]:
    usable = np.ones(problem.x.shape[-2:], dtype=bool)
    if problem.mask_x is not None:
        usable &= problem.mask_x.cpu().numpy() > 0
    if problem.mask_y is not None:
        usable &= ~problem.spatial.footprint(problem.mask_y.cpu().numpy() == 0)
    return usable[:h, :w]
