"""Packed forms of cells and of their operations.

Inside a cell a map is a numpy array [N, H, W, C], whose handling costs a tenth of a tensor's; on
small maps that is what counts. An operation's ``compute(values, out)`` adds its result to ``out``, or
returns a new map where that is None, so that the sum into a node costs nothing extra.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.conv import OneBitConv2d, pair
from onebit.backbones.packed import engine
from onebit.backbones.packed.bits import pack_bits, unpack_bits, unpack_signs
from onebit.backbones.packed.geometry import classes_of, valid_taps
from onebit.backbones.packed.layers import (
    PackedConv,
    PackedLayer,
    affine,
    image_of,
    map_of,
    prelu,
    signs_and_scale,
    slope_of,
)

#: A feature map, float32 [N, H, W, C], contiguous.
Map = np.ndarray


class PackedOperation(PackedLayer):
    """Base of what joins two nodes of a cell."""

    def compute(self, values: Map, out: Map | None = None) -> Map:
        """A map [N, H, W, C] to one of [N, H', W', C], added to ``out`` if there is one."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return image_of(torch.from_numpy(self.compute(map_of(x).numpy())))


def room(out: Map | None, shape: tuple[int, ...]) -> tuple[Map, bool]:
    """``out``, or a new map where there is none; and whether to add to it."""
    return (np.empty(shape, np.float32), False) if out is None else (out, True)


def added(result: Tensor | Map, out: Map | None) -> Map:
    """``result`` [N, H, W, C] as a map, added to ``out`` if there is one."""
    if isinstance(result, Tensor):
        result = result.contiguous().numpy()
    return result if out is None else np.add(out, result, out=out)


class Call(NamedTuple):
    """Arguments of a kernel that depend on the size of its input."""

    out_size: tuple[int, int]
    arguments: tuple


class PackedSeparableBlock(PackedOperation):
    """BN, depthwise convolution, BN, PReLU, sign in one pass; 1x1 convolution to PReLU in another.

    Args:
        block: a :class:`onebit.backbones.cells.operations.SeparableBlock` whose depthwise convolution has 1-bit
            weights and real-valued activations.
    """

    bits: Tensor
    in_scale: Tensor
    in_shift: Tensor
    scale: Tensor
    shift: Tensor
    slope: Tensor

    def __init__(self, block: Any) -> None:
        super().__init__()
        conv = block.depthwise
        self.channels, self.kernel_size = conv.in_channels, pair(conv.kernel_size)
        self.stride, self.padding, self.dilation = conv.geometry()
        self.shortcut = block.shortcut
        positive, scale, _ = signs_and_scale(conv)
        in_scale, in_shift = affine(block.bn_in)
        norm_scale, shift = affine(block.bn_depthwise)
        self.keep(
            bits=pack_bits(positive.permute(1, 2, 3, 0)),  # taps before channels
            in_scale=in_scale,
            in_shift=in_shift,
            scale=scale * norm_scale,
            shift=shift,
            slope=slope_of(block.prelu_depthwise, self.channels),
        )
        self.pointwise = PackedConv(block.pointwise, norm=block.bn_pointwise, activation=block.prelu)

    def prepare(self) -> dict[str, np.ndarray]:
        taps = self.kernel_size[0] * self.kernel_size[1]
        weights = unpack_signs(self.bits, (taps, self.channels)) * self.scale
        return dict(
            weights=(weights * self.in_scale).numpy(),
            constants=(weights * self.in_shift).numpy(),
            slope=self.slope.numpy(),
            shift=self.shift.numpy(),
        )

    def prepare_size(self, height: int, width: int) -> Call:
        size = height, width
        out = pair(
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel_size[i] - 1) - 1) // self.stride[i] + 1
            for i in range(2)
        )
        (row_kinds, rows), (column_kinds, columns) = (
            classes_of(
                valid_taps(self.kernel_size[i], self.dilation[i], self.stride[i], self.padding[i], size[i], out[i])
            )
            for i in range(2)
        )
        ready, point = self.ready, self.pointwise.ready
        # The padding of the convolution is 0 behind the first batch norm, not before it: at the
        # border that norm adds less.
        shifts = np.empty((len(row_kinds), len(column_kinds), self.channels), np.float32)
        for (i, y), (j, x) in itertools.product(enumerate(row_kinds), enumerate(column_kinds)):
            inside = np.outer(y, x).ravel()
            shifts[i, j] = ready["shift"] + ready["constants"][inside].sum(0)
        no_class = np.zeros(max(out), np.int64)
        no_border = np.zeros((1, 1, point["weights"].shape[1]), np.int32)
        return Call(
            out,
            (
                ready["weights"],
                (self.kernel_size, self.stride, self.padding, self.dilation),
                (rows, columns, shifts),
                (ready["slope"], point["in_scale"], point["threshold"]),
                point["weights"],
                np.zeros(1, np.int64),
                (no_class, no_class, no_border),
                (point["scale"], point["shift"]),
                self.shortcut,
                (point["slope"], point["after"]),
            ),
        )

    def compute(self, values: Map, out: Map | None = None) -> Map:
        compiled = engine.kernels()
        if compiled is None:
            tensor = torch.from_numpy(values)
            around = tensor if self.shortcut else None
            return added(self.pointwise.compute(self._slow(tensor), around), out)
        n, height, width, channels = values.shape
        call = self.sized(height, width)
        out, add = room(out, (n, *call.out_size, channels))
        engine.run(compiled.separable, n * call.out_size[0], values, *call.arguments, add, out)
        return out

    def _slow(self, values: Tensor) -> Tensor:
        weights = unpack_signs(self.bits, (*self.kernel_size, self.channels))
        x = image_of(values * self.in_scale + self.in_shift)
        x = F.conv2d(
            x, weights.permute(2, 0, 1).unsqueeze(1), None, self.stride, self.padding, self.dilation, self.channels
        )
        return prelu(map_of(x) * self.scale + self.shift, self.slope)


