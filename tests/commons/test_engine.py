"""The standing rules of every mmengine training, on a network of one layer."""

import builtins
import errno
import hashlib
import logging
import os
import struct
import threading
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub

from onebit.commons import engine, engine_hooks, files
from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.checkpoints import histories, weights_sha256
from onebit.commons.engine import latest_checkpoint, load_row, load_weights, loss_curve, plain_errors, score
from onebit.commons.errors import InputError, WorkError

BATCHES = 3  # of an epoch


class Killed(BaseException):
    """Ends a run as a signal would: nothing in between may catch it."""


def kill(runner, outputs):
    raise Killed


def no_op(runner, outputs):
    pass


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def weights(runner):
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def checkpoints(folder):
    return sorted(p.name for p in folder.glob("epoch_*"))


def test_same_seed_gives_the_same_weights_and_another_seed_others(line):
    runners = [line(name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    for runner in runners:
        runner.train()
    first, second, third = map(weights, runners)
    assert same(first, second)
    assert not same(first, third)
    assert loss_curve(runners[0]) == loss_curve(runners[1])
    assert len(loss_curve(runners[0])) == 3


def test_the_rate_is_scaled_once_and_before_the_schedule_begins(line):
    """Batches of 8 where the rate is that of batches of 16."""
    rates = {}
    for name, scaling in (("plain", {}), ("scaled", {"auto_scale_lr": dict(enable=True, base_batch_size=16)})):
        seen = rates[name] = []
        line(
            name, at=4, call=lambda runner, _, seen=seen: seen.extend(runner.optim_wrapper.get_lr()["lr"]), **scaling
        ).train()
    assert rates["plain"][0] < 0.05
    assert rates["scaled"] == pytest.approx([rate / 2 for rate in rates["plain"]])


@pytest.mark.parametrize("at", [BATCHES + 1, 2 * BATCHES - 1, 2 * BATCHES])
def test_resumed_run_ends_where_an_uninterrupted_one_does(line, at):
    whole = line("whole", at=at, call=no_op)
    whole.train()
    with pytest.raises(Killed):
        line("broken", at=at, call=kill).train()
    epochs_done = at // BATCHES
    assert latest_checkpoint(line("broken", at=at, call=no_op, resume=True).work_dir).name == (
        f"epoch_{epochs_done}.pth"
    )
    resumed = line("broken", at=at, call=no_op, resume=True)
    resumed.train()
    assert same(weights(whole), weights(resumed))
    assert loss_curve(whole) == loss_curve(resumed)
    loops = [runner.test_loop for runner in (whole, resumed)]
    scores = [
        score(r.model, loop.dataloader, loop.evaluator, "") for r, loop in zip((whole, resumed), loops, strict=True)
    ]
    assert scores[0] == scores[1]


def test_checkpoints_are_read_by_any_program_without_an_allowance(line):
    """MMDetection's own tools resume from them by torch's restricted reader, as it is."""
    runner = line()
    runner.train()
    content = torch.load(latest_checkpoint(runner.work_dir), weights_only=True)
    safe_globals = getattr(torch.serialization, "get_safe_globals", list)  # before torch 2.5 nothing could be allowed
    allowed = {getattr(each, "__module__", "").split(".")[0] for each in safe_globals()}
    assert not {"builtins", "mmengine", "numpy", "onebit"} & allowed
    hub = MessageHub("test_engine")
    hub.load_state_dict(content["message_hub"])
    assert hub.get_info("epoch") == 2
    assert {"meta", "state_dict", "optimizer", "message_hub", engine.ROW} <= content.keys()


def test_a_run_whose_checkpoints_hold_mmengine_s_own_history_is_resumed(line):
    """Checkpoints of before, and of another program's."""
    at = BATCHES + 1
    whole = line("whole", at=at, call=no_op)
    whole.train()
    with pytest.raises(Killed):
        line("broken", at=at, call=kill).train()
    path = latest_checkpoint(Path(whole.work_dir).parent / "broken")
    content = read_checkpoint(path)
    content["message_hub"]["log_scalars"] = histories(content["message_hub"]["log_scalars"])
    torch.save(content, path)
    resumed = line("broken", at=at, call=no_op, resume=True)
    resumed.train()
    assert loss_curve(whole) == loss_curve(resumed)
    assert same(weights(whole), weights(resumed))


def test_kill_before_the_first_checkpoint_starts_over(line):
    with pytest.raises(Killed):
        line("broken", at=1, call=kill).train()
    resumed, whole = line("broken", at=1, call=no_op, resume=True), line("whole")
    resumed.train()
    whole.train()
    assert same(weights(whole), weights(resumed))


def test_finished_run_can_be_resumed_and_stays_as_it_is(line, capfd):
    first = line()
    first.train()
    again = line(resume=True)
    capfd.readouterr()
    again.train()
    assert "checkpoint" not in capfd.readouterr().out  # mmengine's own lines are for the log
    assert same(weights(first), weights(again))
    assert loss_curve(first) == loss_curve(again)


@pytest.mark.parametrize("change", [dict(seed=1), dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=1)))])
def test_resume_with_another_config_is_refused(line, change):
    runner = line()
    runner.train()
    before = load_row(latest_checkpoint(runner.work_dir))[1]
    with pytest.raises(InputError, match=r"cannot resume: .* use another --work-dir"):
        line(resume=True, **change)
    assert same(before, load_row(latest_checkpoint(runner.work_dir))[1])


