"""Benches killed at random, two at a time and with a full disk; ``kill_bench.py`` at 1/25 of its size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def kill_bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.leaderboards.kill_bench", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_twenty_kills_lose_nothing():
    out = kill_bench("--kills", "20", "--seeds", "2", "--scenarios", "one", "two", "full")
    assert "20 kills" in out
    assert "met the full disk" in out


@pytest.mark.slow
def test_a_write_that_is_cut_off_loses_nothing():
    """Also where no small file system can be mounted."""
    out = kill_bench("--kills", "20", "--seeds", "2", "--scenarios", "full", "--no-mount")
    assert "RLIMIT_FSIZE" in out


@pytest.mark.slow
def test_workers_die_with_their_bench():
    assert "no worker outlived" in kill_bench("--kills", "200", "--scenarios", "workers")
