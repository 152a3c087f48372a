"""Samples that a training never sees, on which it is seen whether it still gets better.

An image gives up a strip at one of its edges, spectra every eighth run of pixels. What is
left must hold a whole patch; an image too small for that gives up nothing, and then the
held-out samples are of the same patches with other noise.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .device import limited_threads
from .diffusion.steps import add_noise
from .events import Preview, Step
from .training_state import Progress

Sampler = Callable[[int, torch.Generator], Tensor]
"""Draws so many clean samples, (n, ...) in [-1, 1]."""

EVERY = 50
"""Training steps between two looks at the held-out loss."""

BATCHES = 6
"""Held-out samples, in batches of the training: a look is a forward pass without gradients
over so many, a step forward and back over one, so that looks add 4 % to the work at most."""

GAIN = 0.01
"""Share by which the held-out loss must fall to count as better."""

_SHARE = 8  # of an image, or of the spectra, one in so many is held out
_THINNEST = 8  # pixels: a thinner strip is all border to a network
_RUNS = 64  # that spectra are cut into
_VALUES = 1 << 22  # of held-out samples at most, if they are more than a batch
_STREAM = 0x4E1D


@dataclass(frozen=True)
class Split:
    """What a training may draw from, and what is held out.

    Attributes
    ----------
    kept : Tensor
    out : Tensor
        The same as `kept` where the two are not apart.
    apart : bool
    """

    kept: Tensor
    out: Tensor
    apart: bool


def split_image(image: Tensor, patch: int) -> Split:
    """Hold out a strip at the edge whose detail is most like the image's.

    Parameters
    ----------
    image : Tensor, shape (c, H, W)
    patch : int
        Side of a training patch; the strip is an eighth of the image wide, and at most
        that.
    """
    detail = _detail(image)
    wanted = float(detail.mean())
    choices = []
    for axis in (0, 1):
        size = image.shape[1 + axis]
        width = min(patch, size // _SHARE)
        if width < _THINNEST or size - width < min(patch, *image.shape[1:]):
            continue
        for start, rest in ((0, width), (size - width, 0)):
            strip = detail.narrow(axis, start, min(width, detail.shape[axis] - start))
            off = abs(float(strip.mean()) - wanted)
            choices.append((off, axis, start, rest, width))
    if not choices:
        return Split(image, image, False)
    _, axis, start, rest, width = min(choices)
    kept = image.narrow(1 + axis, rest, image.shape[1 + axis] - width)
    return Split(kept.contiguous(), image.narrow(1 + axis, start, width).contiguous(), True)


def split_spectra(spectra: Tensor) -> Split:
    """Hold out every eighth run of pixels, which are mostly neighbours.

    Parameters
    ----------
    spectra : Tensor, shape (C, n)
    """
    count = spectra.shape[1]
    if count < _RUNS:
        return Split(spectra, spectra, False)
    run = torch.arange(count) * _RUNS // count
    out = run % _SHARE == _SHARE // 2
    return Split(spectra[:, ~out], spectra[:, out], True)


class HeldOutLoss:
    """Mean squared error of the predicted noise in fixed samples, at times spread evenly.

    A validation of the training loop: it gives the loss with its sign changed.

    Parameters
    ----------
    sample : callable
    count, batch : int
        Samples, and how many of them pass the network at once.
    table : Tensor, shape (times,)
        Signal level of every time, on the device.
    seed : int
        Of the training, whose own numbers are not touched.
    threads : int, optional
        CPU threads of a pass.
    """

    def __init__(
        self, sample: Sampler, count: int, batch: int, table: Tensor, seed: int, threads: int | None
    ) -> None:
        generator = torch.Generator().manual_seed((seed + _STREAM) % 2**63)
        clean = sample(1, generator)
        count = max(batch, min(count, _VALUES // max(1, clean.numel())))
        clean = sample(count, generator).to(table.dtype)
        noise = torch.randn(clean.shape, generator=generator, dtype=table.dtype)
        times = ((torch.arange(count, dtype=torch.float64) + 0.5) * len(table) / count).long()
        self._times, self._noise = times.to(table.device), noise.to(table.device)
        level = table[self._times].reshape(-1, *[1] * (clean.ndim - 1))
        self._noisy = add_noise(clean.to(table.device), self._noise, level)
        self._batch, self._threads = batch, threads

    def __call__(
        self, network: nn.Module, progress: Progress
    ) -> Generator[Preview | Step, None, float]:
        """Try a network; `progress` is not looked at, and nothing is said on the way."""
        yield from ()
        parts = (tensor.split(self._batch) for tensor in (self._noisy, self._times, self._noise))
        total = self._noise.new_zeros(())
        with torch.no_grad(), limited_threads(self._threads):
            for noisy, times, noise in zip(*parts, strict=True):
                total += (network(noisy, times) - noise).square().sum()
        return -float(total) / self._noise.numel()


def _detail(image: Tensor) -> Tensor:
    """Squared differences of neighbours, shape (H - 1, W - 1)."""
    down = image[:, 1:, :-1] - image[:, :-1, :-1]
    right = image[:, :-1, 1:] - image[:, :-1, :-1]
    return (down.square() + right.square()).mean(0)
