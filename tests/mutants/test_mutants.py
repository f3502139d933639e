"""The counting of noticed faults itself: what is put in, where, and that a fault is noticed."""

import subprocess
import sys

import pytest

from tests.mutants import operators, run
from tests.mutants.faults import FAULTS, trial
from tests.mutants.trial import ROOT

SOURCE = '''
def f(a, b: int = 2, *, c=None):
    """At most 3 texts."""
    if a < b and not c:
        raise ValueError(f"{a + 1} is too small")
    if g(a):
        a += 1
    return zip(sorted(a, key=-b), strict=True)
'''
FOUND = {
    "constant 2 -> 3": "b: int=3",
    "compare Lt -> LtE": "a <= b and",
    "operator And -> Or": "a < b or not c",
    "not left out": "not not c",
    "condition turned round": "if not g(a)",
    "operator Add -> Sub": "a -= 1",
    "constant 1 -> 2": "a += 2",
    "return None": "return None",
    "keyword key left out": "sorted(a)",
    "minus left out": "key=+b",
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.setattr(operators, "ROOT", tmp_path)
    (tmp_path / "module.py").write_text(SOURCE)
    return "module.py"


def test_every_kind_of_fault(module):
    changed = {}
    for mutant in operators.mutants(module):
        assert mutant.text == SOURCE.splitlines()[mutant.line - 1].strip()
        changed.setdefault(mutant.operator, []).append(operators.ast.unparse(mutant.tree()))
    assert set(changed) == {*FOUND, "condition turned round", "statement left out"}
    for operator, text in FOUND.items():
        assert any(text in source for source in changed[operator]), operator
    assert sorted(map(len, changed.values()))[-1] == 2  # "condition turned round" and "statement left out" fit twice
    assert ["raise" in source for source in changed["statement left out"]] == [False, True]


def test_the_seed_draws():
    drawn = run.draw(40, "a")
    assert drawn == run.draw(40, "a") != run.draw(40, "b")
    assert len(set(drawn)) == 40


def test_what_is_called_harmless_is_still_there():
    known = run.harmless()
    assert all(known.values())
    places = {(m.path, m.text, m.operator) for path in {path for path, _, _ in known} for m in operators.mutants(path)}
    assert set(known) <= places


def test_every_judge_is_there():
    for judges in run.core().values():
        for judge in judges:
            path, *names = judge.split("::")
            text = (ROOT / path).read_text(encoding="utf-8")
            assert all(f"def {name.partition('[')[0]}(" in text for name in names), judge


def test_every_named_fault_is_still_in_the_source():
    for fault in FAULTS:
        trial(fault)


@pytest.mark.slow
def test_a_fault_is_noticed_and_what_changes_nothing_survives():
    code = """
from tests.mutants.run import check
from tests.mutants.trial import ROOT, Trial, preload, run
path, tests = "reid/evaluation/distances.py", ("tests/reid/test_evaluation.py::test_bad_features",)
source = (ROOT / path).read_text()
preload()
trials = [Trial(path, text, tests, limit=20) for text in (source, source.replace("raise InputError", "print"), "while True: pass")]
found = sorted(run(trials, 3))
# The third name is one that a fault made: no test has it without the fault.
check(trials, {0: "", 1: found[1][1], 2: tests[0] + "[of a fault]"})
check(trials, {0: "a conftest.py"})
broken = Trial("", "", ("tests/reid/test_evaluation.py::test_that_was_renamed",))
try:
    check([broken], {0: "a conftest.py"})
except RuntimeError:
    print(found)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    first, second, third = eval(done.stdout.splitlines()[-1])
    assert first == (0, "")
    assert second[1].startswith("tests/reid/test_evaluation.py::test_bad_features")
    assert third == (2, "the time limit")
