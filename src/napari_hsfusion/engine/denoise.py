"""White noise taken out of images with several channels by non-local Bayes.

Lebrun, Buades and Morel, SIAM J. Imaging Sci. 6:1665, 2013: patches that look alike are
taken for draws of one Gaussian, its mean and covariance estimated from them, and every patch
of the group replaced by its posterior mean. A second pass groups and estimates on the result
of the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from .events import CancelToken
from .workers import ALONE, Crew


@dataclass(frozen=True)
class Grouping:
    """How patches are compared.

    Attributes
    ----------
    patch : int
        Side of a patch, pixels.
    window : int
        Patches are looked for up to so many pixels away, along either axis.
    count : int
        Patches in a group.
    step : int
        Every so many pixels a patch has a group of its own.
    """

    patch: int = 3
    window: int = 10
    count: int = 100
    step: int = 3


def nonlocal_bayes(
    image: Tensor,
    sigma: float,
    grouping: Grouping | None = None,
    cancel: CancelToken | None = None,
    crew: Crew = ALONE,
) -> Tensor:
    """Estimate an image from itself plus white noise.

    Parameters
    ----------
    image : Tensor, shape (c, H, W)
        Finite values.
    sigma : float
        Standard deviation of the noise, the same in all channels.
    grouping : Grouping, optional
        Reduced where the image is small.
    cancel : CancelToken, optional
        Looked at between strips of the image.
    crew : Crew, optional
        Works out the strips.

    Returns
    -------
    Tensor, shape (c, H, W)
        The image itself where it is too small for groups of at least four patches, or
        `sigma` is 0.

    Raises
    ------
    Cancelled
        If the token says so.
    """
    how = _fitting(grouping or Grouping(), *image.shape[-2:])
    if how is None or sigma <= 0:
        return image.clone()
    cancel = cancel or CancelToken()
    space = _PatchSpace.of(image, sigma, how.patch)
    run = partial(_pass, image, space=space, sigma=sigma, how=how, cancel=cancel, crew=crew)
    return run(guide=run(guide=image, noisy=True), noisy=False)


def patch_noise(image: Tensor, patch: int = 3) -> float:
    """Standard deviation that the noise of an image has at most.

    The least eigenvalue of the covariance of its patches (Pyatykh, Hesser and Zheng,
    IEEE TIP 22:687, 2013): channels and neighbours that depend on each other leave
    directions to the noise alone. Bands that do not raise it.

    Parameters
    ----------
    image : Tensor, shape (c, H, W)
    patch : int
        Side of a patch.
    """
    if min(image.shape[-2:]) < patch:
        return float("inf")
    height, width = (n - patch + 1 for n in image.shape[-2:])
    if height * width <= len(image) * patch**2:
        return float("inf")
    least = torch.linalg.eigvalsh(_moments(image, patch)[1])[0]
    return float(least.clamp(min=0).sqrt())


def patch_strips(height: int, width: int) -> int:
    """Strips in which an image of so many pixels is denoised."""
    how = _fitting(Grouping(), height, width)
    if how is None:
        return 1
    rows, columns = (len(_positions(n - how.patch + 1, how.step)) for n in (height, width))
    return math.ceil(rows / _rows_at_once(rows, columns, how))


def _fitting(grouping: Grouping, height: int, width: int) -> Grouping | None:
    room = min(height, width) - grouping.patch
    window = min(grouping.window, room)
    if window < 1:
        return None
    # a patch in a corner has a quarter of the window
    count = min(grouping.count, (window + 1) ** 2)
    return Grouping(grouping.patch, window, count, grouping.step)


def _patches(image: Tensor, side: int) -> Tensor:
    """All patches, row by row: (n, c side side)."""
    return functional.unfold(image[None], side)[0].T


def _moments(image: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Mean (n,) and covariance (n, n) of all patches, in double precision, strip by strip."""
    height, width = image.shape[-2:]
    level = image.double().mean((1, 2)).repeat_interleave(side**2)
    size = len(level)
    total, square = level.new_zeros(size), level.new_zeros(size, size)
    rows = max(1, _HELD // (size * width))
    for top in range(0, height - side + 1, rows):
        strip = image[:, top : min(height, top + rows + side - 1)]
        about = _patches(strip.double(), side) - level
        total += about.sum(0)
        square += about.T @ about
    count = (height - side + 1) * (width - side + 1)
    mean = total / count
    return level + mean, (square - count * torch.outer(mean, mean)) / (count - 1)


@dataclass(frozen=True)
class _PatchSpace:
    """Principal directions of an image's patches that hold more than noise."""

    mean: Tensor
    directions: Tensor

    @classmethod
    def of(cls, image: Tensor, sigma: float, side: int) -> _PatchSpace:
        mean, covariance = _moments(image, side)
        values, vectors = torch.linalg.eigh(covariance)
        kept = max(len(image), int((values > (1 + _FAINT) * sigma**2).sum()))
        return cls(mean.to(image.dtype), vectors[:, -kept:].to(image.dtype))

    def project(self, patches: Tensor) -> Tensor:
        return (patches - self.mean) @ self.directions

    def restore(self, sums: Tensor, weights: Tensor) -> Tensor:
        """Patches of sums of projected ones, with the weights of the sums (n, 1)."""
        return sums @ self.directions.T + weights * self.mean


_FAINT = 0.05  # signal, as a share of the noise's variance, that is not worth a direction
_STRIP = 2**21  # distances held at a time
_STRIPS, _FEWEST_ROWS = 4, 16  # of a small image: what strips share is worked out twice
_CHUNK = 2**20  # values of grouped patches held at a time
_HELD = 2**22  # values of patches, where only their moments are wanted


def _pass(
    image: Tensor,
    guide: Tensor,
    space: _PatchSpace,
    sigma: float,
    how: Grouping,
    cancel: CancelToken,
    crew: Crew,
    noisy: bool,
) -> Tensor:
    """One pass: groups of patches that are alike in `guide`, estimated in `image`."""
    height, width = image.shape[-2:]
    total, weight = torch.zeros_like(image), torch.zeros_like(image[:1])
    rows = _positions(height - how.patch + 1, how.step)
    columns = _positions(width - how.patch + 1, how.step).to(image.device)

    def estimated(part: Tensor) -> tuple[slice, Tensor, Tensor]:
        cancel.check()
        top = max(0, int(part[0]) - how.window)
        bottom = min(height, int(part[-1]) + how.window + how.patch)
        strip = slice(top, bottom)
        groups = _alike(guide[:, strip], (part - top).to(image.device), columns, how)
        sums, counts = _estimate(
            image[:, strip], guide[:, strip], groups, space, sigma, how.patch, noisy
        )
        size = (bottom - top, width)
        spread = counts.expand(-1, how.patch**2).T[None].contiguous()
        return (
            strip,
            functional.fold(sums.T[None].contiguous(), size, how.patch)[0],
            functional.fold(spread, size, how.patch)[0],
        )

    parts = rows.split(_rows_at_once(len(rows), len(columns), how))
    for strip, sums, counts in crew.in_order((partial(estimated, p) for p in parts), len(parts)):
        total[:, strip] += sums
        weight[:, strip] += counts
    return total / weight


def _rows_at_once(rows: int, columns: int, how: Grouping) -> int:
    """Rows of reference patches in a strip: strips of a size, several where it is worth it."""
    most = max(1, _STRIP // ((2 * how.window + 1) ** 2 * columns))
    strips = max(math.ceil(rows / most), min(_STRIPS, rows // _FEWEST_ROWS), 1)
    return math.ceil(rows / strips)


def _positions(count: int, step: int) -> Tensor:
    """Every `step`-th of so many positions, and the last."""
    positions = list(range(0, count, step))
    if positions[-1] != count - 1:
        positions.append(count - 1)
    return torch.tensor(positions)


def _alike(guide: Tensor, rows: Tensor, columns: Tensor, how: Grouping) -> Tensor:
    """Indices (references, count) of the patches nearest to each reference patch."""
    _, height, width = guide.shape
    reach = range(-how.window, how.window + 1)
    border = (how.window,) * 4
    padded = functional.pad(guide[None], border)[0]
    outside = functional.pad(torch.zeros_like(guide[0]), border, value=float("inf"))
    distances = guide.new_empty(len(rows), len(columns), len(reach), len(reach))
    taps = range(how.patch)
    for k in range(len(reach)):  # all shifts along a row at a time
        strip = slice(k, k + height)
        apart = outside[strip].unfold(1, width, 1).clone()
        for own, other in zip(guide, padded[:, strip].unfold(2, width, 1), strict=True):
            difference = own[:, None] - other
            apart.addcmul_(difference, difference)
        for dim, places in ((0, rows), (2, columns)):  # summed over the patch
            apart = torch.stack([apart.index_select(dim, places + i) for i in taps]).sum(0)
        distances[:, :, k] = apart.transpose(1, 2)
    best = distances.flatten(2).flatten(0, 1).topk(how.count, largest=False).indices
    across = width - how.patch + 1
    shifts = [dy * across + dx for dy in reach for dx in reach]
    away = torch.tensor(shifts, device=guide.device)
    origin = (rows[:, None] * across + columns).flatten()
    return origin[:, None] + away[best]


def _estimate(
    image: Tensor,
    guide: Tensor,
    groups: Tensor,
    space: _PatchSpace,
    sigma: float,
    side: int,
    noisy: bool,
) -> tuple[Tensor, Tensor]:
    """Sums of the estimates of every patch, and how many there are of each (n, 1)."""
    observed = space.project(_patches(image, side))
    known = observed if noisy else space.project(_patches(guide, side))
    sums, counts = torch.zeros_like(observed), torch.zeros_like(observed[:, :1])
    size = groups.shape[1]
    for part in groups.split(max(1, _CHUNK // (size * observed.shape[1]))):
        chosen = known[part]
        mean = chosen.mean(1, keepdim=True)
        about = chosen - mean
        values, vectors = torch.linalg.eigh(about.transpose(1, 2) @ about / (size - 1))
        if noisy:  # what they vary by holds the noise
            gain = (values - sigma**2).clamp(min=0) / values.clamp(min=sigma**2)
        else:
            gain = values.clamp(min=0) / (values.clamp(min=0) + sigma**2)
        part_of = ((observed[part] - mean) @ vectors) * gain[:, None]
        estimate = mean + part_of @ vectors.transpose(1, 2)
        index = part.flatten()
        sums.index_add_(0, index, estimate.reshape(len(index), -1))
        counts.index_add_(0, index, counts.new_ones(len(index), 1))
    return space.restore(sums, counts), counts
