"""One number per method: what its 1-bit networks keep of their real-valued twins, over all datasets.

A ratio compares two lines of one dataset that differ in the binarization alone: same network, detector, recipe and
options. For a method and a dataset, ratios are averaged over networks, detectors and recipes; over datasets the
quadratic mean is taken, as BiBench does (Qin et al., ICML 2023, OM of its accuracy tracks). Savings of memory and
operations, by the rule ``strict``, are means over networks and detectors, and their quadratic mean is ``cost``;
``acceleration`` is the mean over the runs of ``onebit latency`` that timed a whole network beside its twin. A method
that lacks a dataset has an empty cell, and its number is over fewer: ``datasets`` says how many, and methods with more
stand first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.latency_record import BOARD as LATENCY
from onebit.leaderboards.recording.latency_record import LatencyRun
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.showing import formats
from onebit.leaderboards.showing.line import Line, PlainLine
from onebit.leaderboards.showing.plain import PlainTable
from onebit.leaderboards.showing.sheet import Sheet
from onebit.leaderboards.showing.table import BoardTable, Table

_HEADERS = {
    "method": "Method",
    "overall": "Overall %",
    "datasets": "Datasets",
    "memory_saving": "Memory saving",
    "ops_saving": "OPs saving",
    "cost": "Cost",
    "acceleration": "Acceleration",
    "networks": "Networks",
    "trust": "Trust",
}


#: A 1-bit line, its real-valued twin, and the board's first metric.
_Pair = tuple[Line, Line, str]
_TIMES = ("memory_saving", "ops_saving", "acceleration")


def quadratic_mean(values: Iterable[float]) -> float:
    """The root of the mean of the squares."""
    values = list(values)
    return math.sqrt(fmean(value * value for value in values))


class OverallTable(Table[PlainLine]):
    """``onebit table overall``. One table for each kind of data; its columns are the datasets that have ratios."""

    name = "overall"
    title = "Overall"
    about = "all tasks"
    made_by = "onebit bench BOARD"

    def place(self, records: Path) -> Path:
        return records

    def load(self, records: Path) -> list[Record | LatencyRun]:
        """The records of every board, and the latencies."""
        rows = [record for name in ALL for record in Record.load_all(records, name)]
        return [*rows, *LatencyRun.load_all(records, LATENCY)]

    def lines(self, records: Iterable[Record | LatencyRun], reported: bool = False) -> list[PlainLine]:
        """One line per kind of data and method, the best first. Papers seldom print a twin: none of theirs is used."""
        found: dict[tuple[str, str], list[_Pair]] = {}
        own = list(records)
        times = _accelerations(run for run in own if isinstance(run, LatencyRun))
        for board in ALL.values():
            lines = BoardTable(board).lines(r for r in own if isinstance(r, Record) and r.board == board.name)
            metric = next(iter(board.metrics))
            twins = {_key(line, line.backbone): line for line in lines if line.weight_bits == 32}
            for line in lines:
                base = line.backbone.removesuffix(f"_{line.binarizer}")
                # A network that has a binarization of its own is real-valued under another name.
                twin = twins.get(_key(line, base)) or twins.get(_key(line, f"{base}_real"))
                if line.weight_bits == 1 and line.finished and twin and twin.summary(metric).mean:
                    found.setdefault((line.data, str(line.binarizer)), []).append((line, twin, metric))
        made = [_line(kind, method, pairs, times.get(method)) for (kind, method), pairs in found.items()]
        return sorted(made, key=lambda line: (-line.values["datasets"], -line.values["overall"]))

    def sheets(self, lines: Sequence[PlainLine]) -> list[Sheet]:
        made = []
        for kind, own in self.by_data(lines).items():
            made += self._plain(own).sheets(own)
            made[-1].kind, made[-1].heading = kind, formats.HEADINGS[kind]
        return made

    @staticmethod
    def by_data(lines: Sequence[PlainLine]) -> dict[str, list[PlainLine]]:
        """Kinds of data to their lines, real data first: they never share a table."""
        found = {kind: [line for line in lines if line.values["data"] == kind] for kind in formats.HEADINGS}
        return {kind: own for kind, own in found.items() if own}

    def frame(self, lines: Sequence[PlainLine], remembered: bool = True) -> pd.DataFrame:
        """The columns of ``docs/tables.md``."""
        return self._plain(lines).frame(lines, remembered)

    def csv(self, lines: Sequence[PlainLine], remembered: bool = True) -> str:
        return self._plain(lines).csv(lines, remembered)

    def _plain(self, lines: Sequence[PlainLine]) -> PlainTable:
        datasets = datasets_of(lines)
        first, *rest = _HEADERS.items()
        return replace(
            _PLAIN,
            columns=("method", "data", "overall", "datasets", *datasets, *list(_HEADERS)[3:]),
            headers=dict([first, *rest[:2], *((name, f"{name} %") for name in datasets), *rest[2:]]),
            shown={
                **{name: lambda values, name=name: f"{100 * values[name]:.1f}" for name in ("overall", *datasets)},
                **{name: lambda values, name=name: f"{values[name]:.1f}x" for name in _TIMES},
            },
        )


def _key(line: Line, backbone: str) -> tuple:
    return line.dataset, backbone, line.detector, line.recipe, line.cfg_options, line.source


def _accelerations(runs: Iterable[LatencyRun]) -> dict[str, float]:
    """By method, over the runs of whole networks on one thread whose real-valued reference is the network's twin."""
    found: dict[str, list[float]] = {}
    for run in runs:
        reference = run.fastest_reference()
        if reference is None or run.threads != 1 or run.classes is None:
            continue
        for entry in run.entries:
            network, _, method = entry.backbone.rpartition("_")
            if network == reference.backbone:
                found.setdefault(method, []).append(reference.median / entry.median)
    return {method: fmean(own) for method, own in found.items()}


