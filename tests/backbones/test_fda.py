"""FDA-BNN against its formulas in numpy, float64: the series term by term, and the module that trainings add."""

import math

import numpy as np
import pytest
import torch

from onebit import backbones
from onebit.backbones import OneBitConv2d
from onebit.backbones.binarization.fda import fourier_slope
from onebit.backbones.packed import deploy
from tests.backbones.reference import away_from_kinks, differences, filter_mean, near, np_conv, np_sign


def series(x, progress):
    """4 / pi times the sum of sin((2 i + 1) omega x) / (2 i + 1), constant beyond 1."""
    x = np.clip(x, -1, 1)
    terms = range(9 + int(9 * progress) + 1)
    return 4 / math.pi * sum(np.sin((2 * i + 1) * 0.1 * x) / (2 * i + 1) for i in terms)


def adapted(rows, inner, outer):
    return np.maximum(rows @ inner.T, 0) @ outer.T + 0.1 * np.sin(rows)


def alpha(progress):
    return 0.05 * (1 + math.cos(math.pi * progress))


def np_weights(w, w0, inner, outer, progress):
    noise = adapted(w.reshape(len(w), -1), inner, outer).reshape(w.shape)
    return filter_mean(np.abs(w0)) * (near(lambda x: series(x, progress), w, w0) + alpha(progress) * noise)


def np_input(x, x0, inner, outer, progress):
    noise = np.moveaxis(adapted(np.moveaxis(x, 1, -1), inner, outer), -1, 1)
    return near(lambda u: series(u, progress), x, x0) + alpha(progress) * noise


@pytest.mark.parametrize("progress", [0.0, 0.4, 0.99])
def test_a_training_convolution_against_the_formula(progress):
    rng = np.random.default_rng(0)
    conv = OneBitConv2d(3, 2, 2, padding=1, binarizer="fda").double()
    backbones.set_progress(conv, progress)
    x, w = away_from_kinks(rng, (2, 3, 4, 3)), away_from_kinks(rng, (2, 3, 2, 2)) / 2
    conv.weight.data.copy_(torch.from_numpy(w))
    matrices = []
    for quantizer in (conv.quantize_input, conv.quantize_weight):
        for layer in (quantizer.noise.inner, quantizer.noise.outer):
            matrices.append(rng.normal(size=layer.weight.shape))
            layer.weight.data.copy_(torch.from_numpy(matrices[-1]))
    leaf = torch.from_numpy(x).requires_grad_()
    y = conv(leaf)
    g = rng.normal(size=tuple(y.shape))
    y.backward(torch.from_numpy(g))

    geometry = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, pad_value=0)
    of_x = [x, *matrices[:2]]
    of_w = [w, *matrices[2:]]
    expected, to_x, to_w = np_conv(
        np_input(x, x, *of_x[1:], progress), np_weights(w, w, *of_w[1:], progress), g, **geometry
    )
    np.testing.assert_allclose(y.detach(), expected, rtol=1e-10, atol=1e-12)
    found = [leaf.grad, *(q.weight.grad for q in conv.quantize_input.noise.children())]
    for index, grad in enumerate(found):

        def value(v, index=index):
            given = [v if place == index else old for place, old in enumerate(of_x)]
            return (to_x * np_input(given[0], x, *given[1:], progress)).sum()

        np.testing.assert_allclose(grad, differences(value, of_x[index]), rtol=1e-5, atol=1e-6)
    found = [conv.weight.grad, *(q.weight.grad for q in conv.quantize_weight.noise.children())]
    for index, grad in enumerate(found):

        def value(v, index=index):
            given = [v if place == index else old for place, old in enumerate(of_w)]
            return (to_w * np_weights(given[0], w, *given[1:], progress)).sum()

        np.testing.assert_allclose(grad, differences(value, of_w[index]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_slope_is_the_sum_of_its_terms_and_can_be_differentiated_again(progress):
    x = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64).requires_grad_()
    slope = fourier_slope(x, progress)
    terms = range(9 + int(9 * progress) + 1)
    inside = np.abs(x.detach().numpy()) <= 1
    at = 0.1 * x.detach().numpy()
    expected = 0.4 / math.pi * sum(np.cos((2 * i + 1) * at) for i in terms)
    np.testing.assert_allclose(slope.detach(), expected * inside, rtol=1e-12)
    slope.sum().backward()
    expected = -0.04 / math.pi * sum((2 * i + 1) * np.sin((2 * i + 1) * at) for i in terms)
    np.testing.assert_allclose(x.grad, expected * inside, rtol=1e-9, atol=1e-12)


def test_the_module_is_of_trainings_only():
    torch.manual_seed(0)
    conv = OneBitConv2d(70, 4, 3, padding=1, binarizer="fda", pack_activations=True)
    assert [m.noise.inner.out_features for m in (conv.quantize_input, conv.quantize_weight)] == [1, 9]
    x = torch.randn(2, 70, 6, 6)
    noisy = conv(x)
    for parameter in conv.quantize_input.noise.parameters():
        assert parameter.grad is None
    noisy.sum().backward()
    assert all(parameter.grad.any() for parameter in conv.parameters())
    backbones.set_progress(conv, 1.0)
    assert conv.exact
    silent = conv(x)
    plain = conv.eval()(x)
    assert torch.equal(silent, plain)
    assert not torch.allclose(noisy, plain)
    with torch.no_grad():
        torch.testing.assert_close(deploy(conv)(x), plain, rtol=1e-5, atol=1e-5)
    scale = filter_mean(np.abs(conv.weight.detach().numpy()))
    np.testing.assert_allclose(
        conv.quantize_weight(conv.weight).detach(), scale * np_sign(conv.weight.detach().numpy()), rtol=1e-6
    )


def test_a_training_counts_parameters_without_memory():
    cost = backbones.cost("resnet18_w16_fda", (3, 32, 32))
    network = backbones.create_backbone("resnet18_w16_fda")
    noise = [row for row in cost.rows if ".noise." in row.name]
    assert sum(row.params_real for row in noise) == sum(
        p.numel() for name, p in network.named_parameters() if ".noise." in name
    )
    assert {(row.memory_bits, row.macs) for row in noise} == {(0, 0)}
    for convention in ("strict", "dcp-nas", "cp-nas", "mmdet-legacy"):
        # A PReLU in place of nothing is what Bi-Real's network lacks of the rest.
        ours, bireal = (
            backbones.cost(f"resnet18_w16_{name}", (3, 32, 32), convention=convention) for name in ("fda", "bireal")
        )
        prelus = sum(row.memory_bits for row in ours.rows if row.type == "PReLU")
        assert ours.memory_bits == bireal.memory_bits + prelus
        assert ours.bops == bireal.bops
