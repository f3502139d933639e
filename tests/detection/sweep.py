"""MMDetection's own configs with a 1-bit backbone in place of theirs, and the table of what works in docs/detection.md.

python -m tests.detection.sweep            after a change: runs all (six minutes) and writes the table
python -m tests.detection.sweep WORD...    prints the outcome of the configs whose names hold a WORD
"""

from __future__ import annotations

import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import onebit

# ruff: isort: split
import mmdet
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs, demo_mm_proposals
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import nn

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "detection.md"
START, END = "<!-- python -m tests.detection.sweep -->\n", "<!-- end -->"
RESNET, CELLS = "resnet18_w16_reactnet", "dcp_nas_c8_l6"


@dataclass(frozen=True)
class Case:
    """A config of MMDetection, and what changes in it besides the backbone.

    Attributes:
        scales: the backbone's ``out_indices``; what the config's own backbone hands out, by stride.
        options: further changes of the model. ``"$maps"`` stands for the list of the maps' numbers of channels.
        size: of the images; small, but large enough for what the config asks of its maps.
        backbone: its name.
        smaller: changes that only make it faster.
        package: what MMDetection asks for in it and no installation of ours brings.
        error, because: a part of the error that it ends with, and what that means in words.
    """

    config: str
    scales: tuple[int, ...] = (0, 1, 2, 3)
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 128
    backbone: str = RESNET
    smaller: dict[str, Any] = field(default_factory=dict)
    package: str = ""
    error: str = ""
    because: str = ""

    def __str__(self) -> str:
        return self.config if self.backbone == RESNET else f"{self.config} ({self.backbone})"

    def file(self) -> Config:
        return Config.fromfile(CONFIGS / f"{self.config}.py")

    def model(self) -> Config:
        """The config's model with the backbone in it, and without weights to be downloaded."""
        model = self.file().model
        channels = list(onebit.create_backbone(self.backbone, out_indices=self.scales).feature_channels)
        model.backbone = dict(type="onebit.create_backbone", name=self.backbone, out_indices=self.scales)
        necks = [model.neck] if isinstance(model.get("neck"), dict) else model.get("neck") or []
        if necks:
            first = necks[0]
            given = first.get("in_channels")
            reverse = isinstance(given, (list, tuple)) and len(given) > 1 and given[0] > given[-1]
            first.in_channels = channels[-1] if isinstance(given, int) else channels[:: -1 if reverse else 1]
        model.data_preprocessor.pop("batch_augments", None)  # would scale the small images up
        options = {k: channels if v == "$maps" else v for k, v in (self.options | self.smaller).items()}
        _with_few_boxes(model)
        wrapped = Config(dict(model=model))
        wrapped.merge_from_dict({f"model.{key}": value for key, value in options.items()})
        _without_downloads(wrapped.model)
        return wrapped.model


def _with_few_boxes(node: Any) -> None:
    """Fewer proposals, samples and queries than 1000, 512 and 900: their heads take most of the time."""
    if isinstance(node, dict):
        for key, most in (
            ("max_per_img", 40),
            ("nms_pre", 100),
            ("num", 32),
            ("num_queries", 60),
            ("num_proposals", 20),
        ):
            if isinstance(node.get(key), int) and node[key] > most:
                node[key] = most
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            _with_few_boxes(value)


def _without_downloads(node: Any) -> None:
    if isinstance(node, dict):
        if "pretrained" in node:
            node["pretrained"] = None
        if isinstance(node.get("init_cfg"), dict) and node["init_cfg"].get("type") == "Pretrained":
            node["init_cfg"] = None
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            _without_downloads(value)


