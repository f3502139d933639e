"""The steps of a packed network, each with its time and the share of what the machine's loops can reach."""

from __future__ import annotations

from collections import Counter

from onebit.leaderboards.running.latency import packed_network, test_image, torch_threads
from onebit.leaderboards.showing.sheet import NOTHING, Cell, Column, Row, Sheet

_COLUMNS = [
    Column("step", "Step", numeric=False),
    Column("layer", "Layer", numeric=False),
    Column("kernel", "Kernel", numeric=False),
    Column("shape", "Output", numeric=False),
    Column("ms", "ms"),
    Column("rate", "GMAC/s"),
    Column("share", "Of the bound"),
]


def plan_sheet(name: str, *, size: tuple[int, int], classes: int | None, threads: int, repeat: int) -> Sheet:
    """The plan of the packed backbone ``name``; arguments as :func:`onebit.leaderboards.running.latency.compete`.

    Raises:
        InputError: the network runs module by module; the message says why.
    """
    from onebit.backbones.packed.lowering import timed_steps
    from onebit.packed.plan import peaks

    with torch_threads(threads):
        network, image = packed_network(name, classes), test_image(size)
        lines = timed_steps(network, image, repeat)
        bits, floats = peaks(threads)
    rows = []
    for number, line in enumerate(lines, 1):
        spent = (line.milliseconds or 0) / 1e3
        macs = line.bit_macs + line.float_macs
        bound = line.bit_macs / bits + line.float_macs / floats
        cells = [
            *(Cell(str(number)), Cell(line.name or "input"), Cell(line.kernel), Cell("x".join(map(str, line.shape)))),
            *(Cell(f"{1e3 * spent:.3f}"), Cell(f"{macs / spent / 1e9:.0f}" if macs else NOTHING)),
            Cell(f"{100 * bound / spent:.0f} %" if macs else NOTHING),
        ]
        rows.append(Row(cells, line))
    total = sum(line.milliseconds or 0 for line in lines)
    kernels: Counter[str] = Counter()
    for line in lines:
        kernels[line.kernel] += line.milliseconds or 0
    shares = ", ".join(f"{kernel} {100 * spent / total:.0f} %" for kernel, spent in kernels.most_common())
    remarks = [
        f"{name}, {size[0]}x{size[1]}, {threads} thread{'s' * (threads > 1)}: {len(lines)} steps, {total:.2f} ms one by "
        f"one, with the call of each from Python; medians of {repeat}",
        f"by kernel: {shares}",
        f"bounds: {bits / 1e9:.0f} GMAC/s of bits and {floats / 1e9:.0f} GMAC/s of floats, the innermost loops on "
        f"operands in the first cache{f', one thread times {threads}' if threads > 1 else ''}; table lookups (project) "
        "can go beyond that of floats",
    ]
    return Sheet(f"Plan of {name}", _COLUMNS, [rows], remarks=remarks)
