"""Searches from end to end: results, resuming, errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from onebit import backbones
from onebit.backbones.cells.genotype import Genotype
from onebit.classification.search import loop, runner
from onebit.classification.search.runner import search
from onebit.classification.search.strategies.random import RandomSearch
from onebit.commons.datasets import get_dataset
from onebit.commons.engine import load_row
from onebit.commons.errors import InputError, WorkError
from onebit.commons.provenance import checkout

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A search that nothing interrupted, and its job."""
    from onebit.classification.search.job import SearchJob
    from tests.classification.search.conftest import TINY

    folder = tmp_path_factory.mktemp("finished")
    job = SearchJob("darts", "mini-cifar10", "mini", 0, data, folder, cfg_options=TINY)
    return job, search(job)


def test_outcome_says_how_the_cell_was_found(finished):
    job, outcome = finished
    assert outcome.history.shape == (3, 2, 14, 8)
    assert torch.isfinite(outcome.history).all()
    assert outcome.genotype == Genotype.derive(outcome.history[-1], "top2")
    # DARTS: every step takes a training and a validation batch.
    assert outcome.images_seen == 3 * (2 * 20 + 2 * 20)
    assert outcome.wall_seconds > 0
    assert outcome.peak_memory_bytes > 2**20
    assert (outcome.gpu_days is None) == (not torch.cuda.is_available())
    about = outcome.genotype.provenance
    assert (about["method"], about["preset"], about["seed"]) == ("darts", "mini", 0)
    assert about["data_checksum"].startswith("content:")
    assert about["options"]["arch_lr"] == 3e-2  # of the preset
    assert about["cfg_options"] == dict(job.cfg_options)
    assert about["versions"]["torch"] == metadata.version("torch")
    assert about["images_seen"] == outcome.images_seen
    assert about["supernet"] == {"channels": 2, "cells": 3, "binarizer": None, "structure": "onebit"}
    assert about["code"] == checkout()
    assert about["diagnosis"]["measures"] == {"alpha_entropy": pytest.approx(0.99, abs=0.01)}
    assert set(about["diagnosis"]["edges_without_weights"]) == {"normal", "reduce"}
    assert about["diagnosis"]["warnings"] == outcome.warnings
    assert about["derivation"] == {"edges": "top2", "keep_none": False, "epoch": 3}


def test_the_hash_of_the_config_is_that_of_all_seeds_and_folders_alone(search_job, tmp_path):
    def config_hash(job):
        dataset = get_dataset(job.dataset)
        return runner.config_hash(runner.build_config(job, dataset, dataset.find(job.data_root)))

    first = config_hash(search_job("darts"))
    assert config_hash(search_job("darts", seed=1, work_dir=tmp_path / "other")) == first
    for change in (dict(options={"arch_lr": 1.0}), dict(cfg_options={"data.valid": 0.2})):
        assert config_hash(search_job("darts", **change)) != first


def test_an_option_with_the_name_of_a_python_word_is_one_row_however_it_is_written(search_job):
    jobs = [search_job("dcp-nas", name=name, options={name: 0.5}) for name in ("lambda", "lambda_")]
    assert runner.row_of(jobs[0]) == runner.row_of(jobs[1])
    assert runner.row_of(jobs[0])["options"] == {"lambda_": 0.5}
    with pytest.raises(InputError, match="'lambda_' is given twice"):
        search_job("dcp-nas", options={"lambda": 1, "lambda_": 2})


def test_peak_memory_is_that_of_the_search_alone(search_job):
    """On Linux, where a process can forget its peak."""
    before = np.ones(2**28)  # 2 GiB
    most = loop.peak_memory_bytes(on_gpu=False)
    assert most > 2**31
    del before
    outcome = search(search_job(cfg_options={"schedule.epochs": 1}))
    assert outcome.peak_memory_bytes < most - 2**30


def test_other_data_than_before_are_refused_when_a_search_is_resumed(finished, data, tmp_path):
    job, _ = finished
    shutil.copytree(data / "mini-cifar10", tmp_path / "mini-cifar10")
    image = next((tmp_path / "mini-cifar10").rglob("*_batch*"))
    image.write_bytes(image.read_bytes()[::-1])
    with pytest.raises(InputError, match=r"cannot resume: .* with data 'content:"):
        search(replace(job, data_root=tmp_path, resume=True))


