"""Mutated annotations: refused by name, or read by MMDetection whole. Never a traceback, never less."""

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onebit.commons.errors import InputError
from onebit.commons.task import Job
from onebit.detection.checks import check_dataset, leaves
from onebit.detection.config import build_config

# ruff: isort: split
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules

VOC = "VOCdevkit/VOC2007"
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))


class Data:
    """A dataset of which one file is mutated, read and put back."""

    def __init__(self, root, dataset, file):
        job = Job(dataset=dataset, backbone="resnet18_w8", recipe="mini", seed=0, data_root=root, work_dir=Path("none"))
        register_all_modules(init_default_scope=True)
        self.cfg = build_config(job, root / dataset)
        self.folder, self.path = root / dataset, root / dataset / file
        self.original = self.path.read_bytes()
        self.whole = check_dataset(self.cfg, ["train"])["train"]
        assert self.loaded() == (8, self.whole["objects"])

    def loaded(self):
        """Images and objects as MMDetection reads them."""
        datasets = [DATASETS.build({**leaf, "pipeline": []}) for leaf in leaves(self.cfg.train_dataloader.dataset)]
        images = [leaf.get_data_info(n) for leaf in datasets for n in range(len(leaf))]
        return len(images), sum(len(image["instances"]) for image in images)

    def refusal(self, content):
        """Read the mutated file; return what it was refused with, or None where it is whole."""
        self.path.write_bytes(content)
        try:
            found = check_dataset(self.cfg, ["train"])["train"]
            read = self.loaded()
        except InputError as error:
            return str(error)
        finally:
            self.path.write_bytes(self.original)
        assert read == (8, found["objects"])
        assert found["objects"] >= self.whole["objects"]
        return None

    def refused_or_whole(self, content):
        message = self.refusal(content)
        # The path of an image, where that is what is missing or wrong.
        assert message is None or str(self.folder) in message or "no object at all" in message


def fixture(dataset, file):
    @pytest.fixture(scope="module")
    def data(drawn, tmp_path_factory):
        root = tmp_path_factory.mktemp("fuzz")
        shutil.copytree(drawn / dataset, root / dataset)
        return Data(root, dataset, file)

    return data


voc = fixture("mini-voc", f"{VOC}/Annotations/000001.xml")
listing = fixture("mini-voc", f"{VOC}/ImageSets/Main/trainval.txt")
coco = fixture("mini-coco", "annotations/instances_train2017.json")

TEXTS = [
    "",
    " ",
    "0",
    "1",
    "-1",
    "1.5",
    "1e3",
    "1e400",
    "nan",
    "inf",
    "96",
    "97",
    "9" * 400,
    "car",
    "Car",
    "1_0",
    "٣",
    "\u2028",
    "0x10",
    "None",
]
TAGS = ["object", "Object", "name", "bndbox", "size", "xmin", "difficult", "part", "x", "annotation"]


def edited_xml(data, draw):
    """One element changed: its text, its tag, gone (but no whole object), or doubled."""
    root = ElementTree.fromstring(data.original)
    parents = {child: parent for parent in root.iter() for child in parent}
    elements = list(root.iter())
    node = draw(st.sampled_from(elements))
    how = draw(st.sampled_from(["text", "tag", "remove", "double", "move"]))
    if how == "text":
        node.text = draw(st.sampled_from(TEXTS))
    elif how == "tag":
        node.tag = draw(st.sampled_from(TAGS))
    elif node in parents and how == "remove" and node.tag != "object":
        parents[node].remove(node)
    elif node in parents and how == "double":
        parents[node].append(node)
    elif node in parents and how == "move":
        parents[node].remove(node)
        root.append(node)
    return ElementTree.tostring(root)


def cut(content, draw, longest):
    """A few bytes taken away, and others put there."""
    start = draw(st.integers(0, len(content)))
    length = draw(st.integers(0, longest))
    return content[:start] + draw(st.binary(max_size=longest)) + content[start + length :]


@pytest.mark.slow
@settings(FUZZ, max_examples=25)
@given(st.data())
def test_an_edited_xml(voc, data):
    voc.refused_or_whole(edited_xml(voc, data.draw))


@settings(FUZZ, max_examples=15)
@given(st.data())
def test_a_damaged_xml(voc, data):
    voc.refused_or_whole(cut(voc.original, data.draw, 8))


@settings(FUZZ, max_examples=10)
@given(st.data())
def test_a_damaged_list(listing, data):
    listing.refused_or_whole(cut(listing.original, data.draw, 3))


VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    2**53,
    "",
    "1",
    "x\x00",
    "\ud800",
    "../x",
    "/",
    ".",
    [],
    [1],
    {},
    {"a": 1},
    [[]],
]


def places(node, path=()):
    """Every (container, key) below ``node``."""
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key, path
        yield from places(node[key], (*path, key))


