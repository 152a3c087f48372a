"""The closed form's posterior: its covariance against dense matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_pairs import CPU, dense, observation, problem

from napari_hsfusion.engine import posterior, subspace
from napari_hsfusion.engine.events import CancelToken, Step
from napari_hsfusion.engine.observation import NormalEquations, Problem
from napari_hsfusion.engine.spread import drained
from napari_hsfusion.errors import Cancelled

D = 3


def _masked_problem() -> Problem:
    valid_x = np.ones((4, 6), dtype=bool)
    valid_x[1, 2] = False
    valid_y = np.ones((16, 24), dtype=bool)
    valid_y[3:6, 7:15] = False
    _, plain = observation(noise=0.01)
    pair = type(plain)(
        plain.x, plain.y, plain.spatial, plain.spectral, valid_x=valid_x, valid_y=valid_y
    )
    return pair.prepare(CPU, torch.float64)


def _posterior(p: Problem, classes: int) -> posterior.Posterior:
    basis = subspace.spectral_basis(p, D)
    _, systems = subspace.average_map(p, basis, classes, 3, 0)
    solutions = [s.equations.solve(s.rhs, torch.zeros_like(s.rhs), tolerance=1e-8) for s in systems]
    mean = torch.stack([solution for solution, _ in solutions]).mean(0)
    return posterior.Posterior(p, basis, systems, mean)


def _dense(equations: NormalEquations) -> np.ndarray:
    """The operator written out, (d H W, d H W)."""
    p = equations.problem
    pixels = p.y[0].numel()
    blur = dense(p.spatial)
    mask_x = np.ones(len(blur)) if p.mask_x is None else p.mask_x.flatten().numpy()
    mask_y = np.ones(pixels) if p.mask_y is None else p.mask_y.flatten().numpy()
    e = equations.basis.numpy()
    er = e @ p.response.numpy().T
    matrix = np.kron(e @ e.T, blur.T @ (mask_x[:, None] * blur)) / p.sigma_x**2
    matrix += np.kron(er @ er.T, np.diag(mask_y)) / p.sigma_y**2
    shares = [np.ones(pixels)]
    if equations.membership is not None:
        shares = list(equations.membership.flatten(1).numpy())
    for precision, share in zip(equations.precision.numpy(), shares, strict=True):
        matrix += np.kron(precision, np.diag(share))
    return matrix


def _at_pixels(matrix: np.ndarray) -> np.ndarray:
    """Covariance (d, d, H, W) of every pixel out of that of all of them."""
    blocks = matrix.reshape(D, 384, D, 384)
    return np.einsum("ipjp->ijp", blocks).reshape(D, D, 16, 24)


def test_the_drawn_noise_has_the_operator_as_covariance() -> None:
    """Over many draws, in directions that the two images and the prior each govern."""
    p = _masked_problem()
    (system,) = _posterior(p, 1).systems
    matrix = _dense(system.equations)
    values, vectors = np.linalg.eigh(matrix)
    chosen = vectors[:, [0, 5, 200, 600, 1000, -3, -1]]
    generator = torch.Generator().manual_seed(4)
    draws = np.stack([system.equations.draw(generator).flatten().numpy() for _ in range(600)])
    seen = draws @ chosen / np.sqrt(values[[0, 5, 200, 600, 1000, -3, -1]])
    # seven standard normal variables: their covariance is within 5 of its own deviations
    assert np.abs(seen.T @ seen / len(seen) - np.eye(7)).max() < 5 * np.sqrt(2 / len(seen))
    assert np.abs(seen.mean(0)).max() < 5 / np.sqrt(len(seen))


def test_noise_of_a_soft_membership() -> None:
    """Where a pixel has several classes the noise has the mean of their precisions."""
    p = problem(noise=0.01)
    precision = torch.stack([torch.eye(D, dtype=torch.float64) * 10.0 ** (k + 1) for k in (0, 3)])
    share = torch.full((2, 16, 24), 0.5, dtype=torch.float64)
    basis = subspace.spectral_basis(p, D)
    equations = NormalEquations(replace(p, sigma_x=1e6, sigma_y=1e6), basis, precision, share)
    generator = torch.Generator().manual_seed(0)
    power = np.mean([equations.draw(generator).square().mean().item() for _ in range(200)])
    assert power == pytest.approx((10 + 1e4) / 2, rel=0.02)


@pytest.mark.parametrize("classes", [1, 4])
def test_covariance_against_the_dense_posterior(classes: int) -> None:
    """Sampled covariances come near those of the inverse of the dense normal matrix."""
    p = _masked_problem()
    found = _posterior(p, classes)
    solutions = []
    exact = np.zeros((D, D, 16, 24))
    for system in found.systems:
        inverse = np.linalg.inv(_dense(system.equations))
        exact += _at_pixels(inverse) / len(found.systems)
        solutions.append((inverse @ system.rhs.flatten().numpy()).reshape(D, 16, 24))
    apart = np.stack(solutions) - np.mean(solutions, 0)
    exact += np.einsum("kiyx,kjyx->ijyx", apart, apart) / len(solutions)
    np.testing.assert_allclose(found.mean.numpy(), np.mean(solutions, 0), atol=1e-3)
    generator = torch.Generator().manual_seed(0)
    got = drained(found.deviation(240, generator, CancelToken())).covariance.numpy()
    trace, wanted = np.einsum("iiyx->yx", got), np.einsum("iiyx->yx", exact)
    assert trace.sum() / wanted.sum() == pytest.approx(1, abs=0.03)
    # 240 squares of a normal variable: a relative deviation of 0.09 at most, less what is exact
    np.testing.assert_allclose(trace / wanted, 1.0, atol=0.35)
    difference = np.sqrt(((got - exact) ** 2).sum() / (exact**2).sum())
    assert difference < 0.1


def test_what_is_exact_needs_few_samples() -> None:
    """Two samples tell the deviation better than two samples can by themselves."""
    p = problem(noise=0.01)
    found = _posterior(p, 1)
    exact = _at_pixels(np.linalg.inv(_dense(found.systems[0].equations)))
    generator = torch.Generator().manual_seed(1)
    got = drained(found.deviation(2, generator, CancelToken()))
    wanted = np.sqrt(np.einsum("ib,ijyx,jb->byx", found.basis, exact, found.basis))
    beyond = (got.outside[:, None, None] * got.profile).numpy()
    ratio = got.bands(0, 9).numpy() / np.sqrt(wanted**2 + beyond)
    assert np.std(ratio) < 0.25  # of two plain samples it would be 0.48


def test_a_sample_does_not_begin_where_the_run_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those at work beside the one that sees it first have been taken already."""
    made = _posterior(problem(), 1)
    (system,) = made.systems
    generator = torch.Generator().manual_seed(0)
    token = CancelToken()
    solves: list[object] = []
    solve = type(system.equations).solve

    def cancelling(*arguments: Any, **options: Any) -> Any:
        solves.append(arguments)
        token.cancel()
        return solve(*arguments, **options)

    monkeypatch.setattr(type(system.equations), "solve", cancelling)
    local = posterior.local_covariance(system.equations, posterior.pixel_weights(made.problem))
    noise = system.equations.draw(generator)
    posterior._varying_mean(system, local, noise, token)
    with pytest.raises(Cancelled):
        posterior._varying_mean(system, local, noise, token)
    assert len(solves) == 1


