"""The package's sampler and a plain one on one scene, with the same weights, images and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from napari_hsfusion.engine.observation import Problem

    from . import args_plain

RATIO, MSI_BANDS = 4, 4
NOW, NEXT = 500, 498
"""The times of the step that is measured."""


@dataclass(frozen=True)
class Case:
    """Sizes of one measurement.

    Attributes
    ----------
    side, bands, d : int
        Of a scene of side x side x bands, and of the subspace.
    base : int
        Channels of the spatial network's finest level. From 64 on the network has the
        published four levels of two blocks, below the two of one block that the presets have.
    gradient : {"x0", "network"}
    """

    side: int = 256
    bands: int = 103
    d: int = 8
    base: int = 16
    gradient: str = "x0"

    @property
    def shape(self) -> tuple[int, int]:
        """Levels, and blocks a level, of the spatial network."""
        return (4, 2) if self.base >= 64 else (2, 1)


@dataclass
class Sides:
    """Both implementations on one scene, at the same state."""

    ours: Any
    plain: args_plain.Sampler
    problem: Problem
    parameters: int


def build(case: Case, seed: int, device: str, dtype: str = "float32") -> Sides:
    """Both samplers of a scene of smooth random spectra and maps, from the same noise.

    Parameters
    ----------
    case : Case
    seed : int
        Of the scene, the weights and the noise.
    device : str
    dtype : {"float32", "float64"}
    """
    import torch

    from napari_hsfusion.engine.device import resolve_device
    from napari_hsfusion.engine.diffusion.published import PublishedSampler
    from napari_hsfusion.engine.nets.build import spatial_network, spectral_network
    from napari_hsfusion.engine.nets.initialise import initialise
    from napari_hsfusion.params import ArgsDiffParams

    from . import args_plain

    place, kind = resolve_device(device), getattr(torch, dtype)
    levels, blocks = case.shape
    params = ArgsDiffParams(
        d=case.d,
        spatial_base=case.base,
        spatial_levels=levels,
        spatial_blocks=blocks,
        gradient=case.gradient,
        precision="float32",
    )
    generator = torch.Generator().manual_seed(seed)
    nets = [spatial_network(params), spectral_network(case.bands)]
    for net in nets:
        initialise(net, generator)
        with torch.no_grad():
            for weight in net.parameters():  # blocks of a new network are skips: wake them
                weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
        net.to(place, kind).eval().requires_grad_(False)
    spatial, spectral = nets
    problem = _problem(case, seed, place, kind)
    a = torch.randn((case.d, case.side, case.side), generator=generator).to(place, kind)
    e = torch.randn((case.d, case.bands), generator=generator).to(place, kind)
    rows, columns = problem.spatial.terms[0]
    pair = args_plain.Pair(
        problem.x,
        problem.y,
        torch.as_tensor(rows.matrix).to(place, kind),
        torch.as_tensor(columns.matrix).to(place, kind),
        problem.response,
    )
    plain = args_plain.Sampler(
        pair,
        dict(spatial.state_dict()),
        dict(spectral.state_dict()),
        a,
        e,
        through=case.gradient == "network",
    )
    count = sum(p.numel() for p in spatial.parameters())
    return Sides(PublishedSampler(problem, spatial, spectral, params, a, e), plain, problem, count)


def _problem(case: Case, seed: int, device: torch.device, dtype: torch.dtype) -> Problem:
    from napari_hsfusion.engine.observation import Observation
    from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse

    rng = np.random.default_rng(seed)
    side, bands = case.side, case.bands
    maps = rng.random((5, side, side))
    maps[:3, side // 3 :] *= 0.2
    spectra = np.cumsum(rng.random((5, bands)), 1) / bands
    centres = np.linspace(0, bands - 1, MSI_BANDS + 2)[1:-1, None]
    triangles = np.clip(1 - np.abs(np.arange(bands) - centres) * MSI_BANDS / bands, 0, None)
    spatial = SpatialDegradation.bicubic((side, side), RATIO)
    spectral = SpectralResponse(triangles / triangles.sum(1, keepdims=True))
    rows, columns = (axis.matrix for axis in spatial.terms[0])
    x = np.einsum("kyx,kb->byx", rows @ maps @ columns.T, spectra)
    y = np.einsum("kyx,kc->cyx", maps, spectra @ spectral.matrix.T)
    x = x + 0.01 * rng.standard_normal(x.shape)
    y = y + 0.01 * rng.standard_normal(y.shape)
    pair = Observation(x, y, spatial, spectral, noise_x=0.01, noise_y=0.01)
    return pair.prepare(device, dtype)
