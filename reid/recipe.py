"""From a job to the complete config of one row."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from onebit.backbones.file_schema import network_kinds, network_wholes
from onebit.commons import acceleration, config_options, guards
from onebit.commons.config_options import dotted
from onebit.commons.errors import InputError
from onebit.commons.file_options import Schema, StatedOptions, one_of, quantity, up_to, word
from onebit.commons.task import Job, recipe_file
from onebit.reid.checkpoint import classification_sha256
from onebit.reid.evaluation import PROTOCOLS
from onebit.reid.evaluation.distances import DISTANCES
from onebit.reid.evaluation.options import Evaluation
from onebit.reid.model import LOSSES, NECKS
from onebit.reid.training import SCHEDULES

#: The recipe that all others are made from: they have its options and no others.
BASE = "paper"
#: Below these stand arguments of something that checks them itself.
_FREE = ("optimizer.", "model.backbone_options.", *acceleration.KEYS)
#: What a row's config has beside its recipe.
_OF_ROW = {
    *acceleration.KEYS,
    "recipe",
    "dataset",
    "backbone",
    "seed",
    "init_from_sha256",
    "data.norm_mean",
    "data.norm_std",
}
_HASH = re.compile(r"([0-9a-f]{64})?")


def _hash(field: str, value: Any) -> None:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise InputError(f"{field} {guards.shown(value)}: expected a SHA-256")


def _name(field: str, value: Any) -> None:
    """Of a dataset, a backbone or a recipe; imported rows have no recipe."""
    if not isinstance(value, str) or not re.fullmatch(r"([A-Za-z0-9][\w-]{0,95})?", value):
        raise InputError(f"{field} {guards.shown(value)}: expected a name")


#: What a record, a checkpoint or a file of features may set of a row. Options of the optimizer are text:
#: nothing is trained by them.
FILE_OPTIONS = Schema(
    {
        "recipe|dataset|backbone": _name,
        "init_from_sha256": _hash,
        **network_kinds(r"model\.backbone_options\."),
        r"model\.loss": one_of(*LOSSES),
        r"model\.neck": one_of(*NECKS),
        "schedule": one_of(*SCHEDULES),
        r"evaluation\.distance": one_of(*DISTANCES),
        r"evaluation\.protocol": one_of("auto", *PROTOCOLS),
        r"data\.(transforms|train_sampler)": word,
        r"model\.(feature_dim|last_stride)": up_to(2**16),
        "seed": up_to(2**32 - 1),
        r"epochs|warmup_epochs|step_epochs|fixbase_epochs|data\.split_id": up_to(100_000),
        r"height|width|data\.batch_size_(train|test)": up_to(4096),
        r"data\.workers": up_to(64),
        r"step_factor|label_smooth|flip_features|score_untrained|(optimizer|triplet|data|evaluation)\.[a-z]\w*": quantity,
    },
    network_wholes(r"model\.backbone_options\."),
    unused=(r"(amp|compile)\b",),
)
#: torchreid's engines scale no losses, which float16 would need.
AMP = (None, "bfloat16")
#: An optimizer of these names may stand in a file.
_OPTIMIZERS = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop")
#: The sampler that a loss needs when the recipe names none.
SAMPLERS = {"softmax": "RandomSampler", "triplet": "RandomIdentitySampler"}


def load_recipe(name: str) -> Config:
    """Read a recipe.

    Raises:
        InputError: there is none of that name.
    """
    return Config.fromfile(recipe_file("reid", name))


def build_config(job: Job) -> Config:
    """The recipe, what the job names, and the job's overrides, in this order.

    Where the row starts from a checkpoint, the config names it by ``init_from_sha256``: its path
    says nothing about the row.

    Raises:
        InputError: unknown recipe, an override of something the recipe does not have, a value out
            of range, a checkpoint that cannot be started from.
    """
    cfg = load_recipe(job.recipe)
    cfg.merge_from_dict(dict(recipe=job.recipe, dataset=job.dataset, backbone=job.backbone, seed=job.seed))
    cfg = with_options(cfg, job.options)
    check(cfg)
    _choose_sampler(cfg)
    path = cfg.pop("init_from")
    cfg.init_from_sha256 = classification_sha256(path, job.backbone) if path else ""
    return cfg


def _choose_sampler(cfg: Config) -> None:
    if cfg.data.train_sampler is None:
        cfg.data.train_sampler = SAMPLERS[cfg.model.loss]


def saved_config(saved: Mapping[str, Any], where: Path) -> tuple[Config, list[str]]:
    """The config that a checkpoint or a file of features carries.

    What recipes had not yet when it was written is filled in from the recipe it names.

    Args:
        saved: the config as a dict.
        where: the file, for the message.

    Returns:
        the complete config, and the dotted names of what was filled in.

    Raises:
        InputError: it has an option that recipes no longer have, so that what took its place cannot
            be known; or something has to be filled in and there is no such recipe.
    """
    if not isinstance(saved, Mapping) or not all(isinstance(saved.get(k), Mapping) for k in ("model", "optimizer")):
        raise InputError(f"{where} has no config of a re-ID row")
    # In the order of the recipe: a section before what is in it.
    known = [n for n in dotted(load_recipe(BASE).to_dict()) if not n.startswith(_FREE)]
    names = [*saved, *(f"{key}.{name}" for key, part in saved.items() if isinstance(part, Mapping) for name in part)]
    unknown = sorted(str(n)[:100] for n in names if n not in _OF_ROW.union(known) and not str(n).startswith(_FREE))
    if unknown:
        raise InputError(
            f"{where} was written by another version: its config has {', '.join(unknown)}, which "
            f"recipes do not have now"
        )
    cfg, filled = Config(_checked(saved, where)), []
    for name in known:
        # A row's config says by its hash what it started from.
        if name != "init_from" and name not in _names(cfg):
            recipe = load_recipe(cfg.get("recipe") or BASE)
            section, _, key = name.rpartition(".")
            source, target = (recipe[section], cfg[section]) if section else (recipe, cfg)
            target[key] = copy.deepcopy(source[key])
            filled.append(name)
    _choose_sampler(cfg)
    return cfg, filled


def _checked(saved: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """A file's config, in which everything is what a file may set, see :data:`FILE_OPTIONS`."""
    found = copy.deepcopy(dict(saved))
    found.pop("init_from", None)  # imported rows have it, without meaning
    if isinstance(options := found["model"].get("backbone_options"), dict):
        options.pop("init_cfg", None)  # where training began: the weights are the file's
    kind = found["optimizer"].pop("type", None)
    taken = StatedOptions(found, where).taken(FILE_OPTIONS)
    guards.choice(f"{where}: optimizer", kind, _OPTIMIZERS)
    # In the order in which it was written, which the text of a config has.
    optimizer = {key: kind if key == "type" else found["optimizer"][key] for key in saved["optimizer"]}
    return {**taken, "optimizer": optimizer}


