"""The heads of RetinaNet, FCOS and YOLOX and the PAFPN with 1-bit convs: parts, training step, prediction, cost, packed form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.backbones import OneBitConv2d
from onebit.backbones.packed.layers import PackedConv
from onebit.commons.errors import InputError
from onebit.detection import OneBitFCOSHead, OneBitPAFPN, OneBitRetinaHead, OneBitYOLOXHead
from onebit.detection.foreign import cost_of
from onebit.detection.parts import onebit_convs, parts_of
from tests.detection.test_mmdet_config import batch, losses_of_two_steps

# ruff: isort: split
from mmdet.models.necks import PAFPN
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope

CHANNELS = [8, 16, 32, 64]
#: Sizes of the maps that a head gets of an image of 96 x 128 pixels, and its 1-bit convs, by head: YOLOX's has three
#: levels and stacks of convs for each of them.
SIZES = ((12, 16), (6, 8), (3, 4), (2, 2), (1, 1))
LEVELS = {"RetinaHead": 5, "FCOSHead": 5, "YOLOXHead": 3}
CONVS = {"RetinaHead": 4, "FCOSHead": 4, "YOLOXHead": 12}
CONFIG = """
_base_ = "mmdet::{base}"
custom_imports = dict(imports=["onebit"])
model = dict(
    backbone=dict(_delete_=True, type="onebit.create_backbone", name="resnet18_w8_bireal"),
    neck=dict(
        _delete_=True, type="onebit.{neck}", binarizer="bireal", onebit_outputs=True, in_channels={channels},
        out_channels=64, num_outs={levels}, start_level=1, add_extra_convs="on_output",
    ),
    bbox_head=dict(type="{head}", {binarizer}in_channels=64, feat_channels=64, stacked_convs=2),
)
{preprocessor}
test_dataloader = dict(dataset=dict(pipeline=[dict(type="Resize", scale=(128, 96))]))
"""
BASES = {
    "RetinaHead": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "FCOSHead": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "YOLOXHead": "yolox/yolox_s_8xb8-300e_coco.py",
}


def config(tmp_path, head: str, neck: str = "OneBitPAFPN", onebit: bool = True) -> Config:
    path = tmp_path / "one_stage.py"
    name, binarizer = (f"onebit.OneBit{head}", 'binarizer="bireal", ') if onebit else (head, "")
    if head == "YOLOXHead" and not onebit:
        binarizer = 'act_cfg=dict(type="ReLU"), '  # the cost has no rule for its Swish
    # Outside of a runner nobody counts the steps after which YOLOX changes the size of images.
    preprocessor = "model.update(data_preprocessor=dict(batch_augments=None))" if head == "YOLOXHead" else ""
    shape = dict(channels=CHANNELS, levels=LEVELS[head], preprocessor=preprocessor)
    path.write_text(CONFIG.format(base=BASES[head], neck=neck, head=name, binarizer=binarizer, **shape))
    register_all_modules(init_default_scope=False)
    return Config.fromfile(path)


def build(cfg: Config):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(cfg.model)
        detector.init_weights()
    return detector


@pytest.mark.parametrize("head", BASES)
@pytest.mark.parametrize("neck", ["OneBitFPN", "OneBitPAFPN"])
def test_a_step_and_a_prediction(tmp_path, head, neck) -> None:
    detector = build(config(tmp_path, head, neck))
    assert parts_of(detector) == "neck+head"
    convs = onebit_convs(detector)
    # Of three levels: laterals, outputs with extra levels; PAFPN's second path has four more.
    assert convs["neck"]["count"] == 3 + LEVELS[head] + (4 if neck == "OneBitPAFPN" else 0)
    assert convs["bbox_head"] == dict(count=CONVS[head], binarizers=["bireal"], pad_values=[0])
    losses = losses_of_two_steps(detector, 0.001)
    assert losses[0] != losses[1]
    assert all(torch.isfinite(torch.tensor(losses)))
    for name, parameter in detector.bbox_head.named_parameters():
        assert parameter.grad is not None, name
        # YOLOX learns classes only on levels that an object is assigned to.
        if "convs" in name and name.endswith("conv.weight") and "multi_level_cls" not in name:
            assert parameter.grad.abs().sum() > 0, name
    detector.eval()
    with torch.no_grad():
        found = detector.test_step(batch(1))[0].pred_instances
    assert found.bboxes.shape[1] == 4


@pytest.mark.parametrize("head", BASES)
def test_its_cost_is_that_of_the_real_valued_one_with_fewer_bits(tmp_path, head) -> None:
    onebit_cfg, real_cfg = (config(tmp_path, head, onebit=onebit) for onebit in (True, False))
    (onebit, reason), (real, _) = (cost_of(build(cfg), cfg) for cfg in (onebit_cfg, real_cfg))
    assert not reason
    strict, plain = onebit["strict"], real["strict"]
    # The stacks: two of two convs from 64 to 64 channels, 3 x 3, on every map of 128 x 96 pixels.
    macs = 4 * 64 * 64 * 9 * sum(h * w for h, w in SIZES[: LEVELS[head]])
    assert strict["bops"] - plain["bops"] == macs
    assert strict["params_1bit"] - plain["params_1bit"] == CONVS[head] * 64 * 64 * 9
    assert strict["memory_bits"] < plain["memory_bits"]
    assert parts_of(build(real_cfg)) == "neck"


@pytest.mark.parametrize("kind", [OneBitRetinaHead, OneBitFCOSHead])
def test_heads_keep_real_values_past_their_convs(kind) -> None:
    torch.manual_seed(0)
    head = kind(3, 32, binarizer="reactnet", pad_value=-1, stacked_convs=3, feat_channels=64)
    head.init_weights()
    for tower in (head.cls_convs, head.reg_convs):
        assert [(block.conv.in_channels, block.conv.out_channels) for block in tower] == [(32, 64), (64, 64), (64, 64)]
        assert all(isinstance(block.conv, OneBitConv2d) and block.conv.pad_value == -1 for block in tower)
        assert all(isinstance(block.norm, nn.GroupNorm) and not block.with_activation for block in tower)
        x = torch.randn(2, 64, 5, 7)
        block = tower[1]
        torch.testing.assert_close(block(x), x + block.norm(block.conv(x)))
        assert tower[0](x[:, :32]).shape == (2, 64, 5, 7)
    outputs = [module for name, module in head.named_modules() if isinstance(module, nn.Conv2d) and "convs" not in name]
    assert outputs
    assert not any(isinstance(module, OneBitConv2d) for module in outputs)
    maps = [torch.randn(2, 32, size, size) for size in (16, 8, 4, 2, 1)]
    assert all(len(levels) == 5 for levels in head(maps))


def test_the_pafpn_has_the_maps_of_mmdetections() -> None:
    maps = [torch.randn(2, c, 32 // 2**i, 24 // 2**i) for i, c in enumerate(CHANNELS)]
    for arguments in (dict(num_outs=4), dict(num_outs=5), dict(num_outs=5, start_level=1, add_extra_convs="on_input")):
        neck = OneBitPAFPN(CHANNELS, 16, binarizer="reactnet", onebit_outputs=True, act_cfg="binarizer", **arguments)
        neck.init_weights()
        found = neck(maps)
        assert [m.shape for m in found] == [m.shape for m in PAFPN(CHANNELS, 16, **arguments)(maps)]
        assert all(isinstance(m, OneBitConv2d) for m in neck.modules() if isinstance(m, nn.Conv2d))
        sum(m.square().sum() for m in found).backward()
        assert all(block.conv.weight.grad.abs().sum() > 0 for block in neck.output_convs[: len(neck.lateral_convs)])
    laterals = OneBitPAFPN(CHANNELS, 16, 4)
    assert not any(isinstance(block.conv, OneBitConv2d) for block in laterals.output_convs)
    assert all(isinstance(block.conv, OneBitConv2d) for block in laterals.lateral_convs)


@pytest.mark.parametrize("head", BASES)
@pytest.mark.parametrize("neck", ["OneBitFPN", "OneBitPAFPN"])
def test_packed_bits_give_the_same_outputs(tmp_path, head, neck) -> None:
    """Of a detector that has taken some steps: at the start many sums are exactly 0, where rounding decides a sign."""
    detector = build(config(tmp_path, head, neck))
    for _ in range(3):
        losses_of_two_steps(detector, 0.001)
    packed = backbones.deploy(detector.eval())
    assert sum(isinstance(module, PackedConv) for module in packed.bbox_head.modules()) == CONVS[head]
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        for one, other in zip(detector(image), packed(image), strict=True):
            for here, there in zip(one, other, strict=True):
                # A value within rounding of a threshold may take the other sign.
                assert ((here - there).abs() > 1e-3 * here.abs().max()).float().mean() < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"), [(dict(binarizer="bireall"), "bireall"), (dict(pad_value=2), "pad_value")]
)
@pytest.mark.parametrize("kind", [OneBitRetinaHead, OneBitFCOSHead, OneBitYOLOXHead])
def test_wrong_arguments(kind, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        kind(3, 32, feat_channels=32, **arguments)


@pytest.mark.parametrize("option", ["use_depthwise", "dcn_on_last_conv"])
def test_convs_that_are_not_1bit_are_refused(option) -> None:
    with pytest.raises(InputError, match=option):
        OneBitYOLOXHead(3, 32, feat_channels=32, **{option: True})
