"""How long a table over 2,000 records takes, from the command line to the last byte.

    python tests/benchmarks/bench_table.py [--runs 5]

400 lines of five seeds, copies of a shipped record with other values. Prints wall and CPU seconds of
each run: on a busy machine the CPU time is the one to read.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from leaderboards.record import load_all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    base = next(load_all(ROOT / "leaderboards/records", "cifar10"))
    generator = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(400):
            for seed in range(5):
                metrics = {"top1": generator.random(), "top5": generator.random()}
                changed = dict(backbone=f"net{i}", seed=seed, metrics=metrics)
                base.model_copy(update=changed).save(Path(folder) / "records")
        for form in ("csv", "text", "html"):
            command = [sys.executable, "-m", "leaderboards.cli", "table", base.dataset]
            command += ["--format", form, "--out", folder]
            for _ in range(runs):
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                start = time.perf_counter()
                subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
                wall = time.perf_counter() - start
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                print(f"{form:5} wall {wall:.2f} s, CPU {cpu:.2f} s", flush=True)


if __name__ == "__main__":
    main()
