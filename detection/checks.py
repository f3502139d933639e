"""Look a detection dataset through before MMDetection reads it.

MMDetection leaves out, without a word, objects of a class it does not know, boxes outside their
image and small images, numbers classes as COCO's categories come in the file, and stops with a traceback at
a file it cannot read. Here each of these is one error that names the file. What real VOC and COCO
contain is let through:

- a box may stand out of its image by one pixel (``TOLERANCE``);
- crowd and difficult objects are checked like all others;
- in a set of thousands, one object in ``DEGENERATE_SHARE`` may be thinner than a pixel
  (COCO's train2017 has a few); they are counted, and MMDetection leaves COCO's out.

Sets of up to ``DECODE_LIMIT`` images are decoded in full, of larger ones only the presence and the
size of the image files are checked.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config

from onebit.commons.errors import InputError
from onebit.commons.images import open_image
from onebit.commons.labels import (
    by_id,
    is_number,
    read_coco,
    read_text,
    read_xml,
    require_name,
    short,
    whole_id,
    xml_integer,
    xml_number,
)
from onebit.commons.progress import Progress

TOLERANCE = 1.0  # pixels
DEGENERATE_SHARE = 1000
DECODE_LIMIT = 2000
_ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class _Listed:
    """One image as its annotation describes it.

    size: (width, height), or None where the annotation is silent and the image cannot be read.
    objects, degenerate: how many, and how many of them are thinner than a pixel.
    thin: where the first degenerate object is, for the message.
    """

    image: Path
    annotation: Path
    size: tuple[int, int] | None
    objects: int
    degenerate: int
    thin: str


def check_dataset(cfg: Config, loaders: Sequence[str] = ("train", "test")) -> dict[str, Any]:
    """Check every dataset of the config's loaders.

    Args:
        cfg: as :func:`onebit.detection.config.build_config` returns it.
        loaders: which of ``train`` and ``test``.

    Returns:
        per loader, ``images``, ``objects`` and ``degenerate`` (objects thinner than a pixel, of
        which MMDetection leaves out COCO's), and whether the images were ``decoded``.

    Raises:
        InputError: a missing, unreadable or malformed file, an unknown class, a box outside its
            image or without area. The message names the file and what was expected.
    """
    found, seen = {}, set()
    for loader in loaders:
        listed = []
        for dataset in leaves(cfg[f"{loader}_dataloader"].dataset):
            found_here = _reader(dataset)(dataset, classes_of(dataset))
            _check_listing(found_here, (dataset.get("filter_cfg") or {}).get("min_size", 0))
            listed += found_here
        if not any(item.objects for item in listed):
            raise InputError(f"the {loader} part of {cfg.row.dataset or 'the data'} has no object at all")
        found[loader] = _check_images(listed, seen)
    return found


def leaves(dataset: dict) -> Iterator[dict]:
    """The datasets that read files, inside concatenated or repeated ones."""
    inner = dataset.get("datasets") or ([dataset["dataset"]] if "dataset" in dataset else [])
    if not inner:
        yield dataset
    for child in inner:
        yield from leaves(child)


def _reader(dataset: dict) -> Callable[[dict, tuple[str, ...]], list[_Listed]]:
    kind = DATASETS.get(str(dataset.get("type")))
    for name, read in (("VOCDataset", _read_voc), ("CocoDataset", _read_coco)):
        if kind is not None and issubclass(kind, DATASETS.get(name)):
            return read
    raise InputError(f"cannot check data of {dataset.get('type')}: expected VOCDataset or CocoDataset")


def classes_of(dataset: dict) -> tuple[str, ...]:
    """The names of a reader's classes, in the order of the labels."""
    own = (dataset.get("metainfo") or {}).get("classes")
    return tuple(own or DATASETS.get(dataset["type"]).METAINFO["classes"])


def category_ids(dataset: dict) -> list[int]:
    """What results name the classes of a checked reader by, in the order of the labels.

    These are the ids of a COCO file's categories, and for VOC the place of the class, from 1
    (:mod:`onebit.detection.predictions`).
    """
    if _reader(dataset) is _read_coco:
        return [row["id"] for row in read_coco(Path(dataset["data_root"]) / dataset["ann_file"])["categories"]]
    return list(range(1, len(classes_of(dataset)) + 1))


def _check_listing(listed: list[_Listed], smallest: int) -> None:
    """Raise InputError where an image is listed twice, or is one that MMDetection would leave out.

    Args:
        smallest: what MMDetection wants of an image's shorter side, pixels.
    """
    path, count = Counter(item.image for item in listed).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path} is listed {count} times, the last time in {listed[-1].annotation}")
    for item in listed:
        if item.size is not None and min(item.size) < smallest:
            raise InputError(
                f"{item.annotation} says {item.image.name} has {item.size[0]} x {item.size[1]} "
                f"pixels; expected at least {smallest} each way, smaller ones would be left out"
            )


