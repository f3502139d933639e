"""Layers of packed networks: weights as bits, everything that follows a convolution fused.

Each is made from a trained layer and equals it in eval mode, the sums of 1-bit products exactly, the
real-valued rest to float rounding. Buffers are what a packed file holds. The layers run on the CPU,
in float32, without gradients.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.binarization import RPReLU
from onebit.backbones.conv import OneBitConv2d, pair
from onebit.backbones.packed.bits import pack_bits, unpack_signs
from onebit.backbones.packed.builder import Builder, Into, Map, Norm
from onebit.backbones.packed.geometry import Geometry
from onebit.backbones.packed.lowering import NoSteps, Runner, affine, floats, lower, prepared
from onebit.commons.errors import InputError
from onebit.packed import engine, recipes
from onebit.packed.recipes import made

#: How far a 1-bit value may be from its exact one, relatively: what sign(w).detach() + w - w.detach() makes
#: of it by rounding is.
TOLERANCE = 1e-6


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """PReLU of a map [N, C, H, W] with ``slope`` [C]."""
    return x.clamp(min=0) + slope[:, None, None] * x.clamp(max=0)


def scaled(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """``scale * x + shift`` of a map [N, C, H, W], per channel."""
    x = x if scale is None else x * scale[:, None, None]
    return x if shift is None else x + shift[:, None, None]


class PackedLayer(nn.Module):
    """Base: a layer with steps of its own (:meth:`lower`), and its meaning in torch where there are no kernels.

    What the steps need besides the buffers is made at the first call, or the first of a size, and kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._runner = Runner()
        self._ready: Any = None
        self._sized: dict[tuple[int, int], Any] = {}

    def keep(self, **tensors: Tensor | None) -> None:
        """Register buffers, float32 unless they are bits."""
        for name, tensor in tensors.items():
            if tensor is not None:
                tensor = tensor.detach().flatten()
                tensor = tensor if tensor.dtype == torch.int64 else tensor.float()
                tensor = tensor.clone()
            self.register_buffer(name, tensor)

    def prepare(self) -> Any:
        """What the steps need, from the buffers."""
        raise NotImplementedError

    def prepare_size(self, height: int, width: int) -> Any:
        """What they need for maps of this size."""
        raise NotImplementedError

    @property
    def ready(self) -> Any:
        if self._ready is None:
            self._ready = self.prepare()
        return self._ready

    def sized(self, height: int, width: int) -> Any:
        """What :meth:`prepare_size` returns, made once per size."""
        if (height, width) not in self._sized:
            if len(self._sized) > 64:  # inputs of ever new sizes
                self._sized.clear()
            self._sized[height, width] = self.prepare_size(height, width)
        return self._sized[height, width]

    def _load_from_state_dict(self, *arguments) -> None:
        self._ready, self._runner = None, Runner()
        self._sized.clear()
        super()._load_from_state_dict(*arguments)

    def array(self, name: str) -> np.ndarray | None:
        """A buffer as an array, or None."""
        buffer = getattr(self, name)
        return None if buffer is None else buffer.numpy()

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        """The steps of the layer; ``into`` and ``add`` as of :class:`onebit.backbones.packed.builder.Builder`."""
        raise NotImplementedError

    def slow(self, x: Tensor) -> Tensor:
        """The same in torch, [N, C, H, W]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, K, H', W'], channels_last."""
        if engine.kernels() is None or self._runner.reason is not None:
            return self.slow(prepared(x))
        try:
            return self._runner.run(self, x)
        except NoSteps as reason:
            self._runner.reason = str(reason)
            return self.slow(prepared(x))


def threshold_of(conv: OneBitConv2d) -> Tensor | None:
    """t with quantizer(x) = sign(x - t) per input channel, None for 0.

    A quantizer of activations with parameters has a packed form if it has a method ``threshold()`` that
    returns t [channels].

    Raises:
        InputError: it has more than one bit, or does not say its threshold.
    """
    quantizer: Any = conv.quantize_input
    kind = type(quantizer).__name__
    if conv.input_bits != 1:
        raise InputError(f"{kind} puts out {conv.input_bits} bits: no packed form, which is 1-bit")
    if hasattr(quantizer, "threshold"):
        found = quantizer.threshold()
    elif not any(True for _ in quantizer.parameters()):
        return None
    else:
        raise InputError(f"{kind} has parameters but no threshold(): its packed form is not known")
    return found.detach().flatten().expand(conv.in_channels)


