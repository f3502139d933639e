"""Training in stages: killed anywhere it ends where an uninterrupted run does."""

import pytest
import torch
import torch.nn.functional as F

from onebit.backbones.conv import OneBitConv2d
from onebit.backbones.losses import onebit_convs
from onebit.classification import runner as classification
from onebit.classification import stages
from onebit.classification.config import FREE
from onebit.classification.distillation import Distillation
from onebit.commons.engine import FiniteLossHook, load_row
from onebit.commons.errors import InputError

TWO = [dict(epochs=1, binarize="activations", weight_decay=1e-5), dict(epochs=2, binarize="both", weight_decay=0.0)]
OPTIONS = {"stages": TWO, "ema.momentum": 0.3}
BACKBONE = "resnet18_w8_reactnet"
BATCHES = 2  # of an epoch


class Killed(BaseException):
    """Ends a run as a signal would: nothing in between may catch it."""


@pytest.fixture
def staged(job):
    """Builds a Job in two stages; without ``train_cfg.max_epochs``, which the stages say."""
    from dataclasses import replace

    def build(name="run", backbone=BACKBONE, resume=False, **options):
        built = job(name=name, backbone=backbone, resume=resume, recipe="small")
        few = {"train_dataloader.batch_size": 40, **(options or OPTIONS)}
        return replace(built, cfg_options=few)

    return build


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A finished run in two stages. Tests must not write to its folder."""
    from onebit.commons.task import Job

    options = {"train_dataloader.batch_size": 40, **OPTIONS}
    folder = tmp_path_factory.mktemp("whole")
    job = Job("mini-cifar10", BACKBONE, "small", 0, data, folder, False, options)
    return job, classification.train(job)


def test_outcome_and_checkpoints_say_the_stages(whole):
    job, outcome = whole
    assert outcome.details["stages"] == [dict(epochs=1, binarize="activations"), dict(epochs=2, binarize="both")]
    assert outcome.epochs == len(outcome.details["loss_curve"]) == 3
    assert outcome.details["averaged_weights"] == dict(momentum=0.3, steps=2 * BATCHES)
    assert outcome.checkpoint == job.work_dir / "epoch_2.pth"
    assert load_row(job.work_dir / "stage1" / "epoch_1.pth")[0]["stage"] == 1
    assert load_row(outcome.checkpoint)[0]["stage"] == 2


# In stage 1; before the first checkpoint of stage 2; in its last epoch.
@pytest.mark.parametrize("at", [1, BATCHES, 2 * BATCHES + 1])
def test_run_killed_in_any_stage_ends_where_an_uninterrupted_one_does(whole, staged, monkeypatch, at):
    trained = []

    def kill(self, runner, *arguments, **options):
        trained.append(runner)
        if len(trained) > at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FiniteLossHook, "after_train_iter", kill)
        with pytest.raises(Killed):
            classification.train(staged())
    resumed, outcome = classification.train(staged(resume=True)), whole[1]
    assert resumed.metrics == outcome.metrics
    assert resumed.untrained == outcome.untrained
    assert resumed.details == outcome.details
    assert resumed.epochs == outcome.epochs
    a, b = (load_row(o.checkpoint)[1] for o in (resumed, outcome))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_checkpoint_of_the_last_stage_scores_as_training_said(whole, job):
    outcome = whole[1]
    asked = job(backbone="", recipe="", cfg_options={})
    scored = classification.test(outcome.checkpoint, _without_options(asked))
    assert scored.metrics == outcome.metrics
    assert scored.config == outcome.config
    assert scored.epochs == 3


def test_checkpoint_of_real_weights_is_not_scored_as_a_1_bit_network(whole, job):
    path = whole[0].work_dir / "stage1" / "epoch_1.pth"
    with pytest.raises(InputError, match="of stage 1 of 2, in which weights are not binarized"):
        classification.test(path, _without_options(job(backbone="", recipe="")))


def _without_options(job):
    from dataclasses import replace

    return replace(job, cfg_options={})


def test_a_network_of_an_earlier_stage_teaches_as_it_was_trained(whole):
    """Its weights are real-valued; binarized, it would be another network."""
    folder = whole[0].work_dir
    for path, binarized in ((folder / "stage1" / "epoch_1.pth", False), (whole[1].checkpoint, True)):
        network = Distillation(10, str(path))._network
        found = {m._binarize_weight for m in network.modules() if isinstance(m, OneBitConv2d)}
        assert found == {binarized}


def test_fresh_run_does_not_go_on_from_a_later_stage_of_an_earlier_one(staged, monkeypatch):
    """Killed in stage 1 and resumed, it must not find the old run's stage 2."""
    folder = staged().work_dir
    folder.mkdir()
    (folder / "epoch_2.pth").write_bytes(b"of an earlier run")

    def kill(*_, **__):
        raise Killed

    monkeypatch.setattr(FiniteLossHook, "after_train_iter", kill)
    with pytest.raises(Killed):
        classification.train(staged())
    assert not list(folder.glob("epoch_*.pth"))


