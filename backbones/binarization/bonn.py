"""Bayesian optimized 1-bit networks (BONN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.bnas import amplitude_sign
from onebit.backbones.binarization.pcnn import projection_loss
from onebit.backbones.binarization.signs import ClippedSign, above, fit_kernel
from onebit.backbones.class_centres import BayesFeatureLoss
from onebit.backbones.prelu import PReLU

#: lambda and nu, the weights of the kernel loss and of its prior (ours).
KERNEL, PRIOR = 1e-4, 1e-4
#: Smallest variance of a mode: a mode of equal weights would otherwise have an infinite density.
MIN_VARIANCE = 1e-6


class _TwoModePriorFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        rows = weight.flatten(1)
        positive = rows.clamp(min=0)
        # Of both modes by sums over the positive weights and over all.
        counts = torch.count_nonzero(positive, 1).to(rows.dtype)
        counts = torch.stack((counts, rows.shape[1] - counts))
        sums = positive.sum(1)
        sums = torch.stack((sums, sums - rows.sum(1)))
        squares = torch.linalg.vector_norm(positive, dim=1).square()
        squares = torch.stack((squares, torch.linalg.vector_norm(rows, dim=1).square() - squares))
        means = sums / counts.clamp(min=1)
        spread = (squares - sums * means).clamp(min=0)
        variances = (spread / counts.clamp(min=1)).clamp(min=MIN_VARIANCE)
        ctx.save_for_backward(weight, means, variances)
        return (spread / variances + counts * variances.log()).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        weight, means, variances = ctx.saved_tensors
        rows = weight.flatten(1)
        # Piecewise linear in w: slope and value at 0 of the branches w > 0 and w <= 0.
        slopes = (2 * grad / variances)[..., None]
        values = slopes * torch.stack((-means[0], means[1]))[..., None]
        mask = above(rows)
        pull = torch.addcmul(values[1], rows, slopes[1])
        pull.addcmul_(mask, values[0] - values[1])
        pull.addcmul_(mask.mul_(rows), slopes[0] - slopes[1])
        return pull.view_as(weight)


def two_mode_prior(weight: Tensor) -> Tensor:
    """Twice the negative log-likelihood of a filter's weights under two Gaussian modes, summed.

    sum over filters and modes of (k+ - mu+)' Psi+^-1 (k+ - mu+) + log det Psi+, likewise with
    (k- + mu-): k+ are the positive weights of filter k, k- the others. Psi is diagonal, one
    variance per mode, not below 1e-6.

    Gradient: to a positive weight 2 (k - mu+) / Psi+, to another 2 (k + mu-) / Psi-. It holds mu
    and Psi constant, and is the whole gradient too, as they are where the likelihood is largest.

    Args:
        weight: [K, C, h, w].
    """
    return _TwoModePriorFunction.apply(weight)


class BayesianSign(nn.Module):
    """Weights as sign times the mean of a learnable vector w, one per layer.

    Forward: k^ = mean(w) sign(k). Gradient to k: mean(w) g where |k| <= 1, else 0; to w [h, w]: the
    sum over filters and input channels of g o sign(k).
    Loss ``loss_bayes_kernel``: (lambda / 2) (||k^ - w o k||^2 + nu * prior), its first part as
    :func:`onebit.backbones.binarization.pcnn.projection_loss`, its prior that of :func:`two_mode_prior`. Beside it, ``loss_bayes_feature`` where a classifier is
    trained (:class:`onebit.backbones.class_centres.BayesFeatureLoss`).
    Gu et al., Bayesian Optimized 1-Bit CNNs, ICCV 2019, Bayesian kernel loss. mu and Psi of every
    filter are estimated anew in every step, where the paper starts from such estimates and trains
    them (ours: they are of no use after training, so they are no parameters). w starts at mean |k|,
    lambda and nu are 1e-4 (ours).

    Args:
        channels: number of output filters of weights [channels, C, h, w].
        factor: lambda.
        prior: nu.
    """

    precision = 1
    reconstruction: nn.Parameter

    def __init__(self, channels: int, factor: float = KERNEL, prior: float = PRIOR) -> None:
        super().__init__()
        self.factor, self.prior = factor, prior

    def fit(self, weight: Tensor) -> None:
        fit_kernel(self, "reconstruction", weight)

    def forward(self, weight: Tensor) -> Tensor:
        return amplitude_sign(weight, self.reconstruction)

    def losses(self, weight: Tensor) -> dict[str, Tensor]:
        loss = projection_loss(weight, self.reconstruction, self.factor)
        loss = loss + two_mode_prior(weight) * (self.factor * self.prior / 2)
        return {"loss_bayes_kernel": loss}


BONN = register_binarizer(
    Binarizer(
        name="bonn",
        source="Gu et al., Bayesian Optimized 1-Bit CNNs, ICCV 2019",
        input=ClippedSign,
        weight=BayesianSign,
        activation=PReLU,
        feature_loss=BayesFeatureLoss,
    )
)
