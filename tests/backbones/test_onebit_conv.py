"""`OneBitConv2d` against a plain float64 reference, forward and backward."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onebit import backbones
from onebit.backbones import OneBitConv2d, binarize_weights, integer_conv
from onebit.backbones.binarization import BINARIZERS, ApproxSign, ClippedSign, RPReLU, RSign, sign
from onebit.commons.errors import InputError
from tests.backbones.reference import cases, corner_or_random, filter_mean, np_conv, np_sign

# --- forward and backward -------------------------------------------------------------------------


def reference(binarizer, binarize_input, x, w, bias, grad, **geometry):
    """Output, and gradients to x, w and RSign's bias, by the formulas of the papers."""
    t = x + bias
    xb = np_sign(t) if binarize_input else x
    if binarizer == "xnor":
        c = w - w.mean(axis=1, keepdims=True) if w.shape[1] > 1 else w
        scale = filter_mean(np.abs(np.clip(c, -1, 1)))
        wb = np_sign(c) * scale
    else:
        wb = np_sign(w) * filter_mean(np.abs(w))
    y, grad_xb, grad_wb = np_conv(xb, wb, grad, **geometry)

    if not binarize_input:
        grad_x = grad_xb
    elif binarizer == "xnor":
        grad_x = grad_xb * (np.abs(t) <= 1)
    else:
        grad_x = grad_xb * np.where(np.abs(t) <= 1, 2 - 2 * np.abs(t), 0)
    if binarizer == "xnor":
        n = w[0].size
        through_scale = (grad_wb * np_sign(c)).sum(axis=(1, 2, 3), keepdims=True)
        grad_c = (grad_wb * scale + np_sign(c) / n * through_scale) * (np.abs(c) <= 1)
        grad_w = grad_c - grad_c.mean(axis=1, keepdims=True) if w.shape[1] > 1 else grad_c
    else:
        grad_w = grad_wb * (np.abs(w) <= 1)
    return y, grad_x, grad_w, grad_x.sum(axis=(0, 2, 3))


def build(case, binarizer, dtype, weight, bias):
    geometry = dict(case["geometry"])
    if not case["binarize_input"]:
        geometry["pad_value"] = 0
    conv = OneBitConv2d(
        case["channels"],
        case["filters"],
        case["kernel"],
        binarizer=binarizer,
        binarize_input=case["binarize_input"],
        **geometry,
    ).to(dtype)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(weight))
        if hasattr(conv.quantize_input, "bias"):
            conv.quantize_input.bias.copy_(torch.from_numpy(bias))
    return conv, geometry


@pytest.mark.parametrize(("dtype", "integers"), [(torch.float64, False), (torch.float32, False), (torch.float32, True)])
@pytest.mark.parametrize("binarizer", ["xnor", "bireal", "reactnet"])
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_forward_and_backward_agree_with_the_reference(binarizer, dtype, integers, case):
    rng = case["rng"]
    x = corner_or_random(rng, (case["batch"], case["channels"], *case["size"]))
    w = corner_or_random(rng, (case["filters"], case["channels"] // case["geometry"]["groups"], *case["kernel"]))
    has_bias = binarizer == "reactnet" and case["binarize_input"]
    bias = corner_or_random(rng, (case["channels"], 1, 1)) * has_bias
    conv, geometry = build(case, binarizer, dtype, w, bias)

    x_torch = torch.from_numpy(x).to(dtype).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        # These cases are too small for the integers to be worth while: leave that aside.
        patch.setattr(integer_conv, "MIN_POSITIONS", 0 if integers else 10**9)
        y = conv(x_torch)
    grad = rng.integers(-8, 9, y.shape) / 4
    y.backward(torch.from_numpy(grad).to(dtype))

    expected = reference(binarizer, case["binarize_input"], x, w, bias, grad, **geometry)
    found = [y.detach(), x_torch.grad, conv.weight.grad]
    if has_bias:
        found.append(conv.quantize_input.bias.grad.flatten())
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for ours, theirs in zip(found, expected, strict=False):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=tolerance, atol=tolerance)


# --- single properties ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("quantizer", [ClippedSign, ApproxSign, RSign])
def test_a_sign_is_minus_one_or_plus_one(quantizer, dtype):
    info = torch.finfo(dtype)
    values = [0.0, -0.0, info.tiny, -info.tiny, info.smallest_normal, 1e-3, -1e-3, 1.0, -1.0]
    values += [info.max, info.min, float("inf"), -float("inf"), float("nan")]
    x = torch.tensor(values, dtype=dtype).reshape(1, 1, 1, -1)
    expected = torch.tensor([1.0 if v > 0 else -1.0 for v in x.flatten().tolist()], dtype=dtype)
    out = quantizer(1).to(dtype)(x)
    assert out.dtype == dtype
    assert torch.equal(out.flatten(), expected)
    assert torch.equal(sign(x).flatten(), expected)


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=70), st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_other_value_comes_out_of_a_sign(values, channels_last):
    x = torch.tensor(values).repeat(2).reshape(1, 2, 1, -1)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for quantizer in (ClippedSign(2), ApproxSign(2), RSign(2)):
        assert set(quantizer(x).unique().tolist()) <= {-1.0, 1.0}


