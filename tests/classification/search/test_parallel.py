"""Two processes on gloo search together."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from onebit.classification.search.job import SearchJob
from onebit.classification.search.strategies import Strategy, get_strategy
from tests.classification.search.conftest import TINY

SCRIPT = Path(__file__).with_name("parallel.py")
#: Those that differ in what processes share: gradients of one network and of two, scores of rounds, arms of bandits.
METHODS = ("darts", "dcp-nas", "cp-nas", "abanditnas")
SHORT = {"cp-nas": {"T": 1}, "abanditnas": {"T": 1}}
#: Five operations, not eight, and one step an epoch.
FEW = {"space.pooling": False, "space.skip": False, "schedule.epochs": 2, "data.images": 40}


@pytest.fixture(scope="module")
def parallel(data, tmp_path_factory):
    """What two processes made of every job, by name: (job, result of rank 0, of rank 1)."""
    root = tmp_path_factory.mktemp("parallel")

    def job(name, method, **changes):
        cfg_options = {**TINY, **FEW, **changes}
        if get_strategy(method).epochs is not Strategy.epochs:
            del cfg_options["schedule.epochs"]
        options = SHORT.get(method, {})
        return SearchJob(method, "mini-cifar10", "mini", 0, data, root / name, False, options, cfg_options)

    jobs = {method: job(method, method) for method in METHODS}
    jobs["odd"] = job("odd", "random", **{"data.batch_size": 25})
    jobs["half"] = job("half", "random", amp="float16")
    fields = [{**asdict(j), "data_root": str(j.data_root), "work_dir": str(j.work_dir)} for j in jobs.values()]
    (root / "jobs.json").write_text(json.dumps(fields))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    ran = subprocess.run(
        [*command, str(SCRIPT), str(root / "jobs.json"), str(root)],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[3],
    )
    assert ran.returncode == 0, ran.stderr
    ranks = [json.loads((root / f"{rank}.json").read_text()) for rank in (0, 1)]
    return {name: (j, *found) for (name, j), *found in zip(jobs.items(), *ranks, strict=True)}


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", METHODS)
def test_both_processes_hold_the_same_networks_and_find_the_same_cell(parallel, method):
    _, first, second = parallel[method]
    assert first["cell"] == second["cell"]
    np.testing.assert_array_equal(first["history"], second["history"])
    np.testing.assert_allclose(first["sums"], second["sums"], rtol=1e-12)
    assert first["processes"] == 2


@pytest.mark.parametrize("method", METHODS)
def test_each_process_takes_its_share_of_the_images(parallel, method):
    _, first, second = parallel[method]
    mine, other = set(first["first_order"]), set(second["first_order"])
    assert not mine & other
    assert len(mine) == len(other) == 10
    assert first["images_seen"] == second["images_seen"]


def test_only_the_first_process_writes(parallel):
    job, *_ = parallel["dcp-nas"]
    assert len(list(job.work_dir.rglob("events*"))) == 1
    assert len(list(job.work_dir.glob("epoch_*.pth"))) == 2


def test_what_cannot_be_shared_is_refused(parallel):
    _, *found = parallel["odd"]
    assert all("expected a multiple of 2, their number" in rank["error"] for rank in found)
    _, *found = parallel["half"]
    assert all("amp float16: in several processes" in rank["error"] for rank in found)
