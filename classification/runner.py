"""Train and score one row of a classification board with mmengine's Runner."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from onebit import backbones
from onebit.backbones.conv import binarize_weights
from onebit.backbones.registry import MODELS
from onebit.classification.config import FILE_OPTIONS, FREE, build_config
from onebit.classification.cost import summaries
from onebit.classification.datasets import class_names, hold_on_gpu, layout_of, split_of
from onebit.classification.distillation import Distillation
from onebit.classification.metrics import TopK
from onebit.classification.options import score_averaged_weights
from onebit.classification.predictions import Predictions, ranks_of, top_k
from onebit.classification.stages import Stage, forget, stages_of
from onebit.commons.acceleration import compiler_errors
from onebit.commons.checkpoints import require_asked, require_classes, require_fit, require_row
from onebit.commons.datasets import Dataset, OwnPictures, get_dataset
from onebit.commons.distributed import join, unwrapped
from onebit.commons.engine import (
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
from onebit.commons.errors import InputError
from onebit.commons.task import Job, Outcome, left_out

#: The file in the work folder that :func:`score_predictions` reads.
PREDICTIONS = "predictions.npz"
CONVENTIONS = ("strict", "dcp-nas", "cp-nas")


def train(job: Job) -> Outcome:
    """Train ``job.backbone`` on ``job.dataset`` and score it.

    Raises:
        InputError: unknown name, missing or broken dataset, resume with another config; ``cuda_graph`` without a GPU.
        WorkError: the loss is not finite, or the disk is full.
    """
    join()
    dataset = get_dataset(job.dataset, "classification")
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    checksum = dataset.checksum(job.data_root)
    stages = stages_of(cfg, job.work_dir, FREE)
    _require_gpu(stages)
    details = _teachers(stages, dataset)  # before anything is written
    if not job.resume:
        forget(stages)
    curve: list[float] = []
    weights = untrained = None
    real_weights = False  # of the stage before
    with plain_errors(job.work_dir), compiler_errors():
        for stage in stages:
            row = {**row_of(job, cfg), "data": checksum, **stage.row}
            runner = build_runner(
                stage.cfg,
                row,
                work_dir=stage.work_dir,
                resume=job.resume,
                epochs_before=stage.epochs_before,
                defer_losses=True,
            )
            hold_on_gpu(runner.train_dataloader)
            # Initialized here and not in runner.train(), which then leaves it alone: the network
            # that is scored now is the one that is trained.
            runner.model.init_weights()
            with config_errors():
                loop = runner.test_loop
            arguments = (runner.model, loop.dataloader, loop.evaluator)
            if weights is not None:
                _carry_over(weights, runner, real_weights)
            elif cfg.score_untrained:
                with _wholly_binarized(runner):
                    untrained = score(*arguments, f"{job.backbone} untrained")
            runner.train()
            real_weights = unwrapped(runner.model).binarize == "activations"
            weights = latest_checkpoint(stage.work_dir)
            curve += loss_curve(runner)
        dataset.require_unchanged(job.data_root, checksum)
        averaged = score_averaged_weights(runner)
        if averaged:
            details["averaged_weights"] = averaged
        if len(stages) > 1:
            details["stages"] = [
                dict(epochs=s.cfg.train_cfg.max_epochs, binarize=s.cfg.model.get("binarize", "both")) for s in stages
            ]
        metrics = score(*arguments, f"{job.backbone} test")
        return _outcome(
            job,
            cfg,
            metrics,
            predictions=_keep(loop.evaluator, job.work_dir / PREDICTIONS),
            untrained=untrained,
            epochs=stages[-1].epochs_before + runner.epoch,
            checkpoint=weights,
            details=dict(
                loss_curve=curve,
                train_images=len(runner.train_dataloader.dataset),
                test_images=len(loop.dataloader.dataset),
                **details,
            ),
        )


def _require_gpu(stages: list[Stage]) -> None:
    """For ``cuda_graph``."""
    if any(stage.cfg.model.get("cuda_graph") for stage in stages) and not torch.cuda.is_available():
        raise InputError("cuda_graph: expected a GPU")


def _teachers(stages: list[Stage], dataset: Dataset) -> dict[str, Any]:
    """What a record says of the stages' teachers: ``teacher``, or ``teachers`` where they differ.

    Raises:
        InputError: a teacher that cannot be read, or that knows another dataset's classes.
    """
    found: list[dict | None] = []
    for stage in stages:
        distillation = stage.cfg.model.get("distillation")
        if not distillation:
            found.append(None)
            continue
        teacher = Distillation(stage.cfg.model.num_classes, dataset=dataset.name, **distillation)
        found.append(teacher.about)
    if not any(found):
        return {}
    same = all(about == found[0] for about in found)
    return {"teacher": found[0]} if same else {"teachers": found}


def _carry_over(checkpoint: Path, runner: Runner, real_weights: bool) -> None:
    """Start from the weights of the stage before, whose convolutions may have used them as they are."""
    network = unwrapped(runner.model)
    load_weights(network, load_row(checkpoint)[1], checkpoint)
    if real_weights and network.binarize == "both":  # fit the quantizers to these weights
        binarize_weights(network, False)
        binarize_weights(network, True)


@contextlib.contextmanager
def _wholly_binarized(runner: Runner) -> Iterator[None]:
    """The network as its last stage has it: what an untrained network scores is said of that."""
    network = unwrapped(runner.model)
    binarize_weights(network, True)
    try:
        yield
    finally:
        binarize_weights(network, network.binarize == "both")


def test(checkpoint: Path, job: Job, packed: bool = False) -> Outcome:  # noqa: PT028
    """Score a checkpoint that :func:`train` wrote.

    Args:
        job: ``backbone`` may be empty: the checkpoint's own. ``recipe``, ``seed`` and
            options are the checkpoint's own, the last overlaid with the job's.
        packed: score what :func:`onebit.backbones.deploy` makes of the network, on the CPU.

    Raises:
        InputError: not such a checkpoint, one of another backbone, or of other classes; ``packed``
            and no 1-bit network.
    """
    row, weights = load_row(checkpoint)
    require_asked(checkpoint, row, task="classification")
    require_row(checkpoint, row, "backbone", "recipe", "seed", "num_classes", backbone=job.backbone)
    require_asked(checkpoint, row, backbone=job.backbone)
    dataset = get_dataset(job.dataset, "classification")
    trained = Job(
        dataset=job.dataset,
        backbone=row["backbone"],
        recipe=row["recipe"],
        seed=row["seed"],
        data_root=job.data_root,
        work_dir=job.work_dir,
        cfg_options=job.cfg_options,
        recorded=row["cfg_options"].taken(FILE_OPTIONS, job.cfg_options),
    )
    cfg = build_config(trained, dataset, dataset.find(job.data_root))
    require_classes(checkpoint, row, dataset.name, _classes(trained))
    stage = _stage_of(row, cfg, job.work_dir, checkpoint)
    with plain_errors(job.work_dir):
        with config_errors():
            with torch.device("meta"):
                require_fit(_without_training(stage.cfg), weights, checkpoint)
            model = _without_training(stage.cfg)
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
            predictions=_keep(evaluator, job.work_dir / f"test_{'packed_' if packed else ''}{PREDICTIONS}"),
            untrained=None,
            epochs=stage.epochs_before + stage.cfg.train_cfg.max_epochs,
            checkpoint=checkpoint,
            details=left_out(trained),
        )


def _stage_of(row: dict, cfg: Config, work_dir: Path, checkpoint: Path) -> Stage:
    """The stage that a checkpoint is of.

    Raises:
        InputError: the recipe has no such stage, or its network is not wholly 1-bit yet.
    """
    stages = stages_of(cfg, work_dir, FREE)
    number = row.get("stage", 1)
    if not 1 <= number <= len(stages) or ("stage" in row) != bool(cfg.get("stages")):
        raise InputError(f"{checkpoint} is of stage {number}, the recipe has {len(stages)}")
    stage = stages[number - 1]
    if stage.cfg.model.get("binarize", "both") != "both":
        raise InputError(
            f"{checkpoint} is of stage {number} of {len(stages)}, in which weights are not "
            f"binarized: train the stages after it first (--resume)"
        )
    return stage


def _without_training(cfg: Config) -> torch.nn.Module:
    """The network of ``cfg`` without what it needs for training only."""
    model = cfg.model.copy()
    model.pop("distillation", None)
    return MODELS.build(model)


def test_packed_file(path: Path, job: Job) -> Outcome:
    """Score a packed file with a classifier, on the CPU.

    Args:
        path: see :func:`onebit.backbones.packed.save`.
        job: of its recipe the size and the normalization of scored images count; ``backbone`` is
            the file's own.

    Returns:
        an outcome without epochs, which the file does not tell.

    Raises:
        InputError: not such a file, or one without classifier or of other classes.
    """
    from onebit.backbones import packed

    network, about = packed.load(path)
    dataset = get_dataset(job.dataset, "classification")
    cfg = build_config(job, dataset, dataset.find(job.data_root), about["backbone"])
    if about["classes"] is None:
        raise InputError(f"{path} holds a backbone without classifier: nothing to score")
    require_classes(path, {"num_classes": about["classes"]}, dataset.name, _classes(job))
    with plain_errors(job.work_dir):
        with config_errors():
            model = _without_training(cfg)
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
        predictions: see :mod:`onebit.classification.predictions`; one line per scored image, in the order
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


def _classes(job: Job) -> list[str]:
    """The names of the classes of a job's dataset, in the order of the labels."""
    dataset = get_dataset(job.dataset, "classification")
    folder = dataset.find(job.data_root)
    return class_names(folder, layout_of(dataset, folder))