def test_files_of_a_result(finished, tmp_path):
    _, outcome = finished
    history, picture, cell = outcome.save(tmp_path / "deep" / "cell.json")
    assert Genotype.load(cell) == outcome.genotype
    assert json.loads(cell.read_text())["provenance"]["method"] == "darts"
    with np.load(history) as kept:
        np.testing.assert_array_equal(kept["scores"], outcome.history)
        assert kept["operations"].tolist() == list(outcome.operations)
        assert json.loads(str(kept["provenance"])) == dict(outcome.genotype.provenance)
        assert kept["edges"][[0, 2, 13]].tolist() == ["0-2", "0-3", "4-5"]
    assert picture.read_text().count("<svg") == 1
    assert {p.name for p in cell.parent.iterdir()} == {"cell.json", "cell.svg", "cell.scores.npz"}
    with torch.device("meta"):
        network = backbones.create_backbone(f"{cell}_c4_l3", stem="cifar")
    assert network.genotype == outcome.genotype


def test_tensorboard_has_losses_and_scores(finished):
    job, outcome = finished
    (file,) = job.work_dir.rglob("events*")
    events = EventAccumulator(str(file))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert {"loss_weights", "epoch/loss_weights", "epoch/loss_architecture"} <= set(scalars)
    values = [e.value for e in events.Scalars("scores_reduce/4-5/sep_conv_3x3")]
    np.testing.assert_allclose(values, outcome.history[:, 1, 13, 4], rtol=1e-6)
    assert sum(name.startswith("scores_") for name in scalars) == 2 * 14 * 8


def test_losses_of_an_epoch_are_means_over_its_steps():
    epoch = SimpleNamespace(losses={"weights": (6.0, 3), "architecture": (1.0, 2)})
    assert loop.SearchLoop.mean_losses(epoch) == {"weights": 2.0, "architecture": 0.5}


@pytest.mark.slow
def test_tensorboard_has_the_architecture_parameters(search_job, few_operations):
    job = search_job("dcp-nas", cfg_options={"schedule.epochs": 1})
    search(job)
    (file,) = job.work_dir.rglob("events*")
    events = EventAccumulator(str(file))
    events.Reload()
    _, weights = load_row(job.work_dir / "epoch_1.pth")

    def shown(tag):
        return events.Scalars(tag)[-1].value

    alpha = weights["strategy.child_alpha"]
    assert shown("child_alpha_reduce/4-5/dil_conv_3x3") == pytest.approx(alpha[1, 13, 2].item())
    assert shown("alpha_normal/0-2/none") == pytest.approx(alpha[0, 0, 0].item())  # inherited
    psi = weights["strategy.child_decoupling.psi"]
    assert shown("child_decoupling.psi_normal/1-2") == pytest.approx(psi[0, 1, 0].item())
    job = search_job("pc-darts", name="pc", cfg_options={"schedule.epochs": 1}, options={"k": 1})
    search(job)
    (file,) = job.work_dir.rglob("events*")
    events = EventAccumulator(str(file))
    events.Reload()
    assert {"alpha_normal/0-2/none", "beta_normal/0-2"} <= set(events.Tags()["scalars"])


#: Options that make a search of every method short.
RESUMED = {
    "dcp-nas": {},
    "cp-nas": {"T": 1},
    "bnas": {"T": 1, "channel_fraction": 1.0},
    "abanditnas": {"T": 1},
    "pc-darts": {"k": 1, "warmup": 0.5},
    "random": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", RESUMED)
def test_every_method_goes_on_from_a_checkpoint_as_if_nothing_had_happened(search_job, method, monkeypatch):
    few = {"space.pooling": False, "space.skip": False}
    job = search_job(method, options=RESUMED[method], cfg_options=few)
    whole = search(job)
    stopped = replace(job, work_dir=job.work_dir.with_name("stopped"))
    step, at = loop.SearchLoop.step, len(whole.history) // 2

    def interrupted(self, losses, images):
        if (self._epoch, self._step_in_epoch) == (at, 1):
            raise KeyboardInterrupt
        step(self, losses, images)

    with monkeypatch.context() as patch:
        patch.setattr(loop.SearchLoop, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(stopped)
    assert (stopped.work_dir / f"epoch_{at}.pth").exists()
    resumed = search(replace(stopped, resume=True))
    assert torch.equal(resumed.history, whole.history)
    assert resumed.genotype == whole.genotype
    assert resumed.images_seen == whole.images_seen
    ends = [load_row(j.work_dir / f"epoch_{len(whole.history)}.pth")[1] for j in (job, stopped)]
    counters = {"seconds", "epoch_seconds", "peak_memory_bytes"}
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0].keys() - counters)


