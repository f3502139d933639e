"""The parts that make mmengine's Runner run a search: model, optimizers, loop and hooks.

Several processes (``torchrun``) search together: each works on its share of every batch, and the
strategy averages gradients over them. All draw the same random numbers, so that all sample the same
architectures; whatever could come to differ between them is made the first process's.
"""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.dist import all_reduce, broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS, LOOPS, MODEL_WRAPPERS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed
from torch import Tensor, nn

from onebit.backbones.cells.score_history import CELLS, EDGES
from onebit.backbones.conv import set_progress
from onebit.classification.search.data import SearchData
from onebit.classification.search.decoupling import Decoupling
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies import Report, Schedule, get_strategy
from onebit.classification.search.supernet import Supernet
from onebit.commons.compat import grad_scaler
from onebit.commons.distributed import unwrapped
from onebit.commons.engine import ProgressHook
from onebit.commons.engine_hooks import epoch_seed
from onebit.commons.errors import InputError
from onebit.commons.progress import Progress

_SCALER = "grad_scaler"


@MODELS.register_module(force=True)
class SearchModel(BaseModel):
    """A strategy, and what a checkpoint has to keep besides.

    Attributes:
        strategy: the :class:`onebit.classification.search.strategies.base.Strategy`.
        history: [epochs, 2, 14, operations], the scores after each epoch; NaN for those to come.
        images_seen: images of training and validation that were put through a network.
        seconds: spent in epochs that were finished.
        peak_memory_bytes: of the GPU's memory; without GPU, of the process's resident memory.
        epoch_seconds: [epochs], of each; NaN for those to come.
        planned: how many epochs a budget allows; 0 where nothing is planned.

    Raises:
        InputError: options that the method does not have.
    """

    def __init__(self, method: str, space: dict, schedule: dict, options: dict) -> None:
        super().__init__()
        space = SearchSpace(**space)
        self.strategy = get_strategy(method)(space, options, Schedule(**schedule))
        history = torch.full((self.strategy.epochs, *space.shape), torch.nan, dtype=torch.float64)
        self.register_buffer("history", history)
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seconds", torch.zeros((), dtype=torch.float64))
        self.register_buffer("peak_memory_bytes", torch.zeros((), dtype=torch.int64))
        self.register_buffer("epoch_seconds", torch.full((self.strategy.epochs,), torch.nan, dtype=torch.float64))
        self.register_buffer("planned", torch.zeros((), dtype=torch.int64))

    def forward(self, *_, **__):
        """Not used: the strategy calls its networks itself."""
        raise NotImplementedError("a search has no forward pass of its own")


@MODEL_WRAPPERS.register_module(force=True)
class Replica(nn.Module):
    """One process's copy of the model; it begins equal to the first process's."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        copy_from_first_process(module.state_dict().values())


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class StrategyOptimizers:
    """Show mmengine the optimizers that the strategy has made, so that checkpoints keep them."""

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        pass

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        optimizers = unwrapped(model).strategy.optimizers()
        return OptimWrapperDict(**{name: OptimWrapper(o) for name, o in optimizers.items()})


def copy_from_first_process(tensors) -> None:
    """Overwrite ``tensors`` with the first process's."""
    if get_world_size() > 1:
        for tensor in tensors:
            broadcast(tensor.data)


class StepReport(Report):
    """Passes on what a strategy tells; see :class:`onebit.classification.search.strategies.Report`."""

    def __init__(self, loop: SearchLoop, device: torch.device, amp: str | None) -> None:
        self._loop = loop
        self._device = device
        self._dtype = getattr(torch, amp) if amp else None
        self.scaler = grad_scaler(device.type) if amp == "float16" else None

    def __call__(self, losses: Mapping[str, Tensor], images: int) -> None:
        self._loop.step(losses, images)

    def autocast(self) -> contextlib.AbstractContextManager:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._dtype)


