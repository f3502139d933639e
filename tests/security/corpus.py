"""Hostile files by family, drawn from one seed: every one is a name and its bytes.

Nothing here is a real exploit of anything but what this suite once did: the two first checkpoints are
made anew from the description of how they worked.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image

from onebit import backbones
from onebit.backbones import packed
from onebit.leaderboards import boards
from tests.packed.broken import BROKEN, changed_plan

SEED = 20240229
NAMES = {
    "up": "../../../../etc/passwd",
    "up, at the end": "a/../../../secret.jpg",
    "absolute": "/etc/passwd",
    "of Windows": "C:\\Windows\\win.ini",
    "up, of Windows": "..\\..\\secret.jpg",
    "NUL": "a\x00b.jpg",
    "4,000 characters": "a" * 4000,
    "terminal": "\x1b[2J\x1b]0;owned\x07.jpg",
    "bidi": "\u202egpj.exe",
    "newline": "a\nok.jpg",
    "bell": "\x07" * 10,
    "device": "/dev/zero",
}
Files = Iterator[tuple[str, bytes]]


def damaged(name: str, content: bytes, count: int) -> Files:
    """``content`` cut off, and with bytes changed."""
    drawn = random.Random(f"{SEED} {name}")
    for number in range(count):
        if number % 2:
            at = drawn.randrange(1, len(content))
            yield f"{name}, cut off at {at}", content[:at]
            continue
        changed = bytearray(content)
        for _ in range(drawn.choice((1, 3, 20))):
            changed[drawn.randrange(len(changed))] ^= drawn.randrange(1, 256)
        yield f"{name}, bytes changed {number}", bytes(changed)


# Checkpoints: pickles by hand, in the archive that torch writes.


def archive(data: bytes, storages: dict[str, bytes] | None = None, compress: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compress) as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/byteorder", "little")
        for key, content in (storages or {}).items():
            file.writestr(f"archive/data/{key}", content)
        file.writestr("archive/version", "3\n")
    return stream.getvalue()


def call(module: str, name: str, *arguments: str, start: bytes = b"\x80\x02") -> bytes:
    texts = b"".join(b"X" + struct.pack("<I", len(a)) + a.encode() for a in arguments)
    return start + f"c{module}\n{name}\n".encode() + b"(" + texts + b"tR."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(
    numel: int, size: tuple, stride: tuple, offset: int = 0, kind: str = "FloatStorage", key: str = "0"
) -> bytes:
    """A dict with one tensor that claims what is asked for."""

    def number(value) -> bytes:
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + raw

    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(numel) + b"tQ"
    sizes = b"".join(b"(" + b"".join(map(number, n)) + b"t" for n in (size, stride))
    build = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + number(offset)
        + sizes
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02}" + text("weight") + build + b"s."


def getattr_program(code: str) -> bytes:
    """A program of getattr alone: its own module's dict, an entry there replaced by eval, then ``code``."""
    reach = b"\x80\x02c__builtin__\ngetattr\n(c__builtin__\ngetattr\n(c__builtin__\ngetattr\n"
    replace = text("__self__") + b"tR" + text("__dict__") + b"tRq\x00" + text("getattr") + b"c__builtin__\neval\ns0"
    return reach + replace + b"c__builtin__\ngetattr\n(" + text(code) + b"tR."


CALLS = [
    ("os", "system"), ("posix", "system"), ("subprocess", "getoutput"), ("builtins", "eval"), ("builtins", "exec"),
    ("__builtin__", "getattr"), ("builtins", "getattr"), ("torch.hub", "load"), ("torch", "load"),
    ("torch.serialization", "load"), ("torch.storage", "_load_from_bytes"), ("torch", "_utils"), ("copyreg", "_reconstructor"),
    ("operator", "attrgetter"), ("functools", "partial"), ("importlib", "import_module"), ("webbrowser", "open"),
    ("tests.security.canary", "sing"), ("onebit.leaderboards.cli", "main"), ("pickle", "loads"), ("numpy", "load"),
    ("numpy.f2py", "compile"), ("mmengine.config", "Config"), ("torch._utils", "_rebuild_wrapper_subclass"),
    ("torch._tensor", "_rebuild_from_type_v2"), ("torch._dynamo.source", "eval"), ("pathlib", "PosixPath"),
    ("collections", "defaultdict"), ("codecs", "encode"), ("io", "open"), ("builtins", "open"), ("torch.nn", "Module"),
]  # fmt: skip