def test_the_local_covariance_is_the_inverse_of_the_block() -> None:
    """Borders, gaps and classes included."""
    p = _masked_problem()
    found = _posterior(p, 4)
    weights = posterior.pixel_weights(p)
    for system in found.systems:
        blocks = _at_pixels(_dense(system.equations))
        local = posterior.local_covariance(system.equations, weights).numpy()
        product = np.einsum("ijyx,jkyx->yxik", blocks, local)
        np.testing.assert_allclose(product, np.broadcast_to(np.eye(D), product.shape), atol=1e-8)


def test_variance_outside_the_subspace() -> None:
    """Signal beyond the dimensions counts, noise does not."""
    noisy = problem(noise=0.01)
    full = posterior.outside_variance(noisy, subspace.spectral_basis(noisy, 9))
    assert torch.all(full < 1e-12)
    basis = subspace.spectral_basis(noisy, 2)
    rest = noisy.x - torch.tensordot(basis.T, torch.tensordot(basis, noisy.x, dims=1), dims=1)
    power = rest.square().mean((1, 2))
    outside = posterior.outside_variance(noisy, basis)
    assert torch.all(outside <= power)
    assert outside.sum() > 0.5 * power.sum()
    four = posterior.outside_variance(noisy, subspace.spectral_basis(noisy, 4))
    assert four.sum() < 0.1 * noisy.sigma_x**2 * 9


def test_where_the_signal_outside_the_subspace_is() -> None:
    """A material that the basis does not know lies in one corner."""
    p = problem(noise=0.001)
    basis = subspace.spectral_basis(p, 4)
    strange = torch.linalg.svd(basis).Vh[-1]
    x = p.x.clone()
    x[:, :2, 4:] += 0.1 * strange[:, None, None]
    profile = posterior.outside_profile(replace(p, x=x), basis)
    assert bool((profile >= 0).all())
    assert float(profile.mean()) == pytest.approx(1)
    assert float(profile[:6, 18:].min()) > 10 * float(profile[10:, :8].max())
    assert bool((posterior.outside_profile(p, torch.eye(9, dtype=torch.float64)) == 1).all())


def test_deviations_are_finite_and_not_negative_and_the_seed_settles_them() -> None:
    found = _posterior(_masked_problem(), 4)

    def draw(seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        return drained(found.deviation(3, generator, CancelToken())).bands(0, 9).numpy()

    first = draw(0)
    assert np.isfinite(first).all()
    assert (first > 0).all()
    assert first.tobytes() == draw(0).tobytes()
    assert not np.array_equal(first, draw(1))


def test_less_is_known_where_nothing_was_measured() -> None:
    found = _posterior(_masked_problem(), 1)
    generator = torch.Generator().manual_seed(0)
    trace = drained(found.deviation(8, generator, CancelToken())).covariance.numpy().trace()
    gap = np.zeros((16, 24), dtype=bool)
    gap[3:6, 7:15] = True
    assert trace[gap].min() > trace[~gap].max()


def test_samples_are_steps_and_cancel_ends_them() -> None:
    found = _posterior(problem(), 4)
    token = CancelToken()
    steps: Any = found.deviation(5, torch.Generator().manual_seed(0), token)
    assert [next(steps) for _ in range(2)] == [Step("uncertainty", k, 5) for k in (1, 2)]
    token.cancel()
    with pytest.raises(Cancelled):
        next(steps)
