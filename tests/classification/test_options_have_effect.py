"""Every option of every recipe changes what a row gives, or is refused: one that changes nothing would only look chosen.

The options are read from the recipes' files. Each is changed in a copy of the file of the first recipe that has it, and
a short row is trained.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from onebit.classification import config as configs
from onebit.classification import runner as classification
from onebit.classification.model import ImageClassifier
from onebit.commons.datasets import get_dataset
from onebit.commons.errors import InputError
from onebit.commons.task import Job, recipe_file, recipes
from tests.effects import another, given, options, with_values

#: Seconds each, and as many as there are options.
pytestmark = pytest.mark.slow
FILES = {name: Config.fromfile(path).to_dict() for name, path in recipes("classification").items()}
#: The recipe in which an option is tried; those of the quickest rows come first.
OWNERS: dict[str, str] = {}
for _recipe in ("mini", "short", "xnor_net", "reactnet", *sorted(FILES)):
    for _option, _ in options(FILES[_recipe]):
        OWNERS.setdefault(_option, _recipe)

#: Change how fast, not what.
SPEED = ("train_dataloader.num_workers", "test_dataloader.num_workers", "test_dataloader.batch_size")
#: Of these the images are those of ImageNet, and few.
LARGE = {"image_size.large", "min_crop_area", "boards.imagenet"}
#: Short rows; of milestones one that is reached, of the images to train on fewer than there are.
SMALL = {
    **{"train_cfg.max_epochs": 2, "train_dataloader.batch_size": 20, "train_images": 60, "image_size.large": 32},
    **{"stages.0.epochs": 1, "stages.1.epochs": 1, "param_scheduler.milestones": [1], "boards.imagenet": "short"},
    **dict.fromkeys(SPEED[:2], 0),
}
#: Where no other number or switch will do.
OTHER: dict[str, Any] = {
    "train_cfg.type": "IterBasedTrainLoop",
    "optim_wrapper.type": "AmpOptimWrapper",
    "optim_wrapper.optimizer.type": "RMSprop",
    "optim_wrapper.optimizer.betas": (0.8, 0.999),
    "optim_wrapper.clip_grad.max_norm": 1e-4,
    "param_scheduler.type": "MultiStepMomentum",
    "param_scheduler.0.type": "LinearMomentum",
    "param_scheduler.1.type": "CosineAnnealingMomentum",
    "param_scheduler.0.begin": 1,
    "param_scheduler.milestones": [2],
    "param_scheduler.start_factor": 0.5,
    "param_scheduler.end_factor": 0.5,
    "model.label_smoothing": 0.1,
    "auxiliary_weight": 0.4,
    "augmentation.small.cutout": 8,
    "augmentation.large": dict(cutout=8),
    "image_size.small": 16,
    "image_size.large": 48,
    "min_crop_area": 0.1,
    "train_images": 40,
    "stages.0.binarize": "both",
    "stages.1.binarize": "activations",
    "stages.0.weight_decay": 0.5,
    "stages.1.weight_decay": 0.5,
    "distillation.teacher": "resnet18_w4",
    "distillation.loss": "mse",
    "boards.imagenet": "mini",
}
#: What is refused without the value in the words.
REFUSED = {"param_scheduler.1.by_epoch": "Only epoch-based", "distillation.teacher": "do not fit this network"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Weights of a real-valued network that knows ten classes."""
    torch.manual_seed(1)
    network = ImageClassifier(
        dict(type="onebit.create_backbone", name="resnet18_w2", out_indices=(3,), stem="cifar"), 10
    )
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def row(data, teacher, tmp_path_factory):
    """The job of a short row by a recipe with other values, and what it gives; the same row once."""
    folder = tmp_path_factory.mktemp("recipes")
    known: dict[str, str] = {}

    def of(recipe: str, values: dict[str, Any], large: bool) -> Job:
        (folder / f"{recipe}.json").write_text(json.dumps(with_values(FILES[recipe], values)))
        backbone = "dcp_nas_c2_l3" if "auxiliary_weight" in values else "resnet18_w2_reactnet"
        work = tmp_path_factory.mktemp("work")
        return Job("mini-imagenet" if large else "mini-cifar10", backbone, recipe, 0, data, work, False, {})

    def result(recipe: str, values: dict[str, Any], large: bool) -> str:
        if "distillation" in FILES[recipe]:
            values = {"distillation.teacher": "resnet18_w2", "distillation.checkpoint": str(teacher), **values}
        key = repr((recipe, sorted(values.items()), large))
        if key not in known:
            job = of(recipe, values, large)
            with pytest.MonkeyPatch.context() as patch:
                file = folder / f"{recipe}.json"
                patch.setattr(
                    configs, "recipe_file", lambda task, name: file if name == recipe else recipe_file(task, name)
                )
                known[key] = given(classification.train(job))
        return known[key]

    return of, result


def values_of(recipe: str, name: str) -> dict[str, Any]:
    """A short row's, over which ``name`` counts: parts of a decay only where it is large."""
    over = {"stages.0.weight_decay": 0.5} if "decay_mult" in name else {}
    return {key: value for key, value in {**SMALL, **over}.items() if key in dict(options(FILES[recipe]))}


@pytest.mark.parametrize("name", [name for name in OWNERS if name not in SPEED])
def test_an_option_changes_what_a_row_gives(row, name):
    _, result = row
    recipe = OWNERS[name]
    plain = values_of(recipe, name)
    value = plain.get(name, dict(options(FILES[recipe]))[name])
    other = 1.0 if name.endswith("decay_mult") else OTHER[name] if name in OTHER else another(value)
    assert other != value
    large = name in LARGE or name.startswith("augmentation.large")
    over = {"auxiliary_weight": 0.0} if name == "auxiliary_weight" else {}
    before = result(recipe, {**plain, **over}, large)
    try:
        after = result(recipe, {**plain, name: other}, large)
    except InputError as error:
        after = str(error)
    assert after != before
    refused = REFUSED.get(name, re.escape(str(other)))
    assert re.fullmatch("[0-9a-f]{64}", after) or re.search(refused, after), after


@pytest.mark.parametrize("name", SPEED)
def test_an_option_of_speed_reaches_the_loaders(row, name, data):
    of, _ = row
    loader, key = name.split(".")
    job = of("mini", {}, large=False)
    job.cfg_options[name] = 3
    dataset = get_dataset(job.dataset)
    cfg = configs.build_config(job, dataset, dataset.find(data))
    assert getattr(Runner.build_dataloader(cfg[loader], seed=0), key) == 3
