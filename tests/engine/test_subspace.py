"""Subspace, prior and closed-form estimate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_pairs import CPU, dense, observation, problem

from napari_hsfusion.engine import subspace
from napari_hsfusion.engine.observation import Problem
from napari_hsfusion.errors import ParameterError


def test_basis_is_that_of_the_singular_vectors() -> None:
    """Orthonormal rows that span numpy's leading left singular vectors."""
    p = problem()
    basis = subspace.spectral_basis(p, 4).numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(4), atol=1e-10)
    u = np.linalg.svd(p.x.flatten(1).numpy(), full_matrices=False)[0][:, :4]
    np.testing.assert_allclose(basis.T @ basis, u @ u.T, atol=1e-8)


def test_basis_ignores_masked_pixels() -> None:
    """A wild pixel that is masked changes nothing."""
    _, o = observation()
    mask = np.ones((4, 6), dtype=bool)
    mask[2, 3] = False
    plain = type(o)(o.x, o.y, o.spatial, o.spectral, valid_x=mask).prepare(CPU, torch.float64)
    wild = o.x.copy()
    wild[:, 2, 3] = np.linspace(0, 0.3, 9)
    other = type(o)(wild, o.y, o.spatial, o.spectral, valid_x=mask).prepare(CPU, torch.float64)
    torch.testing.assert_close(subspace.spectral_basis(plain, 3), subspace.spectral_basis(other, 3))


def test_too_many_dimensions() -> None:
    """More dimensions than bands, or than valid pixels, are refused."""
    p = problem()
    with pytest.raises(ParameterError, match="at most the 9 bands of the LR-HSI, got 10"):
        subspace.resolve_dimensions(p, 10)
    few = problem(valid_x=np.arange(24).reshape(4, 6) < 5)
    with pytest.raises(ParameterError, match="at most the 5 valid LR pixels, got 6"):
        subspace.resolve_dimensions(few, 6)
    assert subspace.resolve_dimensions(p, None) == 9
    assert subspace.resolve_dimensions(few, None) == 5
    assert subspace.resolve_dimensions(problem(bands=15), None) == 10
    assert subspace.resolve_dimensions(p, 4) == 4


def test_dimensions_of_the_signal() -> None:
    """As many as were mixed, whatever the noise leaves visible of them."""
    rng = np.random.default_rng(3)
    spectra, maps = rng.normal(size=(40, 6)), rng.normal(size=(6, 900))
    scales = np.array([5.0, 3.0, 2.0, 1.0, 0.5, 1e-3])
    mixed = (spectra * scales) @ maps / 10 + 0.05 * rng.normal(size=(40, 900))
    p = problem()
    x = torch.as_tensor(mixed.reshape(40, 30, 30))
    found = subspace.signal_dimensions(dataclasses.replace(p, x=x, sigma_x=0.05))
    assert found == 5
    assert subspace.resolve_dimensions(p, None, 7) == 7
    assert subspace.resolve_dimensions(p, None, 70) == 9


def test_classes_know_their_place() -> None:
    """With two classes and much weight on the place, a straight line parts them."""
    p = problem()
    basis = subspace.spectral_basis(p, 3)

    def changes(locality: float) -> int:
        member = subspace.class_prior(p, basis, 2, 0, locality).membership
        assert member is not None
        label = member.argmax(0)
        assert label.unique().numel() == 2
        along_rows = (label.diff(dim=1) != 0).sum(1).max()
        return int(max(along_rows, (label.diff(dim=0) != 0).sum(0).max()))

    assert changes(50.0) == 1
    assert changes(0.0) > 1


