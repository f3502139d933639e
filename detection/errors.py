"""What a detector gets wrong, object by object: a summary per class and a confusion matrix.

Every detection at or above a score, and every object that counts, gets one word:

    correct     a detection and an object of its class, IoU at least ``IOU``; the detections choose by
                falling score, each the object left that it overlaps most, as for COCO's AP
    confused    one of the detections left and an object left of another class, IoU at least ``IOU``
    duplicate   a detection on an object of its class that another one was matched to
    mislocated  a detection that meets an object of its class with an IoU from ``NEAR`` on
    background  every other detection
    missed      every other object

Thus the objects of a class are its correct, confused and missed ones, and its detections are its
correct, confused ("wrong class"), duplicate, mislocated and background ones. Detections on objects that do not count
(difficult, crowds) have the word ``ignored`` and are in none of the sums. The words are those of
Hoiem et al., "Diagnosing Error in Object Detectors" (ECCV 2012); the order of matching is ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmdet.evaluation.functional import bbox_overlaps
from mmengine.dataset import BaseDataset

from onebit.detection import predictions as files

IOU, NEAR = 0.5, 0.1
#: What a detection may be.
CORRECT, CONFUSED, DUPLICATE, MISLOCATED, BACKGROUND, IGNORED = KINDS = (
    "correct",
    "confused",
    "duplicate",
    "mislocated",
    "background",
    "ignored",
)
MISSED = "missed"


@dataclass
class Scene:
    """One image: its objects, and what was detected.

    Attributes:
        name: of the image file, without its ending.
        path: of the image.
        boxes, labels, counts: objects [N, 4] (x1, y1, x2, y2 in pixels), their classes [N], and
            whether they count [N] (not difficult, no crowd).
        found, found_labels, scores: detections [M, 4], [M], [M] by falling score.
        kinds: of each detection, one of ``KINDS``.
        fates: of each object, the index of the detection that is correct or confused, or -1.
        partners: of each detection, the index of that object, or -1.
    """

    name: str
    path: Path
    boxes: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    found: np.ndarray
    found_labels: np.ndarray
    scores: np.ndarray
    kinds: list[str] = field(default_factory=list)
    fates: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    partners: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    @property
    def quality(self) -> float:
        """The F1 of detections and objects, from 0 to 1; of an image with neither, 1."""
        correct = self.kinds.count(CORRECT)
        total = int(self.counts.sum()) + sum(kind != IGNORED for kind in self.kinds)
        return 2 * correct / total if total else 1.0


def scenes(dataset: BaseDataset, detections: Sequence[dict], score: float) -> list[Scene]:
    """Every image of a test set with its detections from ``score`` on, matched.

    Args:
        dataset: a VOC or COCO dataset of MMDetection; its images are not read.
        detections: as :func:`onebit.detection.predictions.read` returns them.
    """
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    coco = hasattr(dataset, "cat_ids")
    if coco:
        ids, categories = [info["img_id"] for info in infos], list(dataset.cat_ids)
    else:
        ids = files.voc_image_ids([info["img_id"] for info in infos])
        categories = list(range(1, len(dataset.metainfo["classes"]) + 1))
    labels = {category: label for label, category in enumerate(categories)}
    of_image: dict[int, list[dict]] = {image: [] for image in ids}
    for detection in detections:
        if detection["score"] >= score:
            of_image[detection["image_id"]].append(detection)
    result = []
    for image, info in zip(ids, infos, strict=True):
        found = sorted(of_image[image], key=lambda d: -d["score"])
        boxes = np.array([d["bbox"] for d in found], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = info["instances"]
        scene = Scene(
            name=Path(info["img_path"]).stem,
            path=Path(info["img_path"]),
            boxes=np.array([i["bbox"] for i in instances], float).reshape(-1, 4),
            labels=np.array([i["bbox_label"] for i in instances], int),
            counts=np.array([not i["ignore_flag"] for i in instances], bool),
            found=boxes,
            found_labels=np.array([labels[d["category_id"]] for d in found], int),
            scores=np.array([d["score"] for d in found], float),
        )
        match(scene, far_pixels=not coco)
        result.append(scene)
    return result


def match(scene: Scene, far_pixels: bool = False) -> None:
    """Give every detection its kind and every object its fate.

    Args:
        far_pixels: count the far edges in (width x2 - x1 + 1), as VOC does; else what is not to
            count are crowds, and it is enough that half of a detection lies in one, as for COCO.
    """
    overlap = dict(use_legacy_coordinate=far_pixels)
    shape = len(scene.found), len(scene.boxes)
    iou = bbox_overlaps(scene.found, scene.boxes, **overlap).reshape(shape)
    on_ignored = iou if far_pixels else bbox_overlaps(scene.found, scene.boxes, mode="iof").reshape(shape)
    same = scene.found_labels[:, None] == scene.labels[None]
    scene.kinds = [""] * len(scene.found)
    scene.fates = np.full(len(scene.boxes), -1)
    scene.partners = np.full(len(scene.found), -1)
    _take_objects(scene, CORRECT, np.where(same & scene.counts, iou, 0))
    for at, kind in enumerate(scene.kinds):
        if not kind and (same[at] & scene.counts & (iou[at] >= IOU)).any():
            scene.kinds[at] = DUPLICATE
        elif not kind and (same[at] & ~scene.counts & (on_ignored[at] >= IOU)).any():
            scene.kinds[at] = IGNORED
    _take_objects(scene, CONFUSED, np.where(~same & scene.counts, iou, 0))
    for at, kind in enumerate(scene.kinds):
        if not kind:
            near = (same[at] & scene.counts & (iou[at] >= NEAR)).any()
            scene.kinds[at] = MISLOCATED if near else BACKGROUND


def _take_objects(scene: Scene, kind: str, iou: np.ndarray) -> None:
    """Match detections without a kind, by falling score, to the objects left; ``iou`` is [M, N]."""
    for at in range(len(scene.found)):
        free = np.where(scene.fates < 0, iou[at], 0)
        if not scene.kinds[at] and free.size and free.max() >= IOU:
            scene.kinds[at] = kind
            scene.fates[free.argmax()] = at
            scene.partners[at] = free.argmax()


def class_names(dataset: BaseDataset) -> tuple[str, ...]:
    """The classes in the order of their labels; COCO's labels follow the annotation file."""
    if not hasattr(dataset, "cat_ids"):
        return tuple(dataset.metainfo["classes"])
    rows = json.loads(Path(dataset.ann_file).read_bytes())["categories"]
    names = {row["id"]: row["name"] for row in rows}
    return tuple(names[category] for category in dataset.cat_ids)


