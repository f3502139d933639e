"""One row of a leaderboard as one JSON file; ``docs/records.md`` explains every field.

A record is typed, versioned, written atomically and carries a digest of itself. Its path follows
from what it is: ``<board>/<dataset>--<backbone>--<recipe>--seed<N>.json``.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator
from typing_extensions import TypedDict

from onebit.leaderboards.recording.migration import SCHEMA_VERSION, migrate
from onebit.leaderboards.recording.run_file import Fraction, Moment, RunFile

# Names become parts of file names: no separator of paths, and no "--", which separates them there.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.]*(-[A-Za-z0-9_.]+)*$"
_FILE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$"
_SHA256 = r"^[0-9a-f]{64}$"
_METRIC = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

# Lengths keep a record's file name, and the hidden one it is written under, below 255 bytes.
Name = Annotated[str, Field(pattern=_NAME, max_length=48)]
BackboneName = Annotated[str, Field(pattern=_NAME, max_length=96)]
FileName = Annotated[str, Field(pattern=_FILE)]
Sha256 = Annotated[str, Field(pattern=_SHA256)]
Metrics = dict[Annotated[str, Field(pattern=_METRIC)], Fraction]
#: Above: what no network of this world has, and what no format can show.
_Count = Annotated[int | float, Field(ge=0, le=1e24)]
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)


class CostSummary(TypedDict, total=False):
    """What :meth:`onebit.backbones.Cost.summary` says, and a detector's own besides."""

    __pydantic_config__ = _CONFIG

    convention: Name
    input_shape: list[Annotated[int, Field(ge=1, le=2**20)]] | None
    params_1bit: _Count
    params_real: _Count
    memory_bits: _Count
    macs: _Count
    flops: _Count
    bops: _Count
    ops: _Count
    proposals: Annotated[int, Field(ge=1)] | None
    onebit_parts: str | dict[str, str] | None


class Searched(TypedDict):
    """Of a row whose cell was searched for it: ``details.search``."""

    __pydantic_config__ = _CONFIG

    method: Name
    preset: Name
    options: dict[str, Any]
    cfg_options: dict[str, Any]
    seed: int
    genotype: Annotated[dict[str, Any], AfterValidator(lambda content: checked_genotype(content))]


def checked_genotype(content: dict[str, Any]) -> dict[str, Any]:
    """``content``, which is a genotype's, with a provenance that tables can show.

    Raises:
        ValueError: it is not.
    """
    from onebit.backbones.cells.genotype import Genotype

    provenance = Genotype.from_dict(content).provenance
    for key, kinds in (("method", str), ("gpu_days", int | float)):
        if not isinstance(provenance.get(key), kinds | None):
            raise ValueError(f"provenance: {key} is {provenance[key]!r}")
    return content


class CodeVersion(BaseModel):
    """The state of the checkout that ran; both None outside a git checkout."""

    model_config = _CONFIG

    commit: str | None = None
    dirty: bool | None = None


class Environment(BaseModel):
    """What it ran on."""

    model_config = _CONFIG

    versions: dict[str, str]
    device: str
    threads: int
    operators: dict[str, str] = Field(default_factory=dict)


class KeptFile(BaseModel):
    """A file in the row's work folder, and what it held when the record was written."""

    model_config = _CONFIG

    file: FileName
    sha256: Sha256


