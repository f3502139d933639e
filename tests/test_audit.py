"""The audit finds old versions by its list, and does not take a service that is not there for a clean bill."""

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from onebit.commons.compat import TORCH

_PATH = Path(__file__).parents[1] / ".ci" / "audit.py"


@pytest.fixture
def audit():
    spec = importlib.util.spec_from_file_location("audit", _PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(monkeypatch, audit, packages):
    text = json.dumps({"dependencies": packages}) if packages is not None else "no connection"
    monkeypatch.setattr(audit.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, text, ""))


@pytest.mark.skipif(TORCH < (2, 10), reason="what is installed is old, as make test-oldest has it")
def test_old_versions_are_found_by_the_list(audit, monkeypatch, capsys):
    monkeypatch.setattr(audit, "asked", lambda: None)
    assert audit.main() == 0, "what is installed here is old"
    monkeypatch.setattr(audit, "version", lambda name: "0.1")
    assert audit.main() == 1
    out = capsys.readouterr().out
    assert "pillow 0.1: at least" in out
    assert out.count("only the reviewed list counts") == 2


def test_what_the_service_says(audit, monkeypatch, capsys):
    hole = {"name": "pillow", "version": "9.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["9.1"]}]}
    skipped = [{"name": f"p{i}", "skip_reason": "not found"} for i in range(2)]
    answers(monkeypatch, audit, [hole, *skipped[:1]])
    assert audit.main() == 1
    assert "pillow 9.0: PYSEC-1, fixed in 9.1\n" in capsys.readouterr().out
    for nothing in (None, [], skipped, [hole, *skipped]):
        answers(monkeypatch, audit, nothing)
        assert bool(audit.asked()) is False
    answers(monkeypatch, audit, skipped)
    assert audit.asked() is None, "skipped is not clean"
