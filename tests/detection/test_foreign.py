"""Detectors of MMDetection's own, as somebody else's config and checkpoint."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection import foreign, runner
from tests.detection.conftest import TINY

# ruff: isort: split
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope

RETINANET = """
_base_ = "mmdet::_base_/models/retinanet_r50_fpn.py"
default_scope = "mmdet"
model = dict(
    backbone=dict(depth=18, base_channels=8, init_cfg=dict(type="Pretrained", checkpoint="no://where")),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(num_classes=5, in_channels=16, feat_channels=16, stacked_convs=1),
    test_cfg=dict(score_thr=0.0, nms_pre=50, max_per_img=30),
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id",)),
]
"""
CLASSES = ("car", "airplane", "bottle", "chair", "tv")


@pytest.fixture(scope="module")
def row(drawn, tmp_path_factory):
    job = Job(
        dataset="mini-coco",
        backbone="resnet18_w8_reactnet",
        recipe="mini",
        seed=0,
        data_root=drawn,
        work_dir=tmp_path_factory.mktemp("row"),
        cfg_options={**TINY, "model.test_cfg.rcnn.score_thr": 0.0},
    )
    return job, runner.train(job)


@pytest.fixture
def retinanet(tmp_path):
    """Write a config and a checkpoint of it; return their paths."""

    def write(text=RETINANET, **content):
        config = tmp_path / "retinanet.py"
        config.write_text(text)
        register_all_modules(init_default_scope=False)
        with DefaultScope.overwrite_default_scope("mmdet"):
            torch.manual_seed(0)
            weights = MODELS.build(Config.fromfile(config).model).state_dict()
        checkpoint = tmp_path / "epoch_12.pth"
        torch.save(dict(state_dict=weights, **content), checkpoint)
        return checkpoint, config

    return write


def bare(job, tmp_path, dataset="mini-coco"):
    return replace(job, dataset=dataset, backbone="", recipe="", cfg_options={}, work_dir=tmp_path / "scored")


@pytest.mark.slow
def test_a_row_of_this_suite_scores_the_same_by_its_config(row, tmp_path):
    """Its checkpoint and the config that lies beside it, taken for somebody else's."""
    job, outcome = row
    again = foreign.score_checkpoint(outcome.checkpoint, job.work_dir / "config.py", bare(job, tmp_path))
    assert again.predictions.read_bytes() == outcome.predictions.read_bytes()
    assert len(json.loads(again.predictions.read_text())) > 20
    assert again.metrics == outcome.metrics
    assert (again.untrained, again.epochs) == (None, 0)
    assert again.details["network"] == dict(binarizer="reactnet", weight_bits=1, activation_bits=1)
    for convention, summary in outcome.cost.items():
        assert again.cost[convention]["params_1bit"] == summary["params_1bit"]
    assert str(tmp_path) not in again.config


def test_a_detector_of_another_kind(retinanet, row, tmp_path):
    checkpoint, config = retinanet(meta=dict(dataset_meta=dict(classes=CLASSES), epoch=12))
    outcome = foreign.score_checkpoint(checkpoint, config, bare(row[0], tmp_path))
    assert outcome.main_metric == "AP"
    assert outcome.details["classes_stated"]
    assert outcome.details["network"] == dict(binarizer="none", weight_bits=32, activation_bits=32)
    assert outcome.cost["strict"]["input_shape"] == [3, 64, 64]
    assert outcome.cost["strict"]["params_real"] > 1000
    assert outcome.cost["strict"]["bops"] == 0
    kept = runner.score_predictions(outcome.predictions, bare(row[0], tmp_path))
    assert kept.metrics == outcome.metrics
    # Boxes are in pixels of the image as it lies on disk, not of the one it was scaled to.
    corners = [d["bbox"][0] + d["bbox"][2] for d in json.loads(outcome.predictions.read_text())]
    assert 64 < max(corners) <= 96


