"""The packed file: complete, small, and refused whenever it is not what it says."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

import backbones
from backbones.classifier import Classifier
from backbones.packed import file
from backbones.packed.deploy import deploy
from commons.errors import InputError

NAME = "resnet18_w16_reactnet"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    packed = deploy(Classifier(backbones.create_backbone(NAME, out_indices=(3,)), 10))
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    return packed, file.save(packed, file.description(NAME, 10, out_indices=(3,)), path)


def test_round_trip(written) -> None:
    packed, path = written
    loaded, about = file.load(path)
    assert about["classes"] == 10
    x = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(loaded(x), packed(x))


@pytest.mark.parametrize("name", ["resnet18_reactnet", "dcp_nas_s", "dcp_nas_m", "dcp_nas_l"])
def test_size_is_within_five_percent_of_strict_memory(name: str, tmp_path) -> None:
    network = Classifier(backbones.create_backbone(name, out_indices=(3,)), 1000)
    path = tmp_path / "net.safetensors"
    file.save(deploy(network), file.description(name, 1000, out_indices=(3,)), path)
    strict = backbones.cost(name, classes=1000).memory_bits
    assert path.stat().st_size * 8 == pytest.approx(strict, rel=0.05)


@pytest.mark.parametrize("real", ["float16", "int8"])
def test_smaller_real_weights(written, real: str, tmp_path) -> None:
    packed, path = written
    small = file.save(
        packed, file.description(NAME, 10, out_indices=(3,)), tmp_path / "small.safetensors", real
    )
    assert small.stat().st_size < 0.8 * path.stat().st_size
    loaded, _ = file.load(small)
    for (name, a), b in zip(packed.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert a.dtype == b.dtype
        if a.dtype == torch.int64:
            assert torch.equal(a, b), name
        else:
            assert (a - b).abs().max() <= 0.01 * a.abs().max(), name


def test_a_cell_file_is_part_of_the_packed_file(tmp_path) -> None:
    cell = tmp_path / "cell.json"
    backbones.cells.load_cell("dcp_nas_imagenet").save(cell)
    network = backbones.create_backbone(str(cell), channels=8, layers=4, out_indices=(3,))
    about = file.description(str(cell), channels=8, layers=4, out_indices=(3,))
    path = file.save(deploy(network), about, tmp_path / "net.safetensors")
    cell.unlink()
    loaded, _ = file.load(path)
    assert loaded.genotype == backbones.cells.load_cell("dcp_nas_imagenet")


def test_the_description_must_fit(written, tmp_path) -> None:
    packed, _ = written
    with pytest.raises(InputError, match="does not fit"):
        file.save(packed, file.description(NAME, 11, out_indices=(3,)), tmp_path / "x")
    with pytest.raises(InputError, match="float64"):
        file.save(packed, file.description(NAME, 10, out_indices=(3,)), tmp_path / "x", "float64")
    assert not (tmp_path / "x").exists()


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_changed_byte_is_found(written, data, tmp_path) -> None:
    _, path = written
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    changed = tmp_path / "changed.safetensors"
    changed.write_bytes(content)
    with pytest.raises(InputError):
        file.load(changed)


@given(length=st.integers(0, 3000))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_truncated_file_is_refused(written, length: int, tmp_path) -> None:
    _, path = written
    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[: -1 - length])
    with pytest.raises(InputError):
        file.load(short)


def test_what_is_no_packed_file(tmp_path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(save({"x": torch.zeros(2)}))
    with pytest.raises(InputError, match="not a packed file of this suite"):
        file.load(other)
    other.write_bytes(b"hello")
    with pytest.raises(InputError, match="not a packed file"):
        file.load(other)
    with pytest.raises(InputError, match="not found"):
        file.load(tmp_path / "missing")


def rewritten(path, target, change):
    """The file with its description changed, everything else as it was."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"]["onebit"])
    change(about)
    header["__metadata__"]["onebit"] = json.dumps(about, sort_keys=True)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(version=2), "expected onebit-packed version 1"),
        (lambda a: a.update(classes=10**9), "its description"),
        (lambda a: a.update(classes=True), "its description"),
        (lambda a: a.update(extra=1), "its description"),
        (lambda a: a["backbone"].update(width=10**12), "beyond"),
        (lambda a: a["backbone"].update(width=32), "its network has"),
        (lambda a: a["backbone"].update(width="16"), "width"),
        (lambda a: a["backbone"].update(depth=34), "missing"),
        (lambda a: a["backbone"].update(type="mmdet.ResNet"), "unknown network"),
        (lambda a: a["backbone"].update(type="builtins.eval"), "unknown network"),
        (lambda a: a["backbone"].update(init_cfg=dict(checkpoint="http://x")), "init_cfg"),
        (lambda a: a["backbone"].update(binarizer=None), "no 1-bit convolution"),
        (lambda a: a["backbone"].update(binarizer=["reactnet"]), "builds no network"),
    ],
)
def test_a_hostile_description_is_refused(written, tmp_path, change, message: str) -> None:
    _, path = written
    with pytest.raises(InputError, match=message):
        file.load(rewritten(path, tmp_path / "x.safetensors", change))


def test_a_cell_net_of_absurd_depth_is_refused(tmp_path) -> None:
    network = backbones.create_backbone("dcp_nas_c8", out_indices=(3,))
    about = file.description("dcp_nas_c8", out_indices=(3,))
    path = file.save(deploy(network), about, tmp_path / "net.safetensors")
    for change, message in (
        (lambda a: a["backbone"].update(layers=60000), "60000 layers"),
        (lambda a: a["backbone"].update(arch="/etc/passwd.json"), "names no other file"),
    ):
        with pytest.raises(InputError, match=message):
            file.load(rewritten(path, tmp_path / "x.safetensors", change))
