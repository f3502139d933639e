"""BNN, XNOR-Net++, IR-Net, ReCU and AdaBin against their formulas in numpy, float64.

The references are written as :func:`tests.backbones.reference.near` says.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit import backbones
from onebit.backbones import Binarizer, OneBitConv2d, sign_with
from onebit.backbones.binarization import BINARIZERS, ApproxSign, get_binarizer, sign
from onebit.backbones.packed import deploy
from onebit.commons.errors import InputError
from tests.backbones.reference import away_from_kinks, cases, corner_or_random, differences, near, np_conv, np_sign

NAMES = ("bnn", "xnorpp", "irnet", "recu", "adabin")


def per_filter(w):
    return w.mean(axis=(1, 2, 3), keepdims=True)


def clipped(x):
    return np.clip(x, -1, 1)


def approximate(x):
    """The integral of 2 - 2|x| from -1 to 1."""
    return np.where(np.abs(x) < 1, 2 * x - x * np.abs(x), np.sign(x))


def decaying(x, progress, first):
    t = 10 ** (math.log10(first) + (1 - math.log10(first)) * progress)
    return max(1 / t, 1) * np.tanh(t * x)


def unbiased(w):
    return np.sqrt(w.var(axis=(1, 2, 3), ddof=1, keepdims=True))


def np_weights(name, w, w0, scale, progress):
    """The binarized weights; at w0 exactly, near it as their gradient says."""
    if name in ("bnn", "xnorpp"):
        return near(clipped, w, w0)
    centred, centred0 = w - per_filter(w), w0 - per_filter(w0)
    if name == "irnet":
        v, v0 = centred / unbiased(w), centred0 / unbiased(w0)
        power = 2 ** np.round(np.log2(per_filter(np.abs(v0))))
        return power * near(lambda x: decaying(x, progress, 0.1), v, v0)
    if name == "recu":
        e = math.e
        a = (0.99 - 0.85) / (e - 1)
        tau = a * e**progress + 0.85 - a
        v, v0 = (2 * math.sqrt(2) * c / np.sqrt(unbiased(x) ** 2 + 1e-5) for c, x in ((centred, w), (centred0, w0)))
        bound = -np.abs(v0).mean() * math.log(2 - 2 * tau)
        return scale * near(lambda x: x, np.clip(v, -bound, bound), np.clip(v0, -bound, bound))
    half, half0 = (np.sqrt(per_filter(c**2)) for c in (centred, centred0))
    return half * near(lambda x: decaying(x, progress, 1e-3), centred / half, centred0 / half0) + per_filter(w)


def np_input(name, x, x0, p, p0, progress):
    """The binarized activations; p is (distance, centre) of AdaBin."""
    if name == "irnet":
        return near(lambda u: decaying(u, progress, 0.1), x, x0)
    if name == "recu":
        return near(approximate, *(v / np.sqrt(unbiased(v) ** 2 + 1e-5) for v in (x, x0)))
    if name == "adabin":
        return p[0] * (near(approximate, (x - p[1]) / p[0], (x0 - p0[1]) / p0[0]) + p[1])
    return near(clipped, x, x0)


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_weights_against_the_formula(name, progress):
    rng = np.random.default_rng(0)
    w, g = away_from_kinks(rng, (3, 2, 2, 3)) / 2, rng.normal(size=(3, 2, 2, 3))
    quantizer = get_binarizer(name).weight(3).double()
    scale = rng.uniform(0.5, 1.5, (3, 1, 1, 1))
    if name == "recu":
        quantizer.scale.data.copy_(torch.from_numpy(scale))
    backbones.set_progress(quantizer, progress)
    weight = torch.from_numpy(w).requires_grad_()
    quantized = quantizer(weight)
    quantized.backward(torch.from_numpy(g))
    np.testing.assert_allclose(quantized.detach(), np_weights(name, w, w, scale, progress), rtol=1e-12)
    expected = differences(lambda v: (g * np_weights(name, v, w, scale, progress)).sum(), w)
    np.testing.assert_allclose(weight.grad, expected, rtol=1e-5, atol=1e-7)
    if name == "recu":
        signs = np_weights(name, w, w, 1.0, progress)
        np.testing.assert_allclose(quantizer.scale.grad, (g * signs).sum(axis=(1, 2, 3), keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_activations_against_the_formula(name, progress, pack):
    rng = np.random.default_rng(1)
    x, g = away_from_kinks(rng, (2, 3, 2, 3)), rng.normal(size=(2, 3, 2, 3))
    quantizer = get_binarizer(name).input(3).double()
    quantizer.pack = pack
    backbones.set_progress(quantizer, progress)
    p = np.array([1.3, 0.2])
    if name == "adabin":
        for parameter, value in zip((quantizer.distance, quantizer.centre), p, strict=True):
            parameter.data.fill_(value)
    leaf = torch.from_numpy(x).requires_grad_()
    quantized = quantizer(leaf)
    quantized.backward(torch.from_numpy(g))
    np.testing.assert_allclose(quantized.detach(), np_input(name, x, x, p, p, progress), rtol=1e-12)
    expected = differences(lambda v: (g * np_input(name, v, x, p, p, progress)).sum(), x)
    np.testing.assert_allclose(leaf.grad, expected, rtol=1e-5, atol=1e-7)
    if name == "adabin":
        expected = differences(lambda v: (g * np_input(name, x, x, v, p, progress)).sum(), p)
        found = [quantizer.distance.grad, quantizer.centre.grad]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_recu_divides_activations_in_training_only():
    quantizer = get_binarizer("recu").input(2)
    x = torch.tensor([1.5, -0.2, 3.0, -2.0]).view(1, 2, 1, 2)
    slopes = []
    for training in (True, False):
        leaf = x.clone().requires_grad_()
        y = quantizer.train(training)(leaf)
        y.sum().backward()
        assert torch.equal(y, sign(x))
        slopes.append(leaf.grad)
    assert slopes[0].flatten()[0] != 0
    assert slopes[1].flatten()[0] == 0  # 1.5 is beyond the clip, 1.5 / 2.2 is not


@pytest.mark.parametrize("size", [(3, 5), (8, 8), (1, 1), (20, 9)])
def test_scale_of_xnorpp_is_an_outer_product_stretched_over_the_map(size):
    conv = OneBitConv2d(2, 4, 1, binarizer="xnorpp").double()
    quantizer = conv.quantize_weight
    torch.testing.assert_close(quantizer.filters.flatten(), conv.weight.detach().abs().mean((1, 2, 3)))
    for parameter in (quantizer.filters, quantizer.rows, quantizer.columns):
        torch.nn.init.uniform_(parameter, 0.5, 1.5)
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    y = conv(x)

    def stretched(parameter, length):
        points = parameter.detach().flatten().numpy()
        return np.interp(np.linspace(0, 7, length) if length > 1 else [0], np.arange(8), points)

    rows, columns = stretched(quantizer.rows, size[0]), stretched(quantizer.columns, size[1])
    plain = np.einsum("nchw,kc->nkhw", np_sign(x.numpy()), np_sign(conv.weight.detach().numpy()[..., 0, 0]))
    filters = quantizer.filters.detach().numpy()
    np.testing.assert_allclose(y.detach(), plain * filters * rows[:, None] * columns[None, :], rtol=1e-12)
    g = torch.randn_like(y)
    y.backward(g)
    expected = (g.numpy() * plain * rows[:, None] * columns[None, :]).sum(axis=(0, 2, 3))
    np.testing.assert_allclose(quantizer.filters.grad.flatten(), expected, rtol=1e-10)


def test_maxout_has_two_slopes():
    maxout = get_binarizer("adabin").activation(2)
    with torch.no_grad():
        maxout.positive[1], maxout.negative[1] = 2, -3
    x = torch.tensor([[-2.0, 3.0], [-2.0, 3.0]]).view(1, 2, 1, 2)
    assert maxout(x).flatten().tolist() == [-0.5, 3.0, 6.0, 6.0]


# --- convolutions and packed forms -------------------------------------------------------------------


def values(quantizer, weight):
    with torch.no_grad():
        return quantizer(weight).double().numpy()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_convolution_and_its_packed_form_with_exact_borders(name, case):
    """Against a convolution of the quantized values in numpy, zero-padded where the layer is."""
    rng, geometry = case["rng"], dict(case["geometry"])
    if name == "adabin":
        geometry["pad_value"] = 0
    conv = OneBitConv2d(case["channels"], case["filters"], case["kernel"], binarizer=name, **geometry).eval()
    with torch.no_grad():
        for key, parameter in conv.named_parameters():
            if key != "weight":
                parameter.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, parameter.shape)))
    x = torch.from_numpy(corner_or_random(rng, (case["batch"], case["channels"], *case["size"]))).float()
    wq, xq = values(conv.quantize_weight, conv.weight), values(conv.quantize_input, x)
    shape = conv(x).shape
    expected = np_conv(xq, wq, np.zeros(shape), **geometry)[0]
    if name == "xnorpp":
        expected = expected * conv.quantize_weight.output_scale(*shape[2:]).detach().double().numpy()
    with torch.no_grad():
        np.testing.assert_allclose(conv(x), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(deploy(conv)(x), expected, rtol=1e-4, atol=1e-4)


def test_a_border_of_two_values_is_refused():
    with pytest.raises(InputError, match="pad_value 1: expected one of 0"):
        OneBitConv2d(2, 2, 3, padding=1, binarizer="adabin", pad_value=1)


@pytest.mark.parametrize("name", ["adabin", "xnorpp"])
def test_packed_file_and_export_of_two_values(name, tmp_path):
    from onebit.backbones.packed import file
    from onebit.backbones.packed.interchange import float_form

    for network in (f"resnet18_w8_{name}", f"dcp_nas_c8_l3_{name}"):
        torch.manual_seed(0)
        net = backbones.create_backbone(network).eval()
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.dim() == 0:
                    parameter.add_(0.1)
        packed = deploy(net)
        path = file.save(packed, file.description(network), tmp_path / "net.packed")
        again, _ = file.load(path)
        x = torch.randn(1, 3, 45, 64)
        with torch.no_grad():
            for a, b, c, d in zip(net(x), packed(x), again(x), float_form(net)(x), strict=True):
                assert torch.equal(b, c)
                assert (a - b).norm() < 0.05 * a.norm()
                assert (a - d).norm() < 0.05 * a.norm()


# --- the contract ------------------------------------------------------------------------------------


def idiom(quantize):
    """sign(v).detach() + w - w.detach(), as papers write it."""

    class Idiom(torch.nn.Module):
        precision = 1

        def __init__(self, channels):
            super().__init__()

        def forward(self, w):
            return (quantize(w) - w).detach() + w

    return Idiom


def test_the_straight_through_idiom_is_taken():
    scaled = idiom(lambda w: sign(w) * w.abs().mean((1, 2, 3), keepdim=True))
    odd = Binarizer("odd", "test", input=idiom(sign), weight=scaled)
    conv = OneBitConv2d(16, 8, 3, padding=1, binarizer=odd).eval()
    torch.nn.init.normal_(conv.weight)
    assert any(len(row.unique()) > 2 for row in conv.quantize_weight(conv.weight).flatten(1))
    x = torch.randn(2, 16, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(deploy(conv)(x), conv(x), rtol=1e-4, atol=1e-4)
    conv.quantize_weight = idiom(lambda w: sign(w) * (1 + 1e-4 * (w > 1)))(8)
    with pytest.raises(InputError, match="more than one magnitude"):
        deploy(conv)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), progress=st.floats(0, 1))
def test_sign_with_a_slope(seed, progress):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 4, 5, generator=generator)
    for slope, expected in (
        (lambda u: 1 - u.tanh().square(), 1 - x.tanh().square()),
        (lambda u, p: (1 + p) * torch.exp(-u.square()), (1 + progress) * torch.exp(-x.square())),
        (lambda u: 2 - 2 * u.abs().clamp(max=1), ApproxSign(3).slope(x)),
        (lambda u: (u.abs() < 0.5).float(), (x.abs() < 0.5).float()),
    ):
        found = []
        for pack in (False, True):
            quantizer = sign_with(slope=slope)(3)
            quantizer.pack = pack
            backbones.set_progress(quantizer, progress)
            leaf = x.clone().requires_grad_()
            y = quantizer(leaf)
            assert torch.equal(y, sign(x))
            y.backward(torch.full_like(x, 3.7))
            found.append(leaf.grad)
        assert torch.equal(*found)
        torch.testing.assert_close(found[0], 3.7 * expected)


def test_progress_reaches_every_module_that_asks():
    network = backbones.create_backbone("resnet18_w8_recu", out_indices=(0,))
    backbones.set_progress(network, 0.5)
    convs = [m for m in network.modules() if isinstance(m, OneBitConv2d)]
    assert {c.quantize_input.progress for c in convs} == {0.5}
    assert {c.quantize_weight.tau for c in convs} == {0.85 + 0.14 * (math.e**0.5 - 1) / (math.e - 1)}


def test_affine_weights_cost_one_filter_more():
    counts = {name: backbones.cost(f"resnet18_w8_{name}").bops for name in ("irnet", "adabin")}
    assert counts["irnet"] < counts["adabin"] < 1.13 * counts["irnet"]  # 8 filters in the first stage


def test_the_docs_have_a_row_for_every_binarizer():
    page = (Path(__file__).resolve().parents[2] / "docs/names.md").read_text()
    for name, of in BINARIZERS.items():
        assert f"| `{name}` | {of.source} | " in page


def test_a_sign_that_is_differentiated_twice_takes_the_shift_the_same_way():
    x, shift = torch.randn(2, 3, 4, 4), torch.randn(3, 1, 1)
    quantizer = ApproxSign(3)
    plain = quantizer.sign(x, shift)
    quantizer.twice = True
    assert torch.equal(quantizer.sign(x, shift), plain)
    assert torch.equal(plain, sign(x + shift))


def test_activations_are_divided_by_their_deviation_in_training_only():
    from onebit.backbones.binarization.recu import UnitSign

    quantizer = UnitSign(3)
    gradients = []
    for training in (True, False):
        x = (torch.arange(48.0).reshape(1, 3, 4, 4) / 60).requires_grad_()
        quantizer.train(training)(x).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], 2 - 2 * x.detach())  # the slope of ApproxSign between 0 and 1
    assert not torch.allclose(*gradients)
