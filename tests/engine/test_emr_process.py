"""The residual chain of EMR-Diff and its edge map, against what they are derived from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_hsfusion.engine.diffusion.edges import edge_magnitude, edge_map
from napari_hsfusion.engine.diffusion.residual import diffuse, eta_schedule, prior, reverse_step
from napari_hsfusion.engine.emr.config import EmrConfig
from napari_hsfusion.engine.emr.model import EmrModel
from napari_hsfusion.errors import ParameterError

STEPS = (3, 4, 5, 10)


def images(count: int, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.rand(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize("kappa", [2.0, 0.5])
@pytest.mark.parametrize("steps", STEPS)
def test_schedule_as_it_is_written(steps: int, kappa: float) -> None:
    """Geometric square roots, the exponent's grid warped by the power 0.3."""
    first = min(0.001 / kappa, 0.001)
    growth = (0.999 / first) ** (1 / (steps - 1))
    roots = [
        first * growth ** ((steps - 1) * ((t - 1) / (steps - 1)) ** 0.3)
        for t in range(1, steps + 1)
    ]
    table = eta_schedule(steps, kappa)
    assert table[0] == 0
    np.testing.assert_allclose(np.sqrt(table[1:]), roots, rtol=1e-12)
    assert table[-1] == pytest.approx(0.998001, rel=1e-12)
    assert (np.diff(table) > 0).all()


def test_schedules_that_cannot_be() -> None:
    np.testing.assert_allclose(eta_schedule(1, 2.0), [0.0, 0.998001])
    with pytest.raises(ParameterError, match="steps: expected at least 1, got 0"):
        eta_schedule(0, 2.0)
    for kappa in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="kappa: expected a number above 0"):
            eta_schedule(5, kappa)


@pytest.mark.parametrize("steps", STEPS)
def test_reverse_step_is_the_posterior(steps: int) -> None:
    """q(x_{t-1} | x_t, x_0) by Bayes' rule from the transition and the marginal, in numpy."""
    kappa = 2.0
    clean, start, state, edges, noise = images(5, 1, 3, 6, 7)
    x_0, a_0, x_t, w = (v.numpy() for v in (clean, start, state, edges))
    eta = eta_schedule(steps, kappa)
    for t in range(2, steps + 1):
        alpha = eta[t] - eta[t - 1]
        residual = a_0 - x_0
        before = x_0 + eta[t - 1] * residual  # mean of x_{t-1} given x_0
        before_precision = 1 / (kappa**2 * eta[t - 1] * w**2)
        said = x_t - alpha * residual  # what x_t says of x_{t-1}
        said_precision = 1 / (kappa**2 * alpha * w**2)
        variance = 1 / (before_precision + said_precision)
        mean = variance * (before_precision * before + said_precision * said)
        got = reverse_step(state, clean, None, eta, t, kappa)
        np.testing.assert_allclose(got, mean, rtol=1e-10, atol=1e-12)
        drawn = reverse_step(state, clean, noise * edges, eta, t, kappa) - got
        np.testing.assert_allclose(drawn, np.sqrt(variance) * noise.numpy(), rtol=1e-8, atol=1e-12)
    assert torch.equal(reverse_step(state, clean, noise, eta, 1, kappa), clean)


def test_transitions_add_up_to_the_forward_process() -> None:
    """Mean and deviation of a chain walked step by step, by sampling, are those of one leap."""
    kappa, count = 2.0, 20_000
    eta = eta_schedule(5, kappa)
    generator = torch.Generator().manual_seed(0)
    clean, start, edge = 0.3, 0.9, 0.4
    x = torch.full((count,), clean, dtype=torch.float64)
    for t in range(1, 6):
        alpha = eta[t] - eta[t - 1]
        white = torch.randn(count, generator=generator, dtype=torch.float64)
        x = x + alpha * (start - clean) + kappa * alpha**0.5 * edge * white
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        share = torch.tensor([eta[t]])
        mean = diffuse(clean * one, start * one, 0 * one, share, kappa).item()
        deviation = diffuse(clean * one, start * one, edge * one, share, kappa).item() - mean
        assert float(x.mean()) == pytest.approx(mean, abs=5 * deviation / count**0.5)
        assert float(x.std()) == pytest.approx(deviation, rel=0.02)


