"""One row of the search board as one JSON file: a search, and the training of the cell it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from onebit.leaderboards.recording.record import CodeVersion, Environment, Name, Sha256, checked_genotype, options_tag
from onebit.leaderboards.recording.record import row_name as classified_row_name
from onebit.leaderboards.recording.run_file import Fraction, Moment, RunFile

BOARD = "search"


class SearchRun(RunFile):
    """What one search cost, and how good the network of its cell became."""

    AGAIN: ClassVar[str] = "a search: `onebit bench search --overwrite always` repeats it"

    schema_version: Literal[1] = 1
    board: Literal["search"] = BOARD
    method: Name = Field(description="as `onebit search` takes it")
    dataset: Name = Field(description="what was searched and trained on")
    data_checksum: str
    preset: Name = Field(description="the config file the search followed")
    options: dict[str, Any] = Field(description="what `--options` asked of the method")
    cfg_options: dict[str, Any] = Field(description="what `--cfg-options` changed in the preset")
    config_sha256: Sha256 | None = Field(
        None, description="of the whole config of the search, less seed and folders; null in the earliest records"
    )
    seed: int = Field(ge=0, lt=2**32, description="of the search and of the training")

    epochs: int = Field(ge=1, description="of the search")
    wall_seconds: float = Field(gt=0, description="of the search's epochs, those before a resume included")
    images_seen: int = Field(
        gt=0,
        description="in the batches of the search's steps; one that two networks work on counts once, evaluation counts none",
    )
    images_per_second: float = Field(gt=0)
    peak_memory_bytes: int = Field(gt=0, description="of the GPU; without one, of the process since the search began")
    gpu_days: float | None = Field(ge=0, description="null where no GPU was used")
    genotype: dict[str, Any] = Field(description="the cell, with its provenance")

    network: str = Field(description="width and depth of the network that was trained of it")
    binarizer: str | None = Field(
        None, description="of that network, `none` for a real-valued one; null in the earliest records: all were mcn"
    )
    weight_bits: int = Field(ge=1)
    activation_bits: int = Field(ge=1)
    recipe: Name = Field(description="of its training")
    train_epochs: int = Field(ge=1)
    train_seconds: float = Field(gt=0, description="of the call that ended it")
    metrics: dict[str, Fraction] = Field(min_length=1, description="on the test images")
    main_metric: str
    ops_strict: float = Field(gt=0, description="operations for one image, as `onebit cost` counts")
    memory_bits_strict: float = Field(gt=0)

    code: CodeVersion
    environment: Environment
    created: Moment

    @model_validator(mode="after")
    def _consistent(self) -> SearchRun:
        if self.main_metric not in self.metrics:
            raise ValueError(f"a row needs its main metric {self.main_metric}")
        checked_genotype(self.genotype)
        return self

    @property
    def genotype_hash(self) -> str:
        from onebit.backbones.cells.genotype import Genotype

        return Genotype.from_dict(self.genotype).hash

    @property
    def trained_as(self) -> str:
        """The binarizer of the network that was trained of the cell, `none` for a real-valued one."""
        return self.binarizer or "mcn"

    @property
    def searched_as(self) -> str:
        """The binarizer of the supernet that the cell was found in, `none` for a real-valued one."""
        provenance = self.genotype["provenance"]
        found = (provenance.get(key) for key in ("supernet", "options"))
        supernet, options = (value if isinstance(value, Mapping) else {} for value in found)
        if "binarizer" in supernet:
            return str(supernet["binarizer"] or "none")
        # The earliest records: the option was it, but for BNAS, which makes it of two.
        if "kernels" in options:
            version = options.get("version", "1bit")
            return f"bnas{options['kernels']}{'' if version == '1bit' else version}"
        return str(options.get("binarizer") or "none")

    @property
    def summary(self) -> str:
        scored = f"{self.main_metric} {100 * self.metrics[self.main_metric]:.2f} %"
        return f"Seed {self.seed}: {self.wall_seconds:.0f} s, {scored}"

    def file_name(self) -> str:
        return row_name(self.dataset, self.method, self.preset, self.options, self.cfg_options, self.seed) + ".json"


def row_name(
    dataset: str, method: str, preset: str, options: Mapping[str, Any], cfg_options: Mapping[str, Any], seed: int
) -> str:
    """The stem of a row's record and the name of its work folder."""
    changed = {"options": dict(options), "cfg_options": dict(cfg_options)}
    tag = options_tag(changed) if options or cfg_options else ""
    return classified_row_name(dataset, method, preset, tag, seed)
