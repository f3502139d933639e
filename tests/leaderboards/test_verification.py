"""Tampering is found: by the digest, by hashes, by what names mean, or by scoring again."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from onebit import backbones
from onebit.commons.errors import InputError
from onebit.leaderboards import cli
from onebit.leaderboards.recording import verification
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.run_file import digest
from onebit.leaderboards.recording.verification import (
    canonical,
    data_problems,
    form_problems,
    kept_files,
    missing_files,
    problems,
    rescore,
    retrain,
)
from onebit.leaderboards.running.sweep import bench
from onebit.leaderboards.showing.tables import get_table
from tests.leaderboards.conftest import StubRunner


@pytest.fixture
def path(sweep, stub_runner):
    list(bench(sweep))
    return sweep.record_path("resnet18_w8_reactnet", 1)


@pytest.fixture
def verify(sweep):
    """What `onebit verify --rescore` finds of a record's file."""

    def found(path) -> list[str]:
        try:
            record = Record.load(path)
            found = form_problems(path) + problems(record, sweep.work_root)
            found += data_problems(record, sweep.data_root)
            return found + rescore(record, sweep.work_root, sweep.data_root)[0]
        except InputError as error:
            return [str(error)]

    return found


def forge(path, **changes) -> None:
    """Change fields (dotted names reach into them) and make the digest fit again."""
    content = json.loads(path.read_text())
    del content["digest"]
    for name, value in changes.items():
        *outer, last = name.split(".")
        place = content
        for key in outer:
            place = place[key]
        place[last] = value
    path.write_bytes(canonical({**content, "digest": digest(content)}))


def test_an_untouched_row_is_sound_and_says_what_it_gives(sweep, path, verify):
    assert verify(path) == []
    record = Record.load(path)
    wrong, done = rescore(record, sweep.work_root, sweep.data_root)
    assert wrong == []
    assert done == [
        "checkpoint: top1 0.5100, top5 0.9000 (tolerance 0.002)",
        "predictions: top1 0.5100, top5 0.9000 (tolerance 1e-09)",
    ]


#: A forged value of every field, with a digest that fits, and what gives it away.
FORGED = {
    "schema_version": (1, "version 1 has no"),
    "status": ("failed", "needs its reason"),
    "error": ("x", "finished row has no"),
    "origin": ("elsewhere", "origin"),
    "board": ("imagenet", "belongs at"),
    "dataset": ("cifar10-jpeg", "belongs at"),
    "data_checksum": ("content:" + "0" * 64, "data_checksum is"),
    "split": ("test -> test", "split is"),
    "protocol": ("ten views", "protocol is"),
    "backbone": ("resnet18_w8", "belongs at"),
    "binarizer": ("xnor", "binarizer is"),
    "cell": ("mine", "cell"),
    "genotype_hash": ("0" * 64, "genotype_hash is"),
    "weight_bits": (32, "weight_bits is"),
    "activation_bits": (2, "activation_bits is"),
    "recipe": ("paper", "belongs at"),
    "cfg_options": ({"a": 1}, "belongs at"),
    "config_sha256": ("0" * 64, "config_sha256 is"),
    "seed": (0, "belongs at"),
    "epochs": (600, "epochs is"),
    "main_metric": ("top5", "main_metric is"),
    "metrics": ({"top1": 0.93, "top5": 0.99}, "top1 is 0.93 in the record"),
    "metrics.top5": (0.9000001, "top5 is 0.9000001 in the record"),
    "cost": ({"strict": {}}, "cost is"),
    "cost.strict": ({"memory_bits": "lol"}, "cost.strict.memory_bits"),
    "cost.strict.memory_bits": (-1, "greater than or equal to 0"),
    "metrics.top1": (9.9, "metrics.top1"),
    "created": ("not a date", "created"),
    "checkpoint_sha256": ("0" * 64, "not the checkpoint that was scored"),
    "checkpoint_hash": ("file", "not the checkpoint that was scored"),
    "predictions.sha256": ("0" * 64, "not the predictions that were scored"),
    "predictions.file": ("epoch_1.pth", "not the predictions that were scored"),
    "details.checkpoint": ("predictions.json", "not the checkpoint that was scored"),
    "details.num_classes": (100, "details.num_classes is"),
}
#: What nothing but trust in the writer vouches for; docs/records.md says so.
CLAIMS = {
    "untrained": {"top1": 0.0, "top5": 0.0},
    "code": {"commit": "0" * 40, "dirty": False},
    "environment": {"versions": {}, "device": "abacus", "threads": 1, "operators": {}},
    "wall_seconds": 0.1,
    "created": "1999-01-01T00:00:00+00:00",
    "details.loss_curve": [0.0],
}


