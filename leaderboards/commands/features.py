"""`onebit features`: a re-identification network over a folder of images."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_import, add_verb, whole_number


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "features",
        run,
        "write the features of images, by a re-ID checkpoint",
        """\
onebit features --checkpoint run/epoch_120.pth --images crops --out crops.safetensors""",
    )
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="C")
    parser.add_argument(
        "--images", required=True, type=Path, metavar="DIR", help="looked through with the folders below it"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="ends in .safetensors; docs/reid.md says what is in it"
    )
    parser.add_argument(
        "--batch-size", type=whole_number(), default=64, metavar="N", help="images at a time (default 64)"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="processes that read images (default 0: this one)",
    )
    add_import(parser)


def run(args) -> int:
    from onebit.reid.features_folder import features_of_folder

    found = features_of_folder(args.checkpoint, args.images, args.out, args.batch_size, args.workers)
    count, dimensions = found.features.shape
    print(f"{args.out}: {count} images, {dimensions} numbers each")
    return 0
