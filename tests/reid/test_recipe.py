"""Configs that were saved before recipes were what they are now."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onebit.commons.errors import InputError
from onebit.commons.task import Job, recipes
from onebit.reid import runner
from onebit.reid.features_folder import features_of_folder
from onebit.reid.recipe import BASE, build_config, load_recipe, saved_config

OPTIONS = {"epochs": 1, "height": 64, "width": 32, "data.batch_size_train": 16, "score_untrained": False}
FILE = Path("epoch_1.pth")


@pytest.fixture(scope="module")
def row(market, tmp_path_factory):
    """A trained row of mini-market1501 and its job."""
    work = tmp_path_factory.mktemp("work")
    job = Job("mini-market1501", "resnet18_w8", "mini", 0, market, work, cfg_options=OPTIONS)
    return runner.train(job), job


def rewritten(checkpoint: Path, target: Path, change) -> Path:
    """The checkpoint with another config."""
    state = torch.load(checkpoint, weights_only=True)
    change(state["config"])
    torch.save(state, target)
    return target


def make_older(config):
    for key in ("flip_features", "triplet", "init_from_sha256"):
        config.pop(key)
    config["evaluation"].pop("rerank")
    config["model"].pop("last_stride")


def saved(recipe="mini", **change):
    job = Job("mini-market1501", "resnet18_w8", recipe, 0, Path(), Path(), cfg_options=change)
    return json.loads(json.dumps(build_config(job).to_dict()))


@pytest.mark.parametrize("recipe", recipes("reid"))
def test_a_config_of_today_stays_as_it_is(recipe):
    config, filled = saved_config(saved(recipe), FILE)
    assert config.to_dict() == saved(recipe)
    assert filled == []


def test_what_is_missing_comes_from_the_recipe():
    old = saved("face", **{"evaluation.k1": 7})
    del old["flip_features"], old["evaluation"]["distance"], old["triplet"]
    old["data"].pop("train_sampler")
    config, filled = saved_config(old, FILE)
    assert filled == ["triplet", "data.train_sampler", "evaluation.distance", "flip_features"]
    assert config.to_dict() == saved("face", **{"evaluation.k1": 7})
    # The paper's recipe has other values for two of them.
    assert load_recipe(BASE).flip_features is False
    assert load_recipe(BASE).evaluation.distance == "euclidean"


def test_options_that_are_no_more_are_refused():
    old = {**saved(), "distance": "cosine"}
    with pytest.raises(
        InputError, match=r"epoch_1\.pth was written by another version: its config has distance, which"
    ):
        saved_config(old, FILE)
    old = saved()
    del old["flip_features"]
    old["recipe"] = "tiny"
    with pytest.raises(InputError, match="unknown recipe of reid 'tiny'"):
        saved_config(old, FILE)


def test_an_older_checkpoint_is_scored(row, tmp_path):
    trained, job = row
    old = rewritten(trained.checkpoint, tmp_path / "epoch_1.pth", make_older)
    scored = runner.test(old, replace(job, work_dir=tmp_path, cfg_options={}))
    assert scored.metrics == trained.metrics
    assert scored.details["filled_from_recipe"] == [
        "model.last_stride",
        "triplet",
        "evaluation.rerank",
        "flip_features",
    ]
    images = job.data_root / "mini-market1501/market1501/Market-1501-v15.09.15/query"
    theirs, ours = (
        features_of_folder(c, images, tmp_path / f"{n}.safetensors").features
        for n, c in enumerate((trained.checkpoint, old))
    )
    assert (theirs == ours).all()


def test_scoring_leaves_what_the_row_left(row):
    """The record of a row has the hash of its features."""
    trained, job = row
    before = trained.predictions.read_bytes()
    options = {"evaluation.distance": "euclidean"}
    scored = runner.test(trained.checkpoint, replace(job, cfg_options=options))
    assert trained.predictions.read_bytes() == before
    assert scored.predictions.name == f"test_{trained.predictions.name}"
    assert scored.metrics != trained.metrics
    assert "filled_from_recipe" not in scored.details


def test_another_dataset_is_not_said_to_have_been_trained_on(row, duke, tmp_path):
    trained, job = row
    job = replace(job, work_dir=tmp_path, cfg_options={})
    scored = runner.test(trained.checkpoint, replace(job, dataset="mini-dukemtmcreid", data_root=duke))
    assert scored.split == "mini-market1501 -> query, bounding_box_test"
    assert "train_images" not in scored.details
    assert runner.test(trained.checkpoint, job).split == trained.split


def test_options_of_the_row_may_be_repeated_and_are_checked(row, tmp_path):
    trained, job = row
    job = replace(job, work_dir=tmp_path)
    started = {**OPTIONS, "init_from": "gone.pth"}  # as a record repeats them
    assert runner.test(trained.checkpoint, replace(job, cfg_options=started)).metrics == trained.metrics
    with pytest.raises(InputError, match="height 0: expected a whole number"):
        runner.test(trained.checkpoint, replace(job, cfg_options={"height": 0}))
