"""A sweep runs what is missing, records what failed, and goes on where it stopped."""

import dataclasses
import errno
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from onebit.commons.errors import InputError, WorkError
from onebit.leaderboards.recording.file_options import without_files
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.running.sweep import bench
from onebit.leaderboards.showing.lines import options_text
from tests.leaderboards.conftest import records_below


def test_one_record_per_row_and_nothing_else(sweep, stub_runner):
    results = list(bench(sweep))
    assert [(r.backbone, r.seed, now) for r, now in results] == [
        ("resnet18_w8", 0, True),
        ("resnet18_w8", 1, True),
        ("resnet18_w8_reactnet", 0, True),
        ("resnet18_w8_reactnet", 1, True),
    ]
    assert records_below(sweep.records) == [
        f"mini-cifar10--{b}--mini--seed{s}.json" for b in ("resnet18_w8", "resnet18_w8_reactnet") for s in (0, 1)
    ]
    record = Record.load(sweep.record_path("resnet18_w8_reactnet", 1))
    assert (record.weight_bits, record.activation_bits, record.binarizer) == (1, 1, "reactnet")
    assert record.metrics["top1"] == pytest.approx(0.51)
    assert record.wall_seconds > 0


def test_only_missing_runs_only_what_is_missing(sweep, stub_runner):
    list(bench(sweep))
    sweep.record_path("resnet18_w8", 1).unlink()
    stub_runner.jobs.clear()
    assert [now for _, now in bench(sweep)] == [False, True, False, False]
    assert [(j.backbone, j.seed) for j in stub_runner.jobs] == [("resnet18_w8", 1)]


def test_always_starts_afresh_and_never_refuses(sweep, stub_runner):
    list(bench(sweep))
    stub_runner.jobs.clear()
    list(bench(dataclasses.replace(sweep, overwrite="always")))
    assert len(stub_runner.jobs) == 4
    assert not any(job.resume for job in stub_runner.jobs)
    with pytest.raises(InputError, match="exists"):
        list(bench(dataclasses.replace(sweep, overwrite="never")))


def test_an_interrupted_row_is_resumed(sweep, stub_runner):
    stub_runner.failure["resnet18_w8"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        list(bench(sweep))
    assert records_below(sweep.records) == []
    del stub_runner.failure["resnet18_w8"]
    list(bench(sweep))
    assert [job.resume for job in stub_runner.jobs] == [False, True, False, False, False]


def test_a_failed_row_is_recorded_the_next_run_and_retried_on_request(sweep, stub_runner):
    stub_runner.failure["resnet18_w8"] = WorkError("the loss is nan in epoch 3")
    results = list(bench(sweep))
    assert [r.status for r, _ in results] == ["failed", "failed", "done", "done"]
    assert Record.load(sweep.record_path("resnet18_w8", 0)).error == "the loss is nan in epoch 3"

    stub_runner.failure.clear()
    stub_runner.jobs.clear()
    assert [now for _, now in bench(sweep)] == [False] * 4
    retried = list(bench(dataclasses.replace(sweep, retry_failed=True)))
    assert [r.status for r, _ in retried] == ["done"] * 4
    assert [now for _, now in retried] == [True, True, False, False]
    assert not any(job.resume for job in stub_runner.jobs), "a failed run must not be resumed"


def test_a_full_disk_ends_the_sweep(sweep, stub_runner):
    error = WorkError("the disk is full")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    stub_runner.failure["resnet18_w8"] = error
    with pytest.raises(WorkError, match="disk is full"):
        list(bench(sweep))
    assert records_below(sweep.records) == []
    assert len(stub_runner.jobs) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [(dict(backbones=("resnet18_w8", "resnet81")), "resnet18"), (dict(recipe="mini2"), "did you mean mini")],
)
def test_wrong_names_are_found_before_the_first_row(sweep, stub_runner, change, message):
    with pytest.raises(InputError, match=message):
        list(bench(dataclasses.replace(sweep, **change)))
    assert stub_runner.jobs == []


def test_missing_dataset_names_the_expected_path(sweep, stub_runner, tmp_path):
    with pytest.raises(InputError, match=r"mini-cifar10 not found: expected .*nowhere"):
        list(bench(dataclasses.replace(sweep, data_root=tmp_path / "nowhere")))


def test_a_row_named_twice_runs_once(sweep, stub_runner):
    twice = dataclasses.replace(sweep, backbones=("resnet18_w8", "resnet18_w8"), seeds=(0, 0))
    assert len(list(bench(twice))) == len(stub_runner.jobs) == 1


def test_bad_input_found_by_a_runner_leaves_nothing_behind(sweep, stub_runner):
    stub_runner.failure["resnet18_w8"] = InputError("unreadable image x.jpg")
    with pytest.raises(InputError, match="unreadable image"):
        list(bench(sweep))
    assert records_below(sweep.work_root) == records_below(sweep.records) == []


