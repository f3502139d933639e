"""Projection convolutional neural networks (PCNN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.signs import ClippedSign, clip_gradient, fit_kernel, scaled_sign, sign
from onebit.backbones.capture import Function
from onebit.backbones.prelu import PReLU

#: Weight of the projection loss (ours).
PROJECTION = 1e-4


class _ProjectedSignFunction(Function):
    @staticmethod
    def forward(ctx, weight: Tensor, projection: Tensor, delta: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, projection)
        ctx.delta = delta
        return scaled_sign(weight, projection.mean())

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, projection = ctx.saved_tensors
        if ctx.delta is not None:
            ctx.delta.copy_(grad)
        inside = clip_gradient(grad, weight * projection)
        grad_projection = (inside * weight).sum((0, 1), keepdim=True)
        return inside.mul_(projection), grad_projection, None


class _ProjectionLossFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor, projection: Tensor, moved: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(weight, projection, moved)
        ctx.factor = factor
        error = _projection_error(weight, projection, moved)
        return torch.linalg.vector_norm(error).square_().mul_(factor / 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weight, projection, moved = ctx.saved_tensors
        error = _projection_error(weight, projection, moved).mul_(ctx.factor * grad)
        through_mean = (error * sign(weight)).sum() / projection.numel()
        grad_projection = (error * moved).sum((0, 1), keepdim=True) - through_mean
        return error.mul_(projection), grad_projection, None, None


def _projection_error(weight: Tensor, projection: Tensor, moved: Tensor) -> Tensor:
    """W o (C + eta delta) - C^."""
    return scaled_sign(weight, -projection.mean()).addcmul_(moved, projection)


def projection_loss(weight: Tensor, projection: Tensor, factor: float, step: Tensor | None = None) -> Tensor:
    """(factor / 2) ||C^ - W o (C + step)||^2, with C^ = mean(W) sign(C).

    With E = W o (C + step) - C^, the gradients are factor * E o W to C, and to W factor * (the sum
    over filters and input channels of E o (C + step), minus the mean over kernel positions of that
    of E o sign(C)). The second part comes through mean(W) (ours: with C^ held constant, W would run
    after mean(W) / |C|, whose mean is larger than mean(W), and the loss would grow).

    Args:
        weight: C, [K, C, h, w].
        projection: W, [1, 1, h, w].
        step: eta * delta, like ``weight``; None for 0.
    """
    moved = weight.detach() if step is None else weight.detach() + step
    return _ProjectionLossFunction.apply(weight, projection, moved, factor)


class ProjectedSign(nn.Module):
    """Weights as sign times the mean of a learnable projection matrix W, one per layer.

    Forward: C^ = mean(W) sign(C). Gradient to the weights C: g o W where |W o C| <= 1, else 0; to
    W [h, w]: the sum over filters and input channels of g o C, at the same places.
    Loss ``loss_projection``: (lambda / 2) ||C^ - W o (C + eta delta)||^2, delta the gradient at C^
    (of the step before, as this one's is not yet known), see :func:`projection_loss`.
    Gu et al., Projection Convolutional Neural Networks, AAAI 2019, with one projection. W starts
    at mean |C|, lambda is 1e-4 and eta 0 (ours).

    Args:
        channels: number of output filters of weights [channels, C, h, w].
        factor: lambda.
        eta: above 0 the layer keeps delta, a buffer as large as its weights.
    """

    precision = 1
    projection: nn.Parameter
    delta: Tensor | None

    def __init__(self, channels: int, factor: float = PROJECTION, eta: float = 0.0) -> None:
        super().__init__()
        self.factor, self.eta = factor, eta

    def fit(self, weight: Tensor) -> None:
        fit_kernel(self, "projection", weight)
        self.register_buffer("delta", torch.zeros_like(weight.detach()) if self.eta else None)

    def forward(self, weight: Tensor) -> Tensor:
        return _ProjectedSignFunction.apply(weight, self.projection, self.delta)

    def losses(self, weight: Tensor) -> dict[str, Tensor]:
        step = None if self.delta is None else self.eta * self.delta
        return {"loss_projection": projection_loss(weight, self.projection, self.factor, step)}


PCNN = register_binarizer(
    Binarizer(
        name="pcnn",
        source="Gu et al., Projection Convolutional Neural Networks, AAAI 2019",
        input=ClippedSign,
        weight=ProjectedSign,
        activation=PReLU,
    )
)
