"""Interrupted anywhere and resumed, a row ends in the same place; two processes train one."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from onebit.commons import engine
from onebit.commons.files import sha256_file
from onebit.detection import predictions, runner
from onebit.detection.metrics import VOCAveragePrecision
from tests.detection.conftest import TINY

SCRIPT = Path(__file__).with_name("data_parallel.py")


class Stop(BaseException):
    """Stands for a kill."""


def _nth(number, call):
    """``call``, but for a kill in its place at the ``number``-th time."""
    count = 0

    def killed(*arguments, **options):
        nonlocal count
        count += 1
        if count == number:
            raise Stop
        return call(*arguments, **options)

    return killed


def _torn(call):
    """Half of the second file written, and then a kill, as far as a writer can be."""

    def put(self, obj, filepath):
        if Path(filepath).name == "epoch_2.pth":
            Path(filepath).with_name(f".{Path(filepath).name}.tmp").write_bytes(bytes(obj[:1000]))
            raise Stop
        return call(self, obj, filepath)

    return put


#: Where a row is killed: object, attribute and what stands in its place.
KILLS = {
    # Images 1 to 4 are those of the untrained network.
    "validation": (VOCAveragePrecision, "process", lambda call: _nth(3, call)),
    "a checkpoint being written": (engine.AtomicBackend, "put", _torn),
    "predictions being written": (predictions, "write", lambda call: _nth(1, call)),
}


@pytest.fixture(scope="module")
def uninterrupted(drawn, tmp_path_factory):
    from onebit.commons.task import Job

    options = {**TINY, "test_dataloader.batch_size": 2}
    job = Job("mini-voc", "resnet18_w8_bireal", "mini", 1, drawn, tmp_path_factory.mktemp("row"), False, options)
    return job, runner.train(job)


@pytest.mark.slow
@pytest.mark.parametrize("when", KILLS)
def test_killed_and_resumed(uninterrupted, tmp_path, monkeypatch, when):
    job, outcome = uninterrupted
    job = replace(job, work_dir=tmp_path / "again", resume=True)
    where, name, replaced = KILLS[when]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, replaced(getattr(where, name)))
        with pytest.raises(Stop):
            runner.train(job)
    resumed = runner.train(job)
    assert resumed.metrics == outcome.metrics
    assert resumed.untrained == outcome.untrained
    assert resumed.epochs == outcome.epochs
    assert resumed.config == outcome.config
    assert resumed.details == outcome.details
    assert sha256_file(resumed.predictions) == sha256_file(outcome.predictions)
    weights = [engine.load_row(o.checkpoint)[1] for o in (resumed, outcome)]
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[1])


@pytest.mark.slow
def test_two_processes_below_torchrun(uninterrupted, tmp_path):
    job, alone = uninterrupted
    job = replace(job, work_dir=tmp_path / "row")
    fields = {**asdict(job), "data_root": str(job.data_root), "work_dir": str(job.work_dir)}
    del fields["recorded"]  # options of a file, of which this job has none
    (tmp_path / "job.json").write_text(json.dumps(fields))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    ran = subprocess.run(
        [*command, str(SCRIPT), str(tmp_path / "job.json"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=580,
        cwd=SCRIPT.parent.parent.parent,
    )
    assert ran.returncode == 0, ran.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    # Both saw the same network; only the first one wrote.
    for key in ("metrics", "untrained", "loss_curve", "config", "checkpoint"):
        assert first[key] == second[key], key
    # Other images share a batch, so that sums are rounded otherwise.
    assert first["untrained"] == pytest.approx(alone.untrained, abs=0.02)
    assert first["config"] == alone.config
    assert (first["predictions"], second["predictions"]) == (str(job.work_dir / "predictions.json"), "None")
    # Each draws its own flips and samples of boxes: the loss is of the same size, no more.
    for ours, single in zip(first["loss_curve"], alone.details["loss_curve"], strict=True):
        assert math.isfinite(ours)
        assert ours == pytest.approx(single, rel=0.5)
