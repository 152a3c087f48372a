"""ARGS-Diff in plain code, straight from its equations: what the package's own is held against.

Functions of dictionaries of weights. The guidance is the loss as it is printed, on the cube
A x3 E of H x W x C written out, and every gradient is left to autograd. Nothing of the package
is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import (
    conv2d,
    embedding,
    group_norm,
    interpolate,
    linear,
    mse_loss,
    pad,
    silu,
)

Weights = Mapping[str, Tensor]


def _conv(weights: Weights, name: str, image: Tensor, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return conv2d(image, kernel, weights[f"{name}.bias"], stride, kernel.shape[-1] // 2)


def _linear(weights: Weights, name: str, vector: Tensor) -> Tensor:
    return linear(vector, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _norm(weights: Weights, name: str, image: Tensor) -> Tensor:
    groups = math.gcd(32, image.shape[1])
    return group_norm(image, groups, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _block(weights: Weights, name: str, image: Tensor, moment: Tensor) -> Tensor:
    hidden = _conv(weights, f"{name}.conv1", silu(_norm(weights, f"{name}.norm1", image)))
    both = _linear(weights, f"{name}.time", silu(moment))[:, :, None, None]
    scale, shift = both.chunk(2, 1)
    hidden = _norm(weights, f"{name}.norm2", hidden) * (1 + scale) + shift
    hidden = _conv(weights, f"{name}.conv2", silu(hidden))
    skip = _conv(weights, f"{name}.skip", image) if f"{name}.skip.weight" in weights else image
    return skip + hidden


def _stage(weights: Weights, prefix: str) -> list[str]:
    names = {key[len(prefix) + 1 :].split(".")[0] for key in weights if key.startswith(prefix)}
    return [f"{prefix}.{index}" for index in sorted(names, key=int)]


def spatial(weights: Weights, state: Tensor, times: Tensor) -> Tensor:
    """Noise in coefficient images, by the residual UNet.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Of ``SpatialUNet``, by its names.
    state : Tensor, shape (n, d, H, W)
    times : Tensor of int, shape (n,)
    """
    base = weights["head.weight"].shape[0]
    powers = torch.arange(base // 2, dtype=torch.float64, device=state.device) / (base // 2)
    angles = times[:, None].double() / 10_000.0**powers
    moment = torch.cat([angles.cos(), angles.sin()], 1).to(state.dtype)
    moment = _linear(weights, "embed.2", silu(_linear(weights, "embed.0", moment)))
    levels = _stage(weights, "down")
    stride = 2 ** (len(levels) - 1)
    height, width = state.shape[-2:]
    image = pad(state, (0, -width % stride, 0, -height % stride), "replicate")
    image = _conv(weights, "head", image)
    skips = [image]
    for level, stage in enumerate(levels):
        for block in _stage(weights, stage):
            image = _block(weights, block, image, moment)
            skips.append(image)
        if level < len(levels) - 1:
            image = _conv(weights, f"shrink.{level}", image, 2)
            skips.append(image)
    for block in _stage(weights, "middle"):
        image = _block(weights, block, image, moment)
    for level, stage in enumerate(_stage(weights, "up")):
        for block in _stage(weights, stage):
            image = _block(weights, block, torch.cat([image, skips.pop()], 1), moment)
        if level < len(levels) - 1:
            image = _conv(weights, f"grow.{level}", interpolate(image, scale_factor=2.0))
    image = _conv(weights, "tail", silu(_norm(weights, "tail_norm", image)))
    return image[..., :height, :width]


def spectral(weights: Weights, state: Tensor, times: Tensor) -> Tensor:
    """Noise in spectra (n, C) at times (n,), by the fully connected network."""
    vector = torch.cat([state, embedding(times, weights["table.weight"])], 1)
    layers = _stage(weights, "layers")
    for layer in layers[:-1]:
        vector = silu(_linear(weights, layer, vector))
    return _linear(weights, layers[-1], vector)


def abar(time: int) -> float:
    """Cumulative signal level of the exponential schedule at times -1 … 999."""

    def g(k: int) -> float:
        return 1 - math.exp(-10 * (1 - k / 1000))

    return 1e-3 + (1 - 1e-3) * (g(time + 1) - g(1000)) / (g(0) - g(1000))


@dataclass
class Pair:
    """Both images and what is known of them.

    Attributes
    ----------
    x, y : Tensor, shapes (C, h, w) and (c, H, W)
    rows, columns : Tensor, shapes (h, H) and (w, W)
        Blur and decimation of an image Z: ``rows Z columns^T``.
    response : Tensor, shape (c, C)
    """

    x: Tensor
    y: Tensor
    rows: Tensor
    columns: Tensor
    response: Tensor

    def loss(self, a: Tensor, e: Tensor, weight: float) -> Tensor:
        """Eqs. 10 and 16 on the cube, of states in [-1, 1] (d, H, W) and (d, C)."""
        cube = torch.einsum("khw,kb->bhw", (a + 1) / 2, (e + 1) / 2)
        low = self.rows @ cube @ self.columns.T
        multi = torch.einsum("cb,bhw->chw", self.response, cube)
        return torch.linalg.norm(self.x - low) + weight * torch.linalg.norm(self.y - multi)


@dataclass
class Sampler:
    """Algorithm 1, one step at a time.

    Attributes
    ----------
    pair : Pair
    spatial, spectral : mapping of str to Tensor
        Weights of both networks.
    a, e : Tensor, shapes (d, H, W) and (d, C)
        The sample; starts as noise.
    through : bool
        Whether the gradient runs back through the networks.
    rho, r, weight : float
        Step size and its divisor in the residual module, weight of the HR-MSI.
    """

    pair: Pair
    spatial: Weights
    spectral: Weights
    a: Tensor
    e: Tensor
    through: bool = True
    rho: float = 0.05
    r: float = 10.0
    weight: float = 1.0
    count: int = 0
    moments: list[Tensor] = field(default_factory=list)

    def gradient(self, time: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Clean factors at `time`, the loss there and its gradients by both factors."""
        level = abar(time)
        a, e = self.a.clone().requires_grad_(), self.e.clone().requires_grad_()
        with torch.set_grad_enabled(self.through):
            when = torch.tensor([time], device=a.device)
            a_noise = spatial(self.spatial, a[None], when)[0]
            e_noise = spectral(self.spectral, e, when.expand(len(e)))
            a0 = ((a - math.sqrt(1 - level) * a_noise) / math.sqrt(level)).clamp(-1, 1)
            e0 = ((e - math.sqrt(1 - level) * e_noise) / math.sqrt(level)).clamp(-1, 1)
        if not self.through:
            a, e = a0, e0 = a0.requires_grad_(), e0.requires_grad_()
        loss = self.pair.loss(a0, e0, self.weight)
        grad_a, grad_e = torch.autograd.grad(loss, (a, e))
        return a0.detach(), e0.detach(), loss.detach(), grad_a, grad_e

    def step(self, time: int, following: int) -> float:
        """Go from `time` to `following`; the loss comes back."""
        now, later = abar(time), abar(following)
        a0, e0, loss, *gradients = self.gradient(time)
        self.count += 1
        if not self.moments:
            self.moments = [torch.zeros_like(g) for g in (*gradients, *gradients)]
        fresh = []
        for k, (state, clean, grad) in enumerate(
            zip((self.a, self.e), (a0, e0), gradients, strict=True)
        ):
            self.moments[k] = 0.9 * self.moments[k] + 0.1 * grad
            self.moments[k + 2] = 0.999 * self.moments[k + 2] + 0.001 * grad**2
            first = self.moments[k] / (1 - 0.9**self.count)
            second = self.moments[k + 2] / (1 - 0.999**self.count)
            noise = (state - math.sqrt(now) * clean) / math.sqrt(1 - now)
            state = math.sqrt(later) * clean + math.sqrt(1 - later) * noise
            state = state - self.rho * first / (torch.sqrt(second) + 1e-8)
            fresh.append(state.requires_grad_())
        residual = self.pair.loss(fresh[0], fresh[1], self.weight)
        grads = torch.autograd.grad(residual, fresh)
        self.a, self.e = (
            (s - self.rho / self.r * g).detach() for s, g in zip(fresh, grads, strict=True)
        )
        return float(loss)


