"""What torch's compilers and exporters can do with the networks; ``docs/architecture.md`` states the same."""

import io

import pytest
import torch

from onebit import backbones
from onebit.backbones.binarization import BINARIZERS
from onebit.backbones.classifier import Classifier
from onebit.commons.compat import BY_TRACING, TORCH
from tests.backbones.covering import pairs

#: One narrow network of each family, as deep as its parts all occur.
FAMILIES = {
    "resnet18_w4_reactnet": dict(out_indices=(1,)),
    "resnet50_w4_xnor": dict(out_indices=(1,)),
    "resnet20_w4_bireal": dict(out_indices=(1,)),
    "vgg_small_w4_pcnn": dict(out_indices=(1,)),
    "wrn22_w4_mcn": dict(out_indices=(1,)),
    "reactnet_a_w4": dict(out_indices=(1,)),
    "dcp_nas_c4_l3": dict(out_indices=(1,)),
    "darts_v2_c4_l3": dict(out_indices=(1,)),
}
#: Of the fast tests.
FAST = ("resnet18_w4_reactnet", "reactnet_a_w4", "dcp_nas_c4_l3")
ANY_SIZE = pytest.mark.skipif(TORCH < (2, 5), reason="torch.export.Dim.AUTO came with torch 2.5")
ONE_GRAPH = pytest.mark.skipif(TORCH < (2, 4), reason="torch 2.1 breaks graphs at gradients of our own")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def fast(names):
    return [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in names]


def build(name, memory_format=torch.contiguous_format, **options):
    torch.manual_seed(0)
    network = backbones.create_backbone(name, **{"stem": "cifar", **FAMILIES.get(name, {}), **options})
    for norm in network.modules():  # untrained, sums of 0 would lie on the thresholds of signs, and fall either way
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    network.to(memory_format=memory_format)
    return network, torch.randn(2, 3, 12, 16).to(memory_format=memory_format)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(network, forward, images):
    network.zero_grad()
    sum(out.square().sum() for out in forward(images)).backward()
    return {key: p.grad.clone() for key, p in network.named_parameters()}


