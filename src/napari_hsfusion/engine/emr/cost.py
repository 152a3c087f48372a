"""What a run of EMR-Diff will cost, from operation counts, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from ...params import EmrDiffParams
from .. import working_memory as memory
from ..nets.baf_unet import ARCHITECTURES, LEVELS, BAFUNet, Layout
from ..working_memory import Sizes
from .config import EmrConfig

# Multiply-adds a second that the networks reach: measured, orders of magnitude.
_CPU_RATE_PER_THREAD = 1.5e10
_CUDA_RATE = 5e12
_OVERHEAD = {"cpu": 0.02, "cuda": 0.01}  # seconds a step of a network that is small work
_SOLVE = 30  # conjugate-gradient iterations of a closed form
_TILED = 1.4  # what attention blocks by tiles cost: their averages are gathered first
# images of the network's width that are held at once, with attention blocks and without: in a
# block at work, and in training for every crop
_IN_BLOCK = {True: 20, False: 8}
_IN_TRAINING = {True: 60, False: 12}
_DIMENSIONS, _CLASSES = 16, 8
_WEIGHTS = 4.2e7  # bytes that making a network and reading its weights loads, with the weights


def emr_cost(
    x_shape: Sequence[int],
    y_shape: Sequence[int],
    params: EmrDiffParams,
    device: torch.device | None = None,
    config: EmrConfig | None = None,
    train: bool | None = None,
) -> dict[str, float]:
    """Seconds and bytes that a run is expected to take.

    Parameters
    ----------
    x_shape : (C, h, w)
    y_shape : (c, H, W)
    params : EmrDiffParams
    device : torch.device, optional
        The CPU by default.
    config : EmrConfig, optional
        Design of the network; without it that of the parameters.
    train : bool, optional
        Whether a network is trained; without it as the parameters say.

    Returns
    -------
    dict
        ``seconds`` in all, ``training_seconds``, ``sampling_seconds``, and ``bytes``
        of working memory.
    """
    device = device or torch.device("cpu")
    cuda = device.type == "cuda"
    rate = _CUDA_RATE if cuda else _CPU_RATE_PER_THREAD
    threads = 1 if cuda else torch.get_num_threads()
    (bands, h, w), (msi, height, width) = x_shape, y_shape
    channels = params.width or bands + msi
    state = bands + (0 if params.residual == "unimodal" else msi)
    layout = Layout(state, bands + msi, channels, params.architecture)
    steps, start = params.T, params.start
    if config is not None:
        layout, steps, start = config.layout, config.steps, config.start
    attention = ARCHITECTURES[layout.architecture][1]
    pixels = float(height * width)
    side = params.tile or 256
    forward = pixels * work_per_pixel(layout)
    if attention and max(height, width) > side:
        forward *= _TILED
    training = 0.0
    crop = 0.0
    if params.train_on == "pair" if train is None else train:
        crop = float(params.batch * min(params.patch, h) * min(params.patch, w))
        step = 3 * crop * work_per_pixel(layout) / rate
        training = params.steps * (step + _OVERHEAD[device.type])
    d = min(_DIMENSIONS, bands, h * w)
    solve = _SOLVE * d * pixels * (4 * d + 2 * max(h, w) + 2 * msi)
    solves = (start == "subspace") + bool(params.consistency)
    sampling = steps * forward / rate / threads + solves * solve / rate
    part = min(pixels, float(min(side, max(height, width)) + 12) ** 2)
    sizes = Sizes.of(x_shape, y_shape)
    inner = memory.images(_IN_BLOCK[attention] * layout.width, part)
    skips = memory.images(5 * layout.width * 4 / 3 + 3 * layout.state + 2 * bands, pixels)
    solving = memory.images(2 * bands, pixels) + memory.solving(sizes, d)
    stages = [
        memory.preparing(sizes),
        skips + inner,
        memory.images(_IN_TRAINING[attention] * layout.width, crop),
        memory.composing(sizes, bands),
    ]
    if solves:
        stages.append(solving + memory.systems(sizes, d, [_CLASSES]))
    always = memory.LOADED + memory.DECOMPOSITIONS + _WEIGHTS + memory.pair(sizes)
    always += memory.OPTIMISER if crop else 0.0
    return {
        "seconds": training + sampling,
        "training_seconds": training,
        "sampling_seconds": sampling,
        "bytes": always + max(stages),
    }


@lru_cache(maxsize=64)
def work_per_pixel(layout: Layout) -> float:
    """Multiply-adds of one pass of the network, guidance included, a pixel of full size.

    Counted layer by layer: a convolution does all its weights once a pixel of its own
    resolution. The time embedding is left out.
    """
    with torch.device("meta"):
        net = BAFUNet(layout)
    last = LEVELS - 1
    parts: list[tuple[nn.Module, int]] = [(net.middle, last), (net.heads[0], 0)]
    for encoder in (net.noisy, net.guide):
        if encoder is not None:
            parts += [(block, level) for level, block in enumerate(encoder.blocks)]
            parts += [(layer, level + 1) for level, layer in enumerate(encoder.shrink)]
    parts += [(layer, level) for level, layer in enumerate(net.grow)]
    parts += [(block, level) for level, block in enumerate(net.decoder)]
    return sum(
        layer.weight.numel() / 4**level
        for part, level in parts
        for layer in part.modules()
        if isinstance(layer, nn.Conv2d)
    )