def test_same_seed_same_cell_other_seed_other_scores(finished, tmp_path):
    job, outcome = finished
    again = search(replace(job, work_dir=tmp_path / "again"))
    assert torch.equal(again.history, outcome.history)
    assert again.genotype == outcome.genotype
    options = {**job.cfg_options, "schedule.epochs": 1}
    other = search(replace(job, work_dir=tmp_path / "other", seed=1, cfg_options=options))
    assert not torch.equal(other.history[0], outcome.history[0])


_KILLED = """
import os, signal, sys
from onebit.classification.search import loop
from onebit.leaderboards import cli

step = loop.SearchLoop.step
def killed(self, losses, images):
    if (self._epoch, self._step_in_epoch) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, losses, images)
loop.SearchLoop.step = killed
cli.main(sys.argv[1:])
"""


def arguments(job, out, *more):
    changes = [f"{key}={value}" for key, value in job.cfg_options.items()]
    return [
        "search",
        job.method,
        "--dataset",
        job.dataset,
        "--preset",
        job.preset,
        "--data",
        str(job.data_root),
        "--work-dir",
        str(job.work_dir),
        "--out",
        str(out),
        "--cfg-options",
        *changes,
        *more,
    ]


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed_it_finds_the_same_cell(finished, tmp_path):
    from onebit.leaderboards import cli

    job, outcome = finished
    job = replace(job, work_dir=tmp_path / "work")
    out = tmp_path / "cell.json"
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, *arguments(job, out)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [p.name for p in job.work_dir.glob("epoch_*")] == ["epoch_1.pth"]
    assert not out.exists()
    assert cli.main(arguments(job, out)) == 2  # checkpoints of an earlier search
    assert cli.main(arguments(job, out, "--resume")) == 0
    assert Genotype.load(out) == outcome.genotype
    with np.load(out.with_suffix(".scores.npz")) as kept:
        np.testing.assert_array_equal(kept["scores"], outcome.history)
    about = Genotype.load(out).provenance
    assert about["images_seen"] == outcome.images_seen
    # Once more: nothing is left to search, the same is written again.
    assert cli.main(arguments(job, out, "--resume")) == 0
    assert Genotype.load(out) == outcome.genotype


def test_resume_refuses_what_another_search_left(finished):
    job, _ = finished
    kept = load_row(job.work_dir / "epoch_3.pth")[0]
    assert kept["task"] == "search"
    for changes, message in (
        (dict(seed=1), "with seed 0 and not 1"),
        (dict(method="random"), "with backbone 'darts' and not 'random'"),
        (dict(options={"arch_lr": 0.1}), r"with options \{\} and not \{'arch_lr': 0.1\}"),
        (dict(cfg_options={**job.cfg_options, "amp": "bfloat16"}), "with cfg_options"),
    ):
        with pytest.raises(InputError, match=f"cannot resume: .*{message}"):
            search(replace(job, resume=True, **changes))


def test_loss_that_is_not_a_number_ends_the_search(search_job, monkeypatch, few_operations):
    def broken(self, supernet, optimizer, loss, report):
        return torch.tensor(float("nan") if report._loop.epoch == 1 else 1.0)

    monkeypatch.setattr(RandomSearch, "weight_step", broken)
    job = search_job()
    with pytest.raises(WorkError, match=r"loss is nan in epoch 2.*checkpoint: .*epoch_1\.pth"):
        search(job)


def test_full_disk_is_one_line(search_job, monkeypatch, few_operations):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onebit.commons.files.os.fsync", full)
    with pytest.raises(WorkError, match="the disk is full"):
        search(search_job())


def test_half_precision_and_an_epoch_of_other_length(search_job, monkeypatch, few_operations):
    """Progress knows how long an epoch is from the one before; the search is not its slave."""
    seen = []
    advance = loop.Progress.advance
    monkeypatch.setattr(
        loop.Progress, "advance", lambda self, steps=1, note="": (seen.append(steps), advance(self, steps, note))
    )
    job = search_job(cfg_options={"amp": "bfloat16", "schedule.epochs": 2})
    outcome = search(job)
    assert torch.isfinite(outcome.history).all()
    assert sum(seen) == pytest.approx(2 * 2)  # epochs times batches


