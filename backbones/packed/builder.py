"""Collects the steps of a network: what each reads and writes, without saying where in memory that lies.

:meth:`Builder.finish` lays the steps out as a :class:`onebit.packed.plan.Plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from onebit.backbones.packed.geometry import Geometry
from onebit.commons.errors import InputError
from onebit.packed import engine
from onebit.packed.plan import ARENA, CONSTANTS, KEPT, OUTSIDE, Buffer, Line, Plan, one_piece, share_memory
from onebit.packed.recipes import valid_taps

#: An output of fewer rows than this is divided by channels too, so that several threads have something to do.
_FEW_ROWS = 16


@dataclass(eq=False)
class Map:
    """A feature map [n, height, width, channels], float32, in a buffer.

    Attributes:
        offset: of its first element, in elements.
        image, row, pixel: how far apart images, rows and positions lie, in elements.
        flat: without height and width, [n, channels].
        fixed: something was laid out by these numbers, so that they stay.
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
    fixed: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def whole(self) -> bool:
        """Whether it fills its buffer, position by position."""
        return self.pixel == self.channels and 4 * self.image * self.n == self.buffer.size

    def view(self, channels: int, offset: int) -> Map:
        """Some of its channels."""
        self.fixed = True
        strides = (self.image, self.row, self.pixel)
        return Map(self.buffer, self.n, *self.size, channels, *strides, self.offset + offset)

    def every(self, stride: int, start: int) -> Map:
        """Every ``stride``-th row and column from ``start`` on."""
        self.fixed = True
        height, width = (max(0, -(-(size - start) // stride)) for size in self.size)
        at = self.offset + start * (self.row + self.pixel)
        strides = (self.image, self.row * stride, self.pixel * stride)
        return Map(self.buffer, self.n, height, width, self.channels, *strides, at)

    def region(self, top: int, left: int, height: int, width: int) -> Map:
        """Some of its positions."""
        self.fixed = True
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
    """One step before it is laid out: see :data:`onebit.packed.kernels.STEP`.

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
    fields: dict[str, Any] = field(default_factory=dict)
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

    @property
    def constants(self) -> list[Buffer]:
        """What the steps read and do not change, with its contents."""
        return [buffer for _, buffer in self._constants.values()]

    def constant(self, array: np.ndarray) -> Buffer:
        if id(array) not in self._constants:
            content = np.ascontiguousarray(array)
            origin = getattr(array, "origin", None)
            self._constants[id(array)] = array, Buffer(CONSTANTS, content.nbytes, content=content, origin=origin)
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
        buffer = Buffer(ARENA, 4 * n * height * width * channels)
        self._arena.append(buffer)
        row = width * channels
        return Map(buffer, n, height, width, channels, height * row, row, channels)

    def _keep(self, content: np.ndarray) -> Buffer:
        self._kept.append(Buffer(KEPT, content.nbytes, content=content))
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
        buffer = Buffer(OUTSIDE, 0)
        self.inputs.append(buffer)
        outside = Map(buffer, n, height, width, channels, strides[0], strides[2], strides[3])
        step = Step(self.kernels.Kind.LOAD, "", self.new(n, height, width, channels), outside)
        step.fields["src_channel"] = strides[1]
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
            and (maker.norm.slope, maker.norm.after, maker.post, maker.signs, x.fixed)
            == (None, None, None, None, False)
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
        return self._elementwise(self.kernels.Kind.CLAMP, x, (low, high)).out

    def choose(self, x: Map, threshold: np.ndarray | None, below: float, above: float) -> Map:
        """``above`` where x is above its channel's threshold, else ``below``."""
        step = self._elementwise(self.kernels.Kind.CHOOSE, x, (below, above))
        step.fields["threshold"] = self.vector(threshold, 0, x.channels)
        return step.out

    def multiply(self, x: Map, other: Map) -> Map:
        return self._elementwise(self.kernels.Kind.MULTIPLY, x, around=other).out

    def _elementwise(self, kind: int, x: Map, bounds: tuple[float, float] = (0, 0), around: Map | None = None) -> Step:
        step = Step(kind, "", src=x, around=around, out=self.new(x.n, *x.size, x.channels))
        step.fields["scale"] = self.constant(np.array(bounds, np.float32))
        self._add(step)
        return step

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
        step.fields |= _window(x, (kernel, stride, padding, dilation)) | {
            "inner": channels,
            "depthwise": self.constant(weights),
            "depthwise_shift": self.filled(0, channels),
            "depthwise_slope": self.filled(1, channels),
            "depthwise_row_class": self.constant(np.zeros(max(size), np.int64)),
            "depthwise_column_class": self.constant(np.zeros(max(size), np.int64)),
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
            step.fields["inner"] = x.channels
            self._add(step)
            self._maker[id(x)] = maker or step
        assert step is not None
        step.signs = signs
        step.fields["in_scale"] = self.vector(in_scale, 1, x.channels)
        step.fields["threshold"] = self.vector(threshold, 0, x.channels)
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
        row_class, column_class, table = borders
        places = self._out(into, add, (x.n, *place.out_size, channels))
        step = Step(self.kernels.Kind.CONV_BITS, "", src=signs, norm=norm, around=around, stride=stride, **places)
        step.fields |= {
            "weights": self.constant(weights),
            "offsets": self.constant(place.offsets),
            "segments": len(place.offsets),
            "length": place.length,
            "total": place.total,
            "filters": len(weights) // (len(place.offsets) * place.length),
            "row_class": self.constant(row_class),
            "column_class": self.constant(column_class),
            "borders": self.constant(table),
            "column_classes": table.shape[1],
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
        outer.fixed |= len(starts) > 1  # they count on its rows
        places = self._out(into, add, (x.n, size[0], size[1], channels))
        step = Step(self.kernels.Kind.CONV_FLOATS, "", src=outer, norm=norm, around=around, stride=stride, **places)
        step.fields |= {
            "weights": self.constant(weights),
            "offsets": self.constant(np.array(starts, np.int64)),
            "segments": len(starts),
            "length": (kernel[1] if together else 1) * x.channels,
            "filters": len(weights) // taps,
        }
        self._size_conv(step, taps)
        return self._add(step)

    def _size_conv(self, step: Step, taps: int) -> None:
        out = step.out
        step.scratch = 4 * out.width * step.fields["filters"]
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
        content = np.full(shape, fill, np.float32)
        content[:, top : top + height, left : left + width] = 0
        buffer = self._keep(content)
        row = shape[2] * x.channels
        outer = Map(buffer, *shape, shape[1] * row, row, x.channels)
        at = top * row + left * x.channels
        if id(x) in self._maker and x.buffer in self._arena and x.whole and not x.fixed:
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
        places = self._out(into, add, (x.n, *size, x.channels))
        step = Step(self.kernels.Kind.POOL, "", src=x, norm=Norm(scale, shift), **places)
        step.scratch = 8 * kernel[0] * kernel[1]
        step.fields |= _window(x, (kernel, stride, padding, (1, 1))) | {"largest": int(largest)}
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
        per_pixel = -(-x.channels // 64)
        filters = len(weights) // per_pixel
        classes = np.zeros(max(size), np.int64)
        places = self._out(into, add, (x.n, *size, channels))
        step = Step(self.kernels.Kind.SEPARABLE, "", src=x, norm=norm, around=around, **places)
        taps = window[0][0] * window[0][1]
        step.scratch = 8 * size[1] * per_pixel + 4 * size[1] * (filters + x.channels) + 8 + 16 * taps
        step.float_macs = x.n * size[0] * size[1] * x.channels * taps
        step.bit_macs = x.n * size[0] * size[1] * x.channels * channels
        step.fields |= _window(x, window) | {
            "inner": x.channels,
            "depthwise": self.constant(depthwise["weights"]),
            "depthwise_shift": self.constant(depthwise["shift"]),
            "depthwise_slope": self.constant(depthwise["slope"]),
            "depthwise_row_class": self.constant(depthwise["row_class"]),
            "depthwise_column_class": self.constant(depthwise["column_class"]),
            "depthwise_column_classes": depthwise["shift"].shape[1],
            "in_scale": self.vector(signs[0], 1, x.channels),
            "threshold": self.vector(signs[1], 0, x.channels),
            "signs_pixel": per_pixel,
            "weights": self.constant(weights),
            "offsets": self.constant(np.zeros(1, np.int64)),
            "filters": filters,
            "total": x.channels,
            "row_class": self.constant(classes),
            "column_class": self.constant(classes),
            "borders": self.constant(np.zeros(filters, np.int32)),
            "column_classes": 1,
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
        places = self._out(into, add, (x.n, *x.size, channels))
        step = Step(self.kernels.Kind.PROJECT, "", src=x, norm=norm, **places)
        step.fields |= {
            "weights": self.constant(codes),
            "length": len(codes),
            "filters": codes.shape[1],
            "in_scale": self.constant(in_scale),
        }
        step.scratch = 4 * (4 * self.kernels.LOOKUP_GROUPS * 16 + x.width * codes.shape[1])
        step.float_macs = x.n * x.height * x.width * x.channels * channels
        return self._add(step)

    # Layout

    def finish(self, outputs: Sequence[Map]) -> Plan:
        """Lay the plan out; its outputs are maps of its own."""
        found: list[Map] = []
        for each in outputs:
            if (
                each.buffer not in self._arena or not each.whole
            ):  # an input, a part of a map, or one that is out already
                each = self.pointwise(each)
            self._arena.remove(each.buffer)
            found.append(each)
        outside = [*self.inputs, *(each.buffer for each in found)]
        for number, buffer in enumerate(outside):
            buffer.piece = OUTSIDE + number
        rows = [self._row(step) for step in self.steps]  # some constants are made by this
        pieces = {ARENA: share_memory(self._arena), CONSTANTS: one_piece(self.constants), KEPT: one_piece(self._kept)}
        steps = np.zeros(len(rows), self.kernels.STEP)
        places = []
        for number, row in enumerate(rows):
            for name, value in row.items():
                if isinstance(value, tuple):
                    buffer, offset = value
                    places.append((number, name, buffer.piece, buffer.offset + offset))
                else:
                    steps[name][number] = value
        shapes: list[tuple[int, ...]] = [(m.n, m.channels) if m.flat else (m.n, *m.size, m.channels) for m in found]
        lines = []
        for step in self.steps:
            shape = (*step.out.size, step.out.channels)
            kernel = self.kernels.Kind(step.kind).name.lower()
            lines.append(Line(step.name, kernel, shape, step.bit_macs, step.float_macs))
        return Plan(steps, places, pieces, max(step.scratch for step in self.steps), shapes, lines)

    def _row(self, step: Step) -> dict[str, Any]:
        """The fields of a step; an address is a buffer and bytes into it."""
        out, src, (down, across) = step.out, step.src, step.stride
        zeros = (self.filled(0, out.channels), 0)
        row: dict[str, Any] = dict.fromkeys(self.kernels.ADDRESSES, zeros)
        row |= dict(kind=step.kind, tasks=out.n * out.height * step.groups, groups=step.groups)
        row |= dict(height=out.height, width=out.width, channels=out.channels, signed=int(step.signs is not None))
        if isinstance(src, Signs):
            row |= dict(src=(src.buffer, 0), src_image=src.image)
            row |= dict(src_row=src.row * down, src_pixel=src.per_pixel * across)
        elif src is not None:
            row |= dict(src=(src.buffer, 4 * src.offset), src_image=src.image)
            row |= dict(src_row=src.row * down, src_pixel=src.pixel * across)
        for name, other in (("around", step.around), ("post", step.post), ("out", out)):
            if other is not None:
                row[name] = (other.buffer, 4 * other.offset)
                row |= {f"{name}_image": other.image, f"{name}_row": other.row, f"{name}_pixel": other.pixel}
        for name, default in (("scale", 1), ("shift", 0), ("slope", 1), ("after", 0)):
            row[name] = (self.vector(getattr(step.norm, name), default, out.channels), 0)
        if step.signs is not None:
            signs = step.signs
            row |= dict(signs=(signs.buffer, 8 * signs.inside), signs_image=signs.image)
            row |= dict(signs_row=signs.row, signs_pixel=signs.per_pixel)
        return row | {key: (value, 0) if isinstance(value, Buffer) else value for key, value in step.fields.items()}


def _window(x: Map, window: Sequence[tuple[int, int]]) -> dict[str, int]:
    found = {"src_height": x.height, "src_width": x.width}
    for name, (down, across) in zip(("kernel", "stride", "pad", "dilation"), window, strict=True):
        found |= {f"{name}_y": down, f"{name}_x": across}
    return found
