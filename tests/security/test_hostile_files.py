"""Hostile files of every kind that is read: one clear line, exit code 2, and nothing else happens.

A file that damage left whole may be read; none may start a program, open another file, write, take the
machine's memory or end in a traceback. The memory of a family's process is limited (:mod:`tests.security.reading`).
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.corpus import FAMILIES, NAMES

CASES = [(family, title) for family, files in FAMILIES.items() for title, _ in files()]


@functools.cache
def results(family: str) -> dict[str, dict]:
    """Title of a file to what came of it."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.reading", family],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {found[-1:]}: {done.stderr[-3000:]}"
    return {each["title"]: each for each in found}


def test_there_are_enough():
    assert len(CASES) >= 300
    assert len(set(CASES)) == len(CASES)


@pytest.mark.parametrize(("family", "title"), CASES)
def test_a_hostile_file(family, title):
    found = results(family)[title]
    assert found["seen"] == []
    assert found["new"] == []
    assert found["out"] == ""
    if found["code"] == 0 and (", bytes changed" in title or (family, title) == ("boxes", "UTF-16")):
        return
    assert found["code"] == 2, found["err"]
    line, end = found["err"][:-1], found["err"][-1:]
    assert end == "\n"
    assert line.startswith("onebit: ")
    assert line.isprintable()
    assert len(line) < 1000
    assert found["seconds"] < 20


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_nowhere(tmp_path, name, monkeypatch, capsys):
    """As arguments: one line, whatever is asked of the path."""
    from onebit.leaderboards import cli

    monkeypatch.chdir(tmp_path)
    for command in (["cell", "show", NAMES[name] + ".json"], ["export", NAMES[name] + ".pth", "--to", "packed", "out"]):
        assert cli.main(command) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert line[:-1].isprintable()
    assert list(tmp_path.iterdir()) == []
