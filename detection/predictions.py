"""Detections as a file: COCO's results format, for COCO and for VOC.

A JSON list with one object per detection: ``image_id``, ``category_id``, ``bbox`` [x, y, width,
height] in pixels of the original image, counted from 0, and ``score``. For COCO the ids are those of
its annotation file. VOC has none; here

- ``image_id`` is the image's name as a number: 000012 is 12, 2012_000003 is 2012000003 (in a set
  with names that are no numbers, the image's place in the set's list, from 1);
- ``category_id`` is the place of the class among the dataset's classes, from 1: of VOC's twenty in
  alphabetical order, aeroplane is 1 and tvmonitor 20;
- ``width`` is x2 - x1 of the corners that MMDetection puts out. VOC's own evaluation then counts
  the far edges in (x2 - x1 + 1).

Numbers are written in full: reading a file back gives the very corners and scores that were scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onebit.commons.errors import InputError, WorkError
from onebit.commons.files import write_atomic

#: Pixels; no image is that large, and float32 counts no further.
LARGEST = 2.0**24
FIELDS = ("image_id", "category_id", "bbox", "score")


def write(path: Path, detections: list[dict[str, Any]]) -> Path:
    """Write detections, whole or not at all.

    Raises:
        WorkError: a number is not finite, or the disk is full.
    """
    try:
        text = json.dumps(detections, allow_nan=False)
    except ValueError as error:
        raise WorkError("the detector puts out boxes or scores that are not finite") from error
    return write_atomic(path, text + "\n")


def read(path: str | Path, images: Collection[int], categories: Collection[int]) -> list[dict[str, Any]]:
    """Read and check a results file.

    Args:
        images, categories: the ids that the dataset has.

    Raises:
        InputError: not such a file, or a detection with an unknown id, a number that is not finite
            or a negative size. The message says which one.
    """
    if Path(path).exists() and not Path(path).is_file():  # a device has no end
        raise InputError(f"cannot read predictions {path}: expected a file, found something else")
    try:
        content = json.loads(Path(path).read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        raise InputError(f"cannot read predictions {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, list):
        raise InputError(f"{path}: expected COCO results, a list of detections, found a {type(content).__name__}")
    images, categories = frozenset(images), frozenset(categories)
    for at, detection in enumerate(content, start=1):
        reason = _wrong(detection, images, categories)
        if reason:
            raise InputError(f"{path}, detection {at}: {reason}")
    # Without what else there may be: pycocotools goes by which keys it finds.
    return [{field: detection[field] for field in FIELDS} for detection in content]


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _wrong(detection: Any, images: frozenset[int], categories: frozenset[int]) -> str | None:
    """What is wrong with one detection."""
    if not isinstance(detection, dict):
        return f"expected an object, found a {type(detection).__name__}"
    missing = [field for field in FIELDS if field not in detection]
    if missing:
        return f"expected a field {missing[0]!r}"
    for field, known, kind in (("image_id", images, "image"), ("category_id", categories, "category")):
        value = detection[field]
        if type(value) is not int or value not in known:
            return f"there is no {kind} {str(value)[:40]!r} in the dataset"
    if not _is_number(detection["score"]):
        return f"expected a finite score, found {str(detection['score'])[:40]}"
    box = detection["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"expected a bbox of four finite numbers x, y, width, height, found {str(box)[:80]}"
    if box[2] < 0 or box[3] < 0:
        return f"expected a width and height from 0 up, found {box[2]:g} and {box[3]:g}"
    if max(map(abs, box)) > LARGEST:
        return f"expected pixels, found a bbox of {str(box)[:80]}"
    return None


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**53
    return type(value) is float and math.isfinite(value)


def voc_image_ids(names: Iterable[str]) -> list[int]:
    """The ``image_id`` of each image of a VOC set, in the order of its list."""
    digits = [str(name).replace("_", "") for name in names]
    if all(d.isascii() and d.isdigit() for d in digits):
        ids = [int(d) for d in digits]
        if len(set(ids)) == len(ids):
            return ids
    return list(range(1, len(digits) + 1))


def from_voc(images: Sequence[int], per_image: Sequence[Sequence[np.ndarray]]) -> list[dict[str, Any]]:
    """Detections in file form.

    Args:
        images: the ``image_id`` of each image.
        per_image: for each image, for each class an array [N, 5] of x1, y1, x2, y2, score.
    """
    return [
        dict(image_id=image, bbox=[x1, y1, x2 - x1, y2 - y1], score=score, category_id=label)
        for image, by_class in zip(images, per_image, strict=True)
        for label, boxes in enumerate(by_class, start=1)
        for x1, y1, x2, y2, score in boxes.tolist()
    ]


def to_voc(detections: Sequence[dict[str, Any]], images: Sequence[int], classes: int) -> list[list[np.ndarray]]:
    """The inverse of :func:`from_voc`, in the order of ``images`` and as float32."""
    found: dict[tuple[int, int], list] = {}
    for detection in detections:
        x, y, width, height = detection["bbox"]
        found.setdefault((detection["image_id"], detection["category_id"]), []).append(
            (x, y, x + width, y + height, detection["score"])
        )
    return [
        [np.asarray(found.get((image, label), ()), np.float32).reshape(-1, 5) for label in range(1, classes + 1)]
        for image in images
    ]


def agreement(one: Path, other: Path) -> float:
    """The share of detections of two files that the other file has as well.

    That is the same class on the same image, with corners within a pixel and a score within 0.01.

    Args:
        one, other: files that were scored, so checked (:func:`read`).
    """
    both = []
    for path in (one, other):
        groups: dict[tuple[int, int], list[list[float]]] = {}
        for detection in json.loads(path.read_bytes()):
            key = detection["image_id"], detection["category_id"]
            groups.setdefault(key, []).append([*detection["bbox"], 100 * detection["score"]])
        both.append({key: np.asarray(values) for key, values in groups.items()})
    shares = []
    for here, there in (both, both[::-1]):
        found = [
            (np.abs(boxes[:, None] - there[key]).max(2) <= 1).any(1) if key in there else np.zeros(len(boxes), bool)
            for key, boxes in here.items()
        ]
        shares.append(float(np.concatenate(found).mean()) if found else 1.0)
    return min(shares)
