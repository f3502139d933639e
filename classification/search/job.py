"""What a search is asked for."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onebit.commons.errors import InputError


def option_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` by the names of their fields: ``lambda`` is ``lambda_``, ``arch-lr`` ``arch_lr``.

    Raises:
        InputError: two names of one field.
    """
    named: dict[str, Any] = {}
    for name, value in options.items():
        field_name = str(name).replace("-", "_")
        field_name += "_" * keyword.iskeyword(field_name)
        if field_name in named:
            raise InputError(f"option {name!r} is given twice")
        named[field_name] = value
    return named


@dataclass(frozen=True)
class SearchJob:
    """One search.

    Attributes:
        method: a name of :mod:`onebit.classification.search.strategies`.
        dataset: a classification dataset of :data:`onebit.commons.datasets.DATASETS`.
        preset: the stem of a config file under ``classification/configs/search/``.
        seed: the only source of randomness.
        data_root: the folder below which the dataset is looked for.
        work_dir: checkpoints, logs and the dumped config go here.
        resume: go on from the last checkpoint in ``work_dir``, if there is one.
        options: options of the method, on top of the preset's; by the names of :func:`option_names`.
        cfg_options: dotted overrides of the preset (``space.channels``, ``data.batch_size``, ...).
        budget: seconds that the epochs may take; None for as many epochs as preset and method say.
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
    budget: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", option_names(self.options))
