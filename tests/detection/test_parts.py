"""The choice of 1-bit parts, in the config, the network, the record and the cost."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from torch import nn

from onebit.backbones import OneBitConv2d
from onebit.commons.errors import InputError
from onebit.detection import OneBitFPN, OneBitRPNHead, runner
from onebit.detection.config import build_config
from onebit.detection.cost import model_cost
from onebit.detection.detectors import DETECTORS, detector_of
from onebit.detection.parts import parts_of

#: 1-bit convs in neck and head of a detector; Faster R-CNN's pyramid has four levels, the others' three and two more.
ONE_STAGE = {"none": (0, 0), "lateral": (3, 0), "neck": (8, 0), "neck+head": (8, 4)}
COUNTS = {
    "faster_rcnn": {"none": (0, 0), "lateral": (4, 0), "neck": (8, 0), "neck+rpn": (8, 1)},
    "retinanet": ONE_STAGE,
    "fcos": ONE_STAGE,
}
CHOICES = [(detector, parts) for detector, of in COUNTS.items() for parts in of]


def config(make_job, backbone="resnet18_w8_bireal", **options):
    return build_config(make_job(Path("data"), backbone=backbone, cfg_options=options), "data")


def build(cfg):
    register_all_modules(init_default_scope=True)
    return MODELS.build(cfg.model)


def count(module):
    return sum(isinstance(m, OneBitConv2d) for m in module.modules())


@pytest.mark.parametrize(("kind", "parts"), CHOICES)
def test_a_choice_is_what_is_built(make_job, kind, parts):
    assert {kind: [*of] for kind, of in COUNTS.items()} == {kind: [*d.parts] for kind, d in DETECTORS.items()}
    cfg = config(make_job, backbone="resnet18_w8_xnor", onebit_parts=parts, detector=kind)
    detector = build(cfg)
    assert detector_of(detector) == kind
    assert cfg.onebit_parts == parts == parts_of(detector)
    head = detector.rpn_head if kind == "faster_rcnn" else detector.bbox_head
    assert (count(detector.neck), count(head)) == COUNTS[kind][parts]
    assert count(getattr(detector, "roi_head", nn.Identity())) == 0
    onebit = [m for part in (detector.neck, head) for m in part.modules() if isinstance(m, OneBitConv2d)]
    assert {m.binarizer.name for m in onebit} <= {"xnor"}
    assert {m.pad_value for m in onebit} <= {0}


def test_defaults(make_job):
    assert config(make_job).onebit_parts == "lateral"
    assert config(make_job, backbone="resnet18_w8").onebit_parts == "none"
    assert config(make_job, backbone="dcp_nas_c8").onebit_parts == "lateral"


def test_wrong_detectors(make_job):
    with pytest.raises(InputError, match="detector 'fcs': expected one of faster_rcnn, retinanet, fcos"):
        config(make_job, detector="fcs")
    with pytest.raises(
        InputError, match=r"onebit_parts of fcos 'neck\+rpn': expected one of none, lateral, neck, neck"
    ):
        config(make_job, detector="fcos", onebit_parts="neck+rpn")


@pytest.mark.parametrize(
    ("backbone", "parts", "message"),
    [
        ("resnet18_w8", "lateral", "of real-valued resnet18_w8 'lateral': expected one of none"),
        ("resnet18_w8_bireal", "necks", "'necks': expected one of none, lateral, neck, neck"),
        ("resnet18_w8_bireal", 3, "expected one of none, lateral"),
    ],
)
def test_wrong_choice(make_job, backbone, parts, message):
    with pytest.raises(InputError, match=message):
        config(make_job, backbone=backbone, onebit_parts=parts)


def test_an_option_that_contradicts_the_choice(drawn, make_job):
    job = make_job(drawn)
    options = {**job.cfg_options, "model.neck.onebit_outputs": True}
    with pytest.raises(InputError, match="onebit_parts is lateral, but the options make it neck"):
        runner.train(replace(job, cfg_options=options))


def test_parts_of_others(make_job):
    detector = build(config(make_job))
    detector.roi_head.extra = OneBitConv2d(4, 4, 3)
    assert parts_of(detector) == "other"
    assert parts_of(nn.Identity()) == "none"
    detector = build(config(make_job, onebit_parts="neck"))
    detector.neck.fpn_convs[2].conv = nn.Conv2d(64, 64, 3, padding=1)
    assert parts_of(detector) == "other"


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_cost_of_a_one_stage_detector(kind):
    costs = [
        model_cost("resnet18_w16_bireal", "strict", (96, 96), onebit_parts=parts, detector=kind)
        for parts in COUNTS[kind]
    ]
    assert [c.bops for c in costs] == sorted({c.bops for c in costs})
    # Two stacks of four 3x3 convs with 256 channels on the maps of strides 8 to 128.
    positions = sum(size**2 for size in (12, 6, 3, 2, 1))
    assert costs[3].bops - costs[2].bops == 8 * 9 * 256 * 256 * positions
    assert costs[3].params_1bit - costs[2].params_1bit == 8 * 9 * 256 * 256
    with pytest.raises(InputError, match=f"proposals: {kind} has none"):
        model_cost("resnet18_w16_bireal", "strict", (96, 96), proposals=30, detector=kind)


def test_cost_falls_with_every_part():
    costs = [model_cost("resnet18_w16_bireal", "strict", (96, 96), onebit_parts=p) for p in COUNTS["faster_rcnn"]]
    bops = [cost.bops for cost in costs]
    assert bops == sorted(set(bops))
    _, lateral, neck, rpn = (cost.flops for cost in costs)
    assert lateral > neck > rpn
    # The 3x3 output convs have 256 channels on maps of strides 4 to 32, the RPN's one more map of
    # stride 64 (odd sizes are rounded up).
    positions = sum((96 // s) ** 2 for s in (4, 8, 16, 32))
    assert bops[2] - bops[1] == 9 * 256 * 256 * positions
    assert bops[3] - bops[2] == 9 * 256 * 256 * (positions + 2 * 2)


def test_record_of_a_row_with_a_1bit_rpn(drawn, make_job):
    job = make_job(drawn, backbone="resnet18_w8_reactnet")
    job = replace(job, cfg_options={**job.cfg_options, "onebit_parts": "neck+rpn"})
    outcome = runner.train(job)
    assert outcome.details["onebit_parts"] == "neck+rpn"
    assert outcome.details["onebit_convs"]["rpn_head"]["count"] == 1
    assert outcome.cost["strict"]["onebit_parts"] == "neck+rpn"
    assert "onebit_parts = 'neck+rpn'" in outcome.config
    again = runner.test(outcome.checkpoint, replace(job, cfg_options={}))
    assert again.metrics == outcome.metrics
    packed = runner.test(outcome.checkpoint, replace(job, cfg_options={}), packed=True)
    assert packed.details["onebit_parts"] == "neck+rpn"


def head(**changes):
    anchors = dict(type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8])
    return OneBitRPNHead(16, feat_channels=32, anchor_generator=anchors, **changes)


@pytest.mark.parametrize("convs", [1, 2])
def test_rpn_head(convs):
    torch.manual_seed(0)
    rpn = head(binarizer="reactnet", pad_value=-1, num_convs=convs)
    before = [m.weight.std().item() for m in rpn.modules() if isinstance(m, OneBitConv2d)]
    assert len(before) == convs
    rpn.init_weights()
    # RPNHead's own rule, a deviation of 0.01, holds for the real-valued convs only.
    after = [m.weight.std().item() for m in rpn.modules() if isinstance(m, OneBitConv2d)]
    assert after == pytest.approx(before, rel=0.1)
    assert min(after) > 0.03
    assert rpn.rpn_cls.weight.std() < 0.02
    maps = [torch.randn(2, 16, 8, 8), torch.randn(2, 16, 4, 4)]
    scores, boxes = rpn(maps)
    assert [s.shape for s in scores] == [(2, 3, 8, 8), (2, 3, 4, 4)]
    assert [b.shape for b in boxes] == [(2, 12, 8, 8), (2, 12, 4, 4)]
    sum(x.square().sum() for x in (*scores, *boxes)).backward()
    assert all(p.grad is not None for p in rpn.parameters())


def test_rpn_head_sees_signs_only():
    rpn = head(binarizer="bireal").eval()
    maps = [torch.randn(1, 16, 8, 8), torch.randn(1, 16, 4, 4)]
    for one, scaled in zip(rpn(maps)[0], rpn([3.5 * m for m in maps])[0], strict=True):
        torch.testing.assert_close(one, scaled)


def test_activation_after_each_conv():
    channels = [8, 16]
    maps = [torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)]
    neck = OneBitFPN(channels, 16, 2, binarizer="reactnet", act_cfg="binarizer", onebit_outputs=True)
    assert {type(b.activate).__name__ for b in (*neck.lateral_convs, *neck.fpn_convs)} == {"RPReLU"}
    neck(maps)[0].sum().backward()
    assert neck.lateral_convs[0].activate.shift_in.grad is not None
    laterals_only = OneBitFPN(channels, 16, 2, binarizer="reactnet", act_cfg="binarizer")
    assert not any(b.with_activation for b in laterals_only.fpn_convs)
    relu = OneBitFPN(channels, 16, 2, act_cfg=dict(type="ReLU"))
    assert all(out.min() >= 0 for out in relu(maps))
    assert min(out.min() for out in neck(maps)) < 0


@pytest.mark.parametrize(
    ("norm_cfg", "norms"), [(None, set()), (dict(type="GN", num_groups=8), {8}), (dict(type="BN"), {None})]
)
def test_rpn_head_has_the_norm_that_it_is_asked_for(norm_cfg, norms):
    found = [m for m in head(norm_cfg=norm_cfg, num_convs=2).modules() if "Norm" in type(m).__name__]
    assert {getattr(m, "num_groups", None) for m in found} == norms
    assert len(found) == 2 * len(norms)
