"""Real-valued DARTS and PC-DARTS networks: published sizes, and their operations step by step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onebit import backbones
from onebit.backbones.cells.darts_operations import DartsStyle, FactorizedReduce, SeparableConv
from onebit.backbones.cells.genotype import OPERATIONS
from onebit.backbones.cells.net import Cell
from onebit.commons.errors import InputError


@pytest.mark.parametrize(
    ("name", "stem", "classes", "params"),
    [
        # 3.3 M and 4.7 M in the DARTS paper, 3.6 M and 5.3 M in the PC-DARTS paper; the exact
        # numbers are those that the released code prints.
        ("darts_v2", "cifar", 10, 3_349_342),
        ("darts_v2_c48_l14", "imagenet", 1000, 4_718_752),
        ("pc_darts_cifar", "cifar", 10, 3_634_678),
        ("pc_darts_imagenet", "imagenet", 1000, 5_342_464),
    ],
)
def test_published_number_of_parameters(name, stem, classes, params):
    shape = (3, 32, 32) if stem == "cifar" else (3, 224, 224)
    cost = backbones.cost(name, shape, classes=classes, stem=stem, out_indices=(3,))
    assert cost.params_1bit + cost.params_real == params
    assert cost.flops == cost.macs


@pytest.mark.parametrize("name", ["darts_v2_c8_l6", "pc_darts_cifar_c8_l6"])
def test_no_layer_is_one_bit_and_there_is_no_prelu(name):
    network = backbones.create_backbone(name)
    for module in network.modules():
        assert not isinstance(module, (backbones.OneBitConv2d, nn.PReLU))
    twin = backbones.create_backbone(f"{name}_mcn")
    assert twin.genotype == network.genotype
    for path, module in twin.cells.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight_bits == 1, path


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 4), (1, 1)])
def test_operations_halve_odd_sizes_alike(name, stride, size):
    out = DartsStyle().operation(name, 4, stride)(torch.randn(2, 4, *size))
    assert out.shape == (2, 4, *(-(-n // stride) for n in size))
    assert out.abs().sum() > 0 or name == "none" or size == (1, 1)


def normed(x):
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


def test_separable_convolution_step_by_step():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 9)
    op = SeparableConv(6, 5, 2, 2)
    _, depthwise, pointwise, _ = op
    out = F.conv2d(x.relu(), depthwise.weight, stride=2, padding=4, dilation=2, groups=6)
    torch.testing.assert_close(op(x), normed(F.conv2d(out, pointwise.weight)))


def test_halving_is_two_strided_convolutions_of_which_one_is_shifted():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8, 6)
    op = FactorizedReduce(4, 6)
    even = F.conv2d(x.relu(), op.conv_even.weight, stride=2)
    odd = F.conv2d(x.relu()[:, :, 1:, 1:], op.conv_odd.weight, stride=2)
    torch.testing.assert_close(op(x), normed(torch.cat((even, odd), 1)))


def test_operations_leave_their_input_alone():
    """A node's map is the input of several edges."""
    x = torch.randn(2, 4, 8, 8)
    before = x.clone()
    for name in OPERATIONS:
        DartsStyle().operation(name, 4, 2)(x)
    assert torch.equal(x, before)


def test_cell_concatenates_its_nodes():
    nodes = [[("skip_connect", source) for source in range(number)] for number in (2, 3, 4, 5)]
    cell = Cell(nodes, 3, 5, 4, reduction=False, halve_older=False, style=DartsStyle()).eval()
    older, newer = torch.randn(1, 3, 6, 6), torch.randn(1, 5, 6, 6)
    a, b = cell.preprocess_older(older), cell.preprocess_newer(newer)
    expected = torch.cat([(a + b) * factor for factor in (1, 2, 4, 8)], 1)
    torch.testing.assert_close(cell(older, newer), expected)


def test_one_bit_networks_have_no_such_structure():
    with pytest.raises(InputError, match="structure 'darts': expected a real-valued network"):
        backbones.CellNet("darts_v2_c8", structure="darts", binarizer="mcn")
    with pytest.raises(InputError, match="shortcut False: structure 'darts' has no such option"):
        backbones.CellNet("darts_v2_c8", shortcut=False)


def test_real_valued_network_in_the_structure_of_the_one_bit_cell():
    """The parent of a 1-bit child: the same cell, real-valued."""
    network = backbones.CellNet("darts_v2_c8", layers=3, structure="onebit")
    child = backbones.CellNet("darts_v2_c8", layers=3, binarizer="bireal")
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in child.state_dict().items()}
    assert not any(isinstance(m, backbones.OneBitConv2d) for m in network.modules())
