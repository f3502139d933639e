"""`onebit cost`: parameters, memory and operations of a backbone or a whole model."""

from __future__ import annotations

from leaderboards.commands.options import TASKS, add_import, add_verb

CONVENTIONS = ("strict", "dcp-nas", "cp-nas", "mmdet-legacy")


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "cost",
        run,
        "count parameters, memory and operations under a named convention",
        """\
onebit cost resnet18_reactnet --classes 1000
onebit cost dcp_nas_s --convention dcp-nas --input 224 224 --classes 1000
onebit cost resnet18 --task detection --input 600 1000 --classes 20 --convention mmdet-legacy
onebit cost dcp_nas_s --layers --format csv > layers.csv""",
    )
    parser.add_argument("backbone", metavar="BACKBONE")
    parser.add_argument("--input", nargs=2, type=int, metavar=("H", "W"), help="default: the task's own input size")  # fmt: skip
    parser.add_argument("--classes", type=int, metavar="N", help="add a classifier or head for N classes")  # fmt: skip
    parser.add_argument("--task", choices=TASKS, default="classification", help="count the whole model of a task")  # fmt: skip
    parser.add_argument("--convention", choices=CONVENTIONS, default="strict", help="see docs/cost.md")  # fmt: skip
    parser.add_argument("--layers", action="store_true", help="one row per layer")
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text")
    add_import(parser)


def run(args) -> int:
    from commons.errors import InputError

    if args.input and min(args.input) < 1:
        raise InputError(f"--input takes two sizes from 1 up, got {args.input[0]} {args.input[1]}")
    if args.classes is not None and args.classes < 1:
        raise InputError(f"--classes takes a number from 1 up, got {args.classes}")
    print(_format(_count(args), args))
    return 0


def _count(args):
    import importlib

    return importlib.import_module(f"{args.task}.cost").model_cost(
        args.backbone,
        convention=args.convention,
        input_size=tuple(args.input) if args.input else None,
        num_classes=args.classes,
    )


def _format(cost, args) -> str:
    import json

    import pandas as pd

    if args.format == "json":
        content = cost.summary()
        if args.layers:
            content["layers"] = cost.table()
        return json.dumps(content, indent=1)
    layers = pd.DataFrame(cost.table())
    if args.format == "csv":
        frame = layers if args.layers else pd.DataFrame([cost.summary()])
        return frame.to_csv(index=False).rstrip("\n")
    lines = [layers.to_string(index=False), ""] if args.layers else []
    total = cost.params_1bit + cost.params_real
    lines += [
        f"{args.backbone}, {args.task}, convention {args.convention}",
        f"  parameters  {total / 1e6:12.3f} M     ({cost.params_1bit / 1e6:.3f} M stored in 1 bit)",
        f"  memory      {cost.memory_bits / 1e6:12.2f} Mbit  ({cost.memory_bits / 8e6:.2f} MB)",
        f"  FLOPs       {cost.flops / 1e6:12.2f} M",
        f"  BOPs        {cost.bops / 1e6:12.2f} M",
        f"  OPs         {cost.ops / 1e6:12.2f} M     (FLOPs + BOPs/64)",
    ]
    return "\n".join(lines)
