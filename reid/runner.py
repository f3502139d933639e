"""Train and score one row of a re-ID board with torchreid's data and engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed

from onebit import backbones
from onebit.commons.acceleration import compiler_errors
from onebit.commons.checkpoints import require_fit
from onebit.commons.datasets import Dataset, OwnPictures, get_dataset, resolve_code
from onebit.commons.engine import config_text, latest_checkpoint, load_weights, plain_errors
from onebit.commons.errors import InputError
from onebit.commons.task import Job, Outcome
from onebit.reid import face
from onebit.reid.checkpoint import load_backbone, load_checkpoint, prepare
from onebit.reid.datasets import torchreid_root
from onebit.reid.evaluation import check_labels
from onebit.reid.evaluation.options import Evaluation
from onebit.reid.face_datasets import Pairs
from onebit.reid.features import Features, load, of_dataset, save
from onebit.reid.model import ReIDModel
from onebit.reid.pictures import write_rankings
from onebit.reid.recipe import build_config, check, init_from, saved_config, with_options
from onebit.reid.scoring import check_against_dataset, load_predictions, outcome, score, with_evaluation_options
from onebit.reid.torchreid_adapter import ImageDataManager
from onebit.reid.training import build_optimizer, fit, image_data

CONVENTIONS = ("strict", "dcp-nas")


def train(job: Job) -> Outcome:
    """Train ``job.backbone`` on ``job.dataset`` and score it.

    Every epoch starts from a random state that follows from (seed, epoch) alone and ends with a
    checkpoint, of which the last two are kept: ``resume`` ends where an uninterrupted run does.

    Raises:
        InputError: unknown name, missing or broken dataset, resume with another config.
        WorkError: the loss is not finite, or the disk is full.
    """
    cfg = build_config(job)
    work_dir = Path(job.work_dir)
    backbones.backbone_config(cfg.backbone)
    torchreid_root(cfg.dataset, job.data_root)
    start = init_from(job)
    dataset = get_dataset(cfg.dataset, task="reid")
    checksum = dataset.checksum(job.data_root)
    checkpoint = prepare(work_dir, cfg, job.resume)
    with plain_errors(work_dir), compiler_errors():
        log = work_dir / "train.log"
        data = read_data(cfg, job.data_root, log)
        set_random_seed(job.seed)
        torch.backends.cudnn.deterministic = True
        model = build_model(cfg, data.num_train_pids)
        optimizer = build_optimizer(model, cfg)
        state = load_checkpoint(checkpoint, job.backbone) if checkpoint else None
        if state:
            if state.get("data", checksum) != checksum:
                raise InputError(
                    f"cannot resume: {checkpoint} was trained with data {state['data']!r} and not {checksum!r}; use "
                    f"another --work-dir or train without --resume"
                )
            untrained = state["untrained"]
        else:
            if start:
                load_backbone(model.embedding.backbone, start)
            untrained = _score(model, data, cfg, job) if cfg.score_untrained else None
        losses = fit(model, optimizer, data, cfg, job, state, dict(untrained=untrained, data=checksum), log)
        dataset.require_unchanged(job.data_root, checksum)
        return _outcome(model, data, cfg, job, latest_checkpoint(work_dir), untrained, losses)


def test(checkpoint: Path, job: Job, packed: bool = False) -> Outcome:  # noqa: PT028
    """Score a checkpoint that :func:`train` wrote.

    Args:
        checkpoint: the file.
        job: ``dataset`` and ``backbone`` may be empty and are then the checkpoint's own; so is the
            config, over which ``cfg_options`` are laid. ``details["filled_from_recipe"]`` names the
            options that recipes had not yet when it was written; see
            :func:`onebit.reid.recipe.saved_config`.
        packed: score what :func:`onebit.backbones.deploy` makes of the network, on the CPU.

    Raises:
        InputError: not such a checkpoint, or one of another backbone; a value out of range; missing
            or broken dataset; ``packed`` and no 1-bit network.
    """
    state = load_checkpoint(Path(checkpoint), job.backbone)
    cfg, filled = saved_config(state["config"], Path(checkpoint))
    # The weights are the checkpoint's, whatever the row once started from.
    cfg = with_options(cfg, {k: v for k, v in job.options.items() if k != "init_from"})
    trained_on, cfg.dataset = cfg.dataset, job.dataset or cfg.dataset
    check(cfg)
    torchreid_root(cfg.dataset, job.data_root)
    work_dir = Path(job.work_dir)
    with plain_errors(work_dir):
        data = read_data(cfg, job.data_root, work_dir / "test.log")
        model = trained_model(cfg, state, checkpoint)
        packed_model = backbones.deploy(model.cpu()) if packed else None
        # Not the name of what the row itself left: its record has the hash of that.
        scored = _outcome(
            model, data, cfg, job, Path(checkpoint), None, state["losses"], "test_", trained_on, packed_model
        )
    if filled:
        scored.details["filled_from_recipe"] = filled
    return scored


def score_predictions(predictions: Path, job: Job) -> Outcome:
    """Score the features that :func:`train` or :func:`test` saved, without the network.

    Args:
        predictions: ``Outcome.predictions`` of either.
        job: ``dataset`` and ``backbone`` may be empty, else they must be the file's.
            ``cfg_options`` of ``evaluation`` are laid over the row's config. Where the dataset
            lies below ``data_root``, its images, identities and cameras must be those of the file;
            ``details["checked_against_dataset"]`` says whether that could be looked at.

    Raises:
        InputError: a file that is damaged, foreign, or of another dataset or backbone; an option
            that the features depend on.
    """
    predictions = Path(predictions)
    groups, facts = load(predictions)
    if "images" in groups and _is_face_file(facts):
        # The pairs are in the dataset, not in the file.
        cfg = _config_of(facts, predictions, job)
        dataset = get_dataset(cfg.dataset, task="reid")
        root = dataset.find(job.data_root)
        checkpoint = predictions.parent / facts["checkpoint"]
        pairs = resolve_code(dataset.reader).read_pairs(root)
        return face.outcome(groups["images"], pairs, cfg, root, facts, predictions, checkpoint)
    query, gallery, facts = load_predictions(predictions)
    cfg = _config_of(facts, predictions, job)
    dataset = get_dataset(cfg.dataset, task="reid")
    present = dataset.is_there(job.data_root)
    if present:
        work_dir = Path(job.work_dir)
        name, _ = torchreid_root(cfg.dataset, job.data_root)
        with plain_errors(work_dir):
            data = read_data(cfg, job.data_root, work_dir / "test.log")
            root = dataset.find(job.data_root)
            for part, images in zip((query, gallery), data.fetch_test_loaders(name), strict=True):
                check_against_dataset(part, images, root, predictions)
    facts["details"]["checked_against_dataset"] = present
    checkpoint = predictions.parent / facts["checkpoint"]
    return outcome(query, gallery, cfg, facts, predictions, checkpoint)


def _is_face_file(facts: dict[str, Any]) -> bool:
    """Features of a folder of images are no row's: their facts name no config."""
    return "cfg" in facts and is_face(Config(facts["cfg"]))


