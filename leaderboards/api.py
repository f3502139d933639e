"""Boards from Python: run them, and get what they hold as pandas tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onebit.commons import guards
from onebit.commons.datasets import DATASETS, default_data_root
from onebit.commons.errors import InputError
from onebit.commons.task import common_options
from onebit.leaderboards.boards import Board, default_backbones, resolve, runner
from onebit.leaderboards.recording.place import records_folder
from onebit.leaderboards.recording.record import Record

if TYPE_CHECKING:
    import pandas as pd

#: Columns of :func:`load_results` before and after the metrics.
FIRST = ("board", "dataset", "data", "backbone", "binarizer", "weight_bits", "activation_bits", "recipe", "cfg_options")
FIRST += ("seed", "status", "epochs", "main_metric")
LAST = ("params", "memory_bits_strict", "ops_strict", "convention", "memory_bits", "ops", "wall_seconds", "device")
LAST += ("trust", "created", "error")


def load_results(
    board: str, records: str | os.PathLike | None = None, recipe: str | None = None, backbones: Sequence[str] = ()
) -> pd.DataFrame:
    """The records of a board, one line each.

    Args:
        board: a board (``voc``) with all of its datasets, or one dataset (``mini-voc``, ``coco128``).
        records: the folder of records; default as for the commands that read
            (:func:`onebit.leaderboards.recording.place.records_folder`).
        recipe: only rows of this recipe.
        backbones: only rows of these.

    Returns:
        Columns: ``board``, ``dataset``, ``data`` (``real``, ``development`` or ``drawn``), ``backbone``, ``binarizer``,
        ``weight_bits``, ``activation_bits``, ``recipe``, ``cfg_options``, ``seed``, ``status``, ``epochs``,
        ``main_metric``, and of detection ``detector``; a column for each metric of the board and one
        ``untrained_METRIC`` for each, fractions in [0, 1]; ``params``, ``memory_bits_strict``, ``ops_strict`` by the rule ``strict``; ``convention``, the paper's
        rule, with ``memory_bits`` and ``ops`` by it; ``wall_seconds``, ``device``, ``trust`` (the level that is
        established here), ``created``, ``error``. Failed rows have no metrics. Ordered by dataset, recipe, backbone,
        options and seed. Without records the table is empty and has the same columns.

    Raises:
        InputError: an unknown board, or a record that cannot be read.
    """
    of_board, dataset = resolve(board)
    found = Record.load_all(records_folder(records), of_board.name, dataset and dataset.name)
    return _frame(
        of_board, [r for r in found if recipe in (None, r.recipe) and (not backbones or r.backbone in backbones)]
    )


def _frame(board: Board, records: Iterable[Record]) -> pd.DataFrame:
    import pandas as pd

    metrics = [name for metric in board.metrics for name in (metric, f"untrained_{metric}")]
    rows = [_row(board, record) for record in records]
    detector = ["detector"] if board.task == "detection" else []
    frame = pd.DataFrame(rows, columns=[*FIRST, *detector, *metrics, *LAST])
    return frame.sort_values(["dataset", "recipe", "backbone", *detector, "cfg_options", "seed"], ignore_index=True)


def _row(board: Board, record: Record) -> dict[str, Any]:
    from onebit.leaderboards.recording.trust import established
    from onebit.leaderboards.showing.lines import detector_of, options_text

    convention = board.paper_convention
    row = {name: getattr(record, name, None) for name in (*FIRST, *LAST)}
    strict, paper = record.cost.get("strict", {}), record.cost.get(convention, {})
    dataset = DATASETS.get(record.dataset)
    row |= dict(
        data=dataset.kind if dataset else "real",
        cfg_options=options_text(record),
        detector=detector_of(board, record),
        convention=convention,
        params=strict["params_1bit"] + strict["params_real"] if strict else None,
        memory_bits_strict=strict.get("memory_bits"),
        ops_strict=strict.get("ops"),
        memory_bits=paper.get("memory_bits"),
        ops=paper.get("ops"),
        device=record.environment.device,
        trust=str(established(record)),
    )
    for metric in board.metrics:
        row[metric] = record.metrics.get(metric)
        row[f"untrained_{metric}"] = (record.untrained or {}).get(metric)
    return row


def bench(
    board: str,
    backbones: Sequence[str] | None = None,
    *,
    dataset: str | None = None,
    recipe: str | None = None,
    seeds: Sequence[int] = (0,),
    data: str | os.PathLike | None = None,
    out: str | os.PathLike = "leaderboards",
    work_dir: str | os.PathLike = "work_dirs",
    overwrite: Literal["only-missing", "always", "never"] = "only-missing",
    retry_failed: bool = False,
    workers: int = 1,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    size: int | Sequence[int] | None = None,
    detector: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Train and score the rows of a board that are missing, as ``onebit bench`` does.

    Args:
        board: a board, or one dataset of it.
        backbones: names of networks; None for the board's own choice.
        dataset: of the board; default the one that the board is named after.
        recipe: the training; default ``mini``, ``small`` or ``paper``, as the dataset is.
        seeds: one row for each.
        data: the data root; default ``$ONEBIT_DATA``, else ``./data``.
        out: records go to ``out/records``.
        work_dir: checkpoints and logs.
        overwrite: ``only-missing`` skips finished rows, ``always`` runs all again, ``never`` refuses if one exists.
        retry_failed: run rows again that are recorded as failed.
        workers: rows that run at the same time, each in a process.
        epochs: instead of the recipe's.
        batch: images per training step, instead of the recipe's.
        lr: learning rate, instead of the recipe's.
        size: height and width of images in pixels, or one number for both, instead of the recipe's.
        detector: of detection: ``faster_rcnn`` (the default), ``retinanet`` or ``fcos``.
        cfg_options: dotted key to value, further changes of the recipe.

    Returns:
        The rows that were asked for, as :func:`load_results` gives them. A row that failed stands there with its
        ``error``.

    Raises:
        InputError: an unknown name, a missing dataset, an argument out of range, records in the way.
        WorkError: the disk is full.
    """
    from onebit.leaderboards.running.bench import BoardSweep
    from onebit.leaderboards.running.sweep import OVERWRITE
    from onebit.leaderboards.running.sweep import bench as run

    of_board, found = resolve(board, dataset)
    found = found or DATASETS.get(of_board.name)
    if found is None:
        raise InputError(f"board {board} has many datasets: name one as dataset")
    options = dict(cfg_options or {})
    common = {"epochs": epochs, "batch": batch, "lr": lr, "size": size, "detector": detector}
    if any(value is not None for value in common.values()):
        options = common_options(runner(of_board.task), options, **common)
    sweep = BoardSweep(
        board=of_board,
        dataset=found,
        backbones=default_backbones(found) if backbones is None else list(backbones),
        recipe=recipe or found.recipe,
        seeds=[guards.whole("seeds", seed, 0, 2**32 - 1) for seed in seeds],
        data_root=default_data_root() if data is None else Path(data),
        out=Path(out),
        work_root=Path(work_dir),
        overwrite=guards.choice("overwrite", overwrite, OVERWRITE),
        retry_failed=retry_failed,
        workers=guards.whole("workers", workers),
        cfg_options=options,
    )
    return _frame(of_board, [record for record, _ in run(sweep)])
