"""The packed file: one safetensors file with 1-bit weights as bits and a description of the network.

Tensors are the buffers and parameters of the packed network under their names. The metadata holds
``onebit``, a JSON object: the format and its version, the config that builds the network, the number
of classes if there is a classifier, their names and how images are prepared where a trainer stated them
(``prediction``), how real-valued weights are stored, and a SHA-256 over all of
this and the tensors. Plans for chosen sizes of images may stand beside them (:mod:`onebit.packed.stored`), for
:func:`onebit.packed.load`, which needs no torch. A file is read only if its tensors are, name by name, those that the described
network has; so a file cannot ask for more memory than its network takes.

A file of a whole detector or re-ID network has, in place of ``backbone`` and ``classes``, the ``row`` of the checkpoint
that it was made of; the task that it names builds the network.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onebit.backbones.classifier import Classifier
from onebit.backbones.file_schema import network_schema
from onebit.backbones.packed.deploy import deploy
from onebit.backbones.packed.lowering import NoSteps, steps_of
from onebit.backbones.registry import MODELS, backbone_config, families
from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.file_options import StatedOptions
from onebit.commons.files import write_atomic
from onebit.packed import container, stored

#: No network here has more cells, or a description that is nested deeper.
MOST_CELLS, MOST_DEPTH = 256, 16
_DTYPES = {torch.int64: "I64", torch.float32: "F32", torch.float16: "F16", torch.int8: "I8"}
_PLAN_TYPES = {np.dtype(np.int32): "I32", np.dtype(np.uint8): "U8", np.dtype(np.int64): "I64"}
#: Arguments of ``CellNet`` that may name a file.
_CELLS = {"arch", "cell"}


def description(name: str, classes: int | None = None, **overrides) -> dict[str, Any]:
    """What a packed file says about a network that ``create_backbone(name, **overrides)`` built.

    Raises:
        InputError: unknown name, or an override that cannot be written down.
    """
    from onebit.backbones.cells.genotype import Genotype

    config = backbone_config(name, **overrides)
    config.pop("init_cfg", None)
    for key in _CELLS & set(config):
        if _is_path(config[key]):
            config[key] = Genotype.load(config[key])
        if isinstance(config[key], Genotype):
            config[key] = config[key].to_dict()  # the packed file stands for itself
    found = {"backbone": config, "classes": classes}
    try:
        return json.loads(json.dumps(found))
    except TypeError as error:
        raise InputError(f"{name}: its config cannot be written as JSON: {error}") from None


def save(
    network: nn.Module,
    about: Mapping[str, Any],
    path: str | Path,
    real: str = "float32",
    build: Callable[[], nn.Module] | None = None,
    plans: Sequence[tuple[int, int]] = (),
) -> Path:
    """Write a packed network.

    Args:
        network: what :func:`deploy` made of the network that ``about`` describes.
        about: see :func:`description`.
        real: how real-valued weights are stored: ``float32`` exactly; ``float16``; ``int8``: weights
            of convolutions and linear layers in 8 bits with a scale per output, the rest float16.
        build: of a whole network, whose ``about`` is ``{"row": ...}``: makes the network before :func:`deploy`.
        plans: sizes of images, (height, width), that the file can be run for without torch (:func:`onebit.packed.load`).

    Raises:
        InputError: ``about`` describes another network, unknown ``real``, or a plan of what has none.
        WorkError: the file cannot be written.
    """
    from safetensors.numpy import save as serialize

    guards.choice("real-valued weights as", real, container.REAL)
    if build is None:
        _require_sane(about["backbone"], path)
    expected = _expected(_skeleton(about) if build is None else _on_meta(build), "float32")
    state = network.state_dict()
    if {k: tuple(v.shape) for k, v in state.items()} != {k: s for k, (_, s) in expected.items()}:
        raise InputError("the description does not fit the packed network")
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensors.update(_stored(name, tensor.contiguous(), real))
    arrays = _arrays(tensors)
    said = {"format": container.FORMAT, "version": 2 if plans else 1, **about, "real": real}
    if plans:
        said["plans"], of_plans = _planned(network, arrays, plans)
        arrays |= of_plans
    text = json.dumps(said, sort_keys=True)
    if len(text) > container.MOST_TEXT:
        raise InputError(
            f"a description of {len(text)} characters, expected at most {container.MOST_TEXT}: fewer plans"
        )
    metadata = {"onebit": text, "sha256": container.digest(text, arrays)}
    return write_atomic(path, serialize(arrays, metadata))


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}


def _planned(
    network: nn.Module, arrays: Mapping[str, np.ndarray], sizes: Sequence[tuple[int, int]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Plans for images of these sizes, as a file holds them.

    Args:
        arrays: what it holds of the network: the plans are those of whoever reads it.

    Raises:
        InputError: the network has no plan.
    """
    restored = {name: container.restored(name, arrays) for name in network.state_dict()}
    own = copy.deepcopy(network)
    own.load_state_dict({name: torch.from_numpy(array) for name, array in restored.items()}, assign=True)
    planned = []
    for height, width in sizes:
        guards.whole("height of a plan", height, most=container.LARGEST)
        guards.whole("width of a plan", width, most=container.LARGEST)
        size = (3, height, width)
        try:
            builder, outputs, nest = steps_of(own, size)
        except NoSteps as reason:
            raise InputError(f"no plan can be stored: {reason}") from None
        plan = builder.finish(outputs)
        planned.append(stored.Planned(size, plan, builder.constants, nest == 0))
    found = stored.stored(planned, restored)
    stored.read(*found, restored)  # whoever reads it will check it likewise
    return found


