"""The one form that labels of all programs are brought into, and how pictures and boxes are checked on the way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.images import open_image

#: A box may stand out of its picture by so many pixels without being counted: programs count pixels from 0 or 1.
TOLERANCE = 1.0
#: How the four orientations of EXIF that swap width and height move a point of a stored picture of (width, height).
_TURNS = {
    5: lambda x, y, width, height: (y, x),
    6: lambda x, y, width, height: (height - y, x),
    7: lambda x, y, width, height: (height - y, width - x),
    8: lambda x, y, width, height: (y, width - x),
}
_ORIENTATION = 0x0112
#: Orientations of EXIF that show a picture in another way than it is stored.
TURNED = range(2, 9)
#: Pillow's modes to what `checked` calls them.
_MODES = {"1": "gray", "L": "gray", "LA": "gray", "CMYK": "CMYK", "P": "with a palette", "RGBA": "with transparency"}
#: Endings of pictures beside labels that do not name them.
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Box:
    """One object.

    Attributes:
        corners: x1, y1, x2, y2 in pixels from the picture's upper left corner, far edges exclusive.
        category: key of :attr:`Labels.categories`.
        where: file and entry, for messages.
        crowd: whether it is not to count (COCO's ``iscrowd``, VOC's ``difficult``).
        area: in pixels, where the labels say it.
    """

    corners: tuple[float, float, float, float]
    category: int
    where: str
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class Picture:
    """One picture with its objects.

    Attributes:
        name: its path below :attr:`Part.folder`.
        where: file and entry that list it, for messages.
        boxes: its objects; :meth:`Part.looked_at` leaves those that can be used.
        size: width and height in pixels as the labels say, and as the picture is shown after
            :meth:`Part.looked_at`; None where the labels are silent.
        key: the id that results name it by; None for one that is counted.
        relative: whether ``boxes`` are in fractions of width and height.
    """

    name: str
    where: str
    boxes: tuple[Box, ...]
    size: tuple[int, int] | None = None
    key: int | None = None
    relative: bool = False


@dataclass(frozen=True)
class Part:
    """The pictures of one split, all below ``folder``."""

    folder: Path
    pictures: tuple[Picture, ...]

    def looked_at(self, counts: Counter[str]) -> Part:
        """The same with the size of every picture as it is shown, and only boxes that lie in it.

        Boxes refer to a picture as it is shown, with the turn that EXIF asks for, as MMDetection loads it. Where
        the labels state the width and height of the unturned one, the boxes are turned too. Boxes that stick out
        are clipped; those beside the picture, or thinner than a pixel, are left out. ``counts`` gets all of that.

        Raises:
            InputError: a picture that is missing, cannot be read, or has another size than its labels say.
        """
        return replace(self, pictures=tuple(_looked_at(self.folder, picture, counts) for picture in self.pictures))


@dataclass(frozen=True)
class Labels:
    """What a reader makes of label files.

    Attributes:
        categories: id to name, in the order of the classes.
        train: the pictures to train on, or all there are.
        val: the pictures to score; None where a rule has to choose them.
        title: how the data is called, for names and messages.
        counts: what was met while reading.
    """

    categories: dict[int, str]
    train: Part
    val: Part | None
    title: str
    counts: Counter[str] = field(default_factory=Counter)


def require_corners(corners: Sequence[float], where: str) -> tuple[float, float, float, float]:
    """Four numbers as corners.

    Raises:
        InputError: not finite, or of negative width or height.
    """
    x1, y1, x2, y2 = corners
    if not all(math.isfinite(c) for c in corners) or x2 < x1 or y2 < y1:
        text = ", ".join(f"{c:g}" for c in corners)
        raise InputError(f"{where}: expected a box with x1 <= x2 and y1 <= y2, found ({text})")
    return x1, y1, x2, y2


def require_classes(names: Collection[str], where: str | Path) -> None:
    """Raise InputError where class names are empty, not texts, or there twice."""
    for name in names:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"{where}: expected a name of a class, found {guards.shown(name)}")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{where}: class {guards.shown(twice)} is there twice")


def kind_of(image: Image.Image) -> tuple[str | None, int]:
    """How `checked` calls what is unusual about an opened picture's mode, and its orientation in EXIF (1: as it is)."""
    kind = "16-bit" if image.mode.startswith(("I", "F")) else _MODES.get(image.mode)
    return kind, image.getexif().get(_ORIENTATION, 1)


def _looked_at(folder: Path, picture: Picture, counts: Counter[str]) -> Picture:
    path = folder / picture.name
    if not path.is_file():
        raise InputError(f"{picture.where}: picture missing: expected {path}")
    try:
        with open_image(path) as image:
            stored, (kind, orientation) = image.size, kind_of(image)
    except Exception as error:  # a decoder may raise anything at a broken file
        raise InputError(f"{picture.where}: unreadable picture {path} ({error})") from error
    counts.update(f"pictures {kind}" for _ in range(kind is not None))
    counts["pictures turned by EXIF"] += orientation in TURNED
    counts["pictures without boxes"] += not picture.boxes
    shown = stored[::-1] if orientation in _TURNS else stored
    turn = picture.size == stored != shown
    if picture.size not in (None, shown) and not turn:
        raise InputError(
            f"{picture.where} says {picture.name} has {picture.size[0]} x {picture.size[1]} pixels; "
            f"found {shown[0]} x {shown[1]}"
        )
    counts["pictures whose boxes were of the unturned picture"] += turn
    boxes = []
    for box in picture.boxes:
        corners: tuple[float, ...] = box.corners
        if picture.relative:
            corners = tuple(c * side for c, side in zip(corners, (*shown, *shown), strict=True))
        if turn:
            corners = _turned(corners, _TURNS[orientation], stored)
        kept = _clipped(box, corners, shown, counts)
        boxes += [kept] if kept else []
    return replace(picture, size=shown, boxes=tuple(boxes), relative=False)


def _turned(corners, turn, size: tuple[int, int]) -> tuple[float, float, float, float]:
    xs, ys = zip(*(turn(x, y, *size) for x, y in (corners[:2], corners[2:])), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _clipped(box: Box, corners, size: tuple[int, int], counts: Counter[str]) -> Box | None:
    """The part of a box in its picture; None where too little is left."""
    width, height = size
    x1, y1, x2, y2 = corners
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
        thin = x2 - x1 < 1 or y2 - y1 < 1
        counts["boxes left out, " + ("thinner than a pixel" if thin else "outside their picture")] += 1
        return None
    out = min(x1, y1) < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE
    counts["boxes clipped"] += out
    counts["boxes not to count (crowd, difficult)"] += box.crowd
    return replace(box, corners=inside, area=box.area if inside == tuple(corners) else None)
