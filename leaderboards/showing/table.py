"""Tables derived from records; they hold nothing that the records do not.

Cells of CSV files are fractions in full precision under stable column names, for pandas
(``docs/tables.md``); the other formats follow the layout of the paper's table and are for people.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from onebit.commons.files import write_atomic
from onebit.leaderboards.boards import Board
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.showing.line import AS_PRINTED, Line, by_kind
from onebit.leaderboards.showing.lines import further, measured, printed

if TYPE_CHECKING:
    import pandas as pd

    from onebit.leaderboards.showing.sheet import Sheet

FORMATS = ("text", "csv", "markdown", "latex", "html")


def lines(board: Board, records: Iterable[Record], reported: bool = False) -> list[Line]:
    """The lines of a board: of real data ours, then the papers' if ``reported``; then of other data."""
    found = measured(board, records) + (printed(board) + further(board) if reported else [])
    return [line for own in by_kind(found, lambda line: line.dataset).values() for line in own]


def table(board: Board, records: Iterable[Record], reported: bool = False) -> pd.DataFrame:
    """One line per (dataset, backbone, recipe, options, origin), aggregated over its seeds.

    Columns: see ``docs/tables.md``. Failed rows are left out of the means and counted in
    ``failed``. The board's own dataset comes first, then others by name; within one, recipe by
    recipe, lines are sorted by the board's first metric, best first.
    """
    return frame(board, lines(board, records, reported))


def frame(board: Board, lines: Iterable[Line]) -> pd.DataFrame:
    """The columns of ``docs/tables.md``."""
    import pandas as pd

    return pd.DataFrame([_row(board, line) for line in lines], columns=columns(board))


def columns(board: Board) -> list[str]:
    """Names of the CSV columns, in order."""
    metrics = [c for m in board.metrics for c in (m, f"{m}_std", f"{m}_verdict")]
    return [
        "dataset",
        "data",
        "backbone",
        "binarizer",
        "weight_bits",
        "activation_bits",
        "recipe",
        "cfg_options",
        "epochs",
        *metrics,
        "untrained",
        "params",
        "memory_mbit_strict",
        "ops_m_strict",
        "paper_convention",
        "memory_mbit_paper",
        "ops_m_paper",
        "search_method",
        "search_cost_gpu_days",
        "wall_seconds",
        "source",
        "trust",
        "seeds",
        "failed",
        "notes",
    ]


def _row(board: Board, line: Line, remembered: bool = True) -> dict:
    convention = AS_PRINTED if line.reported else board.paper_convention
    row = dict(
        dataset=line.dataset,
        data=line.data,
        backbone=line.backbone,
        binarizer=line.binarizer,
        weight_bits=line.weight_bits,
        activation_bits=line.activation_bits,
        recipe=line.recipe,
        cfg_options=line.cfg_options,
        epochs=line.epochs,
        untrained=line.untrained,
        params=line.params,
        memory_mbit_strict=_scaled(line.memory_bits.get("strict")),
        ops_m_strict=_scaled(line.ops.get("strict")),
        paper_convention=convention,
        memory_mbit_paper=_scaled(line.memory_bits.get(convention)),
        ops_m_paper=_scaled(line.ops.get(convention)),
        search_method=line.search_method,
        search_cost_gpu_days=line.search_cost_gpu_days,
        wall_seconds=line.wall_seconds,
        source=line.source,
        trust=line.trust(remembered),
        seeds=None if line.reported else line.seeds,
        failed=None if line.reported else line.failed,
        notes="; ".join(line.notes),
    )
    for metric in board.metrics:
        summary = line.summary(metric)
        row[metric] = summary.mean
        row[f"{metric}_std"] = summary.std
        row[f"{metric}_verdict"] = line.verdicts.get(metric)
    return row


def _scaled(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _csv(board: Board, lines: list[Line], remembered: bool = True) -> str:
    """What ``frame(board, lines).to_csv(index=False)`` gives, without the import of pandas."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns(board), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        row = _row(board, line, remembered)
        writer.writerow({k: None if v != v else v for k, v in row.items()})  # NaN: an empty cell
    return stream.getvalue()


def render(board: Board, lines: list[Line], form: str, width: int | None = None) -> str:
    """The table as text in one of :data:`FORMATS`.

    Args:
        width: columns of the terminal; a wider text table is folded into panels. None: no limit.
    """
    if form == "csv":
        return _csv(board, lines)
    from onebit.leaderboards.showing import formats

    return formats.render(sheets(board, lines), form, width)


def sheets(board: Board, lines: list[Line]) -> list[Sheet]:
    """The board's tables for people: one for each kind of data, real data and the papers' lines first."""
    from onebit.leaderboards.showing.formats import HEADINGS
    from onebit.leaderboards.showing.layout import sheet

    made = []
    for kind, own in by_kind(lines, lambda line: line.dataset).items():
        made.append(sheet(board, own))
        made[-1].heading = HEADINGS[kind]
    return made


def write(board: Board, name: str, lines: list[Line], folder: Path) -> Path:
    """Write ``<folder>/<name>.csv`` and return its path.

    A kept table follows from the files of records and signatures alone: what was verified on this machine is left
    out of its column ``trust``.
    """
    return write_atomic(folder / f"{name}.csv", _csv(board, lines, remembered=False))
