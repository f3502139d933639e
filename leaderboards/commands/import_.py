"""`onebit import`: score and record predictions that were made elsewhere."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import (
    TASKS,
    add_cfg_options,
    add_data,
    add_out,
    add_verb,
    cfg_options,
    data_root,
    seed,
)


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "import",
        run,
        "score and record predictions that were made elsewhere",
        """\
onebit import detection --predictions results.bbox.json --dataset coco --name their_net
onebit import reid --predictions features.npz --dataset market1501 --name osnet --trained-on MSMT17""",
    )
    parser.add_argument("task", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument(
        "--predictions",
        required=True,
        type=Path,
        metavar="FILE",
        help="detection: COCO results JSON; reid: features (docs/importing.md)",
    )
    parser.add_argument("--dataset", required=True, metavar="D")
    add_import_options(parser, name_required=True)
    add_data(parser)
    add_cfg_options(parser)


def add_import_options(parser, name_required: bool = False) -> None:
    """What only the user knows of an imported row, and where its record goes."""
    parser.add_argument(
        "--name", required=name_required, metavar="N", help="what stands where a row names its backbone"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="tells imported rows of one name apart")
    parser.add_argument("--trained-on", default="", metavar="TEXT", help="what it was trained on, for the record")
    parser.add_argument("--note", default="", metavar="TEXT", help="a remark for the record")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path("work_dirs"),
        metavar="W",
        help="keeps the predictions of recorded rows (default: ./work_dirs)",
    )
    add_out(parser)


def run(args) -> int:
    from onebit.commons import guards
    from onebit.commons.task import require_offered
    from onebit.leaderboards.boards import runner

    task = runner(args.task)
    require_offered(task, "import_predictions")
    guards.file("predictions", args.predictions)

    def scorer(job):
        return task.import_predictions(args.predictions, job)

    return score_and_record(args, "imported-predictions", scorer, keep=True)


def score_and_record(args, origin: str, scorer, keep: bool) -> int:
    """Score, print, and write a record if ``keep``."""
    import dataclasses

    from onebit.commons.datasets import get_dataset
    from onebit.commons.errors import InputError
    from onebit.commons.task import require_offered
    from onebit.leaderboards.boards import runner
    from onebit.leaderboards.running import imports

    options = cfg_options(args.cfg_options)
    if options:
        require_offered(runner(args.task), "import_options")
    if not args.dataset:
        raise InputError(
            "a dataset of this suite is needed to score what was trained elsewhere: name it with --dataset"
        )
    dataset = get_dataset(args.dataset, args.task)
    dataset.find(data_root(args))
    if keep and not args.name:
        raise InputError("--record needs --name: what stands where a row names its backbone")
    what = imports.Import(origin, args.name or "", args.seed, args.trained_on, args.note)
    with imports.scratch(dataset.name, data_root(args)) as job:
        job = dataclasses.replace(job, cfg_options=options)
        outcome = imports.unclaimed(what, scorer(job))
        print(f"{args.name or ''} on {dataset.name}, {origin}".lstrip())
        print(imports.report(outcome))
        if keep:
            _, path = imports.record(what, dataset.board, job, outcome, args.out / "records", args.work_dir)
            print(f"record      {path}")
    return 0
