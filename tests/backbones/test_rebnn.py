"""ReBNN against its formulas in numpy, float64, over the steps of a training."""

import numpy as np
import pytest
import torch

from onebit.backbones import OneBitConv2d
from onebit.backbones.packed import deploy
from tests.backbones.reference import np_conv, np_sign

GEOMETRY = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, pad_value=0)


def per_filter(values):
    return values.sum(axis=(1, 2, 3), keepdims=True)


def np_gradients(w, m, g, share):
    """Of |m| and w for the gradient g of the binarized weights."""
    largest = np.abs(g).max(axis=(1, 2, 3), keepdims=True)
    gamma = np.clip(share * largest, 1e-5, 2e-4)
    residual = w - 0.02 * np.abs(m) * np_sign(w)
    to_w = gamma * residual + g * np.abs(m)
    to_m = per_filter(g * w) - gamma * per_filter(residual * 0.02 * np_sign(w))
    return to_w, to_m * np.sign(m), gamma


def test_steps_of_a_training_against_the_formula():
    rng = np.random.default_rng(0)
    conv = OneBitConv2d(4, 5, 3, padding=1, binarizer="rebnn").double()
    quantizer = conv.quantize_weight
    m = quantizer.modulator.detach().numpy()
    w = conv.weight.detach().numpy().copy()
    shares, gammas = np.zeros((5, 1, 1, 1)), []
    for step, flips in enumerate([[0] * 5, [0, 1, 6, 20, 36], [0] * 5, [3, 0, 0, 2, 9]]):
        for filter_, count in zip(w, flips, strict=True):
            chosen = rng.choice(filter_.size, count, replace=False)
            filter_.flat[chosen] *= -1
        if any(flips):
            shares = np.array(flips).reshape(-1, 1, 1, 1) / 36
        conv.weight.data.copy_(torch.from_numpy(w))
        x = rng.normal(size=(2, 4, 4, 4))
        conv.zero_grad()
        y = conv(torch.from_numpy(x))
        g = rng.normal(size=tuple(y.shape)) * 1e-5
        y.backward(torch.from_numpy(g))
        expected, _, to_quantized = np_conv(np_sign(x), 0.02 * np.abs(m) * np_sign(w), g, **GEOMETRY)
        to_w, to_m, gamma = np_gradients(w, m, to_quantized, shares)
        gammas.append(gamma.flatten())
        np.testing.assert_allclose(y.detach(), expected, rtol=1e-10, atol=1e-14, err_msg=f"step {step}")
        np.testing.assert_allclose(conv.weight.grad, to_w, rtol=1e-9)
        np.testing.assert_allclose(quantizer.modulator.grad, to_m, rtol=1e-7)
    assert np.allclose(gammas[0], 1e-5)
    assert len({*gammas[1]}) > 2  # some between the bounds
    np.testing.assert_array_equal(quantizer.flips.flatten(), [3 / 36, 0, 0, 2 / 36, 9 / 36])


def test_evaluation_counts_no_flips_and_a_resumed_training_counts_the_same():
    torch.manual_seed(0)
    conv, again = (OneBitConv2d(4, 4, 3, binarizer="rebnn") for _ in range(2))
    x = torch.randn(2, 4, 6, 6)
    conv(x)
    with torch.no_grad():
        conv.weight[0].neg_()
    again.load_state_dict(conv.state_dict())  # written after a step, before the next forward
    before = conv.quantize_weight.positive.clone()
    conv.eval()(x)
    assert torch.equal(conv.quantize_weight.positive, before)
    for each in (conv.train(), again):
        each(x)
        assert each.quantize_weight.flips.flatten().tolist() == [1, 0, 0, 0]
        each(x)  # as gradient checkpointing runs it a second time
        assert each.quantize_weight.flips.flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("scale", [1e-3, 1.0])
def test_packed_form(scale):
    torch.manual_seed(0)
    conv = OneBitConv2d(70, 6, 3, padding=1, binarizer="rebnn").eval()
    with torch.no_grad():
        conv.quantize_weight.modulator.mul_(scale)
        x = torch.randn(1, 70, 5, 5)
        torch.testing.assert_close(deploy(conv)(x), conv(x), rtol=1e-5, atol=1e-5 * scale)
