"""Train and score one row of a re-ID board with torchreid's data and engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed

import backbones
from commons.datasets import get_dataset
from commons.engine import config_text, latest_checkpoint, load_weights, plain_errors
from commons.errors import InputError, WorkError
from commons.progress import Progress
from commons.task import Job, Outcome
from reid.checkpoint import load_backbone, load_checkpoint, prepare
from reid.datasets import torchreid_root
from reid.evaluation import Scores, check_labels, evaluate
from reid.model import ReIDModel
from reid.recipe import build_config, init_from, with_options
from reid.torchreid_adapter import ImageDataManager
from reid.training import build_optimizer, fit, image_data

CONVENTIONS = ("strict", "dcp-nas")
PROTOCOL = "single query; same identity under the same camera left out; CMC and mAP; {} distance"
SPLITS = {
    "market1501": "bounding_box_train -> query, bounding_box_test",
    "dukemtmcreid": "bounding_box_train -> query, bounding_box_test",
    "cuhk03": "{protocol}, {boxes} boxes: train -> query, gallery",
    "msmt17": "list_train -> list_query, list_gallery",
}


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
    checkpoint = prepare(work_dir, cfg, job.resume)
    with plain_errors(work_dir):
        log = work_dir / "train.log"
        data = _data(cfg, job.data_root, log)
        set_random_seed(job.seed)
        torch.backends.cudnn.deterministic = True
        model = _model(cfg, data.num_train_pids)
        optimizer = build_optimizer(model, cfg)
        state = load_checkpoint(checkpoint, job.backbone) if checkpoint else None
        if state:
            untrained = state["untrained"]
        else:
            if start:
                load_backbone(model.embedding.backbone, start)
            untrained = _score(model, data, cfg)[0].metrics() if cfg.score_untrained else None
        losses = fit(model, optimizer, data, cfg, job, state, untrained, log)
        return _outcome(
            model, data, cfg, job.data_root, latest_checkpoint(work_dir), untrained, losses
        )


def test(checkpoint: Path, job: Job) -> Outcome:
    """Score a checkpoint that :func:`train` wrote.

    Args:
        checkpoint: the file.
        job: ``dataset`` and ``backbone`` may be empty and are then the checkpoint's own; so is the
            config, over which ``cfg_options`` are laid.

    Raises:
        InputError: not such a checkpoint, or one of another backbone; missing or broken dataset.
    """
    state = load_checkpoint(Path(checkpoint), job.backbone)
    cfg = with_options(Config(state["config"]), job.cfg_options)
    cfg.dataset = job.dataset or cfg.dataset
    torchreid_root(cfg.dataset, job.data_root)
    work_dir = Path(job.work_dir)
    with plain_errors(work_dir):
        data = _data(cfg, job.data_root, work_dir / "test.log")
        model = _model(cfg, state["num_classes"])
        load_weights(model, state["state_dict"], checkpoint)
        return _outcome(model, data, cfg, job.data_root, Path(checkpoint), None, state["losses"])


def _data(cfg: Config, data_root: Path, log: Path) -> ImageDataManager:
    """Loaders for training, queries and gallery.

    Raises:
        InputError: missing or broken dataset; fewer training images than a batch has; nothing to
            score. All of it is said before hours of training, not after.
    """
    name, root = torchreid_root(cfg.dataset, data_root)
    data = image_data(cfg, name, root, log)
    query, gallery = data.fetch_test_loaders(name)
    check_labels(*([image[k] for image in part] for k in (1, 2) for part in (query, gallery)))
    return data


def _model(cfg: Config, num_classes: int) -> ReIDModel:
    options = cfg.model.to_dict()
    try:
        model = ReIDModel(cfg.backbone, num_classes, **options)
    except TypeError as error:
        raise InputError(f"model options {options} of {cfg.backbone}: {error}") from error
    return model.cuda() if torch.cuda.is_available() else model


def _score(model: ReIDModel, data: ImageDataManager, cfg: Config) -> tuple[Scores, dict[str, int]]:
    """Extract features of queries and gallery, rank and score; and how many of each there are."""
    (loaders,) = data.test_loader.values()
    query, query_pids, query_cameras = _extract(model, loaders["query"], "queries")
    gallery, gallery_pids, gallery_cameras = _extract(model, loaders["gallery"], "gallery")
    scores = evaluate(
        query,
        gallery,
        query_pids,
        gallery_pids,
        query_cameras,
        gallery_cameras,
        distance=cfg.distance,
    )
    counts = dict(
        queries=len(query),
        valid_queries=scores.valid_queries,
        gallery=len(gallery),
        **loaders["gallery"].dataset.counts,
        test_identities=len(set(query_pids.tolist())),
    )
    return scores, counts


@torch.no_grad()
def _extract(
    model: ReIDModel, loader: torch.utils.data.DataLoader, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, D], identities [N] and cameras [N] of the images of ``loader``."""
    device = next(model.parameters()).device
    model.eval()
    features, pids, cameras = [], [], []
    with Progress(f"features of {name}", total=len(loader)) as progress:
        for batch in loader:
            features.append(model(batch["img"].to(device)).float().cpu())
            pids.append(batch["pid"])
            cameras.append(batch["camid"])
            progress.advance()
    result = torch.cat(features).numpy()
    if not np.isfinite(result).all():
        raise WorkError(f"the network's features of the {name} are not finite")
    return result, torch.cat(pids).numpy(), torch.cat(cameras).numpy()


def _outcome(
    model: ReIDModel,
    data: ImageDataManager,
    cfg: Config,
    data_root: Path,
    checkpoint: Path,
    untrained: dict[str, float] | None,
    losses: list[float],
) -> Outcome:
    scores, counts = _score(model, data, cfg)
    dataset = get_dataset(cfg.dataset, task="reid")
    return Outcome(
        metrics=scores.metrics(),
        untrained=untrained,
        main_metric="mAP",
        epochs=len(losses),
        split=_split(dataset.board, cfg),
        protocol=PROTOCOL.format(cfg.distance),
        data_checksum=dataset.checksum(data_root),
        config=config_text(cfg),
        checkpoint=checkpoint,
        cost=_cost(model, cfg),
        num_classes=model.classifier.out_features,
        details=dict(
            train_images=len(data.train_loader.dataset),
            train_identities=data.num_train_pids,
            feature_dim=model.embedding.feature_dim,
            **counts,
            loss_curve=losses,
        ),
    )


def _split(board: str, cfg: Config) -> str:
    """Which images; only CUHK03 leaves a choice."""
    classic = f"classic split {cfg.data.split_id + 1} of 20"
    return SPLITS[board].format(
        protocol=classic if cfg.data.cuhk03_classic_split else "new protocol",
        boxes="labeled" if cfg.data.cuhk03_labeled else "detected",
    )


def _cost(model: ReIDModel, cfg: Config) -> dict[str, dict[str, Any]]:
    """What retrieval costs: the network without the classifier, which only training uses."""
    shape = (3, cfg.height, cfg.width)
    return {c: backbones.cost(model.embedding, shape, convention=c).summary() for c in CONVENTIONS}
