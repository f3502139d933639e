"""mmengine's Runner made quiet, resumable and reproducible; used by classification and detection.

The log goes to a file in the work folder, the terminal gets one progress bar, a checkpoint is
written whole or not at all, and every epoch starts from a random state that follows from (seed,
epoch) alone, so that a resumed run ends where an uninterrupted one does.
"""

from __future__ import annotations

import copy
import logging
import math
import re
from pathlib import Path

from commons.compat import allow_mmengine_checkpoints, ensure_torchvision

ensure_torchvision()  # mmengine.runner imports torchvision

# ruff: isort: split
from mmengine.config import Config
from mmengine.dist import get_rank, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from mmengine.runner import Runner, set_random_seed

from commons.errors import InputError, WorkError
from commons.files import write_atomic
from commons.progress import Progress

#: Checkpoint settings every recipe shares. Two are kept because mmengine removes the oldest
#: BEFORE it writes the newest: with one, a kill in between would leave none.
CHECKPOINT_HOOK = dict(
    type="CheckpointHook", interval=1, max_keep_ckpts=2, backend_args=dict(backend="atomic")
)


@register_backend("atomic", force=True)
class AtomicBackend(LocalBackend):
    """A local file backend whose files are complete or absent."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomic(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        write_atomic(filepath, obj.encode(encoding))


@HOOKS.register_module(force=True)
class EpochSeedHook(Hook):
    """Reseed every generator at the start of each epoch from (seed, epoch, rank)."""

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Runner) -> None:
        # A large odd stride keeps the epochs of neighbouring seeds apart.
        set_random_seed((self.seed * 1_000_003 + runner.epoch * 1009 + get_rank()) % 2**32)


@HOOKS.register_module(force=True)
class FiniteLossHook(Hook):
    """Stop at the first loss that is not a number.

    The checkpoints written so far stay: they are the last good state.
    """

    priority = "HIGH"

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        loss = float((outputs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            last = latest_checkpoint(runner.work_dir)
            raise WorkError(
                f"the loss is {loss} in epoch {runner.epoch + 1}, iteration {runner.iter + 1}; "
                f"last good checkpoint: {last or 'none'}"
            )


@HOOKS.register_module(force=True)
class ProgressHook(Hook):
    """Show epochs and iterations with the time left."""

    def __init__(self, description: str = "training") -> None:
        self.description = description

    def before_train(self, runner: Runner) -> None:
        self.progress = Progress(self.description, total=runner.max_iters)
        self.progress.start(completed=runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        loss = float((outputs or {}).get("loss", 0.0))
        self.progress.advance(note=f"epoch {runner.epoch + 1}/{runner.max_epochs} loss {loss:.3f}")

    def after_train(self, runner: Runner) -> None:
        self.progress.stop()


class QuietRunner(Runner):
    """A Runner whose log goes to ``<work_dir>/train.log``; the terminal gets errors only."""

    def build_logger(self, log_level="INFO", log_file=None, **kwargs) -> MMLogger:
        logger = super().build_logger(
            log_level, log_file=str(Path(self.work_dir) / "train.log"), **kwargs
        )
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.setLevel(logging.ERROR)
        return logger


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint with the highest epoch in ``work_dir``; all of them are complete files."""
    found = {
        int(m[1]): p
        for p in Path(work_dir).glob("epoch_*.pth")
        if (m := re.fullmatch(r"epoch_(\d+)", p.stem))
    }
    return found[max(found)] if found else None


def build_runner(
    cfg: Config, *, work_dir: str | Path, seed: int, resume: bool, description: str
) -> Runner:
    """Build mmengine's Runner from ``cfg`` with the suite's standing rules applied.

    Args:
        cfg: a complete mmengine config; its hooks are kept.
        work_dir: where checkpoints, log and config go.
        seed: the only source of randomness.
        resume: load the latest checkpoint in ``work_dir``, if any, and go on.
        description: what the progress bar says, e.g. the backbone's name.

    Raises:
        InputError: ``resume`` with a checkpoint in ``work_dir`` that another config wrote.
    """
    allow_mmengine_checkpoints()
    work_dir = Path(work_dir)
    cfg = cfg.copy()
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=seed, deterministic=True)
    cfg.custom_hooks = [
        *cfg.get("custom_hooks", []),
        dict(type="EpochSeedHook", seed=seed),
        dict(type="FiniteLossHook"),
        dict(type="ProgressHook", description=description),
    ]
    cfg.default_hooks = {**cfg.get("default_hooks", {}), "checkpoint": CHECKPOINT_HOOK}
    text = config_text(cfg)
    dumped = work_dir / "config.py"
    checkpoint = latest_checkpoint(work_dir) if resume else None
    if checkpoint and dumped.exists() and dumped.read_text() != text:
        raise InputError(
            f"cannot resume: {dumped} differs from the config asked for; "
            f"use another --work-dir or train without --resume"
        )
    if not resume:
        for stale in work_dir.glob("epoch_*.pth"):
            stale.unlink()
    if is_main_process():
        write_atomic(dumped, text)
    cfg.resume = checkpoint is not None
    cfg.load_from = str(checkpoint) if checkpoint else cfg.get("load_from")
    return QuietRunner.from_cfg(cfg)


def config_text(cfg: Config) -> str:
    """The config as text, less what names this machine: the same run gives the same text."""
    portable = copy.deepcopy(cfg)
    for key in ("work_dir", "resume", "load_from"):
        portable.pop(key, None)
    _drop_data_root(portable._cfg_dict)
    return portable.pretty_text


def _drop_data_root(node) -> None:
    """Datasets and metrics keep theirs deep inside a config."""
    if isinstance(node, dict):
        node.pop("data_root", None)
        node = node.values()
    if not isinstance(node, str) and hasattr(node, "__iter__"):
        for child in node:
            _drop_data_root(child)