class PackedChain(PackedOperation):
    """Operations one after another."""

    def __init__(self, operations: list[PackedOperation]) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self.plan = operations

    def compute(self, values: Map, out: Map | None = None) -> Map:
        *first, last = self.plan
        for operation in first:
            values = operation.compute(values)
        return last.compute(values, out)


class PackedPool(PackedOperation):
    """3x3 pooling with the batch norm behind it.

    Args:
        pool: a :class:`onebit.backbones.cells.operations.Pool`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.largest = isinstance(pool.pool, nn.MaxPool2d)
        self.pool = pool.pool
        scale, shift = affine(pool.bn)
        self.keep(scale=scale, shift=shift)

    def prepare(self) -> tuple[np.ndarray, np.ndarray]:
        return self.scale.numpy(), self.shift.numpy()

    def compute(self, values: Map, out: Map | None = None) -> Map:
        compiled = engine.kernels()
        if compiled is None:
            pooled = map_of(self.pool(image_of(torch.from_numpy(values))))
            return added(pooled * self.scale + self.shift, out)
        n, height, width, channels = values.shape
        stride = self.pool.stride
        out, add = room(out, (n, -(-height // stride), -(-width // stride), channels))
        engine.run(compiled.pool, n * out.shape[1], values, self.largest, stride, *self.ready, add, out)
        return out


class PackedIdentity(PackedOperation):
    """The skip connection at stride 1."""

    def compute(self, values: Map, out: Map | None = None) -> Map:
        return values.copy() if out is None else added(values, out)


class PackedZero(PackedOperation):
    """No connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def compute(self, values: Map, out: Map | None = None) -> Map:
        if out is not None:
            return out
        return np.zeros(values[:, :: self.stride, :: self.stride].shape, np.float32)