def _check_images(listed: list[_Listed], seen: set[Path]) -> dict[str, Any]:
    """Check the image files of one loader; ``seen`` spares those of a loader before."""
    objects, degenerate = (sum(getattr(i, a) for i in listed) for a in ("objects", "degenerate"))
    if degenerate * DEGENERATE_SHARE > objects:
        thin = next(item.thin for item in listed if item.degenerate)
        raise InputError(f"{thin}: expected a box of at least one pixel each way")
    decode = len(listed) <= DECODE_LIMIT
    sizes: dict[Path, dict[str, int]] = {}
    with Progress("checking images", total=len(listed)) as progress:
        for item in listed:
            progress.advance()
            if item.image in seen:
                continue
            seen.add(item.image)
            folder = item.image.parent
            if folder not in sizes:
                sizes[folder] = _file_sizes(folder)
            if item.image.name not in sizes[folder]:
                raise InputError(f"image missing: expected {item.image}, as {item.annotation} says")
            if sizes[folder][item.image.name] == 0:
                raise InputError(f"unreadable image: {item.image} is empty")
            if decode or item.size is None:
                _decode(item)
    return dict(images=len(listed), objects=objects, degenerate=degenerate, decoded=decode)


def _file_sizes(folder: Path) -> dict[str, int]:
    """Size of every file of a folder of images by name, without links that lead out of the dataset."""
    try:
        with os.scandir(folder) as entries:
            inside = os.path.realpath(folder.parent) + os.sep
            return {
                entry.name: entry.stat().st_size
                for entry in entries
                if entry.is_file() and (not entry.is_symlink() or os.path.realpath(entry.path).startswith(inside))
            }
    except (OSError, ValueError) as error:  # ValueError: what no file name can hold
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"expected a folder of images at {folder}: {reason}") from error


def _decode(item: _Listed) -> None:
    try:
        with open_image(item.image) as image:
            image.load()
            size = image.size
            if image.getexif().get(_EXIF_ORIENTATION) in _ROTATED and size != item.size:
                size = size[::-1]
    except Exception as error:  # a decoder may raise anything at a broken file
        raise InputError(f"unreadable image: {item.image} ({error})") from error
    if item.size is not None and size != item.size:
        raise InputError(
            f"{item.annotation} says {item.image.name} has {item.size[0]} x {item.size[1]} pixels; "
            f"found {size[0]} x {size[1]}"
        )


def _check_box(box: Sequence[float], size: tuple[int, int] | None, where: str) -> bool:
    """Check corners (x1, y1, x2, y2), far edges exclusive.

    Returns:
        whether it is degenerate: less than a pixel wide or high, or nothing of it in the image.
    """
    x1, y1, x2, y2 = box
    text = f"({', '.join(f'{c:g}' for c in box)})"
    if not all(math.isfinite(c) for c in box) or x2 < x1 or y2 < y1:
        raise InputError(f"{where}: expected a box with x1 < x2 and y1 < y2, found {text}")
    if size is not None and (min(x1, y1) < -TOLERANCE or x2 > size[0] + TOLERANCE or y2 > size[1] + TOLERANCE):
        raise InputError(f"{where}: the box {text} lies outside its image of {size[0]} x {size[1]} pixels")
    beside = size is not None and (min(x2, size[0]) <= max(x1, 0) or min(y2, size[1]) <= max(y1, 0))
    return beside or x2 - x1 < 1 or y2 - y1 < 1


def _read_voc(dataset: dict, classes: tuple[str, ...]) -> list[_Listed]:
    """The images of one ImageSets file, from their XML annotations."""
    root = Path(dataset["data_root"])
    listing = root / dataset["ann_file"]
    names = read_text(listing).split("\n")
    names = names[:-1] if names and not names[-1] else names
    if not names:
        raise InputError(f"{listing} lists no image")
    for line, name in enumerate(names, start=1):
        if not name or name != name.strip() or len(name.split()) != 1:
            raise InputError(f"{listing}, line {line}: expected one image name, found {short(name)}")
        require_name(name, f"{listing}, line {line}")
    part = root / dataset["data_prefix"]["sub_data_root"]
    return [_read_voc_image(part, name, classes) for name in names]


