"""Whatever stands in a record, it leads nowhere but into its own folders."""

import json

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onebit.commons.errors import InputError
from onebit.leaderboards.recording.record import Record, row_name
from onebit.leaderboards.recording.run_file import digest
from onebit.leaderboards.recording.verification import kept_files
from tests.leaderboards.test_end_to_end import record

ODD = [
    "..",
    ".",
    "",
    "/",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/b",
    "a\\b",
    "..\\x",
    "a\0b",
    "a\nb",
    "~",
    "~root",
    "C:x",
    ".hidden",
    "-rf",
    "a--b",
    "a-",
    "a b",
    "é",
    "a\u202eb",
    "*",
    "$HOME",
    "x" * 300,
]
NAMES = st.one_of(
    st.sampled_from(ODD),
    st.text(max_size=20),
    st.text(alphabet="ab./-_\\~:%", max_size=12),
    st.from_regex(r"[a-z0-9][a-z0-9_.]{0,8}(-[a-z0-9_.]{1,5})?", fullmatch=True),
)
FIELDS = ("board", "dataset", "backbone", "recipe")


def forged(**changes) -> dict:
    content = {**record().model_dump(mode="json"), **changes}
    return {**content, "digest": digest(content)}


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, NAMES)), NAMES, NAMES)
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_leads_out_of_the_folder(tmp_path, names, checkpoint, predictions):
    content = record().model_dump(mode="json")
    content |= names
    content["details"] = {"checkpoint": checkpoint}
    content["predictions"] = {"file": predictions, "sha256": "0" * 64}
    try:
        made = Record.model_validate(content)
    except pydantic.ValidationError:
        return
    folder = tmp_path / "records"
    path = made.save(folder)
    assert path.resolve().parent == (folder / made.board).resolve()
    assert path.parent.parent == folder
    assert len(path.name.encode()) < 240
    assert Record.load(path) == made
    assert list(Record.load_all(folder, made.board)) == [made]
    work = tmp_path / "work"
    for kept, _ in kept_files(made, work).values():
        assert kept.parent.parent == work
        assert kept.resolve().parent.parent == work.resolve()
    path.unlink()


@pytest.mark.parametrize("name", [n for n in ODD if n not in ("-rf",)])
@pytest.mark.parametrize("field", [*FIELDS, "details", "predictions"])
def test_odd_names_are_refused_when_a_record_is_read(tmp_path, field, name):
    value = name
    if field == "details":
        value = {"checkpoint": name}
    if field == "predictions":
        value = {"file": name, "sha256": "0" * 64}
    path = tmp_path / "cifar10" / "mini-cifar10--resnet18_w16--mini--seed0.json"
    path.parent.mkdir()
    path.write_text(json.dumps(forged(**{field: value})))
    if field in ("details", "predictions") and name in ("a--b", "a-"):
        assert Record.load(path)  # two hyphens separate nothing in the name of a file
        return
    with pytest.raises(InputError) as refused:
        Record.load(path)
    assert "\n" not in str(refused.value)


@given(st.lists(NAMES, min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_a_backbone_given_as_a_path_stays_one_name(names, seed):
    """`onebit train` takes a cell file as backbone, and makes a work folder of its name."""
    assert "/" not in row_name("mini-voc", names[0], "mini", "", seed)


def test_two_rows_never_share_a_name():
    seen = {}
    for dataset in ("a", "a-b", "a.b"):
        for backbone in ("b", "b-c", "b_c"):
            for recipe in ("c", "c-d"):
                for options in ({}, {"x": 1}):
                    made = record(dataset=dataset, backbone=backbone, recipe=recipe, cfg_options=options)
                    assert seen.setdefault(made.file_name(), made.key) == made.key
    assert len(seen) == 36


TEXTS = ("split", "protocol", "binarizer", "data_checksum")


@given(st.fixed_dictionaries({field: st.text(max_size=30) for field in TEXTS}))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_the_file(tmp_path, texts):
    made = record(**texts)
    assert Record.load(made.save(tmp_path)) == made


BROKEN = [
    b"\xff\xfe",
    b'{"a": NaN}',
    b'{"digest": "x", "a": Infinity}',
    b"[" * 100_000,
    b'{"a": ' * 100_000,
    b'{"digest": 1' + b"0" * 5000 + b"}",
    b'{"schema_version": 1e400, "digest": ""}',
    b'{"digest": "\\ud800"}',
]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_hostile_json_is_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        Record.load(path)
    assert "\n" not in str(refused.value)
