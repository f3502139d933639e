"""What torch's compilers can do with the networks; ``docs/architecture.md`` states the same."""

import pytest
import torch

from onebit import backbones

#: One narrow network of each family and structure.
FAMILIES = {
    "resnet18_w8_reactnet": dict(out_indices=(0,)),
    "wrn22_w8_mcn": dict(out_indices=(1,)),
    "reactnet_a_w4": dict(out_indices=(0,)),
    "dcp_nas_c8_l3": dict(out_indices=(1,)),
    "darts_v2_c8_l3": dict(out_indices=(1,)),
}


def build(name):
    torch.manual_seed(0)
    network = backbones.create_backbone(name, stem="cifar", **FAMILIES[name])
    return network, torch.randn(2, 3, 12, 16)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


#: Maps in channels_last memory, as these networks use on CPUs, break the graph at every sign.
BROKEN = ("dcp_nas_c8_l3",)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_compiled_it_trains_alike(name):
    """``aot_eager`` takes the graph of forward and backward, without code of its own to blame."""
    network, images = build(name)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=name not in BROKEN)
    network.eval()
    with torch.no_grad():
        assert torch.equal(compiled(images)[0], network(images)[0])
    network.train()
    grads = []
    for forward in (network, compiled):
        network.zero_grad()
        (out,) = forward(images)
        out.square().sum().backward()
        grads.append({key: p.grad.clone() for key, p in network.named_parameters()})
    # Sums in another order: not bit for bit, and some of them are 0 but for rounding.
    largest = max(grad.abs().max().item() for grad in grads[0].values())
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("name", FAMILIES)
def test_traced_and_exported_it_predicts_alike(name):
    network, images = build(name)
    network.eval()
    with torch.no_grad():
        expected = network(images)[0]
        assert torch.equal(torch.jit.trace(network, images, check_trace=False)(images)[0], expected)
        assert torch.equal(torch.export.export(network, (images,)).module()(images)[0], expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_cannot_be_scripted(name):
    """TorchScript does not know ``tuple[int, ...]``: trace or export instead."""
    with pytest.raises(ValueError, match="tuple"):
        torch.jit.script(build(name)[0])