def values_of(conv: OneBitConv2d) -> tuple[Tensor, Tensor]:
    """What a 1-bit quantizer of activations puts out at and below its threshold, and above it.

    -1 and +1, or the pair of an affine one, scalars.

    Raises:
        InputError: it puts out something else at values around its threshold: there is no packed form.
    """
    found = threshold_of(conv)
    threshold = conv.weight.new_zeros(conv.in_channels) if found is None else found
    steps = threshold.new_tensor([-1, -1e-3, 0, 1e-3, 1])
    x = threshold[:, None] + steps * threshold.abs().clamp(min=1)[:, None]
    with torch.no_grad():
        values = cast(nn.Module, conv.quantize_input)(x[None, :, None])[0, :, 0]
    pair = (values[0, 0], values[0, -1]) if conv.input_affine else (values.new_tensor(-1), values.new_tensor(1))
    if values.device.type != "meta":
        expected = torch.where(x > threshold[:, None], pair[1], pair[0])
        if not torch.allclose(values, expected, rtol=TOLERANCE, atol=0):
            name, (low, high) = type(conv.quantize_input).__name__, (f"{float(v):+g}" for v in pair)
            raise InputError(f"{name} is not {high} above its threshold and {low} at and below it: no packed form")
    return pair


def is_plain(conv: OneBitConv2d) -> bool:
    """Whether the products are those of -1 and +1, up to one scale per filter."""
    return not (conv.input_affine or conv.weight_affine or conv.scales_output)


def signs_and_scale(conv: OneBitConv2d) -> tuple[Tensor, Tensor, Tensor | None]:
    """Where the quantized weights of a 1-bit convolution are positive, and scale and offset of each filter.

    Returns:
        positive [K, C, h, w], scale [K], offset [K]: weights are offset + scale where positive, offset -
        scale elsewhere; no offset unless the quantizer is affine.

    Raises:
        InputError: the weights of a filter have other values.
    """
    with torch.no_grad():
        weight = conv.quantize_weight(conv.weight)
    rows = weight.flatten(1)
    low, high = rows.amin(1), rows.amax(1)
    offset = (high + low) / 2 if conv.weight_affine else None
    scale = rows[:, 0].abs() if offset is None else (high - low) / 2
    positive = weight > (0 if offset is None else offset[:, None, None, None])
    if weight.device.type != "meta":
        expected = torch.where(positive.flatten(1), scale[:, None], -scale[:, None])
        expected = expected if offset is None else expected + offset[:, None]
        error = (rows - expected).abs().amax(1)
        if not (error <= TOLERANCE * torch.maximum(high.abs(), low.abs())).all():
            what = "one magnitude" if offset is None else "two values"
            raise InputError(
                f"the weights of a {type(conv.quantize_weight).__name__} have more than {what} per filter: "
                "no packed form"
            )
    return positive, scale, offset


def folds(activation: nn.Module) -> bool:
    """Whether :func:`activation_of` knows the activation."""
    return isinstance(activation, nn.Identity | nn.PReLU | RPReLU)


def activation_of(module: nn.Module, channels: int) -> dict[str, Tensor | None]:
    """``before``, ``slope``, ``after`` with module(x) = PReLU(x + before; slope) + after.

    Raises:
        InputError: an activation of another kind.
    """
    if isinstance(module, nn.Identity):
        return dict(before=None, slope=None, after=None)
    if isinstance(module, nn.PReLU):
        return dict(before=None, slope=module.weight.expand(channels), after=None)
    if isinstance(module, RPReLU):
        return dict(
            before=module.shift_in.flatten(),
            slope=module.prelu.weight.expand(channels),
            after=module.shift_out.flatten(),
        )
    raise InputError(f"{type(module).__name__} as activation: no packed form")


def slope_of(module: nn.Module, channels: int) -> Tensor:
    """The slopes [channels] of a PReLU, 1 for an identity.

    Raises:
        InputError: an activation with shifts, or of another kind.
    """
    parts = activation_of(module, channels)
    if parts["before"] is not None or parts["after"] is not None:
        raise InputError(f"{type(module).__name__} inside a cell: no packed form")
    return torch.ones(channels) if parts["slope"] is None else parts["slope"]


