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


def guidance_loss(problem: Problem, a_state: Tensor, e_state: Tensor, weight: float) -> Tensor:
    """L at states (d, H, W) and (d, C), a scalar; differentiable."""
    rx, ry = problem.residuals(to_unit(a_state), to_unit(e_state))
    return torch.linalg.vector_norm(rx) + weight * torch.linalg.vector_norm(ry)


def guidance_gradient(
    problem: Problem, a_state: Tensor, e_state: Tensor, weight: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of L with respect to both states, in closed form.

    With ``U = Rx / ||Rx||`` and ``V = weight Ry / ||Ry||`` (residuals of both images)

        dL/dA = -1/2 (H^T(U x3 E^T) + V x3 (R E^T)^T)
        dL/dE = -1/2 (<H(A), U> + <A, V> R)

    Nothing of size H x W x C is formed.

    Returns
    -------
    loss : Tensor, scalar
    grad_a : Tensor, shape (d, H, W)
    grad_e : Tensor, shape (d, C)
    """
    a, e = to_unit(a_state), to_unit(e_state)
    low = problem.spatial.forward(a)
    project = e @ problem.response.T
    rx = problem.x - torch.tensordot(e.T, low, dims=1)
    ry = problem.y - torch.tensordot(project.T, a, dims=1)
    if problem.mask_x is not None:
        rx = rx * problem.mask_x
    if problem.mask_y is not None:
        ry = ry * problem.mask_y
    norm_x = torch.linalg.vector_norm(rx)
    norm_y = torch.linalg.vector_norm(ry)
    u = rx / norm_x.clamp(min=torch.finfo(rx.dtype).tiny)
    v = ry * (weight / norm_y.clamp(min=torch.finfo(ry.dtype).tiny))
    grad_a = problem.spatial.adjoint(torch.tensordot(e, u, dims=1))
    grad_a += torch.tensordot(project, v, dims=1)
    grad_e = low.flatten(1) @ u.flatten(1).T
    grad_e = grad_e + (a.flatten(1) @ v.flatten(1).T) @ problem.response
    return norm_x + weight * norm_y, grad_a.mul_(-0.5), grad_e.mul(-0.5)
