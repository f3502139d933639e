"""Sizes and borders of packed convolutions."""

from __future__ import annotations

import itertools
from typing import Protocol

import numpy as np

from onebit.backbones.conv import pair
from onebit.backbones.packed.bits import words_for
from onebit.commons.errors import InputError
from onebit.packed.recipes import borders, classes_of, made, valid_taps


class ConvShape(Protocol):
    """What a convolution's sizes follow from; a :class:`onebit.backbones.packed.layers.PackedConv` has it."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    pad_value: int

    @property
    def ready(self) -> np.ndarray:
        """Its weights as the kernels take them, in blocks."""

    def array(self, name: str) -> np.ndarray | None:
        """A buffer of it, such as its ``bits``."""


class Geometry:
    """Sizes and borders of one packed convolution on maps of one size."""

    def __init__(self, conv: ConvShape, height: int, width: int) -> None:
        top, left = conv.padding
        (rows, columns), (dilate_y, dilate_x) = conv.kernel_size, conv.dilation
        self.size, self.border = (height, width), (top, left)
        self.padded = (height + 2 * top, width + 2 * left)
        self.per_pixel = words_for(conv.in_channels)
        reach = (dilate_y * (rows - 1) + 1, dilate_x * (columns - 1) + 1)
        self.out_size = pair((self.padded[i] - reach[i]) // conv.stride[i] + 1 for i in range(2))
        if min(self.out_size) < 1:
            raise InputError(f"a map of {height}x{width} is too small for this convolution")
        self.total = rows * columns * conv.in_channels
        row = self.padded[1] * self.per_pixel
        if dilate_x == 1:  # the taps of one row of the kernel are neighbours
            starts = [y * dilate_y * row for y in range(rows)]
            self.length = columns * self.per_pixel
        else:
            starts = [y * dilate_y * row + x * dilate_x * self.per_pixel for y in range(rows) for x in range(columns)]
            self.length = self.per_pixel
        self.offsets = np.array(starts, np.int64)
        self.valid = (
            valid_taps(rows, dilate_y, conv.stride[0], top, height, self.out_size[0]),
            valid_taps(columns, dilate_x, conv.stride[1], left, width, self.out_size[1]),
        )
        self.fill = np.zeros(self.per_pixel, np.uint64)
        if conv.pad_value == 1:
            ones = np.arange(self.per_pixel * 64) < conv.in_channels
            self.fill = np.packbits(ones, bitorder="little").view(np.uint64)
        self._correction: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def correction(self, conv: ConvShape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Classes of rows and of columns, and what the border adds in each pair of classes.

        A border of 0 is packed as one of -1, whose products are taken off again here.
        """
        if self._correction is None:
            (row_kinds, rows), (column_kinds, columns) = map(classes_of, self.valid)
            if conv.pad_value == 0 and conv.padding != (0, 0):
                window = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, self.size)
                numbers = (conv.out_channels, conv.in_channels, *itertools.chain(*window))
                table = made(borders, [conv.array("bits")], numbers)
            else:
                filters = len(conv.ready) // (len(self.offsets) * self.length)
                table = np.zeros((len(row_kinds), len(column_kinds), filters), np.int32)
            self._correction = rows, columns, table
        return self._correction