class PackedConv(PackedLayer):
    """A 1-bit convolution with what surrounds it: [norm,] sign, conv, [norm,] [+ shortcut,] [act].

    ``y = PReLU(scale * sum + shift + shortcut; slope) + after`` with the integer
    ``sum = conv(sign(x * in_scale - threshold), signs of weights)``.

    Args:
        conv: an :class:`onebit.backbones.OneBitConv2d` with 1-bit activations and groups = 1.
        norm_before: a batch norm between the input and the sign.
        norm: a batch norm behind the convolution.
        activation: behind it and the shortcut.
        sums: leave scales and offsets of the weights out, and put out the sum of the signs under the
            kernel as one channel more, the last.

    Raises:
        InputError: the convolution has no packed form.
    """

    bits: Tensor
    in_scale: Tensor | None
    threshold: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    slope: Tensor | None
    after: Tensor | None

    def __init__(
        self,
        conv: OneBitConv2d,
        norm_before: nn.BatchNorm2d | None = None,
        norm: nn.BatchNorm2d | None = None,
        activation: nn.Module | None = None,
        sums: bool = False,
    ) -> None:
        super().__init__()
        check_packable(conv)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels + sums
        self.kernel_size = pair(conv.kernel_size)
        self.stride, self.padding, self.dilation = conv.geometry()
        self.pad_value = conv.pad_value

        scale: Tensor | None
        positive, scale, _ = signs_and_scale(conv)
        if sums:
            positive, scale = torch.cat((positive, torch.ones_like(positive[:1]))), None
        threshold = threshold_of(conv)
        in_scale = None
        if norm_before is not None:
            in_scale, in_shift = affine(norm_before)
            threshold = -in_shift if threshold is None else threshold - in_shift
        shift = None
        if norm is not None:
            norm_scale, shift = affine(norm)
            scale = norm_scale if scale is None else scale * norm_scale
        parts = activation_of(activation or nn.Identity(), self.out_channels)
        if parts["before"] is not None:
            shift = parts["before"] if shift is None else shift + parts["before"]
        self.keep(
            # Taps before channels: the channels of one tap are neighbours in packed maps.
            bits=pack_bits(positive.permute(0, 2, 3, 1)),
            in_scale=in_scale,
            threshold=threshold,
            scale=scale,
            shift=shift,
            slope=parts["slope"],
            after=parts["after"],
        )

    def signs(self) -> Tensor:
        """The weights as +1 and -1, float32 [K, C, h, w]."""
        shape = (self.out_channels, *self.kernel_size, self.in_channels)
        return unpack_signs(self.bits, shape).permute(0, 3, 1, 2)

    def prepare(self) -> np.ndarray:
        """The weights as :meth:`Builder.conv_bits` takes them."""
        taps = self.kernel_size[0] * self.kernel_size[1]
        return made(recipes.words, [self.array("bits")], (self.out_channels, taps, self.in_channels))

    def prepare_size(self, height: int, width: int) -> Geometry:
        return Geometry(self, height, width)

    def norm(self) -> Norm:
        return Norm(*map(self.array, ("scale", "shift", "slope", "after")))

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False, around: Map | None = None) -> Map:
        """Also with a shortcut ``around`` it."""
        place = self.sized(*x.size)
        signs = builder.signs(x, place, self.array("in_scale"), self.array("threshold"))
        shape = (self.ready, place.correction(self), self.out_channels, self.stride)
        return builder.conv_bits(x, signs, place, *shape, self.norm(), around, into, add)

    def slow(self, x: Tensor, around: Tensor | None = None) -> Tensor:
        threshold = 0 if self.threshold is None else self.threshold[:, None, None]
        x = torch.where(scaled(x, self.in_scale, None) > threshold, 1.0, -1.0)
        x = F.pad(x, (*[self.padding[1]] * 2, *[self.padding[0]] * 2), value=self.pad_value)
        y = scaled(F.conv2d(x, self.signs(), None, self.stride, 0, self.dilation), self.scale, self.shift)
        y = y if around is None else y + around
        y = y if self.slope is None else prelu(y, self.slope)
        return scaled(y, None, self.after)


