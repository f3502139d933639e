"""Does a backbone hold what the suite relies on? Every check in seconds, on drawn data.

A check is a function that says in one line what it found, or raises: :class:`Broken` with the
reason, or whatever the backbone's own code raises.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onebit import backbones
from onebit.backbones.binarization.signs import SlopedQuantizer
from onebit.backbones.conv import OneBitConv2d
from onebit.backbones.losses import onebit_convs
from onebit.backbones.packed import deploy
from onebit.backbones.packed.layers import TOLERANCE
from onebit.classification.search.straight_through import twice_differentiable
from onebit.commons import mini
from onebit.commons.errors import InputError
from onebit.commons.files import sha256_file
from onebit.commons.task import Job
from onebit.leaderboards.boards import runner

#: Height and width of what a bare backbone is tried on; the second is divisible by no stride.
SIZES = ((64, 96), (75, 61))


class Broken(Exception):
    """A check found something that does not hold; the text says what."""


@dataclass(frozen=True)
class Result:
    """What became of a check.

    Attributes:
        name: what was checked.
        ok: whether it holds.
        text: what was found, or why it does not hold.
    """

    name: str
    ok: bool
    text: str


def mock_run(name: str, tasks: list[str], data_root: Path, work_dir: Path) -> Iterator[Result]:
    """Check a backbone by itself, then in every task.

    Args:
        name: of the backbone.
        tasks: which of :data:`onebit.commons.task.TASKS`.
        data_root: where the mini datasets are, or are drawn.
        work_dir: for checkpoints and logs.

    Raises:
        InputError: unknown name.
    """
    backbones.backbone_config(name)
    by_itself: list[tuple[str, Callable[[], str]]] = [
        ("is built", partial(is_built, name)),
        ("feature_channels, feature_strides", partial(features_are_true, name)),
        ("gradients reach every parameter", partial(gradients_arrive, name)),
        ("evaluation is deterministic", partial(evaluation_repeats, name)),
        ("weights survive saving", partial(weights_survive, name)),
        ("quantizers", partial(quantizers_quantize, name)),
        ("progress of a training", partial(progress_is_taken, name)),
        ("packed form", partial(packing_agrees, name)),
        ("curvature", partial(curvature_agrees, name)),
        ("cost", partial(cost_is_counted, name)),
    ]
    for title, check in by_itself:
        result = _result(title, check)
        yield result
        if not result.ok and title == "is built":
            return  # the others would say the same
    for task in tasks:
        yield _result(task, partial(task_runs, name, task, data_root, work_dir / task))


def _result(title: str, check: Callable[[], str]) -> Result:
    try:
        return Result(title, True, check())
    except Broken as error:
        return Result(title, False, str(error))
    except InputError as error:
        return Result(title, False, " ".join(str(error).split()))
    except Exception as error:  # whatever another's code does
        text = " ".join(str(error).split())[:300]
        return Result(title, False, f"{type(error).__name__}: {text}{_where(error)}")


def _where(error: BaseException) -> str:
    """The innermost place in the traceback."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    if place is None:
        return ""
    return f" ({Path(place.tb_frame.f_code.co_filename).name}, line {place.tb_lineno})"


def _create(name: str, seed: int = 0, **overrides) -> nn.Module:
    torch.manual_seed(seed)
    return backbones.create_backbone(name, **overrides)


def _images(size: tuple[int, int], count: int = 2) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def is_built(name: str) -> str:
    """With either stem, any scales, and without memory, as the tasks build it."""
    network = _create(name)
    for attribute in ("feature_channels", "feature_strides"):
        value = getattr(network, attribute, None)
        if not isinstance(value, (tuple, list)) or len(value) != 4:
            raise Broken(f"expected {attribute}, a tuple with one number per scale, found {value}")
    for overrides in (dict(stem="cifar"), dict(out_indices=(3,)), dict(out_indices=(1, 3))):
        try:
            _create(name, **overrides)
        except TypeError as error:
            option = next(iter(overrides))
            raise Broken(f"the tasks pass {option}={overrides[option]!r}: {error}") from error
    with torch.device("meta"):
        backbones.create_backbone(name)
    return f"{sum(p.numel() for p in network.parameters()):,} parameters, four scales"


