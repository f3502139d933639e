"""What of a detector's training step has the host wait for the device: MMDetection's matching, nothing of ours.

Only our NMS and RoIAlign in plain torch wait. They serve where neither mmcv nor torchvision has a compiled one.
"""

from collections import Counter

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from onebit.backbones import OneBitConv2d
from onebit.backbones.hooks import MethodLossHook
from onebit.backbones.integer_conv import supported
from onebit.detection import operators, runner
from tests.detection import test_one_stage
from tests.detection.test_mmdet_config import batch
from tests.detection.test_parts import config
from tests.synchronization import NoSynchronization, Synchronizes

PLAIN = "onebit.detection.plain_operators"


def waits_of_a_step(model) -> Counter[str]:
    """Those of a step of SGD with the losses of the binarization method, the batch being on the device."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(model).train()
        detector.init_weights()

    class Runner:
        model = detector

    hook = MethodLossHook()
    hook.before_train(Runner)
    wrapper = OptimWrapper(torch.optim.SGD(detector.parameters(), lr=0.001, momentum=0.9))
    data = detector.data_preprocessor(batch(), training=True)
    for sample in data["data_samples"]:
        sample.gt_instances.labels.clamp_(max=3)  # a mini dataset has few classes
    before = [p.detach().clone() for p in detector.parameters()]
    supported()  # tried once in a process, on the CPU
    with NoSynchronization(libraries=True, ours=(PLAIN,)) as guard:
        losses, _ = detector.parse_losses(detector(**data, mode="loss"))
        wrapper.update_params(losses)
    assert any(not torch.equal(a, b) for a, b in zip(before, detector.parameters(), strict=True))
    return guard.waits


def of_ours(waits) -> set[str]:
    return {place.rpartition(".")[0] for place in waits if place.startswith("onebit")}


@pytest.mark.parametrize("backbone", ["resnet18_w8_reactnet", "resnet18_w8_pcnn", "resnet18_w8_bonn", "dcp_nas_c4_l3"])
def test_a_step_of_faster_rcnn(make_job, backbone):
    waits = waits_of_a_step(config(make_job, backbone=backbone, onebit_parts="neck+rpn").model)
    assert any(place.startswith("mmdet.models.task_modules.assigners") for place in waits)
    compiled = all(
        status != "fallback" for status in map(operators.operator_status().get, ("nms", "roi_align_forward"))
    )
    assert of_ours(waits) == (set() if compiled else {PLAIN})


@pytest.mark.parametrize("head", test_one_stage.BASES)
def test_a_step_of_a_one_stage_detector(tmp_path, head):
    waits = waits_of_a_step(test_one_stage.config(tmp_path, head).model)
    assert waits
    assert not of_ours(waits)


def test_operators_without_boxes():
    """Those of mmcv's layers that a step trains through, whoever does their work."""
    x, scores, target = torch.randn(1, 4, 6, 6), torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 3])
    none, out = torch.zeros(0), torch.zeros(5, 3)
    offset, mask, weight = torch.randn(1, 18, 6, 6), torch.rand(1, 9, 6, 6), torch.randn(2, 4, 3, 3)
    sizes = dict(kernel_h=3, kernel_w=3, stride_h=1, stride_w=1, pad_h=1, pad_w=1, dilation_h=1, dilation_w=1)
    sizes |= dict(group=1, deformable_group=1, with_bias=False)
    grads = [torch.zeros_like(each) for each in (x, weight, none, offset, mask)]
    made, upsampled = torch.zeros(1, 2, 6, 6), torch.zeros(1, 4, 12, 12)
    carafe = dict(kernel_size=3, group_size=1, scale_factor=2)
    masks = torch.rand(1, 9, 12, 12)
    with NoSynchronization():
        operators.sigmoid_focal_loss_forward(scores, target, none, out, gamma=2.0, alpha=0.25)
        operators.sigmoid_focal_loss_backward(scores, target, none, out, gamma=2.0, alpha=0.25)
        operators.modulated_deform_conv_forward(x, weight, none, none, offset, mask, made, none, **sizes)
        operators.modulated_deform_conv_backward(x, weight, none, none, offset, mask, none, *grads, made, **sizes)
        operators.carafe_naive_forward(x, masks, upsampled, **carafe)
        operators.carafe_naive_backward(upsampled, x, masks, grads[0], torch.zeros_like(masks), **carafe)
    assert made.any()
    assert upsampled.any()
    assert out.any()


def test_a_wait_of_ours_is_noticed(make_job, monkeypatch):
    forward = OneBitConv2d.forward

    def waiting(self, x):
        assert x.isfinite().all()
        return forward(self, x)

    monkeypatch.setattr(OneBitConv2d, "forward", waiting)
    with pytest.raises(Synchronizes):
        waits_of_a_step(config(make_job).model)


def test_a_training_whose_losses_are_read_late_is_the_same(drawn, make_job, monkeypatch, tmp_path):
    """As on a GPU, where nothing of ours reads them in every step."""
    plain = runner.train(make_job(drawn))

    def deferred(cfg, *args, defer_losses, **kwargs):
        assert defer_losses
        cfg.custom_hooks.append(dict(type="DeferredLossesHook"))
        return build_runner(cfg, *args, **kwargs)

    build_runner = runner.build_runner
    monkeypatch.setattr(runner, "build_runner", deferred)
    late = runner.train(make_job(drawn, work_dir=tmp_path / "late"))
    assert late.details["loss_curve"] == plain.details["loss_curve"]
    assert late.metrics == plain.metrics
