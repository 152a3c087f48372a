"""The guidance function of ARGS-Diff and its gradients, in factored form.

``L(A, E) = ||X - H(A x3 E)||_F + weight ||Y - A x3 E x3 R||_F`` (Eqs. 10 and 16;
the norms are not squared). The networks' state lives in [-1, 1], the factors in
[0, 1]: ``A = (state + 1) / 2``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..observation import Problem


def to_unit(state: Tensor) -> Tensor:
    """Map a state in [-1, 1] to a factor in [0, 1]."""
    return (state + 1.0) / 2.0


def to_state(factor: Tensor) -> Tensor:
    """Map a factor in [0, 1] to a state in [-1, 1]."""
    return factor * 2.0 - 1.0


def guidance_gradient(
    problem: Problem, a_state: Tensor, e_state: Tensor, weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of L with respect to both states, in closed form.

    With ``U = Rx / ||Rx||`` and ``V = weight Ry / ||Ry||`` (residuals of both images)

        dL/dA = -1/2 (H^T(U x3 E^T) + V x3 (R E^T)^T)
        dL/dE = -1/2 (<H(A), U> + <A, V> R)

    Nothing of size H x W x C is formed, and what has C bands is the LR-HSI's residual
    alone: read three times, never rescaled. Expanding its norm into Gram matrices would
    need as many products with X, and lose the residual's digits by cancellation.

    Returns
    -------
    loss : Tensor, scalar
    grad_a : Tensor, shape (d, H, W)
    grad_e : Tensor, shape (d, C)
    """
    a, e = to_unit(a_state), to_unit(e_state)
    low = problem.spatial.forward(a)
    project = e @ problem.response.T
    rx = _residual(problem.x, e, low, problem.mask_x)
    ry = _residual(problem.y, project, a, problem.mask_y)
    norm_x = torch.linalg.vector_norm(rx)
    norm_y = torch.linalg.vector_norm(ry)
    per_x = -0.5 / norm_x.clamp(min=torch.finfo(rx.dtype).tiny)
    per_y = -0.5 * weight / norm_y.clamp(min=torch.finfo(ry.dtype).tiny)
    grad_a = problem.spatial.adjoint(((e @ rx) * per_x).reshape(low.shape))
    grad_a = torch.addmm(grad_a.flatten(1), project * per_y, ry).reshape(a.shape)
    grad_e = (low.flatten(1) @ rx.T) * per_x
    grad_e += ((a.flatten(1) @ ry.T) * per_y) @ problem.response
    return norm_x + weight * norm_y, grad_a, grad_e


def _residual(image: Tensor, basis: Tensor, coefficients: Tensor, mask: Tensor | None) -> Tensor:
    """``image - coefficients x3 basis``, masked, with pixels in a row: (bands, pixels)."""
    out = torch.addmm(image.flatten(1), basis.T, coefficients.flatten(1), alpha=-1)
    return out if mask is None else out.mul_(mask.flatten())
