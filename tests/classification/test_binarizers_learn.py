"""A narrow network of every binarizer learns mini-cifar10, and the losses of the methods fall."""

import re
from dataclasses import replace
from functools import partial

import pytest

from onebit.backbones.binarization import (
    BINARIZERS,
    BONN,
    MCN,
    PCNN,
    BayesianSign,
    ModulatedSign,
    ProjectedSign,
    register_binarizer,
)
from onebit.backbones.class_centres import BayesFeatureLoss
from onebit.classification import runner
from onebit.commons.mini import write
from onebit.commons.task import Job

#: Half of a ResNet-18 on maps of 8x8: seconds an epoch.
SMALL = {
    "model.backbone.stem": "imagenet",
    "model.backbone.out_indices": (1,),
    "train_dataloader.batch_size": 32,
    "default_hooks.logger": dict(type="LoggerHook", interval=10),
}

#: Methods whose own loss is too weak at its usual weight to hold against the cross-entropy in a few
#: epochs of Adam, with a weight at which it is not (MCN's is that of DCP-NAS's search), and its name.
WEIGHTED_UP = [
    (replace(MCN, name="mcnup", weight=partial(ModulatedSign, reconstruction=0.4)), "loss_reconstruction"),
    (replace(PCNN, name="pcnnup", weight=partial(ProjectedSign, factor=1.0)), "loss_projection"),
    (replace(BONN, name="bonnkernelup", weight=partial(BayesianSign, factor=1.0)), "loss_bayes_kernel"),
    (replace(BONN, name="bonnup", feature_loss=partial(BayesFeatureLoss, theta=3e-2)), "loss_bayes_feature"),
]


#: Epochs of methods that learn more slowly than in five: they squash what runs between convolutions (Hardtanh), or add
#: sums that no norm has scaled (EBN).
EPOCHS = {"irnet": 12, "recu": 16, "rbnn": 16, "ebn": 16}


@pytest.fixture(scope="module")
def full_data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    list(write(root, ["mini-cifar10"]))
    return root


def train(data, work_dir, binarizer, epochs):
    """The outcome, and the logged values of every loss of the method in turn."""
    options = {**SMALL, "train_cfg.max_epochs": epochs}
    job = Job("mini-cifar10", f"resnet18_w16_{binarizer}", "mini", 0, data, work_dir, False, options)
    outcome = runner.train(job)
    logged = {}
    for line in (work_dir / "train.log").read_text().splitlines():
        if "Epoch(train)" in line:
            for name, value in re.findall(r"(loss_\w+): (\S+)", line):
                logged.setdefault(name, []).append(float(value))
    return outcome, logged


@pytest.mark.slow
@pytest.mark.parametrize("binarizer", list(BINARIZERS))
def test_every_binarizer_beats_chance(full_data, tmp_path, binarizer):
    outcome, logged = train(full_data, tmp_path, binarizer, EPOCHS.get(binarizer, 5))
    assert outcome.untrained["top1"] < 0.2
    assert outcome.metrics["top1"] > 0.3  # chance is 0.1
    curve = outcome.details["loss_curve"]
    assert curve[-1] < 0.8 * curve[0]
    # With real-valued activations the weights hardly move in so few epochs.
    if binarizer.startswith("bnas") and not binarizer.endswith("w1a32"):
        assert logged["loss_amplitude"][-1] < 0.98 * logged["loss_amplitude"][0]


@pytest.mark.slow
def test_experts_beat_chance(full_data, tmp_path):
    outcome, _ = train(full_data, tmp_path, "e4_ebn", EPOCHS["ebn"])
    assert outcome.untrained["top1"] < 0.2
    assert outcome.metrics["top1"] > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("binarizer", "name"), WEIGHTED_UP, ids=lambda v: getattr(v, "name", v))
def test_loss_of_the_method_falls(full_data, tmp_path, binarizer, name):
    register_binarizer(binarizer)
    try:
        outcome, logged = train(full_data, tmp_path, binarizer.name, epochs=3)
    finally:
        del BINARIZERS[binarizer.name]
    first, last = logged[name][0], logged[name][-1]
    assert last < first - 0.1 * abs(first)
    curve = outcome.details["loss_curve"]
    assert curve[-1] < curve[0]
