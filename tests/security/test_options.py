"""Every way by which a file's text reaches what builds networks, data and metrics, with names of callables in it.

`--config` of one's own is the exception: it is a program, and documented as such.
"""

import contextlib
import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from onebit import backbones
from onebit.backbones import packed
from onebit.backbones.classifier import Classifier
from onebit.commons.checkpoints import ROW
from onebit.commons.errors import InputError, OnebitError
from onebit.commons.file_options import FileOptions, StatedOptions
from onebit.commons.mini import draw
from onebit.commons.task import Job
from onebit.leaderboards import boards
from onebit.leaderboards.boards import runner
from onebit.leaderboards.recording import submission, verification
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.run_file import digest
from onebit.leaderboards.running.sources import load_network
from onebit.reid.features import Features, save
from onebit.reid.recipe import build_config as reid_config
from tests.security import canary

RECORDS = Path(boards.__file__).parent / "records"
COMMITTED = [
    RECORDS / "cifar10/cifar10-jpeg--resnet18_w8--short--seed0.json",
    RECORDS / "coco/coco128--resnet18_w16_reactnet--small--seed0.json",
]
NAMES = ("tests.security.canary.sing", "subprocess.getoutput", "torch.hub.load", "os.system", "builtins.eval")


def nodes(name):
    """As configs have them: what replaces all below a key, what changes its type, and the type alone."""
    rest = dict(cmd="touch x", source="local", repo_or_dir=".", model="x")
    return {"_delete_": True, "type": name, **rest}, {"type": name, **rest}, {"type": name}


KEYS = [
    "model",
    "model.backbone",
    "model.data_preprocessor",
    "model.backbone.init_cfg",
    "model.backbone.binarizer",
    "model.backbone.cell",
    "model.backbone_options",
    "model.neck",
    "model.roi_head",
    "model.roi_head.bbox_head",
    "model.rpn_head.anchor_generator",
    "test_dataloader",
    "test_dataloader.dataset",
    "test_dataloader.sampler",
    "test_evaluator",
    "test_cfg",
    "env_cfg",
    "data",
    "evaluation",
    "custom_imports",
    "compile",
    "ema",
    "stages.0.model",
    "stabilizers",
    "image_scale",
    "default_scope",
    "optimizer",
    "triplet",
]
#: What training alone reads may stand in a file, and is left out where it is used for anything else.
TRAINING = [
    "optim_wrapper",
    "optim_wrapper.optimizer",
    "param_scheduler",
    "train_dataloader.dataset",
    "default_hooks",
    "visualizer",
]


def cases(keys):
    for key in keys:
        yield key, {key: nodes(NAMES[0])[0]}
        yield f"{key}.type", {f"{key}.type": NAMES[1]}
        yield f"{key}, a list", {key: [nodes(NAMES[2])[1]]}
        yield f"{key}, deep", {key: {"a": {"b": nodes(NAMES[3])[2]}}}
    for key in ("model.backbone.arch", "model.backbone.stem", "model.backbone.name", "onebit_parts", "data.transforms"):
        yield f"{key}, a name", {key: NAMES[4]}
        yield f"{key}, a path", {key: "/etc/passwd.json"}
    yield "no mapping", [1]
    yield "keys that are no names", {"model.backbone.__class__": 1, "__import__": NAMES[0]}
    yield "imports", {"custom_imports": {"imports": ["tests.security.canary"]}}


HOSTILE = dict(cases(KEYS))
BY_TASK = [(task, what) for task in ("classification", "detection", "reid") for what in HOSTILE]


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name in ("mini-cifar10", "mini-voc", "mini-market1501"):
        draw(name, root / name)
    return root


def job(data, tmp_path, dataset="", **fields) -> Job:
    given = dict(dataset=dataset, backbone="", recipe="", seed=0, data_root=data, work_dir=tmp_path / "work")
    return Job(**{**given, **fields})


def row(task, options, **fields) -> dict:
    dataset = {"classification": "mini-cifar10", "detection": "mini-voc"}[task]
    made = dict(task=task, dataset=dataset, backbone="resnet18_w8", recipe="mini", seed=0, num_classes=10)
    return {**made, "stem": "cifar", "cfg_options": options, **fields}


@pytest.mark.parametrize(("task", "what"), BY_TASK)
def test_no_schema_takes_it(task, what):
    with contextlib.suppress(InputError):
        assert dict(StatedOptions(HOSTILE[what], "a file").taken(runner(task).FILE_OPTIONS)) == {}  # left out at most


