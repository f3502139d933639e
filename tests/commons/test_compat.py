import subprocess
import sys

import torch

from onebit.commons.compat import allow_mmengine_checkpoints

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


def test_mmengine_checkpoint_loads_with_weights_only(tmp_path):
    from mmengine.logging import MessageHub

    hub = MessageHub("test_compat")
    for i in range(3):
        hub.update_scalar("train/loss", i / 7)
    hub.update_scalar("train/count", 5)
    path = tmp_path / "epoch_1.pth"
    torch.save(dict(message_hub=hub.state_dict(), state_dict={}), path)
    allow_mmengine_checkpoints()
    loaded = torch.load(path, weights_only=True)["message_hub"]
    history, counts = loaded["log_scalars"]["train/loss"].data
    assert history.tolist() == [0.0, 1 / 7, 2 / 7]
    assert counts.tolist() == [1, 1, 1]
