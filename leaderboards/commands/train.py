"""`onebit train` and `onebit test`: one model, outside any board."""

from __future__ import annotations

import json
from pathlib import Path

from onebit.leaderboards.commands.import_ import add_import_options, score_and_record
from onebit.leaderboards.commands.options import (
    TASKS,
    add_cfg_options,
    add_common,
    add_data,
    add_import,
    add_verb,
    cfg_options,
    data_root,
    number,
    seed,
    training_options,
    whole_number,
)


def configure(verbs) -> None:
    train = add_verb(
        verbs,
        "train",
        run_train,
        "train and score one backbone on one dataset",
        """\
onebit train classification --dataset mini-cifar10 --backbone resnet18_w16_reactnet
onebit train classification --dataset mini-cifar10 --backbone resnet18_w8 --epochs 2 --batch 64 --lr 0.01 --size 24
onebit train detection --dataset mini-voc --backbone dcp_nas_c8 --seed 1 --work-dir runs/voc
onebit train detection --dataset mini-voc --backbone dcp_nas_c8 --seed 1 --work-dir runs/voc --resume
onebit train detection --dataset coco:labels.json --backbone resnet18_w16_reactnet --epochs 20 --batch 8 --size 320
onebit train detection --dataset mini-voc --backbone resnet18_w16_reactnet --detector retinanet --work-dir runs/retina
onebit train detection --config mine.py --work-dir runs/mine
onebit train detection --config mine.py --dataset mini-coco
onebit train detection --dataset coco128 --backbone resnet18_w16_reactnet --cfg-options pretrained=cifar/epoch_3.pth
onebit train reid --dataset market1501 --backbone resnet18 --recipe paper --epochs 60
onebit train reid --dataset reid:crops --backbone resnet18_w16_reactnet
onebit train classification --dataset folder:pets.csv --backbone resnet18_w16_reactnet
torchrun --nproc_per_node 2 -m onebit train classification --dataset cifar10 --backbone resnet18_reactnet""",
    )
    train.add_argument("task", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    train.add_argument(
        "--dataset",
        metavar="D",
        help="a dataset of the suite (`onebit doctor` lists them), folder-NAME, or data of your own: coco:LABELS.json, "
        "voc:FOLDER or yolo:data.yaml for detection, reid:FOLDER, folder:FOLDER or a CSV file (docs/own-data.md)",
    )
    train.add_argument("--backbone", metavar="B", help="`onebit backbones` lists them")
    train.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="detection: in place of a backbone and a recipe, an MMDetection config (Python, which is run); without --dataset on its own data",
    )
    train.add_argument("--recipe", metavar="R", help="default: mini, small or paper, as the dataset is")
    train.add_argument("--work-dir", type=Path, metavar="W", help="default: work_dirs/train/<row>")
    train.add_argument("--seed", type=seed, default=0, metavar="S")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in W")
    add_common(train)
    add_data(train)
    add_cfg_options(train)
    add_import(train)

    test = add_verb(
        verbs,
        "test",
        run_test,
        "score a checkpoint, of this suite or trained elsewhere",
        """\
onebit test detection --checkpoint runs/voc/epoch_12.pth --dataset mini-voc
onebit test detection --checkpoint runs/mine/epoch_12.pth --packed
onebit test detection --checkpoint runs/own/epoch_12.pth --config mine.py --show-dir pictures
onebit test detection --checkpoint runs/voc/epoch_12.pth --dataset mini-voc --show-dir pictures --show 40
onebit test classification --checkpoint net.safetensors --dataset mini-cifar10
onebit test reid --checkpoint run/epoch_12.pth --dataset mini-market1501 --cfg-options evaluation.rerank=True
onebit test reid --checkpoint run/epoch_12.pth --dataset mini-market1501 --show-dir pictures --show 40
onebit test reid --predictions run/epoch_12.mini-market1501.safetensors --dataset mini-market1501 --cfg-options evaluation.rerank=True
onebit test detection --checkpoint faster_rcnn.pth --config faster-rcnn_r50_fpn_1x_coco.py --dataset coco
onebit test reid --checkpoint model.pth.tar-60 --model osnet_x1_0 --dataset market1501 --record --name osnet""",
    )
    test.add_argument("task", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    scored = test.add_mutually_exclusive_group(required=True)
    scored.add_argument(
        "--checkpoint",
        type=Path,
        metavar="C",
        help="for classification also a packed file (.safetensors) of `onebit export`",
    )
    scored.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="score what a network put out once, without the network: the file that a row left in its work folder",
    )
    test.add_argument(
        "--dataset",
        metavar="D",
        help="default: what a checkpoint of this suite was trained on, or else the data that --config names",
    )
    test.add_argument(
        "--backbone",
        default="",
        metavar="B",
        help="default: as the checkpoint's config says; classification needs it for --predictions",
    )
    test.add_argument("--show-dir", type=Path, metavar="DIR", help="write pictures of what was predicted to DIR")
    test.add_argument("--show", type=whole_number(), default=20, metavar="N", help="pictures at most (default 20)")
    test.add_argument(
        "--show-score",
        type=number(0, 1),
        metavar="S",
        help="detection: leave out detections below this score, in the pictures and in the summary of errors beside them (default 0.3)",
    )
    test.add_argument(
        "--packed",
        action="store_true",
        help="score the network as `onebit.backbones.deploy` packs it (docs/packed.md); on the CPU",
    )
    elsewhere = test.add_argument_group("a checkpoint that was trained elsewhere (docs/importing.md)")
    elsewhere.add_argument(
        "--config",
        type=Path,
        metavar="C",
        help="detection: its MMDetection config (Python, which is run), also that of `onebit train --config`; reid: its "
        "torchreid config (YAML)",
    )
    elsewhere.add_argument("--model", metavar="M", help="reid: a model of torchreid's, or a backbone")
    elsewhere.add_argument("--record", action="store_true", help="write a record that says where it is from")
    add_import_options(elsewhere)
    add_data(test)
    add_cfg_options(test)
    add_import(test)


