"""The lines of a table: records of the same row under several seeds, and numbers printed in papers.

Everything that is shown (CSV, tables for people, plots, the page) is made from these lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from onebit.commons.datasets import Printed
from onebit.commons.datasets.detection import FASTER_RCNN
from onebit.leaderboards.boards import Board
from onebit.leaderboards.recording.file_options import short
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.showing import statistics
from onebit.leaderboards.showing.footnotes import notes
from onebit.leaderboards.showing.line import AS_PRINTED, SOURCES, Line
from onebit.leaderboards.showing.statistics import summarize


def measured(board: Board, records: Iterable[Record]) -> list[Line]:
    """One line per (dataset, backbone, detector, recipe, options, origin), best first of a dataset and recipe.

    Failed rows enter no mean. Lines of one dataset, detector, recipe, set of options and W/A are compared
    with each other over their seeds (:func:`onebit.leaderboards.showing.statistics.verdicts`).
    """
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        of = (record.dataset, record.backbone, detector_of(board, record))
        key = (*of, record.recipe, options_text(record), record.origin)
        groups.setdefault(key, []).append(record)
    lines = [_line(board, group) for group in groups.values()]
    judge(board, lines)
    first = next(iter(board.metrics))

    def rank(line: Line) -> tuple:
        mean = line.summary(first).mean
        # The board's own dataset first: it is what the paper's table is about.
        own = line.dataset != board.name
        name = line.backbone, line.detector or "", line.cfg_options
        return own, line.dataset, line.recipe, mean is None, -(mean or 0.0), *name

    return sorted(lines, key=rank)


def options_text(record: Record) -> str:
    """``--cfg-options`` of a record in one line, but the detector, which stands by itself (:func:`detector_of`)."""
    return short(" ".join(f"{k}={v}" for k, v in sorted(record.cfg_options.items()) if k != "detector"))


def detector_of(board: Board, record: Record) -> str | None:
    """What stands on a record's backbone; None where that is not known, or on other boards than detection's.

    A trained row that does not say it is older than the choice, or failed before there was a detector.
    """
    if board.task != "detection":
        return None
    asked = record.cfg_options.get("detector", FASTER_RCNN) if record.origin == "trained" else None
    return record.details.get("detector", asked)


def _line(board: Board, group: Sequence[Record]) -> Line:
    done = [r for r in group if r.status == "done"]
    shown = (done or group)[0]
    values = {m: {r.seed: r.metrics[m] for r in done if m in r.metrics} for m in board.metrics}
    untrained = [r.untrained[r.main_metric] for r in done if r.untrained and r.main_metric in r.untrained]
    strict = shown.cost.get("strict", {})
    line = Line(
        dataset=shown.dataset,
        backbone=shown.backbone,
        binarizer=shown.binarizer,
        weight_bits=shown.weight_bits,
        activation_bits=shown.activation_bits,
        source=SOURCES[shown.origin],
        detector=detector_of(board, shown),
        values=values,
        recipe=shown.recipe,
        cfg_options=options_text(shown),
        epochs=shown.epochs,
        untrained=summarize(untrained).mean,
        params=_params(strict),
        memory_bits={c: cost["memory_bits"] for c, cost in shown.cost.items() if "memory_bits" in cost},
        ops={c: cost["ops"] for c, cost in shown.cost.items() if "ops" in cost},
        wall_seconds=summarize([r.wall_seconds for r in done]).mean,
        records=sorted(group, key=lambda r: r.seed),
    )
    line.search_method, line.search_cost_gpu_days = _search(shown)
    line.notes = notes(board, line)
    return line


def _params(cost: dict[str, Any]) -> float | None:
    keys = ("params_1bit", "params_real")
    return sum(cost[k] for k in keys) if all(k in cost for k in keys) else None


def _search(record: Record) -> tuple[str | None, float | None]:
    """How the architecture was found and what that cost, from the provenance of its cell."""
    if record.genotype_hash is None:
        return "Manual", None
    searched = record.details.get("search")
    provenance = searched["genotype"]["provenance"] if searched else _provenance(record.cell)
    return provenance.get("method", "Searched cell"), provenance.get("gpu_days")


_PROVENANCES: dict[str, dict[str, Any]] = {}


def _provenance(cell: str | None) -> dict[str, Any]:
    """Of a cell that ships, read from its file: importing `backbones` would import torch."""
    if cell is None or not re.fullmatch(r"[A-Za-z0-9_.-]+", cell):
        return {}
    if cell not in _PROVENANCES:
        folder = Path(find_spec("onebit.backbones").submodule_search_locations[0]) / "cells"
        file = folder / f"{cell}.json"
        _PROVENANCES[cell] = json.loads(file.read_text())["provenance"] if file.exists() else {}
    return _PROVENANCES[cell]


def judge(board: Board, lines: list[Line]) -> None:
    """Enter the verdicts of lines of one dataset, detector, recipe, set of options and W/A."""
    groups: dict[tuple, list[Line]] = {}
    for line in lines:
        of = (line.dataset, line.detector, line.recipe, line.cfg_options)
        key = (*of, line.weight_bits, line.activation_bits)
        groups.setdefault(key, []).append(line)
    for group in groups.values():
        for metric in board.metrics:
            found = statistics.verdicts([line.values[metric] for line in group])
            for line, verdict in zip(group, found, strict=True):
                line.verdicts[metric] = verdict


def printed(board: Board) -> list[Line]:
    """The lines of the paper's table that the board repeats, in the paper's order.

    Memory and OPs stand under the convention :data:`AS_PRINTED`; percent become fractions, MB and
    G OPs bits and OPs.
    """
    return [] if board.printed is None else _printed(board, board.printed)


def further(board: Board) -> list[Line]:
    """The lines of other tables; their costs stand under their own convention."""
    return [line for table in board.further for line in _printed(board, table)]


def _printed(board: Board, table: Printed) -> list[Line]:
    from onebit.leaderboards import reported

    lines: dict[tuple, Line] = {}
    everywhere: dict[str, dict[str, float]] = {}
    for number in reported.load(table.paper, table.table).itertuples(index=False):
        if table.group is not None and number.group != table.group:
            if not number.group:  # bits of a row stand once for all of its datasets
                everywhere.setdefault(number.row, {})[number.column] = number.value
            continue
        key = (number.row, number.group)
        if key not in lines:
            lines[key] = _printed_line(board, table, number.row)
        _enter(table, lines[key], number)
    for (row, _), line in lines.items():
        for column, value in everywhere.get(row, {}).items():
            setattr(line, column, int(value))
    if table.costs:
        by_row = {row: line for (row, _), line in lines.items()}
        for number in reported.load(table.paper, table.costs).itertuples(index=False):
            _enter(table, by_row[number.row], number)
    return list(lines.values())


def _printed_line(board: Board, table: Printed, row: str) -> Line:
    backbone, binarizer = row, None
    if table.quantization:
        match = re.fullmatch(r"(.*) \((.*)\)", row)
        backbone, binarizer = match.groups() if match else (row, None)
    tables = f"tables {table.table}, {table.costs}" if table.costs else f"table {table.table}"
    line = Line(
        dataset=board.name,
        backbone=backbone,
        binarizer=binarizer,
        weight_bits=None,
        activation_bits=None,
        source=f"{table.paper} {tables}",
        detector=table.detector,
        values={},
        search_method=table.search_method or search_method(row),
        printed=(table.paper, table.table),
    )
    if table.note:
        line.notes.append(table.note)
    return line


_UNITS = {"Mbit": 1e6, "MB": 8e6, "M_ops": 1e6, "M_flops": 1e6, "G_ops": 1e9, "M_params": 1e6}


def _enter(table: Printed, line: Line, number) -> None:
    convention = table.convention or AS_PRINTED
    if number.column in table.metrics:
        fraction = number.value / 100
        if number.column == "test_error":
            fraction = 1 - fraction
        line.values[table.metrics[number.column]] = {-1: fraction}
    elif number.column in ("weight_bits", "activation_bits"):
        setattr(line, number.column, int(number.value))
    elif number.column == "memory":
        line.memory_bits[convention] = number.value * _UNITS[number.unit]
    elif number.column in ("ops", "flops"):
        line.ops[convention] = number.value * _UNITS[number.unit]
    elif number.column == "epochs":
        line.epochs = int(number.value)
    elif number.column == "params":
        line.params = number.value * _UNITS[number.unit]
    elif number.column == "search_cost":
        line.search_cost_gpu_days = number.value
    if number.note:
        note = number.note.removeprefix("uncertain: ")
        note = f"{number.column}: {note}" if note != number.note else note
        if note not in line.notes:
            line.notes.append(note)


def search_method(row: str) -> str:
    """What the column Search Method of DCP-NAS Tables 10 to 14 and BNAS Table 5 prints for a row.

    "Gradient-based (discrepancy-aware)" stands for the sign those tables explain in their captions.
    """
    for pattern, method in (
        (r"ResNet|WRN", "Manual"),
        (r"DCP-NAS", "Gradient-based (discrepancy-aware)"),
        (r"CP-NAS", "Child-Parent model"),
        (r"BNAS(1|$)", "Performance-based"),
        (r"PNAS", "SMBO"),
    ):
        if re.match(pattern, row.split(" (")[0]):
            return method
    return "Gradient-based"
