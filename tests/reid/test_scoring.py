"""Saved features are scored again without the network, and only where they belong."""

import dataclasses
import shutil
from dataclasses import replace

import numpy as np
import pytest

from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.reid import runner
from onebit.reid.evaluation import PROTOCOLS
from onebit.reid.evaluation.options import Evaluation
from onebit.reid.features import Features, load, save
from onebit.reid.recipe import build_config

OPTIONS = {"epochs": 1, "height": 64, "width": 32, "data.batch_size_train": 16, "score_untrained": False}


@pytest.fixture(scope="module")
def row(market, tmp_path_factory):
    """A trained row of mini-market1501 and its job."""
    work = tmp_path_factory.mktemp("work")
    job = Job("mini-market1501", "resnet18_w8", "mini", 0, market, work, cfg_options=OPTIONS)
    return runner.train(job), job


def again(row, tmp_path, **changes):
    """A job that scores the row's features, on an empty data root unless told otherwise."""
    _, job = row
    return replace(job, work_dir=tmp_path, **{"cfg_options": {}, **changes})


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(runner, "build_model", lambda *_: pytest.fail("built a network"))
    monkeypatch.setattr(runner.ReIDModel, "forward", lambda *_: pytest.fail("ran a network"))


@pytest.mark.usefixtures("no_network")
def test_the_same_outcome_without_the_network(row, tmp_path):
    trained, job = row
    assert trained.predictions == job.work_dir / "epoch_1.mini-market1501.safetensors"
    scored = runner.score_predictions(trained.predictions, again(row, tmp_path))
    assert scored.details.pop("checked_against_dataset") is True
    assert dataclasses.asdict(scored) == dataclasses.asdict(trained)


@pytest.mark.usefixtures("no_network")
def test_without_the_dataset(row, tmp_path):
    trained, _ = row
    scored = runner.score_predictions(
        trained.predictions, again(row, tmp_path, data_root=tmp_path, dataset="", backbone="")
    )
    assert scored.details["checked_against_dataset"] is False
    assert scored.metrics == trained.metrics


@pytest.mark.usefixtures("no_network")
def test_other_options_of_evaluation(row, tmp_path):
    trained, _ = row
    plain = ["mAP", "rank1", "rank5", "rank10", "mINP"]
    options = {"evaluation.rerank": True, "evaluation.k1": 10}
    scored = runner.score_predictions(trained.predictions, again(row, tmp_path, cfg_options=options))
    assert list(scored.metrics) == plain + [f"{name}_reranked" for name in plain]
    assert {name: scored.metrics[name] for name in plain} == trained.metrics
    assert scored.metrics["mAP_reranked"] != scored.metrics["mAP"]
    assert "k-reciprocal re-ranking, k1=10, k2=6, lambda=0.3" in scored.protocol
    assert "re-ranking" not in trained.protocol
    assert "rerank=True" in scored.config
    euclidean = runner.score_predictions(
        trained.predictions, again(row, tmp_path, cfg_options={"evaluation.distance": "euclidean"})
    )
    assert euclidean.metrics != trained.metrics
    assert ("cosine" in trained.protocol, "euclidean" in euclidean.protocol) == (True, True)
    classic = runner.score_predictions(
        trained.predictions, again(row, tmp_path, cfg_options={"evaluation.protocol": "cuhk03-classic"})
    )
    assert classic.metrics["rank1"] != trained.metrics["rank1"]
    assert PROTOCOLS["cuhk03-classic"].text in classic.protocol


def test_rescoring_equals_scoring_with_the_network(row, tmp_path):
    trained, _ = row
    options = {"evaluation.rerank": True, "evaluation.distance": "euclidean"}
    job = again(row, tmp_path, cfg_options=options)
    tested = runner.test(trained.checkpoint, job)
    scored = runner.score_predictions(trained.predictions, job)
    assert tested.metrics == scored.metrics
    assert (tested.protocol, tested.config) == (scored.protocol, scored.config)


def changed(row, tmp_path, group, **changes):
    """The row's file with other contents, as if another run had written it."""
    groups, facts = load(row[0].predictions)
    images = Features(**{**vars(groups[group]), **changes})
    return save(tmp_path / "changed.safetensors", {**groups, group: images}, facts)


