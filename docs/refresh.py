"""Make what the repository derives from its records again.

    python docs/refresh.py            after new records: tables, also those in pages, and the README's picture
    python docs/refresh.py --check    only say what is out of date; exit code 1 if anything is

`leaderboards/tables/*.csv` is written for every name that is there. In README.md and docs/*.md a line
`<!-- onebit table ... -->` is followed by that command's output up to `<!-- end -->`, and
`<!-- onebit plot ... -->` names the command that draws the picture below it; --check leaves pictures
alone, whose bytes depend on matplotlib's version.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onebit.commons.files import write_atomic
from onebit.leaderboards import cli

_TABLE = re.compile(r"(<!-- (onebit table [^\n]*) -->\n).*?(<!-- end -->)", re.DOTALL)
_PLOT = re.compile(r"<!-- (onebit plot [^\n]*) -->")


def output(command: str) -> str:
    """What an `onebit` command prints, run in the repository's root."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        code = cli.main(shlex.split(command)[1:])
    if code:
        raise SystemExit(code)
    return stream.getvalue()


def page(text: str) -> str:
    """A page with its tables as the commands print them now."""
    return _TABLE.sub(lambda m: f"{m.group(1)}\n{output(m.group(2))}\n{m.group(3)}", text)


def stale() -> list[tuple[Path, str]]:
    """Files whose content differs from what it should be, with what it should be."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    wanted = {path: page(path.read_text(encoding="utf-8")) for path in pages}
    for path in sorted((ROOT / "leaderboards/tables").glob("*.csv")):
        wanted[path] = output(f"onebit table {path.stem} --format csv --no-reported")
    return [(p, text) for p, text in wanted.items() if p.read_text(encoding="utf-8") != text]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    os.chdir(ROOT)
    found = stale()
    for path, text in found:
        print(f"{path.relative_to(ROOT)}: {'out of date' if check else 'written'}")
        if not check:
            write_atomic(path, text)
    if check:
        return 1 if found else 0
    for command in _PLOT.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        print(output(command), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
