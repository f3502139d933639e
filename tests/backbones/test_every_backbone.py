"""What holds for every backbone on the list, whatever its family."""

import io

import pytest
import torch
from torch import nn

import backbones
from commons.errors import InputError

NAMES = backbones.list_backbones()
#: The stem does not depend on the width: the narrow ones stand for all.
NARROW = [name for name in NAMES if "_w" in name or "_c" in name]
#: One of each kind is enough for what does not depend on width and depth.
SMALL = [name for name in NAMES if name.startswith(("resnet18_w16", "dcp_nas_c"))]
#: The real-valued ones of these.
REAL = ("resnet18_w16", "dcp_nas_c8_real")


def batch_norms(network):
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def buffers(module):
    return {name: value.clone() for name, value in module.named_buffers()}


def check_maps(network, maps, size):
    assert isinstance(maps, tuple)
    assert len(maps) == len(network.feature_channels) == len(network.feature_strides)
    for out, channels, stride in zip(
        maps, network.feature_channels, network.feature_strides, strict=True
    ):
        assert out.shape[1:] == (channels, size[0] // stride, size[1] // stride)
        assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    ("name", "stem"),
    [*((name, "imagenet") for name in NAMES), *((name, "cifar") for name in NARROW)],
)
def test_backbone(name, stem):
    sizes = {"imagenet": [(64, 96), (96, 64)], "cifar": [(16, 24), (24, 16)]}[stem]
    torch.manual_seed(0)
    network = backbones.create_backbone(name, stem=stem)
    assert list(network.feature_strides) == sorted(network.feature_strides)

    network.train()
    images = torch.randn(2, 3, *sizes[0])
    maps = network(images)
    check_maps(network, maps, sizes[0])
    sum((out * torch.randn_like(out)).sum() for out in maps).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {parameter_name}"
        assert torch.isfinite(parameter.grad).all(), parameter_name
        # What is below 0 is cut off right behind this PReLU: its slope decides nothing. And what
        # scales a whole layer is undone by the batch norm behind it.
        idle = parameter_name.endswith(
            ("quantize_weight.amplitude", "quantize_weight.reconstruction")
        )
        idle |= "_dorefa" in name and "prelu_depthwise" in parameter_name
        assert idle or parameter.grad.abs().sum() > 0, f"the gradient of {parameter_name} is zero"

    network.eval()
    with torch.no_grad():
        images = torch.randn(1, 3, *sizes[1])
        maps = network(images)
        check_maps(network, maps, sizes[1])
        for once, again in zip(maps, network(images), strict=True):
            assert torch.equal(once, again)

    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    stream.seek(0)
    torch.manual_seed(1)
    copy = backbones.create_backbone(name, stem=stem).eval()
    copy.load_state_dict(torch.load(stream, weights_only=True))
    with torch.no_grad():
        for ours, theirs in zip(maps, copy(images), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("out_indices", [(0,), (1, 3), [2], (0, 1, 2)])
def test_subset_of_scales(name, out_indices):
    network = backbones.create_backbone(name, out_indices=out_indices)
    whole = backbones.create_backbone(name)
    maps = network(torch.randn(2, 3, 64, 64))
    check_maps(network, maps, (64, 64))
    assert network.feature_channels == tuple(whole.feature_channels[i] for i in out_indices)
    assert network.feature_strides == tuple(whole.feature_strides[i] for i in out_indices)
    sum(out.square().mean() for out in maps).backward()
    assert all(p.grad is not None for p in network.parameters())  # none is built in vain
    # What is there has the whole network's names, so that its weights can be loaded.
    assert set(network.state_dict()) <= set(whole.state_dict())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    "arguments",
    [
        dict(out_indices=(4,)),
        dict(out_indices=(-1,)),
        dict(out_indices=()),
        dict(out_indices=(1, 0)),
        dict(out_indices=(1, 1)),
        dict(frozen_stages=-2),
        dict(frozen_stages=5),
        dict(stem="mnist"),
    ],
    ids=str,
)
def test_argument_out_of_range(name, arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        backbones.create_backbone(name, **arguments)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("frozen_stages", [0, 2, 4])
def test_frozen_stages(name, frozen_stages):
    torch.manual_seed(0)
    network = backbones.create_backbone(name, frozen_stages=frozen_stages)
    frozen = list(network.frozen_modules(frozen_stages))
    frozen_parameters = {id(p) for module in frozen for p in module.parameters()}
    assert frozen_parameters
    assert len(frozen) > len(list(network.frozen_modules(0))) or frozen_stages == 0

    network.eval()
    network.train()  # what every epoch does
    before = [buffers(module) for module in frozen]
    maps = network(torch.randn(2, 3, 64, 64) + 1)
    for module, old in zip(frozen, before, strict=True):
        assert not any(m.training for m in module.modules())
        for key, value in module.named_buffers():
            assert torch.equal(value, old[key])
    for parameter in network.parameters():
        assert parameter.requires_grad == (id(parameter) not in frozen_parameters)
    free = [norm for norm in batch_norms(network) if norm.training]
    if frozen_stages < 4:
        assert free
        assert all(norm.num_batches_tracked == 1 for norm in free)
        sum(out.square().mean() for out in maps).backward()
        assert all((p.grad is None) == (id(p) in frozen_parameters) for p in network.parameters())
    else:
        assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_norm_eval(name):
    network = backbones.create_backbone(name, norm_eval=True)
    network.train()
    assert network.training
    assert batch_norms(network)
    assert not any(norm.training for norm in batch_norms(network))
    assert all(p.requires_grad for p in network.parameters())
    default = backbones.create_backbone(name).train()
    assert all(norm.training for norm in batch_norms(default))


@pytest.mark.parametrize("name", SMALL)
def test_pretrained_weights_are_loaded(name, tmp_path):
    torch.manual_seed(0)
    source = backbones.create_backbone(name)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pth")
    torch.manual_seed(1)
    network = backbones.create_backbone(
        name, init_cfg=dict(type="Pretrained", checkpoint=str(tmp_path / "weights.pth"))
    )
    assert any(
        not torch.equal(a, b)
        for a, b in zip(network.parameters(), source.parameters(), strict=True)
    )
    network.init_weights()
    for key, value in network.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


@pytest.mark.parametrize("name", [name for name in SMALL if name not in REAL])
def test_quantized_layers_have_their_bits(name):
    """A hook sees the activations of every such convolution as they enter the arithmetic."""
    network = backbones.create_backbone(name).eval()
    convs = [m for m in network.modules() if isinstance(m, backbones.OneBitConv2d)]
    assert convs
    seen = []
    for conv in convs:
        if conv.quantize_input is not None:
            conv.quantize_input.register_forward_hook(
                lambda module, args, out: seen.append(
                    (module.precision, set(out.unique().tolist()))
                )
            )
    with torch.no_grad():
        network(torch.randn(1, 3, 64, 64))
    assert len(seen) == sum(conv.input_bits < 32 for conv in convs)
    assert bool(seen) != name.endswith("w1a32")
    for bits, values in seen:
        assert values <= {-1.0, 1.0} if bits == 1 else len(values) <= 2**bits
    assert all(conv.weight_bits < 32 for conv in convs)