@pytest.mark.parametrize("curvature", ["fisher", "ggn", "hessian"])
def test_dcp_nas_in_half_precision(search_job, curvature, few_operations):
    job = search_job("dcp-nas", options={"curvature": curvature}, cfg_options={"amp": "bfloat16", "schedule.epochs": 1})
    outcome = search(job)
    assert torch.isfinite(outcome.history).all()


def test_float16_is_resumed_with_its_scale(search_job, few_operations):
    """The scale starts at 65536 and is halved at every overflow."""
    job = search_job("darts", cfg_options={"amp": "float16", "schedule.epochs": 2})
    whole = search(job)
    assert torch.isfinite(whole.history).all()
    content = torch.load(job.work_dir / "epoch_1.pth", weights_only=True)
    assert content["grad_scaler"]["scale"] > 0
    (job.work_dir / "epoch_2.pth").unlink()
    (job.work_dir / "last_checkpoint").unlink()
    content["grad_scaler"]["scale"] = 4.0
    torch.save(content, job.work_dir / "epoch_1.pth")
    search(replace(job, resume=True))
    end = torch.load(job.work_dir / "epoch_2.pth", weights_only=True)
    assert end["grad_scaler"]["scale"] == 4.0


def test_the_config_is_laid_out_once_and_not_every_epoch(search_job, monkeypatch, few_operations):
    """mmengine puts its text into every checkpoint; yapf takes up to seconds for it."""
    from mmengine.config import config

    calls, format_code = [], config.FormatCode
    monkeypatch.setattr(config, "FormatCode", lambda *a, **k: calls.append(1) or format_code(*a, **k))
    monkeypatch.setattr("onebit.commons.engine._LAID_OUT", {})
    search(search_job())
    assert len(calls) == 2  # of the Runner, and of all seeds alike
    search(search_job(name="again", seed=1))
    assert len(calls) == 3


@pytest.fixture
def epochs_take(monkeypatch):
    """Let epochs take the given seconds, the last of them for ever."""

    def take(*seconds):
        clock = [0.0]

        def perf_counter():  # called at the beginning and the end of every epoch
            clock.append(
                clock[-1] + (seconds[min(len(clock) // 2 - 1, len(seconds) - 1)] if len(clock) % 2 == 0 else 0)
            )
            return clock[-1]

        monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=perf_counter))

    return take


@pytest.mark.slow
def test_a_budget_makes_the_search_that_has_so_many_epochs(search_job, few_operations, epochs_take):
    epochs_take(10)
    job = search_job(budget=35, cfg_options={"schedule.epochs": 9})
    outcome = search(job)
    whole = search(search_job(name="three", cfg_options={"schedule.epochs": 3}))
    assert torch.equal(outcome.history, whole.history)
    assert outcome.wall_seconds == 30
    about = outcome.genotype.provenance
    assert (about["budget_seconds"], about["epochs"], about["epochs_of_method"]) == (35, 3, 9)
    assert "budget_seconds" not in whole.genotype.provenance
    # Killed after the second epoch.
    for name in ("epoch_3.pth", "last_checkpoint"):
        (job.work_dir / name).unlink()
    resumed = search(replace(job, resume=True))
    assert torch.equal(resumed.history, outcome.history)
    assert torch.equal(search(replace(job, resume=True)).history, outcome.history)
    with pytest.raises(InputError, match="cannot resume"):
        search(replace(job, resume=True, budget=40))


def test_a_plan_follows_the_length_of_the_epochs(search_job, few_operations, epochs_take, monkeypatch):
    plans, end = [], loop.SearchLoop._end_after
    monkeypatch.setattr(loop.SearchLoop, "_end_after", lambda self, n: (plans.append(n), end(self, n)))
    epochs_take(10, 10, 20)
    outcome = search(search_job(budget=45, cfg_options={"schedule.epochs": 9}))
    assert plans == [4, 4, 3]
    assert outcome.wall_seconds == 40


@pytest.mark.slow
def test_a_budget_that_judges_nothing_is_refused_after_the_first_epoch(search_job, few_operations, epochs_take):
    epochs_take(10)
    job = search_job("cp-nas", options={"T": 1}, budget=25)
    with pytest.raises(InputError, match=r"after 3 epochs, and epochs take up to 10 s; expected at least 30 s"):
        search(job)
    ended = search(replace(job, work_dir=job.work_dir.with_name("more"), budget=35))
    assert len(ended.history) == 3  # of 5: one round
    assert ended.history[-1].max() > 0
