"""Bicubic interpolation of the LR-HSI: what a fusion has to improve on."""

from __future__ import annotations

from collections.abc import Generator

import torch

from ...params import BICUBIC_PRESETS, BicubicParams
from .. import working_memory as memory
from ..events import Event, Preview, Started, Step
from ..observation import Problem
from ..working_memory import Sizes
from .base import Context, Method, Outcome, Shape


def _run(
    problem: Problem, params: BicubicParams, context: Context
) -> Generator[Event, None, Outcome]:
    yield Started("bicubic", {"interpolate": 1})
    image = problem.spatial.upsample(problem.x)
    basis = torch.eye(len(image), device=image.device, dtype=image.dtype)
    yield Step("interpolate", 1, 1)
    yield Preview("interpolate", 1, 1, image, basis, problem.scale)
    return Outcome(image, basis, {})


def _estimate(
    x_shape: Shape, y_shape: Shape, params: BicubicParams, device: torch.device
) -> dict[str, float]:
    values = x_shape[0] * y_shape[1] * y_shape[2]
    sizes = Sizes.of(x_shape, y_shape)
    stages = memory.preparing(sizes), memory.composing(sizes, sizes.bands)
    always = memory.LOADED + memory.pair(sizes)
    return {"seconds": 1e-8 * values, "bytes": always + max(stages)}


METHOD = Method(
    name="bicubic",
    title="Bicubic interpolation",
    description="Cubic interpolation (Keys, a = -0.5) of the LR-HSI; the HR-MSI is not used.",
    params=BicubicParams,
    presets=BICUBIC_PRESETS,
    default_preset="default",
    runner=_run,
    estimator=_estimate,
)