def test_resume_from_a_broken_checkpoint_names_it(line):
    runner = line()
    runner.train()
    for path in Path(runner.work_dir).glob("epoch_*.pth"):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"epoch_3.pth is not a checkpoint that can be read"):
        line(resume=True)


def test_stale_checkpoints_and_log_are_removed_without_resume(line, tmp_path):
    line().train()
    assert checkpoints(tmp_path / "run") == ["epoch_2.pth", "epoch_3.pth"]
    runner = line()
    assert checkpoints(tmp_path / "run") == []
    runner.train_loop._max_epochs = 1
    runner.train()
    assert checkpoints(tmp_path / "run") == ["epoch_1.pth"]
    assert (tmp_path / "run" / "train.log").read_text().count("Start running") <= 1


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_state(line, tmp_path, loss):
    def spoil(runner, outputs):
        outputs["loss"] = torch.tensor(loss)

    with pytest.raises(WorkError) as caught:
        line(at=BATCHES + 1, call=spoil).train()
    last = tmp_path / "run" / "epoch_1.pth"
    expected = f"the loss is {loss} in epoch 2, iteration 5; last good checkpoint: {last}"
    assert str(caught.value) == expected
    assert checkpoints(tmp_path / "run") == ["epoch_1.pth"]
    assert load_row(last)[1]["layer.weight"].isfinite().all()


def test_loss_that_is_not_finite_at_once_names_no_checkpoint(line):
    def spoil(runner, outputs):
        outputs["loss"] = torch.tensor(float("nan"))

    with pytest.raises(WorkError, match="in epoch 1, iteration 1; last good checkpoint: none"):
        line(at=0, call=spoil).train()


def test_full_disk_at_a_checkpoint_keeps_the_one_before(line, tmp_path, monkeypatch):
    def fill(runner, outputs):
        monkeypatch.setattr(files.os, "fsync", full_disk)

    runner = line(at=BATCHES, call=fill)
    with (
        pytest.raises(WorkError, match=r"the disk is full: could not write .*epoch_2.pth") as caught,
        plain_errors(tmp_path),
    ):
        runner.train()
    assert isinstance(caught.value.__cause__, OSError)
    assert "\n" not in str(caught.value)
    assert checkpoints(tmp_path / "run") == ["epoch_1.pth"]
    assert not [p for p in (tmp_path / "run").rglob(".*") if p.is_file()]
    monkeypatch.undo()
    load_row(tmp_path / "run" / "epoch_1.pth")
    resumed = line(at=BATCHES, call=no_op, resume=True)
    resumed.train()
    whole = line("whole")
    whole.train()
    assert same(weights(whole), weights(resumed))


