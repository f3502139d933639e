"""Records of version 1 are read as they were written, and newer ones than ours are refused."""

import json
from pathlib import Path

import pytest

from onebit.commons.errors import InputError
from onebit.leaderboards.recording.migration import _STEPS, SCHEMA_VERSION
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.run_file import digest, read_content

#: As they were written; no board has them any more.
VERSION_1 = sorted(Path(__file__).with_name("version_1").rglob("*.json"))


def test_there_are_records_of_version_1():
    assert len(VERSION_1) == 4


@pytest.mark.parametrize("path", VERSION_1, ids=lambda p: p.stem)
def test_a_record_of_version_1_is_migrated_and_loses_nothing(path, tmp_path):
    before = json.loads(path.read_text())
    record = Record.load(path)
    assert record.schema_version == SCHEMA_VERSION
    assert (record.origin, record.predictions, record.cell) == ("trained", None, None)
    assert record.checkpoint_hash == "file"
    after = record.model_dump(mode="json")
    assert {k: v for k, v in after.items() if k in before} == {k: v for k, v in before.items() if k != "digest"} | {
        "schema_version": SCHEMA_VERSION
    }
    assert Record.load(record.save(tmp_path)) == record


@pytest.mark.parametrize("path", VERSION_1, ids=lambda p: p.stem)
def test_the_digest_of_a_record_of_version_1_stays_verifiable(path, tmp_path):
    assert read_content(path)["schema_version"] == 1
    changed = tmp_path / path.parent.name / path.name
    changed.parent.mkdir()
    changed.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(InputError, match="digest differs"):
        Record.load(changed)


def with_version(tmp_path, version) -> Path:
    content = json.loads(VERSION_1[0].read_text()) | {"schema_version": version}
    del content["digest"]
    path = tmp_path / VERSION_1[0].parent.name / VERSION_1[0].name
    path.parent.mkdir()
    path.write_text(json.dumps(content | {"digest": digest(content)}))
    return path


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (SCHEMA_VERSION + 1, f"newer than the versions 1 to {SCHEMA_VERSION}"),
        (99, "update it"),
        (0, "start at 1"),
        (-1, "start at 1"),
        ("1", "whole number"),
        (True, "whole number"),
        (1.0, "whole number"),
        (None, "whole number"),
    ],
)
def test_other_versions_are_refused_in_one_line(tmp_path, version, message):
    with pytest.raises(InputError, match=message) as refused:
        Record.load(with_version(tmp_path, version))
    assert "\n" not in str(refused.value)


def test_there_is_a_step_from_every_earlier_version():
    assert sorted(_STEPS) == list(range(1, SCHEMA_VERSION))


@pytest.mark.parametrize("version", _STEPS)
def test_a_record_must_not_pose_as_one_of_an_earlier_version(tmp_path, version):
    """Its new fields would be overwritten by those of the migration."""
    path = Record.load(VERSION_1[0]).save(tmp_path)
    content = json.loads(path.read_text()) | {"schema_version": version}
    del content["digest"]
    path.write_text(json.dumps(content | {"digest": digest(content)}))
    with pytest.raises(InputError, match=f"version {version} has no"):
        Record.load(path)