def features_are_true(name: str) -> str:
    """Number, channels and sizes of the maps are those that are stated; all are finite."""
    for stem in ("imagenet", "cifar"):
        for out_indices in ((0, 1, 2, 3), (1, 3), (3,)):
            network = _create(name, stem=stem, out_indices=out_indices).eval()
            for size in SIZES:
                with torch.no_grad():
                    maps = network(_images(size))
                _check_maps(network, maps, size, len(out_indices))
    network = _create(name)
    return f"{tuple(network.feature_channels)}, {tuple(network.feature_strides)}; both stems"


def _check_maps(network: nn.Module, maps: Any, size: tuple[int, int], count: int) -> None:
    if not isinstance(maps, tuple) or not all(isinstance(m, Tensor) for m in maps):
        raise Broken(f"expected forward to return a tuple of maps, found a {type(maps).__name__}")
    if len(maps) != count:
        raise Broken(f"expected {count} maps, one per out_index, found {len(maps)}")
    for index, (found, channels, stride) in enumerate(
        zip(maps, network.feature_channels, network.feature_strides, strict=True)
    ):
        expected = (2, channels, *(math.ceil(s / stride) for s in size))
        if tuple(found.shape) != expected:
            raise Broken(
                f"map {index} of images {size[0]} x {size[1]}: {channels} channels at stride "
                f"{stride} were stated, which is {list(expected)}; found {list(found.shape)}"
            )
        if not found.isfinite().all():
            raise Broken(f"map {index} of random images is not finite")


def gradients_arrive(name: str) -> str:
    """In training mode, after a step that lets zero-initialized parts open."""
    network = _create(name).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    arrived: dict[str, bool] = {}
    for seed in range(3):  # a gradient may be zero on one batch by chance or by initialization
        optimizer.zero_grad()
        torch.manual_seed(seed)
        maps = network(torch.randn(2, 3, *SIZES[0]))
        loss = sum((m * torch.randn_like(m)).mean() for m in maps)
        # Some parameters of a method have gradients by the method's own loss alone.
        (loss + sum(backbones.method_losses(network).values())).backward()
        for key, parameter in network.named_parameters():
            if not parameter.requires_grad:
                raise Broken(f"{key} does not require a gradient in a network that is to be trained")
            if parameter.grad is None:
                continue
            if not parameter.grad.isfinite().all():
                raise Broken(f"the gradient of {key} is not finite")
            arrived[key] = arrived.get(key, False) or bool(parameter.grad.any())
        optimizer.step()
    every = dict(network.named_parameters())
    lost = [key for key in every if not arrived.get(key)]
    if lost:
        kind = "is always zero" if lost[0] in arrived else "does not exist"
        raise Broken(
            f"the gradient of {lost[0]} {kind}" + (f"; so it is with {len(lost) - 1} more" if len(lost) > 1 else "")
        )
    return f"{len(every)} parameter tensors"


def evaluation_repeats(name: str) -> str:
    """An image gives the same maps, whatever else is in its batch, and changes nothing."""
    network = _create(name).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = _images(SIZES[0])
    # The same number of images: another one may round otherwise, which turns a sign here or there.
    beside_another = torch.cat([images[:1], images[1:].flip(3)])
    with torch.no_grad():
        first, second, third = network(images), network(images), network(beside_another)
    for once, again in zip(first, second, strict=True):
        if not torch.equal(once, again):
            raise Broken("the same images twice in eval mode give different maps")
    for index, (one, other) in enumerate(zip(first, third, strict=True)):
        if not torch.equal(one[0], other[0]):
            raise Broken(f"map {index} of an image depends on what else is in its batch")
    for key, value in network.state_dict().items():
        if not torch.equal(value, before[key]):
            raise Broken(f"{key} changes while the network is only evaluated")
    return "same images, same maps; nothing changes"


