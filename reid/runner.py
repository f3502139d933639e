"""Train and score one row of a re-ID board with torchreid's data and engine."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed
from torch.optim.lr_scheduler import LambdaLR

import backbones
from commons.datasets import get_dataset
from commons.engine import config_text, latest_checkpoint, plain_errors
from commons.errors import InputError, WorkError
from commons.files import write_atomic
from commons.progress import Progress
from commons.task import Job, Outcome
from reid.datasets import torchreid_root
from reid.evaluation import DISTANCES, Scores, check_labels, evaluate
from reid.model import ReIDModel
from reid.recipe import build_config, with_options
from reid.torchreid_adapter import ImageDataManager, ImageSoftmaxEngine, append_stdout

CONVENTIONS = ("strict", "dcp-nas")
PROTOCOL = "single query; same identity under the same camera left out; CMC and mAP; {} distance"
SPLITS = {
    "market1501": "bounding_box_train -> query, bounding_box_test",
    "dukemtmcreid": "bounding_box_train -> query, bounding_box_test",
    "cuhk03": "new protocol, detected boxes: train -> query, gallery",
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
    checkpoint = _prepare(work_dir, cfg, job.resume)
    with plain_errors(work_dir):
        log = work_dir / "train.log"
        data = _data(cfg, job.data_root, log)
        set_random_seed(job.seed)
        torch.backends.cudnn.deterministic = True
        model = _model(cfg, data.num_train_pids)
        optimizer = _optimizer(model, cfg)
        state = _load_checkpoint(checkpoint, job.backbone) if checkpoint else None
        if state:
            untrained = state["untrained"]
        else:
            untrained = _score(model, data, cfg)[0].metrics() if cfg.score_untrained else None
        losses = _fit(model, optimizer, data, cfg, job, state, untrained, log)
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
    state = _load_checkpoint(Path(checkpoint), job.backbone)
    cfg = with_options(Config(state["config"]), job.cfg_options)
    cfg.dataset = job.dataset or cfg.dataset
    torchreid_root(cfg.dataset, job.data_root)
    work_dir = Path(job.work_dir)
    with plain_errors(work_dir):
        data = _data(cfg, job.data_root, work_dir / "test.log")
        model = _model(cfg, state["num_classes"])
        _load_weights(model, state["state_dict"], checkpoint)
        return _outcome(model, data, cfg, job.data_root, Path(checkpoint), None, state["losses"])


class _Engine(ImageSoftmaxEngine):
    """torchreid's engine that stops at a loss that is not finite and tells its progress.

    The losses of the network's binarization methods are added to its own, and logged by name.
    """

    def __init__(self, *args, on_step: Callable[[float], None], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.on_step = on_step

    def compute_loss(self, criterion, outputs, targets) -> torch.Tensor:
        for feature_loss in self.model.feature_losses:
            feature_loss(self.model.features, targets)
        self.added = backbones.method_losses(self.model)
        return super().compute_loss(criterion, outputs, targets) + sum(self.added.values())

    def forward_backward(self, data: dict) -> dict[str, float]:
        summary = super().forward_backward(data)
        self.on_step(summary["loss"])
        return {**summary, **{name: loss.item() for name, loss in self.added.items()}}


def _fit(
    model: ReIDModel,
    optimizer: torch.optim.Optimizer,
    data: ImageDataManager,
    cfg: Config,
    job: Job,
    state: dict | None,
    untrained: dict[str, float] | None,
    log: Path,
) -> list[float]:
    """Train to the end, from ``state`` if there is one; return the mean loss of every epoch."""
    batches = len(data.train_loader)
    scheduler = LambdaLR(optimizer, lambda epoch: _learning_rate_factor(epoch, cfg))
    losses: list[float] = []
    if state:
        _load_weights(model, state["state_dict"], job.work_dir)
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        losses = list(state["losses"])
    steps: list[float] = []

    def on_step(loss: float) -> None:
        if not math.isfinite(loss):
            last = latest_checkpoint(job.work_dir)
            raise WorkError(
                f"the loss is {loss} in epoch {len(losses) + 1}, iteration {len(steps) + 1}; "
                f"last good checkpoint: {last or 'none'}"
            )
        steps.append(loss)
        progress.advance(note=f"epoch {len(losses) + 1}/{cfg.epochs} loss {loss:.3f}")

    with append_stdout(log):
        engine = _Engine(
            data,
            model,
            optimizer,
            scheduler,
            use_gpu=torch.cuda.is_available(),
            label_smooth=cfg.label_smooth,
            on_step=on_step,
        )
    engine.max_epoch = cfg.epochs
    progress = Progress(f"{cfg.backbone} on {cfg.dataset}", total=cfg.epochs * batches)
    progress.start(completed=len(losses) * batches)
    try:
        for epoch in range(len(losses), cfg.epochs):
            # A large odd stride keeps the epochs of neighbouring seeds apart.
            set_random_seed((job.seed * 1_000_003 + epoch * 1009) % 2**32)
            engine.epoch = epoch
            steps.clear()
            with append_stdout(log):
                engine.train(print_freq=max(1, batches // 4))
            losses.append(sum(steps) / len(steps))
            _save_checkpoint(
                Path(job.work_dir) / f"epoch_{epoch + 1}.pth",
                dict(
                    state_dict=model.state_dict(),
                    optimizer=optimizer.state_dict(),
                    scheduler=scheduler.state_dict(),
                    losses=losses,
                    untrained=untrained,
                    backbone=cfg.backbone,
                    num_classes=data.num_train_pids,
                    config=cfg.to_dict(),
                ),
            )
    finally:
        progress.stop()
    return losses


def _learning_rate_factor(epoch: int, cfg: Config) -> float:
    """Linear warm-up from a tenth, then half a cosine to zero; ``epoch`` counts from 0."""
    if epoch < cfg.warmup_epochs:
        return 0.1 + 0.9 * epoch / cfg.warmup_epochs
    done = (epoch - cfg.warmup_epochs) / max(1, cfg.epochs - cfg.warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * done))


def _optimizer(model: ReIDModel, cfg: Config) -> torch.optim.Optimizer:
    options = cfg.optimizer.to_dict()
    kind = getattr(torch.optim, options.pop("type"), None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise InputError(f"expected an optimizer of torch.optim, found {cfg.optimizer.type!r}")
    try:
        return kind([p for p in model.parameters() if p.requires_grad], **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer {cfg.optimizer.type}: {error}") from error


def _data(cfg: Config, data_root: Path, log: Path) -> ImageDataManager:
    """Loaders for training, queries and gallery.

    Raises:
        InputError: missing or broken dataset; fewer training images than a batch has; nothing to
            score. All of it is said before hours of training, not after.
    """
    name, root = torchreid_root(cfg.dataset, data_root)
    with append_stdout(log):
        data = ImageDataManager(
            root=str(root),
            sources=name,
            height=cfg.height,
            width=cfg.width,
            use_gpu=torch.cuda.is_available(),
            **cfg.data.to_dict(),
        )
    if not len(data.train_loader):
        raise InputError(
            f"batch size {cfg.data.batch_size_train} is larger than the training set of "
            f"{len(data.train_loader.dataset)} images"
        )
    query, gallery = data.fetch_test_loaders(name)
    check_labels(*([image[k] for image in part] for k in (1, 2) for part in (query, gallery)))
    if cfg.distance not in DISTANCES:
        raise InputError(
            f"unknown distance {cfg.distance!r}; expected one of {', '.join(DISTANCES)}"
        )
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
        split=SPLITS[dataset.board],
        protocol=PROTOCOL.format(cfg.distance),
        data_checksum=dataset.checksum(data_root),
        config=config_text(cfg),
        checkpoint=checkpoint,
        cost=_cost(model, cfg),
        num_classes=model.classifier.out_features,
        details=dict(
            train_images=len(data.train_loader.dataset),
            train_identities=data.num_train_pids,
            **counts,
            loss_curve=losses,
        ),
    )


def _cost(model: ReIDModel, cfg: Config) -> dict[str, dict[str, Any]]:
    """What retrieval costs: the network without the classifier, which only training uses."""
    shape = (3, cfg.height, cfg.width)
    return {c: backbones.cost(model.embedding, shape, convention=c).summary() for c in CONVENTIONS}


def _prepare(work_dir: Path, cfg: Config, resume: bool) -> Path | None:
    """Make ``work_dir`` ready; return the checkpoint to go on from."""
    text, dumped = config_text(cfg), work_dir / "config.py"
    checkpoint = latest_checkpoint(work_dir) if resume else None
    if checkpoint and dumped.exists() and dumped.read_text() != text:
        raise InputError(
            f"cannot resume: {dumped} differs from the config asked for; "
            f"use another --work-dir or train without --resume"
        )
    if not resume:
        for stale in (*work_dir.glob("epoch_*.pth"), work_dir / "train.log"):
            stale.unlink(missing_ok=True)
    write_atomic(dumped, text)
    return checkpoint


def _save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` whole or not at all; then drop all but the last two checkpoints."""
    stream = io.BytesIO()
    torch.save(state, stream)
    write_atomic(path, stream.getvalue())
    epoch = int(path.stem.split("_")[1])
    for old in path.parent.glob("epoch_*.pth"):
        if int(old.stem.split("_")[1]) < epoch - 1:
            old.unlink()


def _load_checkpoint(path: Path, backbone: str) -> dict[str, Any]:
    """Read a checkpoint of :func:`train`; ``backbone`` is the one expected, or empty."""
    if not path.is_file():
        raise InputError(f"checkpoint not found: {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no common error for a file that is none of its own
        raise InputError(
            f"expected a checkpoint, found something else in {path}: {error}"
        ) from error
    expected = {"state_dict", "backbone", "num_classes", "config", "losses", "untrained"}
    if not isinstance(state, dict) or not expected <= state.keys():
        raise InputError(f"expected a checkpoint that re-ID training wrote, found {path}")
    if backbone and backbone != state["backbone"]:
        raise InputError(f"{path} is a checkpoint of {state['backbone']}, not of {backbone}")
    return state


def _load_weights(model: ReIDModel, weights: dict[str, torch.Tensor], origin: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the weights in {origin} do not fit the network: {reason}") from error