@LOOPS.register_module(force=True)
class SearchLoop(EpochBasedTrainLoop):
    """Epochs of a strategy; what it reports is an iteration to mmengine's hooks.

    Args:
        dataloader: arguments of :class:`onebit.classification.search.data.SearchData`.
        seed: of the search.
        amp: ``bfloat16`` or ``float16``; None computes in float32.
        budget: seconds that the epochs may take, see :meth:`_plan`; None for no limit.

    Raises:
        InputError: float16 in several processes, which would disagree about steps to skip.
    """

    def __init__(
        self, runner: Runner, dataloader: dict, seed: int, amp: str | None = None, budget: float | None = None
    ) -> None:
        if amp == "float16" and get_world_size() > 1:
            raise InputError("amp float16: in several processes, expected bfloat16 or None")
        self.model = unwrapped(runner.model)
        self.strategy = self.model.strategy
        device = self.model.images_seen.device
        self.data = SearchData(**dataloader).to(device)
        self.data.require(self.strategy.parts())
        self.data.evaluation.before = self._synchronize
        super().__init__(runner, self.data.train.loader, max_epochs=self.strategy.epochs)
        self.report = StepReport(self, device, amp)
        self._seed = seed
        self._budget = budget
        self._on_gpu = device.type == "cuda"
        self._own_state = own_state(self.strategy)
        forget_peak_memory(self._on_gpu)

    def run(self) -> nn.Module:
        if self.model.planned:  # by the checkpoint that it goes on from
            self._end_after(int(self.model.planned))
        return super().run()

    def run_epoch(self) -> None:
        self.runner.call_hook("before_train_epoch")
        # The same in every process: all must sample the same architectures.
        set_random_seed(epoch_seed(self._seed, self._epoch))
        self.model.train()
        set_progress(self.model, self._epoch / self._max_epochs)
        self.losses: dict[str, tuple[float, int]] = {}
        self._step_in_epoch = 0
        start = time.perf_counter()
        self.runner.call_hook("before_train_iter", batch_idx=0)
        self.strategy.epoch(self._epoch, self.data, self.report)
        self._synchronize()
        seconds = time.perf_counter() - start
        self.model.seconds += seconds
        self.model.epoch_seconds[self._epoch] = seconds
        self.model.peak_memory_bytes.clamp_(min=peak_memory_bytes(self._on_gpu))
        self.model.history[self._epoch] = self.strategy.scores().detach()
        if self._budget is not None:
            self._plan()
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _plan(self) -> None:
        """How many epochs the budget allows, by the longest of the last three.

        The plan is made anew after every epoch: its length may change, as where PC-DARTS begins to move alpha.

        Raises:
            InputError: the search would end before it has judged every operation.
        """
        done = self._epoch + 1
        longest = float(self.model.epoch_seconds[max(0, done - 3) : done].max())
        left = max(0.0, self._budget - float(self.model.seconds))
        self.model.planned.fill_(min(self.strategy.epochs, done + int(left / longest)))
        copy_from_first_process([self.model.planned])  # whose clock counts
        planned, least = int(self.model.planned), self.strategy.least_epochs
        if planned < least:
            raise InputError(
                f"budget of {self._budget:g} s: {self.strategy.name} has judged every operation after {least} epochs, "
                f"and epochs take up to {longest:.3g} s; expected at least {least * longest:.0f} s"
            )
        self._end_after(planned)

    def _end_after(self, epochs: int) -> None:
        self._max_epochs = epochs
        self.strategy.plan(epochs)

    def step(self, losses: Mapping[str, Tensor], images: int) -> None:
        """Take note of one step; see :class:`Report`."""
        # Stacked where they are: each by itself would wait for the device.
        values = torch.stack([loss.double() for loss in losses.values()]).cpu()
        all_reduce(values, op="mean")  # so that all processes stop at a loss that is not finite
        named = dict(zip(losses, values.tolist(), strict=True))
        for name, value in named.items():
            total, count = self.losses.get(name, (0.0, 0))
            self.losses[name] = (total + value, count + 1)
        copy_from_first_process(self._own_state)
        self.model.images_seen += images * get_world_size()
        self.runner.call_hook(
            "after_train_iter",
            batch_idx=self._step_in_epoch,
            data_batch=None,
            outputs={**named, "loss": float(values.sum())},
        )
        self._iter += 1
        self._step_in_epoch += 1
        self.runner.call_hook("before_train_iter", batch_idx=self._step_in_epoch)

    def mean_losses(self) -> dict[str, float]:
        """Of the epoch so far, by the names that the strategy gives."""
        return {name: total / count for name, (total, count) in self.losses.items()}

    def _synchronize(self) -> None:
        copy_from_first_process(self.model.state_dict().values())


