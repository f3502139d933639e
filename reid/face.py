"""A row of the face board: scored on pairs instead of by retrieval (BNAS, Table 5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.config import Config

from commons.datasets import get_dataset
from reid.datasets import TORCHREID_NAMES
from reid.face_datasets import FaceDataset
from reid.features import extract
from reid.model import ReIDModel
from reid.torchreid_adapter import ImageDataManager
from reid.training import image_data
from reid.verification import metrics_of, pair_distances

SPLIT = "identity folder -> pairs of LFW, CFP-FP and AgeDB-30"
PROTOCOL = (
    "10-fold accuracy, the threshold chosen on the other nine; TAR at FAR over all pairs; "
    "{distance} distance{flip}"
)
MAIN_METRIC = "accuracy_lfw"


def is_face(cfg: Config) -> bool:
    """Whether the row is one of the face board."""
    return get_dataset(cfg.dataset, task="reid").board == "face"


def face_data(cfg: Config, data_root: Path, log: Path) -> ImageDataManager:
    """torchreid's loaders; the images of all pairs are the queries.

    Raises:
        InputError: see :class:`reid.face_datasets.FaceDataset` and :func:`reid.training.image_data`.
    """
    root = get_dataset(cfg.dataset, task="reid").find(data_root)
    return image_data(cfg, TORCHREID_NAMES["face"], root, log)


def score_pairs(
    model: ReIDModel, data: ImageDataManager, cfg: Config
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of the three lists of pairs, and details; every image is looked at once."""
    (loaders,) = data.test_loader.values()
    dataset: FaceDataset = loaders["query"].dataset
    found = extract(model, loaders["query"], "test images", cfg.flip_features)
    number = {path: i for i, path in enumerate(found["impath"])}
    metrics, details = {}, {}
    for pairs in dataset.pairs:
        first, second = (
            found["features"][np.array([number[path] for path in side])]
            for side in (pairs.first, pairs.second)
        )
        distances = pair_distances(first, second, cfg.evaluation.distance)
        own, more = metrics_of(pairs.name, distances, pairs.same, pairs.folds)
        metrics |= own
        details |= more
    details["test_images"] = len(number)
    details["train_identities_compared_by_name"] = dataset.identities_compared
    return metrics, details


def protocol(cfg: Config) -> str:
    """For a record."""
    flip = "; features of image and mirror image added" if cfg.flip_features else ""
    return PROTOCOL.format(distance=cfg.evaluation.distance, flip=flip)
