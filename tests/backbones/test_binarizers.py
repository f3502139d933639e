"""MCN, PCNN, BONN, BNAS and DoReFa against their formulas in numpy, float64; what all binarizers put out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onebit.backbones import OneBitConv2d, integer_conv
from onebit.backbones.binarization import BINARIZERS, PCNN, ProjectedSign, get_binarizer
from onebit.backbones.binarization.bonn import MIN_VARIANCE, two_mode_prior
from tests.backbones.reference import cases, corner_or_random, np_conv, np_sign

ELSEWHERE = ("xnor", "bireal", "reactnet", "bnn", "xnorpp", "irnet", "recu", "adabin", "fda")
ELSEWHERE += ("rebnn", "rbonn", "rbnn", "ebn")
OTHERS = {name: of for name, of in BINARIZERS.items() if name not in ELSEWHERE}
REAL_INPUT = [name for name, of in OTHERS.items() if of.input is None]
K_BIT = [name for name, of in OTHERS.items() if of.weight(1).precision > 1]
ONE_BIT = [name for name in OTHERS if name not in (*REAL_INPUT, *K_BIT)]
LEARNED = {"mcn": "modulator", "pcnn": "projection", "bonn": "reconstruction"}
LEARNED |= {"bnaspcnn": "amplitude", "bnaspcnnw1a32": "amplitude"}


# --- the formulas -----------------------------------------------------------------------------------


def over_kernel(values):
    """Summed over filters and input channels, [1, 1, h, w]."""
    return values.sum(axis=(0, 1), keepdims=True)


def np_weights(binarizer, w, p):
    """The binarized weights; from a gradient at them, the gradients to w and to the parameter p."""
    s = np_sign(w)
    if binarizer == "mcn":
        return 0.02 * np.abs(p) * s, lambda g: (g * np.abs(p), (g * w).sum(axis=(1, 2, 3), keepdims=True))
    if binarizer == "pcnn":
        inside = np.abs(p * w) <= 1
        return p.mean() * s, lambda g: (g * inside * p, over_kernel(g * inside * w))
    if binarizer == "bonn":
        return p.mean() * s, lambda g: (g * (np.abs(w) <= 1) * p.mean(), over_kernel(g * s))
    if binarizer.startswith("bnaspcnn"):
        amplitude = np.abs(p).mean()
        return amplitude * s, lambda g: (g * (np.abs(w) <= 1) * amplitude, over_kernel(g * s) * np.sign(p))
    amplitude = np.abs(w).mean()
    return amplitude * s, lambda g: (g * (np.abs(w) <= 1) * amplitude, None)


def np_dorefa_weights(w, bits):
    n = 2**bits - 1
    t = np.tanh(w)
    largest = np.abs(t).max()
    quantized = 2 * np.round(n * (t / (2 * largest) + 0.5)) / n - 1

    def backward(g):
        # Of t / max|t|; several weights of the largest magnitude share its gradient.
        at_largest = (np.abs(t) == largest) / (np.abs(t) == largest).sum()
        to_t = g / largest - at_largest * np.sign(t) * (g * t).sum() / largest**2
        return to_t * (1 - t**2), None

    return quantized, backward


def np_input(binarizer, x):
    """The quantized activations, and the slope of their gradient."""
    if binarizer in REAL_INPUT:
        return x, np.ones_like(x)
    if binarizer in K_BIT:
        n = 2 ** int(binarizer[-1]) - 1
        return np.round(n * np.clip(x, 0, 1)) / n, (x >= 0) & (x <= 1)
    return np_sign(x), np.abs(x) <= 1


def parameter_shape(binarizer, w):
    return (len(w), 1, 1, 1) if binarizer == "mcn" else (1, 1, *w.shape[2:])


def layer(binarizer, w, p, dtype, **arguments):
    conv = OneBitConv2d(binarizer=binarizer, **arguments).to(dtype)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(w))
        if p is not None:
            getattr(conv.quantize_weight, LEARNED[binarizer]).copy_(torch.from_numpy(p))
    return conv


@pytest.mark.parametrize(
    ("dtype", "integers", "pack"),
    [
        (torch.float64, False, False),
        (torch.float32, False, True),
        (torch.float32, True, False),
        (torch.float32, True, True),
    ],
)
@pytest.mark.parametrize("binarizer", [*ONE_BIT, *REAL_INPUT])
@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_one_bit_weights_against_the_formula(binarizer, dtype, integers, pack, case):
    rng, geometry = case["rng"], dict(case["geometry"])
    if binarizer in REAL_INPUT:
        geometry["pad_value"] = 0
    x = corner_or_random(rng, (case["batch"], case["channels"], *case["size"]))
    w = corner_or_random(rng, (case["filters"], case["channels"] // geometry["groups"], *case["kernel"]))
    p = corner_or_random(rng, parameter_shape(binarizer, w)) if binarizer in LEARNED else None
    conv = layer(
        binarizer,
        w,
        p,
        dtype,
        in_channels=case["channels"],
        out_channels=case["filters"],
        kernel_size=case["kernel"],
        pack_activations=pack,
        **geometry,
    )

    x_torch = torch.from_numpy(x).to(dtype).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_conv, "MIN_POSITIONS", 0 if integers else 10**9)
        y = conv(x_torch)
    grad = rng.integers(-8, 9, y.shape) / 4
    y.backward(torch.from_numpy(grad).to(dtype))

    xq, slope = np_input(binarizer, x)
    wq, backward = np_weights(binarizer, w, p)
    expected, grad_xq, grad_wq = np_conv(xq, wq, grad, **geometry)
    grad_w, grad_p = backward(grad_wq)
    tolerance = dict(rtol=1e-11, atol=1e-11) if dtype == torch.float64 else dict(rtol=3e-5, atol=1e-4)
    np.testing.assert_allclose(y.detach(), expected, **tolerance)
    np.testing.assert_allclose(x_torch.grad, grad_xq * slope, **tolerance)
    np.testing.assert_allclose(conv.weight.grad, grad_w, **tolerance)
    if grad_p is not None:
        found = getattr(conv.quantize_weight, LEARNED[binarizer]).grad
        np.testing.assert_allclose(found, grad_p, **tolerance)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("binarizer", K_BIT)
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_dorefa_against_the_formula(binarizer, pack, case):
    rng, geometry = case["rng"], dict(case["geometry"], pad_value=0)
    x = corner_or_random(rng, (case["batch"], case["channels"], *case["size"]))
    w = corner_or_random(rng, (case["filters"], case["channels"] // geometry["groups"], *case["kernel"]))
    w.flat[0] = 2.5  # all zeros have no largest magnitude, see below
    conv = layer(
        binarizer,
        w,
        None,
        torch.float64,
        in_channels=case["channels"],
        out_channels=case["filters"],
        kernel_size=case["kernel"],
        pack_activations=pack,
        **geometry,
    )
    x_torch = torch.from_numpy(x).requires_grad_()
    y = conv(x_torch)
    grad = rng.integers(-8, 9, y.shape) / 4
    y.backward(torch.from_numpy(grad))

    xq, slope = np_input(binarizer, x)
    wq, backward = np_dorefa_weights(w, int(binarizer[-1]))
    expected, grad_xq, grad_wq = np_conv(xq, wq, grad, **geometry)
    tolerance = dict(rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(y.detach(), expected, **tolerance)
    np.testing.assert_allclose(x_torch.grad, grad_xq * slope, **tolerance)
    np.testing.assert_allclose(conv.weight.grad, backward(grad_wq)[0], **tolerance)


# --- what comes out ---------------------------------------------------------------------------------

ANY = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40)


@pytest.mark.parametrize("binarizer", list(BINARIZERS))
@settings(max_examples=50, deadline=None)
@given(values=ANY, channels_last=st.booleans())
def test_only_the_declared_values_come_out(binarizer, values, channels_last):
    x = torch.tensor(values).repeat(2).reshape(1, 2, 1, -1)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    conv = OneBitConv2d(2, 3, 1, binarizer=binarizer).eval()  # in training, methods may add noise
    if conv.input_affine:
        assert len(conv.quantize_input(x).unique()) <= 2
    elif conv.input_bits < 32:
        n = 2**conv.input_bits - 1
        allowed = [-1.0, 1.0] if n == 1 else [float(np.float32(i) / np.float32(n)) for i in range(n + 1)]
        assert {*conv.quantize_input(x).unique().tolist()} <= {*allowed}
    weight = x[:, :, 0].clamp(-1e4, 1e4)[:, :, None]
    quantizer = get_binarizer(binarizer).weight(1).eval()
    if hasattr(quantizer, "fit"):
        quantizer.fit(weight)
    quantized = quantizer(weight).detach()
    if conv.weight_affine:
        assert len(quantized.unique()) <= 2
    elif conv.weight_bits == 1:
        assert len(quantized.abs().unique()) == 1
    else:
        n = 2**conv.weight_bits - 1
        levels = torch.arange(n + 1) / n * 2 - 1
        assert {*quantized.unique().tolist()} <= {*levels.tolist()}


@pytest.mark.parametrize("binarizer", K_BIT)
def test_k_bits_use_their_whole_grid(binarizer):
    conv = OneBitConv2d(16, 16, 3, binarizer=binarizer)
    levels = 2**conv.weight_bits
    weight = torch.linspace(-1, 1, 500).reshape(5, 100, 1, 1)
    assert len(conv.quantize_weight(weight).unique()) == levels
    assert len(conv.quantize_input(torch.linspace(-1, 2, 500)).unique()) == levels


@pytest.mark.parametrize("binarizer", K_BIT)
def test_weights_that_are_all_zero_stay_finite(binarizer):
    quantized = get_binarizer(binarizer).weight(1)(torch.zeros(2, 1, 1, 1))
    assert quantized.isfinite().all()


@pytest.mark.parametrize("binarizer", ["pcnn", "bonn", "bnaspcnn", "bnaspcnnw1a32"])
def test_a_learned_matrix_is_sized_and_set_by_the_weights(binarizer):
    conv = OneBitConv2d(4, 6, (3, 2), binarizer=binarizer)
    parameter = getattr(conv.quantize_weight, LEARNED[binarizer])
    assert parameter.shape == (1, 1, 3, 2)
    torch.testing.assert_close(parameter.mean(), conv.weight.abs().mean())
    with torch.no_grad():
        parameter.fill_(7)
    conv.init_weights()  # new weights, and an optimizer may hold the parameter already
    assert getattr(conv.quantize_weight, LEARNED[binarizer]) is parameter
    torch.testing.assert_close(parameter.mean(), conv.weight.abs().mean())
    again = OneBitConv2d(4, 6, (3, 2), binarizer=binarizer)
    again.load_state_dict(conv.state_dict())


# --- their losses -----------------------------------------------------------------------------------


@st.composite
def weights(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.tuples(st.integers(1, 4), *[st.integers(1, 3)] * 3))
    return rng, corner_or_random(rng, shape)


def projection_slope(error, w, p):
    """Of ||error||^2 / 2 to p, error = p w - mean(p) sign(w)."""
    return over_kernel(error * w) - (error * np_sign(w)).sum() / p.size


def np_loss(binarizer, w, p):
    """The value and its gradients to w and p, by the formulas."""
    s = np_sign(w)
    if binarizer == "mcn":
        error = w - 0.02 * np.abs(p) * s
        to_p = -1e-4 * (error * 0.02 * s).sum(axis=(1, 2, 3), keepdims=True)
        return 0.5e-4 * (error**2).sum(), 1e-4 * error, to_p
    if binarizer == "pcnn":
        error = p * w - p.mean() * s
        return 0.5e-4 * (error**2).sum(), 1e-4 * error * p, 1e-4 * projection_slope(error, w, p)
    if binarizer == "bnaspcnn":
        error = w - np.abs(p).mean() * s
        return 0.5e-4 * (error**2).sum(), 1e-4 * error, -1e-4 * over_kernel(error * s) * np.sign(p)
    error = w - np.abs(w).mean() * s
    return 0.5e-4 * (error**2).sum(), 1e-4 * error, None


@pytest.mark.parametrize(
    ("binarizer", "name"),
    [
        ("mcn", "loss_reconstruction"),
        ("pcnn", "loss_projection"),
        ("bnaspcnn", "loss_amplitude"),
        ("bnasxnor", "loss_amplitude"),
    ],
)
@settings(max_examples=60, deadline=None)
@given(weights())
def test_loss_against_its_formula(binarizer, name, drawn):
    rng, w = drawn
    p = corner_or_random(rng, parameter_shape(binarizer, w)) if binarizer in LEARNED else None
    conv = layer(binarizer, w, p, torch.float64, in_channels=w.shape[1], out_channels=len(w), kernel_size=w.shape[2:])
    losses = conv.method_losses()
    assert [*losses] == [name]
    (3 * losses[name]).backward()
    value, to_w, to_p = np_loss(binarizer, w, p)
    np.testing.assert_allclose(losses[name].item(), value, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(conv.weight.grad, 3 * to_w, rtol=1e-10, atol=1e-15)
    if p is not None:
        found = getattr(conv.quantize_weight, LEARNED[binarizer]).grad
        np.testing.assert_allclose(found, 3 * to_p, rtol=1e-10, atol=1e-14)


def test_mcn_with_its_loss_has_the_gradients_of_its_release():
    rng = np.random.default_rng(0)
    w, m = rng.normal(size=(2, 3, 2, 1)), np.array([0.7, 1.3]).reshape(2, 1, 1, 1)
    conv = layer("mcn", w, m, torch.float64, in_channels=3, out_channels=2, kernel_size=(2, 1))
    g = rng.normal(size=w.shape)
    quantized = conv.quantize_weight(conv.weight)
    ((quantized * torch.from_numpy(g)).sum() + conv.method_losses()["loss_reconstruction"]).backward()
    error = w - 0.02 * m * np_sign(w)
    np.testing.assert_allclose(conv.weight.grad, g * m + 1e-4 * error, rtol=1e-12)
    expected = (g * w - 1e-4 * error * 0.02 * np_sign(w)).sum(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(conv.quantize_weight.modulator.grad, expected, rtol=1e-12)


def np_prior(w):
    total = 0.0
    for filter_ in w:
        for mode in (filter_[filter_ > 0], -filter_[filter_ <= 0]):
            if len(mode):
                variance = max(((mode - mode.mean()) ** 2).mean(), MIN_VARIANCE)
                total += ((mode - mode.mean()) ** 2 / variance + np.log(variance)).sum()
    return total


@settings(max_examples=60, deadline=None)
@given(weights())
def test_prior_of_bonn_against_its_formula(drawn):
    _, w = drawn
    weight = torch.from_numpy(w).requires_grad_()
    prior = two_mode_prior(weight)
    # By sums of squares, which costs half of the digits where a mode is at its narrowest.
    np.testing.assert_allclose(prior.item(), np_prior(w), rtol=1e-8, atol=1e-6)


def test_prior_of_bonn_has_its_whole_gradient():
    """By central differences, the means and variances moving along."""
    w = np.random.default_rng(1).normal(size=(3, 2, 2, 3))
    weight = torch.from_numpy(w.copy()).requires_grad_()
    (2 * two_mode_prior(weight)).backward()
    for index in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[index] = 1e-6
        slope = (np_prior(w + step) - np_prior(w - step)) / 2e-6
        assert weight.grad[index].item() == pytest.approx(2 * slope, rel=1e-5, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(weights())
def test_loss_of_bonn_is_reconstruction_and_prior(drawn):
    rng, w = drawn
    p = corner_or_random(rng, parameter_shape("bonn", w))
    conv = layer("bonn", w, p, torch.float64, in_channels=w.shape[1], out_channels=len(w), kernel_size=w.shape[2:])
    loss = conv.method_losses()["loss_bayes_kernel"]
    loss.backward()
    prior_at = torch.from_numpy(w).requires_grad_()
    two_mode_prior(prior_at).backward()
    error = p * w - p.mean() * np_sign(w)
    np.testing.assert_allclose(loss.item(), 0.5e-4 * ((error**2).sum() + 1e-4 * np_prior(w)), rtol=1e-10, atol=1e-14)
    expected = 1e-4 * error * p + 0.5e-8 * prior_at.grad.numpy()
    np.testing.assert_allclose(conv.weight.grad, expected, rtol=1e-10, atol=1e-14)
    found = conv.quantize_weight.reconstruction.grad
    expected = 1e-4 * projection_slope(error, w, p)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_pcnn_steps_along_the_gradient_of_the_step_before():
    quantizer = ProjectedSign(2, eta=0.5)
    w = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    quantizer.fit(w)
    assert {*quantizer.state_dict()} == {"projection", "delta"}  # a resumed run needs it
    matrix = quantizer.projection.detach()
    binarized = matrix.mean() * torch.where(w > 0, 1.0, -1.0)

    def expected(delta):
        return 0.5e-4 * (binarized - matrix * (w.detach() + 0.5 * delta)).square().sum()

    torch.testing.assert_close(quantizer.losses(w)["loss_projection"], expected(0))
    delta = torch.randn(w.shape, dtype=w.dtype)
    quantizer(w).backward(delta)
    torch.testing.assert_close(quantizer.losses(w)["loss_projection"], expected(delta))
    assert PCNN.weight(2).eta == 0


def test_frozen_parameters_get_no_gradient():
    for binarizer in ONE_BIT:
        conv = OneBitConv2d(2, 2, 3, binarizer=binarizer).requires_grad_(False)
        y = conv(torch.randn(1, 2, 5, 5, requires_grad=True))
        (y.sum() + sum(conv.method_losses().values())).backward()
        assert all(p.grad is None for p in conv.parameters())
