"""Expert Binary Convolution against its formulas in numpy, float64; packed, counted, named."""

import numpy as np
import pytest
import torch

from onebit import backbones
from onebit.backbones import ExpertConv2d, OneBitConv2d
from onebit.backbones.packed import deploy, file
from onebit.commons.errors import InputError
from tests.backbones.reference import corner_or_random, np_conv, np_sign


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def parameters(conv, rng):
    """Random values of every parameter, as arrays by name."""
    found = {}
    for name, parameter in conv.named_parameters():
        # A gate by which images differ.
        size = {"gate.weight": 3, "gate.bias": 0.1}.get(name, 1)
        found[name] = rng.normal(size=tuple(parameter.shape)) * size
        parameter.data.copy_(torch.from_numpy(found[name]))
    return found


@pytest.mark.parametrize("options", [{}, dict(groups=2, pad_value=0), dict(pad_value=-1, attention=False)])
def test_a_training_step_against_the_formula(options):
    rng = np.random.default_rng(0)
    conv = ExpertConv2d(4, 6, 3, padding=1, experts=3, **options).double()
    p = parameters(conv, rng)
    x = corner_or_random(rng, (5, 4, 5, 4))
    leaf = torch.from_numpy(x).requires_grad_()
    y = conv(leaf)
    g = rng.normal(size=tuple(y.shape))
    y.backward(torch.from_numpy(g))

    geometry = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, pad_value=0) | {
        key: value for key, value in options.items() if key != "attention"
    }
    experts, scale = p["weight"].reshape(3, 6, *p["weight"].shape[1:]), p["quantize_weight.scale"]
    seen = x.mean(axis=(2, 3))
    scores = sigmoid(seen @ p["gate.weight"].T + p["gate.bias"])
    winners = scores.argmax(1)
    assert len({*winners}) > 1
    attention = np.ones((5, 6))
    if conv.attention is not None:
        hidden = seen @ p["attention.0.weight"].T
        attention = sigmoid(np.maximum(hidden, 0) @ p["attention.2.weight"].T)
    to = {name: np.zeros_like(value) for name, value in p.items()}
    to_x, to_seen = np.zeros_like(x), np.zeros_like(seen)
    for n, winner in enumerate(winners):
        w = experts[winner]
        factor = scale * attention[n][:, None, None]
        plain, to_signs, to_w = np_conv(np_sign(x[n : n + 1]), np_sign(w), g[n : n + 1] * factor, **geometry)
        np.testing.assert_allclose(y[n].detach(), plain[0] * factor, rtol=1e-10, atol=1e-12)
        to_x[n] += to_signs[0] * (np.abs(x[n]) <= 1)
        to_w = to_w * (np.abs(w) <= 1)
        to["weight"].reshape(experts.shape)[winner] += to_w
        to["quantize_weight.scale"] += (g[n] * plain[0] * attention[n][:, None, None]).sum((1, 2), keepdims=True)
        to_logits = (to_w * experts).sum((1, 2, 3, 4)) * scores[n] * (1 - scores[n])
        to["gate.weight"] += np.outer(to_logits, seen[n])
        to["gate.bias"] += to_logits
        to_seen[n] += to_logits @ p["gate.weight"]
        if conv.attention is not None:
            to_attention = (g[n] * plain[0] * scale).sum((1, 2)) * attention[n] * (1 - attention[n])
            to["attention.2.weight"] += np.outer(to_attention, np.maximum(hidden[n], 0))
            to_hidden = (to_attention @ p["attention.2.weight"]) * (hidden[n] > 0)
            to["attention.0.weight"] += np.outer(to_hidden, seen[n])
            to_seen[n] += to_hidden @ p["attention.0.weight"]
    to_x += to_seen[:, :, None, None] / 20
    np.testing.assert_allclose(leaf.grad, to_x, rtol=1e-9, atol=1e-11)
    for name, parameter in conv.named_parameters():
        np.testing.assert_allclose(parameter.grad, to[name], rtol=1e-9, atol=1e-10, err_msg=name)
    with torch.no_grad():
        torch.testing.assert_close(conv.eval()(leaf), y)


