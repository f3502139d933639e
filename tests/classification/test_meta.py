"""Steps of a training and of searches on the meta device, see ``tests/backbones/test_meta.py``."""

import pytest
import torch

from onebit.backbones import create_backbone
from onebit.classification.distillation import LOSSES, Distillation
from onebit.classification.model import ImageClassifier
from onebit.classification.search.space import SearchSpace
from onebit.classification.search.strategies import Report, Schedule, get_strategy

META = torch.device("meta")
SPACE = SearchSpace(3, cells=3, channels=4, operations=("none", "skip_connect", "max_pool_3x3", "dil_conv_3x3"))


def classifier(backbone, **options):
    backbone = dict(type="onebit.create_backbone", name=backbone, out_indices=(3,), stem="cifar")
    return ImageClassifier(backbone, num_classes=3, **options)


def images_and_labels(size=8):
    return torch.zeros(2, 3, size, size, device=META), torch.zeros(2, dtype=torch.long, device=META)


@pytest.mark.parametrize("loss", LOSSES)
def test_distillation(loss, tmp_path):
    teacher = classifier("resnet18_w4")
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    student = classifier("resnet18_w4_reactnet", label_smoothing=0.1)
    student.distillation = Distillation(3, str(tmp_path / "teacher.pth"), "resnet18_w4", loss, weight=0.5)
    losses = student.to(META)(*images_and_labels(16), mode="loss")
    assert losses.keys() == {"loss_main", "loss_distillation"}
    sum(losses.values()).backward()
    assert all(p.grad.is_meta for p in student.parameters())


def test_auxiliary_head_and_losses_of_features():
    model = classifier("dcp_nas_c4_l3_bonn", auxiliary_weight=0.4, channels_last=True).to(META)
    losses = model(*images_and_labels(16), mode="loss")
    sum(losses.values()).backward()
    assert {"loss_main", "loss_auxiliary"} & losses.keys()


def strategy(method, **options):
    with META:
        return get_strategy(method)(SPACE, options, Schedule(epochs=2))


@pytest.mark.parametrize("options", [dict(), dict(binarizer="mcn", decoupled=True)], ids=str)
@pytest.mark.parametrize("method", ["darts", "pc-darts"])
def test_steps_of_darts(method, options):
    if method == "pc-darts":
        options = dict(k=2, **{k: v for k, v in options.items() if k != "decoupled"})
    search = strategy(method, **options)
    losses = [step(images_and_labels(), Report()) for step in (search.architecture_step, search.training_step)]
    assert all(loss.is_meta for loss in losses)


@pytest.mark.parametrize(
    "curvature", ["ggn", *(pytest.param(c, marks=pytest.mark.slow) for c in ("fisher", "hessian"))]
)
def test_steps_of_dcp_nas(curvature):
    search = strategy("dcp-nas", curvature=curvature)
    losses = [search.parent_step(images_and_labels(), Report())]
    losses += [search.parent_architecture_step(images_and_labels(), Report())]
    losses += search.child_step(images_and_labels(), Report()).values()
    losses += search.child_architecture_step(images_and_labels(), Report()).values()
    assert len(losses) == 7
    assert all(loss.is_meta for loss in losses)


@pytest.mark.parametrize("method", ["random", "cp-nas", "abanditnas", "bnas"])
def test_steps_of_a_sampled_architecture(method):
    """Which one is drawn on the CPU, and read there."""
    search, batch = strategy(method), images_and_labels()
    choice, reports = torch.arange(28).view(2, 14) % len(SPACE.operations), []

    class Data:
        train = [batch]  # noqa: RUF012

    class Losses(Report):
        def __call__(self, losses, images):
            reports.append(losses)

    if method == "random":
        search.performance.give = lambda choice, value: None
        search.evaluate = lambda *_, **__: 0.0
        Data.evaluation = []
        search.epoch(0, Data, Losses())
    elif method == "cp-nas":
        search._train_both(choice, Data, Losses())
    else:
        search.train_path(search.supernet, choice, Data, Losses())
    assert all(loss.is_meta for losses in reports for loss in losses.values())
    assert reports


@pytest.mark.parametrize("kernels", ["xnor", "pcnn"])
def test_steps_of_bnas_by_pc_darts(kernels):
    search, batch = strategy("bnas", kernels=kernels, version="w1a32"), images_and_labels()
    active = torch.ones(SPACE.shape, dtype=torch.bool)
    active[:, :, 0] = False
    assert search._architecture_step(batch, Report(), active).is_meta
    search.weight_step(
        search.supernet,
        search.optimizers()["weights"],
        lambda: search._mixed_loss(batch, search.alpha.detach(), search.beta.detach(), active),
        Report(),
    )


def test_the_meta_device_has_no_data_to_read():
    """What these tests rest on."""
    network = create_backbone("resnet18_w4")
    with pytest.raises((RuntimeError, NotImplementedError)):
        network.to(META)(torch.zeros(1, 3, 64, 64))[0].sum()
    for read in (torch.Tensor.nonzero, torch.Tensor.item, torch.Tensor.tolist, bool):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(torch.zeros(1, device=META))
