"""Kill `onebit bench` at random moments and prove that nothing is lost, doubled or unreadable.

    python -m tests.leaderboards.kill_bench --kills 500

Every process is a fork of this one that runs the real command over the stub rows of
``stub_bench.py``: forking saves the imports, so that kills hit the work and not the start. Four
scenarios:

one      SIGKILL of a bench, 500 times, a new board whenever one is complete; every fifth board is
         then run again with ``--overwrite always``
two      two benches fill the same board, one or both are killed
full     the disk is full after a random number of bytes, on a real file system of 1 MiB where the
         kernel lets us mount one (a user namespace; no root needed), else by RLIMIT_FSIZE, which
         cuts a write off in its middle just so
workers  ``--workers 2`` in a process of its own: its workers must die with it

After every kill: each record that had been written is there, byte by byte; every record reads; the
stub has seen no row begin that was finished, nor one that ran elsewhere. When a board is complete:
one record per row with the metric it must have, sound against its checkpoint and predictions, no
temporary file left.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from onebit import backbones
from onebit.commons.datasets import DATASETS
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.verification import problems
from onebit.leaderboards.running.environment import environment
from tests.leaderboards import stub_bench

BACKBONES = ("resnet18_w4", "resnet18_w4_bireal", "resnet18_w4_xnor")
SEEDS = list(range(8))
_IN_NAMESPACE = "ONEBIT_KILLS_IN_NAMESPACE"
_FILE_SYSTEM_BYTES = 2**20


class Board:
    """One board in a folder of its own, and what is known to be finished on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out, self.work, self.log = root / "out", root / "work", root / "log"
        self.records = self.out / "records" / "cifar10"
        self.finished: dict[str, bytes] = {}
        dataset = DATASETS["mini-cifar10"]
        for relative in dataset.required:
            path = root / "data" / dataset.name / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    def arguments(self, *more: str) -> list[str]:
        return [
            "bench",
            "mini-cifar10",
            "--backbones",
            ",".join(BACKBONES),
            "--seeds",
            ",".join(map(str, SEEDS)),
            "--data",
            str(self.root / "data"),
            "--out",
            str(self.out),
            "--work-dir",
            str(self.work),
            *more,
        ]

    def environment(self, rerun: bool = False) -> dict[str, str]:
        records = {} if rerun else {"ONEBIT_STUB_RECORDS": str(self.records)}
        return {"ONEBIT_STUB_LOG": str(self.log), **records}

    def start(self, *more: str, limit: int | None = None) -> int:
        """Fork a bench and return its process id.

        Args:
            limit: bytes after which the kernel refuses to extend any of its files.
        """
        pid = os.fork()
        if pid:
            return pid
        code = 99
        try:
            os.environ.pop("ONEBIT_STUB_RECORDS", None)
            os.environ.update(self.environment(rerun="always" in more))
            output = os.open(os.devnull, os.O_WRONLY)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            stub_bench.install()
            code = stub_bench.cli.main(self.arguments(*more))
        finally:
            os._exit(code)

    def check(self, rerun: bool = False) -> None:
        """Compare with what was there before; see the top of this file."""
        seen = self.log.read_text() if self.log.exists() else ""
        assert not seen, seen
        now = {}
        for path in self.records.glob("*"):
            if path.is_file() and not path.name.startswith("."):
                Record.load(path)
                now[path.name] = path.read_bytes()
        for name, content in self.finished.items():
            assert name in now, f"finished row lost: {name}"
            assert rerun or now[name] == content, f"finished row changed: {name}"
        self.finished = now

    def check_complete(self) -> None:
        self.check(rerun=True)
        records = list(Record.load_all(self.out / "records", "cifar10"))
        rows = [(r.backbone, r.seed) for r in records]
        assert sorted(rows) == sorted((b, s) for b in BACKBONES for s in SEEDS), rows
        for record in records:
            assert record.status == "done", record.error
            assert record.metrics["top1"] == stub_bench.top1(record.backbone, record.seed)
            assert problems(record, self.work) == []
        left = [p for p in self.root.rglob(".*") if p.is_file()]
        assert not left, f"temporary files left: {left}"
        assert (self.out / "tables" / "mini-cifar10.csv").exists()


def wait(pid: int, seconds: float = 120) -> int:
    """The exit code of a child; minus the signal that ended it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"process {pid} did not end within {seconds} s")


def kill(pid: int) -> bool:
    """SIGKILL a child; True if that is what ended it."""
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


class Boards:
    """One board after the other below a folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0
        self.next()

    def next(self) -> Board:
        if self.count:
            shutil.rmtree(self.board.root)
        self.count += 1
        self.board = Board(self.root / str(self.count))
        return self.board


