"""One row from a job to an outcome: trained, interrupted, resumed, scored."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onebit.commons.datasets import Dataset
from onebit.commons.engine import latest_checkpoint
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.reid import runner
from onebit.reid.torchreid_adapter import ImageSoftmaxEngine
from onebit.reid.training import SoftmaxEngine
from tests.reid.rows import OPTIONS


def plain(outcome):
    return outcome.metrics, outcome.untrained, outcome.details, outcome.config


def test_a_row(job):
    outcome = runner.train(job)
    assert set(outcome.metrics) == set(outcome.untrained) == {"mAP", "rank1", "rank5", "rank10", "mINP"}
    assert all(0 <= value <= 1 for value in outcome.metrics.values())
    assert outcome.metrics != outcome.untrained
    assert outcome.main_metric == "mAP"
    assert outcome.epochs == 3
    assert outcome.num_classes == 4
    assert outcome.details["train_identities"] == 4
    assert outcome.details["queries"] == outcome.details["valid_queries"] == 18
    assert outcome.details["test_identities"] == 3
    assert len(outcome.details["loss_curve"]) == 3
    assert outcome.details["loss_curve"][-1] < outcome.details["loss_curve"][0]
    assert outcome.data_checksum.startswith("content:")
    assert set(outcome.cost) == {"strict", "dcp-nas"}
    assert outcome.cost["strict"]["input_shape"] == [3, 64, 32]
    assert 0 < outcome.cost["dcp-nas"]["memory_bits"] < outcome.cost["strict"]["memory_bits"]
    assert str(job.data_root) not in outcome.config
    work = job.work_dir
    assert outcome.checkpoint == work / "epoch_3.pth"
    assert sorted(p.name for p in work.iterdir()) == [
        "config.py",
        "epoch_2.pth",
        "epoch_3.market1501.safetensors",
        "epoch_3.pth",
        "train.log",
    ]
    assert "epoch: [3/3]" in (work / "train.log").read_text()


def test_changed_data_are_refused(job, monkeypatch):
    seen = iter(["content:1"])
    monkeypatch.setattr(Dataset, "checksum", lambda self, root, cached=True: next(seen, "content:2"))
    with pytest.raises(InputError, match="was changed while a training used it"):
        runner.train(job)
    with pytest.raises(
        InputError, match=r"cannot resume: .*epoch_3\.pth was trained with data 'content:1' and not 'content:2'"
    ):
        runner.train(replace(job, resume=True))


def test_losses_of_the_method_are_added_and_logged(job, monkeypatch):
    """BONN has one in its layers and one on the features that the classifier sees."""
    entropies, summaries = [], []
    compute_loss, forward_backward = ImageSoftmaxEngine.compute_loss, SoftmaxEngine.forward_backward

    def recorded(self, *arguments):
        entropies.append(compute_loss(self, *arguments))
        return entropies[-1]

    def watched(self, data):
        summaries.append(forward_backward(self, data))
        return summaries[-1]

    monkeypatch.setattr(ImageSoftmaxEngine, "compute_loss", recorded)
    monkeypatch.setattr(SoftmaxEngine, "forward_backward", watched)
    options = {**OPTIONS, "epochs": 1}
    runner.train(replace(job, backbone="resnet18_w8_bonn", cfg_options=options))
    names = {"loss_bayes_kernel", "loss_bayes_feature"}
    log = (job.work_dir / "train.log").read_text()
    assert summaries
    for cross_entropy, summary in zip(entropies, summaries, strict=True):
        assert names < summary.keys()
        assert all(summary[name] != 0 for name in names)
        expected = cross_entropy.item() + sum(summary[name].item() for name in names)
        assert summary["loss"] == pytest.approx(expected, rel=1e-5)
    assert all(name in log for name in names)


def test_nothing_is_printed(job, capfd):
    runner.train(replace(job, cfg_options={**OPTIONS, "epochs": 1}))
    assert capfd.readouterr().out == ""


def test_the_same_seed_gives_the_same_row(job, tmp_path):
    first = runner.train(job)
    again = runner.train(replace(job, work_dir=tmp_path / "again"))
    other = runner.train(replace(job, work_dir=tmp_path / "other", seed=4))
    assert plain(first) == plain(again)
    assert first.details["loss_curve"] != other.details["loss_curve"]


@pytest.mark.parametrize("batches", [0, 4, 8])
def test_interrupted_and_resumed_equals_uninterrupted(job, tmp_path, monkeypatch, batches):
    """Three epochs of three batches, cut before the first, in the second and in the last epoch."""
    expected = runner.train(job)
    weights = torch.load(expected.checkpoint, weights_only=True)["state_dict"]
    cut = replace(job, work_dir=tmp_path / "cut", resume=True)
    forward_backward = SoftmaxEngine.forward_backward
    seen = []

    def interrupted(self, data):
        if len(seen) == batches:
            raise KeyboardInterrupt
        seen.append(1)
        return forward_backward(self, data)

    monkeypatch.setattr(SoftmaxEngine, "forward_backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.train(cut)
    monkeypatch.undo()
    resumed = runner.train(cut)
    assert plain(resumed) == plain(expected)
    after = torch.load(resumed.checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(after[key], value) for key, value in weights.items())


_TRAIN = """
import json, sys
from pathlib import Path
import torch
from onebit.commons.task import Job
from onebit.reid import runner