def _plain_map(p: Problem, e: np.ndarray) -> np.ndarray:
    """The estimate by the formulas of the Gaussian prior, one dense system."""
    blur = dense(p.spatial)
    low = e @ p.x.flatten(1).numpy()
    images = low.reshape(len(e), 4, 6)
    mean2 = images.reshape(len(e), 2, 2, 3, 2).mean((2, 4))
    up = torch.nn.functional.interpolate(
        torch.as_tensor(mean2)[None], scale_factor=2, mode="bicubic", align_corners=False
    )[0].numpy()
    detail = (images - up).reshape(len(e), -1)
    values, vectors = np.linalg.eigh(detail @ detail.T / 24 - p.sigma_x**2 * e @ e.T)
    sigma = vectors * np.maximum(values, (0.1 * p.sigma_x) ** 2) @ vectors.T
    a0 = p.spatial.upsample(torch.as_tensor(images)).flatten(1).numpy()
    pixels = a0.shape[1]
    er = e @ p.response.numpy().T
    prior = np.kron(np.linalg.inv(sigma), np.eye(pixels))
    matrix = (
        np.kron(e @ e.T, blur.T @ blur) / p.sigma_x**2
        + np.kron(er @ er.T, np.eye(pixels)) / p.sigma_y**2
        + prior
    )
    rhs = (
        (low @ blur).ravel() / p.sigma_x**2
        + (er @ p.y.flatten(1).numpy()).ravel() / p.sigma_y**2
        + prior @ a0.ravel()
    )
    return np.linalg.solve(matrix, rhs).reshape(len(e), 16, 24)


def test_estimate_against_one_dense_system() -> None:
    """Conjugate gradients reach the solution of the formulas written out."""
    p = problem()
    basis = subspace.spectral_basis(p, 3)
    got, _, taken = subspace.solve_map(
        p, basis, subspace.gaussian_prior(p, basis), iterations=2000, tolerance=1e-10
    )
    np.testing.assert_allclose(got.numpy(), _plain_map(p, basis.numpy()), atol=1e-6)
    assert taken < 2000


def test_a_prior_of_another_mean() -> None:
    """Solves the same system for that mean; its own mean gives the same estimate again."""
    p = problem()
    basis = subspace.spectral_basis(p, 3)
    prior = subspace.choose_prior(p, basis, 3, 0)
    own, system, _ = subspace.solve_map(p, basis, prior)
    torch.testing.assert_close(system.about(prior.mean), own, rtol=0, atol=3e-3)
    moved = prior.mean + 0.1 * torch.randn(prior.mean.shape, dtype=torch.float64)
    found = system.about(moved)
    known = system.equations
    left = known.data() + known.prior(moved) - known.apply(found)
    assert left.norm() < 1e-2 * (known.data() + known.prior(moved)).norm()
    # far from the prior's mean there is nothing but the prior
    assert (found - own).square().mean() < 0.1**2


def test_odd_sizes_have_detail() -> None:
    """The octave's detail of an odd image is finite, and zero for a constant one."""
    image = torch.rand((2, 5, 7), generator=torch.Generator().manual_seed(0))
    assert subspace.octave_detail(image).shape == image.shape
    flat = subspace.octave_detail(torch.full((2, 5, 7), 0.3))
    torch.testing.assert_close(flat, torch.zeros_like(flat), atol=1e-6, rtol=0)


def test_classes_partition_the_scene() -> None:
    """Every pixel belongs to one class; precisions are symmetric positive definite."""
    p = problem()
    basis = subspace.spectral_basis(p, 3)
    prior = subspace.class_prior(p, basis, 4, seed=0)
    assert prior.membership is not None
    assert 1 < len(prior.precision) <= 4
    torch.testing.assert_close(prior.membership.sum(0), torch.ones((16, 24), dtype=torch.float64))
    assert set(prior.membership.unique().tolist()) == {0.0, 1.0}
    for matrix in prior.precision:
        torch.testing.assert_close(matrix, matrix.T, rtol=1e-8, atol=1e-8)
        assert float(torch.linalg.eigvalsh(matrix).min()) > 0
    again = subspace.class_prior(p, basis, 4, seed=0)
    assert torch.equal(again.precision, prior.precision)
    one = subspace.class_prior(p, basis, 1, seed=0)
    plain = subspace.gaussian_prior(p, basis)
    torch.testing.assert_close(one.precision, plain.precision, rtol=1e-6, atol=1e-6)