def about_of(path: str | Path) -> dict[str, Any]:
    """The description in a packed file, whose tensors are not read.

    Raises:
        InputError: not a packed file.
    """
    with container.opened(guards.file("packed file", path)) as file:
        return file.about


def load(
    path: str | Path, build: Callable[[dict[str, Any]], Callable[[], nn.Module]] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """Read a packed file.

    Args:
        build: of a whole network: takes the row that the file states, and gives what makes the network before
            :func:`deploy`.

    Returns:
        the network, ready for inference, and its description (``backbone`` and ``classes``, or ``row``; ``real``).

    Raises:
        InputError: not a packed file, one of a newer version, one whose tensors are not those of
            the network it describes, or one that was changed after it was written.
    """
    path = guards.file("packed file", path)
    with container.opened(path) as file:
        about = file.about
        found = {}
        for name in file.tensors.keys():  # noqa: SIM118  not a dict
            part = file.tensors.get_slice(name)
            found[name] = (part.get_dtype(), tuple(part.get_shape()))
        own = {name: kind for name, kind in found.items() if name.startswith(container.PLAN)}
        found = {name: kind for name, kind in found.items() if name not in own}
        types = {name: _PLAN_TYPES[np.dtype(kind)] for name, kind in stored.TENSORS.items()}
        if {name: kind for name, (kind, _) in own.items()} != (types if "plans" in about else {}):
            raise InputError(f"{path}: the tensors of its plans are missing or of other types")
        if "row" in about:
            if build is None:
                raise InputError(f"{path} holds a whole network, for `onebit predict` and onebit.load")
            make = build(about["row"])
            network = _on_meta(make)
        else:
            _require_sane(about["backbone"], path)
            network = _skeleton(about, path)
        expected = _expected(network, about["real"])
        if found != expected:
            raise InputError(f"{path}: {_first_difference(found, expected)}")
        arrays = {name: file.tensors.get_tensor(name) for name in (*found, *own)}
    file.require_whole(arrays)
    state = {name: torch.from_numpy(container.restored(name, arrays)) for name in network.state_dict()}
    if "row" in about:  # what is in no state, such as the mean of images, has memory here
        network = deploy(make())
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False), about