def weights_survive(name: str) -> str:
    """A state dict that was written and read makes another instance the same network."""
    network = _create(name).train()
    network(_images(SIZES[0]))  # running statistics count, too
    stream = io.BytesIO()
    torch.save(network.state_dict(), stream)
    stream.seek(0)
    copy = _create(name, seed=1)
    copy.load_state_dict(torch.load(stream, weights_only=True))  # our own bytes, as any program would read them
    with torch.no_grad():
        images = _images(SIZES[0])
        for ours, theirs in zip(network.eval()(images), copy.eval()(images), strict=True):
            if not torch.equal(ours, theirs):
                raise Broken(
                    "a copy with the saved weights computes something else: something that "
                    "counts is in neither parameters nor buffers"
                )
    return "a copy computes the same"


def quantizers_quantize(name: str) -> str:
    """What states k bits puts out at most 2^k values, per output filter for weights."""
    network = _create(name)
    for training in (True, False):
        for key, conv in onebit_convs(network.train(training)).items():
            if conv.exact:  # in training, a method may add noise, and says so
                _check_values(key, conv)
    convs = onebit_convs(network)
    if not convs:
        return "none: a real-valued network"
    described = backbones.describe(name)
    return f"{len(convs)} layers, W/A {described['weight_bits']}/{described['activation_bits']}"


def _check_values(key: str, conv: OneBitConv2d) -> None:
    with torch.no_grad():
        weight = conv.quantize_weight(conv.weight)
        values = [len(_values(filter_)) for filter_ in weight.flatten(1)]
    if conv.weight_bits < 32 and max(values) > 2**conv.weight_bits:
        raise Broken(
            f"{key}: its weights state {conv.weight_bits} bit, but a filter has {max(values)} different values"
        )
    if conv.quantize_input is None or conv.input_bits >= 32:
        return
    with torch.no_grad():
        x = torch.randn(2, conv.in_channels, 5, 5)
        found = _values(conv.quantize_input(x))
    signs = torch.tensor([-1.0, 1.0])
    if conv.input_bits == 1 and not conv.input_affine and not torch.equal(found.round(decimals=5), signs):
        raise Broken(
            f"{key}: 1-bit activations must be -1 and +1 unless the quantizer states affine = True, "
            f"found {found.tolist()[:4]}"
        )
    if len(found) > 2**conv.input_bits:
        raise Broken(f"{key}: its activations state {conv.input_bits} bit, found {len(found)} values")


def _values(x: Tensor) -> Tensor:
    """The different values of ``x``, ascending; those that differ by rounding count once."""
    found = x.unique()
    return torch.cat((found[:1], found[1:][found.diff() > 2 * TOLERANCE * found.abs().max()]))


def progress_is_taken(name: str) -> str:
    """At the start, in the middle and at the end of a training: gradients are finite, values the same."""
    network = _create(name)
    takers = [m for m in network.modules() if hasattr(m, "set_progress")]
    if not takers:
        return "none: nothing depends on it"
    maps = []
    for fraction in (0.0, 0.5, 1.0):
        backbones.set_progress(network, fraction)
        with torch.no_grad():
            maps.append(network.eval()(_images(SIZES[0])))
    for index, several in enumerate(zip(*maps, strict=True)):
        if not all(torch.equal(several[0], other) for other in several):
            raise Broken(
                f"map {index} in eval mode depends on the progress of the training, which no checkpoint keeps; "
                "only gradients and losses may"
            )
    for fraction in (0.0, 0.5, 1.0):
        network = _create(name).train()
        backbones.set_progress(network, fraction)
        sum(m.square().mean() for m in network(_images(SIZES[0]))).backward()
        for key, parameter in network.named_parameters():
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                raise Broken(f"the gradient of {key} is not finite when {fraction:.0%} of the training have passed")
    return "same values, finite gradients at 0, 50 and 100 %"


def packing_agrees(name: str) -> str:
    """Every 1-bit convolution computes the same from bits, and has the same gradients with activations in bits."""
    network = _create(name).eval()
    convs = onebit_convs(network)
    if not convs:
        return "none: a real-valued network"
    for key, conv in convs.items():
        x = _map_for(conv)
        plain, kept = (_gradient(conv, x, pack) for pack in (False, True))
        if not torch.allclose(plain, kept, rtol=1e-4, atol=1e-6):
            raise Broken(f"{key}: its gradient is another one when activations are kept in bits")
        if conv.weight_bits > 1:
            continue
        with torch.no_grad():
            expected, found = conv(x), deploy(conv)(x)
        if not torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())):
            raise Broken(f"{key}: its packed form differs by {float((found - expected).abs().max()):.2g}")
    bits = sorted({conv.weight_bits for conv in convs.values()} - {1})
    if bits:
        return f"none: {bits[0]}-bit weights; gradients as without bits"
    packed = deploy(network)(_images(SIZES[0]))
    return f"{len(convs)} layers, {len(packed)} maps; gradients as without bits"


