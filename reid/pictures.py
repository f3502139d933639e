"""Pictures of rankings: a query and the images that were ranked first, right and wrong marked."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from onebit.commons.files import write_atomic
from onebit.commons.images import read_image
from onebit.commons.progress import Progress
from onebit.reid.evaluation import Ranking, rankings
from onebit.reid.evaluation.options import Evaluation
from onebit.reid.features import Features

#: Width and height of an image in the picture, pixels; the shape of person crops.
CELL = (96, 192)
_GAP, _FRAME, _TITLE, _CAPTION = 10, 5, 24, 32
_RIGHT, _WRONG, _QUERY = (0, 150, 60), (215, 40, 40), (60, 60, 60)


def write_rankings(
    query: Features, gallery: Features, evaluation: Evaluation, root: Path, folder: Path, count: int = 20, top: int = 10
) -> list[Path]:
    """Draw the queries with the lowest and with the highest average precision, half and half.

    What the protocol leaves out (the query's identity under its own camera, junk) does not show.
    The plain ranking is drawn, re-ranked or not. Queries without a match are not valid and not
    drawn; of equal ones the first come first.

    Args:
        query, gallery: features with identities, cameras and image names.
        evaluation: distance and protocol.
        root: what the image names are relative to.
        folder: where ``worst_01_<query>.png``, ... and ``best_01_<query>.png``, ... are written.
        count: pictures at most; an odd one goes to the worst.
        top: images shown of a ranking.

    Returns:
        the files, worst first.

    Raises:
        InputError: an image cannot be read.
        WorkError: the folder cannot be written.
    """
    found = sorted(
        rankings(
            query.features,
            gallery.features,
            query.pids,
            gallery.pids,
            query.cameras,
            gallery.cameras,
            distance=evaluation.distance,
            protocol=evaluation.protocol,
            top=top,
        ),
        key=lambda ranking: ranking.average_precision,
    )
    worst = found[: math.ceil(count / 2)]
    best = found[len(worst) :][::-1][: count // 2]
    chosen = [("worst", n, r) for n, r in enumerate(worst, 1)]
    chosen += [("best", n, r) for n, r in enumerate(best, 1)]
    paths = []
    with Progress("pictures of rankings", total=len(chosen)) as progress:
        for kind, n, ranking in chosen:
            picture = draw_ranking(ranking, query, gallery, root)
            stem = re.sub(r"[^\w.-]", "_", Path(query.names[ranking.query]).stem)
            stream = io.BytesIO()
            picture.save(stream, format="PNG")
            paths.append(write_atomic(folder / f"{kind}_{n:02}_{stem}.png", stream.getvalue()))
            progress.advance()
    return paths


def draw_ranking(ranking: Ranking, query: Features, gallery: Features, root: Path) -> Image.Image:
    """The query framed in grey, then its ranking: right images framed in green, wrong ones in red.

    Under an image stand its distance and its identity and camera as the dataset's reader gives them.
    """
    cells = 1 + len(ranking.gallery)
    width = cells * (CELL[0] + 2 * _FRAME + _GAP) + 2 * _GAP
    picture = Image.new("RGB", (width, _TITLE + CELL[1] + 2 * _FRAME + _CAPTION + _GAP), "white")
    draw = ImageDraw.Draw(picture)
    n = ranking.query
    title = f"{query.names[n]}   AP {100 * ranking.average_precision:.1f} %"
    draw.text((_GAP, 5), title, fill="black", font=_font(13))
    _cell(picture, _GAP, root / query.names[n], _QUERY, ["query", _who(query, n)])
    for place, index in enumerate(ranking.gallery):
        right = ranking.right[place]
        _cell(
            picture,
            2 * _GAP + (place + 1) * (CELL[0] + 2 * _FRAME + _GAP),
            root / gallery.names[index],
            _RIGHT if right else _WRONG,
            [f"{ranking.distances[place]:.4g} {'right' if right else 'wrong'}", _who(gallery, index)],
        )
    return picture


def _who(images: Features, index: int) -> str:
    return f"id {images.pids[index]} cam {images.cameras[index]}"


def strip(query: Image.Image, ranking: Sequence[tuple[Path, float]], top: int = 10) -> Image.Image:
    """A query framed in grey, and the images that are nearest to it with their distances; nobody says which are right."""
    cells = 1 + len(ranking[:top])
    width = cells * (CELL[0] + 2 * _FRAME + _GAP) + 2 * _GAP
    picture = Image.new("RGB", (width, _TITLE + CELL[1] + 2 * _FRAME + _CAPTION + _GAP), "white")
    _cell(picture, _GAP, query, _QUERY, ["query"])
    for place, (path, distance) in enumerate(ranking[:top], start=1):
        _cell(
            picture, 2 * _GAP + place * (CELL[0] + 2 * _FRAME + _GAP), path, _QUERY, [f"{distance:.4g}", path.name[:18]]
        )
    return picture


def _cell(picture: Image.Image, left: int, path: Path | Image.Image, colour: tuple, caption: Sequence[str]) -> None:
    """One image, as large as fits, in a frame; lines of text underneath."""
    image = path if isinstance(path, Image.Image) else read_image(path)
    scale = min(CELL[0] / image.width, CELL[1] / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    box = (left, _TITLE, left + CELL[0] + 2 * _FRAME - 1, _TITLE + CELL[1] + 2 * _FRAME - 1)
    draw.rectangle(box, fill="white", outline=colour, width=_FRAME)
    offset = ((CELL[0] - size[0]) // 2, (CELL[1] - size[1]) // 2)
    picture.paste(image, (left + _FRAME + offset[0], _TITLE + _FRAME + offset[1]))
    for line, text in enumerate(caption):
        draw.text((left, box[3] + 3 + 14 * line), text, fill=colour, font=_font(12))


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)