def _config_of(facts: dict[str, Any], predictions: Path, job: Job) -> Config:
    """The config of saved features, with the job's options of evaluation over it."""
    for name in ("dataset", "backbone"):
        asked = getattr(job, name)
        if asked and asked != facts[name]:
            raise InputError(f"{predictions} has features of {name} {facts[name]}, not of {asked}")
    cfg, _ = saved_config(facts["cfg"], predictions)
    if job.options:
        cfg = with_evaluation_options(cfg, job.options)
        facts["config"] = config_text(cfg)
    Evaluation.of(cfg)
    return cfg


def show(outcome: Outcome, job: Job, folder: Path, count: int, score: float | None = None) -> list[Path]:
    """Draw rankings of a scored row: see :func:`onebit.reid.pictures.write_rankings`.

    Args:
        outcome: of :func:`train`, :func:`test` or :func:`score_predictions`.
        job: tells where the dataset is.
        folder: where the pictures go.
        count: how many.
        score: None, since a ranking shows distances.
    """
    query, gallery, facts = load_predictions(outcome.predictions)
    evaluation = Evaluation.of(_config_of(facts, outcome.predictions, job))
    root = get_dataset(facts["dataset"], task="reid").find(job.data_root)
    return write_rankings(query, gallery, evaluation, root, Path(folder), count)


def read_data(cfg: Config, data_root: Path, log: Path) -> ImageDataManager:
    """Loaders for training, queries and gallery.

    Raises:
        InputError: missing or broken dataset; fewer training images than a batch has; nothing to
            score. All of it is said before hours of training, not after.
    """
    name, root = torchreid_root(cfg.dataset, data_root)
    data = image_data(cfg, name, root, log)
    if is_face(cfg):
        return data
    query, gallery = data.fetch_test_loaders(name)
    labels = (*([image[k] for image in part] for k in (1, 2) for part in (query, gallery)),)
    check_labels(*labels, protocol=Evaluation.of(cfg).protocol)
    return data


def build_model(cfg: Config, num_classes: int, on_gpu: bool = True) -> ReIDModel:
    """The network of a row, on the GPU where there is one and unless told otherwise.

    Raises:
        InputError: an option of the model that does not exist.
    """
    options = cfg.model.to_dict()
    try:
        model = ReIDModel(cfg.backbone, num_classes, **options)
    except TypeError as error:
        raise InputError(f"model options {options} of {cfg.backbone}: {error}") from error
    return model.cuda() if on_gpu and torch.cuda.is_available() else model


