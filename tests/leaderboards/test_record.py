"""A record that was changed, or lies where it does not belong, is refused."""

import hashlib
import json

import pytest

from onebit.backbones.cells import load_cell
from onebit.commons.errors import InputError
from onebit.leaderboards.recording.record import Record, options_tag, row_name
from onebit.leaderboards.recording.run_file import digest
from onebit.leaderboards.running.sweep import bench


@pytest.fixture
def path(sweep):
    list(bench(sweep))
    return sweep.record_path("resnet18_w8", 0)


def test_round_trip(path, tmp_path):
    record = Record.load(path)
    copy = record.save(tmp_path / "copy")
    assert copy.read_bytes() == path.read_bytes()
    assert Record.load(copy) == record


def test_every_field_is_covered_by_the_digest(path):
    content = json.loads(path.read_text())
    for key in content:
        changed = {**content, key: "tampered"}
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError):
            Record.load(path)


def rewrite(path, **changes):
    content = json.loads(path.read_text()) | changes
    del content["digest"]
    content["digest"] = digest(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(schema_version=99), "schema_version"),
        (dict(backbone="../../etc/passwd"), "backbone"),
        (dict(board=".."), "board"),
        (dict(metrics={}), "main metric"),
        (dict(status="failed"), "reason"),
        (dict(surprise=1), "surprise"),
        (dict(seed=7), "belongs at"),
        (dict(checkpoint_sha256="00"), "checkpoint_sha256"),
        (dict(seed=-1), "seed: .* greater than or equal"),
        (dict(seed=2**32), "seed: .* less than"),
        (dict(epochs=-1), "epochs"),
        (dict(wall_seconds=-0.5), "wall_seconds"),
        (dict(weight_bits=0), "weight_bits"),
        (dict(activation_bits=0), "activation_bits"),
        (dict(weight_bits=None), "needs its bits"),
        (dict(activation_bits=None), "needs its bits"),
        (dict(error="none"), "no `error`"),
        (dict(origin="imported-predictions", predictions=None), "needs `predictions`"),
        (dict(dataset="d" * 49), "at most 48"),
        (dict(backbone="b" * 97), "at most 96"),
        (dict(cost={"strict": {"bops": -1}}), "bops"),
        (dict(cost={"strict": {"bops": 2e24}}), "bops"),
        (dict(cost={"strict": {"input_shape": [0, 8]}}), "input_shape"),
        (dict(cost={"strict": {"input_shape": [2**20 + 1, 8]}}), "input_shape"),
        (dict(cost={"strict": {"proposals": 0}}), "proposals"),
        (dict(details={"log": "../log"}), "log must be"),
        (dict(details={"checkpoint": 3}), "checkpoint must be"),
        (dict(details={"num_classes": 2.0}), "whole number"),
        (dict(details={"search": {"method": "darts"}}), "details"),
    ],
)
def test_a_well_digested_but_wrong_record_is_refused(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(InputError, match=message):
        Record.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        dict(seed=0, epochs=0, wall_seconds=0.0, weight_bits=1, activation_bits=1),
        dict(seed=2**32 - 1, dataset="d" * 48, backbone="b" * 96, code={}),
        dict(cost={"strict": {"bops": 0, "flops": 1e24, "input_shape": [1, 2**20], "proposals": 1}}),
        dict(details={"num_classes": 2, "log": "-", "checkpoint": "epoch_1.pth"}),
        dict(origin="imported-checkpoint", weight_bits=None, activation_bits=None),
        dict(status="failed", error="ValueError", metrics={}),
    ],
)
def test_what_is_just_allowed(path, changes):
    content = json.loads(path.read_text()) | changes
    del content["digest"]
    record = Record.parse(content)
    assert all(getattr(record, name) == value for name, value in changes.items() if name != "code")


@pytest.mark.parametrize(
    ("provenance", "wrong"),
    [
        ({"method": "x", "gpu_days": 1.5}, ""),
        ({}, ""),
        ({"method": 3}, "method is 3"),
        ({"gpu_days": "1"}, "gpu_days is"),
    ],
)
def test_a_searched_cell_says_who_found_it(path, provenance, wrong):
    genotype = {**load_cell("dcp_nas_imagenet").to_dict(), "provenance": provenance}
    search = dict(method="dcp-nas", preset="mini", options={}, cfg_options={}, seed=0, genotype=genotype)
    content = {**json.loads(path.read_text()), "details": {"search": search}}
    del content["digest"]
    if wrong:
        with pytest.raises(ValueError, match=wrong):
            Record.parse(content)
    else:
        assert Record.parse(content).details["search"] == search


def test_a_row_is_named_after_what_makes_it():
    tag = "opt" + hashlib.sha256(b'{"a": 1, "b": 2}').hexdigest()[:8]
    assert options_tag({}) == ""
    assert options_tag({"b": 2, "a": 1}) == tag
    assert row_name("d", "../my cell.json", "r", tag, 3) == f"d--.._my_cell.json--r--{tag}--seed3"
    assert row_name("d", "b", "r", "", 0) == "d--b--r--seed0"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"digest": 1}'])
def test_what_is_no_record_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(InputError, match=r"record"):
        Record.load(path)


def test_metrics_are_finite(path):
    record = Record.load(path)
    with pytest.raises(ValueError, match=r"metrics\.top1"):
        Record(**{**record.model_dump(), "metrics": {"top1": float("nan")}})


@pytest.mark.parametrize("moment", ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00", "2026-01-31T12:00:00+01:00", "now"])
def test_moments_are_in_utc_as_every_python_reads_them(path, moment):
    record = Record.load(path)
    assert Record(**{**record.model_dump(), "created": "2026-01-31T12:00:00+00:00"})
    with pytest.raises(ValueError, match="created"):
        Record(**{**record.model_dump(), "created": moment})


def test_full_precision_survives(path, tmp_path):
    record = Record.load(path)
    exact = record.model_copy(update={"metrics": {"top1": 1 / 3, "top5": 0.1 + 0.2}})
    assert Record.load(exact.save(tmp_path)).metrics == {"top1": 1 / 3, "top5": 0.1 + 0.2}


def test_load_all_filters_by_dataset(sweep, path):
    assert len(list(Record.load_all(sweep.records, "cifar10"))) == 4
    assert list(Record.load_all(sweep.records, "cifar10", "cifar10-jpeg")) == []
