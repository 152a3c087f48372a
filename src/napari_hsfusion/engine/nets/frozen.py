"""Layers that keep less for the backward pass, or take less time in it, where weights are frozen.

torch keeps the input of every convolution, which the gradient of the weights needs and that
of the image does not: it is left out. It also keeps both the input of a normalisation and
that of the activation behind it, of which one gives the other: on a GPU the second is worked
out again on the way back. On the CPU that takes time and the process gets no smaller for it:
there convolutions are twice as fast with channels last, but torch's backward pass of group
normalisation is slow in that format, so that it is written out here.
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
    if _frozen(image, weight, bias):
        if image.device.type != "cpu":
            return recomputed_silu(image, groups, weight, bias, eps)
        if image.is_contiguous(memory_format=torch.channels_last):
            return channels_last_silu(image, groups, weight, bias, eps)
    out = functional.group_norm(image, groups, weight, bias, eps)
    return functional.silu(out, inplace=not torch.is_grad_enabled())


def recomputed_silu(image: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """SiLU of the group-normalised image, with a gradient in the image alone."""
    return _kept(_NormalisedSilu, image, groups, weight, bias, eps)


def channels_last_silu(
    image: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """SiLU of the group-normalised image, with a gradient in the image alone, by columns."""
    return _kept(_ChannelsLastSilu, image, groups, weight, bias, eps)


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
        ctx.shape, ctx.how = image.shape, (stride, padding)
        ctx.last = image.is_contiguous(memory_format=torch.channels_last)
        ctx.transposed = transposed
        convolve = functional.conv_transpose2d if transposed else functional.conv2d
        return convolve(image, kernel, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (kernel,) = ctx.saved_tensors
        grad, (stride, padding) = grads[0], ctx.how
        if not ctx.last:
            # of the image only its shape counts
            image = torch.empty((), dtype=grad.dtype, device=grad.device).expand(ctx.shape)
            how = (stride, padding, (1, 1), ctx.transposed, (0, 0), 1, (True, False, False))
            out = torch.ops.aten.convolution_backward(grad, image, kernel, None, *how)[0]
            return out, None, None, None, None, None
        # torch would take the format from the image: as convolutions of the gradient instead
        grad = grad.contiguous(memory_format=torch.channels_last)
        if ctx.transposed:
            out = functional.conv2d(grad, kernel, None, stride, padding)
        elif max(stride) == 1:  # with the kernel turned round
            turned = kernel.flip(2, 3).transpose(0, 1)
            more = [taps - 1 - pad for taps, pad in zip(kernel.shape[2:], padding, strict=True)]
            out = functional.conv2d(grad, turned, None, 1, more)
        else:
            rest = [  # pixels that the stride left out
                size - ((low - 1) * by - 2 * pad + taps)
                for size, low, by, pad, taps in zip(
                    ctx.shape[2:], grad.shape[2:], stride, padding, kernel.shape[2:], strict=True
                )
            ]
            out = functional.conv_transpose2d(grad, kernel, None, stride, padding, rest)
        return out, None, None, None, None, None


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


class _ChannelsLastSilu(torch.autograd.Function):
    """Keeps the image and the slope of the activation, both with channels last.

    With ``z = scale (x - mean)`` of a group and ``g`` the gradient at ``weight z + bias``, that
    at x is ``scale (weight g - <weight g> - z <weight g z>)``, <> the mean over the group: a sum
    of g and x, weighted by channel, plus a constant.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        count, channels, height, width = image.shape
        pixels = height * width
        out, mean, scale = torch.native_group_norm(
            image, weight, bias, count, channels, pixels, groups, eps
        )
        slope = out.sigmoid()
        out.mul_(slope)
        slope.addcmul_(out, slope, value=-1).add_(out)
        ctx.save_for_backward(image, slope, mean, scale, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        image, slope, mean, scale, weight = ctx.saved_tensors
        inner = slope * grads[0]  # in the format of the first
        count, groups = mean.shape
        each = image.shape[1] // groups
        sums = torch.stack([inner.sum((2, 3)), (inner * image).sum((2, 3))]).mul_(weight)
        means = sums.reshape(2, count, groups, each).sum(3).mul_(groups / image[0].numel())
        one, other = means[0], means[1]
        of_image = (mean * one - other).mul_(scale.pow(3))
        constant = torch.addcmul(scale * one, mean, of_image)
        of_inner = scale
        if each > 1:  # from groups to channels
            of_image, constant, of_inner = (
                torch.stack([of_image, constant, scale])[..., None].expand(-1, -1, -1, each)
            ).reshape(3, count, -1)
        shape = (count, -1, 1, 1)
        out = inner.mul_((of_inner * weight).reshape(shape))
        out.addcmul_(image, of_image.reshape(shape)).sub_(constant.reshape(shape))
        return out, None, None, None, None
