"""The cost of a whole MMDetection detector, built from MMDetection's own config."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from onebit import backbones

pytest.importorskip("onebit.detection")  # makes MMDetection importable beside mmcv-lite
mmdet = pytest.importorskip("mmdet")

PROPOSALS = 1000


def faster_rcnn(backbone, channels):
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    folder = Path(mmdet.__file__).parent / ".mim" / "configs" / "faster_rcnn"
    model = Config.fromfile(folder / "faster-rcnn_r50_fpn_1x_coco.py").model
    model.backbone = backbone
    model.neck.in_channels = channels
    model.roi_head.bbox_head.num_classes = 20
    return MODELS.build(model)


def run(height, width):
    """Every module of the detector once, with 1000 proposals whatever the RPN finds."""

    def forward(detector):
        from mmdet.structures.bbox import bbox2roi

        maps = detector.extract_feat(torch.zeros(1, 3, height, width))
        detector.rpn_head(maps)
        corners = torch.arange(PROPOSALS)[:, None] / PROPOSALS * torch.tensor([width, height]) * 0.8
        boxes = torch.cat([corners, corners + 64], dim=1)
        detector.roi_head._bbox_forward(maps, bbox2roi([boxes]))

    return forward


def test_real_valued_resnet18_of_table_13():
    """DCP-NAS, Table 13: 96.40 GFLOPs and 112.88 MB, with MMDetection's own ResNet-18."""
    backbone = dict(
        type="ResNet",
        depth=18,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=True,
        style="pytorch",
    )
    detector = faster_rcnn(backbone, [64, 128, 256, 512])
    for size in [(600, 1000), (1000, 600)]:
        cost = backbones.cost(detector, forward=run(*size), convention="mmdet-legacy")
        assert 96.39e9 < cost.flops < 96.40e9
        assert cost.memory_bits / 8 / 1e6 == pytest.approx(112.88, abs=0.005)
    roles = {row.name: row.calls for row in cost.rows}
    assert roles["rpn_head.rpn_conv"] == 5  # one layer, five levels


@pytest.mark.parametrize("name", ["resnet18_w16_reactnet", "dcp_nas_c8"])
def test_our_backbones_in_it(name):
    network = backbones.create_backbone(name)
    channels = list(network.feature_channels)
    detector = faster_rcnn(backbones.backbone_config(name), channels)
    cost = backbones.cost(detector, forward=run(96, 160))
    alone = backbones.cost(network, (3, 96, 160))
    assert cost.bops == alone.bops > 0
    assert cost.params_1bit == alone.params_1bit
    legacy = backbones.cost(detector, forward=run(96, 160), convention="mmdet-legacy")
    assert legacy.flops > legacy.macs == cost.macs