def trains_alike(network, images, **options):
    """``network`` as one graph, forward and backward, puts out what it does without."""
    compiled = torch.compile(network, fullgraph=True, **options)
    network.train()
    expected, found = (gradients(network, forward, images) for forward in (network, compiled))
    # Sums in another order: not bit for bit, and some of them are 0 but for rounding.
    largest = max(grad.abs().max().item() for grad in expected.values())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * largest)
    network.eval()
    with torch.no_grad():
        for ours, theirs in zip(compiled(images), network(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
            assert ours.is_contiguous() == theirs.is_contiguous()


@ONE_GRAPH
@pytest.mark.parametrize(
    ("binarizer", "memory_format"), [*((name, "contiguous") for name in BINARIZERS), ("reactnet", "channels_last")]
)
def test_a_convolution_is_one_graph(binarizer, memory_format):
    torch.manual_seed(0)
    conv = backbones.OneBitConv2d(8, 8, 3, padding=1, binarizer=binarizer, pad_value=0, pack_activations=True)
    unit = torch.nn.Sequential(conv, conv.binarizer.activation(8)).to(memory_format=FORMATS[memory_format])
    unit.forward = lambda x: (unit[1](unit[0](x)),)
    trains_alike(unit, torch.randn(2, 8, 6, 6).to(memory_format=FORMATS[memory_format]), backend="aot_eager")


@ONE_GRAPH
@pytest.mark.parametrize(
    ("name", "memory_format"),
    [
        ("resnet18_w4_reactnet", "contiguous"),
        ("dcp_nas_c4_l3", "channels_last"),
        *(pytest.param(name, kind, marks=pytest.mark.slow) for name in FAMILIES for kind in FORMATS),
    ],
)
def test_a_network_is_one_graph(name, memory_format):
    """``aot_eager`` takes the graph of forward and backward, without code of its own to blame."""
    trains_alike(*build(name, FORMATS[memory_format]), backend="aot_eager")


@ONE_GRAPH
@pytest.mark.parametrize(
    ("name", "binarizer"),
    pairs(
        ["resnet18_w4", "resnet50_w4", "resnet20_w4", "wrn22_w4", "vgg_small_w4", "reactnet_a_w4", "dcp_nas_c4_l3"],
        whole=["resnet20_w4"],
    ),
)
def test_a_network_of_any_binarizer_is_one_graph(name, binarizer):
    network, images = build(name, torch.channels_last, out_indices=(1,), binarizer=binarizer)
    trains_alike(network, images, backend="aot_eager")


@ONE_GRAPH
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet20_w4_reactnet", "vgg_small_w4_bireal", "wrn22_w4_mcn", "reactnet_a_w4", "dcp_nas_c4_l3"]
)
def test_inductors_code_trains_alike(name):
    """The compiler that ``torch.compile`` uses by default, whose code a C++ compiler has to take."""
    trains_alike(*build(name, out_indices=(1,) if name == "dcp_nas_c4_l3" else (0,)))


def predictions(network, images):
    with torch.no_grad():
        return network(images)


def predicts_alike(run, network, *batches):
    """The integer arithmetic, which is not in a graph, has sums in no other order: to float32's rounding."""
    for images in batches:
        for ours, theirs in zip(run(images), predictions(network, images), strict=True):
            torch.testing.assert_close(torch.as_tensor(ours), theirs, rtol=1e-4, atol=1e-5)


#: One with as many positions as the integer arithmetic takes, one of another size, odd.
BATCHES = (torch.randn(2, 3, 40, 32), torch.randn(3, 3, 27, 21))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trace_can_be_saved(name):
    network = build(name)[0].eval()
    traced, file = torch.jit.trace(network, BATCHES[0], check_trace=False), io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    predicts_alike(torch.jit.load(file), network, *BATCHES)


@ANY_SIZE
@pytest.mark.parametrize("name", fast(FAMILIES))
def test_exported_it_takes_any_batch_and_size(name):
    network, auto = build(name)[0].eval(), torch.export.Dim.AUTO
    program = torch.export.export(network, (BATCHES[0],), dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    predicts_alike(program.module(), network, *BATCHES)


@pytest.mark.parametrize("name", FAMILIES)
def test_symbolic_traces_keep_layers_whole_and_train(name):
    network, images = build(name)
    graph = torch.fx.symbolic_trace(network)
    kinds = {type(graph.get_submodule(node.target)) for node in graph.graph.nodes if node.op == "call_module"}
    assert name.startswith("darts") != (backbones.OneBitConv2d in kinds)
    assert gradients(network, graph, images).keys() == gradients(network, network, images).keys()
    predicts_alike(graph.eval(), network.eval(), *BATCHES)


def test_torchvision_extracts_features():
    from onebit.commons.compat import ensure_torchvision

    ensure_torchvision()
    from torchvision.models.feature_extraction import create_feature_extractor

    network, images = build("resnet18_w4_reactnet")
    extract = create_feature_extractor(network.eval(), {"layer1.0.unit1.conv": "sums"})
    sums = []
    network.layer1[0].unit1.conv.register_forward_hook(lambda module, args, out: sums.append(out))
    predictions(network, images)
    torch.testing.assert_close(predictions(extract, images)["sums"], sums[0])


@pytest.mark.parametrize("name", fast(FAMILIES))
@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=[pytest.mark.slow, ANY_SIZE])])
def test_onnx_takes_any_batch_and_size(name, dynamo, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if dynamo:
        pytest.importorskip("onnxscript")
        auto = torch.export.Dim.AUTO
        options = dict(dynamo=True, verbose=False, dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    else:
        options = dict(**BY_TRACING, dynamic_axes={"images": {0: "n", 2: "height", 3: "width"}})
    network = build(name)[0].eval()
    torch.onnx.export(network, (BATCHES[0],), tmp_path / "model.onnx", input_names=["images"], **options)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    predicts_alike(lambda images: session.run(None, {"images": images.numpy()}), network, *BATCHES)


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_in_the_memory_format_of_the_images(name):
    for training in (False, True):
        network, images = build(name)
        network.train(training)
        for out in network(images):
            assert out.is_contiguous()
        for out in network(images.to(memory_format=torch.channels_last)):
            assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(TORCH < (2, 4), reason="torch 2.1 fails with another error")
@pytest.mark.parametrize("name", FAST[:1])
def test_it_cannot_be_scripted(name):
    """TorchScript does not know ``tuple[int, ...]``: trace or export instead."""
    with pytest.raises(ValueError, match="tuple"):
        torch.jit.script(build(name)[0])


@ONE_GRAPH
def test_a_classifier_is_traced_and_exported():
    network = Classifier(build("reactnet_a_w4")[0], 10).eval()
    run = lambda graph: lambda images: (graph(images),)  # noqa: E731
    expected = run(network)
    predicts_alike(run(torch.jit.trace(network, BATCHES[0], check_trace=False)), expected, BATCHES[0])
    predicts_alike(run(torch.export.export(network, (BATCHES[0],)).module()), expected, BATCHES[0])
