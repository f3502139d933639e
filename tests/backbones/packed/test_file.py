"""The packed file: complete, small, and refused whenever it is not what it says."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from onebit import backbones
from onebit.backbones.classifier import Classifier
from onebit.backbones.packed import file
from onebit.backbones.packed.deploy import deploy
from onebit.commons.errors import InputError

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


@pytest.mark.parametrize(
    "name",
    [
        "resnet18_reactnet",
        "dcp_nas_m",
        pytest.param("dcp_nas_s", marks=pytest.mark.slow),
        pytest.param("dcp_nas_l", marks=pytest.mark.slow),
    ],
)
def test_size_is_within_five_percent_of_strict_memory(name: str, tmp_path) -> None:
    network = Classifier(backbones.create_backbone(name, out_indices=(3,)), 1000)
    path = tmp_path / "net.safetensors"
    file.save(deploy(network), file.description(name, 1000, out_indices=(3,)), path)
    strict = backbones.cost(name, classes=1000).memory_bits
    assert path.stat().st_size * 8 == pytest.approx(strict, rel=0.05)


@pytest.mark.parametrize("real", ["float16", "int8"])
def test_smaller_real_weights(written, real: str, tmp_path) -> None:
    packed, path = written
    small = file.save(packed, file.description(NAME, 10, out_indices=(3,)), tmp_path / "small.safetensors", real)
    assert small.stat().st_size < 0.8 * path.stat().st_size
    assert (torch.int8 in {tensor.dtype for tensor in load_file(small).values()}) == (real == "int8")
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
    options = dict(cell=str(cell), layers=4, out_indices=(3,))
    network = backbones.create_backbone("cp_nas_c8", **options)
    about = file.description("cp_nas_c8", **options)
    other = file.save(deploy(network), about, tmp_path / "other.safetensors")
    cell.unlink()
    for saved in (path, other):
        loaded, _ = file.load(saved)
        assert loaded.genotype == backbones.cells.load_cell("dcp_nas_imagenet")


def test_numbers_in_the_provenance_of_a_cell_may_be_large(tmp_path) -> None:
    shipped = backbones.cells.load_cell("dcp_nas_imagenet")
    cell = backbones.Genotype(shipped.normal, shipped.reduce, {"seed": 10**9})
    options = dict(arch=cell, channels=8, layers=4, out_indices=(3,))
    network = backbones.create_backbone("dcp_nas_c8", **options)
    about = file.description("dcp_nas_c8", **options)
    path = file.save(deploy(network), about, tmp_path / "net.safetensors")
    assert file.load(path)[0].genotype.provenance["seed"] == 10**9


def test_the_description_must_fit(written, tmp_path) -> None:
    packed, _ = written
    with pytest.raises(InputError, match="does not fit"):
        file.save(packed, file.description(NAME, 11, out_indices=(3,)), tmp_path / "x")
    with pytest.raises(InputError, match="float64"):
        file.save(packed, file.description(NAME, 10, out_indices=(3,)), tmp_path / "x", "float64")
    assert not (tmp_path / "x").exists()


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def parts(path):
    """A file's header and what follows."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def assembled(target, header: str, rest: bytes):
    target.write_bytes(struct.pack("<Q", len(header.encode())) + header.encode() + rest)
    return target


def with_text(path, target, text: str):
    """The file with another description, everything else as it was."""
    header, rest = parts(path)
    header["__metadata__"]["onebit"] = text
    return assembled(target, json.dumps(header), rest)


def rewritten(path, target, change):
    """The file with its description changed, everything else as it was."""
    about = json.loads(parts(path)[0]["__metadata__"]["onebit"])
    change(about)
    return with_text(path, target, json.dumps(about, sort_keys=True))


def nested(depth: int):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(version=3), "expected onebit-packed version 1 or 2"),
        (lambda a: a.update(version=2), "its description"),
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
        (
            lambda a: a["backbone"].update(binarizer=["reactnet"]),
            "builds no network|takes no options|expected a number",
        ),
        (
            lambda a: a["backbone"].update(binarizer=dict(name="reactnet")),
            "builds no network|takes no options|expected a number",
        ),
        (lambda a: a["backbone"].update(out_indices=3), "builds no network|takes no options|expected a number"),
        (lambda a: a["backbone"].update(out_indices="3"), "out_indices"),
        (lambda a: a["backbone"].update(out_indices=[[3]]), "builds no network|takes no options|expected a number"),
        (lambda a: a["backbone"].update(out_indices=[3.0]), "builds no network|takes no options|expected a number"),
        (lambda a: a["backbone"].update(out_indices=[]), "out_indices"),
        (lambda a: a["backbone"].update(out_indices=[2]), "not a tensor of"),
        (lambda a: a["backbone"].update(out_indices=[0] * 10**5), "description of 300"),
        (lambda a: a["backbone"].update(depth=None), "depth"),
        (lambda a: a["backbone"].update(depth=[18]), "depth"),
        (lambda a: a["backbone"].update(stem={}), "stem"),
        (lambda a: a["backbone"].update(width=float("nan")), "beyond"),
        (lambda a: a["backbone"].update(width=float("-inf")), "beyond"),
        (lambda a: a["backbone"].update(width=-1), "width -1: expected a whole number"),
        (lambda a: a["backbone"].update({"w" * 1000: 1}), "unknown option"),
        (lambda a: a.update(backbone=[]), "its description"),
        (lambda a: a.update(backbone={}), "unknown network ''"),
        (lambda a: a.update(real=["float32"]), "its description"),
        (lambda a: a.update(real="int8"), "its network has|missing"),
        (lambda a: a.update(format=["onebit-packed"] * 999, version={}), "as|expected onebit-packed"),
        (lambda a: a["backbone"].update(init={"a": nested(20)}), "nested deeper than 16"),
        (lambda a: a["backbone"].update(arch=nested(20)), "nested deeper than 16"),
    ],
)
def test_a_hostile_description_is_refused(written, tmp_path, change, message: str) -> None:
    _, path = written
    with pytest.raises(InputError, match=message) as refused:
        file.load(rewritten(path, tmp_path / "x.safetensors", change))
    assert len(str(refused.value)) < 600
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a packed file of this suite"),
        ("{", "not a packed file of this suite"),
        ("[]", "not a packed file of this suite"),
        ("null", "not a packed file of this suite"),
        ('"format"', "not a packed file of this suite"),
        ("[" * 100_000 + "]" * 100_000, "not a packed file of this suite"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "description of|not a packed file of this suite"),
        (" " * (1 << 20), "description of 1048576 characters"),
    ],
    ids=["empty", "cut", "list", "null", "string", "deep list", "deep object", "long"],
)
def test_what_is_no_description(written, tmp_path, text, message) -> None:
    with pytest.raises(InputError, match=message):
        file.load(with_text(written[1], tmp_path / "x.safetensors", text))


