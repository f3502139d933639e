"""Search for a cell with mmengine's Runner.

The Runner brings checkpoints, log, TensorBoard and resuming; the loop in it hands each epoch to the
strategy, which trains as its paper says and tells the loop of every step.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import asdict

from mmengine.config import Config
from mmengine.dist import get_world_size

from onebit.classification.search.config import build_config
from onebit.classification.search.job import SearchJob
from onebit.classification.search.loop import SearchModel
from onebit.classification.search.result import SearchOutcome
from onebit.commons.datasets import get_dataset
from onebit.commons.distributed import unwrapped
from onebit.commons.engine import build_runner, config_text, plain_errors
from onebit.commons.errors import InputError


def check(job: SearchJob) -> None:
    """Find what is wrong with a job before any image is read or anything written.

    Raises:
        InputError: unknown method, dataset, preset or option, a value out of range, a dataset that
            is missing; a work folder with another search's checkpoints.
    """
    dataset = get_dataset(job.dataset, "classification")
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    strategy = SearchModel(**{key: value for key, value in cfg.model.items() if key != "type"}).strategy
    if without := [part for part in strategy.parts() if not cfg.train_dataloader[part]]:
        raise InputError(f"data.{without[0]} 0: {job.method} needs a share above 0")
    if job.work_dir.exists() and not job.work_dir.is_dir():
        raise InputError(f"--work-dir {job.work_dir} is not a folder")
    if not job.resume and any(job.work_dir.glob("epoch_*.pth")):
        raise InputError(
            f"{job.work_dir} holds the checkpoints of an earlier search: add --resume to go on, or "
            f"name another --work-dir"
        )


def search(job: SearchJob) -> SearchOutcome:
    """Search, and derive the cell.

    A search that was killed at any moment and is resumed ends with the same cell, bit for bit on a
    CPU: every epoch starts from the last checkpoint and a random state that follows from (seed,
    epoch).

    Raises:
        InputError: see :func:`check`; resume with other options or an unreadable checkpoint.
        WorkError: the loss is not finite, or the disk is full.
    """
    check(job)
    dataset = get_dataset(job.dataset, "classification")
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    with plain_errors(job.work_dir):
        checksum = dataset.checksum(job.data_root)
        row = dict(row_of(job), data=checksum)
        runner = build_runner(cfg, row, work_dir=job.work_dir, resume=job.resume)
        model = unwrapped(runner.model)
        runner.train()
        dataset.require_unchanged(job.data_root, checksum)
        strategy = model.strategy
        return SearchOutcome.of(
            job,
            options=asdict(strategy.options),
            history=model.history[: runner.epoch].cpu(),
            epochs_of_method=strategy.epochs,
            operations=tuple(cfg.model.space.operations),
            derivation=cfg.derivation.to_dict(),
            supernet=getattr(strategy, strategy.searched).about,
            measures=strategy.measures(),
            processes=get_world_size(),
            data_checksum=checksum,
            config_sha256=config_hash(cfg),
            wall_seconds=float(model.seconds),
            images_seen=int(model.images_seen),
            peak_memory_bytes=int(model.peak_memory_bytes),
        )


def config_hash(cfg: Config) -> str:
    """SHA-256 of a config that :func:`build_config` made, less seed and folders."""
    same = copy.deepcopy(cfg)
    for part in (same.train_cfg, same.train_dataloader):
        del part["seed"]
    return hashlib.sha256(config_text(same).encode()).hexdigest()


def row_of(job: SearchJob) -> dict:
    """What a checkpoint says of itself."""
    return dict(
        task="search",
        dataset=job.dataset,
        backbone=job.method,
        recipe=job.preset,
        seed=job.seed,
        options=dict(job.options),
        cfg_options=dict(job.cfg_options),
    )
