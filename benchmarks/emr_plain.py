"""EMR-Diff in plain code, straight from its equations: what the package's own is held against.

Functions of a dictionary of weights. The whole image at once, channels first, in every
layer; the guidance goes through its encoder at every step; every supervised output of the
decoder is worked out. Nothing of the package is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, layer_norm, leaky_relu, linear, pad, silu

Weights = Mapping[str, Tensor]

LEVELS = 5
SLOPE = 0.2


def sizes(n: int) -> int:
    """Next multiple of 16."""
    return (n + 15) // 16 * 16


def _conv(weights: Weights, name: str, image: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    kernel = weights[f"{name}.weight"]
    reach = kernel.shape[-1] // 2
    return conv2d(image, kernel, weights[f"{name}.bias"], stride, reach, groups=groups)


def _linear(weights: Weights, name: str, vector: Tensor) -> Tensor:
    return linear(vector, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: Weights, name: str, image: Tensor) -> Tensor:
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return (
        layer_norm(image.permute(0, 2, 3, 1), scale.shape, scale, shift)
        .permute(0, 3, 1, 2)
        .contiguous()
    )


def embedding(weights: Weights, time: int, like: Tensor) -> Tensor:
    """Sinusoids of a time at 16 frequencies from 1 to 10000^(-15/16), and two linear layers."""
    angles = [time * 10_000.0 ** (-k / 16) for k in range(16)]
    waves = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    vector = torch.tensor([waves], dtype=torch.float64).to(like)
    return _linear(weights, "embed.2", silu(_linear(weights, "embed.0", vector)))


def block(weights: Weights, name: str, image: Tensor, time: Tensor | None) -> Tensor:
    """One multi-scale group attention block, or the plain block where the weights are one's."""
    hidden = _norm(weights, f"{name}.head_norm", _conv(weights, f"{name}.head", image))
    hidden = leaky_relu(hidden, SLOPE)
    attends = f"{name}.attention.weight" in weights
    if attends:
        seen = torch.cat([hidden.mean(1, keepdim=True), hidden.max(1, keepdim=True).values], 1)
        hidden = hidden * torch.sigmoid(_conv(weights, f"{name}.attention", seen))
    if time is not None:
        hidden = hidden + _linear(weights, f"{name}.time", silu(time))[:, :, None, None]
    skip = _conv(weights, f"{name}.skip", image)
    if not attends:
        return skip + _conv(weights, f"{name}.tail", hidden)
    branches, logits = [], []
    for which in range(2):
        inner = f"{name}.branches.{which}"
        # a grouped kernel has the channels of its group alone
        groups = hidden.shape[1] // weights[f"{inner}.0.weight"].shape[1]
        wide = _norm(weights, f"{inner}.1", _conv(weights, f"{inner}.0", hidden, groups=groups))
        branch = _conv(weights, f"{inner}.3", leaky_relu(wide, SLOPE), groups=groups)
        branches.append(branch)
        logits.append(_linear(weights, f"{name}.weigh.{which}", branch.mean((2, 3))))
    first = 1 / (1 + torch.exp(logits[1] - logits[0]))[:, :, None, None]
    mixed = first * branches[0] + (1 - first) * branches[1]
    hidden = leaky_relu(_conv(weights, f"{name}.mlp.0", mixed), SLOPE)
    return skip + _conv(weights, f"{name}.mlp.2", hidden)


def encoder(weights: Weights, name: str, image: Tensor, time: Tensor | None) -> list[Tensor]:
    """Five levels, finest first."""
    levels = []
    for level in range(LEVELS):
        if level:
            image = _conv(weights, f"{name}.shrink.{level - 1}", image, stride=2)
        image = block(weights, f"{name}.blocks.{level}", image, time)
        levels.append(image)
    return levels


def network(weights: Weights, state: Tensor, guidance: Tensor, time: int) -> list[Tensor]:
    """What to add to A_0, at every supervised level, finest first.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Of ``BAFUNet``, by its names.
    state, guidance : Tensor, shapes (1, s, H, W) and (1, g, H, W)
    time : int

    Returns
    -------
    list of Tensor, shapes (1, s, H / 2^k, W / 2^k)
        Of the image padded to sides that are multiples of 16.
    """
    height, width = state.shape[-2:]
    border = (0, sizes(width) - width, 0, sizes(height) - height)
    state, guidance = (pad(image, border, "replicate") for image in (state, guidance))
    when = embedding(weights, time, state)
    if "guide.blocks.0.head.weight" in weights:
        own = encoder(weights, "noisy", state, when)
        other = encoder(weights, "guide", guidance, None)
        skips = [torch.cat(pair, 1) for pair in zip(own, other, strict=True)]
    else:
        skips = encoder(weights, "noisy", torch.cat([state, guidance], 1), when)
    image = block(weights, "middle", skips[-1], when)
    outputs = []
    for level in range(LEVELS - 2, -1, -1):
        image = _conv(weights, f"grow.{level}", interpolate(image, scale_factor=2, mode="nearest"))
        image = block(weights, f"decoder.{level}", torch.cat([image, skips[level]], 1), when)
        if f"heads.{level}.weight" in weights:
            outputs.append(_conv(weights, f"heads.{level}", image))
    return outputs[::-1]


def schedule(steps: int, kappa: float) -> list[float]:
    """Shares eta at times 0 to T."""
    first = min(0.001 / kappa, 0.001)
    growth = (0.999 / first) ** (1 / (steps - 1))
    roots = [first * growth ** ((steps - 1) * (i / (steps - 1)) ** 0.3) for i in range(steps)]
    return [0.0] + [root**2 for root in roots]


def restore(
    weights: Weights,
    config: Any,
    up: Tensor,
    msi: Tensor,
    edges: Tensor,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Sample an HR-HSI.

    Parameters
    ----------
    weights : mapping of str to Tensor
    config : object
        With ``bands``, ``residual``, ``noise``, ``steps`` and ``kappa``.
    up, msi, edges : Tensor, shapes (1, C, H, W), (1, c, H, W) and (1, 1, H, W)
    generator : torch.Generator

    Yields
    ------
    Tensor, shape (1, C, H, W)
        Prediction at t = T … 1.
    """
    start = up if config.residual == "unimodal" else torch.cat([up, msi], 1)
    if config.residual == "none":
        start = torch.zeros_like(start)
    if config.noise == "plain":
        edges = torch.ones_like(edges)

    def noise() -> Tensor:
        return torch.randn(start.shape, generator=generator, dtype=start.dtype) * edges

    eta, kappa = schedule(config.steps, config.kappa), config.kappa
    state = start + kappa * noise()
    for t in range(config.steps, 0, -1):
        guidance = torch.cat([up, msi], 1)
        change = network(weights, state, guidance, t)[0]
        clean = start + change[..., : up.shape[-2], : up.shape[-1]]
        yield clean[:, : config.bands]
        if t > 1:
            alpha = eta[t] - eta[t - 1]
            mean = eta[t - 1] / eta[t] * state + alpha / eta[t] * clean
            state = mean + kappa * math.sqrt(eta[t - 1] * alpha / eta[t]) * noise()
