"""A detector on labelled pictures of one's own: pictures of every kind, the recipe that adapts, training to scoring."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onebit import detection  # noqa: F401  first: MMDetection cannot be imported without its operators
from onebit.commons.checkpoints import load_row
from onebit.commons.datasets import get_dataset, own
from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection.config import FILE_OPTIONS, build_config
from onebit.detection.runner import test as score_checkpoint
from onebit.detection.runner import train
from onebit.leaderboards import cli

SIZE = (96, 64)


def save(path: Path, kind: str, size=SIZE) -> None:
    array = np.full((size[1], size[0], 3), 90, np.uint8)
    array[20:40, 30:60] = (250, 210, 40)
    image = Image.fromarray(array)
    if kind == "16-bit":
        Image.fromarray(array[..., 0].astype(np.uint16) * 256).save(path)
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.rotate(90, expand=True).save(path, exif=exif)
    else:
        image.convert({"palette": "P", "gray": "L", "cmyk": "CMYK", "transparent": "RGBA"}.get(kind, "RGB")).save(path)


KINDS = {
    "plain": ".jpg", "gray": ".jpg", "cmyk": ".jpg", "turned": ".jpg", "palette": ".png", "transparent": ".png",
    "16-bit": ".png", "bmp": ".bmp", "tif": ".tif", "webp": ".webp", "ünï code": ".jpg", "none": ".jpg",
}  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Labels of one picture of each kind, twice; ids 42, 3 and 7, in another order than classes are numbered."""
    folder = tmp_path_factory.mktemp("own")
    images, annotations = [], []
    for at, (kind, suffix) in enumerate([*KINDS.items()] * 2):
        name = f"{kind} {at}{suffix}"
        save(folder / name, kind)
        images.append(dict(id=at, file_name=name, width=SIZE[0], height=SIZE[1]))
        if kind != "none":
            category = (42, 3, 7)[at % 3]
            annotations.append(dict(id=at, image_id=at, category_id=category, bbox=[30, 20, 30, 20]))
    categories = [dict(id=42, name="ant"), dict(id=3, name="cat"), dict(id=7, name="bee")]
    (folder / "labels.json").write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        own._prepare.cache_clear()
        yield f"coco:{folder / 'labels.json'}"
        own._prepare.cache_clear()


def job(named: str, work_dir: Path, **options) -> Job:
    name = get_dataset(named).name
    return Job(name, "resnet18_w8_reactnet", "own", 0, Path("nowhere"), work_dir, cfg_options=options)


def test_mmdetection_loads_every_kind_of_picture_as_the_labels_say(named, tmp_path) -> None:
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    cfg = build_config(job(named, tmp_path), get_dataset(named).find(""))
    seen = 0
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True)]
        data = DATASETS.build({**loader.dataset, "pipeline": pipeline})
        for at in range(len(data)):
            item = data[at]
            assert item["img"].shape == (SIZE[1], SIZE[0], 3), item["img_path"]
            for box in item["gt_bboxes"].tensor.tolist():
                # What is in the box differs from what is around it: it is the picture that the labels mean.
                assert box == [30, 20, 60, 40]
                inside, outside = item["img"][22:38, 32:58].mean((0, 1)), item["img"][:16].mean((0, 1))
                assert np.abs(inside - outside).max() > 30, item["img_path"]
            seen += 1
    assert seen == 2 * len(KINDS)
    assert get_dataset(named).counts == {
        "pictures 16-bit": 2, "pictures CMYK": 2, "pictures gray": 2, "pictures turned by EXIF": 2,
        "pictures with a palette": 2, "pictures with transparency": 2, "pictures without boxes": 2,
    }  # fmt: skip


