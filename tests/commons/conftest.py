"""A network of one layer, trained by `onebit.commons.engine` in a fraction of a second."""

from pathlib import Path
from typing import ClassVar

import pytest

from onebit.commons.engine import build_runner  # before mmengine: it makes torchvision importable

# ruff: isort: split
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS

IMAGES, BATCH = 24, 8


@DATASETS.register_module()
class Points(torch.utils.data.Dataset):
    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        x = torch.tensor([index / IMAGES, 1 - index / IMAGES])
        return dict(inputs=x, labels=x.sum() * 3)


@MODELS.register_module()
class Line(BaseModel):
    def __init__(self, inputs=2):
        super().__init__()
        self.layer = torch.nn.Linear(inputs, 1)

    def forward(self, inputs, labels, mode="tensor"):
        noise = torch.rand_like(labels) if self.training else 0.0
        error = self.layer(inputs).squeeze(1) - labels - noise
        if mode == "loss":
            return dict(loss=error.square().mean())
        return [dict(error=float(e)) for e in error.abs()]


@METRICS.register_module()
class MeanError(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [sample["error"] for sample in data_samples]

    def compute_metrics(self, results):
        return dict(error=sum(results) / len(results))


@HOOKS.register_module()
class CallAt(Hook):
    """Calls ``function(runner)`` after iteration ``at`` (from 0) and changes its outputs."""

    priority = "VERY_HIGH"
    functions: ClassVar[dict] = {}

    def __init__(self, at: int, function: str) -> None:
        self.at, self.function = at, function

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.at:
            self.functions[self.function](runner, outputs)


def line_config(**changes) -> Config:
    loader = dict(batch_size=BATCH, num_workers=0, dataset=dict(type="Points"), collate_fn=dict(type="default_collate"))
    cfg = dict(
        default_scope="mmengine",
        model=dict(type="Line"),
        train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=3),
        train_dataloader=dict(loader, sampler=dict(type="DefaultSampler", shuffle=True)),
        test_dataloader=dict(loader, sampler=dict(type="DefaultSampler", shuffle=False)),
        test_cfg=dict(),
        test_evaluator=dict(type="MeanError"),
        optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=0.05)),
        param_scheduler=dict(type="CosineAnnealingLR", T_max=3, convert_to_iter_based=True),
    )
    return Config({**cfg, **changes})


def row(seed: int = 0) -> dict:
    return dict(dataset="points", backbone="line", recipe="r", seed=seed, cfg_options={})


@pytest.fixture
def line(tmp_path):
    """Builds a Runner: ``line(name, seed=0, resume=False, at=None, call=None, **changes)``."""

    def build(name="run", *, seed=0, resume=False, at=None, call=None, **changes):
        if call:
            CallAt.functions["call"] = call
            changes["custom_hooks"] = [dict(type="CallAt", at=at, function="call")]
        return build_runner(line_config(**changes), row(seed), work_dir=Path(tmp_path / name), resume=resume)

    return build
