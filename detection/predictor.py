"""A trained detector on any image: boxes with classes and scores."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.model import BaseModel
from PIL import Image

from onebit.backbones import deploy
from onebit.backbones import packed as packed_files
from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.checkpoints import ROW, load_row, load_weights, require_fit, require_row, row_of
from onebit.commons.engine import config_errors
from onebit.commons.errors import InputError
from onebit.commons.images import open_image
from onebit.commons.task import Job
from onebit.detection import pretrained
from onebit.detection.checks import classes_of, leaves
from onebit.detection.config import FILE_OPTIONS, build_config
from onebit.detection.pictures import draw_boxes
from onebit.detection.user_config import config_of_row, test_pipeline


class Predictor:
    """Boxes of an image.

    Args:
        detector: built and loaded.
        classes: their names, in the order of the labels.
        pipeline: of MMDetection, as for scoring.
        category_ids: what the labels of the training data call the classes; empty for 1, 2, ...
    """

    task = "detection"

    def __init__(
        self, detector: BaseModel, classes: tuple[str, ...], pipeline: list[dict], category_ids: Sequence[int] = ()
    ) -> None:
        self.detector, self.classes = detector.eval(), classes
        self.category_ids = tuple(category_ids) or tuple(range(1, len(classes) + 1))
        steps = [
            step for step in copy.deepcopy(pipeline) if step["type"] not in ("LoadAnnotations", "LoadImageFromFile")
        ]
        self.pipeline = Compose([dict(type="mmdet.LoadImageFromNDArray"), *steps])

    def read(self, path: str | Path) -> np.ndarray:
        """An image as MMDetection loads it: uint8 [H, W, 3], RGB, turned as EXIF asks for."""
        try:
            with open_image(path):
                pass
            return np.ascontiguousarray(mmcv.imread(str(path), channel_order="rgb"))
        except Exception as error:  # a decoder may raise anything at a broken file
            raise InputError(f"expected an image that can be read, found {path}: {error}") from error

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """``boxes``: the surest first, each a dict with ``class``, ``label``, ``category_id``, ``score`` and ``bbox``.

        ``bbox`` is COCO's x, y, width, height in pixels of the image; ``category_id`` is the user's own.
        """
        item = self.pipeline(dict(img=np.ascontiguousarray(image[..., ::-1]), img_id=0))
        with torch.inference_mode():
            found = self.detector.test_step(dict(inputs=[item["inputs"]], data_samples=[item["data_samples"]]))[0]
        instances = found.pred_instances.cpu()
        boxes = []
        for (x1, y1, x2, y2), label, score in zip(
            instances.bboxes.tolist(), instances.labels.tolist(), instances.scores.tolist(), strict=True
        ):
            named = {"class": self.classes[label], "label": label, "category_id": self.category_ids[label]}
            boxes.append({**named, "score": score, "bbox": [x1, y1, x2 - x1, y2 - y1]})
        return {"boxes": sorted(boxes, key=lambda box: -box["score"])}

    def draw(self, image: np.ndarray, result: Mapping[str, Any]) -> Image.Image:
        """The image with its boxes, each class in a colour of its own."""
        return draw_boxes(Image.fromarray(image), result["boxes"])


def counted(result: Mapping[str, Any]) -> str:
    """A result in words: ``2 cat, 1 dog``."""
    counts = Counter(box["class"] for box in result["boxes"])
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"


def predictor(path: Path, packed: bool = False, config: Path | None = None) -> Predictor:
    """The detector of a checkpoint, for images; its data need not be at hand.

    Args:
        path: a checkpoint of :func:`onebit.detection.runner.train`, or of one's own config; or what :func:`pack` made.
        packed: run a checkpoint's network on packed bits, on the CPU.
        config: the config that the checkpoint was trained by, where it was not a recipe of the suite. It is Python,
            and it is run.

    Raises:
        InputError: not such a file, one that does not say its classes, or ``packed`` and no 1-bit network.
    """
    if Path(path).suffix == ".safetensors":
        made: list[_Described] = []

        def build(stated: dict[str, Any]) -> Callable[[], BaseModel]:
            made.append(_described(row_of({ROW: stated}, path), path, config))
            return made[0].build

        detector, _ = packed_files.load(path, build)
        return made[0].predictor(detector)
    row, weights = load_row(path)
    described = _described(row, path, config)
    detector = described.loaded(weights, path)
    return described.predictor(deploy(detector) if packed else detector.to(get_device()))


def pack(checkpoint: Path, file: Path, real: str = "float32") -> Path:
    """Write a whole detector on packed bits, for :func:`predictor`.

    Args:
        checkpoint: of :func:`onebit.detection.runner.train`.
        file: ends in ``.safetensors``.
        real: see :func:`onebit.backbones.packed.save`.

    Raises:
        InputError: not such a checkpoint, one of a config of one's own, or no 1-bit network.
    """
    row, weights = load_row(checkpoint)
    described = _described(row, checkpoint, None)
    stated = {
        **read_checkpoint(checkpoint)[ROW],
        "classes": list(described.classes),
        "num_classes": len(described.classes),
    }
    detector = described.loaded(weights, checkpoint)
    return packed_files.save(deploy(detector), {"row": stated}, file, real, described.build)


@dataclass(frozen=True)
class _Described:
    """What a row says of its detector."""

    model: Mapping[str, Any]
    classes: tuple[str, ...]
    pipeline: list[dict]
    category_ids: tuple[int, ...]

    def predictor(self, detector: BaseModel) -> Predictor:
        return Predictor(detector, self.classes, self.pipeline, self.category_ids)

    def build(self) -> BaseModel:
        with config_errors():
            return MODELS.build(copy.deepcopy(self.model))

    def loaded(self, weights: dict, origin: str | Path) -> BaseModel:
        with torch.device("meta"):
            require_fit(self.build(), weights, origin)
        detector = self.build()
        load_weights(detector, weights, origin)
        return detector


def _described(row: Mapping[str, Any], path: Path, config: Path | None) -> _Described:
    """The detector that a checked row is of; ``config`` is the user's own."""
    register_all_modules(init_default_scope=True)
    ids = tuple(row.get("category_ids", ()))
    if "config" in row:
        if not config:
            raise InputError(f"{path} was trained by a config of its own: name it with --config {row['config']}")
        cfg = config_of_row(config, row, {})
        if not row.get("classes"):
            raise InputError(f"{path} does not say its classes: train it again with this version")
        return _Described(cfg.model, tuple(row["classes"]), list(test_pipeline(cfg) or []), ids)
    if config:
        raise InputError(f"{path} was trained by recipe {row.get('recipe')}: leave out --config")
    require_row(path, dict(row), "dataset", "backbone", "recipe", "seed")
    job = Job(
        dataset=row["dataset"],
        backbone=row["backbone"],
        recipe=row["recipe"],
        seed=row["seed"],
        data_root=Path(),
        work_dir=Path(path).parent,
        recorded=row["cfg_options"].taken(FILE_OPTIONS),
    )
    cfg = build_config(job, Path(), row.get(pretrained.OPTION), row.get("classes"))
    leaf = next(leaves(cfg.test_dataloader.dataset))
    return _Described(cfg.model, tuple(row.get("classes") or classes_of(leaf)), list(leaf.pipeline), ids)
