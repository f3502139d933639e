"""sign(x) and its gradient estimators.

Everywhere sign(x) = +1 if x > 0 else -1: it is never 0. `g` is the gradient with respect to a
quantizer's output. An estimator is a slope, a function s of x: the gradient is g * s(x).
:func:`sign_with` makes a quantizer of activations from it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization import packing
from onebit.backbones.capture import Function, capturing


def sign(x: Tensor, threshold: float | Tensor = 0) -> Tensor:
    """+1 where ``x`` > ``threshold``, else -1 (also at -0 and NaN), in the dtype of ``x``.

    Not differentiable: the quantizers define gradients.
    """
    return above(x, threshold).mul_(2).sub_(1)


def above(x: Tensor, threshold: float | Tensor = 0) -> Tensor:
    """1 where ``x`` > ``threshold``, else 0, in the dtype of ``x``."""
    if capturing():  # compilers take no output in channels_last memory, and fuse this by themselves
        return (x > threshold).to(x.dtype)
    # Comparing into a floating-point tensor is many times faster than `torch.where`.
    return torch.gt(x, threshold, out=torch.empty_like(x))


def scaled_sign(x: Tensor, scale: Tensor) -> Tensor:
    """``scale`` where ``x`` > 0, else -``scale``, exactly, in three passes over ``x``."""
    return above(x).mul_(2 * scale).sub_(scale)


def fit_kernel(quantizer: nn.Module, name: str, weight: Tensor) -> None:
    """Size the parameter ``name`` [1, 1, h, w] by the kernel of ``weight`` and set it to mean |weight|."""
    start = weight.detach().abs().mean().expand(1, 1, *weight.shape[2:])
    if hasattr(quantizer, name):
        getattr(quantizer, name).data.copy_(start)
    else:
        quantizer.register_parameter(name, nn.Parameter(start.clone()))


def clip_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` where |x| <= 1, else 0, in one pass."""
    # hardtanh's gradient leaves its bounds out, hence the next number after 1.
    bound = 1 + torch.finfo(x.dtype).eps
    return torch.ops.aten.hardtanh_backward(grad, x, -bound, bound)


def approx_sign_slope(x: Tensor) -> Tensor:
    """2 - 2|x| where |x| <= 1, else 0."""
    return x.abs().mul_(-2).add_(2).clamp_(min=0)


def clipped_slope(x: Tensor) -> Tensor:
    """1 where |x| <= 1, else 0."""
    return (x.detach().abs() <= 1).to(x.dtype)


def unit_slope(x: Tensor) -> Tensor:
    """1 everywhere: the straight-through estimator, not clipped."""
    return torch.ones_like(x)


def variance(x: Tensor) -> Tensor:
    """Of every filter or image, over all but the first dimension, which it keeps; 0 for a single value."""
    return x.var((1, 2, 3), correction=min(1, x[0].numel() - 1), keepdim=True)


class _ClippedSignFunction(Function):
    @staticmethod
    def forward(ctx, x: Tensor, pack: bool) -> Tensor:
        ctx.pack = pack
        if pack:
            ctx.layout = packing.Layout.of(x)
            ctx.save_for_backward(ctx.layout.pack_bits(x.abs() <= 1))
        else:
            ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (saved,) = ctx.saved_tensors
        if ctx.pack:
            return ctx.layout.unpack_bits(saved).to(grad.dtype).mul_(grad), None
        return clip_gradient(grad, saved), None


class _SlopedSignFunction(Function):
    """sign(x + shift). The sum is formed again in backward, so that x alone is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, shift: Tensor | None, slope: Callable[[Tensor], Tensor], pack: bool) -> Tensor:
        ctx.slope = slope
        ctx.slopes = packing.PackedSlopes.of(ctx, slope(x if shift is None else x + shift)) if pack else None
        if ctx.slopes is None:
            ctx.save_for_backward(x, shift)
        ctx.shift_shape = None if shift is None else shift.shape
        return sign(x, 0 if shift is None else -shift)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        if ctx.slopes is not None:
            slopes = ctx.slopes.unpack(*ctx.saved_tensors)
        else:
            x, shift = ctx.saved_tensors
            slopes = ctx.slope(x if shift is None else x + shift)
        to_x = slopes.mul_(grad).to(grad.dtype)
        return to_x, to_x.sum_to_size(ctx.shift_shape) if ctx.needs_input_grad[1] else None, None, None


class _SurrogateFunction(torch.autograd.Function):
    """``value``, with the derivative ``slope`` to ``x``, of which there is a derivative again."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


