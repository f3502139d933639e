import subprocess
import sys

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
