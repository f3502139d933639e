"""A good backbone passes, and whatever can be wrong with one is found and named."""

import pytest
import torch
from torch import nn

from onebit import backbones
from onebit.backbones import Binarizer, Family, register_family
from onebit.backbones.backbone import Backbone
from onebit.backbones.binarization import ApproxSign, ClippedSign, ScaledSign, sign, sign_with
from onebit.backbones.conv import OneBitConv2d
from onebit.commons.errors import InputError
from onebit.commons.task import TASKS
from onebit.leaderboards import cli
from onebit.leaderboards.running.mock_run import mock_run


class Net(Backbone):
    """Four stages of one convolution; a subclass breaks one thing."""

    def __init__(
        self, out_indices=(0, 1, 2, 3), stem="imagenet", frozen_stages=-1, norm_eval=False, init_cfg=None, **_
    ):
        super().__init__(4, out_indices, frozen_stages, norm_eval, init_cfg)
        stride = 2 if stem == "imagenet" else 1
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride, 1), nn.BatchNorm2d(4))
        self.stages = nn.ModuleList(
            nn.Sequential(self.conv(i), nn.BatchNorm2d(4), nn.ReLU()) for i in range(self.out_indices[-1] + 1)
        )
        self.feature_channels = tuple(4 for _ in self.out_indices)
        self.feature_strides = tuple(stride * 2 ** (i + 1) for i in self.out_indices)

    def conv(self, stage):
        return nn.Conv2d(4, 4, 3, 2, 1)

    def frozen_modules(self, stages):
        return [self.stem, *self.stages[:stages]]

    def forward(self, x):
        x = self.stem(x)
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)


