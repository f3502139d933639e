"""Which datasets exist, on which board they are scored, where they are expected, how to get them.

The table is data only: importing it costs nothing, so `onebit doctor` and every error message can
use it. Reading a dataset is its task's business.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from onebit.commons.errors import InputError
from onebit.commons.files import dataset_checksum


@dataclass(frozen=True)
class Dataset:
    """One dataset as it lies on disk.

    Attributes:
        name: what the user types and the record says.
        board: the leaderboard its rows belong to.
        task: ``classification``, ``detection`` or ``reid``.
        folders: folders below the data root that may hold it, first found wins.
        required: files and folders that must exist below that folder.
        how_to_get: one sentence for somebody who lacks it.
        mini: drawn by ``onebit data mini``.
    """

    name: str
    board: str
    task: str
    folders: tuple[str, ...]
    required: tuple[str, ...]
    how_to_get: str
    mini: bool = False

    def is_there(self, data_root: str | os.PathLike) -> bool:
        """Whether any of it lies below ``data_root``; it may still be incomplete."""
        return any((Path(data_root) / f / self.required[0]).exists() for f in self.folders)

    def find(self, data_root: str | os.PathLike) -> Path:
        """Return the folder that holds the dataset below ``data_root``.

        Raises:
            InputError: it is missing or incomplete; the message names the expected path.
        """
        data_root = Path(data_root)
        present = [data_root / f for f in self.folders if (data_root / f / self.required[0]).exists()]
        if not present:
            expected = " or ".join(str(data_root / f / self.required[0]) for f in self.folders)
            raise InputError(f"dataset {self.name} not found: expected {expected}. {self.how_to_get}")
        for relative in self.required:
            if not (present[0] / relative).exists():
                raise InputError(
                    f"dataset {self.name} is incomplete: expected {present[0] / relative}. {self.how_to_get}"
                )
        return present[0]

    def checksum(self, data_root: str | os.PathLike, cached: bool = True) -> str:
        """What identifies the data; see :func:`onebit.commons.files.dataset_checksum`."""
        folder = self.find(data_root)
        return dataset_checksum([folder / r for r in self.required], folder, cached)


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

    def checksum(self, data_root: str | os.PathLike, cached: bool = True) -> str:
        """Over ``train/`` and what is scored."""
        folder = self.find(data_root)
        parts = [folder / name for name in ("train", *SCORED) if (folder / name).is_dir()]
        return dataset_checksum(parts, folder, cached)


#: Where the scored images of an :class:`ImageFolder` may lie.
SCORED = ("val", "test")
#: The board of every :class:`ImageFolder`, and what their names begin with: ``folder-pets``.
FOLDER = "folder"
# Names of datasets become parts of the names of records.
_FOLDER_NAME = re.compile(rf"{FOLDER}-([A-Za-z0-9][A-Za-z0-9_.]*(?:-[A-Za-z0-9_.]+)*)")


_VOC = (
    "VOCdevkit/VOC2007/Annotations",
    "VOCdevkit/VOC2007/JPEGImages",
    "VOCdevkit/VOC2007/ImageSets/Main",
    "VOCdevkit/VOC2012/Annotations",
    "VOCdevkit/VOC2012/JPEGImages",
    "VOCdevkit/VOC2012/ImageSets/Main",
)
_COCO = ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017", "val2017")
_MARKET = tuple(
    f"market1501/Market-1501-v15.09.15/{part}" for part in ("bounding_box_train", "query", "bounding_box_test")
)
_DUKE = tuple(f"dukemtmc-reid/DukeMTMC-reID/{part}" for part in ("bounding_box_train", "query", "bounding_box_test"))
_CUHK = (
    "cuhk03/cuhk03_release/cuhk-03.mat",
    "cuhk03/cuhk03_new_protocol_config_detected.mat",
    "cuhk03/cuhk03_new_protocol_config_labeled.mat",
)
_MSMT = tuple(
    f"msmt17/MSMT17_V1/{part}"
    for part in ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt", "train", "test")
)
_FACE = (
    "casia-webface",
    "lfw",
    "lfw/pairs.txt",
    "cfp-dataset",
    "cfp-dataset/Protocol/Pair_list_F.txt",
    "cfp-dataset/Protocol/Pair_list_P.txt",
    "cfp-dataset/Protocol/Split/FP",
    "agedb_30",
    "agedb_30/agedb_30_ann.txt",
)
_CIFAR = tuple(
    f"cifar-10-batches-py/{part}" for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
)

_CIFAR100 = tuple(f"cifar-100-python/{part}" for part in ("train", "test", "meta"))

_REAL = (
    Dataset(
        "voc",
        "voc",
        "detection",
        (".",),
        _VOC,
        "Get VOC 2007 and 2012 from the PASCAL VOC site of the University of Oxford and unpack both, "
        "and VOC 2007 test, into VOCdevkit/.",
    ),
    Dataset(
        "coco",
        "coco",
        "detection",
        ("coco",),
        _COCO,
        "Get train2017, val2017 and their annotations from the COCO site (cocodataset.org). From the 2014 "
        "release with its trainval35k and minival files, `onebit data coco2014 DIR` makes them.",
    ),
    Dataset(
        "market1501",
        "market1501",
        "reid",
        (".",),
        _MARKET,
        "Get Market-1501-v15.09.15 from its authors (Liang Zheng's page; free for research, not for "
        "commercial use); nothing is downloaded for you.",
    ),
    Dataset(
        "dukemtmcreid",
        "dukemtmcreid",
        "reid",
        (".",),
        _DUKE,
        "DukeMTMC was withdrawn by its authors over the privacy of the people filmed: this project never "
        "downloads or ships it and reads it only where you already keep it.",
    ),
    Dataset(
        "cuhk03",
        "cuhk03",
        "reid",
        (".",),
        _CUHK,
        "Ask the authors at the Chinese University of Hong Kong for cuhk-03.mat (academic use, by "
        "agreement), and get the two new-protocol split files (cuhk03_new_protocol_config_*.mat) of "
        "Zhong et al., CVPR 2017.",
    ),
    Dataset(
        "face",
        "face",
        "reid",
        ("face",),
        _FACE,
        "Training images in casia-webface/<identity>/ (CASIA-WebFace, by agreement with its authors; any "
        "identity folder may stand there), LFW with pairs.txt in lfw/ (University of Massachusetts), "
        "cfp-dataset/ as it is unpacked (cfpw.io), AgeDB-30 in agedb_30/ with its pairs as text in "
        "agedb_30_ann.txt, lines of `1 image image` or `0 image image`. All are for research only. The .bin "
        "and .rec files of face toolkits are not read: nothing is unpickled here.",
    ),
    Dataset(
        "cifar10",
        "cifar10",
        "classification",
        (".",),
        _CIFAR,
        "Get cifar-10-python.tar.gz from the University of Toronto's CIFAR page and unpack it.",
    ),
    Dataset(
        "imagenet",
        "imagenet",
        "classification",
        ("imagenet",),
        ("train", "val"),
        "Get ILSVRC 2012 from image-net.org; val/ must hold one folder per class, as train/ does.",
    ),
)

#: Boards of a real dataset that no mini one stands in for.
_REAL_ONLY = (
    Dataset(
        "msmt17",
        "msmt17",
        "reid",
        (".",),
        _MSMT,
        "Ask the authors at Peking University for MSMT17 (academic use, by a signed release agreement); "
        "the first version, MSMT17_V1, is read.",
    ),
    Dataset(
        "cifar100",
        "cifar100",
        "classification",
        (".",),
        _CIFAR100,
        "Get cifar-100-python.tar.gz from the University of Toronto's CIFAR page and unpack it.",
    ),
)

_MINI = tuple(
    replace(
        d,
        name=f"mini-{d.name}",
        folders=(f"mini-{d.name}",),
        how_to_get=f"Draw it with `onebit data mini DIR --only mini-{d.name}` and pass `--data DIR`.",
        mini=True,
    )
    for d in _REAL
)

_DEVELOPMENT = (
    Dataset(
        "coco128",
        "coco",
        "detection",
        ("coco128",),
        ("annotations/instances_train2017.json", "train2017"),
        "The first 128 images of COCO train2017 in COCO layout; trained and scored on the same images.",
    ),
    Dataset(
        "cifar10-jpeg",
        "cifar10",
        "classification",
        ("cifar10-jpeg", "."),
        ("train/airplane", "test/airplane"),
        "CIFAR-10 as JPEG files in train/<class>/ and test/<class>/; not comparable with published numbers.",
    ),
)

DATASETS: dict[str, Dataset] = {d.name: d for d in (*_REAL, *_REAL_ONLY, *_MINI, *_DEVELOPMENT)}
#: Each is named after its real dataset, but for :data:`FOLDER`.
BOARDS: tuple[str, ...] = (*(d.name for d in (*_REAL, *_REAL_ONLY)), FOLDER)


def get_dataset(name: str, task: str | None = None) -> Dataset:
    """Look a dataset up by name; ``folder-NAME`` is the folder NAME below the data root.

    Raises:
        InputError: unknown, or of another task than ``task``; the message lists near matches.
    """
    if name.startswith(f"{FOLDER}-") and task in (None, "classification"):
        return _image_folder(name)
    choices = [d.name for d in DATASETS.values() if task in (None, d.task)]
    if name not in choices:
        if name in DATASETS:
            raise InputError(f"dataset {name} is for {DATASETS[name].task}, not for {task}")
        near = difflib.get_close_matches(name, choices, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(choices)}"
        raise InputError(f"unknown dataset {name!r}; {hint}")
    return DATASETS[name]


def _image_folder(name: str) -> ImageFolder:
    match = _FOLDER_NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"dataset {name!r}: expected {FOLDER}-NAME with a folder NAME below the data root, of "
            "letters, digits, dots, underscores and single hyphens"
        )
    return ImageFolder(
        name=name,
        board=FOLDER,
        task="classification",
        folders=(match[1],),
        required=("train",),
        how_to_get="It needs train/ and val/ or test/, each with one folder of images per class.",
    )


def default_data_root() -> Path:
    """``$ONEBIT_DATA``, else ``./data``."""
    return Path(os.environ.get("ONEBIT_DATA") or "data")
