"""ReActNet-A: what its paper prints, and where its shortcuts run."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onebit import backbones
from onebit.backbones import OneBitConv2d
from onebit.backbones.reactnet import ReActBlock
from onebit.commons.errors import InputError


def test_printed_parameters_and_operations():
    """29.3 M parameters; 4.82 G BOPs, 12 M FLOPs, 87 M OPs."""
    cost = backbones.cost("reactnet_a", classes=1000, out_indices=(3,))
    assert (cost.params_1bit + cost.params_real) / 1e6 == pytest.approx(29.3, abs=0.05)
    assert cost.bops / 1e9 == pytest.approx(4.82, abs=0.005)
    assert cost.flops / 1e6 == pytest.approx(12, abs=0.5)
    assert cost.ops / 1e6 == pytest.approx(87, abs=0.5)


def test_layout_is_that_of_mobilenet():
    """Thirteen blocks; channels and strides of MobileNetV1, Table 1 of its paper."""
    network = backbones.create_backbone("reactnet_a")
    blocks = [m for m in network.modules() if isinstance(m, ReActBlock)]
    layout = [(b.spatial.conv.out_channels * b.copies, b.spatial.conv.stride[0]) for b in blocks]
    assert layout == [
        *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
        *[(512, 1)] * 5,
        *((1024, 2), (1024, 1)),
    ]
    cifar = backbones.create_backbone("reactnet_a_w4", stem="cifar")
    assert sum(m.stride == (2, 2) for m in cifar.modules() if isinstance(m, OneBitConv2d)) == 3


@pytest.mark.parametrize(("out_channels", "stride"), [(6, 1), (12, 1), (6, 2), (12, 2)])
def test_block_step_by_step(out_channels, stride):
    """In the Bi-Real form, which has no activation but its signs."""
    torch.manual_seed(0)
    block = ReActBlock(6, out_channels, stride, backbones.get_binarizer("bireal"), 0).eval()
    x = torch.randn(2, 6, 8, 10)

    def convolved(x, unit, **options):
        w = unit.conv.weight
        w = torch.where(w > 0, 1.0, -1.0) * w.abs().mean((1, 2, 3), keepdim=True)
        out = F.conv2d(torch.where(x > 0, 1.0, -1.0), w, **options)
        return out / (1 + unit.bn.eps) ** 0.5

    middle = convolved(x, block.spatial, stride=stride, padding=1)
    middle = middle + (F.avg_pool2d(x, 2) if stride == 2 else x)
    if out_channels == 6:
        expected = convolved(middle, block.pointwise) + middle
    else:
        halves = [block.pointwise.first, block.pointwise.second]
        expected = torch.cat([convolved(middle, unit) + middle for unit in halves], 1)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("binarizer", ["xnor", "bireal", "reactnet"])
@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_real_values_flow_past_every_one_bit_convolution(binarizer, stem):
    network = backbones.create_backbone(f"reactnet_a_w4_{binarizer}", stem=stem).eval()
    for conv in (m for m in network.modules() if isinstance(m, OneBitConv2d)):
        conv.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
    with torch.no_grad():
        for out in network(torch.randn(2, 3, 64, 64)):
            assert (out[0] - out[1]).abs().max() > 0


@pytest.mark.parametrize(("stem", "strides"), [("cifar", (1, 2, 4, 8)), ("imagenet", (4, 8, 16, 32))])
@pytest.mark.parametrize("name", ["reactnet_a_w4", "reactnet_a_w4_xnor", "reactnet_a_w4_real"])
def test_maps_have_the_stated_channels_and_strides(name, stem, strides):
    network = backbones.create_backbone(name, stem=stem).eval()
    assert network.feature_strides == strides
    assert network.feature_channels == (16, 32, 64, 128)
    with torch.no_grad():
        for out, stride in zip(network(torch.randn(1, 3, 67, 45)), strides, strict=True):
            assert out.shape[2:] == (-(-67 // stride), -(-45 // stride))


def test_everything_but_the_stem_is_one_bit():
    network = backbones.create_backbone("reactnet_a_w4")
    convs = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    assert [n for n, m in convs.items() if not isinstance(m, OneBitConv2d)] == ["stem.0"]
    assert not any(isinstance(m, nn.ReLU) for m in network.modules())
    real = backbones.create_backbone("reactnet_a_w4_real")
    shapes = [m.weight.shape for m in real.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [m.weight.shape for m in convs.values()]
    assert not any(isinstance(m, OneBitConv2d) for m in real.modules())


@pytest.mark.parametrize("width", [0, -4, 1.5, "16", True])
def test_width_out_of_range(width):
    with pytest.raises(InputError, match="width"):
        backbones.ReActNetA(width=width)


@pytest.mark.parametrize("name", ["reactnet_a_w0", "reactnet_b", "reactnet", "reactnet_a_l6"])
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="unknown backbone"):
        backbones.create_backbone(name)
