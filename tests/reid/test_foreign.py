"""torchreid's own networks and other programs' features, on drawn data."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from onebit.commons import mini
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.reid import foreign, runner
from onebit.reid.features import load
from onebit.reid.torchreid_adapter import registered_models

# ruff: isort: split
import torch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    list(mini.write(root, ["mini-market1501"]))
    return root


@pytest.fixture
def job(data, tmp_path):
    return Job("mini-market1501", "", "", 0, data, tmp_path / "scored", cfg_options=dict(height=32, width=16))


@pytest.fixture
def osnet(tmp_path):
    """A checkpoint as torchreid's engine writes it."""
    torch.manual_seed(0)
    network = registered_models()["osnet_x0_25"](num_classes=7, pretrained=False)
    path = tmp_path / "model.pth.tar-60"
    optimizer = torch.optim.Adam(network.parameters())
    torch.save(
        dict(state_dict=network.state_dict(), epoch=60, rank1=np.float64(0.5), optimizer=optimizer.state_dict()), path
    )
    return path


YAML = """
model:
  name: 'osnet_x0_25'
  pretrained: True
data:
  type: 'image'
  height: 64
  width: 16
  norm_mean: [0.5, 0.5, 0.5]
test:
  dist_metric: 'cosine'
"""


def test_a_network_of_torchreid(osnet, job):
    outcome = foreign.score_checkpoint(osnet, job, model="osnet_x0_25")
    assert outcome.main_metric == "mAP"
    assert 0 < outcome.metrics["mAP"] < 1
    assert (outcome.epochs, outcome.untrained, outcome.checkpoint) == (0, None, osnet)
    assert outcome.details["network"] == dict(binarizer="none", weight_bits=32, activation_bits=32)
    assert outcome.details["feature_dim"] == 512
    parameters = registered_models()["osnet_x0_25"](num_classes=7, pretrained=False)
    without = sum(p.numel() for n, p in parameters.named_parameters() if "classifier" not in n)
    assert outcome.cost["strict"]["params_real"] == without
    assert "euclidean" in outcome.protocol
    # What is kept can be scored again, as every row's features.
    assert runner.score_predictions(outcome.predictions, job_of(job)).metrics == outcome.metrics


def job_of(job, **changes):
    from dataclasses import replace

    return replace(job, cfg_options={}, **changes)


def test_its_config_chooses_size_mean_and_distance(osnet, job, tmp_path):
    config = tmp_path / "osnet.yaml"
    config.write_text(YAML)
    job = job_of(job)
    outcome = foreign.score_checkpoint(osnet, job, config=config)
    groups, facts = load(outcome.predictions)
    cfg = facts["cfg"]
    assert (cfg["height"], cfg["width"], cfg["data"]["norm_mean"]) == (64, 16, [0.5, 0.5, 0.5])
    assert "cosine" in outcome.protocol
    config.write_text(YAML.replace("0.5, 0.5, 0.5", "0.1, 0.5, 0.5"))
    other, _ = load(foreign.score_checkpoint(osnet, job, config=config).predictions)
    assert not np.array_equal(other["query"].features, groups["query"].features)


def test_a_backbone_of_this_suite(job, tmp_path):
    from onebit.reid.model import ReIDModel

    torch.manual_seed(0)
    model = ReIDModel("resnet18_w8_reactnet", 5)
    path = tmp_path / "ours.pth"
    torch.save({f"module.{k}": v for k, v in model.state_dict().items()}, path)
    outcome = foreign.score_checkpoint(path, job, model="resnet18_w8_reactnet")
    assert outcome.details["network"]["binarizer"] == "reactnet"
    assert outcome.cost["strict"]["params_1bit"] > 0


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        ("osnet_x0_26", None, "unknown model 'osnet_x0_26'; did you mean osnet_x0_25"),
        (None, None, "expected the name of a model"),
        ("osnet_x0_5", None, "do not fit this network"),
        ("osnet_x0_25", [3], "expected a state dict"),
        ("osnet_x0_25", dict(state_dict={}), "expected a state dict"),
        ("osnet_x0_25", b"PK", "is not a checkpoint that can be read"),
    ],
)
def test_what_does_not_fit(osnet, job, model, content, message):
    if isinstance(content, bytes):
        osnet.write_bytes(content)
    elif content is not None:
        torch.save(content, osnet)
    with pytest.raises(InputError, match=message):
        foreign.score_checkpoint(osnet, job, model=model)


