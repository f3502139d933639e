"""Detection data of one's own: labels of COCO, VOC or YOLO form become a dataset like any other.

`coco:LABELS.json`, `voc:FOLDER` and `yolo:data.yaml` name it. Labels are read, checked against their pictures and
written in COCO's form below the cache folder, with a link to the pictures; from there on it is a dataset whose
name, ``own-TITLE-HASH``, follows from what the labels say.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from onebit.commons.datasets.dataset import Dataset
from onebit.commons.datasets.own import coco, voc, yolo
from onebit.commons.datasets.own.form import Labels, Part
from onebit.commons.errors import InputError
from onebit.commons.files import cache_folder, dataset_checksum, write_atomic

#: The board of all of them, and what their names begin with.
BOARD = "own"
READERS = {"coco": coco, "voc": voc, "yolo": yolo}
#: One picture in so many is scored where the labels do not say which.
ONE_IN = 5
_ABOUT, _PARTS = "about.json", ("train", "val")


@dataclass(frozen=True)
class OwnBoxes(Dataset):
    """Labelled pictures of one's own, as :func:`own_boxes` prepares them.

    Attributes:
        counts: what was met in the labels and the pictures, and what was left out or clipped.
        facts: what recipe ``own`` adapts to: ``images`` to train on; ``side``, the median of the longer sides of
            pictures in pixels; ``object``, the side below which a tenth of the boxes lie, in fractions of the
            longer side of their picture.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)

    def find(self, data_root: Any) -> Path:
        """The prepared folder, wherever ``data_root`` is.

        Raises:
            InputError: the pictures are no longer where they were.
        """
        folder = _folder(self.name)
        for part in _PARTS:
            if not (folder / part).is_dir():
                place = (folder / part).readlink() if (folder / part).is_symlink() else folder / part
                raise InputError(
                    f"dataset {self.name}: its pictures are no longer in {place}: name its labels again, e.g. "
                    f"{coco.FORM}, {voc.FORM} or {yolo.FORM}"
                )
        return folder

    def is_there(self, data_root: Any) -> bool:
        """Whether its pictures are where they were."""
        return all((_folder(self.name) / part).is_dir() for part in _PARTS)

    def checksum_of(self, folder: Path, cached: bool = True) -> str:
        """Over the prepared labels and the pictures that they list."""
        files = [folder / f"{part}.json" for part in _PARTS]
        for part in _PARTS:
            listed = json.loads((folder / f"{part}.json").read_bytes())["images"]
            files += [folder / part / image["file_name"] for image in listed]
        return dataset_checksum(files, folder, cached)


#: What ``own-...`` is, but for its name, classes and counts.
OWN_BOXES = OwnBoxes(
    name=BOARD,
    title="own data",
    task="detection",
    folders=(".",),
    required=tuple(f"{part}.json" for part in _PARTS),
    how_to_get=f"Name its labels: {coco.FORM}, {voc.FORM} or {yolo.FORM}.",
    reader="own",
    split="",
    protocol="COCO box AP, IoU 0.50:0.95, 100 detections per image",
    recipe="own",
)


def is_named(name: str) -> bool:
    """Whether ``name`` names labels, or a dataset that was made of some."""
    return (name.partition(":")[0] in READERS and ":" in name) or name.startswith(f"{BOARD}-")


def own_boxes(name: str) -> OwnBoxes:
    """The dataset of labels (``coco:LABELS.json`` and the like), or one that was prepared before (``own-...``).

    Raises:
        InputError: labels or pictures that cannot be used, no object at all, or a name that was never prepared here.
        WorkError: the cache folder cannot be written.
    """
    return _prepared(name) if name.startswith(f"{BOARD}-") else _prepare(name)


@lru_cache  # the labels of a run are read once
def _prepare(text: str) -> OwnBoxes:
    kind, _, place = text.partition(":")
    if not place:
        raise InputError(f"dataset {text!r}: expected {READERS[kind].FORM}")
    labels = READERS[kind].read(place)
    parts, rule = _split(labels)
    marks = [labels.categories, rule, *(_marks(part) for part in parts)]
    digest = hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:8]
    title = re.sub(r"[^A-Za-z0-9]+", "_", labels.title).strip("_")[:30] or kind
    name = f"{BOARD}-{title}-{digest}"
    folder = _folder(name)
    seen = dict(rule=rule, folders=[str(part.folder.absolute()) for part in parts], state=_state(parts))
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError):
        about = {}
    if not isinstance(about, dict) or any(about.get(key) != value for key, value in seen.items()):
        _write(folder, labels, parts, seen)
    return _prepared(name)


