"""Labels in PASCAL VOC's XML, one file a picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from onebit.commons import guards
from onebit.commons.datasets.own.form import PICTURES, Box, Labels, Part, Picture, require_classes, require_corners
from onebit.commons.errors import InputError
from onebit.commons.labels import read_text, read_xml, require_name, xml_integer, xml_number

FORM = "voc:FOLDER"
#: Folders that exporting programs write pictures and XML files into, side by side.
_SPLITS = (("train", "valid"), ("train", "val"), ("train", "test"))


def read(text: str) -> Labels:
    """Read a folder.

    It holds ``Annotations/*.xml`` and ``JPEGImages/``, and lists of names for the splits in
    ``ImageSets/Main/train.txt`` and ``val.txt`` (or ``trainval.txt`` and ``test.txt``) where there are any; or
    ``train/`` and ``valid/`` (``val/``, ``test/``) with pictures and XML files side by side; or these side by side
    in the folder itself.

    Raises:
        InputError: no such folder, or labels that are missing, malformed or contradictory.
    """
    folder = Path(text)
    if not folder.is_dir():
        raise InputError(f"voc:{text}: expected a folder, found {'a file' if folder.exists() else 'nothing'} there")
    names: dict[str, int] = {}
    sets = folder / "ImageSets" / "Main"
    if (folder / "Annotations").is_dir():
        lists = next(
            (
                pair
                for pair in (("train", "val"), ("trainval", "test"))
                if all((sets / f"{n}.txt").is_file() for n in pair)
            ),
            None,
        )
        chosen = [_listed(sets / f"{name}.txt") for name in lists] if lists else [_all(folder / "Annotations")]
        parts = [_part(folder, "Annotations", "JPEGImages", stems, names) for stems in chosen]
    else:
        split = next((pair for pair in _SPLITS if all((folder / name).is_dir() for name in pair)), (".",))
        parts = [_part(folder, name, name, _all(folder / name), names) for name in split]
    # Ids by the names' order, which no file of pictures can change.
    order = {kind: at for at, kind in enumerate(sorted(names), start=1)}
    require_classes([*order], folder)
    by_first = {first: order[kind] for kind, first in names.items()}
    train, *val = (_renumbered(part, by_first) for part in parts)
    categories = {key: kind for kind, key in order.items()}
    return Labels(categories, train, val[0] if val else None, folder.absolute().name)


def _all(folder: Path) -> list[str]:
    stems = sorted(path.stem for path in folder.glob("*.xml"))
    if not stems:
        raise InputError(f"{folder}: expected *.xml files of VOC's form, found none")
    return stems


def _listed(path: Path) -> list[str]:
    """The names in a list; VOC's own lists of one class have a mark behind each name."""
    stems = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    for at, stem in enumerate(stems, start=1):
        require_name(stem, f"{path}, line {at}")
    if twice := [stem for stem, count in Counter(stems).items() if count > 1]:
        raise InputError(f"{path}: picture {twice[0]} is listed twice")
    if not stems:
        raise InputError(f"{path} lists no picture")
    return stems


def _part(folder: Path, labels: str, pictures: str, stems: list[str], names: dict[str, int]) -> Part:
    here: dict[str, str] = {}
    for path in sorted((folder / pictures).glob("*")):
        if path.suffix.lower() in PICTURES:
            here.setdefault(path.stem, path.name)
    found = []
    for stem in stems:
        path = folder / labels / f"{stem}.xml"
        if stem not in here:
            raise InputError(f"{path}: picture missing: expected {folder / pictures / stem}.jpg, .png, ...")
        found.append(_picture(path, (Path(pictures) / here[stem]).as_posix(), names))
    return Part(folder.absolute(), tuple(found))


def _picture(path: Path, name: str, names: dict[str, int]) -> Picture:
    root = read_xml(path)
    size = None
    if root.find("size") is not None:
        size = (xml_integer(root, "size/width", path), xml_integer(root, "size/height", path))
    boxes = []
    for at, node in enumerate(root.findall("object"), start=1):
        where = f"{path}, object {at}"
        kind = (node.findtext("name") or "").strip()
        if not kind or node.find("bndbox") is None:
            raise InputError(f"{where}: expected a <name> and a <bndbox>")
        difficult = node.find("difficult") is not None and xml_integer(node, "difficult", where)
        if difficult not in (0, 1):
            raise InputError(f"{where}: expected 0 or 1 in <difficult>, found {guards.shown(difficult)}")
        x1, y1, x2, y2 = (xml_number(node, f"bndbox/{corner}", where) for corner in ("xmin", "ymin", "xmax", "ymax"))
        require_corners((x1, y1, x2, y2), where)
        # VOC counts pixels from 1 and its far edges are inclusive.
        category = names.setdefault(kind, len(names))
        boxes.append(Box((x1 - 1, y1 - 1, x2, y2), category, where, bool(difficult)))
    # Programs that do not know the size write 0.
    return Picture(name, str(path), tuple(boxes), size if size and min(size) > 0 else None)


def _renumbered(part: Part, ids: dict[int, int]) -> Part:
    return replace(
        part,
        pictures=tuple(
            replace(picture, boxes=tuple(replace(box, category=ids[box.category]) for box in picture.boxes))
            for picture in part.pictures
        ),
    )