def test_nothing_in_a_checkpoint_is_executed(osnet, job, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save(dict(state_dict={}, epoch=Evil()), osnet)
    with pytest.raises(InputError, match="without executing"):
        foreign.score_checkpoint(osnet, job, model="osnet_x0_25")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "is not YAML"),
        ("- 1", "expected a config of torchreid"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        (YAML.replace("64", "'tall'"), "data.height is 'tall'"),
        (YAML.replace("cosine", "hamming"), "hamming"),
        (YAML.replace("0.5, 0.5, 0.5", "0.5, x"), "expected three numbers"),
    ],
)
def test_broken_configs(osnet, job, tmp_path, text, message):
    config = tmp_path / "osnet.yaml"
    config.write_text(text)
    with pytest.raises(InputError, match=message):
        foreign.score_checkpoint(osnet, job_of(job), config=config)
    with pytest.raises(InputError, match="cannot read config"):
        foreign.score_checkpoint(osnet, job, config=tmp_path / "none.yaml")


@pytest.fixture(scope="module")
def arrays(data, tmp_path_factory):
    """Features of an untrained network under the keys that other programs are asked for."""
    folder = tmp_path_factory.mktemp("arrays")
    torch.manual_seed(0)
    network = registered_models()["osnet_x0_25"](num_classes=7, pretrained=False)
    torch.save(network.state_dict(), folder / "w.pth")
    job = Job("mini-market1501", "", "", 0, data, folder, cfg_options=dict(height=32, width=16))
    outcome = foreign.score_checkpoint(folder / "w.pth", job, model="osnet_x0_25")
    groups, _ = load(outcome.predictions)
    found = {}
    for name, part in groups.items():
        found[f"{name}.features"] = part.features
        found[f"{name}.pids"] = part.pids
        found[f"{name}.cameras"] = part.cameras
    return outcome, found


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("labelled", [True, False])
def test_features_of_another_program(arrays, job, tmp_path, suffix, labelled):
    outcome, found = arrays
    found = {k: v for k, v in found.items() if labelled or k.endswith("features")}
    path = tmp_path / f"features{suffix}"
    if suffix == ".npz":
        np.savez(path, **found)
    else:
        safetensors.numpy.save_file(found, path)
    scored = foreign.score_features(path, job_of(job))
    assert scored.metrics == outcome.metrics
    assert (scored.cost, scored.checkpoint, scored.untrained, scored.epochs) == ({}, None, None, 0)
    assert runner.score_predictions(scored.predictions, job_of(job)).metrics == outcome.metrics
    from dataclasses import replace

    cosine = replace(job, cfg_options={"evaluation.distance": "cosine"})
    assert foreign.score_features(path, cosine).metrics != outcome.metrics


def test_a_file_of_this_suite(arrays, job):
    outcome, _ = arrays
    scored = foreign.score_features(outcome.predictions, job_of(job))
    assert scored.metrics == outcome.metrics
    assert scored.checkpoint is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query.features": None}, "expected an array query.features"),
        ({"query.features": np.zeros((3, 4))}, "3 features of query for the dataset's"),
        ({"query.features": np.zeros(4)}, "as \\[N, D\\] floats"),
        ({"gallery.features": lambda a: a.astype(int)}, "as \\[N, D\\] floats"),
        ({"gallery.features": lambda a: a * np.nan}, "not all finite"),
        ({"gallery.features": lambda a: a[:, :5]}, "dimensions"),
        ({"query.pids": lambda a: a + 1}, "is not of this dataset"),
        ({"query.cameras": lambda a: a[::-1].copy()}, "is not of this dataset"),
        ({"query.pids": lambda a: a[:-1]}, "whole numbers"),
        ({"query.pids": lambda a: a.astype(float)}, "whole numbers"),
        ({"query.pids": lambda a: a.astype(object)}, "cannot read features"),
    ],
)
def test_features_that_do_not_fit(arrays, job, tmp_path, changes, message):
    found = dict(arrays[1])
    for key, change in changes.items():
        if change is None:
            del found[key]
        else:
            found[key] = change(found[key]) if callable(change) else change
    path = tmp_path / "features.npz"
    np.savez(path, **found)
    with pytest.raises(InputError, match=message):
        foreign.score_features(path, job_of(job))


@pytest.mark.parametrize("name", ["f.npz", "f.safetensors", "f.json"])
def test_files_that_are_none(job, tmp_path, name):
    path = tmp_path / name
    path.write_text(json.dumps({}))
    with pytest.raises(InputError, match=name):
        foreign.score_features(path, job_of(job))
    path.unlink()
    with pytest.raises(InputError):
        foreign.score_features(path, job_of(job))
