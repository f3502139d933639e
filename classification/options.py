"""Options of training that have one key each in a recipe, and what they become.

    ema = dict(momentum=0.001)      average the weights, w <- (1 - momentum) w + momentum * new, in
                                    every step; the averaged ones are scored and in checkpoints
    mixup = dict(alpha=0.2)         mix the images of a batch and their labels
    cutmix = dict(alpha=1.0)        likewise, by rectangles
    channels_last = True            memory format of weights and maps
    cuda_graph = True               train the backbone through CUDA graphs; not with ``amp``, ``compile``, an
                                    auxiliary head or accumulated batches
    amp, compile                    see :mod:`onebit.commons.acceleration`
    distillation = dict(teacher="resnet34.pth", loss="kl", temperature=1.0, weight=1.0)
                                    see :class:`onebit.classification.distillation.Distillation`
    stages = [dict(epochs=256, binarize="activations"), dict(epochs=256)]
                                    see :mod:`onebit.classification.stages`

All of them are off by default, can be given as ``--cfg-options ema.momentum=0.01``, and be set for
one stage. What needs no key of its own: ``optim_wrapper.accumulative_counts=4`` makes one step of four batches,
``optim_wrapper.clip_grad.max_norm=5`` clips, ``model.label_smoothing``,
``model.data_preprocessor.cutout``, and ``default_hooks.drop_path.type=DropPathSchedule``.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import EMAHook

from onebit.commons import acceleration, guards
from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file

#: Keys and what each takes; None: a plain value.
KEYS: dict[str, set[str] | None] = {
    "ema": {"momentum"},
    "mixup": {"alpha"},
    "cutmix": {"alpha"},
    "channels_last": None,
    "cuda_graph": None,
    **dict.fromkeys(acceleration.KEYS),
    "distillation": {"teacher", "checkpoint", "loss", "temperature", "weight"},
}
#: What a teacher is named by once it was checked.
_NAMED = {"backbone", "load_from", "sha256"}


def check(cfg: Config) -> Config:
    """Check the options of ``cfg``; a teacher is named by the hash of its file from then on.

    Returns:
        ``cfg`` itself.

    Raises:
        InputError: one that is not known, is missing, or out of range.
    """
    acceleration.check(cfg)
    if guards.choice("cuda_graph", cfg.get("cuda_graph", False), (False, True)):
        _check_cuda_graph(cfg)
    for key, known in KEYS.items():
        value = cfg.get(key)
        if known is None or not value:
            continue
        if not isinstance(value, dict) or set(value) - known - _NAMED:
            raise InputError(f"{key} {value!r}: expected a dict with {', '.join(sorted(known))}")
    for key, name, below in (("ema", "momentum", 1), ("mixup", "alpha", None), ("cutmix", "alpha", None)):
        if cfg.get(key):
            guards.number(f"{key}.{name}", cfg[key].get(name), above=0, below=below)
    if cfg.get("distillation"):
        _name_teacher(cfg.distillation)
    return cfg


def _check_cuda_graph(cfg: Config) -> None:
    others = [key for key in acceleration.KEYS if cfg.get(key)]
    if cfg.model.get("auxiliary_weight"):
        others.append("model.auxiliary_weight")
    if cfg.optim_wrapper.get("accumulative_counts", 1) != 1:  # a graph writes over the gradients of the batch before
        others.append("optim_wrapper.accumulative_counts")
    if others:
        raise InputError(f"cuda_graph: expected without {' and '.join(others)}")


def _name_teacher(distillation: dict) -> None:
    """Put ``backbone``, ``load_from`` and ``sha256`` for ``teacher`` and ``checkpoint``.

    ``load_from`` is a key that the text of a config leaves out: the hash says which file it was.
    """
    if "load_from" in distillation and not {"teacher", "checkpoint"} & set(distillation):
        return  # done before
    # A stage may have named another file for the same backbone.
    teacher = distillation.pop("teacher", distillation.get("backbone"))
    file = distillation.pop("checkpoint", None)
    if not isinstance(teacher, str):
        raise InputError("distillation.teacher: expected a checkpoint or a backbone's name")
    if file is None and (Path(teacher).suffix or "/" in teacher):
        teacher, file = None, teacher
    for key in _NAMED:
        distillation.pop(key, None)
    if teacher:
        distillation.backbone = teacher
    distillation.load_from = file
    if file and Path(file).expanduser().is_file():  # a student is scored without its teacher
        distillation.sha256 = sha256_file(Path(file).expanduser())


def expand(cfg: Config) -> Config:
    """A copy of ``cfg`` in which its options have become arguments of model and hooks."""
    cfg = copy.deepcopy(cfg)
    options = {key: cfg.pop(key, None) for key in KEYS if key not in acceleration.KEYS}
    if options["ema"]:
        averaging = dict(type="EMAHook", update_buffers=True, **options["ema"])
        cfg.custom_hooks = [*cfg.get("custom_hooks", []), averaging]
    for key in ("mixup", "cutmix"):
        if options[key]:
            cfg.model.data_preprocessor[key] = options[key].alpha
            cfg.model.data_preprocessor.num_classes = cfg.model.num_classes
    if options["channels_last"]:
        cfg.model.channels_last = True
    if options["cuda_graph"]:
        cfg.model.cuda_graph = True
    if options["distillation"]:
        stem = cfg.model.backbone.get("stem", "cifar")
        cfg.model.distillation = dict(options["distillation"], stem=stem)
    return cfg


def score_averaged_weights(runner) -> dict[str, Any] | None:
    """Put the averaged weights in place of the last ones, where they were asked for.

    Returns:
        what a record says of it; None where the last weights are scored.
    """
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            hook.before_test_epoch(runner)
            return dict(momentum=hook.ema_model.momentum, steps=int(hook.ema_model.steps))
    return None
