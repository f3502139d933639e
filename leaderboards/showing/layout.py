"""The lines of a board laid out as its table: the paper's columns, percent, marks, numbered notes."""

from __future__ import annotations

import math
from collections.abc import Callable

from onebit.leaderboards.boards import Board
from onebit.leaderboards.showing import statistics
from onebit.leaderboards.showing.line import AS_PRINTED, Line
from onebit.leaderboards.showing.sheet import NOTHING, Cell, Column, Row, Sheet

#: The convention of a board's further table, and the key of its paper.
FURTHER_RULE = "cp-nas"


def sheet(board: Board, lines: list[Line]) -> Sheet:
    """Lay ``lines`` out as the board's table."""
    name, *others = board.layout
    keys = [k for k in dict.fromkeys((name, "dataset", *others, "trust")) if _worth_a_column(k, lines)]
    notes: dict[str, int] = {}
    sections: dict[tuple, list[Row]] = {}
    for line in lines:
        numbers = tuple(sorted(notes.setdefault(note, len(notes) + 1) for note in line.notes))
        cells = [_cell(board, line, key) for key in keys]
        at = keys.index("backbone")
        cells[at] = Cell(cells[at].text, notes=numbers)
        sections.setdefault((line.dataset, line.reported), []).append(Row(cells, line))
    datasets = list(dict.fromkeys(line.dataset for line in lines))
    title = f"{board.name}: {datasets[0]}" if datasets != [board.name] and len(datasets) == 1 else board.name
    return Sheet(
        title,
        [Column(k, _header(board, k), k not in _TEXT) for k in keys],
        list(sections.values()),
        list(notes),
        _remarks(board, lines),
    )


def _worth_a_column(key: str, lines: list[Line]) -> bool:
    if key == "dataset":
        return len({line.dataset for line in lines}) > 1
    if key in ("memory_cp-nas", "ops_cp-nas"):
        return any(FURTHER_RULE in (*line.memory_bits, *line.ops) for line in lines)
    if key == "epochs":
        return any(line.epochs is not None for line in lines)
    if key in ("untrained", "recipe", "seeds", "trust"):
        return any(not line.reported for line in lines)
    return True


def _remarks(board: Board, lines: list[Line]) -> list[str]:
    verdicts = {v for line in lines for v in line.verdicts.values()}
    found = []
    if statistics.BEST in verdicts:
        found.append("best: better beyond seed noise than every other line of its dataset, recipe, options and W/A")
    if statistics.TIE in verdicts:
        found.append(f"tie: within the seed noise of the best mean (p ≥ {statistics.ALPHA})")
    if statistics.UNKNOWN in verdicts:
        found.append(f"no best is marked among lines of which some have fewer than {statistics.MIN_SEEDS} seeds")
    if any(line.source.startswith(FURTHER_RULE) for line in lines):
        found.append(f"lines of {FURTHER_RULE}: as printed; their memory and OPs stand in the columns ({FURTHER_RULE})")
    papers = dict.fromkeys(line.printed[0] for line in lines if line.printed)
    table = board.printed
    if others := [paper for paper in papers if paper not in (FURTHER_RULE, table and table.paper)]:
        found.append(f"lines of {', '.join(others)}: as printed by their authors, each with a protocol of its own")
    if table and table.paper in papers:
        costs = (
            ""
            if not any(AS_PRINTED in line.memory_bits for line in lines)
            else f"; their memory and OPs stand in the column ({board.paper_convention})"
        )
        found.append(f"reported lines: as printed in {table.paper} table {table.table}{costs}")
    if any(not line.reported for line in lines):
        found.append("trust: the least that is established of a line's rows; `onebit verify` says what a level proves")
    return found


_TEXT = {
    "dataset",
    "backbone",
    "detector",
    "variant",
    "quantization",
    "wa",
    "search_method",
    "recipe",
    "source",
    "trust",
}

_HEADERS = {
    "dataset": "Dataset",
    "backbone": "Backbone",
    "detector": "Detector",
    "variant": "Variant",
    "quantization": "Quantization",
    "wa": "W/A",
    "error": "Err. %",
    "params": "Params M",
    "search_cost": "Search GPU days",
    "search_method": "Search method",
    "untrained": "Untrained %",
    "recipe": "Recipe",
    "epochs": "Epochs",
    "seeds": "Seeds",
    "source": "Source",
    "trust": "Trust",
}
#: Keys that a board's layout may name besides its metrics.
COLUMNS = (*_HEADERS, *(f"{what}_{rule}" for what in ("memory", "ops") for rule in ("strict", "paper", FURTHER_RULE)))


