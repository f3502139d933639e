import os
import pickle
import shutil
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from onebit.classification.config import build_config
from onebit.classification.datasets import (
    InMemoryImages,
    StreamedImages,
    class_names,
    collate_images,
    read_cifar,
    read_folder,
    read_image,
)
from onebit.commons.datasets import get_dataset
from onebit.commons.errors import InputError
from onebit.commons.mini.classification import CLASSES, WNIDS, dump_python2_pickle


@pytest.fixture
def cifar(data_copy):
    """The folder of a mini-cifar10 that may be damaged."""
    return data_copy / "mini-cifar10"


@pytest.fixture
def batch(cifar):
    return cifar / "cifar-10-batches-py" / "data_batch_2"


@pytest.fixture
def folder(data_copy):
    return data_copy / "cifar10-jpeg"


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar_reader_agrees_with_torchvisions(data, split):
    from torchvision.datasets import CIFAR10

    class Unchecked(CIFAR10):
        train_list = tuple((name, None) for name, _ in CIFAR10.train_list)
        test_list = tuple((name, None) for name, _ in CIFAR10.test_list)
        meta = MappingProxyType({**CIFAR10.meta, "md5": None})

    theirs = Unchecked(str(data / "mini-cifar10"), train=split == "train")
    images, labels = read_cifar(data / "mini-cifar10", split)
    assert images.dtype == torch.uint8
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert labels.tolist() == theirs.targets
    assert class_names(data / "mini-cifar10", "cifar10") == theirs.classes == list(CLASSES)


def test_what_python_3_pickles_is_read_too(cifar, batch):
    before = read_cifar(cifar, "train")
    with open(batch, "rb") as stream:
        content = pickle.load(stream, encoding="bytes")
    batch.write_bytes(pickle.dumps(content, protocol=2))
    after = read_cifar(cifar, "train")
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("file", ["data_batch_2", "batches.meta"])
def test_pickle_that_runs_code_is_refused_and_does_not(cifar, batch, tmp_path, file, protocol):
    content = {b"data": Hostile(tmp_path / "marker"), b"label_names": [b"a"]}
    (batch.parent / file).write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(InputError, match=f"{file} is not a file of .*: it asks for posix.system"):
        read_cifar(cifar, "train")
    assert not (tmp_path / "marker").exists()


def test_class_that_is_not_needed_is_refused(cifar, batch):
    batch.write_bytes(pickle.dumps({b"data": np.random.default_rng(0)}))
    with pytest.raises(InputError, match="it asks for numpy"):
        read_cifar(cifar, "train")


@pytest.mark.parametrize("keep", [0, 1, 1000, -1])
def test_truncated_pickle_is_named(cifar, batch, keep):
    batch.write_bytes(batch.read_bytes()[:keep])
    with pytest.raises(InputError, match=f"{batch} is not a file of the CIFAR release"):
        read_cifar(cifar, "train")


IMAGES = np.zeros((4, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"data": np.zeros((4, 3071), np.uint8), b"labels": [0] * 4}, r"`data` as uint8 \[N, 3072"),
        ({b"data": np.zeros((4, 3072), np.float32), b"labels": [0] * 4}, "`data` as uint8"),
        ({b"data": np.zeros((4, 3, 32, 32), np.uint8), b"labels": [0] * 4}, "`data` as uint8"),
        ({b"labels": [0] * 4}, "`data` as uint8"),
        ([1, 2], "`data` as uint8"),
        ({b"data": IMAGES, b"labels": [0] * 3}, "expected 4 `labels`"),
        ({b"data": IMAGES}, "expected 4 `labels`"),
        ({b"data": IMAGES, b"labels": [0, 1, 10, 2]}, "label 10 of image 2 is out of range 0 to 9"),
        ({b"data": IMAGES, b"labels": [0, -1, 1, 2]}, "label -1 of image 1 is out of range 0 to 9"),
        ({b"data": IMAGES, b"labels": [0, b"a", 1, 2]}, "label b'a' of image 1 is out of range"),
    ],
)
def test_wrong_content_is_named(cifar, batch, content, message):
    batch.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(InputError, match=f"{batch}: (expected )?{message}"):
        read_cifar(cifar, "train")


def test_meta_without_names_is_named(cifar, batch):
    (batch.parent / "batches.meta").write_bytes(dump_python2_pickle({"label_names": 3}))
    with pytest.raises(InputError, match=r"batches.meta: expected a list label_names"):
        read_cifar(cifar, "train")


