"""Train and score one row of a classification board with mmengine's Runner."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner

import backbones
from backbones.registry import MODELS
from classification.config import build_config, layout_of
from classification.cost import summaries
from classification.datasets import CIFAR, scored_folder
from classification.metrics import TopK
from classification.predictions import Predictions, ranks_of, top_k
from commons.datasets import FOLDER, Dataset, get_dataset
from commons.engine import (
    build_runner,
    config_errors,
    config_text,
    latest_checkpoint,
    load_row,
    load_weights,
    loss_curve,
    plain_errors,
    score,
)
from commons.errors import InputError
from commons.task import Job, Outcome

#: The file in the work folder that :func:`score_predictions` reads.
PREDICTIONS = "predictions.npz"
CONVENTIONS = ("strict", "dcp-nas")


def train(job: Job) -> Outcome:
    """Train ``job.backbone`` on ``job.dataset`` and score it.

    Raises:
        InputError: unknown name, missing or broken dataset, resume with another config.
        WorkError: the loss is not finite, or the disk is full.
    """
    dataset = get_dataset(job.dataset, "classification")
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    with plain_errors(job.work_dir):
        runner = build_runner(cfg, row_of(job, cfg), work_dir=job.work_dir, resume=job.resume)
        # Initialized here and not in runner.train(), which then leaves it alone: the network that
        # is scored now is the one that is trained.
        runner.model.init_weights()
        with config_errors():
            loop = runner.test_loop
        arguments = (runner.model, loop.dataloader, loop.evaluator)
        untrained = None
        if cfg.score_untrained:
            untrained = score(*arguments, f"{job.backbone} untrained")
        runner.train()
        metrics = score(*arguments, f"{job.backbone} test")
        return _outcome(
            job,
            cfg,
            metrics,
            predictions=_keep(loop.evaluator, job.work_dir / PREDICTIONS),
            untrained=untrained,
            epochs=runner.epoch,
            checkpoint=latest_checkpoint(job.work_dir),
            details=dict(
                loss_curve=loss_curve(runner),
                train_images=len(runner.train_dataloader.dataset),
                test_images=len(loop.dataloader.dataset),
            ),
        )


def test(checkpoint: Path, job: Job, packed: bool = False) -> Outcome:  # noqa: PT028
    """Score a checkpoint that :func:`train` wrote.

    Args:
        job: ``backbone`` may be empty: the checkpoint's own. ``recipe``, ``seed`` and
            ``cfg_options`` are the checkpoint's own, the last overlaid with the job's.
        packed: score what :func:`backbones.deploy` makes of the network, on the CPU.

    Raises:
        InputError: not such a checkpoint, one of another backbone, or of other classes; ``packed``
            and no 1-bit network.
    """
    row, weights = load_row(checkpoint)
    if row.get("task") != "classification":
        raise InputError(
            f"{checkpoint} is a checkpoint of {row.get('task', 'another task')}, not of "
            f"classification"
        )
    if job.backbone and job.backbone != row["backbone"]:
        raise InputError(
            f"{checkpoint} is a checkpoint of {row['backbone']}, not of {job.backbone}"
        )
    dataset = get_dataset(job.dataset, "classification")
    trained = Job(
        dataset=job.dataset,
        backbone=row["backbone"],
        recipe=row["recipe"],
        seed=row["seed"],
        data_root=job.data_root,
        work_dir=job.work_dir,
        cfg_options={**row["cfg_options"], **job.cfg_options},
    )
    cfg = build_config(trained, dataset, dataset.find(job.data_root))
    if cfg.model.num_classes != row["num_classes"]:
        raise InputError(
            f"{checkpoint} knows {row['num_classes']} classes, {dataset.name} has "
            f"{cfg.model.num_classes}"
        )
    with plain_errors(job.work_dir):
        with config_errors():
            model = MODELS.build(cfg.model)
            loader = Runner.build_dataloader(cfg.test_dataloader, seed=row["seed"])
            evaluator = Evaluator(cfg.test_evaluator)
        load_weights(model, weights, checkpoint)
        if packed:
            model = backbones.deploy(model)
        elif torch.cuda.is_available():
            model = model.cuda()
        metrics = score(model, loader, evaluator, f"{row['backbone']} test")
        return _outcome(
            trained,
            cfg,
            metrics,
            # Not the file that training kept, which a record names by its hash.
            predictions=_keep(
                evaluator, job.work_dir / f"test_{'packed_' if packed else ''}{PREDICTIONS}"
            ),
            untrained=None,
            epochs=cfg.train_cfg.max_epochs,
            checkpoint=checkpoint,
        )


def test_packed_file(path: Path, job: Job) -> Outcome:
    """Score a packed file with a classifier, on the CPU.

    Args:
        path: see :func:`backbones.packed.save`.
        job: of its recipe the size and the normalization of scored images count; ``backbone`` is
            the file's own.

    Returns:
        an outcome without epochs, which the file does not tell.

    Raises:
        InputError: not such a file, or one without classifier or of other classes.
    """
    from backbones import packed

    network, about = packed.load(path)
    dataset = get_dataset(job.dataset, "classification")
    cfg = build_config(job, dataset, dataset.find(job.data_root), about["backbone"])
    if about["classes"] is None:
        raise InputError(f"{path} holds a backbone without classifier: nothing to score")
    if about["classes"] != cfg.model.num_classes:
        raise InputError(
            f"{path} knows {about['classes']} classes, {dataset.name} has {cfg.model.num_classes}"
        )
    with plain_errors(job.work_dir):
        with config_errors():
            model = MODELS.build(cfg.model)
            loader = Runner.build_dataloader(cfg.test_dataloader, seed=job.seed)
            evaluator = Evaluator(cfg.test_evaluator)
        # The rest of the classifier is the preparation of images.
        model.backbone, model.classifier = network.backbone, network.classifier
        metrics = score(model, loader, evaluator, f"{path.name} test")
        return _outcome(
            job,
            cfg,
            metrics,
            predictions=_keep(evaluator, job.work_dir / f"{path.stem}_{PREDICTIONS}"),
            untrained=None,
            epochs=0,
            checkpoint=path,
        )


def score_predictions(predictions: Path, job: Job) -> Outcome:
    """Score the leading classes in a file, whoever made it; no network is built.

    The metrics of a file that :func:`train` or :func:`test` kept are theirs to the last digit.

    Args:
        predictions: see :mod:`classification.predictions`; one line per scored image, in the order
            of the data (sorted by class and file name, or as CIFAR-10's test batch has them).
        job: whose dataset, backbone and recipe it was.

    Returns:
        an outcome without checkpoint and epochs: a file says nothing of them.

    Raises:
        InputError: not such a file, or one that does not fit the dataset.
    """
    dataset = get_dataset(job.dataset, "classification")
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    found = Predictions.load(predictions)
    with plain_errors(job.work_dir), config_errors():
        labels = DATASETS.build(cfg.test_dataloader.dataset).labels
    if found.num_classes != cfg.model.num_classes or len(found.classes) != len(labels):
        raise InputError(
            f"{predictions} has {len(found.classes)} images of {found.num_classes} classes, "
            f"{dataset.name} has {len(labels)} of {cfg.model.num_classes}"
        )
    return _outcome(
        job,
        cfg,
        top_k(ranks_of(labels, found.classes, found.ranks), TopK.ks),
        predictions=predictions,
        untrained=None,
        epochs=0,
        checkpoint=None,
        details=dict(test_images=len(labels)),
    )


def _keep(evaluator: Evaluator, path: Path) -> Path | None:
    """Write what was scored last; None where the evaluator is not one of this suite's."""
    kept = getattr(evaluator.metrics[0], "predictions", None)
    return None if kept is None else kept.save(path)


def row_of(job: Job, cfg: Config) -> dict:
    """What a checkpoint says of itself; of an own folder's also the stem, which its name does not."""
    stem = dict(stem=cfg.model.backbone.stem) if get_dataset(job.dataset).board == FOLDER else {}
    return dict(
        task="classification",
        dataset=job.dataset,
        backbone=job.backbone,
        recipe=job.recipe,
        seed=job.seed,
        cfg_options=dict(job.cfg_options),
        num_classes=cfg.model.num_classes,
        **stem,
    )


def scored_split(dataset: Dataset, folder: Path) -> str:
    """Name of the images that a row is scored on: ``val`` or ``test``."""
    layout = layout_of(dataset, folder)
    return "test" if layout in CIFAR else scored_folder(folder, layout)


def _outcome(
    job: Job, cfg: Config, metrics: dict[str, float], *, details=None, **fields
) -> Outcome:
    dataset = get_dataset(job.dataset)
    size = (cfg.input_size, cfg.input_size)
    with torch.device("meta"):  # the network of the config: options may have changed the name's
        network = MODELS.build(cfg.model.backbone)
    return Outcome(
        metrics=metrics,
        main_metric="top1",
        split=f"train -> {scored_split(dataset, dataset.find(job.data_root))}",
        protocol=f"top-1 and top-5 accuracy, one view of {size[0]}x{size[1]} pixels",
        data_checksum=dataset.checksum(job.data_root),
        config=config_text(cfg),
        cost=summaries(network, CONVENTIONS, size, cfg.model.num_classes),
        num_classes=cfg.model.num_classes,
        details={**(details or {}), "network": backbones.describe(network)},
        **fields,
    )
