"""A trained re-ID network on any image: its features, and which images of a gallery are nearest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

from onebit import backbones
from onebit.backbones import packed as packed_files
from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.images import read_image
from onebit.reid.checkpoint import load_checkpoint
from onebit.reid.evaluation.distances import check_distance, distance_chunks, prepared
from onebit.reid.features import features_of
from onebit.reid.pictures import strip
from onebit.reid.recipe import saved_config
from onebit.reid.runner import build_model, trained_model
from onebit.reid.torchreid_adapter import test_transform


class Predictor:
    """Features of an image, and rankings by them.

    Args:
        model: images to features.
        size: height and width in pixels that crops are stretched to.
        flip: whether features are of the image and its mirror image together.
        distance: of :mod:`onebit.reid.evaluation.distances`.
    """

    task = "reid"

    def __init__(self, model: torch.nn.Module, size: tuple[int, int], flip: bool, distance: str) -> None:
        self.model, self.flip, self.distance = model.eval(), flip, distance
        self.transform = test_transform(*size)
        self.device = next(iter(model.state_dict().values())).device

    def read(self, path: str | Path) -> np.ndarray:
        """An image as for training: uint8 [H, W, 3], RGB, as it lies in the file."""
        return np.asarray(read_image(path))

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """``features``: the numbers by which images are compared."""
        with torch.inference_mode():
            pixels = self.transform(Image.fromarray(image))[None].to(self.device)
            found = features_of(self.model, pixels, self.flip)[0]
        return {"features": found.float().cpu().tolist()}

    def rank(self, query: dict[str, Any], gallery: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
        """Positions in ``gallery`` with their distances, the nearest first; results of :meth:`__call__`."""
        one = np.asarray([query["features"]], np.float32)
        many = np.asarray([entry["features"] for entry in gallery], np.float32)
        both = prepared(one, many, self.distance)
        (row,) = np.concatenate(list(distance_chunks(both[:1], both[1:], self.distance)))
        return [(int(at), float(row[at])) for at in np.argsort(row, kind="stable")]

    def draw(self, image: np.ndarray, result: dict[str, Any]) -> Image.Image:
        """The query and the nearest images: ``ranking`` has dicts with ``file_name`` and ``distance``."""
        return strip(Image.fromarray(image), [(Path(r["file_name"]), r["distance"]) for r in result.get("ranking", [])])


def predictor(path: Path, packed: bool = False, config: Path | None = None) -> Predictor:
    """The network of a checkpoint, for images.

    Args:
        path: a checkpoint of :func:`onebit.reid.runner.train`, or what :func:`pack` made of one.
        packed: run a checkpoint's network on packed bits, on the CPU.
        config: not of re-ID.

    Raises:
        InputError: not such a checkpoint, or ``packed`` and no 1-bit network.
    """
    if config:
        raise InputError("--config is for detectors that were trained by a config of their own")
    if Path(path).suffix == ".safetensors":
        made: list[Config] = []

        def build(stated: dict[str, Any]) -> Callable[[], torch.nn.Module]:
            made.append(_config(stated, path))
            return _builder(made[0], stated)

        model, _ = packed_files.load(path, build)
        cfg = made[0]
    else:
        state = load_checkpoint(Path(path))
        cfg = _config(state, path)
        model = trained_model(cfg, state, Path(path))
        if packed:
            model = backbones.deploy(model.cpu())
    check_distance(cfg.evaluation.distance)
    return Predictor(model, (cfg.height, cfg.width), cfg.flip_features, cfg.evaluation.distance)


def pack(checkpoint: Path, file: Path, real: str = "float32") -> Path:
    """Write a whole re-ID network on packed bits, for :func:`predictor`.

    Args:
        checkpoint: of :func:`onebit.reid.runner.train`.
        file: ends in ``.safetensors``.
        real: see :func:`onebit.backbones.packed.save`.

    Raises:
        InputError: not such a checkpoint, or no 1-bit network.
    """
    state = load_checkpoint(Path(checkpoint))
    cfg = _config(state, checkpoint)
    model = backbones.deploy(trained_model(cfg, state, Path(checkpoint)).cpu())
    stated = {"task": "reid", "config": state["config"], "num_classes": state["num_classes"]}
    return packed_files.save(model, {"row": stated}, file, real, _builder(cfg, stated))


def _config(stated: dict[str, Any], path: Path) -> Config:
    cfg, _ = saved_config(stated.get("config"), Path(path))
    guards.whole(f"{path}: num_classes", stated.get("num_classes"), 1, 2**20)
    return cfg


def _builder(cfg: Config, stated: dict[str, Any]) -> Callable[[], torch.nn.Module]:
    return functools.partial(build_model, cfg, stated["num_classes"], on_gpu=False)
