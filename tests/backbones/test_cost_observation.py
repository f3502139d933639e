"""Arithmetic by plain functions: what multiplies and accumulates is never silently zero."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import flop_counter

from onebit import backbones
from onebit.backbones.cost.observation import multiplies
from onebit.backbones.cost.rules import _BY_NAME, _BY_TYPE, Count
from onebit.commons.errors import InputError


class Container(nn.Module):
    """Has a child that is counted, and computes something itself."""

    def __init__(self, compute):
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 1, bias=False)
        self.compute = compute

    def forward(self, x):
        return self.compute(self, self.inner(x))


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: F.conv2d(x, net.inner.weight),
        lambda net, x: F.conv_transpose2d(x, net.inner.weight),
        lambda net, x: F.linear(x, torch.ones(2, x.shape[-1])),
        lambda net, x: x @ x,
        lambda net, x: torch.einsum("nchw,ndhw->ncd", x, x),
        lambda net, x: torch.tensordot(x, x, 4),
        lambda net, x: x[0, 0] @ x[0, 0, 0],
        lambda net, x: F.scaled_dot_product_attention(x, x, x),
        lambda net, x: F.bilinear(x, x, torch.ones(2, x.shape[-1], x.shape[-1])),
        lambda net, x: torch.cdist(x, x),
        lambda net, x: net.inner.forward(x),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_product_beside_the_children_is_an_error_that_names_the_module(compute, device):
    with torch.device(device):
        net = nn.Sequential(nn.ReLU(), Container(compute))
        if device == "meta":
            net = net.to("meta")

        def run(module):
            module(torch.ones(1, 3, 30, 30))

        with pytest.raises(InputError, match=r"Container at '1' computes .* by itself"):
            backbones.cost(net, forward=run)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_product_in_a_module_whose_rule_counts_none():
    class Mixing(nn.ReLU):
        def forward(self, x):
            return super().forward(x @ x)

    class Quantizer(nn.Module):
        precision = 1

        def forward(self, x):
            return x @ x

    for module in (Mixing(), Quantizer()):
        with pytest.raises(InputError, match=f"{type(module).__name__} at '0' computes .*its rule"):
            backbones.cost(nn.Sequential(module), (3, 4, 4))


def test_a_product_outside_of_any_module():
    net = nn.Conv2d(3, 3, 1)
    with pytest.raises(InputError, match="outside of any module"):
        backbones.cost(net, forward=lambda module: module(torch.ones(1, 3, 4, 4)) @ torch.ones(4, 4))


def test_a_rule_for_the_container_makes_it_right():
    class Attention(Container):
        pass

    before = dict(_BY_TYPE), dict(_BY_NAME)
    backbones.register_cost_rule(Attention, lambda net, inputs, output: Count(output.numel() * 4))
    try:
        counted = backbones.cost(Attention(lambda net, x: x @ x), (3, 4, 4))
    finally:
        for rules, old in zip((_BY_TYPE, _BY_NAME), before, strict=True):
            rules.clear()
            rules.update(old)
    assert [row.macs for row in counted.rows] == [3 * 16 * 4, 9 * 16]


def test_additions_and_other_elementwise_functions_are_not_products():
    net = Container(lambda net, x: F.interpolate(torch.cat([x + x, x * 2]), scale_factor=2))
    assert backbones.cost(net, (3, 4, 4)).macs == 9 * 16


def test_every_operator_that_torchs_own_counter_knows_is_known_here():
    known = getattr(flop_counter, "flop_registry", None) or flop_counter.flop_mapping  # its name before torch 2.2
    names = {str(operator).partition("aten.")[2] for operator in known} - {""}
    forward = {name for name in names if "backward" not in name}
    assert len(forward) >= 8
    assert {name for name in forward if not multiplies(name)} == set()
    assert not any(map(multiplies, ("add", "mul", "native_batch_norm", "max_pool2d_with_indices")))
