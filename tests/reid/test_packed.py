"""A packed backbone inside a re-ID model."""

from dataclasses import replace

import pytest
import torch

from onebit.backbones.packed.layers import PackedConv
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.reid import runner
from onebit.reid.features import load

OPTIONS = {
    "epochs": 1,
    "height": 64,
    "width": 32,
    "data.batch_size_train": 16,
    "data.batch_size_test": 32,
    "score_untrained": False,
}


@pytest.mark.parametrize("backbone", ["resnet18_w8_reactnet", "dcp_nas_c8"])
def test_scoring_the_packed_network(tiny, tmp_path, backbone, monkeypatch):
    job = Job("market1501", backbone, "mini", 0, tiny, tmp_path / "work", cfg_options=OPTIONS)
    outcome = runner.train(job)
    seen = []
    features_of = runner.features_of

    def watched(model, *arguments):
        seen.append(any(isinstance(m, PackedConv) for m in model.modules()))
        return features_of(model, *arguments)

    monkeypatch.setattr(runner, "features_of", watched)
    before = outcome.predictions.read_bytes()
    again = runner.test(outcome.checkpoint, replace(job, backbone="", cfg_options={}), packed=True)
    assert seen == [True]
    assert again.predictions.name == "test_epoch_1.market1501.packed.safetensors"
    assert outcome.predictions.read_bytes() == before
    assert again.cost == outcome.cost
    expected, found = load(outcome.predictions)[0], load(again.predictions)[0]
    for part in ("query", "gallery"):
        a, b = (torch.as_tensor(groups[part].features) for groups in (expected, found))
        # A value within rounding of a threshold may take the other sign.
        assert torch.cosine_similarity(a, b).min() > 0.99
    for name, value in outcome.metrics.items():
        assert again.metrics[name] == pytest.approx(value, abs=0.06)


def test_a_real_valued_network_has_no_packed_form(tiny, tmp_path):
    job = Job("market1501", "resnet18_w8", "mini", 0, tiny, tmp_path / "work", cfg_options=OPTIONS)
    outcome = runner.train(job)
    with pytest.raises(InputError, match="no 1-bit convolution to pack"):
        runner.test(outcome.checkpoint, job, packed=True)
