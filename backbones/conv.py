"""The 1-bit convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from backbones import integer_conv
from backbones.binarization import Binarizer, get_binarizer
from backbones.registry import MODELS
from commons.errors import InputError

REAL_BITS = 32


@MODELS.register_module()
class OneBitConv2d(nn.Conv2d):
    """Convolution of 1-bit weights with 1-bit (or real-valued) activations.

    ``y = conv(quantize_input(x), quantize_weight(weight))``, both given by the binarizer. The
    real-valued ``weight`` is what the optimizer trains. There is no bias. Differentiable once: the
    quantizers' gradients are estimates, so a second derivative would mean nothing.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: as in
            :class:`torch.nn.Conv2d`.
        bias: only False; accepted because builders of conv layers pass it.
        binarizer: a name (``xnor``, ``bireal``, ``reactnet``, ...) or a :class:`Binarizer`.
        binarize_input: False leaves activations real-valued; only weights are 1-bit then.
        pad_value: what the border is padded with after the sign: 0 (a tap that counts for
            nothing), -1 or +1 (what a kernel that knows only two values can reproduce).

    Attributes:
        weight_bits, input_bits: the precisions of the two operands, 1 or 32.

    Raises:
        InputError: unknown binarizer, a bias, or a pad value other than the above.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        binarizer: str | Binarizer = "bireal",
        binarize_input: bool = True,
        pad_value: int = 0,
    ) -> None:
        if bias:
            raise InputError("OneBitConv2d has no bias: pass bias=False, or a norm layer after it")
        if pad_value not in ((-1, 0, 1) if binarize_input else (0,)):
            raise InputError(
                f"pad_value {pad_value!r}: expected 0, -1 or 1 for 1-bit activations, "
                "0 for real-valued ones"
            )
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False
        )
        self.binarizer = get_binarizer(binarizer)
        self.pad_value = pad_value
        self.quantize_input = self.binarizer.input(in_channels) if binarize_input else None
        self.quantize_weight = self.binarizer.weight(out_channels)

    @property
    def weight_bits(self) -> int:
        return self.quantize_weight.precision

    @property
    def input_bits(self) -> int:
        return REAL_BITS if self.quantize_input is None else self.quantize_input.precision

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def init_weights(self) -> None:
        """Initialize anew. Its being here keeps MMDetection's own rules off these weights."""
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Images or maps [N, in_channels, H, W] to [N, out_channels, H', W']."""
        weight = self.quantize_weight(self.weight)
        padding = self.padding
        if self.quantize_input is not None:
            x = self.quantize_input(x)
            if self.pad_value != 0:
                x = F.pad(x, self._reversed_padding_repeated_twice, value=self.pad_value)
                padding = (0, 0)
            if self._in_integers(x, weight):
                return integer_conv.onebit_conv2d(x, weight, self.stride, padding, self.dilation)
        return F.conv2d(x, weight, None, self.stride, padding, self.dilation, self.groups)

    def _in_integers(self, x: Tensor, weight: Tensor) -> bool:
        return (
            self.input_bits == self.weight_bits == 1
            and self.groups == 1
            and not isinstance(self.padding, str)
            and integer_conv.worthwhile(x, weight, self.stride)
        )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, binarizer={self.binarizer.name}, pad_value={self.pad_value}"
        )
