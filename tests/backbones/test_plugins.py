"""Packages of other people, each in a process of its own: what was registered stays registered."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fresh

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "examples" / "onebit-method-template"


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder into which the template is installed, metadata and all."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "template"
    shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns("*.egg-info", "build"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--target",
        str(target),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return target


def surroundings(*paths, **environment):
    found = os.pathsep.join(map(str, (ROOT, *paths)))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found, **environment}


def run(arguments, *paths):
    """In a process that has imported nothing."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=surroundings(*paths), capture_output=True, text=True)


def python(code, *paths, **environment):
    done = fresh.run(["-c", code], surroundings(*paths, **environment))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def onebit(*arguments, paths=()):
    return fresh.run(["-m", "onebit", *map(str, arguments)], surroundings(*paths))


def package(folder, name, text, entry_point=False):
    """A package of one module in ``folder``; with its metadata if it is to have an entry point."""
    (folder / f"{name}.py").write_text(text)
    if entry_point:
        info = folder / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[onebit.backbones]\nit = {name}\n")
    return folder


LAYERS = """
from onebit.backbones import Binarizer, register_binarizer
from onebit.backbones.binarization import ApproxSign, ScaledSign
__version__ = "3.4"
"""
BINARIZER = (
    LAYERS
    + """
register_binarizer(Binarizer(name="{}", source="them", input=ApproxSign, weight=ScaledSign))
"""
)


@pytest.mark.slow
def test_the_template_once_it_is_installed(installed):
    code = """
import sys, backbones
assert "onebit_method_template" not in sys.modules
names = backbones.list_backbones("*tanhsign")
assert "onebit_method_template" in sys.modules
assert {"resnet18_tanhsign", "tinynet_w16_tanhsign"} <= set(names), names
assert backbones.foreign_packages("resnet18_w8_tanhsign") == {"onebit-method-template": "0.1.0"}
import mmengine
net = mmengine.registry.MODELS.build(dict(type="onebit.TinyNet", width=8))
assert net.feature_channels == (8, 16, 32, 64)
"""
    python(code, installed)
    done = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", TEMPLATE / "tests"], installed)
    assert done.returncode == 0, done.stdout


def test_a_config_alone_finds_it(installed):
    code = """
import mmengine
from onebit import backbones
assert mmengine.registry.MODELS.get("onebit.TinyNet").__module__ == "onebit_method_template.backbone"
"""
    python(code, installed)
    code = """
from onebit import backbones
assert backbones.get_binarizer("tanhsign").name == "tanhsign"
"""
    python(code, installed)


def test_help_imports_no_package(tmp_path):
    package(tmp_path, "slow", "raise SystemExit('imported')", entry_point=True)
    done = onebit("--help", paths=[tmp_path])
    assert done.returncode == 0
    done = onebit("bench", "--help", paths=[tmp_path])
    assert done.returncode == 0
    assert "--import PKG" in done.stdout
    python("from onebit import backbones", tmp_path)


def test_import_on_the_command_line(tmp_path):
    package(tmp_path, "theirs", BINARIZER.format("mine"))
    command = ("cost", "resnet18_w8_mine", "--import", "theirs")
    assert onebit(*command, paths=[tmp_path]).returncode == 0
    done = onebit(*command[:2], paths=[tmp_path])
    assert (done.returncode, "unknown backbone" in done.stderr) == (2, True)


def test_version_of_a_module_without_metadata(tmp_path):
    package(tmp_path, "theirs", BINARIZER.format("mine"))
    package(tmp_path, "bare", BINARIZER.format("other").replace("__version__", "number"))
    code = """
from onebit import backbones
assert backbones.foreign_packages("resnet18_w8_mine") == {"theirs": "3.4"}
assert backbones.foreign_packages("dcp_nas_c8_other") == {"bare": "unknown"}
from onebit.leaderboards.running.environment import environment
assert environment("reid", "resnet18_w8_mine").versions["theirs"] == "3.4"
assert "theirs" not in environment("reid", "resnet18_w8").versions
"""
    python(code, tmp_path, ONEBIT_IMPORT="theirs,bare")


