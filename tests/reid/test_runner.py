"""One row from a job to an outcome: trained, interrupted, resumed, scored, refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from commons.engine import latest_checkpoint
from commons.errors import InputError, WorkError
from commons.task import Job
from reid import runner
from reid.recipe import RECIPES, load_recipe

OPTIONS = {
    "epochs": 3,
    "height": 64,
    "width": 32,
    "data.batch_size_train": 16,
    "data.batch_size_test": 32,
}


@pytest.fixture
def job(tiny, tmp_path) -> Job:
    return Job(
        "market1501", "resnet18_w8_bireal", "mini", 3, tiny, tmp_path / "work", cfg_options=OPTIONS
    )


def plain(outcome):
    return outcome.metrics, outcome.untrained, outcome.details, outcome.config


def test_a_row(job):
    outcome = runner.train(job)
    assert set(outcome.metrics) == set(outcome.untrained) == {"mAP", "rank1", "rank5", "rank10"}
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
        "config.py", "epoch_2.pth", "epoch_3.pth", "train.log",
    ]  # fmt: skip
    assert "epoch: [3/3]" in (work / "train.log").read_text()


def test_losses_of_the_method_are_added_and_logged(job, monkeypatch):
    """BONN has one in its layers and one on the features that the classifier sees."""
    seen = []
    forward_backward = runner._Engine.forward_backward

    def watched(self, data):
        cross_entropy = super(runner._Engine, self).compute_loss
        monkeypatch.setattr(
            runner.ImageSoftmaxEngine,
            "compute_loss",
            lambda self, *arguments: seen.append(cross_entropy(*arguments)) or seen[-1],
        )
        summary = forward_backward(self, data)
        monkeypatch.undo()
        monkeypatch.setattr(runner._Engine, "forward_backward", watched)
        seen[-1] = (seen[-1].item(), summary)
        return summary

    monkeypatch.setattr(runner._Engine, "forward_backward", watched)
    options = {**OPTIONS, "epochs": 1}
    runner.train(replace(job, backbone="resnet18_w8_bonn", cfg_options=options))
    names = {"loss_bayes_kernel", "loss_bayes_feature"}
    log = (job.work_dir / "train.log").read_text()
    for cross_entropy, summary in seen:
        assert names < summary.keys()
        assert all(summary[name] != 0 for name in names)
        expected = cross_entropy + sum(summary[name] for name in names)
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
    forward_backward = runner._Engine.forward_backward
    seen = []

    def interrupted(self, data):
        if len(seen) == batches:
            raise KeyboardInterrupt
        seen.append(1)
        return forward_backward(self, data)

    monkeypatch.setattr(runner._Engine, "forward_backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.train(cut)
    monkeypatch.undo()
    resumed = runner.train(cut)
    assert plain(resumed) == plain(expected)
    after = torch.load(resumed.checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(after[key], value) for key, value in weights.items())


def test_resuming_a_finished_run_only_scores(job, monkeypatch):
    expected = runner.train(job)
    monkeypatch.setattr(runner._Engine, "forward_backward", lambda *_: pytest.fail("trained again"))
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
    again = runner.test(
        trained.checkpoint, replace(job, work_dir=tmp_path / "test", cfg_options={})
    )
    assert again.metrics == trained.metrics
    euclidean = replace(empty, cfg_options={"distance": "euclidean"})
    assert runner.test(trained.checkpoint, euclidean).metrics != trained.metrics


def test_a_checkpoint_of_another_backbone(job):
    trained = runner.train(replace(job, cfg_options={**OPTIONS, "epochs": 1}))
    with pytest.raises(
        InputError, match=r"epoch_1.pth is a checkpoint of resnet18_w8_bireal, not of resnet18"
    ):
        runner.test(trained.checkpoint, replace(job, backbone="resnet18"))


def damaged(path, **changes):
    state = torch.load(path, weights_only=True)
    torch.save({**state, **changes}, path)


def test_weights_that_do_not_fit(job):
    trained = runner.train(replace(job, cfg_options={**OPTIONS, "epochs": 1}))
    damaged(trained.checkpoint, num_classes=5)
    with pytest.raises(InputError, match=r"do not fit the network: .*classifier"):
        runner.test(trained.checkpoint, job)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", {"state_dict": {}}, [1, 2]])
def test_a_file_that_is_no_checkpoint(job, tmp_path, content):
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"expected a checkpoint.*file\.pth"):
        runner.test(path, job)


def test_a_checkpoint_that_is_not_there(job, tmp_path):
    with pytest.raises(InputError, match=r"checkpoint not found: .*none\.pth"):
        runner.test(tmp_path / "none.pth", job)


def test_a_loss_that_is_not_finite(job, monkeypatch):
    forward_backward = runner.ImageSoftmaxEngine.forward_backward
    seen = []

    def poisoned(self, data):
        seen.append(1)
        return {**forward_backward(self, data), "loss": float("nan" if len(seen) == 4 else 1)}

    monkeypatch.setattr(runner.ImageSoftmaxEngine, "forward_backward", poisoned)
    with pytest.raises(WorkError, match=r"loss is nan in epoch 2, iteration 1; .*epoch_1\.pth"):
        runner.train(job)
    assert latest_checkpoint(job.work_dir).name == "epoch_1.pth"


def test_a_full_disk(job, monkeypatch):
    def full(path, content):
        raise WorkError(f"the disk is full: could not write {path}")

    monkeypatch.setattr(
        runner, "write_atomic", lambda p, c: None if p.suffix == ".py" else full(p, c)
    )
    with pytest.raises(WorkError, match=r"the disk is full: could not write .*epoch_1\.pth"):
        runner.train(job)
    assert latest_checkpoint(job.work_dir) is None


def test_features_that_are_not_finite(job, monkeypatch):
    monkeypatch.setattr(
        runner.ReIDModel, "forward", lambda self, x: torch.full((len(x), 4), torch.nan)
    )
    with pytest.raises(WorkError, match="features of the queries are not finite"):
        runner.train(job)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("part", ["bounding_box_train", "query", "bounding_box_test"])
def test_an_unreadable_image(job, part, workers):
    """One line that names the file, from a loader process too."""
    victim = min((job.data_root / "market1501/Market-1501-v15.09.15" / part).iterdir())
    victim.write_bytes(b"no image")
    with pytest.raises(InputError) as caught:
        runner.train(replace(job, cfg_options={**OPTIONS, "data.workers": workers}))
    message = str(caught.value)
    assert message.startswith("expected an image that can be read, found")
    assert str(victim) in message
    assert "\n" not in message


def test_a_gallery_smaller_than_the_ranks(job):
    folder = job.data_root / "market1501/Market-1501-v15.09.15/bounding_box_test"
    for path in sorted(folder.iterdir())[4:]:
        path.unlink()
    with pytest.raises(InputError, match=r"at least 10 images; this one has"):
        runner.train(replace(job, cfg_options={**OPTIONS, "score_untrained": False}))
    assert latest_checkpoint(job.work_dir) is None  # said before training


def test_queries_without_a_match(job):
    folder = job.data_root / "market1501/Market-1501-v15.09.15"
    for path in (folder / "query").iterdir():
        path.rename(path.with_name("1499" + path.name[4:]))
    with pytest.raises(InputError, match="none of the 18 queries"):
        runner.train(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(backbone="resnet17"), "unknown backbone 'resnet17'"),
        (dict(dataset="market"), "unknown dataset 'market'; did you mean"),
        (dict(dataset="mini-voc"), "mini-voc is for detection"),
        (dict(dataset="dukemtmcreid"), "dataset dukemtmcreid not found: expected"),
        (dict(recipe="papier"), "unknown re-ID recipe 'papier'; expected one of mini, paper, small"),
        (dict(cfg_options={"epoch": 3}), "no option 'epoch'; did you mean epochs"),
        (dict(cfg_options={"optimizer.type": "SDG"}), "optimizer of torch.optim, found 'SDG'"),
        (dict(cfg_options={"optimizer.speed": 3}), "optimizer AdamW: .*speed"),
        (dict(cfg_options={"model.backbone_options.stem": "none"}), "stem 'none'"),
        (dict(cfg_options={"model.backbone_options.legs": 4}), "model options .*legs"),
        (dict(cfg_options={"model.neck": "long"}), "unknown neck 'long'"),
        (dict(cfg_options={"data.batch_size_train": 4096}), "batch size 4096 is larger than"),
        (dict(cfg_options={"distance": "manhattan"}), "unknown distance 'manhattan'"),
    ],
)  # fmt: skip
def test_bad_input(job, change, message):
    change = {**change, "cfg_options": {**OPTIONS, **change.get("cfg_options", {})}}
    with pytest.raises(InputError, match=message):
        runner.train(replace(job, **change))
    assert latest_checkpoint(job.work_dir) is None


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.py")), ids=lambda p: p.stem)
def test_every_recipe_trains(path, job):
    """A step of every recipe at a small size: its names are torchreid's and torch's."""
    options = {**OPTIONS, "epochs": 1, "data.workers": 0}
    assert runner.train(replace(job, recipe=path.stem, cfg_options=options)).epochs == 1


def test_the_papers_schedule():
    cfg = load_recipe("paper")
    assert (cfg.epochs, cfg.data.batch_size_train, cfg.height, cfg.width) == (120, 64, 256, 128)
    assert dict(cfg.optimizer) == dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4)
    factors = [runner._learning_rate_factor(epoch, cfg) for epoch in range(121)]
    assert factors[0] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert factors[120] == pytest.approx(0.0)


@pytest.mark.parametrize("name", ["mini-dukemtmcreid", "mini-cuhk03"])
def test_the_other_boards(name, request, tmp_path):
    data_root = request.getfixturevalue("duke" if "duke" in name else "cuhk_copy")
    options = {**OPTIONS, "epochs": 1, "data.batch_size_train": 32}
    outcome = runner.train(
        Job(name, "resnet18_w8", "mini", 0, Path(data_root), tmp_path / "work", cfg_options=options)
    )
    assert outcome.details["valid_queries"] == outcome.details["queries"]
    assert ("detected" in outcome.split) == (name == "mini-cuhk03")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "rank1"),
    [("resnet18_w16", 0.6), ("resnet18_w16_reactnet", 0.4), ("dcp_nas_c8", 0.4)],
)
def test_the_mini_board_is_learned(market, tmp_path, backbone, rank1):
    outcome = runner.train(Job("mini-market1501", backbone, "mini", 0, market, tmp_path))
    assert outcome.untrained["rank1"] < 0.2
    assert outcome.metrics["rank1"] >= rank1
