"""The losses of a binarization method in the training of a row: added, logged, and by name."""

import re

import pytest
import torch
from mmengine.logging import MessageHub

from onebit import backbones
from onebit.backbones.registry import MODELS
from onebit.classification import runner


@pytest.mark.parametrize(
    ("binarizer", "names"),
    [("bonn", {"loss_bayes_kernel", "loss_bayes_feature"}), ("bnaspcnn", {"loss_amplitude"}), ("reactnet", set())],
)
def test_logs_show_each_loss_under_its_name(job, binarizer, names):
    asked = job(
        backbone=f"resnet18_w8_{binarizer}", cfg_options={"default_hooks.logger": dict(type="LoggerHook", interval=1)}
    )
    runner.train(asked)
    (line, *_) = re.findall(r"Epoch\(train\).*", (asked.work_dir / "train.log").read_text())
    assert set(re.findall(r"(loss_\w+): ", line)) == names
    (events,) = asked.work_dir.rglob("events.out.tfevents*")
    for name in names:
        assert name.encode() in events.read_bytes()
        values, _ = MessageHub.get_current_instance().get_scalar(f"train/{name}").data
        assert len(values) == 4


def model(config, binarizer):
    torch.manual_seed(0)
    return MODELS.build(config(backbone=f"resnet18_w8_{binarizer}").model)


def test_classifier_shows_features_and_labels_to_the_method(config):
    bonn = model(config, "bonn")
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([3, 3, 0, 9])
    features = bonn.backbone(images)[-1].mean((2, 3))
    assert {*bonn(images, labels, "loss")} == {"loss"}
    centres = bonn.feature_losses[0].centres
    torch.testing.assert_close(centres.mean[3], features[:2].mean(0))
    assert centres.seen.nonzero().flatten().tolist() == [0, 3, 9]
    assert {*backbones.method_losses(bonn)} == {"loss_bayes_kernel", "loss_bayes_feature"}
    bonn.eval()
    bonn(images, labels, "loss")
    bonn(images, labels, "predict")
    assert backbones.method_losses(bonn) == {}


def test_child_and_parent_losses_join_a_classifier(config):
    child, parent = model(config, "bireal"), MODELS.build(config(backbone="resnet18_w8").model)
    child.child_parent = backbones.ChildParentLoss(child.backbone, parent.backbone)
    child.feature_losses.append(backbones.ClassCentreLoss(64, 10))
    child(torch.randn(4, 3, 32, 32), torch.tensor([3, 3, 0, 9]), "loss")
    assert {*backbones.method_losses(child)} == {"loss_child_parent", "loss_class_centre"}
