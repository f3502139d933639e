"""Training with torchreid's engines: watched, reseeded every epoch, resumable."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import set_random_seed
from torch.optim.lr_scheduler import LambdaLR

from onebit import backbones
from onebit.commons.acceleration import compile_network
from onebit.commons.engine import latest_checkpoint, load_weights
from onebit.commons.engine_hooks import epoch_seed
from onebit.commons.errors import InputError, WorkError
from onebit.commons.progress import Progress
from onebit.commons.task import Job
from onebit.reid.checkpoint import save_checkpoint
from onebit.reid.model import ReIDModel
from onebit.reid.torchreid_adapter import ImageDataManager, ImageSoftmaxEngine, ImageTripletEngine, append_stdout

SCHEDULES = ("cosine", "step")


class _Watched:
    """Goes before torchreid's engine among the bases; tells every step's loss to ``on_step``.

    The losses of the network's binarization methods are added to the engine's own, once a step, and
    logged by name.
    """

    on_step: Callable[[float], None]
    #: The method losses of this step, None before they are computed.
    added: dict[str, torch.Tensor] | None = None
    #: Of the part of the engine's loss that is computed first.
    first_weight = 1.0

    def compute_loss(self, criterion, outputs, targets) -> torch.Tensor:
        loss = super().compute_loss(criterion, outputs.float(), targets)
        if self.added is not None:
            return loss
        for feature_loss in self.model.feature_losses:
            feature_loss(self.model.features.float(), targets)
        self.added = backbones.method_losses(self.model)
        return loss + sum(self.added.values()) / self.first_weight

    def forward_backward(self, data: dict) -> dict[str, float]:
        self.added = None
        summary = super().forward_backward(data)
        self.on_step(self.total(summary))
        return {**summary, **{name: loss.detach() for name, loss in self.added.items()}}  # torchreid's meter reads them


class SoftmaxEngine(_Watched, ImageSoftmaxEngine):
    def total(self, summary: dict[str, float]) -> float:
        return summary["loss"]


class TripletEngine(_Watched, ImageTripletEngine):
    @property
    def first_weight(self) -> float:
        return self.weight_t or self.weight_x

    def total(self, summary: dict[str, float]) -> float:
        # torchreid tells the two parts only, and leaves a part without weight out.
        return self.weight_t * summary.get("loss_t", 0.0) + self.weight_x * summary.get("loss_x", 0.0)


def image_data(cfg: Config, name: str, root: Path, log: Path) -> ImageDataManager:
    """torchreid's loaders of the dataset that is registered as ``name``.

    Raises:
        InputError: a broken dataset, or one with too few images or identities for a batch.
    """
    with append_stdout(log):
        try:
            data = ImageDataManager(
                root=str(root),
                sources=name,
                height=cfg.height,
                width=cfg.width,
                use_gpu=torch.cuda.is_available(),
                **cfg.data.to_dict(),
            )
        except InputError:  # a ValueError too, which says what is wrong by itself
            raise
        except (TypeError, ValueError, AssertionError) as error:
            reason = str(error)
            if not reason and cfg.data.train_sampler == "RandomIdentitySampler":
                identities = cfg.data.batch_size_train // cfg.data.num_instances
                reason = f"batches of {identities} identities; the training set has fewer"
            raise InputError(f"data {cfg.data.to_dict()}: {reason}") from error
    if not len(data.train_loader):
        raise InputError(
            f"batch size {cfg.data.batch_size_train} is larger than the training set of "
            f"{len(data.train_loader.dataset)} images"
        )
    return data


def fit(
    model: ReIDModel,
    optimizer: torch.optim.Optimizer,
    data: ImageDataManager,
    cfg: Config,
    job: Job,
    state: dict | None,
    about: dict[str, Any],
    log: Path,
) -> list[float]:
    """Train to the end, from ``state`` if there is one; return the mean loss of every epoch.

    ``about`` goes into every checkpoint: the score of the untrained network, and the checksum of the data.

    Raises:
        WorkError: the loss is not finite, or the disk is full.
    """
    batches = len(data.train_loader)  # an estimate where identities are sampled
    scheduler = LambdaLR(optimizer, lambda epoch: learning_rate_factor(epoch, cfg))
    losses: list[float] = []
    if state:
        load_weights(model, state["state_dict"], job.work_dir)
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
        engine = _engine(model, optimizer, scheduler, data, cfg)
    engine.on_step = on_step
    engine.max_epoch = cfg.epochs
    compile_network(model.embedding.backbone, cfg.get("compile", False))
    if cfg.get("amp"):
        device = next(model.parameters()).device.type
        model.forward = torch.autocast(device, getattr(torch, cfg.amp))(model.forward)
    progress = Progress(f"{cfg.backbone} on {cfg.dataset}", total=cfg.epochs * batches)
    progress.start(completed=len(losses) * batches)
    try:
        for epoch in range(len(losses), cfg.epochs):
            set_random_seed(epoch_seed(job.seed, epoch))
            engine.epoch = epoch
            backbones.set_progress(model, epoch / cfg.epochs)
            steps.clear()
            with append_stdout(log):
                engine.train(
                    print_freq=max(1, batches // 4), fixbase_epoch=cfg.fixbase_epochs, open_layers=["classifier"]
                )
            if not steps:
                raise InputError(
                    f"an epoch of {cfg.data.train_sampler} has no batch of {cfg.data.batch_size_train} images"
                )
            progress.advance(batches - len(steps))
            losses.append(sum(steps) / len(steps))
            save_checkpoint(
                Path(job.work_dir) / f"epoch_{epoch + 1}.pth",
                dict(
                    state_dict=model.state_dict(),
                    optimizer=optimizer.state_dict(),
                    scheduler=scheduler.state_dict(),
                    losses=losses,
                    **about,
                    backbone=cfg.backbone,
                    num_classes=data.num_train_pids,
                    config=cfg.to_dict(),
                ),
            )
    finally:
        progress.stop()
        vars(model).pop("forward", None)  # scores are computed in float32
    return losses


def _engine(
    model: ReIDModel, optimizer: torch.optim.Optimizer, scheduler: LambdaLR, data: ImageDataManager, cfg: Config
):
    arguments = dict(scheduler=scheduler, use_gpu=torch.cuda.is_available(), label_smooth=cfg.label_smooth)
    if cfg.model.loss == "softmax":
        return SoftmaxEngine(data, model, optimizer, **arguments)
    try:
        return TripletEngine(data, model, optimizer, **cfg.triplet.to_dict(), **arguments)
    except (AssertionError, TypeError) as error:
        raise InputError(
            f"triplet {cfg.triplet.to_dict()}: expected margin, weight_t and weight_x, of which the "
            f"weights are not negative nor both zero ({error})"
        ) from error


def learning_rate_factor(epoch: int, cfg: Config) -> float:
    """What the learning rate is multiplied with in ``epoch``, counted from 0.

    A linear warm-up from a tenth over ``warmup_epochs``; then half a cosine to zero (schedule
    ``cosine``), or ``step_factor`` for every ``step_epochs`` that have passed (``step``).
    """
    if epoch < cfg.warmup_epochs:
        return 0.1 + 0.9 * epoch / cfg.warmup_epochs
    passed = epoch - cfg.warmup_epochs
    if cfg.schedule == "step":
        return cfg.step_factor ** (passed // cfg.step_epochs)
    return 0.5 * (1 + math.cos(math.pi * passed / max(1, cfg.epochs - cfg.warmup_epochs)))


def build_optimizer(model: ReIDModel, cfg: Config) -> torch.optim.Optimizer:
    """The optimizer of torch.optim that the config names.

    Raises:
        InputError: there is none of that name, or it does not take these arguments.
    """
    options = cfg.optimizer.to_dict()
    kind = getattr(torch.optim, options.pop("type"), None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise InputError(f"expected an optimizer of torch.optim, found {cfg.optimizer.type!r}")
    try:
        return kind([p for p in model.parameters() if p.requires_grad], **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer {cfg.optimizer.type}: {error}") from error