class PackedAffineConv(PackedLayer):
    """A 1-bit convolution of any two values a side, or with an output scale; around it norms and shortcut.

    With x = o + p s and w_k = b_k + a_k t, s and t being -1 and +1, the sum over what lies inside the map
    is p a_k sum(s t) + p b_k sum(s) + o (a_k sum(t) + b_k n). The first two sums come from a
    :class:`PackedConv`; sum(t) and the number n of products depend only on where the border is.

    Args:
        conv, norm_before, norm: as of :class:`PackedConv`.
    """

    scale: Tensor
    of_signs: Tensor
    of_taps: Tensor
    of_count: Tensor
    norm_scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self, conv: OneBitConv2d, norm_before: nn.BatchNorm2d | None = None, norm: nn.BatchNorm2d | None = None
    ) -> None:
        super().__init__()
        self.sums = PackedConv(conv, norm_before, sums=True)
        _, scale, offset = signs_and_scale(conv)
        offset = torch.zeros_like(scale) if offset is None else offset
        below, above = values_of(conv)
        half, middle = (above - below) / 2, (above + below) / 2
        self.output: Any = conv.quantize_weight if conv.scales_output else None
        norm_scale, shift = (None, None) if norm is None else affine(norm)
        self.keep(
            scale=half * scale,
            of_signs=half * offset,
            of_taps=middle * scale,
            of_count=middle * offset,
            norm_scale=norm_scale,
            shift=shift,
        )

    def prepare(self) -> dict[str, np.ndarray]:
        """Everything behind the sums as one scale and shift per channel."""
        folded = self.norm_scale if self.output is None else None
        norm = torch.ones_like(self.scale) if folded is None else folded
        return dict(
            scale=floats(self.scale * norm), of_signs=recipes.filters_of(floats((self.of_signs * norm)[:, None]))
        )

    def prepare_size(self, height: int, width: int) -> Tensor:
        """[K, H', W']: what does not depend on the signs of the input."""
        conv = self.sums
        ones = torch.ones(1, conv.in_channels, height, width)
        counts = F.conv2d(ones, conv.signs(), None, conv.stride, conv.padding, conv.dilation)[0]
        return scaled(counts[:-1], self.of_taps, None) + counts[-1:] * self.of_count[:, None, None]

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False, around: Map | None = None) -> Map:
        sums, (ready, channels) = self.sums.lower(builder, x), (self.ready, len(self.scale))
        norm = (self.norm_scale, self.shift) if self.output is None else (None, None)
        fixed, one = constant_map(builder, scaled(self.sized(*x.size), *norm), x.n), (1, 1)
        last = sums.view(1, channels)
        others = builder.conv_floats(last, ready["of_signs"], one, one, (0, 0), one, channels, around=fixed)
        if self.output is None:
            if around is not None:
                others = builder.pointwise(others, around=around)
            return builder.pointwise(sums.view(channels, 0), Norm(ready["scale"]), others, into, add)
        y = builder.pointwise(sums.view(channels, 0), Norm(ready["scale"]), others)
        y = output_scaled(builder, y, self.output)
        return builder.pointwise(y, Norm(self.array("norm_scale"), self.array("shift")), around, into, add)

    def slow(self, x: Tensor) -> Tensor:
        sums: Tensor = self.sums(x)
        y = scaled(sums[:, :-1], self.scale, None) + sums[:, -1:] * self.of_signs[:, None, None]
        y = y + self.sized(*x.shape[2:])
        if self.output is not None:
            y = y * self.output.output_scale(*y.shape[2:])
        return scaled(y, self.norm_scale, self.shift)


def constant_map(builder: Builder, values: Tensor, n: int) -> Map:
    """``values`` [C, H, W] as the map of each of n images."""
    return builder.fixed(floats(values.permute(1, 2, 0)), n)


def output_scaled(builder: Builder, y: Map, quantizer: Any) -> Map:
    """A map times the output scale of a quantizer of weights."""
    scale = quantizer.output_scale(*y.size).detach().expand(-1, *y.size)
    return builder.multiply(y, constant_map(builder, scale, y.n))


def packed_conv(
    conv: OneBitConv2d, norm_before: nn.BatchNorm2d | None = None, norm: nn.BatchNorm2d | None = None
) -> PackedConv | PackedAffineConv:
    """The packed form of a convolution of 1-bit operands, without activation."""
    return (PackedConv if is_plain(conv) else PackedAffineConv)(conv, norm_before, norm)


def check_packable(conv: OneBitConv2d) -> None:
    """Raise InputError unless ``conv`` is a convolution of 1-bit weights and 1-bit activations."""
    if conv.weight_bits != 1 or conv.input_bits != 1:
        raise InputError(
            f"a convolution of {conv.weight_bits}-bit weights and {conv.input_bits}-bit activations "
            "has no packed form, which needs 1 bit of both"
        )
    if conv.groups != 1 or isinstance(conv.padding, str):
        raise InputError("a 1-bit convolution with groups or padding by name has no packed form")


