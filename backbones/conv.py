"""The 1-bit convolution."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones import integer_conv, mixed_conv, packed_conv
from onebit.backbones.binarization import Binarizer, get_binarizer
from onebit.backbones.capture import as_leaf, symbolic
from onebit.backbones.registry import MODELS
from onebit.commons import guards
from onebit.commons.errors import InputError

REAL_BITS = 32
Pair = tuple[int, int]


def pair(values: Iterable[int]) -> Pair:
    """Two numbers, of rows and of columns."""
    rows, columns = values
    return rows, columns


def set_role(module: nn.Module, role: str) -> None:
    """Declare what a module is in tables of costs, see :mod:`onebit.backbones.cost`."""
    module.cost_role = role  # type: ignore[assignment]  # torch lets modules have attributes of any type


def real_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, role: str | None = None, **options: Any
) -> nn.Conv2d:
    """A real-valued convolution without bias, with 'same' padding unless ``options`` say otherwise."""
    options = {"padding": kernel_size // 2, **options}
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, bias=False, **options)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if role is not None:
        set_role(conv, role)
    return conv


@MODELS.register_module()
class OneBitConv2d(nn.Conv2d):
    """Convolution of 1-bit (or k-bit) weights with 1-bit, k-bit or real-valued activations.

    ``y = conv(quantize_input(x), quantize_weight(weight))``, both given by the binarizer. The
    real-valued ``weight`` is what the optimizer trains. There is no bias. Differentiable once: the
    quantizers' gradients are estimates, so a second derivative would mean nothing.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: as in
            :class:`torch.nn.Conv2d`.
        bias: only False; accepted because builders of conv layers pass it.
        binarizer: a name (``xnor``, ``bireal``, ``reactnet``, ...) or a :class:`Binarizer`.
        binarize_input: False leaves activations real-valued, as does a binarizer of weights only.
        pad_value: what the border is padded with after the sign: 0 (a tap that counts for
            nothing), -1 or +1 (what a kernel that knows only two values can reproduce).
        pack_activations: keep for backward only the bits that it needs, see
            :func:`pack_activations`.

    Attributes:
        weight_bits, input_bits: the precisions of the two operands: 1, 2, 4 or 32.

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
        pack_activations: bool = False,
    ) -> None:
        if bias:
            raise InputError("OneBitConv2d has no bias: pass bias=False, or a norm layer after it")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.binarizer = get_binarizer(binarizer)
        self.quantize_input: nn.Module | None = None
        if binarize_input and self.binarizer.input is not None:
            self.quantize_input = self.binarizer.input(in_channels)
        signs = self.input_bits == 1 and not self.input_affine
        self.pad_value = guards.choice("pad_value", pad_value, (0, -1, 1) if signs else (0,))
        self.quantize_weight = self.binarizer.weight(out_channels)
        self._fit_quantizer()
        self.pack_activations = pack_activations
        #: Whether 1-bit operands may be multiplied as integers; that can be differentiated once.
        self.integers = True
        self._binarize_weight = True

    @property
    def weight_bits(self) -> int:
        return _precision(self.quantize_weight) if self._binarize_weight else REAL_BITS

    @property
    def binarize_weight(self) -> bool:
        """Whether the weights are quantized; see :func:`binarize_weights`."""
        return self._binarize_weight

    @binarize_weight.setter
    def binarize_weight(self, enabled: bool) -> None:
        if enabled == self._binarize_weight:
            return
        if enabled:  # the weights are others than when it was fitted
            self._fit_quantizer()
        self._binarize_weight = enabled
        self.quantize_weight.requires_grad_(enabled)

    @property
    def input_bits(self) -> int:
        return REAL_BITS if self.quantize_input is None else _precision(self.quantize_input)

    @property
    def input_affine(self) -> bool:
        """Whether 1-bit activations have two values other than -1 and +1."""
        return getattr(self.quantize_input, "affine", False)

    @property
    def weight_affine(self) -> bool:
        """Whether the 1-bit weights of a filter have two values other than -a and +a."""
        return self._binarize_weight and getattr(self.quantize_weight, "affine", False)

    @property
    def scales_output(self) -> bool:
        """Whether the output is multiplied by a scale of the quantizer of weights."""
        return self._binarize_weight and hasattr(self.quantize_weight, "output_scale")

    @property
    def exact(self) -> bool:
        """Whether operands have the values of their precision alone: in training, methods may add noise."""
        return getattr(self.quantize_input, "exact", True) and getattr(self.quantize_weight, "exact", True)

    def geometry(self) -> tuple[Pair, Pair, Pair]:
        """Stride, padding and dilation.

        Raises:
            InputError: the padding is a word.
        """
        if isinstance(self.padding, str):
            raise InputError(f"padding {self.padding!r}: expected a number of pixels")
        return pair(self.stride), pair(self.padding), pair(self.dilation)

    @property
    def pack_activations(self) -> bool:
        return self._pack

    @pack_activations.setter
    def pack_activations(self, enabled: bool) -> None:
        self._pack = enabled
        quantizer: Any = self.quantize_input
        for module in quantizer.modules() if quantizer is not None else ():
            if hasattr(module, "pack"):
                module.pack = enabled

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if hasattr(self, "quantize_weight"):  # not yet so when the base class calls this
            self._fit_quantizer()

    def _fit_quantizer(self) -> None:
        fit = getattr(self.quantize_weight, "fit", None)
        if fit is not None:
            fit(self.weight)

    def init_weights(self) -> None:
        """Initialize anew. Its being here keeps MMDetection's own rules off these weights."""
        self.reset_parameters()

    def method_losses(self) -> dict[str, Tensor]:
        """The losses that the binarization adds to the task's, see :mod:`onebit.backbones.losses`."""
        losses = getattr(self.quantize_weight, "losses", None)
        return losses(self.weight) if losses is not None and self._binarize_weight else {}

    def forward(self, x: Tensor) -> Tensor:
        """Images or maps [N, in_channels, H, W] to [N, out_channels, H', W']."""
        if symbolic(x):
            return as_leaf(self, x)
        return self.scale_output(self._convolve(x))

    def scale_output(self, y: Tensor) -> Tensor:
        """``y`` times the output scale of the quantizer of weights, if it has one."""
        quantizer: Any = self.quantize_weight
        return y * quantizer.output_scale(*y.shape[2:]).to(y.dtype) if self.scales_output else y

    def _convolve(self, x: Tensor) -> Tensor:
        weight = self.quantize_weight(self.weight) if self._binarize_weight else self.weight
        padding = self.padding
        if self.quantize_input is not None:
            x = self.quantize_input(x)
            if self.pad_value != 0:
                x = F.pad(x, self._reversed_padding_repeated_twice, value=self.pad_value)
                padding = (0, 0)
            if not isinstance(padding, str):
                geometry = pair(self.stride), pair(padding), pair(self.dilation)
                if self._in_integers(x, weight, geometry):
                    return integer_conv.onebit_conv2d(x, weight, *geometry, self._pack)
                if self._multiplies_signs and mixed_conv.possible(x, weight):
                    return mixed_conv.onebit_conv2d(x, weight, *geometry, self.groups)
                if self._pack and self.exact and packed_conv.possible(x, weight):
                    return packed_conv.conv2d(x, weight, *geometry, self.groups, self.input_bits, self.input_affine)
        return F.conv2d(x, weight, None, self.stride, padding, self.dilation, self.groups)

    @property
    def _multiplies_signs(self) -> bool:
        signs = self.input_bits == self.weight_bits == 1 and not (self.input_affine or self.weight_affine)
        return signs and self.exact

    def _in_integers(self, x: Tensor, weight: Tensor, geometry: tuple) -> bool:
        return (
            self.integers
            and self._multiplies_signs
            and self.groups == 1
            and integer_conv.worthwhile(x, weight, *geometry)
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, binarizer={self.binarizer.name}, pad_value={self.pad_value}"


def _precision(quantizer: Any) -> int:
    """The bits of what a quantizer puts out: any module that states them is one."""
    return quantizer.precision


def pack_activations(network: nn.Module, enabled: bool = True) -> int:
    """Let every 1-bit convolution of ``network`` keep only what its backward needs, in bits.

    Of the input of a 1-bit convolution backward needs its sign (one bit a value, for the gradient
    to the weights) and the slope of the gradient estimator: one bit a value for the clipped
    straight-through estimator and for DoReFa; for ApproxSign and RSign one bit, and three bytes
    where |x| < 1 (exact in float32); for other slopes and dtypes one bit, and the slope itself where it
    is not 0. Gradients are the same to the last bit. Convolutions of real-valued activations keep these.

    Args:
        network: any module.
        enabled: False switches it off again.

    Returns:
        how many convolutions there are to which it applies.
    """
    count = 0
    for module in network.modules():
        if isinstance(module, OneBitConv2d):
            module.pack_activations = enabled
            count += module.quantize_input is not None
    return count


def set_progress(network: nn.Module, fraction: float) -> None:
    """Tell every module of ``network`` that wants to know how much of the training has passed.

    The trainers and the searches of the suite call it at the start of every epoch, with the number of
    epochs that are done over the number of all; so a resumed training goes on with the same fractions.

    Args:
        network: its modules with a method ``set_progress`` are told.
        fraction: from 0 to 1.
    """
    module: Any
    for module in network.modules():
        if hasattr(module, "set_progress"):
            module.set_progress(fraction)


def binarize_weights(network: nn.Module, enabled: bool = True) -> int:
    """Let every 1-bit convolution of ``network`` quantize its weights, or use them as they are.

    The first of two training stages leaves them real-valued while activations are 1-bit (Martinez
    et al., Real-to-Binary, ICLR 2020; Liu et al., ReActNet, ECCV 2020). Parameters of quantizers of
    weights are frozen meanwhile, and set anew from the weights when it is switched on again.

    Args:
        network: any module.
        enabled: False leaves weights real-valued.

    Returns:
        how many convolutions there are to which it applies.
    """
    count = 0
    for module in network.modules():
        if isinstance(module, OneBitConv2d):
            module.binarize_weight = enabled
            count += 1
    return count
