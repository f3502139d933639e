"""Detections as a file: what is kept gives the same metrics; what is broken is refused."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onebit.commons.errors import InputError, WorkError
from onebit.commons.task import Job
from onebit.detection import predictions, runner
from onebit.detection.config import JUDGE_OPTION, build_config
from tests.detection.conftest import DRAWN, TINY

# ruff: isort: split
import torch
from mmdet.registry import DATASETS, METRICS
from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData

IMAGES, CATEGORIES = (1, 2), (3, 7)
GOOD = dict(image_id=1, category_id=7, bbox=[1.5, 2, 3, 0.0], score=0.25)


@pytest.fixture(scope="module")
def rows(drawn, tmp_path_factory):
    """One tiny trained row of each board: {dataset: (job, outcome)}."""
    found = {}
    for dataset in DRAWN:
        job = Job(
            dataset=dataset,
            backbone="resnet18_w8",
            recipe="mini",
            seed=0,
            data_root=drawn,
            work_dir=tmp_path_factory.mktemp(dataset),
            # Low scores count: two steps of training put out nothing above 0.05.
            cfg_options={**TINY, "model.test_cfg.rcnn.score_thr": 0.0},
        )
        found[dataset] = job, runner.train(job)
    return found


@pytest.mark.parametrize("dataset", DRAWN)
def test_a_row_keeps_its_detections(rows, tmp_path, dataset):
    job, outcome = rows[dataset]
    assert outcome.predictions == job.work_dir / "predictions.json"
    detections = json.loads(outcome.predictions.read_text())
    assert len(detections) > 20
    assert all(set(d) == set(predictions.FIELDS) for d in detections)
    elsewhere = replace(job, work_dir=tmp_path)
    for again in (elsewhere, replace(elsewhere, backbone="", recipe="", cfg_options={})):
        scored = runner.score_predictions(outcome.predictions, again)
        assert scored.metrics == outcome.metrics
        assert scored.details["per_class"] == outcome.details["per_class"]
        assert scored.details["detections"] == len(detections)
        assert scored.data_checksum == outcome.data_checksum
        assert (scored.split, scored.protocol) == (outcome.split, outcome.protocol)
        assert (scored.checkpoint, scored.cost, scored.untrained) == (None, {}, None)
    assert runner.score_predictions(outcome.predictions, elsewhere).config == outcome.config


def test_scoring_a_checkpoint_leaves_the_kept_file_alone(rows):
    job, outcome = rows["mini-voc"]
    before = outcome.predictions.read_bytes()
    tested = runner.test(outcome.checkpoint, replace(job, backbone="", recipe="", dataset=""))
    assert tested.predictions == job.work_dir / "test_predictions.json"
    assert tested.predictions.read_bytes() == before == outcome.predictions.read_bytes()


@pytest.fixture(params=DRAWN)
def imperfect(request, drawn, make_job, tmp_path):
    """A job, the metrics of a made-up detector, and the file of what it found.

    Its detections go to the metric as a detector's do: beside what the test pipeline loaded.
    """
    job = make_job(drawn, request.param, cfg_options={})
    cfg = build_config(job, drawn / request.param)
    register_all_modules(init_default_scope=True)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    random = torch.Generator().manual_seed(0)
    for index in range(len(dataset)):
        sample = dataset[index]["data_samples"]
        boxes = sample.gt_instances.bboxes.tensor
        count = len(boxes)
        boxes = torch.cat([boxes + 3 * torch.randn(count, 4, generator=random) for _ in range(3)])
        boxes[:, 2:] = torch.maximum(boxes[:, :2], boxes[:, 2:])
        labels = sample.gt_instances.labels.repeat(3)
        labels[-count:] = (labels[-count:] + 1) % 5
        scores = torch.rand(3 * count, generator=random)
        scores[:count] = scores[:count].round(decimals=1)  # ties must keep their order
        sample.pred_instances = InstanceData(bboxes=boxes, labels=labels, scores=scores)
        metric.process({}, [sample.to_dict()])
    metrics = metric.evaluate(len(dataset))
    return job, metrics, predictions.write(tmp_path / "found.json", metric.detections)


def test_a_file_gives_the_metrics_to_the_last_digit(imperfect):
    job, metrics, path = imperfect
    outcome = runner.score_predictions(path, job)
    per_class = metrics.pop("per_class")
    assert 0.05 < metrics[outcome.main_metric] < 0.95
    assert outcome.metrics == metrics
    assert outcome.details["per_class"] == per_class


def test_who_judges_is_chosen_and_recorded(imperfect):
    """By the same option with and without a backbone, and for COCO only."""
    job, metrics, path = imperfect
    del metrics["per_class"]
    for backbone in (job.backbone, ""):
        judged = replace(job, backbone=backbone, cfg_options={JUDGE_OPTION: "faster-coco-eval"})
        if job.dataset == "mini-voc":
            with pytest.raises(InputError, match="only COCO's AP has a choice of judges"):
                runner.score_predictions(path, judged)
            continue
        outcome = runner.score_predictions(path, judged)
        assert outcome.details["judge"] == "faster-coco-eval"
        assert "judge = 'faster-coco-eval'" in outcome.config or "judge='faster-coco-eval'" in outcome.config
        assert outcome.metrics == pytest.approx(metrics, abs=1e-12)
        with pytest.raises(InputError, match="judge of COCO AP 'me': expected one of"):
            runner.score_predictions(path, replace(judged, cfg_options={JUDGE_OPTION: "me"}))


def test_classes_have_the_names_of_the_file(drawn, make_job, tmp_path):
    """mini-coco's config lists its classes in another order than its file does."""
    truth = json.loads((drawn / "mini-coco/annotations/instances_val2017.json").read_text())
    names = {row["id"]: row["name"] for row in truth["categories"]}
    wanted = truth["annotations"][0]["category_id"]
    kept = [
        {**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 1.0}
        for a in truth["annotations"]
        if a["category_id"] == wanted
    ]
    path = predictions.write(tmp_path / "one.json", kept)
    job = make_job(drawn, "mini-coco", backbone="")
    outcome = runner.score_predictions(path, job)
    per_class = outcome.details["per_class"]
    assert per_class[names[wanted]] == pytest.approx(1.0)
    assert sum(per_class.values()) == pytest.approx(1.0)
    runner.show(outcome, job, tmp_path / "pictures", 1)
    counts = json.loads((tmp_path / "pictures" / "errors.json").read_text())["per_class"]
    assert {n for n, row in counts.items() if row["correct"]} == {names[wanted]}