def test_processes_that_are_spawned_import_it_too(tmp_path):
    package(tmp_path, "theirs", BINARIZER.format("mine"))
    (tmp_path / "main.py").write_text("""
import argparse, multiprocessing
from onebit.leaderboards.commands.options import request_imports
from onebit import backbones
if __name__ == "__main__":
    request_imports(argparse.Namespace(imports=["theirs"]))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(backbones.describe, ("resnet18_w8_mine",))["binarizer"])
""")
    done = run([tmp_path / "main.py"], tmp_path)
    assert done.stdout == "mine\n", done.stderr


@pytest.mark.parametrize("entry_point", [True, False])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (BINARIZER.format("reactnet"), "binarizer 'reactnet' is registered already"),
        (BINARIZER.format("real"), "_real' of "),
        (BINARIZER.format("w16"), "binarizer name 'w16': expected"),
    ],
    ids=["missing", "error", "syntax", "exit", "taken", "suffix", "width"],
)
def test_one_line_that_names_the_package(tmp_path, entry_point, text, message):
    package(tmp_path, "theirs", text, entry_point)
    extra = () if entry_point else ("--import", "theirs")
    done = onebit("cost", "resnet18_w8", *extra, paths=[tmp_path])
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    how = "entry point it of theirs 1.2" if entry_point else "--import"
    assert f"cannot use package theirs ({how}): " in done.stderr
    assert message in done.stderr


def test_a_package_that_is_not_there():
    done = onebit("cost", "resnet18_w8", "--import", "theirs")
    assert done.returncode == 2
    assert "is it installed, or its folder on PYTHONPATH?" in done.stderr


FAMILY = """
from onebit.backbones import Family, register_family
register_family(Family("ResNet", lambda: {names}, lambda name: dict(width=8) if {rule} else None))
"""


def test_families_that_claim_a_name_that_is_taken(tmp_path):
    package(tmp_path, "theirs", FAMILY.format(names="['resnet18']", rule="name == 'resnet18'"))
    done = onebit("cost", "dcp_nas_c8", "--import", "theirs", paths=[tmp_path])
    assert done.returncode == 2
    assert "cannot use package theirs (--import): the backbone name" in done.stderr
    # A clash that only shows in names that are not listed is refused when one is asked for.
    rule = "name.startswith('resnet18_w9')"
    package(tmp_path, "theirs", FAMILY.format(names="['resnet18_w9x']", rule=rule))
    assert onebit("cost", "dcp_nas_c8", "--import", "theirs", paths=[tmp_path]).returncode == 0
    done = onebit("cost", "resnet18_w9", "--import", "theirs", paths=[tmp_path])
    assert done.returncode == 2
    assert "the backbone name 'resnet18_w9' is read by ResNet and ResNet" in done.stderr


def test_a_failure_stays_one(tmp_path):
    package(tmp_path, "theirs", BINARIZER.format("mine") + "1 / 0")
    code = """
from onebit import backbones
from onebit.commons.errors import InputError
for _ in range(2):
    try:
        backbones.create_backbone("resnet18_w8_mine")
    except InputError as error:
        assert "ZeroDivisionError" in str(error), error
    else:
        raise AssertionError
"""
    python(code, tmp_path, ONEBIT_IMPORT="theirs")


def test_a_package_may_use_names_while_it_is_imported(tmp_path):
    text = BINARIZER.format("mine") + "from onebit import backbones\nbackbones.create_backbone('resnet18_w8_mine')"
    package(tmp_path, "theirs", text)
    python("from onebit import backbones; backbones.describe('resnet18_w8_mine')", tmp_path, ONEBIT_IMPORT="theirs")


def test_doctor_names_the_packages(tmp_path, installed):
    package(tmp_path, "theirs", "1 / 0")
    done = onebit("doctor", paths=[installed])
    assert "onebit_method_template entry point template of onebit-method-template 0.1.0" in done.stdout
    done = onebit("doctor", "--import", "theirs", paths=[tmp_path])
    assert done.returncode == 0
    assert "cannot use package theirs (--import): ZeroDivisionError" in done.stdout


def example():
    """The whole method that docs/adding-a-method.md shows."""
    (block,) = re.findall(r"```python\n(\"\"\".*?)```", (ROOT / "docs/adding-a-method.md").read_text(), re.DOTALL)
    assert len(block.splitlines()) <= 36
    return block


