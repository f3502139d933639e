"""The mini recipe learns: what is right scores, an untrained network does not."""

import pytest

from onebit.classification import runner
from onebit.commons.mini import write
from onebit.commons.task import Job


@pytest.fixture(scope="module")
def full_data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    list(write(root, ["mini-cifar10"]))
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "top1"), [("resnet18_w16", 0.8), ("resnet18_w16_reactnet", 0.7)])
def test_mini_recipe_learns(full_data, tmp_path, backbone, top1):
    outcome = runner.train(Job("mini-cifar10", backbone, "mini", 0, full_data, tmp_path))
    assert outcome.untrained["top1"] < 0.2
    assert outcome.metrics["top1"] >= top1
    curve = outcome.details["loss_curve"]
    assert curve[-1] < 0.7 * curve[0]
    scored = runner.test(outcome.checkpoint, Job("mini-cifar10", "", "", 0, full_data, tmp_path))
    assert scored.metrics == outcome.metrics
