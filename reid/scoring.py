"""From saved features to the outcome of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from onebit.commons.errors import InputError
from onebit.commons.task import Outcome
from onebit.reid.evaluation import evaluate
from onebit.reid.evaluation.options import RERANKED, Evaluation
from onebit.reid.features import Features, load, relative_names
from onebit.reid.recipe import with_options


def score(query: Features, gallery: Features, evaluation: Evaluation) -> tuple[dict[str, float], dict[str, int]]:
    """Metrics, and how many there are of what.

    Raises:
        InputError: see :func:`onebit.reid.evaluation.evaluate`.
    """
    labels = (query.pids, gallery.pids, query.cameras, gallery.cameras)
    options = dict(distance=evaluation.distance, protocol=evaluation.protocol)
    plain = evaluate(query.features, gallery.features, *labels, **options)
    metrics = plain.metrics()
    if evaluation.reranking:
        options["reranking"] = evaluation.reranking
        metrics |= evaluate(query.features, gallery.features, *labels, **options).metrics(RERANKED)
    counts = dict(
        queries=len(query),
        valid_queries=plain.valid_queries,
        gallery=len(gallery),
        test_identities=len(set(query.pids.tolist())),
    )
    return metrics, counts


def outcome(
    query: Features,
    gallery: Features,
    cfg: Config,
    facts: Mapping[str, Any],
    predictions: Path,
    checkpoint: Path,
    untrained: dict[str, float] | None = None,
) -> Outcome:
    """Score features and report, with what else is known of the row.

    Args:
        query, gallery: of the file ``predictions``.
        cfg: of the row, with the options of evaluation that are to be used.
        facts: of the file: ``details`` and fields of Outcome.
        checkpoint, untrained: see :class:`onebit.commons.task.Outcome`.
    """
    evaluation = Evaluation.of(cfg)
    metrics, counts = score(query, gallery, evaluation)
    fields = ("epochs", "split", "data_checksum", "config", "cost", "num_classes")
    return Outcome(
        metrics=metrics,
        untrained=untrained,
        main_metric="mAP",
        protocol=evaluation.text(),
        checkpoint=checkpoint,
        details={**facts["details"], **counts},
        predictions=predictions,
        **{field: facts[field] for field in fields},
    )


def load_predictions(path: Path) -> tuple[Features, Features, dict[str, Any]]:
    """Query, gallery and facts of a file that a row left.

    Raises:
        InputError: see :func:`onebit.reid.features.load`; or features of a folder, which nobody can score.
    """
    groups, facts = load(path)
    labelled = [g for g, images in groups.items() if images.pids is not None and images.cameras is not None]
    if not {"query", "gallery"} <= set(labelled):
        raise InputError(
            f"expected features of queries and gallery with identities and cameras, found {', '.join(groups)} in {path}"
        )
    return groups["query"], groups["gallery"], facts


def with_evaluation_options(cfg: Config, options: Mapping[str, Any]) -> Config:
    """``cfg`` with options below ``evaluation``; nothing else can change once features are there.

    Options that the features were made with may be named again.

    Raises:
        InputError: another option, or one that does not exist.
    """
    # The config of a row has the checkpoint it started from by its hash.
    options = {k: v for k, v in options.items() if k != "init_from" and not _has(cfg, k, v)}
    for name in options:
        if name.split(".")[0] != "evaluation":
            raise InputError(
                f"saved features can be scored with other options of `evaluation`; {name} would need the network"
            )
    return with_options(cfg, options)


def _has(cfg: Config, name: str, value: Any) -> bool:
    """Whether the config has this value under this dotted name."""
    found: Any = cfg
    for part in name.split("."):
        if not isinstance(found, Mapping | Config) or part not in found:
            return False
        found = found[part]
    return _plain(found) == _plain(value)


def _plain(value: Any) -> Any:
    """As it is after it has been through JSON."""
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def check_against_dataset(part: Features, images: Sequence[tuple], root: Path, predictions: Path) -> None:
    """Refuse features whose images are not those of the dataset.

    Args:
        part: queries or gallery of a file.
        images: (path, identity, camera, ...) of the dataset's.
        root: what the file's image names are relative to.
        predictions: the file, for the message.

    Raises:
        InputError: names the first difference.
    """
    names = relative_names([image[0] for image in images], root)
    theirs = [(name, *image[1:3]) for name, image in zip(names, images, strict=True)]
    ours = [*zip(part.names, part.pids.tolist(), part.cameras.tolist(), strict=True)]
    for mine, expected in zip(ours, theirs, strict=False):
        if mine != expected:
            raise InputError(
                f"{predictions} is not of this dataset: it has (image, identity, camera) {mine} "
                f"where the dataset has {expected}"
            )
    if len(ours) != len(theirs):
        raise InputError(
            f"{predictions} is not of this dataset: it has {len(ours)} images where the dataset has {len(theirs)}"
        )
