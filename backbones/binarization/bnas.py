"""The amplitude form in which BNAS writes XNOR and PCNN: X^ = A^ o D, D = sign(X)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.reconstruction import reconstruction_loss
from onebit.backbones.binarization.signs import ClippedSign, clip_gradient, fit_kernel, scaled_sign
from onebit.backbones.capture import Function
from onebit.backbones.prelu import PReLU

#: theta, the weight of the amplitude loss (ours: the paper gives none).
AMPLITUDE_LOSS = 1e-4


class _AmplitudeSignFunction(Function):
    @staticmethod
    def forward(ctx, weight: Tensor, amplitude: Tensor) -> Tensor:
        scale = amplitude.mean()
        ctx.save_for_backward(weight, scale)
        return scaled_sign(weight, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        weight, scale = ctx.saved_tensors
        grad_amplitude = None
        if ctx.needs_input_grad[1]:
            # The sum of g sign(X) is twice that over X > 0 less that over all.
            positive = torch.ops.aten.threshold_backward(grad, weight, 0)
            grad_amplitude = 2 * positive.sum((0, 1), keepdim=True) - grad.sum((0, 1), keepdim=True)
        return clip_gradient(grad, weight).mul_(scale), grad_amplitude


def amplitude_sign(weight: Tensor, amplitude: Tensor) -> Tensor:
    """mean(A) sign(X).

    Gradient to X: mean(A) g where |X| <= 1, else 0; to A [1, 1, h, w]: the sum over filters and
    input channels of g o sign(X), d mean(A) / d A being taken as 1.

    Args:
        weight: X, [K, C, h, w].
        amplitude: A, [1, 1, h, w] if it needs a gradient, else of any shape.
    """
    return _AmplitudeSignFunction.apply(weight, amplitude)


class ClosedFormAmplitude(nn.Module):
    """XNOR in amplitude form: A^ = mean |X|, one number per layer.

    Forward: A^ sign(X). Gradient: A^ g where |X| <= 1, else 0; A^ is held constant.
    Loss ``loss_amplitude``: (theta / 2) ||X - A^ sign(X)||^2, gradient theta (X - A^ sign(X)).
    Chen et al., BNAS, IJCV 2021, Eqs. 1, 2, 16 and 17.

    Args:
        channels: number of output filters of weights [channels, C, h, w].
        theta: weight of the loss.
    """

    precision = 1

    def __init__(self, channels: int, theta: float = AMPLITUDE_LOSS) -> None:
        super().__init__()
        self.theta = theta

    def forward(self, weight: Tensor) -> Tensor:
        return amplitude_sign(weight, weight.detach().abs())

    def losses(self, weight: Tensor) -> dict[str, Tensor]:
        scale = weight.detach().abs().mean()
        return {"loss_amplitude": reconstruction_loss(weight, scale, self.theta)}


class LearnedAmplitude(nn.Module):
    """Simplified PCNN in amplitude form: a learnable matrix A per layer, A^ = mean |A|.

    Forward: A^ sign(X). Gradient to X: A^ g where |X| <= 1, else 0; to A [h, w]: the sum over
    filters and input channels of g o sign(X), with dA^/dA taken as 1.
    Loss ``loss_amplitude``: (theta / 2) ||X - A^ sign(X)||^2; gradients theta (X - A^ sign(X)) to
    X, and the sum of -theta (X - A^ sign(X)) o sign(X) to A.
    Chen et al., BNAS, IJCV 2021, Eqs. 1, 2, 16 to 18, 20 and 21. The amplitudes stay non-negative
    through |A|, whose step of gradient descent is that of Eq. 19. A starts at mean |X| (ours).

    Args:
        channels: number of output filters of weights [channels, C, h, w].
        theta: weight of the loss.
    """

    precision = 1
    amplitude: nn.Parameter

    def __init__(self, channels: int, theta: float = AMPLITUDE_LOSS) -> None:
        super().__init__()
        self.theta = theta

    def fit(self, weight: Tensor) -> None:
        fit_kernel(self, "amplitude", weight)

    def forward(self, weight: Tensor) -> Tensor:
        return amplitude_sign(weight, self.amplitude.abs())

    def losses(self, weight: Tensor) -> dict[str, Tensor]:
        amplitude = self.amplitude.detach()
        loss = reconstruction_loss(weight, amplitude.abs().mean(), self.theta, self.amplitude, slope=amplitude.sign())
        return {"loss_amplitude": loss}


_SOURCE = "Chen et al., BNAS, IJCV 2021, {} in amplitude form, {}"

# PReLU as in Section 3.4 of the paper; the layout of the blocks is Bi-Real Net's (ours).
BNAS_XNOR = register_binarizer(
    Binarizer(
        name="bnasxnor",
        source=_SOURCE.format("XNOR", "1-bit weights and activations"),
        input=ClippedSign,
        weight=ClosedFormAmplitude,
        activation=PReLU,
    )
)
BNAS_PCNN = register_binarizer(
    replace(
        BNAS_XNOR,
        name="bnaspcnn",
        source=_SOURCE.format("PCNN", "1-bit weights and activations"),
        weight=LearnedAmplitude,
    )
)
BNAS_XNOR_W1A32 = register_binarizer(
    replace(BNAS_XNOR, name="bnasxnorw1a32", source=_SOURCE.format("XNOR", "1-bit weights"), input=None)
)
BNAS_PCNN_W1A32 = register_binarizer(
    replace(BNAS_PCNN, name="bnaspcnnw1a32", source=_SOURCE.format("PCNN", "1-bit weights"), input=None)
)