def test_hostile_headers(written, tmp_path) -> None:
    _, path = written
    header, rest = parts(path)
    target = tmp_path / "x.safetensors"
    target.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(InputError, match="a header of 9223372036854775808 bytes"):
        file.load(target)
    with pytest.raises(InputError, match="a header of"):
        file.load(assembled(target, json.dumps(header) + " " * (1 << 22), rest))
    for content in ("[]", "null", "[" * 10**6, '{"__metadata__":1}', "{}", "\0"):
        with pytest.raises(InputError, match="not a packed file"):
            file.load(assembled(target, content, rest))

    first, second = [name for name in header if name != "__metadata__"][:2]
    # Of two of one name the second would be read.
    twice = json.dumps(header)[:-1] + f", {json.dumps(first)}: {json.dumps(header[second])}}}"
    with pytest.raises(InputError, match="not a packed file"):
        file.load(assembled(target, twice, rest))
    for change in (
        dict(shape=[2**62]),
        dict(shape=[2**62, 8]),
        dict(shape=[-1]),
        dict(dtype="F64"),
        dict(dtype="F16"),
        dict(data_offsets=[0, 2**60]),
        dict(data_offsets=[8, 0]),
    ):
        changed = {**header, first: {**header[first], **change}}
        with pytest.raises(InputError):
            file.load(assembled(target, json.dumps(changed), rest))
    extra = {**header, "y" * 500: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    assembled(target, json.dumps(extra), rest)
    with pytest.raises(InputError, match="is not a tensor of the network"):
        file.load(target)


def test_folders_and_links_that_lead_nowhere(tmp_path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path in (tmp_path, tmp_path / "link", ""):
        with pytest.raises(InputError, match="not found"):
            file.load(path)


def test_a_cell_net_of_absurd_depth_is_refused(tmp_path) -> None:
    network = backbones.create_backbone("dcp_nas_c8", out_indices=(3,))
    about = file.description("dcp_nas_c8", out_indices=(3,))
    path = file.save(deploy(network), about, tmp_path / "net.safetensors")
    for change, message in (
        (lambda a: a["backbone"].update(layers=60000), "60000 layers"),
        (lambda a: a["backbone"].update(layers=7.5), "7.5 layers"),
        (lambda a: a["backbone"].update(layers=[10]), "layers"),
        (lambda a: a["backbone"].update(arch=dict(normal=[])), "genotype"),
        (lambda a: a["backbone"].update(arch={}), "genotype"),
        (lambda a: a["backbone"].update(arch=5), "builds no network|cell"),
        (lambda a: a["backbone"].update(arch="dcp_nas_c1000000000000"), "channels 1000000000000: expected"),
        (lambda a: a["backbone"].update(cell="/etc/passwd.json", arch=None), "names no other file"),
        (lambda a: a["backbone"].update(macro=["dcp_nas"], arch=None), "macro"),
        (lambda a: a["backbone"].update(drop_path_prob="0"), "drop_path_prob '0': expected a number"),
        (lambda a: a["backbone"].update(arch="/etc/passwd.json"), "names no other file"),
    ):
        with pytest.raises(InputError, match=message):
            file.load(rewritten(path, tmp_path / "x.safetensors", change))


def test_as_many_layers_as_a_network_may_have() -> None:
    file._require_sane({"layers": file.MOST_CELLS}, "net")
    with pytest.raises(InputError, match=f"expected a number up to {file.MOST_CELLS}"):
        file._require_sane({"layers": file.MOST_CELLS + 1}, "net")


def test_a_description_that_no_network_has_is_not_written(written, tmp_path) -> None:
    packed, _ = written
    about = file.description(NAME, 10, out_indices=(3,))
    about["backbone"]["layers"] = file.MOST_CELLS + 1
    with pytest.raises(InputError, match="expected a number up to"):
        file.save(packed, about, tmp_path / "other.safetensors")
