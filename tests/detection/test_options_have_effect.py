"""Every option of every recipe changes what a row gives, or is refused: one that changes nothing would only look chosen.

The options are read from the recipes' files, those of each detector among them. Each is given another value over the
first recipe that has it, and a short row is trained. What a recipe takes from data of one's own (``adapt``) is tested in
test_own_data.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from onebit import detection  # noqa: F401  first: MMDetection cannot be imported without its operators
from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.errors import InputError
from onebit.commons.task import Job, recipes
from onebit.detection import runner, stabilizers
from onebit.detection.config import PARTS_OPTION
from onebit.detection.detectors import DETECTORS, FASTER_RCNN
from onebit.detection.detectors import OPTION as DETECTOR_OPTION
from tests.effects import another, options

#: Seconds each, and as many as there are options.
pytestmark = pytest.mark.slow


def of_recipe(path: Path, detector: str) -> Config:
    """A recipe as a detector has it; names with an underscore are parts of the file alone."""
    recipe = Config.fromfile(path)
    recipe.merge_from_dict(recipe.pop("of_detector", {}).get(detector, {}))
    return Config({key: value for key, value in recipe.items() if not key.startswith("_")})


#: The recipe and the detector with which an option is tried, and its value there; the quickest rows come first.
OWNERS: dict[str, tuple[str, str, Any]] = {}
for _recipe in ("mini", "small", *sorted(recipes("detection"))):
    for _detector in DETECTORS:
        for _name, _value in options(of_recipe(recipes("detection")[_recipe], _detector).to_dict()):
            if not _name.startswith("adapt."):
                OWNERS.setdefault(_name, (_recipe, _detector, _value))
#: Options that no recipe sets.
OWNERS |= {
    name: ("mini", detector, value)
    for name, detector, value in (
        (DETECTOR_OPTION, FASTER_RCNN, FASTER_RCNN),
        (PARTS_OPTION, FASTER_RCNN, "lateral"),
        (f"{stabilizers.OPTION}.warmup", FASTER_RCNN, 2),
        (f"{stabilizers.OPTION}.clip_grad", FASTER_RCNN, 10.0),
        (f"{stabilizers.OPTION}.norm", FASTER_RCNN, "SyncBN"),
        *((f"{stabilizers.OPTION}.loss_weights.{n}", FASTER_RCNN, 1.0) for n in ("rpn_cls", "rpn_bbox", "cls", "bbox")),
        (f"{stabilizers.OPTION}.loss_weights.centerness", "fcos", 1.0),
        ("amp", FASTER_RCNN, None),
    )
}
#: Change how fast, or nothing in a single process without workers.
SPEED = {
    "threads",
    *(f"{part}_dataloader.{name}" for part in ("train", "test") for name in ("num_workers", "persistent_workers")),
}
SPEED |= {"test_dataloader.batch_size", "default_hooks.logger.type"}
#: Nothing is validated during a training, so that this changes nothing. The recipes have it still, because the records of
#: their rows state the hashes of their configs.
UNUSED = {"train_cfg.val_interval"}
#: Not tried yet with a value of which an effect is known.
UNTRIED = {f"param_scheduler.1.{name}" for name in ("begin", "end", "milestones")}
UNTRIED |= {"optim_wrapper.paramwise_cfg.bias_lr_mult"}
#: Short rows of two steps.
SMALL: dict[str, Any] = {
    **{"train_cfg.max_epochs": 1, "train_cfg.val_interval": 1, "train_dataloader.batch_size": 4},
    **{"optim_wrapper.optimizer.lr": 0.0005, "image_scale": (96, 96), "score_untrained": False, "threads": 1},
    **{"param_scheduler.0.end": 2, "default_hooks.logger.interval": 1, "train_dataloader.num_workers": 0},
    **{"train_dataloader.persistent_workers": False, "test_dataloader.num_workers": 0},
    **{"test_dataloader.persistent_workers": False, "test_dataloader.batch_size": 4},
}
#: Where it counts: what else is chosen.
WHERE: dict[str, dict[str, Any]] = {
    "param_scheduler.1.milestones": {"param_scheduler.1.end": 2},
    "param_scheduler.1.gamma": {"param_scheduler.1.milestones": [1]},
    "param_scheduler.1.begin": {"param_scheduler.1.milestones": [1]},
    "param_scheduler.1.end": {"param_scheduler.1.milestones": [1]},
    "auto_scale_lr.base_batch_size": {"auto_scale_lr.enable": True},
}
#: Where no other number or switch will do.
OTHER: dict[str, Any] = {
    "train_cfg.type": "IterBasedTrainLoop",
    "image_scale": (64, 64),
    "model.neck.norm_cfg.type": "GN",
    "model.bbox_head.norm_cfg.type": "BN",
    "model.bbox_head.norm_cfg.num_groups": 16,
    "model.rpn_head.anchor_generator.type": "LegacyAnchorGenerator",
    "model.rpn_head.anchor_generator.scales": [8],
    "model.rpn_head.anchor_generator.ratios": [0.5, 1.0],
    "model.rpn_head.anchor_generator.strides": [4, 8, 16, 32, 128],
    "model.rpn_head.in_channels": 32,
    "model.roi_head.bbox_head.in_channels": 32,
    "model.bbox_head.in_channels": 32,
    # So few that they are reached.
    "model.train_cfg.rpn.sampler.num": 8,
    "model.train_cfg.rcnn.sampler.num": 8,
    "model.train_cfg.rpn_proposal.nms_pre": 8,
    "model.train_cfg.rpn_proposal.max_per_img": 8,
    "model.test_cfg.rpn.nms_pre": 2,
    "model.test_cfg.rpn.max_per_img": 2,
    "optim_wrapper.type": "AmpOptimWrapper",
    "optim_wrapper.optimizer.type": "RMSprop",
    "optim_wrapper.optimizer.weight_decay": 10.0,
    "optim_wrapper.paramwise_cfg.bias_decay_mult": 1000.0,
    "optim_wrapper.clip_grad.max_norm": 1e-3,
    "param_scheduler.0.type": "ConstantLR",
    "param_scheduler.0.begin": 1,
    "param_scheduler.1.type": "LinearLR",
    "param_scheduler.1.begin": 1,
    "param_scheduler.1.end": 1,
    "param_scheduler.1.milestones": [1],
    "param_scheduler.1.gamma": 0.5,
    "default_hooks.logger.interval": 2,
    DETECTOR_OPTION: "retinanet",
    PARTS_OPTION: "neck",
    f"{stabilizers.OPTION}.clip_grad": 1e-3,
    f"{stabilizers.OPTION}.norm": "frozen",
    "amp": "bfloat16",
}


def given(job: Job) -> str:
    """A hash of all that a short row gives, less the text of its config, and of what it logged."""
    outcome = runner.train(job)
    digest = hashlib.sha256()
    for name, weight in read_checkpoint(outcome.checkpoint)["state_dict"].items():
        digest.update(name.encode() + weight.float().numpy().tobytes())
    log = (Path(job.work_dir) / "train.log").read_text(encoding="utf-8")
    logged = re.findall(r"Epoch\((?:train|val)\) *\[\d+\] *\[", log)
    details = outcome.details["loss_curve"], outcome.details.get("per_class")
    for value in (
        outcome.metrics,
        outcome.untrained,
        outcome.protocol,
        outcome.predictions.read_bytes(),
        details,
        logged,
    ):
        digest.update(repr(value).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def row(drawn, tmp_path_factory):
    """What a short row gives by a recipe with some options; the same row once."""
    known: dict[str, str] = {}

    def result(recipe: str, values: dict[str, Any]) -> str:
        key = repr((recipe, sorted(values.items())))
        if key not in known:
            work = tmp_path_factory.mktemp("work")
            known[key] = given(Job("mini-voc", "resnet18_w8_reactnet", recipe, 0, drawn, work, cfg_options=values))
        return known[key]

    return result


@pytest.mark.parametrize("name", [name for name in OWNERS if name not in SPEED | UNUSED | UNTRIED])
def test_an_option_changes_what_a_row_gives(row, name):
    recipe, detector, value = OWNERS[name]
    of_file = {n for n, _ in options(of_recipe(recipes("detection")[recipe], detector).to_dict())}
    plain = {n: v for n, v in SMALL.items() if n in of_file or n.startswith(("image_scale", "threads", "score_"))}
    if name.startswith(("train_cfg.", "param_scheduler.")):
        plain |= {"train_cfg.max_epochs": 2, "train_cfg.val_interval": 2}
    plain |= {DETECTOR_OPTION: detector, **WHERE.get(name, {})}
    value = plain.get(name, value)
    other = OTHER[name] if name in OTHER else another(value)
    assert other != value
    before = row(recipe, plain)
    try:
        after = row(recipe, {**plain, name: other})
    except (InputError, RuntimeError) as error:  # layers that do not fit each other
        after = f"refused: {error}"
    assert after != before
