"""Both layouts of torchreid, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Lays the installed package out as torchreid 1.4 is: the modules of torchreid.reid.* directly below
#: torchreid, and no torchreid.reid.
ORIGINAL_LAYOUT = """
import importlib, pkgutil, sys, types, warnings
from onebit.commons.compat import ensure_torchvision

ensure_torchvision()
warnings.simplefilter("ignore")
import torchreid.reid as inner
for info in pkgutil.walk_packages(inner.__path__, "torchreid.reid."):
    if not info.name.startswith("torchreid.reid.metrics.rank_cylib"):
        importlib.import_module(info.name)
package = types.ModuleType("torchreid")
package.__path__ = []
package.__version__ = "1.4.0"
moved = {n: m for n, m in sys.modules.items() if n == "torchreid" or n.startswith("torchreid.")}
for name in moved:
    del sys.modules[name]
sys.modules["torchreid"] = package
for name, module in moved.items():
    if name.startswith("torchreid.reid."):
        sys.modules[name.replace("torchreid.reid.", "torchreid.")] = module
        if name.count(".") == 2:
            setattr(package, name.split(".")[2], module)
"""

#: What a user does; prints what must not depend on the layout.
USE = """
import json, sys
from pathlib import Path
from onebit import reid
import torchreid, torch
from onebit.commons.task import Job
from onebit.reid import runner
from onebit.reid.torchreid_adapter import LAYOUT

torch.set_num_threads(1)
model = torchreid.models.build_model("dcp_nas_s", num_classes=5, pretrained=False)
data, work = map(Path, sys.argv[1:3])
outcomes = []
for loss in ("softmax", "triplet"):
    options = {"epochs": 1, "height": 64, "width": 32, "data.batch_size_train": 16, "model.loss": loss}
    job = Job("market1501", "resnet18_w8_bireal", "mini", 0, data, work / loss, cfg_options=options)
    outcome = runner.train(job)
    outcomes.append([outcome.metrics, outcome.details["loss_curve"]])
print(json.dumps([LAYOUT, type(model).__name__, outcomes]))
"""


def run(script: str, *arguments) -> list:
    import json

    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_original_layout_gives_the_same_row(tiny, tmp_path):
    layout, model, outcomes = run(USE, tiny, tmp_path / "a")
    original, same_model, same_outcomes = run(ORIGINAL_LAYOUT + USE, tiny, tmp_path / "b")
    assert (layout, original) == ("torchreid.reid", "torchreid")
    assert model == same_model == "ReIDModel"
    assert outcomes == same_outcomes


def test_the_original_layout_is_found():
    script = (
        ORIGINAL_LAYOUT
        + """
import json
from onebit.reid import torchreid_adapter as adapter
from onebit.reid.datasets import CheckedMarket1501
adapter.register_dataset("onebit_market1501", CheckedMarket1501)
import torchreid
print(json.dumps([
    adapter.LAYOUT,
    type(torchreid.models.build_model("resnet18_w16_reactnet", 5, pretrained=False)).__name__,
    [adapter.Market1501 is sys.modules["torchreid.data.datasets.image.market1501"].Market1501,
     getattr(torchreid.data.datasets, "__image_datasets")["onebit_market1501"] is CheckedMarket1501],
]))
"""
    )
    assert run(script) == ["torchreid", "ReIDModel", [True, True]]
