"""The mini detection datasets: drawn objects on cluttered ground, in VOC's and COCO's own layout.

Five kinds of objects, each a silhouette with a texture of its own, in any two colours, partly over
each other, over a ground of colour gradients, blobs, bars and noise in the same colours: neither
colour nor contrast gives an object away. Everything follows from ``_SEED``.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw

from onebit.commons.files import write_atomic

SIZE = 96  # px, width and height of every image
_SEED = 20230805
_VOC_NAMES = ("aeroplane", "bottle", "car", "chair", "tvmonitor")
#: COCO's name and category id of the same kinds.
_COCO_NAMES = (("airplane", 5), ("bottle", 44), ("car", 3), ("chair", 62), ("tv", 72))
_COUNTS = {"VOC2007 trainval": 120, "VOC2012 trainval": 120, "VOC2007 test": 100, "train2017": 240, "val2017": 100}


@dataclass(frozen=True)
class _Object:
    """kind: index into the names; box: (x1, y1, x2, y2) in pixels, the far edges exclusive."""

    kind: int
    box: tuple[int, int, int, int]


def write_voc(folder: Path) -> None:
    """Write ``folder/VOCdevkit``: VOC2007 trainval and test, VOC2012 trainval, as PASCAL does."""
    for year, splits in (("2007", ("trainval", "test")), ("2012", ("trainval",))):
        root = Path(folder) / "VOCdevkit" / f"VOC{year}"
        first = 1
        for split in splits:
            count = _COUNTS[f"VOC{year} {split}"]
            names = [f"{i:06d}" if year == "2007" else f"2012_{i:06d}" for i in range(first, first + count)]
            rng = _generator(f"voc{year}{split}")
            for name in names:
                image, objects = _draw_scene(rng)
                write_atomic(root / "JPEGImages" / f"{name}.jpg", _jpeg(image))
                write_atomic(root / "Annotations" / f"{name}.xml", _voc_xml(name, year, objects))
            write_atomic(root / "ImageSets" / "Main" / f"{split}.txt", "\n".join(names) + "\n")
            first += count


def write_coco(folder: Path) -> None:
    """Write ``folder/annotations/instances_*2017.json``, ``train2017/`` and ``val2017/``."""
    folder = Path(folder)
    annotation_id = 0
    for split in ("train2017", "val2017"):
        rng = _generator(f"coco{split}")
        images, annotations = [], []
        for index in range(_COUNTS[split]):
            image_id = index + 1 + (10_000 if split == "val2017" else 0)
            file_name = f"{image_id:012d}.jpg"
            image, objects = _draw_scene(rng)
            write_atomic(folder / split / file_name, _jpeg(image))
            images.append(dict(id=image_id, file_name=file_name, width=SIZE, height=SIZE))
            for item in objects:
                annotation_id += 1
                x1, y1, x2, y2 = item.box
                annotations.append(
                    dict(
                        id=annotation_id,
                        image_id=image_id,
                        category_id=_COCO_NAMES[item.kind][1],
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        area=(x2 - x1) * (y2 - y1),
                        iscrowd=0,
                    )
                )
        categories = [dict(id=i, name=n) for n, i in sorted(_COCO_NAMES, key=lambda c: c[1])]
        content = dict(images=images, annotations=annotations, categories=categories)
        write_atomic(folder / "annotations" / f"instances_{split}.json", json.dumps(content))


def _generator(part: str) -> np.random.Generator:
    return np.random.default_rng([_SEED, *part.encode()])


def _draw_scene(rng: np.random.Generator) -> tuple[np.ndarray, list[_Object]]:
    """One image [SIZE, SIZE, 3] uint8 with one to three objects that overlap little."""
    canvas = _ground(rng)
    objects: list[_Object] = []
    for _ in range(int(rng.integers(1, 4))):
        for _ in range(20):
            width, height = (int(s) for s in rng.integers(26, 53, size=2))
            x, y = int(rng.integers(0, SIZE - width)), int(rng.integers(0, SIZE - height))
            box = (x, y, x + width, y + height)
            if all(_intersection(box, other.box) < 0.1 * width * height for other in objects):
                kind = int(rng.integers(len(_VOC_NAMES)))
                _draw_object(canvas, kind, box, rng)
                objects.append(_Object(kind, box))
                break
    noise = rng.normal(0, 8, canvas.shape)
    return np.clip(canvas + noise, 0, 255).astype(np.uint8), objects


def _intersection(a: tuple, b: tuple) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _ground(rng: np.random.Generator) -> np.ndarray:
    """A colour gradient with blobs and bars, [SIZE, SIZE, 3] float."""
    corners = rng.uniform(40, 215, size=(2, 2, 3))
    t = np.linspace(0, 1, SIZE)
    rows = corners[0][None] * (1 - t)[:, None, None] + corners[1][None] * t[:, None, None]
    image = rows[:, :1] * (1 - t)[None, :, None] + rows[:, 1:] * t[None, :, None]
    picture = Image.fromarray(image.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(6, 14))):
        colour = tuple(int(c) for c in rng.integers(30, 226, size=3))
        x, y = rng.integers(-8, SIZE, size=2)
        if rng.random() < 0.5:
            w, h = rng.integers(3, 16, size=2)
            draw.ellipse((int(x), int(y), int(x + w), int(y + h)), fill=colour)
        else:
            dx, dy = rng.integers(-40, 41, size=2)
            draw.line((int(x), int(y), int(x + dx), int(y + dy)), colour, int(rng.integers(1, 4)))
    return np.asarray(picture, dtype=float)


#: Silhouettes as polygons in the unit square; each touches all four sides, so that the box is tight.
_POLYGONS: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] = (
    # aeroplane: fuselage, swept wings, tail
    (
        ((0.42, 0), (0.58, 0), (0.58, 1), (0.42, 1)),
        ((0.5, 0.25), (1, 0.65), (1, 0.78), (0.5, 0.6)),
        ((0.5, 0.25), (0, 0.65), (0, 0.78), (0.5, 0.6)),
        ((0.5, 0.8), (0.75, 1), (0.25, 1)),
    ),
    # bottle: neck, shoulders, body
    (((0.36, 0), (0.64, 0), (0.64, 0.3), (1, 0.45), (1, 1), (0, 1), (0, 0.45), (0.36, 0.3)),),
    # car: cabin on a body; the wheels are cut by the sill
    (
        ((0.22, 0.0), (0.72, 0.0), (0.85, 0.42), (1, 0.48), (1, 0.82), (0, 0.82), (0, 0.42), (0.12, 0.42)),
        ((0.12, 0.7), (0.38, 0.7), (0.38, 1), (0.12, 1)),
        ((0.62, 0.7), (0.88, 0.7), (0.88, 1), (0.62, 1)),
    ),
    # chair: back, seat, two legs
    (
        ((0, 0), (0.2, 0), (0.2, 1), (0, 1)),
        ((0, 0.45), (1, 0.45), (1, 0.65), (0, 0.65)),
        ((0.8, 0.5), (1, 0.5), (1, 1), (0.8, 1)),
    ),
    # tvmonitor: screen and foot
    (
        ((0, 0), (1, 0), (1, 0.75), (0, 0.75)),
        ((0.42, 0.7), (0.58, 0.7), (0.58, 1), (0.42, 1)),
        ((0.2, 0.9), (0.8, 0.9), (0.8, 1), (0.2, 1)),
    ),
)


def _draw_object(canvas: np.ndarray, kind: int, box: tuple, rng: np.random.Generator) -> None:
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    mask_image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask_image)
    for polygon in _POLYGONS[kind]:
        draw.polygon([(px * (width - 1), py * (height - 1)) for px, py in polygon], fill=1)
    mask = np.asarray(mask_image, dtype=bool)
    if rng.random() < 0.5:
        mask = mask[:, ::-1]
    first, second = _two_colours(rng)
    texture = np.where(_texture(kind, height, width, rng)[..., None], first, second)
    region = canvas[y1:y2, x1:x2]
    region[mask] = texture[mask]


def _two_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours at least 90 apart in brightness."""
    while True:
        first, second = rng.uniform(10, 245, size=(2, 3))
        if abs(first.mean() - second.mean()) > 90:
            return first, second


