"""The ablations of the DCP-NAS paper, Tables 3, 7, 8 and 9: what each of them varies.

An ablation is a list of variants of one network, trained by one recipe on one dataset. Their rows are
ordinary rows of the dataset's board: what a variant changes is in their ``cfg_options``, and where
each seed searches a cell of its own, in ``details.search``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onebit.commons import guards
from onebit.commons.datasets import Dataset, Printed
from onebit.leaderboards.recording.file_options import without_files

if TYPE_CHECKING:
    from onebit.leaderboards.recording.record import Record

PREFIX = "ablation-"
_TOP = {"top1": "top1", "top5": "top5"}


@dataclass(frozen=True)
class Search:
    """How a variant's cell is searched, with the seed of the row.

    Attributes:
        options: of the method.
        cfg_options: dotted overrides of the preset.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    cfg_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One line of an ablation.

    Every variant sets all that its ablation varies, so that a record's variant can be told from the
    record alone, whatever the recipe and the preset have.

    Attributes:
        name: as :mod:`onebit.leaderboards.reported` names the paper's row.
        cfg_options: of the training.
        search: None takes the cell that the backbone has.
    """

    name: str
    cfg_options: Mapping[str, Any] = field(default_factory=dict)
    search: Search | None = None


@dataclass(frozen=True)
class Ablation:
    """One of the paper's ablations.

    Attributes:
        name: as typed.
        question: what it answers.
        printed: the paper's table, by board.
        variants: by board; a board that is not there has those of ``default_board``.
        backbones: on the paper's own dataset.
        by_group: the paper's variants are the groups of its table, not what stands in its rows'
            parentheses.
    """

    name: str
    question: str
    printed: Mapping[str, Printed]
    variants: Mapping[str, tuple[Variant, ...]]
    backbones: tuple[str, ...]
    default_board: str = "imagenet"
    by_group: bool = False

    def variants_on(self, board: str) -> tuple[Variant, ...]:
        return self.variants.get(board, self.variants[self.default_board])

    @property
    def searches(self) -> bool:
        return any(v.search for variants in self.variants.values() for v in variants)


def _imagenet(table: str, group: str | None = None) -> dict[str, Printed]:
    return {"imagenet": Printed("dcp-nas", table, group, _TOP, 512, (3, 224, 224))}


def _tangent(name: str, tangent: bool, reconstruction: bool) -> Variant:
    """Section 4.2.1: lambda 5e-3 and mu 0.2, "if they are used"."""
    options = dict(tangent=tangent, reconstruction=reconstruction, lambda_=5e-3, mu=0.2)
    return Variant(name, search=Search("dcp-nas", options))


def _space(name: str, pooling: bool, skip: bool) -> Variant:
    options = {"space.pooling": pooling, "space.skip": skip}
    return Variant(name, search=Search("dcp-nas", cfg_options=options))


def _binarization(name: str, preprocess: str, depthwise: str) -> Variant:
    start = "model.backbone.binarize_"
    return Variant(name, {f"{start}preprocess": preprocess, f"{start}depthwise": depthwise})


def _cifar_training(name: str, cutout: bool, clipping: bool) -> Variant:
    """Cutout of side 16 and clipping at 5, those of the recipe `paper`."""
    return Variant(
        name,
        {
            "model.data_preprocessor.cutout": 16 if cutout else 0,
            "optim_wrapper.clip_grad": dict(max_norm=5.0) if clipping else None,
        },
    )


def _imagenet_training(name: str, smoothing: bool, auxiliary: bool) -> Variant:
    """0.1 and 0.4, those of the recipe `paper`."""
    return Variant(
        name, {"model.label_smoothing": 0.1 if smoothing else 0.0, "model.auxiliary_weight": 0.4 if auxiliary else 0.0}
    )


_SIZES = ("dcp_nas_s", "dcp_nas_m", "dcp_nas_l")
ABLATIONS = {
    ablation.name: ablation
    for ablation in (
        Ablation(
            f"{PREFIX}tangent",
            "what the tangent direction and the reconstruction error do for the search",
            _imagenet("3"),
            {
                "imagenet": (
                    _tangent("without tangent direction or reconstruction error", False, False),
                    _tangent("tangent direction only", True, False),
                    _tangent("reconstruction error only", False, True),
                    _tangent("tangent direction and reconstruction error", True, True),
                )
            },
            ("dcp_nas_l",),
        ),
        Ablation(
            f"{PREFIX}space",
            "what pooling and identities do for the search space",
            _imagenet("7"),
            {
                "imagenet": (
                    _space("normal search space", True, True),
                    _space("without pooling", False, True),
                    _space("without skip connection", True, False),
                    _space("without pooling and skip connection", False, False),
                )
            },
            _SIZES,
            by_group=True,
        ),
        Ablation(
            f"{PREFIX}binarization",
            "which activations stay real-valued",
            _imagenet("8"),
            {
                "imagenet": (
                    _binarization("preprocessing activations binarized", "both", "weights"),
                    _binarization("first separable-conv activations binarized", "weights", "both"),
                    _binarization("both kept real-valued", "weights", "weights"),
                )
            },
            _SIZES,
        ),
        Ablation(
            f"{PREFIX}training",
            "what the parts of the training scheme do",
            {
                "cifar10": Printed("dcp-nas", "9", "CIFAR-10", {"test_error": "top1"}, 600, (3, 32, 32)),
                "imagenet": Printed("dcp-nas", "9", "ImageNet", _TOP, 512, (3, 224, 224)),
            },
            {
                "cifar10": (
                    _cifar_training("cutout and gradient clipping", True, True),
                    _cifar_training("cutout only", True, False),
                    _cifar_training("gradient clipping only", False, True),
                    _cifar_training("no cutout or gradient clipping", False, False),
                ),
                "imagenet": (
                    _imagenet_training("label smoothing and auxiliary loss", True, True),
                    _imagenet_training("label smoothing only", True, False),
                    _imagenet_training("auxiliary loss only", False, True),
                    _imagenet_training("no label smoothing or auxiliary loss", False, False),
                ),
            },
            ("dcp_nas_s",),
            default_board="cifar10",
        ),
    )
}
#: The network on every other dataset: what two cores train in a minute or two.
NARROW = ("dcp_nas_c8_l6",)


def get_ablation(name: str) -> Ablation:
    """Look an ablation up by name.

    Raises:
        InputError: there is none of this name.
    """
    return ABLATIONS[guards.known("ablation", name, ABLATIONS)]


def default_backbones(ablation: Ablation, dataset: Dataset) -> tuple[str, ...]:
    """Those of the paper on its own dataset, else :data:`NARROW`."""
    return ablation.backbones if dataset.name in ablation.printed else NARROW


def variant_of(ablation: Ablation, record: Record) -> tuple[Variant, dict[str, Any]] | None:
    """Which variant a record is of, and what else its options change; None if of none."""
    options = without_files(record.cfg_options)
    searched = record.details.get("search")
    for variant in ablation.variants_on(record.board):
        if (variant.search is None) != (searched is None):
            continue
        rest = _beyond(variant.cfg_options, options)
        if rest is None:
            continue
        if variant.search is None:
            return variant, rest
        asked = variant.search
        others = _beyond(asked.cfg_options, searched["cfg_options"])
        if (searched["method"], searched["options"]) == (asked.method, dict(asked.options)) and others is not None:
            search = {f"search.{key}": value for key, value in others.items()}
            return variant, {**rest, "search.preset": searched["preset"], **search}
    return None


def _beyond(own: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any] | None:
    """``options`` without those of the variant; None if one of these is missing or differs."""
    if any(key not in options or options[key] != value for key, value in own.items()):
        return None
    return {key: value for key, value in options.items() if key not in own}
