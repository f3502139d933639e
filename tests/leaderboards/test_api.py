"""Boards from Python, and where records are read from."""

import pandas as pd
import pytest

import onebit
from onebit.commons.errors import InputError
from onebit.leaderboards import api
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.place import VARIABLE, records_folder

TWO = ["resnet18_w8", "resnet18_w8_reactnet"]


@pytest.fixture
def folders(sweep, tmp_path):
    return dict(data=sweep.data_root, out=tmp_path / "out", work_dir=tmp_path / "work")


def test_bench_runs_what_is_missing_and_returns_what_was_asked_for(folders, stub_runner):
    first = onebit.bench("mini-cifar10", TWO, seeds=[0, 1], **folders)
    assert list(first.columns[:4]) == ["board", "dataset", "data", "backbone"]
    assert list(zip(first.backbone, first.seed, strict=True)) == [(b, s) for b in TWO for s in (0, 1)]
    assert set(first.data) == {"drawn"}
    assert first.top1.between(0, 1).all()
    assert set(first.status) == {"done"}
    again = onebit.bench("mini-cifar10", TWO[:1], seeds=[1], **folders)
    assert len(again) == 1
    assert again.created[0] == first.created[1]
    everything = onebit.load_results("mini-cifar10", folders["out"] / "records")
    pd.testing.assert_frame_equal(everything, first)
    some = onebit.load_results("cifar10", folders["out"] / "records", recipe="mini", backbones=TWO[1:])
    assert list(some.backbone) == TWO[1:] * 2


def test_options_of_every_task_are_recorded_as_those_of_the_config(folders, stub_runner):
    frame = onebit.bench("mini-cifar10", TWO[:1], epochs=2, lr=0.5, size=16, **folders)
    (text,) = frame.cfg_options
    for option in ("train_cfg.max_epochs=2", "optim_wrapper.optimizer.lr=0.5", "input_size=16"):
        assert option in text
    with pytest.raises(InputError, match=r"epochs .*leave out one"):
        onebit.bench("mini-cifar10", TWO[:1], epochs=2, cfg_options={"train_cfg.max_epochs": 3}, **folders)


def test_a_failed_row_stands_there_with_its_reason(folders, stub_runner):
    frame = onebit.bench("mini-cifar10", ["resnet18_w8_xnor"], cfg_options={"fail": True}, **folders)
    assert set(frame.status) <= {"done", "failed"}
    assert frame.error.notna().sum() == (frame.status == "failed").sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mini-cifar11",), "unknown dataset 'mini-cifar11'"),
        (("mini-cifar10", ["resnet18_w8_bireall"]), "unknown backbone"),
        (("folder",), "many datasets"),
    ],
)
def test_what_is_wrong_is_one_error(folders, arguments, message):
    with pytest.raises(InputError, match=message):
        onebit.bench(*arguments, **folders)


@pytest.mark.parametrize(
    ("name", "value"), [("seeds", [-1]), ("seeds", [True]), ("workers", 0), ("overwrite", "maybe")]
)
def test_arguments_out_of_range(folders, name, value):
    with pytest.raises(InputError, match=name):
        onebit.bench("mini-cifar10", TWO, **{**folders, name: value})


@pytest.mark.parametrize("board", ALL)
def test_columns_are_the_documented_ones(board, tmp_path):
    frame = onebit.load_results(board, tmp_path)
    assert frame.empty
    text = api.load_results.__doc__
    for column in frame.columns:
        base = column.removeprefix("untrained_")
        assert base in ALL[board].metrics or f"``{column}``" in text, column


def test_records_are_found_where_they_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    checkout = records_folder()
    assert checkout.is_absolute()
    assert (checkout / "cifar10").is_dir()
    (tmp_path / "leaderboards" / "records").mkdir(parents=True)
    assert records_folder() == tmp_path.relative_to(tmp_path) / "leaderboards" / "records"
    monkeypatch.setenv(VARIABLE, "elsewhere")
    assert str(records_folder()) == "elsewhere"
    assert str(records_folder("here")) == "here"