def test_every_field_is_forged_here():
    fields = {name.split(".")[0] for name in (*FORGED, *CLAIMS)}
    assert fields == set(Record.model_fields)


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_field_is_found_although_the_digest_fits(path, verify, name):
    value, sign = FORGED[name]
    forge(path, **{name: value})
    found = verify(path)
    assert any(sign in f for f in found), found


@pytest.mark.parametrize("name", CLAIMS)
def test_a_forged_claim_is_found_only_without_the_digest(path, verify, name):
    content = json.loads(path.read_text())
    forge(path, **{name: CLAIMS[name]})
    assert verify(path) == []
    path.write_bytes(canonical({**json.loads(path.read_text()), "digest": content["digest"]}))
    assert any("digest differs" in f for f in verify(path))


def refused(path) -> bool:
    try:
        Record.load(path)
    except InputError:
        return True
    return False


def test_any_byte_of_a_record_is_covered(path):
    whole = path.read_bytes()
    for i, byte in enumerate(whole):
        path.write_bytes(whole[:i] + bytes([byte ^ 1]) + whole[i + 1 :])
        assert refused(path) or form_problems(path), i
    for changed in (whole + b"\n", whole.replace(b"\n", b"\r\n"), whole.replace(b'"seed"', b'"seed": 9, "seed"')):
        path.write_bytes(changed)
        Record.load(path)  # the same values
        assert form_problems(path)


def test_a_checkpoint_is_known_by_its_weights(sweep, path):
    """Two runs that give the same weights write other times beside them."""
    kept, record = sweep.work_root / path.stem / "epoch_1.pth", Record.load(path)
    assert record.checkpoint_hash == "weights"
    content = torch.load(kept, weights_only=True)
    torch.save({**content, "seconds": 1.5}, kept)
    assert problems(record, sweep.work_root) == []
    (name,) = content["state_dict"]
    for other in ({name: torch.tensor(2)}, {"other": content["state_dict"][name]}, {}):
        torch.save({**content, "state_dict": other}, kept)
        (found,) = problems(record, sweep.work_root)
        assert "SHA-256 differs" in found
    kept.write_bytes(b"noise")
    (found,) = problems(record, sweep.work_root)
    assert "SHA-256 differs" in found


def test_any_byte_of_predictions_is_covered(sweep, path):
    kept = sweep.work_root / path.stem / "predictions.json"
    whole, record = kept.read_bytes(), Record.load(path)
    for i, byte in enumerate(whole):
        kept.write_bytes(whole[:i] + bytes([byte ^ 1]) + whole[i + 1 :])
        (found,) = problems(record, sweep.work_root)
        assert "SHA-256 differs" in found
    for changed in (whole[:-1], whole + b"\0", b""):
        kept.write_bytes(changed)
        assert problems(record, sweep.work_root)


def test_a_checkpoint_that_gives_other_metrics_is_found(sweep, path, verify, stub_runner):
    """Even where the forger made all hashes fit."""
    stub_runner.test = lambda checkpoint, job: StubRunner.test(stub_runner, checkpoint.with_name("other"), job)
    torch.save({"state_dict": {"x": torch.tensor(3)}}, sweep.work_root / path.stem / "other")
    assert any("checkpoint: top1 is 0.51 in the record and 0.53 now" in f for f in verify(path))


def test_the_tolerance_is_the_users(sweep, path):
    forge(path, **{"metrics.top1": 0.52})
    record = Record.load(path)
    for tolerance, count in ((0.009, 2), (0.011, 0)):
        wrong, _ = rescore(record, sweep.work_root, sweep.data_root, tolerance)
        assert len([w for w in wrong if "top1" in w]) == count


@pytest.mark.parametrize("name", ["metrics.top1", "untrained.top1"])
def test_the_tolerance_of_a_second_training_is_the_users(sweep, path, name):
    said = Record.load(path).model_dump()
    forge(path, **{name: said[name.split(".")[0]]["top1"] + 0.01})
    for tolerance, count in ((0.009, 1), (0.011, 0), (None, 1)):
        wrong, done = retrain(Record.load(path), sweep.data_root, tolerance)
        assert (len(wrong), len(done)) == (count, 1 - count)


