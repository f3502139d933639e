"""What a dataset is: one value that every room asks, and no other place that knows it by name."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.files import dataset_checksum

TASKS = ("classification", "detection", "reid")
#: Published data; data to develop with, on which no published number is; data that a program draws.
KINDS = ("real", "development", "drawn")
#: The metrics of a task, key to header of a table; the first ranks the rows.
METRICS: Mapping[str, Mapping[str, str]] = {
    "classification": {"top1": "top-1", "top5": "top-5"},
    "detection": {k: k for k in ("AP", "AP50", "AP75", "APs", "APm", "APl")},
    "reid": {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10"},
}
#: Sides in pixels up to which images of one size are held in memory.
SMALL_SIDE = 64
IMAGENET_STATISTICS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
#: The recipe that a kind of data is trained by where nothing else is said.
_RECIPES = {"real": "paper", "development": "small", "drawn": "mini"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*(?:-[A-Za-z0-9_.]+)*")


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
        note: what every row of it has to be read with.
        search_method: of all of its rows; None where a row's name tells it.
        detector: of detection, that of all of its rows.
    """

    paper: str
    table: str
    group: str | None
    metrics: Mapping[str, str]
    epochs: int | None
    input_shape: tuple[int, int, int] | None
    quantization: bool = False
    costs: str | None = None
    convention: str | None = None
    note: str | None = None
    search_method: str | None = None
    detector: str | None = None


@dataclass(frozen=True)
class Dataset:
    """One dataset as it lies on disk, and everything that the suite knows about it.

    Attributes:
        name: what the user types and the record says.
        task: one of :data:`TASKS`.
        folders: folders below the data root that may hold it, first found wins.
        required: files and folders that must exist below that folder; a file may lie there as ``NAME.gz``
            where ``gzipped``.
        how_to_get: one sentence for somebody who lacks it.
        reader: how its files are read. A word names a layout that the task knows. For other files it is a
            function, or where that is defined (``package.module:function``), which is imported when the
            dataset is read: see ``docs/adding-a-dataset.md`` for what each task asks of it.
        split: which images are trained on and scored; empty where the folder tells. Re-identification fills
            in ``{protocol}`` and ``{boxes}`` where a recipe leaves a choice.
        protocol: of re-identification, how it is scored: ``market``, ``cuhk03``, or ``pairs``; of detection
            the same in words.
        kind: one of :data:`KINDS`.
        board: the leaderboard its rows belong to; empty for one of its own.
        title: how it is called in a heading; empty for its name.
        metrics: metric key to the header of a table, the first ranks the rows; empty for the task's.
        columns: of the table for people, in the paper's order; empty for the task's.
        printed: the tables of papers that its board repeats, the most important first.
        recipe: what its rows are trained by unless another is named; empty for that of its kind.
        draw: of drawn data: a function that writes it into a folder, or where that is defined
            (``package.module:function``).
        known_checksum: what :meth:`checksum` must be.
        gzipped: whether its reader takes files as ``NAME.gz`` too.
        image_size: of classification, height and width in pixels of images that are small enough to be held
            in memory; None for images that are read as the batches come.
        gray: whether a reader's images have one channel, which networks get three times.
        statistics: mean and deviation of the channels of images in memory or streamed, on the scale 0 to 255.
        stem: ``cifar`` or ``imagenet``; empty for the one that suits images in memory, or streamed ones.
        classes: their names, in the order of the labels; needed where ``reader`` is a function.
        scored_on_training: whether the scored images are the ones that are trained on.

    Raises:
        InputError: no name, task or kind that there can be.
    """

    name: str
    task: str
    folders: tuple[str, ...]
    required: tuple[str, ...]
    how_to_get: str
    reader: str | Callable[..., Any] = "folder"
    split: str = "train -> test"
    protocol: str = ""
    kind: str = "real"
    board: str = ""
    title: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    printed: tuple[Printed, ...] = ()
    recipe: str = ""
    draw: str | Callable[[Path], None] | None = None
    known_checksum: str | None = None
    gzipped: bool = False
    image_size: int | None = None
    gray: bool = False
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET_STATISTICS
    stem: str = ""
    classes: tuple[str, ...] = ()
    scored_on_training: bool = False

    def __post_init__(self) -> None:
        for name in (self.name, self.board or self.name):
            if not is_name(name):
                raise InputError(
                    f"dataset {name!r}: expected a name of at most 48 letters, digits, dots, underscores and single hyphens"
                )
        guards.choice(f"dataset {self.name}: task", self.task, TASKS)
        guards.choice(f"dataset {self.name}: kind", self.kind, KINDS)
        own_reader = callable(self.reader) or ":" in self.reader
        if self.task == "classification" and own_reader and not (self.classes and self.image_size):
            raise InputError(f"dataset {self.name}: its reader needs the fields classes and image_size beside it")
        for name, default in (
            ("board", self.name),
            ("title", self.name),
            ("metrics", METRICS[self.task]),
            ("recipe", _RECIPES[self.kind]),
        ):
            object.__setattr__(self, name, getattr(self, name) or default)

    def variant(self, name: str, kind: str, folders: tuple[str, ...], how_to_get: str, **changes: Any) -> Dataset:
        """Other data of the same task and form, whose rows stand on the same board."""
        own = dict(name=name, title=name, kind=kind, recipe="", known_checksum=None)
        return replace(self, folders=folders, how_to_get=how_to_get, **{**own, **changes})

    def mini(self, draw: str | Callable[[Path], None], **changes: Any) -> Dataset:
        """What `onebit data mini` draws in its place, in its format on disk."""
        name = f"mini-{self.name}"
        how_to_get = f"Draw it with `onebit data mini DIR --only {name}` and pass `--data DIR`."
        return self.variant(name, "drawn", (name,), how_to_get, draw=draw, **changes)

    @property
    def main_metric(self) -> str:
        """The metric that ranks rows."""
        return next(iter(self.metrics))

    def is_there(self, data_root: str | os.PathLike) -> bool:
        """Whether any of it lies below ``data_root``; it may still be incomplete."""
        return any(self._present(Path(data_root) / f / self.required[0]) for f in self.folders)

    def _present(self, path: Path) -> Path | None:
        """A required file or folder as it lies there."""
        choices = (path, path.with_name(f"{path.name}.gz")) if self.gzipped else (path,)
        return next((p for p in choices if p.exists()), None)

    def find(self, data_root: str | os.PathLike) -> Path:
        """Return the folder that holds the dataset below ``data_root``.

        Raises:
            InputError: it is missing or incomplete; the message names the expected path.
        """
        data_root = Path(data_root)
        present = [data_root / f for f in self.folders if self._present(data_root / f / self.required[0])]
        if not present:
            expected = " or ".join(str(data_root / f / self.required[0]) for f in self.folders)
            raise InputError(f"dataset {self.name} not found: expected {expected}. {self.how_to_get}")
        for relative in self.required:
            if not self._present(present[0] / relative):
                raise InputError(
                    f"dataset {self.name} is incomplete: expected {present[0] / relative}. {self.how_to_get}"
                )
        return present[0]

    def checksum(self, data_root: str | os.PathLike, cached: bool = True) -> str:
        """What identifies the data; see :func:`onebit.commons.files.dataset_checksum`."""
        return self.checksum_of(self.find(data_root), cached)

    def require_unchanged(self, data_root: str | os.PathLike, checksum: str) -> None:
        """Refuse data that are no longer what a training began with.

        Raises:
            InputError: they have another checksum now.
        """
        now = self.checksum(data_root)
        if now != checksum:
            raise InputError(
                f"{self.name} below {data_root} was changed while a training used it: {checksum[:24]}... when it "
                f"began, {now[:24]}... now; train again with other work folders"
            )

    def checksum_of(self, folder: Path, cached: bool = True) -> str:
        """The same of the folder that :meth:`find` gives."""
        return dataset_checksum([p for r in self.required if (p := self._present(folder / r))], folder, cached)


