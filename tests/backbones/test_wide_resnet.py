"""WRN-22: the width that reproduces what the papers print, and its pre-activation blocks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onebit import backbones
from onebit.backbones import OneBitConv2d
from onebit.backbones.wide_resnet import PreActivationBlock
from onebit.commons.errors import InputError


def test_printed_parameters_and_operations():
    """BNAS Table 2: 4.33 M; CP-NAS Table 3: 647.70 M FLOPs, 138.27 Mbit."""
    cost = backbones.cost("wrn22", (3, 32, 32), classes=10, stem="cifar", out_indices=(3,))
    assert round(cost.params_real / 1e6, 2) == 4.33
    assert cost.macs / 1e6 == pytest.approx(647.70, abs=0.01)
    weights = sum(row.params_real for row in cost.rows if row.macs)
    assert 32 * weights / 1e6 == pytest.approx(138.27, rel=2e-4)


def test_depth_is_22():
    network = backbones.create_backbone("wrn22_w8", stem="cifar")
    kernels = [m.kernel_size for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert kernels.count((3, 3)) == 19  # and the classifier, and two shortcuts as a layer each
    assert kernels.count((1, 1)) == 2


@pytest.mark.parametrize(("out_channels", "stride"), [(6, 1), (8, 1), (8, 2)])
def test_block_step_by_step(out_channels, stride):
    torch.manual_seed(0)
    block = PreActivationBlock(6, out_channels, stride).eval()
    for norm in (block.bn1, block.bn2):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 9, 7)

    def active(x, norm):
        scaled = x / (1 + norm.eps) ** 0.5 * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
        return scaled.clamp(min=0)

    first = active(x, block.bn1)
    out = F.conv2d(first, block.conv1.weight, stride=stride, padding=1)
    out = F.conv2d(active(out, block.bn2), block.conv2.weight, padding=1)
    if (out_channels, stride) == (6, 1):
        expected = out + x
    else:
        expected = out + F.conv2d(first, block.downsample.weight, stride=stride)
    torch.testing.assert_close(block(x), expected)


def test_last_map_alone_is_normed_and_rectified():
    network = backbones.create_backbone("wrn22_w8", stem="cifar").eval()
    maps = network(torch.randn(2, 3, 16, 16))
    assert [bool((out < 0).any()) for out in maps] == [True, True, True, False]


@pytest.mark.parametrize(("stem", "strides"), [("cifar", (1, 1, 2, 4)), ("imagenet", (4, 8, 16, 32))])
@pytest.mark.parametrize("name", ["wrn22_w8", "wrn22_w8_bireal", "wrn22_w8_xnor"])
def test_maps_have_the_stated_channels_and_strides(name, stem, strides):
    network = backbones.create_backbone(name, stem=stem).eval()
    assert network.feature_strides == strides
    assert network.feature_channels == (8, 8, 16, 32)
    with torch.no_grad():
        for out, stride in zip(network(torch.randn(1, 3, 67, 45)), strides, strict=True):
            assert out.shape[2:] == (-(-67 // stride), -(-45 // stride))


@pytest.mark.parametrize("binarizer", ["xnor", "reactnet"])
def test_all_but_stem_and_shortcuts_is_one_bit(binarizer):
    network = backbones.create_backbone(f"wrn22_w8_{binarizer}", stem="cifar")
    convs = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    onebit = {n for n, m in convs.items() if isinstance(m, OneBitConv2d)}
    assert len(onebit) == 18
    assert all(n == "stem.0" or "shortcut" in n for n in convs.keys() - onebit)
    assert not any(isinstance(m, nn.ReLU) for m in network.modules())


@pytest.mark.parametrize("width", [0, -4, 1.5, "16", True])
def test_width_out_of_range(width):
    with pytest.raises(InputError, match="width"):
        backbones.WideResNet(width=width)


@pytest.mark.parametrize("name", ["wrn22_w0", "wrn22_real", "wrn22_l6", "wrn28", "wrn22_nothing"])
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="unknown backbone"):
        backbones.create_backbone(name)
