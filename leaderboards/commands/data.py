"""`onebit data`: write the mini datasets, map COCO 2014."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_import, add_verb, comma_list


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "data",
        run,
        "write the mini datasets; map COCO 2014 to the 2017 layout",
        """\
onebit data mini data
onebit data mini data --only mini-voc,mini-cifar10
onebit data coco2014 data/coco""",
    )
    parser.add_argument(
        "what",
        choices=("mini", "coco2014"),
        help="mini: procedural, seeded, checksummed; coco2014: trainval35k and minival of COCO 2014 in the names of 2017",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="mini: becomes a data root; coco2014: the folder with annotations/"
    )
    parser.add_argument("--only", type=comma_list, metavar="A,B", help="mini: these datasets only")
    add_import(parser)


def run(args) -> int:
    return _map_coco(args) if args.what == "coco2014" else _write_mini(args)


def _map_coco(args) -> int:
    from onebit.commons.coco2014 import convert
    from onebit.commons.errors import InputError

    if args.only:
        raise InputError("--only goes with `onebit data mini`")
    for split, images in convert(args.folder).items():
        print(f"{split:<10} {images} images, {args.folder}/annotations/instances_{split}.json")
    return 0


def _write_mini(args) -> int:
    from onebit.commons.mini import write

    for name, written in write(args.folder, args.only):
        print(f"{name:<20} {'written to' if written else 'complete in'} {args.folder / name}")
    print(f"use them with --data {args.folder} or ONEBIT_DATA={args.folder}")
    return 0
