import pytest
from mmengine.config import Config

from onebit.commons.config_options import with_options
from onebit.commons.errors import InputError


@pytest.fixture
def cfg():
    return Config(
        dict(
            train_cfg=dict(max_epochs=3),
            steps=[1, 2],
            schedule=[dict(type="A", end=1), dict(type="B", end=2)],
            optimizer=dict(type="Adam", lr=0.1),
        )
    )


def test_known_keys_are_overridden_and_the_original_stays(cfg):
    options = {"train_cfg.max_epochs": 5, "schedule.1.end": 9, "steps": [4, 5, 6]}
    changed = with_options(cfg, options)
    assert changed.train_cfg.max_epochs == 5
    assert changed.schedule[1] == dict(type="B", end=9)
    assert changed.steps == [4, 5, 6]
    assert cfg.train_cfg.max_epochs == 3


@pytest.mark.parametrize("options", [{"train_cfg.max_epoch": 5}, {"train_cfg": {"max_epoch": 5}}, {"nonsense": 1}])
def test_unknown_key_is_refused(cfg, options):
    with pytest.raises(InputError, match=r"the recipe has no option '(train_cfg.max_epoch|nons)"):
        with_options(cfg, options)


def test_unknown_key_gets_near_matches(cfg):
    with pytest.raises(InputError, match=r"did you mean train_cfg.max_epochs"):
        with_options(cfg, {"train_cfg.max_epoch": 5})


def test_free_prefix_takes_any_key(cfg):
    changed = with_options(cfg, {"optimizer.eps": 1e-5}, free=("optimizer.",))
    assert changed.optimizer == dict(type="Adam", lr=0.1, eps=1e-5)
    with pytest.raises(InputError, match=r"'optimizer.eps'"):
        with_options(cfg, {"optimizer.eps": 1e-5})


@pytest.mark.parametrize("name", ["mixup", "mixup.alpha"])
def test_free_key_takes_what_lies_below_it(cfg, name):
    assert with_options(cfg, {name: 1}, free=("mixup",)) is not None


@pytest.mark.parametrize("name", ["mixup_alpha", "mixups.alpha", "optimizers", "optimize"])
def test_word_that_only_begins_like_a_free_key_is_refused(cfg, name):
    with pytest.raises(InputError, match=f"no option '{name}'"):
        with_options(cfg, {name: 1}, free=("mixup", "optimizer."))


def test_option_of_another_shape_is_refused(cfg):
    with pytest.raises(InputError, match="do not fit the recipe"):
        with_options(cfg, {"schedule.7.end": 9}, free=("schedule.",))


def test_whole_dict_is_replaced_by_delete(cfg):
    options = {"optimizer": dict(_delete_=True, type="SGD", lr=1)}
    assert with_options(cfg, options).optimizer == dict(type="SGD", lr=1)
