"""Runs Python as in a process of its own, from a server that has imported torch: that takes longer than most tests.

Nothing of the suite is imported in the server, so that what the code imports and registers is new to it.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch", "torch._dynamo", "mmengine.model", "scipy.optimize", "pandas", "rich.console", "pydantic"]
)


def run(
    arguments: list[str], environment: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """What ``python ARGUMENTS`` does in the folder ``cwd`` and prints, where these begin with ``-c`` or ``-m``;
    ``PYTHONPATH`` counts."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _CONTEXT.Process(target=_run, args=(arguments, dict(environment), cwd or Path.cwd(), *streams))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(arguments, process.exitcode, *(path.read_text() for path in streams))


def _run(arguments: list[str], environment: dict[str, str], cwd: Path, *streams: Path) -> None:
    os.chdir(cwd)
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = ["", *environment.get("PYTHONPATH", "").split(os.pathsep), *sys.path]
    how, what, *rest = arguments
    sys.argv = ["-c" if how == "-c" else what, *rest]
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
