"""Fill an ablation: search the cells that it needs, then train and score its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onebit.commons.errors import InputError
from onebit.leaderboards.ablations import Ablation, Variant, variant_of
from onebit.leaderboards.recording.record import Record, options_tag, row_name
from onebit.leaderboards.running.bench import BoardSweep
from onebit.leaderboards.running.locks import holding
from onebit.leaderboards.running.sweep import bench, check

if TYPE_CHECKING:
    from onebit.classification.search.job import SearchJob

_CELL_OPTION = "model.backbone.cell"


@dataclass(frozen=True)
class AblationSweep:
    """What `onebit bench ablation-...` was asked for.

    Attributes:
        rows: backbones, recipe, seeds and the rest of all variants; its ``cfg_options`` are the
            user's, which go to the training of all of them.
        preset: of the searches.
        search_options: dotted overrides of the preset, the same for all variants.
    """

    ablation: Ablation
    rows: BoardSweep
    preset: str
    search_options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        return self.ablation.variants_on(self.rows.board.name)

    @property
    def out(self) -> Path:
        return self.rows.out

    @property
    def records(self) -> Path:
        return self.rows.records

    @property
    def total(self) -> int:
        return self.rows.total * len(self.variants)

    def label(self, record: Record) -> str:
        """A row in a few words."""
        variant, _ = variant_of(self.ablation, record)
        return f"{variant.name}, {self.rows.label(record)}"

    def search_job(self, variant: Variant, seed: int) -> SearchJob:
        """The search of a variant's cell; its work folder is named after all that it depends on."""
        from onebit.classification.search.job import SearchJob

        search = variant.search
        changes = {**search.cfg_options, **self.search_options}
        tag = options_tag({"options": dict(search.options), "cfg_options": changes})
        name = row_name(self.rows.dataset.name, search.method, self.preset, tag, seed)
        return SearchJob(
            method=search.method,
            dataset=self.rows.dataset.name,
            preset=self.preset,
            seed=seed,
            data_root=self.rows.data_root,
            work_dir=self.rows.work_root / "search" / name,
            resume=True,
            options=dict(search.options),
            cfg_options=changes,
        )


def check_all(sweep: AblationSweep) -> None:
    """Find what is wrong before the first search.

    Raises:
        InputError: see :func:`onebit.leaderboards.running.sweep.check`; an option that varies, or one of a search
            that does not exist.
    """
    for variant in sweep.variants:
        taken = sorted({*variant.cfg_options} & {*sweep.rows.cfg_options})
        if taken:
            raise InputError(f"{sweep.ablation.name} varies {taken[0]} itself: leave it out of --cfg-options")
        if variant.search:
            _check_search(sweep, variant)
        check(_training(sweep, variant))


def _check_search(sweep: AblationSweep, variant: Variant) -> None:
    from onebit.classification.search.runner import check as check_search

    taken = sorted({*variant.search.cfg_options} & {*sweep.search_options})
    if taken:
        raise InputError(f"{sweep.ablation.name} varies {taken[0]} itself: leave it out of --search-options")
    check_search(sweep.search_job(variant, 0))


def bench_ablation(sweep: AblationSweep) -> Iterator[tuple[Record, bool]]:
    """Yield every row's record, and whether it was run now (else: found finished).

    A cell that was found is kept in its work folder, and is searched once however often its rows
    are run. An interrupt ends it at any point, and the same call goes on there.

    Raises:
        InputError: see :func:`check_all`.
    """
    check_all(sweep)
    for variant in sweep.variants:
        if variant.search is None:
            yield from bench(_training(sweep, variant))
            continue
        for seed in sweep.rows.seeds:
            finished = _finished(sweep, variant, seed)
            if finished is None:
                yield from bench(_training_of_cell(sweep, variant, seed))
            else:
                yield from ((record, False) for record in finished)


def _finished(sweep: AblationSweep, variant: Variant, seed: int) -> list[Record] | None:
    """The rows of a variant's cell where all are finished: nothing has to be searched then."""
    rows = sweep.rows
    if rows.overwrite != "only-missing":
        return None
    asked = {
        **rows.recorded_options,
        "search.preset": sweep.preset,
        **{f"search.{key}": value for key, value in sweep.search_options.items()},
    }
    found = {
        record.backbone: record
        for record in Record.load_all(rows.records, rows.board.name, rows.dataset.name)
        if (record.recipe, record.seed) == (rows.recipe, seed)
        and rows.is_finished(record)
        and variant_of(sweep.ablation, record) == (variant, asked)
    }
    wanted = list(dict.fromkeys(rows.backbones))
    return [found[name] for name in wanted] if set(wanted) <= set(found) else None


def _training(sweep: AblationSweep, variant: Variant) -> BoardSweep:
    return replace(sweep.rows, cfg_options={**variant.cfg_options, **sweep.rows.cfg_options})


def _training_of_cell(sweep: AblationSweep, variant: Variant, seed: int) -> BoardSweep:
    from onebit.backbones import Genotype

    job = sweep.search_job(variant, seed)
    path = search_cell(job)
    training = _training(sweep, variant)
    return replace(
        training,
        seeds=(seed,),
        cfg_options={**training.cfg_options, _CELL_OPTION: str(path)},
        details={
            "search": dict(
                method=job.method,
                preset=job.preset,
                options=dict(job.options),
                cfg_options=dict(job.cfg_options),
                seed=job.seed,
                genotype=Genotype.load(path).to_dict(),
            )
        },
    )


def search_cell(job: SearchJob) -> Path:
    """The file of a search's cell, named after the search: that of an earlier call, or what it finds.

    Another process that wants the same cell waits for it.
    """
    path = job.work_dir / f"{job.work_dir.name}.json"
    with holding(job.work_dir, True):
        if not path.exists():
            from onebit.classification.search.runner import search

            search(job).save(path)
    return path