def _line(kind: str, method: str, pairs: list[_Pair], acceleration: float | None) -> PlainLine:
    ratios: dict[str, list[float]] = {}
    costs: dict[str, tuple[float, float]] = {}
    for line, twin, metric in pairs:
        ratios.setdefault(line.dataset, []).append(line.summary(metric).mean / twin.summary(metric).mean)
        costs[f"{line.dataset} {line.backbone} {line.detector}"] = (
            twin.memory_bits["strict"] / line.memory_bits["strict"],
            twin.ops["strict"] / line.ops["strict"],
        )
    by_dataset = {dataset: fmean(own) for dataset, own in ratios.items()}
    memory, operations = (fmean(saving) for saving in zip(*costs.values(), strict=True))
    values: dict[str, Any] = dict(
        method=method,
        data=kind,
        overall=quadratic_mean(by_dataset.values()),
        datasets=len(by_dataset),
        **by_dataset,
        memory_saving=memory,
        ops_saving=operations,
        cost=quadratic_mean([memory, operations]),
        acceleration=acceleration,
        networks=len({line.backbone for line, _, _ in pairs}),
    )
    records = [record for pair in pairs for line in pair[:2] for record in line.finished]
    return PlainLine(values=values, section="", records=records)


def datasets_of(lines: Iterable[PlainLine]) -> list[str]:
    """The datasets that any line has a ratio on, in the order of the boards."""
    known = {*_HEADERS, "data"}
    return list(dict.fromkeys(name for line in lines for name in line.values if name not in known))


_PLAIN = PlainTable(
    name=OverallTable.name,
    title=OverallTable.title,
    about=OverallTable.about,
    made_by=OverallTable.made_by,
    columns=(),
    headers={},
    measured=lambda runs: [],
    printed=lambda: [],
    remarks=(
        "each cell: the board's first metric of the 1-bit network over that of its real-valued twin of the same "
        "training, mean over networks and recipes",
        "overall: quadratic mean over the datasets that a method has; methods with other datasets cannot be compared",
        "cost: quadratic mean of both savings, each a mean over networks, counted by the rule strict; "
        "acceleration: packed on one thread over the twin in its fastest engine",
    ),
    shown={},
)
TABLE = OverallTable()
