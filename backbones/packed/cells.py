"""Packed forms of cells and of their operations.

Inside a cell a map is [N, H, W, C]; an operation's ``apply(values, out)`` adds its result to
``out``, or returns a new map where that is None, so that the sum into a node costs nothing extra.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.packed import engine
from backbones.packed.bits import pack_bits, unpack_bits
from backbones.packed.layers import (
    PackedConv,
    PackedLayer,
    activation_of,
    affine,
    classes_of,
    image_of,
    map_of,
    signs_and_scale,
    valid_taps,
)


class PackedOperation(PackedLayer):
    """Base of what joins two nodes of a cell."""

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        """A map [N, H, W, C] to one of [N, H', W', C], added to ``out`` if there is one."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return image_of(self.apply(map_of(x)))


class PackedSeparableBlock(PackedOperation):
    """BN, depthwise convolution, BN, PReLU, sign in one pass; 1x1 convolution to PReLU in another.

    Args:
        block: a :class:`backbones.cell_ops.SeparableBlock` whose depthwise convolution has 1-bit
            weights and real-valued activations.
    """

    def __init__(self, block) -> None:
        super().__init__()
        conv = block.depthwise
        self.channels, self.kernel_size = conv.in_channels, conv.kernel_size
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation
        self.shortcut = block.shortcut
        positive, scale = signs_and_scale(conv)
        in_scale, in_shift = affine(block.bn_in)
        norm_scale, shift = affine(block.bn_depthwise)
        self.keep(
            bits=pack_bits(positive.permute(1, 2, 3, 0)),  # taps before channels
            in_scale=in_scale,
            in_shift=in_shift,
            scale=scale * norm_scale,
            shift=shift,
            slope=activation_of(block.prelu_depthwise, self.channels)["slope"],
        )
        self.pointwise = PackedConv(
            block.pointwise, norm=block.bn_pointwise, activation=block.prelu
        )
        self._shifts = {}

    def prepare(self) -> dict[str, np.ndarray]:
        taps = self.kernel_size[0] * self.kernel_size[1]
        signs = unpack_bits(self.bits, (taps, self.channels)).float().mul_(2).sub_(1)
        weights = signs * self.scale
        return dict(
            weights=(weights * self.in_scale).numpy(),
            constants=(weights * self.in_shift).numpy(),
            slope=self.slope.numpy(),
            shift=self.shift.numpy(),
            zero=np.zeros(1, np.int64),
            zeros=np.zeros(1 << 16, np.int64),
            correction=np.zeros((1, 1, -(-self.channels // 8) * 8), np.int32),
        )

    def _border(self, size: tuple[int, int]):
        """Classes of rows and columns, and the shift in each pair of classes.

        The padding of the convolution is 0 behind the first batch norm, not before it.
        """
        if size not in self._shifts:
            if len(self._shifts) > 64:
                self._shifts.clear()
            out = self.out_size(size)
            (row_kinds, rows), (column_kinds, columns) = (
                classes_of(
                    valid_taps(
                        self.kernel_size[i], self.dilation[i], self.stride[i], self.padding[i],
                        size[i], out[i],
                    )
                )
                for i in range(2)
            )  # fmt: skip
            ready = self.ready
            table = np.empty((len(row_kinds), len(column_kinds), self.channels), np.float32)
            for (i, y), (j, x) in itertools.product(enumerate(row_kinds), enumerate(column_kinds)):
                inside = np.outer(y, x).ravel()
                table[i, j] = ready["shift"] + ready["constants"][inside].sum(0)
            self._shifts[size] = rows, columns, table
        return self._shifts[size]

    def out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return tuple(
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel_size[i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in range(2)
        )

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        around = values if self.shortcut else None
        compiled = engine.kernels()
        if compiled is None:
            return self.pointwise.apply(self._slow(values), around, out)
        n, height, width, channels = values.shape
        size = self.out_size((height, width))
        add = out is not None
        if out is None:
            out = torch.empty(n, *size, channels)
        ready, point = self.ready, self.pointwise.ready
        engine.run(
            compiled.separable, n * size[0], values.numpy(), ready["weights"], self.kernel_size,
            self.stride, self.padding, self.dilation, *self._border((height, width)),
            ready["slope"], point["in_scale"], point["threshold"], point["weights"], ready["zero"],
            ready["zeros"][: max(size)], ready["correction"], point["scale"], point["shift"],
            self.shortcut, point["slope"], point["after"], add, out.numpy(),
        )  # fmt: skip
        return out

    def _slow(self, values: Tensor) -> Tensor:
        weights = unpack_bits(self.bits, (*self.kernel_size, self.channels)).float() * 2 - 1
        x = image_of(values * self.in_scale + self.in_shift)
        x = F.conv2d(
            x, weights.permute(2, 0, 1).unsqueeze(1), None, self.stride, self.padding,
            self.dilation, self.channels,
        )  # fmt: skip
        x = map_of(x) * self.scale + self.shift
        return x.clamp(min=0) + self.slope * x.clamp(max=0)


class PackedChain(PackedOperation):
    """Operations one after another."""

    def __init__(self, operations: list[PackedOperation]) -> None:
        super().__init__()
        self.operations = nn.ModuleList(operations)

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        *first, last = self.operations
        for operation in first:
            values = operation.apply(values)
        return last.apply(values, out)


class PackedPool(PackedOperation):
    """3x3 pooling with the batch norm behind it.

    Args:
        pool: a :class:`backbones.cell_ops.Pool`.
    """

    def __init__(self, pool) -> None:
        super().__init__()
        self.largest = isinstance(pool.pool, nn.MaxPool2d)
        self.pool = pool.pool
        scale, shift = affine(pool.bn)
        self.keep(scale=scale, shift=shift)

    def prepare(self) -> tuple[np.ndarray, np.ndarray]:
        return self.scale.numpy(), self.shift.numpy()

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        compiled = engine.kernels()
        if compiled is None:
            result = map_of(self.pool(image_of(values))) * self.scale + self.shift
            return result if out is None else out.add_(result)
        n, height, width, channels = values.shape
        stride = self.pool.stride
        add = out is not None
        if out is None:
            out = torch.empty(n, -(-height // stride), -(-width // stride), channels)
        engine.run(
            compiled.pool, n * out.shape[1], values.numpy(), self.largest, stride, *self.ready,
            add, out.numpy(),
        )  # fmt: skip
        return out


class PackedIdentity(PackedOperation):
    """The skip connection at stride 1."""

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        return values.clone() if out is None else out.add_(values)


class PackedZero(PackedOperation):
    """No connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        if out is not None:
            return out
        return torch.zeros_like(values[:, :: self.stride, :: self.stride]).contiguous()


class PackedProjection(PackedOperation):
    """BN, 1x1 convolution of 1-bit weights with real-valued activations, BN, PReLU.

    Its arithmetic is a float matrix product; the file holds its weights as bits.

    Args:
        conv: the convolution.
        before, behind: scale and shift of the batch norms.
        slope: of the PReLU, [out_channels].
    """

    def __init__(
        self,
        conv,
        before: tuple[Tensor, Tensor],
        behind: tuple[Tensor, Tensor],
        slope: Tensor,
    ) -> None:
        super().__init__()
        self.shape = (conv.out_channels, conv.in_channels)
        positive, scale = signs_and_scale(conv)
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
        ready = dict(shift=self.shift + weights @ self.in_shift)
        compiled = engine.kernels()
        outputs, inputs = self.shape
        if compiled is None or not compiled.HAS_AVX512 or inputs % 4:
            ready["weights"] = weights * self.in_scale
            return ready
        codes = np.zeros((inputs // 4, -(-outputs // 16) * 16), np.uint8)
        fours = positive.view(outputs, -1, 4).numpy() * np.array([1, 2, 4, 8], np.uint8)
        codes[:, :outputs] = fours.sum(2, dtype=np.uint8).T
        return {**ready, "codes": codes}

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        ready, compiled = self.ready, engine.kernels()
        if "codes" in ready:
            add = out is not None
            if out is None:
                out = torch.empty(*values.shape[:3], self.shape[0])
            flat = out.view(-1, self.shape[0]).numpy()
            engine.run(
                compiled.project, len(flat), values.view(len(flat), -1).numpy(),
                self.in_scale.numpy(), ready["codes"], self.scale.numpy(), ready["shift"].numpy(),
                self.slope.numpy(), add, flat,
            )  # fmt: skip
            return out
        result = F.linear(values, ready["weights"], ready["shift"])
        if compiled is None:
            result = self._prelu(result)
        else:
            flat = result.view(-1, result.shape[-1]).numpy()
            engine.run(compiled.activate, len(flat), self.slope.numpy(), flat)
        return result if out is None else out.add_(result)

    def at_padding(self) -> Tensor:
        """[out_channels]: the output where the convolution sees zeros behind the first norm."""
        return self._prelu(self.shift)

    def _prelu(self, x: Tensor) -> Tensor:
        return x.clamp(min=0) + self.slope * x.clamp(max=0)


class PackedHalve(PackedOperation):
    """Two projections side by side, at the even and at the odd rows and columns.

    Args:
        halve: a :class:`backbones.cell_ops.Halve` of 1-bit weights and real-valued activations.
    """

    def __init__(self, halve) -> None:
        super().__init__()
        half = halve.conv_even.out_channels
        before = affine(halve.bn_in)
        scale, shift = affine(halve.bn)
        slope = activation_of(halve.prelu, 2 * half)["slope"]
        self.even = PackedProjection(
            halve.conv_even, before, (scale[:half], shift[:half]), slope[:half]
        )
        self.odd = PackedProjection(
            halve.conv_odd, before, (scale[half:], shift[half:]), slope[half:]
        )

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        even = self.even.apply(values[:, ::2, ::2].contiguous())
        odd = self.odd.apply(values[:, 1::2, 1::2].contiguous())
        if odd.shape[1:3] != even.shape[1:3]:  # an odd height or width: padded
            whole = self.odd.at_padding().expand(even.shape[:3] + odd.shape[3:]).clone()
            whole[:, : odd.shape[1], : odd.shape[2]] = odd
            odd = whole
        result = torch.cat((even, odd), 3)
        return result if out is None else out.add_(result)


class PackedOther(PackedOperation):
    """An operation whose parts are packed one by one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def apply(self, values: Tensor, out: Tensor | None = None) -> Tensor:
        result = map_of(self.module(image_of(values)))
        return result if out is None else out.add_(result)


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
        self.sources = sources
        self.concatenate = concatenate

    def forward(self, older: Tensor, newer: Tensor, drop_path_prob: float = 0.0) -> Tensor:
        """Two maps [N, C, H, W] to one; nothing is dropped in inference."""
        states = [self.older.apply(map_of(older)), self.newer.apply(map_of(newer))]
        for sources, edges in zip(self.sources, self.nodes, strict=True):
            node = None
            for source, edge in zip(sources, edges, strict=True):
                node = edge.apply(states[source], node)
            states.append(node)
        nodes = states[2:]
        if self.concatenate:
            return image_of(torch.cat(nodes, 3))
        total = nodes[0].clone()
        for node in nodes[1:]:
            total.add_(node)
        return image_of(total)