def _map_for(conv: OneBitConv2d) -> Tensor:
    return torch.randn(2, conv.in_channels, 9, 8, generator=torch.Generator().manual_seed(2))


def _gradient(conv: OneBitConv2d, x: Tensor, pack: bool = False, again: bool = False) -> Tensor:
    """Of a sum over the output to ``x``; ``again``: after it has been differentiated once more."""
    conv.pack_activations = pack
    leaf = x.clone().requires_grad_()
    y = conv(leaf)
    weights = torch.linspace(-1, 1, y.numel()).view_as(y).requires_grad_(again)
    (found,) = torch.autograd.grad((y * weights).sum(), leaf, create_graph=again)
    if again:
        torch.autograd.grad(found.square().sum(), weights)
    conv.pack_activations = False
    return found.detach()


def curvature_agrees(name: str) -> str:
    """The search's curvature is that of a network with the same gradient."""
    convs = {k: m for k, m in onebit_convs(_create(name).eval()).items() if m.quantize_input is not None}
    if not convs:
        return "none: activations are real-valued"
    for key, conv in convs.items():
        conv.requires_grad_(False)
        if not isinstance(conv.quantize_input, SlopedQuantizer):
            return f"'fisher' only: {type(conv.quantize_input).__name__} has no slope (onebit.backbones.sign_with)"
        x = _map_for(conv)
        once = _gradient(conv, x)
        with twice_differentiable(conv):
            twice = _gradient(conv, x, again=True)
        if not torch.allclose(once, twice, rtol=1e-4, atol=1e-5 * float(once.abs().max())):
            raise Broken(f"{key}: the slope of its quantizer of activations is not that of its gradient")
    return f"{len(convs)} layers"


def cost_is_counted(name: str) -> str:
    """Every layer has a rule, and no parameter is left out."""
    counted = backbones.cost(name, (3, 64, 64))
    parameters = sum(p.numel() for p in _create(name).parameters())
    if counted.params_1bit + counted.params_real != parameters:
        raise Broken(f"{counted.params_1bit + counted.params_real:,} parameters are counted of {parameters:,}")
    return f"{counted.memory_bits / 1e6:.2f} Mbit, {counted.ops / 1e6:.2f} M OPs at 64 x 64"


def task_runs(name: str, task: str, data_root: Path, work_dir: Path) -> str:
    """Train a few steps, score, count, and score the checkpoint again."""
    of_task = runner(task)
    dataset, options = of_task.TRIAL
    list(mini.write(data_root, [dataset]))
    job = Job(
        dataset=dataset,
        backbone=name,
        recipe="mini",
        seed=0,
        data_root=data_root,
        work_dir=work_dir,
        cfg_options=options,
    )
    outcome = of_task.train(job)
    losses = outcome.details["loss_curve"]
    if not all(map(math.isfinite, losses)):
        raise Broken(f"the loss is {losses[-1]}")
    if not outcome.cost.get("strict", {}).get("ops"):
        raise Broken("the cost of the whole model was not counted")
    again = of_task.test(outcome.checkpoint, replace(job, backbone="", recipe="", work_dir=work_dir / "test"))
    if again.metrics != outcome.metrics:
        raise Broken(f"the checkpoint scores {again.metrics}, the network it was written from {outcome.metrics}")
    kept = [o.predictions for o in (outcome, again) if o.predictions]
    # Files of features say besides which call wrote them.
    if len({sha256_file(path) for path in kept if path.suffix != ".safetensors"}) > 1:
        raise Broken("the checkpoint's predictions differ from those of the network it is of")
    value = outcome.metrics[outcome.main_metric]
    return f"loss {losses[-1]:.3f}, {outcome.main_metric} {100 * value:.1f} %, and again from the checkpoint"
