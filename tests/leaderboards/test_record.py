"""A record that was changed, or lies where it does not belong, is refused."""

import json

import pytest

from onebit.commons.errors import InputError
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.run_file import digest
from onebit.leaderboards.running.bench import bench


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
    ],
)
def test_a_well_digested_but_wrong_record_is_refused(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(InputError, match=message):
        Record.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"digest": 1}'])
def test_what_is_no_record_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(InputError, match=r"record"):
        Record.load(path)


def test_metrics_are_finite(path):
    record = Record.load(path)
    with pytest.raises(ValueError, match=r"metrics\.top1"):
        Record(**{**record.model_dump(), "metrics": {"top1": float("nan")}})


def test_full_precision_survives(path, tmp_path):
    record = Record.load(path)
    exact = record.model_copy(update={"metrics": {"top1": 1 / 3, "top5": 0.1 + 0.2}})
    assert Record.load(exact.save(tmp_path)).metrics == {"top1": 1 / 3, "top5": 0.1 + 0.2}


def test_load_all_filters_by_dataset(sweep, path):
    assert len(list(Record.load_all(sweep.records, "cifar10"))) == 4
    assert list(Record.load_all(sweep.records, "cifar10", "cifar10-jpeg")) == []
