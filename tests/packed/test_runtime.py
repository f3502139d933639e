"""Packed files without torch: the same bits, and nothing that they need not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import onebit.packed
from onebit import backbones
from onebit.backbones import packed
from onebit.backbones.classifier import Classifier
from onebit.backbones.packed import file
from onebit.commons.errors import InputError
from onebit.packed import checks, engine, runtime
from tests.backbones.packed.test_file import rewritten
from tests.packed.broken import BROKEN, changed_plan

pytestmark = pytest.mark.skipif(engine.kernels() is None, reason="needs numba")
ROOT = Path(__file__).resolve().parents[2]
#: What the runtime may not import.
HEAVY = ("torch", "torchvision", "mmengine", "mmdet", "mmcv", "torchreid", "pydantic", "PIL", "cv2", "scipy", "pandas")


def written(folder: Path, name: str, sizes, classes: int | None = None, real: str = "float32", **about) -> Path:
    """A packed file of a network whose norms are those of a trained one."""
    torch.manual_seed(0)
    indices = (0, 1, 2, 3) if classes is None else (3,)
    network: nn.Module = backbones.create_backbone(name, out_indices=indices)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    if classes is not None:
        network = Classifier(network, classes)
    said = packed.description(name, classes, out_indices=indices) | about
    return packed.save(packed.deploy(network.eval()), said, folder / f"{name}.safetensors", real, plans=sizes)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    images = {"size": 32, "small": True, "gray": False, "mean": [125.3, 123.0, 113.9], "std": [63.0, 62.1, 66.7]}
    prediction = {"classes": ["cat", "dog", "cow"], "images": images}
    folder = tmp_path_factory.mktemp("runtime")
    return written(folder, "resnet18_w8_reactnet", [(32, 32), (41, 64)], 3, prediction=prediction)


@pytest.mark.parametrize(
    ("name", "classes", "real"),
    [
        ("resnet18_w16_reactnet", 10, "float32"),
        ("resnet18_w16_bireal", None, "float16"),
        ("wrn22_w16_adabin", None, "int8"),
        ("reactnet_a_w8", 10, "float32"),
        ("dcp_nas_c8", None, "float32"),
        ("bnas_c8_l6", 10, "float16"),
        ("dcp_nas_c8_bnasxnorw1a32", None, "float32"),
    ],
)
def test_the_same_bits_as_with_torch(tmp_path, name, classes, real) -> None:
    path = written(tmp_path, name, [(64, 64), (61, 75)], classes, real)
    network, (torchs, about) = onebit.packed.load(path), packed.load(path)
    assert network.sizes == [(64, 64), (61, 75)]
    assert about["plans"] == network.about["plans"]
    for height, width in network.sizes:
        x = torch.randn(2, 3, height, width)
        with torch.no_grad():
            expected = torchs(x)
        for threads in (1, 2):
            network.threads = threads
            found = network(x.numpy())
            assert isinstance(found, np.ndarray if classes else tuple)
            if classes:
                assert np.array_equal(found, expected.numpy())
            else:
                assert all(np.array_equal(a, b.numpy()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("name", "share"), [("resnet18_reactnet", 0.01), pytest.param("dcp_nas_m", 0.03, marks=pytest.mark.slow)]
)
def test_a_plan_takes_little_of_the_file(tmp_path, name, share) -> None:
    network = packed.deploy(Classifier(backbones.create_backbone(name, out_indices=(3,)), 1000).eval())
    about = packed.description(name, 1000, out_indices=(3,))
    plain = packed.save(network, about, tmp_path / "plain.safetensors").stat().st_size
    planned = packed.save(network, about, tmp_path / "plan.safetensors", plans=[(224, 224)]).stat().st_size
    assert 0 < planned - plain < share * plain


def test_classes_and_images(classifier) -> None:
    from onebit.classification.predictor import Predictor

    network = onebit.packed.load(classifier, threads=2)
    assert network.classes == ["cat", "dog", "cow"]
    assert network.images["size"] == 32
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for gray in (False, True):
        network.images["gray"] = gray
        expected = Predictor(nn.Conv2d(3, 3, 1), network.classes, network.images).prepared(image)
        assert np.array_equal(network.prepared(image), expected.numpy())
    assert network(network.prepared(image)).shape == (1, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((1, 3, 40, 40), np.float32),
            r"plans for images \[N, 3, 32, 32\], \[N, 3, 41, 64\], none for .*--plan",
        ),
        (np.zeros((0, 3, 32, 32), np.float32), "none for"),
        (np.zeros((1, 1, 32, 32), np.float32), "none for"),
        (np.zeros((3, 32, 32), np.float32), r"expected an array of floats \[N, 3, H, W\], found float32 \[3, 32, 32\]"),
        (np.zeros((1, 3, 32, 32), np.uint8), "found uint8"),
        ([[1.0]], "found list"),
    ],
)
def test_other_images_are_refused(classifier, images, message) -> None:
    with pytest.raises(InputError, match=message):
        onebit.packed.load(classifier)(images)


def test_images_of_other_strides_and_floats(classifier) -> None:
    network, x = onebit.packed.load(classifier), np.random.default_rng(0).normal(size=(2, 3, 41, 64))
    expected = network(x.astype(np.float32))
    assert np.array_equal(network(x), expected)
    assert np.array_equal(network(np.asfortranarray(x)), expected)


def test_what_has_no_plan(tmp_path, classifier, monkeypatch) -> None:
    without = written(tmp_path, "resnet18_w8_xnor", [])
    with pytest.raises(InputError, match="has no plans and runs with torch only"):
        onebit.packed.load(without)
    with pytest.raises(InputError, match="threads 0"):
        onebit.packed.load(classifier, threads=0)
    deployed = packed.deploy(backbones.create_backbone("resnet18_w8_xnor", out_indices=(3,)))
    deployed.layer1 = nn.Sequential(nn.Conv2d(8, 8, 1, groups=2))
    arrays = {name: tensor.numpy() for name, tensor in deployed.state_dict().items()}
    with pytest.raises(InputError, match="no plan can be stored: a convolution in groups"):
        file._planned(deployed, arrays, [(32, 32)])
    monkeypatch.setattr(runtime.engine, "kernels", lambda: None)
    with pytest.raises(InputError, match="pip install numba"):
        onebit.packed.load(classifier)


WITHOUT = f"""
import json, sys, time

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
before = time.perf_counter()
import onebit.packed
imported = time.perf_counter() - before
import numpy as np
path, image, out = sys.argv[1:4]
network = onebit.packed.load(path)
loaded = time.perf_counter() - before
x = np.load(image)
first = time.perf_counter()
result = network(x)
first = time.perf_counter() - first
times = []
for _ in range(20):
    start = time.perf_counter()
    network(x)
    times.append(time.perf_counter() - start)
