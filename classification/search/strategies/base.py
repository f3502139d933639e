"""What every method of search is: a module whose state dict is all that a checkpoint needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pydantic.dataclasses
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from onebit.classification.search.options import STRICT, read_options
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.supernet import Supernet
from onebit.commons import guards
from onebit.commons.errors import InputError

OPTIMIZERS = ("sgd", "adam")
#: Images [N, 3, H, W] and labels [N].
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Schedule:
    """How the weights of supernets are trained.

    CP-NAS, section 3.1, and DARTS: SGD, a cosine from 0.025 to 0, momentum 0.9, weight decay 5e-4. DCP-NAS, section
    4.1.2, has the same numbers and "Adam with momentum".

    Attributes:
        epochs: passes over the training half; some methods have a number of their own.
        lr, min_lr: learning rate of the first epoch, and what a cosine lowers it to.
        momentum, weight_decay: of the weights. Adam's momentum is its first beta, the second is 0.999; its weight
            decay is part of the gradient, as that of SGD.
        optimizer: of the weights, ``sgd`` or ``adam``.
        gradient_clip: largest norm of the gradient of the weights; 0 clips nothing. (DARTS: 5.)
    """

    epochs: int = 105
    lr: float = 0.025
    min_lr: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    gradient_clip: float = 5.0
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        guards.whole("search schedule, epochs", self.epochs)
        for name in ("lr", "min_lr", "momentum", "weight_decay", "gradient_clip"):
            guards.number(f"search schedule, {name}", getattr(self, name), 0)
        guards.choice("search schedule, optimizer", self.optimizer, OPTIMIZERS)
        if self.optimizer == "adam":
            guards.number("search schedule, momentum of Adam,", self.momentum, 0, below=1)

    def lr_of(self, index: int, epochs: int) -> float:
        """The learning rate of epoch ``index`` of ``epochs``, from 0."""
        share = (1 + math.cos(math.pi * min(index, epochs) / epochs)) / 2
        return self.min_lr + (self.lr - self.min_lr) * share


@dataclass
class SearchData:
    """The three parts of the data; each can be iterated anew any number of times.

    Attributes:
        train: batches for weights.
        valid: batches for architecture parameters.
        evaluation: batches that performances are measured on.
    """

    train: Iterable[Batch]
    valid: Iterable[Batch]
    evaluation: Iterable[Batch]


class Report:
    """What a strategy tells, and asks of, whoever runs it. This one does nothing.

    Attributes:
        scaler: of the loss for half-precision gradients, None without.
    """

    scaler: Any = None

    def __call__(self, losses: Mapping[str, Tensor], images: int) -> None:
        """After each step: its losses by name, scalars, and how many images it took."""

    def autocast(self) -> AbstractContextManager:
        """The precision in which a forward pass runs."""
        return nullcontext()


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class NoOptions:
    """Of a method without options."""


class Strategy(nn.Module):
    """A method of search.

    Parameters and buffers (weights, architecture parameters, counts, masks, scores) and the states
    of :meth:`optimizers` are its whole state between two epochs. All randomness is drawn from
    torch's global generator, so that a seeded epoch can be repeated exactly.

    Args:
        space: what is searched.
        options: an ``Options`` of the class, or a mapping that :func:`onebit.classification.search.options.read_options` understands.
        schedule: of the weights.

    Attributes:
        name: by which a user asks for it.
        Options: its options, a frozen dataclass.
        derivation: how its paper makes a discrete cell, see :meth:`onebit.backbones.Genotype.derive`.
        epochs: how many epochs the method takes in all.
        least_epochs: after how many of them it has judged every operation, so that a cell can be derived.
        planned: how many it will take, all of them unless a budget of time allows fewer; schedules end there.
        searched: name of the supernet whose cell is searched; CP-NAS and DCP-NAS have another beside it.

    Raises:
        InputError: unknown options, or values out of range.
    """

    name: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    derivation: ClassVar[Literal["top2", "all14"]] = "top2"
    searched: ClassVar[str] = "supernet"

    def __init__(
        self, space: SearchSpace, options: Mapping[str, Any] | Any = None, schedule: Schedule | None = None
    ) -> None:
        super().__init__()
        self.space = space
        given = {} if options is None else options
        self.options = given if isinstance(given, self.Options) else read_options(self.name, self.Options, given)
        self.schedule = Schedule() if schedule is None else schedule
        self._optimizers: dict[str, Optimizer] = {}
        self._most = math.inf

    @property
    def epochs(self) -> int:
        return self.schedule.epochs

    @property
    def least_epochs(self) -> int:
        return 1

    @property
    def planned(self) -> int:
        return int(min(self.epochs, self._most))

    def plan(self, epochs: int) -> None:
        """Let the search end after so many epochs; it may be called between any two of them."""
        self._most = epochs

    def parts(self) -> tuple[str, ...]:
        """The parts of the data, see :class:`SearchData`, without which it cannot run."""
        return ("train", "valid")

    def epoch(self, index: int, data: SearchData, report: Report) -> None:
        """Epoch ``index``, from 0, in place."""
        raise NotImplementedError

    def scores(self) -> Tensor:
        """[2, 14, M]; larger is better, also between the edges of a node."""
        raise NotImplementedError

    def measures(self) -> dict[str, float]:
        """Of the search so far, what :mod:`onebit.classification.search.diagnosis` judges: ``alpha_entropy``, as a share
        of the largest, and ``tangent_share``, of DCP-NAS's tangent term, as far as the method has them."""
        return {}

    def optimizers(self) -> dict[str, Optimizer]:
        """Every optimizer by name; their state dicts belong to a checkpoint."""
        return self._optimizers

    # What the methods are made of.

    def weight_optimizer(self, name: str, supernet: nn.Module) -> Optimizer:
        """The optimizer of the weights of ``supernet``, kept under ``name``; see :class:`Schedule`."""
        schedule = self.schedule
        common = dict(lr=schedule.lr, weight_decay=schedule.weight_decay)
        optimizer: Optimizer
        if schedule.optimizer == "adam":
            optimizer = torch.optim.Adam(supernet.parameters(), betas=(schedule.momentum, 0.999), **common)
        else:
            optimizer = torch.optim.SGD(supernet.parameters(), momentum=schedule.momentum, **common)
        self._optimizers[name] = optimizer
        return optimizer

    def set_learning_rate(self, index: int, *names: str) -> None:
        """The cosine's learning rate of epoch ``index`` for the optimizers ``names``."""
        for name in names:
            for group in self._optimizers[name].param_groups:
                group["lr"] = self.schedule.lr_of(index, self.planned)

    def weight_step(
        self,
        supernet: nn.Module,
        optimizer: Optimizer,
        loss: Callable[[], Tensor],
        report: Report,
        add_gradient: Callable[[], None] | None = None,
    ) -> Tensor:
        """One step of the weights of ``supernet`` down ``loss()``; returns the loss.

        Gradients are averaged over processes where there are several, then clipped.

        Args:
            add_gradient: adds a penalty's gradient to the clipped one. The gradient of a penalty on
                all weights is long; clipped together, hardly anything would be left of the loss's.
        """
        optimizer.zero_grad(set_to_none=True)
        with report.autocast():
            value = loss()
        scaler = report.scaler
        (value if scaler is None else scaler.scale(value)).backward()
        gradients = [p.grad for p in supernet.parameters() if p.grad is not None]
        average_over_processes(gradients)
        if scaler is not None:
            scaler.unscale_(optimizer)
        if self.schedule.gradient_clip and gradients:
            nn.utils.clip_grad_norm_(supernet.parameters(), self.schedule.gradient_clip)
        if add_gradient is not None:
            add_gradient()
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        return value.detach()

    def evaluate(self, supernet: Supernet, batches: Iterable[Batch], **path: Any) -> float:
        """Accuracy, from 0 to 1, of ``supernet`` on ``batches``; ``path`` as its forward takes it.

        Batch norms use the statistics of each batch.
        """
        counts = torch.zeros(2, dtype=torch.float64)
        with torch.no_grad():
            for images, labels in batches:
                predicted = supernet(images, **path).argmax(1)
                counts += torch.tensor([(predicted == labels).sum().item(), len(labels)])
        counts = counts.to(next(self.parameters()).device)
        average_over_processes([counts])
        if not counts[1]:
            raise InputError("search: expected at least one batch to evaluate on, found none")
        return (counts[0] / counts[1]).item()


