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

from backbones.packed._vector import address, make_differences, signs_of_64

#: Output channels are padded to a multiple of this, and computed so many at a time or twice that.
LANES = 8

# Registers: 32 of 512 bits, or 16 of 256 (and 32 of 128 on ARM), of which most hold sums.
if "+avx512f" in (config.CPU_FEATURES or binding.get_host_cpu_features().flatten()).split(","):
    PIXELS, VECTORS = 7, 2
else:
    PIXELS, VECTORS = 4, 1

_many_by_many = make_differences(PIXELS, VECTORS, LANES)
_many_by_one = make_differences(PIXELS, 1, LANES)
_one_by_many = make_differences(1, VECTORS, LANES)
_one_by_one = make_differences(1, 1, LANES)

_OPTIONS = dict(nogil=True, fastmath={"contract"}, boundscheck=False, error_model="numpy")


def _kernel(function: Callable) -> Callable:
    """Compile at the first call, and keep the machine code on disk where a folder can be written.

    The code of :mod:`backbones.packed._vector` is part of it without numba's knowing: whoever
    changes that file has to touch this one.
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
    return max(value, np.float32(0)) + slope * min(value, np.float32(0))


@_kernel
def convolve(
    first, last, words, weights, offsets, length, strides, total, row_class, column_class,
    correction, scale, shift, shortcut, has_shortcut, slope, after, add, out
):  # fmt: skip
    """1-bit convolution, then per channel: scale, shift, + shortcut, PReLU, + after.

    Args:
        words: [N, H + borders, W + borders, ceil(C / 64)], packed signs.
        weights: [taps * ceil(C / 64), K], packed filters; K is padded to a multiple of LANES.
        offsets, length: where, counted in words from a position's first one, the segments of its
            patch begin, and the words of each.
        strides: of rows and columns.
        total: values in a patch, taps * C.
        row_class, column_class, correction: ``correction[row_class[y], column_class[x], k]`` is
            what the border, taken as signs, adds to the sum of filter k at (y, x) and must not.
        scale, shift, slope, after: [K'] with K' <= K channels.
        shortcut: like ``out``, or anything if not ``has_shortcut``.
        add: add to what is in ``out`` instead of replacing it.
        out: [N, H', W', K'].
    """
    stride_y, stride_x = strides
    padded_height, padded_width, per_pixel = words.shape[1:]
    height, width, channels = out.shape[1:]
    filters = weights.shape[1]
    counts = np.empty(width * filters, np.int32)
    for row in range(first, last):
        n, y = row // height, row % height
        start = ((n * padded_height + y * stride_y) * padded_width) * per_pixel
        _count_row(words, start, weights, counts, offsets, length, width, stride_x * per_pixel)
        for x in range(width):
            border = correction[row_class[y], column_class[x]]
            here = counts[x * filters : x * filters + channels]
            result = out[n, y, x]
            around = shortcut[n, y, x] if has_shortcut else result
            for k in range(channels):
                value = np.float32(total - 2 * here[k] - border[k]) * scale[k] + shift[k]
                if has_shortcut:
                    value += around[k]
                value = _prelu(value, slope[k]) + after[k]
                result[k] = result[k] + value if add else value


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


@_kernel
def depthwise(
    first, last, values, weights, taps, strides, row_class, column_class, shift, slope, scales,
    thresholds, words
):  # fmt: skip
    """Depthwise convolution of real values, + shift, PReLU, then signs as :func:`pack` makes them.

    Args:
        values: [N, H, W, C].
        weights: [taps, C], batch norms folded in.
        taps: [taps, 2], row and column of each tap relative to a position times its stride.
        shift: ``shift[row_class[y], column_class[x], c]``: what the batch norms add, which at the
            border depends on the taps that lie inside.
        slope, scales, thresholds: [C].
        words: [N, H', W', ceil(C / 64)].
    """
    stride_y, stride_x = strides
    in_height, in_width, channels = values.shape[1:]
    height, width, per_pixel = words.shape[1:]
    sums = np.empty(channels, np.float32)
    for row in range(first, last):
        n, y = row // height, row % height
        for x in range(width):
            start = shift[row_class[y], column_class[x]]
            for c in range(channels):
                sums[c] = start[c]
            for t in range(len(taps)):
                at_y, at_x = y * stride_y + taps[t, 0], x * stride_x + taps[t, 1]
                if 0 <= at_y < in_height and 0 <= at_x < in_width:
                    value, weight = values[n, at_y, at_x], weights[t]
                    for c in range(channels):
                        sums[c] += value[c] * weight[c]
            for c in range(channels):
                sums[c] = _prelu(sums[c], slope[c])
            for i in range(per_pixel):
                words[n, y, x, i] = signs_of_64(
                    address(sums, i * 64),
                    address(scales, i * 64),
                    address(thresholds, i * 64),
                    min(64, channels - i * 64),
                )


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
                            sums[c] = max(sums[c], value[c])
                    else:
                        for c in range(channels):
                            sums[c] += value[c]
            share = np.float32(1 if largest else (bottom - top) * (right - left))
            result = out[n, y, x]
            for c in range(channels):
                value = sums[c] / share * scale[c] + shift[c]
                result[c] = result[c] + value if add else value


@_kernel
def activate(first, last, slope, values):
    """PReLU in place, on the positions from ``first`` to ``last`` of values [positions, C]."""
    for p in range(first, last):
        row = values[p]
        for c in range(len(row)):
            row[c] = _prelu(row[c], slope[c])