def test_missing_batch_is_named(data_copy, batch):
    batch.unlink()
    with pytest.raises(InputError, match=f"mini-cifar10 is incomplete: expected {batch}"):
        get_dataset("mini-cifar10").find(data_copy)


def test_folder_is_read_in_the_order_of_classes_and_names(folder):
    images, labels = read_folder(folder, "train")
    assert class_names(folder, "folder") == ["airplane", "automobile", "bird"]
    files = sorted((folder / "train").glob("*/*.jpg"))
    assert images.shape == (len(files), 3, 32, 32)
    for i in (0, 40, 79):
        with Image.open(files[i]) as image:
            assert np.array_equal(images[i].permute(1, 2, 0).numpy(), np.asarray(image))
        assert class_names(folder, "folder")[labels[i]] == files[i].parent.name


def test_grey_images_become_rgb_and_other_files_are_skipped(folder):
    path = sorted((folder / "train" / "bird").iterdir())[0]
    Image.new("L", (32, 32), 77).save(path)
    (folder / "train" / "bird" / "Thumbs.db").write_bytes(b"x")
    images, labels = read_folder(folder, "train")
    first_bird = labels.tolist().index(2)
    assert images[first_bird].float().mean().round() == 77


def test_empty_class_is_named(folder):
    shutil.rmtree(folder / "test" / "bird")
    (folder / "test" / "bird").mkdir()
    with pytest.raises(InputError, match="test/bird: expected images of class bird, found none"):
        class_names(folder, "folder")


def test_other_classes_in_train_and_test_are_named(folder):
    (folder / "test" / "bird").rename(folder / "test" / "frog")
    with pytest.raises(InputError, match=r"train/ and test/ have different classes.*: bird, frog"):
        class_names(folder, "folder")


def test_folder_without_classes_is_named(folder):
    shutil.rmtree(folder / "train")
    with pytest.raises(InputError, match="train: expected a folder with one folder per class"):
        class_names(folder, "folder")
    (folder / "train").mkdir()
    with pytest.raises(InputError, match="train: expected one folder per class, found none"):
        class_names(folder, "folder")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_image_is_named(folder, content):
    path = sorted((folder / "train" / "bird").iterdir())[1]
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(InputError, match=f"expected an image that can be read, found {path}"):
        read_folder(folder, "train")


def test_image_too_large_to_decode_is_named(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"expected an image that can be read, found .*exceeds limit"):
        read_image(next((folder / "train" / "bird").iterdir()))


def test_image_of_another_size_is_named(folder):
    path = sorted((folder / "test" / "bird").iterdir())[0]
    Image.new("RGB", (33, 30)).save(path)
    with pytest.raises(InputError, match=f"{path} is 33x30 pixels, expected 32x32"):
        read_folder(folder, "test")


def test_images_become_smaller_by_the_mean_of_areas(data):
    small = InMemoryImages(data / "mini-cifar10", "cifar10", "train", resize=16)
    large = InMemoryImages(data / "mini-cifar10", "cifar10", "train")
    areas = large.images.float().view(80, 3, 16, 2, 16, 2).mean((3, 5))
    assert (small.images.float() - areas).abs().max() <= 0.5
    assert small.images.dtype == torch.uint8
    assert torch.equal(small[3]["inputs"][0], small.images[3])


def test_a_part_of_the_images_is_always_the_same(data):
    root = data / "mini-cifar10"
    part, again = (InMemoryImages(root, "cifar10", "train", images=30) for _ in range(2))
    everything = InMemoryImages(root, "cifar10", "train")
    assert part.images.shape == (30, 3, 32, 32)
    assert torch.equal(part.images, again.images)
    assert len(set(part.labels.tolist())) > 5, "drawn, not the first ones"
    for image, label in zip(part.images, part.labels, strict=True):
        (found,) = torch.where((everything.images == image).all((1, 2, 3)))[0].tolist()
        assert everything.labels[found] == label
    assert len(InMemoryImages(root, "cifar10", "train", images=81)) == 80


