"""1-bit networks that can be differentiated twice.

The gradient through a sign is an estimate, and no function has it as its gradient. But one does
nearby: put in place of each sign, at the point x0 where the network stands, the surrogate
s(x) + (sign(x0) - s(x0)), where s' is the estimator's slope and the bracket is held constant. This
network has the same value and the same straight-through gradient at x0, and it has a Jacobian and a
Hessian. They are what ``ggn`` and ``hessian`` mean for a 1-bit Child (ours; the paper does not say).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from onebit.backbones.binarization import ApproxSign, ClippedSign, DoReFaActivation, RSign
from onebit.backbones.conv import OneBitConv2d
from onebit.commons.errors import InputError


def _clipped(x: Tensor) -> Tensor:
    return (x.detach().abs() <= 1).to(x.dtype)


def _approximate(x: Tensor) -> Tensor:
    return (2 - 2 * x.abs()).clamp(min=0)


def _unit(x: Tensor) -> Tensor:
    return ((x.detach() >= 0) & (x.detach() <= 1)).to(x.dtype)


#: s' of the quantizers of activations, a differentiable function of their input.
SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    ClippedSign: _clipped,
    ApproxSign: _approximate,
    RSign: _approximate,
    DoReFaActivation: _unit,
}


class _SurrogateFunction(torch.autograd.Function):
    """``value``, with the derivative ``slope`` to ``x``."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


class TwiceDifferentiable(nn.Module):
    """A quantizer of activations, its value and gradient as they are, with a second derivative.

    Raises:
        InputError: the surrogate of this quantizer is not known.
    """

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        if type(quantizer) not in SLOPES:
            raise InputError(
                f"curvature: expected a quantizer of activations with a known surrogate "
                f"({', '.join(kind.__name__ for kind in SLOPES)}), "
                f"found {type(quantizer).__name__}; curvature 'fisher' needs none"
            )
        self.quantizer = quantizer
        self.slope = SLOPES[type(quantizer)]
        self.precision = quantizer.precision

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            value = self.quantizer(x)
        if isinstance(self.quantizer, RSign):
            x = x + self.quantizer.bias
        return _SurrogateFunction.apply(x, value, self.slope(x))


@contextmanager
def twice_differentiable(network: nn.Module) -> Iterator[None]:
    """Let ``network`` be differentiated twice with respect to its activations.

    Raises:
        InputError: see :class:`TwiceDifferentiable`.
    """
    convs = [
        (module, module.quantize_input, module.integers)
        for module in network.modules()
        if isinstance(module, OneBitConv2d) and module.quantize_input is not None
    ]
    wrapped = [TwiceDifferentiable(quantizer) for _, quantizer, _ in convs]
    for (conv, _, _), quantizer in zip(convs, wrapped, strict=True):
        conv.quantize_input, conv.integers = quantizer, False
    try:
        yield
    finally:
        for conv, quantizer, integers in convs:
            conv.quantize_input, conv.integers = quantizer, integers
