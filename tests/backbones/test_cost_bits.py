"""What k-bit operands cost, by hand and under each convention."""

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.commons.errors import InputError

MACS = 6 * 9 * 4 * 9  # 4 channels to 6, 3x3, on a 3x3 map


class Quantized(nn.Conv2d):
    """A convolution that declares its operands' bits, with a real-valued scale."""

    def __init__(self, weight_bits, input_bits, role="other", groups=1):
        super().__init__(4, 6 if groups == 1 else 4, 3, groups=groups, bias=False)
        self.weight_bits, self.input_bits, self.cost_role = weight_bits, input_bits, role
        self.scale = nn.Parameter(torch.ones(1))


def cost(*layers, convention="strict", size=5):
    net = nn.Sequential(*layers)
    return backbones.cost(net, (4, size, size), convention)


@pytest.mark.parametrize(
    ("weight_bits", "input_bits", "bops"),
    [
        (1, 1, 1),
        (1, 2, 2),
        (2, 2, 4),
        (4, 4, 16),
        (2, 4, 8),
        (8, 8, 64),
        (1, 32, 0),
        (4, 32, 0),
        (32, 1, 0),
        (32, 32, 0),
    ],
)
def test_strict_counts_the_product_of_the_widths(weight_bits, input_bits, bops):
    """DoReFa-Net, section 2.1: a dot product of M-bit and K-bit numbers takes M * K bitwise ones."""
    counted = cost(Quantized(weight_bits, input_bits))
    assert counted.macs == MACS
    assert counted.bops == bops * MACS
    assert counted.flops == (0 if bops else MACS)
    assert counted.ops == (bops * MACS / 64 if bops else MACS)
    assert counted.memory_bits == 6 * 4 * 9 * weight_bits + 32
    assert counted.params_1bit == (6 * 4 * 9 if weight_bits == 1 else 0)
    assert counted.params_real == 1 + (0 if weight_bits == 1 else 6 * 4 * 9)
    row = counted.rows[0]
    assert (row.weight_bits, row.input_bits) == (weight_bits, input_bits)


def test_bitwise_arithmetic_dearer_than_real_valued_is_not_counted():
    wide = cost(Quantized(16, 8))
    assert (wide.flops, wide.bops) == (MACS, 0)


def test_dcp_nas_of_k_bits():
    """Every parameter at k bits; real-valued activations as if quantized, but for depthwise layers."""
    layers = [
        Quantized(4, 32, "preprocess"),
        nn.Conv2d(6, 4, 1, bias=False),
        Quantized(4, 32, groups=4),
        Quantized(4, 4),
    ]
    counted = cost(*layers, convention="dcp-nas", size=9)
    preprocess, real, depthwise, quantized = 6 * 36 * 49, 24 * 49, 36 * 25, 6 * 36 * 9
    assert [row.macs for row in counted.rows] == [preprocess, real, depthwise, quantized]
    assert counted.bops == 16 * (preprocess + quantized)
    assert counted.flops == real + depthwise
    assert counted.memory_bits == 4 * (216 + 1 + 24 + 36 + 1 + 216 + 1)


@pytest.mark.parametrize("convention", ["dcp-nas", "cp-nas"])
def test_one_bit_weights_with_real_valued_activations_throughout_are_flops(convention):
    """DCP-NAS, Table 11: "ResNet-18 (PCNN)", W/A 1/32, has the OPs of the real-valued net and 11.2 Mbit."""
    counted = cost(Quantized(1, 32, "stem"), convention=convention)
    assert (counted.flops, counted.bops) == (MACS, 0)
    counted = cost(Quantized(1, 32, "stem"), nn.Conv2d(6, 4, 1), Quantized(1, 1), convention=convention, size=7)
    assert counted.bops == 6 * 36 * 25 + MACS


def test_cp_nas_keeps_real_valued_weights_at_32_bits():
    head = nn.Linear(6, 3)
    head.cost_role = "classifier"
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), head
    layers = [Quantized(32, 32, "stem"), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 1), Quantized(2, 2)]
    counted = cost(*layers, *pooled, convention="cp-nas", size=9)
    assert counted.memory_bits == 32 * (217 + 28 + 21) + 2 * (12 + 217)
    assert counted.bops == 4 * 6 * 36 * 25
    assert counted.ops == counted.flops + counted.bops / 58


@pytest.mark.parametrize("bits", [0, 33, 1.0, True, "4", None])
def test_declared_bits_that_make_no_sense(bits):
    with pytest.raises(InputError, match="Quantized at '0' declares input_bits"):
        cost(Quantized(1, bits))


@pytest.mark.parametrize(("name", "bits"), [("dorefa2", 2), ("dorefa4", 4), ("bnasxnorw1a32", 1)])
def test_backbones_of_k_bits_and_of_weights_only(name, bits):
    counted = backbones.cost(f"resnet18_w16_{name}", (3, 32, 32))
    quantized = [row for row in counted.rows if row.weight_bits == bits]
    assert len(quantized) == 16
    macs = sum(row.macs for row in quantized)
    if name == "bnasxnorw1a32":
        assert (counted.bops, counted.flops) == (0, counted.macs)
    else:
        assert counted.bops == bits * bits * macs
        assert counted.flops == counted.macs - macs
    weights = sum(row.params_real + row.params_1bit for row in counted.rows) * 32
    assert counted.memory_bits < weights / (32 / bits) * 2
