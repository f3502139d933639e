"""Backbones that start from a checkpoint of classification, and the named stabilizers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onebit.backbones import create_backbone
from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file
from onebit.commons.task import Job
from onebit.detection import pretrained, runner, stabilizers
from onebit.detection.config import build_config

# ruff: isort: split
from mmengine.config import Config

RESNET, CELLS = "resnet18_w8_reactnet", "dcp_nas_c8_l6"


def checkpoint(path, backbone=RESNET, stem="imagenet", task="classification", **changes):
    """A file like those of `onebit train classification`."""
    torch.manual_seed(7)
    network = create_backbone(backbone, out_indices=(3,), stem=stem)
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point:
            tensor.normal_()
    weights = {f"backbone.{k}": v for k, v in network.state_dict().items()}
    weights |= {"classifier.weight": torch.zeros(10, 64)} | changes
    row = dict(task=task, dataset="cifar10-jpeg", backbone=backbone, recipe="small", seed=0)
    torch.save({"onebit_row": row, "state_dict": weights}, path)
    return path


def detector_backbone(name):
    torch.manual_seed(0)
    return create_backbone(name)


@pytest.mark.parametrize("name", [RESNET, "resnet18_w8", CELLS])
def test_the_same_stem_is_taken_whole(tmp_path, name):
    path = checkpoint(tmp_path / "c.pth", name)
    network = detector_backbone(name)
    said = pretrained.describe(path, network, name)
    assert said == dict(
        file="c.pth",
        sha256=sha256_file(path),
        backbone=name,
        dataset="cifar10-jpeg",
        recipe="small",
        seed=0,
        tensors=len(network.state_dict()),
        left_out=[],
    )
    pretrained.load(network, path, name)
    saved = torch.load(path, weights_only=True)["state_dict"]
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, saved[f"backbone.{key}"]), key


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        (RESNET, ["conv1", "bn1"]),
        (CELLS, ["stem", "cells.0.preprocess_older", "cells.0.preprocess_newer", "cells.1.preprocess_older"]),
    ],
)
def test_a_stem_for_small_images_stays_behind(tmp_path, name, left_out):
    path = checkpoint(tmp_path / "c.pth", name, stem="cifar")
    network = detector_backbone(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    said = pretrained.describe(path, network, name)
    assert said["left_out"] == left_out
    pretrained.load(network, path, name)
    saved = torch.load(path, weights_only=True)["state_dict"]
    taken = 0
    for key, tensor in network.state_dict().items():
        if key.startswith(tuple(f"{part}." for part in left_out)):
            assert torch.equal(tensor, before[key]), key
        else:
            assert torch.equal(tensor, saved[f"backbone.{key}"]), key
            taken += 1
    assert said["tensors"] == taken > 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(task="reid"), "is a checkpoint of reid, not of classification"),
        (dict(backbone="resnet18_w8"), "is a checkpoint of resnet18_w8, not of resnet18_w8_reactnet"),
        (
            {"backbone.layer3.0.unit1.conv.weight": torch.zeros(3)},
            r"1 tensors differ: layer3\.0\.unit1\.conv\.weight is 3 there and 32x16x3x3 here",
        ),
        ({"backbone.layer9.weight": torch.zeros(3)}, r"layer9\.weight is 3 there and missing here"),
        ({"stem": "cifar", "backbone.layer1.0.unit1.bn.weight": torch.zeros(3)}, "layer1.*is 3 there and 8 here"),
        # A norm of another size alone is no other stem's: its convolution is missing here.
        ({"stem": "cifar", "backbone.layer4.1.unit2.bn.weight": torch.zeros(())}, "is one number there"),
    ],
)
def test_what_does_not_fit(tmp_path, changes, message):
    path = checkpoint(tmp_path / "c.pth", **changes)
    with pytest.raises(InputError, match=message):
        pretrained.describe(path, detector_backbone(RESNET), RESNET)


def test_not_a_checkpoint(tmp_path):
    (tmp_path / "c.pth").write_bytes(b"no")
    for path in (tmp_path / "c.pth", tmp_path / "gone.pth"):
        with pytest.raises(InputError, match=path.name):
            pretrained.describe(path, detector_backbone(RESNET))
    with pytest.raises(InputError, match="expected the path of a checkpoint"):
        pretrained.describe(3, detector_backbone(RESNET))


def test_a_row_that_starts_from_one(drawn, make_job, tmp_path):
    path = checkpoint(tmp_path / "c.pth", stem="cifar")
    job = make_job(drawn)
    options = {
        **job.cfg_options,
        "pretrained": str(path),
        "optim_wrapper.optimizer.lr": 0.0,
        "optim_wrapper.optimizer.weight_decay": 0.0,
        "train_cfg.max_epochs": 1,
    }
    job = replace(job, cfg_options=options)
    outcome = runner.train(job)
    said = outcome.details["pretrained"]
    assert said["sha256"] == sha256_file(path)
    assert said["left_out"] == ["conv1", "bn1"]
    assert said["sha256"] in outcome.config
    assert str(tmp_path) not in outcome.config
    # At a learning rate of 0 its weights are still there.
    saved = torch.load(path, weights_only=True)["state_dict"]
    trained = torch.load(outcome.checkpoint, weights_only=True)
    key = "backbone.layer2.0.unit1.conv.weight"
    assert torch.equal(trained["state_dict"][key], saved[key])
    assert str(tmp_path) not in str(trained["onebit_row"])
    # Scored without the file it started from, and not continued from another one.
    path.rename(tmp_path / "moved.pth")
    bare = Job("", "", "", 0, drawn, tmp_path / "test")
    assert runner.test(outcome.checkpoint, bare).config == outcome.config
    with pytest.raises(InputError, match="pretrained is for training"):
        runner.test(outcome.checkpoint, replace(bare, cfg_options={"pretrained": str(path)}))
    other = checkpoint(tmp_path / "c.pth", stem="cifar", extra=torch.zeros(1))
    with pytest.raises(InputError, match="cannot resume"):
        runner.train(replace(job, resume=True, cfg_options={**options, "pretrained": str(other)}))


def config(**options):
    job = Job("mini-voc", RESNET, "mini", 0, Path("data"), Path(), cfg_options=options)
    return build_config(job, "data")


def test_stabilizers_of_a_recipe():
    assert stabilizers.read(config()) == dict(
        warmup=50, clip_grad=10.0, norm="SyncBN", loss_weights=dict(rpn_cls=1.0, rpn_bbox=1.0, cls=1.0, bbox=1.0)
    )
    assert "stabilizers" not in config()


def test_stabilizers_by_name():
    chosen = {
        "stabilizers.warmup": 7,
        "stabilizers.clip_grad": 2.5,
        "stabilizers.norm": "frozen",
        "stabilizers.loss_weights.rpn_cls": 0.5,
        "stabilizers.loss_weights.bbox": 2,
    }
    cfg = config(**chosen)
    assert stabilizers.read(cfg) == dict(
        warmup=7, clip_grad=2.5, norm="frozen", loss_weights=dict(rpn_cls=0.5, rpn_bbox=1.0, cls=1.0, bbox=2)
    )
    assert cfg.model.roi_head.bbox_head.loss_bbox.loss_weight == 2
    assert cfg.model.backbone.norm_eval is True
    assert cfg.stabilizers.loss_weights == dict(rpn_cls=0.5, bbox=2)
    off = config(**{"stabilizers.warmup": 0, "stabilizers.clip_grad": None, "stabilizers.norm": "BN"})
    assert stabilizers.read(off) | {"loss_weights": {}} == dict(warmup=0, clip_grad=None, norm="BN", loss_weights={})
    assert [s.type for s in off.param_scheduler] == ["CosineAnnealingLR"]
    assert off.sync_bn is False


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("stabilizers.warm_up", 3, "unknown option of stabilizers 'warm_up'; did you mean warmup"),
        ("stabilizers", 3, "expected stabilizers.NAME"),
        ("stabilizers.warmup", 2.5, "expected a whole number from 0 up"),
        ("stabilizers.clip_grad", -1, "expected a number from 0 up"),
        ("stabilizers.clip_grad", float("nan"), "expected a number from 0 up"),
        ("stabilizers.norm", "GN", "expected one of SyncBN, BN, frozen"),
        ("stabilizers.loss_weights.mask", 1, "expected factors of rpn_cls"),
        ("stabilizers.loss_weights.cls", "much", "expected a number from 0 up"),
    ],
)
def test_wrong_stabilizers(option, value, message):
    with pytest.raises(InputError, match=message):
        config(**{option: value})


def own(**changes):
    """What somebody's own config may look like."""
    loss = dict(type="SmoothL1Loss")
    content = dict(
        model=dict(backbone=dict(), bbox_head=dict(loss_cls=loss)),
        optim_wrapper=dict(),
        param_scheduler=dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=9),
    )
    return Config({**content, **changes})


