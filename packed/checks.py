"""Whether steps from a file stay inside their memory: the kernels do not ask.

For every kind of step this module states which bytes it reads and writes, as :mod:`onebit.packed.kernels` does it. What
a step reads as an index must lie among the constants, which no step writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from onebit.commons.errors import InputError
from onebit.packed import engine
from onebit.packed.plan import CONSTANTS, OUTSIDE

#: Multiply-accumulates of one run: minutes of them.
_MOST_WORK = 1 << 42


class _Step:
    """One step, its fields as Python's integers, which do not overflow."""

    def __init__(
        self, fields: Mapping[str, int], pieces: Mapping[str, int], sizes: Mapping[int, int], constants: np.ndarray
    ) -> None:
        self.fields, self.pieces, self.sizes, self.constants = fields, pieces, sizes, constants

    def __getattr__(self, name: str) -> int:
        return self.fields[name]

    def require(self, *facts: bool) -> None:
        if not all(facts):
            raise InputError("its numbers contradict each other")

    def touch(self, name: str, size: int, *steps: tuple[int, int], write: bool = False, start: int = 0) -> None:
        """Require that what a step touches lies in the piece of the address ``name``.

        Args:
            size: of the values, in bytes.
            steps: how many, and how many values apart; all combinations of them are touched.
            start: of the first, in values.
        """
        self.require(all(count >= 1 and apart >= 0 for count, apart in steps))
        end = start + sum((count - 1) * apart for count, apart in steps) + 1
        at, piece = self.fields[name], self.pieces[name]
        if at % size or start < 0 or at + size * end > self.sizes[piece]:
            raise InputError(f"its {name} lies outside of its memory")
        if write and piece in (CONSTANTS, OUTSIDE):  # OUTSIDE itself is the input
            raise InputError(f"its {name} is not where steps may write")

    def indices(self, name: str, count: int) -> np.ndarray:
        """Integers of 64 bits that a step takes for places."""
        if self.pieces[name] != CONSTANTS:
            raise InputError(f"its {name} is no constant")
        self.touch(name, 8, (count, 1))
        at = self.fields[name]
        return self.constants[at : at + 8 * count].view(np.int64)

    def classes(self, name: str, count: int) -> int:
        """The largest of the classes of so many rows or columns."""
        found = self.indices(name, count)
        self.require(int(found.min()) >= 0, int(found.max()) < 1 << 31)
        return int(found.max())

    # Parts of several kinds

    def images(self) -> int:
        self.require(self.height >= 1, self.width >= 1, self.channels >= 1, self.groups >= 1, self.tasks >= 1)
        images, rest = divmod(self.tasks, self.height * self.groups)
        self.require(rest == 0, images >= 1)
        return images

    def places(self, name: str, channels: int, images: int, write: bool = False) -> None:
        """A map of the output's size."""
        fields = self.fields
        strides = [fields[f"{name}_{part}"] for part in ("image", "row", "pixel")]
        counts = (images, self.height, self.width)
        self.touch(name, 4, *zip(counts, strides, strict=True), (channels, 1), write=write)

    def finish(self, bits: bool, channels: int) -> None:
        images = self.images()
        if bits:
            rows, columns = self.classes("row_class", self.height), self.classes("column_class", self.width)
            self.touch("borders", 4, (channels, 1), start=(rows * self.column_classes + columns) * self.filters)
        for name in ("scale", "shift", "slope", "after"):
            self.touch(name, 4, (channels, 1))
        self.places("around", channels, images)
        self.places("post", channels, images)
        self.places("out", channels, images, write=True)
        if self.signed:
            self.touch("in_scale", 4, (channels, 1))
            self.touch("threshold", 4, (channels, 1))
            strides = [4 * self.fields[f"signs_{part}"] for part in ("image", "row", "pixel")]
            places = zip((images, self.height, self.width), strides, strict=True)
            self.touch("signs", 2, *places, (-(-channels // 16), 1), write=True)

    def sums(self, size: int, block: int) -> None:
        """Of a convolution of values of so many bytes: its weights, and whose sums fit."""
        half = block // 2
        self.require(self.segments >= 1, self.length >= 1, self.filters % half == 0, self.channels <= self.filters)
        self.touch("weights", size, (self.segments * self.length * self.filters, 1))
        offsets = self.indices("offsets", self.segments)
        self.require(int(offsets.min()) >= 0, int(offsets.max()) < 1 << 40)
        counts = (self.images(), self.height, self.width)
        strides = (self.src_image, self.src_row, self.src_pixel)
        self.touch("src", size, *zip(counts, strides, strict=True), (self.length, 1), start=int(offsets.max()))

    def alone(self) -> None:
        """Of a kind whose tasks are whole rows, and that puts out no signs."""
        self.require(self.groups == 1, not self.signed)

    def window(self, channels: int) -> None:
        """What a depthwise convolution or a pooling reads: the map, of which every window sees a part."""
        self.require(self.src_height >= 1, self.src_width >= 1, self.dilation_y >= 1, self.dilation_x >= 1)
        self.require(self.stride_y >= 1, self.stride_x >= 1, self.kernel_y >= 1, self.kernel_x >= 1)
        self.require(self.kernel_y * self.kernel_x <= 1 << 16)
        counts = (self.images(), self.src_height, self.src_width)
        strides = (self.src_image, self.src_row, self.src_pixel)
        self.touch("src", 4, *zip(counts, strides, strict=True), (channels, 1))
        for side, out, size in (("y", self.height, self.src_height), ("x", self.width, self.src_width)):
            kernel, stride, pad, dilation = (
                self.fields[f"{part}_{side}"] for part in ("kernel", "stride", "pad", "dilation")
            )
            self.require(out * kernel <= 1 << 24)
            first = np.arange(out)[:, None] * stride - pad + np.arange(kernel) * dilation
            self.require(bool(((first >= 0) & (first < size)).any(1).all()))

    def depthwise_row(self) -> int:
        """The depthwise part of a step; gives the bytes of scratch that it takes behind its sums."""
        inner, taps = self.inner, self.kernel_y * self.kernel_x
        self.require(inner >= 1)
        self.window(inner)
        rows = self.classes("depthwise_row_class", self.height)
        columns = self.classes("depthwise_column_class", self.width)
        kind = rows * self.depthwise_column_classes + columns
        self.touch("depthwise_shift", 4, (inner, 1), start=kind * inner)
        self.touch("depthwise", 4, (taps * inner, 1))
        self.touch("depthwise_slope", 4, (inner, 1))
        return 4 * (self.width * inner + self.width * inner % 2) + 16 * taps

    def pack_row(self) -> None:
        self.require(self.signs_pixel == -(-self.inner // 64))
        self.touch("in_scale", 4, (self.inner, 1))
        self.touch("threshold", 4, (self.inner, 1))


def _load(step: _Step) -> int:
    step.alone()
    counts = (step.images(), step.height, step.width, step.channels)
    strides = (step.src_image, step.src_row, step.src_pixel, step.src_channel)
    step.touch("src", 4, *zip(counts, strides, strict=True))
    step.places("out", step.channels, counts[0], write=True)
    return 0


def _pointwise(step: _Step) -> int:
    step.places("src", step.channels, step.images())
    step.finish(False, step.channels)
    return 0


def _conv_bits(step: _Step) -> int:
    step.sums(8, engine.kernels().BIT_FILTERS)
    step.finish(True, step.channels)
    return 4 * step.width * step.filters


def _conv_floats(step: _Step) -> int:
    step.sums(4, engine.kernels().FLOAT_FILTERS)
    step.finish(False, step.channels)
    return 4 * step.width * step.filters


def _pack(step: _Step) -> int:
    step.require(step.groups == 1, step.inner >= 1)
    step.pack_row()
    images = step.images()
    step.places("src", step.inner, images)
    strides = (step.signs_image, step.signs_row, step.signs_pixel)
    places = zip((images, step.height, step.width), strides, strict=True)
    step.touch("signs", 8, *places, (step.signs_pixel, 1), write=True)
    return 0


def _pool(step: _Step) -> int:
    step.alone()
    step.require(step.dilation_y == step.dilation_x == 1)
    step.window(step.channels)
    step.touch("scale", 4, (step.channels, 1))
    step.touch("shift", 4, (step.channels, 1))
    step.places("post", step.channels, step.images())
    step.places("out", step.channels, step.images(), write=True)
    return 8 * step.kernel_y * step.kernel_x


def _depthwise(step: _Step) -> int:
    step.alone()
    step.require(step.channels == step.inner)
    step.finish(False, step.inner)
    return step.depthwise_row()


def _separable(step: _Step) -> int:
    step.alone()
    scratch = step.depthwise_row()
    step.pack_row()
    step.require(step.channels <= step.filters, step.filters % (engine.kernels().BIT_FILTERS // 2) == 0)
    step.require(int(step.indices("offsets", 1)[0]) == 0)
    step.touch("weights", 8, (step.signs_pixel * step.filters, 1))
    step.finish(True, step.channels)
    return scratch + 8 * step.width * step.signs_pixel + 4 * step.width * step.filters


def _project(step: _Step) -> int:
    kernels = engine.kernels()
    step.alone()
    if not kernels.HAS_AVX512:
        raise InputError("it looks sums up in tables, for processors with AVX-512: export the network on this machine")
    step.require(step.length >= 1, step.filters % 16 == 0, step.channels <= step.filters)
    step.places("src", 4 * step.length, step.images())
    step.touch("in_scale", 4, (4 * step.length, 1))
    step.touch("weights", 1, (step.length * step.filters, 1))
    step.finish(False, step.channels)
    return 4 * (4 * kernels.LOOKUP_GROUPS * 16 + step.width * step.filters)


def _elementwise(step: _Step) -> int:
    step.alone()
    images = step.images()
    step.touch("scale", 4, (2, 1))
    if step.kind == engine.kernels().Kind.CHOOSE:
        step.touch("threshold", 4, (step.channels, 1))
    if step.kind == engine.kernels().Kind.MULTIPLY:
        step.places("around", step.channels, images)
    step.places("src", step.channels, images)
    step.places("out", step.channels, images, write=True)
    return 0


#: By the name of the kind.
CHECKS = {
    "LOAD": _load,
    "POINTWISE": _pointwise,
    "CONV_BITS": _conv_bits,
    "CONV_FLOATS": _conv_floats,
    "PACK": _pack,
    "POOL": _pool,
    "SEPARABLE": _separable,
    "PROJECT": _project,
    "DEPTHWISE": _depthwise,
    "CLAMP": _elementwise,
    "CHOOSE": _elementwise,
    "MULTIPLY": _elementwise,
}


def _work(step: _Step) -> int:
    """An upper bound of the multiply-accumulates of a step."""
    taps = max(1, step.segments * step.length, step.length, step.inner, step.kernel_y * step.kernel_x)
    return step.tasks * step.width * max(step.channels, step.filters, 1) * taps


def require_inside(
    steps: Iterable[tuple[Mapping[str, int], Mapping[str, int]]], sizes: Mapping[int, int], constants: np.ndarray
) -> int:
    """Check steps that a file states.

    Args:
        steps: their fields, and which piece of memory each address lies in.
        sizes: of the pieces, in bytes.
        constants: the piece of that name.

    Returns:
        the bytes of scratch that each thread needs.

    Raises:
        InputError: a step is unknown, or would read or write outside of its memory.
    """
    kinds, scratch, work = engine.kernels().Kind, 0, 0
    for number, (fields, pieces) in enumerate(steps):
        step = _Step(fields, pieces, sizes, constants)
        try:
            if min(fields.values()) < 0 or fields["kind"] not in set(kinds) or not set(pieces.values()) <= set(sizes):
                raise InputError("it is of no known kind")
            work += _work(step)
            scratch = max(scratch, CHECKS[kinds(fields["kind"]).name](step))
        except InputError as error:
            raise InputError(f"step {number}: {error}") from None
    if work > _MOST_WORK or scratch > 1 << 30:
        raise InputError(f"{work} multiplications with {scratch} bytes a thread: expected fewer")
    return scratch
