"""Latency of packed networks against a real-valued one, in several engines, in one run.

The contenders take turns, image by image, so that whatever else the machine does hits all of them
alike; the median is reported with the quartiles. DCP-NAS, Table 15, is the model: a real-valued
ResNet-18 against 1-bit networks, there on an ARM board with one engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onebit.commons import guards
from onebit.commons.errors import InputError, WorkError
from onebit.commons.progress import Progress

#: The network that ratios refer to, real-valued.
REFERENCE = "resnet18"
ENGINES = ("torch", "onnxruntime", "openvino")
PACKED = "packed"
WARM_UP = 5
#: Instances of a network, beyond the first, over which its resident memory is averaged.
INSTANCES = 3
_STATM = Path("/proc/self/statm")


@dataclass
class Contender:
    """One network in one engine.

    Attributes:
        backbone: its name.
        engine: ``packed``, ``torch``, ``onnxruntime`` or ``openvino``.
        precision: of the real-valued arithmetic, ``float32`` or ``bfloat16``.
        version: of the engine.
        disk_bytes: what the network's file takes.
        infer: one inference of one image.
        milliseconds: of every repetition.
        resident_bytes: by how much a process grows that loads the file and runs it once, where it
            has done so before: the engine's own start does not count. None where it is not known.
    """

    backbone: str
    engine: str
    precision: str
    version: str
    disk_bytes: int
    infer: Callable[[], Any]
    milliseconds: list[float] = field(default_factory=list)
    resident_bytes: int | None = None


def available_engines() -> list[str]:
    """Those of :data:`ENGINES` that are installed."""
    return [name for name in ENGINES if importlib.util.find_spec(name)]


def compete(
    backbones: Sequence[str],
    *,
    size: tuple[int, int] = (224, 224),
    classes: int | None = 1000,
    threads: int = 1,
    repeat: int = 50,
    engines: Sequence[str] | None = None,
) -> list[Contender]:
    """Measure the packed ``backbones`` and the real-valued reference in every engine.

    Weights are untrained: latency does not depend on them.

    Args:
        size: height and width of the image; the batch is one image.
        classes: of the classifier; None measures the backbone with all its scales, as a detector
            uses it.
        threads: of every engine.
        repeat: inferences per contender, after :data:`WARM_UP` that do not count.
        engines: that run the reference; all that are installed by default.

    Raises:
        InputError: unknown backbone or engine, or one that is not installed; fewer than 2
            repetitions.
    """
    guards.whole("repeat", repeat, 2)
    engines = available_engines() if engines is None else list(engines)
    for engine in engines:
        guards.known("engine", engine, ENGINES)
        if engine not in available_engines():
            raise InputError(f"{engine} is not installed: pip install {engine}")
    with tempfile.TemporaryDirectory() as folder, torch_threads(threads):
        place = Path(folder)
        contenders = [
            contender for engine in engines for contender in _reference(engine, size, classes, threads, place)
        ]
        contenders += [_packed(name, size, classes, place) for name in backbones]
        _measure(contenders, repeat)
        for contender in contenders:
            contender.resident_bytes = _resident(contender, size, threads, place)
    return contenders


def _measure(contenders: list[Contender], repeat: int) -> None:
    total = (WARM_UP + repeat) * len(contenders)
    with Progress("latency", total=total) as progress:
        for turn in range(WARM_UP + repeat):
            for contender in contenders:
                before = time.perf_counter()
                contender.infer()
                spent = time.perf_counter() - before
                if turn >= WARM_UP:
                    contender.milliseconds.append(spent * 1e3)
                progress.advance()


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _network(name: str, classes: int | None):
    import torch

    from onebit import backbones
    from onebit.backbones.classifier import Classifier

    torch.manual_seed(0)
    if classes is None:
        return backbones.create_backbone(name).eval()
    return Classifier(backbones.create_backbone(name, out_indices=(3,)), classes).eval()


def test_image(size: tuple[int, int]):
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, *size, generator=generator)


def packed_network(name: str, classes: int | None):
    """The packed form of a backbone, with a classifier where there are classes."""
    from onebit import backbones

    return backbones.deploy(_network(name, classes))


def _packed(name: str, size: tuple[int, int], classes: int | None, folder: Path) -> Contender:
    import torch

    from onebit.backbones import packed

    scales = {"out_indices": (0, 1, 2, 3) if classes is None else (3,)}
    network = packed_network(name, classes)
    about = packed.description(name, classes, **scales)
    path = packed.save(network, about, folder / f"{name.replace('/', '_')}.safetensors")
    network, _ = packed.load(path)
    image = test_image(size).contiguous(memory_format=torch.channels_last)

    def infer():
        with torch.inference_mode():
            return network(image)

    version = importlib.metadata.version("numba") if importlib.util.find_spec("numba") else "none"
    return Contender(name, PACKED, "float32", version, path.stat().st_size, infer)


def _reference(engine: str, size: tuple[int, int], classes: int | None, threads: int, folder: Path) -> list[Contender]:
    """The real-valued network, in each precision that the engine has for it."""
    network = _network(REFERENCE, classes)
    version = importlib.metadata.version(engine)
    if engine == "torch":
        return [_torch(network, size, version, folder)]
    from onebit.backbones.packed import interchange

    onnx = interchange.save_onnx(network, size, folder / "reference.onnx")
    image = test_image(size).numpy()
    if engine == "onnxruntime":
        infer = onnxruntime_session(onnx, threads, image)
        return [Contender(REFERENCE, engine, "float32", version, onnx.stat().st_size, infer)]
    found = []
    for precision in ("float32", "bfloat16"):
        infer, used = openvino_request(onnx, threads, precision, image)
        if used == precision:  # bfloat16 only where the processor has it
            found.append(Contender(REFERENCE, engine, precision, version, onnx.stat().st_size, infer))
    return found


def _torch(network, size: tuple[int, int], version: str, folder: Path) -> Contender:
    """Batch norms folded in, channels_last, frozen and traced, as torch's guide to inference says."""
    import torch

    network = network.to(memory_format=torch.channels_last)
    image = test_image(size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(network, image))
        path = folder / "reference.ts"
        traced.save(str(path))
        traced = torch.jit.optimize_for_inference(traced)

    def infer():
        with torch.inference_mode():
            return traced(image)

    return Contender(REFERENCE, "torch", "float32", version, path.stat().st_size, infer)