def _read_voc_image(part: Path, name: str, classes: tuple[str, ...]) -> _Listed:
    path = part / "Annotations" / f"{name}.xml"
    image = part / "JPEGImages" / f"{name}.jpg"
    root = read_xml(path)
    if root.find("size") is not None:
        size = tuple(xml_integer(root, f"size/{side}", path) for side in ("width", "height"))
    else:
        size = _size_of_file(image)
    nodes, thin = root.findall("object"), []
    for index, node in enumerate(nodes, start=1):
        where = f"{path}, object {index}"
        for tag in ("name", "bndbox"):
            if len(node.findall(tag)) != 1:
                raise InputError(f"{where}: expected one <{tag}>, found {len(node.findall(tag))}")
        kind = node.findtext("name")
        if kind not in classes:
            raise InputError(f"{where}: unknown class {short(kind)}; expected {_either(classes)}")
        if node.find("difficult") is not None and xml_integer(node, "difficult", where) not in (0, 1):
            raise InputError(f"{where}: expected 0 or 1 in <difficult>")
        x1, y1, x2, y2 = (xml_number(node, f"bndbox/{corner}", where) for corner in ("xmin", "ymin", "xmax", "ymax"))
        # VOC counts pixels from 1 and its far edges are inclusive.
        if _check_box((x1 - 1, y1 - 1, x2, y2), size, where) or x1 == x2 or y1 == y2:
            thin.append(where)
    # A box elsewhere is an object that nobody would read; those of body parts are VOC's own.
    boxes = len(nodes) + len(root.findall("object/part/bndbox"))
    if sum(1 for _ in root.iter("bndbox")) != boxes:
        raise InputError(f"{path}: there is a <bndbox> that is not inside an <object>")
    return _Listed(image, path, size, len(nodes), len(thin), "".join(thin[:1]))


def _size_of_file(image: Path) -> tuple[int, int] | None:
    """Of an image whose annotation is silent; None where it cannot be read, which is said later."""
    try:
        with open_image(image) as opened:
            turned = opened.getexif().get(_EXIF_ORIENTATION) in _ROTATED
            return opened.size[::-1] if turned else opened.size
    except Exception:  # a decoder may raise anything at a broken file
        return None


def _read_coco(dataset: dict, classes: tuple[str, ...]) -> list[_Listed]:
    """The images of one COCO annotation file."""
    root = Path(dataset["data_root"])
    path = root / dataset["ann_file"]
    content = read_coco(path)
    images = by_id(content["images"], ("file_name", "width", "height"), f"{path}, image")
    categories = by_id(content["categories"], ("name",), f"{path}, category")
    fields = ("image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = by_id(content["annotations"], fields, f"{path}, annotation")
    if not images:
        raise InputError(f"{path} lists no image")
    names = [category["name"] for category in categories.values()]
    for name in names:
        if name not in classes:
            raise InputError(f"{path}: unknown class {short(name)}; expected {_either(classes)}")
    # MMDetection numbers classes as the file's categories come, in training and in scoring.
    if names != [*classes]:
        raise InputError(
            f"{path}: expected each of the categories {', '.join(classes)} once, in this order, which is that of the "
            f"labels; found {', '.join(names)}"
        )
    for key, image in images.items():
        for side in ("width", "height"):
            if type(image[side]) is not int or not 1 <= image[side] < 2**31:
                raise InputError(f"{path}, image {key}: expected a {side} in pixels, found {short(image[side])}")
        if not isinstance(image["file_name"], str):
            raise InputError(f"{path}, image {key}: expected a file_name, found {short(image['file_name'])}")
        require_name(image["file_name"], f"{path}, image {key}")
    objects: dict[Any, list[str]] = {key: [] for key in images}
    thin: dict[Any, list[str]] = {key: [] for key in images}
    for key, annotation in annotations.items():
        where = f"{path}, annotation {key}"
        image = images.get(whole_id(annotation["image_id"]))
        if image is None:
            raise InputError(f"{where}: there is no image {short(annotation['image_id'])}")
        if whole_id(annotation["category_id"]) not in categories:
            raise InputError(f"{where}: unknown class, there is no category {short(annotation['category_id'])}")
        if annotation["iscrowd"] not in (0, 1):
            raise InputError(f"{where}: expected an iscrowd of 0 or 1, found {short(annotation['iscrowd'])}")
        if annotation.get("ignore"):
            raise InputError(f"{where}: `ignore` would leave it out; COCO's own mark is `iscrowd`")
        box = annotation["bbox"]
        numbers = [*(box if isinstance(box, list) else [box]), annotation["area"]]
        if len(numbers) != 5 or not all(is_number(n) for n in numbers):
            raise InputError(f"{where}: expected a bbox of x, y, width, height and an area")
        x, y, width, height = box
        size = (image["width"], image["height"])
        objects[annotation["image_id"]].append(where)
        # x + width - x need not be width; MMDetection goes by width.
        if _check_box((x, y, x + width, y + height), size, where) or min(width, height) < 1 or annotation["area"] <= 0:
            thin[annotation["image_id"]].append(where)
    folder = root / dataset["data_prefix"]["img"]
    return [
        _Listed(
            folder / image["file_name"],
            path,
            (image["width"], image["height"]),
            len(objects[key]),
            len(thin[key]),
            "".join(thin[key][:1]),
        )
        for key, image in images.items()
    ]


def _either(classes: tuple[str, ...]) -> str:
    return "one of " + ", ".join(classes)
