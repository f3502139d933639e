"""A row of the face board: scored on pairs instead of by retrieval (BNAS, Table 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from onebit.commons.datasets import get_dataset
from onebit.commons.errors import InputError
from onebit.commons.task import Outcome
from onebit.reid.face_datasets import Pairs
from onebit.reid.features import Features, extract, relative_names
from onebit.reid.model import ReIDModel
from onebit.reid.torchreid_adapter import ImageDataManager
from onebit.reid.verification import metrics_of, pair_distances

PROTOCOL = (
    "10-fold accuracy, the threshold chosen on the other nine; TAR at FAR over all pairs; {distance} distance{flip}"
)


def features_of_pairs(model: ReIDModel, data: ImageDataManager, cfg: Config, root: Path) -> Features:
    """Features of every image of the pairs, each looked at once, named relative to ``root``."""
    (loaders,) = data.test_loader.values()
    found = extract(model, loaders["query"], "test images", cfg.flip_features)
    return Features(found["features"], relative_names(found["impath"], root))


def score_pairs(
    images: Features, lists: Sequence[Pairs], cfg: Config, root: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of the lists of pairs, and details.

    Raises:
        InputError: an image of the pairs has no feature; what :mod:`onebit.reid.verification` refuses.
    """
    number = {name: i for i, name in enumerate(images.names)}
    metrics, details = {}, {"test_images": len(images)}
    for pairs in lists:
        names = [relative_names(side, root) for side in (pairs.first, pairs.second)]
        missing = next((name for side in names for name in side if name not in number), None)
        if missing:
            raise InputError(f"the features are not of these pairs: they lack the image {missing}")
        first, second = (images.features[[number[name] for name in side]] for side in names)
        distances = pair_distances(first, second, cfg.evaluation.distance)
        own, more = metrics_of(pairs.name, distances, pairs.same, pairs.folds)
        metrics |= own
        details |= more
    return metrics, details


def outcome(
    images: Features,
    lists: Sequence[Pairs],
    cfg: Config,
    root: Path,
    facts: Mapping[str, Any],
    predictions: Path,
    checkpoint: Path,
    untrained: dict[str, float] | None = None,
) -> Outcome:
    """Score features and report, with what else is known of the row; see :func:`onebit.reid.scoring.outcome`."""
    metrics, details = score_pairs(images, lists, cfg, root)
    flip = "; features of image and mirror image added" if cfg.flip_features else ""
    fields = ("epochs", "split", "data_checksum", "config", "cost", "num_classes")
    return Outcome(
        metrics=metrics,
        untrained=untrained,
        main_metric=get_dataset(cfg.dataset, task="reid").main_metric,
        protocol=PROTOCOL.format(distance=cfg.evaluation.distance, flip=flip),
        checkpoint=checkpoint,
        details={**facts["details"], **details},
        predictions=predictions,
        **{field: facts[field] for field in fields},
    )
