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

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdet.registry import DATASETS
from mmengine.config import Config

from onebit.commons.errors import InputError
from onebit.commons.images import open_image
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
            found_here = _reader(dataset)(dataset, _classes(dataset))
            _check_listing(found_here, (dataset.get("filter_cfg") or {}).get("min_size", 0))
            listed += found_here
        if not any(item.objects for item in listed):
            raise InputError(f"the {loader} part of {cfg.row.dataset} has no object at all")
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


def _classes(dataset: dict) -> tuple[str, ...]:
    own = (dataset.get("metainfo") or {}).get("classes")
    return tuple(own or DATASETS.get(dataset["type"]).METAINFO["classes"])


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


def _read_bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"expected a file, found something else at {path}")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"file missing: expected {path}") from error
    except (OSError, ValueError) as error:  # ValueError: what no file name can hold
        raise InputError(f"cannot read {path}: {error}") from error


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _read_voc(dataset: dict, classes: tuple[str, ...]) -> list[_Listed]:
    """The images of one ImageSets file, from their XML annotations."""
    root = Path(dataset["data_root"])
    listing = root / dataset["ann_file"]
    names = _read_text(listing).split("\n")
    names = names[:-1] if names and not names[-1] else names
    if not names:
        raise InputError(f"{listing} lists no image")
    for line, name in enumerate(names, start=1):
        if not name or name != name.strip() or len(name.split()) != 1:
            raise InputError(f"{listing}, line {line}: expected one image name, found {_short(name)}")
        _require_name(name, f"{listing}, line {line}")
    part = root / dataset["data_prefix"]["sub_data_root"]
    return [_read_voc_image(part, name, classes) for name in names]


def _require_name(name: str, where: str) -> None:
    """Raise InputError for a name of an image that leads out of its folder, or that nobody could read.

    Annotations come with a download: what they name is opened, so it has to lie in the dataset.
    """
    parts = re.split(r"[/\\\\]", name)
    if not name.isprintable() or len(name) > 255 or not parts[0] or ".." in parts or re.match("[A-Za-z]:", name):
        raise InputError(f"{where}: expected the name of an image below its folder, found {ascii(name)[:60]}")


def _read_voc_image(part: Path, name: str, classes: tuple[str, ...]) -> _Listed:
    path = part / "Annotations" / f"{name}.xml"
    image = part / "JPEGImages" / f"{name}.jpg"
    try:
        content = _read_bytes(path)
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise ValueError("it declares entities, which annotations do not have")
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last: of its encoding
        raise InputError(f"malformed XML: {path} ({error})") from error
    if root.tag != "annotation":
        raise InputError(f"{path}: expected an <annotation>, found <{root.tag[:40]}>")
    if root.find("size") is not None:
        size = tuple(_integer(root, f"size/{side}", path) for side in ("width", "height"))
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
            raise InputError(f"{where}: unknown class {_short(kind)}; expected {_either(classes)}")
        if node.find("difficult") is not None and _integer(node, "difficult", where) not in (0, 1):
            raise InputError(f"{where}: expected 0 or 1 in <difficult>")
        x1, y1, x2, y2 = (_number(node, f"bndbox/{corner}", where) for corner in ("xmin", "ymin", "xmax", "ymax"))
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


def _number(node: ElementTree.Element, tag: str, where: str | Path) -> float:
    text = node.findtext(tag)
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected a number in <{tag}>, found {_short(text)}") from error


def _integer(node: ElementTree.Element, tag: str, where: str | Path) -> int:
    text = node.findtext(tag)
    try:
        return int(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected an integer in <{tag}>, found {_short(text)}") from error


def _read_coco(dataset: dict, classes: tuple[str, ...]) -> list[_Listed]:
    """The images of one COCO annotation file."""
    root = Path(dataset["data_root"])
    path = root / dataset["ann_file"]
    try:
        content = json.loads(_read_text(path), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise InputError(f"malformed JSON: {path} ({error})") from error
    tables = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(t), list) for t in tables):
        raise InputError(f"{path}: expected COCO's lists {', '.join(tables)}")
    images = _by_id(content["images"], ("file_name", "width", "height"), f"{path}, image")
    categories = _by_id(content["categories"], ("name",), f"{path}, category")
    fields = ("image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = _by_id(content["annotations"], fields, f"{path}, annotation")
    if not images:
        raise InputError(f"{path} lists no image")
    names = [category["name"] for category in categories.values()]
    for name in names:
        if name not in classes:
            raise InputError(f"{path}: unknown class {_short(name)}; expected {_either(classes)}")
    # MMDetection numbers classes as the file's categories come, in training and in scoring.
    if sorted(names) != sorted(classes) or (names != [*classes] and [*categories] != sorted(categories)):
        raise InputError(
            f"{path}: expected each of the categories {', '.join(classes)} once, in this order or in "
            f"that of their ids; found {', '.join(names)}"
        )
    for key, image in images.items():
        for side in ("width", "height"):
            if type(image[side]) is not int or not 1 <= image[side] < 2**31:
                raise InputError(f"{path}, image {key}: expected a {side} in pixels, found {_short(image[side])}")
        if not isinstance(image["file_name"], str):
            raise InputError(f"{path}, image {key}: expected a file_name, found {_short(image['file_name'])}")
        _require_name(image["file_name"], f"{path}, image {key}")
    objects: dict[Any, list[str]] = {key: [] for key in images}
    thin: dict[Any, list[str]] = {key: [] for key in images}
    for key, annotation in annotations.items():
        where = f"{path}, annotation {key}"
        image = images.get(_hashable(annotation["image_id"]))
        if image is None:
            raise InputError(f"{where}: there is no image {_short(annotation['image_id'])}")
        if _hashable(annotation["category_id"]) not in categories:
            raise InputError(f"{where}: unknown class, there is no category {_short(annotation['category_id'])}")
        if annotation["iscrowd"] not in (0, 1):
            raise InputError(f"{where}: expected an iscrowd of 0 or 1, found {_short(annotation['iscrowd'])}")
        if annotation.get("ignore"):
            raise InputError(f"{where}: `ignore` would leave it out; COCO's own mark is `iscrowd`")
        box = annotation["bbox"]
        numbers = [*(box if isinstance(box, list) else [box]), annotation["area"]]
        if len(numbers) != 5 or not all(_is_number(n) for n in numbers):
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


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {key!r} occurs twice in one object")
    return found


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 2**53
    return type(value) is float and math.isfinite(value)


def _hashable(value: Any) -> int | None:
    """An id, or None, which is nobody's."""
    return value if type(value) is int else None


def _short(value: Any) -> str:
    return repr(value)[:60]


def _by_id(rows: list, fields: tuple[str, ...], where: str) -> dict[Any, dict]:
    """Index a COCO table by ``id``.

    Raises:
        InputError: a row without one of ``fields``, or an id that is no integer or occurs twice.
    """
    table: dict[Any, dict] = {}
    for at, row in enumerate(rows):
        missing = [f for f in ("id", *fields) if not isinstance(row, dict) or f not in row]
        if missing:
            raise InputError(f"{where} number {at + 1} of the list: expected a field {missing[0]!r}")
        if type(row["id"]) is not int:
            raise InputError(
                f"{where} number {at + 1} of the list: expected an integer as id, found {_short(row['id'])}"
            )
        if row["id"] in table:
            raise InputError(f"{where} {row['id']}: this id occurs twice")
        table[row["id"]] = row
    return table


def _either(classes: tuple[str, ...]) -> str:
    return "one of " + ", ".join(classes)
