"""What a search is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SearchJob:
    """One search.

    Attributes:
        method: a name of :mod:`classification.search.strategies`.
        dataset: a classification dataset of :data:`commons.datasets.DATASETS`.
        preset: the stem of a config file under ``classification/configs/search/``.
        seed: the only source of randomness.
        data_root: the folder below which the dataset is looked for.
        work_dir: checkpoints, logs and the dumped config go here.
        resume: go on from the last checkpoint in ``work_dir``, if there is one.
        options: options of the method, by name, on top of the preset's.
        cfg_options: dotted overrides of the preset (``space.channels``, ``data.batch_size``, ...).
    """

    method: str
    dataset: str
    preset: str
    seed: int
    data_root: Path
    work_dir: Path
    resume: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