@dataclass(frozen=True)
class ImageFolder(Dataset):
    """Any folder of images below the data root: ``train/<class>/*`` and ``val/`` or ``test/`` alike."""

    def find(self, data_root: str | os.PathLike) -> Path:
        """Return the folder.

        Raises:
            InputError: it or its ``train/`` is missing, or there is not exactly one of ``val/`` and
                ``test/``.
        """
        folder = super().find(data_root)
        scored = [name for name in SCORED if (folder / name).is_dir()]
        if len(scored) != 1:
            found = " and ".join(f"{name}/" for name in scored) or "neither"
            raise InputError(f"dataset {self.name}: expected val/ or test/ in {folder}, found {found}")
        return folder

    def checksum_of(self, folder: Path, cached: bool = True) -> str:
        """Over ``train/`` and what is scored."""
        parts = [folder / name for name in ("train", *SCORED) if (folder / name).is_dir()]
        return dataset_checksum(parts, folder, cached)


#: Where the scored images of an :class:`ImageFolder` may lie.
SCORED = ("val", "test")


def is_name(text: str) -> bool:
    """Whether a dataset can be called so: its name is a part of the names of records."""
    return len(text) <= 48 and _NAME.fullmatch(text) is not None


def resolve_code(named: str | Callable[..., Any] | None) -> Any:
    """The object that a dataset's field names as ``package.module:name``; any other value as it is.

    Only for fields of registered datasets, which are code: never for what a file says.
    """
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(":")
    return getattr(importlib.import_module(module), name)