def test_labels_of_a_detector_are_those_of_the_file(drawn, make_job):
    """What the metric makes of label 0 is the category that the loader gives label 0."""
    cfg = build_config(make_job(drawn, "mini-coco", cfg_options={}), drawn / "mini-coco")
    register_all_modules(init_default_scope=True)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    truth = json.loads((drawn / "mini-coco/annotations/instances_val2017.json").read_text())
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset[index]["data_samples"]
        objects = sample.gt_instances
        sample.pred_instances = InstanceData(
            bboxes=objects.bboxes.tensor, labels=objects.labels, scores=torch.ones(len(objects))
        )
        metric.process({}, [sample.to_dict()])
    metric.evaluate(len(dataset))
    found = sorted((d["image_id"], d["category_id"]) for d in metric.detections)
    assert found == sorted((a["image_id"], a["category_id"]) for a in truth["annotations"])
    assert len({category for _, category in found}) > 1


def test_another_file_gives_other_metrics(imperfect, tmp_path):
    job, metrics, path = imperfect
    del metrics["per_class"]
    detections = json.loads(path.read_text())
    moved = [{**d, "bbox": [d["bbox"][0] + 20, *d["bbox"][1:]]} for d in detections]
    path = predictions.write(tmp_path / "moved.json", moved)
    assert runner.score_predictions(path, job).metrics != metrics
    path = predictions.write(tmp_path / "empty.json", [])
    assert not any(runner.score_predictions(path, job).metrics.values())


def test_keys_of_other_programs_are_ignored(imperfect, tmp_path):
    job, metrics, path = imperfect
    del metrics["per_class"]
    more = [{**d, "caption": "a car", "segmentation": []} for d in json.loads(path.read_text())]
    path = predictions.write(tmp_path / "more.json", more)
    assert runner.score_predictions(path, job).metrics == metrics


