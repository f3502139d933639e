"""`onebit backbones`: the names, with parameters and cost."""

from __future__ import annotations

from onebit.leaderboards.commands.options import add_import, add_verb


def configure(verbs) -> None:
    parser = add_verb(
        verbs,
        "backbones",
        run,
        "list the backbone names, one a line, with parameters and cost",
        """\
onebit backbones
onebit backbones 'resnet18*'""",
    )
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="as in a shell; default: *")
    add_import(parser)


def run(args) -> int:
    import gc

    from onebit import backbones
    from onebit.commons.errors import InputError

    names = backbones.list_backbones(args.pattern)
    gc.freeze()  # else Python looks through all of torch again and again, a third of the time
    if not names:
        raise InputError(f"no backbone matches {args.pattern!r}; `onebit backbones` lists all")
    width = max(map(len, names))
    print(
        f"{'name':<{width}}  {'params M':>8}  {'1-bit %':>7}  {'Mbit':>7}  {'M OPs':>7}   (strict, 3x224x224, without classifier)"
    )
    for name in names:
        c = backbones.cost(name, (3, 224, 224))
        params = c.params_1bit + c.params_real
        print(
            f"{name:<{width}}  {params / 1e6:8.3f}  {100 * c.params_1bit / params:7.1f}"
            f"  {c.memory_bits / 1e6:7.1f}  {c.ops / 1e6:7.1f}",
            flush=True,
        )
    return 0
