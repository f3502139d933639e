"""Mixed precision against float32: what stays exact, and how large the rest of the error is."""

import pytest
import torch
import torch.nn.functional as F

from onebit import backbones
from onebit.backbones import OneBitConv2d
from onebit.backbones.binarization import BINARIZERS
from onebit.commons.compat import TORCH

#: Type to the largest whole number up to which it holds all.
WHOLE = {torch.bfloat16: 256, torch.float16: 2048}
ONEBIT = [name for name in BINARIZERS if OneBitConv2d(8, 8, 1, binarizer=name)._multiplies_signs]


@pytest.fixture(params=WHOLE, ids=str)
def dtype(request):
    if request.param == torch.float16 and TORCH < (2, 3):
        pytest.skip("float16 on a CPU needs torch 2.3")
    return request.param


def operands(taps, binarizer="bireal"):
    torch.manual_seed(0)
    conv = OneBitConv2d(taps // 9, 8, 3, padding=1, binarizer=binarizer)
    x = torch.randn(2, taps // 9, 6, 6)
    with torch.no_grad():
        x[0] = 1  # the largest sums
        conv.weight[0].abs_()
        exact = F.conv2d(conv.quantize_input(x), conv.quantize_weight(conv.weight).sign(), padding=1)
    return conv, x, exact, conv.quantize_weight(conv.weight).detach().flatten(1)[:, 0].abs()[:, None, None]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("binarizer", ONEBIT)
def test_sums_are_exact_where_the_type_holds_them(binarizer, channels_last, dtype):
    conv, x, sums, scale = operands(252, binarizer)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    assert sums.abs().max() > 30
    with torch.autocast("cpu", dtype):
        y = conv._convolve(x)  # before the output scale that some binarizers have
    assert torch.equal(y, (sums * scale).to(dtype))  # rounded once, by the scale in float32


def test_many_taps_are_rounded_and_not_lost(dtype):
    """In float32 a sum over 4,608 taps is exact; rounded it is off by half of the type's last place."""
    conv, x, sums, scale = operands(4608)
    assert sums.abs().max() == 4608
    with torch.autocast("cpu", dtype):
        y = conv(x)
    assert torch.equal(y, (sums.to(dtype).float() * scale).to(dtype))
    whole = sums.abs() <= WHOLE[dtype]
    assert 0.5 < whole.float().mean() < 1
    error = ((y.float() - sums * scale) / (sums * scale).clamp(min=1e-9)).abs()
    assert error[whole & (sums > 0)].max() <= 1 / WHOLE[dtype]
    assert error[sums > 0].max() <= 2 / WHOLE[dtype]


@pytest.mark.parametrize("name", BINARIZERS)
def test_thresholds_scales_and_slopes_keep_float32(name, dtype):
    torch.manual_seed(0)
    conv = OneBitConv2d(16, 8, 3, padding=1, binarizer=name)
    unit = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(8), BINARIZERS[name].activation(8))
    for parameter in unit.parameters():  # thresholds and shifts that a half precision does not hold
        parameter.data.add_(torch.randn_like(parameter) * 1e-3)
    before = {key: p.detach().clone() for key, p in unit.named_parameters()}
    optimizer = torch.optim.SGD(unit.parameters(), lr=1e-4)
    with torch.autocast("cpu", dtype):
        out = unit(torch.randn(2, 16, 8, 8))
    (out.float().square().sum() + sum(backbones.method_losses(unit).values())).backward()
    assert {p.dtype for p in unit.parameters()} == {p.grad.dtype for p in unit.parameters()} == {torch.float32}
    optimizer.step()
    for key, parameter in unit.named_parameters():
        step = before[key] - 1e-4 * parameter.grad
        torch.testing.assert_close(parameter, step, rtol=2e-7, atol=1e-9, msg=key)


def test_a_learned_threshold_is_compared_in_float32(dtype):
    """Values of a half precision on either side of a threshold between two of them."""
    quantizer = backbones.binarization.RSign(1)
    quantizer.bias.data.fill_(-(1 + 1e-6))
    x = torch.tensor([1.0, 1 + 2**-6]).to(dtype).view(1, 1, 1, 2)
    with torch.autocast("cpu", dtype):
        assert quantizer(x).flatten().tolist() == [-1, 1]


@pytest.mark.parametrize(
    "name", ["resnet20_w8_xnor", "resnet20_w8_reactnet", "resnet20_w8_dorefa2", "dcp_nas_c8_l3", "reactnet_a_w8"]
)
def test_a_network_stays_close_to_float32(name, dtype):
    """Where rounding moves a value over a threshold a sign turns: cosines, not bounds of single values."""
    torch.manual_seed(0)
    network = backbones.create_backbone(name, stem="cifar", out_indices=(1,))
    x, found = torch.randn(8, 3, 16, 16), []
    direction = None
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            (out,) = network(x)
        direction = torch.randn_like(out) if direction is None else direction
        (out.float() * direction).sum().backward()
        gradient = torch.cat([p.grad.flatten() / p.grad.norm().clamp(min=1e-9) for p in network.parameters()])
        assert gradient.isfinite().all()
        found.append((out.detach().float().flatten(), gradient))
    outputs, gradients = (F.cosine_similarity(a, b, 0) for a, b in zip(*found, strict=True))
    least = {torch.bfloat16: (0.7, 0.4), torch.float16: (0.85, 0.6)}[dtype]  # in random, untrained networks
    assert outputs > least[0]
    assert gradients > least[1]


@pytest.mark.skipif(TORCH < (2, 4), reason="torch 2.1 breaks graphs at gradients of our own")
@pytest.mark.parametrize("name", ["resnet20_w4_reactnet", "dcp_nas_c4_l3"])
def test_it_is_one_graph_too(name, dtype):
    torch._dynamo.reset()
    network = backbones.create_backbone(name, stem="cifar", out_indices=(1,))
    compiled, x = torch.compile(network, backend="aot_eager", fullgraph=True), torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", dtype):
        (found,), (expected,) = compiled(x), network(x)
    assert found.dtype == expected.dtype
    assert F.cosine_similarity(found.float().flatten(), expected.float().flatten(), 0) > 0.99
    found.float().sum().backward()
