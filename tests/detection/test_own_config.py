"""A user's own config, outside this repository, through `onebit train` and through MMDetection."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

import onebit
from onebit.commons.checkpoints import ROW
from onebit.commons.engine import load_row
from onebit.commons.engine_hooks import EpochSeedHook
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection import foreign, own_config, runner
from onebit.leaderboards import cli
from tests.detection.test_mmdet_config import batch, losses_of_two_steps

#: Our backbone and neck in MMDetection's config, everything narrow; and the user's own data.
CONFIG = """
_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["onebit"])
model = dict(
    backbone=dict(_delete_=True, type="onebit.ResNet", depth=18, width=8, binarizer="reactnet"),
    neck=dict(
        _delete_=True, type="onebit.OneBitFPN", binarizer="reactnet",
        in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5,
    ),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32, num_classes=5),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=30), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=30)),
)
classes = dict(classes=("car", "airplane", "bottle", "chair", "tv"))
data_root = {root!r}
resize = dict(type="Resize", scale=(96, 96), keep_ratio=True)
train_pipeline = [
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True), resize,
    dict(type="RandomFlip", prob=0.5), dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"), resize, dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
_loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **_loader, batch_size=4,
    dataset=dict(data_root=data_root, metainfo=classes, pipeline=train_pipeline),
)
val_dataloader = dict(
    **_loader, dataset=dict(data_root=data_root, metainfo=classes, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "/annotations/instances_val2017.json")
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=0.002))
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture(scope="module")
def mine(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("user") / "mine.py"
    path.write_text(CONFIG.format(root=str(drawn / "mini-coco")))
    return path


def job(tmp_path, drawn=Path(), **changes):
    return replace(Job("", "", "", 0, drawn, tmp_path / "work"), **changes)


@pytest.fixture(scope="module")
def trained(mine, drawn, tmp_path_factory):
    asked = job(tmp_path_factory.mktemp("row"), drawn)
    return asked, own_config.train(mine, asked)


def test_on_its_own_data(trained):
    _, outcome = trained
    assert outcome.epochs == 2
    assert outcome.main_metric == "AP"
    assert {"AP", "AP50"} <= set(outcome.metrics)
    assert len(outcome.details["loss_curve"]) == 2
    assert outcome.details["onebit_parts"] == "lateral"
    assert outcome.details["network"]["binarizer"] == "reactnet"
    assert outcome.details["stabilizers"] == dict(
        warmup=500, clip_grad=None, norm="SyncBN", loss_weights=dict(rpn_cls=1.0, rpn_bbox=1.0, cls=1.0, bbox=1.0)
    )
    assert outcome.cost["strict"]["bops"] > 0
    assert outcome.split == "annotations/instances_train2017.json -> annotations/instances_val2017.json"
    assert json.loads(outcome.predictions.read_text()) is not None
    row, _ = load_row(outcome.checkpoint)
    assert (row["config"], row["recipe"], row["backbone"]) == ("mine.py", "config", "mine")


def test_its_checkpoint_is_scored_by_its_config(trained, mine, drawn, tmp_path):
    _, outcome = trained
    scored = job(tmp_path, drawn, dataset="mini-coco")
    again = foreign.score_checkpoint(outcome.checkpoint, mine, scored)
    assert again.metrics == outcome.metrics
    with pytest.raises(InputError, match=r"by a config of its own: name it with --config mine\.py"):
        runner.test(outcome.checkpoint, scored)


def metrics_in(out: str) -> dict[str, float]:
    return {
        name: float(line.split()[1]) for line in out.splitlines() for name in ("AP", "AP50") if line.split()[0] == name
    }


@pytest.mark.slow
def test_the_command_scores_it_on_the_data_of_its_config(trained, mine, tmp_path, capsys):
    """No --dataset; pictures, kept predictions and packed bits as of any other checkpoint."""
    _, outcome = trained
    expected = {name: pytest.approx(outcome.metrics[name], abs=5e-5) for name in ("AP", "AP50")}
    command = ["test", "detection", "--config", str(mine), "--show-dir", str(tmp_path / "shown"), "--show", "3"]
    assert cli.main([*command, "--checkpoint", str(outcome.checkpoint)]) == 0
    out = capsys.readouterr().out
    assert metrics_in(out) == expected
    assert out.startswith(f"{outcome.checkpoint} on the data of {mine}\n")
    assert f"protocol    {outcome.split};" in out
    assert len(list((tmp_path / "shown").glob("*_*.png"))) == 3
    assert cli.main([*command, "--predictions", str(outcome.predictions)]) == 0
    assert metrics_in(capsys.readouterr().out) == expected
    assert cli.main([*command[:4], "--checkpoint", str(outcome.checkpoint), "--packed"]) == 0
    assert "packed, on the CPU" in capsys.readouterr().out
    folder = outcome.checkpoint.parent
    assert (folder / "predictions.json").read_bytes() == (folder / "test_predictions.json").read_bytes()
    assert (folder / "test_packed_predictions.json").is_file()
    assert cli.main(["test", "detection", "--checkpoint", str(outcome.checkpoint)]) == 2
    assert "does not say what to score it on" in capsys.readouterr().err
    assert cli.main(["test", "detection", "--checkpoint", str(outcome.checkpoint), "--dataset", "mini-coco"]) == 2
    options = ["--checkpoint", str(outcome.checkpoint), "--cfg-options", "model.backbone.depht=3"]
    assert cli.main([*command[:4], *options]) == 2
    assert "depht" in capsys.readouterr().err


@pytest.mark.slow
def test_options_of_its_training_count_when_it_is_scored_and_used(mine, drawn, tmp_path, capsys):
    """A detector that options made another than the config's is built as it was trained."""
    options = {"model.roi_head.bbox_head.fc_out_channels": 24, "train_cfg.max_epochs": 1, "stabilizers.clip_grad": 5}
    outcome = own_config.train(mine, job(tmp_path, drawn, dataset="mini-coco", cfg_options=options))
    command = ["test", "detection", "--config", str(mine), "--checkpoint", str(outcome.checkpoint)]
    assert cli.main([*command, "--data", str(drawn)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{outcome.checkpoint} on mini-coco\n")
    assert metrics_in(out)["AP"] == pytest.approx(outcome.metrics["AP"], abs=5e-5)
    image = next((drawn / "mini-coco" / "val2017").glob("*.jpg"))
    assert "boxes" in onebit.load(outcome.checkpoint, config=mine)(image)


def test_a_checkpoint_names_no_files_to_read(trained, mine, tmp_path, capsys):
    content = torch.load(trained[1].checkpoint, weights_only=True)
    path = tmp_path / "other.pth"
    torch.save({**content, ROW: {**content[ROW], "dataset": "coco:/etc/labels.json"}}, path)
    assert cli.main(["test", "detection", "--config", str(mine), "--checkpoint", str(path)]) == 2
    assert "its dataset is 'coco:/etc/labels.json': expected a name" in capsys.readouterr().err


def test_resumed_equals_uninterrupted(trained, mine, drawn, tmp_path, monkeypatch):
    _, outcome = trained
    asked = job(tmp_path, drawn)
    start = EpochSeedHook.before_train_epoch

    def killed(self, current):
        if current.epoch == 1:
            raise KeyboardInterrupt
        start(self, current)

    with monkeypatch.context() as patch:
        patch.setattr(EpochSeedHook, "before_train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            own_config.train(mine, asked)
    resumed = own_config.train(mine, replace(asked, resume=True))
    assert resumed.metrics == outcome.metrics
    assert resumed.details["loss_curve"] == outcome.details["loss_curve"]
    assert resumed.config == outcome.config


def test_command_on_a_dataset_of_the_suite(mine, drawn, tmp_path, capsys):
    command = ["train", "detection", "--config", str(mine), "--data", str(drawn)]
    command += ["--work-dir", str(tmp_path / "w"), "--dataset", "mini-coco"]
    options = ["--cfg-options", "train_cfg.max_epochs=1", "stabilizers.clip_grad=5"]
    options.append("test_evaluator.judge=faster-coco-eval")
    assert cli.main([*command, *options]) == 0
    assert "AP50" in capsys.readouterr().out
    text = (tmp_path / "w" / "config.py").read_text()
    assert "max_norm=5" in text
    assert "judge='faster-coco-eval'" in text
    assert cli.main([*command, *options]) == 2
    assert "holds the checkpoints of an earlier run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detection", "--dataset", "mini-coco"], "train needs --backbone"),
        (["detection", "--backbone", "resnet18"], "train needs --dataset"),
        (["reid", "--config", "x.py"], "--config is for detection; reid takes"),
        (["detection", "--config", "x.py", "--recipe", "mini"], "--recipe does not go with --config"),
        (["detection", "--config", "gone.py"], "config not found: gone.py"),
    ],
)
def test_wrong_commands(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=3)", "trains by iterations"),
        ("train_dataloader = None", "has no `train_dataloader`"),
        ("model = dict(roi_head=dict(bbox_head=dict(num_classes=4)))", "knows 4 classes"),
        ("test_dataloader = dict(dataset=dict(_delete_=True, type='LVISV1Dataset'))", "tests on LVISV1Dataset"),
        ("model = dict(backbone=dict(depht=3))", "depht"),
    ],
)
def test_configs_that_do_not_fit(mine, drawn, tmp_path, change, message):
    path = tmp_path / "other.py"
    path.write_text(f"_base_ = {str(mine)!r}\n{change}\n")
    with pytest.raises(InputError, match=message):
        own_config.train(path, job(tmp_path, drawn))
    with pytest.raises(InputError, match=r"no option 'train_cfg\.max_epoch'"):
        own_config.train(mine, job(tmp_path, drawn, cfg_options={"train_cfg.max_epoch": 1}))


