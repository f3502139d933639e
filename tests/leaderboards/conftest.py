"""A sweep whose runner is a stand-in, so that what surrounds training can be tested in seconds."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from onebit.classification.config import FILE_OPTIONS
from onebit.commons.datasets import DATASETS
from onebit.commons.task import Outcome
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording import verification
from onebit.leaderboards.running import bench as bench_module
from onebit.leaderboards.running.bench import BoardSweep


def stub_cost():
    summary = dict(params_1bit=900, params_real=100, memory_bits=4100, flops=10.0, bops=640.0, ops=20.0)
    return {"strict": summary, "dcp-nas": {**summary, "memory_bits": 1000}}


class StubRunner:
    """Stands in for a task's runner: 'trains' by writing a checkpoint, and counts its calls."""

    FILE_OPTIONS = FILE_OPTIONS

    def __init__(self):
        self.jobs = []
        self.failure = {}
        #: What is said of the network that was built; without it, that of the row's name.
        self.network = None

    def train(self, job):
        self.jobs.append(job)
        job.work_dir.mkdir(parents=True, exist_ok=True)
        if job.backbone in self.failure:
            raise self.failure[job.backbone]
        checkpoint = job.work_dir / "epoch_1.pth"
        torch.save({"state_dict": {job.backbone: torch.tensor(job.seed)}}, checkpoint)
        predictions = job.work_dir / "predictions.json"
        predictions.write_text(json.dumps({"top1": 0.5 + 0.01 * job.seed, "top5": 0.9}))
        return self.outcome(job, checkpoint, predictions)

    def test(self, checkpoint, job):
        (seed,) = torch.load(checkpoint, weights_only=True)["state_dict"].values()
        predictions = job.work_dir / "predictions.json"
        predictions.write_text(json.dumps({"top1": 0.5 + 0.01 * int(seed), "top5": 0.9}))
        return self.outcome(job, checkpoint, predictions)

    def agreement(self, one, other):
        return float(one.read_text() == other.read_text())

    def score_predictions(self, predictions, job):
        return dataclasses.replace(self.outcome(job, None, predictions), cost={}, epochs=0)

    def outcome(self, job, checkpoint, predictions):
        return Outcome(
            metrics=json.loads(predictions.read_text()),
            untrained={"top1": 0.1, "top5": 0.5},
            main_metric="top1",
            epochs=1,
            split="train -> test",
            protocol="top-1",
            data_checksum=DATASETS[job.dataset].checksum(job.data_root),
            config="x = 1",
            checkpoint=checkpoint,
            cost=stub_cost(),
            num_classes=10,
            details={"network": self.network} if self.network else {},
            predictions=predictions,
        )


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What the user verified on this machine is none of a test's business, nor the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def stub_runner(monkeypatch):
    runner = StubRunner()
    monkeypatch.setattr(bench_module, "runner", lambda task: runner)
    monkeypatch.setattr(verification, "runner", lambda task: runner)
    return runner


@pytest.fixture
def sweep(tmp_path, stub_runner) -> BoardSweep:
    dataset = DATASETS["mini-cifar10"]
    for relative in dataset.required:
        path = tmp_path / "data" / dataset.name / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return BoardSweep(
        board=ALL["cifar10"],
        dataset=dataset,
        backbones=("resnet18_w8", "resnet18_w8_reactnet"),
        recipe="mini",
        seeds=(0, 1),
        data_root=tmp_path / "data",
        out=tmp_path / "out",
        work_root=tmp_path / "work",
    )


def records_below(folder: Path) -> list[str]:
    """Names of the files there, less those of locks, which stay."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.parent.name != ".locks")