def test_forward_process_ends_at_the_prior() -> None:
    """At t = T mean and deviation are the prior's but for eta_T = 0.998."""
    clean, start, noise = images(3, 2, 3, 4, 5)
    eta = torch.as_tensor(eta_schedule(5, 2.0))
    last = diffuse(clean, start, noise, eta[-1:].expand(2), 2.0)
    begun = prior(start, noise, 2.0)
    wanted = 0.001999 * (clean - start) - 2.0 * 0.001 * noise
    torch.testing.assert_close(last - begun, wanted, rtol=1e-9, atol=1e-12)
    assert torch.equal(prior(start, torch.zeros_like(start), 2.0), start)


def test_every_image_has_its_own_time() -> None:
    clean, start, noise = images(3, 3, 2, 4, 4)
    eta = torch.as_tensor(eta_schedule(5, 2.0))
    together = diffuse(clean, start, noise, eta[[1, 5, 3]], 2.0)
    for i, t in enumerate((1, 5, 3)):
        alone = diffuse(clean[i : i + 1], start[i : i + 1], noise[i : i + 1], eta[t : t + 1], 2.0)
        assert torch.equal(together[i : i + 1], alone)


def test_noise_lies_on_the_edges() -> None:
    """White noise times the map; without it where noise is plain."""
    like = torch.zeros(1, 4, 40, 50, dtype=torch.float64)
    edges = images(1, 1, 1, 40, 50)[0]
    edges[..., :10] = 0
    drawn = {}
    for kind in ("plain", "edge-aware"):
        model = EmrModel(
            EmrConfig(bands=3, msi_bands=1, ratio=2, width=4, architecture="unet", noise=kind)
        )
        drawn[kind] = model.noise(like, edges, torch.Generator().manual_seed(1))
    assert torch.equal(drawn["edge-aware"], drawn["plain"] * edges)
    assert drawn["plain"].mean().item() == pytest.approx(0, abs=0.05)
    assert drawn["plain"].std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("shape", [(1, 9, 12), (3, 12, 9), (4, 1, 7), (2, 5, 1)])
def test_edge_map_is_scipys(shape: tuple[int, ...]) -> None:
    """Sobel of the mean over bands with nearest borders, and min-max, image by image."""
    msi = images(1, 2, *shape)[0]
    mapped = edge_map(msi)
    assert mapped.shape == (2, 1, *shape[1:])
    for image, got in zip(msi.numpy(), mapped.numpy(), strict=True):
        mean = image.mean(0)
        gx, gy = (ndimage.sobel(mean, axis, mode="nearest") for axis in (1, 0))
        magnitude = np.sqrt(gx**2 + gy**2 + 1e-8)
        wanted = (magnitude - magnitude.min()) / (magnitude.max() - magnitude.min())
        np.testing.assert_allclose(got[0], wanted, atol=1e-12)


def test_edge_map_of_flat_images() -> None:
    """Zero, not a number less; beside an image that has edges too; whatever the round-off."""
    edgy = images(1, 1, 3, 8, 8)[0]
    both = torch.cat([torch.full_like(edgy, 0.7), edgy])
    mapped = edge_map(both)
    assert not mapped[0].any()
    assert torch.equal(mapped[1:], edge_map(edgy))
    assert not edge_map(torch.full((1, 3, 1, 1), 0.2)).any()
    generator = torch.Generator().manual_seed(0)
    almost = 1 + 2e-7 * torch.rand(1, 3, 64, 64, generator=generator)
    assert not edge_map(almost).any()


def test_edge_map_of_a_part() -> None:
    """With the extremes of the scene a part's map is the scene's, and stays in [0, 1]."""
    scene = images(1, 1, 2, 20, 20)[0]
    magnitude = edge_magnitude(scene)
    low, high = magnitude.amin((1, 2, 3)), magnitude.amax((1, 2, 3))
    part = edge_map(scene[..., 4:15, 3:12], low, high)
    whole = edge_map(scene)[..., 4:15, 3:12]
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(part[inside], whole[inside], rtol=0, atol=1e-12)
    assert not torch.allclose(edge_map(scene[..., 4:15, 3:12])[inside], whole[inside])
    tight = edge_map(scene, low + 0.1, high - 0.5)
    assert float(tight.min()) == 0
    assert float(tight.max()) == 1
