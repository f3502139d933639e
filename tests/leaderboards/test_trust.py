"""Levels of trust: how each is reached, that nothing in a record raises one, and that all that shows rows says them."""

import json
import subprocess

import pytest

from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file
from onebit.leaderboards import cli
from onebit.leaderboards.recording import signatures, trust
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.trust import Trust, established
from onebit.leaderboards.running.sweep import bench
from tests.leaderboards.test_verification import forge


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONEBIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(sweep, stub_runner):
    list(bench(sweep))
    return sweep.record_path("resnet18_w8_reactnet", 1)


@pytest.fixture
def verify(capsys, sweep):
    def run(*arguments):
        common = ["--records", sweep.records, "--work-dir", sweep.work_root, "--data", sweep.data_root]
        code = cli.main([str(a) for a in ("verify", *arguments, *common)])
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def key(tmp_path, monkeypatch):
    """A maintainer's key, and a list that has it."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
    signers = tmp_path / "signers"
    public = key.with_name("key.pub").read_text()
    signers.write_text(f'ada@example.org namespaces="onebit-record" {public}')
    monkeypatch.setenv(signatures.SIGNERS_VARIABLE, str(signers))
    return key


def level(path) -> str:
    return str(established(Record.load(path)))


def test_levels_are_reached_one_after_the_other(sweep, path, verify):
    assert level(path) == "consistent"
    kept = sweep.work_root / path.stem
    kept.rename(kept.with_name("away"))
    code, out = verify(path)
    assert (code, "(consistent; no checkpoint and no predictions below" in out) == (0, True)
    kept.with_name("away").rename(kept)
    code, out = verify(path)
    assert (code, f"ok   {path}  (files match)" in out) == (0, True)
    code, out = verify(path, "--rescore")
    assert (code, f"ok   {path}  (re-scored)" in out) == (0, True)
    code, out = verify("--retrain", path.stem)
    assert (code, f"ok   {path}  (re-trained)" in out) == (0, True)
    assert "trained again: top1 0.5100, top5 0.9000 to the last digit" in out
    assert level(path) == "re-trained"
    for name, meaning in trust.LEVELS.items():
        assert f"  {name:<11}  {meaning}\n" in out
        assert "; not " in meaning


def test_predictions_written_from_the_labels_are_not_rescored(sweep, path, verify):
    """The forger has the test labels: a file of predictions, a record of 100 %, hashes and digest that fit."""
    predictions = sweep.work_root / path.stem / "predictions.json"
    predictions.write_text(json.dumps({"top1": 1.0, "top5": 1.0}))
    (sweep.work_root / path.stem / "epoch_1.pth").unlink()
    forge(path, metrics={"top1": 1.0, "top5": 1.0}, **{"predictions.sha256": sha256_file(predictions)})
    code, out = verify(path)
    assert (code, "(consistent; no checkpoint below" in out) == (0, True)
    code, out = verify(path, "--rescore")
    assert (code, "checkpoint cannot be scored again" in out) == (1, True)
    assert level(path) == "consistent"
    # Nor does it help to name no checkpoint at all.
    forge(path, checkpoint_sha256=None)
    assert verify(path, "--rescore")[0] == 1
    assert level(path) == "consistent"


def test_imported_predictions_reach_files_match(sweep, path, verify):
    forge(path, origin="imported-predictions")
    code, out = verify(path, "--rescore")
    assert (code, "(files match)" in out, "its importer's word" in out) == (0, True, True)


def test_a_checkpoint_that_does_not_give_the_predictions_is_found(sweep, path, verify, stub_runner):
    stub_runner.agreement = lambda one, other: 0.98
    code, out = verify(path, "--rescore")
    assert (code, "gives only 0.9800 of the kept predictions" in out) == (1, True)
    assert level(path) == "consistent", "what was found bad is forgotten"


def test_no_change_of_a_record_keeps_a_level(sweep, path, verify):
    verify(path, "--rescore")
    assert level(path) == "re-scored"
    forge(path, **{"details.loss_curve": [0.5]})
    assert level(path) == "consistent"
    forge(path, **{"details.trust": "re-trained"})
    assert level(path) == "consistent"


def test_a_wider_tolerance_reaches_no_level(path, verify):
    code, _ = verify(path, "--rescore", "--tolerance", "0.5")
    assert (code, level(path)) == (0, "files match")


def test_another_training_is_found(sweep, path, verify, stub_runner):
    forge(path, **{"untrained.top1": 0.2})
    code, out = verify("--retrain", path.stem)
    assert (code, "top1 of the untrained network is 0.2 in the record and 0.1 now" in out) == (1, True)
    forge(path, **{"untrained.top1": 0.1, "metrics.top5": 0.95})
    code, out = verify("--retrain", path.name)
    assert (code, "trained again: top5 is 0.95 in the record and 0.9 now" in out) == (1, True)


def test_what_cannot_be_trained_again(capsys, path, verify, sweep):
    assert verify("--retrain", "mini-cifar10--none--mini--seed0")[0] == 2
    assert verify(path, "--retrain", path.stem)[0] == 2
    forge(path, origin="imported-predictions")
    code, out = verify("--retrain", path.stem)
    assert (code, "cannot be trained again: it is done, imported-predictions" in out) == (1, True)


def test_signatures(sweep, path, verify, key, capsys):
    assert verify(path, "--require", "signed")[0] == 1
    assert cli.main(["sign", str(path), "--key", str(key)]) == 0
    assert capsys.readouterr().out == f"{path}.sig\n"
    assert level(path) == "files match, signed"
    code, out = verify(path, "--require", "signed")
    assert (code, "(files match, signed; signature of ada@example.org)" in out) == (0, True)
    assert verify(path, "--require", "re-scored")[0] == 1, "a signature is no measurement"


def test_a_signature_of_another_content_does_not_hold(path, verify, key):
    assert cli.main(["sign", str(path), "--key", str(key)]) == 0
    forge(path, wall_seconds=1.0)
    code, out = verify(path)
    assert (code, "does not hold: it is of another content" in out) == (1, True)
    assert "signed" not in level(path)


def test_a_key_that_is_not_listed_signs_nothing(path, verify, key, tmp_path, monkeypatch):
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    assert cli.main(["sign", str(path), "--key", str(other)]) == 0
    code, out = verify(path)
    assert (code, "does not hold: its key is not in" in out) == (1, True)
    # A list that comes with the records counts for nothing.
    public = other.with_name("other.pub").read_text()
    (path.parents[2] / "allowed_signers").write_text(f"ada@example.org {public}")
    assert verify(path)[0] == 1
    # Nor does a signature that the key made for something else.
    signed = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", key, "-n", "git"],
        input=f"onebit record {Record.load(path).sealed}\n".encode(),
        capture_output=True,
        check=True,
    )
    signatures.sidecar(path).write_bytes(signed.stdout)
    assert verify(path)[0] == 1


@pytest.mark.parametrize("content", [b"", b"-----BEGIN SSH SIGNATURE-----\n", b"\0" * 100, b"x" * 2**15])
def test_a_broken_signature_is_one_line(path, key, content):
    signatures.sidecar(path).write_bytes(content)
    with pytest.raises(InputError) as refused:
        signatures.signer(Record.load(path))
    assert "\n" not in str(refused.value)


def test_a_key_that_cannot_sign(path, tmp_path, capsys):
    assert cli.main(["sign", str(path), "--key", str(tmp_path / "none")]) == 2
    (tmp_path / "bad").write_text("no key")
    assert cli.main(["sign", str(path), "--key", str(tmp_path / "bad")]) == 2
    assert not signatures.sidecar(path).exists()


@pytest.mark.parametrize(
    "content", ["", "[]", '{"level": "signed"}', '{"level": "certain"}', '{"level": 3}', "x" * 2000]
)
def test_a_broken_memory_says_nothing(path, content):
    record = Record.load(path)
    memory = trust._memory(record)
    memory.parent.mkdir(parents=True)
    memory.write_text(content)
    assert trust.recall(record) == "consistent"


def test_the_weakest_of_a_line_counts(sweep, path, verify):
    other = sweep.record_path("resnet18_w8_reactnet", 0)
    verify(path, "--rescore")
    assert str(trust.weakest([Record.load(path), Record.load(other)])) == "consistent"
    verify(other, "--rescore")
    assert str(trust.weakest([Record.load(path), Record.load(other)])) == "re-scored"
    assert str(trust.weakest([Record.load(path)], remembered=False)) == "consistent"


def test_claims_of_a_table():
    found = Trust("re-scored")
    assert found.covers("re-scored")
    assert found.covers("files match")
    assert not found.covers("re-trained")
    assert not found.covers("consistent, signed")
    assert not found.covers("certain")
    assert Trust("consistent", "ada").covers("consistent, signed")
