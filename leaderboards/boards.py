"""The boards: which task runs them, what their tables show.

Columns follow the tables of the DCP-NAS paper: 10 (CIFAR-10), 11 (ImageNet), 12 (re-ID), 13 (VOC)
and 14 (COCO), table 3 of CP-NAS (CIFAR-10's costs by its rule), and table 5 of BNAS (faces).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onebit.commons.datasets import BOARDS, DATASETS, FOLDER, Dataset, get_dataset
from onebit.commons.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True)
class Printed:
    """The table of a paper that a board repeats.

    Attributes:
        paper: key of :data:`onebit.leaderboards.reported.CITATIONS`.
        table: its number there.
        group: the part of the table that is this board's; None for all of it.
        metrics: column of :func:`onebit.leaderboards.reported.load` to the board's metric key;
            ``test_error`` becomes ``1 - top1``.
        epochs: what the paper trains for; None where no recipe of ours says it.
        input_shape: (channels, height, width) that the paper's costs and scores are for; None where
            it does not say.
        quantization: whether its rows are told apart by backbone and quantization.
        costs: number of another table of the paper that has memory and operations of its rows.
        convention: the counting rule of its costs, where it is one that we know by the paper's name.
    """

    paper: str
    table: str
    group: str | None
    metrics: dict[str, str]
    epochs: int | None
    input_shape: tuple[int, int, int] | None
    quantization: bool = False
    costs: str | None = None
    convention: str | None = None


@dataclass(frozen=True)
class Board:
    """One leaderboard.

    Attributes:
        name: as typed and as its folder of records is called.
        task: the room whose runner trains its rows.
        metrics: metric key to the header of the printed table; the first one ranks the rows.
        paper_convention: the counting rule of the paper's table, shown beside ``strict``.
        printed: the paper's table; None where no paper here reports on the dataset.
        layout: columns of the table for people, keys of :data:`onebit.leaderboards.showing.sheet.COLUMNS` and
            metric keys, in the paper's order; what the paper does not print comes last.
        further: another paper's table of the same dataset, reported after ``printed``.
    """

    name: str
    task: str
    metrics: dict[str, str]
    paper_convention: str
    printed: Printed | None
    layout: tuple[str, ...]
    further: Printed | None = None


_DETECTION_VOC = {"map_area": "mAP area", "map_11pt": "mAP 11-pt"}
_DETECTION_COCO = {k: k for k in ("AP", "AP50", "AP75", "APs", "APm", "APl")}
_REID = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10"}
_FACE = {
    "accuracy_lfw": "LFW",
    "accuracy_cfp": "CFP-FP",
    "accuracy_agedb": "AgeDB-30",
    **{
        f"tar_{name}_far_1e-3": f"{title} TAR@1e-3"
        for name, title in (("lfw", "LFW"), ("cfp", "CFP-FP"), ("agedb", "AgeDB-30"))
    },
}
_CLASSIFICATION = {"top1": "top-1", "top5": "top-5"}

_METRICS = {
    "voc": _DETECTION_VOC,
    "coco": _DETECTION_COCO,
    "market1501": _REID,
    "dukemtmcreid": _REID,
    "cuhk03": _REID,
    "msmt17": _REID,
    "face": _FACE,
    "cifar10": _CLASSIFICATION,
    "cifar100": _CLASSIFICATION,
    "imagenet": _CLASSIFICATION,
    FOLDER: _CLASSIFICATION,
}

_MAP_AND_RANK1 = {"map": "mAP", "rank1": "rank1"}


def _reid(group: str) -> Printed:
    return Printed("dcp-nas", "12", group, _MAP_AND_RANK1, 120, (3, 256, 128), quantization=True)


_PRINTED = {
    "voc": Printed("dcp-nas", "13", None, {"map": "map_area"}, 12, (3, 600, 1000), quantization=True),
    "coco": Printed(
        "dcp-nas",
        "14",
        None,
        {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_s": "APs", "ap_m": "APm", "ap_l": "APl"},
        12,
        (3, 800, 1333),
        quantization=True,
    ),
    "market1501": _reid("Market-1501"),
    "dukemtmcreid": _reid("DukeMTMC-reID"),
    "cuhk03": _reid("CUHK03"),
    "cifar10": Printed("dcp-nas", "10", None, {"test_error": "top1"}, 600, (3, 32, 32)),
    "imagenet": Printed("dcp-nas", "11", None, {"top1": "top1", "top5": "top5"}, 512, (3, 224, 224)),
    # Neither epochs nor input size are printed.
    "face": Printed("bnas", "5", None, {m: m for m in _FACE if m.startswith("accuracy")}, None, None),
}

#: CP-NAS counts memory by a rule of its own (docs/cost.md): its Table 3, of the nets of its Table 1.
_FURTHER = {
    "cifar10": Printed("cp-nas", "1", None, {"test_error": "top1"}, 600, (3, 32, 32), costs="3", convention="cp-nas")
}

_MBIT = ("memory_strict", "memory_paper")
_OPS = ("ops_strict", "ops_paper")
_SEARCH = ("search_cost", "search_method")
_OURS = ("untrained", "recipe", "epochs", "seeds", "source")
_REID_LAYOUT = ("backbone", "quantization", "wa", *_REID, "search_method", *_MBIT, *_OPS, *_OURS)
_IMAGES = ("backbone", "top1", "top5", "params", *_MBIT, *_OPS, "wa", *_SEARCH, *_OURS)
_LAYOUTS = {
    "cifar10": ("backbone", "error", "params", *_MBIT, "memory_cp-nas", *_OPS, "ops_cp-nas", "wa", *_SEARCH, *_OURS),
    "cifar100": _IMAGES,
    "imagenet": _IMAGES,
    FOLDER: _IMAGES,
    "voc": ("backbone", "quantization", "wa", *_DETECTION_VOC, *_MBIT, *_OPS, "search_method", *_OURS),
    "coco": ("backbone", "quantization", "wa", *_DETECTION_COCO, "search_method", *_MBIT, *_OPS, *_OURS),
    "market1501": _REID_LAYOUT,
    "dukemtmcreid": _REID_LAYOUT,
    "cuhk03": _REID_LAYOUT,
    "msmt17": _REID_LAYOUT,
    "face": (
        "backbone",
        *(m for m in _FACE if m.startswith("accuracy")),
        "params",
        "wa",
        *_SEARCH,
        *(m for m in _FACE if not m.startswith("accuracy")),
        *_MBIT,
        *_OPS,
        *_OURS,
    ),
}


def _task(board: str) -> str:
    return "classification" if board == FOLDER else DATASETS[board].task


ALL: dict[str, Board] = {
    name: Board(
        name,
        _task(name),
        _METRICS[name],
        "mmdet-legacy" if _task(name) == "detection" else "dcp-nas",
        _PRINTED.get(name),
        _LAYOUTS[name],
        _FURTHER.get(name),
    )
    for name in BOARDS
}

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


def default_recipe(dataset: Dataset) -> str:
    """``mini`` for a mini dataset, ``small`` for development data, ``paper`` for the real one.

    The face board has recipes of its own, ``face`` and ``mini-face``.
    """
    if dataset.board == "face":
        return dataset.name
    if dataset.mini:
        return "mini"
    return "paper" if dataset.name in ALL else "small"


def default_backbones(dataset: Dataset) -> tuple[str, ...]:
    """The rows `onebit bench` runs on ``dataset`` when none are named."""
    if dataset.name in ALL:
        return DEFAULT_BACKBONES
    return NARROW_REID if dataset.task == "reid" and dataset.mini else NARROW_BACKBONES


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


def runner(task: str) -> ModuleType:
    """Import the runner of a task; heavy, so only when a row is run."""
    import importlib

    return importlib.import_module(f"onebit.{task}.runner")
