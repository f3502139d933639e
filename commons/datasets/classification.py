"""The datasets of image classification."""

from __future__ import annotations

from onebit.commons.datasets.dataset import Dataset, ImageFolder, Printed

_COSTS = ("memory_strict", "memory_paper", "memory_cp-nas", "ops_strict", "ops_paper", "ops_cp-nas")


def _readme(paper: str, table: str, *columns: str, group: str | None = None) -> Printed:
    """A table of the authors' README, all of hand-made networks; ``columns`` are accuracies."""
    metrics = {column: "top5" if column == "top5" else "top1" for column in columns}
    return Printed(paper, table, group, metrics, None, None, search_method="Manual")


_MINI = "onebit.commons.mini.classification"

CIFAR10 = Dataset(
    name="cifar10",
    title="CIFAR-10",
    task="classification",
    folders=(".",),
    required=tuple(
        f"cifar-10-batches-py/{part}"
        for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    ),
    how_to_get="Get cifar-10-python.tar.gz from the University of Toronto's CIFAR page and unpack it.",
    reader="cifar10",
    image_size=32,
    statistics=((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    columns=(
        *("backbone", "error", "params", *_COSTS, "wa"),
        *("search_cost", "search_method", "untrained", "recipe", "epochs", "seeds", "source"),
    ),
    printed=(
        Printed("dcp-nas", "10", None, {"test_error": "top1"}, 600, (3, 32, 32)),
        # CP-NAS counts memory by a rule of its own (docs/cost.md): its Table 3, of the nets of its Table 1.
        Printed("cp-nas", "1", None, {"test_error": "top1"}, 600, (3, 32, 32), costs="3", convention="cp-nas"),
        _readme("ir-net", "1", "accuracy"),
        _readme("rbnn", "1", "top1"),
        _readme("recu", "1", "top1"),
        *(_readme(paper, "1", "accuracy") for paper in ("adabin", "sd-bnn", "ir2net")),
        _readme("ab-bnn", "1", "top1", group="CIFAR10"),
    ),
)
CIFAR100 = Dataset(
    name="cifar100",
    title="CIFAR-100",
    task="classification",
    folders=(".",),
    required=tuple(f"cifar-100-python/{part}" for part in ("train", "test", "meta")),
    how_to_get="Get cifar-100-python.tar.gz from the University of Toronto's CIFAR page and unpack it.",
    reader="cifar100",
    image_size=32,
    statistics=((129.3, 124.1, 112.4), (68.2, 65.4, 70.4)),
    printed=(_readme("ab-bnn", "1", "top1", group="CIFAR100"),),
)
IMAGENET = Dataset(
    name="imagenet",
    title="ImageNet",
    task="classification",
    folders=("imagenet",),
    required=("train", "val"),
    how_to_get="Get ILSVRC 2012 from image-net.org; val/ must hold one folder per class, as train/ does.",
    split="train -> val",
    printed=(
        Printed("dcp-nas", "11", None, {"top1": "top1", "top5": "top5"}, 512, (3, 224, 224)),
        *(_readme(paper, "2", "top1", "top5") for paper in ("ir-net", "rbnn", "recu", "adabin", "sd-bnn", "ir2net")),
        _readme("ab-bnn", "1", "top1", group="ImageNet"),
        _readme("bnext", "1", "top1"),
        _readme("reactnet", "1", "top1"),
        *(_readme(paper, "1", "top1", "top5") for paper in ("rbonn", "rebnn", "larq-zoo")),
        _readme("larq-zoo", "2", "top1", "top5"),
    ),
)

FASHION_MNIST = Dataset(
    name="fashion-mnist",
    title="Fashion-MNIST",
    task="classification",
    folders=("FashionMNIST/raw", "fashion-mnist", "/usr/share/datasets/fashion-mnist"),
    required=tuple(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")),
    gzipped=True,
    how_to_get="On Debian and Ubuntu `apt-get install dataset-fashion-mnist` puts it there; elsewhere get the four "
    "files from Zalando Research (github.com/zalandoresearch/fashion-mnist), as torchvision's FashionMNIST does.",
    reader="onebit.classification.idx:read_fashion_mnist",
    image_size=28,
    gray=True,
    # Measured on the 60,000 training images.
    statistics=((72.94,) * 3, (90.02,) * 3),
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    recipe="small",
    known_checksum="content:50d665350645637f18b48bd1b2d0b15d37584d204c70b86cccfd6f9a24ee9297",
)
CIFAR10_JPEG = CIFAR10.variant(
    "cifar10-jpeg",
    "development",
    ("cifar10-jpeg", "."),
    "CIFAR-10 as JPEG files in train/<class>/ and test/<class>/; not comparable with published numbers.",
    required=("train/airplane", "test/airplane"),
    reader="folder",
    known_checksum="content:eeeacc9a24489f9a5d582cc8ca274de6db94b99ec1f8a2b7efe3b6dfebb543fb",
)
#: What `folder-NAME` is, but for name and folder.
OWN_FOLDER = ImageFolder(
    name="folder",
    task="classification",
    folders=(".",),
    required=("train",),
    how_to_get="It needs train/ and val/ or test/, each with one folder of images per class.",
    split="",
    recipe="small",
)

ALL = (
    *(CIFAR10, CIFAR100, IMAGENET, FASHION_MNIST),
    *(CIFAR10.mini(f"{_MINI}:write_mini_cifar10"), IMAGENET.mini(f"{_MINI}:write_mini_imagenet")),
    FASHION_MNIST.mini(
        f"{_MINI}:write_mini_fashion_mnist",
        reader="onebit.classification.idx:read_idx",
        classes=("disc", "ring", "square", "frame", "triangle", "cross", "slashed", "across", "checker", "twins"),
    ),
    CIFAR10_JPEG,
)