@pytest.mark.parametrize("task", ["classification", "detection"])
@pytest.mark.parametrize(("what", "options"), list(cases(TRAINING))[: 4 * len(TRAINING)])
def test_what_only_training_reads_is_left_out(task, what, options):
    found = StatedOptions(options, "a file").taken(runner(task).FILE_OPTIONS)
    assert dict(found) == {}
    assert set(found.left_out) == set(options)


def test_options_of_a_file_and_of_the_user_cannot_be_mixed_up(data, tmp_path):
    stated = StatedOptions({"train_cfg.max_epochs": 2}, "a file")
    with pytest.raises(TypeError):
        job(data, tmp_path, recorded={"train_cfg.max_epochs": 2})
    with pytest.raises(TypeError):
        job(data, tmp_path, recorded=stated)
    with pytest.raises(TypeError):
        job(data, tmp_path, cfg_options=stated.taken(runner("classification").FILE_OPTIONS))
    with pytest.raises(TypeError):
        dict(**stated)
    assert not isinstance(FileOptions(), dict)


def test_what_the_user_gives_counts_and_may_be_anything():
    stated = StatedOptions({"model.backbone.type": NAMES[0], "train_cfg.max_epochs": 2}, "a file")
    taken = stated.taken(runner("classification").FILE_OPTIONS, overridden=["model.backbone"])
    assert dict(taken) == {"train_cfg.max_epochs": 2}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_checkpoint_that_is_tested(data, tmp_path, task, what):
    path = tmp_path / "a.pth"
    torch.save({ROW: row(task, HOSTILE[what]), "state_dict": {}}, path)
    with pytest.raises(InputError):
        boards.runner(task).test(path, job(data, tmp_path, row(task, {})["dataset"]))


@pytest.mark.parametrize("what", [w for w in HOSTILE if w.startswith("model.backbone")])
def test_a_checkpoint_that_is_exported_or_timed(tmp_path, what):
    path = tmp_path / "a.pth"
    torch.save({ROW: row("classification", HOSTILE[what]), "state_dict": {}}, path)
    with pytest.raises(InputError):
        load_network(str(path))