@pytest.mark.parametrize("group", ["query", "gallery"])
@pytest.mark.parametrize("field", ["pids", "cameras", "names"])
def test_images_that_are_not_the_datasets(row, tmp_path, group, field):
    values = getattr(load(row[0].predictions)[0][group], field)
    if field == "names":
        values = (*values[:5], "another.jpg", *values[6:])
    else:
        values = values.copy()
        values[5] += 1
    path = changed(row, tmp_path, group, **{field: values})
    with pytest.raises(InputError, match=r"changed\.safetensors is not of this dataset: it has"):
        runner.score_predictions(path, again(row, tmp_path))
    elsewhere = again(row, tmp_path, data_root=tmp_path)
    assert runner.score_predictions(path, elsewhere).metrics  # nothing there to compare with


def test_a_part_of_the_images(row, tmp_path):
    query = load(row[0].predictions)[0]["query"]
    half = {key: value[: len(query) // 2] for key, value in vars(query).items()}
    path = changed(row, tmp_path, "query", **half)
    with pytest.raises(InputError, match=r"images where the dataset has"):
        runner.score_predictions(path, again(row, tmp_path))


def test_a_damaged_file(row, tmp_path):
    content = bytearray(row[0].predictions.read_bytes())
    content[-100] ^= 1
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged\.safetensors was changed after it was written"):
        runner.score_predictions(path, again(row, tmp_path))


def test_features_without_identities(row, tmp_path):
    path = save(tmp_path / "f.safetensors", dict(images=Features(np.zeros((1, 2), np.float32), ("a",))), {})
    with pytest.raises(InputError, match="queries and gallery with identities and cameras, found images"):
        runner.score_predictions(path, again(row, tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(dataset="mini-cuhk03"), "has features of dataset mini-market1501, not of mini-cuhk03"),
        (dict(backbone="resnet18"), "has features of backbone resnet18_w8, not of resnet18"),
        (dict(cfg_options={"height": 32}), "height would need the network"),
        (dict(cfg_options={"evaluation.rank": 3}), "no option 'evaluation.rank'"),
        (dict(cfg_options={"evaluation.distance": "far"}), "distance 'far': expected one of euclidean, cosine"),
    ],
)
def test_a_job_that_does_not_fit(row, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        runner.score_predictions(row[0].predictions, again(row, tmp_path, **changes))


def test_an_incomplete_dataset(row, tmp_path, market):
    shutil.copytree(market, tmp_path / "data")
    shutil.rmtree(next((tmp_path / "data").rglob("bounding_box_test")))
    with pytest.raises(InputError, match=r"incomplete: expected .*bounding_box_test"):
        runner.score_predictions(row[0].predictions, again(row, tmp_path, data_root=tmp_path / "data"))


def config(dataset="market1501", **options):
    job = Job(dataset, "resnet18", "paper", 0, "data", "work", cfg_options=options)
    return build_config(job)


@pytest.mark.parametrize(
    ("dataset", "protocol"), [("market1501", "market"), ("mini-dukemtmcreid", "market"), ("cuhk03", "cuhk03-new")]
)
def test_the_protocol_is_the_datasets(dataset, protocol):
    assert Evaluation.of(config(dataset)).protocol == protocol
    classic = {"data.cuhk03_classic_split": True}
    of_split = "cuhk03-classic" if dataset == "cuhk03" else protocol
    assert Evaluation.of(config(dataset, **classic)).protocol == of_split
    named = {"evaluation.protocol": "cuhk03-classic"}
    assert Evaluation.of(config(dataset, **named)).protocol == "cuhk03-classic"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluation.protocol": "new"}, "protocol 'new': expected one of auto, market"),
        ({"evaluation.rerank": 1}, "evaluation.rerank 1: expected True or False"),
        ({"evaluation.k1": 0}, "k1 0: expected a whole number from 1 up"),
        ({"evaluation.lambda_value": 2}, "lambda_value 2: expected a number from 0 to 1"),
    ],
)
def test_bad_options_are_found_before_the_work(options, message):
    with pytest.raises(InputError, match=message):
        config(**options)
