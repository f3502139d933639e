"""A short run of kill_verbs; docs/records.md states a long one."""

import random

import pytest

from tests.faults import kill_verbs


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    kill_verbs.import_before_forking()
    root = tmp_path_factory.mktemp("kills")
    kill_verbs.draw_data(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_CACHE", str(root / "cache"))
        yield root


@pytest.mark.parametrize(
    "verb",
    [pytest.param(v, marks=pytest.mark.slow) if v in ("train", "search", "site") else v for v in kill_verbs.VERBS],
)
def test_a_kill_leaves_nothing_half_written(root, verb):
    said = kill_verbs.kills_of(verb, root, 2, random.Random(f"0 {verb}"))
    assert said.startswith("2 kills")
