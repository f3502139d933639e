"""Labels in COCO's JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onebit.commons import guards
from onebit.commons.datasets.own.form import Box, Labels, Part, Picture, require_classes, require_corners
from onebit.commons.errors import InputError
from onebit.commons.labels import by_id, is_number, read_coco, require_name, whole_id

FORM = "coco:LABELS.json[,VAL.json][,PICTURES]"


def read(text: str) -> Labels:
    """Read ``LABELS.json[,VAL.json][,PICTURES]``; without ``PICTURES`` they are looked for beside each file.

    Raises:
        InputError: not of this form, or labels that are missing, malformed or contradictory.
    """
    words = [Path(word) for word in text.split(",")]
    files = [word for word in words if word.suffix.lower() == ".json"]
    folders = [word for word in words if word not in files]
    if not 1 <= len(files) <= 2 or len(folders) > 1 or words[: len(files)] != files:
        raise InputError(f"coco:{text}: expected {FORM}")
    counts: Counter[str] = Counter()
    parts, categories = [], None
    for path in files:
        found, part = _read(path, folders[0] if folders else None, counts)
        if categories not in (None, found):
            raise InputError(f"{path}: its categories are not those of {files[0]}")
        categories = found
        parts.append(part)
    stem = files[0].stem if len(files) == 1 and "annotations" not in files[0].stem else files[0].absolute().parent.name
    return Labels(categories or {}, parts[0], parts[1] if len(parts) > 1 else None, stem, counts)


def _read(path: Path, folder: Path | None, counts: Counter[str]) -> tuple[dict[int, str], Part]:
    content = read_coco(path)
    images = by_id(content["images"], ("file_name",), f"{path}, image")
    rows = by_id(content["categories"], ("name",), f"{path}, category")
    categories = {key: rows[key]["name"] for key in sorted(rows)}
    require_classes([*categories.values()], path)
    if not images:
        raise InputError(f"{path} lists no image")
    boxes: dict[int, list[Box]] = {key: [] for key in images}
    for key, row in by_id(content["annotations"], ("image_id", "category_id", "bbox"), f"{path}, annotation").items():
        where = f"{path}, annotation {key}"
        image, category = whole_id(row["image_id"]), whole_id(row["category_id"])
        if image is None or image not in images:
            raise InputError(f"{where}: there is no image {guards.shown(row['image_id'])}")
        if category is None or category not in categories:
            raise InputError(f"{where}: there is no category {guards.shown(row['category_id'])}")
        if row.get("ignore"):
            counts["boxes left out, marked ignore"] += 1
            continue
        boxes[image].append(_box(row, category, where))
    names = [_name(row, f"{path}, image {key}") for key, row in images.items()]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{path}: picture {twice[0]} is listed twice")
    pictures = tuple(
        Picture(name, f"{path}, image {key}", tuple(boxes[key]), _size(row, f"{path}, image {key}"), key)
        for name, (key, row) in zip(names, images.items(), strict=True)
    )
    return categories, Part(folder or _folder(path, pictures[0].name), pictures)


def _box(row: dict[str, Any], category: int, where: str) -> Box:
    box, area, crowd = row["bbox"], row.get("area"), row.get("iscrowd", 0)
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(n) for n in box):
        raise InputError(f"{where}: expected a bbox of x, y, width, height, found {guards.shown(box)}")
    if not (area is None or (is_number(area) and area >= 0)):
        raise InputError(f"{where}: expected an area in pixels, found {guards.shown(area)}")
    if crowd not in (0, 1):
        raise InputError(f"{where}: expected an iscrowd of 0 or 1, found {guards.shown(crowd)}")
    x, y, width, height = box
    if width < 0 or height < 0:
        raise InputError(f"{where}: expected a width and a height, found {width:g} and {height:g}")
    corners = require_corners((x, y, x + width, y + height), where)
    return Box(corners, category, where, bool(crowd), area or None)


def _name(row: dict[str, Any], where: str) -> str:
    if not isinstance(row["file_name"], str):
        raise InputError(f"{where}: expected a file_name, found {guards.shown(row['file_name'])}")
    require_name(row["file_name"], where)
    return row["file_name"]


def _size(row: dict[str, Any], where: str) -> tuple[int, int] | None:
    if row.get("width") is None and row.get("height") is None:
        return None
    width, height = (guards.whole(f"{where}: {side}", row.get(side), 1, 2**31) for side in ("width", "height"))
    return width, height


def _folder(path: Path, name: str) -> Path:
    """Where pictures lie: beside the labels, in ``images/`` there, or in a folder that is named after the split."""
    here = path.absolute().parent
    split = path.stem.removeprefix("instances_")
    looked: Iterable[Path] = (here, here / "images", here.parent / "images", here / split, here.parent / split)
    for folder in looked:
        if (folder / name).is_file():
            return folder
    raise InputError(
        f"{path}: its picture {name} is not in {', '.join(map(str, looked))}: name their folder, coco:{path},PICTURES"
    )
