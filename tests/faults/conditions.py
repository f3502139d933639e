"""Run commands under conditions that machines bring about, and prove that each says one line or works.

    python -m tests.faults.conditions                 every command under every condition

A run passes where its exit code is 0, 1 or 2, it printed no traceback, said at most a few lines of error, and each
file that has its name is whole (``kill_verbs.read_whole``). Read-only folders, a full disk of 2 MiB and a machine
without /dev/shm are mounts in a name space of the user's own; where the kernel allows none, these are
left out, and that is said.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import kill_verbs
from tests.leaderboards.kill_bench import _can_mount

#: A clock that jumps an hour to and fro with every look at it.
_JUMPING = """
import itertools, time
now, jumps = time.time, itertools.cycle((0.0, 3600.0, -3600.0))
time.time = lambda: now() + next(jumps)
time.time_ns = lambda: int(time.time() * 10**9)
import sys
from onebit.leaderboards.cli import main
sys.exit(main())
"""


@dataclass
class Condition:
    """What is done to a process before it runs a command.

    Attributes:
        limit: called in the child before the command.
        variables: of its environment; None takes one away.
        shell: a line of sh around ``"$@"``, the command.
        mounted: a line of sh that mounts, with the folder in $FOLDER, before the command.
        name: of the folder that the command writes into.
        program: Python's arguments in place of ``-m onebit``.
    """

    limit: Callable[[], None] | None = None
    variables: dict[str, str | None] = field(default_factory=dict)
    shell: str = 'exec "$@"'
    mounted: str = ""
    name: str = "folder"
    program: tuple[str, ...] = ("-m", "onebit")


def _limited(kind: int, number: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (number, number))


CONDITIONS = {
    "plain": Condition(),
    "1 CPU": Condition(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})),
    "files of 4 KiB": Condition(_limited(resource.RLIMIT_FSIZE, 4096)),
    "ulimit -v 1 GB": Condition(_limited(resource.RLIMIT_AS, 10**9)),
    "ulimit -v 3 GB": Condition(_limited(resource.RLIMIT_AS, 3 * 10**9)),
    "ulimit -n 16": Condition(_limited(resource.RLIMIT_NOFILE, 16)),
    "stdout full": Condition(shell='exec "$@" > /dev/full'),
    "stdout closed": Condition(shell='exec "$@" >&-'),
    "both closed": Condition(shell='exec "$@" >&- 2>&-'),
    "head -1": Condition(shell='"$@" | head -1'),
    "head -c 0": Condition(shell='"$@" | head -c 0'),
    "no HOME": Condition(variables=dict(HOME=None, XDG_CACHE_HOME=None, ONEBIT_CACHE=None)),
    "HOME is no folder": Condition(variables=dict(HOME="/dev/null", XDG_CACHE_HOME=None, ONEBIT_CACHE=None)),
    "LANG=C": Condition(variables=dict(LANG="C", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")),
    "unicode path": Condition(name="Ärger 数据 🙂 'q\" $x"),
    "long path": Condition(name="/".join(["d" * 200] * 6)),
    "too long a name": Condition(name="n" * 300),
    "clock jumps": Condition(program=("-c", _JUMPING)),
    "read-only folder": Condition(mounted="mount -t tmpfs -o ro none $FOLDER"),
    "disk of 64 KiB": Condition(mounted="mount -t tmpfs -o size=64k none $FOLDER"),
    "no /dev/shm": Condition(mounted="mount -t tmpfs -o ro,size=4k none /dev/shm"),
}
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "backbones": lambda root, folder: ["backbones", "resnet18_w16*"],
    "table": lambda root, folder: ["table", "cuhk03", "--records", str(root / "few" / "records")],
    "verify": lambda root, folder: ["verify", "--records", str(root / "few" / "records")],
    "site": lambda root, folder: ["site", str(folder / "page"), "--records", str(root / "few" / "records")],
    "export": lambda root, folder: ["export", "resnet18_w8_bireal", str(folder / "net.onebit")],
    "data": lambda root, folder: ["data", "mini", str(folder / "data"), "--only", "mini-cuhk03"],
    "train": lambda root, folder: [
        "train",
        "classification",
        "--dataset",
        "mini-cifar10",
        "--backbone",
        "resnet18_w4_bireal",
        "--data",
        str(root / "data"),
        "--work-dir",
        str(folder / "run"),
        "--cfg-options",
        "train_cfg.max_epochs=1",
        "train_dataloader.batch_size=40",
        "train_dataloader.num_workers=1",
    ],
}


def run(condition: Condition, command: list[str], folder: Path) -> tuple[int, str]:
    """The exit code and what was said as error."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "FOLDER": str(folder), **condition.variables}
    variables = {name: value for name, value in variables.items() if value is not None}
    words = ["sh", "-c", condition.shell, "sh", sys.executable, *condition.program, *command]
    if condition.mounted:
        words = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{condition.mounted} && exec "$@"', "sh", *words]
    done = subprocess.run(
        words, env=variables, capture_output=True, preexec_fn=condition.limit, timeout=600, check=False
    )
    return done.returncode, done.stderr.decode(errors="replace")


def hold(root: Path, condition: str, command: str) -> str:
    """Run a command under a condition; the exit code and line, after the checks."""
    about = CONDITIONS[condition]
    with tempfile.TemporaryDirectory(dir=root) as parent:
        folder = Path(parent) / about.name
        if len(about.name) < 255 or "/" in about.name:
            folder.mkdir(parents=True)
        code, said = run(about, COMMANDS[command](root, folder), folder)
        assert code in (0, 1, 2), f"exit code {code}: {said[-2000:]}"
        assert "Traceback" not in said, said[-3000:]
        assert "Exception ignored" not in said, said[-3000:]
        assert len(said.splitlines()) <= 3, said[-3000:]
        for path in folder.rglob("*") if len(about.name) < 255 or "/" in about.name else ():
            if path.is_file() and not path.name.startswith("."):
                kill_verbs.read_whole(path)
    return f"{code}  {said.strip().splitlines()[-1][:100] if said.strip() else ''}"


#: torch waits for ever for a loader's process that could not open the memory that it shares.
WAITS = {("train", "ulimit -n 16")}


def available() -> list[str]:
    mounts = _can_mount()
    return [name for name, about in CONDITIONS.items() if mounts or not about.mounted]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    args = parser.parse_args()
    chosen = args.conditions or available()
    if left := CONDITIONS.keys() - set(available()):
        print(f"no mounts here, so not: {', '.join(sorted(left))}")
    failed, before = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kill_verbs.draw_data(Path(folder))
        for condition in chosen:
            for command in [c for c in args.commands if (c, condition) not in WAITS]:
                try:
                    found = hold(Path(folder), condition, command)
                except Exception as error:
                    failed, found = failed + 1, f"FAILED {error}"
                print(f"{condition:<18} {command:<10} {found}", flush=True)
    count = len(chosen) * len(args.commands)
    print(f"{count} runs, {failed} failed, {time.monotonic() - before:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
