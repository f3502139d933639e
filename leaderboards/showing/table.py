"""Tables derived from records; they hold nothing that the records do not.

Cells of CSV files are fractions in full precision under stable column names, for pandas
(``docs/tables.md``); the other formats follow the layout of the paper's table and are for people.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from onebit.commons.files import write_atomic
from onebit.leaderboards.boards import Board
from onebit.leaderboards.recording.kinds import record_class
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.showing import formats
from onebit.leaderboards.showing.line import AS_PRINTED, Line, TableLine, by_kind
from onebit.leaderboards.showing.lines import further, measured, printed
from onebit.leaderboards.showing.sheet import Sheet

if TYPE_CHECKING:
    import pandas as pd

#: Names of the tasks for people.
_TASKS = {"classification": "image classification", "detection": "object detection", "reid": "re-identification"}

L = TypeVar("L", bound=TableLine)


class Table(Generic[L]):
    """What ``onebit table`` prints, ``onebit bench`` writes and ``onebit verify`` derives again.

    Attributes:
        name: as typed, and as its CSV file is called.
        title: what the page calls it.
        about: what its lines are about, in two or three words.
        made_by: the command that makes its records.
        columns_of: paper and number of the table whose columns it has, or None.
        of_recipes: whether its rows are trained by a recipe each.
        of_detectors: whether its rows are detectors.
        whole: whether it is all that there is of its board, so that the papers' lines belong beside it.
    """

    name: str
    title: str
    about: str
    made_by: str
    columns_of: tuple[str, str] | None = None
    of_recipes = False
    of_detectors = False
    whole = True

    def place(self, records: Path) -> Path:
        """The folder that holds its records."""
        return records / self.name

    def load(self, records: Path) -> list[Any]:
        """Its records below the folder ``records``.

        Raises:
            InputError: one cannot be read.
        """
        return list(record_class(self.name).load_all(records, self.name))

    def lines(self, records: Iterable[Any], reported: bool = False) -> list[L]:
        """Lines of ``records`` in the table's order, and the papers' if ``reported``."""
        raise NotImplementedError

    def sheets(self, lines: Sequence[L]) -> list[Sheet]:
        """Tables for people: one for each kind of data, real data and the papers' lines first."""
        raise NotImplementedError

    def csv(self, lines: Sequence[L], remembered: bool = True) -> str:
        """The columns of ``docs/tables.md``.

        Args:
            remembered: what was verified on this machine counts in the column ``trust``.
        """
        raise NotImplementedError

    def render(self, lines: Sequence[L], form: str, width: int | None = None) -> str:
        """The table as text: ``csv``, or a form of :func:`onebit.leaderboards.showing.formats.render`.

        Args:
            width: columns of the terminal; a wider text table is folded into panels. None: no limit.
        """
        return self.csv(lines) if form == "csv" else formats.render(self.sheets(lines), form, width)

    def write(self, lines: Sequence[L], folder: Path) -> Path:
        """Write ``<folder>/<name>.csv`` and return its path.

        A kept table follows from the files of records and signatures alone: what was verified on this machine is left
        out of its column ``trust``.
        """
        return write_atomic(folder / f"{self.name}.csv", self.csv(lines, remembered=False))


class BoardTable(Table[Line]):
    """The table of a board, or of one of its datasets."""

    of_recipes = True

    def __init__(self, board: Board, dataset: str | None = None):
        self.board, self.dataset = board, dataset
        self.name = dataset or board.name
        self.title = board.title
        self.about = _TASKS[board.task]
        self.made_by = f"onebit bench {self.name}"
        self.columns_of = board.printed and (board.printed.paper, str(board.printed.table))
        self.whole = self.name == board.name
        self.of_detectors = board.task == "detection"

    def place(self, records: Path) -> Path:
        return records / self.board.name

    def load(self, records: Path) -> list[Record]:
        return list(Record.load_all(records, self.board.name, self.dataset))

    def lines(self, records: Iterable[Record], reported: bool = False) -> list[Line]:
        """One line per (dataset, backbone, detector, recipe, options, origin), aggregated over its seeds.

        Of real data ours come first, then the papers' if ``reported``; then lines of other data. Failed rows are left
        out of the means. The board's own dataset comes first, then others by name; within one, recipe by recipe, lines
        are sorted by the board's first metric, best first.
        """
        found = measured(self.board, records) + (printed(self.board) + further(self.board) if reported else [])
        return [line for own in by_kind(found, lambda line: line.dataset).values() for line in own]

    def sheets(self, lines: Sequence[Line]) -> list[Sheet]:
        from onebit.leaderboards.showing.layout import sheet

        made = []
        for kind, own in by_kind(lines, lambda line: line.dataset).items():
            made.append(sheet(self.board, own))
            made[-1].kind, made[-1].heading = kind, formats.HEADINGS[kind]
        return made

    def frame(self, lines: Iterable[Line], remembered: bool = True) -> pd.DataFrame:
        """The columns of ``docs/tables.md``."""
        import pandas as pd

        return pd.DataFrame([_row(self.board, line, remembered) for line in lines], columns=self.columns)

    def csv(self, lines: Sequence[Line], remembered: bool = True) -> str:
        """What ``frame(lines).to_csv(index=False)`` gives, without the import of pandas."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, self.columns, lineterminator="\n")
        writer.writeheader()
        for line in lines:
            row = _row(self.board, line, remembered)
            writer.writerow({k: None if v != v else v for k, v in row.items()})  # NaN: an empty cell
        return stream.getvalue()

    @property
    def columns(self) -> list[str]:
        """Names of the CSV columns, in order."""
        return list(_row(self.board, _NO_LINE, False))


def _row(board: Board, line: Line, remembered: bool) -> dict[str, Any]:
    """The line's values by column, in the order of the columns."""
    convention = AS_PRINTED if line.reported else board.paper_convention
    metrics = {}
    for metric in board.metrics:
        summary = line.summary(metric)
        metrics[metric] = summary.mean
        metrics[f"{metric}_std"] = summary.std
        metrics[f"{metric}_verdict"] = line.verdicts.get(metric)
    return dict(
        dataset=line.dataset,
        data=line.data,
        backbone=line.backbone,
        binarizer=line.binarizer,
        weight_bits=line.weight_bits,
        activation_bits=line.activation_bits,
        **(dict(detector=line.detector) if board.task == "detection" else {}),
        recipe=line.recipe,
        cfg_options=line.cfg_options,
        epochs=line.epochs,
        **metrics,
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


def _scaled(value: float | None) -> float | None:
    return None if value is None else value / 1e6


#: Its row names the columns.
_NO_LINE = Line(dataset="", backbone="", binarizer=None, weight_bits=None, activation_bits=None, source="", values={})