def edited_json(data, draw):
    """One value changed, its key renamed, it is gone (but no whole annotation), or doubled."""
    content = json.loads(data.original)
    node, key, path = draw(st.sampled_from(list(places(content))))
    how = draw(st.sampled_from(["value", "value", "value", "remove", "rename", "double"]))
    if how == "value":
        node[key] = draw(st.sampled_from(VALUES))
    elif how == "remove" and path != ("annotations",):
        del node[key]
    elif how == "rename" and isinstance(node, dict):
        node[draw(st.sampled_from(["id", "bbox", "Area", "ignore", "images"]))] = node.pop(key)
    elif how == "double" and isinstance(node, list):
        node.append(node[key])
    return json.dumps(content).encode()


@settings(FUZZ, max_examples=50)
@given(st.data())
def test_an_edited_json(coco, data):
    coco.refused_or_whole(edited_json(coco, data.draw))


@settings(FUZZ, max_examples=15)
@given(st.data())
def test_a_damaged_json(coco, data):
    coco.refused_or_whole(cut(coco.original, data.draw, 8))


def put(old, new):
    def change(text):
        assert old in text
        return text.replace(old, new)

    return change


def shrunk(text):
    text = text.replace("<width>96<", "<width>16<").replace("<height>96<", "<height>16<")
    return re.sub(r"<(xmin|ymin|xmax|ymax)>\d+<", lambda m: f"<{m[1]}>{2 if 'min' in m[1] else 9}<", text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("object>", "Object>"), "is not inside an <object>"),
        (put("<width>96<", "<width>96.0<"), "expected an integer in <size/width>, found '96.0'"),
        (put("<width>96<", "<width>inf<"), "expected an integer in <size/width>"),
        (shrunk, "expected at least 32 each way"),
        (put("<difficult>0<", "<difficult>0.5<"), "expected an integer in <difficult>"),
        (put("<difficult>0<", "<difficult>2<"), "expected 0 or 1 in <difficult>"),
        (put("<bndbox>", "<bndbox/><bndbox>"), "object 1: expected one <bndbox>, found 2"),
        (put("annotation>", "annotations>"), "expected an <annotation>, found <annotations>"),
        (put("<annotation>", '<?xml version="1.0" encoding="utf-99"?><annotation>'), "malformed XML"),
        (put("<annotation>", '<?xml version="1.0" encoding="utf-16"?><annotation>'), "malformed XML"),
    ],
)
def test_what_mmdetection_would_pass_over_in_xml(voc, change, message):
    found = voc.refusal(change(voc.original.decode()).encode())
    assert message in found
    assert str(voc.path) in found


def test_an_xml_without_a_size_is_held_to_the_image(voc):
    text = voc.original.decode()
    silent = text[: text.index("<size>")] + text[text.index("</size>") + len("</size>") :]
    assert voc.refusal(silent.encode()) is None
    wide = silent.replace("<xmax>", "<xmax>9", 1)
    assert "outside its image" in voc.refusal(wide.encode())


def shrink(content):
    content["images"][0].update(width=20, height=20)
    for annotation in content["annotations"]:
        annotation["bbox"] = [1, 1, 9, 9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(id=[1]), "expected an integer as id"),
        (lambda c: c["annotations"][0].update(image_id={}), "there is no image {}"),
        (lambda c: c["annotations"][0].update(category_id=[1]), "there is no category"),
        (lambda c: c["annotations"][0].update(ignore=1), "`ignore` would leave it out"),
        (lambda c: c["annotations"][0].update(iscrowd="no"), "expected an iscrowd of 0 or 1"),
        (lambda c: c["annotations"][0].update(area=float("nan")), "expected a bbox of x, y, width"),
        (lambda c: c["annotations"][0].update(bbox=[0, 0, 10**400, 5]), "expected a bbox of"),
        (lambda c: c["annotations"][0].update(bbox=[96, 5, 1, 5]), "at least one pixel"),
        (lambda c: c["images"][0].update(width="96"), "expected a width in pixels, found '96'"),
        (lambda c: c["images"][0].update(file_name=3), "expected a file_name, found 3"),
        (lambda c: c["images"][0].update(file_name="a\x00b/c.jpg"), "expected the name of an image"),
        (lambda c: c["images"][0].update(file_name="000000000002.jpg"), "is listed 2 times"),
        (shrink, "expected at least 32 each way"),
        (lambda c: c["categories"].reverse(), "found tv, chair"),
        (lambda c: c["categories"].append(dict(id=77, name="car")), "once, in this order, which is that of the"),
    ],
)
def test_what_mmdetection_would_pass_over_in_json(coco, change, message):
    content = json.loads(coco.original)
    change(content)
    found = coco.refusal(json.dumps(content).encode())
    assert message in found
    assert str(coco.folder) in found


def test_json_that_no_reader_takes(coco):
    text = coco.original.decode()
    twice = text.replace('"images":', '"annotations": [], "images":', 1)
    assert "the key 'annotations' occurs twice" in coco.refusal(twice.encode())
    assert "malformed JSON" in coco.refusal(b"[" * 100000)
    digits = text.replace('"area": ', '"area": ' + "1" * 5000, 1)
    assert "malformed JSON" in coco.refusal(digits.encode())