torch.set_num_threads(1)
options = json.loads(sys.argv[3])
runner.train(Job("market1501", "resnet18_w8_bireal", "mini", 3, Path(sys.argv[1]), Path(sys.argv[2]), cfg_options=options))
"""


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "triplet"])
def test_killed_and_resumed(job, tmp_path, loss):
    """SIGKILL somewhere behind the first checkpoint: nothing could be tidied up."""
    options = {**OPTIONS, "epochs": 30, "model.loss": loss}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        expected = runner.train(replace(job, cfg_options=options))
        cut = replace(job, work_dir=tmp_path / "cut", resume=True, cfg_options=options)
        arguments = [str(job.data_root), str(cut.work_dir), json.dumps(options)]
        root = Path(__file__).resolve().parents[2]
        with subprocess.Popen([sys.executable, "-c", _TRAIN, *arguments], cwd=root) as process:
            deadline = time.monotonic() + 100
            while latest_checkpoint(cut.work_dir) is None and time.monotonic() < deadline:
                time.sleep(0.02)
            process.kill()
        killed_at = latest_checkpoint(cut.work_dir)
        assert killed_at is not None
        assert killed_at.name != "epoch_30.pth"
        resumed = runner.train(cut)
    finally:
        torch.set_num_threads(threads)
    assert plain(resumed) == plain(expected)


def test_resuming_a_finished_run_only_scores(job, monkeypatch):
    expected = runner.train(job)
    monkeypatch.setattr(SoftmaxEngine, "forward_backward", lambda *_: pytest.fail("trained again"))
    assert plain(runner.train(replace(job, resume=True))) == plain(expected)


def test_without_resume_everything_starts_anew(job):
    (job.work_dir).mkdir()
    (job.work_dir / "epoch_9.pth").write_bytes(b"stale")
    outcome = runner.train(replace(job, cfg_options={**OPTIONS, "epochs": 1}))
    assert outcome.checkpoint.name == "epoch_1.pth"
    assert not (job.work_dir / "epoch_9.pth").exists()


def test_resume_with_another_config(job):
    runner.train(replace(job, cfg_options={**OPTIONS, "epochs": 1}))
    other = replace(job, resume=True, cfg_options={**OPTIONS, "epochs": 2})
    with pytest.raises(InputError, match=r"cannot resume: .*config\.py differs"):
        runner.train(other)


def test_untrained_scores_can_be_left_out(job):
    options = {**OPTIONS, "epochs": 1, "score_untrained": False}
    assert runner.train(replace(job, cfg_options=options)).untrained is None


def test_a_checkpoint_scores_as_it_did(job, tmp_path):
    trained = runner.train(job)
    empty = Job("", "", "", 0, job.data_root, tmp_path / "test")
    scored = runner.test(trained.checkpoint, empty)
    assert scored.metrics == trained.metrics
    assert scored.untrained is None
    assert scored.cost == trained.cost
    assert scored.config == trained.config
    assert scored.epochs == 3
    again = runner.test(trained.checkpoint, replace(job, work_dir=tmp_path / "test", cfg_options={}))
    assert again.metrics == trained.metrics
    euclidean = replace(empty, cfg_options={"evaluation.distance": "euclidean"})
    assert runner.test(trained.checkpoint, euclidean).metrics != trained.metrics