def test_denormals_have_a_sign():
    x = torch.tensor([1e-45, -1e-45]).reshape(1, 1, 1, 2)
    assert ApproxSign(1)(x).flatten().tolist() == [1.0, -1.0]


def declared_bits(binarizer):
    """Of weights and activations, by the name."""
    if binarizer.startswith("dorefa"):
        return int(binarizer[6:]), int(binarizer[6:])
    return 1, 32 if binarizer.endswith("w1a32") else 1


@pytest.mark.parametrize("binarizer", list(BINARIZERS))
def test_weights_have_one_magnitude_per_filter(binarizer):
    conv = OneBitConv2d(6, 5, 3, binarizer=binarizer).eval()  # in training, FDA's have noise
    assert (conv.weight_bits, conv.input_bits) == declared_bits(binarizer)
    if conv.weight_bits == 1:
        for filter_ in conv.quantize_weight(conv.weight):
            assert len(filter_.unique()) <= 2
            if binarizer != "adabin":  # whose values lie around a mean that is not 0
                assert len(filter_.abs().unique()) == 1
    assert OneBitConv2d(6, 5, 3, binarizer=binarizer, binarize_input=False).input_bits == 32


@pytest.mark.parametrize("binarizer", list(BINARIZERS))
def test_input_and_weights_are_left_alone(binarizer):
    conv = OneBitConv2d(4, 4, 3, padding=1, binarizer=binarizer)
    x, weight = torch.randn(2, 4, 6, 6), conv.weight.detach().clone()
    before = x.clone()
    x.requires_grad_()
    conv(x).sum().backward()
    assert torch.equal(x, before)
    assert torch.equal(conv.weight, weight)


@pytest.mark.parametrize("binarizer", list(BINARIZERS))
def test_memory_formats_agree(binarizer):
    torch.manual_seed(0)
    conv = OneBitConv2d(8, 8, 3, padding=1, binarizer=binarizer).double()
    x = torch.randn(2, 8, 6, 5, dtype=torch.double)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        leaf = x.clone(memory_format=memory_format).requires_grad_()
        conv.zero_grad()
        y = conv(leaf)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
        results.append((y.detach(), leaf.grad, conv.weight.grad.clone()))
    for contiguous, channels_last in zip(*results, strict=True):
        torch.testing.assert_close(contiguous, channels_last)


@pytest.mark.parametrize("binarizer", list(BINARIZERS))
def test_autocast_keeps_the_gradient(binarizer):
    torch.manual_seed(0)
    conv = OneBitConv2d(16, 8, 3, padding=1, binarizer=binarizer)
    x = torch.randn(2, 16, 8, 8)
    grads = []
    for enabled in (False, True):
        leaf = x.clone().requires_grad_()
        conv.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y = conv(leaf)
        assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
        y.float().square().mean().backward()
        assert leaf.grad.dtype == conv.weight.grad.dtype == torch.float32
        grads.append(torch.cat([leaf.grad.flatten(), conv.weight.grad.flatten()]))
    assert torch.nn.functional.cosine_similarity(*grads, dim=0) > 0.999


def big_conv(**arguments):
    torch.manual_seed(0)
    return OneBitConv2d(32, 32, 3, padding=1, **arguments), torch.randn(4, 32, 16, 16)


def test_big_convolutions_run_in_integers(monkeypatch):
    if not integer_conv.supported():
        pytest.skip("this processor or torch build has no integer convolution")
    calls = []
    run = integer_conv.onebit_conv2d
    monkeypatch.setattr(integer_conv, "onebit_conv2d", lambda *a: calls.append(1) or run(*a))
    conv, x = big_conv()
    conv(x)
    assert len(calls) == 1
    for other, images in (
        big_conv(binarize_input=False),
        big_conv(groups=2),
        (conv, x[:1]),  # too few positions
    ):
        other(images)
    conv.double()(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conv.float()(x)
    assert len(calls) == 1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_integers_keep_one_byte_per_activation(memory_format, monkeypatch):
    conv, x = big_conv()
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    kept = {}
    for integers in (False, True):
        monkeypatch.setattr(integer_conv, "MIN_POSITIONS", 0 if integers else 10**9)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append((t.shape, t.nbytes)) or t, lambda t: t
        ):
            y = conv(x)
        assert y.is_contiguous(memory_format=memory_format)
        kept[integers] = sum(size for shape, size in sizes if shape == x.shape)
    if integer_conv.supported():
        assert kept == {False: x.numel() * 8, True: x.numel() * 5}


