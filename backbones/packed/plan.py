"""A network as a flat list of compiled steps over memory that is laid out once.

:class:`Builder` takes the steps in their order and gives out maps; :meth:`Builder.finish` lays them out: maps whose
lifetimes do not overlap share memory, constants lie in one piece, and every step becomes a row of integers.
:class:`Plan` runs them in one compiled call. Nothing here knows torch.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from onebit.backbones.packed import engine
from onebit.backbones.packed.geometry import Geometry, valid_taps
from onebit.commons.errors import InputError

#: Memory begins at multiples of so many bytes: a cache line, and the widest vector.
ALIGNMENT = 64
#: A row of fewer outputs than this is divided by channels too, so that several threads have something to do.
_FEW_ROWS = 16
#: The pieces of memory that every plan has; its inputs and outputs follow.
_ARENA, _CONSTANTS, _KEPT, _OUTSIDE = range(4)


@dataclass(eq=False)
class Buffer:
    """A piece of memory whose place is found when the plan is laid out.

    Attributes:
        piece: in which of a plan's pieces it lies.
        size: in bytes.
        first, last: the steps between which it is in use.
        content: what is in it from the start, of constants and of what is kept from run to run.
    """

    piece: int
    size: int
    first: int = -1
    last: int = -1
    content: np.ndarray | None = None
    offset: int = 0


@dataclass(eq=False)
class Map:
    """A feature map [n, height, width, channels], float32, in a buffer.

    Attributes:
        offset: of its first element, in elements.
        image, row, pixel: how far apart images, rows and positions lie, in elements.
        flat: without height and width, [n, channels].
    """

    buffer: Buffer
    n: int
    height: int
    width: int
    channels: int
    image: int
    row: int
    pixel: int
    offset: int = 0
    flat: bool = False
    views: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    def view(self, channels: int, offset: int) -> Map:
        """Some of its channels."""
        self.views += 1
        strides = (self.image, self.row, self.pixel)
        return Map(self.buffer, self.n, *self.size, channels, *strides, self.offset + offset)

    def every(self, stride: int, start: int) -> Map:
        """Every ``stride``-th row and column from ``start`` on."""
        self.views += 1
        height, width = (max(0, -(-(size - start) // stride)) for size in self.size)
        at = self.offset + start * (self.row + self.pixel)
        strides = (self.image, self.row * stride, self.pixel * stride)
        return Map(self.buffer, self.n, height, width, self.channels, *strides, at)

    def region(self, top: int, left: int, height: int, width: int) -> Map:
        """Some of its positions."""
        self.views += 1
        at = self.offset + top * self.row + left * self.pixel
        return Map(self.buffer, self.n, height, width, self.channels, self.image, self.row, self.pixel, at)


class Together:
    """A map that will hold ``count`` maps of equal size side by side; the first that is computed says how large."""

    whole: Map

    def __init__(self, count: int) -> None:
        self.count = count

    def part(self, number: int) -> Part:
        return Part(self, number)


class Part(NamedTuple):
    """One of the maps of a :class:`Together`."""

    together: Together
    number: int

    def map(self, builder: Builder, shape: tuple[int, int, int, int]) -> Map:
        n, height, width, channels = shape
        if not hasattr(self.together, "whole"):
            self.together.whole = builder.new(n, height, width, self.together.count * channels)
        return self.together.whole.view(channels, self.number * channels)


#: Where a step writes: to a map, to a part of one that has no size yet, or to a new one.
Into = Map | Part | None


@dataclass(eq=False)
class Signs:
    """Packed signs with their border, [n, height, width, per_pixel] words; ``inside`` is the map's first word."""

    buffer: Buffer
    image: int
    row: int
    per_pixel: int
    inside: int


class Norm(NamedTuple):
    """``PReLU(scale * sum + shift; slope) + after`` per channel; None is 1, 0, 1 and 0."""

    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    slope: np.ndarray | None = None
    after: np.ndarray | None = None


#: Leaves sums as they are.
PLAIN = Norm()