def checkpoints() -> Files:
    good = io.BytesIO()
    torch.save(
        {"state_dict": {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(2)}, "meta": {"e": 1}}, good
    )
    old = io.BytesIO()
    torch.save({"a.weight": torch.arange(6.0)}, old, _use_new_zipfile_serialization=False)
    yield "the program of getattr", archive(getattr_program("__import__('os').system('id')"))
    yield "CVE-2025-32434, a tar archive", b"weights.tar".ljust(257, b"\0") + b"ustar\x0000" + bytes(1000)
    for module, name in CALLS:
        yield f"calls {module}.{name}", archive(call(module, name, "echo", "owned"))
        yield f"calls {module}.{name}, the old format", good_old_start() + call(module, name, "echo")
    yield "names by a stack", archive(b"\x80\x04" + b"\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.")
    yield "INST", archive(b"(S'id'\nios\nsystem\n.")
    yield "OBJ", archive(b"(cos\nsystem\nS'id'\no.")
    yield "EXT", archive(b"\x80\x02\x82\x01.")
    yield "a persistent text", archive(b"Pid\n.")
    yield "state for a name", archive(b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.")
    yield (
        "attributes of an OrderedDict",
        archive(b"\x80\x02ccollections\nOrderedDict\n)R}" + text("__class__") + b"K\x01sb."),
    )
    yield "2^60 elements", archive(tensor(2**60, (2**60,), (1,)), {"0": b"abcd"})
    yield "2^60 elements without stride", archive(tensor(1, (2**60,), (0,)), {"0": b"abcd"})
    yield "a size that overflows", archive(tensor(1, (2**32, 2**32), (0, 0)), {"0": b"abcd"})
    yield "behind its storage", archive(tensor(4, (4,), (1,), offset=1), {"0": bytes(16)})
    yield "a stride behind its storage", archive(tensor(4, (2, 2), (3, 1)), {"0": bytes(16)})
    yield "a negative offset", archive(tensor(4, (2,), (1,), offset=-2), {"0": bytes(16)})
    yield "a negative size", archive(tensor(4, (-2,), (1,)), {"0": bytes(16)})
    yield "a negative stride", archive(tensor(4, (2,), (-1,)), {"0": bytes(16)})
    yield "a negative length", archive(tensor(-4, (2,), (1,)), {"0": bytes(16)})
    yield "40 dimensions", archive(tensor(4, (1,) * 40, (1,) * 40), {"0": bytes(16)})
    yield "another type than its name", archive(tensor(4, (4,), (1,), kind="DoubleStorage"), {"0": bytes(16)})
    yield "no storage", archive(tensor(4, (4,), (1,)))
    yield "a storage up the folders", archive(tensor(4, (4,), (1,), key="../../a"), {"../../a": bytes(17)})
    yield "a quantized storage", archive(tensor(4, (4,), (1,), kind="QInt8Storage"), {"0": bytes(4)})
    yield "a bomb of zeros", archive(tensor(2**26, (2**26,), (1,)), {"0": bytes(2**28)}, zipfile.ZIP_DEFLATED)
    yield "a pickle that is a bomb", archive(b"\x80\x02" + b"N0" * 2**24 + b"N.", compress=zipfile.ZIP_DEFLATED)
    yield "two parts of one name", twice("archive/data.pkl", b"\x80\x02N.")
    yield "two pickles", twice("b/data.pkl", b"\x80\x02N.", other="a/data.pkl")
    yield "no pickle", twice("a/b", b"", other="a/c")
    yield "a TorchScript program", twice("a/constants.pkl", b"\x80\x02).", other="a/data.pkl")
    yield "nested 10,000 deep", archive(b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".")
    yield "nested tuples", archive(b"\x80\x02)" + b"\x85" * 10_000 + b".")
    yield "itself", archive(b"\x80\x02]q\x00h\x00a.")
    doubled = b"".join(b"q" + bytes([n]) + b"]h" + bytes([n]) + b"ah" + bytes([n]) + b"a" for n in range(60))
    yield "2^60 lists of few", archive(b"\x80\x02]" + doubled + b".")
    tuples = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
    yield "a key of 2^60 tuples", archive(b"\x80\x02})" + tuples + b"Ns.")
    yield "a place in memory of 2^31", archive(b"\x80\x02Nr\xff\xff\xff\x7f0N.")
    yield "a text of 2^62", archive(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.")
    yield "bytes of 2^62", archive(b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.")
    yield "a number of a million digits", archive(b"I" + b"9" * 10**6 + b"\n.")
    yield "a number of a million bytes", archive(b"\x80\x02\x8b" + struct.pack("<I", 10**6) + b"\x01" * 10**6 + b".")
    yield "three million instructions", archive(b"\x80\x02(" + b"N" * 3_000_000 + b"t.")
    lists = (
        b"\x80\x02]("
        + b"N" * 500_000
        + b"eq\x000"
        + b"ccollections\nOrderedDict\nq\x010"
        + b"("
        + b"h\x01h\x00\x85R" * 20
    )
    yield "a list that is copied again and again", archive(lists + b"t.")
    codes = (
        b"\x80\x02" + text("a" * 2**20) + b"q\x000c_codecs\nencode\nq\x010" + b"(" + b"h\x01h\x00\x85R" * 4000 + b"t."
    )
    yield "a text that is copied again and again", archive(codes)
    array = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00%s\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    yield "an array of objects", archive(array + b"K\x02\x85" + dtype % b"O8" + b"\x89]tb.")
    yield (
        "an array of 2^40",
        archive(array + b"\x8a\x06\0\0\0\0\0\x01\x85" + dtype % b"f8" + b"\x89C\x08" + bytes(8) + b"tb."),
    )
    yield "half a character", archive(b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.")
    yield "an empty stack", archive(b"\x80\x02.")
    yield "many entries", many_entries()
    yield "nothing but a magic number", good_old_start()
    yield from damaged("a checkpoint", good.getvalue(), 30)
    yield from damaged("an old checkpoint", old.getvalue(), 12)
    for name, content in (("text", b"weights"), ("nothing", b""), ("zeros", bytes(10**6)), ("a zip", twice("a", b"b"))):
        yield name, content


def good_old_start() -> bytes:
    """What the format before torch 1.6 begins with, up to the pickle of the tensors."""
    return pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def twice(name: str, content: bytes, other: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for each in (other or name, name):
            file.writestr(each, content)
    return stream.getvalue()


def many_entries() -> bytes:
    """An archive whose table of contents is longer than that of any network."""
    one = b"PK\x01\x02" + bytes(24) + struct.pack("<HHHHHII", 1, 0, 0, 0, 0, 0, 0) + b"a"
    table = one * 200_000
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(table), 4, 0)
    return b"PK\x03\x04" + table + end


# JSON: records, cells, COCO, predictions.


def json_values(good: dict | list) -> Files:
    """What any reader of JSON has to stand."""
    yield "deep", b"[" * 100_000 + b"]" * 100_000
    yield "deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "a number of a million digits", b'{"a": ' + b"9" * 10**6 + b"}"
    yield "NaN", b'{"a": NaN}'
    yield "1e999", b'{"a": 1e999}'
    yield "half a character", b'{"a": "\\ud800"}'
    yield "no UTF-8", b'{"a": "\xff"}'
    yield "UTF-16", json.dumps(good).encode("utf-16")
    yield "NUL", b"\0" * 1000
    yield "nothing", b""
    yield "a text", b'"a"'
    yield "a list", b"[[]]"
    yield "an empty object", b"{}"
    yield "a key a hundred thousand long", json.dumps({"a" * 100_000: 1}).encode()
    yield from damaged("JSON", json.dumps(good).encode(), 12)


def records() -> Files:
    folder = boards.__file__.rsplit("/", 1)[0]
    with open(f"{folder}/records/coco/coco128--resnet18_w16_reactnet--small--seed0.json") as file:
        good = json.load(file)
    yield from json_values(good)
    from onebit.leaderboards.recording.run_file import digest

    for field, value in (
        ("metrics", {"AP": "lol"}), ("board", "../../x"), ("board", 3), ("dataset", NAMES["up"]), ("backbone", NAMES["NUL"]),
        ("backbone", NAMES["terminal"]), ("backbone", "a" * 4000), ("recipe", NAMES["absolute"]), ("seed", -1), ("seed", "1"),
        ("seed", 10**400), ("status", []), ("predictions", {"file": NAMES["up"], "sha256": "0" * 64}), ("cost", {"strict": 1}),
        ("details", {"checkpoint": NAMES["absolute"]}), ("details", []), ("schema_version", 10**6), ("schema_version", "1"),
        ("environment", {}), ("code", {"commit": [], "dirty": 3}), ("cfg_options", [1]), ("epochs", 10**30),
        ("cfg_options", {"model.backbone.type": "subprocess.getoutput", "model.backbone.cmd": "id"}),
        ("cfg_options", {"test_dataloader.dataset.type": "torch.hub.load", "test_dataloader.dataset.source": "local"}),
    ):  # fmt: skip
        changed = {k: v for k, v in {**good, field: value}.items() if k != "digest"}
        changed["digest"] = digest(changed)
        yield f"{field} {str(value)[:40]!r}", json.dumps(changed, indent=1, sort_keys=True).encode() + b"\n"


def cells() -> Files:
    good = backbones.cells.load_cell("dcp_nas_imagenet").to_dict()
    good = json.loads(json.dumps(good))
    yield from json_values(good)
    for value in (*NAMES.values(), 10**400, -1, None, [], {}, True, 2.5):
        yield f"an operation {str(value)[:30]!r}", json.dumps(with_edge(good, [value, 0])).encode()
    for value in (10**9, -1, "0", None, 0.0, True, [0]):
        yield f"a source {value!r}", json.dumps(with_edge(good, [good["normal"][0][0][0], value])).encode()


def with_edge(good: dict, edge: list) -> dict:
    changed = json.loads(json.dumps(good))
    changed["normal"][0][0] = edge
    return changed


def cell_texts() -> Files:
    good = "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=range(2, 6))"
    for name, content in (
        ("a call", "__import__('os').system('id')"),
        ("a call inside", good.replace("'sep_conv_3x3'", "__import__('os').system('id')")),
        ("a lambda", good.replace("range(2, 6)", "(lambda: 1)()")),
        ("a comprehension", good.replace("range(2, 6)", "[i for i in range(10**9)]")),
        ("a range of 10^12", good.replace("range(2, 6)", "range(10**12)")),
        ("a range of many digits", good.replace("range(2, 6)", f"range({'9' * 5000})")),
        ("a power", good.replace("range(2, 6)", "9**9**9")),
        ("a repeated list", good.replace("range(2, 6)", "[0] * 10**12")),
        ("an attribute", "().__class__.__base__.__subclasses__()"),
        ("a format", "f'{__import__(\"os\").system(\"id\")}'"),
        ("deep", "(" * 100_000), ("deep lists", "[" * 5_000 + "]" * 5_000), ("long", "-" * 200_000 + "1"),
        ("NUL", good + "\0"), ("bidi", good.replace("skip", "\u202eskip")), ("walrus", "(x := 1)"), ("an import", "import os"),
        ("two statements", good + "\n" + good), ("starred", "Genotype(*[1, 2])"), ("nothing", ""), ("text", "a cell"),
    ):  # fmt: skip
        yield name, content.encode()
    yield from damaged("a DARTS cell", good.encode(), 10)


# Annotations.


def coco() -> Files:
    good = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    yield from json_values(good)
    for name, value in NAMES.items():
        yield (
            f"an image named {name}",
            json.dumps({**good, "images": [{**good["images"][0], "file_name": value}]}).encode(),
        )
        yield f"a class named {name}", json.dumps({**good, "categories": [{"id": 1, "name": value}]}).encode()
    yield "a width of 400 digits", json.dumps({**good, "images": [{**good["images"][0], "width": 10**400}]}).encode()
    for key, value in (
        ("bbox", [0, 0, 1e308, 1e308]), ("bbox", "0"), ("bbox", [[0]] * 4), ("area", "1"), ("iscrowd", 7), ("image_id", 2),
        ("category_id", "1"), ("category_id", [1]), ("id", "x"), ("id", 1e400), ("bbox", [0, 0, -1, 4]), ("bbox", [9**99] * 4),
    ):  # fmt: skip
        changed = {**good, "annotations": [{**good["annotations"][0], key: value}]}
        yield f"{key} {str(value)[:30]}", json.dumps(changed).encode()


def voc() -> Files:
    good = (
        "<annotation><size><width>8</width><height>8</height></size><object><name>cat</name><bndbox><xmin>1</xmin>"
        "<ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>"
    )
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    for name, content in (
        ("a billion laughs", f'<!DOCTYPE a [<!ENTITY a0 "ha">{laughs}]><annotation>&a11;</annotation>'),
        ("an external entity", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'),
        ("an external DTD", '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><annotation/>'),
        ("a parameter entity", '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd">%x;]><annotation/>'),
        ("a quadratic blow-up", f'<!DOCTYPE a [<!ENTITY x "{"a" * 50_000}">]><annotation>{"&x;" * 50_000}</annotation>'),
        ("deep", "<a>" * 100_000), ("deep and closed", "<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>"),
        ("another root", "<a/>"), ("nothing", ""), ("NUL", good.replace("cat", "\0")), ("text", "boxes"),
        ("a class of control characters", good.replace("cat", "\u202ecat")), ("an unknown entity", good.replace("cat", "&cat;")),
        ("no number", good.replace("<xmin>1", "<xmin>one")), ("NaN", good.replace("<xmin>1", "<xmin>nan")),
        ("infinity", good.replace("<xmax>4", "<xmax>inf")), ("many digits", good.replace("<width>8", f"<width>{'9' * 5000}")),
        ("an encoding nobody has", f'<?xml version="1.0" encoding="klingon"?>{good}'), ("two names", good.replace("</name>", "</name><name>a</name>")),
    ):  # fmt: skip
        yield name, content.encode("utf-8", "surrogatepass")
    yield from damaged("an annotation", good.encode(), 10)


# Arrays and images.


def safetensors_files() -> Files:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    good = struct.pack("<Q", len(header)) + header + bytes(4)
    yield "a header of 2^63", struct.pack("<Q", 2**63) + b"{}"
    yield "a header of 10^8", struct.pack("<Q", 10**8) + b"{}"
    yield "a deep header", struct.pack("<Q", 200_000) + b"[" * 200_000
    for claim in (b"[1152921504606846976]", b"[-1]", b'["a"]', b"[1,2,3]", b"[4294967296,4294967296]"):
        changed = header.replace(b"[1]", claim)
        yield f"a shape {claim.decode()}", struct.pack("<Q", len(changed)) + changed + bytes(4)
    yield (
        "overlapping",
        struct.pack("<Q", 108)
        + (header[:-1] + b',"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}').ljust(108)
        + bytes(4),
    )
    yield "nothing", b""
    yield "a checkpoint", archive(b"\x80\x02N.")
    yield from damaged("safetensors", good, 8)


def packed_files() -> Files:
    import tempfile
    from pathlib import Path

    from onebit.backbones.classifier import Classifier

    with tempfile.TemporaryDirectory() as folder:
        network = Classifier(backbones.create_backbone("resnet18_w8_xnor", out_indices=(3,)), 3)
        about = packed.description("resnet18_w8_xnor", 3, out_indices=(3,))
        good = packed.save(backbones.deploy(network), about, Path(folder) / "a.safetensors").read_bytes()
    yield from safetensors_files()
    yield from damaged("a packed file", good, 12)
    length = struct.unpack("<Q", good[:8])[0]
    header = json.loads(good[8 : 8 + length])
    for key, value in (
        ("type", "subprocess.getoutput"),
        ("width", 2**40),
        ("cell", "/etc/passwd.json"),
        ("depth", [[]]),
    ):
        changed = json.loads(json.dumps(header))
        stated = json.loads(changed["__metadata__"]["onebit"])
        stated["backbone"][key] = value
        changed["__metadata__"]["onebit"] = json.dumps(stated)
        raw = json.dumps(changed).encode()
        yield f"{key} {value}", struct.pack("<Q", len(raw)) + raw + good[8 + length :]


def plan_files() -> Files:
    import tempfile
    from pathlib import Path

    from onebit.backbones.classifier import Classifier

    with tempfile.TemporaryDirectory() as folder:
        network = Classifier(backbones.create_backbone("resnet18_w8_xnor", out_indices=(3,)), 3)
        about = packed.description("resnet18_w8_xnor", 3, out_indices=(3,))
        path = packed.save(backbones.deploy(network), about, Path(folder) / "a.safetensors", plans=[(32, 32)])
        yield from damaged("a packed file with a plan", path.read_bytes(), 12)
        target = Path(folder) / "b.safetensors"
        for title, (change, _) in BROKEN.items():
            yield title, changed_plan(path, target, change).read_bytes()
        drawn = random.Random(f"{SEED} plans")
        for number in range(40):  # with a checksum that fits

            def change(plans, tensors):
                table = tensors[drawn.choice(("plan/steps", "plan/constants"))]
                table[drawn.randrange(len(table)), drawn.randrange(table.shape[1])] = drawn.randrange(-(2**31), 2**31)

            yield f"a plan, bytes changed {number}", changed_plan(path, target, change).read_bytes()


def npz_files() -> Files:
    def member(shape: str, content: bytes = b"", descr: str = "<i4") -> bytes:
        head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
        head += b" " * (117 - len(head)) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content

    def file(content: bytes, compress: int = zipfile.ZIP_DEFLATED) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compress) as opened:
            opened.writestr("classes.npy", content)
        return stream.getvalue()

    yield "2^60 numbers", file(member("(1152921504606846976,)"))
    yield "a negative shape", file(member("(-1,)"))
    yield "a shape that is a call", file(member("(__import__('os').system('id'),)"))
    yield "objects", file(member("(1,)", pickle.dumps(print), "|O"))
    yield "a bomb of zeros", file(member("(1073741824,)", bytes(2**26)))
    yield "a bomb that is as long as it says", file(member("(67108864,)", bytes(2**28), "<i4"))
    yield "a type of its own", file(member("(1,)", bytes(8), "V8"))
    yield "no array", file(b"classes")
    stream = io.BytesIO()
    np.savez_compressed(
        stream, classes=np.zeros((3, 5), np.int32), ranks=np.zeros((3, 5), np.int8), num_classes=np.int32(9)
    )
    yield from damaged("predictions", stream.getvalue(), 10)
    yield "a single array", member("(1,)", bytes(4))
    yield "nothing", b""


def cifar_pickles() -> Files:
    for module, name in CALLS[:12]:
        yield f"calls {module}.{name}", call(module, name, "id")
        yield f"calls {module}.{name}, without protocol", call(module, name, "id", start=b"")
    yield "a place in memory of 2^31", b"\x80\x02Nr\xff\xff\xff\x7f0N."
    yield "a text of 2^62", b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a."
    tuples = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
    yield "a key of 2^60 tuples", b"\x80\x02})" + tuples + b"Ns."
    yield "nested 10,000 deep", b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b"."
    shape = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x8a\x06\0\0\0\0\0\x01\x85C\x01b\x87R."
    yield "an array that is made 2^40 long", shape
    yield from damaged("a batch", pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, 2), 12)


def idx_files() -> Files:
    def header(*shape: int, kind: int = 8) -> bytes:
        return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)

    yield "2^96 images", header(2**32 - 1, 2**32 - 1, 2**32 - 1)
    yield "more than there are", header(10, 28, 28) + bytes(28 * 28)
    yield "fewer than there are", header(1, 28, 28) + bytes(28 * 28 * 3)
    yield "another type", header(1, 28, 28, kind=13) + bytes(28 * 28 * 4)
    yield "255 axes", bytes([0, 0, 8, 255]) + bytes(20)
    yield "a bomb", gzip.compress(header(2**20, 28, 28) + bytes(2**28), 1)
    yield "nothing", b""
    yield "text", b"images"
    yield from damaged("idx", header(2, 4, 4) + bytes(32), 6)


def images() -> Files:
    def png(width: int, height: int, depth: int = 8, kind: int = 2, rest: bytes = b"") -> bytes:
        def chunk(name: bytes, content: bytes) -> bytes:
            return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
        return (
            b"\x89PNG\r\n\x1a\n" + head + (rest or chunk(b"IDAT", zlib.compress(bytes(10**6), 9)) + chunk(b"IEND", b""))
        )

    yield "a bomb of 2^62 pixels", png(2**31 - 1, 2**31 - 1)
    yield "a bomb of 150 million pixels", png(15_000, 10_000)
    yield "a bomb of 80 million pixels", png(10_000, 8_000)
    yield "no pixels", png(0, 0)
    yield "a depth nobody has", png(8, 8, depth=3)
    yield "a long chunk", png(8, 8, rest=struct.pack(">I", 2**31 - 1) + b"IDATx")
    yield "a text that is a bomb", png(8, 8, rest=ztxt())
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n"
    yield "a header of JPEG", b"\xff\xd8\xff\xe0" + bytes(100)
    yield "JPEG of 65,500 pixels each way", jpeg_of(65_500, 65_500)
    yield "a GIF's header", b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20)
    yield (
        "BMP of 2^31",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield "a TIFF without end", b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + bytes(12)
    yield "nothing", b""
    yield "text", b"a picture"
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF"):
        stream = io.BytesIO()
        Image.effect_noise((64, 64), 90).convert("RGB").save(stream, kind)
        yield f"half a {kind}", stream.getvalue()[: len(stream.getvalue()) // 3]


def ztxt() -> bytes:
    content = b"Comment\0\0" + zlib.compress(bytes(2**27), 9)
    return struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))


def jpeg_of(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    content = stream.getvalue()
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


#: Family to its files.
FAMILIES: dict[str, Callable[[], Files]] = {
    "checkpoint": checkpoints,
    "record": records,
    "cell": cells,
    "cell text": cell_texts,
    "coco": coco,
    "voc": voc,
    "features": safetensors_files,
    "packed": packed_files,
    "packed plan": plan_files,
    "predictions": npz_files,
    "boxes": lambda: json_values([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]),
    "cifar": cifar_pickles,
    "idx": idx_files,
    "image": images,
}
