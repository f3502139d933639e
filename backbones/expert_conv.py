"""Expert Binary Convolution: every image chooses one of several sets of 1-bit filters."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.binarization import Binarizer
from onebit.backbones.conv import OneBitConv2d, pair
from onebit.backbones.registry import MODELS
from onebit.commons import guards
from onebit.commons.errors import InputError

MOST_EXPERTS = 64


class _WinnerFunction(torch.autograd.Function):
    """1 at the largest of each row, else 0; the gradient goes straight through."""

    @staticmethod
    def forward(ctx, scores: Tensor) -> Tensor:
        return torch.zeros_like(scores).scatter_(1, scores.argmax(1, keepdim=True), 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


@MODELS.register_module()
class ExpertConv2d(OneBitConv2d):
    """A 1-bit convolution with N experts, of which the one that wins a gate computes, image by image.

    With s = sigmoid(gate(mean of the image x over its pixels)), a linear layer, the weights of an image are those of
    the expert with the largest s; they and x are quantized and convolved as in :class:`OneBitConv2d`. Gradient: as if
    the weights were the sum of s_i W_i before their quantization, with the winner's 1 and the others' 0 for s in it
    (straight-through). With ``attention`` the output is multiplied by sigmoid(A2 relu(A1 mean)), A1 of an eighth of the
    output channels, at least one.
    Bulat, Martinez and Tzimiropoulos, High-Capacity Expert Binary Networks, ICLR 2021, as released
    (1adrianb/expert-binary-networks), but for experts of one score, all of which the release adds up in training.
    There one expert is trained first and copied to the others, which ``copy_expert()`` does; here all start alike (ours):
    from different random weights a small network did not learn. Its groups and widths are the network's to choose.

    Args:
        arguments, options: as of :class:`OneBitConv2d`.
        experts: N. Their weights stand below each other, [N out_channels, C / groups, h, w].
        attention: scale the output by what is seen in the image.

    Raises:
        InputError: as :class:`OneBitConv2d`; or the binarizer's quantizer of weights has values that do not follow
            from one filter alone.
    """

    def __init__(
        self,
        *arguments: Any,
        experts: int = 4,
        attention: bool = True,
        binarizer: str | Binarizer = "ebn",
        **options: Any,
    ) -> None:
        super().__init__(*arguments, binarizer=binarizer, **options)
        self.experts = guards.whole("experts", experts, 1, MOST_EXPERTS)
        quantizer: Any = self.quantize_weight
        own = any(True for _ in quantizer.parameters()) and not hasattr(quantizer, "output_scale")
        if own or hasattr(quantizer, "fit") or hasattr(quantizer, "losses") or not getattr(quantizer, "exact", True):
            raise InputError(
                f"experts {experts}: expected a binarizer whose weights follow from a filter alone (ebn, bireal, "
                f"reactnet, xnor, bnn, irnet), found {self.binarizer.name}"
            )
        filters, *rest = self.weight.shape
        self.weight = nn.Parameter(self.weight.detach().new_empty(experts * filters, *rest))
        self.gate = nn.Linear(self.in_channels, experts)
        self.attention: nn.Module | None = None
        if attention:
            hidden = max(1, self.out_channels // 8)
            first = nn.Linear(self.in_channels, hidden, bias=False)
            second = nn.Linear(hidden, self.out_channels, bias=False)
            self.attention = nn.Sequential(first, nn.ReLU(), second, nn.Sigmoid())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight.detach()[: self.out_channels], mode="fan_out", nonlinearity="relu")
        self.copy_expert()

    def copy_expert(self) -> None:
        """Give every expert the weights of the first (the release's second stage)."""
        first = self.weight.data[: self.out_channels]
        self.weight.data.copy_(first.repeat(len(self.weight) // self.out_channels, 1, 1, 1))

    def expert(self, index: int) -> OneBitConv2d:
        """A convolution of one expert's weights, with the same quantizers."""
        arguments: dict[str, Any] = dict(
            stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups
        )
        single = OneBitConv2d(
            self.in_channels,
            self.out_channels,
            pair(self.kernel_size),
            **arguments,
            binarizer=self.binarizer,
            binarize_input=self.quantize_input is not None,
            pad_value=self.pad_value,
        )
        single.weight = nn.Parameter(self.weight.detach().split(self.out_channels)[index].clone())
        single.quantize_input, single.quantize_weight = self.quantize_input, self.quantize_weight
        return single.train(self.training)

    def _convolve(self, x: Tensor) -> Tensor:
        seen = x.mean((2, 3))
        scores = self.gate(seen).sigmoid()
        if self.training:
            weight = _WinnerFunction.apply(scores) @ self.weight.view(self.experts, -1)
        else:
            weight = self.weight.view(self.experts, -1)[scores.argmax(1)]
        weight = weight.view(-1, *self.weight.shape[1:])
        weight = self.quantize_weight(weight) if self._binarize_weight else weight
        padding = self.padding
        if self.quantize_input is not None:
            x = self.quantize_input(x)
            if self.pad_value != 0:
                x = F.pad(x, self._reversed_padding_repeated_twice, value=self.pad_value)
                padding = (0, 0)
        n = len(x)
        # All images in one convolution, each a group.
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight, None, self.stride, padding, self.dilation, n * self.groups)
        y = y.view(n, self.out_channels, *y.shape[2:])
        return y if self.attention is None else y * self.attention(seen)[:, :, None, None]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, experts={self.experts}"