@dataclass(eq=False)
class Step:
    """One step before it is laid out: see :class:`onebit.backbones.packed.kernels.Field`.

    Attributes:
        fields: integers; buffers, which stand for their address; constants.
        bit_macs, float_macs: see :class:`Line`.
    """

    kind: int
    name: str
    out: Map
    src: Map | Signs | None = None
    stride: tuple[int, int] = (1, 1)
    around: Map | None = None
    post: Map | None = None
    signs: Signs | None = None
    norm: Norm = PLAIN
    fields: dict[int, Any] = field(default_factory=dict)
    groups: int = 1
    bit_macs: int = 0
    float_macs: int = 0
    scratch: int = 0


class Builder:
    """Collects the steps of a plan.

    Operations take and give :class:`Map`; with ``into`` they write there instead of to a new map, and with ``add`` they
    add to what is there. Arrays are float32 unless said otherwise, and are kept as they are: one that is given twice
    is stored once.
    """

    def __init__(self) -> None:
        self.kernels = engine.kernels()
        self.steps: list[Step] = []
        self.inputs: list[Buffer] = []
        self.name = ""
        self._constants: dict[int, tuple[np.ndarray, Buffer]] = {}
        self._filled: dict[tuple[float, int], np.ndarray] = {}
        self._kept: list[Buffer] = []
        self._arena: list[Buffer] = []
        self._maker: dict[int, Step] = {}

    # Memory

    def constant(self, array: np.ndarray) -> Buffer:
        if id(array) not in self._constants:
            content = np.ascontiguousarray(array)
            self._constants[id(array)] = array, Buffer(_CONSTANTS, content.nbytes, content=content)
        return self._constants[id(array)][1]

    def filled(self, value: float, size: int) -> Buffer:
        """A constant of so many equal floats."""
        if (value, size) not in self._filled:
            self._filled[value, size] = np.full(size, value, np.float32)
        return self.constant(self._filled[value, size])

    def vector(self, array: np.ndarray | None, default: float, size: int) -> Buffer:
        return self.filled(default, size) if array is None else self.constant(array)

    def new(self, n: int, height: int, width: int, channels: int) -> Map:
        """Room for a map."""
        buffer = Buffer(_ARENA, 4 * n * height * width * channels)
        self._arena.append(buffer)
        row = width * channels
        return Map(buffer, n, height, width, channels, height * row, row, channels)

    def _keep(self, content: np.ndarray) -> Buffer:
        self._kept.append(Buffer(_KEPT, content.nbytes, content=content))
        return self._kept[-1]

    def _add(self, step: Step) -> Map:
        for used in (step.src, step.around, step.post):
            if used is not None:
                used.buffer.last = len(self.steps)
        for made in (step.out, step.signs):
            if made is not None:
                made.buffer.first = len(self.steps) if made.buffer.first < 0 else made.buffer.first
                made.buffer.last = len(self.steps)
        step.name = self.name
        self.steps.append(step)
        self._maker[id(step.out)] = step
        return step.out

    def _out(self, into: Into, add: bool, shape: tuple[int, int, int, int]) -> dict[str, Any]:
        """``out`` and ``post`` of a step."""
        out = self.room(into, shape)
        return dict(out=out, post=out if add and into is not None else None)

    def room(self, into: Into, shape: tuple[int, int, int, int]) -> Map:
        """``into`` as a map, or a new one where there is none."""
        if into is None:
            return self.new(*shape)
        found = into.map(self, shape) if isinstance(into, Part) else into
        if (found.n, *found.size, found.channels) != shape:
            raise InputError(f"a map of {shape} does not fit one of {(found.n, *found.size, found.channels)}")
        return found

    # Operations

    def input(self, shape: Sequence[int], strides: Sequence[int]) -> Map:
        """An image [n, channels, height, width] with strides in elements, as a map."""
        n, channels, height, width = shape
        buffer = Buffer(_OUTSIDE, 0)
        self.inputs.append(buffer)
        outside = Map(buffer, n, height, width, channels, strides[0], strides[2], strides[3])
        step = Step(self.kernels.Kind.LOAD, "", self.new(n, height, width, channels), outside)
        step.fields[self.kernels.Field.SRC_CHANNEL] = strides[1]
        return self._add(step)

    def pointwise(
        self, x: Map, norm: Norm = PLAIN, around: Map | None = None, into: Into = None, add: bool = False
    ) -> Map:
        """``norm`` of a map, with ``around`` added before its PReLU."""
        places = self._out(into, add, (x.n, *x.size, x.channels))
        return self._add(Step(self.kernels.Kind.POINTWISE, "", src=x, norm=norm, around=around, **places))

    def activate(self, x: Map, norm: Norm, inplace: bool) -> Map:
        """An activation; one in place is part of the step before it, whose output nobody else has seen."""
        maker = self._maker.get(id(x))
        if (
            inplace
            and maker is self.steps[-1]
            and maker.kind in self._finishing()
            and (maker.norm.slope, maker.norm.after, maker.post, maker.signs, x.views) == (None, None, None, None, 0)
        ):
            maker.norm = maker.norm._replace(slope=norm.slope)
            return x
        return self.pointwise(x, norm)

    def _finishing(self) -> tuple[int, ...]:
        """The kinds of steps that can put out signs too."""
        kinds = self.kernels.Kind
        return kinds.POINTWISE, kinds.CONV_BITS, kinds.CONV_FLOATS

    def clamp(self, x: Map, low: float, high: float) -> Map:
        """Each value, or the bound that it is beyond."""
        return self._elementwise(self.kernels.Kind.CLAMP, x, (low, high))

    def choose(self, x: Map, threshold: np.ndarray | None, below: float, above: float) -> Map:
        """``above`` where x is above its channel's threshold, else ``below``."""
        step = {self.kernels.Field.THRESHOLD: self.vector(threshold, 0, x.channels)}
        return self._elementwise(self.kernels.Kind.CHOOSE, x, (below, above), step)

    def multiply(self, x: Map, other: Map) -> Map:
        return self._elementwise(self.kernels.Kind.MULTIPLY, x, (0, 0), around=other)

    def _elementwise(
        self, kind: int, x: Map, bounds: tuple[float, float], fields: dict | None = None, around: Map | None = None
    ) -> Map:
        step = Step(kind, "", src=x, around=around, out=self.new(x.n, *x.size, x.channels), fields=dict(fields or {}))
        step.fields[self.kernels.Field.SCALE] = self.constant(np.array(bounds, np.float32))
        return self._add(step)

    def concatenate(self, maps: Sequence[Map]) -> Map:
        """Maps of equal size, their channels side by side."""
        first = maps[0]
        out = self.new(first.n, *first.size, sum(each.channels for each in maps))
        start = 0
        for each in maps:
            self.pointwise(each, into=out.view(each.channels, start))
            start += each.channels
        return out

    def extended(self, x: Map, height: int, width: int) -> Map:
        """``x`` with zeros below and at the right, as high and wide as said."""
        out = self.broadcast(np.zeros(x.channels, np.float32), x.n, height, width)
        if x.height and x.width:
            self.pointwise(x, into=out.region(0, 0, *x.size))
        del self._maker[id(out)]  # what it wrote is not all that is in it
        return out

    def depthwise(
        self,
        x: Map,
        weights: np.ndarray,
        window: tuple[tuple[int, int], ...],
        fill: float = 0.0,
        into: Into = None,
        add: bool = False,
    ) -> Map:
        """A depthwise convolution of real values.

        Args:
            weights: [taps, channels].
            window: kernel, stride, padding and dilation.
            fill: what the border holds.
        """
        fields = self.kernels.Field
        kernel, stride, padding, dilation = window
        size = [(x.size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
        if min(size) < 1:
            raise InputError(f"a map of {x.height}x{x.width} is too small for this convolution")
        inside = (valid_taps(kernel[i], dilation[i], stride[i], padding[i], x.size[i], size[i]) for i in range(2))
        if fill or not all(taps.any(1).all() for taps in inside):  # the loop over taps takes one at least
            x, padding = self.padded(x, padding, fill), (0, 0)
        channels = x.channels
        step = Step(self.kernels.Kind.DEPTHWISE, "", src=x, **self._out(into, add, (x.n, size[0], size[1], channels)))
        step.float_macs = x.n * size[0] * size[1] * channels * len(weights)
        step.scratch = 4 * size[1] * channels + 8 + 16 * len(weights)
        step.fields |= _window(fields, x, (kernel, stride, padding, dilation)) | {
            fields.INNER: channels,
            fields.DEPTHWISE: self.constant(weights),
            fields.DEPTHWISE_SHIFT: self.filled(0, channels),
            fields.DEPTHWISE_SLOPE: self.filled(1, channels),
            fields.DEPTHWISE_ROW_CLASS: self.constant(np.zeros(max(size), np.int64)),
            fields.DEPTHWISE_COLUMN_CLASS: self.constant(np.zeros(max(size), np.int64)),
        }
        return self._add(step)

    def broadcast(
        self, values: np.ndarray, n: int, height: int, width: int, into: Into = None, add: bool = False
    ) -> Map:
        """A map that has the same ``values`` [channels] everywhere."""
        channels = len(values)
        return self.pointwise(Map(self.constant(values), n, height, width, channels, 0, 0, 0), into=into, add=add)

    def fixed(self, values: np.ndarray, n: int) -> Map:
        """The same map [height, width, channels] for every image."""
        height, width, channels = values.shape
        return Map(self.constant(values), n, height, width, channels, 0, width * channels, channels)

    def signs(self, x: Map, place: Geometry, in_scale: np.ndarray | None, threshold: np.ndarray | None) -> Signs:
        """The packed signs of ``in_scale * x - threshold``, with the border of ``place``."""
        (top, left), (height, width) = place.border, place.padded
        content = np.empty((x.n, height, width, place.per_pixel), np.uint64)
        content[:] = place.fill
        content[:, top : height - top, left : width - left] = 0
        row = width * place.per_pixel
        signs = Signs(self._keep(content), height * row, row, place.per_pixel, top * row + left * place.per_pixel)
        maker = step = self._maker.get(id(x))
        if maker is None or maker.kind not in self._finishing() or maker.signs is not None:
            step = Step(self.kernels.Kind.PACK, "", x, x)
            step.fields[self.kernels.Field.INNER] = x.channels
            self._add(step)
            self._maker[id(x)] = maker or step
        assert step is not None
        step.signs = signs
        step.fields[self.kernels.Field.IN_SCALE] = self.vector(in_scale, 1, x.channels)
        step.fields[self.kernels.Field.THRESHOLD] = self.vector(threshold, 0, x.channels)
        return signs

    def conv_bits(
        self,
        x: Map,
        signs: Signs,
        place: Geometry,
        weights: np.ndarray,
        borders: tuple[np.ndarray, np.ndarray, np.ndarray],
        channels: int,
        stride: tuple[int, int],
        norm: Norm = PLAIN,
        around: Map | None = None,
        into: Into = None,
        add: bool = False,
    ) -> Map:
        """A 1-bit convolution of the ``signs`` of ``x``.

        Args:
            weights: filters, packed, in blocks of ``kernels.BIT_FILTERS``, the last of as many or half as many.
            borders: as :meth:`Geometry.correction`.
        """
        fields = self.kernels.Field
        row_class, column_class, table = borders
        places = self._out(into, add, (x.n, *place.out_size, channels))
        step = Step(self.kernels.Kind.CONV_BITS, "", src=signs, norm=norm, around=around, stride=stride, **places)
        step.fields |= {
            fields.WEIGHTS: self.constant(weights),
            fields.OFFSETS: self.constant(place.offsets),
            fields.SEGMENTS: len(place.offsets),
            fields.LENGTH: place.length,
            fields.TOTAL: place.total,
            fields.FILTERS: len(weights) // (len(place.offsets) * place.length),
            fields.ROW_CLASS: self.constant(row_class),
            fields.COLUMN_CLASS: self.constant(column_class),
            fields.BORDERS: self.constant(table),
            fields.COLUMN_CLASSES: table.shape[1],
        }
        self._size_conv(step, place.total)
        return self._add(step)

    def conv_floats(
        self,
        x: Map,
        weights: np.ndarray,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        channels: int,
        norm: Norm = PLAIN,
        fill: float = 0.0,
        around: Map | None = None,
        into: Into = None,
        add: bool = False,
    ) -> Map:
        """A real-valued convolution.

        Args:
            weights: filters in blocks [rows * columns * channels of x, ``kernels.FLOAT_FILTERS``].
            fill: what the border holds.
        """
        fields = self.kernels.Field
        reach = [dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
        size = [(x.size[i] + 2 * padding[i] - reach[i]) // stride[i] + 1 for i in range(2)]
        if min(size) < 1:
            raise InputError(f"a map of {x.height}x{x.width} is too small for this convolution")
        outer = self.padded(x, padding, fill) if any(padding) else x
        taps = kernel[0] * kernel[1] * x.channels
        together = dilation[1] == 1 and outer.pixel == x.channels  # the taps of a row are neighbours
        starts = [
            i * dilation[0] * outer.row + j * dilation[1] * outer.pixel
            for i in range(kernel[0])
            for j in range(1 if together else kernel[1])
        ]
        places = self._out(into, add, (x.n, size[0], size[1], channels))
        step = Step(self.kernels.Kind.CONV_FLOATS, "", src=outer, norm=norm, around=around, stride=stride, **places)
        step.fields |= {
            fields.WEIGHTS: self.constant(weights),
            fields.OFFSETS: self.constant(np.array(starts, np.int64)),
            fields.SEGMENTS: len(starts),
            fields.LENGTH: (kernel[1] if together else 1) * x.channels,
            fields.FILTERS: len(weights) // taps,
        }
        self._size_conv(step, taps)
        return self._add(step)

    def _size_conv(self, step: Step, taps: int) -> None:
        out = step.out
        step.scratch = 4 * out.width * step.fields[self.kernels.Field.FILTERS]
        macs = out.n * out.height * out.width * out.channels * taps
        if step.kind == self.kernels.Kind.CONV_BITS:
            step.bit_macs = macs
        else:
            step.float_macs = macs
        if out.n * out.height < _FEW_ROWS and out.channels >= 128:
            step.groups = min(4, out.channels // 64)

    def padded(self, x: Map, padding: tuple[int, int], fill: float) -> Map:
        """``x`` with a border around it."""
        (top, left), (height, width) = padding, x.size
        shape = (x.n, height + 2 * top, width + 2 * left, x.channels)
        buffer = self._keep(np.full(shape, fill, np.float32))
        row = shape[2] * x.channels
        outer = Map(buffer, *shape, shape[1] * row, row, x.channels)
        at = top * row + left * x.channels
        if id(x) in self._maker and x.buffer in self._arena and not x.views:
            self._arena.remove(x.buffer)  # it is written into the border at once
            x.buffer, x.offset, x.image, x.row = buffer, at, outer.image, outer.row
            return outer
        inside = Map(buffer, x.n, height, width, x.channels, outer.image, row, x.channels, at)
        self.pointwise(x, into=inside)
        return outer

    def pool(
        self,
        x: Map,
        largest: bool,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        size: tuple[int, int],
        scale: np.ndarray | None = None,
        shift: np.ndarray | None = None,
        into: Into = None,
        add: bool = False,
    ) -> Map:
        """Largest value or mean of what lies inside the map, then scale and shift; ``size`` is the output's."""
        fields = self.kernels.Field
        places = self._out(into, add, (x.n, *size, x.channels))
        step = Step(self.kernels.Kind.POOL, "", src=x, norm=Norm(scale, shift), **places)
        step.scratch = 8 * kernel[0] * kernel[1]
        step.fields |= _window(fields, x, (kernel, stride, padding, (1, 1))) | {fields.LARGEST: int(largest)}
        return self._add(step)

    def separable(
        self,
        x: Map,
        size: tuple[int, int],
        window: tuple[tuple[int, int], ...],
        depthwise: dict[str, np.ndarray],
        weights: np.ndarray,
        signs: tuple[np.ndarray | None, np.ndarray | None],
        channels: int,
        norm: Norm,
        around: Map | None,
        into: Into = None,
        add: bool = False,
    ) -> Map:
        """A depthwise convolution of real values, PReLU, sign, and a 1x1 1-bit convolution.

        Args:
            size: of the output.
            window: kernel, stride, padding and dilation.
            depthwise: ``weights`` [taps, channels], ``slope``, and ``shift``, ``row_class`` and ``column_class``: what
                is added to the sums of each class of rows and of columns.
            weights: as of :meth:`conv_bits`.
            signs: in_scale and threshold.
        """
        fields = self.kernels.Field
        per_pixel = -(-x.channels // 64)
        filters = len(weights) // per_pixel
        classes = np.zeros(max(size), np.int64)
        places = self._out(into, add, (x.n, *size, channels))
        step = Step(self.kernels.Kind.SEPARABLE, "", src=x, norm=norm, around=around, **places)
        taps = window[0][0] * window[0][1]
        step.scratch = 8 * size[1] * per_pixel + 4 * size[1] * (filters + x.channels) + 8 + 16 * taps
        step.float_macs = x.n * size[0] * size[1] * x.channels * taps
        step.bit_macs = x.n * size[0] * size[1] * x.channels * channels
        step.fields |= _window(fields, x, window) | {
            fields.INNER: x.channels,
            fields.DEPTHWISE: self.constant(depthwise["weights"]),
            fields.DEPTHWISE_SHIFT: self.constant(depthwise["shift"]),
            fields.DEPTHWISE_SLOPE: self.constant(depthwise["slope"]),
            fields.DEPTHWISE_ROW_CLASS: self.constant(depthwise["row_class"]),
            fields.DEPTHWISE_COLUMN_CLASS: self.constant(depthwise["column_class"]),
            fields.DEPTHWISE_COLUMN_CLASSES: depthwise["shift"].shape[1],
            fields.IN_SCALE: self.vector(signs[0], 1, x.channels),
            fields.THRESHOLD: self.vector(signs[1], 0, x.channels),
            fields.SIGNS_PIXEL: per_pixel,
            fields.WEIGHTS: self.constant(weights),
            fields.OFFSETS: self.constant(np.zeros(1, np.int64)),
            fields.FILTERS: filters,
            fields.TOTAL: x.channels,
            fields.ROW_CLASS: self.constant(classes),
            fields.COLUMN_CLASS: self.constant(classes),
            fields.BORDERS: self.constant(np.zeros(filters, np.int32)),
            fields.COLUMN_CLASSES: 1,
        }
        return self._add(step)

    def project(
        self,
        x: Map,
        in_scale: np.ndarray,
        codes: np.ndarray,
        channels: int,
        norm: Norm,
        into: Into = None,
        add: bool = False,
    ) -> Map:
        """A 1x1 convolution of 1-bit weights with real values; ``codes`` [channels of x / 4, filters], uint8."""
        fields = self.kernels.Field
        places = self._out(into, add, (x.n, *x.size, channels))
        step = Step(self.kernels.Kind.PROJECT, "", src=x, norm=norm, **places)
        step.fields |= {
            fields.WEIGHTS: self.constant(codes),
            fields.LENGTH: len(codes),
            fields.FILTERS: codes.shape[1],
            fields.IN_SCALE: self.constant(in_scale),
        }
        step.scratch = 4 * (4 * self.kernels._GROUPS * 16 + x.width * codes.shape[1])
        step.float_macs = x.n * x.height * x.width * x.channels * channels
        return self._add(step)

    # Layout

    def finish(self, outputs: Sequence[Map]) -> Plan:
        """Lay the plan out; its outputs are maps of its own."""
        found: list[Map] = []
        for each in outputs:
            buffer = each.buffer
            plain = buffer.piece == _ARENA and each.image * each.n * 4 == buffer.size and each.pixel == each.channels
            if not plain or any(buffer is other.buffer for other in found):
                each = self.pointwise(each)
            self._arena.remove(each.buffer)
            each.buffer.piece = _OUTSIDE
            found.append(each)
        outside = [*self.inputs, *(each.buffer for each in found)]
        for number, buffer in enumerate(outside):
            buffer.piece = _OUTSIDE + number
        _share_memory(self._arena)
        # Of constants, some are made here.
        rows = [self._row(step) for step in self.steps]
        constants = [buffer for _, buffer in self._constants.values()]
        kernels = self.kernels
        table = np.zeros((len(rows), kernels.FIELDS), np.int64)
        contents = [_piece(constants), _piece(self._kept)]
        for line, row in zip(table, rows, strict=True):
            for key, value in row.items():
                line[key] = _encoded(*value) if isinstance(value, tuple) else value
        arena = max((buffer.offset + buffer.size for buffer in self._arena), default=0)
        scratch = max((step.scratch for step in self.steps), default=0)
        shapes: list[tuple[int, ...]] = [
            (m.n, m.channels) if m.flat else (m.n, m.height, m.width, m.channels) for m in found
        ]
        tasks = int(table[:, kernels.Field.TASKS].max())
        lines = []
        for step in self.steps:
            shape = (*step.out.size, step.out.channels)
            lines.append(Line(step.name, kernels.Kind(step.kind).name.lower(), shape, step.bit_macs, step.float_macs))
        return Plan(table, contents[0], contents[1], arena, scratch, shapes, tasks, lines)

    def _row(self, step: Step) -> dict[int, Any]:
        """The integers of a step; an address is a buffer and bytes into it."""
        f, out, src = self.kernels.Field, step.out, step.src
        tasks = out.n * out.height * step.groups
        row: dict[int, Any] = {f.KIND: step.kind, f.TASKS: tasks, f.GROUPS: step.groups}
        row |= {f.HEIGHT: out.height, f.WIDTH: out.width, f.CHANNELS: out.channels}
        row |= {f.SIGNED: int(step.signs is not None)}
        down, across = step.stride
        if isinstance(src, Signs):
            row |= {f.SRC: (src.buffer, 0), f.SRC_IMAGE: src.image}
            row |= {f.SRC_ROW: src.row * down, f.SRC_PIXEL: src.per_pixel * across}
        elif src is not None:
            row |= {f.SRC: (src.buffer, 4 * src.offset), f.SRC_IMAGE: src.image}
            row |= {f.SRC_ROW: src.row * down, f.SRC_PIXEL: src.pixel * across}
        zeros = (self.filled(0, out.channels), 0)
        for name, other in (("AROUND", step.around), ("POST", step.post), ("OUT", out)):
            row[f[name]] = zeros
            if other is not None:
                row[f[name]] = (other.buffer, 4 * other.offset)
                row |= {f[f"{name}_IMAGE"]: other.image, f[f"{name}_ROW"]: other.row, f[f"{name}_PIXEL"]: other.pixel}
        for name, default in (("SCALE", 1), ("SHIFT", 0), ("SLOPE", 1), ("AFTER", 0)):
            row[f[name]] = (self.vector(getattr(step.norm, name.lower()), default, out.channels), 0)
        row |= {f.BORDERS: zeros, f.IN_SCALE: zeros, f.THRESHOLD: zeros, f.SIGNS: zeros}
        if step.signs is not None:
            signs = step.signs
            row |= {f.SIGNS: (signs.buffer, 8 * signs.inside), f.SIGNS_IMAGE: signs.image}
            row |= {f.SIGNS_ROW: signs.row, f.SIGNS_PIXEL: signs.per_pixel}
        row |= {key: (value, 0) if isinstance(value, Buffer) else value for key, value in step.fields.items()}
        return row


def _window(fields: Any, x: Map, window: Sequence[tuple[int, int]]) -> dict[int, int]:
    names = ("KERNEL", "STRIDE", "PAD", "DILATION")
    found = {fields.SRC_HEIGHT: x.height, fields.SRC_WIDTH: x.width}
    for name, (y, x_) in zip(names, window, strict=True):
        found |= {fields[f"{name}_Y"]: y, fields[f"{name}_X"]: x_}
    return found


def _encoded(buffer: Buffer, offset: int) -> int:
    return buffer.piece << engine.kernels().OFFSET_BITS | buffer.offset + offset


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _share_memory(buffers: list[Buffer]) -> None:
    """Give buffers whose lifetimes do not overlap the same place, large ones first."""
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda each: -each.size):
        taken = [b for b in placed if b.first <= buffer.last and buffer.first <= b.last]
        buffer.offset = 0
        for other in sorted(taken, key=lambda each: each.offset):
            if buffer.offset + buffer.size <= other.offset:
                break
            buffer.offset = max(buffer.offset, _aligned(other.offset + other.size))
        placed.append(buffer)


def _piece(buffers: Sequence[Buffer]) -> np.ndarray:
    """One piece of memory with the contents of ``buffers``, whose offsets are set."""
    size = 0
    for buffer in buffers:
        buffer.offset, size = size, _aligned(size + buffer.size)
    memory = aligned_memory(size + ALIGNMENT)
    for buffer in buffers:
        assert buffer.content is not None
        memory[buffer.offset : buffer.offset + buffer.size] = buffer.content.reshape(-1).view(np.uint8)
    return memory


def aligned_memory(size: int) -> np.ndarray:
    """``size`` bytes, zero, that begin at a multiple of :data:`ALIGNMENT`."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


@dataclass(frozen=True)
class Line:
    """A step as people read it.

    Attributes:
        name: of the layer.
        kernel: what computes it.
        shape: of its output, (height, width, channels).
        bit_macs, float_macs: multiply-accumulates of one run, with two 1-bit operands and with others.
        milliseconds: median of one run, where it was measured.
    """

    name: str
    kernel: str
    shape: tuple[int, int, int]
    bit_macs: int
    float_macs: int
    milliseconds: float | None = None


def peaks(threads: int = 1, repeat: int = 50) -> tuple[float, float]:
    """Multiply-accumulates per second of the innermost loops on operands in the first cache: bits, and floats.

    They bound what a step can reach; table lookups can go beyond the second.
    """
    kernels = engine.kernels()
    pixels, words, taps = 64 * kernels.PIXELS, 9, 64
    found = []
    for loop, filters, length, lanes, size in (
        (kernels._sums_of_bits, kernels.BIT_FILTERS, words, 64, 8),
        (kernels._sums_of_floats, kernels.FLOAT_FILTERS, taps, 1, 4),
    ):
        source, weights = aligned_memory(size * length), aligned_memory(size * length * filters)
        sums, offsets = aligned_memory(4 * pixels * filters), np.zeros(1, np.int64)
        # Every position reads the same words.
        places = [each.ctypes.data for each in (weights, offsets, sums)]
        times = []
        for _ in range(repeat):
            before = time.perf_counter()
            loop(source.ctypes.data, 0, places[0], places[1], 1, length, places[2], filters, 0, filters, pixels)
            times.append(time.perf_counter() - before)
        found.append(threads * pixels * filters * length * lanes / float(np.median(times)))
    return found[0], found[1]


class Plan:
    """The steps of a network for inputs of one shape, and their memory.

    Args:
        steps: [steps, fields].
        constants, kept: pieces of memory with what is in them.
        arena, scratch: bytes of the maps, and of what each thread needs for itself.
        shapes: of the outputs: [n, height, width, channels], or [n, channels].
        tasks: the most that a step divides into: more threads have nothing to do.
        lines: what the steps are.
    """

    def __init__(
        self,
        steps: np.ndarray,
        constants: np.ndarray,
        kept: np.ndarray,
        arena: int,
        scratch: int,
        shapes: list[tuple[int, ...]],
        tasks: int,
        lines: list[Line],
    ) -> None:
        self.shapes, self.lines = shapes, lines
        self._steps, self._tasks = steps, tasks
        self._pieces = (aligned_memory(arena), constants, kept)
        self._scratch_size = _aligned(scratch + ALIGNMENT)
        self._scratch = aligned_memory(self._scratch_size)
        self._counter = np.zeros(8, np.int64)
        self._addresses = np.array(engine.kernels().ADDRESSES, np.int64)
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Memory of the plan: maps, constants and what is kept."""
        return sum(piece.nbytes for piece in self._pieces) + self._scratch.nbytes + self._steps.nbytes

    def run(self, addresses: Sequence[int], threads: int = 1) -> None:
        """Compute the outputs.

        Args:
            addresses: of the first elements of the inputs, then of the outputs; float32, outputs contiguous.
        """
        threads = max(1, min(threads, self._tasks))
        with self._lock, engine.first_call():
            self._execute(addresses, 0, len(self._steps), threads)

    def _execute(self, addresses: Sequence[int], first: int, last: int, threads: int) -> None:
        if len(self._scratch) < threads * self._scratch_size:
            self._scratch = aligned_memory(threads * self._scratch_size)
        memory = np.array([*(piece.ctypes.data for piece in self._pieces), *addresses], np.int64)
        self._counter[0] = 0
        counter, scratch = self._counter.ctypes.data, self._scratch.ctypes.data

        def execute(thread: int) -> None:
            own = scratch + thread * self._scratch_size
            steps = (self._steps, self._addresses, first, last)
            engine.kernels().execute(*steps, memory, own, counter, thread, threads)

        jobs = [_pool(threads).submit(execute, thread) for thread in range(1, threads)]
        execute(0)
        for job in jobs:
            job.result()

    def timed(self, addresses: Sequence[int], threads: int = 1, repeat: int = 20) -> list[Line]:
        """The steps with the median time of each, measured one by one."""
        spent: list[list[float]] = [[] for _ in self.lines]
        for _ in range(repeat):
            for number, times in enumerate(spent):
                with self._lock:
                    before = time.perf_counter()
                    self._execute(addresses, number, number + 1, threads)
                    times.append(1e3 * (time.perf_counter() - before))
        return [
            replace(line, milliseconds=float(np.median(times))) for line, times in zip(self.lines, spent, strict=True)
        ]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="packed")
