"""Schedules, optimizers and losses of the recipes."""

from dataclasses import replace

import pytest
import torch

from onebit.commons.engine import latest_checkpoint
from onebit.commons.task import recipes
from onebit.reid import runner
from onebit.reid.recipe import load_recipe
from onebit.reid.training import SoftmaxEngine, TripletEngine, learning_rate_factor
from tests.reid.rows import OPTIONS, TRIPLET


def plain(outcome):
    return outcome.metrics, outcome.untrained, outcome.details, outcome.config


@pytest.mark.parametrize("path", recipes("reid").values(), ids=lambda p: p.stem)
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
    assert [rates[e] for e in (0, 19, 20, 39, 40, 59)] == pytest.approx([3e-4, 3e-4, 3e-5, 3e-5, 3e-6, 3e-6])


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


@pytest.mark.parametrize("weights", [dict(weight_t=0.5, weight_x=2.0), dict(weight_t=0.0, weight_x=0.5)])
def test_method_losses_count_once_and_in_full_whatever_the_triplet_weights(job, monkeypatch, weights):
    """What the optimizer descends is the engine's own loss plus the losses of the method, of weight 1."""
    totals = {}
    for extra in (0.0, 3.0):
        seen = []
        compute_loss = TripletEngine.compute_loss

        def descended(self, criterion, outputs, targets, compute_loss=compute_loss):
            loss = compute_loss(self, criterion, outputs, targets)
            self.parts.append(loss.item() * (self.weight_t if criterion is self.criterion_t else self.weight_x))
            return loss

        def watched(self, data, seen=seen, forward_backward=TripletEngine.forward_backward):
            self.parts = []
            forward_backward(self, data)
            seen.append(sum(self.parts))

        with monkeypatch.context() as patch:
            patch.setattr("onebit.backbones.method_losses", lambda _, extra=extra: {"loss_method": torch.tensor(extra)})
            patch.setattr(TripletEngine, "compute_loss", descended)
            patch.setattr(TripletEngine, "forward_backward", watched)
            options = {**TRIPLET, "epochs": 1} | {f"triplet.{k}": v for k, v in weights.items()}
            runner.train(replace(job, work_dir=job.work_dir / f"{weights}{extra}", cfg_options=options))
        totals[extra] = seen[0]
    assert totals[3.0] == pytest.approx(totals[0.0] + 3.0, abs=1e-4)
