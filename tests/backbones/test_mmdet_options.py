"""The options that MMDetection's users give to any backbone."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from onebit import backbones
from onebit.commons.errors import InputError

NETWORKS = {
    "cells": dict(type="onebit.CellNet", arch="dcp_nas_c8", layers=6),
    "resnet": dict(type="onebit.ResNet", depth=18, width=8, binarizer="reactnet"),
    "real": dict(type="onebit.ResNet", depth=50, width=8),
    "wide": dict(type="onebit.WideResNet", width=8),
}
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=NETWORKS)
def config(request):
    return NETWORKS[request.param]


def test_checkpointing_changes_nothing_but_the_memory(config):
    torch.manual_seed(0)
    plain = MODELS.build(config)
    saving = MODELS.build(dict(config, with_cp=True))
    saving.load_state_dict(plain.state_dict())
    kept = []
    for network in (plain, saving):
        count = 0

        def pack(tensor):
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            maps = network(IMAGES)
        kept.append(count)
        sum(m.square().sum() for m in maps).backward()
    assert kept[1] < kept[0] / 2
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)
    with torch.no_grad():  # nothing to save
        assert all(map(torch.equal, plain.eval()(IMAGES), copy.deepcopy(plain).eval()(IMAGES)))


def test_norms(config):
    plain, joint = MODELS.build(config), MODELS.build(dict(config, norm_cfg=dict(type="SyncBN", requires_grad=False)))
    norms = [m for m in joint.modules() if isinstance(m, _BatchNorm)]
    assert norms
    assert all(isinstance(m, nn.SyncBatchNorm) for m in norms)
    assert not any(p.requires_grad for m in norms for p in m.parameters())
    assert joint.state_dict().keys() == plain.state_dict().keys()
    rows = [
        [
            (row.name, row.role, row.group, row.params_real, row.memory_bits)
            for row in backbones.cost(n, (3, 64, 64)).rows
        ]
        for n in (joint, plain)
    ]
    assert rows[0] == rows[1]
    other = MODELS.build(dict(config, norm_cfg=dict(type="BN", eps=0.25, momentum=0.5)))
    assert {(type(m), m.eps, m.momentum) for m in other.modules() if isinstance(m, _BatchNorm)} == {
        (nn.BatchNorm2d, 0.25, 0.5)
    }
    assert all(p.requires_grad for p in other.parameters())


def test_scales_in_any_order(config):
    network = MODELS.build(dict(config, out_indices=[2, 0]))
    assert network.out_indices == (0, 2)
    assert [m.shape[1] for m in network(IMAGES)] == list(network.feature_channels)


@pytest.mark.parametrize(
    "init_cfg",
    [
        None,
        dict(type="Kaiming", layer="Conv2d"),
        [dict(type="Xavier", layer="Conv2d"), dict(type="Constant", val=0.5, layer="BatchNorm2d")],
        dict(type="Normal", layer="Conv2d", std=0.01),
        dict(type="TruncNormal", layer="Conv2d", std=0.01),
    ],
    ids=str,
)
def test_initializations(config, init_cfg):
    torch.manual_seed(0)
    network = MODELS.build(dict(config, init_cfg=init_cfg))
    network.init_weights()
    assert all(m.isfinite().all() for m in network(IMAGES))
    if isinstance(init_cfg, list):
        assert all((m.weight == 0.5).all() for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    elif init_cfg and "std" in init_cfg:
        convs = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
        assert torch.cat([w.flatten() for w in convs]).std().item() == pytest.approx(0.01, rel=0.2)


def test_initialization_from_a_file(config, tmp_path):
    path = tmp_path / "weights.pth"
    saved = MODELS.build(config)
    torch.save(saved.state_dict(), path)
    network = MODELS.build(dict(config, init_cfg=dict(type="Pretrained", checkpoint=str(path))))
    network.init_weights()
    assert all(map(torch.equal, network.state_dict().values(), saved.state_dict().values()))


def test_stages_and_style():
    short = MODELS.build(dict(NETWORKS["resnet"], num_stages=2, out_indices=(1,), style="caffe"))
    assert not hasattr(short, "layer3")
    assert [tuple(m.shape) for m in short(IMAGES)] == [(2, 16, 8, 8)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(norm_cfg=dict(type="GN")), r"norm_cfg.type .*GN.*: expected .*BN.*SyncBN"),
        (dict(norm_cfg=dict(type="BN", num_groups=2)), r"norm_cfg \['num_groups'\]: expected type, requires_grad"),
        (dict(norm_cfg=dict(eps="tiny")), r"norm_cfg\.eps"),
        (dict(with_cp="yes"), "with_cp"),
        (dict(out_indices=(1, 1)), r"out_indices \(1, 1\): expected .*each once"),
        (dict(out_indices=()), r"out_indices \(\): expected at least one"),
        (dict(num_stages=3), r"out_indices \(0, 1, 2, 3\): expected indices below num_stages, 3"),
        (dict(num_stages=5), "num_stages"),
        (dict(style="caffe", depth=50), "style caffe: bottlenecks have their stride in the 3x3 convolution here"),
        (dict(style="tensorflow"), "style"),
    ],
)
def test_what_is_not_offered_is_said(options, message):
    with pytest.raises(InputError, match=message):
        backbones.ResNet(**{"depth": 18, "width": 8, **options})
