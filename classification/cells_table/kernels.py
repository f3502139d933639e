"""Training passes over the maps of narrow cell networks on one CPU thread (numba).

Maps are [C, N, H, W], the channels outermost: a batch norm works on one long row per channel, a 1x1 convolution is
one product of matrices, and a plane of a depthwise convolution fits into the first cache. What stands between two batch
norms is computed in one pass. Every function serves float32 and float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

MOMENTUM = 0.1  # of running statistics, torch's default
EPSILON = 1e-5  # likewise


def _compiled(function: Callable) -> Any:
    options = dict(fastmath=True, error_model="numpy", nogil=True)
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that could be written
        return njit(**options)(function)


@_compiled
def moments(x, mean, variance):
    """Mean and biased variance of every channel of ``x`` [C, M]."""
    channels, length = x.shape
    for c in range(channels):
        row = x[c]
        s = row[0] - row[0]
        q = s
        for i in range(length):
            s += row[i]
            q += row[i] * row[i]
        centre = s / length
        mean[c] = centre
        variance[c] = max(q / length - centre * centre, 0.0)


@_compiled
def keep_running(mean, variance, count, running_mean, running_variance):
    """Let running statistics follow those of a batch with ``count`` values a channel."""
    unbiased = count / max(count - 1, 1)
    for c in range(len(mean)):
        running_mean[c] += MOMENTUM * (mean[c] - running_mean[c])
        running_variance[c] += MOMENTUM * (variance[c] * unbiased - running_variance[c])


@_compiled
def affine(mean, variance, gamma, beta, scale, shift, inverse):
    """What a batch norm multiplies by and adds, and 1 / sigma."""
    for c in range(len(mean)):
        inverse[c] = 1 / np.sqrt(variance[c] + EPSILON)
        scale[c] = gamma[c] * inverse[c]
        shift[c] = beta[c] - mean[c] * scale[c]


@_compiled
def norm_prelu(z, scale, shift, slope, added, out):
    """PReLU(scale z + shift + added) of [C, M]; ``slope`` 1 for none, ``added`` of no length for nothing."""
    channels, length = z.shape
    one = out.dtype.type(1)
    zero = one - one
    for c in range(channels):
        a, b, s = scale[c], shift[c], slope[c]
        row, to = z[c], out[c]
        if added.shape[0]:
            plus = added[c]
            for i in range(length):
                v = a * row[i] + b + plus[i]
                to[i] = v if v > zero else s * v
        else:
            for i in range(length):
                v = a * row[i] + b
                to[i] = v if v > zero else s * v
    return out


@_compiled
def norm_prelu_backward(grad, z, scale, shift, slope, added, mean, inverse, to_v, to_slope, to_beta, to_gamma):
    """Of :func:`norm_prelu`, the gradient ``to_v`` [C, M] before the PReLU, and those to parameters."""
    channels, length = z.shape
    zero = z.dtype.type(0)
    for c in range(channels):
        a, b, s, centre = scale[c], shift[c], slope[c], mean[c]
        row, g, to = z[c], grad[c], to_v[c]
        p = zero
        q = zero
        r = zero
        if added.shape[0]:
            plus = added[c]
            for i in range(length):
                v = a * row[i] + b + plus[i]
                negative = zero if v > zero else g[i]
                d = g[i] if v > zero else s * g[i]
                r += negative * v
                to[i] = d
                p += d
                q += d * (row[i] - centre)
        else:
            for i in range(length):
                v = a * row[i] + b
                negative = zero if v > zero else g[i]
                d = g[i] if v > zero else s * g[i]
                r += negative * v
                to[i] = d
                p += d
                q += d * (row[i] - centre)
        to_slope[c] = r
        to_beta[c] = p
        to_gamma[c] = q * inverse[c]


@_compiled
def norm_backward(to_v, z, scale, mean, inverse, to_beta, to_gamma, out):
    """From the gradient after a batch norm over [C, M] to that before it; ``out`` may be ``to_v``."""
    channels, length = z.shape
    for c in range(channels):
        a, centre = scale[c], mean[c]
        b = a * inverse[c] * to_gamma[c] / length
        m = a * to_beta[c] / length
        a, b, m = out.dtype.type(a), out.dtype.type(b), out.dtype.type(m)
        row, g, to = z[c], to_v[c], out[c]
        for i in range(length):
            to[i] = a * g[i] - m - b * (row[i] - centre)


@_compiled
def norm_backward_added(to_v, z, scale, mean, inverse, to_beta, to_gamma, added, out):
    """:func:`norm_backward` plus the gradient ``added`` [C, M] that comes by the shortcut."""
    channels, length = z.shape
    for c in range(channels):
        a, centre = scale[c], mean[c]
        b = a * inverse[c] * to_gamma[c] / length
        m = a * to_beta[c] / length
        a, b, m = out.dtype.type(a), out.dtype.type(b), out.dtype.type(m)
        row, g, plus, to = z[c], to_v[c], added[c], out[c]
        for i in range(length):
            to[i] = a * g[i] - m - b * (row[i] - centre) + plus[i]


@_compiled
def sign_prelu(t, scale, shift, slope, out):
    """sign(PReLU(scale t + shift)) of [C, M], where 0 is -1."""
    channels, length = t.shape
    one = out.dtype.type(1)
    zero = one - one
    for c in range(channels):
        a, b, s = scale[c], shift[c], slope[c]
        row, to = t[c], out[c]
        for i in range(length):
            v = a * row[i] + b
            u = v if v > zero else s * v
            to[i] = one if u > zero else -one


@_compiled
def sign_prelu_backward(grad, t, scale, shift, slope, mean, inverse, to_v, to_slope, to_beta, to_gamma):
    """Of :func:`sign_prelu` with the clipped straight-through gradient; see :func:`norm_prelu_backward`."""
    channels, length = t.shape
    one = t.dtype.type(1)
    zero = one - one
    for c in range(channels):
        a, b, s, centre = scale[c], shift[c], slope[c], mean[c]
        row, g, to = t[c], grad[c], to_v[c]
        p = zero
        q = zero
        r = zero
        for i in range(length):
            v = a * row[i] + b
            u = v if v > zero else s * v
            h = g[i] if u <= one else zero
            h = h if u >= -one else zero
            negative = zero if v > zero else h
            d = h if v > zero else s * h
            r += negative * v
            to[i] = d
            p += d
            q += d * (row[i] - centre)
        to_slope[c] = r
        to_beta[c] = p
        to_gamma[c] = q * inverse[c]


@_compiled
def _correlate(padded, kernel, dilation, width, count, out):
    """out[j] = sum of kernel[y, x] padded[j + dilation (y width + x)], for a 3x3 or a 5x5 kernel."""
    size = kernel.shape[0]
    for y in range(size):
        base = y * dilation * width
        p0 = padded[base:]
        p1 = padded[base + dilation :]
        p2 = padded[base + 2 * dilation :]
        k0, k1, k2 = kernel[y, 0], kernel[y, 1], kernel[y, 2]
        if size == 3:
            if y == 0:
                for j in range(count):
                    out[j] = k0 * p0[j] + k1 * p1[j] + k2 * p2[j]
            else:
                for j in range(count):
                    out[j] += k0 * p0[j] + k1 * p1[j] + k2 * p2[j]
        else:
            p3 = padded[base + 3 * dilation :]
            p4 = padded[base + 4 * dilation :]
            k3, k4 = kernel[y, 3], kernel[y, 4]
            if y == 0:
                for j in range(count):
                    out[j] = k0 * p0[j] + k1 * p1[j] + k2 * p2[j] + k3 * p3[j] + k4 * p4[j]
            else:
                for j in range(count):
                    out[j] += k0 * p0[j] + k1 * p1[j] + k2 * p2[j] + k3 * p3[j] + k4 * p4[j]


@_compiled
def _products(padded, grad, dilation, width, count, size, out):
    """out[y, x] += sum over j of grad[j] padded[j + dilation (y width + x)]."""
    for y in range(size):
        base = y * dilation * width
        p0 = padded[base:]
        p1 = padded[base + dilation :]
        p2 = padded[base + 2 * dilation :]
        s0 = grad[0] - grad[0]
        s1 = s0
        s2 = s0
        if size == 3:
            for j in range(count):
                g = grad[j]
                s0 += g * p0[j]
                s1 += g * p1[j]
                s2 += g * p2[j]
        else:
            p3 = padded[base + 3 * dilation :]
            p4 = padded[base + 4 * dilation :]
            s3 = s0
            s4 = s0
            for j in range(count):
                g = grad[j]
                s0 += g * p0[j]
                s1 += g * p1[j]
                s2 += g * p2[j]
                s3 += g * p3[j]
                s4 += g * p4[j]
            out[y, 3] += s3
            out[y, 4] += s4
        out[y, 0] += s0
        out[y, 1] += s1
        out[y, 2] += s2


@_compiled
def norm_depthwise(x, scale, shift, kernels, dilation, stride, out):
    """Depthwise convolution of scale x + shift [C, N, H, W], padded with zeros, with ``kernels`` [C, k, k]."""
    channels, images, height, width = x.shape
    pad = dilation * (kernels.shape[1] - 1) // 2
    wide = width + 2 * pad
    count = height * wide
    padded = np.zeros((height + 2 * pad) * wide + 2 * pad, x.dtype)
    sums = np.empty(count, x.dtype)
    for c in range(channels):
        a, b = scale[c], shift[c]
        for n in range(images):
            for y in range(height):
                start = (y + pad) * wide + pad
                row, to = x[c, n, y], padded[start : start + width]
                for i in range(width):
                    to[i] = a * row[i] + b
            _correlate(padded, kernels[c], dilation, wide, count, sums)
            for y in range(out.shape[2]):
                start = y * stride * wide
                to = out[c, n, y]
                if stride == 1:
                    row = sums[start : start + width]
                    for i in range(width):
                        to[i] = row[i]
                else:
                    for i in range(out.shape[3]):
                        to[i] = sums[start + i * stride]


@_compiled
def norm_depthwise_backward(
    x, scale, shift, mean, inverse, kernels, dilation, stride, grad, out, to_kernels, to_beta, to_gamma
):
    """Of :func:`norm_depthwise`: ``out`` is the gradient to scale x + shift, and those to parameters."""
    channels, images, height, width = x.shape
    size = kernels.shape[1]
    pad = dilation * (size - 1) // 2
    wide = width + 2 * pad
    count = height * wide
    padded = np.zeros((height + 2 * pad) * wide + 2 * pad, x.dtype)
    gradient = np.zeros((height + 2 * pad) * wide + 2 * pad, x.dtype)
    inner = gradient[pad * wide + pad :]
    sums = np.empty(count, x.dtype)
    flipped = np.empty((size, size), x.dtype)
    zero = x.dtype.type(0)
    for c in range(channels):
        a, b, centre = scale[c], shift[c], mean[c]
        total = 0.0
        products = 0.0
        for y in range(size):
            for i in range(size):
                flipped[y, i] = kernels[c, size - 1 - y, size - 1 - i]
                to_kernels[c, y, i] = 0
        for n in range(images):
            for y in range(height):
                start = (y + pad) * wide + pad
                row, to = x[c, n, y], padded[start : start + width]
                for i in range(width):
                    to[i] = a * row[i] + b
            for y in range(grad.shape[2]):
                start = (y * stride + pad) * wide + pad
                row, to = grad[c, n, y], gradient[start : start + width]
                if stride == 1:
                    for i in range(width):
                        to[i] = row[i]
                else:
                    for i in range(grad.shape[3]):
                        to[i * stride] = row[i]
            _products(padded, inner, dilation, wide, count, size, to_kernels[c])
            _correlate(gradient, flipped, dilation, wide, count, sums)
            p = zero
            q = zero
            for y in range(height):
                row, from_, to = x[c, n, y], sums[y * wide : y * wide + width], out[c, n, y]
                for i in range(width):
                    d = from_[i]
                    to[i] = d
                    p += d
                    q += d * (row[i] - centre)
            total += p
            products += q
        to_beta[c] = total
        to_gamma[c] = products * inverse[c]


@_compiled
def subtract_scaled(out, x, mean, factor):
    """out -= factor (x - mean) of [C, M]."""
    channels, length = x.shape
    for c in range(channels):
        f, centre = factor[c], mean[c]
        row, to = x[c], out[c]
        for i in range(length):
            to[i] -= f * (row[i] - centre)


@_compiled
def _divisors(height, width, out):
    """1 / the pixels of a map that a 3x3 window sees, at every place of its padded rows; 0 beside the map."""
    wide = width + 2
    for y in range(height):
        rows = min(y + 2, height) - max(y - 1, 0)
        for i in range(wide):
            columns = min(i + 2, width) - max(i - 1, 0)
            out[y * wide + i] = 1 / (rows * columns) if i < width else 0


@_compiled
def pool(x, largest, stride, out):
    """3x3 pooling of [C, N, H, W], of the largest or the mean; what lies beside the map counts for neither."""
    channels, images, height, width = x.shape
    wide = width + 2
    count = height * wide
    padded = np.full((height + 2) * wide + 2, -1e30 if largest else 0.0).astype(x.dtype)
    values = np.empty(count, x.dtype)
    divisors = np.empty(count, x.dtype)
    _divisors(height, width, divisors)
    ones = np.ones((3, 3), x.dtype)
    for c in range(channels):
        for n in range(images):
            for y in range(height):
                start = (y + 1) * wide + 1
                row, to = x[c, n, y], padded[start : start + width]
                for i in range(width):
                    to[i] = row[i]
            if largest:
                for y in range(3):
                    p0, p1, p2 = padded[y * wide :], padded[y * wide + 1 :], padded[y * wide + 2 :]
                    for j in range(count):
                        u = p0[j] if p0[j] > p1[j] else p1[j]
                        u = u if u > p2[j] else p2[j]
                        if y == 0:
                            values[j] = u
                        else:
                            values[j] = u if u > values[j] else values[j]
            else:
                _correlate(padded, ones, 1, wide, count, values)
                for j in range(count):
                    values[j] *= divisors[j]
            for y in range(out.shape[2]):
                start = y * stride * wide
                to = out[c, n, y]
                for i in range(out.shape[3]):
                    to[i] = values[start + i * stride]


@_compiled
def pool_backward(x, pooled, largest, stride, grad, out):
    """Of :func:`pool`; of equal largest values the first one, row by row, has the gradient, as in torch."""
    channels, images, height, width = x.shape
    wide = width + 2
    count = height * wide
    padded = np.full((height + 2) * wide + 2, -1e30 if largest else 0.0).astype(x.dtype)
    gradient = np.zeros((height + 2) * wide + 2, x.dtype)
    to_padded = np.zeros((height + 2) * wide + 2, x.dtype)
    inner = gradient[wide + 1 :]
    left = np.zeros(count, x.dtype)
    values = np.zeros(count, x.dtype)
    divisors = np.empty(count, x.dtype)
    _divisors(height, width, divisors)
    ones = np.ones((3, 3), x.dtype)
    zero = x.dtype.type(0)
    for c in range(channels):
        for n in range(images):
            if largest:
                for y in range(height):
                    start = (y + 1) * wide + 1
                    row, to = x[c, n, y], padded[start : start + width]
                    for i in range(width):
                        to[i] = row[i]
                for y in range(grad.shape[2]):
                    start = y * stride * wide
                    for i in range(grad.shape[3]):
                        left[start + i * stride] = grad[c, n, y, i]
                        values[start + i * stride] = pooled[c, n, y, i]
                to_padded[:] = zero
                for tap in range(9):
                    offset = (tap // 3) * wide + tap % 3
                    p, to = padded[offset:], to_padded[offset:]
                    for j in range(count):
                        g = left[j] if p[j] == values[j] else zero
                        to[j] += g
                        left[j] -= g
                for y in range(height):
                    start = (y + 1) * wide + 1
                    row, to = to_padded[start : start + width], out[c, n, y]
                    for i in range(width):
                        to[i] = row[i]
            else:
                for y in range(grad.shape[2]):
                    start = y * stride * wide
                    for i in range(grad.shape[3]):
                        inner[start + i * stride] = grad[c, n, y, i] * divisors[start + i * stride]
                _correlate(gradient, ones, 1, wide, count, values)
                for y in range(height):
                    row, to = values[y * wide : y * wide + width], out[c, n, y]
                    for i in range(width):
                        to[i] = row[i]