np.save(out, result)
pages = int(open("/proc/self/statm").read().split()[1])
print(json.dumps(dict(
    imported=imported, loaded=loaded, first=first, later=sorted(times)[10], megabytes=pages * 4096 / 2**20,
    classes=network.classes, modules=sorted({{name.partition(".")[0] for name in sys.modules}}),
)))
"""


def run_without_torch(python: Path | str, path: Path, image: np.ndarray, folder: Path, **environment: str):
    """Logits of a packed file in a process without torch, and what the process says of itself."""
    np.save(folder / "image.npy", image)
    (folder / "without.py").write_text(WITHOUT)
    command = [str(python), str(folder / "without.py"), str(path), str(folder / "image.npy"), str(folder / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return np.load(folder / "out.npy"), json.loads(done.stdout)


def test_it_runs_where_torch_cannot_be_imported(classifier, tmp_path) -> None:
    network, image = packed.load(classifier)[0], np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    found, said = run_without_torch(sys.executable, classifier, image, tmp_path, PYTHONPATH=str(ROOT))
    with torch.no_grad():
        assert np.array_equal(found, network(torch.from_numpy(image)).numpy())
    assert said["classes"] == ["cat", "dog", "cow"]
    assert not set(said["modules"]) & set(HEAVY)
    print({key: said[key] for key in ("imported", "loaded", "first", "later", "megabytes")})


# What a file of a stranger may say


@pytest.mark.parametrize("title", BROKEN)
def test_a_plan_that_is_not_what_it_says_is_refused(classifier, tmp_path, title) -> None:
    change, message = BROKEN[title]
    with pytest.raises(InputError, match=message) as refused:
        onebit.packed.load(changed_plan(classifier, tmp_path / "x.safetensors", change))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 600


def test_damage_and_other_files(classifier, tmp_path) -> None:
    content = classifier.read_bytes()
    target = tmp_path / "x.safetensors"
    target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="was changed after it was written"):
        onebit.packed.load(target)
    target.write_bytes(b"hello")
    with pytest.raises(InputError, match="is not a packed file"):
        onebit.packed.load(target)
    with pytest.raises(InputError, match="not found"):
        onebit.packed.load(tmp_path / "missing")
    for change, message in (
        (lambda a: a.update(version=3), "expected onebit-packed version 1 or 2"),
        (lambda a: a.update(version=1), "its description"),
        (lambda a: a.pop("plans"), "its description"),
    ):
        for load in (onebit.packed.load, packed.load):
            with pytest.raises(InputError, match=message):
                load(rewritten(classifier, target, change))


def test_every_kind_of_step_is_checked() -> None:
    assert set(checks.CHECKS) == {kind.name for kind in engine.kernels().Kind}


GUARDED = """
import mmap, random, sys
import ctypes
import numpy as np
import onebit.packed
from onebit.commons.errors import InputError
from onebit.packed import checks, engine, plan, runtime, stored

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
kept = []

