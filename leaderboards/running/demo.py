"""The demo: three backbones, three tasks, three tables, and whether the pipeline worked.

The narrow widths are what two CPU cores train in minutes; their names say so, and so do the tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from onebit.commons.datasets import DATASETS
from onebit.commons.mini import write
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.commands.bench import report
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.running.bench import BoardSweep
from onebit.leaderboards.running.sweep import bench
from onebit.leaderboards.showing.table import BoardTable

#: The slowest first: two rows run at a time.
BACKBONES = ("dcp_nas_c8_l6", "resnet18_w16_reactnet", "resnet18_w16")


@dataclass(frozen=True)
class Expectation:
    """What a working pipeline reaches on one mini dataset.

    Attributes:
        metric: key of the record's metrics.
        real_valued: least value of the real-valued row.
        margin: every row must beat its own untrained network by this much.
    """

    metric: str
    real_valued: float
    margin: float


EXPECTED = {
    "mini-cifar10": Expectation("top1", 0.80, 0.30),
    "mini-market1501": Expectation("rank1", 0.60, 0.20),
    "mini-voc": Expectation("map_area", 0.50, 0.20),
}


def demo(out: Path) -> int:
    """Write the mini data, run the rows that are missing, print tables and verdict.

    Returns 1 when a row failed or fell short of :data:`EXPECTED`.
    """
    for name, written in write(out / "data", list(EXPECTED)):
        print(f"{name}: {'drawn' if written else 'already there'}", flush=True)
    complaints = []
    for name in EXPECTED:
        dataset = DATASETS[name]
        print(f"\n{name}: {dataset.task}, {len(BACKBONES)} backbones", flush=True)
        sweep = BoardSweep(
            board=ALL[dataset.board],
            dataset=dataset,
            backbones=BACKBONES,
            recipe="mini",
            seeds=(0,),
            data_root=out / "data",
            out=out,
            work_root=out / "work_dirs",
            retry_failed=True,
            # Networks this narrow gain little from a second thread.
            workers=min(2, os.cpu_count() or 1),
        )
        report(sweep, bench(sweep), BoardTable(ALL[dataset.board], name))
        complaints += shortfalls(Record.load_all(sweep.records, dataset.board, name))
    print("\nverdict")
    if complaints:
        print("\n".join(f"  NOT AS EXPECTED: {c}" for c in complaints))
        return 1
    print("  every real-valued row reaches its target and every row beats its untrained network")
    return 0


def shortfalls(records: Iterable[Record]) -> list[str]:
    """What a working pipeline would not show, as sentences."""
    found = []
    for record in records:
        row = f"{record.dataset} {record.backbone}"
        expected = EXPECTED[record.dataset]
        if record.status == "failed":
            found.append(f"{row} failed: {record.error}")
            continue
        value = record.metrics[expected.metric]
        before = record.untrained[expected.metric]
        shown = f"{row}: {expected.metric} {100 * value:.1f} %"
        if record.weight_bits == 32 and value < expected.real_valued:
            found.append(f"{shown}, expected at least {100 * expected.real_valued:.0f} %")
        if value < before + expected.margin:
            found.append(f"{shown}, untrained {100 * before:.1f} %: expected {100 * expected.margin:.0f} points more")
    return found
