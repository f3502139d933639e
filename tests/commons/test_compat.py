import subprocess
import sys

import pytest
import torch

from onebit.commons import acceleration, compat
from onebit.commons.compat import TORCH
from onebit.commons.errors import InputError
from onebit.leaderboards import cli

TORCHVISION = """
from onebit.commons.compat import ensure_torchvision
native = ensure_torchvision()
import torch, torchvision
from torchvision.transforms import v2
assert native == torchvision.extension._has_ops()
assert v2.Resize(4, antialias=True)(torch.zeros(3, 8, 8)).shape == (3, 4, 4)
assert ensure_torchvision() == native
print("fine")
"""


def test_torchvision_can_be_imported_in_a_fresh_process():
    done = subprocess.run([sys.executable, "-c", TORCHVISION], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "fine", done.stderr


WITHOUT_MMCV = """
import sys
sys.modules["mmcv"] = None  # as if it were not installed
from onebit.leaderboards import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def without_mmcv(*arguments):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_MMCV, *arguments], capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_missing_mmcv_is_one_line_that_names_both_ways(tmp_path):
    done = without_mmcv("train", "detection", "--dataset", "mini-voc", "--backbone", "resnet18_w8")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("onebit: detection needs mmcv, which is not installed: pip install 'onebit-bench[cpu]'")
    assert "a compiled mmcv 2.1" in line
    doctor = without_mmcv("doctor", "--data", str(tmp_path))
    assert doctor.returncode == 0
    assert line.removeprefix("onebit: ") in doctor.stdout
    assert without_mmcv("cost", "resnet18_w8").returncode == 0


def test_doctor_tells_of_two_mmcvs_in_one_folder(monkeypatch, capsys, tmp_path):
    both = {"mmcv": "2.1.0", "mmcv-lite": "2.1.0"}
    for found, told in ((both, True), ({"mmcv": "2.1.0"}, False), ({"mmcv-lite": "2.1.0"}, False)):
        monkeypatch.setattr("onebit.commons.provenance.versions", lambda found=found: found)
        assert cli.main(["doctor", "--data", str(tmp_path)]) == 0
        assert ("mmcv and mmcv-lite are both installed" in capsys.readouterr().out) == told


OLD_TORCH = """
import sys, numpy, torch
torch.__version__, numpy.__version__ = "2.1.2", "2.0.1"
from onebit.leaderboards import cli
sys.exit(cli.main(["cost", "resnet18_w8"]))
"""


def test_an_old_torch_beside_numpy_2_is_one_line():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", OLD_TORCH], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "onebit: torch 2.1.2 was built for numpy 1 and cannot use numpy 2.0.1: "
        "pip install 'numpy<2', or a torch from 2.3 on\n"
    )


def test_what_needs_a_newer_torch_says_so(monkeypatch):
    monkeypatch.setattr(compat, "TORCH", (2, 1))
    with pytest.raises(InputError, match=r"^mixed precision in float16 on cpu needs torch 2\.3 or newer, found "):
        compat.grad_scaler("cpu")
    assert not compat.grad_scaler("cpu", enabled=False).is_enabled()
    compat.require_torch((2, 1), "this")
    with pytest.raises(InputError, match=r"^compile needs torch 2\.4 or newer, found "):
        acceleration.compile_network(torch.nn.Identity(), True)
    acceleration.compile_network(torch.nn.Identity(), False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, *([torch.float16] if TORCH >= (2, 3) else [])])
def test_autocast_is_seen(dtype):
    assert not compat.autocasting("cpu")
    with torch.autocast("cpu", dtype):
        assert compat.autocasting("cpu")
        assert not compat.autocasting("cuda")
        assert compat.autocast_dtype("cpu") == dtype
    assert not compat.autocasting("meta")
