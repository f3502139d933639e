"""Options of training that a recipe names by one key."""

import pytest
import torch

from onebit.classification import runner as classification
from onebit.classification.augmentation import BatchAugmentation
from onebit.commons.acceleration import CpuAmpOptimWrapper
from onebit.commons.compat import TORCH
from onebit.commons.engine import load_row
from onebit.commons.errors import InputError

BACKBONE = "resnet18_w8_reactnet"
ONE = {"train_cfg.max_epochs": 1, "score_untrained": False}


def weights(outcome):
    return load_row(outcome.checkpoint)[1]


def test_averaged_weights_are_scored_and_in_the_checkpoint(job):
    """With one step, the average of the first step is the step itself; with two it is in between."""
    plain = classification.train(job(backbone=BACKBONE, cfg_options=ONE))
    averaged = classification.train(job(name="ema", backbone=BACKBONE, cfg_options={**ONE, "ema.momentum": 0.25}))
    assert averaged.details["averaged_weights"] == dict(momentum=0.25, steps=2)
    raw = torch.load(averaged.checkpoint, weights_only=True)["ema_state_dict"]
    a, last = weights(averaged), weights(plain)
    name = "classifier.weight"
    assert torch.equal(raw[f"module.{name}"], last[name])  # the training itself is the same
    assert not torch.equal(a[name], last[name])
    scored = classification.test(averaged.checkpoint, job(name="t", backbone="", recipe="", cfg_options=ONE))
    assert scored.metrics == averaged.metrics


def test_mixing_makes_shares_of_classes_that_add_up_to_one():
    torch.manual_seed(0)
    batch = dict(inputs=torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), labels=torch.arange(6))
    for alphas in (dict(mixup=0.4), dict(cutmix=1.0), dict(mixup=0.4, cutmix=1.0)):
        augmentation = BatchAugmentation((0, 0, 0), (1, 1, 1), num_classes=6, **alphas)
        mixed = augmentation(batch, True)
        assert mixed["labels"].shape == (6, 6)
        torch.testing.assert_close(mixed["labels"].sum(1), torch.ones(6))
        assert not torch.equal(mixed["inputs"], batch["inputs"].float())
        still = augmentation(batch, False)
        assert torch.equal(still["labels"], batch["labels"])
        assert torch.equal(still["inputs"], batch["inputs"].float())


def test_every_option_trains_with_every_other(job):
    """Mixed precision, mixing, memory format, accumulation and clipping in one step."""
    options = {
        **ONE,
        "mixup.alpha": 0.2,
        "cutmix.alpha": 1.0,
        "channels_last": True,
        "amp": "bfloat16",
        "optim_wrapper.accumulative_counts": 2,
        "optim_wrapper.clip_grad.max_norm": 1.0,
        "model.label_smoothing": 0.1,
        "model.data_preprocessor.cutout": 8,
    }
    outcome = classification.train(job(backbone=BACKBONE, cfg_options=options))
    assert all(value.isfinite().all() for value in weights(outcome).values())
    assert 1 < outcome.details["loss_curve"][0] < 4


def test_memory_format_changes_nothing_but_rounding(job):
    outcomes = [
        classification.train(job(name=str(last), cfg_options={**ONE, "channels_last": last})) for last in (False, True)
    ]
    curves = [o.details["loss_curve"] for o in outcomes]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(TORCH < (2, 4), reason="compile needs torch 2.4")
def test_compiled_backbone_trains_as_the_plain_one(job):
    options = {**ONE, "compile.backend": "eager", "ema.momentum": 0.1}
    compiled = classification.train(job(name="compiled", cfg_options=options))
    options.pop("compile.backend")
    plain = classification.train(job(name="plain", cfg_options=options))
    assert compiled.details["loss_curve"] == pytest.approx(plain.details["loss_curve"], rel=1e-4)
    assert weights(compiled).keys() == weights(plain).keys()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cpu_computes_in_a_half_precision_and_trains_in_float32(dtype):
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    wrapper = CpuAmpOptimWrapper(dtype=dtype, optimizer=torch.optim.SGD(layer.parameters(), 0.1))
    with wrapper.optim_context(layer):
        out = layer(torch.ones(1, 2))
    assert out.dtype == getattr(torch, dtype)
    wrapper.update_params(out.float().sum() / 2)
    assert layer.weight.dtype == torch.float32
    torch.testing.assert_close(layer.weight, before - 0.05)


def test_float16_skips_a_step_that_it_cannot_hold():
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.detach().clone()
    wrapper = CpuAmpOptimWrapper(dtype="float16", optimizer=torch.optim.SGD(layer.parameters(), 0.1))
    scale = wrapper.loss_scaler.get_scale()
    wrapper.update_params(layer(torch.ones(1, 2)).sum() * 1e38)
    assert torch.equal(layer.weight, before)
    assert wrapper.loss_scaler.get_scale() < scale
    assert wrapper.state_dict()["loss_scaler"]["scale"] < scale


def test_another_precision_is_refused():
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), 0.1)
    with pytest.raises(InputError, match="dtype 'float64': expected one of bfloat16, float16"):
        CpuAmpOptimWrapper(dtype="float64", optimizer=optimizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ema.momentum": 1.5}, r"ema.momentum 1.5: expected a number above 0, below 1"),
        ({"ema.decay": 0.9}, "ema .*expected a dict with momentum"),
        ({"mixup.alpha": -1}, r"mixup.alpha -1: expected a number above 0"),
        ({"cutmix": 1.0}, "cutmix 1.0: expected a dict with alpha"),
        ({"compile.backend": "nope"}, "nope" if TORCH >= (2, 4) else "compile needs torch 2.4"),
        ({"compile": "yes"}, "compile 'yes': expected True, False, or compile.ARGUMENT=VALUE"),
        ({"amp": "half"}, "amp 'half': expected one of None, bfloat16, float16"),
    ],
)
def test_option_out_of_range_is_refused(job, options, message):
    with pytest.raises(InputError, match=message) as caught:
        classification.train(job(cfg_options={**ONE, **options}))
    assert "\n" not in str(caught.value)


def test_mixed_labels_are_refused_where_a_method_needs_a_class(job):
    options = {**ONE, "mixup.alpha": 0.2}
    with pytest.raises(InputError, match="mixup and cutmix: expected a method without a loss on classes"):
        classification.train(job(backbone="resnet18_w8_bonn", cfg_options=options))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({}, "cuda_graph: expected a GPU"),
        ({"amp": "bfloat16"}, "cuda_graph: expected without amp"),
        ({"compile": True, "amp": "bfloat16"}, "cuda_graph: expected without amp and compile"),
        ({"model.auxiliary_weight": 0.4}, "cuda_graph: expected without model.auxiliary_weight"),
        ({"optim_wrapper.accumulative_counts": 2}, "cuda_graph: expected without optim_wrapper.accumulative_counts"),
        ({"cuda_graph": 2}, "cuda_graph 2: expected one of False, True"),
    ],
)
def test_what_cuda_graphs_do_not_go_with(job, others, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        classification.train(job(backbone=BACKBONE, cfg_options={**ONE, "cuda_graph": True, **others}))


def test_a_row_trained_through_cuda_graphs_is_scored_without_a_gpu(job, monkeypatch):
    monkeypatch.setattr(classification, "_require_gpu", lambda stages: None)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda module, x, allow_unused_input: module)
    trained = classification.train(job(backbone=BACKBONE, cfg_options={**ONE, "cuda_graph": True}))
    monkeypatch.undo()
    scored = classification.test(trained.checkpoint, job(name="t", backbone="", recipe="", cfg_options={}))
    assert scored.metrics == trained.metrics