def test_mmdetections_own_runner(mine, tmp_path):
    cfg = Config.fromfile(mine)
    cfg.work_dir = str(tmp_path / "mmdet")
    cfg.train_cfg.max_epochs = 1
    register_all_modules(init_default_scope=False)
    current = Runner.from_cfg(cfg)
    current.train()
    assert current.iter == 2
    metrics = current.test()
    assert "coco/bbox_mAP" in metrics


RETINANET = """
_base_ = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["onebit"])
model = dict(
    backbone=dict(_delete_=True, {backbone}),
    neck=dict({neck}in_channels={channels}, out_channels=16, num_outs=5, start_level=1, add_extra_convs="on_output"),
    bbox_head=dict(in_channels=16, feat_channels=16, num_classes=80),
)
"""
RETINA_BACKBONES = {
    "resnet": ('type="onebit.ResNet", depth=18, width=8, binarizer="bireal"', [8, 16, 32, 64], "bireal"),
    "cells": ('type="onebit.create_backbone", name="dcp_nas_c8_l6"', [8, 32, 64, 128], "mcn"),
}


@pytest.mark.parametrize("name", RETINA_BACKBONES)
def test_retinanet_trains_two_iterations_and_predicts(tmp_path, name):
    backbone, channels, binarizer = RETINA_BACKBONES[name]
    neck = f'_delete_=True, type="onebit.OneBitFPN", binarizer="{binarizer}", onebit_outputs=True, '
    path = tmp_path / "retinanet.py"
    path.write_text(RETINANET.format(backbone=backbone, channels=channels, neck=neck))
    cfg = Config.fromfile(path)
    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(cfg.model)
        detector.init_weights()
        losses = losses_of_two_steps(detector, 0.01)
        assert all(torch.isfinite(torch.tensor(losses)))
        assert losses[0] != losses[1]
        assert not [n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None]
        detector.eval()
        with torch.no_grad():
            found = detector.test_step(batch(1))[0].pred_instances
    assert found.bboxes.shape[1] == 4
    assert own_config.parts_of(detector) == "neck"