def test_batches_in_memory_are_what_the_indices_say(data):
    dataset = InMemoryImages(str(data / "mini-cifar10"), "cifar10", "train")
    assert len(dataset) == 80
    assert dataset.metainfo == dict(classes=list(CLASSES))
    loader = DataLoader(dataset, batch_size=3, sampler=[7, 2, 2, 79], collate_fn=collate_images)
    first, last = loader
    assert torch.equal(first["inputs"], dataset.images[[7, 2, 2]])
    assert torch.equal(first["labels"], dataset.labels[[7, 2, 2]])
    assert last["inputs"].shape == (1, 3, 32, 32)
    assert torch.equal(dataset[5]["inputs"], dataset.images[5:6])


def test_streamed_images_are_cropped_to_size(data):
    for split, count in (("train", 40), ("test", 20)):
        dataset = StreamedImages(str(data / "mini-imagenet"), split, size=48, min_area=0.08)
        assert len(dataset) == count
        assert dataset.metainfo == dict(classes=list(WNIDS))
        batch = collate_images([dataset[0], dataset[count - 1]])
        assert batch["inputs"].shape == (2, 3, 48, 48)
        assert batch["inputs"].dtype == torch.uint8
        assert batch["labels"].tolist() == [0, 9]


def test_streamed_images_vary_in_training_only(data):
    root = str(data / "mini-imagenet")
    for split, expected in (("train", False), ("test", True)):
        dataset = StreamedImages(root, split, size=48, min_area=0.08)
        assert torch.equal(dataset[3]["inputs"], dataset[3]["inputs"]) is expected


def test_streamed_image_that_cannot_be_read_is_named(data_copy):
    path = sorted((data_copy / "mini-imagenet" / "val" / WNIDS[0]).iterdir())[0]
    path.write_bytes(b"")
    dataset = StreamedImages(str(data_copy / "mini-imagenet"), "test", size=48, min_area=0.08)
    with pytest.raises(InputError, match=f"expected an image that can be read, found {path}"):
        dataset[0]


def test_imagenet_with_an_empty_class_is_refused_by_the_config(data_copy, job):
    for path in (data_copy / "mini-imagenet" / "val" / WNIDS[3]).iterdir():
        path.unlink()
    dataset = get_dataset("mini-imagenet")
    with pytest.raises(InputError, match=f"val/{WNIDS[3]}: expected images of class"):
        build_config(job("mini-imagenet"), dataset, dataset.find(data_copy))


