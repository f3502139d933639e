"""What an installation puts where, and that it works in a folder whose own folders bear the rooms' names."""

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("backbones", "classification", "commons", "detection", "leaderboards", "packed", "reid")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(*command, **options) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The tracked files alone, links as links, so that no leftover of this checkout is packed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> Path:
    """Built from the sdist, as an index serves it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})", cwd=checkout)
    (sdist,) = out.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, sdist)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module", params=["wheel", "editable"])
def python(request, tmp_path_factory) -> Path:
    """The interpreter of an environment that holds the suite, and whose dependencies are this one's."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder, symlinks=True)
    interpreter = folder / "bin" / "python"
    site = Path(run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path line makes packages importable, but not what this environment's own .pth files add: its
    # installation of the suite stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    what = (
        [request.getfixturevalue("wheel")] if request.param == "wheel" else ["-e", request.getfixturevalue("checkout")]
    )
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "install", "-q", "--ignore-installed"]
    run(*pip, "--no-deps", "--no-build-isolation", *what)
    return interpreter


@pytest.fixture
def crowded(tmp_path) -> Path:
    """A user's folder that holds folders of the rooms' names, a package and plain ones."""
    for room in ROOMS:
        (tmp_path / room).mkdir()
    (tmp_path / "backbones" / "__init__.py").touch()
    (tmp_path / "detection" / "model.py").touch()
    return tmp_path


def readme_block(start: str) -> str:
    """The README's Python block that begins with ``start``."""
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if b.startswith(start)]
    return block


def in_folder(python: Path, folder: Path, code: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return run(python, "-W", "ignore", "-c", code, cwd=folder, env=environment)


def test_nothing_but_onebit_lands_in_site_packages(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"onebit"}
    assert {name.split("/")[1] for name in names if name.count("/") > 1 and ".dist-info/" not in name} == set(ROOMS)
    assert not [name for name in names if "/records/" in name or "/tables/" in name or "/tests/" in name]
    for kept in ("reported/dcp_nas_table10.csv", "showing/site/page.css"):
        assert f"onebit/leaderboards/{kept}" in names
    assert "onebit/backbones/cells/dcp_nas_imagenet.json" in names
    assert "onebit/detection/configs/models/faster_rcnn.py" in names
    assert "onebit/py.typed" in names


def test_the_rooms_are_found_in_a_crowded_folder(python, crowded):
    code = "from onebit import " + ", ".join(ROOMS) + "; print(*(m.__file__ for m in (" + ", ".join(ROOMS) + ")))"
    found = in_folder(python, crowded, code).split()
    assert not [path for path in found if Path(path).is_relative_to(crowded)]


def test_mmdetection_lines_of_the_readme(python, crowded):
    (crowded / "mine.py").write_text(readme_block("_base_ ="))
    out = in_folder(
        python,
        crowded,
        "from mmengine.config import Config; cfg = Config.fromfile('mine.py');"
        "from mmdet.registry import MODELS; from mmdet.utils import register_all_modules; register_all_modules();"
        "model = MODELS.build(cfg.model); print(type(model).__module__, type(model.backbone).__module__)",
    )
    assert out.split() == ["mmdet.models.detectors.faster_rcnn", "onebit.backbones.resnet"]


def test_torchreid_lines_of_the_readme(python, crowded):
    out = in_folder(python, crowded, readme_block("import onebit.reid") + "\nprint(type(model).__module__)")
    assert out.split() == ["onebit.reid.model"]


def test_the_command_and_the_module(python, crowded):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(crowded)}
    for command in ([python.with_name("onebit")], [python, "-m", "onebit"]):
        assert "resnet18_reactnet" in run(*command, "backbones", "resnet18*", cwd=crowded, env=environment)
    run(python, "-m", "torch.distributed.run", "--nproc_per_node", "1", "-m", "onebit", "--help", cwd=crowded)


def test_a_packed_file_runs_where_there_is_no_torch(wheel, tmp_path):
    """Installed as docs/packed.md says: the same bits as with torch, printed what it takes."""
    import numpy as np
    import torch

    import onebit
    from onebit.backbones import packed
    from onebit.backbones.classifier import Classifier
    from tests.packed.test_runtime import run_without_torch

    about = packed.description("resnet18_reactnet", 1000, out_indices=(3,))
    network = Classifier(onebit.create_backbone("resnet18_reactnet", out_indices=(3,)), 1000).eval()
    file = packed.save(packed.deploy(network), about, tmp_path / "net.safetensors", plans=[(224, 224)])
    venv.create(tmp_path / "env", symlinks=True)
    interpreter = tmp_path / "env" / "bin" / "python"
    page = (ROOT / "docs" / "packed.md").read_text(encoding="utf-8").split("## Without torch")[1]
    commands = [line.split() for line in page.split("```")[1].splitlines() if line.startswith("pip install")]
    assert commands[-1] == ["pip", "install", "--no-deps", "onebit-bench"]
    for command in commands:
        words = [str(wheel) if word == "onebit-bench" else word.strip("'") for word in command[2:]]
        run(sys.executable, "-m", "pip", "--python", interpreter, "install", "-q", *words)
    missing = subprocess.run([interpreter, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in missing.stderr

    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "PYTHONPATH": ""}
    compiled = run_without_torch(interpreter, file, image, tmp_path, **environment)
    found, said = run_without_torch(interpreter, file, image, tmp_path, **environment)
    with torch.no_grad():
        assert np.array_equal(found, packed.load(file)[0](torch.from_numpy(image)).numpy())
    assert np.array_equal(found, compiled[0])
    print({key: round(said[key], 4) for key in ("imported", "loaded", "first", "later", "megabytes")})
    print(f"the first call of all took {compiled[1]['first']:.1f} s; {compiled[1]['megabytes']:.0f} MB")
    assert said["megabytes"] < 170


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_compiled_mmcv_is_left_alone(wheel, tmp_path):
    """In an environment with everything but mmcv-lite, and a package that owns ``mmcv/`` as a compiled mmcv does."""
    venv.create(tmp_path / "env", symlinks=True)
    interpreter = tmp_path / "env" / "bin" / "python"
    site = Path(run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("mmcv", "onebit", "__editable__")) and path.suffix != ".pth":
            (site / path.name).symlink_to(path)
    package, info = site / "mmcv", site / "mmcv-2.1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("__version__ = '2.1.0'\n")
    (package / "_ext.py").write_text("compiled = True\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mmcv\nVersion: 2.1.0\n")
    (info / "RECORD").write_text("mmcv/__init__.py,,\nmmcv/_ext.py,,\nmmcv-2.1.0.dist-info/METADATA,,\n")
    before = contents(package) | contents(info)
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "install", "-q", "--no-index"]
    run(*pip, wheel)  # without an index: all that it depends on is there
    assert (site / "onebit").is_dir()
    assert contents(package) | contents(info) == before
    with_lite = subprocess.run([*map(str, pip), f"{wheel}[cpu]"], capture_output=True, text=True)
    assert "mmcv-lite==2.1.0" in with_lite.stderr
    assert contents(package) | contents(info) == before
