"""Convolutions in numpy, float64, one kernel tap at a time; and random cases for them."""

import numpy as np
from hypothesis import strategies as st


def np_sign(x):
    return np.where(x > 0, 1.0, -1.0)


def taps(kernel, dilation):
    return [(i, j, i * dilation[0], j * dilation[1]) for i in range(kernel[0]) for j in range(kernel[1])]


def np_conv(x, w, grad, stride, padding, dilation, groups, pad_value):
    """Convolution, and for a gradient of its output the gradients of both operands."""
    (n, c, h, width), (k, c_g, *kernel) = x.shape, w.shape
    padded = np.full((n, c, h + 2 * padding[0], width + 2 * padding[1]), float(pad_value))
    inner = (slice(None), slice(None), slice(padding[0], padding[0] + h), slice(padding[1], padding[1] + width))
    padded[inner] = x
    size = [(padded.shape[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)]
    y = np.zeros((n, k, *size))
    grad_padded, grad_w = np.zeros_like(padded), np.zeros_like(w)
    for group in range(groups):
        channels = slice(group * c_g, (group + 1) * c_g)
        filters = slice(group * k // groups, (group + 1) * k // groups)
        for i, j, top, left in taps(kernel, dilation):
            rows = slice(top, top + stride[0] * (size[0] - 1) + 1, stride[0])
            columns = slice(left, left + stride[1] * (size[1] - 1) + 1, stride[1])
            patch = padded[:, channels, rows, columns]
            tap = w[filters, :, i, j]
            y[:, filters] += np.einsum("nchw,kc->nkhw", patch, tap)
            grad_w[filters, :, i, j] = np.einsum("nchw,nkhw->kc", patch, grad[:, filters])
            grad_padded[:, channels, rows, columns] += np.einsum("nkhw,kc->nchw", grad[:, filters], tap)
    return y, grad_padded[inner], grad_w


def filter_mean(w):
    return w.mean(axis=(1, 2, 3), keepdims=True)


# --- gradients of estimates -------------------------------------------------------------------------


def near(smooth, x, x0):
    """sign(x0), with the derivative of ``smooth`` to x.

    A quantizer's gradient is an estimate: that of its formula with each sign replaced by a function whose derivative
    is the slope, the value of the sign itself held. Formulas are written with this, x0 = x being where they are
    looked at, and their gradients are central differences.
    """
    return np_sign(x0) + smooth(x) - smooth(x0)


def differences(function, at):
    """The gradient of a scalar function, by central differences."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = 1e-6
        gradient[index] = (function(at + step) - function(at - step)) / 2e-6
    return gradient


def away_from_kinks(rng, shape):
    """Random values of which none is near 0 or a multiple of 1/2, where slopes jump."""
    return rng.uniform(-3, 3, shape).round(1) + 0.033


# --- random cases ---------------------------------------------------------------------------------

#: Where formulas change: zeros of both signs, the clip at 1, just beyond it, far out.
CORNERS = np.array([0.0, -0.0, 1.0, -1.0, 1.125, -1.125, 0.5, -0.5, 3.0, -3.0])


def corner_or_random(rng, shape):
    """Multiples of 1/8, so that sums and power-of-two means are exact in float32 and float64."""
    values = rng.integers(-20, 21, shape) / 8
    return np.where(rng.random(shape) < 0.5, rng.choice(CORNERS, shape), values)


@st.composite
def cases(draw):
    groups = draw(st.sampled_from([1, 2, 4]))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    size = draw(st.tuples(st.integers(5, 8), st.integers(5, 8)))
    return dict(
        rng=np.random.default_rng(draw(st.integers(0, 2**32 - 1))),
        batch=draw(st.integers(1, 2)),
        channels=groups * draw(st.sampled_from([1, 2, 4])),
        filters=groups * draw(st.integers(1, 2)),
        size=size,
        kernel=kernel,
        binarize_input=draw(st.booleans()),
        geometry=dict(
            stride=draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            padding=draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
            dilation=dilation,
            groups=groups,
            pad_value=draw(st.sampled_from([0, -1, 1])),
        ),
    )