def _require_sane(config: dict, path: str | Path) -> None:
    """Refuse what would keep the machine busy before the tensors are compared."""
    # No recursion: how deep it is nested is not known yet.
    left = [(key, value, 0) for key, value in config.items()]
    while left:
        key, value, depth = left.pop()
        if depth > MOST_DEPTH:
            raise InputError(f"{path}: its description is nested deeper than {MOST_DEPTH} levels")
        if isinstance(value, dict):
            left += [(key, inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            left += [(key, inner, depth + 1) for inner in value]
        elif key in _CELLS:  # checked by its reader; its provenance may have any number
            continue
        elif isinstance(value, int | float) and not abs(value) <= container.LARGEST:  # NaN is not, either
            raise InputError(f"{path}: {key[:80]} has a number beyond {container.LARGEST}")
    layers = config.get("layers")
    if not (layers is None or (isinstance(layers, int) and layers <= MOST_CELLS)):
        raise InputError(f"{path}: {reprlib.repr(layers)} layers, expected a number up to {MOST_CELLS}")


def _is_path(cell: Any) -> bool:
    """Whether a cell is given as the path of a file."""
    return isinstance(cell, os.PathLike) or (isinstance(cell, str) and cell.endswith(".json"))


def _skeleton(about: Mapping[str, Any], path: Path | None = None) -> nn.Module:
    """The packed network without memory for its weights."""
    config = dict(about["backbone"])
    where = f"{path}: " if path else ""
    kind = str(config.pop("type", "")).removeprefix("onebit.")
    if kind not in {family.type for family in families()}:
        raise InputError(f"{where}unknown network {kind[:80]!r}")
    network = MODELS.get(kind)
    known = set(inspect.signature(network).parameters) - {"init_cfg"}
    if unknown := sorted(set(config) - known):
        raise InputError(f"{where}unknown option {unknown[0][:80]!r} of {kind}")
    if any(_is_path(config.get(key)) for key in _CELLS):
        raise InputError(f"{where}a packed file holds its cell and names no other file")
    StatedOptions(config, path or "the description").taken(network_schema())
    try:
        with torch.device("meta"):
            built = network(**config)
            if about["classes"] is not None:
                built = Classifier(built, about["classes"])
            return deploy(built)
    except InputError as error:
        raise InputError(f"{where}{_brief(error)}") from None
    except Exception as error:  # a network, perhaps another package's, that was given anything
        raise InputError(f"{where}its description builds no network: {_brief(error)}") from None


def _on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    """The packed form of what ``build`` makes, without memory for its weights."""
    with torch.device("meta"):
        return deploy(build())


def _brief(error: Exception) -> str:
    """Its message in one line; it may hold what a hostile file says."""
    return " ".join(str(error).split())[:300]


def _expected(network: nn.Module, real: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name to type and shape of every tensor in the file."""
    expected = {}
    for name, tensor in network.state_dict().items():
        for key, value in _stored(name, tensor, real).items():
            expected[key] = (_DTYPES[value.dtype], tuple(value.shape))
    return expected


def _stored(name: str, tensor: Tensor, real: str) -> dict[str, Tensor]:
    """The tensors of the file that stand for one of the network."""
    if not tensor.is_floating_point() or real == "float32":
        return {name: tensor}
    if real == "int8" and tensor.dim() > 1:
        rows = tensor.flatten(1)
        scale = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        whole = (rows / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        return {name: whole.view(tensor.shape), name + container.SCALE: scale}
    return {name: tensor.to(torch.float16)}


def _first_difference(found: Mapping, expected: Mapping) -> str:
    for name in sorted({*found, *expected}):
        if name not in expected:
            return f"{name[:80]!r} is not a tensor of the network it describes"
        if name not in found:
            return f"the tensor {name} is missing"
        if found[name] != expected[name]:
            has, wants = (f"{kind} {list(shape)}" for kind, shape in (found[name], expected[name]))
            return f"{name} is {has}; its network has {wants}"
    return "it holds the tensors of another network"
