import subprocess
import sys

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
