"""RBNN: the weights of a layer are rotated towards their signs before these are taken."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, hardtanh, register_binarizer
from onebit.backbones.binarization.signs import SlopedSign, variance
from onebit.commons.compat import autocasting

#: Rounds of alternating optimization each time the rotations are found again.
ROUNDS = 3
#: They are found again after this share of the training at the earliest: an epoch of the CIFAR-10 release.
SHARE = 1e-3


def training_aware_slope(x: Tensor, progress: float) -> Tensor:
    """max(k (sqrt(2) t - t^2 |x|), 0), k = max(1 / t, 1); t grows from 0.01 to 10 on a log scale."""
    t = 0.01 * 1000**progress
    return (max(1 / t, 1.0) * (math.sqrt(2) * t - t * t * x.abs())).clamp(min=0)


def activation_slope(x: Tensor, progress: float) -> Tensor:
    """max(sqrt(2) t - t^2 |x|, 0), t as of :func:`training_aware_slope`, but not below 1."""
    t = max(0.01 * 1000**progress, 1.0)
    return (math.sqrt(2) * t - t * t * x.abs()).clamp(min=0)


class StandardSign(SlopedSign):
    """Signs of activations, whose slope is taken where they are divided by the standard deviation of their image.

    Lin et al., RBNN, NeurIPS 2020, slope as released. The release also subtracts the mean of every image before the
    sign; here thresholds are the same for all images, which packed kernels need (ours).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, activation_slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.sign(x / (variance(x) + 1e-5).sqrt() if self.training else x)


def factors(count: int) -> tuple[int, int]:
    """The two factors of ``count`` that are closest to each other, the smaller first."""
    smaller = next(n for n in range(math.isqrt(count), 0, -1) if count % n == 0)
    return smaller, count // smaller


class RotatedSign(nn.Module):
    """Weights as the signs of rotated weights, times a learned scale per filter.

    Forward: a_k sign(v), v = u + |sin b_k| (R u - u), u = (w - mean) / std of filter k. R u is R1' U R2, U the n
    weights as a matrix [n1, n2] with n1 n2 = n as close to each other as can be, R1 and R2 orthogonal, shared by the
    filters. Gradient to v: a_k g times :func:`training_aware_slope`; to w and b_k: through the formula; to a_k: the sum
    of g sign(v). b starts at pi / 2, a at mean |w|.
    R1 and R2 start at random. At the first training step after the progress was set they are found again, to maximize
    the sum of |R1' U R2| over all filters, in three rounds: B = sign(R1' U R2); R1 = V1 U1' of the singular vectors of
    the sum of B R2' U'; R2 = U2 V2' of those of the sum of U' R1 B.
    Lin et al., Rotated Binary Neural Network, NeurIPS 2020, Sections 3.2 to 3.4; starting values and the three rounds
    are those of the release (lmbxmu/RBNN). There the rotated weights are constant in backward, so that at b = pi / 2
    neither w nor b gets a gradient; here it goes through the rotation, as in the paper. Where the progress is set at
    every step, a thousandth of the training lies between two rotations at least (ours).

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    precision = 1
    rotation1: Tensor
    rotation2: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1, 1))
        self.angle = nn.Parameter(torch.full((channels, 1, 1, 1), math.pi / 2))
        self.sign = SlopedSign(channels, training_aware_slope)
        self._rotated_at: float | None = None
        self._due = True

    def fit(self, weight: Tensor) -> None:
        self.scale.data.copy_(weight.detach().abs().mean((1, 2, 3), keepdim=True))
        for name, size in zip(("rotation1", "rotation2"), factors(weight[0].numel()), strict=True):
            self.register_buffer(name, nn.init.orthogonal_(weight.detach().new_empty(size, size)))

    def set_progress(self, fraction: float) -> None:
        self._due = self._rotated_at is None or abs(fraction - self._rotated_at) >= SHARE
        if self._due:
            self._rotated_at = fraction

    @torch.no_grad()
    def _rotate(self, matrices: Tensor) -> None:
        """Find the rotations again for weights [K, n1, n2]."""
        # There are no singular values in half precision.
        exact = torch.promote_types(matrices.dtype, torch.float32)
        matrices, one, two = matrices.to(exact), self.rotation1.to(exact), self.rotation2.to(exact)
        for _ in range(ROUNDS):
            signs = torch.where(one.T @ matrices @ two > 0, 1.0, -1.0).to(matrices.dtype)
            left, _, right = torch.linalg.svd((signs @ two.T @ matrices.mT).sum(0))
            one = right.mT @ left.mT
            left, _, right = torch.linalg.svd((matrices.mT @ one @ signs).sum(0))
            two = left @ right
        self.rotation1.copy_(one)
        self.rotation2.copy_(two)

    def forward(self, weight: Tensor) -> Tensor:
        kind = weight.device.type
        # Rotated in half precision, weights near 0 would have another sign than in the packed form.
        with torch.autocast(kind, enabled=False) if autocasting(kind) else contextlib.nullcontext():
            return self._quantized(weight)

    def _quantized(self, weight: Tensor) -> Tensor:
        standard = (weight - weight.mean((1, 2, 3), keepdim=True)) / variance(weight).clamp(min=1e-16).sqrt()
        matrices = standard.reshape(len(weight), len(self.rotation1), len(self.rotation2))
        if self.training and self._due:
            self._rotate(matrices.detach())
            self._due = False
        rotated = (self.rotation1.clone().T @ matrices @ self.rotation2.clone()).view_as(weight)
        return self.sign(standard + self.angle.sin().abs() * (rotated - standard)) * self.scale


RBNN = register_binarizer(
    Binarizer(
        name="rbnn",
        source="Lin et al., Rotated Binary Neural Network, NeurIPS 2020",
        input=StandardSign,
        weight=RotatedSign,
        activation=hardtanh,
    )
)
