"""Presets, options, and what is refused before anything runs."""

from dataclasses import replace

import pytest

from onebit.classification.search.config import build_config, check_preset, load_preset, presets
from onebit.classification.search.runner import check
from onebit.classification.search.strategies import METHODS
from onebit.commons.datasets import DATASETS, get_dataset
from onebit.commons.errors import InputError

#: Two channels cannot be halved.
WHOLE = {"channel_fraction": 1.0}
BOARDS = ("cifar10", "imagenet")


def test_paper_preset_is_what_the_papers_state():
    cfg = load_preset("paper", "cifar10", "cp-nas")
    assert cfg.options.beta_p == 2
    assert (cfg.space.cells, cfg.space.channels) == (6, 16)
    assert cfg.schedule == dict(epochs=105, optimizer="sgd", lr=0.025, momentum=0.9, weight_decay=5e-4)
    assert (cfg.data.batch_size, cfg.data.train, cfg.data.evaluation) == (512, 0.5, 0.05)
    imagenet = load_preset("paper", "imagenet", "dcp-nas")
    assert (imagenet.schedule.lr, imagenet.data.image_size) == (0.05, 224)
    assert imagenet.data.augmentation == {}
    assert imagenet.options.lambda_ == 1e-3
    assert load_preset("paper", "cifar10", "dcp-nas").options.lambda_ == 1e-4
    assert load_preset("paper", "imagenet", "cp-nas").options.beta_p == 0.33
    assert load_preset("paper", "cifar10", "dcp-nas").schedule.optimizer == "adam"
    assert load_preset("paper", "cifar10", "bnas").data.evaluation == 0.1
    assert load_preset("paper", "cifar10", "darts").data.valid == 0.5


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("preset", ["paper", "small", "mini"])
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_fits_every_method(search_job, method, preset, board):
    dataset = get_dataset(f"mini-{board}")
    job = search_job(method, dataset=dataset.name, preset=preset)
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    assert cfg.model.method == method
    assert cfg.model.space.stem == ("cifar" if board == "cifar10" else "imagenet")


def test_presets_are_all_there():
    assert presets() == ["mini", "paper", "small"]


def test_the_cell_is_derived_as_the_paper_says_unless_asked_otherwise(search_job):
    dataset = DATASETS["mini-cifar10"]

    def derivation(method, **changes):
        job = search_job(method, options=WHOLE if method == "bnas" else {}, cfg_options=changes)
        return build_config(job, dataset, dataset.find(job.data_root)).derivation

    assert derivation("darts") == dict(edges="top2", keep_none=False)
    assert derivation("bnas") == dict(edges="all14", keep_none=False)
    changes = {"derivation.edges": "all14", "derivation.keep_none": True}
    assert derivation("darts", **changes) == dict(edges="all14", keep_none=True)


