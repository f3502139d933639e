"""Packed forms of cells and of their operations.

The steps of an operation write into a map, or add to it, so that the sum into a node and the concatenation of nodes
cost nothing extra.
"""

from __future__ import annotations

import itertools
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit.backbones.cells.operations import Halve, every_second
from onebit.backbones.conv import OneBitConv2d, pair
from onebit.backbones.packed.bits import pack_bits, unpack_signs
from onebit.backbones.packed.builder import Builder, Into, Map, Norm, Together
from onebit.backbones.packed.layers import PackedConv, PackedLayer, prelu, scaled, signs_and_scale, slope_of
from onebit.backbones.packed.lowering import affine, floats, lower, pooled, rule
from onebit.packed import engine, recipes
from onebit.packed.recipes import classes_of, made, valid_taps


class PackedSeparableBlock(PackedLayer):
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

    def prepare(self) -> np.ndarray:
        """The weights of the depthwise part, [taps, channels]."""
        taps = self.kernel_size[0] * self.kernel_size[1]
        sources = [self.array(name) for name in ("bits", "scale", "in_scale")]
        return made(recipes.depthwise, sources, (taps, self.channels))

    def prepare_size(self, height: int, width: int) -> tuple[tuple[int, int], dict[str, np.ndarray]]:
        """Size of the output, and the depthwise part as :meth:`Builder.separable` takes it."""
        size = height, width
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        out = pair(
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel_size[i] - 1) - 1) // self.stride[i] + 1
            for i in range(2)
        )
        rows, columns = (
            classes_of(
                valid_taps(self.kernel_size[i], self.dilation[i], self.stride[i], self.padding[i], size[i], out[i])
            )[1]
            for i in range(2)
        )
        sources = [self.array(name) for name in ("bits", "scale", "in_shift", "shift")]
        shifts = made(recipes.shifts, sources, (self.channels, *itertools.chain(*window, size)))
        slope = floats(self.slope)
        return out, dict(weights=self.ready, slope=slope, shift=shifts, row_class=rows, column_class=columns)

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        size, depthwise = self.sized(*x.size)
        point = self.pointwise
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        signs = point.array("in_scale"), point.array("threshold")
        shape = (size, window, depthwise, point.ready, signs, point.out_channels, point.norm())
        return builder.separable(x, *shape, x if self.shortcut else None, into, add)

    def slow(self, x: Tensor) -> Tensor:
        weights = unpack_signs(self.bits, (*self.kernel_size, self.channels)).permute(2, 0, 1).unsqueeze(1)
        y = scaled(x, self.in_scale, self.in_shift)
        y = F.conv2d(y, weights, None, self.stride, self.padding, self.dilation, self.channels)
        y = prelu(scaled(y, self.scale, self.shift), self.slope)
        return self.pointwise.slow(y, x if self.shortcut else None)


class PackedChain(PackedLayer):
    """Operations one after another."""

    def __init__(self, operations: list[PackedLayer]) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)
        self.chain = operations

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        *first, last = self.chain
        for operation in first:
            x = operation.lower(builder, x)
        return last.lower(builder, x, into, add)

    def slow(self, x: Tensor) -> Tensor:
        return reduce(lambda y, operation: operation(y), self.chain, x)