def run_train(args) -> int:
    from mmengine.dist import is_main_process

    from onebit import backbones
    from onebit.commons.datasets import get_dataset
    from onebit.commons.errors import InputError
    from onebit.commons.task import Job, recipe_file, require_offered
    from onebit.leaderboards.boards import runner
    from onebit.leaderboards.recording.record import options_tag, row_name

    task = runner(args.task)
    if args.config:
        require_offered(task, "train_config")
        if option := next((o for o in ("backbone", "recipe", "detector") if vars(args)[o]), None):
            raise InputError(f"--{option} does not go with --config, which names its own")
        if args.size:
            raise InputError("--size does not go with --config, whose pipeline says how images are scaled")
    elif not args.dataset or not args.backbone:
        raise InputError(f"train needs --{'backbone' if args.dataset else 'dataset'}")
    dataset = get_dataset(args.dataset, args.task) if args.dataset else None
    if dataset:
        dataset.find(data_root(args))
    options = training_options(args, args.task)
    recipe = ""
    if args.config:
        name = "--".join(filter(None, (args.dataset, args.config.stem, f"seed{args.seed}")))
        title = f"{args.config} on {args.dataset or 'its own data'}, seed {args.seed}"
    else:
        backbones.describe(args.backbone)
        recipe = args.recipe or dataset.recipe
        recipe_file(args.task, recipe)
        name = row_name(dataset.name, args.backbone, recipe, options_tag(options), args.seed)
        title = f"{args.backbone} on {dataset.name}, recipe {recipe}, seed {args.seed}"
    # Not where `onebit bench` works: it would take these checkpoints for those of its own row.
    work_dir = args.work_dir or Path("work_dirs") / "train" / name
    if not args.resume and any(work_dir.rglob("*.pth")):
        raise InputError(
            f"{work_dir} holds the checkpoints of an earlier run: add --resume to go on, or name another --work-dir"
        )
    job = Job(
        dataset=dataset.name if dataset else "",
        backbone=args.backbone or "",
        recipe=recipe,
        seed=args.seed,
        data_root=data_root(args),
        work_dir=work_dir,
        resume=args.resume,
        cfg_options=options,
    )
    outcome = task.train_config(args.config, job) if args.config else task.train(job)
    if is_main_process():
        _report(outcome, title)
        print(f"checkpoint  {outcome.checkpoint}")
    return 0