def test_a_failed_row_needs_no_metrics_and_a_finished_one_all_of_them(sweep, path):
    record = Record.load(path)
    failed = record.model_copy(update=dict(status="failed", error="ValueError", metrics={}))
    assert problems(failed, sweep.work_root) == []
    (missing,) = problems(record.model_copy(update=dict(metrics={"top1": 0.5})), sweep.work_root)
    assert missing == "metrics of board cifar10 are missing: top5"
    assert problems(record.model_copy(update=dict(board="nowhere")), sweep.work_root) == ["there is no board nowhere"]


def test_files_that_are_not_there_are_named(sweep, path, tmp_path):
    record = Record.load(path)
    assert missing_files(record, sweep.work_root) == []
    assert missing_files(record, tmp_path) == ["checkpoint", "predictions"]
    without = record.model_copy(update=dict(details={}, predictions=None))
    assert missing_files(without, sweep.work_root) == ["checkpoint"]
    imported = without.model_copy(update=dict(origin="imported-predictions"))
    assert missing_files(imported, sweep.work_root) == ["predictions"]


def test_nothing_to_score_is_a_problem_when_it_was_asked_for(sweep, path, tmp_path):
    wrong, done = rescore(Record.load(path), tmp_path / "elsewhere", sweep.data_root)
    assert "cannot be scored again" in wrong[0]
    assert done == []


def test_a_link_out_of_the_work_folder_is_refused(sweep, path, tmp_path):
    kept = sweep.work_root / path.stem / "predictions.json"
    secret = tmp_path / "secret"
    kept.rename(secret)
    kept.symlink_to(secret)
    with pytest.raises(InputError, match="leads out of its folder"):
        kept_files(Record.load(path), sweep.work_root)


