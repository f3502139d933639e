"""The packed file: one safetensors file with 1-bit weights as bits and a description of the network.

Tensors are the buffers and parameters of the packed network under their names. The metadata holds
``onebit``, a JSON object: the format and its version, the config that builds the network, the number
of classes if there is a classifier, their names and how images are prepared where a trainer stated them
(``prediction``), how real-valued weights are stored, and a SHA-256 over all of
this and the tensors. A file is read only if its tensors are, name by name, those that the described
network has; so a file cannot ask for more memory than its network takes.

A file of a whole detector or re-ID network has, in place of ``backbone`` and ``classes``, the ``row`` of the checkpoint
that it was made of; the task that it names builds the network.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onebit.backbones.classifier import Classifier
from onebit.backbones.file_schema import network_schema
from onebit.backbones.packed.deploy import deploy
from onebit.backbones.registry import MODELS, backbone_config, families
from onebit.commons import guards
from onebit.commons.errors import InputError
from onebit.commons.file_options import StatedOptions
from onebit.commons.files import write_atomic

FORMAT, VERSION = "onebit-packed", 1
REAL = ("float32", "float16", "int8")
#: No network here has a number of channels, layers or classes beyond this; a file that says so is
#: refused before anything is built from it.
LARGEST = 1 << 16
#: Likewise of cells, of bytes in the file's header (the widest networks here take 0.2 MB), of
#: characters in the description, and of how deep it is nested.
MOST_CELLS, MOST_HEADER, MOST_TEXT, MOST_DEPTH = 256, 1 << 22, 1 << 18, 16
_DTYPES = {torch.int64: "I64", torch.float32: "F32", torch.float16: "F16", torch.int8: "I8"}
_SCALE = ".int8_scale"
#: Keys of the description of a whole network.
_WHOLE = {"format", "version", "row", "real"}
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
) -> Path:
    """Write a packed network.

    Args:
        network: what :func:`deploy` made of the network that ``about`` describes.
        about: see :func:`description`.
        real: how real-valued weights are stored: ``float32`` exactly; ``float16``; ``int8``: weights
            of convolutions and linear layers in 8 bits with a scale per output, the rest float16.
        build: of a whole network, whose ``about`` is ``{"row": ...}``: makes the network before :func:`deploy`.

    Raises:
        InputError: ``about`` describes another network, or unknown ``real``.
        WorkError: the file cannot be written.
    """
    from safetensors.torch import save as serialize

    guards.choice("real-valued weights as", real, REAL)
    if build is None:
        _require_sane(about["backbone"], path)
    expected = _expected(_skeleton(about) if build is None else _on_meta(build), "float32")
    state = network.state_dict()
    if {k: tuple(v.shape) for k, v in state.items()} != {k: s for k, (_, s) in expected.items()}:
        raise InputError("the description does not fit the packed network")
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        stored.update(_stored(name, tensor.contiguous(), real))
    text = json.dumps({"format": FORMAT, "version": VERSION, **about, "real": real}, sort_keys=True)
    metadata = {"onebit": text, "sha256": _digest(text, stored)}
    return write_atomic(path, serialize(stored, metadata))


def about_of(path: str | Path) -> dict[str, Any]:
    """The description in a packed file, whose tensors are not read.

    Raises:
        InputError: not a packed file.
    """
    from safetensors import SafetensorError, safe_open

    path = guards.file("packed file", path)
    try:
        _require_small_header(path)
        with safe_open(str(path), "pt") as file:
            return _about(file.metadata() or {}, path)[0]
    except SafetensorError as error:
        raise InputError(f"{path} is not a packed file: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


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
    from safetensors import SafetensorError, safe_open

    path = guards.file("packed file", path)
    try:
        _require_small_header(path)
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            about, text = _about(metadata, path)
            found = {}
            for name in file.keys():  # noqa: SIM118  not a dict
                part = file.get_slice(name)
                found[name] = (part.get_dtype(), tuple(part.get_shape()))
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
            tensors = {name: file.get_tensor(name) for name in found}
    except SafetensorError as error:
        raise InputError(f"{path} is not a packed file: {error}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if _digest(text, tensors) != metadata.get("sha256"):
        raise InputError(f"{path} was changed after it was written: its checksum differs")
    state = {name: _restored(name, tensors) for name in network.state_dict()}
    if "row" in about:  # what is in no state, such as the mean of images, has memory here
        network = deploy(make())
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False), about


def _require_small_header(path: Path) -> None:
    """Refuse a header that would take long to read; the first 8 bytes say how long it is."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise InputError(f"{path} is not a packed file: a header of {length} bytes, expected at most {MOST_HEADER}")


def _about(metadata: Mapping[str, str], path: Path) -> tuple[dict[str, Any], str]:
    text = metadata.get("onebit", "")
    if len(text) > MOST_TEXT:
        raise InputError(f"{path}: a description of {len(text)} characters, expected at most {MOST_TEXT}")
    try:
        about = json.loads(text)
        kind = about["format"], about["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path} is not a packed file of this suite") from None
    if kind != (FORMAT, VERSION):
        found = " ".join(map(reprlib.repr, kind))
        raise InputError(f"{path}: expected {FORMAT} version {VERSION}, found {found}")
    classes = about.get("classes")
    if isinstance(about.get("row"), dict) and about.get("real") in REAL and set(about) == _WHOLE:
        return about, text
    if (
        not isinstance(about.get("backbone"), dict)
        or about.get("real") not in REAL
        or not (classes is None or (type(classes) is int and 0 < classes <= LARGEST))
        or set(about) - {"prediction"} != {"format", "version", "backbone", "classes", "real"}
        or not _names_classes(about.get("prediction"), classes)
    ):
        raise InputError(f"{path}: its description is not one of a packed file")
    return about, text


def _names_classes(prediction: Any, classes: int | None) -> bool:
    """Whether this is what a file says of the use of its network: names of classes, and a preparation of images."""
    if prediction is None:
        return True
    if not isinstance(prediction, dict) or set(prediction) != {"classes", "images"} or classes is None:
        return False
    names = prediction["classes"]
    return (
        isinstance(prediction["images"], dict)
        and isinstance(names, list)
        and len(names) == classes
        and all(isinstance(name, str) and len(name) <= 300 for name in names)
    )


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
        elif isinstance(value, int | float) and not abs(value) <= LARGEST:  # NaN is not, either
            raise InputError(f"{path}: {key[:80]} has a number beyond {LARGEST}")
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
        return {name: whole.view(tensor.shape), name + _SCALE: scale}
    return {name: tensor.to(torch.float16)}


def _restored(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    tensor = tensors[name]
    if tensor.dtype == torch.int8:
        scale = tensors[name + _SCALE].view(-1, *[1] * (tensor.dim() - 1))
        return tensor.float() * scale
    return tensor if tensor.dtype == torch.int64 else tensor.float()


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
