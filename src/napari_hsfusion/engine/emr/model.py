"""The EMR-Diff model: its training objective, and restoration in a few steps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import decimation as dec
from ..axis import AxisOperator
from ..diffusion.residual import diffuse, eta_schedule, prior, reverse_step
from ..nets.baf_unet import BAFUNet
from .batch import Batch
from .config import EmrConfig


class EmrModel(nn.Module):
    """Residual diffusion with a network of its design.

    Parameters
    ----------
    config : EmrConfig
    """

    def __init__(self, config: EmrConfig) -> None:
        super().__init__()
        self.config = config
        self.network = BAFUNet(config.layout)
        self.eta = eta_schedule(config.steps, config.kappa)

    def target(self, clean: Tensor) -> Tensor:
        """State x_0 of an HR-HSI (n, C, H, W): with its pseudo-MSI, where the state has one."""
        if self.config.residual == "unimodal":
            return clean
        return torch.cat([clean, clean[:, list(self.config.pseudo)]], 1)

    def begin(self, up: Tensor, msi: Tensor) -> Tensor:
        """Start A_0 of the chain from the upsampled LR-HSI and the HR-MSI."""
        if self.config.residual == "unimodal":
            return up
        both = torch.cat([up, msi], 1)
        return both if self.config.residual == "multimodal" else torch.zeros_like(both)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Multi-scale L1 loss on a batch, at random times and with random noise.

        Every supervised level k predicts what to add to A_0 at 1 / 2^k of the size, where
        A_0 holds the LR-HSI upsampled to that size and every 2^k-th pixel of the HR-MSI,
        to give every 2^k-th pixel of x_0. Means over values, summed over levels.

        Parameters
        ----------
        batch : Batch
        generator : torch.Generator
            On the CPU; times and noise are drawn from it.
        """
        clean = self.target(batch.clean)
        times = torch.randint(1, self.config.steps + 1, (len(clean),), generator=generator)
        noise = self.noise(clean, batch.edges, generator)
        eta = torch.as_tensor(self.eta).to(clean)[times.to(clean.device)]
        start = self.begin(batch.up, batch.msi)
        state = diffuse(clean, start, noise, eta, self.config.kappa)
        guidance = torch.cat([batch.up, batch.msi], 1)
        outputs = self._predict(state, self.encode(guidance), times.to(clean.device))
        total = clean.new_zeros(())
        for level, change in enumerate(outputs):
            step = 2**level
            wanted = clean[..., ::step, ::step]
            change = change[..., : wanted.shape[-2], : wanted.shape[-1]]
            coarse = start[..., ::step, ::step] if level == 0 else self._start_at(batch, step)
            total = total + (change + coarse - wanted).abs().mean()
        return total

    def noise(self, like: Tensor, edges: Tensor, generator: torch.Generator) -> Tensor:
        """Noise N* of the shape of `like`: white, times the edge map where it is edge-aware."""
        white = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
        return white * edges if self.config.noise == "edge-aware" else white

    def encode(self, guidance: Tensor, tile: int = 0) -> list[Tensor]:
        """What the guidance (n, C + c, H, W) contributes to every step."""
        return self.network.encode(pad_to(guidance, BAFUNet.stride), tile)

    def restore(
        self,
        up: Tensor,
        msi: Tensor,
        edges: Tensor,
        generator: torch.Generator,
        tile: int = 0,
    ) -> Iterator[Tensor]:
        """Sample an HR-HSI.

        Parameters
        ----------
        up : Tensor, shape (n, C, H, W)
            Upsampled LR-HSI.
        msi : Tensor, shape (n, c, H, W)
        edges : Tensor, shape (n, 1, H, W)
        generator : torch.Generator
            On the CPU.
        tile : int
            Side of the tiles that the network is worked out in; 0 for none.

        Yields
        ------
        Tensor, shape (n, C, H, W)
            The prediction of every step, from t = T to 1; the last is the result.
        """
        start = self.begin(up, msi)
        guide = self.encode(torch.cat([up, msi], 1), tile)
        kappa = self.config.kappa
        state = prior(start, self.noise(start, edges, generator), kappa)
        for time in range(self.config.steps, 0, -1):
            times = torch.full((len(state),), time, device=state.device)
            change = self._predict(state, guide, times, tile)[0]
            clean = change[..., : state.shape[-2], : state.shape[-1]] + start
            del change
            yield clean[:, : self.config.bands]
            if time > 1:
                noise = self.noise(state, edges, generator)
                state = reverse_step(state, clean, noise, self.eta, time, kappa)

    def _predict(
        self, state: Tensor, guide: list[Tensor], times: Tensor, tile: int = 0
    ) -> list[Tensor]:
        outputs: list[Tensor] = self.network(pad_to(state, BAFUNet.stride), guide, times, tile)
        return outputs

    def _start_at(self, batch: Batch, step: int) -> Tensor:
        """A_0 at 1 / `step` of the size."""
        if self.config.residual == "none":
            return self.begin(batch.up, batch.msi)[..., ::step, ::step]
        up = batch.up[..., ::step, ::step]
        if self.config.start == "bicubic" and self.config.ratio % step == 0:
            up = _enlarge(batch.coarse, self.config.ratio // step)
        return self.begin(up, batch.msi[..., ::step, ::step])


def pad_to(image: Tensor, stride: int) -> Tensor:
    """Continue an image by its last row and column until its sides are multiples of `stride`."""
    height, width = image.shape[-2:]
    pad = (0, -width % stride, 0, -height % stride)
    return functional.pad(image, pad, mode="replicate") if any(pad) else image


def _enlarge(image: Tensor, ratio: int) -> Tensor:
    """Interpolate by a whole ratio, as the operators of the observation do."""
    if ratio == 1:
        return image
    phase = dec.centred_phase(ratio)
    for axis in (-2, -1):
        matrix = dec.interpolation_matrix(image.shape[axis] * ratio, ratio, phase)
        image = AxisOperator(matrix).apply(image, axis, False)
    return image
