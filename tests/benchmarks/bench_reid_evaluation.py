"""Re-ID evaluation at the size of Market-1501 against torchreid's: time, growth, memory.

    python tests/benchmarks/bench_reid_evaluation.py [--threads 2] [--divide 4] [--reranking] [--skip-torchreid]

Features and labels are drawn: 750 people under 6 cameras and distractors, 3,368 queries and 19,732
gallery images, none of them junk, which torchreid's function does not know. torchreid's
`evaluate_rank` runs once over all of it, on the distances that ours gets too. Beside other work, the
ratio of processor times means more than that of the clock: nothing here waits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def early(option: str, default: str) -> str:
    """The value of an option that is needed before the others are read."""
    return next((sys.argv[n + 1] for n, a in enumerate(sys.argv[:-1]) if a == option), default)


THREADS, DIVIDE = early("--threads", "2"), early("--divide", "1")
os.environ["OMP_NUM_THREADS"] = THREADS  # numpy reads it when it is imported

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from onebit.reid.evaluation import Scores, evaluate, evaluate_distances
from onebit.reid.evaluation.distances import distance_chunks, prepared
from onebit.reid.evaluation.reranking import ReRanking

PEOPLE, CAMERAS = 750, 6
#: Of the gallery, OF_PEOPLE images show the 750 people; the other ones are distractors.
QUERIES, GALLERY, OF_PEOPLE = (count // int(DIVIDE) for count in (3368, 19732, 13115))


def drawn(
    dimensions: int, queries: int = QUERIES, images: int = OF_PEOPLE, distractors: int = GALLERY - OF_PEOPLE
) -> tuple[np.ndarray, ...]:
    """Features [Q, D] and [G, D] in float32; identities and cameras of both, torchreid's order."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((PEOPLE + 1, dimensions), dtype=np.float32)
    query_pids = rng.integers(1, PEOPLE + 1, queries)
    gallery_pids = np.concatenate([rng.integers(1, PEOPLE + 1, images), np.zeros(distractors, np.int64)])
    rng.shuffle(gallery_pids)

    def features(pids: np.ndarray) -> np.ndarray:
        found = rng.standard_normal((len(pids), dimensions), dtype=np.float32)
        found *= 3
        for start in range(0, len(pids), 4096):
            found[start : start + 4096] += centres[pids[start : start + 4096]]
        return found

    cameras = (rng.integers(0, CAMERAS, len(pids)) for pids in (query_pids, gallery_pids))
    return (features(query_pids), features(gallery_pids), query_pids, gallery_pids, *cameras)


def timed(work: Callable, repeat: int = 1) -> tuple[dict[str, float], object]:
    """Seconds by the clock and of the processor of the fastest of ``repeat``, and the result."""
    best, result = None, None
    for _ in range(repeat):
        start, cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        if best is None or seconds["wall"] < best["wall"]:
            best = seconds
    return best, result


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of(dimensions: int, reranking: bool) -> dict[str, float]:
    """Peak resident memory in MiB: of drawn features alone, and after scoring them."""
    case = drawn(dimensions)
    before = peak_mib()
    evaluate(*case, reranking=ReRanking() if reranking else None)
    return {"features_mib": before, "peak_mib": peak_mib()}


def measure_memory(dimensions: int, reranking: bool) -> dict[str, float]:
    command = [sys.executable, __file__, "--threads", THREADS, "--divide", DIVIDE, "--memory-of", str(dimensions)]
    done = subprocess.run(command + ["--reranking"] * reranking, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def difference(ours: Scores, theirs: tuple[np.ndarray, float]) -> float:
    """Largest difference of any metric to torchreid's."""
    cmc, mean_ap = theirs
    curve = np.array([ours.cmc[k] for k in sorted(ours.cmc)])
    return float(max(np.abs(curve - cmc).max(), abs(ours.mean_average_precision - mean_ap)))


def compare(case: tuple, args: argparse.Namespace, report: Callable) -> None:
    """Ours from features and from distances, torchreid's from the same distances."""
    labels = case[2:]
    from_features, scores = timed(lambda: evaluate(*case), args.repeat)
    report("ours, from features", from_features)
    print(f"mAP {scores.mean_average_precision:.4f}, rank-1 {scores.cmc[1]:.4f}")
    parts = np.split(prepared(*case[:2], "euclidean"), [QUERIES])
    matrix = np.concatenate([*distance_chunks(*parts, "euclidean")])
    del parts
    from_distances, ours = timed(lambda: evaluate_distances(matrix, *labels, ranks=range(1, 51)), args.repeat)
    report("ours, from distances", from_distances)
    if args.skip_torchreid:
        return
    from onebit.reid.torchreid_adapter import evaluate_rank

    theirs, result = timed(lambda: evaluate_rank(matrix, *labels, max_rank=50))
    report("torchreid, from distances", theirs)
    for name, seconds in (("features", from_features), ("distances", from_distances)):
        ratio = {clock: theirs[clock] / seconds[clock] for clock in seconds}
        print(f"torchreid over ours from {name}: {ratio['wall']:.0f} ({ratio['cpu']:.0f} by CPU)")
    print(f"largest difference of mAP and CMC 1 to 50: {difference(ours, result):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", default="2", help="of the matrix product; the rest has one")
    parser.add_argument("--divide", type=int, default=1, help="all image counts by this")
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=3, help="of ours; torchreid's runs once")
    parser.add_argument("--reranking", action="store_true", help="time and memory of it, too")
    parser.add_argument("--skip-torchreid", action="store_true")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(memory_of(args.memory_of, args.reranking)))
        return

    # First, while this process is small: a child's peak starts from its parent's size.
    memories = [(d, r, measure_memory(d, r)) for d in (512, 2048) for r in (False, True)[: 1 + args.reranking]]
    print("peak memory:")
    for dimensions, reranking, memory in memories:
        name = f"  {dimensions} dimensions{', re-ranked' if reranking else ''}"
        print(f"{name:30}{memory['peak_mib']:7.0f} MiB, of which before scoring {memory['features_mib']:5.0f}")
    print(
        f"{QUERIES} queries, {GALLERY} gallery images, {args.dimensions} dimensions, "
        f"{THREADS} threads, numpy {np.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    million = QUERIES * GALLERY / 1e6

    def report(name: str, seconds: dict[str, float], pairs: float = million) -> None:
        print(
            f"{name:52}{seconds['wall']:9.2f} s{seconds['cpu']:9.2f} s CPU"
            f"{1000 * seconds['wall'] / pairs:9.1f} ms ({1000 * seconds['cpu'] / pairs:.1f} CPU) per million",
            flush=True,
        )

    case = drawn(args.dimensions)
    compare(case, args, report)
    if args.reranking:
        report("ours, re-ranked", timed(lambda: evaluate(*case, reranking=ReRanking()))[0])
    del case

    few = 300
    print(f"growth, {few} queries:")
    for name, images, distractors in (
        ("gallery as it is", 1, 1),
        ("ten times the distractors and images of people", 10, 10),
        ("distractors make it ten times as large", 1, 0),
    ):
        images *= OF_PEOPLE
        distractors = distractors * (GALLERY - OF_PEOPLE) or 10 * GALLERY - images
        case = drawn(args.dimensions, few, images, distractors)
        seconds, _ = timed(lambda case=case: evaluate(*case), args.repeat)
        report(f"  {len(case[1])}: {name}", seconds, few * len(case[1]) / 1e6)


if __name__ == "__main__":
    main()
