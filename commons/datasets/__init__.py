"""Which datasets there are: the suite's own, and those that other packages register.

`dataset` says what a dataset is; `classification`, `detection` and `reid` hold ours. All of it is data
only: importing it costs nothing, so `onebit doctor` and every error message can use it. Reading a
dataset is its task's business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from onebit.commons import guards, plugins
from onebit.commons.datasets import classification, detection, reid
from onebit.commons.datasets.classification import OWN_FOLDER
from onebit.commons.datasets.dataset import (
    KINDS,
    METRICS,
    SMALL_SIDE,
    TASKS,
    Dataset,
    ImageFolder,
    Printed,
    is_name,
    resolve_code,
)
from onebit.commons.datasets.own import OWN_BOXES, OwnBoxes, is_named, own_boxes, pictures
from onebit.commons.datasets.own.pictures import OWN_PEOPLE, OwnPictures
from onebit.commons.errors import InputError

__all__ = [
    "DATASETS",
    "FOLDER",
    "KINDS",
    "METRICS",
    "OWN",
    "OWN_BOXES",
    "OWN_FOLDER",
    "OWN_PEOPLE",
    "SMALL_SIDE",
    "TASKS",
    "Dataset",
    "ImageFolder",
    "OwnBoxes",
    "OwnPictures",
    "Printed",
    "default_data_root",
    "get_dataset",
    "is_name",
    "register_dataset",
    "resolve_code",
]

#: The board of every :class:`ImageFolder`, and what their names begin with: ``folder-pets``.
FOLDER = OWN_FOLDER.board
#: What stands for all data of people's own on the board of each kind.
OWN = {dataset.board: dataset for dataset in (OWN_FOLDER, OWN_BOXES, OWN_PEOPLE)}


class _Datasets(Mapping[str, Dataset]):
    """The registered datasets by name, those of other people's packages too.

    Attributes:
        registered: those that are known by now; looking at them imports no package.
    """

    def __init__(self) -> None:
        self.registered: dict[str, Dataset] = {}

    def __getitem__(self, name: str) -> Dataset:
        if name not in self.registered:
            plugins.load()
        return self.registered[name]

    def __iter__(self) -> Iterator[str]:
        plugins.load()
        return iter(tuple(self.registered))

    def __len__(self) -> int:
        return sum(1 for _ in self)


DATASETS = _Datasets()


def register_dataset(dataset: Dataset) -> Dataset:
    """Make a dataset known to every command: its rows have a board, its board has a table.

    Raises:
        InputError: the name is taken, or the dataset stands on a board of another task, or on one that
            no dataset is named after.
    """
    known = DATASETS.registered
    if dataset.name in known or dataset.name.partition("-")[0] in OWN:
        raise InputError(f"the name of dataset {dataset.name} is taken")
    main = known.get(dataset.board)
    if dataset.board != dataset.name and (main is None or main.board != main.name or main.task != dataset.task):
        raise InputError(f"dataset {dataset.name}: there is no board {dataset.board} of {dataset.task}")
    plugins.note_registrant(dataset)
    known[dataset.name] = dataset
    return dataset


for _dataset in (*detection.ALL, *reid.ALL, *classification.ALL):
    register_dataset(_dataset)


def get_dataset(name: str, task: str | None = None) -> Dataset:
    """Look a dataset up by name.

    ``folder-NAME`` is the folder NAME below the data root; ``coco:LABELS.json``, ``voc:FOLDER`` and
    ``yolo:data.yaml`` are labels of one's own (:mod:`onebit.commons.datasets.own`), which are read, and so are
    ``reid:PLACE`` and ``folder:PLACE`` (:mod:`onebit.commons.datasets.own.pictures`).

    Raises:
        InputError: unknown, or of another task than ``task``; the message lists near matches.
        WorkError: labels cannot be written in the suite's form below the cache folder.
    """
    if is_named(name):
        if task not in (None, OWN_BOXES.task):
            raise InputError(f"dataset {name} is for {OWN_BOXES.task}, not for {task}")
        return own_boxes(name)
    if pictures.is_named(name):
        found = pictures.own_pictures(name)
        if task not in (None, found.task):
            raise InputError(f"dataset {name} is for {found.task}, not for {task}")
        return found
    if name.startswith(f"{FOLDER}-") and task in (None, OWN_FOLDER.task):
        folder = name.removeprefix(f"{FOLDER}-")
        if not is_name(folder):
            raise InputError(
                f"dataset {name!r}: expected {FOLDER}-NAME with a folder NAME below the data root, of "
                "letters, digits, dots, underscores and single hyphens"
            )
        return replace(OWN_FOLDER, name=name, title=name, folders=(folder,))
    if name in DATASETS and task not in (None, DATASETS[name].task):
        raise InputError(f"dataset {name} is for {DATASETS[name].task}, not for {task}")
    if name not in DATASETS:
        guards.known("dataset", name, [d.name for d in DATASETS.values() if task in (None, d.task)])
    return DATASETS[name]


def default_data_root() -> Path:
    """``$ONEBIT_DATA``, else ``./data``."""
    return Path(os.environ.get("ONEBIT_DATA") or "data")