class PackedPool(PackedLayer):
    """3x3 pooling with the batch norm behind it.

    Args:
        pool: a :class:`onebit.backbones.cells.operations.Pool`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool = pool.pool
        scale, shift = affine(pool.bn)
        self.keep(scale=scale, shift=shift)

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        norm = dict(scale=self.array("scale"), shift=self.array("shift"))
        return pooled(self.pool, builder, x, **norm, into=into, add=add)

    def slow(self, x: Tensor) -> Tensor:
        return scaled(self.pool(x), self.scale, self.shift)


class PackedIdentity(PackedLayer):
    """The skip connection at stride 1."""

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        return builder.pointwise(x, into=into, add=add)

    def slow(self, x: Tensor) -> Tensor:
        return x


class PackedZero(PackedLayer):
    """No connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        if isinstance(into, Map) and add:
            return into
        height, width = (-(-each // self.stride) for each in x.size)
        return builder.broadcast(np.zeros(x.channels, np.float32), x.n, height, width, into)

    def slow(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class PackedProjection(PackedLayer):
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
        """``norm``, and weights as floats or ``codes`` of table lookups."""
        _, inputs = self.shape
        weights = unpack_signs(self.bits, self.shape) * self.scale[:, None]
        shift, slope = floats(self.shift + weights @ self.in_shift), self.array("slope")
        bits, scale, in_scale = (self.array(name) for name in ("bits", "scale", "in_scale"))
        if not engine.kernels().HAS_AVX512 or inputs % 4:
            floating = made(recipes.projection, [bits, scale, in_scale], self.shape)
            return dict(weights=floating, norm=Norm(None, shift, slope))
        return dict(codes=made(recipes.codes, [bits], self.shape), norm=Norm(scale, shift, slope))

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        ready, (outputs, _), one = self.ready, self.shape, (1, 1)
        if "codes" in ready:
            in_scale = self.array("in_scale")
            assert in_scale is not None
            return builder.project(x, in_scale, ready["codes"], outputs, ready["norm"], into, add)
        weights, norm = ready["weights"], ready["norm"]
        return builder.conv_floats(x, weights, one, one, (0, 0), one, outputs, norm, into=into, add=add)

    def slow(self, x: Tensor) -> Tensor:
        return self.behind_norm(scaled(x, self.in_scale, self.in_shift))

    def behind_norm(self, x: Tensor) -> Tensor:
        """The same of what the first norm puts out."""
        y = F.conv2d(x, unpack_signs(self.bits, (*self.shape, 1, 1)))
        return prelu(scaled(y, self.scale, self.shift), self.slope)

    def at_padding(self) -> np.ndarray:
        """[out_channels]: the output where the convolution sees zeros behind the first norm."""
        return floats(prelu(self.shift[:, None, None], self.slope).flatten())


class PackedHalve(PackedLayer):
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

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        even, odd = x.every(2, 0), x.every(2, 1)
        half = self.even.shape[0]
        out = builder.room(into, (x.n, *even.size, 2 * half))
        self.even.lower(builder, even, out.view(half, 0), add)
        there, (height, width) = out.view(half, half), odd.size
        if height and width:
            self.odd.lower(builder, odd, there.region(0, 0, height, width), add)
        # An odd height or width leaves a last row or column that sees zeros.
        for top, left, rows, columns in (
            (height, 0, even.height - height, even.width),
            (0, width, height, even.width - width),
        ):
            if rows and columns:
                strip = there.region(top, left, rows, columns)
                builder.broadcast(self.odd.at_padding(), x.n, rows, columns, strip, add)
        return out

    def slow(self, x: Tensor) -> Tensor:
        even, odd = every_second(scaled(x, self.even.in_scale, self.even.in_shift))
        return torch.cat([part.behind_norm(each) for part, each in ((self.even, even), (self.odd, odd))], 1)


@rule(Halve)
def _halve(halve: Any, builder: Builder, x: Map) -> Map:
    """The same of convolutions of other operands."""
    x = lower(halve.bn_in, builder, x)
    even, odd = x.every(2, 0), x.every(2, 1)
    if odd.size != even.size:
        odd = builder.extended(odd, *even.size)
    halves = [lower(halve.conv_even, builder, even), lower(halve.conv_odd, builder, odd)]
    return lower(halve.prelu, builder, lower(halve.bn, builder, builder.concatenate(halves)))


class PackedOther(PackedLayer):
    """An operation whose parts are packed one by one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def lower(self, builder: Builder, x: Map, into: Into = None, add: bool = False) -> Map:
        found = lower(self.module, builder, x)
        return found if into is None else builder.pointwise(found, into=into, add=add)

    def slow(self, x: Tensor) -> Tensor:
        return self.module(x)


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
        older: PackedLayer,
        newer: PackedLayer,
        nodes: list[list[PackedLayer]],
        sources: list[list[int]],
        concatenate: bool,
    ) -> None:
        super().__init__()
        self.older, self.newer = older, newer
        self.nodes = nn.ModuleList(nn.ModuleList(edges) for edges in nodes)
        self.edges = [list(zip(places, edges, strict=True)) for places, edges in zip(sources, nodes, strict=True)]
        self.concatenate = concatenate

    def lower(self, builder: Builder, older: Map, newer: Map) -> Map:
        """The steps of the cell; with concatenation, every node is computed where it belongs in the output."""
        states = [self.older.lower(builder, older), self.newer.lower(builder, newer)]
        together = Together(len(self.nodes)) if self.concatenate else None
        for number, edges in enumerate(self.edges):
            into = None if together is None else together.part(number)
            node: Map | None = None
            for source, edge in edges:
                node = edge.lower(builder, states[source], into if node is None else node, node is not None)
            assert node is not None
            states.append(node)
        if together is not None:
            return together.whole
        return reduce(lambda total, node: builder.pointwise(total, around=node), states[2:])

    def forward(self, older: Tensor, newer: Tensor, drop_path_prob: float = 0.0) -> Tensor:
        """Two maps [N, C, H, W] to one; nothing is dropped in inference."""
        states = [self.older(older), self.newer(newer)]
        for edges in self.edges:
            states.append(reduce(torch.add, [edge(states[source]) for source, edge in edges]))
        nodes = states[2:]
        return torch.cat(nodes, 1) if self.concatenate else reduce(torch.add, nodes)
