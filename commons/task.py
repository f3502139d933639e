"""The one interface between the leaderboards and the three tasks.

`leaderboards` builds a `Job`, hands it to ``<task>.runner.train(job)`` and gets an `Outcome` back.
Nothing else travels between the rooms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onebit.commons.file_options import FileOptions


@dataclass(frozen=True)
class Job:
    """One row to be trained and scored.

    Attributes:
        dataset: a name of :data:`onebit.commons.datasets.DATASETS`.
        backbone: a name that :func:`onebit.backbones.create_backbone` knows.
        recipe: the stem of a config file under ``<task>/configs/recipes/``.
        seed: the only source of randomness.
        data_root: the folder below which the dataset is looked for.
        work_dir: checkpoints, logs and the dumped config go here.
        resume: go on from the last checkpoint in ``work_dir``, if there is one.
        cfg_options: dotted overrides of the config, as mmengine's ``--cfg-options``: the user's own.
        recorded: those that a record or a checkpoint states, below the user's.
    """

    dataset: str
    backbone: str
    recipe: str
    seed: int
    data_root: Path
    work_dir: Path
    resume: bool = False
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    recorded: FileOptions = field(default_factory=FileOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.recorded, FileOptions) or isinstance(self.cfg_options, FileOptions):
            raise TypeError("options of a file and options of the user are different things")

    @property
    def options(self) -> dict[str, Any]:
        """All options, the user's over those of a file."""
        return {**self.recorded, **self.cfg_options}


def left_out(job: Job) -> dict[str, list[str]]:
    """What an outcome says of options that a file stated and that were not taken from it."""
    return {"options_left_out": sorted(job.recorded.left_out)} if job.recorded.left_out else {}


@dataclass
class Outcome:
    """What a runner returns: plain values only, ready for a record.

    Attributes:
        metrics: name to value in full precision; fractions in [0, 1], not percent.
        untrained: the same metrics of the same network before its first step (None after `test`).
        main_metric: the key of ``metrics`` that ranks rows.
        epochs: epochs actually trained.
        split: which images were trained on and scored, e.g. ``trainval07+12 -> test07``.
        protocol: how they were scored, e.g. ``VOC2007, IoU 0.5, area and 11-point AP``.
        data_checksum: see :meth:`onebit.commons.datasets.Dataset.checksum`.
        config: the full text of the config that ran.
        checkpoint: the trained weights; None where a file of predictions was scored.
        cost: convention to the summary of :class:`onebit.backbones.Cost` of the WHOLE model of the task.
        num_classes: classes or training identities.
        details: further plain values for the record (per-class AP, loss curve, ...). ``network``
            among them is what :func:`onebit.backbones.describe` says of the network that was built, which
            ``cfg_options`` may have made another than the name's.
        predictions: the file of what the network put out on the scored images, from which
            ``<task>.runner.score_predictions`` computes the same metrics again without the network;
            None where the task keeps none.
    """

    metrics: dict[str, float]
    untrained: dict[str, float] | None
    main_metric: str
    epochs: int
    split: str
    protocol: str
    data_checksum: str
    config: str
    checkpoint: Path | None
    cost: dict[str, dict[str, Any]]
    num_classes: int
    details: dict[str, Any] = field(default_factory=dict)
    predictions: Path | None = None
