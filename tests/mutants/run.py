"""Puts single-point faults into the core, one by one, and counts those that the fast tests notice.

    python -m tests.mutants.run --sample 40 --seed $(git rev-parse HEAD) --floor 60
    python -m tests.mutants.run --sample 300 --only reid
    python -m tests.mutants.run --sample 300 --verdicts verdicts.jsonl    # goes on where it was stopped

The faults are those of :mod:`tests.mutants.operators`; the seed draws which are tried. ``JUDGES`` says which tests judge
a module. What survives is printed, and a table by area. ``harmless.yaml`` lists faults that change nothing that anybody
can see, with the reason; they are not tried. docs/testing.md says what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import yaml

from tests.mutants.operators import Mutant, mutants
from tests.mutants.trial import CONFTEST, ROOT, TIME_LIMIT, Trial, preload, run


def _of(path: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/{path}::{name}" for name in names)


def _flow(method: str) -> tuple[str, ...]:
    """Which images a search by ``method`` saw."""
    return _of(
        "classification/search/test_data_flow.py",
        f"test_weights_learn_on_training_images_and_architectures_on_validation_images[{method}]",
        f"test_evaluation_is_not_augmented_and_training_is[{method}]",
        f"test_an_epoch_takes_every_training_image_once_a_pass_and_others_in_another_order[{method}]",
        f"test_every_architecture_is_judged_by_all_evaluation_images[{method}]",
    )


_BINARIZERS = (
    *("tests/backbones/test_binarizers.py", "tests/backbones/test_losses.py"),
    "tests/backbones/test_progress_binarizers.py",
)
# Without those that start a process of their own, in which the fault is not.
_PACKED = (
    *_of(
        "backbones/packed/test_conv.py",
        "test_sums_are_exact",
        "test_output_is_that_of_the_training_convolution",
        "test_several_threads_give_the_same",
        "test_real_valued_activations_keep_their_convolution",
        "test_what_has_no_packed_form_is_refused",
        "test_bits_round_trip",
        "test_a_norm_before_the_sign_moves_its_threshold",
    ),
    "tests/backbones/packed/test_deploy.py",
    "tests/backbones/packed/test_plan.py",
)
_SEARCH = "tests/classification/search"
_SUPERNET = (f"{_SEARCH}/test_supernet.py", f"{_SEARCH}/test_strategies.py")
_GRADIENTS = (f"{_SEARCH}/test_strategies.py", f"{_SEARCH}/test_planted.py")
_SAMPLED = (f"{_SEARCH}/test_sampled.py", f"{_SEARCH}/test_strategies.py")
#: Modules of the core, and the tests that judge them, the nearest first. The first pattern that fits counts.
JUDGES: dict[str, tuple[str, ...]] = {
    "backbones/binarization/packing.py": ("tests/backbones/test_pack_activations.py",),
    "backbones/binarization/*.py": (*_BINARIZERS, "tests/backbones/test_onebit_conv.py"),
    "backbones/conv.py": (
        "tests/backbones/test_onebit_conv.py",
        "tests/backbones/test_pack_activations.py",
        *_BINARIZERS,
        "tests/backbones/test_resnet.py",
    ),
    "backbones/packed/file.py": ("tests/backbones/packed/test_file.py",),
    "backbones/packed/interchange.py": ("tests/leaderboards/test_export.py", "tests/backbones/packed/test_file.py"),
    "backbones/packed/*.py": _PACKED,
    "packed/container.py": ("tests/backbones/packed/test_file.py", "tests/packed/test_runtime.py"),
    "packed/*.py": (*_PACKED, "tests/packed/test_runtime.py"),
    "classification/search/architecture.py": _SUPERNET,
    "classification/search/bandits.py": (f"{_SEARCH}/test_bandits.py", f"{_SEARCH}/test_sampled.py"),
    "classification/search/config.py": (f"{_SEARCH}/test_config.py", f"{_SEARCH}/test_data.py"),
    "classification/search/curvature.py": (f"{_SEARCH}/test_curvature.py",),
    "classification/search/data.py": (f"{_SEARCH}/test_data.py", *_flow("darts")),
    "classification/search/decoupling.py": (f"{_SEARCH}/test_decoupling.py", f"{_SEARCH}/test_strategies.py"),
    "classification/search/depthwise.py": _SUPERNET,
    "classification/search/discrepancy.py": (f"{_SEARCH}/test_strategies.py", f"{_SEARCH}/test_curvature.py"),
    "classification/search/loop.py": (
        *_of(
            "classification/search/test_runner.py",
            "test_outcome_says_how_the_cell_was_found",
            "test_files_of_a_result",
            "test_losses_of_an_epoch_are_means_over_its_steps",
            "test_tensorboard_has_losses_and_scores",
            "test_same_seed_same_cell_other_seed_other_scores",
            "test_resume_refuses_what_another_search_left",
            "test_other_data_than_before_are_refused_when_a_search_is_resumed",
            "test_loss_that_is_not_a_number_ends_the_search",
            "test_full_disk_is_one_line",
            "test_half_precision_and_an_epoch_of_other_length",
            "test_float16_is_resumed_with_its_scale",
        ),
        *_flow("darts"),
    ),
    "classification/search/mixture.py": _SUPERNET,
    "classification/search/reconstruction.py": _GRADIENTS,
    "classification/search/space.py": _SUPERNET,
    "classification/search/straight_through.py": (f"{_SEARCH}/test_curvature.py",),
    "classification/search/supernet.py": (*_SUPERNET, f"{_SEARCH}/test_decoupling.py"),
    "classification/search/strategies/abanditnas.py": (*_SAMPLED, *_flow("abanditnas")),
    "classification/search/strategies/bnas.py": (*_SAMPLED, *_flow("bnas")),
    "classification/search/strategies/cp_nas.py": (*_SAMPLED, *_flow("cp-nas")),
    "classification/search/strategies/random.py": (*_SAMPLED, *_flow("random")),
    "classification/search/strategies/sampled.py": (*_SAMPLED, *_flow("cp-nas")),
    "classification/search/strategies/dcp_nas.py": (*_GRADIENTS, *_flow("dcp-nas")),
    "classification/search/strategies/pc_darts.py": (*_GRADIENTS, *_flow("pc-darts")),
    "classification/search/strategies/*.py": (*_GRADIENTS, *_flow("darts")),
    "classification/metrics.py": ("tests/classification/test_model.py", "tests/classification/test_predictions.py"),
    "detection/metrics.py": ("tests/detection/test_metrics.py", "tests/detection/test_known_ap.py"),
    "reid/evaluation/options.py": (
        "tests/reid/test_recipe.py",
        "tests/reid/test_scoring.py",
        "tests/reid/test_pictures.py",
    ),
    "reid/evaluation/*.py": (
        "tests/reid/test_evaluation.py",
        "tests/reid/test_evaluation_reranking.py",
        "tests/reid/test_pictures.py",
    ),
    "reid/scoring.py": ("tests/reid/test_scoring.py",),
    "leaderboards/recording/migration.py": ("tests/leaderboards/test_migration.py",),
    "leaderboards/recording/record.py": ("tests/leaderboards/test_record.py", "tests/leaderboards/test_bench.py"),
    "leaderboards/recording/verification.py": (
        "tests/leaderboards/test_verification.py",
        "tests/leaderboards/test_trust.py",
        *_of("leaderboards/test_ablations.py", "test_a_variant_is_told_from_its_record_alone[ablation-space]"),
    ),
    "leaderboards/showing/statistics.py": ("tests/leaderboards/test_statistics.py",),
}

#: What the modules are about, by the beginnings of their paths.
AREAS = {
    ("backbones/binarization/", "backbones/conv.py"): "binarizations and the 1-bit convolution",
    ("classification/search/",): "search",
    ("backbones/packed/", "packed/"): "packed inference, without compiled code",
    ("classification/metrics.py", "detection/metrics.py"): "metrics of classification and detection",
    ("reid/",): "re-identification's evaluation",
    ("leaderboards/recording/",): "records and their checks",
    ("leaderboards/showing/",): "statistics",
}

#: A minute of compilation for each fault: too slow to try.
_COMPILED = {f"packed/{name}.py" for name in ("_lookup", "_vector", "kernels")}


def core() -> dict[str, tuple[str, ...]]:
    """Every module of the core and its judges."""
    found: dict[str, tuple[str, ...]] = {}
    for pattern, judges in JUDGES.items():
        paths = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(pattern))]
        if not paths:
            raise ValueError(f"no module fits {pattern}")
        for path in sorted({*paths} - _COMPILED):
            found.setdefault(path, judges)
    return found


def harmless() -> dict[tuple[str, str, str], str]:
    """The faults that nobody can see: path, line and operator, with the reason."""
    entries = yaml.safe_load((ROOT / "tests/mutants/harmless.yaml").read_text(encoding="utf-8"))
    return {(entry["path"], entry["line"], entry["operator"]): entry["reason"] for entry in entries}


def draw(count: int | None, seed: str, only: str = "") -> list[Mutant]:
    """``count`` faults of the modules whose path begins with ``only``, or all."""
    known = harmless()
    every = [m for path in sorted(core()) if path.startswith(only) for m in mutants(path)]
    every = [mutant for mutant in every if (mutant.path, mutant.text, mutant.operator) not in known]
    return every if count is None else random.Random(seed).sample(every, min(count, len(every)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="how many faults are tried; all without it")
    parser.add_argument("--seed", default="0", help="draws them; any text, such as a commit's hash")
    parser.add_argument("--only", default="", metavar="PATH", help="faults of modules whose path begins with this")
    parser.add_argument(
        "--floor", type=float, default=0.0, metavar="PERCENT", help="exit with 1 when fewer are noticed"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument(
        "--verdicts", type=Path, metavar="FILE", help="keep each verdict here, and try no fault that has one"
    )
    parser.add_argument("--list", action="store_true", help="print the faults and try none")
    args = parser.parse_args()
    drawn = draw(args.sample, args.seed, args.only)
    if args.list:
        print("\n".join(f"{m.path}:{m.line}: {m.operator}: {m.text}" for m in drawn))
        return 0
    judges = core()
    trials = [Trial(m.path, m.tree(), judges[m.path]) for m in drawn]
    known = read_verdicts(args.verdicts)
    found = {number: known[key] for number, mutant in enumerate(drawn) if (key := _key(mutant)) in known}
    preload()
    open_ones = [number for number in range(len(drawn)) if number not in found]
    for place, name in run([trials[number] for number in open_ones], args.jobs):
        mutant = drawn[open_ones[place]]
        found[open_ones[place]] = name
        print(f"{mutant.path}:{mutant.line}: {mutant.operator}: {name or 'SURVIVES: ' + mutant.text}", flush=True)
        if args.verdicts:
            with args.verdicts.open("a", encoding="utf-8") as file:
                file.write(json.dumps([*_key(mutant), name]) + "\n")
    names = [found[number] for number in range(len(drawn))]
    print(table(drawn, names), flush=True)
    check(trials, found)
    survivors = names.count("")
    score = 100 * (1 - survivors / len(drawn))
    print(f"{len(drawn) - survivors} of {len(drawn)} noticed, {score:.1f} %; {survivors} survive")
    return score < args.floor


def _key(mutant: Mutant) -> tuple[str, int, str, str]:
    return mutant.path, mutant.number, mutant.text, mutant.operator


def read_verdicts(path: Path | None) -> dict[tuple[str, int, str, str], str]:
    """What noticed the faults of an earlier run, ``""`` for what survived, by path, number, line and operator."""
    lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
    return {tuple(key): name for *key, name in map(json.loads, lines)}


def table(drawn: list[Mutant], found: list[str]) -> str:
    """How many faults of each area were tried and how they ended, as Markdown; what noticed each is in ``found``."""
    counts: dict[str, Counter[str]] = {area: Counter() for area in [*AREAS.values(), "all"]}
    for mutant, name in zip(drawn, found, strict=True):
        for area in (next(area for paths, area in AREAS.items() if mutant.path.startswith(paths)), "all"):
            counts[area].update(["tried", name if name == TIME_LIMIT else "noticed" if name else "survive"])
    columns = ("tried", "noticed", TIME_LIMIT, "survive")
    lines = [f"| area | {' | '.join(columns).replace(TIME_LIMIT, 'over ' + TIME_LIMIT)} |", "|---|" + "---:|" * 4]
    lines += [f"| {area} | {' | '.join(str(count[c]) for c in columns)} |" for area, count in counts.items()]
    return "\n".join(lines)


def check(trials: list[Trial], found: dict[int, str]) -> None:
    """What noticed a fault passes without one; what could not be imported can be.

    pytest makes names from parameters, which may come from the faulty code: such names are passed over.

    Args:
        found: what noticed the fault of ``trials`` at a place.

    Raises:
        RuntimeError: something fails, so that its failure with a fault says nothing.
    """
    tests = {name.partition("::")[0] for name in found.values() if ".py" in name and name != CONFTEST}
    tests |= {judge for number, name in found.items() if name == CONFTEST for judge in trials[number].tests}
    whole = Trial("", "", tuple(sorted(tests)), only=frozenset(found.values()), limit=1200)
    for _, failed in run([whole] if tests else [], 1):
        if failed:
            raise RuntimeError(f"{failed} fails without a fault")


if __name__ == "__main__":
    sys.exit(main())