LAST = (3,)
UPPER = (1, 2, 3)
#: One config of every detector that MMDetection ships for images with boxes or masks, the most used ones first.
CASES = [
    Case("faster_rcnn/faster-rcnn_r50_fpn_1x_coco"),
    Case("mask_rcnn/mask-rcnn_r50_fpn_1x_coco"),
    Case("cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco"),
    Case("cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco"),
    Case("retinanet/retinanet_r50_fpn_1x_coco"),
    Case("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco"),
    Case("atss/atss_r50_fpn_1x_coco"),
    Case("gfl/gfl_r50_fpn_1x_coco"),
    Case("yolo/yolov3_d53_8xb8-320-273e_coco", UPPER),
    Case("yolox/yolox_s_8xb8-300e_coco", UPPER),
    Case("yolof/yolof_r50-c5_8xb8-1x_coco", LAST),
    Case("rtmdet/rtmdet_tiny_8xb32-300e_coco", UPPER),
    Case("rtmdet/rtmdet-ins_tiny_8xb32-300e_coco", UPPER),
    Case(
        "ssd/ssd300_coco",
        (1, 2),
        {"neck.out_channels": [32, 64, 512, 256, 256, 256], "bbox_head.in_channels": [32, 64, 512, 256, 256, 256]},
        size=300,
        error="object has no attribute 'loss_cls'",
        because="it trains, but MMDetection 3.3.0 asks `SSDHead` for a `loss_cls` in predictions, with any backbone",
    ),
    Case("centernet/centernet_r18_8xb16-crop512-140e_coco", LAST),
    Case("centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco", LAST),
    Case("centernet/centernet-update_r50-caffe_fpn_ms-1x_coco"),
    Case("detr/detr_r50_8xb2-150e_coco", LAST),
    Case("conditional_detr/conditional-detr_r50_8xb2-50e_coco", LAST),
    Case("dab_detr/dab-detr_r50_8xb2-50e_coco", LAST),
    Case("deformable_detr/deformable-detr_r50_16xb2-50e_coco", UPPER),
    Case("dino/dino-4scale_r50_8xb2-12e_coco", UPPER),
    Case("ddq/ddq-detr-4scale_r50_8xb2-12e_coco", UPPER),
    Case("sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco"),
    Case(
        "queryinst/queryinst_r50_fpn_1x_coco",
        smaller={"test_cfg.rcnn.max_per_img": 20},
        error="inconsistent with step sign",
        because="it trains; MMDetection pastes no masks of boxes outside of the image on a CPU, where untrained ones lie",
    ),
    Case("vfnet/vfnet_r50_fpn_1x_coco"),
    Case("tood/tood_r50_fpn_1x_coco"),
    Case("ddod/ddod_r50_fpn_1x_coco"),
    Case("paa/paa_r50_fpn_1x_coco", package="scikit-learn"),
    Case("autoassign/autoassign_r50-caffe_fpn_1x_coco"),
    Case("dyhead/atss_r50_fpn_dyhead_1x_coco"),
    Case("reppoints/reppoints-moment_r50_fpn_1x_coco"),
    Case("foveabox/fovea_r50_fpn_4xb4-1x_coco"),
    Case("foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco"),
    Case("free_anchor/freeanchor_r50_fpn_1x_coco"),
    Case("fsaf/fsaf_r50_fpn_1x_coco"),
    Case("ghm/retinanet_r50_fpn_ghm-1x_coco"),
    Case("pisa/retinanet-r50_fpn_pisa_1x_coco"),
    Case("pisa/faster-rcnn_r50_fpn_pisa_1x_coco"),
    Case("guided_anchoring/ga-retinanet_r50_fpn_1x_coco"),
    Case("guided_anchoring/ga-faster-rcnn_r50_fpn_1x_coco"),
    Case("cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco"),
    Case("libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco"),
    Case("dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco"),
    Case("double_heads/dh-faster-rcnn_r50_fpn_1x_coco"),
    Case("grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco"),
    Case("sabl/sabl-faster-rcnn_r50_fpn_1x_coco"),
    Case("sabl/sabl-retinanet_r50_fpn_1x_coco"),
    Case("groie/faste-rcnn_r50_fpn_groie_1x_coco"),
    Case("pafpn/faster-rcnn_r50_pafpn_1x_coco"),
    Case("carafe/faster-rcnn_r50_fpn-carafe_1x_coco"),
    Case("nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco"),
    Case("nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco"),
    Case("fpg/retinanet_r50_fpg_crop640_50e_coco"),
    Case("rpn/rpn_r50_fpn_1x_coco"),
    Case("fast_rcnn/fast-rcnn_r50_fpn_1x_coco"),
    Case("ms_rcnn/ms-rcnn_r50_fpn_1x_coco"),
    Case("htc/htc_r50_fpn_1x_coco"),
    Case("scnet/scnet_r50_fpn_1x_coco"),
    Case("point_rend/point-rend_r50-caffe_fpn_ms-1x_coco"),
    Case("solo/solo_r50_fpn_1x_coco"),
    Case("solov2/solov2_r50_fpn_1x_coco", smaller={"mask_head.feat_channels": 64}),
    Case("yolact/yolact_r50_1xb8-55e_coco"),
    Case("condinst/condinst_r50_fpn_ms-poly-90k_coco_instance"),
    Case("boxinst/boxinst_r50_fpn_ms-90k_coco", package="scikit-image"),
    Case("mask2former/mask2former_r50_8xb2-lsj-50e_coco", options={"panoptic_head.in_channels": "$maps"}),
    Case("maskformer/maskformer_r50_ms-16xb1-75e_coco", options={"panoptic_head.in_channels": "$maps"}),
    Case("panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco"),
    Case(
        "crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman",
        options={"roi_head.bbox_roi_extractor.roi_layer.use_torchvision": False},  # it may not be compiled
    ),
    Case("dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco"),
    Case(
        "cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco",
        LAST,
        error="to have 256 channels",
        because="its head takes the maps of both stacks of an hourglass network",
    ),
    Case(
        "tridentnet/tridentnet_r50-caffe_1x_coco",
        LAST,
        error="num_branch",
        because="its head asks the backbone for its three branches",
    ),
    Case(
        "detectors/cascade-rcnn_r50-rfp_1x_coco",
        error="AssertionError()",
        because="its neck feeds maps back into a backbone of its own kind",
    ),
    Case(
        "faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco",
        LAST,
        error="to have 1024 channels",
        because="its box head is the last stage of a ResNet-50, which takes 1024 channels",
    ),
    Case("faster_rcnn/faster-rcnn_r50_fpn_1x_coco", backbone=CELLS),
    Case("retinanet/retinanet_r50_fpn_1x_coco", backbone=CELLS),
    Case("centernet/centernet_r18_8xb16-crop512-140e_coco", LAST, backbone=CELLS),
    Case("yolox/yolox_s_8xb8-300e_coco", UPPER, backbone=CELLS),
    Case("vfnet/vfnet_r50_fpn_1x_coco", backbone=CELLS),
    Case("detr/detr_r50_8xb2-150e_coco", LAST, backbone=CELLS),
]