def strings(value, path=()):
    """Where texts stand in nested values."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(inner, str):
            yield (*path, key)
        yield from strings(inner, (*path, key))


def with_text(value, path, text):
    changed = copy.deepcopy(value)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = text
    return changed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["task", "dataset", "backbone", "recipe", "stem", "binarize", "pretrained", "config"])
def test_a_row_with_a_callable_for_a_name(data, tmp_path, field, name):
    path = tmp_path / "a.pth"
    for task in ("classification", "detection"):
        torch.save({ROW: {**row(task, {}), field: name}, "state_dict": {}}, path)
        with pytest.raises(InputError):
            boards.runner(task).test(path, job(data, tmp_path, row(task, {})["dataset"]))
        with pytest.raises(InputError):
            load_network(str(path))


def reid_state(data, tmp_path) -> dict:
    cfg = reid_config(job(data, tmp_path, "mini-market1501", backbone="resnet18_w8", recipe="mini"))
    return dict(
        state_dict={}, backbone="resnet18_w8", num_classes=4, config=cfg.to_dict(), losses=[1.0], untrained=None
    )


def test_a_checkpoint_and_features_of_reid(data, tmp_path):
    """Every text of the config in turn, and every part of it as what a registry would build."""
    reid = boards.runner("reid")
    state = reid_state(data, tmp_path)
    hostile = [with_text(state["config"], path, name) for path in strings(state["config"]) for name in NAMES[:2]]
    for key in ("model", "optimizer", "data", "evaluation", "triplet", "height", "init_from", "model_wrapper"):
        hostile += [{**state["config"], key: node} for node in nodes(NAMES[0])]
    options = {**state["config"]["model"], "backbone_options": nodes(NAMES[0])[0]}
    hostile.append({**state["config"], "model": options})
    assert len(hostile) > 40
    for number, config in enumerate(hostile):
        path, out = tmp_path / "a.pth", tmp_path / f"{number}.safetensors"
        torch.save({**state, "config": config}, path)
        with pytest.raises(OnebitError):
            reid.test(path, job(data, tmp_path, "mini-market1501"))
        with pytest.raises(OnebitError):
            load_network(str(path))
        part = Features(np.zeros((1, 2), np.float32), ("a.jpg",), np.zeros(1, np.int64), np.zeros(1, np.int64))
        facts = dict(dataset="mini-market1501", backbone="resnet18_w8", cfg=config, checkpoint="a.pth", details={})
        save(out, dict(query=part, gallery=part), facts)
        with pytest.raises(OnebitError):
            reid.score_predictions(out, job(data, tmp_path, "mini-market1501"))


def sealed(content, folder: Path) -> Path:
    """A record as a forger writes it: with the digest, at the path that follows."""
    content = {key: value for key, value in content.items() if key != "digest"}
    content["digest"] = digest(content)
    path = folder / str(content["board"]) / "a.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    try:
        Record.load(path)
    except InputError as error:
        if "belongs at" in str(error):
            name = str(error).split("belongs at ")[1].split("/", 1)[1]
            path = path.rename(path.with_name(name))
    return path


def look_at(path: Path, data: Path, tmp_path: Path) -> list:
    """All that a reviewer does with a record: verify, verify --rescore, submit-check."""
    (verdict,) = submission.check([path], submission.Rules(development=True, data_root=data))
    said = [*verdict.missing]
    try:
        record = Record.load(path)
        said += verification.problems(record, tmp_path)
    except InputError as error:
        return [*said, str(error)]
    if record.board in boards.ALL:
        for what, (file, _) in verification.kept_files(record, tmp_path).items():
            file.parent.mkdir(exist_ok=True)
            options = copy.deepcopy(record.cfg_options)
            torch.save({ROW: row("detection", options), "state_dict": {}}, file) if what == "checkpoint" else None
        said += verification.rescore(record, tmp_path, data)[0]
    return said


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("what", HOSTILE)
def test_a_record_with_hostile_options(data, tmp_path, path, what):
    content = json.loads(path.read_text())
    content["cfg_options"] = HOSTILE[what]
    assert look_at(sealed(content, tmp_path / "records"), data, tmp_path)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_a_record_with_a_callable_in_every_text(data, tmp_path, path):
    content = json.loads(path.read_text())
    places = [place for place in strings(content) if place != ("digest",)]
    assert len(places) > 20
    for number, place in enumerate(places):
        changed = with_text(content, place, NAMES[number % len(NAMES)])
        look_at(sealed(changed, tmp_path / str(number)), data, tmp_path)


def test_a_cell_in_every_text(tmp_path):
    path = tmp_path / "cell.json"
    content = json.loads(json.dumps(backbones.cells.load_cell("dcp_nas_imagenet").to_dict()))
    for number, place in enumerate(strings(content)):
        path.write_text(json.dumps(with_text(content, place, NAMES[number % len(NAMES)])))
        with contextlib.suppress(InputError):  # a name of another operation, or a text that means nothing
            backbones.create_backbone("dcp_nas_c4_l3", cell=str(path))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["type", "binarizer", "stem", "init_cfg", "norm_cfg", "out_indices"])
def test_a_packed_file(tmp_path, key, name):
    from tests.backbones.packed.test_file import rewritten

    about = packed.description("resnet18_w8_xnor", 3, out_indices=(3,))
    network = Classifier(backbones.create_backbone("resnet18_w8_xnor", out_indices=(3,)), 3)
    path = packed.save(backbones.deploy(network), about, tmp_path / "a.safetensors")
    for value in (name, *nodes(name), [nodes(name)[1]]):
        change = dict(backbone={**about["backbone"], key: value})
        with pytest.raises(InputError):
            packed.load(rewritten(path, tmp_path / "b.safetensors", lambda content, new=change: content.update(new)))


@pytest.mark.parametrize("name", NAMES)
def test_predictions(data, tmp_path, name):
    path = tmp_path / "predictions.json"
    for content in (nodes(name)[0], [nodes(name)[1]], [{"image_id": name, "category_id": name, "bbox": [name] * 4}]):
        path.write_text(json.dumps(content))
        with pytest.raises(InputError):
            boards.runner("detection").score_predictions(path, job(data, tmp_path, "mini-voc"))


def test_the_canary_would_be_heard():
    """A registry of mmengine builds what a dotted name names: so a config of one's own may."""
    from mmengine.registry import MODELS

    MODELS.build(dict(type="tests.security.canary.sing"))
    assert canary.sung
    canary.sung.clear()
