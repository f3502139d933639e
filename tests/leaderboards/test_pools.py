"""Rows in processes and as jobs: submitit's local executor stands in for Slurm."""

import dataclasses
import os
import signal
import sys
import time

import pytest

from onebit.commons.errors import InputError, WorkError
from onebit.leaderboards import cli
from onebit.leaderboards.running import pools
from onebit.leaderboards.running.locks import holding
from onebit.leaderboards.running.sweep import bench, claim_row


def double(x):
    return 2 * x


def refuse(x):
    raise InputError(f"{x} is not wanted")


def crash(x):
    raise ZeroDivisionError("by zero")


def vanish(x):
    os._exit(3)


def on_slurm(function, calls, tmp_path, workers=2, **options):
    options = {"cluster": "local", **options}
    return list(pools.on_slurm(function, calls, workers, options, tmp_path / "logs"))


def test_jobs_give_their_results_each_under_its_index(tmp_path):
    assert sorted(on_slurm(double, [(1,), (2,), (3,)], tmp_path)) == [(0, 2), (1, 4), (2, 6)]


def test_our_own_errors_come_back_as_they_are(tmp_path):
    with pytest.raises(InputError, match=r"^7 is not wanted$"):
        on_slurm(refuse, [(7,)], tmp_path)


@pytest.mark.parametrize("function", [crash, pytest.param(vanish, marks=pytest.mark.slow)])
def test_a_job_without_a_result_is_one_line_that_names_its_log(tmp_path, function):
    with pytest.raises(WorkError, match=r"ended without a result: .*; log: .*\.err") as failed:
        on_slurm(function, [(0,)], tmp_path)
    assert "\n" not in str(failed.value)


def sleep_for_ever(path):
    with open(path, "w") as stream:
        stream.write(str(os.getpid()))
    time.sleep(600)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def interruptible():
    """Processes started from here obey SIGINT, even where these tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_still_runs_is_cancelled_when_one_fails(tmp_path, interruptible):
    started = tmp_path / "started"

    def after_the_other_began(x):
        while not started.exists() or not started.read_text():
            time.sleep(0.05)
        raise InputError("now")

    jobs = pools.on_slurm(
        lambda kind: sleep_for_ever(started) if kind == "sleep" else after_the_other_began(kind),
        [("sleep",), ("fail",)],
        2,
        {"cluster": "local"},
        tmp_path / "logs",
    )
    with pytest.raises(InputError, match="now"):
        list(jobs)
    pid = int(started.read_text())
    end = time.monotonic() + 30
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(pid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue": "gpu"}, "unknown option of --slurm 'queue'; there are partition, time, gpus"),
        ({"gpus": "two"}, "--slurm gpus 'two': expected a whole number from 0 up"),
        ({"time": "1_0"}, "--slurm time '1_0': expected a whole number from 1 up"),
        ({"cluster": "moon"}, "cluster 'moon': expected one of slurm, local, debug"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        pools.slurm_parameters(options)


def test_options_get_submitits_names():
    assert pools.slurm_parameters({"partition": "a", "time": "60", "gpus": "1"}) == {
        "cluster": "slurm",
        "slurm_partition": "a",
        "timeout_min": 60,
        "gpus_per_node": 1,
    }
    assert pools.slurm_parameters({})["timeout_min"] == 24 * 60


def test_without_submitit_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'onebit-bench\[slurm\]'"):
        on_slurm(double, [(1,)], tmp_path)


@pytest.mark.skipif(bool(os.environ.get("SLURM_JOB_ID")), reason="this machine has Slurm")
def test_without_slurm_the_message_is_one_line(tmp_path):
    with pytest.raises(InputError, match="--slurm"):
        on_slurm(double, [(1,)], tmp_path, cluster="slurm")


def test_the_command_refuses_wrong_slurm_options_before_anything_else(capsys):
    assert cli.main(["bench", "voc", "--data", "/nowhere", "--slurm", "gpu"]) == 2
    assert "--slurm takes KEY=VALUE, got 'gpu'" in capsys.readouterr().err


@pytest.fixture
def real_stub(monkeypatch, sweep):
    """The stand-in that jobs can import, where `stub_runner` is known to this process only."""
    from tests.leaderboards import stub_bench

    monkeypatch.setenv("ONEBIT_STUB_LOG", str(sweep.work_root.parent / "log"))
    monkeypatch.setattr("onebit.leaderboards.running.sweep.claim_row", stub_bench.claim_row)
    return stub_bench


@pytest.mark.slow
def test_a_board_is_filled_by_jobs_and_by_workers(sweep, real_stub):
    two = dataclasses.replace(sweep, workers=2, slurm={"cluster": "local"}, seeds=(0,))
    done = list(bench(two))
    assert [(r.status, now) for r, now in done] == [("done", True)] * 2
    assert {r.metrics["top1"] for r, _ in done} == {real_stub.top1(b, 0) for b in sweep.backbones}
    here = dataclasses.replace(sweep, workers=2)
    results = list(bench(here))
    assert sorted(now for _, now in results) == [False, False, True, True]
    assert all(r.metrics["top1"] == real_stub.top1(r.backbone, r.seed) for r, _ in results)
    assert not (sweep.work_root.parent / "log").exists()


def test_a_row_that_is_busy_elsewhere_is_asked_for_again(sweep, stub_runner, monkeypatch):
    """By jobs, too: the first claim comes back empty, the second one waits."""
    claims = []

    def claim(sweep, row, before, wait):
        claims.append((row, wait))
        if row == ("resnet18_w8", 0) and not wait:
            with holding(sweep.record_path(*row)):
                return claim_row(sweep, row, before, wait)
        return claim_row(sweep, row, before, wait)

    def here(function, calls, *_):
        yield from ((i, function(*call)) for i, call in enumerate(calls))

    monkeypatch.setattr("onebit.leaderboards.running.sweep.claim_row", claim)
    monkeypatch.setattr("onebit.leaderboards.running.pools.on_slurm", here)
    results = list(bench(dataclasses.replace(sweep, seeds=(0,), slurm={})))
    assert len(results) == len(stub_runner.jobs) == 2
    assert claims[-1] == (("resnet18_w8", 0), True)