def test_the_truth_itself_scores_one(drawn, make_job, tmp_path):
    truth = json.loads((drawn / "mini-coco/annotations/instances_val2017.json").read_text())
    perfect = [{**{k: a[k] for k in ("image_id", "category_id", "bbox")}, "score": 1.0} for a in truth["annotations"]]
    path = predictions.write(tmp_path / "perfect.json", perfect)
    outcome = runner.score_predictions(path, make_job(drawn, "mini-coco", backbone=""))
    assert outcome.metrics["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100000, "is not JSON"),
        (b'[{"score": NaN}]', "NaN is no number"),
        (b'[{"score": -Infinity}]', "-Infinity is no number"),
        (b"{}", "expected COCO results, a list of detections, found a dict"),
        (b"3", "found a int"),
        ([3], "detection 1: expected an object"),
        ([GOOD, {k: v for k, v in GOOD.items() if k != "score"}], "detection 2: expected a field 'score'"),
        ([{**GOOD, "image_id": 5}], "there is no image '5'"),
        ([{**GOOD, "image_id": "1"}], "there is no image '1'"),
        ([{**GOOD, "image_id": True}], "there is no image 'True'"),
        ([{**GOOD, "image_id": [1]}], "there is no image"),
        ([{**GOOD, "category_id": 4}], "there is no category '4'"),
        ([{**GOOD, "score": None}], "expected a finite score"),
        (b'[{"image_id": 1, "category_id": 7, "bbox": [0, 0, 1, 1], "score": 1e999}]', "finite score"),
        ([{**GOOD, "bbox": [0, 0, -1, 1]}], "expected a width and height from 0 up, found -1 and 1"),
        ([{**GOOD, "bbox": [0, 0, 1, -0.5]}], "expected a width and height"),
        ([{**GOOD, "bbox": [0, 0, 1]}], "four finite numbers"),
        ([{**GOOD, "bbox": [0, 0, 1, "1"]}], "four finite numbers"),
        ([{**GOOD, "bbox": "0 0 1 1"}], "four finite numbers"),
        ([{**GOOD, "bbox": [0, 0, 10**400, 1]}], "four finite numbers"),
        ([{**GOOD, "bbox": [1e30, 0, 1, 1]}], "expected pixels"),
    ],
)
def test_broken_files(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(InputError, match=r"results\.json") as caught:
        predictions.read(path, IMAGES, CATEGORIES)
    assert message in str(caught.value)


def test_no_file(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError, match="cannot read predictions"):
            predictions.read(path, IMAGES, CATEGORIES)


def test_numbers_that_are_not_finite_are_not_kept(tmp_path):
    with pytest.raises(WorkError, match="not finite"):
        predictions.write(tmp_path / "kept.json", [{**GOOD, "score": float("nan")}])
    assert not list(tmp_path.iterdir())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from([*predictions.FIELDS, "x"]), inner, max_size=5)
    ),
    max_leaves=20,
)
NEARLY = st.fixed_dictionaries(
    dict(
        image_id=st.sampled_from(IMAGES) | JSON,
        category_id=st.sampled_from(CATEGORIES) | JSON,
        bbox=st.lists(st.floats() | st.integers(), min_size=4, max_size=4) | JSON,
        score=st.floats() | JSON,
    )
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(NEARLY, max_size=3) | JSON)
def test_any_json_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_text(json.dumps(content))
    read = []
    with contextlib.suppress(InputError):
        read = predictions.read(path, IMAGES, CATEGORIES)
    for detection in read:
        box = np.array([*detection["bbox"], detection["score"]], np.float64)
        assert np.isfinite(box).all()
        assert (box[2:4] >= 0).all()
    # What is let through can be scored by either metric.
    for image in predictions.to_voc(read, IMAGES, max(CATEGORIES)):
        for boxes in image:
            assert np.isfinite(boxes[:, :4]).all()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert isinstance(predictions.read(path, IMAGES, CATEGORIES), list)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 2000, width=32)] * 4, st.floats(0, 1, width=32)), max_size=5))
def test_corners_survive_the_file_form(boxes):
    """As float32 the far corner is x + width again, for any corner an image can have."""
    array = np.array(boxes, np.float32).reshape(-1, 5)
    array[:, 2:4] += array[:, :2]
    detections = json.loads(json.dumps(predictions.from_voc([4], [[array[:0], array]])))
    back = predictions.to_voc(detections, [4], 2)
    assert np.array_equal(back[0][1], array)
    assert not len(back[0][0])


def test_voc_image_ids():
    assert predictions.voc_image_ids(["000012", "2012_000003"]) == [12, 2012000003]
    assert predictions.voc_image_ids(["7", "picture"]) == [1, 2]
    assert predictions.voc_image_ids(["01", "1"]) == [1, 2]
