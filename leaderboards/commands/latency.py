"""`onebit latency`: packed networks against a real-valued one, measured here and now."""

from __future__ import annotations

from onebit.leaderboards.commands.options import add_import, add_out, add_verb, comma_list, whole_number


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "latency",
        run,
        "measure packed networks against the real-valued ResNet-18",
        """\
onebit latency resnet18_reactnet dcp_nas_m
onebit latency resnet18_reactnet dcp_nas_m --threads 2
onebit latency resnet18_reactnet --features --input 800 1216 --repeat 10
onebit latency resnet18_reactnet --plan
onebit table latency""",
    )
    parser.add_argument("backbones", nargs="+", metavar="BACKBONE", help="1-bit backbones")
    parser.add_argument(
        "--input", nargs=2, type=whole_number(), default=(224, 224), metavar=("H", "W"), help="default: 224 224"
    )
    parser.add_argument("--classes", type=whole_number(), default=1000, metavar="N", help="default: 1000")
    parser.add_argument(
        "--features", action="store_true", help="no classifier: the backbone with all its scales, as a detector uses it"
    )
    parser.add_argument("--threads", type=whole_number(), default=1, metavar="N", help="of every engine; default: 1")
    parser.add_argument("--repeat", type=whole_number(2), default=50, metavar="N", help="inferences each; default: 50")
    parser.add_argument(
        "--engines",
        type=comma_list,
        metavar="E,E",
        help="that run the reference: torch, onnxruntime, openvino (default: all that are installed)",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print the steps of each packed network and the time of each; no comparison"
    )
    parser.add_argument("--no-record", action="store_true", help="print only; by default the run is recorded")
    add_out(parser)
    add_import(parser)


def run(args) -> int:
    import os
    import sys

    from onebit import backbones
    from onebit.commons.errors import InputError
    from onebit.leaderboards.recording.latency_record import record_run
    from onebit.leaderboards.running import latency
    from onebit.leaderboards.showing.latency_table import TABLE

    for name in args.backbones:
        if backbones.describe(name)["weight_bits"] != 1:
            raise InputError(f"{name} is not 1-bit: `onebit latency` packs 1-bit networks")
    if args.plan:
        from onebit.leaderboards.showing import formats
        from onebit.leaderboards.showing.plan_sheet import plan_sheet

        classes = None if args.features else args.classes
        shape = dict(size=tuple(args.input), classes=classes, threads=args.threads, repeat=args.repeat)
        print(formats.render([plan_sheet(name, **shape) for name in dict.fromkeys(args.backbones)], "text"), end="")
        return 0
    load = os.getloadavg()[0]
    classes = None if args.features else args.classes
    measured = latency.compete(
        list(dict.fromkeys(args.backbones)),
        size=tuple(args.input),
        classes=classes,
        threads=args.threads,
        repeat=args.repeat,
        engines=args.engines,
    )
    record = record_run(measured, size=args.input, classes=classes, threads=args.threads, load_before=load)
    sys.stdout.write(TABLE.render(TABLE.lines([record]), "text"))
    if load > 0.3 * (os.cpu_count() or 1):
        print(f"the machine was not idle before this run (load {load:.1f}): ratios may mislead")
    if not args.no_record:
        print(f"record: {record.save(args.out / 'records')}")
    return 0