def memory_unit(board: Board) -> tuple[str, float]:
    """Unit of the paper's table and its size in bits: 10^6 bytes for detectors, else 10^6 bits."""
    return ("MB", 8e6) if board.task == "detection" else ("Mbit", 1e6)


def ops_unit(board: Board) -> tuple[str, float]:
    """Unit of the paper's table and its size in OPs."""
    return ("G", 1e9) if board.task == "detection" else ("M", 1e6)


def _header(board: Board, key: str) -> str:
    if key in board.metrics:
        return f"{board.metrics[key]} %"
    if key in _HEADERS:
        return _HEADERS[key]
    what, which = key.split("_")
    convention = board.paper_convention if which == "paper" else which
    if what == "memory":
        return f"Mem. {memory_unit(board)[0]} ({convention})"
    return f"OPs {ops_unit(board)[0]} ({convention})"


def _cell(board: Board, line: Line, key: str) -> Cell:
    if key in board.metrics:
        return _metric(line, key)
    return _CELLS[key](board, line)


def _metric(line: Line, key: str, error: bool = False) -> Cell:
    summary = line.summary(key)
    if summary.mean is None:
        return Cell(NOTHING)
    digits = 2 if error or key.startswith("accuracy_") else 1  # as many as the papers print
    shown = 1 - summary.mean if error else summary.mean
    text = f"{100 * shown:.{digits}f}"
    if summary.std is not None:
        text += f" ± {100 * summary.std:.{digits}f}"
    verdict = line.verdicts.get(key, "")
    mark = verdict if verdict in (statistics.BEST, statistics.TIE) else ""
    return Cell(text, mark=mark, value=shown)


def _cost(kind: str, convention: str | None) -> Callable[[Board, Line], Cell]:
    def cell(board: Board, line: Line) -> Cell:
        name = convention or (AS_PRINTED if line.reported else board.paper_convention)
        costs = line.memory_bits if kind == "memory" else line.ops
        unit = memory_unit(board) if kind == "memory" else ops_unit(board)
        return _number(costs.get(name), unit[1])

    return cell


def _number(value: float | None, unit: float = 1.0) -> Cell:
    if value is None or math.isnan(value):
        return Cell(NOTHING)
    scaled = value / unit
    return Cell(f"{scaled:.4g}" if scaled < 1000 else f"{scaled:.0f}", value=scaled)


def _text(value: object) -> Cell:
    # A record's text may hold line breaks; a cell is one line.
    return Cell(" ".join(str(value).split()) if value is not None else NOTHING)


def _seeds(board: Board, line: Line) -> Cell:
    if line.reported:
        return Cell(NOTHING)
    failed = f" ({line.failed} failed)" if line.failed else ""
    return Cell(f"{line.seeds}{failed}", value=line.seeds)


def _untrained(board: Board, line: Line) -> Cell:
    if line.untrained is None:
        return Cell(NOTHING)
    return Cell(f"{100 * line.untrained:.1f}", value=line.untrained)


def _bits(board: Board, line: Line) -> Cell:
    if line.weight_bits is None:
        return Cell(NOTHING)
    return Cell(f"{line.weight_bits}/{line.activation_bits}")


_CELLS: dict[str, Callable[[Board, Line], Cell]] = {
    "dataset": lambda board, line: _text(line.dataset),
    "backbone": lambda board, line: _text(line.backbone),
    "detector": lambda board, line: _text(line.detector),
    "variant": lambda board, line: _text(line.variant),
    "quantization": lambda board, line: _text("real-valued" if line.binarizer == "none" else line.binarizer),
    "wa": _bits,
    "error": lambda board, line: _metric(line, "top1", error=True),
    "params": lambda board, line: _number(line.params, 1e6),
    "memory_strict": _cost("memory", "strict"),
    "memory_paper": _cost("memory", None),
    "memory_cp-nas": _cost("memory", FURTHER_RULE),
    "ops_cp-nas": _cost("ops", FURTHER_RULE),
    "ops_strict": _cost("ops", "strict"),
    "ops_paper": _cost("ops", None),
    "search_cost": lambda board, line: _number(line.search_cost_gpu_days),
    "search_method": lambda board, line: _text(line.search_method),
    "untrained": _untrained,
    "recipe": lambda board, line: _text(line.recipe),
    "epochs": lambda board, line: _number(line.epochs),
    "seeds": _seeds,
    "source": lambda board, line: _text(line.source),
    "trust": lambda board, line: _text(line.trust()),
}