def outcome(case: Case) -> tuple[str, str]:
    """What a forward pass, its gradients and a prediction came to, and what else has to change for it or why not."""
    notes = [f"`{key}={value}`".replace("$maps", "<the maps' channels>") for key, value in case.options.items()]
    try:
        notes += _train_and_predict(case)
    except Exception as error:
        text = str(error)
        if case.package and "install" in text:
            return f"needs {case.package}", "MMDetection asks for it"
        if "needs a compiled mmcv" in text:
            return "needs a compiled mmcv", text.split(" needs ")[0]
        if case.error and case.error in repr(error):
            return "cannot", case.because
        raise
    return "works", "; ".join(notes)


def _train_and_predict(case: Case) -> list[str]:
    notes = []
    torch.manual_seed(0)
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope("mmdet"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.model()
        detector = MODELS.build(model)
        detector.init_weights()
        if any(isinstance(module, nn.SyncBatchNorm) for module in detector.modules()):
            detector = revert_sync_batchnorm(detector)
            notes.append("on a CPU: BN in place of SyncBN")
        loads = str(case.file().train_dataloader)
        panoptic = "LoadPanopticAnnotations" in loads
        data = demo_mm_inputs(
            2,
            [(3, case.size, case.size)] * 2,
            num_classes=80,
            with_mask="'with_mask': True" in loads or panoptic,
            with_semantic="'with_seg': True" in loads or panoptic,
        )
        if "crowdhuman" in case.config:
            for sample in data["data_samples"]:
                sample.gt_instances.labels.zero_()  # its only class
        if "LoadProposals" in loads:
            proposals = demo_mm_proposals([(3, case.size, case.size)] * 2, 40)
            for sample, boxes in zip(data["data_samples"], proposals, strict=True):
                sample.proposals = boxes
        detector.train()
        MessageHub.get_current_instance().update_info("epoch", 0)  # as the Runner does
        losses, _ = detector.parse_losses(detector(**detector.data_preprocessor(data, True), mode="loss"))
        losses.backward()
        assert torch.isfinite(losses), f"the loss is {losses.item()}"
        assert any(p.grad is not None and p.grad.any() for p in detector.backbone.parameters()), "no gradient"
        detector.eval()
        with torch.no_grad():
            (found,) = detector.test_step({key: values[:1] for key, values in data.items()})  # as they are tested
        assert {"pred_instances", "pred_panoptic_seg"} & set(found.keys())
    return notes


def table(outcomes: dict[str, tuple[str, str]]) -> str:
    lines = ["| config | outcome | remark |", "|---|---|---|"]
    lines += [f"| `{name}` | {result} | {remark} |" for name, (result, remark) in outcomes.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    words = sys.argv[1:]
    MMLogger.get_current_instance().setLevel("ERROR")  # not the initialization of every parameter
    outcomes = {}
    for case in CASES:
        if words and not any(word in str(case) for word in words):
            continue
        start = time.perf_counter()
        outcomes[str(case)] = outcome(case)
        print(f"{time.perf_counter() - start:5.1f} s  {case}: {' '.join(outcomes[str(case)])}", flush=True)
    if not words:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(START)
        PAGE.write_text(before + START + "\n" + table(outcomes) + "\n" + END + rest.split(END, 1)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
