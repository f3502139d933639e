"""RBONN against its formulas in numpy, float64, over the steps of a training."""

import numpy as np
import torch

from onebit.backbones import OneBitConv2d
from onebit.backbones.packed import deploy
from tests.backbones.reference import np_conv, np_sign

GEOMETRY = dict(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, pad_value=0)


def per_filter(values):
    return values.sum(axis=(1, 2, 3), keepdims=True)


def test_steps_of_a_training_against_the_formula():
    rng = np.random.default_rng(0)
    conv = OneBitConv2d(3, 7, 3, binarizer="rbonn").double()
    quantizer = conv.quantize_weight
    m = rng.normal(size=(7, 1, 1, 1))
    quantizer.modulator.data.copy_(torch.from_numpy(m))
    # int(7 * 0.4) filters of the smallest scales.
    back = np.zeros((7, 1, 1, 1), bool)
    back[np.argsort(np.abs(m).flatten())[:2]] = True
    gradient = np.zeros((7, 3, 3, 3))
    for step in range(3):
        w = rng.normal(size=(7, 3, 3, 3))
        u = rng.uniform(0.1, 0.5, (7, 1, 1, 1))
        conv.weight.data.copy_(torch.from_numpy(w))
        quantizer.recurrence.data.copy_(torch.from_numpy(u))
        x = rng.normal(size=(2, 3, 5, 4))
        conv.zero_grad()
        y = conv(torch.from_numpy(x))
        g = rng.normal(size=tuple(y.shape))
        y.backward(torch.from_numpy(g))

        v = w - u * gradient * back
        expected, _, to_quantized = np_conv(np_sign(x), 0.02 * np.abs(m) * np_sign(v), g, **GEOMETRY)
        residual = v - 0.02 * np.abs(m) * np_sign(v)
        to_v = 1e-4 * residual + to_quantized * np.abs(m)
        to_m = per_filter(to_quantized * v) - 1e-4 * per_filter(residual * 0.02 * np_sign(v))
        np.testing.assert_allclose(y.detach(), expected, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(conv.weight.grad, to_v, rtol=1e-9)
        np.testing.assert_allclose(quantizer.modulator.grad, to_m * np.sign(m), rtol=1e-8)
        np.testing.assert_allclose(quantizer.recurrence.grad, -per_filter(to_v * gradient * back), rtol=1e-9)
        gradient = to_v
        if step:
            assert (np_sign(v) != np_sign(w))[back.flatten()].any()
            assert not (np_sign(v) != np_sign(w))[~back.flatten()].any()


def test_goes_back_after_a_step_only_and_not_in_evaluation():
    torch.manual_seed(0)
    conv = OneBitConv2d(4, 8, 3, binarizer="rbonn")
    x, optimizer = torch.randn(2, 4, 6, 6), torch.optim.SGD(conv.parameters(), lr=1e-3)

    def gradients():
        optimizer.zero_grad()
        y = conv(x)
        (y * torch.linspace(-30, 30, y.numel()).view_as(y)).sum().backward()
        return y.detach()

    first = gradients()
    assert torch.equal(gradients(), first)  # a second batch of the same step, or the same one again
    optimizer.step()
    again = OneBitConv2d(4, 8, 3, binarizer="rbonn")
    again.load_state_dict(conv.state_dict())
    with torch.no_grad():
        changed = conv(x)
        assert torch.equal(again(x), changed)  # a resumed training goes back the same way
        expected = conv.eval()(x)
        assert not torch.equal(changed, expected)
        torch.testing.assert_close(deploy(conv)(x), expected, rtol=1e-5, atol=1e-5)
