"""Coefficients as a smooth function of what the HR-MSI shows, fitted through the degradation.

A pixel's coefficients are regressed on its multispectral values, those around it and its
place: a Gaussian process of which the LR-HSI has seen averages over pixels (area-to-point
kriging, Kyriakidis, Geographical Analysis 36:259, 2004, with covariates). The kernel, a
Matern one of order 5/2, is expanded in random cosines (Rahimi and Recht, NIPS 2007), so
that H acts on the cosines and the fit is a ridge regression; each coefficient's ridge is
the one of the least leave-one-out error (Allen, Technometrics 16:125, 1974).

The class covariances of :mod:`.subspace` say how detail goes together one octave down;
this says what a material looks like, at the scale of the pair. Their errors differ, and a
mean of both is better than either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from .events import CancelToken
from .observation import Problem
from .subspace import places, whiten
from .validity import usable_pixels
from .workers import ALONE, Crew


@dataclass(frozen=True)
class Kernel:
    """How alike two pixels are.

    Attributes
    ----------
    length : float
        Distance, in spreads of the whitened bands, over which pixels are alike.
    locality : float
        Weight of the place beside the spectrum, in spreads of both.
    widths : tuple of float
        Standard deviations of the Gaussian windows, in LR pixels, whose means count too.
    context : float
        Weight of those means.
    """

    length: float
    locality: float
    widths: tuple[float, ...] = ()
    context: float = 0.0


KERNELS = (
    Kernel(2.0, 3.0),
    Kernel(4.0, 3.0, (0.5,), 0.5),
    Kernel(2.0, 1.5),
    Kernel(4.0, 3.0, (0.25, 1.0), 0.5),
    Kernel(3.0, 3.0),
    Kernel(3.0, 2.0, (1.0,), 0.3),
    Kernel(6.0, 6.0),
    Kernel(4.0, 3.0, (0.5,), 1.0),
)
"""Kernels whose regressions are averaged; what they give hardly depends on which they are."""

COSINES = 800  # of a kernel
_ORDER = 5  # degrees of freedom of the frequencies' distribution: twice the Matern order
_AFFINE = 10.0  # prior deviation of the affine part: hardly held back
_RIDGES = np.logspace(-6, 2, 17)
MOST_PIXELS = 16_384  # of the LR-HSI, at most, that a regression is fitted to
AT_ONCE = 2**22  # values of cosine images that are held at a time


def regressions(
    problem: Problem,
    basis: Tensor,
    members: int,
    seed: int,
    cancel: CancelToken | None = None,
    crew: Crew = ALONE,
) -> Iterator[Tensor]:
    """Regressions with the first `members` kernels, one after the other.

    Parameters
    ----------
    problem : Problem
    basis : Tensor, shape (d, C)
        Orthonormal rows.
    members : int
        At most as many as there are :data:`KERNELS`.
    seed : int
        Of the cosines.
    cancel : CancelToken, optional
    crew : Crew, optional
        Works out the regressions.

    Yields
    ------
    Tensor, shape (d, H, W)
        What the HR-MSI says of the coefficients: neither image is met exactly.
    """
    low = torch.tensordot(basis, problem.x, dims=1)
    seen = _usable(problem)

    def regressed(index: int) -> Tensor:
        if cancel is not None:
            cancel.check()
        rng = np.random.default_rng([seed, index])
        return regress(problem, low, KERNELS[index], rng, seen)

    members = min(members, len(KERNELS))
    yield from crew.in_order((partial(regressed, index) for index in range(members)), members)


def regress(
    problem: Problem,
    low: Tensor,
    kernel: Kernel,
    rng: np.random.Generator,
    seen: npt.NDArray[np.bool_],
) -> Tensor:
    """Regression of coefficients (d, h, w) with one kernel: coefficients (d, H, W).

    Parameters
    ----------
    problem : Problem
    low : Tensor, shape (d, h, w)
    kernel : Kernel
    rng : numpy.random.Generator
        Draws the cosines, and which pixels are fitted where there are very many.
    seen : ndarray of bool, shape (h, w)
        LR pixels to fit.
    """
    images = _Images.of(problem, kernel, rng)
    chosen = np.flatnonzero(seen)
    if len(chosen) > MOST_PIXELS:
        chosen = np.sort(rng.choice(chosen, MOST_PIXELS, replace=False))
    where = torch.as_tensor(chosen, device=low.device)
    design = torch.cat(
        [problem.spatial.forward(part).flatten(1)[:, where].double() for part in images.parts()]
    )
    weights = ridge(design, low.flatten(1)[:, where].double()).to(low.dtype)
    out = torch.zeros(len(low), *problem.y.shape[1:], dtype=low.dtype, device=low.device)
    start = 0
    for part in images.parts():
        out += torch.tensordot(weights[:, start : start + len(part)], part, dims=1)
        start += len(part)
    return out


def ridge(design: Tensor, target: Tensor) -> Tensor:
    """Ridge regression, each target with the ridge of its least leave-one-out error.

    Parameters
    ----------
    design : Tensor, shape (m, n), float64
        m regressors at n samples.
    target : Tensor, shape (d, n), float64

    Returns
    -------
    Tensor, shape (d, m)
    """
    count, samples = design.shape
    # singular values and vectors from the smaller of the two Gram matrices
    if count < samples:
        squares, left = torch.linalg.eigh(design @ design.T)
        squares = squares.clamp(min=_TINY * float(squares.max()))
        right = (design.T @ left) / squares.sqrt()
    else:
        squares, right = torch.linalg.eigh(design.T @ design)
        squares = squares.clamp(min=_TINY * float(squares.max()))
        left = (design @ right) / squares.sqrt()
    turned = target @ right
    power = right.square()
    # what no regressor explains; nothing where there are as many as samples
    outside = target - turned @ right.T if count < samples else torch.zeros_like(target)
    alone = 1.0 - power.sum(1) if count < samples else torch.zeros_like(power[:, 0])
    errors = []
    for level in _RIDGES:
        lost = level / (squares + level)
        missed = outside + (turned * lost) @ right.T
        errors.append((missed / (alone + power @ lost)).square().mean(1))
    best = torch.stack(errors).argmin(0)
    level = torch.as_tensor(_RIDGES).to(target)[best][:, None]
    return (turned * squares.sqrt() / (squares + level)) @ left.T


_TINY = 1e-13  # of the largest eigenvalue, below which they are round-off


@dataclass(frozen=True)
class _Images:
    """Regressors of every HR pixel: cosines of its features, and the features themselves."""

    features: Tensor  # (k, H W)
    affine: int  # how many of them, with a constant, count as they are
    frequencies: Tensor  # (m, k)
    phases: Tensor  # (m, 1)
    shape: tuple[int, int]

    @classmethod
    def of(cls, problem: Problem, kernel: Kernel, rng: np.random.Generator) -> _Images:
        height, width = problem.y.shape[-2:]
        coarse = problem.spatial.forward(problem.y).flatten(1)
        own = whiten(coarse, problem.y.flatten(1))[1]
        near = kernel.locality * places(problem.y.shape)
        parts = [own, near]
        bands = problem.y.double().cpu().numpy()
        for size in kernel.widths:
            sigma = size * problem.spatial.ratio
            blurred = ndimage.gaussian_filter(bands, (0, sigma, sigma), mode="reflect")
            around = whiten(coarse, torch.as_tensor(blurred).flatten(1))[1]
            parts.append(kernel.context * around)
        features = np.concatenate(parts, axis=1)
        # Matern: normal frequencies of a random scale, a multivariate t distribution
        spread = kernel.length * np.sqrt(rng.chisquare(_ORDER, (COSINES, 1)) / _ORDER)
        frequencies = rng.standard_normal((COSINES, features.shape[1])) / spread
        phases = rng.uniform(0.0, 2.0 * np.pi, (COSINES, 1))

        def moved(array: npt.NDArray[np.float64]) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(array)).to(problem.y)

        affine = own.shape[1] + near.shape[1]
        return cls(moved(features.T), affine, moved(frequencies), moved(phases), (height, width))

    def parts(self) -> Iterator[Tensor]:
        """All regressors as images (n, H, W), a few at a time."""
        shape = (-1, *self.shape)
        step = max(1, AT_ONCE // self.features.shape[1])
        for start in range(0, len(self.frequencies), step):
            angle = self.frequencies[start : start + step] @ self.features
            angle += self.phases[start : start + step]
            yield angle.cos_().mul_((2.0 / len(self.frequencies)) ** 0.5).reshape(shape)
        plain = _AFFINE * self.features[: self.affine]
        yield torch.cat([torch.full_like(plain[:1], _AFFINE), plain]).reshape(shape)


def _usable(problem: Problem) -> npt.NDArray[np.bool_]:
    """LR pixels to fit: those that are usable, or all valid ones if there are none."""
    usable = usable_pixels(problem.spatial, problem.mask_x, problem.mask_y)
    return usable if usable.any() else usable_pixels(problem.spatial, problem.mask_x, None)


def blend_share(plain: Tensor, regressed: Tensor, truth: Tensor, mask: Tensor | None) -> float:
    """Share of the regression in the mean of both estimates of a pair whose truth is known.

    Half-way between one half, which is never far off, and what fits this truth best.

    Parameters
    ----------
    plain, regressed, truth : Tensor, shape (d, H, W)
    mask : Tensor, shape (H, W), or None
        1 where the truth counts.
    """
    move, miss = regressed - plain, truth - plain
    if mask is not None:
        move, miss = move * mask, miss * mask
    power = float(move.double().square().sum())
    best = float((move.double() * miss.double()).sum()) / power if power else 0.5
    return 0.5 * (0.5 + min(1.0, max(0.0, best)))
