"""Rows of classification end to end, on 80 images."""

import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from onebit import backbones
from onebit.classification import runner as classification
from onebit.classification.predictions import Predictions
from onebit.commons.datasets import Dataset
from onebit.commons.engine import ROW, latest_checkpoint, load_row
from onebit.commons.errors import InputError, WorkError

#: Runs a job, and kills itself after iteration 4 of 6 (two an epoch): in the middle of epoch 2.
#: With a stray hook rather than one in the config, which resuming would find to be another.
KILLED = """
import os, signal, sys
from pathlib import Path
from onebit.classification import runner
from onebit.commons.engine import FiniteLossHook
from onebit.commons.task import Job

def kill(self, runner, *arguments, **options):
    if runner.iter == 2:
        os.kill(os.getpid(), signal.SIGKILL)

FiniteLossHook.after_train_iter = kill
options = {"train_cfg.max_epochs": 3, "train_dataloader.batch_size": 40}
runner.train(Job("mini-cifar10", "resnet18_w8_bireal", "mini", 0, Path(sys.argv[1]), Path(sys.argv[2]), False, options))
"""


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A finished run of two epochs: (job, outcome). Tests must not write to its folder."""
    from onebit.commons.task import Job

    job = Job(
        dataset="mini-cifar10",
        backbone="resnet18_w8",
        recipe="mini",
        seed=0,
        data_root=data,
        work_dir=tmp_path_factory.mktemp("trained"),
        cfg_options={"train_cfg.max_epochs": 2, "train_dataloader.batch_size": 40},
    )
    return job, classification.train(job)


def test_outcome_is_complete(trained, data):
    job, outcome = trained
    assert set(outcome.metrics) == set(outcome.untrained) == {"top1", "top5"}
    assert 0 <= outcome.metrics["top1"] <= outcome.metrics["top5"] <= 1
    assert (outcome.main_metric, outcome.epochs, outcome.num_classes) == ("top1", 2, 10)
    assert (outcome.split, outcome.details["train_images"]) == ("train -> test", 80)
    assert outcome.details["test_images"] == 40
    assert len(outcome.details["loss_curve"]) == 2
    assert outcome.data_checksum.startswith("content:")
    assert outcome.checkpoint == job.work_dir / "epoch_2.pth"
    assert str(data) not in outcome.config
    assert str(job.work_dir) not in outcome.config
    assert set(outcome.cost) == {"strict", "dcp-nas", "cp-nas"}
    network = load_row(outcome.checkpoint)[1]
    trained_parameters = sum(v.numel() for k, v in network.items() if "running_" not in k and "num_batches" not in k)
    assert outcome.cost["strict"]["params_real"] == trained_parameters


def test_same_seed_gives_the_same_row_and_another_seed_another(trained, job):
    first = trained[1]
    again, other = classification.train(job(name="b")), classification.train(job(name="c", seed=1))
    assert first.metrics == again.metrics
    assert first.untrained == again.untrained
    assert first.details == again.details
    assert first.config == again.config
    states = [load_row(o.checkpoint)[1] for o in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classifier.weight"], states[2]["classifier.weight"])
    assert first.details["loss_curve"] != other.details["loss_curve"]


def test_checkpoint_scores_as_training_said(trained, job):
    outcome = trained[1]
    for backbone in ("", "resnet18_w8"):
        asked = job(backbone=backbone, recipe="", cfg_options={})
        scored = classification.test(outcome.checkpoint, asked)
        assert scored.metrics == outcome.metrics
        assert scored.untrained is None
        assert scored.epochs == 2
        assert scored.cost == outcome.cost
        assert scored.data_checksum == outcome.data_checksum


def test_kept_predictions_score_as_training_said(trained, job, tmp_path):
    asked, outcome = trained
    assert outcome.predictions == asked.work_dir / "predictions.npz"
    scored = classification.score_predictions(outcome.predictions, job(name="scoring"))
    for key in ("metrics", "main_metric", "split", "protocol", "data_checksum", "cost", "config"):
        assert getattr(scored, key) == getattr(outcome, key), key
    assert (scored.checkpoint, scored.epochs, scored.untrained) == (None, 0, None)


def test_testing_does_not_touch_the_predictions_of_training(trained, job):
    asked, outcome = trained
    before = outcome.predictions.read_bytes()
    again = classification.test(outcome.checkpoint, asked)
    assert again.config == outcome.config
    assert again.predictions.name == "test_predictions.npz"
    assert again.predictions.read_bytes() == outcome.predictions.read_bytes() == before


def test_predictions_of_other_data_are_refused(trained, job):
    found = Predictions.load(trained[1].predictions)
    one_less = Predictions(found.classes[1:], found.ranks[1:], found.num_classes)
    scoring = job(name="scoring")
    path = one_less.save(scoring.work_dir / "p.npz")
    with pytest.raises(InputError, match="39 images of 10 classes, mini-cifar10 has 40 of 10"):
        classification.score_predictions(path, scoring)


@pytest.mark.slow
def test_run_killed_in_an_epoch_ends_where_an_uninterrupted_one_does(data, job, tmp_path):
    options = {"train_cfg.max_epochs": 3}
    broken = job(name="broken", backbone="resnet18_w8_bireal", resume=True, cfg_options=options)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(data), str(broken.work_dir)], capture_output=True, text=True, timeout=170
    )
    assert killed.returncode == -9, killed.stderr
    assert latest_checkpoint(broken.work_dir).name == "epoch_1.pth"
    resumed = classification.train(broken)
    whole = classification.train(job(name="whole", backbone="resnet18_w8_bireal", cfg_options=options))
    assert resumed.metrics == whole.metrics
    assert resumed.untrained == whole.untrained
    assert resumed.details == whole.details
    a, b = (load_row(outcome.checkpoint)[1] for outcome in (resumed, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(seed=1), "seed 0 and not 1"),
        (dict(recipe="small"), "recipe 'mini' and not 'small'"),
        (dict(backbone="resnet18_w8_xnor"), "backbone 'resnet18_w8' and not 'resnet18_w8_xnor'"),
        (dict(cfg_options={"model.label_smoothing": 0.1}), "label_smoothing"),
    ],
)
def test_resume_of_another_row_is_refused_and_says_what_differs(trained, job, change, named):
    asked = job(resume=True, **{"work_dir": trained[0].work_dir, **change})
    with pytest.raises(InputError, match="cannot resume") as caught:
        classification.train(asked)
    assert named in str(caught.value)
    assert trained[1].checkpoint.exists()


def test_a_newest_checkpoint_that_was_cut_off_is_passed_over(trained, tmp_path, capsys):
    job, outcome = trained
    work_dir = tmp_path / "cut"
    shutil.copytree(job.work_dir, work_dir)
    newest = work_dir / "epoch_2.pth"
    newest.write_bytes(newest.read_bytes()[:5000])
    resumed = classification.train(replace(job, work_dir=work_dir, resume=True))
    assert resumed.metrics == outcome.metrics
    assert "epoch_2.pth" in (said := capsys.readouterr().err)
    assert "going on from epoch_1.pth\n" in said
    a, b = (load_row(o.checkpoint)[1] for o in (resumed, outcome))
    assert all(torch.equal(a[name], b[name]) for name in b)
    for path in work_dir.glob("epoch_*.pth"):
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="epoch_2"):
        classification.train(replace(job, work_dir=work_dir, resume=True))


def test_weights_that_are_no_numbers_are_not_scored(trained, tmp_path, job):
    content = torch.load(trained[1].checkpoint, weights_only=True)
    content["state_dict"]["classifier.weight"][0, 0] = float("nan")
    torch.save(content, tmp_path / "nan.pth")
    with pytest.raises(InputError, match=r"are not finite: classifier.weight"):
        classification.test(tmp_path / "nan.pth", job())


def test_resume_with_changed_data_is_refused(trained, monkeypatch):
    job, outcome = trained
    monkeypatch.setattr(Dataset, "checksum", lambda self, root, cached=True: "content:" + "0" * 64)
    with pytest.raises(InputError, match=f"cannot resume.*data '{outcome.data_checksum}' and not 'content:0000"):
        classification.train(replace(job, resume=True))


def test_data_that_change_during_the_training_are_refused(trained, tmp_path, monkeypatch):
    job, outcome = trained
    seen = iter([outcome.data_checksum])
    monkeypatch.setattr(Dataset, "checksum", lambda self, root, cached=True: next(seen, "content:" + "0" * 64))
    with pytest.raises(InputError, match="was changed while a training used it") as refused:
        classification.train(replace(job, work_dir=tmp_path / "changed"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("optim_wrapper.optimizer.type", "Nope", "unknown optimizer 'Nope'"),
        ("optim_wrapper.optimizer.rate", 1, "rate"),
        ("model.data_preprocessor.cut", 3, "cut"),
        ("train_dataloader.batch_size", 0, "batch_size"),
        ("model.backbone.depth_of", 3, "depth_of"),
        ("train_cfg.max_epoch", 2, "no option 'train_cfg.max_epoch'"),
    ],
)
def test_option_that_does_not_fit_is_refused(job, option, value, message):
    with pytest.raises(InputError, match=message) as caught:
        classification.train(job(cfg_options={option: value}))
    assert "\n" not in str(caught.value)


def test_unknown_names_are_refused_before_anything_is_written(job, tmp_path):
    for fields, message in (
        (dict(backbone="resnet99"), "resnet99"),
        (dict(recipe="none"), "unknown recipe"),
        (dict(dataset="mini-voc"), "dataset mini-voc is for detection"),
        (dict(data_root=tmp_path), "dataset mini-cifar10 not found"),
    ):
        with pytest.raises(InputError, match=message):
            classification.train(job(**fields))
    assert not list(tmp_path.iterdir())


def test_diverging_run_ends_with_one_line(job):
    options = {"optim_wrapper.optimizer.lr": float("inf")}
    with pytest.raises(WorkError, match=r"^the loss is \S+ in epoch \d, iteration \d; last good"):
        classification.train(job(cfg_options=options))


def test_full_disk_is_one_line(job, monkeypatch):
    import errno

    from onebit.commons import files

    def full_disk(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(WorkError, match="the disk is full: could not write") as caught:
        classification.train(job())
    assert isinstance(caught.value.__cause__, OSError)


def test_command_line_says_a_full_disk_in_one_line(job, data, monkeypatch, capsys, tmp_path):
    import builtins
    import errno

    from onebit.leaderboards.cli import main

    real_open = builtins.open

    def open_or_fail(path, *arguments, **options):
        if str(path).endswith("last_checkpoint"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(builtins, "open", open_or_fail)
    command = "train classification --dataset mini-cifar10 --backbone resnet18_w8 --recipe mini"
    options = ["--work-dir", str(tmp_path / "w"), "--data", str(data)]
    options += ["--cfg-options", "train_cfg.max_epochs=1", "train_dataloader.batch_size=80"]
    assert main([*command.split(), *options]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "the disk is full: could not write" in lines[0]


def test_checkpoint_of_another_backbone_is_refused_naming_both(trained, job):
    with pytest.raises(InputError, match="is a checkpoint of resnet18_w8, not of resnet18_w16"):
        classification.test(trained[1].checkpoint, job(backbone="resnet18_w16"))


def test_checkpoint_of_other_classes_is_refused(trained, job):
    with pytest.raises(InputError, match="knows 10 classes, cifar10-jpeg has 3"):
        classification.test(trained[1].checkpoint, job("cifar10-jpeg", cfg_options={}))


def test_checkpoint_of_another_board_does_not_fit(trained, job):
    with pytest.raises(InputError, match="its class 0 is 'disc', that of mini-imagenet is n90000000"):
        classification.test(trained[1].checkpoint, job("mini-imagenet", cfg_options={}))


def test_checkpoint_of_another_task_is_refused(trained, job, tmp_path):
    content = {ROW: dict(task="detection", backbone="resnet18_w8"), "state_dict": {}}
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match="a checkpoint of detection, not of classification"):
        classification.test(tmp_path / "other.pth", job())


def test_text_file_is_no_checkpoint(job, tmp_path):
    (tmp_path / "a.pth").write_text("weights")
    with pytest.raises(InputError, match=r"a.pth is not a checkpoint that can be read"):
        classification.test(tmp_path / "a.pth", job())


def test_mini_imagenet_trains_and_scores(job):
    options = {"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 20}
    outcome = classification.train(job("mini-imagenet", cfg_options=options))
    assert outcome.split == "train -> val"
    assert outcome.protocol.endswith("one view of 64x64 pixels")
    assert outcome.details["test_images"] == 20
    scored = classification.test(outcome.checkpoint, job("mini-imagenet", cfg_options={}))
    assert scored.metrics == outcome.metrics


def test_folder_of_images_trains_and_scores(job):
    outcome = classification.train(job("cifar10-jpeg", cfg_options={"train_cfg.max_epochs": 1}, recipe="small"))
    assert outcome.num_classes == 3
    assert outcome.metrics["top5"] == 1


def test_broken_image_is_named_by_a_loader_process(data_copy, job):
    path = sorted((data_copy / "mini-imagenet" / "val").glob("*/*"))[0]
    path.write_bytes(b"")
    options = {"test_dataloader.num_workers": 1}
    with pytest.raises(InputError, match=f"^expected an image that can be read, found {path}"):
        classification.train(job("mini-imagenet", data_root=data_copy, cfg_options=options))


def test_options_that_change_the_network_are_in_its_cost_and_description(job, data):
    """The outcome speaks for the network that was built, not for the name it began with."""
    options = {"model.backbone.cell": "darts_v2", "model.backbone.binarize_preprocess": "both"}
    built = job(backbone="dcp_nas_c4_l3", cfg_options={**options, "train_cfg.max_epochs": 1})
    outcome = classification.train(built)
    assert outcome.details["network"]["cell"] == "darts_v2"
    expected = backbones.cost(
        "dcp_nas_c4_l3",
        (3, 32, 32),
        classes=10,
        out_indices=(3,),
        stem="cifar",
        cell="darts_v2",
        binarize_preprocess="both",
    )
    assert outcome.cost["strict"] == expected.summary()
    plain = backbones.cost("dcp_nas_c4_l3", (3, 32, 32), classes=10, stem="cifar")
    assert outcome.cost["strict"]["ops"] != plain.ops
