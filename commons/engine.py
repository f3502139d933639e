"""mmengine's Runner made quiet, resumable and reproducible; used by classification and detection.

The log goes to a file in the work folder, the terminal gets one progress bar, a checkpoint is
written whole or not at all, and every epoch starts from a random state that follows from (seed,
epoch) alone, so that a resumed run ends where an uninterrupted one does.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import logging
import threading
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

from onebit.commons.compat import ensure_torchvision

ensure_torchvision()  # mmengine.runner imports torchvision

# ruff: isort: split
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import OPTIMIZERS
from mmengine.runner import CheckpointLoader, Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import nn
from torch.utils.data import DataLoader

from onebit.commons import acceleration, distributed, guards
from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.checkpoints import (
    ROW,
    latest_checkpoint,
    load_row,
    load_weights,
    read_foreign_checkpoint,
    resumable_checkpoint,
)
from onebit.commons.distributed import JointBatchNorms, Parallel, share_of_batch
from onebit.commons.engine_hooks import FiniteLossHook, ProgressHook
from onebit.commons.errors import InputError, OnebitError, WorkError
from onebit.commons.files import disk_error_message, write_atomic
from onebit.commons.progress import Progress

__all__ = [
    "CHECKPOINT_HOOK",
    "ROW",
    "AtomicBackend",
    "FiniteLossHook",
    "QuietRunner",
    "build_runner",
    "config_errors",
    "config_text",
    "latest_checkpoint",
    "load_row",
    "load_weights",
    "loss_curve",
    "plain_errors",
    "read_foreign_checkpoint",
    "score",
]

#: Checkpoint settings every recipe shares. Two are kept because mmengine removes the oldest
#: BEFORE it writes the newest: with one, a kill in between would leave none.
CHECKPOINT_HOOK = dict(type="CheckpointHook", interval=1, max_keep_ckpts=2, backend_args=dict(backend="atomic"))

#: Config keys that name this machine or this call, not the run.
_MACHINE_KEYS = ("work_dir", "data_root", "resume", "load_from", "randomness")
#: Texts of configs by what they were before yapf laid them out, which takes seconds.
_LAID_OUT: dict[str, str] = {}
#: Runs of this process; mmengine keeps logger and loss history under a name, which must be unique.
_RUN_COUNTER = itertools.count()


def _read_url(url: str, model_dir: str | None = None, **_) -> Any:
    """Read a checkpoint after downloading it into torch's cache, where it stays."""
    folder = Path(model_dir or Path(torch.hub.get_dir()) / "checkpoints")
    path = folder / Path(urlparse(url).path).name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    return read_checkpoint(path)


# What a config names (`load_from`, `init_cfg` of type Pretrained) is a file of others, too. mmengine
# reads it as torch does by default, which before torch 2.6 was to execute it.
CheckpointLoader.register_scheme("", lambda path, map_location: read_checkpoint(Path(path).expanduser()), force=True)
mmengine_checkpoint.load_url = _read_url