def test_an_interrupted_rerun_goes_on(sweep, stub_runner):
    list(bench(sweep))
    again = dataclasses.replace(sweep, overwrite="always", backbones=("resnet18_w8",), seeds=(0,))
    stub_runner.failure["resnet18_w8"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        list(bench(again))
    del stub_runner.failure["resnet18_w8"]
    list(bench(again))
    list(bench(again))
    assert [job.resume for job in stub_runner.jobs[-3:]] == [False, True, False]


def test_a_broken_record_stops_a_sweep_before_it_trains(sweep, stub_runner):
    list(bench(sweep))
    sweep.record_path("resnet18_w8", 0).write_text("[]")
    stub_runner.jobs.clear()
    with pytest.raises(InputError, match="expected an object, found a list"):
        list(bench(dataclasses.replace(sweep, seeds=(0, 1, 2))))
    assert stub_runner.jobs == []


@pytest.fixture
def threads_for_processes(monkeypatch):
    """Worker processes could not see the stand-in runner; threads can."""

    def pool(workers, mp_context, initializer, initargs):
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr("onebit.leaderboards.running.pools.ProcessPoolExecutor", pool)


def test_workers_run_each_missing_row_once(sweep, stub_runner, threads_for_processes):
    list(bench(dataclasses.replace(sweep, seeds=(0,))))
    stub_runner.jobs.clear()
    results = list(bench(dataclasses.replace(sweep, workers=3)))
    assert sorted((r.backbone, r.seed, now) for r, now in results) == [
        ("resnet18_w8", 0, False),
        ("resnet18_w8", 1, True),
        ("resnet18_w8_reactnet", 0, False),
        ("resnet18_w8_reactnet", 1, True),
    ]
    assert len(stub_runner.jobs) == 2


def test_a_full_disk_ends_a_sweep_of_several_workers(sweep, stub_runner, threads_for_processes):
    error = WorkError("the disk is full")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    stub_runner.failure["resnet18_w8"] = error
    with pytest.raises(WorkError, match="disk is full"):
        list(bench(dataclasses.replace(sweep, workers=2)))


def test_options_make_another_row(sweep, stub_runner):
    list(bench(sweep))
    changed = dataclasses.replace(sweep, cfg_options={"train_cfg.max_epochs": 2})
    assert all(now for _, now in bench(changed))
    assert len(records_below(sweep.records)) == 8


def test_a_record_names_a_file_by_its_hash_and_not_by_its_folder(sweep, stub_runner, tmp_path):
    """Two folders that hold the same file are one row; another file is another."""
    rows = {}
    for folder, content in (("home", b"w"), ("elsewhere", b"w"), ("other", b"v")):
        file = tmp_path / folder / "start.pth"
        file.parent.mkdir()
        file.write_bytes(content)
        changed = dataclasses.replace(
            sweep, seeds=(0,), cfg_options={"init_from": str(file), "a.b": ["x", {"c": str(file)}]}
        )
        rows[folder] = [record.file_name() for record, _ in bench(changed)]
        (record, _), *_ = bench(changed)
        sha256 = hashlib.sha256(content).hexdigest()
        named = f"start.pth@sha256:{sha256}"
        assert record.cfg_options == {"init_from": named, "a.b": ["x", {"c": named}]}
        assert str(tmp_path) not in changed.record_path("resnet18_w8", 0).read_text()
        assert without_files({**record.cfg_options, "d": "x@sha256"}) == {"d": "x@sha256"}
        assert f"init_from=start.pth@sha256:{sha256[:12]}" in options_text(record).split()
    assert rows["home"] == rows["elsewhere"] != rows["other"]
    # The runner gets the path, which says where to read.
    assert stub_runner.jobs[0].cfg_options["init_from"] == str(tmp_path / "home" / "start.pth")
    assert len(stub_runner.jobs) == 4, "the same file elsewhere is no new row"


def test_an_absolute_path_without_a_file_is_refused_before_training(sweep, stub_runner, tmp_path):
    changed = dataclasses.replace(sweep, cfg_options={"init_from": str(tmp_path / "none.pth")})
    with pytest.raises(InputError, match=r"init_from: expected a file, found none at .*none\.pth"):
        list(bench(changed))
    assert not stub_runner.jobs


def test_the_reason_of_a_failed_row_does_not_tell_where_its_folders_lie(sweep, stub_runner):
    text = f"cannot read {sweep.data_root}/a.jpg, see {sweep.work_root}"
    work_dir = sweep.work_root / sweep.row_name("resnet18_w8", 0)
    stub_runner.failure["resnet18_w8"] = WorkError(f"{text}; {work_dir}/train.log")
    (record, _), *_ = bench(dataclasses.replace(sweep, seeds=(0,)))
    assert record.error.startswith("cannot read data/a.jpg")
    assert record.error.endswith("; work-dir/train.log")


def test_bench_below_torchrun_is_refused(monkeypatch, capsys):
    from onebit.leaderboards.cli import main

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert main(["bench", "mini-cifar10"]) == 2
    assert "runs in one process" in capsys.readouterr().err
