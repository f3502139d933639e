"""Names of backbones, and mmengine's registry scope ``onebit``.

A name is read by the family it belongs to: ``resnet18_w16_reactnet`` by the family of ResNets. A
family registers itself where its network is defined; another package adds its own with
:func:`register_family`.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mmengine.registry
from torch import nn

from onebit.commons import plugins
from onebit.commons.errors import InputError

#: Modules that register layers, networks and families. Imported when a name is first looked up,
#: so that importing `backbones` stays cheap.
LOCATIONS = [
    "onebit.backbones.conv",
    "onebit.backbones.resnet",
    "onebit.backbones.wide_resnet",
    "onebit.backbones.cifar_nets",
    "onebit.backbones.reactnet",
    "onebit.backbones.cells.net",
]


class _Registry(mmengine.registry.Registry):
    """Knows what other people's packages bring, too."""

    def import_from_location(self) -> None:
        super().import_from_location()
        plugins.load()


MODELS = _Registry("model", parent=mmengine.registry.MODELS, scope="onebit", locations=LOCATIONS)
#: Hooks for mmengine's runner: ``dict(type="onebit.MethodLossHook")``.
HOOKS = mmengine.registry.Registry(
    "hook", parent=mmengine.registry.HOOKS, scope="onebit", locations=["onebit.backbones.hooks"]
)


@dataclass(frozen=True)
class Family:
    """Backbones whose names follow one rule.

    Attributes:
        type: the network's name in :data:`MODELS`, e.g. ``ResNet``.
        names: returns the names to list; a family may understand more (any width).
        parse: turns a name into arguments of the network, or returns None if the name is not of
            this family.
    """

    type: str
    names: Callable[[], list[str]]
    parse: Callable[[str], dict | None]


_FAMILIES: list[Family] = []


def register_family(family: Family) -> Family:
    """Make the names of ``family`` known to every command and config."""
    plugins.note_registrant(family)
    _FAMILIES.append(family)
    return family


def _check_names() -> None:
    """Raise InputError where a listed name could mean two networks."""
    mmengine.registry.Registry.import_from_location(MODELS)  # the suite's own, without packages again
    seen = set()
    for family in _FAMILIES:
        for name in family.names():
            others = [f.type for f in _FAMILIES if f is not family and f.parse(name) is not None]
            if name in seen or others:
                raise InputError(
                    f"the backbone name {name!r} of {family.type} is taken"
                    + (f" by {others[0]}" if others else " already")
                )
            seen.add(name)


plugins.CHECKS.append(_check_names)


def families() -> list[Family]:
    """Every family, the modules that register them imported first."""
    MODELS.import_from_location()
    return _FAMILIES


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, in the families' own order.

    Any other width is understood too: ``resnet18_w24_bireal``, ``dcp_nas_c20``.
    """
    names = [name for family in families() for name in family.names()]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def find_family(name: str) -> tuple[Family, dict]:
    """The family that reads ``name``, and the arguments of its network.

    Raises:
        InputError: no family reads it, with near matches in the message; or more than one.
    """
    found = [(f, arguments) for f in families() if (arguments := f.parse(name)) is not None]
    if len(found) > 1:
        types = " and ".join(family.type for family, _ in found)
        raise InputError(f"the backbone name {name!r} is read by {types}: it must mean one network")
    if not found:
        near = difflib.get_close_matches(name, list_backbones(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`onebit backbones` lists the known ones"
        raise InputError(f"unknown backbone {name!r}; {hint}")
    return found[0]


def backbone_config(name: str, **overrides) -> dict:
    """The mmengine config of a backbone: ``dict(type='onebit.ResNet', depth=18, ...)``.

    Args:
        name: a backbone's name.
        overrides: further arguments of its network (``stem``, ``frozen_stages``, ...).

    Raises:
        InputError: unknown name; the message lists near matches.
    """
    family, arguments = find_family(name)
    return {"type": f"onebit.{family.type}", **arguments, **overrides}


def create_backbone(name: str, out_indices: Sequence[int] = (0, 1, 2, 3), **overrides) -> nn.Module:
    """Build a backbone by name. In a config: ``dict(type='onebit.create_backbone', name=...)``.

    Args:
        name: e.g. ``resnet18_w16_reactnet``; see :func:`list_backbones`.
        out_indices: which of the network's scales to return, in any order; the maps come by rising stride.
        overrides: further arguments of the network (``stem='cifar'``, ``frozen_stages``,
            ``norm_eval``, ``init_cfg``, ...).

    Returns:
        A module that maps images [N, 3, H, W] to a tuple of feature maps, one per out_index, with
        ``feature_channels`` and ``feature_strides`` (tuples, one value per out_index).

    Raises:
        InputError: unknown name or argument out of range.
    """
    config = backbone_config(name, out_indices=tuple(out_indices), **overrides)
    network = MODELS.get(config.pop("type"))
    return network(**config)


MODELS.register_module(module=create_backbone)