class Record(RunFile):
    """One row: what was trained or imported, on what, how long, and what came out.

    Metrics are fractions in [0, 1] in full precision. ``cost`` maps a counting convention to the
    summary of the whole model under it.
    """

    schema_version: Literal[3] = Field(
        SCHEMA_VERSION, description="version of this schema; older ones are migrated when they are read"
    )
    status: Literal["done", "failed"] = Field(description="`failed` rows have no metrics and count in no mean")
    error: str | None = Field(None, description="why a failed row failed: the kind of error and its first line")
    origin: Literal["trained", "imported-checkpoint", "imported-predictions"] = Field(
        "trained",
        description="`trained` by this suite; or only scored by it, from a checkpoint or from predictions made elsewhere",
    )

    board: Name = Field(description="the leaderboard, and the folder of the record")
    dataset: Name = Field(description="what was trained on and scored")
    data_checksum: str = Field(
        description="`content:` and a SHA-256 over file names and contents, or `listing:` and one over names and sizes (data above 1 GiB)"
    )
    split: str = Field(description="which images were trained on and which were scored")
    protocol: str = Field(description="how they were scored")

    backbone: BackboneName = Field(description="its name, as `onebit backbones` lists it")
    binarizer: str = Field(description="`none` for a real-valued network")
    cell: str | None = Field(None, description="name of the searched cell, where the backbone has one and says it")
    genotype_hash: str | None = Field(description="hash of that cell's genotype")
    weight_bits: int | None = Field(
        ge=1,
        description="of its 1-bit convolutions; 32 for a real-valued network; null for an imported row whose network is not known",
    )
    activation_bits: int | None = Field(ge=1, description="likewise")

    recipe: Name = Field(description="the config file the training followed")
    cfg_options: dict[str, Any] = Field(
        default_factory=dict,
        description="what `--cfg-options` changed in it; a file is named by `NAME@sha256:HASH`, without its folder",
    )
    config_sha256: Sha256 | None = Field(
        description="of the whole config that ran, as text without paths of the machine"
    )
    seed: int = Field(ge=0, lt=2**32, description="the only source of randomness")
    epochs: int = Field(ge=0, description="epochs actually trained")

    main_metric: str = Field(description="the key of `metrics` that ranks rows")
    metrics: Metrics = Field(description="fractions in [0, 1], full precision")
    untrained: Metrics | None = Field(description="the same of the same network before its first step")
    cost: dict[Name, CostSummary] = Field(
        description="by counting convention: parameters, memory and operations of the whole model (docs/cost.md)"
    )
    checkpoint_sha256: Sha256 | None = Field(
        description="of the weights that were scored; `details.checkpoint` is their file in the work folder"
    )
    checkpoint_hash: Literal["weights", "file"] = Field(
        "weights",
        description="what `checkpoint_sha256` is of: `weights`, the name, type, shape and bytes of every tensor by sorted names; or the whole `file`, as in imported rows and those of versions 1 and 2",
    )
    predictions: KeptFile | None = Field(
        None, description="what the network put out on the scored images: file in the work folder and its SHA-256"
    )

    code: CodeVersion = Field(description="git commit, and whether tracked files differed from it")
    environment: Environment = Field(description="versions, device, threads, and whose operators a detector used")
    wall_seconds: float = Field(ge=0, description="of all sessions of an interrupted row together")
    created: Moment = Field(description="when the record was written, UTC, ISO 8601")
    details: dict[str, Any] = Field(
        default_factory=dict, description="what only this task knows: loss curve, per-class values, counts of images"
    )

    @field_validator("details")
    @classmethod
    def _known_details(cls, details: dict[str, Any]) -> dict[str, Any]:
        for key in ("checkpoint", "log"):
            name = details.get(key, "-")
            if not isinstance(name, str) or not (name == "-" or re.fullmatch(_FILE, name)):
                raise ValueError(f"{key} must be the name of a file in the work folder, not {name!r}")
        detector = details.get("detector", "-")
        if not isinstance(detector, str) or not (detector == "-" or re.fullmatch(_NAME, detector)):
            raise ValueError(f"detector must be a name, not {detector!r}")
        if type(details.get("num_classes", 0)) is not int:
            raise ValueError(f"num_classes must be a whole number, not {details['num_classes']!r}")
        if "search" in details:
            TypeAdapter(Searched).validate_python(details["search"], strict=True)
        return details

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.status == "done" and self.main_metric not in self.metrics:
            raise ValueError(f"a finished row needs its main metric {self.main_metric}")
        if self.status == "done" and self.origin == "imported-predictions" and not self.predictions:
            raise ValueError("a row imported as predictions needs `predictions`")
        if self.origin == "trained" and None in (self.weight_bits, self.activation_bits):
            raise ValueError("a trained row needs its bits")
        if self.status == "done" and self.error is not None:
            raise ValueError("a finished row has no `error`")
        if self.status == "failed" and not self.error:
            raise ValueError("a failed row needs its reason in `error`")
        return self

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What makes the row the row: (dataset, backbone, recipe, options, seed)."""
        return self.dataset, self.backbone, self.recipe, options_tag(self.cfg_options), self.seed

    @property
    def summary(self) -> str:
        scored = f", {self.main_metric} {100 * self.metrics[self.main_metric]:.2f} %" if self.status == "done" else ""
        return f"Seed {self.seed}: {self.status}{scored}"

    def file_name(self) -> str:
        return row_name(*self.key) + ".json"

    @classmethod
    def parse(cls, content: dict[str, Any]) -> Record:
        """A record of any schema version that was released, as one of the present version."""
        return cls.model_validate(migrate(content), strict=True)


def options_tag(options: dict[str, Any]) -> str:
    """A short name for non-default config options; empty for none."""
    if not options:
        return ""
    return "opt" + hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]


def row_name(dataset: str, backbone: str, recipe: str, options: str, seed: int) -> str:
    """The stem of a row's record and the name of its work folder."""
    # A cell file given as backbone has slashes; a record must never leave its folder.
    backbone = re.sub(r"[^A-Za-z0-9_.-]", "_", backbone)
    return "--".join(part for part in (dataset, backbone, recipe, options, f"seed{seed}") if part)
