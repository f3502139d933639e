"""The search board's table: what a search costs and what its cell is worth, best cells first.

Beside our rows stand the search costs that the papers print, each once with its accuracy there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from onebit.leaderboards import reported
from onebit.leaderboards.recording.file_options import short
from onebit.leaderboards.recording.search_record import SearchRun
from onebit.leaderboards.recording.trust import weakest
from onebit.leaderboards.showing import formats
from onebit.leaderboards.showing.line import by_kind
from onebit.leaderboards.showing.sheet import NOTHING, Cell, Column, Row, Sheet
from onebit.leaderboards.showing.statistics import Summary, summarize

#: Of CSV files; docs/tables.md says what they mean.
COLUMNS = (
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
    "bits": "W/A",
    "seeds": "Seeds",
    "source": "Source",
    "trust": "Trust",
}
_TEXT = {"backbone", "dataset", "preset", "source", "trust"}
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
_NAMES = {"dcp-nas": "DCP-NAS", "cp-nas": "CP-NAS", "bnas": "BNAS", "abanditnas": "ABanditNAS"}


@dataclass(frozen=True)
class SearchLine:
    """What a row of the sheet stands for.

    Attributes:
        number: its place in the frame.
        printed: paper and number of the table that it stands in; None of ours.
    """

    number: int
    printed: tuple[str, str] | None
    weight_bits: float
    activation_bits: float

    @property
    def reported(self) -> bool:
        return self.printed is not None


def frame(runs: Iterable[SearchRun], printed: bool = False) -> pd.DataFrame:
    """One line per method, dataset, preset, options and device, over its seeds, the best cells of a
    dataset first; and the papers' lines if ``printed``."""
    rows = [_row(group) for group in grouped(runs)]
    if printed:
        rows += _printed()
    return pd.DataFrame(rows, columns=COLUMNS)


def grouped(runs: Iterable[SearchRun]) -> list[list[SearchRun]]:
    """The runs of each of our lines in :func:`frame`, in its order."""
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
            run.environment.device,
        )
        groups.setdefault(key, []).append(run)
    return sorted(groups.values(), key=lambda group: (group[0].dataset, -_accuracy(group).mean))


def _accuracy(group: list[SearchRun]) -> Summary:
    return summarize([run.metrics[run.main_metric] for run in group])


def _options(run: SearchRun) -> str:
    changed = {**run.options, **run.cfg_options}
    # `lambda_` is the field of the option `lambda`.
    return short(" ".join(f"{k.rstrip('_')}={json.dumps(v)}" for k, v in sorted(changed.items())))


def _row(group: list[SearchRun]) -> dict:
    first = group[0]

    def mean(values) -> float:
        return summarize(list(values)).mean

    accuracy = _accuracy(group)
    return dict(
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
        weight_bits=first.weight_bits,
        activation_bits=first.activation_bits,
        device=first.environment.device,
        source="measured",
        trust=str(weakest(group)),
    )


def _printed() -> list[dict]:
    """A method's cost that several tables repeat stands once, from the first table that has it."""
    numbers = reported.load()
    numbers = numbers[numbers["row"].str.match(_METHODS)]
    rows: dict[tuple, dict] = {}
    for (paper, table), dataset in _TABLES.items():
        own = numbers[(numbers["paper"] == paper) & (numbers["table"] == table)]
        for (name, _), cells in own.groupby(["row", "group"], sort=False):
            value = dict(zip(cells["column"], cells["value"], strict=True))
            if "search_cost" not in value:
                continue
            row = dict(
                backbone=name,
                dataset=dataset,
                gpu_days=value["search_cost"],
                top1=_printed_accuracy(value),
                weight_bits=value.get("weight_bits"),
                activation_bits=value.get("activation_bits"),
                source=f"{_NAMES[paper]} Table {table}",
            )
            rows.setdefault((name, dataset, row["gpu_days"], row["top1"]), row)
    return list(rows.values())


def _printed_accuracy(value: dict[str, float]) -> float | None:
    if "test_error" in value:
        return round(1 - value["test_error"] / 100, 6)
    percent = value.get("top1", value.get("accuracy"))
    return None if percent is None else round(percent / 100, 6)


def render(lines: pd.DataFrame, form: str, width: int | None = None) -> str:
    """The table in one of the formats of `onebit table`."""
    return lines.to_csv(index=False) if form == "csv" else formats.render(list(sheets(lines).values()), form, width)


def sheets(lines: pd.DataFrame) -> dict[str, Sheet]:
    """A sheet for each kind of data; the papers' lines stand with the real ones."""
    made = {}
    for kind, datasets in by_kind(lines["dataset"].unique(), str).items():
        made[kind] = sheet(lines[lines["dataset"].isin(datasets)])
        made[kind].heading = formats.HEADINGS[kind]
    return made


def sheet(lines: pd.DataFrame) -> Sheet:
    """Lay the lines of :func:`frame` out; every row's ``line`` is a :class:`SearchLine`."""
    columns = [Column(key, header, key not in _TEXT) for key, header in _HEADERS.items()]
    sections: dict[tuple, list[Row]] = {}
    notes: dict[str, int] = {}
    for place, line in zip(lines.index, lines.to_dict("records"), strict=True):
        cells = [_cell(line, key) for key in _HEADERS]
        ours = line["source"] == "measured"
        if ours:
            text = f"cell trained as {line['network']}, recipe {line['recipe']}; {line['device']}"
            numbers = [notes.setdefault(text, len(notes) + 1)]
            if line["options"]:
                numbers.append(notes.setdefault(line["options"], len(notes) + 1))
            cells[0] = Cell(line["backbone"], notes=tuple(numbers))
        about = SearchLine(
            place, None if ours else _table_of(line["source"]), line["weight_bits"], line["activation_bits"]
        )
        section = line["dataset"] if ours else line["source"]
        sections.setdefault((ours, section), []).append(Row(cells, about))
    remarks = [
        "seconds, images/s and peak memory are of the search alone, without the training of its "
        "cell; GPU days of ours only where there was a GPU",
        "printed rows: the papers' networks and trainings, not the common short one",
    ]
    return Sheet("search", columns, list(sections.values()), list(notes), remarks)


def _table_of(source: str) -> tuple[str, str]:
    name, table = source.split(" Table ")
    return next(paper for paper, known in _NAMES.items() if known == name), table


def _cell(line: dict, key: str) -> Cell:
    if key == "bits":
        bits = (line["weight_bits"], line["activation_bits"])
        return Cell(NOTHING if pd.isna(bits[0]) else f"{bits[0]:.0f}/{bits[1]:.0f}")
    value = line[key]
    if pd.isna(value):
        return Cell(NOTHING)
    if key == "top1":
        deviation = "" if pd.isna(line["top1_std"]) else f" ± {100 * line['top1_std']:.2f}"
        return Cell(f"{100 * value:.2f}{deviation}", value=value)
    if key == "seeds":
        return Cell(f"{value:.0f}", value=value)
    return Cell(value) if isinstance(value, str) else Cell(f"{value:.4g}", value=value)