def run_test(args) -> int:
    import tempfile

    from onebit.commons import guards
    from onebit.commons.datasets import get_dataset
    from onebit.commons.errors import InputError
    from onebit.commons.task import Job, require_offered
    from onebit.leaderboards.boards import runner
    from onebit.leaderboards.predicting import trained_on

    def found(name):
        dataset = get_dataset(name, args.task)
        dataset.find(data_root(args))
        return dataset

    task = runner(args.task)
    dataset = found(args.dataset) if args.dataset else None
    file = args.predictions or args.checkpoint
    if not file.is_file():
        raise InputError(f"{'predictions' if args.predictions else 'checkpoint'} {file} is not a file")
    packed_file = not args.predictions and not args.config and not args.model and file.suffix == ".safetensors"
    config = args.config if args.task == "detection" else None
    stated = None
    if not (args.predictions or packed_file or args.model or args.record) and (config or not args.dataset):
        if config:
            guards.file("config", config)
        stated = trained_on(file)
    if not dataset and stated:
        dataset = found(stated)
    if not dataset and not config:
        raise InputError(f"{file} does not say what to score it on: name it with --dataset")
    foreign = args.model or (args.config and (stated is None or args.record))
    if args.predictions and (args.model or args.record or args.packed or (args.config and not config)):
        option = next(o for o in ("config", "model", "record", "packed") if vars(args)[o])
        raise InputError(f"--{option} is for --checkpoint; `onebit import` records predictions")
    _check_pictures(args, task, dataset, foreign and not args.predictions)
    if foreign and not args.predictions:
        require_offered(task, "score_checkpoint")
        if args.packed:
            raise InputError("--packed is for checkpoints of this suite; leave out --config and --model")

        def scorer(job):
            return task.score_checkpoint(file, job, model=args.model, config=args.config)

        return score_and_record(args, "imported-checkpoint", scorer, keep=args.record)
    if args.record:
        raise InputError("--record is for checkpoints trained elsewhere: name --config or --model")
    if packed_file:
        require_offered(task, "test_packed_file")
        if args.backbone:
            raise InputError(f"{file}: a packed file names its own backbone: leave out --backbone")
    # What scoring predictions logs goes where it cannot overwrite anything of the row.
    with tempfile.TemporaryDirectory(prefix="onebit-test-") as folder:
        job = Job(
            dataset=dataset.name if dataset else "",
            backbone=args.backbone,
            recipe=dataset.recipe if dataset and (packed_file or (args.predictions and not config)) else "",
            seed=0,
            data_root=data_root(args),
            work_dir=Path(folder) if args.predictions else file.parent,
            cfg_options=cfg_options(args.cfg_options),
            config=config,
        )
        if args.predictions:
            task.check_predictions(job)
            outcome = task.score_predictions(file, job)
        elif packed_file:
            outcome = task.test_packed_file(file, job)
        else:
            outcome = task.test(file, job, packed=args.packed)
        place = job.dataset or f"the data of {config}"
        _report(outcome, f"{file} on {place}" + (", packed, on the CPU" if args.packed or packed_file else ""))
        if args.show_dir:
            paths = task.show(outcome, job, args.show_dir, args.show, args.show_score)
            print(f"pictures    {len(paths)} in {args.show_dir}")
    return 0


def _check_pictures(args, task, dataset, foreign) -> None:
    """Raise InputError, before anything is scored, where pictures cannot be drawn as asked."""
    from onebit.commons.errors import InputError
    from onebit.commons.task import require_offered

    if args.show_score is not None:
        require_offered(task, "show_score")
        if not args.show_dir:
            raise InputError("--show-score is for `test detection --show-dir DIR`")
    if args.show_dir:
        require_offered(task, "show")
        if foreign:
            raise InputError(
                "--show-dir is for checkpoints and predictions of this suite; "
                "score the recorded predictions of another's with --predictions"
            )
        if dataset and dataset.protocol == "pairs":
            raise InputError(f"{dataset.name} has pairs, no rankings to draw: leave out --show-dir")


def _report(outcome, title: str) -> None:
    print(title)
    print(f"protocol    {outcome.split}; {outcome.protocol}")
    for name, value in outcome.metrics.items():
        before = f"   (untrained {outcome.untrained[name]:.4f})" if outcome.untrained else ""
        print(f"{name:<11} {value:.4f}{before}")
    if outcome.details.get("filled_from_recipe"):
        print(f"not in the checkpoint's config, from its recipe: {', '.join(outcome.details['filled_from_recipe'])}")
    curve = outcome.details.get("loss_curve")
    if curve:
        print(f"loss        {json.dumps([round(v, 4) for v in curve[-5:]])} (last epochs)")
