"""Mixed precision and compiling, by the options that every task has."""

from dataclasses import replace

import pytest
import torch

from onebit.commons.compat import TORCH
from onebit.commons.errors import InputError
from onebit.reid import runner
from onebit.reid.model import ReIDModel
from tests.reid.rows import OPTIONS, TRIPLET

ONE = {"epochs": 1, "data.workers": 0, "score_untrained": False}


def train(job, name, options):
    work_dir = job.work_dir.parent / name
    return runner.train(replace(job, work_dir=work_dir, cfg_options={**options, **ONE}))


@pytest.mark.parametrize("options", [OPTIONS, TRIPLET], ids=["softmax", "triplet"])
def test_it_trains_in_bfloat16_and_scores_in_float32(job, options, monkeypatch):
    seen = {True: set(), False: set()}
    pooled = ReIDModel.forward

    def forward(self, images):
        out = pooled(self, images)
        seen[self.training].add((out if torch.is_tensor(out) else out[0]).dtype)
        return out

    monkeypatch.setattr(ReIDModel, "forward", forward)
    plain = train(job, "plain", options).details["loss_curve"]
    assert seen == {True: {torch.float32}, False: {torch.float32}}
    mixed = train(job, "mixed", {**options, "amp": "bfloat16"}).details["loss_curve"]
    assert seen == {True: {torch.float32, torch.bfloat16}, False: {torch.float32}}
    assert mixed == pytest.approx(plain, rel=0.1)  # which triplets are hard may change


@pytest.mark.slow
@pytest.mark.skipif(TORCH < (2, 4), reason="compile needs torch 2.4")
def test_it_trains_compiled(job):
    plain = train(job, "plain", OPTIONS)
    compiled = train(job, "compiled", {**OPTIONS, "compile.backend": "eager"})
    assert compiled.details["loss_curve"] == pytest.approx(plain.details["loss_curve"], rel=1e-3)
    assert runner.test(compiled.checkpoint, replace(job, cfg_options={})).metrics == compiled.metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amp": "float16"}, "amp 'float16': expected one of None, bfloat16"),
        ({"compile": "yes"}, "compile 'yes': expected True, False"),
        ({"compile.backend": "nope"}, "nope" if TORCH >= (2, 4) else "compile needs torch 2.4"),
    ],
)
def test_another_value_is_refused(job, options, message):
    with pytest.raises(InputError, match=message) as caught:
        train(job, "run", {**OPTIONS, **options})
    assert "\n" not in str(caught.value)
