import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import CosineAnnealingLR

from onebit.classification.config import build_config
from onebit.classification.runner import row_of
from onebit.commons.datasets import get_dataset
from onebit.commons.engine import build_runner
from onebit.commons.errors import InputError

FULL = {"train_cfg.max_epochs": 600, "train_dataloader.batch_size": 96}


def test_every_dataset_gets_its_input_stem_and_statistics(config):
    small, large = config("mini-cifar10", recipe="paper"), config("mini-imagenet", recipe="paper")
    assert (small.input_size, large.input_size) == (32, 224)
    assert (small.model.backbone.stem, large.model.backbone.stem) == ("cifar", "imagenet")
    assert small.model.num_classes == large.model.num_classes == 10
    assert small.model.data_preprocessor.mean != large.model.data_preprocessor.mean
    assert config("cifar10-jpeg").model.num_classes == 3
    assert config("mini-imagenet").input_size == 64


def test_the_recipe_short_brings_small_images_to_16_pixels(config):
    cfg = config("cifar10-jpeg", recipe="short")
    assert cfg.input_size == 16
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert (loader.dataset["size"], loader.dataset["resize"]) == (32, 16)
    assert cfg.train_dataloader.dataset["images"] == 25000
    assert "images" not in cfg.test_dataloader.dataset
    assert "images" not in config("mini-imagenet", recipe="short").train_dataloader.dataset


def test_paper_recipe_says_what_dcp_nas_states(config):
    cfg = config(recipe="paper", cfg_options=FULL)
    assert cfg.train_cfg.max_epochs == 600
    assert cfg.train_dataloader.batch_size == 96
    assert cfg.optim_wrapper.optimizer == dict(type="Adam", lr=0.0025, betas=(0.9, 0.999), weight_decay=1e-5)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
    augmentation = cfg.model.data_preprocessor
    assert (augmentation.padding, augmentation.flip, augmentation.cutout) == (4, True, 16)
    assert cfg.score_untrained


def test_paper_schedule_is_a_cosine_over_600_epochs_without_restart(config, job, tmp_path):
    cfg = config(recipe="paper", cfg_options=FULL)
    runner = build_runner(cfg, row_of(job(recipe="paper"), cfg), work_dir=tmp_path, resume=False)
    assert len(runner.train_dataloader) == 1  # 80 images: an epoch is one step
    (scheduler,) = runner.param_schedulers
    rates = []
    for _ in range(600):
        rates += runner.optim_wrapper.get_lr()["lr"]
        runner.optim_wrapper.optimizer.step()
        scheduler.step()
    assert rates[0] == 0.0025
    assert rates[150] == pytest.approx(0.0025 * (1 + math.cos(math.pi / 4)) / 2)
    assert rates[300] == pytest.approx(0.00125)
    assert 0 < rates[599] < 1e-7
    assert rates == sorted(rates, reverse=True)
    assert runner.optim_wrapper.clip_grad_kwargs == dict(max_norm=5.0)


@pytest.mark.parametrize("recipe", ["paper", "small", "mini"])
def test_cosine_ends_with_the_training_when_its_epochs_are_overridden(config, job, tmp_path, recipe):
    cfg = config(recipe=recipe, cfg_options={"train_cfg.max_epochs": 2})
    runner = build_runner(cfg, row_of(job(recipe=recipe), cfg), work_dir=tmp_path, resume=False)
    (cosine,) = [s for s in runner.param_schedulers if isinstance(s, CosineAnnealingLR)]
    assert cosine.end == cosine.T_max == runner.max_iters
    assert runner.max_epochs == 2


def test_paper_recipe_trains_a_step(config, job, tmp_path):
    options = {"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 96}
    cfg = config(recipe="paper", cfg_options=options)
    runner = build_runner(cfg, row_of(job(recipe="paper"), cfg), work_dir=tmp_path, resume=False)
    runner.model.init_weights()
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 1
    for name, parameter in runner.model.named_parameters():
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("recipe", ["small", "mini"])
def test_own_recipes_warm_up_and_end_near_zero(config, job, tmp_path, recipe):
    options = {"train_dataloader.batch_size": 4}
    cfg = config(recipe=recipe, cfg_options=options)
    epochs = Config.fromfile(f"classification/configs/recipes/{recipe}.py").train_cfg.max_epochs
    cfg.train_cfg.max_epochs = epochs
    runner = build_runner(cfg, row_of(job(recipe=recipe), cfg), work_dir=tmp_path, resume=False)
    base = cfg.optim_wrapper.optimizer.lr
    rates = []
    for _ in range(epochs * len(runner.train_dataloader)):
        rates += runner.optim_wrapper.get_lr()["lr"]
        runner.optim_wrapper.optimizer.step()
        for scheduler in runner.param_schedulers:
            scheduler.step()
    assert rates[0] == pytest.approx(0.01 * base)
    assert max(rates) <= base
    assert rates[-1] < 0.01 * base


def test_unknown_recipe_lists_the_recipes(job, data):
    dataset = get_dataset("mini-cifar10")
    near = r"did you mean .*paper.*\?"
    for name, hint in (
        ("papers", near),
        ("../recipes/paper", "there are bireal, .*, xnor_net"),
        ("", "there are bireal, .*, xnor_net"),
    ):
        with pytest.raises(InputError, match=f"unknown recipe of classification .*; {hint}"):
            build_config(job(recipe=name), dataset, dataset.find(data))


def test_options_are_merged_last(config):
    options = {
        "model.label_smoothing": 0.1,
        "model.data_preprocessor.cutout": 8,
        "optim_wrapper.optimizer.lr": 1.0,
        "train_dataloader.drop_last": True,
    }
    cfg = config(cfg_options=options)
    assert cfg.model.label_smoothing == 0.1
    assert cfg.model.data_preprocessor.cutout == 8
    assert cfg.optim_wrapper.optimizer.lr == 1.0
    assert cfg.train_dataloader.drop_last is True


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("train_cfg.max_epoch", "train_cfg.max_epochs"),
        ("model.label_smooth", "model.label_smoothing"),
        ("batch_size", "train_dataloader.batch_size"),
    ],
)
def test_option_that_does_not_exist_is_refused(config, option, near):
    with pytest.raises(InputError, match=f"no option '{option}'; did you mean .*{near}"):
        config(cfg_options={option: 2})
