"""`onebit cell`: show a cell as text, picture, DARTS tuple or JSON; draw one at random."""

from __future__ import annotations

from pathlib import Path

from onebit.leaderboards.commands.options import add_verb, seed

_TUPLE = (".txt", ".py")
DERIVATIONS = ("top2", "all14")  # those of onebit.backbones.cells.genotype, without importing it for --help


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "cell",
        run,
        "show a searched cell and its picture, or draw one at random",
        """\
onebit cell show dcp_nas_imagenet
onebit cell show dcp_nas_imagenet --out cell.svg
onebit cell show cell.json --text
onebit cell show darts_v2.txt --out darts_v2.json
onebit cell random --seed 7 --out random_7.json""",
    )
    parser.add_argument("action", choices=("show", "random"))
    parser.add_argument(
        "cell",
        metavar="FILE_OR_NAME",
        nargs="?",
        help="of show: a cell that ships, a genotype's .json file, or a .txt file with the named tuple that "
        "DARTS and its successors publish",
    )
    parser.add_argument("--seed", type=seed, metavar="S", help="of random; default 0")
    parser.add_argument(
        "--derivation", choices=DERIVATIONS, help="of random: two edges into every node (the default), or all 14"
    )
    parser.add_argument("--text", action="store_true", help="print the named tuple of DARTS")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="draw both cells (.svg, .png), or write the genotype (.json)"
    )


def run(args) -> int:
    genotype = _random(args) if args.action == "random" else _shown(args)
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


def _shown(args):
    from onebit.commons.errors import InputError

    if args.cell is None:
        raise InputError("onebit cell show: which cell? Give its file or its name")
    for option in ("seed", "derivation"):
        if getattr(args, option) is not None:
            raise InputError(f"--{option} is an option of onebit cell random")
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