def test_on_voc(retinanet, row, tmp_path):
    classes = ("aeroplane", "bottle", "car", "chair", "tvmonitor")
    checkpoint, config = retinanet(meta=dict(CLASSES=classes))
    outcome = foreign.score_checkpoint(checkpoint, config, bare(row[0], tmp_path, "mini-voc"))
    assert set(outcome.metrics) == {"map_area", "map_11pt"}
    kept = runner.score_predictions(outcome.predictions, bare(row[0], tmp_path, "mini-voc"))
    assert kept.metrics == outcome.metrics


def test_a_bare_state_dict_with_the_prefix_of_data_parallel(retinanet, row, tmp_path):
    checkpoint, config = retinanet()
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.save({f"module.{k}": v for k, v in weights.items()}, checkpoint)
    outcome = foreign.score_checkpoint(checkpoint, config, bare(row[0], tmp_path))
    assert not outcome.details["classes_stated"]


def test_cost_that_cannot_be_counted_is_not_invented(retinanet, row, tmp_path):
    two_sizes = RETINANET.replace("scale=(64, 64)", "scale_factor=0.7")
    checkpoint, config = retinanet(two_sizes)
    outcome = foreign.score_checkpoint(checkpoint, config, bare(row[0], tmp_path))
    assert outcome.cost == {}
    assert outcome.details["cost_not_counted"] == "the test pipeline states no single size"
    assert outcome.details["network"]["weight_bits"] is None


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (CLASSES[::-1], "classes, in another order, mini-coco has 5: class 0 is tv and not car"),
        (CLASSES[:4], "knows 4 classes, mini-coco has 5: class 4 is nothing and not tv"),
        ((*CLASSES[:4], "sofa"), "class 4 is sofa and not tv"),
    ],
)
def test_other_classes(retinanet, row, tmp_path, classes, message):
    checkpoint, config = retinanet(meta=dict(dataset_meta=dict(classes=classes)))
    with pytest.raises(InputError) as caught:
        foreign.score_checkpoint(checkpoint, config, bare(row[0], tmp_path))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("num_classes=5", "num_classes=80"), "RetinaHead knows 80 classes, mini-coco has 5"),
        (('type="PackDetInputs"', 'type="Pad"'), "must end with PackDetInputs"),
        (("test_pipeline", "val_pipeline"), "has no test pipeline"),
        (("32, 64], out", "32, 65], out"), "do not fit this network"),
        (("bbox_head=dict(", "bbox_head=dict(type='NoHead', "), "NoHead"),
        (("default_scope", "1 / 0\ndefault_scope"), "cannot read config"),
        (("default_scope =", "custom_imports = dict(imports=['nothing_here'])\ndefault_scope ="), "cannot read config"),
    ],
)
def test_configs_that_do_not_fit(retinanet, row, tmp_path, change, message):
    checkpoint, config = retinanet()
    config.write_text(RETINANET.replace(*change))
    with pytest.raises(InputError) as caught:
        foreign.score_checkpoint(checkpoint, config, bare(row[0], tmp_path))
    assert message in str(caught.value)


def test_checkpoints_that_do_not_fit(retinanet, row, tmp_path):
    job = bare(row[0], tmp_path)
    checkpoint, config = retinanet()
    with pytest.raises(InputError, match="do not fit this network"):
        foreign.score_checkpoint(row[1].checkpoint, config, job)
    for content in (dict(state_dict=3), [1], dict(state_dict={}), dict(epoch=3)):
        torch.save(content, checkpoint)
        with pytest.raises(InputError, match=r"expected a state dict.*epoch_12\.pth"):
            foreign.score_checkpoint(checkpoint, config, job)
    checkpoint.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"epoch_12\.pth is not a checkpoint"):
        foreign.score_checkpoint(checkpoint, config, job)
    with pytest.raises(InputError, match="checkpoint not found"):
        foreign.score_checkpoint(tmp_path / "none.pth", config, job)
    with pytest.raises(InputError, match="config not found"):
        foreign.score_checkpoint(checkpoint, tmp_path / "none.py", job)


def test_nothing_in_a_checkpoint_is_executed(retinanet, row, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    checkpoint, config = retinanet(meta=Evil())
    with pytest.raises(InputError, match="without executing what it says"):
        foreign.score_checkpoint(checkpoint, config, bare(row[0], tmp_path))
    assert not (tmp_path / "executed").exists()
