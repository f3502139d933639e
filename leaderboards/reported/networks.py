"""Which network of this suite a row of the papers' tables is, and by which rule its cost was counted.

A small table to be read from top to bottom: the first entry that matches a printed number says what
to compute for it, or in words why nothing can be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Columns of the papers' tables whose numbers follow from a network by counting.
ANALYTIC = ("params", "memory", "ops", "flops", "memory_saving", "speedup")


@dataclass(frozen=True)
class Network:
    """A network that can be counted.

    Attributes:
        backbone: its name.
        task: ``classification`` or ``detection`` (the VOC board's Faster R-CNN).
        size: height and width of the input in pixels.
        classes: of the classifier; None counts the backbone alone.
        options: further arguments of the backbone, as pairs.
    """

    backbone: str
    task: str = "classification"
    size: tuple[int, int] = (224, 224)
    classes: int | None = 1000
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = [f"`{self.backbone}`", *(f"{key}={value}" for key, value in self.options)]
        if self.task == "detection":
            parts.append("Faster R-CNN")
        elif self.classes is None:
            parts.append("no classifier")
        return ", ".join(parts)


@dataclass(frozen=True)
class PrintedParameters:
    """A parameter count that a paper prints, of a network that cannot be built here.

    Attributes:
        millions: the printed count.
        where: which table prints it.
        bits: of every parameter.
        real_part: layers that stay at 32 bits, taken from this network's stem and classifier.
    """

    millions: float
    where: str
    bits: int = 32
    real_part: Network | None = None

    def __str__(self) -> str:
        real = ", stem and classifier at 32" if self.real_part else ""
        return f"{self.millions:g} M parameters of {self.where} at {self.bits} bit{real}"


@dataclass(frozen=True)
class Entry:
    """What the numbers of some rows are.

    Attributes:
        tables: the paper's key and the numbers of the tables, e.g. ``dcp-nas 5 8 11``.
        row: regular expression for the whole name of the row.
        counted: by column, what to count and under which convention.
        remark: words that go with it, or instead of it.
        group: regular expression for the whole group of the number.
    """

    tables: str
    row: str
    counted: Mapping[str, tuple[Network | PrintedParameters, str]] = field(default_factory=dict)
    remark: str = ""
    group: str = ".*"

    def matches(self, paper: str, table: str, row: str, group: str, column: str) -> bool:
        key, *numbers = self.tables.split()
        return (
            (key, True) == (paper, table in numbers)
            and (not self.counted or column in self.counted)
            and bool(re.fullmatch(self.row, row))
            and bool(re.fullmatch(self.group, group))
        )


def find(paper: str, table: str, row: str, group: str, column: str) -> Entry:
    """The entry of a printed number.

    Raises:
        LookupError: none matches, so that no number is passed over.
    """
    for entry in ENTRIES:
        if entry.matches(paper, table, row, group, column):
            return entry
    raise LookupError(f"no entry for {paper} Table {table}, {row!r} ({group}), {column}")


def _cifar(backbone: str, **options: str) -> Network:
    return Network(backbone, size=(32, 32), classes=10, options=(("stem", "cifar"), *options.items()))


def _detector(backbone: str) -> Network:
    return Network(backbone, "detection", (600, 1000), 20)


def _all(network: Network, convention: str, *columns: str) -> dict[str, tuple[Network, str]]:
    return dict.fromkeys(columns, (network, convention))


UNPUBLISHED = "not computed: its cell was not published"
ELSEWHERE = "not computed: a network of another paper, not part of this suite"
_FEATURES = "backbone alone: the printed count has no classifier"
_PLAIN18 = Network("resnet18", classes=None)
_FACES = "not computed: a network for faces with two fully connected layers and no pooling before them, whose shapes are not printed"

ENTRIES: list[Entry] = []


def _add(*arguments, **options) -> None:
    ENTRIES.append(Entry(*arguments, **options))


# DCP-NAS, ImageNet.
_SCHEMES = r"( \((improved scheme|F-norm).*\))?"
for _size in "SML":
    _own = f"dcp_nas_{_size.lower()}"
    _add(
        "dcp-nas 5 8 11 15",
        f"DCP-NAS-{_size}{_SCHEMES}",
        _all(Network(_own), "dcp-nas", "memory", "ops", "memory_saving"),
    )
    for _what, _option in (("preprocessing", "preprocess"), ("first separable-conv", "depthwise")):
        _network = Network(_own, options=((f"binarize_{_option}", "both"),))
        _add(
            "dcp-nas 8",
            f"DCP-NAS-{_size} \\({_what} activations binarized\\)",
            _all(_network, "", "memory", "ops"),
            remark="no convention fits: under `dcp-nas` binarizing activations changes neither memory nor OPs; under `strict` only OPs",
        )
for _name, _size in (("Small", "s"), ("Medium", "m"), ("Large", "l")):
    _remark = "the printed value repeats the medium net's; Tables 8 and 11 print 14.4" if _size == "l" else ""
    _add(
        "dcp-nas 7", _name, _all(Network(f"dcp_nas_{_size}"), "dcp-nas", "memory"), _remark, group="normal search space"
    )
_add("dcp-nas 5 7", ".*", remark=UNPUBLISHED)
_add("dcp-nas 6", r".* \+ D\.O\.", remark=UNPUBLISHED)
for _name, _network, _millions in (
    ("DARTS", Network("darts_v2_c48_l14"), 4.9),
    ("PC-DARTS", Network("pc_darts_imagenet"), 5.3),
):
    _remark = f"follows from the {_millions:g} M parameters that CP-NAS Table 2 prints: {32 * _millions:.1f}"
    _add("dcp-nas 6 11", _name, _all(_network, "strict", "memory"), _remark)
    _add("cp-nas 2", _name, _all(_network, "strict", "params"))
    _add("bnas 4", _name, _all(_network, "strict", "params"))
_add(
    "dcp-nas 11",
    "DARTS",
    _all(Network("darts_v2_c48_l14"), "", "ops"),
    "no convention fits (`mmdet-legacy` gives 544.6): the printed network may be another cell of DARTS, as its 4.9 M parameters suggest",
)
_add("dcp-nas 11", "PC-DARTS", _all(Network("pc_darts_imagenet"), "mmdet-legacy", "ops"))
_add("dcp-nas 11 15", "ResNet-18", _all(_PLAIN18, "strict", "memory"), _FEATURES)
_add(
    "dcp-nas 11",
    "ResNet-18",
    _all(Network("resnet18"), "strict", "ops"),
    "1819 is 1814.1 and two operations per element of every batch norm",
)
_add(
    "dcp-nas 11 15",
    r"ResNet-18 \(ReActNet\)",
    _all(Network("resnet18_reactnet", classes=None), "dcp-nas", "memory", "memory_saving"),
    _FEATURES,
)
_add("dcp-nas 11", r"ResNet-18 \(ReActNet\)", _all(Network("resnet18_reactnet"), "dcp-nas", "ops"))
_add(
    "dcp-nas 11",
    r"ResNet-18 \(PCNN\)",
    _all(Network("resnet18_bnaspcnnw1a32", classes=None), "dcp-nas", "memory"),
    _FEATURES,
)
_add("dcp-nas 11", r"ResNet-18 \(PCNN\)", _all(Network("resnet18_bnaspcnnw1a32"), "dcp-nas", "ops"), "as ResNet-18")
_add("dcp-nas 11", "PNAS", {"memory": (PrintedParameters(5.1, "CP-NAS Table 2"), "strict")})
_add("dcp-nas 8 11", "CP-NAS-L", {"memory": (PrintedParameters(12.5, "CP-NAS Table 2", 1), "dcp-nas")})
_add("dcp-nas 11", "BNAS1", {"memory": (PrintedParameters(6.2, "BNAS Table 4", 1), "dcp-nas")}, group="multi-bit")
_add("dcp-nas 11", "BNAS1", {"memory": (PrintedParameters(6.4, "BNAS Table 4", 1), "dcp-nas")}, group="medium")
_add("dcp-nas 8 11", "(CP-NAS-L.*|BNAS1)", remark=UNPUBLISHED)
_add("dcp-nas 11", ".*", remark=ELSEWHERE)

# DCP-NAS, CIFAR-10.
_add("dcp-nas 10", "WRN-22", _all(_cifar("wrn22"), "strict", "memory"), group="32/32")
_add("dcp-nas 10", "WRN-22", _all(_cifar("wrn22_bnaspcnnw1a32"), "dcp-nas", "memory"), group="1/32")
_add("dcp-nas 10", r"WRN-22 \(BONN\)", _all(_cifar("wrn22_bonn"), "dcp-nas", "memory"))
for _name, _network, _millions in (("DARTS", _cifar("darts_v2"), 3.4), ("PC-DARTS", _cifar("pc_darts_cifar"), 3.5)):
    _remark = f"follows from the {_millions:g} M parameters that CP-NAS Table 1 prints: {32 * _millions:.1f}"
    _add("dcp-nas 10", _name, _all(_network, "strict", "memory"), _remark)
    _add("cp-nas 1", _name, _all(_network, "strict", "params"))
    _add("bnas 2", rf"{_name}( \(second order\))?", _all(_network, "strict", "params"), group="32/32")
for _name, _millions in (("BNAS1", 2.6), ("CP-NAS-S", 2.9), ("CP-NAS-M", 4.4), ("CP-NAS-L", 10.6)):
    _add("dcp-nas 10", _name, {"memory": (PrintedParameters(_millions, "CP-NAS Table 1", 1), "dcp-nas")})
_add("dcp-nas 10", r"BNAS1 \(Large\)", {"memory": (PrintedParameters(4.5, "CP-NAS Table 1", 1), "dcp-nas")})
_add("dcp-nas 10", "(BATS|BNAS2).*", remark=ELSEWHERE)
_add("dcp-nas 10", "DCP-NAS-.", remark="not computed: its cell for CIFAR-10 was not published")

# DCP-NAS, detection.
_NO_RULE = "no convention fits: the 1-bit rows of this table follow from no single rule we know"
for _depth in (18, 34):
    _add(
        "dcp-nas 13",
        rf"ResNet-{_depth} \(real-valued\)",
        _all(_detector(f"resnet{_depth}"), "mmdet-legacy", "memory", "ops"),
        "memory: no convention fits; its difference from ResNet-18's is less than that of the two networks"
        if _depth == 34
        else "",
    )
    for _method, _suffix in (("ReActNet", "reactnet"), ("DoReFa-Net", "dorefa4")):
        _add(
            "dcp-nas 13",
            rf"ResNet-{_depth} \({_method}\)",
            _all(_detector(f"resnet{_depth}_{_suffix}"), "", "memory", "ops"),
            _NO_RULE,
        )
for _size in "SML":
    _add("dcp-nas 13", f"DCP-NAS-{_size}", _all(_detector(f"dcp_nas_{_size.lower()}"), "", "memory", "ops"), _NO_RULE)
_add("dcp-nas 13", ".*LWS-Det.*", remark=f"{ELSEWHERE}; the cells are those of ReActNet's rows")

# CP-NAS.
_WRN22 = _cifar("wrn22")
_BONN22 = _cifar("wrn22_bonn")
_add("cp-nas 1", r"WRN-22.*", _all(_WRN22, "strict", "params"))
_add("cp-nas 3", "WRN-22", _all(_WRN22, "strict", "memory", "flops", "memory_saving", "speedup"))
_add(
    "cp-nas 3",
    r"WRN-22 \(BONN\)",
    _all(_BONN22, "cp-nas", "speedup"),
    "the printed ratio does not follow from the printed FLOPs, 647.70 / 17.03 = 38.03",
)
_add("cp-nas 3", r"WRN-22 \(BONN\)", _all(_BONN22, "cp-nas", "memory", "flops", "memory_saving"))
for _name, _millions, _width, _cells in (
    (r"CP-NAS \(Small\)", 2.9, "cp_nas_s", "CP-NAS Table 1"),
    (r"CP-NAS \(Medium\)", 4.4, "cp_nas_m", "CP-NAS Table 1"),
    (r"CP-NAS \(Large\)", 10.6, "cp_nas_l", "CP-NAS Table 1"),
    (r"BNAS \(PCNN, larger\)", 4.6, "bnas_c48", "CP-NAS Table 1"),
):
    _given = PrintedParameters(_millions, _cells, 1, _cifar(_width))
    _add("cp-nas 3", _name, _all(_given, "cp-nas", "memory", "memory_saving"))
_add("cp-nas 1 3", "(BNAS|CP-NAS).*", remark=UNPUBLISHED)
_add("cp-nas 2", r"ResNet-18.*", _all(_PLAIN18, "strict", "params"), _FEATURES)
_add("cp-nas 2", "(BNAS|CP-NAS).*", remark=UNPUBLISHED)
_add("cp-nas 2", ".*", remark=ELSEWHERE)

# BNAS and ABanditNAS.
_add(
    "bnas 2",
    r"ResNet-18 \(PCNN\)|WRN-22 \(PCNN\)",
    remark="not computed: a narrower network whose width is not printed",
    group="1/1",
)
_add("bnas 2", r"ResNet-18.*", _all(_cifar("resnet18"), "strict", "params"))
_add("bnas 2", r"WRN-22.*", _all(_WRN22, "strict", "params"))
_add("bnas 2 4", r"(BNAS|PC-DARTS|DARTS \(first).*", remark=UNPUBLISHED)
_add("bnas 4", r"ResNet-18.*", _all(_PLAIN18, "strict", "params"), _FEATURES)
_add("bnas 2 4", ".*", remark=ELSEWHERE)
_add("bnas 5", "BNAS", remark=UNPUBLISHED)
_add("bnas 5", ".*", remark=_FACES)
_add("abanditnas 4.1", ".*", remark=UNPUBLISHED)