class WrongChannels(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.feature_channels = tuple(5 for _ in self.out_indices)


class WrongStrides(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.feature_strides = tuple(2 * s for s in self.feature_strides)


class NoStem(Net):
    def __init__(self, out_indices=(0, 1, 2, 3), init_cfg=None):
        super().__init__(out_indices=out_indices)


class NoStrides(Net):
    def __init__(self, **options):
        super().__init__(**options)
        del self.feature_strides


class ReturnsList(Net):
    def forward(self, x):
        return list(super().forward(x))


class Unused(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.extra = nn.Linear(2, 2)


class Detached(Net):
    def forward(self, x):
        stem, self.stem = self.stem, nn.Identity()
        try:
            return super().forward(stem(x).detach())
        finally:
            self.stem = stem


class Frozen(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.stem.requires_grad_(False)


class Noisy(Net):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


class Counts(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class BatchDependent(Net):
    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


class Forgetful(Net):
    def __init__(self, **options):
        super().__init__(**options)
        self.scale = torch.rand(1)

    def forward(self, x):
        return super().forward(x * self.scale.to(x))


class NotFinite(Net):
    def forward(self, x):
        return tuple(m * float("inf") for m in super().forward(x))


class TwoBits(nn.Module):
    """States one bit and puts out three values."""

    precision = 1

    def __init__(self, channels):
        super().__init__()

    def forward(self, x):
        return x + ((9 * x).clamp(-1, 1).round() - x).detach()


class SignLike(TwoBits):
    def forward(self, x):
        return x + (sign(x) - x).detach()


class WrongQuantizer(Net):
    def conv(self, stage):
        name = Binarizer("odd", "test", input=TwoBits, weight=ScaledSign)
        return OneBitConv2d(4, 4, 3, 2, 1, binarizer=name)


class WrongWeights(Net):
    def conv(self, stage):
        name = Binarizer("odd", "test", input=SignLike, weight=TwoBits)
        return OneBitConv2d(4, 4, 3, 2, 1, binarizer=name)


class WithQuantizer(Net):
    """Its 1-bit convolutions have the quantizer of activations ``kind``."""

    kind = SignLike

    def conv(self, stage):
        name = Binarizer("odd", "test", input=self.kind, weight=ScaledSign)
        return OneBitConv2d(4, 4, 3, 2, 1, binarizer=name)


class NoisyInTraining(WithQuantizer):
    class kind(ApproxSign):
        def forward(self, x):
            return self.sign(x) + (0.1 * x if self.training else 0)


class DependsOnProgress(WithQuantizer):
    class kind(ApproxSign):
        def forward(self, x):
            return self.sign(x - self.progress)


class InfiniteAtTheEnd(WithQuantizer):
    kind = staticmethod(sign_with(lambda x, progress: torch.ones_like(x) / (1 - progress)))


class Shifted(WithQuantizer):
    class kind(ApproxSign):
        def forward(self, x):
            return self.sign(x - 0.5)


class ForgetsWhatItPacks(WithQuantizer):
    class kind(ApproxSign):
        def forward(self, x):
            return self.sign(2 * x if self.pack else x)


class OtherSlope(WithQuantizer):
    class kind(ClippedSign):
        def slope(self, x):
            return torch.ones_like(x)


class Uncounted(Net):
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4, 1, 1))

        def forward(self, x):
            return torch.nn.functional.conv2d(x, self.weight, stride=2)

    def conv(self, stage):
        return self.Layer()


class Raises(Net):
    def forward(self, x):
        if x.shape[-1] % 2:
            raise RuntimeError("sizes do not match")
        return super().forward(x)


BROKEN = {
    WrongChannels: ("feature_channels", "5 channels at stride 4 were stated"),
    WrongStrides: ("feature_channels", "4 channels at stride 8 were stated"),
    NoStem: ("is built", "the tasks pass stem='cifar'"),
    NoStrides: ("is built", "expected feature_strides"),
    ReturnsList: ("feature_channels", "to return a tuple of maps, found a list"),
    Unused: ("gradients", "the gradient of extra.weight does not exist; so it is with 1 more"),
    Detached: ("gradients", "does not exist"),
    Frozen: ("gradients", "stem.0.weight does not require a gradient"),
    Noisy: ("evaluation", "the same images twice in eval mode give different maps"),
    Counts: ("evaluation", "calls changes while the network is only evaluated"),
    BatchDependent: ("evaluation", "depends on what else is in its batch"),
    Forgetful: ("weights", "in neither parameters nor buffers"),
    NotFinite: ("feature_channels", "is not finite"),
    WrongQuantizer: ("quantizers", "1-bit activations must be -1 and +1"),
    WrongWeights: ("quantizers", "its weights state 1 bit, but a filter has 3 different values"),
    NoisyInTraining: ("quantizers", "1-bit activations must be -1 and +1"),
    DependsOnProgress: ("progress", "in eval mode depends on the progress of the training"),
    InfiniteAtTheEnd: ("progress", "is not finite when 100% of the training have passed"),
    Shifted: ("packed", "kind is not +1 above its threshold and -1 at and below it"),
    ForgetsWhatItPacks: ("packed", "its gradient is another one when activations are kept in bits"),
    OtherSlope: ("curvature", "the slope of its quantizer of activations is not that of its gradient"),
    Uncounted: ("cost", "Layer"),
    Raises: ("feature_channels", "RuntimeError: sizes do not match (test_mock_run.py, line"),
}


@pytest.fixture
def register(monkeypatch):
    """Make a class known as ``net`` for one test."""

    def add(cls):
        import onebit.backbones.registry as registry

        backbones.list_backbones()  # the suite's own first
        monkeypatch.setattr(registry, "_FAMILIES", list(registry._FAMILIES))
        monkeypatch.setitem(backbones.MODELS._module_dict, "MockNet", cls)
        register_family(Family("MockNet", lambda: ["net"], lambda n: {} if n == "net" else None))

    return add


def results(tmp_path, tasks=()):
    return list(mock_run("net", list(tasks), tmp_path / "data", tmp_path / "work"))


def test_a_sound_backbone_passes(register, tmp_path):
    register(Net)
    found = results(tmp_path)
    assert len(found) == 10
    assert all(r.ok for r in found), [r.text for r in found if not r.ok]


@pytest.mark.parametrize("cls", BROKEN, ids=lambda c: c.__name__)
def test_what_is_broken_is_named(register, tmp_path, cls):
    register(cls)
    where, message = BROKEN[cls]
    failed = [r for r in results(tmp_path) if not r.ok]
    assert failed[0].name.startswith(where), [f"{r.name}: {r.text}" for r in failed]
    assert message in failed[0].text
    assert "\n" not in failed[0].text


def test_unknown_name(tmp_path):
    with pytest.raises(InputError, match="unknown backbone"):
        list(mock_run("resnet81", [], tmp_path, tmp_path))


def test_tasks_that_do_not_exist(capsys):
    assert cli.main(["mock-run", "resnet18_w8", "--tasks", "segmentation"]) == 2
    assert "--tasks takes some of" in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_a_task(register, tmp_path, task):
    register(Net)
    (found,) = [r for r in results(tmp_path, [task]) if r.name == task]
    assert found.ok, found.text
    assert "again from the checkpoint" in found.text


def test_a_task_that_fails_is_named(register, tmp_path):
    class FailsInTraining(Net):
        def forward(self, x):
            if self.training and len(x) > 4:
                raise ValueError("too many images")
            return super().forward(x)

    register(FailsInTraining)
    found = results(tmp_path, ["classification"])
    assert [r.name for r in found if not r.ok] == ["classification"]
    assert "ValueError: too many images" in found[-1].text


@pytest.mark.slow
def test_the_command(capsys):
    assert cli.main(["mock-run", "resnet18_w8_reactnet"]) == 0
    out = capsys.readouterr().out
    assert "everything holds" in out
    assert out.count("ok ") == 13


def test_noise_that_is_stated_is_taken(register, tmp_path):
    class Stated(NoisyInTraining):
        class kind(NoisyInTraining.kind):
            @property
            def exact(self):
                return not self.training

    register(Stated)
    assert [result.text for result in results(tmp_path) if not result.ok] == []
