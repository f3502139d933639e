"""A line of a table: runs that belong together, or what a paper printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from onebit.commons.datasets import DATASETS
from onebit.commons.datasets.dataset import KINDS
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.run_file import RunFile
from onebit.leaderboards.recording.trust import weakest
from onebit.leaderboards.showing.statistics import Summary, summarize

L = TypeVar("L")

#: The counting rule of a cost that a paper prints without stating its rule.
AS_PRINTED = "as printed"
#: `source` of a line by the origin of its records.
SOURCES = {
    "trained": "measured",
    "imported-checkpoint": "imported checkpoint",
    "imported-predictions": "imported predictions",
}


@dataclass(kw_only=True)
class TableLine:
    """What every line of a table has.

    Attributes:
        notes: what distinguishes it, one sentence each.
        printed: key of the paper and number of the table; None of what was measured.
        records: what it was made from; empty for a printed line.
    """

    notes: list[str] = field(default_factory=list)
    printed: tuple[str, str] | None = None
    records: Sequence[Any] = ()

    @property
    def reported(self) -> bool:
        """Printed in a paper, not measured."""
        return not self.records

    @property
    def finished(self) -> Sequence[RunFile]:
        """The records that its numbers are of."""
        return self.records

    def trust(self, remembered: bool = True) -> str | None:
        """The level of trust of all its finished rows; None of what a paper printed."""
        return None if self.reported else str(weakest(self.finished or self.records, remembered))

    def fields(self, record: RunFile) -> dict[str, Any]:
        """What the page shows of one of its records: all, the outcome first."""
        content = record.model_dump(mode="json")
        first = [key for key in _OUTCOME if key in content]
        return {key: content[key] for key in (*first, *(key for key in content if key not in first))}


#: Fields of a record that tell what came out.
_OUTCOME = ("status", "error", "metrics", "untrained", "seed", "epochs", "cost")


@dataclass
class PlainLine(TableLine):
    """A line of :class:`onebit.leaderboards.showing.plain.PlainTable`.

    Attributes:
        values: of the columns of CSV files but ``trust``; a column that is missing is empty.
        section: lines of one section stand together.
        part: what the page shows of its record, where that is not all of it.
    """

    values: dict[str, Any]
    section: str
    part: dict[str, Any] | None = None

    @property
    def weight_bits(self) -> float | None:
        return self.values.get("weight_bits")

    @property
    def activation_bits(self) -> float | None:
        return self.values.get("activation_bits")

    @property
    def dataset(self) -> str:
        return self.values["dataset"]

    def fields(self, record: RunFile) -> dict[str, Any]:
        return super().fields(record) if self.part is None else self.part


@dataclass
class Line(TableLine):
    """One line of a board.

    Attributes:
        source: a value of :data:`SOURCES`, or the paper and table that print the numbers.
        values: metric key to seed to value, fractions; a printed number has the seed -1.
        untrained: main metric of the untrained network, mean over seeds.
        memory_bits, ops: counting convention to cost.
        verdicts: metric key to a verdict of :mod:`onebit.leaderboards.showing.statistics`.
        notes: what distinguishes its protocol from the paper's, one sentence each.
        detector: of detection, what stands on the backbone; None where that is not known.
        variant: what an ablation varies (:mod:`onebit.leaderboards.ablations`).
    """

    dataset: str
    backbone: str
    binarizer: str | None
    weight_bits: int | None
    activation_bits: int | None
    source: str
    values: dict[str, dict[int, float]]
    recipe: str | None = None
    cfg_options: str = ""
    epochs: int | None = None
    untrained: float | None = None
    params: float | None = None
    memory_bits: dict[str, float] = field(default_factory=dict)
    ops: dict[str, float] = field(default_factory=dict)
    search_method: str | None = None
    search_cost_gpu_days: float | None = None
    wall_seconds: float | None = None
    verdicts: dict[str, str] = field(default_factory=dict)
    detector: str | None = None
    variant: str | None = None

    @property
    def finished(self) -> list[Record]:
        return [record for record in self.records if record.status == "done"]

    def summary(self, metric: str) -> Summary:
        """Mean, deviation and number of seeds of a metric, as a fraction."""
        return summarize(list(self.values.get(metric, {}).values()))

    @property
    def seeds(self) -> int:
        return len(self.finished)

    @property
    def failed(self) -> int:
        return len(self.records) - self.seeds

    @property
    def data(self) -> str:
        """The kind of data that it is about: ``real``, ``development`` or ``drawn``."""
        return kind_of(self.dataset)


def kind_of(dataset: str) -> str:
    """The kind of a dataset's data; of one that is not known here, ``real``."""
    known = DATASETS.get(dataset)
    return known.kind if known else "real"


def by_kind(lines: Iterable[L], dataset: Callable[[L], str]) -> dict[str, list[L]]:
    """Kinds of data to the lines that are about them, real data first: they never share a table."""
    lines = list(lines)
    found = {kind: [line for line in lines if kind_of(dataset(line)) == kind] for kind in KINDS}
    return {kind: own for kind, own in found.items() if own}
