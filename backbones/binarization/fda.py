"""FDA-BNN: the gradient of the sign's Fourier series, and a module that adapts to what the series leaves out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from onebit.backbones.binarization.binarizer import Binarizer, register_binarizer
from onebit.backbones.binarization.signs import SlopedSign

#: Angular frequency of the series' first term.
OMEGA = 0.1
#: The largest i of the series at the start and at the end of a training.
TERMS = (9, 18)


def fourier_slope(x: Tensor, progress: float) -> Tensor:
    """4 omega / pi times the sum of cos((2 i + 1) omega x) over i from 0 to n where |x| <= 1, else 0; n = 9 to 18.

    The sum over N = n + 1 terms is sin(2 N a) / (2 sin a) at a = omega x.
    """
    count = TERMS[0] + int(progress * (TERMS[1] - TERMS[0])) + 1
    turns = x.clamp(-1, 1) * (OMEGA / math.pi)
    slope = torch.sinc(2 * count * turns) / torch.sinc(turns) * (4 * OMEGA / math.pi * count)
    return slope * (x.detach().abs() <= 1)


def noise_weight(progress: float) -> float:
    """alpha: 0.1 at the start of a training, 0 at its end, along a cosine."""
    return 0.05 * (1 + math.cos(math.pi * progress))


class NoiseAdaptation(nn.Module):
    """eta(x) = W2 relu(W1 x) + 0.1 sin(x) of rows [..., size]; the layer between has size / 64 values, at least one.

    Only trainings use it: nothing of it is left in a network for inference, and no memory is counted for it.
    """

    training_only = True

    def __init__(self, size: int) -> None:
        super().__init__()
        hidden = max(1, size // 64)
        self.inner = nn.Linear(size, hidden, bias=False)
        self.outer = nn.Linear(hidden, size, bias=False)

    def reset(self) -> None:
        self.inner.reset_parameters()
        self.outer.reset_parameters()

    def forward(self, rows: Tensor) -> Tensor:
        return self.outer(self.inner(rows).relu()) + 0.1 * rows.sin()


class _AdaptedSign(SlopedSign):
    """The sign with the slope of the series; in training plus alpha eta(x), see :class:`FourierSign`."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, fourier_slope)

    @property
    def exact(self) -> bool:
        return not self.training or noise_weight(self.progress) == 0


class FourierSign(_AdaptedSign):
    """Activations as signs, in training sign(x) + alpha eta(x), eta over the channels of a pixel.

    Gradient through the sign: :func:`fourier_slope`; through eta: its own. alpha falls from 0.1 to 0
    (:func:`noise_weight`).
    Xu et al., FDA-BNN, NeurIPS 2021: the series, 9 to 18 terms, and a noise adaptation module that is added in
    training. The authors' release (MindSpore) is of inference and has neither. omega, the clip at 1, the sizes of the
    module, 0.1 sin(x) and alpha's cosine are those of BiBench's FDA (htqin/BiBench), whose module is size / 4 wide
    where ours has one value.

    Args:
        channels: of the input [N, channels, H, W].
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.noise = NoiseAdaptation(channels)

    def forward(self, x: Tensor) -> Tensor:
        signs = self.sign(x)
        if self.exact:
            return signs
        return signs + noise_weight(self.progress) * self.noise(x.movedim(1, -1)).movedim(-1, 1)

    def threshold(self) -> Tensor:
        return self.noise.inner.weight.new_zeros(1)


class FourierScaledSign(_AdaptedSign):
    """Weights as sign times the mean |w| of the filter, which is constant in backward.

    In training (sign(w) + alpha eta(w)) mean |w|, eta over the weights of a filter. Gradient as of
    :class:`FourierSign`, times mean |w|, as in BiBench; the release has one scale for the layer.

    Args:
        channels: number of output filters of weights [channels, C, h, w].
    """

    noise: NoiseAdaptation

    def fit(self, weight: Tensor) -> None:
        if hasattr(self, "noise"):
            self.noise.reset()
        else:
            self.noise = NoiseAdaptation(weight[0].numel())

    def forward(self, weight: Tensor) -> Tensor:
        values = self.sign(weight)
        if not self.exact:
            values = values + noise_weight(self.progress) * self.noise(weight.flatten(1)).view_as(weight)
        return values * weight.detach().abs().mean((1, 2, 3), keepdim=True)


# A PReLU ends the block, as in the release, where it comes before the norm; the shortcut around every convolution is
# Bi-Real Net's (ours: in the release's ResNet-20 it is around two).
FDA = register_binarizer(
    Binarizer(
        name="fda",
        source="Xu et al., FDA-BNN, NeurIPS 2021",
        input=FourierSign,
        weight=FourierScaledSign,
        activation=nn.PReLU,
    )
)