class SlopedQuantizer(nn.Module):
    """A quantizer whose gradient is g times a slope of its input.

    Attributes:
        pack: keep for backward, in place of the float input, only what the gradient needs; see
            :func:`onebit.backbones.pack_activations`.
        twice: let the gradient be differentiated again, which is slower; see
            :mod:`onebit.classification.search.straight_through`.
    """

    pack = False
    twice = False

    def slope(self, x: Tensor) -> Tensor:
        """The slope at ``x``: a new tensor, and a differentiable function where it is not constant."""
        raise NotImplementedError

    def surrogate(self, x: Tensor, value: Tensor) -> Tensor:
        """``value``, with the slope at ``x`` as its derivative, any number of times."""
        return _SurrogateFunction.apply(x, value.detach(), self.slope(x))


class SignQuantizer(SlopedQuantizer):
    """A quantizer that puts out -1 and +1. Its gradient, packing and curvature follow from its slope.

    Subclasses define :meth:`slope`. What they do before the sign, such as a shift by a parameter, is
    theirs to write in ``forward``, with :meth:`sign` where the sign is.

    Args:
        channels: of the input [N, channels, H, W].

    Attributes:
        progress: how much of the training has passed, from 0 to 1. The slope may depend on it; what
            the quantizer puts out may not, as a checkpoint does not keep it.
    """

    precision = 1
    progress = 0.0

    def __init__(self, channels: int) -> None:
        super().__init__()

    def set_progress(self, fraction: float) -> None:
        """Called by trainers at the start of every epoch."""
        self.progress = fraction

    def sign(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """sign(x + shift), with the slope at ``x + shift``."""
        if self.twice:
            x = x if shift is None else x + shift
            return self.surrogate(x, sign(x.detach()))
        return _SlopedSignFunction.apply(x, shift, self.slope, packing.packs(self.pack))

    def forward(self, x: Tensor) -> Tensor:
        return self.sign(x)


class SlopedSign(SignQuantizer):
    """Sign with the gradient g * slope(x), or g * slope(x, progress).

    Args:
        slope: of one argument, or of two if it depends on the progress of the training.
    """

    def __init__(self, channels: int, slope: Callable[..., Tensor]) -> None:
        super().__init__(channels)
        self.function = slope
        self.depends_on_progress = len(inspect.signature(slope).parameters) > 1

    def slope(self, x: Tensor) -> Tensor:
        return self.function(x, self.progress) if self.depends_on_progress else self.function(x)


def sign_with(slope: Callable[..., Tensor]) -> Callable[[int], SlopedSign]:
    """The quantizer of activations with sign's values and the gradient g * slope, from a number of channels.

    Args:
        slope: a function of the input, or of the input and the training's progress from 0 to 1, made of
            operations that torch can differentiate.
    """
    return functools.partial(SlopedSign, slope=slope)


class ClippedSign(SignQuantizer):
    """Sign with the straight-through estimator, clipped.

    Forward: sign(x). Gradient: g where |x| <= 1, else 0.
    Rastegari et al., XNOR-Net, ECCV 2016, Section 3.1 (after Courbariaux et al., 2016, Eq. 4).
    """

    def slope(self, x: Tensor) -> Tensor:
        return clipped_slope(x)

    def forward(self, x: Tensor) -> Tensor:
        # Fewer passes over memory than by the slope.
        return self.sign(x) if self.twice else _ClippedSignFunction.apply(x, packing.packs(self.pack))


class ApproxSign(SignQuantizer):
    """Sign with the gradient of a piecewise quadratic.

    Forward: sign(x). Gradient: g * (2 - 2|x|) where |x| <= 1, else 0.
    Liu et al., Bi-Real Net, ECCV 2018, Section 3.3 (ApproxSign).
    """

    def slope(self, x: Tensor) -> Tensor:
        return approx_sign_slope(x)
