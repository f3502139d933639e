"""1-bit networks that can be differentiated twice.

The gradient through a sign is an estimate, and no function has it as its gradient. But one does
nearby: put in place of each sign, at the point x0 where the network stands, the surrogate
s(x) + (sign(x0) - s(x0)), where s' is the estimator's slope and the bracket is held constant. This
network has the same value and the same straight-through gradient at x0, and it has a Jacobian and a
Hessian. They are what ``ggn`` and ``hessian`` mean for a 1-bit Child (ours; the paper does not say).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from onebit.backbones.binarization.signs import SlopedQuantizer
from onebit.backbones.conv import OneBitConv2d
from onebit.commons.errors import InputError


@contextmanager
def twice_differentiable(network: nn.Module) -> Iterator[None]:
    """Let ``network`` be differentiated twice with respect to its activations.

    Raises:
        InputError: a quantizer of activations has no slope, so its surrogate is not known.
    """
    convs = [m for m in network.modules() if isinstance(m, OneBitConv2d) and m.quantize_input is not None]
    for conv in convs:
        if not isinstance(conv.quantize_input, SlopedQuantizer):
            raise InputError(
                f"curvature: expected a quantizer of activations with a slope (onebit.backbones.sign_with), "
                f"found {type(conv.quantize_input).__name__}; curvature 'fisher' needs none"
            )
    integers = [conv.integers for conv in convs]
    quantizers = [m for conv in convs for m in conv.quantize_input.modules() if isinstance(m, SlopedQuantizer)]
    try:
        for conv in convs:
            conv.integers = False
        for quantizer in quantizers:
            quantizer.twice = True
        yield
    finally:
        for conv, before in zip(convs, integers, strict=True):
            conv.integers = before
        for quantizer in quantizers:
            quantizer.twice = False
