"""Layers of packed networks: weights as bits, everything that follows a convolution fused.

Each is made from a trained layer and equals it in eval mode, the sums of 1-bit products exactly, the
real-valued rest to float rounding. Buffers are what a packed file holds. The layers run on the CPU,
in float32, without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.binarization import RPReLU
from onebit.backbones.conv import OneBitConv2d, pair
from onebit.backbones.packed import engine
from onebit.backbones.packed.bits import pack_bits, unpack_bits, unpack_signs, words_for
from onebit.backbones.packed.geometry import Geometry
from onebit.commons.errors import InputError

#: How far a 1-bit value may be from its exact one, relatively: what sign(w).detach() + w - w.detach() makes
#: of it by rounding is.
TOLERANCE = 1e-6


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel of a batch norm in eval mode."""
    if norm.running_mean is None or norm.running_var is None:
        raise InputError("a batch norm without running statistics has no packed form")
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """PReLU over the last dimension, whose size ``slope`` has."""
    return x.clamp(min=0) + slope * x.clamp(max=0)


def map_of(x: Tensor) -> Tensor:
    """``x`` [N, C, H, W] as [N, H, W, C], float32, contiguous; a view where it is channels_last."""
    if x.device.type != "cpu":
        raise InputError(f"packed networks run on the CPU; the input is on {x.device}")
    return x.detach().float().permute(0, 2, 3, 1).contiguous()


def image_of(values: Tensor) -> Tensor:
    """The inverse of :func:`map_of`, a view."""
    return values.permute(0, 3, 1, 2)