def guarded(size):
    # Memory that ends at a page nobody may touch, and begins behind another one.
    pages = -(-max(size, 1) // PAGE)
    area = mmap.mmap(-1, (pages + 2) * PAGE)
    whole = np.frombuffer(area, np.uint8)
    for at in (0, pages + 1):
        assert libc.mprotect(whole.ctypes.data + at * PAGE, PAGE, 0) == 0
    kept.append(area)
    return whole[(pages + 1) * PAGE - max(size, 1) : (pages + 1) * PAGE]

plan.aligned_memory = stored.aligned_memory = guarded
checks._MOST_WORK = 1 << 26
rng = random.Random(int(sys.argv[2]))
network = onebit.packed.load(sys.argv[1])
(own,) = network._stored.values()
constants = guarded(len(network._constants))
constants[:] = network._constants
table, refused, ran = own.table, 0, 0
sizes = {plan.ARENA: own.arena, plan.CONSTANTS: len(constants), plan.KEPT: own.kept}
shapes = [own.size, *own.shapes]
sizes |= {plan.OUTSIDE + i: 4 * int(np.prod(s)) for i, s in enumerate(shapes)}
addresses = [guarded(4 * int(np.prod(s))) for s in shapes]
for _ in range(int(sys.argv[3])):
    changed = table.copy()
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(changed)), rng.randrange(changed.shape[1])
        value = int(changed[at])
        changed[at] = rng.choice((0, 1, 2, 3, max(0, value - 1), value + 1, max(0, value - 16), value + 4, value + 8,
            value + 64, 2 * value, value // 2, rng.randrange(1 << 12), rng.randrange(1 << 20))) % (1 << 31)
    try:
        scratch = checks.require_inside(stored._rows(changed), sizes, constants)
    except InputError:
        refused += 1
        continue
    own.table, own.scratch = changed, scratch
    before = len(kept)
    own.plan(constants).run([each.ctypes.data for each in addresses], rng.choice((1, 2)))
    ran += 1
    del kept[before:]
print(refused, ran)
"""


@pytest.mark.parametrize("name", ["resnet18_w8_reactnet", "dcp_nas_c8", "bnas_imagenet_c8_l6", "wrn22_w16_adabin"])
def test_no_step_that_passes_touches_what_is_not_its_own(tmp_path, name) -> None:
    """Fields changed at random: refused, or run between pages that nobody may touch."""
    path = written(tmp_path, name, [(33, 40)])
    (tmp_path / "guarded.py").write_text(GUARDED)
    command = [sys.executable, str(tmp_path / "guarded.py"), str(path), "0", "400"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    refused, ran = map(int, done.stdout.split())
    assert min(refused, ran) >= 40