def test_search_space_ablations(search_job):
    dataset = DATASETS["mini-cifar10"]
    job = search_job(cfg_options={"space.pooling": False, "space.skip": False})
    cfg = build_config(job, dataset, dataset.find(job.data_root))
    assert "skip_connect" not in cfg.model.space.operations
    assert len(cfg.model.space.operations) == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(method="dcpnas"), "unknown search method 'dcpnas'; did you mean dcp-nas"),
        (dict(preset="tiny"), "unknown preset of search 'tiny'; there are mini, paper, small"),
        (dict(dataset="mini-cifar"), "unknown dataset 'mini-cifar'; did you mean mini-cifar10"),
        (dict(dataset="mini-voc"), "mini-voc is for detection"),
        (dict(options={"curvature": 1}), "unknown option of random 'curvature'; there are binarizer"),
        (dict(options={"binarizer": "x1"}), "unknown binarizer 'x1'"),
        (dict(cfg_options={"space.chanels": 8}), "no option 'space.chanels'; .*space.channels"),
        (dict(cfg_options={"space.channels": 3}), "channels 3: expected a multiple of 2 from 2 up"),
        (dict(cfg_options={"space.pooling": 1}), "space.pooling 1: expected True or False"),
        (dict(cfg_options={"schedule.optimizer": "lamb"}), "optimizer 'lamb': expected one of sgd, adam"),
        (dict(cfg_options={"schedule.epochs": 0}), "epochs 0: expected a whole number from 1 up"),
        (dict(cfg_options={"data.batch_size": "x"}), "data.batch_size 'x': expected a whole number"),
        (dict(budget=0), "budget in seconds 0: expected a number above 0"),
        (dict(cfg_options={"amp": "half"}), "amp 'half': expected one of None, bfloat16, float16"),
        (dict(cfg_options={"data.augmentation.turn": 1}), "no option 'data.augmentation.turn'"),
        (
            dict(cfg_options={"data.train": float("nan")}),
            "data.train, a share of the training set, nan: expected a number from 0 to 1",
        ),
        (dict(method="cp-nas", cfg_options={"data.evaluation": 0.0}), "data.evaluation 0: cp-nas needs"),
        (dict(method="bnas", options=WHOLE, cfg_options={"data.valid": 0.0}), "data.valid 0: bnas needs"),
        (dict(method="cp-nas", options={"T": 1e400}), "option T inf: expected a valid integer"),
        (dict(method="dcp-nas", options={"mu": 10**400}), "option mu 10+.*: expected a valid number"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(search_job, fields, message):
    job = search_job(**fields)
    with pytest.raises(InputError, match=message):
        check(job)
    assert not job.work_dir.exists()


#: Dotted name to values that are just too small or too large, and to those that are just allowed.
BOUNDS = {
    "space.pooling": ([1], [True, False]),
    "space.skip": ([0], [True, False]),
    "data.image_size": ([7], [8]),
    "data.images": ([0], [1, None]),
    "data.batch_size": ([0, None], [1]),
    "data.evaluation_batch_size": ([0, None], [1]),
    "data.num_workers": ([-1, None], [0]),
    "data.min_crop_area": ([0, 1.1], [0.1, 1]),
    "data.augmentation.padding": ([-1], [0]),
    "data.augmentation.cutout": ([-1], [0]),
    "data.augmentation.flip": ([1], [True, False]),
    "derivation.edges": (["all"], [None, "top2", "all14"]),
    "derivation.keep_none": ([1], [True, False]),
    "data.train": ([0, 1.1], [0.1, 0.5]),
    "data.valid": ([-0.1, 0.9], [0, 0.1]),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name):
    *outer, last = name.split(".")
    preset = place = load_preset("paper", "cifar10", "dcp-nas").to_dict()
    for key in outer:
        place = place[key]
    refused, allowed = BOUNDS[name]
    for value in allowed:
        place[last] = value
        check_preset(preset)
    for value in refused:
        place[last] = value
        with pytest.raises(InputError, match=name):
            check_preset(preset)


@pytest.mark.parametrize("section", ["data", "space", "schedule", "derivation", "options", "data.augmentation"])
def test_a_section_is_not_a_value(search_job, section):
    job = replace(search_job(), cfg_options={section: 5})
    with pytest.raises(InputError, match=f"{section} 5: expected settings by name"):
        check(job)


@pytest.mark.parametrize("method", ["cp-nas", "bnas", "abanditnas"])
def test_a_number_of_epochs_is_refused_where_the_method_has_its_own(search_job, method):
    job = search_job(method, options=WHOLE if method == "bnas" else {})
    check(job)
    with pytest.raises(InputError, match=f"schedule.epochs: {method} takes as many epochs as"):
        check(replace(job, cfg_options={**job.cfg_options, "schedule.epochs": 3}))


def test_bnas_without_pc_darts_needs_no_validation_images(search_job):
    check(search_job("bnas", options={"V": 0, **WHOLE}, cfg_options={"data.valid": 0.0}))


def test_a_file_is_no_work_folder(search_job, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is not a folder"):
        check(search_job(work_dir=tmp_path / "file"))
