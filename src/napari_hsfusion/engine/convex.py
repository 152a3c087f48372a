"""Small convex fits with their smoothness chosen by leaving out blocks of the image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Array = npt.NDArray[np.float64]
FOLDS = 4


def block_folds(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Fold 0 … 3 of every sample: 4 x 4 blocks of the image, dealt so that none is a corner.

    Whole blocks are left out together, because neighbouring pixels resemble each
    other too much to test one by the next.

    Parameters
    ----------
    rows, columns : array of int, shape (n,)
        Where the samples lie.
    """

    def block(at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        span = max(int(at.max() - at.min()) + 1, 1)
        return (at - at.min()) * 4 // span

    return (block(rows) + 2 * block(columns) + block(columns) // 2) % FOLDS


def difference(count: int, order: int, breaks: npt.ArrayLike = ()) -> Array:
    """Finite differences of neighbours, rows across a break left out.

    Parameters
    ----------
    count : int
        Number of unknowns in a row.
    order : int
        1 or 2.
    breaks : array of int
        b means that unknowns b and b + 1 are no neighbours.

    Returns
    -------
    ndarray, shape (m, count)
    """
    matrix = np.diff(np.eye(count), order, axis=0)
    keep = np.ones(len(matrix), dtype=bool)
    for b in np.asarray(breaks, dtype=np.int64).ravel():
        keep[max(b - order + 1, 0) : b + 1] = False
    return matrix[keep]


def nonnegative_smooth(root: Array, target: Array, rough: Array, weight: float) -> Array:
    """Minimise ``|root r - target|^2 + weight |rough r|^2`` over r >= 0.

    Parameters
    ----------
    root : ndarray, shape (p, n)
    target : ndarray, shape (p,)
    rough : ndarray, shape (m, n)
    weight : float

    Returns
    -------
    ndarray, shape (n,)
    """
    # a trace of a ridge keeps the active sets of the solver well defined
    ridge = 1e-6 * np.sqrt((root**2).sum() / root.shape[1])
    matrix = np.vstack([root, np.sqrt(weight) * rough, ridge * np.eye(root.shape[1])])
    right = np.concatenate([target, np.zeros(len(rough) + root.shape[1])])
    return np.asarray(nnls(matrix, right, maxiter=50 * root.shape[1])[0])


def sum_to_one(gram: Array, moment: Array) -> Array:
    """Minimise ``k' gram k - 2 moment' k`` subject to sum(k) = 1."""
    solved = np.linalg.solve(gram, np.stack([moment, np.ones_like(moment)], axis=1))
    free, unit = solved[:, 0], solved[:, 1]
    return np.asarray(free + unit * (1.0 - free.sum()) / unit.sum())


def project_simplex(values: Array) -> Array:
    """Nearest vector that is not negative and sums to one (Held, Wolfe and Crowder, 1974)."""
    ordered = np.sort(values)[::-1]
    excess = (np.cumsum(ordered) - 1.0) / np.arange(1, values.size + 1)
    last = int(np.nonzero(ordered > excess)[0][-1])
    return np.maximum(values - excess[last], 0.0)


def simplex_quadratic(
    gram: Array, moment: Array, start: Array, iterations: int = 1000, tolerance: float = 1e-6
) -> Array:
    """Minimise ``k' gram k - 2 moment' k`` over k >= 0, sum(k) = 1.

    Accelerated projected gradient (Beck and Teboulle, SIAM J. Imaging Sci. 2:183,
    2009) that starts its momentum anew whenever it points uphill (O'Donoghue and
    Candès, Found. Comput. Math. 15:715, 2015).

    Parameters
    ----------
    gram : ndarray, shape (n, n)
        Positive definite.
    moment, start : ndarray, shape (n,)
    iterations : int
    tolerance : float
        Stops when a step moves by less than this, relative to the solution.
    """
    step = 1.0 / float(np.linalg.eigvalsh(gram)[-1])
    current = project_simplex(start)
    ahead, t = current, 1.0
    for _ in range(iterations):
        fresh = project_simplex(ahead - step * (gram @ ahead - moment))
        if (ahead - fresh) @ (fresh - current) > 0:
            t = 1.0
        following = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * t * t))
        ahead = fresh + (t - 1.0) / following * (fresh - current)
        moved = np.linalg.norm(fresh - current)
        current, t = fresh, following
        if moved <= tolerance * np.linalg.norm(current):
            break
    return current