@dataclass(frozen=True)
class Summary:
    """The words counted.

    Attributes:
        classes: names, in the order of labels.
        score: detections below it were left out.
        images: how many there are.
        counts: by class, the number of its ``objects`` and ``detections`` and of each word.
        confusion: [C + 1, C + 1]; row: the class of the object, last: none (duplicate, mislocated
            and background); column: the class that was detected, last: none (missed).
    """

    classes: tuple[str, ...]
    score: float
    images: int
    counts: dict[str, dict[str, int]]
    confusion: np.ndarray

    def to_json(self) -> str:
        content = dict(
            images=self.images,
            score=self.score,
            iou=IOU,
            iou_near=NEAR,
            classes=list(self.classes),
            per_class=self.counts,
            confusion=self.confusion.tolist(),
        )
        return json.dumps(content, indent=1) + "\n"

    def to_text(self) -> str:
        """A table; classes that neither occur nor were detected are left out."""
        columns = (
            "objects",
            CORRECT,
            CONFUSED,
            MISSED,
            "detections",
            "wrong class",
            DUPLICATE,
            MISLOCATED,
            BACKGROUND,
            IGNORED,
        )
        shown = {name: row for name, row in self.counts.items() if any(row.values())}
        total = {key: sum(row[key] for row in self.counts.values()) for key in columns}
        width = max(map(len, ("all classes", *shown)))
        lines = [f"{self.images} images, detections from score {self.score:g} on, IoU {IOU:g}"]
        lines.append(" " * width + "".join(f"{key:>12}" for key in columns))
        for name, row in (*shown.items(), ("all classes", total)):
            lines.append(f"{name:<{width}}" + "".join(f"{row[key]:>12}" for key in columns))
        return "\n".join(lines) + "\n"


def summarize(found: Sequence[Scene], classes: Sequence[str], score: float) -> Summary:
    """Count the words of all images."""
    none = len(classes)
    confusion = np.zeros((none + 1, none + 1), int)
    kinds = {kind: np.zeros(none, int) for kind in KINDS}
    for scene in found:
        for kind, label, partner in zip(scene.kinds, scene.found_labels, scene.partners, strict=True):
            kinds[kind][label] += 1
            if kind != IGNORED:
                confusion[scene.labels[partner] if partner >= 0 else none, label] += 1
        for label in scene.labels[scene.counts & (scene.fates < 0)]:
            confusion[label, none] += 1
    counts = {}
    for label, name in enumerate(classes):
        row = confusion[label]
        counts[name] = {
            "objects": int(row.sum()),
            CORRECT: int(row[label]),
            CONFUSED: int(row[:none].sum() - row[label]),
            MISSED: int(row[none]),
            "detections": int(confusion[:, label].sum()),
            # The same mistakes as `confused`, but booked on the class that was detected.
            "wrong class": int(kinds[CONFUSED][label]),
            **{kind: int(kinds[kind][label]) for kind in (DUPLICATE, MISLOCATED, BACKGROUND, IGNORED)},
        }
    return Summary(tuple(classes), score, len(found), counts, confusion)
