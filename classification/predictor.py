"""A trained classifier on any image: what it takes the image for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from onebit import backbones
from onebit.backbones import packed as packed_files
from onebit.backbones.classifier import Classifier
from onebit.backbones.file_schema import named_backbone
from onebit.commons import guards
from onebit.commons.checkpoints import load_row, load_weights, require_fit, require_row
from onebit.commons.compat import ensure_torchvision
from onebit.commons.errors import InputError
from onebit.commons.images import read_image, write_on

ensure_torchvision()

# ruff: isort: split
from torchvision.transforms import v2

#: What a checkpoint and a packed file say of how images are prepared.
IMAGES = {"size": int, "small": bool, "gray": bool, "mean": list, "std": list}


class Predictor:
    """Classes of an image with their scores.

    Args:
        network: images [N, 3, H, W] to logits [N, classes].
        classes: their names.
        images: see :data:`IMAGES`.
        top: how many classes a result has at most.
    """

    task = "classification"

    def __init__(self, network: nn.Module, classes: list[str], images: Mapping[str, Any], top: int = 5) -> None:
        self.network, self.classes, self.images, self.top = network.eval(), classes, images, top
        self.device = next(iter(network.state_dict().values())).device
        self.mean, self.std = (torch.tensor(images[key]).view(1, 3, 1, 1) for key in ("mean", "std"))

    def read(self, path: str | Path) -> np.ndarray:
        """An image as for training: uint8 [H, W, 3], RGB, as it lies in the file."""
        return np.asarray(read_image(path))

    def prepared(self, image: np.ndarray) -> Tensor:
        """An image as the network takes it: float [1, 3, size, size], normalized.

        Networks for small images were trained on square ones: a square image is averaged over areas, as in
        training, of any other the middle is taken. Others are cut as ImageNet's are scored.
        """
        size = self.images["size"]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        if not self.images["small"]:
            pixels = v2.CenterCrop(size)(v2.functional.to_pil_image(pixels).resize(_scaled(pixels, size * 8 // 7)))
            pixels = v2.functional.pil_to_tensor(pixels)
        elif pixels.shape[1] == pixels.shape[2] != size:
            pixels = F.interpolate(pixels[None].float(), (size, size), mode="area").round().to(torch.uint8)[0]
        elif pixels.shape[1:] != (size, size):
            pixels = v2.CenterCrop(size)(v2.Resize(size, antialias=True)(pixels))
        if self.images["gray"]:
            pixels = v2.Grayscale(3)(pixels)
        return (pixels[None].float() - self.mean) / self.std

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """``classes``: the likeliest first, each a dict with ``class`` and ``score``, its softmax."""
        with torch.inference_mode():
            scores = self.network(self.prepared(image).to(self.device))[0].float().softmax(0).cpu()
        found = scores.topk(min(self.top, len(scores)))
        return {
            "classes": [
                {"class": self.classes[at], "score": float(score)}
                for score, at in zip(found.values, found.indices, strict=True)
            ]
        }

    def draw(self, image: np.ndarray, result: Mapping[str, Any]) -> Image.Image:
        """The image with its classes written below it."""
        return write_on(Image.fromarray(image), [f"{c['class']} {c['score']:.2f}" for c in result["classes"]])


def _scaled(pixels: Tensor, side: int) -> tuple[int, int]:
    """(width, height) with a shorter side of ``side``."""
    height, width = pixels.shape[1:]
    return (side, max(side, int(side * height / width))) if width <= height else (int(side * width / height), side)


def network_of(row: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[str, dict[str, Any], int, dict[str, Any]]:
    """What a checkpoint's row says of its network: name, options, classes, and the weights of backbone and classifier."""
    from onebit.commons.datasets import get_dataset

    stem = row.get("stem")
    if stem is None:  # of an earlier version, which left it to the dataset
        dataset = get_dataset(row["dataset"])
        stem = dataset.stem or ("cifar" if dataset.image_size else "imagenet")
    name, options = named_backbone(row, out_indices=(3,), stem=stem)
    kept = {k: v for k, v in weights.items() if k.startswith(("backbone.", "classifier."))}
    return name, options, row["num_classes"], kept


def stated(said: Mapping[str, Any], origin: str | Path) -> tuple[list[str], dict[str, Any]]:
    """The names of classes and the preparation of images that a file says.

    Raises:
        InputError: it says neither, as files of earlier versions, or something else than :data:`IMAGES`.
    """
    classes, images = said.get("classes"), said.get("images")
    if not classes or not images:
        raise InputError(f"{origin} does not say its classes and how images are prepared: train or export it again")
    if not isinstance(images, dict) or images.keys() != IMAGES.keys():
        raise InputError(f"{origin}: its images are {guards.shown(images)}: expected {', '.join(IMAGES)}")
    for key in ("small", "gray"):
        guards.switch(f"{origin}: its images' {key}", images[key])
    guards.whole(f"{origin}: its images' size", images["size"], 1, 10_000)
    for key in ("mean", "std"):
        values = images[key]
        if not isinstance(values, list | tuple) or len(values) != 3:
            raise InputError(f"{origin}: its images' {key} is {guards.shown(values)}: expected three numbers")
        for value in values:
            guards.number(f"{origin}: its images' {key}", value, 0 if key == "std" else None)
    return list(classes), {**images, "mean": list(images["mean"]), "std": list(images["std"])}


def predictor(path: Path, packed: bool = False, config: Path | None = None) -> Predictor:
    """The network of a checkpoint or of a packed file, for images.

    Args:
        path: a checkpoint of :func:`onebit.classification.runner.train`, or what `onebit export` made of it.
        packed: run a checkpoint's network on packed bits, on the CPU.
        config: not of classification.

    Raises:
        InputError: not such a file, one that does not say its classes, or ``packed`` and no 1-bit network.
    """
    if config:
        raise InputError("--config is for detectors that were trained by a config of their own")
    if Path(path).suffix == ".safetensors":
        network, about = packed_files.load(path)
        if about["classes"] is None:
            raise InputError(f"{path} holds a backbone without classifier: it knows no classes")
        return Predictor(network, *stated(about.get("prediction", {}), path))
    row, weights = load_row(path)
    require_row(path, row, "task", "dataset", "backbone", "num_classes")
    if row.get("binarize", "both") != "both":
        raise InputError(f"{path} is of a stage in which weights are not binarized: train the stages after it first")
    classes, images = stated(row, path)
    name, options, count, kept = network_of(row, weights)

    def build() -> nn.Module:
        return Classifier(backbones.create_backbone(name, **options), count)

    with torch.device("meta"):
        require_fit(build(), kept, path)
    built = build()
    load_weights(built, kept, path)
    if packed:
        return Predictor(backbones.deploy(built.eval()), classes, images)
    return Predictor(built.to("cuda" if torch.cuda.is_available() else "cpu"), classes, images)
