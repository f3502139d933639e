"""Losses on the features of a classifier that draw each class together.

Such a module is called with (features, labels) in every training step, keeps the loss of that call,
and hands it over when :func:`onebit.backbones.losses.method_losses` asks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: theta, the weight of BONN's feature loss (ours).
BAYES_FEATURE = 1e-3
#: Smallest variance of a feature within its class.
MIN_VARIANCE = 1e-4


class ClassCentres(nn.Module):
    """Running mean and variance of the features of every class.

    Both are buffers, constants in every gradient. A class starts from the first batch that has it.

    Args:
        channels: D, the number of features.
        num_classes: K.
        momentum: share of the new batch in the running values.

    Attributes:
        mean, variance: [K, D].
        seen: bool [K].
    """

    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, channels: int, num_classes: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_classes, channels))
        self.register_buffer("variance", torch.ones(num_classes, channels))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in features [N, D] of classes ``labels`` [N]; classes not among them stay."""
        features = features.detach().to(self.mean.dtype)
        # Not by bincount, which would wait for the device to know the largest label.
        ones = torch.ones_like(features[:, :1])
        count = torch.zeros_like(self.mean[:, :1]).index_add_(0, labels, ones)
        found = count[:, 0] > 0
        share = torch.where(self.seen, self.momentum, 1.0)[:, None].to(count) * found[:, None]
        batch_mean = torch.zeros_like(self.mean).index_add_(0, labels, features)
        self.mean.lerp_(batch_mean / count.clamp(min=1), share)
        squares = (features - self.mean[labels]).square()
        batch_variance = torch.zeros_like(self.mean).index_add_(0, labels, squares)
        self.variance.lerp_(batch_variance / count.clamp(min=1), share)
        self.seen |= found


class FeatureLoss(nn.Module):
    """Base of losses on (features, labels): keeps what :meth:`loss` gave until it is asked for.

    Args:
        channels: D, the number of features.
        num_classes: number of classes.
    """

    name: str

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.centres = ClassCentres(channels, num_classes)
        self._pending: Tensor | None = None

    def forward(self, features: Tensor, labels: Tensor) -> None:
        """Take features [N, D] and labels [N] of one training step; in eval mode do nothing."""
        if self.training:
            self.centres.update(features, labels)
            self._pending = self.loss(features, labels)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """The scalar loss of features [N, D], the classes' statistics being up to date."""
        raise NotImplementedError

    def method_losses(self) -> dict[str, Tensor]:
        pending, self._pending = self._pending, None
        return {} if pending is None else {self.name: pending}


class BayesFeatureLoss(FeatureLoss):
    """BONN's Bayesian feature loss, named ``loss_bayes_feature``.

    (theta / 2) * sum over features of (f - c)^2 + (f - c)^2 / sigma^2 + log sigma^2, averaged over
    the batch as the cross-entropy is; c and sigma^2 the running mean and variance of the sample's
    class (sigma^2 not below 1e-4). Gradient: theta (f - c) (1 + 1 / sigma^2) / N.
    Gu et al., Bayesian Optimized 1-Bit CNNs, ICCV 2019, Bayesian feature loss. The features are
    those the classifier sees; averaging, running statistics and theta = 1e-3 are ours.

    Args:
        channels: number of features.
        num_classes: number of classes.
        theta: weight of the loss.
    """

    name = "loss_bayes_feature"

    def __init__(self, channels: int, num_classes: int, theta: float = BAYES_FEATURE) -> None:
        super().__init__(channels, num_classes)
        self.theta = theta

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        squares = (features - self.centres.mean[labels]).square()
        variance = self.centres.variance.clamp(min=MIN_VARIANCE)[labels]
        return (squares + squares / variance + variance.log()).sum(1).mean() * (self.theta / 2)


class ClassCentreLoss(FeatureLoss):
    """The second term of CP-NAS's loss, named ``loss_class_centre``.

    (lambda / 2) * ||f - c||^2, averaged over the batch; c is the running mean of the sample's class.
    Gradient: lambda (f - c) / N.
    Zhuo et al., CP-NAS, IJCAI 2020, Eq. 3. The text and the equation differ in whose mean c is;
    here it is that of the 1-bit network's own features, as the text has it. The paper sums over the
    samples and gives no lambda; the average and 1e-3 are ours.

    Args:
        channels: number of features.
        num_classes: number of classes.
        factor: lambda.
    """

    name = "loss_class_centre"

    def __init__(self, channels: int, num_classes: int, factor: float = 1e-3) -> None:
        super().__init__(channels, num_classes)
        self.factor = factor

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        squares = (features - self.centres.mean[labels]).square()
        return squares.sum(1).mean() * (self.factor / 2)
