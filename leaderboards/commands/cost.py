"""`onebit cost`: parameters, memory and operations of backbones or whole models."""

from __future__ import annotations

import argparse
from pathlib import Path

from onebit.leaderboards.commands.options import TASKS, add_detector, add_import, add_verb, comma_list, whole_number

CONVENTIONS = ("strict", "dcp-nas", "cp-nas", "mmdet-legacy")


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "cost",
        run,
        "count parameters, memory and operations by named conventions",
        """\
onebit cost resnet18_reactnet --classes 1000
onebit cost dcp_nas_s --convention dcp-nas --input 224 224 --classes 1000
onebit cost resnet18 resnet18_reactnet dcp_nas_s --classes 1000 --plot cost.svg
onebit cost resnet18 --task detection --input 600 1000 --classes 20 --proposals 1000 --convention mmdet-legacy
onebit cost dcp_nas_s --task detection --onebit-parts neck+rpn
onebit cost resnet18_reactnet --task detection --detector retinanet --onebit-parts neck+head
onebit cost dcp_nas_s --layers --format csv > layers.csv""",
    )
    parser.add_argument("backbones", nargs="+", metavar="BACKBONE", help="several are shown side by side")
    parser.add_argument(
        "--input", nargs=2, type=whole_number(), metavar=("H", "W"), help="default: the task's own input size"
    )
    parser.add_argument("--classes", type=whole_number(), metavar="N", help="add a classifier or head for N classes")
    parser.add_argument("--task", choices=TASKS, default="classification", help="count the whole model of a task")
    parser.add_argument("--stem", choices=("imagenet", "cifar"), help="classification: default imagenet")
    parser.add_argument(
        "--proposals", type=whole_number(), metavar="N", help="detection: boxes that the head sees, default 1000"
    )
    parser.add_argument(
        "--onebit-parts",
        metavar="P",
        help="detection: 1-bit parts beside the backbone: none, lateral (default of 1-bit backbones), neck, and neck+rpn "
        "of Faster R-CNN or neck+head of the others",
    )
    add_detector(parser, "faster_rcnn (default), retinanet or fcos")
    parser.add_argument(
        "--convention",
        type=_conventions,
        dest="conventions",
        metavar="C[,C...]",
        help=f"one or more of {', '.join(CONVENTIONS)} (docs/cost.md); default strict, in a "
        "picture strict and that of the papers",
    )
    parser.add_argument("--layers", action="store_true", help="one row per layer")
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw memory and operations by group of layers (.svg, .png)"
    )
    add_import(parser)


def _conventions(text: str) -> list[str]:
    names = list(dict.fromkeys(comma_list(text)))
    if set(names) - set(CONVENTIONS):
        raise argparse.ArgumentTypeError(f"invalid choice {text!r}; expected one or more of {', '.join(CONVENTIONS)}")
    return names


def run(args) -> int:
    from onebit.leaderboards.boards import paper_convention

    _check(args)
    conventions = args.conventions or (["strict", paper_convention(args.task)] if args.plot else ["strict"])
    names = list(dict.fromkeys(args.backbones))
    counted = [(name, _count(args, name, one)) for name in names for one in conventions]
    if args.plot:
        from onebit.backbones.cost.drawing import draw_costs

        draw_costs(counted, args.plot)
    print(_format(counted, args))
    return 0


def _check(args) -> None:
    from onebit.commons import guards
    from onebit.commons.errors import InputError

    of_task = {"proposals": "detection", "onebit_parts": "detection", "detector": "detection", "stem": "classification"}
    for option, task in of_task.items():
        if getattr(args, option) is not None and args.task != task:
            raise InputError(f"--{option.replace('_', '-')} goes with --task {task}")
    if args.plot:
        guards.suffix("--plot", args.plot, (".svg", ".png"))


def _count(args, backbone: str, convention: str):
    from onebit.leaderboards.boards import runner

    names = ("stem", "proposals", "onebit_parts", "detector")
    options = {name: getattr(args, name) for name in names}
    return runner(args.task).model_cost(
        backbone,
        convention=convention,
        input_size=tuple(args.input) if args.input else None,
        num_classes=args.classes,
        **{key: value for key, value in options.items() if value is not None},
    )


def _format(counted, args) -> str:
    import json

    import pandas as pd

    if args.format == "json":
        contents = []
        for name, cost in counted:
            layers = {"layers": cost.table()} if args.layers else {}
            contents.append({"backbone": name, "task": args.task, **cost.summary(), **layers})
        return json.dumps(contents[0] if len(contents) == 1 else contents, indent=1)
    if args.format == "csv":
        rows = [
            {"backbone": name, "convention": cost.convention, **row}
            for name, cost in counted
            for row in (cost.table() if args.layers else [cost.summary()])
        ]
        return pd.DataFrame(rows).to_csv(index=False).rstrip("\n")
    return "\n\n".join(_text(name, cost, args) for name, cost in counted)


def _text(name: str, cost, args) -> str:
    import pandas as pd

    from onebit.backbones.cost.conventions import BOPS_PER_FLOP

    layers = pd.DataFrame(cost.table())
    lines = [layers.to_string(index=False), ""] if args.layers else []
    total = cost.params_1bit + cost.params_real
    lines += [
        f"{name}, {args.task}, convention {cost.convention}",
        f"  parameters  {total / 1e6:12.3f} M     ({cost.params_1bit / 1e6:.3f} M stored in 1 bit)",
        f"  memory      {cost.memory_bits / 1e6:12.2f} Mbit  ({cost.memory_bits / 8e6:.2f} MB)",
        f"  FLOPs       {cost.flops / 1e6:12.2f} M",
        f"  BOPs        {cost.bops / 1e6:12.2f} M",
        f"  OPs         {cost.ops / 1e6:12.2f} M     (FLOPs + BOPs/{BOPS_PER_FLOP[cost.convention]})",
    ]
    return "\n".join(lines)