def trained_model(cfg: Config, state: dict[str, Any], checkpoint: Path) -> ReIDModel:
    """The network of a checkpoint's content with its weights.

    Raises:
        InputError: they do not fit.
    """
    with torch.device("meta"):
        require_fit(build_model(cfg, state["num_classes"], on_gpu=False), state["state_dict"], checkpoint)
    model = build_model(cfg, state["num_classes"])
    load_weights(model, state["state_dict"], checkpoint)
    return model


def features_of(model: ReIDModel, data: ImageDataManager, cfg: Config, job: Job) -> tuple[Features, Features]:
    """Features of queries and gallery."""
    (loaders,) = data.test_loader.values()
    root = get_dataset(cfg.dataset, task="reid").find(job.data_root)
    return (
        of_dataset(model, loaders["query"], "queries", root, cfg.flip_features),
        of_dataset(model, loaders["gallery"], "gallery", root, cfg.flip_features),
    )


def _score(model: ReIDModel, data: ImageDataManager, cfg: Config, job: Job) -> dict[str, float]:
    if is_face(cfg):
        return face.score_pairs(*_face_features(model, data, cfg, job))[0]
    return score(*features_of(model, data, cfg, job), Evaluation.of(cfg))[0]


def _outcome(
    model: ReIDModel,
    data: ImageDataManager,
    cfg: Config,
    job: Job,
    checkpoint: Path,
    untrained: dict[str, float] | None,
    losses: list[float],
    prefix: str = "",
    trained_on: str = "",
    packed: torch.nn.Module | None = None,
) -> Outcome:
    """Save the features of the scored images, in a file with this prefix; then score them.

    ``trained_on`` is the dataset of the weights, where that may be another one. The features are
    those of ``packed``, the packed form of ``model``, if there is one.
    """
    (loaders,) = data.test_loader.values()
    dataset = get_dataset(cfg.dataset, task="reid")
    facts = dict(
        dataset=cfg.dataset,
        backbone=cfg.backbone,
        cfg=cfg.to_dict(),
        config=config_text(cfg),
        epochs=len(losses),
        split=split_of(dataset, cfg),
        data_checksum=dataset.checksum(job.data_root),
        cost=_cost(model, cfg),
        num_classes=model.classifier.out_features,
        checkpoint=checkpoint.name,
        details=dict(
            train_images=len(data.train_loader.dataset),
            train_identities=data.num_train_pids,
            feature_dim=model.embedding.feature_dim,
            network=backbones.describe(model.embedding.backbone),
            **loaders["gallery"].dataset.counts,
            **({"checked": {"labels": dict(dataset.counts)}} if isinstance(dataset, OwnPictures) else {}),
            loss_curve=losses,
        ),
    )
    if trained_on not in ("", cfg.dataset):
        facts["split"] = f"{trained_on} -> {facts['split'].split('->')[-1].strip()}"
        for name in ("train_images", "train_identities"):
            del facts["details"][name]
    name = f"{prefix}{checkpoint.stem}.{cfg.dataset}{'.packed' if packed else ''}.safetensors"
    path = Path(job.work_dir) / name
    model = packed or model
    if is_face(cfg):
        images, lists, _, root = _face_features(model, data, cfg, job)
        save(path, dict(images=images), facts)
        return face.outcome(images, lists, cfg, root, facts, path, checkpoint, untrained)
    query, gallery = features_of(model, data, cfg, job)
    save(path, dict(query=query, gallery=gallery), facts)
    return outcome(query, gallery, cfg, facts, path, checkpoint, untrained)


def _face_features(
    model: ReIDModel, data: ImageDataManager, cfg: Config, job: Job
) -> tuple[Features, list[Pairs], Config, Path]:
    """What :func:`onebit.reid.face.score_pairs` takes."""
    (loaders,) = data.test_loader.values()
    root = get_dataset(cfg.dataset, task="reid").find(job.data_root)
    images = face.features_of_pairs(model, data, cfg, root)
    return images, loaders["query"].dataset.pairs, cfg, root


def is_face(cfg: Config) -> bool:
    """Whether the row is scored on pairs instead of by retrieval."""
    return get_dataset(cfg.dataset, task="reid").protocol == "pairs"


def split_of(dataset: Dataset, cfg: Config) -> str:
    """Which images; only CUHK03 leaves a choice."""
    classic = f"classic split {cfg.data.split_id + 1} of 20"
    return dataset.split.format(
        protocol=classic if cfg.data.cuhk03_classic_split else "new protocol",
        boxes="labeled" if cfg.data.cuhk03_labeled else "detected",
    )


def _cost(model: ReIDModel, cfg: Config) -> dict[str, dict[str, Any]]:
    """What retrieval costs: the network without the classifier, which only training uses."""
    shape = (3, cfg.height, cfg.width)
    return {c: backbones.cost(model.embedding, shape, convention=c).summary() for c in CONVENTIONS}