def _prepared(name: str) -> OwnBoxes:
    if not re.fullmatch(rf"{BOARD}-\w{{1,30}}-[0-9a-f]{{8}}", name, re.ASCII):
        raise InputError(f"dataset {name!r}: expected {coco.FORM}, {voc.FORM} or {yolo.FORM}")
    try:
        about = json.loads((_folder(name) / _ABOUT).read_bytes())
        return replace(
            OWN_BOXES,
            name=name,
            title=name,
            split=about["rule"],
            board=BOARD,
            classes=tuple(about["classes"]),
            counts=about["counts"],
            facts=about["facts"],
        )
    except FileNotFoundError:
        raise InputError(
            f"dataset {name} was not made on this machine: name its labels, {coco.FORM}, {voc.FORM} or {yolo.FORM}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read {_folder(name) / _ABOUT}: {error}") from error


def _folder(name: str) -> Path:
    return cache_folder() / BOARD / name


def _split(labels: Labels) -> tuple[list[Part], str]:
    """Training and scored pictures, and the rule in words."""
    if labels.val is not None:
        return [labels.train, labels.val], f"train of {labels.title} -> val of {labels.title}"
    # By the name alone: a picture that is added later moves few others. Those with objects are shared out apart, so
    # that both parts have some.
    scored: set[str] = set()
    for labelled in (True, False):
        names = [p.name for p in labels.train.pictures if any(not box.crowd for box in p.boxes) is labelled]
        names.sort(key=lambda name: hashlib.sha256(Path(name).name.encode()).digest())
        scored.update(names[: max(round(len(names) / ONE_IN), int(labelled))])
    parts = [
        replace(labels.train, pictures=tuple(p for p in labels.train.pictures if (p.name in scored) is val))
        for val in (False, True)
    ]
    return parts, f"{ONE_IN - 1} in {ONE_IN} -> 1 in {ONE_IN} of {labels.title}, by SHA-256 of file names"


def _marks(part: Part) -> list:
    return [[p.name, p.size, p.key, [[b.corners, b.category, b.crowd] for b in p.boxes]] for p in part.pictures]


def _state(parts: list[Part]) -> str:
    """Changes when a picture does."""
    digest = hashlib.sha256()
    for part in parts:
        for picture in part.pictures:
            try:
                stat = (part.folder / picture.name).stat()
                digest.update(f"{picture.name}\0{stat.st_size} {stat.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{picture.name}\0missing\n".encode())  # said when it is looked at
    return digest.hexdigest()


def _write(folder: Path, labels: Labels, parts: list[Part], seen: dict[str, Any]) -> None:
    counts = labels.counts.copy()
    looked = [part.looked_at(counts) for part in parts]
    used = Counter(box.category for part in looked for picture in part.pictures for box in picture.boxes)
    categories = {key: name for key, name in labels.categories.items() if used[key]}
    counts["classes left out, without any box"] += len(labels.categories) - len(categories)
    for split, part in zip(("train", "score"), looked, strict=True):
        if not any(not box.crowd for picture in part.pictures for box in picture.boxes):
            raise InputError(
                f"{labels.title}: none of the {len(part.pictures)} pictures to {split} has a box that counts"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for part, split in zip(looked, _PARTS, strict=True):
        link = folder / split
        if link.is_symlink():
            link.unlink()
        link.symlink_to(part.folder.absolute(), target_is_directory=True)
        write_atomic(folder / f"{split}.json", json.dumps(_coco(part, categories)))
    boxes = [
        max(b.corners[2] - b.corners[0], b.corners[3] - b.corners[1]) / max(p.size or (1, 1))
        for p in looked[0].pictures
        for b in p.boxes
    ]
    facts = dict(
        images=len(looked[0].pictures),
        side=median(max(picture.size or (1, 1)) for picture in looked[0].pictures),
        object=quantiles(boxes, n=10)[0] if len(boxes) > 1 else boxes[0],
    )
    about = {**seen, "classes": [*categories.values()], "counts": dict(sorted((+counts).items())), "facts": facts}
    write_atomic(folder / _ABOUT, json.dumps(about, indent=1))


def _coco(part: Part, categories: Mapping[int, str]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for at, picture in enumerate(part.pictures, start=1):
        key = at if picture.key is None else picture.key
        width, height = picture.size or (0, 0)
        images.append(dict(id=key, file_name=picture.name, width=width, height=height))
        for box in picture.boxes:
            x1, y1, x2, y2 = box.corners
            bbox = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=key,
                    category_id=box.category,
                    bbox=bbox,
                    area=box.area or bbox[2] * bbox[3],
                    iscrowd=int(box.crowd),
                )
            )
    return dict(
        images=images, annotations=annotations, categories=[dict(id=k, name=name) for k, name in categories.items()]
    )