class PackedLayer(nn.Module):
    """Base: what kernels need besides the buffers is made at the first call, or the first of a size, and kept."""

    def __init__(self) -> None:
        super().__init__()
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
        """What the kernels need, from the buffers."""
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
        self._ready = None
        super()._load_from_state_dict(*arguments)

    def _array(self, name: str, channels: int, default: float) -> np.ndarray:
        """A buffer as an array; ``default`` in every channel where there is none."""
        buffer = getattr(self, name)
        return np.full(channels, default, np.float32) if buffer is None else buffer.numpy()


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

    def prepare(self) -> dict[str, np.ndarray]:
        k, c = self.out_channels, self.in_channels
        taps = self.kernel_size[0] * self.kernel_size[1]
        ready = dict(
            in_scale=self._array("in_scale", c, 1),
            threshold=self._array("threshold", c, 0),
            scale=self._array("scale", k, 1),
            shift=self._array("shift", k, 0),
            slope=self._array("slope", k, 1),
            after=self._array("after", k, 0),
        )
        compiled = engine.kernels()
        if compiled is None:
            return ready
        filters = -(-k // compiled.LANES) * compiled.LANES
        words = words_for(c)
        positive = unpack_bits(self.bits, (k * taps, c)).numpy()
        padded = np.zeros((filters * taps, words * 64), bool)
        padded[: k * taps, :c] = positive
        packed = np.packbits(padded, axis=1, bitorder="little").view(np.uint64)
        ready["weights"] = np.ascontiguousarray(packed.reshape(filters, taps * words).T)
        return ready

    def prepare_size(self, height: int, width: int) -> Geometry:
        return Geometry(self, height, width)

    def pack(self, values: Tensor) -> np.ndarray:
        """Signs of a map [N, H, W, C], packed, with the border that the convolution needs."""
        ready, (n, height, width, _) = self.ready, values.shape
        place = self.sized(height, width)
        words = place.words(n)
        engine.run(
            engine.kernels().pack,
            n * height,
            *(values.numpy(), ready["in_scale"], ready["threshold"], place.border, words),
        )
        return words

    def convolve(
        self, words: np.ndarray, size: Sequence[int], shortcut: Tensor | None = None, out: Tensor | None = None
    ) -> Tensor:
        """From packed signs of a map of ``size`` to the output [N, H', W', K].

        Args:
            shortcut: [N, H', W', K].
            out: add to this map instead of making a new one.
        """
        place, ready = self.sized(*size), self.ready
        add = out is not None
        if out is None:
            out = torch.empty(len(words), *place.out_size, self.out_channels)
        engine.run(
            engine.kernels().convolve,
            len(words) * place.out_size[0],
            words,
            ready["weights"],
            *(place.offsets, place.length, self.stride, place.total, place.correction(self)),
            (ready["scale"], ready["shift"]),
            (out if shortcut is None else shortcut).numpy(),
            shortcut is not None,
            (ready["slope"], ready["after"]),
            *(add, out.numpy()),
        )
        return out

    def compute(self, values: Tensor, shortcut: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """From a real-valued map [N, H, W, C]; arguments as :meth:`convolve`."""
        if engine.kernels() is None:
            result = self._slow(values, shortcut)
            return result if out is None else out.add_(result)
        return self.convolve(self.pack(values), values.shape[1:3], shortcut, out)

    def _slow(self, values: Tensor, shortcut: Tensor | None) -> Tensor:
        ready = {name: torch.from_numpy(array) for name, array in self.ready.items()}
        x = torch.where(values * ready["in_scale"] > ready["threshold"], 1.0, -1.0)
        x = F.pad(image_of(x), (*[self.padding[1]] * 2, *[self.padding[0]] * 2), value=self.pad_value)
        sums = F.conv2d(x, self.signs(), None, self.stride, 0, self.dilation)
        y = map_of(sums) * ready["scale"] + ready["shift"]
        y = y if shortcut is None else y + shortcut
        return prelu(y, ready["slope"]) + ready["after"]

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, K, H', W'], channels_last."""
        return image_of(self.compute(map_of(x)))


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
        self.output = conv.quantize_weight if conv.scales_output else None
        norm_scale, shift = (None, None) if norm is None else affine(norm)
        self.keep(
            scale=half * scale,
            of_signs=half * offset,
            of_taps=middle * scale,
            of_count=middle * offset,
            norm_scale=norm_scale,
            shift=shift,
        )

    def prepare_size(self, height: int, width: int) -> Tensor:
        """[H', W', K]: what does not depend on the signs of the input."""
        conv = self.sums
        ones = torch.ones(1, conv.in_channels, height, width)
        counts = map_of(F.conv2d(ones, conv.signs(), None, conv.stride, conv.padding, conv.dilation))[0]
        return counts[..., :-1] * self.of_taps + counts[..., -1:] * self.of_count

    def compute(self, values: Tensor, shortcut: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """As of :class:`PackedConv`."""
        sums = self.sums.compute(values)
        y = sums[..., :-1] * self.scale + sums[..., -1:] * self.of_signs + self.sized(*values.shape[1:3])
        y = scaled_map(y, self.output)
        if self.norm_scale is not None and self.shift is not None:
            y = y * self.norm_scale + self.shift
        if shortcut is not None:
            y = y + shortcut
        return y if out is None else out.add_(y)

    def forward(self, x: Tensor) -> Tensor:
        return image_of(self.compute(map_of(x)))


def scaled_map(y: Tensor, quantizer: Any) -> Tensor:
    """A map [N, H, W, C] times the output scale of a quantizer of weights, unless that is None."""
    if quantizer is None:
        return y
    scale = quantizer.output_scale(*y.shape[1:3])
    return y * scale.expand(-1, *y.shape[1:3]).permute(1, 2, 0)


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


class PackedUnit(nn.Module):
    """A packed convolution with the shortcut around it, and the activation if it is not in it."""

    def __init__(self, conv: PackedConv | PackedAffineConv, shortcut: nn.Module | None, activation: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        around = None if self.shortcut is None else map_of(self.shortcut(x))
        return self.activation(image_of(self.conv.compute(map_of(x), around)))


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
        self.output = conv.quantize_weight if conv.scales_output else None

    def prepare(self) -> Tensor:
        """The weights as floats [K, C / groups, h, w]."""
        weight = unpack_signs(self.bits, self.shape) * self.scale.view(-1, 1, 1, 1)
        return weight if self.offset is None else weight + self.offset.view(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.signs:
            threshold = 0 if self.threshold is None else self.threshold.view(-1, 1, 1)
            below, above = (-1.0, 1.0) if self.values is None else self.values
            x = torch.where(x > threshold, above, below)
        stride, dilation, groups = self.arguments
        x = F.pad(x, self.border, value=self.pad_value)
        y = F.conv2d(x, self.ready, None, stride, 0, dilation, groups)
        return image_of(scaled_map(map_of(y), self.output)) if self.output is not None else y
