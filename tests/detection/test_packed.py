"""A packed backbone inside a detector."""

from dataclasses import replace

import pytest
import torch

from onebit.backbones import deploy
from onebit.backbones.packed.layers import PackedConv
from onebit.detection import runner
from onebit.detection.config import build_config


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    from onebit.commons.task import Job
    from tests.detection.conftest import TINY

    job = Job(
        dataset="mini-voc",
        backbone="resnet18_w8_reactnet",
        recipe="mini",
        seed=0,
        data_root=drawn,
        work_dir=tmp_path_factory.mktemp("packed"),
        cfg_options={**TINY, "train_cfg.max_epochs": 1},
    )
    return job, runner.train(job)


def test_scoring_the_packed_detector(trained, tmp_path):
    job, outcome = trained
    again = runner.test(outcome.checkpoint, replace(job, work_dir=tmp_path), packed=True)
    assert again.predictions.name == "test_packed_predictions.json"
    assert again.cost == outcome.cost
    assert again.details["onebit_parts"] == "lateral"
    assert {k: v["count"] for k, v in again.details["onebit_convs"].items()} == {"backbone": 16, "neck": 4}
    for name, value in outcome.metrics.items():
        assert again.metrics[name] == pytest.approx(value, abs=0.02)


def test_maps_of_backbone_and_neck(drawn, make_job):
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    job = make_job(drawn)
    detector = MODELS.build(build_config(job, drawn / "mini-voc").model).eval()
    packed = deploy(detector)
    for part in ("backbone", "neck"):
        assert any(isinstance(m, PackedConv) for m in getattr(packed, part).modules())
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected, found = detector.extract_feat(images), packed.extract_feat(images)
    assert len(expected) == len(found) == 5
    for a, b in zip(expected, found, strict=True):
        # A value within rounding of a threshold may take the other sign.
        assert ((a - b).abs() > 1e-3 * a.abs().max()).float().mean() < 0.05
