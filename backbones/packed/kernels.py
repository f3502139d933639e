"""Compiled loops of packed inference (numba).

Maps are [N, H, W, C], float32 and contiguous: torch's channels_last. Signs are packed along the
channels, 64 to a word, bit set for +1, and the border of a map is part of its packed form, so that
an inner loop never asks where it is. With bits x and w of n values each, the sum of products of
their signs is ``n - 2 popcount(x ^ w)``: an integer, exact.

Every function works on the rows from ``first`` to ``last`` of its output, counted over the batch:
one thread takes them all, several take a share each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from llvmlite import binding
from numba import config, njit

from onebit.backbones.packed._lookup import make_lookups, sums_of_four, sums_of_sixteen
from onebit.backbones.packed._vector import address, make_depthwise, make_differences, make_finish, signs_of_64

#: Output channels are padded to a multiple of this, and computed so many at a time or twice that.
LANES = 8

# Registers: 32 of 512 bits, or 16 of 256 (and 32 of 128 on ARM), of which most hold sums.
HAS_AVX512 = "+avx512f" in (config.CPU_FEATURES or binding.get_host_cpu_features().flatten()).split(",")
if HAS_AVX512:
    PIXELS, VECTORS = 7, 2
else:
    PIXELS, VECTORS = 4, 1

_many_by_many = make_differences(PIXELS, VECTORS, LANES)
_many_by_one = make_differences(PIXELS, 1, LANES)
_one_by_many = make_differences(1, VECTORS, LANES)
_one_by_one = make_differences(1, 1, LANES)
_finish = make_finish(False, False, True)
_finish_part = make_finish(False, False, False)
_finish_add = make_finish(False, True, True)
_finish_add_part = make_finish(False, True, False)
_finish_around = make_finish(True, False, True)
_finish_around_part = make_finish(True, False, False)
_finish_around_add = make_finish(True, True, True)
_finish_around_add_part = make_finish(True, True, False)
_depthwise_4 = make_depthwise(4, whole=True)
_depthwise_4_part = make_depthwise(4, whole=False)
_depthwise_1 = make_depthwise(1, whole=True)
_depthwise_1_part = make_depthwise(1, whole=False)

_OPTIONS = dict(nogil=True, fastmath={"contract"}, boundscheck=False, error_model="numpy")


def _kernel(function: Callable) -> Callable:
    """Compile at the first call, and keep the machine code on disk where a folder can be written.

    The code of ``_vector.py`` and ``_lookup.py`` is part of it without numba's knowing: whoever
    changes one of them has to touch this file.
    """
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError as error:
        warnings.warn(
            f"the kernels are compiled anew in every process, which takes seconds: {error}; "
            "set NUMBA_CACHE_DIR to a folder that can be written",
            stacklevel=2,
        )
        return njit(**_OPTIONS)(function)


@njit(inline="always")
def _count_row(words, start, weights, counts, offsets, length, pixels, step):
    """Differences of ``pixels`` positions, ``step`` words apart, to all filters."""
    filters = weights.shape[1]
    segments = len(offsets)
    block = LANES * VECTORS
    k = 0
    while k < filters:
        wide = filters - k >= block
        w = address(weights, k)
        p = 0
        while p < pixels:
            x = address(words, start + p * step)
            c = address(counts, p * filters + k)
            o = address(offsets, 0)
            if pixels - p >= PIXELS:
                if wide:
                    _many_by_many(x, w, c, o, segments, length, step, filters, filters)
                else:
                    _many_by_one(x, w, c, o, segments, length, step, filters, filters)
                p += PIXELS
            else:
                if wide:
                    _one_by_many(x, w, c, o, segments, length, step, filters, filters)
                else:
                    _one_by_one(x, w, c, o, segments, length, step, filters, filters)
                p += 1
        k += block if wide else LANES


@njit(inline="always")
def _prelu(value, slope):
    return value if value > np.float32(0) else slope * value


@njit(inline="always")
def _finish_row(counts, filters, n, y, total, borders, norm, shortcut, has_shortcut, act, add, out):
    """From the differences of one row to its output; see :func:`convolve`."""
    (row_class, column_class, correction), (scale, shift), (slope, after) = borders, norm, act
    width, channels = out.shape[2:]
    origin = (n * out.shape[1] + y) * width
    for x in range(width):
        border = correction[row_class[y], column_class[x]]
        for k in range(0, channels, 16):
            some = min(16, channels - k)
            c, b = address(counts, x * filters + k), address(border, k)
            s, t = address(scale, k), address(shift, k)
            around = address(shortcut, (origin + x) * channels + k)
            a, f = address(slope, k), address(after, k)
            o = address(out, (origin + x) * channels + k)
            if has_shortcut and add:
                if some == 16:
                    _finish_around_add(c, b, s, t, around, a, f, o, total, some)
                else:
                    _finish_around_add_part(c, b, s, t, around, a, f, o, total, some)
            elif has_shortcut:
                if some == 16:
                    _finish_around(c, b, s, t, around, a, f, o, total, some)
                else:
                    _finish_around_part(c, b, s, t, around, a, f, o, total, some)
            elif add:
                if some == 16:
                    _finish_add(c, b, s, t, around, a, f, o, total, some)
                else:
                    _finish_add_part(c, b, s, t, around, a, f, o, total, some)
            elif some == 16:
                _finish(c, b, s, t, around, a, f, o, total, some)
            else:
                _finish_part(c, b, s, t, around, a, f, o, total, some)


@_kernel
def convolve(
    first, last, words, weights, offsets, length, strides, total, borders, norm, shortcut, has_shortcut, act, add, out
):
    """1-bit convolution, then per channel: scale, shift, + shortcut, PReLU, + after.

    Args:
        words: [N, H + borders, W + borders, ceil(C / 64)], packed signs.
        weights: [taps * ceil(C / 64), K], packed filters; K is padded to a multiple of LANES.
        offsets, length: where, counted in words from a position's first one, the segments of its
            patch begin, and the words of each.
        strides: of rows and columns.
        total: values in a patch, taps * C.
        borders: row_class, column_class, correction: ``correction[row_class[y], column_class[x], k]``
            is what the border, taken as signs, adds to the sum of filter k at (y, x) and must not.
        norm: scale and shift, [K'] with K' <= K channels.
        act: slope and after, [K'].
        shortcut: like ``out``, or anything if not ``has_shortcut``.
        add: add to what is in ``out`` instead of replacing it.
        out: [N, H', W', K'].
    """
    stride_y, stride_x = strides
    padded_height, padded_width, per_pixel = words.shape[1:]
    height, width = out.shape[1:3]
    filters = weights.shape[1]
    counts = np.empty(width * filters, np.int32)
    for row in range(first, last):
        n, y = row // height, row % height
        start = ((n * padded_height + y * stride_y) * padded_width) * per_pixel
        _count_row(words, start, weights, counts, offsets, length, width, stride_x * per_pixel)
        _finish_row(counts, filters, n, y, total, borders, norm, shortcut, has_shortcut, act, add, out)


@_kernel
def pack(first, last, values, scales, thresholds, border, words):
    """Signs of ``values`` [N, H, W, C], + where value * scale > threshold, into ``words``.

    Args:
        scales, thresholds: [C].
        border: (top, left): where in ``words`` the map begins. The border itself is left alone.
    """
    top, left = border
    height, width, channels = values.shape[1:]
    per_pixel = words.shape[3]
    for row in range(first, last):
        n, y = row // height, row % height
        for x in range(width):
            at = (row * width + x) * channels
            for i in range(per_pixel):
                words[n, y + top, x + left, i] = signs_of_64(
                    address(values, at + i * 64),
                    address(scales, i * 64),
                    address(thresholds, i * 64),
                    min(64, channels - i * 64),
                )


@njit(inline="always")
def _depthwise_pixels(values, start, pixels, weights, offsets, rows, taps, step, shift, slope, sums, at):
    """Depthwise sums of ``pixels`` positions with the same taps, into ``sums`` from position at."""
    channels = weights.shape[1]
    for c in range(0, channels, 16):
        w, s, a = address(weights, c), address(shift, c), address(slope, c)
        o, r = address(offsets, 0), address(rows, 0)
        n = min(16, channels - c)
        p = 0
        while p < pixels:
            x = address(values, start + p * step + c)
            y = address(sums, (at + p) * channels + c)
            if pixels - p >= 4:
                if n == 16:
                    _depthwise_4(x, w, s, a, y, o, r, taps, step, channels, channels, n)
                else:
                    _depthwise_4_part(x, w, s, a, y, o, r, taps, step, channels, channels, n)
                p += 4
            else:
                if n == 16:
                    _depthwise_1(x, w, s, a, y, o, r, taps, step, channels, channels, n)
                else:
                    _depthwise_1_part(x, w, s, a, y, o, r, taps, step, channels, channels, n)
                p += 1


@njit(inline="always")
def _depthwise_row(values, n, y, weights, geometry, shifts, slope, sums, offsets, tap_rows):
    """One row of a depthwise convolution, + shift, PReLU, into ``sums`` [W', C]; see :func:`separable`."""
    height, width, channels = values.shape[1:]
    (rows, columns), strides, padding, dilation = geometry
    row_class, column_class, shift = shifts
    top = y * strides[0] - padding[0]
    origin = (n * height + top) * width * channels
    out_width = len(column_class)
    # From and to where all columns of the kernel lie inside the map.
    inner = min(out_width, -(-padding[1] // strides[1]))
    outer = (width - 1 - dilation[1] * (columns - 1) + padding[1]) // strides[1] + 1
    outer = max(inner, min(out_width, outer))
    x = 0
    while x < out_width:
        left = x * strides[1] - padding[1]
        taps = 0
        for i in range(rows):
            if 0 <= top + i * dilation[0] < height:
                for j in range(columns):
                    if 0 <= left + j * dilation[1] < width:
                        offsets[taps] = (i * dilation[0] * width + j * dilation[1]) * channels
                        tap_rows[taps] = i * columns + j
                        taps += 1
        pixels = outer - inner if x == inner and outer > inner else 1
        start, step = origin + left * channels, strides[1] * channels
        at_border = shift[row_class[y], column_class[x]]
        _depthwise_pixels(values, start, pixels, weights, offsets, tap_rows, taps, step, at_border, slope, sums, x)
        x += pixels


@_kernel
def separable(
    first,
    last,
    values,
    weights,
    geometry,
    shifts,
    inner,
    point_weights,
    zero,
    borders,
    norm,
    has_shortcut,
    act,
    add,
    out,
):
    """Depthwise convolution of real values, shift, PReLU, sign, 1x1 1-bit convolution.

    Args:
        values: [N, H, W, C]; also the shortcut.
        weights: [taps, C] of the depthwise convolution, batch norms folded in.
        geometry: its kernel, strides, padding and dilation, (rows, columns) each.
        shifts: row_class, column_class, shift: ``shift[row_class[y], column_class[x], c]`` is what the
            batch norms add, which at the border depends on the taps that lie inside.
        inner: slope, scales, thresholds: [C], of its PReLU and of the sign, as :func:`pack`.
        point_weights: [ceil(C / 64), K], see :func:`convolve`; so are the rest.
        zero: [1], and borders, all 0: no border.
    """
    slope, scales, thresholds = inner
    height, width, channels = out.shape[1:]
    filters, per_pixel = point_weights.shape[1], point_weights.shape[0]
    sums = np.empty((width, channels), np.float32)
    words = np.empty((width, per_pixel), np.uint64)
    counts = np.empty(width * filters, np.int32)
    offsets = np.empty(len(weights), np.int64)
    tap_rows = np.empty(len(weights), np.int64)
    for row in range(first, last):
        n, y = row // height, row % height
        _depthwise_row(values, n, y, weights, geometry, shifts, slope, sums, offsets, tap_rows)
        for x in range(width):
            for i in range(per_pixel):
                words[x, i] = signs_of_64(
                    address(sums, x * channels + i * 64),
                    address(scales, i * 64),
                    address(thresholds, i * 64),
                    min(64, channels - i * 64),
                )
        _count_row(words, 0, point_weights, counts, zero, per_pixel, width, per_pixel)
        _finish_row(counts, filters, n, y, channels, borders, norm, values, has_shortcut, act, add, out)


@_kernel
def pool(first, last, values, largest, stride, scale, shift, add, out):
    """3x3 max (if ``largest``) or average pooling of real values, padding excluded; scale, shift.

    Args:
        values: [N, H, W, C].
        scale, shift: [C].
        add: add to what is in ``out`` instead of replacing it.
        out: [N, H', W', C].
    """
    in_height, in_width, channels = values.shape[1:]
    height, width = out.shape[1:3]
    sums = np.empty(channels, np.float32)
    for row in range(first, last):
        n, y = row // height, row % height
        top, bottom = max(0, y * stride - 1), min(in_height, y * stride + 2)
        for x in range(width):
            left, right = max(0, x * stride - 1), min(in_width, x * stride + 2)
            sums[:] = -np.inf if largest else 0
            for at_y in range(top, bottom):
                for at_x in range(left, right):
                    value = values[n, at_y, at_x]
                    if largest:
                        for c in range(channels):
                            sums[c] = value[c] if value[c] > sums[c] else sums[c]
                    else:
                        for c in range(channels):
                            sums[c] += value[c]
            share = np.float32(1 if largest else (bottom - top) * (right - left))
            result = out[n, y, x]
            for c in range(channels):
                value = sums[c] / share * scale[c] + shift[c]
                result[c] = result[c] + value if add else value


_lookups_4_2 = make_lookups(4, 2)
_lookups_4_1 = make_lookups(4, 1)
_lookups_1_1 = make_lookups(1, 1)
#: Groups of four channels whose tables, for four positions, fit the first cache.
_GROUPS = 72


@_kernel
def project(first, last, values, in_scale, codes, scale, shift, slope, add, out):
    """1x1 convolution of 1-bit weights with real values by table lookup: AVX-512 only.

    The 16 sums that four channels can make with any signs are formed once per position, and every
    output channel picks one by the 4 bits of its weights: a lookup and an addition instead of four
    multiplications (the idea of T-MAC, Wei et al., 2024, with float tables).

    Args:
        first, last: positions instead of rows.
        values: [positions, 4 * groups]; channels beyond the real ones need ``in_scale`` 0.
        in_scale: [4 * groups].
        codes: [groups, K] of 0 to 15, bit i for channel 4 g + i; K is a multiple of 16.
        scale, shift, slope: [K'] with K' <= K: ``out = PReLU(scale * sum + shift; slope)``.
        add: add to what is in ``out`` instead of replacing it.
        out: [positions, K'].
    """
    groups, filters = codes.shape
    channels = out.shape[1]
    tables = np.empty((4, _GROUPS * 16), np.float32)
    sums = np.empty((4, filters), np.float32)
    p = first
    while p < last:
        count = 4 if last - p >= 4 else 1
        sums[:] = 0
        for begin in range(0, groups, _GROUPS):
            some = min(_GROUPS, groups - begin)
            for i in range(count):
                g = 0
                while g < some:
                    x = address(values, (p + i) * groups * 4 + (begin + g) * 4)
                    s = address(in_scale, (begin + g) * 4)
                    table = address(tables, (i * _GROUPS + g) * 16)
                    if some - g >= 4:
                        sums_of_sixteen(x, s, table)
                        g += 4
                    else:
                        sums_of_four(x, s, table)
                        g += 1
            t = address(tables, 0)
            k = 0
            while k < filters:
                c, s = address(codes, begin * filters + k), address(sums, k)
                if count == 4 and filters - k >= 32:
                    _lookups_4_2(t, c, s, some, _GROUPS * 16, filters, filters)
                    k += 32
                elif count == 4:
                    _lookups_4_1(t, c, s, some, _GROUPS * 16, filters, filters)
                    k += 16
                else:
                    _lookups_1_1(t, c, s, some, _GROUPS * 16, filters, filters)
                    k += 16
        for i in range(count):
            result, found = out[p + i], sums[i]
            for k in range(channels):
                value = _prelu(found[k] * scale[k] + shift[k], slope[k])
                result[k] = result[k] + value if add else value
        p += count