class PackedUnit(PackedLayer):
    """A packed convolution with the shortcut around it, and the activation if it is not in it."""

    def __init__(self, conv: PackedConv | PackedAffineConv, shortcut: nn.Module | None, activation: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.shortcut = shortcut
        self.activation = activation

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        around = None if self.shortcut is None else lower(self.shortcut, builder, x)
        y = lower(self.activation, builder, self.conv.lower(builder, x, around=around))
        return y if into is None else builder.pointwise(y, into=into, add=add)

    def slow(self, x: Tensor) -> Tensor:
        around = None if self.shortcut is None else self.shortcut(x)
        if isinstance(self.conv, PackedConv):  # its activation comes after the shortcut
            return self.activation(self.conv.slow(x, around))
        y = self.conv(x)
        return self.activation(y if around is None else y + around)


class SignWeightConv(PackedLayer):
    """A convolution of 1-bit weights that the 1-bit kernels do not cover, stored as bits.

    Its activations are real-valued, or 1-bit in a grouped (depthwise) convolution. Its arithmetic is
    that of floats; only its weights are small.

    Args:
        conv: an :class:`onebit.backbones.OneBitConv2d`.

    Raises:
        InputError: weights or activations of more than one bit.
    """

    bits: Tensor
    scale: Tensor
    offset: Tensor | None
    threshold: Tensor | None
    values: Tensor | None

    def __init__(self, conv: OneBitConv2d) -> None:
        super().__init__()
        if conv.weight_bits != 1:
            raise InputError(f"a convolution of {conv.weight_bits}-bit weights has no packed form")
        self.shape = tuple(conv.weight.shape)
        self.arguments = (conv.stride, conv.dilation, conv.groups)
        # In the order that F.pad takes: the last dimension first.
        self.border = tuple(conv._reversed_padding_repeated_twice)
        self.pad_value = conv.pad_value
        self.signs = conv.quantize_input is not None
        threshold = threshold_of(conv) if self.signs else None
        positive, scale, offset = signs_and_scale(conv)
        values = torch.stack(values_of(conv)) if conv.input_affine else None
        self.keep(bits=pack_bits(positive), scale=scale, offset=offset, threshold=threshold, values=values)
        self.output: Any = conv.quantize_weight if conv.scales_output else None

    def prepare(self) -> Tensor:
        """The weights as floats [K, C / groups, h, w]."""
        weight = unpack_signs(self.bits, self.shape) * self.scale.view(-1, 1, 1, 1)
        return weight if self.offset is None else weight + self.offset.view(-1, 1, 1, 1)

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        stride, dilation, groups = self.arguments
        filters, channels, *sides = self.shape
        window = (pair(sides), pair(stride), (self.border[2], self.border[0]), pair(dilation))
        if self.signs:
            below, above = (-1.0, 1.0) if self.values is None else map(float, self.values)
            x = builder.choose(x, self.array("threshold"), below, above)
        place = into if self.output is None else None
        sources = [self.array(name) for name in ("bits", "scale", "offset")]
        if groups == 1:
            weights = made(recipes.sign_filters, sources, self.shape)
            y = builder.conv_floats(x, weights, *window, filters, fill=self.pad_value, into=place, add=add)
        elif channels == 1 and filters == groups:
            weights = made(recipes.sign_taps, sources, self.shape)
            y = builder.depthwise(x, weights, window, self.pad_value, place, add)
        else:
            raise NoSteps("a convolution in groups of several channels")
        if self.output is None:
            return y
        y = output_scaled(builder, y, self.output)
        return y if into is None else builder.pointwise(y, into=into, add=add)

    def slow(self, x: Tensor) -> Tensor:
        if self.signs:
            threshold = 0 if self.threshold is None else self.threshold.view(-1, 1, 1)
            below, above = (-1.0, 1.0) if self.values is None else self.values
            x = torch.where(x > threshold, above, below)
        stride, dilation, groups = self.arguments
        x = F.pad(x, self.border, value=self.pad_value)
        y = F.conv2d(x, self.ready, None, stride, 0, dilation, groups)
        return y if self.output is None else y * self.output.output_scale(*y.shape[2:])