def scenario_one(root: Path, kills: int, rng: random.Random) -> str:
    boards, done, completed = Boards(root), 0, 0
    rerun = False
    while done < kills:
        board = boards.board
        pid = board.start(*(["--overwrite", "always"] if rerun else []))
        time.sleep(rng.uniform(0, 0.6))
        if kill(pid):
            done += 1
            board.check(rerun)
            if rng.random() < 0.9:
                continue
        # Some boards are completed only by their last call, some by an undisturbed one.
        assert wait(board.start(*(["--overwrite", "always"] if rerun else []))) == 0
        board.check_complete()
        completed += 1
        rerun = not rerun and completed % 5 == 0
        if not rerun:
            boards.next()
    # The last kill may have hit a run with --overwrite always: only the same command goes on with it.
    assert wait(boards.board.start(*(["--overwrite", "always"] if rerun else []))) == 0
    boards.board.check_complete()
    return f"{done} kills, {completed + 1} boards of {len(BACKBONES) * len(SEEDS)} rows completed"


def scenario_two(root: Path, kills: int, rng: random.Random) -> str:
    boards, done, completed = Boards(root), 0, 0
    while done < kills:
        board = boards.board
        pids = [board.start(), board.start()]
        time.sleep(rng.uniform(0, 0.6))
        both = rng.random() < 0.5
        first = rng.randrange(2)
        done += kill(pids[first])
        if both:
            done += kill(pids[1 - first])
            board.check()
        if not both or rng.random() < 0.1:
            codes = [wait(pid) for pid in ([board.start(), board.start()] if both else [pids[1 - first]])]
            assert set(codes) == {0}, codes
            board.check()
            board.check_complete()
            completed += 1
            boards.next()
    pids = [boards.board.start(), boards.board.start()]
    assert [wait(pid) for pid in pids] == [0, 0]
    boards.board.check_complete()
    return f"{done} kills, {completed + 1} boards completed"


def scenario_full(root: Path, rounds: int, rng: random.Random) -> str:
    """The disk fills up; when there is room again the same command goes on."""
    mounted = os.environ.get(_IN_NAMESPACE) == "1"
    if mounted:
        size = f"size={_FILE_SYSTEM_BYTES}"
        root = root / "small"
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(root)], check=True)
    boards, refused, completed = Boards(root), 0, 0
    for _ in range(rounds):
        board = boards.board
        if mounted:
            filler = root / "filler"
            free = shutil.disk_usage(root).free
            filler.write_bytes(bytes(max(0, free - rng.randrange(0, 160) * 1024)))
            code = wait(board.start())
            filler.unlink()
        else:
            code = wait(board.start(limit=rng.randrange(0, 6000)))
        assert code in (0, 1), code
        board.check()
        refused += code == 1
        if code == 0 or rng.random() < 0.2:
            assert wait(board.start()) == 0
            board.check_complete()
            completed += 1
            boards.next()
    assert wait(boards.board.start()) == 0
    boards.board.check_complete()
    assert refused, "no run met the full disk"
    if mounted:
        subprocess.run(["umount", str(root)], check=True)
    how = "a file system of 1 MiB" if mounted else "RLIMIT_FSIZE"
    return f"{rounds} runs, {refused} of them met the full disk ({how}), {completed + 1} boards completed"


def scenario_workers(root: Path, kills: int, rng: random.Random) -> str:
    board = Board(root / "workers")
    command = [sys.executable, "-m", "tests.leaderboards.stub_bench", *board.arguments("--workers", "2")]
    environment = {**os.environ, **board.environment()}
    for _ in range(kills):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(4, 8))
        process.kill()
        process.wait()
        _wait_for_group_to_end(process.pid)
        board.check()
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode == 0
    board.check_complete()
    return f"{kills} kills, no worker outlived its bench, board completed"


def _wait_for_group_to_end(group: int, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    raise AssertionError("workers outlived their bench")


SCENARIOS = {"one": scenario_one, "two": scenario_two, "full": scenario_full, "workers": scenario_workers}
#: Of `--kills`: how many a scenario gets.
_SHARE = {"one": 1.0, "two": 0.4, "full": 0.2, "workers": 0.01}


def _can_mount() -> bool:
    probe = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True).returncode == 0
    except OSError:
        return False


def _import_before_forking() -> None:
    """What a bench imports on its way; torch alone would take longer than all of a board's rows."""
    import onebit.leaderboards.showing.table  # noqa: F401

    for backbone in BACKBONES:
        backbones.describe(backbone)
    environment("classification")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-mount", action="store_true", help="full: RLIMIT_FSIZE in any case")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="rows of a backbone")
    args = parser.parse_args()
    SEEDS[:] = range(args.seeds)
    _import_before_forking()
    for name in args.scenarios:
        mounting = not args.no_mount and _IN_NAMESPACE not in os.environ
        if name == "full" and mounting and _can_mount():
            command = ["unshare", "--map-root-user", "--mount", sys.executable, "-m", __spec__.name]
            again = [
                "--kills",
                str(args.kills),
                "--seed",
                str(args.seed),
                "--seeds",
                str(args.seeds),
                "--scenarios",
                "full",
            ]
            subprocess.run(command + again, env={**os.environ, _IN_NAMESPACE: "1"}, check=True)
            continue
        with tempfile.TemporaryDirectory() as root:
            before = time.monotonic()
            count = max(1, round(args.kills * _SHARE[name]))
            outcome = SCENARIOS[name](Path(root), count, random.Random(f"{args.seed} {name}"))
            print(f"{name:<8} {outcome}, {time.monotonic() - before:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
