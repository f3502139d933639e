"""The search board's table: what a search costs and what its cell is worth, best cells first.

Beside our rows stand the search costs that the papers print, each once with its accuracy there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import pandas as pd

from onebit.leaderboards import reported
from onebit.leaderboards.recording.file_options import short
from onebit.leaderboards.recording.search_record import SearchRun
from onebit.leaderboards.showing.line import PlainLine
from onebit.leaderboards.showing.plain import PlainTable, Values
from onebit.leaderboards.showing.statistics import Summary, summarize

_COLUMNS = (
    "backbone",
    "dataset",
    "preset",
    "options",
    "seeds",
    "wall_seconds",
    "images_per_second",
    "peak_memory_mbyte",
    "gpu_days",
    "top1",
    "top1_std",
    "network",
    "recipe",
    "searched_as",
    "trained_as",
    "weight_bits",
    "activation_bits",
    "device",
    "source",
    "trust",
)
_HEADERS = {
    "backbone": "Method",
    "dataset": "Dataset",
    "preset": "Preset",
    "wall_seconds": "Seconds",
    "images_per_second": "Images/s",
    "peak_memory_mbyte": "Peak MB",
    "gpu_days": "GPU days",
    "top1": "top-1 of the cell %",
    "searched_as": "Searched as",
    "trained_as": "Trained as",
    "bits": "W/A",
    "seeds": "Seeds",
    "source": "Source",
    "trust": "Trust",
}
#: Methods whose printed costs are shown: those this suite searches with.
_METHODS = r"(?:DCP-NAS|CP-NAS|BNAS|ABanditNAS|DARTS|PC-DARTS|Random)"
#: Tables of the papers with costs of a search, in the order in which a number is looked for.
_TABLES = {
    ("dcp-nas", "10"): "CIFAR-10",
    ("dcp-nas", "11"): "ImageNet",
    ("dcp-nas", "4"): "ImageNet",
    ("dcp-nas", "6"): "ImageNet",
    ("cp-nas", "1"): "CIFAR-10",
    ("cp-nas", "2"): "ImageNet",
    ("bnas", "2"): "CIFAR-10",
    ("bnas", "4"): "ImageNet",
    ("abanditnas", "4.1"): "CIFAR-10",
}


def _measured(runs: Iterable[SearchRun]) -> list[PlainLine]:
    """One line per method, dataset, preset, options and device, over its seeds, the best cells of a dataset first."""
    groups: dict[tuple, list[SearchRun]] = {}
    for run in runs:
        key = (
            run.method,
            run.dataset,
            run.preset,
            run.config_sha256,
            _options(run),
            run.recipe,
            run.network,
            run.searched_as,
            run.trained_as,
            run.environment.device,
        )
        groups.setdefault(key, []).append(run)
    return [_line(g) for g in sorted(groups.values(), key=lambda group: (group[0].dataset, -_accuracy(group).mean))]


def _accuracy(group: list[SearchRun]) -> Summary:
    return summarize([run.metrics[run.main_metric] for run in group])


def _options(run: SearchRun) -> str:
    changed = {**run.options, **run.cfg_options}
    # `lambda_` is the field of the option `lambda`.
    return short(" ".join(f"{k.rstrip('_')}={json.dumps(v)}" for k, v in sorted(changed.items())))


def _line(group: list[SearchRun]) -> PlainLine:
    first = group[0]

    def mean(values) -> float:
        return summarize(list(values)).mean

    accuracy = _accuracy(group)
    values = dict(
        backbone=first.method,
        dataset=first.dataset,
        preset=first.preset,
        options=_options(first),
        seeds=len(group),
        wall_seconds=mean(run.wall_seconds for run in group),
        images_per_second=mean(run.images_per_second for run in group),
        peak_memory_mbyte=max(run.peak_memory_bytes for run in group) / 1e6,
        gpu_days=None if first.gpu_days is None else mean(run.gpu_days for run in group),
        top1=accuracy.mean,
        top1_std=accuracy.std,
        network=first.network,
        recipe=first.recipe,
        searched_as=first.searched_as,
        trained_as=first.trained_as,
        weight_bits=first.weight_bits,
        activation_bits=first.activation_bits,
        device=first.environment.device,
        source="measured",
    )
    notes = [f"cell trained as {first.network}, recipe {first.recipe}; {first.environment.device}", values["options"]]
    return PlainLine(values=values, section=first.dataset, notes=[note for note in notes if note], records=group)


def _printed() -> list[PlainLine]:
    """A method's cost that several tables repeat stands once, from the first table that has it."""
    numbers = reported.load()
    numbers = numbers[numbers["row"].str.match(_METHODS)]
    lines: dict[tuple, PlainLine] = {}
    for (paper, table), dataset in _TABLES.items():
        own = numbers[(numbers["paper"] == paper) & (numbers["table"] == table)]
        for (name, _), cells in own.groupby(["row", "group"], sort=False):
            value = dict(zip(cells["column"], cells["value"], strict=True))
            if "search_cost" not in value:
                continue
            values = dict(
                backbone=name,
                dataset=dataset,
                gpu_days=value["search_cost"],
                top1=_printed_accuracy(value),
                weight_bits=value.get("weight_bits"),
                activation_bits=value.get("activation_bits"),
                source=f"{reported.NAMES[paper]} Table {table}",
            )
            line = PlainLine(values=values, section=values["source"], printed=(paper, table))
            lines.setdefault((name, dataset, values["gpu_days"], values["top1"]), line)
    return list(lines.values())


def _printed_accuracy(value: dict[str, float]) -> float | None:
    if "test_error" in value:
        return round(1 - value["test_error"] / 100, 6)
    percent = value.get("top1", value.get("accuracy"))
    return None if percent is None else round(percent / 100, 6)


def _top1(values: Values) -> str:
    deviation = "" if pd.isna(values["top1_std"]) else f" ± {100 * values['top1_std']:.2f}"
    return f"{100 * values['top1']:.2f}{deviation}"


TABLE = PlainTable(
    name="search",
    title="Architecture search",
    about="image classification",
    made_by="onebit bench search",
    columns=_COLUMNS,
    headers=_HEADERS,
    measured=_measured,
    printed=_printed,
    remarks=(
        "searched as, trained as: the binarizer of the supernet and of the network that was trained of its cell; "
        "none is real-valued",
        "seconds, images/s and peak memory are of the search alone, without the training of its "
        "cell; GPU days of ours only where there was a GPU",
        "printed rows: the papers' networks and trainings, not the common short one",
    ),
    shown={"top1": _top1},
)
