"""Layers that keep less for the backward pass, where weights are frozen.

torch keeps the input of every convolution, which the gradient of the weights needs and that
of the image does not: it is left out. It also keeps both the input of a normalisation and
that of the activation behind it, of which one gives the other: on a GPU the second is worked
out again on the way back. On the CPU that takes time and the process gets no smaller for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def convolution(layer: nn.Conv2d, image: Tensor) -> Tensor:
    """``layer(image)``, keeping no image where the weights are frozen."""
    if not _frozen(image, layer.weight, layer.bias):
        out: Tensor = layer(image)
        return out
    return _kept(_Convolution, image, layer.weight, layer.bias, layer.stride, layer.padding, False)


def transposed_convolution(image: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution transposed, stride 2, padding 1; keeps no image where `kernel` is frozen."""
    if not _frozen(image, kernel, bias):
        return functional.conv_transpose2d(image, kernel, bias, stride=2, padding=1)
    return _kept(_Convolution, image, kernel, bias, (2, 2), (1, 1), True)


def normalised_silu(image: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """SiLU of the group-normalised image; keeps one image where the weights are frozen."""
    if image.device.type != "cpu" and _frozen(image, weight, bias):
        return recomputed_silu(image, groups, weight, bias, eps)
    out = functional.group_norm(image, groups, weight, bias, eps)
    return functional.silu(out, inplace=not torch.is_grad_enabled())


def recomputed_silu(image: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """SiLU of the group-normalised image, with a gradient in the image alone."""
    return _kept(_NormalisedSilu, image, groups, weight, bias, eps)


def _frozen(image: Tensor, *weights: Tensor | None) -> bool:
    """Whether a gradient of the image is wanted, and none of the weights."""
    wanted = any(w is not None and w.requires_grad for w in weights)
    return torch.is_grad_enabled() and image.requires_grad and not wanted


def _kept(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    out: Tensor = function.apply(*arguments)
    return out


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        transposed: bool,
    ) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.like = (image.shape, image.dtype, image.device)
        ctx.how = (stride, padding, (1, 1), transposed, (0, 0), 1)
        return torch.convolution(image, kernel, bias, *ctx.how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        shape, dtype, device = ctx.like
        # of the image only its shape counts
        image = torch.empty((), dtype=dtype, device=device).expand(shape)
        wanted = (True, False, False)
        out = torch.ops.aten.convolution_backward(grads[0], image, kernel, None, *ctx.how, wanted)
        return out[0], None, None, None, None, None


class _NormalisedSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        count, channels, height, width = image.shape
        pixels = height * width
        out, mean, scale = torch.native_group_norm(
            image, weight, bias, count, channels, pixels, groups, eps
        )
        ctx.save_for_backward(image, mean, scale, weight, bias)
        ctx.sizes, ctx.eps = (count, channels, pixels, groups), eps
        return functional.silu(out, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image, mean, scale, weight, bias = ctx.saved_tensors
        count, channels, pixels, groups = ctx.sizes
        again = torch.native_group_norm(
            image, weight, bias, count, channels, pixels, groups, ctx.eps
        )[0]
        inner = torch.ops.aten.silu_backward(grads[0], again)
        wanted = (True, False, False)
        out = torch.ops.aten.native_group_norm_backward(
            inner, image, mean, scale, weight, *ctx.sizes, wanted
        )
        return out[0], None, None, None, None
