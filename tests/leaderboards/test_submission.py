"""A complete row passes; each thing that a row can lack is found."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from onebit.commons.datasets import get_dataset
from onebit.commons.file_options import FileOptions, StatedOptions
from onebit.commons.files import sha256_file
from onebit.leaderboards import cli
from onebit.leaderboards.boards import runner
from onebit.leaderboards.recording import submission, trust
from onebit.leaderboards.recording.record import CodeVersion, KeptFile, Record
from onebit.leaderboards.recording.submission import Rules, check

COMMITTED = Path(submission.__file__).parents[1] / "records/coco/coco128--resnet18_w16_reactnet--small--seed0.json"
COMMIT = "1" * 40
RULES = Rules(development=True)


@pytest.fixture(scope="session")
def complete():
    """A row of coco128 that lacks nothing."""
    record = Record.load(COMMITTED)
    text, epochs = submission._config_of(record, FileOptions(), None)
    assert epochs == record.epochs
    return record.model_copy(
        update=dict(
            code=CodeVersion(commit=COMMIT, dirty=False),
            config_sha256=hashlib.sha256(text.encode()).hexdigest(),
            predictions=KeptFile(file="predictions.json", sha256="2" * 64),
        )
    )


@pytest.fixture
def rows(complete, tmp_path, monkeypatch):
    """Write the row with three seeds, ``changes`` made to it, as if it had been scored again; return the paths."""
    monkeypatch.setattr(submission, "code_version", lambda: CodeVersion(commit=COMMIT, dirty=False))

    def write(seeds=(0, 1, 2), rescored=True, **changes):
        changed = complete.model_copy(update=changes)
        made = [changed.model_copy(update=dict(seed=s)) for s in seeds]
        paths = [record.save(tmp_path / "records") for record in made]
        for record in made if rescored else ():
            trust.remember(record, "re-scored")
        return paths

    return write


def lacks(paths, rules=RULES):
    return check(paths, rules)[0].missing


def test_a_complete_row(rows):
    verdicts = check(rows(), RULES)
    assert [v.missing for v in verdicts] == [[], [], []]
    assert verdicts[0].notes == [
        "coco128 is development data: not comparable with published numbers",
        "trust: re-scored",
    ]


def environment(complete, **changes):
    return complete.environment.model_copy(update=changes)


CASES = {
    "failed": (dict(status="failed", error="the loss is nan"), "the row failed: the loss is nan"),
    "data": (dict(data_checksum="content:00"), "the data differ: checksum content:00"),
    "no commit": (dict(code=CodeVersion()), "code: no commit"),
    "dirty": (dict(code=CodeVersion(commit=COMMIT, dirty=True)), "with local changes"),
    "unknown state": (dict(code=CodeVersion(commit=COMMIT)), "with local changes"),
    "untrained": (dict(untrained=None), "no score of the untrained network"),
    "time": (dict(wall_seconds=0.0), "no wall time"),
    "cost": (dict(cost={}), "no cost under mmdet-legacy, strict"),
    "config": (dict(config_sha256=None), "no hash of the config"),
    "other config": (dict(config_sha256="0" * 64), "give another config here than the one that ran"),
    "epochs": (dict(epochs=3), "trained 3 of 64 epochs"),
    "options hidden": (dict(cfg_options={"image_scale": [64, 64]}), "another config"),
    "recipe": (dict(recipe="mine"), "mine is no recipe of this suite"),
    "checkpoint": (dict(checkpoint_sha256=None), "no hash of the checkpoint"),
    "predictions": (dict(predictions=None), "no hash of the kept predictions"),
    "backbone": (dict(backbone="their_net"), "no package and version it comes from is stated"),
}


@pytest.mark.parametrize(("changes", "message"), CASES.values(), ids=CASES)
def test_what_a_row_lacks(rows, changes, message):
    found = lacks(rows(**changes))
    assert any(message in text for text in found), found


def test_environment(rows, complete):
    versions = complete.environment.versions
    for key, value, message in (
        ("versions", {k: v for k, v in versions.items() if k != "mmdet"}, "no version of mmdet"),
        ("device", " ", "no device"),
        ("threads", 0, "no number of threads"),
        ("operators", {}, "NMS"),
    ):
        (text,) = lacks(rows(environment=environment(complete, **{key: value})))
        assert message in text


def test_foreign_packages(rows, complete):
    versions = complete.environment.versions
    stated = environment(complete, versions={**versions, "their-package": "1.2"})
    paths = rows(backbone="their_net", environment=stated)
    verdict = check(paths, RULES)[0]
    assert verdict.missing == []
    assert "backbone from their-package 1.2, which is not installed here" in verdict.notes
    unknown = environment(complete, versions={**versions, "their_package": "unknown"})
    (text,) = lacks(rows(backbone="their_net", environment=unknown))
    assert "the version of the backbone's package is not stated" in text


def test_seeds(rows):
    (text,) = lacks(rows(seeds=(0, 1)))
    assert text.startswith("2 of 3 seeds")
    assert not lacks(rows(seeds=(0,)), Rules(development=True, seeds=1))


def test_development_data_and_data_nobody_knows(rows, complete, monkeypatch, tmp_path):
    (text,) = lacks(rows(), Rules())
    assert "not comparable with published numbers" in text
    unknown = replace(get_dataset("coco128"), known_checksum=None)
    monkeypatch.setattr(submission, "get_dataset", lambda name: unknown)
    (text,) = lacks(rows())
    assert "name a folder that holds it with --data" in text
    (text,) = lacks(rows(), Rules(development=True, data_root=tmp_path))  # it is not there
    assert "--data" in text


def test_mini_data_are_drawn_to_compare(rows):
    found = lacks(rows(dataset="mini-coco"))
    assert any("the data differ" in text for text in found)


def test_kept_files(rows, complete, tmp_path):
    folder = tmp_path / "work" / "coco128--resnet18_w16_reactnet--small--seed0"
    folder.mkdir(parents=True)
    checkpoint = folder / complete.details["checkpoint"]
    checkpoint.write_bytes(b"weights")
    (folder / "predictions.json").write_bytes(b"[]")
    kept = KeptFile(file="predictions.json", sha256=sha256_file(folder / "predictions.json"))
    paths = rows(checkpoint_sha256=sha256_file(checkpoint), predictions=kept)
    rules = Rules(development=True, files=tmp_path / "work")
    assert lacks(paths, rules) == []
    checkpoint.write_bytes(b"others")
    (folder / "predictions.json").unlink()
    first, second = lacks(paths, rules)
    assert "is another file" in first
    assert second.startswith("predictions: expected")


def test_a_row_is_scored_again_where_files_and_data_are_here(rows, monkeypatch, tmp_path):
    paths = rows(rescored=False, wall_seconds=12.5)
    (text,) = lacks(paths)
    assert text == "trust: re-scored is asked for, consistent is reached; name --files and --data to score it here"
    rules = Rules(development=True, files=tmp_path / "work", data_root=tmp_path)
    monkeypatch.setattr(submission, "_check_files", lambda *arguments: None)
    monkeypatch.setattr(submission, "rescore", lambda record, files, data: (["AP is 1 in the record and 0 now"], []))
    assert lacks(paths, rules) == [
        "AP is 1 in the record and 0 now",
        "trust: re-scored is asked for, consistent is reached",
    ]

    def rescore(record, files, data):
        trust.remember(record, "re-scored")
        return [], []

    monkeypatch.setattr(submission, "rescore", rescore)
    assert lacks(paths, rules) == []


def test_an_older_schema(tmp_path):
    found = lacks([COMMITTED])
    version = submission.read_content(COMMITTED)["schema_version"]
    assert any("schema version" in text for text in found) == (version < submission.SCHEMA_VERSION)


def test_options_are_shown(rows, complete, monkeypatch):
    options = {"train_dataloader.batch_size": 8}
    record = complete.model_copy(update=dict(cfg_options=options))
    recorded = StatedOptions(options, "").taken(runner("detection").FILE_OPTIONS)
    text, _ = submission._config_of(record, recorded, None)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    paths = rows(cfg_options=options, config_sha256=sha256)
    verdict = check(paths, RULES)[0]
    assert verdict.missing == []
    assert "recipe small with train_dataloader.batch_size=8" in verdict.notes


def test_the_command(rows, tmp_path, capsys):
    rows()
    command = ["submit-check", str(tmp_path / "records"), "--development"]
    assert cli.main(command) == 0
    assert "3 of 3 rows are complete" in capsys.readouterr().out
    assert cli.main(command[:2]) == 1
    out = capsys.readouterr().out
    assert out.count("LACKS") == 3
    assert "0 of 3 rows are complete" in out
    (broken,) = list((tmp_path / "records").rglob("*seed0.json"))
    broken.write_text("{}")
    assert cli.main(command) == 1
    assert "is not a record" in capsys.readouterr().out
    for arguments, message in (
        (["none.json"], "no such file or folder"),
        ([str(tmp_path / "records"), "--files", "nowhere"], "expected a folder"),
    ):
        assert cli.main(["submit-check", *arguments]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["submit-check", str(tmp_path / "records"), "--seeds", "0"])
    assert "--seeds: 0: expected a whole number from 1 up" in capsys.readouterr().err
