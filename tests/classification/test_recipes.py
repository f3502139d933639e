"""The recipes of the papers: what each states, asserted number by number, and one step of each.

Expected values are typed from the papers (DCP-NAS section 4.1.3, CP-NAS section 3.1, BNAS section
4.1); XNOR-Net's, Bi-Real's, ReActNet's and the release's are those that the recipes' comments name.
"""

import math
from dataclasses import dataclass

import pytest
import torch

from onebit.backbones.cells.macros import MACROS
from onebit.backbones.registry import MODELS
from onebit.classification import runner as classification
from onebit.classification.config import FREE
from onebit.classification.runner import row_of
from onebit.classification.stages import stages_of
from onebit.commons.engine import build_runner
from onebit.commons.task import recipes

#: Of the fixtures' mini-cifar10: larger batches make an epoch one step.
IMAGES = 80


def cosine(lr, epochs):
    """Learning rates by epoch: the start, each quarter, the last."""
    chosen = (0, epochs // 4, epochs // 2, 3 * epochs // 4, epochs - 1)
    return {e: lr * (1 + math.cos(math.pi * e / epochs)) / 2 for e in chosen}


def linear(lr, epochs):
    return {e: lr * (1 - e / (epochs - 1)) for e in (0, epochs // 2, epochs - 1)}


def linear_ahead(lr, epochs):
    """Set before each epoch as if it were over: the last one's is 0."""
    return {e: lr * (1 - (e + 1) / epochs) for e in (0, epochs // 2, epochs - 1)}


def steps(lr, epochs, milestones):
    """Constant between milestones, a tenth after each."""
    chosen = (0, *(e for m in milestones for e in (m - 1, m)), epochs - 1)
    return {e: lr * 0.1 ** sum(e >= m for m in milestones) for e in chosen}


@dataclass(frozen=True)
class Stated:
    """What a source states of a training; one weight decay and schedule for each stage."""

    optimizer: str
    batch: int
    epochs: tuple[int, ...]
    weight_decay: tuple[float, ...]
    rates: tuple[dict[int, float], ...]
    clip: float | None = None
    smoothing: float = 0.0
    auxiliary: float = 0.0
    momentum: float = 0.9
    backbone: str = "dcp_nas_c2_l3"


CIFAR_SGD = Stated("SGD", 96, (600,), (3e-4,), (cosine(0.025, 600),), clip=5.0)
DCP_CIFAR = Stated("Adam", 96, (600,), (1e-5,), (cosine(0.0025, 600),), clip=5.0)
STATED = {
    "paper": DCP_CIFAR,
    "dcp_nas_cifar10": DCP_CIFAR,
    "dcp_nas_imagenet": Stated("Adam", 512, (512,), (3e-5,), (cosine(0.001, 512),), smoothing=0.1, auxiliary=0.4),
    "dcp_nas_release": Stated("Adam", 512, (256, 256), (1e-5, 0.0), (cosine(0.001, 256),) * 2),
    "cp_nas_cifar10": CIFAR_SGD,
    "cp_nas_imagenet": Stated("SGD", 256, (250,), (3e-5,), (cosine(0.05, 250),), smoothing=0.1, auxiliary=0.4),
    "bnas_cifar10": CIFAR_SGD,
    "bnas_imagenet": Stated("SGD", 512, (250,), (3e-5,), (cosine(0.05, 250),), smoothing=0.1, auxiliary=0.4),
    "reactnet": Stated("Adam", 256, (120, 120), (1e-5, 0.0), (linear(5e-4, 120),) * 2, backbone="resnet18_w8_reactnet"),
    "reactnet_release": Stated(
        "Adam", 512, (128, 128), (1e-5, 0.0), (linear_ahead(2.5e-3, 128),) * 2, backbone="resnet18_w8_reactnet"
    ),
    "reactnet_release_mobilenet": Stated(
        "Adam", 256, (128, 128), (1e-5, 0.0), (linear_ahead(1.25e-3, 128),) * 2, backbone="reactnet_a_w8"
    ),
    "xnor_net": Stated("Adam", 256, (58,), (0.0,), (steps(0.001, 58, (30, 40)),), backbone="resnet18_w8_xnor"),
    "bireal": Stated("SGD", 512, (20,), (0.0,), (steps(0.01, 20, (10, 15)),), backbone="resnet18_w8_bireal"),
}
TWO_STAGES = [name for name, stated in STATED.items() if len(stated.epochs) == 2]


@pytest.fixture
def recipe(config, job):
    """Builds the config of a recipe as its file has it, without a teacher, and its stages."""

    def build(name, tmp_path, **fields):
        stated = STATED[name]
        options = {"train_dataloader.batch_size": stated.batch, "train_dataloader.num_workers": 0}
        options["test_dataloader.num_workers"] = 0
        if len(stated.epochs) == 1:
            options["train_cfg.max_epochs"] = stated.epochs[0]
        asked = dict(recipe=name, backbone=stated.backbone, **fields)
        made = job(**asked, cfg_options=options)
        made.cfg_options["distillation"] = None
        if len(stated.epochs) == 2:
            del made.cfg_options["train_cfg.max_epochs"]
        from onebit.classification.config import build_config
        from onebit.commons.datasets import get_dataset

        dataset = get_dataset(made.dataset)
        cfg = build_config(made, dataset, dataset.find(made.data_root))
        return cfg, made, stages_of(cfg, tmp_path, FREE)

    return build


def test_every_recipe_of_a_paper_is_checked_here():
    names = {*recipes("classification")}
    assert names - {"medium", "small", "short", "mini"} == set(STATED)


@pytest.mark.parametrize("name", STATED)
def test_the_file_states_what_the_paper_does(name):
    """The numbers in the files themselves: the fixture has to override some of them."""
    from mmengine.config import Config

    text = recipes("classification")[name].read_text()
    assert text.startswith("# ")
    assert "section" in text or "release" in text or "not at\n# hand" in text or "not at hand" in text
    cfg, stated = Config.fromfile(recipes("classification")[name]), STATED[name]
    assert cfg.train_dataloader.batch_size == stated.batch
    found = [stage.epochs for stage in cfg.get("stages", [])] or [cfg.train_cfg.max_epochs]
    assert tuple(found) == stated.epochs
    assert cfg.model.label_smoothing == stated.smoothing
    assert cfg.get("auxiliary_weight", 0.0) == stated.auxiliary
    assert cfg.augmentation.small.cutout == 16
    if len(found) == 2:
        assert cfg.distillation == dict(teacher="resnet34", loss="kl", temperature=1.0, weight=1.0)
        assert [s.binarize for s in cfg.stages] == ["activations", "both"]
    else:
        assert "distillation" not in cfg


@pytest.mark.parametrize("name", STATED)
def test_rates_and_decay_at_the_start_at_boundaries_and_at_the_end(recipe, name, tmp_path):
    stated = STATED[name]
    cfg, made, stages = recipe(name, tmp_path)
    assert len(stages) == len(stated.epochs)
    assert cfg.train_cfg.max_epochs == sum(stated.epochs)
    expected = zip(stages, stated.epochs, stated.weight_decay, stated.rates, strict=True)
    for stage, epochs, decay, rates in expected:
        row = {**row_of(made, cfg), **stage.row}
        runner = build_runner(stage.cfg, row, work_dir=stage.work_dir, resume=False)
        assert (len(runner.train_dataloader), runner.max_epochs) == (1, epochs)
        optimizer = runner.optim_wrapper.optimizer
        assert type(optimizer).__name__ == stated.optimizer
        group = optimizer.param_groups[0]
        first = group["betas"][0] if stated.optimizer == "Adam" else group["momentum"]
        assert (first, group["weight_decay"]) == (stated.momentum, decay)
        clip = dict(max_norm=stated.clip) if stated.clip else None
        assert (runner.optim_wrapper.clip_grad_kwargs or None) == clip
        for epoch in range(epochs):
            assert runner.optim_wrapper.get_lr()["lr"][0] == pytest.approx(
                rates.get(epoch, runner.optim_wrapper.get_lr()["lr"][0]), rel=1e-6, abs=1e-9
            ), epoch
            optimizer.step()
            for scheduler in runner.param_schedulers:
                scheduler.step()
        assert set(rates) <= set(range(epochs))
        assert rates.keys() >= {0, epochs - 1}


@pytest.mark.parametrize("name", ["reactnet_release", "reactnet_release_mobilenet"])
def test_weights_of_convolutions_alone_decay_in_reactnets_release(recipe, name, tmp_path):
    """There: every parameter of four dimensions, and those with `conv` in their name, which are the same."""
    cfg, made, (first, _) = recipe(name, tmp_path)
    runner = build_runner(first.cfg, {**row_of(made, cfg), **first.row}, work_dir=first.work_dir, resume=False)
    decays = {id(p): group["weight_decay"] for group in runner.optim_wrapper.param_groups for p in group["params"]}
    for key, parameter in runner.model.named_parameters():
        assert decays[id(parameter)] == (1e-5 if parameter.dim() == 4 else 0.0), key


@pytest.fixture
def teacher(config, tmp_path):
    """Options that name a real-valued network of ten classes as the teacher."""
    torch.manual_seed(1)
    path = tmp_path / "teacher.pth"
    torch.save(MODELS.build(config(backbone="resnet18_w8").model).state_dict(), path)
    return {"distillation.teacher": "resnet18_w8", "distillation.checkpoint": str(path)}


@pytest.mark.parametrize("name", STATED)
def test_one_step_of_each(job, name, tmp_path, request):
    stated = STATED[name]
    options = {"train_dataloader.num_workers": 0, "test_dataloader.num_workers": 0}
    options |= {"train_dataloader.batch_size": IMAGES, "score_untrained": False}
    if len(stated.epochs) == 2:
        options |= {"stages.0.epochs": 1, "stages.1.epochs": 1}
        options |= request.getfixturevalue("teacher")
    asked = job(recipe=name, backbone=stated.backbone, cfg_options=options)
    if len(stated.epochs) == 2:
        del asked.cfg_options["train_cfg.max_epochs"]
    else:
        asked.cfg_options["train_cfg.max_epochs"] = 1
    outcome = classification.train(asked)
    assert outcome.epochs == len(stated.epochs)
    assert len(outcome.details["loss_curve"]) == len(stated.epochs)
    assert all(math.isfinite(loss) and loss > 0 for loss in outcome.details["loss_curve"])
    assert 0 <= outcome.metrics["top1"] <= 1
    weights = torch.load(outcome.checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    assert all(w.isfinite().all() for w in weights.values() if w.is_floating_point())
    assert any("auxiliary" in key for key in weights) == bool(stated.auxiliary)
    assert bool(outcome.details.get("teacher")) == (name in TWO_STAGES)


@pytest.mark.parametrize("name", TWO_STAGES)
def test_without_the_teachers_weights_it_says_how_to_give_them(job, name):
    asked = job(recipe=name, backbone="resnet18_w8_reactnet")
    del asked.cfg_options["train_cfg.max_epochs"]
    from onebit.commons.errors import InputError

    with pytest.raises(InputError, match=r"teacher resnet34: .* distillation\.checkpoint=FILE"):
        classification.train(asked)
    assert not asked.work_dir.exists()


def test_paper_means_another_file_on_imagenet(config):
    options = {"train_dataloader.batch_size": 512, "train_cfg.max_epochs": 512}
    for backbone, auxiliary in (("dcp_nas_c2_l3", 0.4), ("resnet18_w8", None)):
        asked = dict(backbone=backbone, cfg_options=options)
        paper = config("mini-imagenet", recipe="paper", **asked)
        other = config("mini-imagenet", recipe="dcp_nas_imagenet", **asked)
        assert paper.to_dict() == other.to_dict()
        assert paper.model.get("auxiliary_weight") == auxiliary
        assert paper.optim_wrapper.optimizer.lr == 0.001
    assert config(recipe="paper").optim_wrapper.optimizer.lr == 0.0025


@pytest.mark.parametrize(
    ("macro", "cells", "channels"),
    [("dcp_nas", 10, 54), ("cp_nas", 10, 56), ("bnas", 20, 36), ("bnas_imagenet", 14, 64)],
)
def test_the_networks_that_go_with_the_recipes(macro, cells, channels):
    assert (MACROS[macro].layers, MACROS[macro].channels) == (cells, channels)