def run(capsys, sweep, *arguments):
    common = ["--records", sweep.records, "--work-dir", sweep.work_root, "--data", sweep.data_root]
    code = cli.main([str(a) for a in ("verify", *arguments, *common)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_scores_again(capsys, sweep, path):
    code, out, _ = run(capsys, sweep, "--rescore")
    assert code == 0
    assert out.count("predictions: top1") == out.count("checkpoint: top1") == 4
    forge(path, **{"metrics.top1": 0.95})
    assert run(capsys, sweep)[0] == 0, "a digest proves nothing against its owner"
    code, out, _ = run(capsys, sweep, "--rescore")
    assert code == 1
    assert "predictions: top1 is 0.95 in the record and 0.51 now" in out
    assert "3 of 4 records" in out


def test_the_command_looks_at_the_data(capsys, sweep, path):
    assert run(capsys, sweep, "--full")[0] == 0
    next(p for p in sweep.data_root.rglob("*") if p.is_file()).write_bytes(b"y")
    code, out, _ = run(capsys, sweep)
    assert code == 1
    assert out.count("data_checksum is content:") == 4


def test_the_command_reads_every_byte_again_when_asked(capsys, sweep, path):
    """Content that changed behind size and time is found by --full alone."""
    files = [p for p in sweep.data_root.rglob("*") if p.is_file()]
    for file in files:
        os.utime(file, (1e9, 1e9))  # those that changed just now are not remembered
    run(capsys, sweep)  # the checksum of the file is known from now on
    file.write_bytes(bytes(255 - b for b in file.read_bytes()))
    os.utime(file, (1e9, 1e9))
    assert "data_checksum is content:" not in run(capsys, sweep)[1]
    code, out, _ = run(capsys, sweep, "--full")
    assert code == 1
    assert out.count("data_checksum is content:") == 4


def test_the_command_looks_at_the_tables(capsys, sweep, path):
    names = ",".join(sweep.backbones)
    bench_all = ["bench", "mini-cifar10", "--backbones", names, "--seeds", "0,1"]
    where = ["--out", sweep.out, "--work-dir", sweep.work_root, "--data", sweep.data_root]
    assert cli.main([str(a) for a in bench_all + where]) == 0
    capsys.readouterr()
    code, out, _ = run(capsys, sweep)
    assert (code, "1 of 1 tables" in out) == (0, True)
    table = sweep.out / "tables" / "mini-cifar10.csv"
    table.write_text(table.read_text().replace("0.9", "0.8", 1))
    code, out, _ = run(capsys, sweep)
    assert code == 1
    assert "does not follow from the records" in out
    code, out, _ = run(capsys, sweep, table)
    assert (code, "0 of 1 tables" in out) == (1, True)


def test_bad_tolerances_are_refused(capsys, sweep, path):
    with pytest.raises(SystemExit, match="2"):
        run(capsys, sweep, "--tolerance", "2")


def test_options_that_name_a_file_are_left_to_the_checkpoint(sweep, stub_runner, tmp_path):
    """The record has the file's name and hash; a runner would look for a file of that name."""
    (tmp_path / "start.pth").write_bytes(b"w")
    options = {"init_from": str(tmp_path / "start.pth"), "train_cfg.max_epochs": 2}
    changed = dataclasses.replace(sweep, cfg_options=options, seeds=(0,))
    (record, _), *_ = bench(changed)
    asked = []
    for name in ("test", "score_predictions"):
        original = getattr(stub_runner, name)
        setattr(stub_runner, name, lambda p, job, f=original: asked.append(dict(job.recorded)) or f(p, job))
    rescore(record, sweep.work_root, sweep.data_root)
    assert asked == [{"train_cfg.max_epochs": 2}] * 2


def test_options_that_change_the_network_change_what_it_must_be(sweep, stub_runner):
    """A record speaks for the network that was built, and is held to that."""
    options = {"model.backbone.cell": "darts_v2", "model.backbone.binarizer": "xnor"}
    changed = dataclasses.replace(sweep, backbones=["dcp_nas_c4_l3"], seeds=[0], cfg_options=options)
    built = backbones.describe("dcp_nas_c4_l3", cell="darts_v2", binarizer="xnor")
    stub_runner.network = built
    ((record, _),) = bench(changed)
    assert (record.cell, record.binarizer) == ("darts_v2", "xnor")
    assert record.genotype_hash == backbones.cells.load_cell("darts_v2").hash
    assert "network" not in record.details
    assert problems(record, changed.work_root) == []

    path = changed.record_path("dcp_nas_c4_l3", 0)
    forge(path, cell="dcp_nas_imagenet")
    assert "cell is 'dcp_nas_imagenet'" in " ".join(problems(Record.load(path), changed.work_root))


@pytest.mark.parametrize("options", [{"model.backbone.legs": 4}, {"model": 4}, {"model.backbone": 4}])
def test_options_that_no_network_takes(sweep, path, options):
    content = Record.load(path).model_copy(update=dict(cfg_options=options))
    (problem,) = problems(content, sweep.work_root)
    assert "takes no options" in problem


@pytest.mark.parametrize("name", ["search", "latency", "ablation-binarization"])
def test_tables_of_runs_and_ablations_are_checked_too(tmp_path, name):
    records = Path(cli.__file__).parent / "records"
    made = get_table(name)
    table = made.write(made.lines(made.load(records)), tmp_path)
    assert verification.table_problems(table, records) == []
    table.write_text(table.read_text() + "one more\n")
    (problem,) = verification.table_problems(table, records)
    assert "does not follow from the records" in problem


def test_as_much_agreement_as_is_asked_for_is_enough():
    assert not verification._disagreement(verification.AGREEMENT)
    assert "0.9899" in verification._disagreement(verification.AGREEMENT - 1e-4)[0]


def test_a_row_is_trained_and_scored_again_as_its_record_says(tmp_path):
    records = Path(__file__).resolve().parents[2] / "leaderboards" / "records" / "cifar10"
    record = Record.load(next(records.glob("*resnet18_reactnet--medium--opt*")))
    job = verification._job(record, tmp_path / "data", tmp_path / "work")
    assert (job.dataset, job.backbone, job.recipe, job.seed) == ("cifar10-jpeg", "resnet18_reactnet", "medium", 0)
    assert (job.data_root, job.work_dir) == (tmp_path / "data", tmp_path / "work")
    assert job.options == record.cfg_options == {"train_cfg.max_epochs": 12}
    imported = verification._job(record.model_copy(update={"origin": "imported"}), tmp_path, tmp_path)
    assert (imported.backbone, imported.recipe) == ("", "")
