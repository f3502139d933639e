"""`onebit` with a task whose training takes milliseconds; everything around it is the real thing.

    python -m tests.leaderboards.stub_bench bench mini-cifar10 --backbones resnet18_w4 ...

Worker processes run this module, too, and jobs call its ``claim_row``, so that they get the same stand-in. It reports what
must never happen, one line each, to the file that ``ONEBIT_STUB_LOG`` names.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
import time
from pathlib import Path

import torch

from onebit.commons.files import write_atomic
from onebit.commons.task import Job, Outcome
from onebit.leaderboards import cli
from onebit.leaderboards.running import bench, sweep

EPOCHS = 3
_EPOCH_SECONDS = 0.004
_COST = dict(params_1bit=900, params_real=100, memory_bits=4100, flops=10.0, bops=640.0, ops=20.0)


def top1(backbone: str, seed: int) -> float:
    """The metric of a row: whatever happened on the way, it must come out."""
    return 0.5 + (sum(backbone.encode()) % 100 + seed) / 1000


def report(line: str) -> None:
    with open(os.environ["ONEBIT_STUB_LOG"], "a") as stream:
        stream.write(line + "\n")  # one write below PIPE_BUF in append mode: lines do not mix


class StubTask:
    """`train` writes one checkpoint an epoch and goes on from the last one, as the real ones do."""

    def train(self, job: Job) -> Outcome:
        job.work_dir.mkdir(parents=True, exist_ok=True)
        with open(job.work_dir / "stub_lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report(f"two at once: {job.work_dir.name}")
            self._no_record_yet(job)
            return self._train(job)

    def _no_record_yet(self, job: Job) -> None:
        records = os.environ.get("ONEBIT_STUB_RECORDS")
        if records and (Path(records) / f"{job.work_dir.name}.json").exists():
            report(f"finished row run again: {job.work_dir.name}")

    def _train(self, job: Job) -> Outcome:
        done = len(list(job.work_dir.glob("epoch_*.pth"))) if job.resume else 0
        for epoch in range(done + 1, EPOCHS + 1):
            time.sleep(_EPOCH_SECONDS)
            content = io.BytesIO()
            torch.save({"state_dict": {job.backbone: torch.full((500,), job.seed + epoch / 100)}}, content)
            write_atomic(job.work_dir / f"epoch_{epoch}.pth", content.getvalue())
        value = top1(job.backbone, job.seed)
        return Outcome(
            metrics={"top1": value, "top5": 0.9},
            untrained={"top1": 0.1, "top5": 0.5},
            main_metric="top1",
            epochs=EPOCHS,
            split="train -> test",
            protocol="top-1",
            data_checksum="content:00",
            config="x = 1",
            checkpoint=job.work_dir / f"epoch_{EPOCHS}.pth",
            cost={"strict": _COST, "dcp-nas": _COST},
            num_classes=10,
            predictions=write_atomic(job.work_dir / "predictions.npz", repr(value) * 100),
        )


#: For tests: as an attribute of this module it makes jobs import the stand-in.
_claim_row = sweep.claim_row


def install() -> None:
    """Let this process train with the stand-in. An import alone does not: tests import this module, too."""
    bench.runner = lambda task: StubTask()


def claim_row(*arguments):
    install()
    return _claim_row(*arguments)


if __name__ in ("__main__", "__mp_main__"):  # the latter in worker processes
    install()
if __name__ == "__main__":
    sys.exit(cli.main())
