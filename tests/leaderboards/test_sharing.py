"""Two sweeps on one board, what killed ones left behind, and errors nobody expected."""

import dataclasses
import errno
import subprocess
import sys
import threading

import pytest

from onebit.commons.errors import InputError, WorkError
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.running.bench import FAILURE_LOG
from onebit.leaderboards.running.locks import holding
from onebit.leaderboards.running.sweep import bench, claim_row
from tests.leaderboards.conftest import records_below


def test_two_sweeps_at_once_share_the_rows(sweep, stub_runner):
    """Each waits, in its first row, until the other has begun one, too."""
    begun, train = threading.Barrier(2, timeout=60), stub_runner.train
    first = threading.local()

    def wait_and_train(job):
        if not hasattr(first, "done"):
            first.done = True
            begun.wait()
        return train(job)

    stub_runner.train = wait_and_train
    results = {}

    def run(name):
        results[name] = list(bench(sweep))

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(stub_runner.jobs) == 4, "a row ran twice, or not at all"
    rows = [[(r.backbone, r.seed) for r, _ in results[name]] for name in "ab"]
    assert sorted(rows[0]) == sorted(rows[1]) == sorted(sweep.rows())
    assert sum(now for name in "ab" for _, now in results[name]) == 4
    assert all(any(now for _, now in results[name]) for name in "ab")


def test_a_row_that_another_process_runs_is_left_to_it(sweep, stub_runner):
    row = ("resnet18_w8", 0)
    for target in (sweep.record_path(*row), sweep.work_root / sweep.row_name(*row)):
        with holding(target):
            assert claim_row(sweep, row, None, wait=False) is None
    assert stub_runner.jobs == []
    record, run_now = claim_row(sweep, row, None, wait=False)
    assert run_now
    assert claim_row(sweep, row, None, wait=False) == (record, False)
    assert claim_row(sweep, row, record, wait=False)[1], "a rerun that was asked for"
    assert len(stub_runner.jobs) == 2


def test_a_rerun_by_another_sweep_counts_for_this_one(sweep, stub_runner):
    list(bench(sweep))
    stub_runner.jobs.clear()
    always = dataclasses.replace(sweep, overwrite="always")
    ours = bench(always)
    next(ours)
    (*_,) = bench(always)
    assert [now for _, now in ours] == [False] * 3
    assert len(stub_runner.jobs) == 5


def test_the_lock_of_a_killed_process_is_free(sweep, tmp_path):
    target = sweep.record_path("resnet18_w8", 0)
    code = (
        "import os, sys; from pathlib import Path; from onebit.leaderboards.running.locks import holding\n"
        "with holding(Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    with holding(target, wait=False) as ours:
        assert ours


def test_a_lock_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="could not write"), holding(tmp_path / "file" / "x"):
        pass


def test_what_killed_sweeps_left_is_removed_only_where_nobody_writes(sweep, stub_runner):
    mine, other = sweep.record_path("resnet18_w8", 0), sweep.record_path("resnet18_w8", 1)
    stale = [
        mine.with_name(f".{mine.name}.abc.onebit-tmp"),
        sweep.work_root / mine.stem / ".epoch_1.pth.abc.onebit-tmp",
        sweep.work_root / mine.stem / "vis" / ".x.abc.onebit-tmp",
    ]
    foreign = [other.with_name(f".{other.name}.abc.onebit-tmp"), mine.with_name(".hidden")]
    for path in stale + foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    list(bench(dataclasses.replace(sweep, seeds=(0,))))
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in foreign)


def test_a_kill_between_record_and_mark_does_not_resume_the_next_rerun(sweep, stub_runner):
    list(bench(sweep))
    row = ("resnet18_w8", 0)
    (sweep.work_root / sweep.row_name(*row) / "unfinished").write_text("")
    stub_runner.jobs.clear()
    list(bench(dataclasses.replace(sweep, overwrite="always")))
    assert not any(job.resume for job in stub_runner.jobs)


class Odd(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA error: unspecified\nlaunch failure"), "RuntimeError: CUDA error: unspecified"),
        (Odd(), "Odd"),
        (MemoryError(), "MemoryError"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.so"), "FileNotFoundError: [Errno 2] No such file: 'x.so'"),
        (AssertionError("a <script>"), "AssertionError: a <script>"),
    ],
)
def test_an_error_nobody_expected_fails_its_row_only(sweep, stub_runner, error, reason):
    stub_runner.failure["resnet18_w8"] = error
    results = [record for record, _ in bench(sweep)]
    assert [r.status for r in results] == ["failed", "failed", "done", "done"]
    record = Record.load(sweep.record_path("resnet18_w8", 0))
    assert record.error == reason
    log = sweep.work_root / sweep.row_name("resnet18_w8", 0) / record.details["log"]
    assert log.name == FAILURE_LOG
    assert "Traceback" in log.read_text()
    assert type(error).__name__ in log.read_text()
    assert "in train" in log.read_text()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_behind_any_error_ends_the_sweep(sweep, stub_runner, number):
    def train(job):
        try:
            raise OSError(number, "no room")
        except OSError as error:
            raise RuntimeError("writer failed") from error

    stub_runner.train = train
    with pytest.raises(WorkError):
        list(bench(sweep))
    assert records_below(sweep.records) == []


def test_a_finished_board_imports_nothing_heavy(sweep, stub_runner):
    list(bench(sweep))
    code = (
        "import sys; from onebit.leaderboards import cli; code = cli.main(sys.argv[1:])\n"
        "heavy = {'torch', 'mmengine', 'mmdet', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else code)"
    )
    arguments = [
        "bench",
        "mini-cifar10",
        "--backbones",
        ",".join(sweep.backbones),
        "--seeds",
        "0,1",
        "--data",
        sweep.data_root,
        "--out",
        sweep.out,
        "--work-dir",
        sweep.work_root,
    ]
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already done") == 4


def test_bad_input_ends_the_sweep_and_frees_the_row(sweep, stub_runner):
    stub_runner.failure["resnet18_w8"] = InputError("unreadable image x.jpg")
    with pytest.raises(InputError):
        list(bench(sweep))
    with holding(sweep.record_path("resnet18_w8", 0), wait=False) as free:
        assert free