def test_stabilizers_of_other_detectors():
    """One scheduler that is not in a list, one without an end, a cascade, a single stage."""
    cascade = dict(backbone=dict(), roi_head=dict(bbox_head=[dict(loss_cls=dict(loss_weight=1))]))
    assert stabilizers.read(own()) == dict(warmup=9, clip_grad=None, norm="SyncBN", loss_weights=dict(cls=1.0))
    assert stabilizers.read(own(model=cascade))["loss_weights"] == {}
    for scheduler in (dict(type="LinearLR"), dict(type="LinearLR", end=3)):
        assert stabilizers.read(own(param_scheduler=[scheduler]))["warmup"] is None
    assert stabilizers.read(own(param_scheduler=None))["warmup"] == 0
    for schedulers in (None, dict(type="LinearLR", end=3)):
        cfg = own(param_scheduler=schedulers)
        stabilizers.apply(cfg, dict(warmup=5))
        assert stabilizers.read(cfg)["warmup"] == 5
        assert len(cfg.param_scheduler) == 1
    with pytest.raises(InputError, match=r"loss_weights\.cls: this detector has no roi_head\.bbox"):
        stabilizers.apply(own(model=cascade), dict(loss_weights=dict(cls=0.5)))
    with pytest.raises(InputError, match=r"loss_weights\.rpn_cls: this detector has no rpn_head"):
        stabilizers.apply(own(), dict(loss_weights=dict(rpn_cls=0.5)))
    one_stage = own()
    stabilizers.apply(one_stage, dict(loss_weights=dict(cls=0.5)))
    assert stabilizers.read(one_stage)["loss_weights"] == dict(cls=0.5)
