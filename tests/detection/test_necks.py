"""The FPN with 1-bit lateral convs."""

import pytest
import torch
from mmengine.registry import MODELS as ENGINE_MODELS
from torch import nn

from onebit.backbones import OneBitConv2d
from onebit.commons.errors import InputError
from onebit.detection import OneBitFPN

# ruff: isort: split
from mmdet.models.necks import FPN

CHANNELS = [8, 16, 32, 64]


def maps(n=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, c, 32 // 2**i, 24 // 2**i, generator=generator) for i, c in enumerate(CHANNELS)]


def test_shapes_and_parts():
    neck = OneBitFPN(CHANNELS, 16, 5, binarizer="reactnet")
    shapes = [tuple(out.shape) for out in neck(maps())]
    assert shapes == [(2, 16, 32, 24), (2, 16, 16, 12), (2, 16, 8, 6), (2, 16, 4, 3), (2, 16, 2, 2)]
    laterals = [block.conv for block in neck.lateral_convs]
    assert all(isinstance(c, OneBitConv2d) and c.kernel_size == (3, 3) for c in laterals)
    assert all(c.binarizer.name == "reactnet" for c in laterals)
    assert not any(isinstance(block.conv, OneBitConv2d) for block in neck.fpn_convs)


def test_options_pass_through():
    neck = OneBitFPN(
        CHANNELS, 16, 5, binarizer="xnor", pad_value=-1, onebit_outputs=True, norm_cfg=None, add_extra_convs="on_output"
    )
    convs = [b.conv for b in (*neck.lateral_convs, *neck.fpn_convs)]
    assert {(c.binarizer.name, c.pad_value) for c in convs} == {("xnor", -1)}
    assert neck.fpn_convs[-1].conv.stride == (2, 2)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in neck.modules())
    assert [o.shape[-1] for o in neck(maps())] == [24, 12, 6, 3, 2]


def test_an_initialization_of_the_config():
    """`init_cfg` as MMDetection's configs give it to an FPN."""
    neck = OneBitFPN(CHANNELS, 16, 5, binarizer="reactnet", init_cfg=dict(type="Constant", val=0.25, layer="Conv2d"))
    neck.init_weights()
    assert all((block.conv.weight == 0.25).all() for block in (*neck.lateral_convs, *neck.fpn_convs))


def test_unknown_binarizer():
    with pytest.raises(InputError, match="reactnett"):
        OneBitFPN(CHANNELS, 16, 4, binarizer="reactnett")


def test_a_lateral_sees_signs_only():
    """Scaling the input, which keeps its signs, changes no output of the 1-bit laterals."""
    neck = OneBitFPN(CHANNELS, 16, 4, binarizer="bireal", norm_cfg=None)
    inputs = maps()
    for out, scaled in zip(neck(inputs), neck([7.5 * x for x in inputs]), strict=True):
        torch.testing.assert_close(out, scaled)
    flipped = neck([-x for x in inputs])
    assert not torch.equal(neck(inputs)[0], flipped[0])


def test_gradients_reach_every_parameter():
    neck = OneBitFPN(CHANNELS, 16, 5, binarizer="reactnet")
    neck.init_weights()
    sum(out.square().sum() for out in neck(maps())).backward()
    for name, parameter in neck.named_parameters():
        if not name.startswith("fpn_convs") or "bias" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_init_leaves_1bit_convs_their_own():
    torch.manual_seed(0)
    neck = OneBitFPN(CHANNELS, 16, 4, binarizer="reactnet", norm_cfg=None)
    calls = []
    for module in neck.modules():
        if isinstance(module, OneBitConv2d):
            module.init_weights = lambda m=module: calls.append(m)
    before = [b.conv.weight.clone() for b in neck.lateral_convs]
    real = [b.conv.weight.clone() for b in neck.fpn_convs]
    neck.init_weights()
    assert len(calls) == 4
    for block, weight in zip(neck.lateral_convs, before, strict=True):
        assert torch.equal(block.conv.weight, weight)
    for block, weight in zip(neck.fpn_convs, real, strict=True):
        assert not torch.equal(block.conv.weight, weight)


def test_built_by_name_from_a_config():
    neck = ENGINE_MODELS.build(dict(type="onebit.OneBitFPN", in_channels=CHANNELS, out_channels=8, num_outs=4))
    assert isinstance(neck, OneBitFPN)


#: What MMDetection's own tests of its FPN try.
ARGUMENTS = [
    dict(num_outs=5),
    dict(num_outs=3, start_level=1),
    dict(num_outs=5, start_level=1, add_extra_convs=True),
    dict(num_outs=5, start_level=1, add_extra_convs="on_input"),
    dict(num_outs=5, start_level=1, add_extra_convs="on_lateral"),
    dict(num_outs=5, start_level=1, add_extra_convs="on_output", relu_before_extra_convs=True),
    dict(num_outs=5, add_extra_convs=False, no_norm_on_lateral=True),
    dict(num_outs=2, start_level=1, end_level=2),
    dict(num_outs=4, upsample_cfg=dict(mode="bilinear", align_corners=False)),
    dict(num_outs=4, upsample_cfg=dict(scale_factor=2, mode="nearest")),
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@pytest.mark.parametrize("onebit_outputs", [False, True])
def test_levels_are_those_of_mmdetections_fpn(arguments, onebit_outputs):
    theirs = FPN(CHANNELS, 16, norm_cfg=dict(type="BN"), **arguments)
    ours = OneBitFPN(CHANNELS, 16, onebit_outputs=onebit_outputs, **arguments)
    assert [len(part) for part in (ours.lateral_convs, ours.fpn_convs)] == [
        len(part) for part in (theirs.lateral_convs, theirs.fpn_convs)
    ]
    for block, other in zip(
        (*ours.lateral_convs, *ours.fpn_convs), (*theirs.lateral_convs, *theirs.fpn_convs), strict=True
    ):
        assert (block.with_norm, block.with_activation) == (other.with_norm, other.with_activation)
        assert block.conv.stride == other.conv.stride
    found = ours(maps())
    assert [m.shape for m in found] == [m.shape for m in theirs(maps())]
    assert all(isinstance(block.conv, OneBitConv2d) is onebit_outputs for block in ours.fpn_convs)
    sum(m.square().sum() for m in found).backward()
    assert all(p.grad is not None for block in ours.lateral_convs for p in block.parameters())


@pytest.mark.parametrize(
    "arguments",
    [
        dict(num_outs=3),
        dict(num_outs=1, start_level=1, end_level=3),
        dict(num_outs=2, start_level=1, end_level=4),
        dict(num_outs=4, add_extra_convs="on_outputs"),
        dict(num_outs=4, add_extra_convs=1.5),
        dict(num_outs=4, level=1),
    ],
    ids=str,
)
def test_what_mmdetections_fpn_refuses_ours_refuses(arguments):
    with pytest.raises((AssertionError, TypeError)) as theirs:
        FPN(CHANNELS, 16, **arguments)
    with pytest.raises(theirs.type):
        OneBitFPN(CHANNELS, 16, **arguments)


def test_maps_of_another_number_are_refused():
    with pytest.raises(AssertionError):
        OneBitFPN(CHANNELS, 16, 4)(maps()[:3])
