"""What the hooks of every training hold to, on a network of one layer."""

import pytest
import torch
from mmengine.registry import DATASETS

from onebit.commons.checkpoints import load_row
from onebit.commons.engine import loss_curve
from onebit.commons.engine_hooks import EpochSeedHook, epoch_seed
from onebit.commons.errors import WorkError
from tests.commons.conftest import BATCH, IMAGES, line_config

BATCHES = IMAGES // BATCH
SGD = dict(type="SGD", lr=0.1)


@DATASETS.register_module()
class Drawn(torch.utils.data.Dataset):
    """Every item is drawn when it is asked for, as an augmentation is."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        x = torch.rand(2)
        return dict(inputs=x, labels=x.sum())


def drawn(runner, epoch):
    """The first batch of an epoch."""
    runner.train_loop._epoch = epoch
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, EpochSeedHook)]
    hook.before_train_epoch(runner)
    return next(iter(runner.train_dataloader))["inputs"]


def test_loader_processes_draw_anew_in_every_epoch_and_the_same_in_every_run(line):
    loader = line_config().train_dataloader
    loader.update(num_workers=1, dataset=dict(type="Drawn"))
    runner = line(train_dataloader=loader)
    first, second = drawn(runner, 0), drawn(runner, 1)
    assert not torch.equal(first, second)
    assert torch.equal(drawn(line("again", train_dataloader=loader), 1), second)


def test_weights_that_are_not_finite_are_not_kept(line, tmp_path):
    """The losses are: only the last step of epoch 2 spoils them."""

    def spoil(runner, outputs):
        runner.model.layer.weight.data[0, 0] = float("nan")

    with pytest.raises(WorkError) as caught:
        line(at=2 * BATCHES - 1, call=spoil).train()
    last = tmp_path / "run" / "epoch_1.pth"
    expected = f"layer.weight is not finite after epoch 2; last good checkpoint: {last}"
    assert str(caught.value) == expected
    assert [p.name for p in (tmp_path / "run").glob("epoch_*")] == ["epoch_1.pth"]
    assert load_row(last)[1]["layer.weight"].isfinite().all()


def accumulating(line, name, counts, batch, epochs=1, **changes):
    loader = line_config().train_dataloader
    loader.batch_size = batch
    return line(
        name,
        train_dataloader=loader,
        train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=epochs),
        optim_wrapper=dict(type="OptimWrapper", optimizer=SGD, accumulative_counts=counts),
        param_scheduler=None,
        **changes,
    )


def test_batches_of_one_step_are_as_one_batch(line, monkeypatch):
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)  # the network's own noise
    several, one = accumulating(line, "a", BATCHES, BATCH), accumulating(line, "b", 1, IMAGES)
    for runner in (several, one):
        runner.train()
    torch.testing.assert_close(several.model.state_dict(), one.model.state_dict())


def test_the_last_step_of_an_epoch_takes_the_batches_that_are_left(line):
    runner = accumulating(line, "run", 2, BATCH, epochs=2)
    steps = []
    runner.optim_wrapper.optimizer.register_step_post_hook(lambda *_: steps.append(runner.iter))
    runner.train()
    assert steps == [1, 2, 4, 5]  # of three batches an epoch


def test_loss_curve_of_a_history_that_was_cut_is_of_whole_epochs(line):
    runner = line()
    runner.train()
    whole = loss_curve(runner)
    assert len(whole) == 3
    history = runner.message_hub.get_scalar("train/loss")
    history._log_history = history._log_history[2:]
    assert loss_curve(runner) == whole[1:]


@pytest.mark.parametrize(("epoch", "first"), [(0, 0), (1, 0), (0, 3)])
def test_every_epoch_begins_with_its_own_seed(line, epoch, first):
    runner = line()
    runner.train_loop._epoch = epoch
    torch.manual_seed(123)
    EpochSeedHook(seed=5, first=first).before_train_epoch(runner)
    found = torch.rand(3)
    torch.manual_seed(epoch_seed(5, first + epoch))
    assert torch.equal(found, torch.rand(3))


DEFERRED = [dict(type="DeferredLossesHook", interval=2)]


def test_deferred_losses_are_the_same_history(line):
    """Of three steps in an epoch, the second and third read losses."""
    plain, deferred = line("plain"), line("deferred", custom_hooks=DEFERRED)
    for runner in (plain, deferred):
        runner.train()
    histories = [runner.message_hub.get_scalar("train/loss").data for runner in (plain, deferred)]
    assert [h.tolist() for h in histories[0]] == [h.tolist() for h in histories[1]]
    assert len(histories[0][0]) == 3 * BATCHES
    assert loss_curve(plain) == loss_curve(deferred)
    assert torch.equal(plain.model.layer.weight, deferred.model.layer.weight)


@pytest.mark.parametrize("at", range(BATCHES, 2 * BATCHES))
def test_a_deferred_loss_that_is_not_finite_ends_the_run_at_its_own_iteration(line, at, tmp_path):
    runner = line(custom_hooks=DEFERRED)
    own = runner.model.train_step

    def train_step(data, optim_wrapper):
        return {**own(data, optim_wrapper), **({"loss": torch.tensor(float("nan"))} if runner.iter == at else {})}

    runner.model.train_step = train_step
    last = tmp_path / "run" / "epoch_1.pth"
    with pytest.raises(
        WorkError, match=f"the loss is nan in epoch 2, iteration {at + 1}; last good checkpoint: {last}"
    ):
        runner.train()
