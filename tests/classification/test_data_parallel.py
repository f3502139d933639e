"""Two processes on gloo train what one process does with their joint batch."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from onebit.classification import runner as classification
from onebit.commons.engine import load_row

SCRIPT = Path(__file__).with_name("data_parallel.py")
#: Nothing random in an image: each process would draw its own.
STILL = {"model.data_preprocessor.padding": 0}
REAL = "resnet18_w8"
pytestmark = pytest.mark.slow
BACKBONES = (REAL, "resnet18_w8_reactnet")


@pytest.fixture(scope="module")
def parallel(data, tmp_path_factory):
    """What two processes made of every job, by name: (job, results of rank 0, of rank 1)."""
    from onebit.commons.task import Job

    root = tmp_path_factory.mktemp("parallel")

    def job(name, backbone="resnet18_w8", **options):
        few = {"train_cfg.max_epochs": 2, "train_dataloader.batch_size": 40, **STILL, **options}
        return Job("mini-cifar10", backbone, "mini", 0, data, root / name, False, few)

    jobs = {name: job(name, name) for name in BACKBONES}
    two = [dict(epochs=1, binarize="activations"), dict(epochs=1)]
    staged = job("staged", BACKBONES[1], **{"stages": two, "ema.momentum": 0.5})
    del staged.cfg_options["train_cfg.max_epochs"]
    jobs["staged"] = staged
    jobs["odd"] = job("odd", **{"train_dataloader.batch_size": 25})
    jobs["nan"] = job("nan", **{"optim_wrapper.optimizer.lr": float("inf")})
    fields = [{**asdict(j), "data_root": str(j.data_root), "work_dir": str(j.work_dir)} for j in jobs.values()]
    for each in fields:
        del each["recorded"]  # options of a file, of which these jobs have none
    (root / "jobs.json").write_text(json.dumps(fields))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    ran = subprocess.run(
        [*command, str(SCRIPT), str(root / "jobs.json"), str(root)],
        capture_output=True,
        text=True,
        timeout=1800,
        cwd=SCRIPT.parent.parent.parent,
    )
    assert ran.returncode == 0, ran.stderr
    ranks = [json.loads((root / f"{rank}.json").read_text()) for rank in (0, 1)]
    return {name: (j, *found) for (name, j), *found in zip(jobs.items(), *ranks, strict=True)}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_same_as_one_process_with_the_joint_batch(parallel, job, backbone):
    asked, first, second = parallel[backbone]
    alone = classification.train(job(name="alone", backbone=backbone, cfg_options=dict(asked.cfg_options)))
    assert first["untrained"] == alone.untrained
    assert first["metrics"] == second["metrics"]
    assert first["loss_curve"] == second["loss_curve"]
    assert first["config"] == alone.config
    a, b = load_row(first["checkpoint"])[1], load_row(alone.checkpoint)[1]
    assert a.keys() == b.keys()
    losses = first["loss_curve"], alone.details["loss_curve"]
    if backbone == REAL:
        assert first["metrics"] == alone.metrics
        np.testing.assert_allclose(*losses, rtol=1e-4)
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-3)
    else:  # the rounding of sums turns signs of values near 0, and these the values after them
        np.testing.assert_allclose(*losses, rtol=0.02)


def test_only_the_first_process_writes(parallel):
    asked, first, second = parallel[BACKBONES[0]]
    assert (first["predictions"], second["predictions"]) == (str(asked.work_dir / "predictions.npz"), "None")
    assert first["checkpoint"] == second["checkpoint"]
    assert (asked.work_dir / "train.log").read_text().count("Epoch(train)") <= 4
    assert not list(Path.cwd().glob(".dist_test*"))


def test_stages_and_averages_are_the_same_in_every_process(parallel):
    asked, first, second = parallel["staged"]
    assert first["metrics"] == second["metrics"]
    assert first["loss_curve"] == second["loss_curve"]
    assert len(first["loss_curve"]) == 2
    assert load_row(first["checkpoint"])[0]["stage"] == 2
    assert (asked.work_dir / "stage1" / "epoch_1.pth").exists()


def test_batch_that_cannot_be_shared_is_refused(parallel):
    _, *found = parallel["odd"]
    message = "batch_size 25 is that of all processes together: expected a multiple of 2"
    assert all(message in ranks["error"] for ranks in found)


def test_all_processes_end_at_a_loss_that_is_not_finite(parallel):
    _, first, second = parallel["nan"]
    assert first == second
    assert first["error"].startswith("the loss is ")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are read from /proc")
def test_no_thread_of_the_group_is_left_to_the_interpreter_s_end(parallel):
    """It would ask for the interpreter's lock there, which now and then aborts the process."""
    root = parallel[BACKBONES[0]][0].work_dir.parent
    for rank in (0, 1):
        names = (root / f"{rank}.threads").read_text().split("\n")
        assert names
        assert not [name for name in names if "gloo" in name]
