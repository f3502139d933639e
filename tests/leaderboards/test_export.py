"""`onebit export`: what the file holds is the network that was named."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from onebit import backbones
from onebit.backbones import packed
from onebit.backbones.classifier import Classifier
from onebit.commons.engine import ROW
from onebit.commons.mini import classification as mini_classification
from onebit.commons.mini import detection as mini_detection
from onebit.commons.mini import draw
from onebit.leaderboards import cli
from onebit.leaderboards.running.sources import load_network
from onebit.packed import runtime

NAME = "resnet18_w8_reactnet"


def onebit(*arguments) -> int:
    try:
        return cli.main(list(map(str, arguments)))
    except SystemExit as stop:
        return stop.code


def train(task: str, dataset: str, root: Path, *options: str) -> Path:
    folder = root / "run"
    assert (
        onebit(
            "train",
            task,
            "--dataset",
            dataset,
            "--backbone",
            NAME,
            "--data",
            root / "data",
            "--work-dir",
            folder,
            "--cfg-options",
            *options,
        )
        == 0
    )
    return folder / "epoch_1.pth"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("classification")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mini_classification, "CIFAR_TRAIN", 40)
        patch.setattr(mini_classification, "CIFAR_TEST", 20)
        (root / "data/mini-cifar10").mkdir(parents=True)
        draw("mini-cifar10", root / "data/mini-cifar10")
    return train(
        "classification",
        "mini-cifar10",
        root,
        "train_cfg.max_epochs=1",
        "train_dataloader.batch_size=20",
        "model.backbone.pad_value=-1",
    )


def same(network, path: Path, *shape: int) -> None:
    """The packed file puts out what ``network`` does."""
    loaded, _ = packed.load(path)
    images = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = network.eval()(images), loaded(images)
    pairs = [(expected, found)] if torch.is_tensor(found) else zip(expected, found, strict=True)
    for a, b in pairs:
        # A value within rounding of a threshold may take the other sign.
        assert ((a - b).abs() > 1e-3 * a.abs().max()).float().mean() < 0.05


def below(prefix: str, weights: dict) -> dict:
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def test_of_a_classification_checkpoint(classifier, tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    assert onebit("export", classifier, "--to", "packed", path) == 0
    said = capsys.readouterr().out
    megabits = path.stat().st_size * 8 / 1e6
    assert said.startswith(f"{path}: {megabits:.2f} Mbit ")
    assert "untrained" not in said
    network = Classifier(backbones.create_backbone(NAME, out_indices=(3,), stem="cifar", pad_value=-1), 10)
    weights = torch.load(classifier, weights_only=True)["state_dict"]
    network.load_state_dict({k: v for k, v in weights.items() if k.startswith(("backbone.", "classifier."))})
    same(network, path, 32, 32)
    about = packed.load(path)[1]
    assert about["backbone"]["pad_value"] == -1
    alone = runtime.load(path)
    assert (alone.sizes, alone.classes) == ([(32, 32)], about["prediction"]["classes"])


def test_of_a_detection_checkpoint(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        few = {"VOC2007 trainval": 2, "VOC2012 trainval": 2, "VOC2007 test": 2}
        patch.setattr(mini_detection, "_COUNTS", {**mini_detection._COUNTS, **few})
        draw("mini-voc", tmp_path / "data/mini-voc")
    checkpoint = train(
        "detection",
        "mini-voc",
        tmp_path,
        "train_cfg.max_epochs=1",
        "train_dataloader.batch_size=4",
        "model.backbone.frozen_stages=0",
    )
    path = tmp_path / "net.safetensors"
    assert onebit("export", checkpoint, "--to", "packed", path) == 0
    network = backbones.create_backbone(NAME)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    network.load_state_dict(below("backbone.", weights))
    same(network, path, 96, 64)
    about = packed.load(path)[1]
    assert about["classes"] is None
    assert about["backbone"]["out_indices"] == [0, 1, 2, 3]


@pytest.mark.slow
def test_of_a_reid_checkpoint(tmp_path):
    draw("mini-market1501", tmp_path / "data/mini-market1501")
    checkpoint = train(
        "reid",
        "mini-market1501",
        tmp_path,
        "epochs=1",
        "height=64",
        "width=32",
        "score_untrained=False",
        "model.last_stride=1",
        "model.backbone_options.pad_value=1",
    )
    path = tmp_path / "net.safetensors"
    assert onebit("export", checkpoint, "--to", "packed", path) == 0
    network = backbones.create_backbone(NAME, out_indices=(3,), last_stride=1, pad_value=1)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    network.load_state_dict(below("embedding.backbone.", weights))
    same(network, path, 64, 32)
    assert packed.load(path)[0].feature_strides == (16,)


def test_of_a_name(tmp_path, capsys):
    sizes = {}
    for real in ("float32", "float16", "int8"):
        path = tmp_path / f"{real}.safetensors"
        assert onebit("export", NAME, path, "--classes", 10, "--stem", "cifar", "--real", real) == 0
        said = capsys.readouterr().out
        assert "its weights are untrained" in said
        sizes[real] = path.stat().st_size
        share = float(re.search(r"takes ([\d.]+) of it", said)[1])
        strict = backbones.cost(NAME, (3, 32, 32), classes=10, out_indices=(3,), stem="cifar")
        assert share == pytest.approx(sizes[real] * 8 / strict.memory_bits, abs=1e-3)
        assert packed.load(path)[1]["real"] == real
    assert sizes["int8"] < sizes["float16"] < sizes["float32"]


def test_plans(tmp_path, capsys):
    path = tmp_path / "net.safetensors"
    for options, sizes in (
        (["--plan", 32, 40, "--plan", 33, 33], [(32, 40), (33, 33)]),
        (["--stem", "cifar"], [(32, 32)]),
        (["--input", 64, 48], [(64, 48)]),
    ):
        assert onebit("export", NAME, path, "--classes", 3, *options) == 0
        said = ", ".join(f"{height}x{width}" for height, width in sizes)
        assert f"without torch, on images of {said}" in capsys.readouterr().out
        assert runtime.load(path).sizes == sizes
    assert onebit("export", NAME, path, "--no-plan") == 0
    assert "without torch" not in capsys.readouterr().out
    assert "plans" not in packed.about_of(path)


@pytest.fixture
def network(classifier):
    return load_network(str(classifier))[0]


def close(found, network) -> None:
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(image)
    assert (torch.from_numpy(found(image.numpy())) - expected).norm() < 0.02 * expected.norm()


def test_onnx(classifier, network, tmp_path, capsys):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    assert onebit("export", classifier, "--to", "onnx", path) == 0
    assert "32-bit weights and arithmetic" in capsys.readouterr().out
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 32, 32]
    close(lambda image: session.run(None, {"images": image})[0], network)


def test_openvino(classifier, network, tmp_path, capsys):
    pytest.importorskip("onnx")
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "net.xml"
    assert onebit("export", classifier, "--to", "openvino", path) == 0
    assert "OpenVINO's 1-bit convolution is not used: " in capsys.readouterr().out
    assert path.with_suffix(".bin").stat().st_size > 1000
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    close(lambda image: compiled({0: image})[0], network)


@pytest.mark.parametrize("size", [("1", "1"), ("61", "47")])
def test_onnx_of_another_size(tmp_path, size):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    assert onebit("export", NAME, "--to", "onnx", path, "--input", *size) == 0
    shape = runtime.InferenceSession(str(path)).get_inputs()[0].shape
    assert shape == [1, 3, *map(int, size)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18_w8"], "no 1-bit convolution to pack"),
        (["resnet18_w8_dorefa2"], "has no packed form"),
        (["resnet18_w8_dorefa2", "--to", "onnx"], "more than one magnitude"),
        (["resnet81"], "unknown backbone"),
        ([NAME, "--classes", "0"], "expected a whole number from 1 up"),
        ([NAME, "--to", "onnx", "--real", "int8"], "--real int8 goes with --to packed only"),
        ([NAME, "--to", "onnx", "--input", "0", "5"], "0: expected a whole number from 1 up"),
        ([NAME, "--to", "onnx", "--plan", "8", "8"], "--plan and --no-plan go with --to packed"),
        ([NAME, "--plan", "8", "8", "--no-plan"], "--plan and --no-plan exclude each other"),
        ([NAME, "--plan", "0", "5"], "0: expected a whole number from 1 up"),
        ([NAME, "--to", "openvino"], "needs a name that ends in .xml"),
        ([NAME, "--to", "nothing"], "invalid choice"),
        (["net.safetensors"], "is a packed file already"),
        (["none.pth"], "checkpoint not found: none.pth"),
        (["other.pth"], "was not written by this suite's trainer"),
        (["noise.pth"], "is not a checkpoint that can be read"),
        (["bare.pth"], "does not say its backbone, dataset"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else "",
)
def test_wrong_input_gets_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    if "openvino" in arguments:
        pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}}, "other.pth")
    torch.save({"state_dict": {}, ROW: {"task": "detection"}}, "bare.pth")
    Path("noise.pth").write_bytes(b"noise")
    code = onebit("export", *arguments, *([] if "--to" in arguments else ["--to", "packed"]), "out")
    err = capsys.readouterr().err
    assert code == 2
    assert message in err
    assert err.startswith("onebit: ")
    assert err.count("\n") == 1
    assert not Path("out").exists()


def test_classes_are_the_checkpoints_own(classifier, tmp_path, capsys):
    assert onebit("export", classifier, tmp_path / "x", "--classes", 3) == 2
    assert "--classes goes with a backbone's name" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "package"), [("onnx", "onnx"), ("openvino", "openvino")])
def test_a_missing_package_is_named(form, package, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a))
    path = tmp_path / "net.xml"
    assert onebit("export", NAME, "--to", form, path) == 2
    assert f"pip install {package}" in capsys.readouterr().err
    assert not path.exists()


def test_an_unwritable_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert onebit("export", NAME, tmp_path / "file" / "net.safetensors") == 1
    assert capsys.readouterr().err.count("\n") == 1
