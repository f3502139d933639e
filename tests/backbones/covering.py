"""Networks times binarizers, and a covering sample of them: all pairs would say little more and take hours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from onebit import backbones
from onebit.backbones.binarization import BINARIZERS

NAMES = backbones.list_backbones()
#: Names without a binarizer's suffix are real-valued in these families, and end in _real in others.
_REAL_FAMILIES = ("resnet", "vgg", "wrn", "darts", "pc_darts")


def split(name: str) -> tuple[str, str | None]:
    """A name without its binarizer, and that: ``real`` or None where the name has none."""
    bare, _, suffix = name.rpartition("_")
    return (bare, suffix) if suffix in (*BINARIZERS, "real") else (name, None)


REAL = [
    name for name in NAMES if split(name)[1] == "real" or (split(name)[1] is None and name.startswith(_REAL_FAMILIES))
]
#: Binarizers of 1-bit weights; DoReFa's have more.
ONE_BIT = [name for name in BINARIZERS if backbones.OneBitConv2d(8, 8, 1, binarizer=name).weight_bits == 1]


def covered(networks: Sequence[str], network: str, binarizer: str, whole: Iterable[str]) -> bool:
    """Whether a pair is in the sample: every binarizer in the networks ``whole``, and every fifth pair of the others,
    so that every network has a few and every binarizer is in a few networks."""
    return network in whole or (networks.index(network) + list(BINARIZERS).index(binarizer)) % 5 == 0


def covering() -> Iterator[str]:
    """Names of the list: those of the sample, and all that name no binarizer. Beside them, every binarizer in a short
    network of cells."""
    networks = list(dict.fromkeys(split(name)[0] for name in NAMES))
    for name in NAMES:
        network, binarizer = split(name)
        if binarizer is None or binarizer == "real" or covered(networks, network, binarizer, whole=["resnet18_w16"]):
            yield name
    for binarizer in BINARIZERS:
        yield f"dcp_nas_c8_l3_{binarizer}"


def pairs(networks: Sequence[str], quick: Iterable[str] = (), whole: Iterable[str] = ()) -> list[Any]:
    """Parameters (network, binarizer): those of the networks ``quick`` are for the fast tests, the rest of the sample
    for the slow ones, and all others for ``make test-exhaustive``."""
    found = []
    for network in networks:
        for binarizer in BINARIZERS:
            marks = [] if network in quick else [pytest.mark.slow]
            if network not in quick and not covered(networks, network, binarizer, whole):
                marks.append(pytest.mark.exhaustive)
            found.append(pytest.param(network, binarizer, marks=marks))
    return found
