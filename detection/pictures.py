"""Pictures of detections: an image's objects at the left, what was detected at the right."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from onebit.commons.errors import InputError
from onebit.commons.files import write_atomic
from onebit.commons.images import open_image
from onebit.commons.progress import Progress
from onebit.detection.errors import CONFUSED, CORRECT, IGNORED, MISSED, Scene, Summary

#: The longer side of an image in a picture, pixels; small images are enlarged up to ``_LARGEST`` times.
SIDE, _LARGEST = 480, 5
_GAP, _TITLE, _LEGEND = 10, 22, 20
_GREEN, _RED, _ORANGE, _GREY = (0, 150, 60), (215, 40, 40), (235, 140, 0), (120, 120, 120)
#: Classes that a confusion matrix writes numbers for; of more, only colours.
_NUMBERED = 25


def write_scenes(scenes: Sequence[Scene], classes: Sequence[str], folder: Path, count: int) -> list[Path]:
    """Draw the images that were detected worst and best, half and half, by the F1 of the image.

    Args:
        scenes: matched.
        classes: names by label.
        folder: where ``worst_001_<image>.png``, ... and ``best_001_<image>.png``, ... are written.
        count: pictures at most; an odd one goes to the worst. Of equal ones the first come first.

    Returns:
        the files, worst first.

    Raises:
        InputError: an image cannot be read.
        WorkError: the folder cannot be written.
    """
    ordered = sorted(scenes, key=lambda scene: scene.quality)
    worst = ordered[: math.ceil(count / 2)]
    best = ordered[len(worst) :][::-1][: count // 2]
    chosen = [("worst", n, s) for n, s in enumerate(worst, 1)]
    chosen += [("best", n, s) for n, s in enumerate(best, 1)]
    paths = []
    with Progress("pictures of detections", total=len(chosen)) as progress:
        for kind, n, scene in chosen:
            stem = re.sub(r"[^\w.-]", "_", scene.name)
            stream = io.BytesIO()
            draw_scene(scene, classes).save(stream, format="PNG")
            paths.append(write_atomic(folder / f"{kind}_{n:03}_{stem}.png", stream.getvalue()))
            progress.advance()
    return paths


def draw_scene(scene: Scene, classes: Sequence[str]) -> Image.Image:
    """Objects: green where found, orange where confused, red where missed, grey where not to count.
    Detections: green where correct, grey where ignored, else red with what is wrong in words.
    """
    image = _read(scene.path)
    scale = min(SIDE / max(image.size), _LARGEST)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    image = image.resize(size, Image.Resampling.BICUBIC)
    width = max(2 * size[0] + 3 * _GAP, 560)
    picture = Image.new("RGB", (width, _TITLE + size[1] + _LEGEND + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    counted, correct = int(scene.counts.sum()), scene.kinds.count(CORRECT)
    left, right = _GAP, size[0] + 2 * _GAP
    draw.text((left, 4), f"{scene.name}: {counted} object{'s' * (counted != 1)}", fill="black", font=_font(12))
    draw.text((right, 4), f"{len(scene.found)} detected, {correct} correct", fill="black", font=_font(12))

    objects = image.copy()
    for box, label, counts, fate in zip(scene.boxes, scene.labels, scene.counts, scene.fates, strict=True):
        kind = IGNORED if not counts else MISSED if fate < 0 else scene.kinds[fate]
        colour = {IGNORED: _GREY, MISSED: _RED, CONFUSED: _ORANGE}.get(kind, _GREEN)
        _box(objects, box * scale, colour, classes[label])
    picture.paste(objects, (left, _TITLE))
    found = image.copy()
    for box, label, score, kind in reversed(
        list(zip(scene.found, scene.found_labels, scene.scores, scene.kinds, strict=True))
    ):
        colour = {CORRECT: _GREEN, IGNORED: _GREY}.get(kind, _RED)
        remark = "" if kind == CORRECT else f" {kind}"
        _box(found, box * scale, colour, f"{classes[label]} {score:.2f}{remark}")
    picture.paste(found, (right, _TITLE))
    _legend(draw, (left, _TITLE + size[1] + 6))
    return picture


def draw_boxes(image: Image.Image, boxes: Sequence[Mapping[str, Any]]) -> Image.Image:
    """The image with boxes, the surest on top; each has ``class``, ``label``, ``score`` and ``bbox`` (x, y, w, h)."""
    scale = max(1.0, min(SIDE / max(image.size), _LARGEST))
    picture = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    for box in reversed(boxes):
        x, y, width, height = (value * scale for value in box["bbox"])
        # Neighbouring labels get hues that are far apart: steps of the golden angle.
        hue = round(box["label"] * 137.508) % 360
        colour = ImageColor.getrgb(f"hsl({hue}, 75%, 38%)")
        _box(picture, np.array([x, y, x + width, y + height]), colour, f"{box['class']} {box['score']:.2f}")
    return picture


def _read(path: Path) -> Image.Image:
    try:
        with open_image(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")  # as MMDetection reads it
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"unreadable image: {path} ({error})") from error


def _box(image: Image.Image, box: np.ndarray, colour: tuple, text: str) -> None:
    draw = ImageDraw.Draw(image)
    x1, y1, x2, y2 = (float(v) for v in box)
    draw.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=colour, width=2)
    font = _font(11)
    width, height = draw.textbbox((0, 0), text, font=font)[2:]
    # Above the box where there is room, and always inside the image.
    x = max(0.0, min(x1, image.width - width - 4))
    y = y1 - height - 3 if y1 - height - 3 >= 0 else min(max(y1, 0.0), image.height - height - 3)
    draw.rectangle((x, y, x + width + 3, y + height + 2), fill=colour)
    draw.text((x + 2, y), text, fill="white", font=font)


def _legend(draw: ImageDraw.ImageDraw, at: tuple[int, int]) -> None:
    x, y = at
    for colour, text in (
        (_GREEN, "found, correct"),
        (_ORANGE, "taken for another class"),
        (_RED, "missed, wrong"),
        (_GREY, "not to count"),
    ):
        draw.rectangle((x, y + 2, x + 10, y + 12), fill=colour)
        draw.text((x + 14, y), text, fill="black", font=_font(11))
        x += 24 + int(draw.textlength(text, font=_font(11)))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def write_confusion(summary: Summary, path: Path) -> Path:
    """The confusion matrix in colours: each row in shares of the class's objects (the last row: of
    the detections on nothing), with the counts written into it where there are few classes.

    Classes that neither occur nor were detected are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = summary.confusion
    used = (matrix.sum(0) + matrix.sum(1)) > 0
    used[-1] = True
    matrix = matrix[np.ix_(used, used)]
    names = [name for name, shown in zip(summary.classes, used, strict=False) if shown]
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(4.0, 1.8 + 0.42 * len(matrix))
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(matrix))
    axes.set_xticks(ticks, [*names, "missed"], rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [*names, "no object"])
    axes.set_xlabel("detected as")
    axes.set_ylabel("object")
    axes.set_title(f"{summary.images} images, score from {summary.score:g}", fontsize=10)
    if len(matrix) <= _NUMBERED:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if shares[row, column] > 0.6 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(picture, label="share of the row", shrink=0.8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return write_atomic(path, stream.getvalue())