def onnxruntime_session(path: Path, threads: int, image) -> Callable[[], Any]:
    """One inference of an ONNX file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: image})


def openvino_request(path: Path, threads: int, precision: str, image) -> tuple[Callable[[], Any], str]:
    """One inference of an ONNX file in OpenVINO, and the precision it really uses."""
    import openvino

    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    core = openvino.Core()
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return lambda: None, "float32"
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    request = compiled.create_infer_request()
    names = {"f32": "float32", "bf16": "bfloat16"}
    return lambda: request.infer({0: image}), names.get(used, used)


def _resident(contender: Contender, size: tuple[int, int], threads: int, folder: Path) -> int | None:
    """Growth of a process, in bytes, by a further instance of the network, loaded and run once.

    None where the system does not tell it as Linux does.
    """
    if not _STATM.exists():
        return None
    file = {PACKED: f"{contender.backbone.replace('/', '_')}.safetensors", "torch": "reference.ts"}.get(
        contender.engine, "reference.onnx"
    )
    arguments = [contender.engine, contender.precision, str(folder / file)]
    arguments += [str(threads), *map(str, size)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "onebit.leaderboards.running.latency", *arguments],
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    if done.returncode:
        raise WorkError(f"measuring resident memory failed: {done.stderr.strip()[-300:]}")
    return int(done.stdout.split()[-1])


def _probe(engine: str, precision: str, file: str, threads: str, height: str, width: str) -> None:
    """Print by how many bytes this process grows; run in a process of its own."""
    import torch

    torch.set_num_threads(int(threads))
    image = test_image((int(height), int(width)))
    kept = []
    grown = []
    with torch.inference_mode():
        for _ in range(1 + INSTANCES):  # the first one pays for the engine's own start
            kept.append(_loaded(engine, precision, file, int(threads), image))
            grown.append(_resident_now())
    # Loading takes more for a while, and what it gives back may be used for the next one: one
    # difference alone may even be negative.
    print(max(0, (grown[-1] - grown[0]) // INSTANCES))


def _loaded(engine: str, precision: str, file: str, threads: int, image):
    """The network of ``file``, run once."""
    import torch

    if engine == PACKED:
        from onebit.backbones import packed

        network, _ = packed.load(file)
        return network, network(image.contiguous(memory_format=torch.channels_last))
    if engine == "torch":
        network = torch.jit.optimize_for_inference(torch.jit.load(file))
        return network, network(image)
    if engine == "onnxruntime":
        infer = onnxruntime_session(Path(file), threads, image.numpy())
    else:
        infer, _ = openvino_request(Path(file), threads, precision, image.numpy())
    return infer, infer()


def _resident_now() -> int:
    import gc

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed, if not asked
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    _probe(*sys.argv[1:])
