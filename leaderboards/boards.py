"""The boards: one for every dataset that rows can be compared on, and what its table shows.

Columns follow the tables of the DCP-NAS paper: 10 (CIFAR-10), 11 (ImageNet), 12 (re-ID), 13 (VOC)
and 14 (COCO), table 3 of CP-NAS (CIFAR-10's costs by its rule), and table 5 of BNAS (faces).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebit.commons.datasets import DATASETS, OWN, Dataset, Printed, get_dataset
from onebit.commons.errors import InputError

if TYPE_CHECKING:
    from onebit.commons.task import Task

_COSTS = ("memory_strict", "memory_paper", "ops_strict", "ops_paper")
_OURS = ("untrained", "recipe", "epochs", "seeds", "source")


@dataclass(frozen=True)
class Board:
    """One leaderboard; :func:`_board` makes it from the dataset that it is named after.

    Attributes:
        name: as typed and as its folder of records is called.
        title: how its dataset is called.
        task: the room whose runner trains its rows.
        metrics: metric key to the header of the printed table; the first one ranks the rows.
        paper_convention: the counting rule of the paper's table, shown beside ``strict``.
        printed: the paper's table; None where no paper here reports on the dataset.
        layout: columns of the table for people, keys of :data:`onebit.leaderboards.showing.layout.COLUMNS` and
            metric keys, in the paper's order; what the paper does not print comes last.
        further: other tables of the same dataset, reported after ``printed``.
    """

    name: str
    title: str
    task: str
    metrics: Mapping[str, str]
    paper_convention: str
    printed: Printed | None
    layout: tuple[str, ...]
    further: tuple[Printed, ...] = ()


def paper_convention(task: str) -> str:
    """The counting rule of the papers' tables of a task."""
    return "mmdet-legacy" if task == "detection" else "dcp-nas"


def _board(dataset: Dataset) -> Board:
    if dataset.task == "classification":
        rest = ("params", *_COSTS, "wa", "search_cost", "search_method")
        layout = ("backbone", *dataset.metrics, *rest, *_OURS)
    else:
        name = ("backbone", "detector") if dataset.task == "detection" else ("backbone",)
        layout = (*name, "quantization", "wa", *dataset.metrics, "search_method", *_COSTS, *_OURS)
    return Board(
        name=dataset.name,
        title=dataset.title,
        task=dataset.task,
        metrics=dataset.metrics,
        paper_convention=paper_convention(dataset.task),
        printed=next(iter(dataset.printed), None),
        layout=dataset.columns or layout,
        further=dataset.printed[1:],
    )


class _Boards(Mapping[str, Board]):
    """The boards by name, of every registered dataset that its board is named after."""

    def __getitem__(self, name: str) -> Board:
        dataset = OWN.get(name) or DATASETS[name]
        if dataset.board != dataset.name:
            raise KeyError(name)
        return _board(dataset)

    def __iter__(self) -> Iterator[str]:
        return iter((*(d.name for d in DATASETS.values() if d.board == d.name), *OWN))

    def __len__(self) -> int:
        return sum(1 for _ in self)


ALL: Mapping[str, Board] = _Boards()

#: What `onebit bench` runs when `--backbones` is not given: the real-valued net, the three
#: hand-made 1-bit nets and the searched cell of the papers' tables.
DEFAULT_BACKBONES = ("resnet18", "resnet18_xnor", "resnet18_bireal", "resnet18_reactnet", "dcp_nas_s")
#: The same in widths that two CPU cores can train, for every dataset that is not a paper's own.
NARROW_BACKBONES = ("resnet18_w16", "resnet18_w16_xnor", "resnet18_w16_bireal", "resnet18_w16_reactnet", "dcp_nas_c8")
#: Eight for the mini re-ID boards; about six minutes of one core each board.
NARROW_REID = (
    "resnet18_w16",
    "resnet34_w16",
    "resnet18_w16_xnor",
    "resnet18_w16_bireal",
    "resnet18_w16_reactnet",
    "resnet34_w16_reactnet",
    "dcp_nas_c8",
    "dcp_nas_c8_l6",
)


def default_backbones(dataset: Dataset) -> tuple[str, ...]:
    """The rows `onebit bench` runs on ``dataset`` when none are named."""
    if dataset.kind == "drawn":
        return NARROW_REID if dataset.task == "reid" else NARROW_BACKBONES
    return NARROW_BACKBONES if dataset.recipe == "small" else DEFAULT_BACKBONES


def default_preset(dataset: Dataset) -> str:
    """How large a search on ``dataset`` is when nothing else is asked for."""
    return dataset.recipe if dataset.recipe in ("paper", "mini") else "small"


def resolve(board: str, dataset: str | None = None) -> tuple[Board, Dataset | None]:
    """Turn what the user typed into a board and, when it was given, a dataset.

    ``board`` may be a board (``voc``) or a dataset that belongs to one (``mini-voc``, ``coco128``).

    Raises:
        InputError: unknown name, or a dataset of another board.
    """
    if board in ALL:
        found = get_dataset(dataset) if dataset else None
        if found and found.board != board:
            raise InputError(f"dataset {found.name} belongs to board {found.board}, not to {board}")
        return ALL[board], found
    found = get_dataset(board)
    if dataset not in (None, board):
        raise InputError(f"{board} is a dataset itself; --dataset {dataset} contradicts it")
    return ALL[found.board], found


def runner(task: str) -> Task:
    """Import a task, one of :data:`onebit.commons.task.TASKS`; heavy, so only when it is needed."""
    return importlib.import_module(f"onebit.{task}.task")
