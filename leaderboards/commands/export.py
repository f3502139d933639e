"""`onebit export`: a network as a file for inference."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_import, add_verb, whole_number

FORMATS = ("packed", "onnx", "openvino")


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "export",
        run,
        "write a network for inference, 1-bit weights as bits",
        """\
onebit export run/epoch_6.pth --to packed net.safetensors
onebit export dcp_nas_m --classes 1000 --to packed dcp_nas_m.safetensors
onebit export run/epoch_6.pth --to packed net.safetensors --plan 32 32 --plan 64 64
onebit export run/epoch_6.pth --to onnx net.onnx
onebit export detector.pth --whole detector.safetensors
onebit export resnet18_reactnet --to packed small.safetensors --real float16""",
    )
    parser.add_argument(
        "source",
        metavar="BACKBONE|CHECKPOINT",
        help="a backbone's name (then the weights are untrained), or a checkpoint that `onebit "
        "train` or `onebit bench` wrote; of detectors and re-ID models the backbone is exported, or all with --whole",
    )
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.add_argument("--to", choices=FORMATS, default="packed", help="default: packed")
    parser.add_argument(
        "--whole",
        action="store_true",
        help="packed only: all of a detector or re-ID model, as `onebit predict` takes it, and not its backbone alone",
    )
    parser.add_argument("--classes", type=whole_number(), metavar="N", help="add an untrained classifier to a BACKBONE")
    parser.add_argument("--stem", choices=("imagenet", "cifar"), default="imagenet", help="of a BACKBONE")
    parser.add_argument(
        "--real",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="packed only: how real-valued weights are stored; all but float32 change the output",
    )
    parser.add_argument(
        "--input",
        nargs=2,
        type=whole_number(),
        metavar=("H", "W"),
        help="the size of the image (default: 224 224, or 32 32 for the cifar stem)",
    )
    parser.add_argument(
        "--plan",
        nargs=2,
        type=whole_number(),
        action="append",
        metavar=("H", "W"),
        help="packed only, repeatable: a size of images that the file can be run for without torch (default: the size "
        "of training where it is known, else as --input)",
    )
    parser.add_argument(
        "--no-plan", action="store_true", help="packed only: the file needs torch, and is a little smaller"
    )
    add_import(parser)


def run(args) -> int:
    from onebit import backbones
    from onebit.backbones import packed
    from onebit.commons.errors import InputError
    from onebit.leaderboards.running.sources import load_network

    if args.real != "float32" and args.to != "packed":
        raise InputError(f"--real {args.real} goes with --to packed only")
    if (args.plan or args.no_plan) and (args.to != "packed" or args.whole):
        raise InputError("--plan and --no-plan go with --to packed, without --whole")
    if args.plan and args.no_plan:
        raise InputError("--plan and --no-plan exclude each other")
    if args.whole:
        return _whole(args)
    network, about, trained = load_network(args.source, classes=args.classes, stem=args.stem)
    if not trained:
        print(f"{args.source}: a backbone's name, so its weights are untrained")
    if args.to == "packed":
        deployed = packed.deploy(network)
        plans = _plans(args, about, deployed)
        path = packed.save(deployed, about, args.file, args.real, plans=plans)
        strict = backbones.cost(network, _shape(args, about)).memory_bits
        size = path.stat().st_size
        print(
            f"{path}: {size * 8 / 1e6:.2f} Mbit ({size / 1e6:.2f} MB); strict memory "
            f"{strict / 1e6:.2f} Mbit, so the file takes {size * 8 / strict:.3f} of it"
        )
        if plans:
            sizes = ", ".join(f"{height}x{width}" for height, width in plans)
            print(f"onebit.packed.load runs it without torch, on images of {sizes}")
        return 0
    from onebit.backbones.packed import interchange

    if args.to == "onnx":
        path = interchange.save_onnx(network, _shape(args, about)[1:], args.file)
    else:
        path = interchange.save_openvino(network, _shape(args, about)[1:], args.file)
        fault = interchange.binary_convolution_fault()
        reason = fault or "this exporter does not emit it"
        print(f"OpenVINO's 1-bit convolution is not used: {reason}")
    print(f"{path}: 32-bit weights and arithmetic, for compatibility; no smaller and no faster")
    return 0


def _plans(args, about, network) -> list[tuple[int, int]]:
    """Sizes of images that the file can be run for without torch."""
    from onebit.backbones.packed.lowering import NoSteps, steps_of

    if args.no_plan:
        return []
    if args.plan:
        return [(height, width) for height, width in args.plan]
    size = about.get("prediction", {}).get("images", {}).get("size")
    height, width = (size, size) if size else _shape(args, about)[1:]
    try:
        steps_of(network, (3, height, width))
    except NoSteps as reason:
        print(f"the file needs torch to run: {reason}")
        return []
    return [(height, width)]


def _whole(args) -> int:
    """A detector or re-ID model as one packed file."""
    from onebit.commons import guards
    from onebit.commons.errors import InputError
    from onebit.commons.task import require_offered
    from onebit.leaderboards.boards import runner
    from onebit.leaderboards.predicting import task_of

    if args.to != "packed" or args.classes is not None:
        raise InputError("--whole goes with --to packed and a checkpoint")
    source = guards.file("checkpoint", args.source)
    task = runner(task_of(source))
    require_offered(task, "pack")
    path = task.pack(source, args.file, args.real)
    before, after = source.stat().st_size, path.stat().st_size
    print(f"{path}: {after / 1e6:.2f} MB; the checkpoint, with its optimizer, takes {before / 1e6:.2f} MB")
    return 0


def _shape(args, about) -> tuple[int, int, int]:
    size = 32 if about["backbone"].get("stem") == "cifar" else 224
    return (3, *(args.input or (size, size)))