def gradient(loss: Tensor, parameters: list[Tensor], report: Report, **options: Any) -> tuple[Tensor, ...]:
    """Of ``loss`` to ``parameters``, averaged over processes; the loss is scaled meanwhile."""
    scale = 1.0 if report.scaler is None else report.scaler.get_scale()
    gradients = torch.autograd.grad(loss * scale if scale != 1 else loss, parameters, **options)
    if scale != 1:
        gradients = tuple(each / scale for each in gradients)
    if options.get("create_graph"):
        return gradients
    average_over_processes(gradients)
    return gradients


def usable(gradients: Iterable[Tensor], report: Report) -> bool:
    """False where float16 has overflowed; that step is left out, as GradScaler does with weights.

    Without a scaler everything is usable: a loss that is not finite is an error then.
    """
    return report.scaler is None or all(bool(each.isfinite().all()) for each in gradients)


def average_over_processes(tensors: Iterable[Tensor]) -> None:
    """Average each tensor, in place, over the processes of a data-parallel run."""
    distributed = torch.distributed
    tensors = list(tensors)
    if not tensors or not (distributed.is_available() and distributed.is_initialized()):
        return
    if distributed.get_world_size() == 1:
        return
    flat = torch.cat([each.reshape(-1) for each in tensors])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for each in tensors:
        each.copy_(flat[start : start + each.numel()].view_as(each))
        start += each.numel()


def paired(train: Iterable[Batch], valid: Iterable[Batch]) -> Iterator[tuple[Batch, Batch]]:
    """Every training batch with a validation batch, these from the start again when they end."""

    def endless() -> Iterator[Batch]:
        while True:  # itertools.cycle would keep every batch in memory
            yield from valid

    return zip(train, endless(), strict=False)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """In single precision, whatever the forward pass ran in."""
    return F.cross_entropy(logits.float() if logits.dtype != torch.float64 else logits, labels)
