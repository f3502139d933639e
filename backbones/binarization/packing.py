"""What backward needs of quantized activations, in as few bytes as possible and exactly.

Masks and signs take one bit a value. A slope takes one bit a value to say where it is not 0, and there
24 bits (ApproxSign's 2 - 2|x| is, in float32, a multiple of 2^-23 up to 2) or its own. A code of k bits
takes k bits.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onebit.backbones.capture import capturing


def packs(asked: bool) -> bool:
    """Whether to pack where it is ``asked`` for: in a graph, what to keep is left to the compiler."""
    return asked and not capturing()


@dataclass(frozen=True)
class Layout:
    """Shape and memory order of a tensor whose values are kept as one packed row.

    Attributes:
        shape: of the tensor.
        channels_last: stored as [N, H, W, C].
    """

    shape: torch.Size
    channels_last: bool

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        channels_last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        return cls(x.shape, channels_last)

    def flatten(self, x: Tensor) -> Tensor:
        """The values in memory order, one row; a view where the memory is dense."""
        return (x.permute(0, 2, 3, 1) if self.channels_last else x).reshape(-1)

    def unflatten(self, row: Tensor) -> Tensor:
        """The inverse of :meth:`flatten`, a view of ``row``."""
        if not self.channels_last:
            return row.view(self.shape)
        n, c, h, w = self.shape
        return row.view(n, h, w, c).permute(0, 3, 1, 2)

    def pack_bits(self, mask: Tensor) -> Tensor:
        """One bit per value of ``mask`` (bool, or uint8 of which every value but 0 is 1)."""
        return pack_bits(self.flatten(mask))

    def unpack_bits(self, bits: Tensor) -> Tensor:
        """0 and 1 as uint8, in the tensor's shape."""
        return self.unflatten(unpack_bits(bits, self.shape.numel()))


def pack_bits(row: Tensor) -> Tensor:
    """A row of n booleans (or uint8: every value but 0 is 1) to ceil(n / 8) bytes."""
    if row.device.type == "cpu":
        return torch.from_numpy(np.packbits(row.numpy()))
    row = torch.nn.functional.pad(row != 0, (0, -len(row) % 8)).view(-1, 8)
    return (row.to(torch.uint8) << _places(row.device)).sum(1, dtype=torch.uint8)


def unpack_bits(bits: Tensor, count: int) -> Tensor:
    """The first ``count`` bits as uint8 zeros and ones."""
    if bits.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(bits.numpy(), count=count))
    return ((bits[:, None] >> _places(bits.device)) & 1).view(-1)[:count]


def _places(device: torch.device) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)


def pack_codes(row: Tensor, bits: int) -> Tensor:
    """A row of n codes (uint8, below 2^bits) to ceil(n * bits / 8) bytes; ``bits`` divides 8."""
    if bits == 1:
        return pack_bits(row)
    per_byte = 8 // bits
    row = torch.nn.functional.pad(row, (0, -len(row) % per_byte)).view(-1, per_byte)
    packed = row[:, 0].clone()
    for place in range(1, per_byte):
        packed |= row[:, place] << (bits * place)
    return packed


def unpack_codes(packed: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of :func:`pack_codes`, uint8."""
    if bits == 1:
        return unpack_bits(packed, count)
    places = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> places) & (2**bits - 1)).view(-1)[:count]


@dataclass(frozen=True)
class PackedSlopes:
    """Slopes kept as a mask, and where they are not 0 in as many bits as they need.

    None where all of them are 1, 24 where they are multiples of 2^-23 up to 2 (those of ApproxSign in
    float32), else those of their dtype.
    """

    layout: Layout
    dtype: torch.dtype

    @classmethod
    def of(cls, ctx, slopes: Tensor) -> PackedSlopes:
        """Save ``slopes`` in ``ctx``."""
        layout = Layout.of(slopes)
        row = layout.flatten(slopes)
        inside = row != 0
        kept = row[inside]
        if bool((kept == 1).all()):
            kept = kept[:0]
        elif kept.dtype == torch.float32 and sys.byteorder == "little":
            codes = kept * 2**23
            # Minus one, so that the slope 2 fits in 24 bits; 0 is what the mask says.
            whole = codes.sub_(1).to(torch.int32)
            if bool(((whole == codes) & (whole >= 0) & (whole < 2**24)).all()):
                kept = whole.view(torch.uint8).view(-1, 4)[:, :3].contiguous()
        ctx.save_for_backward(pack_bits(inside), kept)
        return cls(layout, slopes.dtype)

    def unpack(self, mask: Tensor, kept: Tensor) -> Tensor:
        """The slopes in the shape of the tensor that they were taken at."""
        inside = unpack_bits(mask, self.layout.shape.numel()).view(torch.bool)
        row = inside.to(self.dtype)
        if kept.dtype == torch.uint8:
            wide = torch.zeros(len(kept), 4, dtype=torch.uint8, device=kept.device)
            wide[:, :3] = kept
            kept = wide.view(torch.int32).view(-1).add_(1).float().mul_(2**-23)
        if len(kept):
            row[inside] = kept
        return self.layout.unflatten(row)