def test_full_disk_at_the_name_of_the_last_checkpoint_is_one_line(line, tmp_path, monkeypatch):
    whole_open = builtins.open

    def open_or_fail(path, *arguments, **options):
        if str(path).endswith("last_checkpoint"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return whole_open(path, *arguments, **options)

    runner = line()
    monkeypatch.setattr(builtins, "open", open_or_fail)
    with (
        pytest.raises(WorkError, match=r"the disk is full: could not write .*/last_checkpoint"),
        plain_errors(tmp_path),
    ):
        runner.train()


def test_full_disk_at_the_curves_is_one_line(line, tmp_path, monkeypatch):
    from tensorboard.summary.writer.record_writer import RecordWriter

    printed = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    runner = line(default_hooks=dict(logger=dict(type="LoggerHook", interval=1)))
    monkeypatch.setattr(RecordWriter, "write", full_disk)
    with pytest.raises(WorkError, match=f"the disk is full: could not write {tmp_path}"), plain_errors(tmp_path):
        runner.train()
    assert not printed
    assert threading.excepthook == printed.append


def test_full_disk_at_the_log_is_one_line(line, tmp_path, monkeypatch, capfd):
    runner = line()
    monkeypatch.setattr(logging.FileHandler, "flush", full_disk)
    with pytest.raises(WorkError, match=f"the disk is full: could not write {tmp_path}"), plain_errors(tmp_path):
        runner.train()
    monkeypatch.undo()
    assert "Traceback" not in capfd.readouterr().err


def test_other_errors_of_the_system_are_one_line_too(tmp_path):
    with pytest.raises(WorkError, match=r"could not read or write .*missing: No such file"), plain_errors(tmp_path):
        (tmp_path / "missing").read_text()


def test_input_error_of_a_loader_process_loses_its_traceback(tmp_path):
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise InputError("unreadable image x.jpg")

    loader = torch.utils.data.DataLoader(Broken(), num_workers=1)
    with pytest.raises(InputError, match=r"^unreadable image x.jpg$"), plain_errors(tmp_path):
        next(iter(loader))


@pytest.mark.parametrize("failure", [Killed, ValueError])
def test_progress_bar_lets_go_of_the_terminal_after_an_error(line, monkeypatch, failure):
    running = []

    class Bar:
        def __init__(self, description, total):
            self.total = total

        def start(self, completed=0):
            running.append(self)

        def advance(self, steps=1, note=""):
            assert self in running

        def stop(self):
            running.remove(self)

    def fail(runner, outputs):
        assert [bar.total for bar in running] == [3 * BATCHES]
        raise failure

    monkeypatch.setattr(engine_hooks, "Progress", Bar)
    with pytest.raises(failure):
        line(at=1, call=fail).train()
    assert not running


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(optim_wrapper=dict(optimizer=dict(type="Nope"))), "Nope"),
        (dict(optim_wrapper=dict(optimizer=dict(type="Adam", rate=1))), "rate"),
        (dict(train_cfg=dict(type="EpochBasedTrainLoop", max_epoch=2)), "max_epoch"),
        (dict(param_scheduler=dict(type="CosineAnnealingLR", T=3)), "T"),
        (dict(model=dict(type="Line", outputs=3)), "outputs"),
    ],
)
def test_config_that_does_not_fit_is_refused_before_training(line, changes, message):
    with pytest.raises(InputError, match=f"the config does not fit: .*{message}"):
        line(**changes)


def test_row_comes_back_from_the_checkpoint(line):
    runner = line(seed=3)
    runner.train()
    row, state = load_row(str(latest_checkpoint(runner.work_dir)))
    assert row == dict(dataset="points", backbone="line", recipe="r", seed=3, cfg_options={})
    assert same(weights(runner), state)


