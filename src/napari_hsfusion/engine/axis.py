"""Matrices that act along one axis of an image: the halves of a separable operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_DENSE_LIMIT = 1024


class AxisOperator:
    """A float64 matrix applied along the rows or the columns of images.

    Small matrices multiply densely, large ones (few taps in a long row) tap by
    tap; both are differentiable in the image, and the same bits come every time.
    """

    def __init__(self, matrix: npt.NDArray[np.float64]) -> None:
        self.matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        self.tapped = max(matrix.shape) > _DENSE_LIMIT
        self._cache: dict[tuple[torch.device, torch.dtype, bool], _Taps | Tensor] = {}

    def _prepared(self, like: Tensor, transpose: bool) -> _Taps | Tensor:
        key = (like.device, like.dtype, transpose)
        if key not in self._cache:
            array = np.ascontiguousarray(self.matrix.T if transpose else self.matrix)
            self._cache[key] = (
                _Taps.of(array, like)
                if self.tapped
                else torch.as_tensor(array).to(like.device, like.dtype)
            )
        return self._cache[key]

    def apply(self, image: Tensor, dim: int, transpose: bool = False) -> Tensor:
        """Multiply along `dim` (-2 rows, -1 columns) of an image (..., H, W)."""
        matrix = self._prepared(image, transpose)
        if isinstance(matrix, Tensor):
            return matrix @ image if dim == -2 else image @ matrix.T
        back = self._prepared(image, not transpose)
        assert isinstance(back, _Taps)
        return _tapped_product(image.movedim(dim, 0), matrix, back).movedim(0, dim)


@dataclass(frozen=True)
class _Taps:
    """A sparse matrix as K columns of (where to look, weight), padded with zero weights."""

    index: Tensor
    weight: Tensor

    @classmethod
    def of(cls, matrix: npt.NDArray[np.float64], like: Tensor) -> _Taps:
        counts = (matrix != 0).sum(1)
        index = np.zeros((max(int(counts.max()), 1), len(matrix)), dtype=np.int64)
        weight = np.zeros(index.shape)
        for row, values in enumerate(matrix):
            (places,) = np.nonzero(values)
            index[: len(places), row] = places
            weight[: len(places), row] = values[places]
        return cls(
            torch.as_tensor(index).to(like.device),
            torch.as_tensor(weight).to(like.device, like.dtype),
        )

    def times(self, image: Tensor) -> Tensor:
        """Multiply along the first axis."""
        shape = (-1, *[1] * (image.ndim - 1))
        out = image[self.index[0]] * self.weight[0].reshape(shape)
        for places, weights in zip(self.index[1:], self.weight[1:], strict=True):
            out.addcmul_(image[places], weights.reshape(shape))
        return out


class _TappedProduct(torch.autograd.Function):
    """Product along the first axis; the backward pass is the transposed product."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, matrix: _Taps, transposed: _Taps) -> Tensor:
        ctx.matrices = (matrix, transposed)
        return matrix.times(image)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        matrix, transposed = ctx.matrices
        return _tapped_product(grads[0], transposed, matrix), None, None


def _tapped_product(image: Tensor, matrix: _Taps, transposed: _Taps) -> Tensor:
    out: Tensor = _TappedProduct.apply(image, matrix, transposed)  # type: ignore[no-untyped-call]
    return out
