"""Mixed precision and compiling, by the options that every task has."""

import pytest
import torch

from onebit.commons.compat import TORCH
from onebit.commons.errors import InputError
from onebit.detection import runner
from tests.detection.conftest import TINY

ONE = {**TINY, "train_cfg.max_epochs": 1, "score_untrained": False}


def train(make_job, drawn, tmp_path, name, **options):
    return runner.train(make_job(drawn, work_dir=tmp_path / name, cfg_options={**ONE, **options}))


@pytest.mark.slow
def test_it_trains_in_bfloat16(make_job, drawn, tmp_path, monkeypatch):
    seen = set()
    forward = torch.nn.BatchNorm2d.forward
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda self, x: seen.add(x.dtype) or forward(self, x))
    plain = train(make_job, drawn, tmp_path, "plain").details["loss_curve"]
    assert seen == {torch.float32}
    amp = train(make_job, drawn, tmp_path, "amp", amp="bfloat16").details["loss_curve"]
    assert torch.bfloat16 in seen
    assert amp == pytest.approx(plain, rel=0.1)


@pytest.mark.skipif(TORCH < (2, 4), reason="compile needs torch 2.4")
@pytest.mark.slow
def test_it_trains_compiled(make_job, drawn, tmp_path):
    plain = train(make_job, drawn, tmp_path, "plain").details["loss_curve"]
    compiled = train(make_job, drawn, tmp_path, "compiled", **{"compile.backend": "eager"}).details["loss_curve"]
    # Sums are in another order, so that signs turn: 0.4 % on one processor, less than 0.1 % on others.
    assert compiled == pytest.approx(plain, rel=2e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"amp": "half"}, "amp 'half': expected one of None, bfloat16, float16"),
        ({"compile": "yes"}, "compile 'yes': expected True, False"),
        ({"compile.backend": "nope"}, "nope" if TORCH >= (2, 4) else "compile needs torch 2.4"),
    ],
)
def test_another_value_is_refused(make_job, drawn, tmp_path, options, message):
    with pytest.raises(InputError, match=message) as caught:
        train(make_job, drawn, tmp_path, "run", **options)
    assert "\n" not in str(caught.value)