def test_without_integer_convolution_results_are_the_same(monkeypatch):
    conv, x = big_conv()
    fast = conv(x)
    monkeypatch.setattr(integer_conv, "supported", lambda: False)
    torch.testing.assert_close(fast, conv(x), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("width", "stride", "padding", "dilation", "taken"),
    [
        (16, 1, (2, 1), (1, 1), True),
        (16, 1, (3, 1), (1, 1), False),  # windows that lie in the padding altogether
        (16, 1, (1, 3), (1, 1), False),
        (16, 1, (4, 4), (2, 2), True),
        (9, 3, (1, 1), (1, 1), True),
        (3, 1, (1, 0), (1, 1), False),  # an output of one column
        (6, 2, (1, 0), (1, 2), False),
        (16, 4, (1, 1), (1, 1), False),
    ],
)
def test_where_onednn_may_give_what_was_in_memory_integers_step_aside(
    width, stride, padding, dilation, taken, monkeypatch
):
    if not integer_conv.supported():
        pytest.skip("this processor or torch build has no integer convolution")
    monkeypatch.setattr(integer_conv, "MIN_POSITIONS", 0)
    x, weight = torch.ones(4, 8, 16, width), torch.ones(8, 8, 3, 3)
    assert integer_conv.worthwhile(x, weight, (1, stride), padding, dilation) == taken


def test_zero_and_nan_weights_pass_through_integers():
    conv, x = big_conv()
    with torch.no_grad():
        conv.weight[0] = 0
        conv.weight[1] = float("nan")
    y = conv(x)
    assert (y[:, 0] == 0).all()
    assert y[:, 1].isnan().all()
    assert y[:, 2:].isfinite().all()


def test_padding_by_name_takes_the_pad_value():
    conv = OneBitConv2d(1, 1, (3, 2), padding="same", pad_value=1)
    nn.init.constant_(conv.weight, 0.5)
    y = conv(torch.full((1, 1, 4, 4), -1.0))
    assert y.shape == (1, 1, 4, 4)
    assert y[0, 0, 0, 0] == 0.5 * (2 - 4)
    assert y[0, 0, 1, 3] == 0.5 * (3 - 3)


def test_gradient_is_not_differentiable_again():
    conv = OneBitConv2d(1, 1, 1)
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(conv(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(bias=True), "no bias"),
        (dict(pad_value=2), "pad_value 2"),
        (dict(pad_value=1, binarize_input=False), "pad_value 1"),
        (dict(binarizer="nothing"), "unknown binarizer 'nothing'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        OneBitConv2d(2, 2, 3, **arguments)


def test_conv_keeps_its_own_initialization():
    torch.manual_seed(0)
    conv = OneBitConv2d(64, 64, 3)
    expected = (2 / (64 * 9)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)
    before = conv.weight.detach().clone()
    conv.init_weights()
    assert not torch.equal(conv.weight, before)
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.02)


def test_rprelu_is_its_formula():
    torch.manual_seed(0)
    layer, x = RPReLU(3).double(), torch.randn(2, 3, 4, 5, dtype=torch.double)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    shifted = x + layer.shift_in
    slope = layer.prelu.weight[:, None, None]
    expected = shifted.clamp(min=0) + slope * shifted.clamp(max=0) + layer.shift_out
    torch.testing.assert_close(layer(x), expected)
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(),))


def test_conv_is_registered_under_its_name():
    assert backbones.MODELS.get("OneBitConv2d") is OneBitConv2d


@pytest.mark.parametrize("binarizer", ["reactnet", "pcnn", "bonn", "dorefa2"])
def test_real_weights_are_used_as_they_are_until_they_are_binarized_again(binarizer):
    torch.manual_seed(0)
    conv = OneBitConv2d(4, 8, 3, padding=1, binarizer=binarizer)
    x = torch.randn(2, 4, 6, 6)
    bits = conv.weight_bits
    assert binarize_weights(torch.nn.Sequential(conv), False) == 1
    assert (conv.weight_bits, conv.binarize_weight) == (32, False)
    assert conv.method_losses() == {}
    assert not any(p.requires_grad for p in conv.quantize_weight.parameters())
    expected = nn.functional.conv2d(conv.quantize_input(x), conv.weight, padding=1)
    torch.testing.assert_close(conv(x), expected)
    conv(x).sum().backward()
    assert conv.weight.grad is not None
    with torch.no_grad():
        conv.weight.mul_(3)  # as if it had been trained
    binarize_weights(conv)
    fresh = OneBitConv2d(4, 8, 3, padding=1, binarizer=binarizer)
    fresh.weight = conv.weight
    fresh._fit_quantizer()
    assert (conv.weight_bits, conv.binarize_weight) == (bits, True)
    assert all(p.requires_grad for p in conv.quantize_weight.parameters())
    torch.testing.assert_close(conv(x), fresh(x))
