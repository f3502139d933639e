"""The trainings of the table of cells that are missing, in any number of processes and on any number of machines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from onebit.classification.cells_table import table
from onebit.classification.cells_table.plan import Planned, planned
from onebit.classification.cells_table.training import (
    Images,
    Setting,
    cost_columns,
    get_setting,
    load_images,
    train,
    warm_up,
)
from onebit.commons.provenance import checkout
from onebit.leaderboards.running import pools
from onebit.leaderboards.running.locks import holding

Line = dict[str, Any]


def fill(dataset: str, data_root: Path, work_dir: Path, workers: int, budget: float | None) -> tuple[Path, int, int]:
    """Train what is missing, and append every training to the table in ``work_dir`` as it ends.

    Args:
        workers: processes, of one thread each.
        budget: seconds, after which no training begins any more that would not end in time by the last one's; None for
            no limit.

    Returns:
        the table, how many trainings it and the table that ships have, and how many are planned; those of mutations are
        known once all random cells are trained.

    Raises:
        InputError: no such table, missing data, or a table in ``work_dir`` that is damaged.
        WorkError: a file cannot be written.
    """
    setting = get_setting(dataset)
    path = work_dir / f"{setting.dataset}-{setting.hash}.csv"
    done = finished(path, setting)
    ends = None if budget is None else time.monotonic() + budget
    if any(each.key not in done for each in planned(_accuracies(done, setting))):
        calls = [(dataset, data_root, path, ends)] * workers
        if workers == 1:
            _work(*calls[0])
        else:
            for _ in pools.in_processes(_work, calls, workers):
                pass
    done = finished(path, setting)
    return path, len(done), len(list(planned(_accuracies(done, setting))))


def finished(path: Path, setting: Setting) -> dict[tuple[str, int], Line]:
    """The lines of this setting in the table that ships and in ``path``, by cell and seed.

    Raises:
        InputError: a table that is damaged, or ``path`` is of another setting.
    """
    lines = [line for line in table.read(table.FILE) if line["config"] == setting.hash] if table.FILE.exists() else []
    if path.exists():
        lines += table.read(path)
    return {(line["genotype_hash"], line["seed"]): line for line in lines}


def _accuracies(done: dict[tuple[str, int], Line], setting: Setting) -> dict[str, float]:
    return {cell: line[f"valid_{setting.epochs}"] for (cell, seed), line in done.items() if seed == 0}


def _work(dataset: str, data_root: Path, path: Path, ends: float | None) -> None:
    """Train one cell after the other of those that nobody else is at."""
    setting = get_setting(dataset)
    images = load_images(setting, data_root)
    warm_up(setting)
    code = checkout()
    commit = "" if code["dirty"] or code["commit"] is None else str(code["commit"])
    longest = 0.0
    while ends is None or time.monotonic() + longest < ends:
        began = time.monotonic()
        line = _claim_and_train(setting, images, path, commit)
        if line is None:
            return
        longest = max(longest, time.monotonic() - began)


def _claim_and_train(setting: Setting, images: Images, path: Path, commit: str) -> Line | None:
    done = finished(path, setting)
    plan = list(planned(_accuracies(done, setting)))
    for each in plan:
        if each.key in done:
            continue
        with holding(path.parent / f"{each.genotype.hash[:16]}--seed{each.seed}", wait=False) as mine:
            # Another process may have finished it between our reading and our claim.
            if not mine or each.key in finished(path, setting):
                continue
            line = trained(each, setting, images, commit)
            count = append(path, line, setting)
            print(
                f"{count} of {len(plan)}  {each.name} seed {each.seed}  valid {100 * line[f'valid_{setting.epochs}']:.2f} %"
                f"  test {100 * line['test']:.2f} %  {line['seconds']:.0f} s",
                flush=True,
            )
            return line
    return None


def trained(each: Planned, setting: Setting, images: Images, commit: str) -> Line:
    """Train a cell; its line of the table."""
    result = train(each.genotype, each.seed, setting, images)
    valid = {f"valid_{epoch}": value for epoch, value in enumerate(result.valid, 1)}
    return {
        "genotype_hash": each.genotype.hash,
        "kind": each.kind,
        "name": each.name,
        "seed": each.seed,
        "genotype": table.encode(each.genotype),
        **valid,
        "test": result.test,
        "loss": result.loss,
        **cost_columns(each.genotype, setting),
        "seconds": round(result.seconds, 2),
        "config": setting.hash,
        "commit": commit,
    }


def append(path: Path, line: Line, setting: Setting) -> int:
    """Add a line to a table that other processes append to as well; returns how many trainings there are now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with holding(path):
        own = table.read(path) if path.exists() else []
        table.write(path, [*own, line], setting.epochs)
        return len(finished(path, setting))