def own_state(strategy: nn.Module) -> list[Tensor]:
    """Scores, counts and the like: what a strategy holds outside its networks."""
    networks = [m for m in strategy.modules() if isinstance(m, Supernet)]
    theirs = {id(t) for network in networks for t in (*network.parameters(), *network.buffers())}
    everything = (*strategy.parameters(), *strategy.buffers())
    return [tensor for tensor in everything if id(tensor) not in theirs]


def architecture(strategy: nn.Module) -> dict[str, Tensor]:
    """Architecture parameters by name: [2, 14, M] of operations, [2, 14] of edges.

    ``alpha``, ``child_alpha``, ``beta``, as far as the method has them, and psi~ of its decoupled
    optimizations.
    """
    networks = [m for m in strategy.modules() if isinstance(m, Supernet)]
    weights = {id(p) for network in networks for p in network.parameters()}
    found = {n: p.detach() for n, p in strategy.named_parameters() if id(p) not in weights}
    for name, module in strategy.named_modules():
        if isinstance(module, Decoupling):
            found[f"{name}.psi"] = module.psi.flatten(1)
    return found


def by_edge(name: str, values: Tensor, operations: Sequence[str]) -> dict[str, float]:
    """``values`` [2, 14, M] or [2, 14] as scalars ``NAME_CELL/EDGE/OPERATION``."""
    found = {}
    for cell, edges in zip(CELLS, values.tolist(), strict=True):
        for edge, value in zip(EDGES, edges, strict=True):
            where = f"{name}_{cell}/{edge}"
            if isinstance(value, list):
                found |= {f"{where}/{o}": v for o, v in zip(operations, value, strict=True)}
            else:
                found[where] = value
    return found


def forget_peak_memory(on_gpu: bool) -> None:
    """Let :func:`peak_memory_bytes` count from now: other searches of this process are not ours.

    On systems other than Linux, and where the kernel does not allow it, the process's peak cannot be
    forgotten.
    """
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(on_gpu: bool) -> int:
    """The most that was in use at once: of the GPU's memory, or of the process's."""
    if on_gpu:
        return torch.cuda.max_memory_allocated()
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024
    except (OSError, TypeError):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024


@HOOKS.register_module(force=True)
class SearchStateHook(Hook):
    """Scores, architecture parameters and mean losses of every epoch to TensorBoard.

    And the scaler's state to checkpoints.
    """

    def after_train_epoch(self, runner: Runner) -> None:
        loop = runner.train_loop
        scalars = {f"epoch/{name}": value for name, value in loop.mean_losses().items()}
        shown = {"scores": loop.model.history[runner.epoch], **architecture(loop.strategy)}
        for name, values in shown.items():
            scalars |= by_edge(name, values, loop.strategy.space.operations)
        runner.visualizer.add_scalars(scalars, step=runner.epoch + 1)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if scaler := runner.train_loop.report.scaler:
            checkpoint[_SCALER] = scaler.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if state := checkpoint.get(_SCALER):  # a resumed search has the same precision
            runner.train_loop.report.scaler.load_state_dict(state)


@HOOKS.register_module(force=True)
class SearchProgressHook(ProgressHook):
    """Epochs and steps with the time left.

    How many steps an epoch has only the strategy knows: a step advances the bar by its share of the
    epoch before, and the end of the epoch by what is left of it.
    """

    def before_train(self, runner: Runner) -> None:
        self._length = len(runner.train_dataloader)  # of an epoch on the bar
        self._steps, self._steps_before, self._shown = 0, self._length, 0.0
        self.progress = Progress(self.description, total=runner.max_epochs * self._length)
        self.progress.start(completed=runner.epoch * self._length)

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._steps += 1
        share = min(self._length / max(self._steps_before, 1), self._length - self._shown)
        self._shown += share
        note = f"epoch {runner.epoch + 1}/{runner.max_epochs} loss {outputs['loss']:.3f}"
        self.progress.advance(share, note=note)

    def after_train_epoch(self, runner: Runner) -> None:
        self.progress.expect(runner.max_epochs * self._length)
        self.progress.advance(self._length - self._shown)
        self._steps_before, self._steps, self._shown = self._steps, 0, 0.0
