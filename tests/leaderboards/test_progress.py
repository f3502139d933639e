"""The progress of a training reaches the method in every task and in searches, resumed ones too."""

import pytest
from torch import nn

from onebit import backbones
from onebit.backbones import Binarizer
from onebit.backbones.binarization import BINARIZERS, ScaledSign, sign_with
from onebit.classification.search.job import SearchJob
from onebit.classification.search.runner import search
from onebit.commons import mini
from onebit.commons.task import TASKS, Job
from onebit.leaderboards.boards import runner
from tests.classification.search.conftest import TINY


@pytest.fixture
def told(monkeypatch):
    """A binarizer ``listens`` whose quantizers of weights note the progress; the list of fractions."""
    fractions = []

    class Listening(ScaledSign):
        def set_progress(self, fraction):
            if not fractions or fractions[-1] != fraction:
                fractions.append(fraction)

    of = Binarizer("listens", "test", input=sign_with(lambda x: 1 / (1 + x.square())), weight=Listening)
    monkeypatch.setitem(BINARIZERS, "listens", of)
    return fractions


#: Where a config says how many epochs there are.
EPOCHS = {"classification": "train_cfg.max_epochs", "detection": "train_cfg.max_epochs", "reid": "epochs"}


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task == "classification" else pytest.mark.slow) for task in TASKS]
)
def test_every_trainer_tells_the_progress(told, task, tmp_path):
    of_task = runner(task)
    dataset, options = of_task.TRIAL
    list(mini.write(tmp_path / "data", [dataset]))
    job = Job(
        dataset=dataset,
        backbone="resnet18_w4_listens",
        recipe="mini",
        seed=0,
        data_root=tmp_path / "data",
        work_dir=tmp_path / "work",
        cfg_options={**options, EPOCHS[task]: 2},
    )
    outcome = of_task.train(job)
    assert told == [0.0, 0.5]
    outcome.checkpoint.unlink()  # of the second epoch
    told.clear()
    of_task.train(Job(**{**vars(job), "resume": True}))
    assert told == [0.5]


@pytest.mark.slow
def test_searches_tell_the_progress(told, tmp_path):
    list(mini.write(tmp_path / "data", ["mini-cifar10"]))
    folders = tmp_path / "data", tmp_path / "work"
    options = {"binarizer": "listens"}
    search(SearchJob("darts", "mini-cifar10", "mini", 0, *folders, options=options, cfg_options=TINY))
    assert told == [0.0, 1 / 3, 2 / 3]


def test_a_training_that_counts_iterations_tells_it_at_every_one(told):
    from mmengine.registry import HOOKS

    class Runner:
        model = nn.Sequential(backbones.create_backbone("resnet18_w4_listens", out_indices=(0,)))
        iter, max_iters, train_loop = 3, 12, None

    HOOKS.build(dict(type="onebit.MethodLossHook")).before_train_iter(Runner, 0)
    assert told == [0.25]
