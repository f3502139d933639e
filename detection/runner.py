"""Train and score one row of a detection board with mmengine's Runner."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint

import detection
from commons.datasets import get_dataset
from commons.engine import build_runner, config_text, latest_checkpoint
from commons.errors import InputError, WorkError
from commons.files import write_atomic
from commons.progress import Progress
from commons.task import Job, Outcome
from detection.config import build_config


def train(job: Job) -> Outcome:
    folder = get_dataset(job.dataset, task="detection").find(job.data_root).resolve()
    cfg = build_config(job, folder)
    with _output_to_log(job.work_dir):
        runner = build_runner(
            cfg, work_dir=job.work_dir, seed=job.seed, resume=job.resume, description=job.backbone
        )
        runner.model.init_weights()
        untrained = _untrained(runner, job)
        runner.train()
        metrics = score(runner,'x')
    return untrained, metrics

def _untrained(runner, job):
    return score(runner,'y')

def score(runner, description):
    loop = runner.test_loop
    runner.model.eval()
    with Progress(description, total=len(loop.dataloader)) as progress, torch.no_grad():
        for batch in loop.dataloader:
            loop.evaluator.process(data_samples=runner.model.test_step(batch), data_batch=batch)
            progress.advance()
    return loop.evaluator.evaluate(len(loop.dataloader.dataset))

@contextlib.contextmanager
def _output_to_log(work_dir):
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / "output.log", "a") as log, contextlib.redirect_stdout(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