def test_one_expert_is_the_plain_convolution():
    torch.manual_seed(0)
    conv = ExpertConv2d(4, 6, 3, padding=1, experts=1, attention=False, binarizer="reactnet")
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(conv(x), conv.expert(0)(x))


def test_copied_experts_compute_the_same():
    torch.manual_seed(0)
    conv = ExpertConv2d(4, 6, 3, experts=3)
    assert len(conv.weight.unique()) == conv.weight.numel() // 3  # they start alike
    torch.nn.init.normal_(conv.weight)
    assert len(conv.weight.unique()) == conv.weight.numel()
    conv.copy_expert()
    assert len(conv.weight.unique()) == conv.weight.numel() // 3


@pytest.mark.parametrize(
    ("binarizer", "options"),
    [("ebn", dict(attention=True)), ("bireal", dict(attention=False, pad_value=1)), ("reactnet", dict(groups=2))],
)
def test_packed_form(binarizer, options):
    torch.manual_seed(0)
    conv = ExpertConv2d(70, 8, 3, padding=1, stride=2, binarizer=binarizer, experts=4, **options).eval()
    torch.nn.init.normal_(conv.weight)
    with torch.no_grad():
        conv.gate.weight.mul_(20)  # so that the images differ
        conv.gate.bias.zero_()
        x = torch.randn(9, 70, 8, 7)
        expected = conv(x)
        torch.testing.assert_close(deploy(conv)(x), expected, rtol=1e-4, atol=1e-4)
        chosen = {int(conv.gate(image.mean((1, 2))).argmax()) for image in x}
    assert len(chosen) > 1


def test_a_network_of_experts_by_its_name_packed_and_in_a_file(tmp_path):
    name = "resnet18_w4_e3_ebn"
    torch.manual_seed(0)
    network = backbones.create_backbone(name, out_indices=(1,)).eval()
    convs = [m for m in network.modules() if isinstance(m, OneBitConv2d)]
    assert {m.experts for m in convs} == {3}
    for conv in convs:
        torch.nn.init.normal_(conv.weight)
    x = torch.randn(3, 3, 40, 40)
    packed = deploy(network)
    path = file.save(packed, file.description(name, out_indices=(1,)), tmp_path / "net.packed")
    again, _ = file.load(path)
    with torch.no_grad():
        expected, found = packed(x)[0], again(x)[0]
        assert torch.equal(found, expected)
        assert (expected - network(x)[0]).norm() < 0.05 * expected.norm()
    assert name not in backbones.list_backbones()
    assert backbones.describe(name)["weight_bits"] == 1


def test_every_expert_takes_memory_and_one_computes():
    one, four = (backbones.cost(f"resnet18_w16{experts}_ebn", (3, 32, 32)) for experts in ("", "_e4"))
    assert four.params_1bit == 4 * one.params_1bit
    assert four.bops == one.bops
    added = [row for row in four.rows if ".gate" in row.name or ".attention" in row.name]
    assert four.flops == one.flops + sum(row.macs for row in added)
    gates = [row for row in added if row.name.endswith(".gate")]
    assert [row.macs for row in gates][:2] == [16 * 4, 16 * 4]


@pytest.mark.parametrize("binarizer", ["mcn", "xnorpp", "recu", "fda", "rbnn"])
def test_binarizers_with_values_per_filter_are_refused(binarizer):
    with pytest.raises(InputError, match=f"a filter alone .* found {binarizer}"):
        ExpertConv2d(4, 4, 3, binarizer=binarizer)


def test_experts_are_1bit():
    with pytest.raises(InputError, match="experts 4: expected a binarizer"):
        backbones.create_backbone("resnet18_w4", experts=4)
    with pytest.raises(InputError, match="unknown backbone"):
        backbones.create_backbone("resnet18_w4_e4")
