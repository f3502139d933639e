"""Trained networks on pictures, whatever their task: what `onebit predict` and `onebit.load` do."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.task import Predictor
from onebit.leaderboards.boards import runner

#: Endings of pictures that are taken from folders, and of videos.
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


class Loaded:
    """A network that was trained, with its preparation of images; :func:`load` makes it.

    Attributes:
        task: ``classification``, ``detection`` or ``reid``.
        predictor: of the task.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.task = predictor, predictor.task

    def __call__(self, image: Any) -> dict[str, Any]:
        """What the network says of an image.

        Args:
            image: a path, a Pillow image, or an array uint8 [H, W, 3] in the order red, green, blue.

        Returns:
            of a classifier ``classes``, the likeliest first, each a dict with ``class`` and ``score``; of a detector
            ``boxes``, the surest first, each with ``class``, ``label``, ``category_id`` (the class's id in the labels
            of the training data), ``score`` and ``bbox`` (x, y, width, height in pixels); of a re-ID network ``features``, a list of numbers.

        Raises:
            InputError: an image that cannot be read, or an array of another form.
        """
        return self.predictor(self.as_array(image))

    def draw(self, image: Any, result: dict[str, Any]) -> Any:
        """The image with a result of it, as a Pillow image."""
        return self.predictor.draw(self.as_array(image), result)

    def as_array(self, image: Any) -> Any:
        """An image of any kind that is taken, as uint8 [H, W, 3]."""
        import numpy as np
        from PIL import Image

        if isinstance(image, str | Path):
            return self.predictor.read(image)
        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
            raise InputError(f"expected a path, a Pillow image, or an array uint8 [H, W, 3], found {found}")
        return image


def load(path: str | Path, packed: bool = False, config: str | Path | None = None) -> Loaded:
    """A trained network, ready for images: ``onebit.load("run/epoch_10.pth")("cat.jpg")``.

    Args:
        path: a checkpoint that this suite wrote, of any task, or a packed file (``.safetensors``).
        packed: run a checkpoint's network with 1-bit kernels, on the CPU.
        config: of a detector that was trained by a config of one's own: this config, which is run.

    Raises:
        InputError: not such a file, one that does not say its classes, or ``packed`` and no 1-bit network.
    """
    path = guards.file("checkpoint or packed file", path)
    if packed and path.suffix == ".safetensors":
        packed = False  # it is
    return Loaded(runner(task_of(path)).predictor(path, packed, Path(config) if config else None))


def task_of(path: Path) -> str:
    """The task that a checkpoint or packed file is of.

    Raises:
        InputError: neither of the two.
    """
    from onebit.commons.checkpoint_reader import read_checkpoint
    from onebit.commons.checkpoints import ROW
    from onebit.commons.task import TASKS

    if path.suffix == ".safetensors":
        from onebit.backbones.packed import about_of

        about = about_of(path)
        return (
            guards.choice(f"{path}: its task", about["row"].get("task"), TASKS) if "row" in about else "classification"
        )
    content = read_checkpoint(path)
    row = content.get(ROW) if isinstance(content, dict) else None
    if not isinstance(row, dict):
        return "reid"  # whose reader says what is wrong with any other file
    return guards.choice(f"{path}: its task", row.get("task"), TASKS)


def trained_on(path: Path) -> str | None:
    """The dataset that a checkpoint of this suite states, empty where its config names the data; None for other files.

    Raises:
        InputError: it states no name of a dataset. Labels (``coco:...``) are no name: no file chooses what is read.
    """
    from onebit.commons.checkpoint_reader import read_checkpoint
    from onebit.commons.checkpoints import ROW
    from onebit.commons.datasets import is_name

    content = read_checkpoint(path)
    row = content.get(ROW, content.get("config")) if isinstance(content, dict) else None
    name = row.get("dataset") if isinstance(row, dict) else None
    if name is None or (name == "" and "config" in row):
        return name
    if not isinstance(name, str) or not is_name(name):
        raise InputError(f"{path}: its dataset is {guards.shown(name)}: expected a name")
    return name


@dataclass(frozen=True)
class Source:
    """One picture, or one frame of a video or camera.

    Attributes:
        name: for people and results: a path, or ``VIDEO#FRAME``.
        image: a path, or the frame as uint8 [H, W, 3].
        video: the video or camera that a frame is of; empty for pictures.
        rate: frames per second of the video.
    """

    name: str
    image: Any
    video: str = ""
    rate: float = 0.0


def sources(words: Iterable[str], frames: int | None = None) -> Iterator[Source]:
    """The pictures that words name, in order.

    Args:
        words: a picture, a folder (all pictures below it), a pattern with ``*``, ``-`` (paths on standard input, one
            a line), a video, or the number of a camera.
        frames: of a video or camera, at most.

    Raises:
        InputError: nothing there, or a video or camera that cannot be opened.
    """
    for word in words:
        path = Path(word)
        if word == "-":
            yield from sources((line.strip() for line in sys.stdin if line.strip()), frames)
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES)
            if not found:
                raise InputError(f"expected pictures ({', '.join(PICTURES)}) below {path}, found none")
            yield from (Source(str(p), p) for p in found)
        elif path.suffix.lower() in VIDEOS and path.is_file():
            yield from _frames(word, word, frames)
        elif path.is_file():
            yield Source(word, path)
        elif word.isdecimal() and word.isascii():
            yield from _frames(int(word), f"camera{word}", frames)
        elif glob.has_magic(word):
            found = sorted(Path(p) for p in glob.glob(word, recursive=True) if Path(p).is_file())
            if not found:
                raise InputError(f"no file is named like {word}")
            yield from (Source(str(p), p) for p in found)
        else:
            raise InputError(f"there is no picture, folder or video {word}")


def _frames(opened: str | int, name: str, most: int | None) -> Iterator[Source]:
    import cv2

    video = cv2.VideoCapture(opened)
    try:
        if not video.isOpened():
            raise InputError(f"{name} cannot be opened as a {'camera' if isinstance(opened, int) else 'video'}")
        rate = video.get(cv2.CAP_PROP_FPS)
        at = 0
        while most is None or at < most:
            there, frame = video.read()
            if not there:
                break
            at += 1
            yield Source(f"{name}#{at}", frame[..., ::-1].copy(), name, rate if rate > 0 else 25.0)
        if not at:
            raise InputError(f"{name} has no frame that can be read")
    finally:
        video.release()
