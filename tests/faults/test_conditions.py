"""A sample of conditions; docs/records.md states all of them."""

import itertools

import pytest

from tests.faults import conditions, kill_verbs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("conditions")
    kill_verbs.draw_data(root)
    return root


@pytest.mark.parametrize(
    ("condition", "command", "code"),
    [
        ("stdout full", "table", "1  onebit: could not write to standard output: No space left on device"),
        ("stdout closed", "table", "2  onebit: standard output is closed"),
        ("head -1", "backbones", "0"),
        ("no HOME", "table", "0"),
        ("LANG=C", "table", "0"),
        ("unicode path", "data", "0"),
        ("too long a name", "data", "1  onebit: could not write"),
        ("files of 4 KiB", "data", "1  onebit: could not write"),
        ("clock jumps", "table", "0"),
    ],
)
def test_one_line_or_it_works(root, condition, command, code):
    assert conditions.hold(root, condition, command).startswith(code)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "condition"),
    [p for p in itertools.product(("export", "train"), conditions.available()) if p not in conditions.WAITS],
)
def test_every_condition(root, condition, command):
    conditions.hold(root, condition, command)
