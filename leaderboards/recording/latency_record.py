"""One run of `onebit latency` as one JSON file: every contender, every repetition.

Ratios mean something within one run on one machine only, so the run is the unit, not the row.
"""

from __future__ import annotations

import hashlib
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from onebit.leaderboards.recording.record import CodeVersion
from onebit.leaderboards.recording.run_file import Moment, RunFile, now

BOARD = "latency"
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)
_Positive = Annotated[float, Field(gt=0)]


class Entry(BaseModel):
    """One network in one engine."""

    model_config = _CONFIG

    backbone: str = Field(description="its name; `resnet18` is the real-valued reference")
    engine: str = Field(description="`packed` (ours), or the engine that ran the reference")
    engine_version: str
    precision: Literal["float32", "bfloat16"] = Field(
        description="of the real-valued arithmetic; OpenVINO's default is bfloat16 where there is any"
    )
    weight_bits: int = Field(ge=1)
    activation_bits: int = Field(ge=1)
    memory_bits_strict: int = Field(gt=0, description="of the network, as `onebit cost` counts it")
    disk_bytes: int = Field(gt=0, description="of its file")
    resident_bytes: int | None = Field(
        description="growth of a process by a further instance, loaded and run once; mean of three"
    )
    milliseconds: list[_Positive] = Field(min_length=2, description="every repetition, in turn")

    @property
    def median(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        first, _, third = statistics.quantiles(self.milliseconds, n=4)
        return first, third


class LatencyRun(RunFile):
    """What was measured on one machine in one run; contenders took turns image by image."""

    AGAIN: ClassVar[str] = "a latency: what it measured cannot be computed again"

    schema_version: Literal[1] = 1
    board: Literal["latency"] = BOARD
    processor: str
    flags: list[str] = Field(description="of the processor: those that matter to these kernels")
    cores: int = Field(ge=1)
    load_before: float = Field(ge=0, description="the machine's load average before the run")
    threads: int = Field(ge=1, description="of every engine")
    input: tuple[int, int] = Field(description="height and width; the batch is one image")
    classes: int | None = Field(description="of the classifier; null: the backbone with all scales")
    entries: list[Entry] = Field(min_length=1)
    code: CodeVersion
    versions: dict[str, str]
    created: Moment

    @property
    def summary(self) -> str:
        return f"Run of {self.created}"

    def file_name(self) -> str:
        """Follows from processor, threads and input: a new run of these replaces the old one."""
        machine = re.sub(r"[^a-z0-9]+", "-", self.processor.lower()).strip("-")
        machine += "-" + hashlib.sha256(" ".join(self.flags).encode()).hexdigest()[:6]
        what = "features" if self.classes is None else f"{self.classes}-classes"
        height, width = self.input
        return f"{machine}--{height}x{width}-{what}--threads{self.threads}.json"

    def fastest_reference(self) -> Entry | None:
        """The real-valued network in the engine that is fastest here."""
        references = [e for e in self.entries if e.weight_bits > 1]
        return min(references, key=lambda e: e.median, default=None)


#: Instruction sets that the kernels of the contenders use.
_RELEVANT = (
    "popcnt",
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vpopcntdq",
    "avx512_bitalg",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "bf16",
)


def processor_flags() -> list[str]:
    """Those of :data:`_RELEVANT` that this processor has; none where Linux does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    line = next((x for x in lines if x.lower().startswith(("flags", "features"))), ":")
    found = set(line.split(":", 1)[1].split())
    return [flag for flag in _RELEVANT if flag in found]


def record_run(contenders: Sequence, *, size, classes, threads: int, load_before: float):
    """The record of what :func:`onebit.leaderboards.running.latency.compete` measured just now."""
    import os

    from onebit import backbones
    from onebit.commons.provenance import versions
    from onebit.leaderboards.running.environment import code_version, processor_name

    entries = []
    for contender in contenders:
        described = backbones.describe(contender.backbone)
        cost = backbones.cost(contender.backbone, (3, *size), classes=classes)
        entries.append(
            Entry(
                backbone=contender.backbone,
                engine=contender.engine,
                engine_version=contender.version,
                precision=contender.precision,
                weight_bits=described["weight_bits"],
                activation_bits=described["activation_bits"],
                memory_bits_strict=cost.memory_bits,
                disk_bytes=contender.disk_bytes,
                resident_bytes=contender.resident_bytes,
                milliseconds=contender.milliseconds,
            )
        )
    return LatencyRun(
        processor=processor_name() or "unknown",
        flags=processor_flags(),
        cores=os.cpu_count() or 1,
        load_before=load_before,
        threads=threads,
        input=tuple(size),
        classes=classes,
        entries=entries,
        code=code_version(),
        versions=versions(),
        created=now(),
    )
