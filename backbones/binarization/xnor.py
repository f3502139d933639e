"""XNOR-Net."""

from __future__ import annotations

from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.signs import ClippedSign, clip_gradient, sign
from onebit.backbones.capture import Function


class _CentredScaledSignFunction(Function):
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