def _names(cfg: Config) -> set[str]:
    return set(dotted(cfg.to_dict()))


def init_from(job: Job) -> Path | None:
    """The checkpoint the job's backbone starts from; :func:`build_config` has checked it."""
    path = with_options(load_recipe(job.recipe), job.options).init_from
    return Path(path) if path else None


def check(cfg: Config) -> None:
    """Find values that would only fail in the middle of the work.

    Raises:
        InputError: naming the value.
    """
    acceleration.check(cfg, AMP)
    guards.choice("loss", cfg.model.loss, LOSSES)
    guards.choice("schedule", cfg.schedule, SCHEDULES)
    for name, value, least in (
        ("epochs", cfg.epochs, 1),
        ("warmup_epochs", cfg.warmup_epochs, 0),
        ("fixbase_epochs", cfg.fixbase_epochs, 0),
        ("step_epochs", cfg.step_epochs, 1),
        ("height", cfg.height, 1),
        ("width", cfg.width, 1),
        ("data.batch_size_train", cfg.data.batch_size_train, 2),
        ("data.batch_size_test", cfg.data.batch_size_test, 1),
        ("data.num_instances", cfg.data.num_instances, 2),
    ):
        guards.whole(name, value, least)
    if cfg.model.loss == "triplet":
        _check_triplet(cfg)
    Evaluation.of(cfg)


def _check_triplet(cfg: Config) -> None:
    if cfg.data.train_sampler not in (None, SAMPLERS["triplet"]):
        raise InputError(
            f"the triplet loss needs several images of an identity in every batch: expected "
            f"data.train_sampler={SAMPLERS['triplet']}, found {cfg.data.train_sampler}"
        )
    batch, instances = cfg.data.batch_size_train, cfg.data.num_instances
    if batch % instances or batch // instances < 2:
        raise InputError(
            f"the triplet loss needs batches of at least two identities with data.num_instances "
            f"images each: {batch} images are not a multiple, at least twofold, of {instances}"
        )


def with_options(cfg: Config, options: Mapping[str, Any]) -> Config:
    """``cfg`` with dotted overrides; see :func:`onebit.commons.config_options.with_options`."""
    return config_options.with_options(cfg, options, free=_FREE)
