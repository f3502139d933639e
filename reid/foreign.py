"""Score re-ID networks that were trained elsewhere, and features that were computed elsewhere.

Images, identities and cameras are always those of the dataset here; what is scored is saved in the
file form of this suite, so that it can be scored again.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import yaml
from mmengine.config import Config
from torch import nn

from onebit import backbones
from onebit.commons.datasets import get_dataset
from onebit.commons.engine import config_text, load_weights, plain_errors, read_foreign_checkpoint
from onebit.commons.errors import InputError
from onebit.commons.files import require_archive
from onebit.commons.task import Job, Outcome
from onebit.reid.datasets import torchreid_root
from onebit.reid.features import FORMAT, Features, relative_names, save
from onebit.reid.model import ReIDModel, builder
from onebit.reid.recipe import BASE, load_recipe, with_options
from onebit.reid.runner import CONVENTIONS, features_of, read_data, score_predictions, split_of
from onebit.reid.scoring import check_against_dataset, outcome
from onebit.reid.torchreid_adapter import register_model, registered_models

GROUPS = ("query", "gallery")
#: Bytes of a file of features, unpacked: MSMT17 with 2048 numbers an image has 0.8 * 10^9.
_LARGEST = 2**32
#: Mean and deviation of pixels from 0 to 1, by torchreid's names.
IMAGENET = {"norm_mean": [0.485, 0.456, 0.406], "norm_std": [0.229, 0.224, 0.225]}
#: The layer that tells identities apart, in torchreid's networks; those of several parts have more.
_CLASSIFIER = re.compile(r"classifier[^.]*(\.\d+)*\.weight")


def score_checkpoint(checkpoint: Path, job: Job, model: str | None = None, config: Path | None = None) -> Outcome:
    """Score a checkpoint of torchreid on a board's dataset.

    Args:
        checkpoint: written by torchreid, or a bare state dict.
        job: names the dataset; ``cfg_options`` of a recipe (``height``, ``evaluation.distance``, ...)
            are laid over what the config says.
        model: a model of torchreid's (``osnet_x1_0``), or a backbone of this suite; None: the
            config's. ``resnet18|34|50`` are this suite's, torchreid's own are
            ``torchreid_resnet18|34|50``.
        config: torchreid's config (YAML); without one, its defaults: 256x128, ImageNet's mean and
            deviation, Euclidean distance.

    Raises:
        InputError: unknown model, a config or checkpoint that cannot be read or that do not fit
            each other, missing or broken dataset.
    """
    theirs = _read_config(config) if config else {}
    name = model or _value(theirs, "model.name", str, None)
    if name is None:
        raise InputError("expected the name of a model: --model, or `model.name` in the config")
    build = _builder(name)
    weights = _read_checkpoint(Path(checkpoint))
    cfg = _scored_config(job, name, theirs)
    work_dir = Path(job.work_dir)
    with plain_errors(work_dir):
        data = read_data(cfg, job.data_root, work_dir / "test.log")
        network = _build(build, name, weights)
        load_weights(network, weights, checkpoint)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        parts = features_of(network.to(device).eval(), data, cfg, job)
        cost, reason = _cost(network, cfg)
        facts = _facts(job, cfg, Path(checkpoint).name)
        facts["cost"] = cost
        facts["details"]["network"] = _network(network, counted=not reason)
        if reason:
            facts["details"]["cost_not_counted"] = reason
        return _saved(job, cfg, facts, *parts, Path(checkpoint))


def score_features(path: Path, job: Job) -> Outcome:
    """Score features that another program computed.

    Args:
        path: ``.npz`` or ``.safetensors`` with ``query.features`` [Q, D] and ``gallery.features``
            [G, D], the images in the order of this suite's reader (that of torchreid, sorted by
            name). Where ``query.pids``, ``query.cameras`` (and ``gallery...``) are there, they must
            be the dataset's. Or a file of ``onebit train|test|features``.
        job: names the dataset; ``cfg_options`` below ``evaluation`` choose distance and protocol.

    Raises:
        InputError: not such a file, or not of this dataset.
    """
    path = Path(path)
    found, own = _read_features(path)
    if own:
        # The weights it names need not be here.
        return dataclasses.replace(score_predictions(path, job), checkpoint=None)
    cfg = _scored_config(job, "features", {})
    work_dir = Path(job.work_dir)
    with plain_errors(work_dir):
        data = read_data(cfg, job.data_root, work_dir / "test.log")
        name, _ = torchreid_root(cfg.dataset, job.data_root)
        root = get_dataset(job.dataset, task="reid").find(job.data_root)
        parts = []
        for group, images in zip(GROUPS, data.fetch_test_loaders(name), strict=True):
            part = _labelled(found, group, images, root, path)
            check_against_dataset(part, images, root, path)
            parts.append(part)
    dimensions = {part.features.shape[1] for part in parts}
    if len(dimensions) > 1:
        raise InputError(f"{path}: features of queries and gallery have {dimensions} dimensions")
    return _saved(job, cfg, _facts(job, cfg, ""), *parts, None)


def _labelled(found: Mapping[str, np.ndarray], group: str, images: list[tuple], root: Path, path: Path) -> Features:
    """A group of the file, labelled as the file does it, else as the dataset does."""
    features = found[f"{group}.features"]
    if features.ndim != 2 or features.dtype.kind != "f" or not features.size:
        raise InputError(
            f"{path}: expected {group}.features as [N, D] floats, found {list(features.shape)} {features.dtype}"
        )
    features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise InputError(f"{path}: {group}.features are not all finite")
    if len(features) != len(images):
        raise InputError(f"{path}: {len(features)} features of {group} for the dataset's {len(images)} images")
    labels = {}
    for key, at in (("pids", 1), ("cameras", 2)):
        values = found.get(f"{group}.{key}", np.array([image[at] for image in images]))
        if values.shape != (len(images),) or values.dtype.kind not in "iu":
            raise InputError(f"{path}: expected {group}.{key} as {len(images)} whole numbers")
        labels[key] = values.astype(np.int64)
    names = relative_names([image[0] for image in images], root)
    return Features(features=features, names=names, **labels)


def _read_features(path: Path) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays of a file, and whether this suite wrote it."""
    wanted = [f"{group}.{key}" for group in GROUPS for key in ("features", "pids", "cameras")]
    try:
        if path.suffix == ".npz":
            require_archive(path, _LARGEST)
            with np.load(path, allow_pickle=False) as file:
                found = {key: file[key] for key in wanted if key in file.files}
        elif path.suffix == ".safetensors":
            with safetensors.safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("format") == FORMAT:
                    return {}, True
                there = set(file.keys())
                found = {key: file.get_tensor(key) for key in wanted if key in there}
        else:
            raise InputError(f"{path}: expected features in a file .npz or .safetensors")
    except InputError:
        raise
    except Exception as error:  # zip, numpy and safetensors each have errors of their own
        text = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read features {path}: {type(error).__name__}: {text}") from error
    missing = [f"{group}.features" for group in GROUPS if f"{group}.features" not in found]
    if missing:
        raise InputError(f"{path}: expected an array {missing[0]}")
    return found, False


