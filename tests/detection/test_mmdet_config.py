"""Any backbone in MMDetection's own config, from outside this repository, by three lines."""

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from onebit import backbones

USER_CONFIG = """
_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["onebit"])
model = dict(
    backbone=dict(_delete_=True, {backbone}),
    neck=dict({neck}in_channels={channels}),
)
"""


def build(tmp_path, name, backbone, neck=""):
    from mmdet.registry import MODELS

    channels = list(backbones.create_backbone(name).feature_channels)
    path = tmp_path / "mine.py"
    path.write_text(USER_CONFIG.format(backbone=backbone, channels=channels, neck=neck))
    cfg = Config.fromfile(path)
    register_all_modules(init_default_scope=False)
    init_default_scope("mmdet")
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    return detector


def batch(count=2):
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for _ in range(count):
        inputs.append(torch.randint(256, (3, 96, 128), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(
            metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0), img_id=0)
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 10, 60, 70], [50, 20, 120, 90]]), labels=torch.tensor([3, 7])
        )
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def losses_of_two_steps(detector, rate):
    """Of SGD; the gradients of the second step stay."""
    detector.train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=rate)
    losses = []
    for _ in range(2):
        data = detector.data_preprocessor(batch(), training=True)
        loss, _ = detector.parse_losses(detector(**data, mode="loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


NAMES = {
    "resnet18_w8": 'type="onebit.ResNet", depth=18, width=8',
    "resnet18_w8_reactnet": 'type="onebit.ResNet", depth=18, width=8, binarizer="reactnet"',
    "resnet34_w8_xnor": 'type="onebit.create_backbone", name="resnet34_w8_xnor"',
    "dcp_nas_c8": 'type="onebit.CellNet", arch="dcp_nas_c8", out_indices=(0, 1, 2, 3)',
}


@pytest.mark.parametrize("name", NAMES)
def test_trains_and_predicts(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    detector = build(tmp_path, name, NAMES[name])
    assert isinstance(detector.backbone, type(backbones.create_backbone(name)))
    detector.train()
    data = detector.data_preprocessor(batch(), training=True)
    loss, _ = detector.parse_losses(detector(**data, mode="loss"))
    loss.backward()
    assert torch.isfinite(loss)
    frozen = [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not frozen
    detector.eval()
    with torch.no_grad():
        results = detector.test_step(batch(1))
    assert results[0].pred_instances.bboxes.shape[1] == 4


def test_the_1bit_neck_in_it(tmp_path):
    name = "resnet18_w8_reactnet"
    neck = '_delete_=True, type="onebit.OneBitFPN", binarizer="reactnet", out_channels=256, num_outs=5, '
    detector = build(tmp_path, name, NAMES[name], neck)
    onebit = [n for n, m in detector.named_modules() if isinstance(m, backbones.OneBitConv2d)]
    assert {n.split(".")[0] for n in onebit} == {"backbone", "neck"}
    with torch.no_grad():
        detector.eval()
        assert detector.test_step(batch(1))[0].pred_instances.scores.ndim == 1
