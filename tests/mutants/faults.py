"""Single faults that a suite of tests must notice, and a command that puts them in one by one.

    python -m tests.mutants.faults                    every fault against the tests that it names
    python -m tests.mutants.faults dcp-child-alpha    one of them
    python -m tests.mutants.faults --list

Each fault is put in by :mod:`tests.mutants.trial`, and the named tests run without the slow ones. A fault that survives
is printed, and the exit code is 1. :mod:`tests.mutants.run` draws faults instead of naming them.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass

from tests.mutants.trial import ROOT, Trial, preload, run

_SEARCH = "classification/search/strategies"
_FLOW = ("tests/classification/search/test_data_flow.py",)


@dataclass(frozen=True)
class Fault:
    """One change of the source.

    Attributes:
        name: by which it is asked for.
        path: of the file, below the repository's root.
        old, new: the text that is there once, and what takes its place.
        tests: paths of the tests that must fail.
    """

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = (
    # Search: what was chosen by training images would look as good as any other.
    Fault(
        "dcp-child-alpha",
        f"{_SEARCH}/dcp_nas.py",
        "self.child_architecture_step(valid, report)",
        "self.child_architecture_step(train, report)",
        _FLOW,
    ),
    Fault(
        "dcp-parent-alpha",
        f"{_SEARCH}/dcp_nas.py",
        "self.parent_architecture_step(valid, report)",
        "self.parent_architecture_step(train, report)",
        _FLOW,
    ),
    Fault(
        "darts-alpha",
        f"{_SEARCH}/darts.py",
        "self.architecture_step(valid, report, train)",
        "self.architecture_step(train, report, train)",
        _FLOW,
    ),
    Fault(
        "cp-nas-evaluation",
        f"{_SEARCH}/cp_nas.py",
        "child=self.evaluate(self.child, data.evaluation, choice=choice)",
        "child=self.evaluate(self.child, data.train, choice=choice)",
        _FLOW,
    ),
    Fault(
        "abanditnas-evaluation",
        f"{_SEARCH}/abanditnas.py",
        "self.evaluate(self.supernet, data.evaluation, choice=choice)",
        "self.evaluate(self.supernet, data.train, choice=choice)",
        _FLOW,
    ),
    Fault(
        "cp-nas-indicator",
        f"{_SEARCH}/cp_nas.py",
        "            self.indicator.reset()\n",
        "",
        ("tests/classification/search/test_sampled.py",),
    ),
    Fault(
        "alpha-betas",
        f"{_SEARCH}/darts.py",
        "betas=(0.5, 0.999)",
        "betas=(0.9, 0.999)",
        ("tests/classification/search/test_strategies.py",),
    ),
    Fault(
        "supernet-momentum",
        f"{_SEARCH}/base.py",
        "momentum=schedule.momentum",
        "momentum=0.0",
        ("tests/classification/search/test_strategies.py",),
    ),
    Fault(
        "evaluation-augmented",
        "classification/search/data.py",
        "augmentation if shuffle else {}",
        "augmentation",
        _FLOW,
    ),
    Fault(
        "epochs-alike",
        "classification/search/loop.py",
        "epoch_seed(self._seed, self._epoch)",
        "epoch_seed(self._seed, 0)",
        _FLOW,
    ),
    # Classification.
    Fault(
        "cutout-wide",
        "classification/augmentation.py",
        "(offset >= self.cutout - self.cutout // 2)",
        "(offset > self.cutout - self.cutout // 2)",
        ("tests/classification/test_model.py",),
    ),
    Fault(
        "crop-last-offset",
        "classification/augmentation.py",
        "2 * self.padding + 1",
        "2 * self.padding",
        ("tests/classification/test_model.py",),
    ),
    Fault(
        "teacher-trains",
        "classification/distillation.py",
        "network.eval().requires_grad_(False)",
        "network.train().requires_grad_(False)",
        ("tests/classification/test_distillation.py",),
    ),
    Fault(
        "crop-min-area",
        "classification/datasets.py",
        "scale=(min_area, 1.0)",
        "scale=(0.08, 1.0)",
        ("tests/classification/test_datasets.py",),
    ),
    Fault(
        "resize-8-7",
        "classification/datasets.py",
        "v2.Resize(size * 8 // 7, antialias=True)",
        "v2.Resize(size, antialias=True)",
        ("tests/classification/test_datasets.py",),
    ),
    # Detection.
    Fault(
        "voc-far-pixels",
        "detection/metrics.py",
        "use_legacy_coordinate=True",
        "use_legacy_coordinate=False",
        ("tests/detection/test_known_ap.py",),
    ),
    Fault(
        "roi-align-edge",
        "detection/plain_operators.py",
        "(at <= size)",
        "(at < size)",
        ("tests/detection/test_operators.py",),
    ),
    Fault(
        "rpn-norm",
        "detection/heads.py",
        "self.num_convs, self._norm_cfg",
        'self.num_convs, dict(type="GN", num_groups=32)',
        ("tests/detection/test_parts.py",),
    ),
    # Re-identification.
    Fault(
        "reid-method-weight",
        "reid/training.py",
        "sum(self.added.values()) / self.first_weight",
        "sum(self.added.values())",
        ("tests/reid/test_runner_recipes.py",),
    ),
    # Tables.
    Fault(
        "winner-recipes",
        "leaderboards/showing/lines.py",
        "of = (line.dataset, line.detector, line.recipe, line.cfg_options)",
        "of = (line.dataset, line.detector, line.cfg_options)",
        ("tests/leaderboards/test_table.py",),
    ),
    Fault(
        "untrained-failed",
        "leaderboards/showing/lines.py",
        "for r in done if r.untrained",
        "for r in group if r.untrained",
        ("tests/leaderboards/test_table.py",),
    ),
    # Commons.
    Fault(
        "seed-first-epoch",
        "commons/engine_hooks.py",
        "        set_random_seed(epoch_seed(self.seed, self.first + runner.epoch, get_rank()))",
        "        if runner.epoch:\n            set_random_seed(epoch_seed(self.seed, self.first + runner.epoch, get_rank()))",
        ("tests/commons/test_engine_hooks.py",),
    ),
    Fault(
        "checksum-full",
        "leaderboards/recording/verification.py",
        "cached=not full",
        "cached=True",
        ("tests/leaderboards/test_verification.py",),
    ),
    # Packed.
    Fault(
        "rsign-norm-first",
        "backbones/packed/layers.py",
        "threshold - in_shift",
        "threshold + in_shift",
        ("tests/backbones/packed/test_conv.py",),
    ),
)


def trial(fault: Fault) -> Trial:
    """The module with ``fault`` in it.

    Raises:
        ValueError: the text that it replaces is not in the file exactly once.
    """
    text = (ROOT / fault.path).read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: {fault.path} has {text.count(fault.old)} times {fault.old!r}, expected 1")
    return Trial(fault.path, text.replace(fault.old, fault.new), fault.tests)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="FAULT")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N")
    args = parser.parse_args()
    known = {fault.name: fault for fault in FAULTS}
    if args.list:
        print("\n".join(known))
        return 0
    if unknown := set(args.names) - set(known):
        parser.error(f"unknown fault {', '.join(sorted(unknown))}")
    faults = [known[name] for name in args.names or known]
    trials = [trial(fault) for fault in faults]
    preload()
    survivors = 0
    for number, test in run(trials, args.jobs):
        print(f"{faults[number].name}: {test or 'SURVIVES'}", flush=True)
        survivors += not test
    print(f"{survivors} of {len(faults)} survive")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
