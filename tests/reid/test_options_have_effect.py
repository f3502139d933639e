"""Every option of a recipe changes what a row gives, or is refused: one that changes nothing would only look chosen.

The options are read from the recipe that has them all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from onebit.commons.checkpoint_reader import read_checkpoint
from onebit.commons.config_options import dotted
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.reid import runner
from onebit.reid.features import load
from onebit.reid.recipe import BASE, build_config, load_recipe
from tests.leaderboards.test_training_data_flow import colored_market

#: Seconds each, and as many as there are options.
pytestmark = pytest.mark.slow
RECIPE = load_recipe(BASE).to_dict()
SMALL = {
    **{"epochs": 2, "height": 32, "width": 16, "data.batch_size_train": 8, "data.batch_size_test": 8},
    **{"data.workers": 0, "data.num_instances": 2},
}


def value_of(name: str) -> Any:
    value: Any = RECIPE
    for key in name.split("."):
        value = value[key]
    return value


LEAVES = [name for name in dotted(RECIPE) if not isinstance(value_of(name), Mapping) or not value_of(name)]
#: Change how fast, not what.
SPEED = {"data.workers": "num_workers", "data.batch_size_test": "batch_size"}
#: Where an option counts: what else is chosen.
WHERE = {
    r"triplet\.|data\.num_instances": {"model.loss": "triplet"},
    r"evaluation\.(k1|k2|lambda_value)": {"evaluation.rerank": True},
    r"step_": {"schedule": "step", "step_epochs": 1},
    r"data\.split_id": {"data.cuhk03_classic_split": True},
}
#: Where no other number or switch will do.
OTHER: dict[str, Any] = {
    "model.loss": "triplet",
    "model.neck": "bn",
    "model.feature_dim": 16,
    "model.last_stride": 1,
    "model.backbone_options": {"norm_eval": True},
    "init_from": "none.pth",
    "optimizer.type": "RMSprop",
    "schedule": "step",
    "fixbase_epochs": 1,
    "warmup_epochs": 1,
    "step_epochs": 2,
    "data.transforms": ["random_erase"],
    "data.train_sampler": "RandomIdentitySampler",
    "data.num_instances": 4,
    "evaluation.distance": "cosine",
    "evaluation.protocol": "cuhk03-classic",
    "evaluation.k1": 2,
    "evaluation.k2": 1,
}


def given(job: Job) -> str:
    """A hash of all that a short row gives, less the text of its config."""
    outcome = runner.train(job)
    groups, _ = load(outcome.predictions)
    digest = hashlib.sha256()
    for weight in read_checkpoint(outcome.checkpoint)["state_dict"].values():
        digest.update(weight.numpy().tobytes())
    for group in groups.values():
        digest.update(group.features.tobytes())
    for value in (outcome.metrics, outcome.untrained, outcome.split, outcome.protocol, outcome.details["loss_curve"]):
        digest.update(repr(value).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def row(tmp_path_factory, small_cuhk):
    """Builds the job of a short row, and gives what it gives; the same row once."""
    root = tmp_path_factory.mktemp("data")
    colored_market(root)
    known: dict[str, str] = {}

    def of(options: dict[str, Any], cuhk: bool) -> Job:
        data = ("mini-cuhk03", small_cuhk) if cuhk else ("market1501", root)
        work = tmp_path_factory.mktemp("work")
        return Job(data[0], "resnet18_w8", BASE, 0, data[1], work, cfg_options={**SMALL, **options})

    def result(options: dict[str, Any], cuhk: bool) -> str:
        key = repr((sorted(options.items()), cuhk))
        if key not in known:
            known[key] = given(of(options, cuhk))
        return known[key]

    return of, result


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in SPEED])
def test_an_option_changes_what_a_row_gives(row, name):
    _, result = row
    over: dict[str, Any] = {}
    for pattern, options in WHERE.items():
        if re.match(pattern, name):
            over = options
    value = {**SMALL, **over}.get(name, value_of(name))
    other = OTHER[name] if name in OTHER else not value if isinstance(value, bool) else value * 2
    cuhk = name.startswith(("data.cuhk03", "data.split_id"))
    if name == "data.split_id":
        other = 1
    plain = result(over, cuhk)
    try:
        changed = result({**over, name: other}, cuhk)
    except InputError as error:
        changed = f"refused: {error}"
    assert changed != plain
    assert not changed.startswith("refused") or name.split(".")[-1] in changed or str(other) in changed


@pytest.mark.parametrize("name", SPEED)
def test_an_option_of_speed_reaches_the_loaders(row, name):
    of, _ = row
    job = of({name: 3}, cuhk=False)
    data = runner.read_data(build_config(job), job.data_root, Path(job.work_dir) / "log")
    (loaders,) = data.test_loader.values()
    assert getattr(loaders["query"], SPEED[name]) == 3
