"""sign(x) and its gradient estimators.

Everywhere sign(x) = +1 if x > 0 else -1: it is never 0. `g` is the gradient with respect to a
quantizer's output.
"""

from __future__ import annotations

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


def approx_sign_slope(magnitude: Tensor) -> Tensor:
    """2 - 2|x| where |x| <= 1, else 0, in place of ``magnitude`` = |x|."""
    return magnitude.mul_(-2).add_(2).clamp_(min=0)


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


class _ApproxSignFunction(Function):
    @staticmethod
    def forward(ctx, x: Tensor, pack: bool) -> Tensor:
        ctx.slopes = packing.PackedSlopes.of(ctx, x.abs(), approx_sign_slope) if pack else None
        if ctx.slopes is None:
            ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.slopes is not None:
            return ctx.slopes.unpack(*ctx.saved_tensors).mul_(grad), None
        (x,) = ctx.saved_tensors
        return approx_sign_slope(x.abs()).mul_(grad), None


class SignQuantizer(nn.Module):
    """A quantizer of activations that puts out -1 and +1.

    Args:
        channels: of the input [N, channels, H, W].

    Attributes:
        pack: keep for backward, in place of the float input, only what the gradient needs; see
            :func:`onebit.backbones.pack_activations`.
    """

    precision = 1
    pack = False

    def __init__(self, channels: int) -> None:
        super().__init__()


class ClippedSign(SignQuantizer):
    """Sign with the straight-through estimator, clipped.

    Forward: sign(x). Gradient: g where |x| <= 1, else 0.
    Rastegari et al., XNOR-Net, ECCV 2016, Section 3.1 (after Courbariaux et al., 2016, Eq. 4).
    """

    def forward(self, x: Tensor) -> Tensor:
        return _ClippedSignFunction.apply(x, packing.packs(self.pack))


class ApproxSign(SignQuantizer):
    """Sign with the gradient of a piecewise quadratic.

    Forward: sign(x). Gradient: g * (2 - 2|x|) where |x| <= 1, else 0.
    Liu et al., Bi-Real Net, ECCV 2018, Section 3.3 (ApproxSign).
    """

    def forward(self, x: Tensor) -> Tensor:
        return _ApproxSignFunction.apply(x, packing.packs(self.pack))
