"""Score every committed row again whose files exist, and train one committed mini row again.

    python .ci/trust.py [--work-dir W] [--data DIR] [--rows N]

The row is drawn by the commit's hash, so that nobody chooses it and everybody can repeat it. Only rows that
train within two minutes on two cores are drawn.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from onebit.commons.datasets import DATASETS
from onebit.leaderboards import cli
from onebit.leaderboards.boards import ALL
from onebit.leaderboards.recording.record import Record
from onebit.leaderboards.recording.verification import missing_files

RECORDS = Path(__file__).resolve().parents[1] / "leaderboards" / "records"
#: Recorded seconds of a row that may be drawn.
LONGEST = 100.0
#: How far a metric may be off, as a fraction: a processor with other instructions sums in another order, and a
#: training takes such a difference further. On one processor a mini-cuhk03 row had 3 of 60 queries less among the first
#: five than on another. What the retraining says tells whether it was exact.
TOLERANCE = 0.1


def rows() -> list[Record]:
    return [r for board in ALL for r in Record.load_all(RECORDS, board) if r.status == "done" and r.origin == "trained"]


def drawn(found: list[Record], count: int) -> list[Record]:
    short = [
        r for r in found if DATASETS[r.dataset].kind == "drawn" and r.wall_seconds <= LONGEST and not r.cfg_options
    ]
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RECORDS, check=False)
    print(f"{len(short)} mini rows train within {LONGEST:.0f} s; drawn by commit {done.stdout.strip()[:12] or 'none'}:")
    return random.Random(done.stdout.strip()).sample(short, min(count, len(short)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs"), help="where kept files of rows lie")
    parser.add_argument("--data", type=Path, help="datasets of these rows; what is drawn is drawn afresh")
    parser.add_argument("--rows", type=int, default=1, help="rows to train again")
    args = parser.parse_args()
    out = ["--records", str(RECORDS)]
    found = rows()
    whole = [r for r in found if not missing_files(r, args.work_dir)]
    print(f"{len(whole)} of {len(found)} committed rows have their checkpoint and predictions below {args.work_dir}")
    codes = []
    if whole:
        data = ["--data", str(args.data)] if args.data else []
        paths = [str(r.path) for r in whole]
        codes.append(cli.main(["verify", *paths, "--rescore", "--work-dir", str(args.work_dir), *out, *data]))
    with tempfile.TemporaryDirectory() as data:
        for record in drawn(found, args.rows):
            cli.main(["data", "mini", data, "--only", record.dataset])
            codes.append(
                cli.main(["verify", "--retrain", record.path.stem, "--tolerance", str(TOLERANCE), "--data", data, *out])
            )
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
