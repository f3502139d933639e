"""MMDetection's VOC and COCO metrics in full precision and with per-class AP.

The originals round to three decimals and throw the per-class values away. What is measured is
theirs: the same matching, the same integration, the same order of detections. COCO's judge is
pycocotools; faster-coco-eval, the same evaluation compiled, may take its place and is then recorded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import multiprocessing.dummy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric, VOCMetric
from mmdet.evaluation.functional import eval_map, mean_ap
from mmdet.registry import METRICS
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.detection import predictions as files


@contextlib.contextmanager
def threads_for_processes() -> Iterator[None]:
    """Let MMDetection's ``eval_map`` work in threads instead of the processes that it forks.

    A process forked beside other threads (OpenMP's, TensorBoard's writer) inherits their locks and
    can wait for them for ever.
    """
    processes = mean_ap.Pool
    mean_ap.Pool = multiprocessing.dummy.Pool
    try:
        yield
    finally:
        mean_ap.Pool = processes


#: Outcome key to position in pycocotools' ``COCOeval.stats``.
_COCO_STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5}
#: What may compute COCO's AP, and the module that it is.
JUDGES = {"pycocotools": "pycocotools", "faster-coco-eval": "faster_coco_eval"}


def check_judge(judge: str) -> str:
    """Return ``judge``, or raise InputError where it is unknown or not installed."""
    guards.choice("judge of COCO AP", judge, JUDGES)
    if importlib.util.find_spec(JUDGES[judge]) is None:
        raise InputError(f"the judge {judge} is not installed: pip install {judge}")
    return judge


def facts(metric: BaseMetric) -> dict[str, str]:
    """What a record says of how it was scored, beyond the dataset's protocol."""
    return {"judge": metric.judge} if hasattr(metric, "judge") else {}


@METRICS.register_module(force=True)
class VOCAveragePrecision(VOCMetric):
    """VOC mAP at IoU 0.5 both ways: area under the curve and 11 points.

    Boxes are compared in VOC's own pixel convention (width x2 - x1 + 1); classes without an object
    in the test set do not count; objects marked difficult are ignored.

    Attributes:
        detections: what was scored last, in the form of :mod:`onebit.detection.predictions`.
    """

    default_prefix = None

    def __init__(self, **kwargs) -> None:
        super().__init__(iou_thrs=0.5, **kwargs)
        self.detections: list[dict[str, Any]] | None = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep ground truth, predictions and, beside MMDetection's own, the name of each image."""
        first = len(self.results)
        super().process(data_batch, data_samples)
        for at, sample in enumerate(data_samples, start=first):
            self.results[at] = (*self.results[at], sample["img_id"])

    def compute_metrics(self, results: list) -> dict:
        """Return ``map_area``, ``map_11pt`` (fractions) and ``per_class`` {name: area AP}."""
        ground_truth, predictions, names = zip(*results, strict=True)
        self.detections = files.from_voc(files.voc_image_ids(names), predictions)
        return self._average_precision(ground_truth, predictions)

    def score_file(self, path: Path, dataset: BaseDataset) -> dict:
        """The same metrics of a file of detections, to the last digit.

        Args:
            dataset: of the ground truth; its images are not read.

        Raises:
            InputError: see :func:`onebit.detection.predictions.read`.
        """
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        ids = files.voc_image_ids([info["img_id"] for info in infos])
        classes = len(dataset.metainfo["classes"])
        self.dataset_meta = dataset.metainfo
        self.detections = files.read(path, ids, range(1, classes + 1))
        return self._average_precision(
            [_voc_ground_truth(info["instances"]) for info in infos], files.to_voc(self.detections, ids, classes)
        )

    def _average_precision(self, ground_truth: Sequence[dict], predictions: Sequence[Sequence[np.ndarray]]) -> dict:
        classes = self.dataset_meta["classes"]
        metrics = {}
        for key, mode in (("map_area", "area"), ("map_11pt", "11points")):
            with threads_for_processes():
                mean, by_class = eval_map(
                    predictions,
                    ground_truth,
                    iou_thr=0.5,
                    dataset=classes,
                    logger=MMLogger.get_current_instance(),
                    nproc=1,
                    use_legacy_coordinate=True,
                    eval_mode=mode,
                )
            metrics[key] = float(mean)
            if mode == "area":
                metrics["per_class"] = {
                    name: float(np.ravel(result["ap"])[0])
                    for name, result in zip(classes, by_class, strict=True)
                    if np.ravel(result["num_gts"])[0] > 0
                }
        return metrics


