"""The pair, its masks, and the normal equations against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_pairs import CPU, dense, observation, problem, response, scene

from napari_hsfusion.engine.observation import NormalEquations, Observation
from napari_hsfusion.engine.operators import SpatialDegradation, SpectralResponse
from napari_hsfusion.engine.validity import fill_invalid
from napari_hsfusion.errors import PairError


def _masks(rng: np.random.Generator) -> dict[str, np.ndarray]:
    valid_x = np.ones((4, 6), dtype=bool)
    valid_x[1, 2] = False
    return {"valid_x": valid_x, "valid_y": rng.random((16, 24)) > 0.1}


def _precision(rng: np.random.Generator, k: int, d: int) -> torch.Tensor:
    root = torch.as_tensor(rng.standard_normal((k, d, d)))
    return root @ root.transpose(1, 2) + torch.eye(d, dtype=torch.float64)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("classes", [1, 3])
def test_normal_equations_against_dense_matrices(
    masked: bool, classes: int, rng: np.random.Generator
) -> None:
    """Operator, right-hand side and solution equal those of the matrix written out."""
    p = problem(**(_masks(rng) if masked else {}))
    d, pixels = 3, 16 * 24
    basis = torch.as_tensor(rng.standard_normal((d, 9)))
    precision = _precision(rng, classes, d)
    member = None
    if classes > 1:
        labels = torch.as_tensor(rng.integers(0, classes, (16, 24)))
        member = torch.nn.functional.one_hot(labels).permute(2, 0, 1).double()
    equations = NormalEquations(p, basis, precision, member)

    blur = dense(p.spatial)
    mx = np.ones(24) if p.mask_x is None else p.mask_x.numpy().ravel()
    my = np.ones(pixels) if p.mask_y is None else p.mask_y.numpy().ravel()
    e, r = basis.numpy(), p.response.numpy()
    # unknowns ordered (d, pixel); X and Y stacked as (band, pixel)
    to_x = np.kron(e.T, np.diag(mx) @ blur) / p.sigma_x
    to_y = np.kron(r @ e.T, np.diag(my)) / p.sigma_y
    matrix = to_x.T @ to_x + to_y.T @ to_y
    rhs = to_x.T @ (p.x.flatten(1) * torch.as_tensor(mx)).numpy().ravel() / p.sigma_x
    rhs += to_y.T @ (p.y.flatten(1) * torch.as_tensor(my)).numpy().ravel() / p.sigma_y
    weights = np.ones((1, pixels)) if member is None else member.flatten(1).numpy()
    for k in range(classes):
        matrix += np.kron(precision[k].numpy(), np.diag(weights[k]))

    a = torch.as_tensor(rng.standard_normal((d, 16, 24)))
    np.testing.assert_allclose(
        equations.apply(a).numpy().ravel(), matrix @ a.numpy().ravel(), rtol=1e-9, atol=1e-6
    )
    np.testing.assert_allclose(equations.data().numpy().ravel(), rhs, rtol=1e-9, atol=1e-6)
    extra = _precision(rng, 1, d)[0]
    for more in (None, extra):
        whole = matrix if more is None else matrix + np.kron(more.numpy(), np.eye(pixels))
        got, _ = equations.solve(
            equations.data(), torch.zeros_like(a), extra=more, iterations=3000, tolerance=1e-12
        )
        np.testing.assert_allclose(got.numpy().ravel(), np.linalg.solve(whole, rhs), atol=1e-6)


def test_residuals_equal_those_of_the_full_cube(rng: np.random.Generator) -> None:
    """The factored residuals are those of the cube written out, zero where masked."""
    p = problem(**_masks(rng))
    a = torch.as_tensor(rng.random((3, 16, 24)))
    e = torch.as_tensor(rng.random((3, 9)))
    cube = torch.einsum("khw,kb->bhw", a, e)
    rx, ry = p.residuals(a, e)
    torch.testing.assert_close(rx, (p.x - p.spatial.forward(cube)) * p.mask_x)
    torch.testing.assert_close(ry, (p.y - p.spectral.forward(cube)) * p.mask_y)


def test_conjugate_gradients_stop_at_the_tolerance(rng: np.random.Generator) -> None:
    """A solved system takes no iteration, a loose tolerance fewer than a tight one."""
    p = problem()
    equations = NormalEquations(p, torch.as_tensor(rng.random((2, 9))), _precision(rng, 1, 2))
    rhs = equations.data()
    tight, many = equations.solve(rhs, torch.zeros_like(rhs), iterations=500, tolerance=1e-10)
    _, few = equations.solve(rhs, torch.zeros_like(rhs), iterations=500, tolerance=1e-2)
    _, none = equations.solve(rhs, tight, tolerance=1e-6)
    assert none == 0
    assert 0 < few < many < 500


def test_nan_pixels_are_masked_and_filled() -> None:
    """NaN marks a pixel invalid in every band; filling uses the nearest valid pixel."""
    _, good = observation()
    x = good.x.copy()
    x[3, 2, 1] = np.nan
    masked = Observation(x, good.y, good.spatial, good.spectral)
    assert (~masked.valid_x).sum() == 1
    assert not masked.valid_x[2, 1]
    assert not masked.known()[8:12, 4:8].any()
    assert masked.known().sum() == 16 * 24 - 16
    prepared = masked.prepare(CPU, torch.float64)
    assert torch.isfinite(prepared.x).all()
    assert prepared.pixels().shape == (9, 23)
    image = np.array([[[1.0, np.nan, 5.0, 5.0]]])
    filled = fill_invalid(image, np.isfinite(image[0]))
    assert filled[0, 0, 1] in (1.0, 5.0)


def test_noise_given_is_used() -> None:
    """Standard deviations in input units replace the estimates."""
    _, o = observation(noise_x=0.01, noise_y=0.02)
    p = o.prepare(CPU, torch.float64)
    assert p.sigma_x * p.scale == pytest.approx(0.01)
    assert p.sigma_y * p.scale == pytest.approx(0.02)


@pytest.mark.parametrize("noise", [0.0005, 0.004, 0.02])
def test_noise_is_estimated_from_the_pair(noise: float) -> None:
    """Both levels come back within a third on a low-rank scene with known noise."""
    bands = 40
    rng = np.random.default_rng(0)
    z = scene(bands, 96, 96, seed=3)
    spatial = SpatialDegradation.bicubic((96, 96), 4)
    spectral = SpectralResponse(response(bands, 4))
    x = spatial.forward(torch.as_tensor(z)).numpy()
    y = spectral.forward(torch.as_tensor(z)).numpy()
    x += noise * rng.standard_normal(x.shape)
    y += noise * rng.standard_normal(y.shape)
    p = Observation(x, y, spatial, spectral).prepare(CPU, torch.float64)
    assert p.sigma_x * p.scale == pytest.approx(noise, rel=0.1)
    assert p.sigma_y * p.scale == pytest.approx(noise, rel=0.33)


def test_wrong_pairs_are_named() -> None:
    """Band counts, sizes, masks and empty images each have their message."""
    _, o = observation()
    with pytest.raises(PairError, match="SRF expects 9 bands, the image has 8"):
        Observation(o.x[:8], o.y, o.spatial, o.spectral)
    with pytest.raises(PairError, match="SRF expects 3 bands, the image has 2"):
        Observation(o.x, o.y[:2], o.spatial, o.spectral)
    with pytest.raises(PairError, match=r"HR-MSI: expected \(16, 24\) pixels, got \(16, 20\)"):
        Observation(o.x, o.y[:, :, :20], o.spatial, o.spectral)
    with pytest.raises(PairError, match="mask of"):
        Observation(o.x, o.y, o.spatial, o.spectral, valid_x=np.ones((2, 2), dtype=bool))
    with pytest.raises(PairError, match="no pixel has a value"):
        Observation(o.x * np.nan, o.y, o.spatial, o.spectral)
    with pytest.raises(PairError, match="LR-HSI is zero everywhere"):
        Observation(o.x * 0, o.y * 0, o.spatial, o.spectral).prepare(CPU, torch.float64)