@pytest.fixture
def cifar100(tmp_path):
    """A data root with a CIFAR-100 of 12 and 4 images, its format the release's."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    names = [f"class {i:02}" for i in range(100)]
    (folder / "meta").write_bytes(dump_python2_pickle({"fine_label_names": names}))
    for split, count in (("train", 12), ("test", 4)):
        images = np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)
        labels = [(7 * i) % 100 for i in range(count)]
        content = {"data": images, "fine_labels": labels, "coarse_labels": [0] * count}
        (folder / split).write_bytes(dump_python2_pickle(content))
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar100_reader_agrees_with_torchvisions(cifar100, split):
    from torchvision.datasets import CIFAR100

    class Unchecked(CIFAR100):
        train_list = (("train", None),)
        test_list = (("test", None),)
        meta = MappingProxyType({**CIFAR100.meta, "md5": None})

    theirs = Unchecked(str(cifar100), train=split == "train")
    dataset = InMemoryImages(str(cifar100), "cifar100", split)
    assert np.array_equal(dataset.images.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert dataset.labels.tolist() == theirs.targets
    assert len(dataset.metainfo["classes"]) == 100


def test_cifar100_has_its_classes_stem_and_statistics(cifar100, job):
    dataset = get_dataset("cifar100")
    cfg = build_config(job("cifar100", recipe="paper"), dataset, dataset.find(cifar100))
    assert (cfg.model.num_classes, cfg.input_size, cfg.model.backbone.stem) == (100, 32, "cifar")
    assert cfg.model.data_preprocessor.mean == (129.3, 124.1, 112.4)
    assert cfg.model.data_preprocessor.cutout == 16


def own_folder(root, sizes, scored="val"):
    """``folder-own`` of two classes whose images have the given sizes in turn."""
    for split in ("train", scored):
        for name in ("cat", "dog"):
            folder = root / "own" / split / name
            folder.mkdir(parents=True)
            for i, size in enumerate(sizes):
                Image.effect_noise(size, 60).convert("RGB").save(folder / f"{i}.png")
    dataset = get_dataset("folder-own")
    return dataset, dataset.find(root)


@pytest.mark.parametrize("scored", ["val", "test"])
def test_a_folder_of_small_images_is_held_in_memory(tmp_path, job, scored):
    dataset, folder = own_folder(tmp_path, [(24, 24)] * 3, scored)
    cfg = build_config(job(dataset.name, recipe="paper"), dataset, folder)
    assert (cfg.input_size, cfg.model.backbone.stem, cfg.model.num_classes) == (24, "cifar", 2)
    assert cfg.model.data_preprocessor.mean == (123.675, 116.28, 103.53)
    for part in (cfg.train_dataloader, cfg.test_dataloader):
        source = dict(part.dataset)
        assert source.pop("type") == "InMemoryImages"
        assert InMemoryImages(**source).images.shape == (6, 3, 24, 24)


@pytest.mark.parametrize("size", [(80, 80), (40, 30)])
def test_a_folder_of_other_images_is_read_as_batches_come(tmp_path, job, size):
    dataset, folder = own_folder(tmp_path, [size, (90, 50)], "test")
    cfg = build_config(job(dataset.name, recipe="mini"), dataset, folder)
    assert (cfg.input_size, cfg.model.backbone.stem) == (64, "imagenet")
    source = dict(cfg.test_dataloader.dataset)
    assert source.pop("type") == "StreamedImages"
    assert len(StreamedImages(**source)) == 4
    assert StreamedImages(**source)[3]["inputs"].shape == (3, 64, 64)


def test_a_folder_of_several_small_sizes_names_the_odd_one(tmp_path):
    _, folder = own_folder(tmp_path, [(24, 24), (25, 24)])
    with pytest.raises(InputError, match=r"val/cat/1.png is 25x24 pixels, expected 24x24"):
        read_folder(folder, "test", 24)


def test_a_folder_trains_and_its_checkpoint_is_scored(tmp_path, job):
    from onebit.classification import runner
    from onebit.classification.predictor import network_of

    own_folder(tmp_path, [(24, 24)] * 2)
    options = {"train_cfg.max_epochs": 1}
    training = job("folder-own", backbone="resnet18_w8_reactnet", data_root=tmp_path, cfg_options=options)
    outcome = runner.train(training)
    assert (outcome.split, outcome.num_classes) == ("train -> val", 2)
    assert outcome.cost["strict"]["input_shape"] == [3, 24, 24]
    again = runner.test(outcome.checkpoint, job("folder-own", backbone="", data_root=tmp_path))
    assert again.metrics == outcome.metrics
    row, weights = runner.load_row(outcome.checkpoint)
    assert network_of(row, weights)[1]["stem"] == "cifar"


@pytest.fixture
def slopes(tmp_path):
    """An ImageNet-style folder of one 112x112 image whose red grows to the right and green downwards."""
    steps = np.linspace(0, 222, 112).round().astype(np.uint8)
    image = np.zeros((112, 112, 3), np.uint8)
    image[..., 0], image[..., 1] = steps[None, :], steps[:, None]
    for split in ("train", "val"):
        (tmp_path / split / "one").mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / split / "one" / "slopes.png")
    return tmp_path


@pytest.mark.parametrize(("min_area", "least", "most"), [(0.95, 0.9, 1.0), (0.08, 0.0, 0.6)])
def test_training_crops_cover_at_least_their_share(slopes, min_area, least, most):
    """The values that a crop spans say how much of the image it covers."""
    torch.manual_seed(0)
    dataset = StreamedImages(str(slopes), "train", size=56, min_area=min_area)
    spans = []
    for _ in range(60):
        image = dataset[0]["inputs"][:2].float()
        spans.append(((image.amax((1, 2)) - image.amin((1, 2))) / 222).prod().item())
    assert least <= min(spans) <= most


def test_scored_images_are_resized_by_8_7_before_the_centre_is_cut_out(slopes):
    """Of 64 columns after the resize 56 stay: 4 are lost on each side, a sixteenth of the slope."""
    image = StreamedImages(str(slopes), "test", size=56, min_area=1.0)[0]["inputs"].float()
    for channel, axis in ((0, 0), (1, 1)):
        line = image[channel].mean(axis)
        assert line[0] == pytest.approx(222 * 4.5 / 64, abs=2)
        assert line[-1] == pytest.approx(222 * 59.5 / 64, abs=2)