def _texture(kind: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """[height, width] bool: where the first of the two colours goes."""
    y, x = np.mgrid[:height, :width]
    period = int(rng.integers(6, 9))
    if kind == 0:  # slanting stripes
        return (x + y) % period < period // 2
    if kind == 1:  # rings around the body
        return y % period < period // 2
    if kind == 2:  # plain, windows above
        return ~((y < 0.38 * height) & (y > 0.08 * height) & (np.abs(x - 0.47 * width) > 2))
    if kind == 3:  # chequered
        return (x // (period // 2) + y // (period // 2)) % 2 == 0
    edge = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, 0.75 * height - y))
    return edge < 4  # a frame around the screen


def _jpeg(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="JPEG", quality=92)
    return stream.getvalue()


def _voc_xml(name: str, year: str, objects: list[_Object]) -> bytes:
    """VOC's annotation of one image; its corners are 1-based and inclusive."""
    root = ElementTree.Element("annotation")
    _add(root, folder=f"VOC{year}", filename=f"{name}.jpg")
    _add(ElementTree.SubElement(root, "size"), width=SIZE, height=SIZE, depth=3)
    _add(root, segmented=0)
    for item in objects:
        node = ElementTree.SubElement(root, "object")
        _add(node, name=_VOC_NAMES[item.kind], pose="Unspecified", truncated=0, difficult=0)
        x1, y1, x2, y2 = item.box
        _add(ElementTree.SubElement(node, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root)
    return ElementTree.tostring(root)


def _add(parent: ElementTree.Element, **fields) -> None:
    for tag, value in fields.items():
        ElementTree.SubElement(parent, tag).text = str(value)
