"""Kill the commands that write at random moments, and prove that nothing half-written is left.

    python -m tests.faults.kill_verbs --kills 50            each of train, search, export, site, verify, table

Each process is a fork of this one, which saves the imports: kills hit the work. After every kill each file that
has its name is read whole by what reads it; the same command (train and search: with --resume) then ends well,
without a traceback, and with the result of an undisturbed run. Only the hidden files of
``onebit.commons.files.write_atomic`` may be left. ``onebit bench`` has its own, tests/leaderboards/kill_bench.py.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from onebit.backbones import packed
from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.files import TEMPORARY_SUFFIX
from onebit.commons.mini import classification, draw
from onebit.leaderboards import cli
from tests.leaderboards.kill_bench import kill, wait

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDS = REPOSITORY / "leaderboards"


@dataclass
class Verb:
    """A command below a folder of its own.

    Attributes:
        arguments: of the command, for a folder.
        again: of the call after a kill.
        result: files, relative to the folder, whose content an undisturbed run gives too.
        longest: seconds within which a kill comes.
    """

    arguments: Callable[[Path], list[str]]
    again: list[str] = field(default_factory=list)
    result: tuple[str, ...] = ()
    longest: float = 2.0


def _train(folder: Path) -> list[str]:
    options = ["train_cfg.max_epochs=3", "train_dataloader.batch_size=16"]
    where = ["--data", str(folder.parent / "data"), "--work-dir", str(folder / "run")]
    return [
        "train",
        "classification",
        "--dataset",
        "mini-cifar10",
        "--backbone",
        "resnet18_w4_bireal",
        *where,
        "--cfg-options",
        *options,
    ]


def _search(folder: Path) -> list[str]:
    where = [
        "--data",
        str(folder.parent / "data"),
        "--work-dir",
        str(folder / "run"),
        "--out",
        str(folder / "cell.json"),
    ]
    small = [
        "--cfg-options",
        "space.channels=4",
        "space.cells=3",
        "data.images=64",
        "data.batch_size=16",
        "schedule.epochs=2",
    ]
    return ["search", "random", "--dataset", "mini-cifar10", "--preset", "mini", *where, *small]


def _on_records(*arguments: str) -> list[str]:
    return [*arguments, "--records", str(RECORDS / "records")]


VERBS = {
    "train": Verb(_train, ["--resume"], ("run/predictions.npz",), 6.0),
    "search": Verb(_search, ["--resume"], ("cell.json",), 6.0),
    # Its weights are drawn anew: no two files are equal.
    "export": Verb(lambda folder: ["export", "resnet18_w8_bireal", str(folder / "net.onebit")], [], (), 1.0),
    "site": Verb(
        lambda folder: ["site", str(folder / "page"), "--records", str(folder.parent / "few" / "records")],
        [],
        ("page/index.html",),
        4.0,
    ),
    "verify": Verb(lambda folder: _on_records("verify"), [], ("output",), 3.0),
    "table": Verb(lambda folder: _on_records("table", "cifar10", "--format", "csv"), [], ("output",), 0.5),
}


def read_whole(path: Path) -> None:
    """Raises where a file that has its name is not whole."""
    kind = path.suffix
    if kind == ".json":
        json.loads(path.read_bytes())
    elif kind == ".pth":
        read_checkpoint(path)
    elif kind == ".npz":
        with np.load(path) as content:
            assert content.files
    elif kind == ".onebit":
        packed.load(path)
    elif kind == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), path
    elif kind == ".csv":
        list(csv.reader(path.open()))


def check(folder: Path) -> int:
    """Read all that is there; how many hidden files a kill left."""
    hidden = 0
    for path in folder.rglob("*"):
        if path.name.endswith(TEMPORARY_SUFFIX):
            hidden += 1
        elif path.is_file() and path.name not in ("output", "errors"):
            read_whole(path)
    errors = (folder / "errors").read_text(errors="replace")
    assert "Traceback" not in errors, errors
    return hidden


def start(verb: Verb, folder: Path, again: bool) -> int:
    """Fork the command, its output and errors in files of ``folder``."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        for name, descriptor in (("output", 1), ("errors", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        code = cli.main(verb.arguments(folder) + (verb.again if again else []))
    finally:
        os._exit(code)


def draw_data(root: Path, train: int = 80, test: int = 40) -> None:
    """mini-cifar10 of a few images below ``root``/data, and two boards for the page below ``root``/few."""
    for board in ("face", "cuhk03"):
        shutil.copytree(RECORDS / "records" / board, root / "few" / "records" / board)
    (root / "data" / "mini-cifar10").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "CIFAR_TRAIN", train)
        patch.setattr(classification, "CIFAR_TEST", test)
        draw("mini-cifar10", root / "data" / "mini-cifar10")


def _contents(verb: Verb, folder: Path) -> list:
    """What has to be the same; a cell without its provenance, which says how long its search took."""
    contents = [(folder / name).read_bytes() for name in verb.result]
    cells = verb is VERBS["search"]
    return [{k: v for k, v in json.loads(c).items() if k != "provenance"} if cells else c for c in contents]


def kills_of(name: str, root: Path, kills: int, rng: random.Random) -> str:
    """Kill a command until it was hit ``kills`` times, undisturbed in between."""
    verb, whole = VERBS[name], root / f"{name}-whole"
    before = time.monotonic()
    assert wait(start(verb, whole, False), 300) == 0, (whole / "errors").read_text()
    took = min(time.monotonic() - before, verb.longest * 10)
    expected, done, hidden, completed = _contents(verb, whole), 0, 0, 0
    folder = root / name
    while done < kills:
        again = folder.exists()
        pid = start(verb, folder, again and any(folder.rglob("epoch_*.pth")))
        time.sleep(rng.uniform(0, took))
        done += kill(pid)
        hidden = max(hidden, check(folder))
        if rng.random() < 0.3:
            assert wait(start(verb, folder, any(folder.rglob("epoch_*.pth"))), 300) == 0, (
                folder / "errors"
            ).read_text()
            check(folder)
            assert _contents(verb, folder) == expected, f"{name} ends otherwise after a kill"
            completed += 1
            shutil.rmtree(folder)
    return (
        f"{done} kills, {completed} completed after one, 0 tracebacks, 0 half files, at most {hidden} hidden ones left"
    )


def import_before_forking() -> None:
    """What the commands import on their way."""
    import onebit.classification.runner
    import onebit.classification.search.runner
    import onebit.leaderboards.showing.site  # noqa: F401
    from onebit import backbones

    backbones.describe("resnet18_w8_bireal")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS))
    args = parser.parse_args()
    import_before_forking()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ONEBIT_CACHE"] = str(Path(folder) / "cache")
        draw_data(Path(folder))
        for name in args.verbs:
            before = time.monotonic()
            found = kills_of(name, Path(folder), args.kills, random.Random(f"{args.seed} {name}"))
            print(f"{name:<7} {found}, {time.monotonic() - before:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