def row_of(job: Job, cfg: Config) -> dict:
    """What a checkpoint says of itself."""
    return dict(
        task="classification",
        dataset=job.dataset,
        backbone=job.backbone,
        recipe=job.recipe,
        seed=job.seed,
        cfg_options=job.options,
        num_classes=cfg.model.num_classes,
        stem=cfg.model.backbone.stem,
        classes=_classes(job),
        images=dict(
            size=cfg.input_size,
            small=cfg.test_dataloader.dataset.type == "InMemoryImages",
            gray=get_dataset(job.dataset).gray,
            mean=[float(value) for value in cfg.model.data_preprocessor.mean],
            std=[float(value) for value in cfg.model.data_preprocessor.std],
        ),
    )


def _outcome(job: Job, cfg: Config, metrics: dict[str, float], *, details=None, **fields) -> Outcome:
    dataset = get_dataset(job.dataset)
    size = (cfg.input_size, cfg.input_size)
    with torch.device("meta"):  # the network of the config: options may have changed the name's
        network = MODELS.build(cfg.model.backbone)
    return Outcome(
        metrics=metrics,
        main_metric=dataset.main_metric,
        split=split_of(dataset, dataset.find(job.data_root)),
        protocol=f"top-1 and top-5 accuracy, one view of {size[0]}x{size[1]} pixels"
        + (", gray as three equal channels" if dataset.gray else ""),
        data_checksum=dataset.checksum(job.data_root),
        config=config_text(cfg),
        cost=summaries(network, CONVENTIONS, size, cfg.model.num_classes),
        num_classes=cfg.model.num_classes,
        details={
            **(details or {}),
            **({"checked": {"labels": dict(dataset.counts)}} if isinstance(dataset, OwnPictures) else {}),
            "network": backbones.describe(network),
        },
        **fields,
    )
