"""From a job to the complete config of one search."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from onebit.backbones.cells.derivation import DERIVATIONS
from onebit.backbones.cells.genotype import search_space
from onebit.classification import datasets
from onebit.classification.datasets import layout_of, stem_of
from onebit.classification.search.data import PARTS, check_shares
from onebit.classification.search.job import SearchJob
from onebit.classification.search.options import read_options
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies import Schedule, Strategy, get_strategy
from onebit.commons import guards
from onebit.commons.acceleration import AMP
from onebit.commons.config_options import with_options
from onebit.commons.datasets import Dataset
from onebit.commons.errors import InputError

PRESETS = Path(__file__).resolve().parent.parent / "configs" / "search"
#: What `--cfg-options` may name besides what a preset has: mmengine checks these.
FREE = ("default_hooks.", "visualizer.", "env_cfg.")
_CONDITIONS = ("layout", "method")
_PRESET = ("space", "schedule", "data", "amp", "derivation", "options")


def presets() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.py"))


def load_preset(name: str, layout: str, method: str) -> Config:
    """A preset with its overrides for ``layout`` and ``method`` applied.

    Args:
        layout: see :func:`onebit.classification.datasets.layout_of`; ``imagenet`` is every folder of images
            that are read as the batches come.

    Raises:
        InputError: unknown preset.
    """
    guards.known("preset of search", name, presets())
    cfg = Config.fromfile(PRESETS / f"{name}.py")
    asked = dict(layout=layout, method=method)
    for override in cfg.pop("overrides"):
        conditions = {key: override.pop(key) for key in _CONDITIONS if key in override}
        if all(asked[key] == value for key, value in conditions.items()):
            cfg.merge_from_dict(override.to_dict())
    return cfg


def build_config(job: SearchJob, dataset: Dataset, folder: Path) -> Config:
    """Preset, dataset, method and the job's overrides.

    Returns:
        a config that :func:`onebit.commons.engine.build_runner` takes.

    Raises:
        InputError: unknown method, preset or option, a value out of range, or a dataset whose
            classes cannot be read.
    """
    strategy = get_strategy(job.method)
    layout = layout_of(dataset, folder)
    cfg = with_options(load_preset(job.preset, layout, job.method), job.cfg_options, free=FREE)
    preset = ConfigDict({key: cfg.pop(key) for key in _PRESET}).to_dict()
    check_preset(preset)
    if job.budget is not None:
        guards.number("budget in seconds", job.budget, above=0)
    preset["options"] = {**preset["options"], **job.options}
    read_options(strategy.name, strategy.Options, preset["options"])
    Schedule(**preset["schedule"])
    if "schedule.epochs" in job.cfg_options and strategy.epochs is not Strategy.epochs:
        raise InputError(
            f"schedule.epochs: {job.method} takes as many epochs as its options say (docs/search.md); leave it out"
        )
    space = preset["space"]
    space = dict(
        num_classes=len(datasets.class_names(folder, layout)),
        cells=space["cells"],
        channels=space["channels"],
        stem=stem_of(dataset, layout),
        operations=search_space(space["pooling"], space["skip"]),
    )
    SearchSpace(**space)
    cfg.merge_from_dict(
        dict(
            default_scope="mmengine",
            model=dict(
                type="SearchModel",
                method=job.method,
                space=space,
                schedule=preset["schedule"],
                options=preset["options"],
            ),
            model_wrapper_cfg=dict(type="Replica"),
            train_cfg=dict(type="SearchLoop", seed=job.seed, amp=preset["amp"], budget=job.budget),
            train_dataloader=dict(data_root=str(folder), layout=layout, seed=job.seed, **preset["data"]),
            optim_wrapper=dict(constructor="StrategyOptimizers"),
        )
    )
    derivation = preset["derivation"]
    cfg.derivation = {**derivation, "edges": derivation["edges"] or strategy.derivation}
    cfg.custom_hooks = [dict(type="SearchStateHook")]
    cfg.progress_hook = "SearchProgressHook"
    return cfg


#: Dotted name to what checks the value there. ``data.images`` may be None as well.
_GUARDS = {
    "space.pooling": guards.switch,
    "space.skip": guards.switch,
    "data.image_size": partial(guards.whole, least=8),
    "data.images": guards.whole,
    "data.batch_size": guards.whole,
    "data.evaluation_batch_size": guards.whole,
    "data.num_workers": partial(guards.whole, least=0),
    "data.min_crop_area": partial(guards.number, above=0, most=1),
    "data.augmentation.padding": partial(guards.whole, least=0),
    "data.augmentation.cutout": partial(guards.whole, least=0),
    "data.augmentation.flip": guards.switch,
    "amp": partial(guards.choice, choices=AMP),
    "derivation.edges": partial(guards.choice, choices=(None, *DERIVATIONS)),
    "derivation.keep_none": guards.switch,
}


def check_preset(preset: Mapping[str, Any]) -> None:
    """Raises InputError where a preset holds a value that no search can use."""
    for name in ("space", "schedule", "data", "derivation", "options"):
        if not isinstance(preset[name], Mapping):
            raise InputError(f"{name} {preset[name]!r}: expected settings by name, e.g. {name}.KEY=VALUE")
    if not isinstance(preset["data"]["augmentation"], Mapping):
        raise InputError(f"data.augmentation {preset['data']['augmentation']!r}: expected settings by name")
    for name, guard in _GUARDS.items():
        value = preset
        for key in name.split("."):
            if key not in value:
                break  # an augmentation that is off
            value = value[key]
        else:
            if value is not None or name != "data.images":
                guard(name, value)
    data = preset["data"]
    check_shares(tuple(data[part] for part in PARTS))
