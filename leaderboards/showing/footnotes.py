"""What distinguishes a line's protocol from that of the paper's table, one sentence each."""

from __future__ import annotations

from onebit.commons.datasets import DATASETS, OWN_PEOPLE
from onebit.leaderboards.boards import Board
from onebit.leaderboards.showing.line import Line

_KINDS = {"drawn": "drawn by a program", "development": "development data"}


def notes(board: Board, line: Line) -> list[str]:
    """The footnotes of a measured or imported line, the most important first."""
    found = [
        _dataset(board, line),
        _training_images(line),
        _imported(line),
        _epochs(board, line),
        _input(board, line),
        _own_people(board, line),
        f"config changed: {line.cfg_options}" if line.cfg_options else None,
        _mixed(line),
        *_failures(line),
    ]
    return [note for note in found if note]


def _dataset(board: Board, line: Line) -> str | None:
    kind = _KINDS.get(DATASETS[line.dataset].kind) if line.dataset in DATASETS else None
    if kind is None:
        return None
    return f"{line.dataset} instead of {board.name} ({kind}): not comparable with the paper"


def _training_images(line: Line) -> str | None:
    dataset = DATASETS.get(line.dataset)
    return "scored on the images it was trained on" if dataset and dataset.scored_on_training else None


def _imported(line: Line) -> str | None:
    return {
        "imported checkpoint": "trained elsewhere, scored here from its checkpoint",
        "imported predictions": "trained and run elsewhere, scored here from its predictions",
    }.get(line.source)


def _epochs(board: Board, line: Line) -> str | None:
    paper = board.printed and board.printed.epochs
    trained = sorted({r.epochs for r in line.records if r.status == "done"})
    if line.source != "measured" or paper is None or trained in ([], [paper]):
        return None
    shown = " or ".join(map(str, trained))
    return f"trained for {shown} epoch{'' if trained == [1] else 's'}, the paper for {paper}"


def _input(board: Board, line: Line) -> str | None:
    shape = line.records[0].cost.get("strict", {}).get("input_shape")
    expected = board.printed and board.printed.input_shape
    if shape is None or expected is None or tuple(shape) == expected:
        return None
    ours, paper = ("×".join(map(str, s)) for s in (shape, expected))
    return f"cost for an input of {ours}, the paper's is {paper}"


def _own_people(board: Board, line: Line) -> str | None:
    """People of one's own are scored with or without cameras."""
    return f"scored by: {line.records[0].protocol}" if board.name == OWN_PEOPLE.board else None


def _mixed(line: Line) -> str | None:
    """Seeds under one name whose data or protocol differ are no repetitions of each other."""
    done = [r for r in line.records if r.status == "done"]
    fields = {
        "data": {r.data_checksum for r in done},
        "split": {r.split for r in done},
        "protocol": {r.protocol for r in done},
        "epochs": {r.epochs for r in done},
        "cell": {r.genotype_hash for r in done},
    }
    differing = [name for name, values in fields.items() if len(values) > 1]
    return f"its seeds differ in {', '.join(differing)}" if differing else None


def _failures(line: Line) -> list[str]:
    failed = [r for r in line.records if r.status == "failed"]
    reasons: dict[str, list[str]] = {}
    for record in failed:
        reasons.setdefault(" ".join((record.error or "").split()), []).append(str(record.seed))
    return [f"failed at seed {', '.join(seeds)}: {reason}" for reason, seeds in reasons.items()]
