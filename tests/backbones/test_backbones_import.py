"""`import backbones` is cheap, and enough for mmengine to find everything in it."""

import json
import subprocess
import sys

MEASURE = """
import json, sys, time
start = time.perf_counter(); import torch; torch_time = time.perf_counter() - start
start = time.perf_counter(); from onebit import backbones; time_of_ours = time.perf_counter() - start
print(json.dumps({"seconds": time_of_ours, "modules": sorted({m.split(".")[0] for m in sys.modules})}))
"""

BUILD = """
import mmengine, sys
from onebit import backbones
build = mmengine.registry.MODELS.build
net = build(dict(type="onebit.ResNet", depth=18, width=8, binarizer="reactnet"))
assert type(net).__name__ == "ResNet", net
net = build(dict(type="onebit.create_backbone", name="resnet18_w8_bireal", out_indices=(1, 3)))
assert net.feature_channels == (16, 64), net.feature_channels
conv = build(dict(type="onebit.OneBitConv2d", in_channels=2, out_channels=3, kernel_size=1))
assert isinstance(conv, backbones.OneBitConv2d)
assert backbones.ResNet is type(net)
assert "ResNet" in dir(backbones)
assert not {"mmdet", "torchreid", "torchvision"} & set(sys.modules)
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_cheap_and_pulls_in_no_task_library():
    runs = [json.loads(run(MEASURE)) for _ in range(2)]
    assert not {"mmdet", "torchreid", "torchvision", "mmcv"} & set(runs[0]["modules"])
    # The faster of two: the first may have to read the files from disk.
    assert min(r["seconds"] for r in runs) < 1.5


def test_everything_resolves_after_importing_backbones_alone():
    run(BUILD)