@register_backend("atomic", force=True)
class AtomicBackend(LocalBackend):
    """A local file backend whose files are complete or absent."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomic(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        write_atomic(filepath, obj.encode(encoding))


class QuietRunner(Runner):
    """A Runner whose log goes to ``<work_dir>/train.log``; the terminal gets errors only."""

    _train_loop: Any  # mmengine's own, each a config until it is built
    optim_wrapper: Any
    param_schedulers: Any
    _lr_is_scaled = False

    def build_parts(self) -> None:
        """Build data, loop, optimizer and schedulers now; :meth:`train` would do so only later.

        Raises:
            InputError: the config does not fit them.
        """
        optimizer = self.cfg.optim_wrapper.get("optimizer", {}).get("type")
        if isinstance(optimizer, str) and OPTIMIZERS.get(optimizer) is None:
            raise InputError(f"the config does not fit: unknown optimizer {optimizer!r}")
        with config_errors():
            self._train_loop = self.build_train_loop(self._train_loop)
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
            self.scale_lr(self.optim_wrapper, self.auto_scale_lr)  # before the schedulers note the rate
            self._lr_is_scaled = True
            if self.param_schedulers is not None:
                self.param_schedulers = self.build_param_scheduler(self.param_schedulers)

    def scale_lr(self, optim_wrapper, auto_scale_lr: dict | None = None) -> None:
        if not self._lr_is_scaled:
            super().scale_lr(optim_wrapper, auto_scale_lr)

    def build_optim_wrapper(self, optim_wrapper):
        mixed = isinstance(optim_wrapper, dict) and optim_wrapper.get("type") == "AmpOptimWrapper"
        if mixed and get_device() == "cpu":  # mmengine's wants a GPU
            optim_wrapper = dict(optim_wrapper, type="CpuAmpOptimWrapper")
        return super().build_optim_wrapper(optim_wrapper)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        self._joint_norms = None
        if not self.distributed or model_wrapper_cfg is not None:
            return super().wrap_model(model_wrapper_cfg, model)
        model = model.to(get_device())
        self._joint_norms = JointBatchNorms(model) if self.cfg.get("sync_bn", True) else None
        return Parallel(model, find_unused_parameters=self.cfg.get("find_unused_parameters", False))

    def load_or_resume(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # mmengine prints which file it loads
            super().load_or_resume()

    def train(self) -> nn.Module:
        try:
            with _no_tracebacks_of_writer_threads():
                model = super().train()
            if self.distributed:
                barrier()  # the first process has written the last checkpoint
                if self._joint_norms:
                    self._joint_norms.undo()
            return model
        finally:  # also after an error or an interrupt: the bar must let go of the terminal
            for hook in self.hooks:
                if isinstance(hook, ProgressHook):
                    hook.close()

    def build_logger(self, log_level="INFO", log_file=None, **kwargs) -> MMLogger:
        logger = super().build_logger(log_level, log_file=str(Path(self.work_dir) / "train.log"), **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                vars(handler)["handleError"] = _raise_logging_error
            else:
                handler.setLevel(logging.ERROR)
        return logger


def _raise_logging_error(record: logging.LogRecord) -> None:
    """`logging` prints a traceback for each line it cannot write to a full disk, and goes on."""
    raise  # the error that `logging` is handling


@contextlib.contextmanager
def _no_tracebacks_of_writer_threads() -> Iterator[None]:
    """TensorBoard writes in a thread, whose OSError its next call in this thread raises again.

    Without this, Python would print the thread's traceback besides.
    """
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not issubclass(arguments.exc_type, OSError):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """Turn what building objects from a config raises into one InputError."""
    try:
        yield
    except OnebitError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError, AssertionError) as error:
        # The text of a KeyError is its argument in quotes.
        text = error.args[0] if error.args and isinstance(error.args[0], str) else repr(error)
        raise InputError(f"the config does not fit: {' '.join(text.split())[:300]}") from error


@contextlib.contextmanager
def plain_errors(work_dir: str | Path) -> Iterator[None]:
    """Give errors of loader processes and of a full disk their one-line form.

    Raises:
        WorkError: in place of an OSError, which is its cause.
    """
    try:
        yield
    except InputError as error:
        # A DataLoader's worker wraps the message in its traceback.
        message = str(error).strip()
        if message.startswith("Caught InputError in DataLoader worker"):
            raise InputError(message.rsplit("InputError: ", 1)[1]) from error
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise WorkError(f"out of GPU memory: {str(error).splitlines()[0]}") from error
    except OSError as error:
        path = error.filename or work_dir
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkError(disk_error_message(error, path)) from error
        raise WorkError(f"could not read or write {path}: {error.strerror or error}") from error


def build_runner(
    cfg: Config, row: dict, *, work_dir: str | Path, resume: bool, epochs_before: int = 0, defer_losses: bool = False
) -> Runner:
    """Build mmengine's Runner from ``cfg`` with the suite's standing rules applied.

    Below ``torchrun`` it trains data-parallel. ``train_dataloader.batch_size`` is that of all
    processes together, and batch norms take their statistics over all of it (``sync_bn=False``:
    over each process's share), so that a config means the same training however many processes
    there are. Random augmentation is drawn by every process for its share, from (seed, epoch,
    rank): it is another sample of the same distribution. Only the first process writes.

    Args:
        cfg: a complete mmengine config; its hooks are kept. ``find_unused_parameters=True`` lets
            parameters go without gradient in some steps of data-parallel training.
        row: what the checkpoints belong to: ``dataset``, ``backbone``, ``recipe``, ``seed`` (the
            only source of randomness), ``cfg_options``, and what a task needs besides to rebuild
            its model; plain values.
        work_dir: where checkpoints, log and config go.
        resume: load the latest checkpoint in ``work_dir``, if any, and go on.
        epochs_before: of trainings that this one continues: its epochs draw other random numbers.
        defer_losses: on a GPU, see :class:`onebit.commons.engine_hooks.DeferredLossesHook`; no hook of the config may
            need the losses of every step then.

    Raises:
        InputError: ``resume`` with a checkpoint in ``work_dir`` that another config wrote or that
            cannot be read; a config that does not fit what it configures.
        WorkError: ``work_dir`` cannot be written.
    """
    parallel = distributed.join()
    work_dir = Path(work_dir)
    # A copy, and anonymous: the Runner would dump a config that has a file name a second time. It
    # puts the config's text into every checkpoint; laying it out by yapf can take seconds each time.
    cfg = Config(cfg.to_dict(), format_python_code=False)
    cfg.work_dir = str(work_dir)
    # On a GPU some operators of detection have no deterministic form and would raise.
    cfg.randomness = dict(seed=row["seed"], deterministic=not torch.cuda.is_available())
    seeds = dict(first=epochs_before) if epochs_before else {}
    for key, kind, what in (("custom_hooks", list, "a list of hooks"), ("default_hooks", dict, "hooks by name")):
        if not isinstance(cfg.get(key, kind()), kind):
            raise InputError(f"the config does not fit: {key} {guards.shown(cfg[key])}: expected {what}")
    cfg.custom_hooks = [
        *cfg.get("custom_hooks", []),
        dict(type="EpochSeedHook", seed=row["seed"], **seeds),
        dict(type="RowHook", row=row),
        dict(type="FiniteLossHook"),
        dict(type=cfg.pop("progress_hook", "ProgressHook"), description=row["backbone"]),
    ]
    if cfg.get("optim_wrapper", {}).get("accumulative_counts", 1) != 1:
        cfg.custom_hooks.append(dict(type="WholeEpochsHook"))
    cfg.default_hooks = {**cfg.get("default_hooks", {}), "checkpoint": CHECKPOINT_HOOK}
    cfg.setdefault("visualizer", dict(type="Visualizer", vis_backends=[dict(type="TensorboardVisBackend")]))
    dumped = work_dir / "config.py"
    checkpoint = resumable_checkpoint(work_dir) if resume else None
    if checkpoint:
        _require_row(checkpoint, row)
    text = config_text(cfg)
    if checkpoint and dumped.exists() and dumped.read_text() != text:
        raise InputError(
            f"cannot resume: {dumped} differs from the config asked for; "
            f"use another --work-dir or train without --resume"
        )
    if is_main_process():
        if not resume:
            for stale in (*work_dir.glob("epoch_*.pth"), work_dir / "train.log"):
                stale.unlink(missing_ok=True)
        write_atomic(dumped, text)
    barrier()  # all have looked for the checkpoint before the first process may write another
    if "dataset" in cfg.get("train_dataloader", {}):  # a search builds its loaders itself
        cfg.train_dataloader.setdefault("worker_init_fn", dict(type="keep_worker_seed"))
        if torch.cuda.is_available():
            cfg.train_dataloader.setdefault("pin_memory", True)
    if parallel:
        cfg.launcher = "pytorch"
        cfg.custom_hooks.append(dict(type="JointLossHook"))
        cfg.train_dataloader.batch_size = share_of_batch(cfg.train_dataloader.batch_size)
    if defer_losses and torch.cuda.is_available():
        cfg.custom_hooks.append(dict(type="DeferredLossesHook"))
    cfg.resume = checkpoint is not None
    cfg.load_from = str(checkpoint) if checkpoint else cfg.get("load_from")
    cfg.experiment_name = f"{row['backbone']}_{next(_RUN_COUNTER)}"
    compiling = acceleration.take(cfg)
    with config_errors():
        runner = QuietRunner.from_cfg(cfg)
    runner.build_parts()
    if compiling:
        acceleration.compile_network(cast(nn.Module, distributed.unwrapped(runner.model).backbone), compiling)
    return runner


def _require_row(checkpoint: Path, row: dict) -> None:
    """Raise InputError where ``checkpoint`` cannot be read or belongs to another row."""
    found, _ = load_row(checkpoint)
    other = sorted(key for key in {*found, *row} if found.get(key) != row.get(key))
    if other:
        differences = ", ".join(f"{k} {found.get(k)!r} and not {row.get(k)!r}" for k in other)
        raise InputError(
            f"cannot resume: {checkpoint} was trained with {differences}; "
            f"use another --work-dir or train without --resume"
        )


def config_text(cfg: Config) -> str:
    """The config as text, less what names this machine: the same run gives the same text."""
    content = _portable(cfg.to_dict())
    plain = Config(content, format_python_code=False).pretty_text
    if plain not in _LAID_OUT:
        _LAID_OUT[plain] = Config(content).pretty_text
    return _LAID_OUT[plain]


def _portable(value):
    if isinstance(value, dict):
        return {k: _portable(v) for k, v in value.items() if k not in _MACHINE_KEYS}
    if isinstance(value, list | tuple):
        return type(value)(_portable(v) for v in value)
    return value


def score(model: nn.Module, dataloader: DataLoader, evaluator: Evaluator, description: str) -> dict[str, float]:
    """Run ``model`` over ``dataloader`` in eval mode and return the evaluator's metrics."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), Progress(description, total=len(dataloader)) as progress:
            for metric in evaluator.metrics:
                metric.collect_device = "gpu"  # through the backend, not through files in the cwd
            for batch in dataloader:
                samples = cast(BaseModel, model).test_step(batch)
                evaluator.process(data_samples=samples, data_batch=batch)
                progress.advance()
            return evaluator.evaluate(len(cast(Sized, dataloader.dataset)))
    finally:
        model.train(training)


def loss_curve(runner: Runner) -> list[float]:
    """Mean training loss of every epoch, those before a resume included.

    mmengine keeps the losses of the last million iterations: of a longer training these are the last
    whole epochs.
    """
    values, _ = runner.message_hub.get_scalar("train/loss").data
    per_epoch = len(runner.train_dataloader)
    return [
        float(values[start : start + per_epoch].mean())
        for start in range(len(values) % per_epoch, len(values), per_epoch)
    ]
