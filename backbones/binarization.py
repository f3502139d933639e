"""What makes a layer 1-bit, as one small value: a :class:`Binarizer`.

It names a quantizer of activations, a quantizer of weights, the activation function that the
method's blocks use, and how those blocks are laid out. The instances at the end of this file are
XNOR-Net, Bi-Real Net and ReActNet; :func:`register_binarizer` adds others.

Everywhere sign(x) = +1 if x > 0 else -1: it is never 0. `g` is the gradient with respect to a
quantizer's output.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from backbones import plugins
from commons.errors import InputError


def sign(x: Tensor, threshold: float | Tensor = 0) -> Tensor:
    """+1 where ``x`` > ``threshold``, else -1 (also at -0 and NaN), in the dtype of ``x``.

    Not differentiable: the quantizers below define gradients.
    """
    # Comparing into a floating-point tensor is many times faster than `torch.where`.
    return torch.gt(x, threshold, out=torch.empty_like(x)).mul_(2).sub_(1)


def clip_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` where |x| <= 1, else 0, in one pass."""
    # hardtanh's gradient leaves its bounds out, hence the next number after 1.
    bound = 1 + torch.finfo(x.dtype).eps
    return torch.ops.aten.hardtanh_backward(grad, x, -bound, bound)


def approx_sign_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` * (2 - 2|x|) where |x| <= 1, else 0."""
    return x.abs().mul_(-2).add_(2).clamp_(min=0).mul_(grad)


class _ClippedSignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return clip_gradient(grad, *ctx.saved_tensors)


class _ApproxSignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return approx_sign_gradient(grad, *ctx.saved_tensors)


class _RSignFunction(torch.autograd.Function):
    """x + b is formed again in backward, so that x alone, which exists anyway, is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, bias)
        return sign(x, -bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, bias = ctx.saved_tensors
        grad_x = approx_sign_gradient(grad, x + bias)
        grad_bias = grad_x.sum((0, 2, 3)).view_as(bias)
        return grad_x.to(x.dtype), grad_bias


class ClippedSign(nn.Module):
    """Sign with the straight-through estimator, clipped.

    Forward: sign(x). Gradient: g where |x| <= 1, else 0.
    Rastegari et al., XNOR-Net, ECCV 2016, Section 3.1 (after Courbariaux et al., 2016, Eq. 4).

    Args:
        channels: of the input; this quantizer has no parameters.
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return _ClippedSignFunction.apply(x)


class ApproxSign(nn.Module):
    """Sign with the gradient of a piecewise quadratic.

    Forward: sign(x). Gradient: g * (2 - 2|x|) where |x| <= 1, else 0.
    Liu et al., Bi-Real Net, ECCV 2018, Section 3.3 (ApproxSign).

    Args:
        channels: of the input; this quantizer has no parameters.
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return _ApproxSignFunction.apply(x)


class RSign(nn.Module):
    """Sign with a learnable threshold per channel.

    Forward: sign(x + b_c). Gradient to x: that of ApproxSign at x + b_c; to b_c: its sum over the
    batch and all positions. b starts at 0.
    Liu et al., ReActNet, ECCV 2020, Section 4.2 (RSign; b is minus their threshold).

    Args:
        channels: of the input [N, channels, H, W].
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return _RSignFunction.apply(x, self.bias)


class _ScaledSignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return sign(weight).mul_(weight.abs().mean((1, 2, 3), keepdim=True))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        return clip_gradient(grad, *ctx.saved_tensors)


class _CentredScaledSignFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        # With one input channel per group there is nothing to centre over: c would be 0.
        ctx.centred = weight.shape[1] > 1
        centred = weight - weight.mean(1, keepdim=True) if ctx.centred else weight
        signs = sign(centred)
        scale = centred.clamp(-1, 1).abs_().mean((1, 2, 3), keepdim=True)
        ctx.save_for_backward(signs, scale, centred)
        return signs * scale

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        signs, scale, centred = ctx.saved_tensors
        through_scale = (grad * signs).mean((1, 2, 3), keepdim=True)
        grad_weight = clip_gradient((grad * scale).addcmul_(signs, through_scale), centred)
        if ctx.centred:
            grad_weight -= grad_weight.mean(1, keepdim=True)
        return grad_weight


class ScaledSign(nn.Module):
    """Weights as sign times one scale per output filter, the scale constant in backward.

    Forward: a_k * sign(w), a_k = mean |w| over filter k. Gradient: g where |w| <= 1, else 0.
    The form in which Bi-Real Net and ReActNet were released. (Section 3.3 of the Bi-Real Net
    paper would also multiply the gradient by a_k, its magnitude-aware gradient.)

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, weight: Tensor) -> Tensor:
        return _ScaledSignFunction.apply(weight)


class CentredScaledSign(nn.Module):
    """Weights centred over input channels, as sign times one differentiable scale per filter.

    Forward: a_k * sign(c), c = w - mean of w over input channels, a_k = mean |clamp(c, -1, 1)|
    over filter k of n weights. Gradient to c: (a_k * g + sign(c) / n * sum(g * sign(c))) where
    |c| <= 1, else 0; to w: that, minus its mean over input channels. Weights with a single input
    channel (depthwise) are not centred: nothing would be left of them.
    Rastegari et al., XNOR-Net, ECCV 2016, Eq. 6 and the gradient at the end of Section 3.1;
    centring and clamping as in its released code, here without overwriting the weights. The scale
    K of the inputs (Eq. 11) is left out, which the paper found to cost little.

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, weight: Tensor) -> Tensor:
        return _CentredScaledSignFunction.apply(weight)


class RPReLU(nn.Module):
    """PReLU with learnable shifts: PReLU(x + b_c) + d_c, all per channel.

    b and d start at 0, the slope at 0.25.
    Liu et al., ReActNet, ECCV 2020, Section 4.2 (RPReLU).

    Args:
        channels: of the input [N, channels, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift_in = nn.Parameter(torch.zeros(channels, 1, 1))
        self.prelu = nn.PReLU(channels)
        self.shift_out = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(x + self.shift_in) + self.shift_out


def no_activation(channels: int) -> nn.Module:
    """For methods whose sign is their only nonlinearity."""
    return nn.Identity()


@dataclass(frozen=True)
class Binarizer:
    """One way of making a network 1-bit.

    Attributes:
        name: the suffix of backbone names, e.g. ``reactnet``.
        source: the paper.
        input: from a number of input channels to the quantizer of activations.
        weight: from a number of output filters to the quantizer of weights.
        activation: from a number of channels to the real-valued function that ends a block.
        norm_first: batch norm comes before the sign (XNOR-Net) instead of after the convolution.
        shortcut_per_conv: a real-valued shortcut bypasses every 1-bit convolution (Bi-Real Net)
            instead of every block.

    A quantizer is a module with an attribute ``precision``: the bits of what it puts out. For 1
    bit these are, of activations, the values -1 and +1; of weights, -a_k and +a_k with one
    magnitude a_k per output filter.
    """

    name: str
    source: str
    input: Callable[[int], nn.Module]
    weight: Callable[[int], nn.Module]
    activation: Callable[[int], nn.Module] = no_activation
    norm_first: bool = False
    shortcut_per_conv: bool = True


BINARIZERS: dict[str, Binarizer] = {}


def register_binarizer(binarizer: Binarizer) -> Binarizer:
    """Make ``binarizer`` known by its name, and with it a backbone of that suffix per family.

    Raises:
        InputError: the name is taken, or could not be told from a width in a backbone's name.
    """
    name = binarizer.name
    if not re.fullmatch(r"[a-z][a-z0-9]*", name) or re.fullmatch(r"[wcl]\d+", name):
        raise InputError(
            f"binarizer name {name!r}: expected lower-case letters and digits, not like a width"
        )
    if BINARIZERS.setdefault(name, binarizer) != binarizer:
        raise InputError(
            f"binarizer {name!r} is registered already, from {BINARIZERS[name].source}"
        )
    plugins.note_registrant(binarizer)
    return binarizer


def get_binarizer(binarizer: str | Binarizer) -> Binarizer:
    """Look a binarizer up by name; a :class:`Binarizer` is returned as it is.

    Raises:
        InputError: unknown name; the message lists the known ones.
    """
    if isinstance(binarizer, Binarizer):
        return binarizer
    if binarizer not in BINARIZERS:
        from backbones.registry import MODELS

        MODELS.import_from_location()  # other people's packages are imported at the first look-up
    if binarizer not in BINARIZERS:
        near = difflib.get_close_matches(str(binarizer), BINARIZERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(BINARIZERS)}"
        raise InputError(f"unknown binarizer {binarizer!r}; {hint}")
    return BINARIZERS[binarizer]


XNOR = register_binarizer(
    Binarizer(
        name="xnor",
        source="Rastegari et al., XNOR-Net, ECCV 2016",
        input=ClippedSign,
        weight=CentredScaledSign,
        norm_first=True,
        shortcut_per_conv=False,
    )
)
BIREAL = register_binarizer(
    Binarizer(
        name="bireal",
        source="Liu et al., Bi-Real Net, ECCV 2018",
        input=ApproxSign,
        weight=ScaledSign,
    )
)
REACTNET = register_binarizer(
    Binarizer(
        name="reactnet",
        source="Liu et al., ReActNet, ECCV 2020",
        input=RSign,
        weight=ScaledSign,
        activation=RPReLU,
    )
)