def _read_config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not YAML: {text}") from error
    if not isinstance(content, dict):
        raise InputError(f"expected a config of torchreid in {path}")
    return content


def _value(config: Mapping[str, Any], key: str, kind: type | tuple[type, ...], default: Any) -> Any:
    """A value of a nested config under its dotted key.

    Raises:
        InputError: it is there and not of ``kind``.
    """
    found: Any = config
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            return default
        found = found[part]
    if not isinstance(found, kind):
        raise InputError(f"the config's {key} is {found!r}: that cannot be")
    return found


def _builder(name: str):
    """The function that builds a model of this name.

    Raises:
        InputError: there is none.
    """
    table = registered_models()
    if name not in table:
        try:
            backbones.backbone_config(name)
        except InputError as error:
            near = ", ".join(difflib.get_close_matches(name, table, n=3))
            raise InputError(f"unknown model {name!r}" + (f"; did you mean {near}?" if near else "")) from error
        register_model(name, builder(name))
    return table[name]


def _read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    _, weights = read_foreign_checkpoint(path)
    return {str(key).removeprefix("module."): value for key, value in weights.items()}


def _build(build, name: str, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network, for as many identities as the weights know."""
    heads = [weights[key].shape[0] for key in weights if _CLASSIFIER.fullmatch(key)]
    try:
        return build(num_classes=heads[-1] if heads else 1, loss="softmax", pretrained=False, use_gpu=False)
    except InputError:
        raise
    except Exception as error:  # whatever torchreid's networks ask for
        raise InputError(f"model {name} cannot be built: {type(error).__name__}: {error}") from error


def _scored_config(job: Job, name: str, theirs: Mapping[str, Any]) -> Config:
    """The suite's reading and scoring, with the input size and distance of their config."""
    if get_dataset(job.dataset, task="reid").protocol == "pairs":
        raise InputError(
            f"{job.dataset} is scored on pairs of faces, for rows of this suite only: what was trained "
            f"elsewhere is scored by retrieval"
        )
    cfg = load_recipe(BASE)
    cfg.merge_from_dict(dict(recipe="", dataset=job.dataset, backbone=name, seed=0))
    cfg.data.train_sampler = "RandomSampler"
    cfg.data.workers = 0
    for ours, key in (("height", "data.height"), ("width", "data.width")):
        cfg[ours] = _value(theirs, key, int, cfg[ours])
    means = {key: _value(theirs, f"data.{key}", list, None) for key in IMAGENET}
    for key, values in means.items():
        if values is not None and (len(values) != 3 or not all(type(v) in (int, float) for v in values)):
            raise InputError(f"the config's data.{key} is {values!r}: expected three numbers")
    if any(means.values()):
        # torchreid takes ImageNet's for both where one is missing.
        cfg.data.update({key: values or IMAGENET[key] for key, values in means.items()})
    distance = _value(theirs, "test.dist_metric", str, cfg.evaluation.distance)
    # Features of length 1 are ranked the same by either distance.
    if _value(theirs, "test.normalize_feature", bool, False):
        distance = "cosine"
    cfg.evaluation.distance = distance
    cfg.evaluation.rerank = _value(theirs, "test.rerank", bool, False)
    return with_options(cfg, job.cfg_options)


def _facts(job: Job, cfg: Config, checkpoint: str) -> dict[str, Any]:
    """What a file of features says of itself; nothing of how they came about."""
    dataset = get_dataset(job.dataset, task="reid")
    return dict(
        dataset=job.dataset,
        backbone=cfg.backbone,
        cfg=cfg.to_dict(),
        config=config_text(cfg),
        epochs=0,
        split=split_of(dataset, cfg),
        data_checksum=dataset.checksum(job.data_root),
        cost={},
        num_classes=0,
        checkpoint=checkpoint,
        details={},
    )


def _saved(
    job: Job, cfg: Config, facts: dict[str, Any], query: Features, gallery: Features, checkpoint: Path | None
) -> Outcome:
    facts["details"]["feature_dim"] = int(query.features.shape[1])
    path = Path(job.work_dir) / "predictions.safetensors"
    save(path, dict(query=query, gallery=gallery), facts)
    return outcome(query, gallery, cfg, json.loads(json.dumps(facts)), path, checkpoint)


def _cost(network: nn.Module, cfg: Config) -> tuple[dict[str, dict[str, Any]], str]:
    """What retrieval costs, without classifiers; or why it is not known."""
    network = network.embedding if isinstance(network, ReIDModel) else copy.deepcopy(network)
    for name, _ in list(network.named_children()):
        if name.startswith("classifier"):
            setattr(network, name, nn.Identity())
    shape = (3, cfg.height, cfg.width)
    try:
        return {c: backbones.cost(network.eval(), shape, convention=c).summary() for c in CONVENTIONS}, ""
    except Exception as error:  # a layer without a rule, or what a network does with one image
        return {}, " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _network(network: nn.Module, counted: bool) -> dict[str, Any]:
    """Bits and binarizer; None where a layer is not known, because then neither are its bits."""
    if not counted:
        return dict(binarizer="unknown", weight_bits=None, activation_bits=None)
    described = backbones.describe(network)
    return {key: described[key] for key in ("binarizer", "weight_bits", "activation_bits")}
