"""Runs tests against a module with a fault in it. The fault stands in memory: nothing of the checkout is written.

Every trial is a fork of this process, which has imported what the tests need of others: importing torch and what
stands on it takes longer than most of the tests. Modules of the suite are imported in the fork.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: What noticed a fault with which no test can be collected.
CONFTEST = "a conftest.py"
#: What noticed a fault whose tests do not come to an end.
TIME_LIMIT = "the time limit"
_OTHERS = (
    "torch",
    "torchvision.transforms.v2",
    "mmengine.runner",
    "torchreid",
    "numba",
    "hypothesis",
    "pandas",
    "matplotlib.figure",
    "pycocotools.cocoeval",
    "scipy.optimize",
    "scipy.stats",
    "PIL.Image",
    "rich.console",
    "rich.table",
    "pydantic",
    "jinja2",
    "pytest",
)


@dataclass(frozen=True)
class Trial:
    """The module at ``path``, below the repository's root, with another source; and the tests that judge it.

    Without a path nothing is exchanged. Of the tests only those named in ``only`` run, if it is given; the others are
    collected, and a name that is not there is passed over. After ``limit`` seconds of processor time the fault counts as
    noticed: some make a loop endless.
    """

    path: str
    source: str | ast.Module
    tests: tuple[str, ...]
    only: frozenset[str] | None = None
    limit: int = 120


class _Faulty(importlib.machinery.SourceFileLoader):
    """Loads one module from another source, under its own name and path."""

    source: str | ast.Module

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec")


class _Finder:
    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.name = "onebit." + trial.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Faulty(name, spec.origin)
        spec.loader.source = self.trial.source
        return spec


class _FirstFailure:
    """A plugin of pytest: tests with the module's name in theirs come first, for they are the likeliest to fail."""

    name = ""

    def __init__(self, trial: Trial) -> None:
        self.stem = Path(trial.path).stem.replace("_", "-")
        self.only = trial.only

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        if self.only is not None:
            items[:] = [item for item in items if item.nodeid in self.only]
        items.sort(key=lambda item: self.stem not in item.name.replace("_", "-"))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    pytest_collectreport = pytest_runtest_logreport  # a test that cannot be imported notices, too


def _try(trial: Trial, place: Path) -> None:
    """In the fork: run the tests, and write the name of the first that fails."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (trial.limit, trial.limit + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log = os.open(place / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import pytest

    if trial.path:
        finder = _Finder(trial)
        assert finder.name not in sys.modules, f"{finder.name} was imported before the fork"
        sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    first = _FirstFailure(trial)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    options += [f"--basetemp={place / 'tests'}", *trial.tests]
    code = pytest.main(options, plugins=[first])
    if code == pytest.ExitCode.USAGE_ERROR:  # so it ends where a conftest.py cannot be imported
        first.name = CONFTEST
    if trial.only is not None and code == pytest.ExitCode.NO_TESTS_COLLECTED:
        code = pytest.ExitCode.OK
    if bool(code) != bool(first.name):
        raise RuntimeError(f"pytest ends with {code!r}, and {first.name or 'nothing'} fails")
    (place / "noticed").write_text(first.name)


def preload() -> None:
    """Import what is not the suite's, and keep caches out of the checkout."""
    place = tempfile.mkdtemp(prefix="mutants-")
    os.environ.update(NUMBA_CACHE_DIR=f"{place}/numba", HYPOTHESIS_STORAGE_DIRECTORY=f"{place}/hypothesis")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.pycache_prefix = f"{place}/pycache"
    from onebit.commons.compat import ensure_torchvision

    ensure_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _OTHERS:
            importlib.import_module(name)


def run(trials: Iterable[Trial], jobs: int) -> Iterator[tuple[int, str]]:
    """Try all, ``jobs`` at a time.

    Yields:
        the place of a trial and what noticed its fault: a test's name, ``TIME_LIMIT``, "a crash", or "" for none.
    """
    for trial in trials:
        if missing := [test for test in trial.tests if not (ROOT / test.partition("::")[0]).exists()]:
            raise ValueError(f"{trial.path} is judged by {missing}, which is not there")
    fork = multiprocessing.get_context("fork")
    waiting = list(enumerate(trials))[::-1]
    running: dict[Any, tuple[int, Any, Path, float]] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as places:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, trial = waiting.pop()
                place = Path(places, str(number))
                place.mkdir()
                process = fork.Process(target=_try, args=(trial, place))
                process.start()
                running[process.sentinel] = (number, process, place, time.monotonic() + 5 * trial.limit)
            for sentinel in multiprocessing.connection.wait(list(running), timeout=5):
                number, process, place, _ = running.pop(sentinel)
                process.join()
                yield number, _noticed(process.exitcode, place)
            for _, process, _, end in running.values():
                if time.monotonic() > end:
                    os.killpg(process.pid, signal.SIGKILL)


def _noticed(exitcode: int, place: Path) -> str:
    if exitcode == 0:
        return (place / "noticed").read_text()
    if exitcode in (-signal.SIGXCPU, -signal.SIGKILL):
        return TIME_LIMIT
    if exitcode < 0:
        return "a crash"
    raise RuntimeError((place / "log").read_text(errors="replace"))