def test_every_stage_has_its_own_optimizer_and_schedule(config):
    cfg = _config(config, [dict(TWO[0], param_scheduler=[dict(type="LinearLR")]), TWO[1]])
    first, second = (stage.cfg for stage in stages.stages_of(cfg, _nowhere(), FREE))
    assert (first.optim_wrapper.optimizer.weight_decay, second.optim_wrapper.optimizer.weight_decay) == (1e-5, 0.0)
    assert (first.train_cfg.max_epochs, second.train_cfg.max_epochs) == (1, 2)
    assert first.param_scheduler == [dict(type="LinearLR")]
    assert second.param_scheduler == cfg.param_scheduler
    assert (first.model.binarize, second.model.get("binarize")) == ("activations", None)
    assert cfg.train_cfg.max_epochs == 3
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.01  # the recipe's own stays as it is


def _nowhere():
    from pathlib import Path

    return Path("nowhere")


def _config(config, wanted):
    built = config(recipe="small", cfg_options={})
    built.stages = wanted
    stages.check_stages(built, FREE)
    return built


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([dict(binarize="both")], "stage 1: epochs None: expected a whole number from 1 up"),
        ([dict(epochs=0)], "stage 1: epochs 0: expected"),
        ([dict(epochs=1, binarize="weights")], "stage 1: binarize 'weights'"),
        ([dict(epochs=1, binarize="activations")], "the last stage: expected binarize='both'"),
        ([dict(epochs=1, optimizer=dict(lr=1))], "no option 'optimizer'"),
        (["first"], "expected a list of dicts"),
    ],
)
def test_stages_that_cannot_be_trained_are_refused(config, wanted, message):
    with pytest.raises(InputError, match=message):
        _config(config, wanted)


def test_a_stage_can_have_weights_of_its_own_for_the_teacher(config, tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_text(name)
    built = config(recipe="small", cfg_options={})
    built.distillation = dict(teacher="resnet34", checkpoint=str(tmp_path / "a.pth"))
    built.stages = [dict(epochs=1), dict(epochs=1, distillation={"checkpoint": str(tmp_path / "b.pth")})]
    found = [s.cfg.model.distillation for s in stages.stages_of(stages.check(built), _nowhere(), FREE)]
    assert [d["backbone"] for d in found] == ["resnet34"] * 2
    assert [d["load_from"] for d in found] == [str(tmp_path / n) for n in ("a.pth", "b.pth")]
    assert len({d["sha256"] for d in found}) == 2
    assert not any("checkpoint" in d for d in found)


def test_epochs_beside_stages_are_refused(job):
    with pytest.raises(InputError, match=r"has stages, set stages.0.epochs"):
        classification.train(job(cfg_options=dict(stages=TWO)))


def test_weights_of_the_first_stage_are_real_and_carried_over(whole):
    """What stage 2 starts from is what stage 1 ended with: no gradient came in between."""
    from onebit.classification.config import build_config
    from onebit.commons.datasets import get_dataset

    job = whole[0]
    dataset = get_dataset(job.dataset)
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    first = stages.stages_of(cfg, job.work_dir, FREE)[0]
    network = classification.MODELS.build(first.cfg.model)
    network.load_state_dict(load_row(first.work_dir / "epoch_1.pth")[1])
    convs = onebit_convs(network).values()
    assert {conv.weight_bits for conv in convs} == {32}
    conv = next(iter(convs))
    x = torch.randn(2, conv.in_channels, 8, 8)
    expected = F.conv2d(conv.quantize_input(x), conv.weight, None, conv.stride, conv.padding)
    torch.testing.assert_close(conv(x), expected)
