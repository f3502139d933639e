"""One row of a leaderboard as one JSON file.

A record is typed, versioned, written atomically and carries a digest of itself. Its path follows
from what it is: ``<board>/<dataset>--<backbone>--<recipe>--seed<N>.json``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from commons.errors import InputError
from commons.files import write_atomic

SCHEMA_VERSION = 1
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_SHA256 = r"^[0-9a-f]{64}$"


class CodeVersion(BaseModel):
    """The state of the checkout that ran; both None outside a git checkout."""

    model_config = ConfigDict(extra="forbid")

    commit: str | None = None
    dirty: bool | None = None


class Environment(BaseModel):
    """What it ran on."""

    model_config = ConfigDict(extra="forbid")

    versions: dict[str, str]
    device: str
    threads: int
    operators: dict[str, str] = Field(default_factory=dict)


class Record(BaseModel):
    """One row: what was trained, on what, how long, and what came out.

    Metrics are fractions in [0, 1] in full precision. ``cost`` maps a counting convention to the
    summary of the whole model under it.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["done", "failed"]
    error: str | None = None

    board: str = Field(pattern=_NAME)
    dataset: str = Field(pattern=_NAME)
    data_checksum: str
    split: str
    protocol: str

    backbone: str = Field(pattern=_NAME)
    binarizer: str
    cell: str | None = None  # older records do not say
    genotype_hash: str | None
    weight_bits: int
    activation_bits: int

    recipe: str = Field(pattern=_NAME)
    cfg_options: dict[str, Any] = Field(default_factory=dict)
    config_sha256: str | None = Field(pattern=_SHA256)
    seed: int
    epochs: int

    main_metric: str
    metrics: dict[str, float]
    untrained: dict[str, float] | None
    cost: dict[str, dict[str, Any]]
    checkpoint_sha256: str | None = Field(pattern=_SHA256)

    code: CodeVersion
    environment: Environment
    wall_seconds: float
    created: str
    details: dict[str, Any] = Field(default_factory=dict)

    @field_validator("metrics", "untrained")
    @classmethod
    def _finite(cls, values: dict[str, float] | None) -> dict[str, float] | None:
        for key, value in (values or {}).items():
            if not math.isfinite(value):
                raise ValueError(f"{key} is {value}")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.status == "done" and self.main_metric not in self.metrics:
            raise ValueError(f"a finished row needs its main metric {self.main_metric}")
        if self.status == "failed" and not self.error:
            raise ValueError("a failed row needs its reason in `error`")
        return self

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What makes the row the row: (dataset, backbone, recipe, options, seed)."""
        return self.dataset, self.backbone, self.recipe, options_tag(self.cfg_options), self.seed

    def file_name(self) -> str:
        return row_name(*self.key) + ".json"

    def save(self, folder: str | Path) -> Path:
        """Write the record below ``folder``/<board>/ and return its path."""
        content = self.model_dump(mode="json")
        content["digest"] = digest(content)
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
        return write_atomic(Path(folder) / self.board / self.file_name(), text)

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read and check a record.

        Raises:
            InputError: not JSON, not of this schema, changed since it was written, or under a path
                that does not follow from its content.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text())
            if not isinstance(content, dict):
                raise ValueError(f"expected an object, found a {type(content).__name__}")
            stored = content.pop("digest")
        except OSError as error:
            raise InputError(f"cannot read record {path}: {error.strerror}") from error
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{path} is not a record: {error}") from error
        if stored != digest(content):
            raise InputError(f"record {path} was changed after it was written (digest differs)")
        try:
            record = cls.model_validate(content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "record"
            raise InputError(f"record {path}: {where}: {first['msg']}") from error
        if (path.parent.name, path.name) != (record.board, record.file_name()):
            raise InputError(f"record {path} belongs at {record.board}/{record.file_name()}")
        return record


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


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of a record's canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load_all(folder: str | Path, board: str, dataset: str | None = None) -> Iterator[Record]:
    """All records of a board in path order, of one dataset if it is given."""
    for path in sorted((Path(folder) / board).glob(f"{dataset or '*'}--*.json")):
        yield Record.load(path)