def test_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "epoch_1.pth"
    with pytest.raises(InputError, match="checkpoint not found"):
        load_row(path)
    path.write_text("weights, honestly")
    with pytest.raises(InputError, match=r"epoch_1.pth is not a checkpoint that can be read"):
        load_row(path)
    torch.save(dict(state_dict={"a": torch.zeros(1000)}), path)
    with pytest.raises(InputError, match="it names no row"):
        load_row(path)
    torch.save([1], path)
    with pytest.raises(InputError, match="it names no row"):
        load_row(path)
    torch.save({engine.ROW: "row", "state_dict": {}}, path)
    with pytest.raises(InputError, match="it names no row"):
        load_row(path)


def test_truncated_checkpoint_is_refused(line):
    runner = line()
    runner.train()
    path = latest_checkpoint(runner.work_dir)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="is not a checkpoint that can be read"):
        load_row(path)


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_checkpoint_that_runs_code_is_refused_and_does_not(tmp_path):
    path, marker = tmp_path / "epoch_1.pth", tmp_path / "marker"
    torch.save({engine.ROW: Hostile(marker), "state_dict": {}}, path)
    with pytest.raises(InputError, match="is not a checkpoint that can be read"):
        load_row(path)
    assert not marker.exists()


def test_weights_of_another_network_are_refused(line):
    runner = line()
    with pytest.raises(InputError, match=r"the weights in here.pth do not fit this network"):
        load_weights(runner.model, {"layer.weight": torch.zeros(1, 3)}, "here.pth")


def test_score_gives_the_mode_back(line):
    runner = line()
    loop = runner.test_loop
    for training in (True, False):
        runner.model.train(training)
        first = score(runner.model, loop.dataloader, loop.evaluator, "")
        assert runner.model.training is training
        assert first == score(runner.model, loop.dataloader, loop.evaluator, "")


def test_config_text_names_no_machine(tmp_path):
    here = str(tmp_path)
    cfg = Config(dict(work_dir=here, loader=[dict(data_root=here, batch_size=1)], load_from=here))
    assert engine.config_text(cfg).split() == ["loader", "=", "[", "dict(batch_size=1),", "]"]


def test_latest_checkpoint_goes_by_number_and_ignores_the_rest(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ("epoch_9.pth", "epoch_10.pth", "epoch_11.pth.tmp", "epoch_x.pth", ".epoch_12.pth"):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path).name == "epoch_10.pth"


def test_the_hash_of_weights_is_that_of_names_types_shapes_and_bytes(tmp_path):
    def hashed(weights, **more):
        torch.save({"state_dict": weights, **more}, tmp_path / "x.pth")
        return weights_sha256(tmp_path / "x.pth")

    weights = {"b": torch.tensor([[1.0, 2.0]]), "a": torch.tensor(3, dtype=torch.int64)}
    stated = b"a\0torch.int64\0[]\0" + struct.pack("<q", 3) + b"b\0torch.float32\0[1, 2]\0" + struct.pack("<2f", 1, 2)
    assert hashed(weights) == hashlib.sha256(stated).hexdigest()
    assert hashed(dict(reversed(weights.items())), seconds=1.5) == hashed(weights)
    one = torch.tensor([[1.0, 2.0]])
    others = [{"a": one}, {"b": one}, {"a": one.half()}, {"a": one.T}, {"a": -one}, {}]
    assert len({hashed(other) for other in others}) == len(others)
    assert hashed({"a": torch.ones(2, 4).T}) == hashed({"a": torch.ones(4, 2)})  # however they lie in memory
    assert hashed({"a": torch.ones(1).expand(3)[:1]}) == hashed({"a": torch.ones(1)})
    for content in ([1], {"state_dict": {"a": 1}}, {"weights": weights}):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(InputError, match="expected weights by name"):
            weights_sha256(tmp_path / "x.pth")