def train(
    weights: Weights,
    network: str,
    image: Tensor,
    steps: int,
    batch: int,
    side: int,
    rate: float,
    generator: torch.Generator,
) -> tuple[dict[str, Tensor], list[float]]:
    """Train a network to predict noise by Adam, the rate falling linearly to zero.

    Parameters
    ----------
    weights : mapping of str to Tensor
    network : {"spatial", "spectral"}
    image : Tensor, shape (c, H, W)
        In [-1, 1]; a spatial sample has d of its bands at random, a spectral one its pixels.
    steps, batch, side : int
        `side` is that of a patch, on a grid of one pixel.
    rate : float
    generator : torch.Generator

    Returns
    -------
    weights : dict of str to Tensor
    losses : list of float
    """
    own = {name: w.clone().requires_grad_() for name, w in weights.items()}
    optimiser = torch.optim.Adam(own.values(), lr=rate)
    average = {name: w.detach().clone() for name, w in own.items()}
    levels = torch.tensor([abar(t) for t in range(1000)], dtype=image.dtype, device=image.device)
    device, losses = image.device, []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        if network == "spatial":
            d = own["head.weight"].shape[1]
            clean = _patches(image, d, batch, side, generator)
        else:
            pick = torch.randint(image[0].numel(), (batch,), generator=generator).to(device)
            clean = image.flatten(1)[:, pick].T
        times = torch.randint(1000, (batch,), generator=generator).to(device)
        noise = torch.randn(clean.shape, generator=generator, dtype=image.dtype).to(device)
        level = levels[times].reshape(-1, *[1] * (clean.ndim - 1))
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        predict = spatial if network == "spatial" else spectral
        loss = mse_loss(predict(own, noisy, times), noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay = min(0.999, (1 + step) / (10 + step)) if step else 0.0
        with torch.no_grad():
            for name, w in own.items():
                average[name] = decay * average[name] + (1 - decay) * w
        losses.append(loss.item())
    return average, losses


def _patches(image: Tensor, d: int, count: int, side: int, generator: torch.Generator) -> Tensor:
    bands, height, width = image.shape
    top = torch.randint(height - side + 1, (count,), generator=generator).tolist()
    left = torch.randint(width - side + 1, (count,), generator=generator).tolist()
    chosen = torch.randint(bands, (count, d), generator=generator)
    return torch.stack(
        [image[chosen[i], top[i] : top[i] + side, left[i] : left[i] + side] for i in range(count)]
    )
