"""One row from a job to an outcome: trained, interrupted, resumed, scored, refused."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from commons.engine import latest_checkpoint
from commons.errors import InputError, WorkError
from commons.files import sha256_file
from commons.task import Job
from reid import checkpoint as checkpoint_module
from reid import runner
from reid.recipe import RECIPES, load_recipe
from reid.torchreid_adapter import ImageSoftmaxEngine
from reid.training import SoftmaxEngine, TripletEngine, learning_rate_factor

OPTIONS = {
    "epochs": 3,
    "height": 64,
    "width": 32,
    "data.batch_size_train": 16,
    "data.batch_size_test": 32,
}

TRIPLET = {**OPTIONS, "model.loss": "triplet", "data.num_instances": 4}


@pytest.fixture
def job(tiny, tmp_path) -> Job:
    return Job(
        "market1501", "resnet18_w8_bireal", "mini", 3, tiny, tmp_path / "work", cfg_options=OPTIONS
    )


def plain(outcome):
    return outcome.metrics, outcome.untrained, outcome.details, outcome.config


def test_a_row(job):
    outcome = runner.train(job)
    assert (
        set(outcome.metrics)
        == set(outcome.untrained)
        == {"mAP", "rank1", "rank5", "rank10", "mINP"}
    )
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
        "config.py", "epoch_2.pth", "epoch_3.market1501.safetensors", "epoch_3.pth", "train.log",
    ]  # fmt: skip
    assert "epoch: [3/3]" in (work / "train.log").read_text()


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
        expected = cross_entropy.item() + sum(summary[name] for name in names)
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
from commons.task import Job
from reid import runner

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
    again = runner.test(
        trained.checkpoint, replace(job, work_dir=tmp_path / "test", cfg_options={})
    )
    assert again.metrics == trained.metrics
    euclidean = replace(empty, cfg_options={"evaluation.distance": "euclidean"})
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
    with pytest.raises(InputError, match=r"do not fit this network: .*classifier"):
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
    forward_backward = ImageSoftmaxEngine.forward_backward
    seen = []

    def poisoned(self, data):
        seen.append(1)
        return {**forward_backward(self, data), "loss": float("nan" if len(seen) == 4 else 1)}

    monkeypatch.setattr(ImageSoftmaxEngine, "forward_backward", poisoned)
    with pytest.raises(WorkError, match=r"loss is nan in epoch 2, iteration 1; .*epoch_1\.pth"):
        runner.train(job)
    assert latest_checkpoint(job.work_dir).name == "epoch_1.pth"


def test_a_full_disk(job, monkeypatch):
    def full(path, content):
        raise WorkError(f"the disk is full: could not write {path}")

    monkeypatch.setattr(
        checkpoint_module, "write_atomic", lambda p, c: None if p.suffix == ".py" else full(p, c)
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
        (dict(recipe="papier"), "unknown re-ID recipe 'papier'; expected one of face, mini, mini-face, paper, small, torchreid"),
        (dict(cfg_options={"epoch": 3}), "no option 'epoch'; did you mean epochs"),
        (dict(cfg_options={"optimizer.type": "SDG"}), "optimizer of torch.optim, found 'SDG'"),
        (dict(cfg_options={"optimizer.speed": 3}), "optimizer AdamW: .*speed"),
        (dict(cfg_options={"model.backbone_options.stem": "none"}), "stem 'none'"),
        (dict(cfg_options={"model.backbone_options.legs": 4}), "model options .*legs"),
        (dict(cfg_options={"model.neck": "long"}), "unknown neck 'long'"),
        (dict(cfg_options={"data.batch_size_train": 4096}), "batch size 4096 is larger than"),
        (dict(cfg_options={"evaluation.distance": "manhattan"}), "unknown distance 'manhattan'"),
        (dict(cfg_options={"schedule": "linear"}), "unknown schedule 'linear'; expected one of cosine"),
        (dict(cfg_options={"model.loss": "hinge"}), "unknown loss 'hinge'; expected one of softmax"),
        (dict(cfg_options={"epochs": 0}), "epochs 0: expected a whole number of at least 1"),
        (dict(cfg_options={"epochs": 1.5}), "epochs 1.5: expected a whole number"),
        (dict(cfg_options={"data.batch_size_train": 1}), "batch_size_train 1: expected"),
        (dict(cfg_options={**TRIPLET, "data.num_instances": 3}), "16 images are not a multiple"),
        (dict(cfg_options={**TRIPLET, "data.num_instances": 16}), "at least two identities"),
        (dict(cfg_options={**TRIPLET, "data.num_instances": 2}), "batches of 8 identities; the training set has fewer"),
        (dict(cfg_options={**TRIPLET, "triplet.weight_t": -1.0}), "triplet .*weights are not negative"),
        (dict(cfg_options={**TRIPLET, "data.train_sampler": "RandomSampler"}),
         "expected data.train_sampler=RandomIdentitySampler, found RandomSampler"),
        (dict(cfg_options={"data.train_sampler": "Random"}), "train_sampler"),
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


def factors(cfg):
    return [learning_rate_factor(epoch, cfg) for epoch in range(cfg.epochs + 1)]


def test_the_papers_schedule():
    """DCP-NAS, implementation details of re-identification."""
    cfg = load_recipe("paper")
    assert (cfg.epochs, cfg.data.batch_size_train, cfg.height, cfg.width) == (120, 64, 256, 128)
    assert dict(cfg.optimizer) == dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4)
    rates = [cfg.optimizer.lr * factor for factor in factors(cfg)]
    assert rates[0] == 0.05
    assert rates[60] == pytest.approx(0.025)
    assert rates[120] == pytest.approx(0.0)
    assert rates == sorted(rates, reverse=True)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.05)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    for rate in rates:
        assert rate == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        reference.step()


def test_torchreids_schedule():
    cfg = load_recipe("torchreid")
    assert (cfg.epochs, cfg.data.batch_size_train, cfg.height, cfg.width) == (60, 32, 256, 128)
    options = dict(type="Adam", amsgrad=True, lr=3e-4, betas=(0.9, 0.999), weight_decay=5e-4)
    assert dict(cfg.optimizer) == options
    rates = [cfg.optimizer.lr * factor for factor in factors(cfg)]
    assert [rates[e] for e in (0, 19, 20, 39, 40, 59)] == pytest.approx(
        [3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6]
    )


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_warm_up_leads_to_the_schedules_start(schedule):
    cfg = load_recipe("paper")
    cfg.merge_from_dict(dict(schedule=schedule, warmup_epochs=10, epochs=40, step_epochs=15))
    values = factors(cfg)
    assert values[0] == pytest.approx(0.1)
    assert values[10] == pytest.approx(1.0)
    assert values[:11] == sorted(values[:11])
    assert values[25] == pytest.approx(0.5 if schedule == "cosine" else 0.1)


def test_the_rate_of_every_epoch_is_the_schedules(job, monkeypatch):
    seen = []
    train = SoftmaxEngine.train

    def watched(self, **options):
        seen.append(self.get_current_lr())
        return train(self, **options)

    monkeypatch.setattr(SoftmaxEngine, "train", watched)
    options = {**OPTIONS, "schedule": "step", "step_epochs": 2, "warmup_epochs": 0}
    runner.train(replace(job, cfg_options=options))
    rate = load_recipe("mini").optimizer.lr
    assert seen == pytest.approx([rate, rate, rate / 10])


def test_the_classifier_alone_in_the_first_epochs(job, monkeypatch):
    changed = []
    train = SoftmaxEngine.train

    def watched(self, **options):
        parts = (self.model.embedding.backbone.conv1.weight, self.model.classifier.weight)
        before = [part.detach().clone() for part in parts]
        train(self, **options)
        changed.append([not torch.equal(*pair) for pair in zip(parts, before, strict=True)])

    monkeypatch.setattr(SoftmaxEngine, "train", watched)
    runner.train(replace(job, cfg_options={**OPTIONS, "fixbase_epochs": 2}))
    assert changed == [[False, True], [False, True], [True, True]]


def test_the_triplet_loss_sees_identities_with_several_images(job, monkeypatch):
    batches = []
    forward_backward = TripletEngine.forward_backward

    def watched(self, data):
        batches.append(sorted(data["pid"].tolist()))
        return forward_backward(self, data)

    monkeypatch.setattr(TripletEngine, "forward_backward", watched)
    outcome = runner.train(replace(job, cfg_options={**TRIPLET, "model.neck": "bn"}))
    assert "RandomIdentitySampler" in outcome.config
    assert outcome.details["loss_curve"][-1] < outcome.details["loss_curve"][0]
    for batch in batches:
        assert len(batch) == 16
        assert {batch.count(pid) for pid in batch} == {4}


def test_the_triplet_losses_are_added_with_their_weights(job, monkeypatch):
    def loss(**weights):
        options = {**TRIPLET, "epochs": 1} | {f"triplet.{k}": v for k, v in weights.items()}
        first = []
        on_step = TripletEngine.forward_backward

        def watched(self, data):
            summary = on_step(self, data)
            first.append(self.total(summary))
            return summary

        monkeypatch.setattr(TripletEngine, "forward_backward", watched)
        runner.train(replace(job, work_dir=job.work_dir / str(weights), cfg_options=options))
        monkeypatch.setattr(TripletEngine, "forward_backward", on_step)
        return first[0]

    only_t, only_x = loss(weight_t=1.0, weight_x=0.0), loss(weight_t=0.0, weight_x=1.0)
    assert loss(weight_t=0.5, weight_x=2.0) == pytest.approx(0.5 * only_t + 2 * only_x)


def test_an_interrupted_triplet_row(job, tmp_path, monkeypatch):
    job = replace(job, cfg_options=TRIPLET)
    expected = runner.train(job)
    cut = replace(job, work_dir=tmp_path / "cut", resume=True)
    train = TripletEngine.train

    def interrupted(self, **options):
        train(self, **options)
        if self.epoch == 1:
            raise KeyboardInterrupt  # the epoch is not saved yet

    monkeypatch.setattr(TripletEngine, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.train(cut)
    monkeypatch.undo()
    assert latest_checkpoint(cut.work_dir).name == "epoch_1.pth"
    assert plain(runner.train(cut)) == plain(expected)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """What `onebit train classification` leaves, with weights no training here would give."""
    from classification.model import ImageClassifier
    from commons.engine import ROW

    classifier = ImageClassifier(dict(type="onebit.create_backbone", name="resnet18_w8_bireal", out_indices=(3,)), 10)  # fmt: skip
    torch.nn.init.constant_(classifier.backbone.conv1.weight, 0.25)
    row = dict(task="classification", backbone="resnet18_w8_bireal")
    path = tmp_path_factory.mktemp("classification") / "epoch_1.pth"
    torch.save({ROW: row, "state_dict": classifier.state_dict()}, path)
    return path


def test_a_pretrained_backbone(job, pretrained):
    options = {**OPTIONS, "epochs": 1, "init_from": str(pretrained), "optimizer.lr": 0.0}
    outcome = runner.train(replace(job, cfg_options=options))
    weights = torch.load(outcome.checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(weights["embedding.backbone.conv1.weight"], torch.full((8, 3, 7, 7), 0.25))
    assert f"init_from_sha256 = '{sha256_file(pretrained)}'" in outcome.config
    assert str(pretrained.parent) not in outcome.config
    resumed = runner.train(replace(job, cfg_options=options, resume=True))
    assert plain(resumed) == plain(outcome)
    with pytest.raises(InputError, match="cannot resume"):
        runner.train(replace(job, cfg_options={**options, "init_from": ""}, resume=True))


def test_a_pretrained_backbone_that_does_not_fit(job, pretrained, tmp_path):
    def start(path, **change):
        options = {**OPTIONS, "epochs": 1, "init_from": str(path), **change.pop("options", {})}
        return runner.train(replace(job, cfg_options=options, **change))

    with pytest.raises(
        InputError, match=r"is a checkpoint of resnet18_w8_bireal, not of resnet18_w8$"
    ):
        start(pretrained, backbone="resnet18_w8")
    with pytest.raises(InputError, match=r"checkpoint not found: .*none\.pth"):
        start(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(InputError, match=r"text\.pth is not a checkpoint that can be read"):
        start(tmp_path / "text.pth")
    with pytest.raises(InputError, match=r"do not fit this network: .*conv1"):
        start(pretrained, options={"model.backbone_options.stem": "cifar"})
    from commons.engine import ROW

    torch.save(
        {ROW: dict(task="detection", backbone=job.backbone), "state_dict": {}}, tmp_path / "d.pth"
    )
    with pytest.raises(
        InputError,
        match="expected a checkpoint of `onebit train classification`, found one of detection",
    ):
        start(tmp_path / "d.pth")
    assert latest_checkpoint(job.work_dir) is None


def test_the_row_says_which_network_it_was(job):
    options = {**OPTIONS, "epochs": 1, "model.last_stride": 1, "model.feature_dim": 24}
    dense = runner.train(replace(job, cfg_options=options))
    plain_row = runner.train(
        replace(job, work_dir=job.work_dir / "plain", cfg_options={**OPTIONS, "epochs": 1})
    )
    assert dense.details["feature_dim"] == 24
    assert plain_row.details["feature_dim"] == 64
    assert dense.cost["strict"]["macs"] > plain_row.cost["strict"]["macs"]
    with pytest.raises(InputError, match="last_stride 1: dcp_nas_c8 has no last stage"):
        runner.train(replace(job, backbone="dcp_nas_c8", cfg_options=options))


@pytest.mark.parametrize("name", ["mini-dukemtmcreid", "mini-cuhk03"])
def test_the_other_boards(name, request, tmp_path):
    data_root = request.getfixturevalue("duke" if "duke" in name else "cuhk_copy")
    options = {**OPTIONS, "epochs": 1, "data.batch_size_train": 32}
    outcome = runner.train(
        Job(name, "resnet18_w8", "mini", 0, Path(data_root), tmp_path / "work", cfg_options=options)
    )
    assert outcome.details["valid_queries"] == outcome.details["queries"]
    assert ("detected" in outcome.split) == (name == "mini-cuhk03")


def test_the_classic_split_of_cuhk03_has_its_own_protocol(cuhk_copy, tmp_path):
    options = {**OPTIONS, "epochs": 1, "data.cuhk03_classic_split": True, "data.cuhk03_labeled": True, "data.split_id": 2}  # fmt: skip
    job = Job("mini-cuhk03", "resnet18_w8", "mini", 0, cuhk_copy, tmp_path, cfg_options=options)
    outcome = runner.train(job)
    assert outcome.split == "classic split 3 of 20, labeled boxes: train -> query, gallery"
    assert outcome.protocol.startswith("CUHK03 classic; single gallery shot")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "rank1"),
    [("resnet18_w16", 0.6), ("resnet18_w16_reactnet", 0.4), ("dcp_nas_c8", 0.4)],
)
def test_the_mini_board_is_learned(market, tmp_path, backbone, rank1):
    outcome = runner.train(Job("mini-market1501", backbone, "mini", 0, market, tmp_path))
    assert outcome.untrained["rank1"] < 0.2
    assert outcome.metrics["rank1"] >= rank1