@pytest.mark.slow
def test_the_method_of_the_docs_trains_packs_and_searches(tmp_path):
    """From a folder outside the suite; a resumed training ends where an uninterrupted one does."""
    package(tmp_path, "softsign", example())
    code = """
import json, os, shutil, sys, torch
from onebit.leaderboards import cli
os.chdir(sys.argv[1])

def onebit(command):
    assert cli.main([*command.split(), "--import", "softsign"]) == 0, command

onebit("data mini data --only mini-cifar10")
train = "train classification --dataset mini-cifar10 --data data --recipe mini --backbone resnet18_w4_softsign"
options = "--cfg-options train_cfg.max_epochs=3 train_dataloader.num_batch_per_epoch=3 test_dataloader.num_batch_per_epoch=1"
onebit(f"{train} --work-dir whole {options}")
shutil.copytree("whole", "cut")
os.remove("cut/epoch_3.pth")
onebit(f"{train} --work-dir cut --resume {options}")
whole, cut = (torch.load(f"{run}/epoch_3.pth", weights_only=True)["state_dict"] for run in ("whole", "cut"))
assert all(torch.equal(whole[name], cut[name]) for name in whole)
onebit("export whole/epoch_3.pth net.safetensors")
assert os.path.isfile("net.safetensors")
tiny = "space.cells=3 space.channels=2 schedule.epochs=2 data.image_size=8 data.images=40 data.batch_size=20"
search = "search dcp-nas --dataset mini-cifar10 --data data --preset mini --out cell.json --work-dir search"
onebit(f"{search} --cfg-options {tiny} --options binarizer=softsign curvature=ggn")
with open("cell.json") as file:
    assert json.load(file)["provenance"]["options"]["binarizer"] == "softsign"
onebit("mock-run resnet18_w4_softsign --tasks classification")
"""
    done = run(["-c", code, tmp_path], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "everything holds" in done.stdout


@pytest.mark.slow
def test_a_board_with_a_backbone_of_another_package(installed, tmp_path):
    """In worker processes, interrupted, resumed, scored again; the record names the package."""
    data, out, work = (str(tmp_path / name) for name in ("data", "out", "work"))
    assert onebit("data", "mini", data, "--only", "mini-cifar10").returncode == 0
    bench = [
        "bench",
        "mini-cifar10",
        "--data",
        data,
        "--out",
        out,
        "--work-dir",
        work,
        "--backbones",
        "tinynet_w8_tanhsign,resnet18_w4_tanhsign",
        "--cfg-options",
        "train_cfg.max_epochs=2",
        "train_dataloader.num_batch_per_epoch=3",
        "test_dataloader.num_batch_per_epoch=1",
    ]
    first = onebit(*bench, "--workers", "2", paths=[installed])
    assert first.returncode == 0, first.stderr
    records = sorted((tmp_path / "out/records/cifar10").glob("*.json"))
    assert len(records) == 2
    for path in records:
        versions = json.loads(path.read_text())["environment"]["versions"]
        assert versions["onebit-method-template"] == "0.1.0"
    # Without the package a finished board is shown, and a new row of it has no backbone.
    assert onebit(*bench).returncode == 0
    assert onebit(*bench, "--seeds", "1").returncode == 2
    # Not installed but named: the template's source, from its folder.
    checkpoint = sorted(Path(work).glob("*tinynet*/epoch_2.pth"))[0]
    test = ["test", "classification", "--checkpoint", str(checkpoint), "--dataset", "mini-cifar10", "--data", data]
    done = onebit(*test, "--import", "onebit_method_template", paths=[TEMPLATE])
    assert done.returncode == 0, done.stderr
    (checkpoint.parent / "epoch_2.pth").unlink()
    train = [
        "train",
        "classification",
        "--dataset",
        "mini-cifar10",
        "--data",
        data,
        "--backbone",
        "tinynet_w8_tanhsign",
        "--recipe",
        "mini",
        "--work-dir",
        str(checkpoint.parent),
        "--resume",
        *bench[-4:],
    ]
    done = onebit(*train, "--import", "onebit_method_template", paths=[TEMPLATE])
    assert done.returncode == 0, done.stderr
    assert checkpoint.is_file()
