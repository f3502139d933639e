"""What the CPU computes, a GPU computes as well: layers, losses, steps of a search, operators of a detector."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.backbones.binarization import BINARIZERS
from onebit.backbones.losses import method_losses

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

#: Of float32 on both devices, TF32 switched off: sums differ in their order only.
CLOSE = dict(rtol=1e-3, atol=1e-4)


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def both(module: nn.Module, x: torch.Tensor):
    """Output and gradients (of the input and of every parameter) on the CPU and on the GPU."""
    results = []
    for device in ("cpu", "cuda"):
        own = copy.deepcopy(module).to(device)
        given = x.detach().clone().to(device).requires_grad_()
        out = own(given)
        loss = out.square().sum() + sum(method_losses(own).values())
        loss.backward()
        gradients = {name: p.grad for name, p in own.named_parameters() if p.grad is not None}
        results.append((out.detach().cpu(), given.grad.cpu(), {n: g.cpu() for n, g in gradients.items()}))
    return results


@pytest.mark.parametrize("binarizer", BINARIZERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolution_of_every_binarizer(binarizer, memory_format):
    torch.manual_seed(0)
    conv = backbones.OneBitConv2d(32, 48, 3, padding=1, binarizer=binarizer)
    x = torch.randn(4, 32, 14, 14).to(memory_format=memory_format)
    (out, slope, slopes), (gpu_out, gpu_slope, gpu_slopes) = both(conv, x)
    torch.testing.assert_close(gpu_out, out, **CLOSE)
    scale = slope.abs().max()
    torch.testing.assert_close(gpu_slope / scale, slope / scale, **CLOSE)
    assert slopes.keys() == gpu_slopes.keys()
    for name, expected in slopes.items():
        scale = expected.abs().max().clamp(min=1e-12)
        torch.testing.assert_close(gpu_slopes[name] / scale, expected / scale, **CLOSE)


@pytest.mark.parametrize(
    "name", ["resnet18_w16", "resnet18_w16_reactnet", "resnet20_xnor", "reactnet_a_w8", "dcp_nas_c8_l6"]
)
def test_training_steps_of_a_network(name):
    """In float64: a sum in another order turns no sign, which in float32 would turn others in all later layers.

    Not VGG: of equal maxima in a window, which whole sums often are, devices give the gradient to different ones.
    """
    losses = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        network = backbones.classifier.Classifier(backbones.create_backbone(name, out_indices=(3,), stem="cifar"), 10)
        network = network.double().to(device).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        x, labels = torch.randn(8, 3, 32, 32).double().to(device), torch.arange(8).to(device)
        losses[device] = []
        for _ in range(3):
            loss = nn.functional.cross_entropy(network(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[device].append(loss.item())
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-6)
    assert len(set(losses["cuda"])) == 3


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
@pytest.mark.parametrize("name", ["resnet18_w16_reactnet", "dcp_nas_c8_l6"])
def test_mixed_precision_keeps_sums_and_float32_parameters(name, dtype, error):
    """Layer by layer: what a network puts out differs altogether, since a rounded stem turns signs."""
    torch.manual_seed(0)
    network = backbones.create_backbone(name, out_indices=(3,), stem="cifar").cuda().train()
    x = torch.randn(16, 3, 32, 32, device="cuda")
    seen = []

    def compare(conv, inputs, mixed):
        with torch.no_grad(), torch.autocast("cuda", enabled=False):
            plain = conv.forward(inputs[0].float())
        assert mixed.dtype == dtype
        torch.testing.assert_close(mixed.float(), plain, rtol=error, atol=1e-5)
        seen.append(conv)

    convs = [module for module in network.modules() if isinstance(module, backbones.OneBitConv2d)]
    for conv in convs:
        conv.register_forward_hook(compare)
    with torch.autocast("cuda", dtype):
        network(x)[0].float().square().mean().backward()
    assert set(seen) == set(convs)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("method", ["dcp-nas", "darts", "cp-nas", "random"])
def test_an_epoch_of_a_search(method):
    from onebit.classification.search.space import SearchSpace
    from onebit.classification.search.strategies import Report, Schedule, SearchData, get_strategy

    torch.manual_seed(0)
    space = SearchSpace(3, cells=3, channels=4, operations=("none", "skip_connect", "dil_conv_3x3"))
    strategy = get_strategy(method)(space, {}, Schedule(epochs=2)).cuda()
    batch = [(torch.randn(8, 3, 16, 16, device="cuda"), torch.randint(3, (8,), device="cuda"))]
    strategy.epoch(0, SearchData(batch, batch, batch), Report())
    assert strategy.scores().shape == space.shape
    assert strategy.scores().isfinite().all()


@pytest.mark.parametrize("name", ["resnet18_w16", "resnet18_w16_reactnet", "reactnet_a_w8", "dcp_nas_c8_l6"])
@pytest.mark.parametrize("mixed", [False, True])
def test_training_steps_do_not_wait_for_the_gpu(name, mixed):
    """What ``tests/classification/test_synchronization.py`` forbids on a CPU, as CUDA itself sees it."""
    from onebit.commons.compat import ensure_torchvision

    ensure_torchvision()
    from mmengine.optim import AmpOptimWrapper, OptimWrapper

    from onebit.classification.augmentation import BatchAugmentation
    from onebit.classification.datasets import InMemoryImages, collate_images, hold_on_gpu
    from onebit.classification.model import ImageClassifier

    held = object.__new__(InMemoryImages)
    held.images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8)
    held.labels = torch.arange(64).remainder(10)
    loader = torch.utils.data.DataLoader(held, batch_size=8, shuffle=True, collate_fn=collate_images, pin_memory=True)
    assert hold_on_gpu(loader)
    prepare = dict(mean=[120.0] * 3, std=[60.0] * 3, padding=4, flip=True, cutout=8)
    model = ImageClassifier(
        dict(type="onebit.create_backbone", name=name, out_indices=(3,), stem="cifar"),
        10,
        data_preprocessor=BatchAugmentation(**prepare),
    )
    model = model.cuda().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    wrapper = AmpOptimWrapper(optimizer=optimizer, dtype="bfloat16") if mixed else OptimWrapper(optimizer)
    if mixed:  # as torch has it, a scaler asks whether gradients are finite; bfloat16 needs none
        wrapper.loss_scaler = torch.cuda.amp.GradScaler(enabled=False)
    batches = iter(loader)
    model.train_step(next(batches), wrapper)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [model.train_step(batch, wrapper)["loss"] for batch in batches]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(losses).isfinite().all()


@pytest.mark.parametrize("name", ["resnet18_w16", "resnet20_w8_irnet", "resnet18_w16_reactnet", "dcp_nas_c8_l6"])
def test_graphs_train_as_no_graphs_do(name):
    """Two epochs whose last batch is smaller; in float64, where a sum in another order turns no sign."""
    from onebit.backbones import set_progress
    from onebit.classification.model import ImageClassifier

    results = []
    for cuda_graph in (False, True):
        torch.manual_seed(0)
        backbone = dict(type="onebit.create_backbone", name=name, out_indices=(2,), stem="cifar")
        model = ImageClassifier(backbone, 10, cuda_graph=cuda_graph).double().cuda().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        losses = []
        for epoch in range(2):
            set_progress(model, epoch / 2)
            for images in (8, 8, 8, 5):
                x, labels = torch.randn(images, 3, 32, 32).double().cuda(), torch.arange(images).cuda()
                loss = sum(model(x, labels, mode="loss").values()) + sum(method_losses(model).values())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            losses += model(x)[0].tolist()
        assert model.graphed is None or model.graphed._graphed is not None
        results.append(losses)
    assert results[1] == pytest.approx(results[0], rel=1e-6)


def random_boxes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, 2, generator=generator) * 300
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 1], 1)
    return boxes, torch.rand(count, generator=generator)


def test_our_nms_keeps_what_torchvisions_compiled_one_keeps():
    from torchvision.ops import nms as compiled

    from onebit.detection.plain_operators import nms

    boxes, scores = random_boxes(2000)
    expected = compiled(boxes.cuda(), scores.cuda(), 0.5).cpu()
    assert torch.equal(nms(boxes.cuda(), scores.cuda(), 0.5).cpu(), expected)
    assert torch.equal(nms(boxes, scores, 0.5), expected)


@pytest.mark.parametrize("aligned", [True, False])
def test_our_roi_align_is_torchvisions_compiled_one(aligned):
    from torchvision.ops import roi_align as compiled

    from onebit.detection import plain_operators as operators

    torch.manual_seed(0)
    maps = torch.randn(2, 8, 32, 32, device="cuda")
    boxes, _ = random_boxes(64)
    rois = torch.cat([torch.arange(64).remainder(2)[:, None].float(), boxes], 1).cuda()
    expected = compiled(maps, rois, 7, 1 / 8, 2, aligned)
    found = torch.zeros_like(expected)
    operators.roi_align_forward(
        maps,
        rois,
        found,
        maps.new_zeros(0),
        maps.new_zeros(0),
        aligned_height=7,
        aligned_width=7,
        spatial_scale=1 / 8,
        sampling_ratio=2,
        pool_mode=1,
        aligned=aligned,
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