def _voc_ground_truth(instances: list[dict]) -> dict[str, np.ndarray]:
    """An image's objects as ``eval_map`` takes them; difficult ones are to be ignored."""
    ground_truth = {}
    for suffix, ignored in (("", 0), ("_ignore", 1)):
        chosen = [i for i in instances if bool(i["ignore_flag"]) == bool(ignored)]
        boxes = np.array([i["bbox"] for i in chosen], np.float32)
        ground_truth[f"bboxes{suffix}"] = boxes.reshape(-1, 4)
        ground_truth[f"labels{suffix}"] = np.array([i["bbox_label"] for i in chosen], np.int64)
    return ground_truth


@METRICS.register_module(force=True)
class CocoAveragePrecision(CocoMetric):
    """COCO box AP; a size without objects has no AP and is left out, and so is such a class.

    Args:
        data_root: the folder below which ``ann_file`` lies.
        ann_file: the ground truth.
        judge: ``pycocotools``, or ``faster-coco-eval`` where it is installed.

    Attributes:
        detections: what was scored last, in the form of :mod:`onebit.detection.predictions`.

    Raises:
        InputError: see :func:`check_judge`.
    """

    default_prefix = None

    def __init__(self, data_root: str, ann_file: str, judge: str = "pycocotools", **kwargs) -> None:
        self.judge = check_judge(judge)
        super().__init__(ann_file=str(Path(data_root) / ann_file), **kwargs)
        self.detections: list[dict[str, Any]] | None = None

    def compute_metrics(self, results: list) -> dict:
        """Return the keys of ``_COCO_STATS`` (fractions) and ``per_class`` {name: AP}."""
        _, predictions = zip(*results, strict=True)
        classes = self.dataset_meta["classes"]
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=classes)
        with tempfile.TemporaryDirectory() as folder:
            written = self.results2json(predictions, str(Path(folder) / "results"))
            self.detections = json.loads(Path(written["bbox"]).read_text())
        return self._average_precision(self.detections)

    def score_file(self, path: Path, dataset: BaseDataset) -> dict:
        """The same metrics of a file of detections, to the last digit.

        Args:
            dataset: names the classes; its images are not read.

        Raises:
            InputError: see :func:`onebit.detection.predictions.read`.
        """
        self.dataset_meta = dataset.metainfo
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        self.detections = files.read(path, self._coco_api.get_img_ids(), self.cat_ids)
        return self._average_precision(self.detections)

    def _average_precision(self, detections: list[dict[str, Any]]) -> dict:
        with contextlib.redirect_stdout(_LogStream()):
            evaluation = self._evaluation(detections)
            evaluation.params.catIds = self.cat_ids
            evaluation.params.imgIds = self._coco_api.get_img_ids()
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        metrics = {
            key: float(evaluation.stats[at])
            for key, at in _COCO_STATS.items()
            if evaluation.stats[at] >= 0  # -1: no such object in the ground truth
        }
        # precision: IoU x recall x class x area range x detections; -1 where a class has no object.
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        metrics["per_class"] = {
            self._coco_api.load_cats([int(category)])[0]["name"]: float(precision[:, :, at].mean())
            # As the evaluation ordered them: by id, whatever the order of the file.
            for at, category in enumerate(evaluation.params.catIds)
            if precision[0, 0, at] >= 0
        }
        return metrics

    def _evaluation(self, detections: list[dict[str, Any]]) -> COCOeval:
        """The judge before a word was spoken; it gets copies, because it writes into what it loads."""
        copies = [dict(detection) for detection in detections]
        if self.judge == "faster-coco-eval":
            import faster_coco_eval

            tables = ("images", "annotations", "categories")
            truth = faster_coco_eval.COCO({t: [dict(row) for row in self._coco_api.dataset[t]] for t in tables})
            return faster_coco_eval.COCOeval_faster(truth, truth.loadRes(copies), "bbox", print_function=print)
        if copies:
            return COCOeval(self._coco_api, self._coco_api.loadRes(copies), "bbox")
        nothing = COCO()  # pycocotools cannot load an empty list
        nothing.dataset = {**self._coco_api.dataset, "annotations": []}
        nothing.createIndex()
        return COCOeval(self._coco_api, nothing, "bbox")


class _LogStream:
    """pycocotools prints; its lines belong into the log."""

    def write(self, text: str) -> None:
        if text.strip():
            MMLogger.get_current_instance().info(text.rstrip())

    def flush(self) -> None: ...
