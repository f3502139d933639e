"""COCO's 2014 release with the papers' split, mapped to the 2017 layout.

trainval35k and minival of 2014 are the images of train2017 and val2017 under other names:
``COCO_val2014_000000000042.jpg`` became ``000000000042.jpg``. Here the annotation files are written
anew with the names of 2017; the images are those of 2017 where they are there, else links to those
of 2014.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import write_atomic

#: Split of 2017 to the annotation files of 2014 that make it up; the first complete choice counts.
SPLITS = {
    "train2017": (("instances_trainval35k.json",), ("instances_train2014.json", "instances_valminusminival2014.json")),
    "val2017": (("instances_minival2014.json",), ("instances_minival.json",)),
}
_NAME = re.compile(r"COCO_(?P<part>train2014|val2014)_(?P<number>\d{12})\.jpg")


def convert(folder: str | Path) -> dict[str, int]:
    """Write ``annotations/instances_{train,val}2017.json`` below ``folder``, and links to images.

    Returns:
        split of 2017 to its number of images.

    Raises:
        InputError: an annotation file is missing, malformed or there already; an image that no
            folder has; an image in both splits.
        WorkError: a file or link cannot be written.
    """
    folder = Path(folder)
    annotations = folder / "annotations"
    for split in SPLITS:
        if (annotations / f"instances_{split}.json").exists():
            raise InputError(f"{annotations / f'instances_{split}.json'} exists: nothing to map")
    mapped = {split: _merged(annotations, choices) for split, choices in SPLITS.items()}
    ids = [{image["id"] for image in content["images"]} for content, _ in mapped.values()]
    both = sorted(ids[0] & ids[1])
    if both:
        raise InputError(f"{annotations}: image {both[0]} is in the training and in the test split")
    links = [link for split, (_, names) in mapped.items() for link in _links(folder, split, names)]
    try:
        for link, target in links:
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            # Resolved: the folder may be a link itself, and ".." is that of where it leads.
            link.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()))
    except OSError as error:
        raise WorkError(f"cannot link {link} to {target}: {error.strerror}") from error
    for split, (content, _) in mapped.items():  # last: with them the dataset is complete
        write_atomic(annotations / f"instances_{split}.json", json.dumps(content))
    return {split: len(content["images"]) for split, (content, _) in mapped.items()}


def _merged(annotations: Path, choices: tuple[tuple[str, ...], ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The annotations of one split with the names of 2017, and these to the names of 2014."""
    there = [c for c in choices if all((annotations / name).is_file() for name in c)]
    if not there:
        expected = " or ".join(" and ".join(str(annotations / n) for n in c) for c in choices)
        raise InputError(f"annotations of COCO 2014 missing: expected {expected}")
    merged: dict[str, Any] = {}
    names: dict[str, str] = {}
    for path in (annotations / name for name in there[0]):
        content = _read(path)
        if not merged:
            merged = {**content, "images": [], "annotations": []}
        if content["categories"] != merged["categories"]:
            raise InputError(f"{path}: its categories are not those of {there[0][0]}")
        for image in content["images"]:
            new = _new_name(image, path)
            if new in names:
                raise InputError(f"{path}: image {new} occurs twice")
            names[new] = image["file_name"]
            merged["images"].append({**image, "file_name": new})
        merged["annotations"] += content["annotations"]
    return merged, names


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    tables = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(t), list) for t in tables):
        raise InputError(f"{path}: expected COCO's lists {', '.join(tables)}")
    return content


def _new_name(image: Any, path: Path) -> str:
    name = image.get("file_name") if isinstance(image, dict) else None
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or image.get("id") != int(match["number"]):
        raise InputError(
            f"{path}: expected an image like COCO_val2014_000000000042.jpg with its number as id, found {name!r}"
        )
    return f"{match['number']}.jpg"


def _links(folder: Path, split: str, names: dict[str, str]) -> list[tuple[Path, Path]]:
    """(link, image) of every image that the folder of 2017 does not have."""
    present = {
        p: set(os.listdir(folder / p)) if (folder / p).is_dir() else set() for p in (split, "train2014", "val2014")
    }
    links = []
    for new, old in names.items():
        part = old.split("_")[1]
        # A link that leads nowhere is made anew; one that leads to an image is somebody's own.
        if new in present[split] and (folder / split / new).exists():
            continue
        if old not in present[part]:
            raise InputError(f"image missing: expected {folder / split / new} or {folder / part / old}")
        links.append((folder / split / new, folder / part / old))
    return links
