"""The compiled steps of a plan (numba): one call computes a network.

Maps are float32, the channels of a position side by side; where the next position, row and image begin is stated in
steps of elements, so that a map may lie inside another one. Signs are packed along the channels, 64 to a word, bit set
for +1, and the border of a map is part of its packed form, so that an inner loop never asks where it is. With bits
x and w of n values each, the sum of products of their signs is ``n - 2 popcount(x ^ w)``: an integer, exact.

A step is a record of integers (:data:`STEP`). Every step divides into tasks, mostly the rows of its output. Each thread
takes a share of them, and waits for the others before the next step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from enum import IntEnum, auto

import numpy as np
from llvmlite import binding
from numba import carray, config, njit

from onebit.packed._lookup import bytes_at, make_lookups, sums_of_four, sums_of_sixteen
from onebit.packed._vector import (
    arrive,
    arrived,
    floats,
    halves,
    indices,
    integers,
    make_depthwise,
    make_finish,
    make_pool,
    make_sums,
    signs_of_64,
    step_aside,
    words,
)


class Kind(IntEnum):
    """What a step computes."""

    LOAD = 0
    POINTWISE = auto()
    CONV_BITS = auto()
    CONV_FLOATS = auto()
    PACK = auto()
    POOL = auto()
    SEPARABLE = auto()
    PROJECT = auto()
    DEPTHWISE = auto()
    CLAMP = auto()
    CHOOSE = auto()
    MULTIPLY = auto()


#: Fields of a step that are addresses.
ADDRESSES = [
    "src",
    "weights",
    "offsets",
    "row_class",
    "column_class",
    "borders",
    "scale",
    "shift",
    "slope",
    "after",
    "around",
    "post",
    "out",
    "signs",
    "in_scale",
    "threshold",
    "depthwise",
    "depthwise_shift",
    "depthwise_slope",
    "depthwise_row_class",
    "depthwise_column_class",
]
_NUMBERS = [
    "kind",
    "tasks",
    "groups",
    "height",
    "width",
    "channels",
    "filters",
    "src_image",
    "src_row",
    "src_pixel",
    "segments",
    "length",
    "total",
    "column_classes",
    "around_image",
    "around_row",
    "around_pixel",
    "post_image",
    "post_row",
    "post_pixel",
    "out_image",
    "out_row",
    "out_pixel",
    "signs_image",
    "signs_row",
    "signs_pixel",
    "signed",
    "src_channel",
    "src_height",
    "src_width",
    "kernel_y",
    "kernel_x",
    "stride_y",
    "stride_x",
    "pad_y",
    "pad_x",
    "dilation_y",
    "dilation_x",
    "largest",
    "inner",
    "depthwise_column_classes",
]
#: A step. ``_image``, ``_row`` and ``_pixel`` are how far apart images, rows and positions lie: for ``src`` between the
#: inputs of neighbouring outputs, in words where the input is packed; for ``signs`` in words. ``groups`` is the tasks of
#: a row, of which each takes a share of the channels; ``filters`` are the channels, filled up. The fields from
#: ``src_channel`` on are those of an image that is read, of a pooling or of a depthwise convolution.
STEP = np.dtype([(name, np.int64) for name in (*ADDRESSES, *_NUMBERS)])

#: What the code is compiled for, such as ``avx2``.
FEATURES = {
    name.removeprefix("+")
    for name in (config.CPU_FEATURES or binding.get_host_cpu_features().flatten()).split(",")
    if name.startswith("+")
}
HAS_AVX512 = "avx512f" in FEATURES
# Registers: 32 of 512 bits, or 16 of 256 (and 32 of 128 on ARM), of which most hold sums.
if HAS_AVX512:
    PIXELS, VECTORS = 7, 2
else:
    PIXELS, VECTORS = 2, 2

#: Filters lie in blocks of so many, which are summed at once. The last block has half as many where that will do; it is
#: filled up with zeros.
BIT_FILTERS, FLOAT_FILTERS = 8 * VECTORS, 16 * VECTORS
_bits_many_narrow = make_sums(True, PIXELS, VECTORS // 2)
_bits_one_narrow = make_sums(True, 1, VECTORS // 2)
_floats_most_narrow = make_sums(False, 2 * PIXELS, VECTORS // 2)
_floats_many_narrow = make_sums(False, PIXELS, VECTORS // 2)
_floats_one_narrow = make_sums(False, 1, VECTORS // 2)
_bits_many = make_sums(True, PIXELS, VECTORS)
_bits_one = make_sums(True, 1, VECTORS)
_floats_most = make_sums(False, 2 * PIXELS, VECTORS)
_floats_many = make_sums(False, PIXELS, VECTORS)
_floats_one = make_sums(False, 1, VECTORS)
_finish_bits = make_finish(True, False, True)
_finish_bits_part = make_finish(True, False, False)
_finish_bits_sign = make_finish(True, True, True)
_finish_bits_sign_part = make_finish(True, True, False)
_finish_floats = make_finish(False, False, True)
_finish_floats_part = make_finish(False, False, False)
_finish_floats_sign = make_finish(False, True, True)
_finish_floats_sign_part = make_finish(False, True, False)
_pool_max_4, _pool_max_1 = make_pool(4, True), make_pool(1, True)
_pool_mean_4, _pool_mean_1 = make_pool(4, False), make_pool(1, False)
_depthwise_4 = make_depthwise(4, whole=True)
_depthwise_4_part = make_depthwise(4, whole=False)
_depthwise_1 = make_depthwise(1, whole=True)
_depthwise_1_part = make_depthwise(1, whole=False)
_lookups_4_2 = make_lookups(4, 2)
_lookups_4_1 = make_lookups(4, 1)
_lookups_3_2 = make_lookups(3, 2)
_lookups_1_2 = make_lookups(1, 2)
_lookups_1_1 = make_lookups(1, 1)
#: Groups of four channels whose tables, for four positions, fit the first cache.
LOOKUP_GROUPS = 72

# As plain integers, which numba takes as constants.
_CONV_BITS, _CONV_FLOATS, _POINTWISE = int(Kind.CONV_BITS), int(Kind.CONV_FLOATS), int(Kind.POINTWISE)
_SEPARABLE, _DEPTHWISE, _PROJECT = int(Kind.SEPARABLE), int(Kind.DEPTHWISE), int(Kind.PROJECT)
_POOL, _PACK, _CLAMP, _CHOOSE = int(Kind.POOL), int(Kind.PACK), int(Kind.CLAMP), int(Kind.CHOOSE)

_COMPILE = dict(nogil=True, fastmath={"contract"}, boundscheck=False, error_model="numpy")


def _kernel(function: Callable) -> Callable:
    """Compile at the first call, and keep the machine code on disk where a folder can be written.

    The code of ``_vector.py`` and ``_lookup.py`` is part of it without numba's knowing: whoever
    changes one of them has to touch this file.
    """
    try:
        return njit(cache=True, **_COMPILE)(function)
    except RuntimeError as error:
        warnings.warn(
            f"the kernels are compiled anew in every process, which takes seconds: {error}; "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            stacklevel=2,
        )
        return njit(**_COMPILE)(function)


@_kernel
def _sums_of_bits(src, pixel, weights, offsets, segments, length, sums, filters, begin, end, pixels):
    """Differences of a row's positions to the filters from ``begin`` to ``end``: see :func:`make_sums`."""
    at = indices(offsets)
    for k in range(begin, end, BIT_FILTERS):
        wide = filters - k >= BIT_FILTERS
        w = words(weights + 8 * k * segments * length)
        p = 0
        while p < pixels:
            x = words(src + 8 * p * pixel)
            s = integers(sums + 4 * (p * filters + k))
            if pixels - p >= PIXELS:
                if wide:
                    _bits_many(x, w, s, at, segments, length, pixel, BIT_FILTERS, filters)
                else:
                    _bits_many_narrow(x, w, s, at, segments, length, pixel, BIT_FILTERS // 2, filters)
                p += PIXELS
            else:
                if wide:
                    _bits_one(x, w, s, at, segments, length, pixel, BIT_FILTERS, filters)
                else:
                    _bits_one_narrow(x, w, s, at, segments, length, pixel, BIT_FILTERS // 2, filters)
                p += 1


@_kernel
def _sums_of_floats(src, pixel, weights, offsets, segments, length, sums, filters, begin, end, pixels):
    """Sums of products of a row's positions with the filters from ``begin`` to ``end``: see :func:`make_sums`."""
    at = indices(offsets)
    for k in range(begin, end, FLOAT_FILTERS):
        wide = filters - k >= FLOAT_FILTERS
        w = floats(weights + 4 * k * segments * length)
        p = 0
        while p < pixels:
            x = floats(src + 4 * p * pixel)
            s = floats(sums + 4 * (p * filters + k))
            if pixels - p >= 2 * PIXELS:
                if wide:
                    _floats_most(x, w, s, at, segments, length, pixel, FLOAT_FILTERS, filters)
                else:
                    _floats_most_narrow(x, w, s, at, segments, length, pixel, FLOAT_FILTERS // 2, filters)
                p += 2 * PIXELS
            elif pixels - p >= PIXELS:
                if wide:
                    _floats_many(x, w, s, at, segments, length, pixel, FLOAT_FILTERS, filters)
                else:
                    _floats_many_narrow(x, w, s, at, segments, length, pixel, FLOAT_FILTERS // 2, filters)
                p += PIXELS
            else:
                if wide:
                    _floats_one(x, w, s, at, segments, length, pixel, FLOAT_FILTERS, filters)
                else:
                    _floats_one_narrow(x, w, s, at, segments, length, pixel, FLOAT_FILTERS // 2, filters)
                p += 1


@_kernel
def _finish(step, bits, sums, sums_pixel, n, y, begin, end):
    """From the sums of one row to its output, in the channels from ``begin`` to ``end``: see :func:`make_finish`."""
    around = step.around + 4 * (n * step.around_image + y * step.around_row)
    post = step.post + 4 * (n * step.post_image + y * step.post_row)
    out = step.out + 4 * (n * step.out_image + y * step.out_row)
    signs = step.signs + 8 * (n * step.signs_image + y * step.signs_row)
    total, signed = step.total, step.signed
    width = step.width
    if bits:
        column_class = carray(indices(step.column_class), (width,))
        row = carray(indices(step.row_class), (y + 1,))[y] * step.column_classes
    border = step.borders
    for x in range(width):
        if bits:
            border = step.borders + 4 * (row + column_class[x]) * step.filters
        for k in range(begin, end, 16):
            some = min(16, end - k)
            b = integers(border + 4 * k)
            c, t = floats(step.scale + 4 * k), floats(step.shift + 4 * k)
            r = floats(around + 4 * (x * step.around_pixel + k))
            a, f = floats(step.slope + 4 * k), floats(step.after + 4 * k)
            p = floats(post + 4 * (x * step.post_pixel + k))
            o = floats(out + 4 * (x * step.out_pixel + k))
            g = halves(signs + 8 * x * step.signs_pixel + k // 8)
            i, h = floats(step.in_scale + 4 * k), floats(step.threshold + 4 * k)
            at = sums + 4 * (x * sums_pixel + k)
            if bits:
                s = integers(at)
                if signed:
                    if some == 16:
                        _finish_bits_sign(s, b, c, t, r, a, f, p, o, g, i, h, total, some)
                    else:
                        _finish_bits_sign_part(s, b, c, t, r, a, f, p, o, g, i, h, total, some)
                elif some == 16:
                    _finish_bits(s, b, c, t, r, a, f, p, o, g, i, h, total, some)
                else:
                    _finish_bits_part(s, b, c, t, r, a, f, p, o, g, i, h, total, some)
            else:
                s = floats(at)
                if signed:
                    if some == 16:
                        _finish_floats_sign(s, b, c, t, r, a, f, p, o, g, i, h, total, some)
                    else:
                        _finish_floats_sign_part(s, b, c, t, r, a, f, p, o, g, i, h, total, some)
                elif some == 16:
                    _finish_floats(s, b, c, t, r, a, f, p, o, g, i, h, total, some)
                else:
                    _finish_floats_part(s, b, c, t, r, a, f, p, o, g, i, h, total, some)


@_kernel
def _share(step, task):
    """Image, row, and first and last channel of a task."""
    groups, channels = step.groups, step.channels
    row, group = task // groups, task % groups
    share = -(-channels // (groups * 64)) * 64
    begin = min(channels, group * share)
    return row // step.height, row % step.height, begin, min(channels, begin + share)


@_kernel
def _convolve(step, first, last, bits, scratch):
    """A convolution, then per channel what :func:`make_finish` says."""
    width = step.width
    for task in range(first, last):
        n, y, begin, end = _share(step, task)
        src = step.src + (8 if bits else 4) * (n * step.src_image + y * step.src_row)
        pixel, weights, filters = step.src_pixel, step.weights, step.filters
        segments, length, offsets = step.segments, step.length, step.offsets
        if bits:
            _sums_of_bits(src, pixel, weights, offsets, segments, length, scratch, filters, begin, end, width)
        else:
            _sums_of_floats(src, pixel, weights, offsets, segments, length, scratch, filters, begin, end, width)
        _finish(step, bits, scratch, step.filters, n, y, begin, end)


@_kernel
def _pointwise(step, first, last):
    """A map to one of its size: per channel what :func:`make_finish` says."""
    for task in range(first, last):
        n, y, begin, end = _share(step, task)
        src = step.src + 4 * (n * step.src_image + y * step.src_row)
        _finish(step, False, src, step.src_pixel, n, y, begin, end)


@_kernel
def _elementwise(step, first, last):
    """Of each value: the bound that it is beyond, if it is; one of two values, above a threshold the second; or its
    product with that of another map (``AROUND``)."""
    channels, kind = step.channels, step.kind
    bounds = carray(floats(step.scale), (2,))
    low, high = bounds[0], bounds[1]
    thresholds = carray(floats(step.threshold), (channels,))
    for task in range(first, last):
        n, y = task // step.height, task % step.height
        for x in range(step.width):
            src = step.src + 4 * (n * step.src_image + y * step.src_row + x * step.src_pixel)
            around = step.around + 4 * (n * step.around_image + y * step.around_row + x * step.around_pixel)
            out = step.out + 4 * (n * step.out_image + y * step.out_row + x * step.out_pixel)
            source, result = carray(floats(src), (channels,)), carray(floats(out), (channels,))
            if kind == _CLAMP:
                for c in range(channels):
                    value = source[c]
                    result[c] = low if value < low else high if value > high else value
            elif kind == _CHOOSE:
                for c in range(channels):
                    result[c] = high if source[c] > thresholds[c] else low
            else:
                other = carray(floats(around), (channels,))
                for c in range(channels):
                    result[c] = source[c] * other[c]


@_kernel
def _load(step, first, last):
    """An image of any strides to a map."""
    channels, width = step.channels, step.width
    for task in range(first, last):
        n, y = task // step.height, task % step.height
        src = step.src + 4 * (n * step.src_image + y * step.src_row)
        out = step.out + 4 * (n * step.out_image + y * step.out_row)
        pixels = width * channels
        if step.src_channel == 1 and step.src_pixel == channels and step.out_pixel == channels:
            one, other = carray(floats(src), (pixels,)), carray(floats(out), (pixels,))
            for i in range(pixels):  # a slice takes seconds to compile
                other[i] = one[i]
            continue
        source = carray(floats(src), (1 << 40,))
        result = carray(floats(out), (1 << 40,))
        for x in range(width):
            for c in range(channels):
                result[x * step.out_pixel + c] = source[x * step.src_pixel + c * step.src_channel]


@_kernel
def _pack_row(step, src, src_pixel, signs):
    """Signs of one row of values, + where value * scale > threshold."""
    channels, per_pixel = step.inner, step.signs_pixel
    for x in range(step.width):
        result = carray(words(signs + 8 * x * per_pixel), (per_pixel,))
        for i in range(per_pixel):
            result[i] = signs_of_64(
                floats(src + 4 * (x * src_pixel + i * 64)),
                floats(step.in_scale + 256 * i),
                floats(step.threshold + 256 * i),
                min(64, channels - i * 64),
            )


@_kernel
def _pack(step, first, last):
    for task in range(first, last):
        n, y = task // step.height, task % step.height
        src = step.src + 4 * (n * step.src_image + y * step.src_row)
        signs = step.signs + 8 * (n * step.signs_image + y * step.signs_row)
        _pack_row(step, src, step.src_pixel, signs)


@_kernel
def _pool(step, first, last, scratch):
    """Largest value or mean under a kernel, what is outside the map left out; scale, shift, + post."""
    kernel_y, kernel_x, channels = step.kernel_y, step.kernel_x, step.channels
    offsets = carray(indices(scratch), (kernel_y * kernel_x,))
    for task in range(first, last):
        n, y = task // step.height, task % step.height
        top = y * step.stride_y - step.pad_y
        x = 0
        while x < step.width:
            left = x * step.stride_x - step.pad_x
            taps = 0
            for i in range(max(0, top), min(step.src_height, top + kernel_y)):
                for j in range(max(0, left), min(step.src_width, left + kernel_x)):
                    offsets[taps] = n * step.src_image + i * step.src_row + j * step.src_pixel
                    taps += 1
            # Neighbours whose windows lie inside the map as a whole are pooled together.
            pixels = 1
            if taps == kernel_y * kernel_x:
                fits = (step.src_width - kernel_x - left) // step.stride_x + 1
                pixels = 4 if min(fits, step.width - x) >= 4 else 1
            share = np.float32(1) / np.float32(taps)
            post = step.post + 4 * (n * step.post_image + y * step.post_row + x * step.post_pixel)
            out = step.out + 4 * (n * step.out_image + y * step.out_row + x * step.out_pixel)
            o, move = indices(scratch), step.stride_x * step.src_pixel
            for k in range(0, channels, 16):
                some = min(16, channels - k)
                s = floats(step.src + 4 * k)
                c, t = floats(step.scale + 4 * k), floats(step.shift + 4 * k)
                p, r = floats(post + 4 * k), floats(out + 4 * k)
                if step.largest:
                    if pixels == 4:
                        _pool_max_4(s, c, t, p, r, o, taps, some, share, move, step.post_pixel, step.out_pixel)
                    else:
                        _pool_max_1(s, c, t, p, r, o, taps, some, share, move, step.post_pixel, step.out_pixel)
                elif pixels == 4:
                    _pool_mean_4(s, c, t, p, r, o, taps, some, share, move, step.post_pixel, step.out_pixel)
                else:
                    _pool_mean_1(s, c, t, p, r, o, taps, some, share, move, step.post_pixel, step.out_pixel)
            x += pixels


@_kernel
def _depthwise_pixels(step, src, pixels, shift, taps, sums, scratch):
    """Depthwise sums of ``pixels`` positions with the same taps, PReLU."""
    channels = step.inner
    o = indices(scratch)
    r = indices(scratch + 8 * step.kernel_y * step.kernel_x)
    move = step.stride_x * step.src_pixel
    for c in range(0, channels, 16):
        w, s = floats(step.depthwise + 4 * c), floats(shift + 4 * c)
        a, n = floats(step.depthwise_slope + 4 * c), min(16, channels - c)
        p = 0
        while p < pixels:
            x, y = floats(src + 4 * (p * move + c)), floats(sums + 4 * (p * channels + c))
            if pixels - p >= 4:
                if n == 16:
                    _depthwise_4(x, w, s, a, y, o, r, taps, move, channels, channels, n)
                else:
                    _depthwise_4_part(x, w, s, a, y, o, r, taps, move, channels, channels, n)
                p += 4
            else:
                if n == 16:
                    _depthwise_1(x, w, s, a, y, o, r, taps, move, channels, channels, n)
                else:
                    _depthwise_1_part(x, w, s, a, y, o, r, taps, move, channels, channels, n)
                p += 1


@_kernel
def _depthwise_row(step, n, y, sums, scratch):
    """One row of a depthwise convolution of real values, shift, PReLU, into ``sums`` [W', C]."""
    height, width = step.src_height, step.src_width
    rows, columns = step.kernel_y, step.kernel_x
    down, across = step.dilation_y, step.dilation_x
    offsets = carray(indices(scratch), (rows * columns,))
    tap_rows = carray(indices(scratch + 8 * rows * columns), (rows * columns,))
    out_width = step.width
    row_class = carray(indices(step.depthwise_row_class), (y + 1,))[y]
    column_class = carray(indices(step.depthwise_column_class), (out_width,))
    top = y * step.stride_y - step.pad_y
    # From and to where all columns of the kernel lie inside the map.
    inner = min(out_width, -(-step.pad_x // step.stride_x))
    outer = (width - 1 - across * (columns - 1) + step.pad_x) // step.stride_x + 1
    outer = max(inner, min(out_width, outer))
    x = 0
    while x < out_width:
        left = x * step.stride_x - step.pad_x
        taps = 0
        for i in range(rows):
            if 0 <= top + i * down < height:
                for j in range(columns):
                    if 0 <= left + j * across < width:
                        offsets[taps] = i * down * step.src_row + j * across * step.src_pixel
                        tap_rows[taps] = i * columns + j
                        taps += 1
        pixels = outer - inner if x == inner and outer > inner else 1
        src = step.src + 4 * (n * step.src_image + top * step.src_row + left * step.src_pixel)
        kind = row_class * step.depthwise_column_classes + column_class[x]
        shift = step.depthwise_shift + 4 * kind * step.inner
        _depthwise_pixels(step, src, pixels, shift, taps, sums + 4 * x * step.inner, scratch)
        x += pixels


@_kernel
def _depthwise(step, first, last, scratch):
    """A depthwise convolution of real values, and what :func:`make_finish` says."""
    inner = step.inner
    taps = scratch + 4 * (step.width * inner + step.width * inner % 2)
    for task in range(first, last):
        n, y = task // step.height, task % step.height
        _depthwise_row(step, n, y, scratch, taps)
        _finish(step, False, scratch, inner, n, y, 0, inner)


@_kernel
def _separable(step, first, last, scratch):
    """Depthwise convolution of real values, shift, PReLU, sign, 1x1 1-bit convolution and what follows it."""
    width, inner, per_pixel = step.width, step.inner, step.signs_pixel
    signs = scratch
    counts = signs + 8 * width * per_pixel
    sums = counts + 4 * width * step.filters
    taps = sums + 4 * (width * inner + width * inner % 2)
    for task in range(first, last):
        n, y = task // step.height, task % step.height
        _depthwise_row(step, n, y, sums, taps)
        _pack_row(step, sums, inner, signs)
        filters, offsets = step.filters, step.offsets
        _sums_of_bits(signs, per_pixel, step.weights, offsets, 1, per_pixel, counts, filters, 0, step.channels, width)
        _finish(step, True, counts, filters, n, y, 0, step.channels)


@_kernel
def _project(step, first, last, scratch):
    """1x1 convolution of 1-bit weights with real values by table lookup: AVX-512 only.

    The 16 sums that four channels can make with any signs are formed once per position, and every
    output channel picks one by the 4 bits of its weights: a lookup and an addition instead of four
    multiplications (the idea of T-MAC, Wei et al., 2024, with float tables).
    """
    groups, filters, width = step.length, step.filters, step.width
    tables = scratch
    sums = tables + 4 * 4 * LOOKUP_GROUPS * 16
    for task in range(first, last):
        n, y = task // step.height, task % step.height
        row = step.src + 4 * (n * step.src_image + y * step.src_row)
        zeroed = carray(floats(sums), (width * filters,))
        for i in range(width * filters):
            zeroed[i] = 0
        p = 0
        while p < width:
            count = 4 if width - p >= 4 else 3 if width - p == 3 else 1
            for begin in range(0, groups, LOOKUP_GROUPS):
                some = min(LOOKUP_GROUPS, groups - begin)
                for i in range(count):
                    g = 0
                    while g < some:
                        x = floats(row + 4 * ((p + i) * step.src_pixel + (begin + g) * 4))
                        c = floats(step.in_scale + 16 * (begin + g))
                        table = floats(tables + 64 * (i * LOOKUP_GROUPS + g))
                        if some - g >= 4:
                            sums_of_sixteen(x, c, table)
                            g += 4
                        else:
                            sums_of_four(x, c, table)
                            g += 1
                t = floats(tables)
                k = 0
                while k < filters:
                    c = bytes_at(step.weights + begin * filters + k)
                    s = floats(sums + 4 * (p * filters + k))
                    if filters - k >= 32:
                        if count == 4:
                            _lookups_4_2(t, c, s, some, LOOKUP_GROUPS * 16, filters, filters)
                        elif count == 3:
                            _lookups_3_2(t, c, s, some, LOOKUP_GROUPS * 16, filters, filters)
                        else:
                            _lookups_1_2(t, c, s, some, LOOKUP_GROUPS * 16, filters, filters)
                        k += 32
                    elif count == 4:
                        _lookups_4_1(t, c, s, some, LOOKUP_GROUPS * 16, filters, filters)
                        k += 16
                    else:
                        for i in range(count):
                            one = floats(tables + 64 * i * LOOKUP_GROUPS)
                            s = floats(sums + 4 * ((p + i) * filters + k))
                            _lookups_1_1(one, c, s, some, LOOKUP_GROUPS * 16, filters, filters)
                        k += 16
            p += count
        _finish(step, False, sums, filters, n, y, 0, step.channels)


@_kernel
def _nothing(step, first, last, scratch):
    pass


if not HAS_AVX512:  # a plan then has no such step, and the lookups no machine code
    _project = _nothing


@_kernel
def execute(steps, first, last, scratch, counter, thread, threads):
    """The steps from ``first`` to ``last``, this thread's share of each.

    Args:
        steps: of :data:`STEP`, their addresses those of this process.
        scratch: where memory of this thread's own begins.
        counter: address of an integer, 0 at the start; all threads wait for each other by it.
        thread, threads: which of how many this is.
    """
    for number in range(first, last):
        step = steps[number]
        tasks, kind = step.tasks, step.kind
        begin, end = tasks * thread // threads, tasks * (thread + 1) // threads
        if kind == _CONV_BITS:
            _convolve(step, begin, end, True, scratch)
        elif kind == _CONV_FLOATS:
            _convolve(step, begin, end, False, scratch)
        elif kind == _POINTWISE:
            _pointwise(step, begin, end)
        elif kind == _SEPARABLE:
            _separable(step, begin, end, scratch)
        elif kind == _PROJECT:
            _project(step, begin, end, scratch)
        elif kind == _POOL:
            _pool(step, begin, end, scratch)
        elif kind == _PACK:
            _pack(step, begin, end)
        elif kind == _DEPTHWISE:
            _depthwise(step, begin, end, scratch)
        elif kind >= _CLAMP:
            _elementwise(step, begin, end)
        else:
            _load(step, begin, end)
        if threads > 1:
            arrive(counter)
            spins = 0
            while arrived(counter) < threads * (number - first + 1):
                spins += 1
                if spins > 2000:
                    step_aside()