class PackedProjection(PackedOperation):
    """BN, 1x1 convolution of 1-bit weights with real-valued activations, BN, PReLU.

    Its arithmetic is a float matrix product; the file holds its weights as bits.

    Args:
        conv: the convolution.
        before, behind: scale and shift of the batch norms.
        slope: of the PReLU, [out_channels].
    """

    bits: Tensor
    in_scale: Tensor
    in_shift: Tensor
    scale: Tensor
    shift: Tensor
    slope: Tensor

    def __init__(
        self, conv: OneBitConv2d, before: tuple[Tensor, Tensor], behind: tuple[Tensor, Tensor], slope: Tensor
    ) -> None:
        super().__init__()
        self.shape = (conv.out_channels, conv.in_channels)
        positive, scale, _ = signs_and_scale(conv)
        self.keep(
            bits=pack_bits(positive),
            in_scale=before[0],
            in_shift=before[1],
            scale=scale * behind[0],
            shift=behind[1],
            slope=slope,
        )

    def prepare(self) -> dict[str, Any]:
        positive = unpack_bits(self.bits, self.shape)
        weights = positive.float().mul_(2).sub_(1) * self.scale[:, None]
        shift = self.shift + weights @ self.in_shift
        compiled = engine.kernels()
        outputs, inputs = self.shape
        if compiled is None or not compiled.HAS_AVX512 or inputs % 4:
            return dict(weights=weights * self.in_scale, shift=shift)
        codes = np.zeros((inputs // 4, -(-outputs // 16) * 16), np.uint8)
        fours = positive.view(outputs, -1, 4).numpy() * np.array([1, 2, 4, 8], np.uint8)
        codes[:, :outputs] = fours.sum(2, dtype=np.uint8).T
        arguments = (self.in_scale.numpy(), codes, self.scale.numpy(), shift.numpy(), self.slope.numpy())
        return dict(lookup=arguments)

    def compute(self, values: Map, out: Map | None = None) -> Map:
        ready, compiled = self.ready, engine.kernels()
        if "lookup" in ready:
            out, add = room(out, (*values.shape[:3], self.shape[0]))
            flat = out.reshape(-1, self.shape[0])
            positions = values.reshape(-1, self.shape[1])
            engine.run(compiled.project, len(flat), positions, *ready["lookup"], add, flat)
            return out
        result = F.linear(torch.from_numpy(values), ready["weights"], ready["shift"])
        return added(prelu(result, self.slope), out)

    def at_padding(self) -> Tensor:
        """[out_channels]: the output where the convolution sees zeros behind the first norm."""
        return prelu(self.shift, self.slope)


class PackedHalve(PackedOperation):
    """Two projections side by side, at the even and at the odd rows and columns.

    Args:
        halve: a :class:`onebit.backbones.cells.operations.Halve` of 1-bit weights and real-valued activations.
    """

    def __init__(self, halve: Any) -> None:
        super().__init__()
        half = halve.conv_even.out_channels
        before = affine(halve.bn_in)
        scale, shift = affine(halve.bn)
        slope = slope_of(halve.prelu, 2 * half)
        self.even = PackedProjection(halve.conv_even, before, (scale[:half], shift[:half]), slope[:half])
        self.odd = PackedProjection(halve.conv_odd, before, (scale[half:], shift[half:]), slope[half:])

    def compute(self, values: Map, out: Map | None = None) -> Map:
        even = self.even.compute(np.ascontiguousarray(values[:, ::2, ::2]))
        there = np.ascontiguousarray(values[:, 1::2, 1::2])
        if there.shape[1:3] == even.shape[1:3]:
            odd = self.odd.compute(there)
        else:  # an odd height or width: padded
            odd = np.empty(even.shape[:3] + self.odd.shape[:1], np.float32)
            odd[:] = self.odd.at_padding().numpy()
            if there.size:  # a map one pixel high or wide has no odd rows or columns
                odd[:, : there.shape[1], : there.shape[2]] = self.odd.compute(there)
        return added(np.concatenate((even, odd), 3), out)


class PackedOther(PackedOperation):
    """An operation whose parts are packed one by one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def compute(self, values: Map, out: Map | None = None) -> Map:
        return added(map_of(self.module(image_of(torch.from_numpy(values)))), out)


class PackedCell(nn.Module):
    """A cell: the inputs fitted to its width, and four nodes that sum their incoming edges.

    Args:
        older, newer: what fits the two inputs.
        nodes: the operations into each node.
        sources: where each of them comes from.
        concatenate: the nodes; else they are summed.
    """

    def __init__(
        self,
        older: PackedOperation,
        newer: PackedOperation,
        nodes: list[list[PackedOperation]],
        sources: list[list[int]],
        concatenate: bool,
    ) -> None:
        super().__init__()
        self.older, self.newer = older, newer
        self.nodes = nn.ModuleList(nn.ModuleList(edges) for edges in nodes)
        # Iterating over module lists takes longer than some of what is in them.
        self.plan = [list(zip(places, edges, strict=True)) for places, edges in zip(sources, nodes, strict=True)]
        self.concatenate = concatenate

    def forward(self, older: Tensor, newer: Tensor, drop_path_prob: float = 0.0) -> Tensor:
        """Two maps [N, C, H, W] to one; nothing is dropped in inference."""
        states = [self.older.compute(map_of(older).numpy()), self.newer.compute(map_of(newer).numpy())]
        for edges in self.plan:
            (source, edge), *others = edges
            node = edge.compute(states[source])
            for source, edge in others:
                node = edge.compute(states[source], node)
            states.append(node)
        nodes = states[2:]
        if self.concatenate:
            result = np.concatenate(nodes, 3)
        else:
            result = nodes[0] + nodes[1]
            for node in nodes[2:]:
                result += node
        return image_of(torch.from_numpy(result))