def test_the_recipe_adapts_to_the_data(named, tmp_path) -> None:
    cfg = build_config(job(named, tmp_path), get_dataset(named).find(""))
    assert cfg.image_scale == (96, 96)
    assert cfg.train_cfg.max_epochs == 100  # 8,192 images of 19 would be more
    assert cfg.model.rpn_head.anchor_generator.scales == [4]  # 16 pixels; a tenth of the objects is below 30
    assert cfg.model.roi_head.bbox_head.num_classes == 3
    given = build_config(job(named, tmp_path, **{"train_cfg.max_epochs": 5}), get_dataset(named).find(""))
    assert given.train_cfg.max_epochs == 5
    retinanet, fcos = (
        build_config(job(named, tmp_path, detector=kind), get_dataset(named).find("")) for kind in ("retinanet", "fcos")
    )
    assert retinanet.model.bbox_head.anchor_generator.octave_base_scale == 2  # 16 pixels at stride 8
    assert {*fcos.adapted} == {*cfg.adapted} - {"model.rpn_head.anchor_generator.scales"}
    assert retinanet.model.bbox_head.num_classes == fcos.model.bbox_head.num_classes == 3
    with pytest.raises(InputError, match="this recipe adapts to data of one's own; mini-coco has recipe mini"):
        build_config(Job("mini-coco", "resnet18_w8", "own", 0, Path(), tmp_path), "")


def test_training_to_scoring(named, tmp_path, capsys) -> None:
    short = {"train_cfg.max_epochs": 1, "train_cfg.val_interval": 1, "param_scheduler.0.end": 2}
    trained = train(job(named, tmp_path / "run", **short))
    assert trained.details["checked"]["labels"]["pictures CMYK"] == 2
    assert trained.split.startswith("4 in 5 -> 1 in 5 of")
    row, _ = load_row(trained.checkpoint)
    assert row["classes"] == ["cat", "bee", "ant"]
    assert row["category_ids"] == [3, 7, 42]
    # What the data decided is stated, so that the checkpoint can be used without the data.
    assert list(row["cfg_options"].taken(FILE_OPTIONS)["image_scale"]) == [96, 96]
    # Neither the labels nor their dataset need naming again.
    assert (
        cli.main(["test", "detection", "--checkpoint", str(trained.checkpoint), "--show-dir", str(tmp_path / "p")]) == 0
    )
    out = capsys.readouterr().out
    assert out.startswith(f"{trained.checkpoint} on {get_dataset(named).name}\n")
    assert re.search(r"^AP +([\d.]+)", out, re.MULTILINE)[1] == f"{trained.metrics['AP']:.4f}"
    assert (trained.checkpoint.parent / "test_predictions.json").read_bytes() == trained.predictions.read_bytes()
    assert (tmp_path / "p" / "confusion.png").is_file()
    # Results name the user's own categories and images.
    found = json.loads(trained.predictions.read_text())
    assert {d["category_id"] for d in found} <= {42, 3, 7}
    picture = next(Path(named.removeprefix("coco:")).parent.glob("plain*.jpg"))
    whole = tmp_path / "whole.safetensors"
    assert cli.main(["export", str(trained.checkpoint), "--whole", str(whole)]) == 0
    for network in (trained.checkpoint, whole):
        assert cli.main(["predict", str(network), str(picture), "--out", str(tmp_path / "out")]) == 0
        rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
        assert rows
        assert all({3: "cat", 7: "bee", 42: "ant"}[d["category_id"]] == d["category"] for d in rows)


def test_a_checkpoint_of_other_classes_is_refused(named, tmp_path) -> None:
    short = {"train_cfg.max_epochs": 1, "train_cfg.val_interval": 1, "param_scheduler.0.end": 2}
    trained = train(job(named, tmp_path / "run", **short))
    path = Path(named.removeprefix("coco:"))
    other = path.with_name("other.json")
    other.write_text(path.read_text().replace('"cat"', '"dog"'))
    name = get_dataset(f"coco:{other}").name
    with pytest.raises(InputError, match=r"its class 0 is 'cat', that of own-other-\w+ is dog"):
        score_checkpoint(trained.checkpoint, Job(name, "", "", 0, Path(), tmp_path / "test"))
