"""`onebit cell`: show a cell as text, picture, DARTS tuple or JSON; derive one from scores; draw one at random."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_verb, seed, whole_number

_TUPLE = (".txt", ".py")
DERIVATIONS = ("top2", "all14")  # those of onebit.backbones.cells.genotype, without importing it for --help


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "cell",
        run,
        "show a cell, derive one from scores, or draw one at random",
        """\
onebit cell show dcp_nas_imagenet
onebit cell show dcp_nas_imagenet --out cell.svg
onebit cell show cell.json --text
onebit cell show darts_v2.txt --out darts_v2.json
onebit cell derive cell.scores.npz --derivation all14 --out all14.json
onebit cell derive cell.scores.npz --epoch 20 --keep-none
onebit cell random --seed 7 --out random_7.json""",
    )
    parser.add_argument("action", choices=("show", "derive", "random"))
    parser.add_argument(
        "cell",
        metavar="FILE_OR_NAME",
        nargs="?",
        help="of show: a cell that ships, a genotype's .json file, or a .txt file with the named tuple that "
        "DARTS and its successors publish; of derive: the .scores.npz file that `onebit search` writes beside a cell",
    )
    parser.add_argument("--seed", type=seed, metavar="S", help="of random; default 0")
    parser.add_argument(
        "--derivation",
        choices=DERIVATIONS,
        help="of random and derive: two edges into every node, or all 14; default: two of random, of derive as in the "
        "search",
    )
    parser.add_argument(
        "--keep-none",
        action="store_true",
        default=None,
        help="of derive: an edge may keep the operation none where it scores highest",
    )
    parser.add_argument(
        "--epoch",
        type=whole_number(),
        metavar="N",
        help="of derive: the scores after epoch N, from 1; default: the last",
    )
    parser.add_argument("--text", action="store_true", help="print the named tuple of DARTS")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="draw both cells (.svg, .png), or write the genotype (.json)"
    )


def run(args) -> int:
    _refuse_options_of_others(args)
    genotype = {"show": _shown, "derive": _derived, "random": _random}[args.action](args)
    written = _write(genotype, args.out) if args.out else None
    print(genotype.to_text() if args.text else _description(genotype))
    if written and not args.text:
        print(f"written     {written}")
    return 0


def _random(args):
    from onebit.backbones import Genotype
    from onebit.commons.errors import InputError

    if args.cell is not None:
        raise InputError(f"onebit cell random draws a cell; it takes no {args.cell!r}")
    return Genotype.random(args.seed or 0, args.derivation or DERIVATIONS[0])


#: Options to the actions that take them.
_OF = {"seed": ("random",), "derivation": ("derive", "random"), "keep_none": ("derive",), "epoch": ("derive",)}


def _refuse_options_of_others(args) -> None:
    from onebit.commons.errors import InputError

    for option, actions in _OF.items():
        if getattr(args, option) is not None and args.action not in actions:
            name = option.replace("_", "-")
            raise InputError(f"--{name} is an option of onebit cell {' and '.join(actions)}")


def _derived(args):
    from onebit.backbones.cells.score_history import ScoreHistory
    from onebit.commons.errors import InputError

    if args.cell is None:
        raise InputError("onebit cell derive: from which scores? Give the .scores.npz file of a search")
    scores = ScoreHistory.load(args.cell)
    try:
        return scores.derive(args.derivation, args.keep_none, args.epoch)
    except InputError as error:
        raise InputError(f"{args.cell}: {error}") from None


def _shown(args):
    from onebit.commons.errors import InputError

    if args.cell is None:
        raise InputError("onebit cell show: which cell? Give its file or its name")
    return _read(args.cell)


def _write(genotype, path: Path) -> Path:
    if path.suffix.lower() == ".json":
        return genotype.save(path)
    from onebit.backbones.cells.drawing import draw_cells
    from onebit.commons import guards

    guards.suffix("--out", path, (".svg", ".png", ".json"))
    return draw_cells(genotype, path)


def _read(name: str):
    from onebit.backbones import Genotype, cells
    from onebit.backbones.cells.genotype import LARGEST
    from onebit.commons.errors import InputError
    from onebit.commons.files import read_small

    path = Path(name)
    if name in cells.list_cells():
        return cells.load_cell(name)
    if path.suffix in _TUPLE:
        try:
            text = read_small(path, LARGEST).decode()
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"no file {path}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise InputError(f"could not read {path}: {reason}") from None
        return Genotype.from_text(text, {"source": f"the file {path.name}"}, where=str(path))
    if path.suffix == ".json" or path.exists():
        return Genotype.load(path)
    known = ", ".join(cells.list_cells())
    raise InputError(f"no cell {name!r}: neither a file nor one of the cells that ship, which are {known}")


def _description(genotype) -> str:
    from onebit.backbones.cells.genotype import INPUT_NODES

    names = ["c_{k-2}", "c_{k-1}", "0", "1", "2", "3"]
    lines = []
    for title, cell in (("normal cell", genotype.normal), ("reduction cell", genotype.reduce)):
        lines.append(title)
        for number, edges in enumerate(cell, INPUT_NODES):
            lines += [f"  {names[source]:>7} -> {names[number]}  {operation}" for operation, source in edges]
    lines.append(f"derivation  {genotype.derivation} ({sum(map(len, genotype.normal))} edges per cell)")
    lines.append(f"hash        {genotype.hash}")
    lines += [f"{key:<11} {value}" for key, value in genotype.provenance.items()]
    return "\n".join(lines)
